// A heat map: a row a query, a column a key, with token labels, strips below, hover, click and keys.
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rgb = (name) => css(name).split(',').map(Number);
const mix = (a, b, s) => a.map((x, c) => Math.round(x + s * (b[c] - x)));
// s from 0 to 1 -> a colour between a and b.
function ramp(a, b) {
  const table = Array.from({ length: 256 }, (_, n) => mix(a, b, n / 255));
  return (s) => table[Math.round(255 * Math.min(1, s))];
}
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

// A colour of its own for each bin, the same in every picture.
const binColors = new Map();
function binColor(bin) {
  if (!binColors.has(bin)) {
    let hash = 2166136261;
    for (const c of bin) hash = Math.imul(hash ^ c.charCodeAt(0), 16777619) >>> 0;
    const [h, s, l] = [hash % 360, 0.5 + ((hash >>> 9) % 30) / 100, 0.45 + ((hash >>> 17) % 20) / 100];
    const channel = (n) => { const k = (n + h / 30) % 12; return Math.round(255 * (l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1)))); };
    binColors.set(bin, [channel(0), channel(8), channel(4)]);
  }
  return binColors.get(bin);
}

// Pixels, one a cell; paint(i, j) is [r, g, b] or null for the ground.
function pixels(columns, rows, paint) {
  const canvas = make('canvas', { width: columns, height: rows });
  const context = canvas.getContext('2d');
  const image = context.createImageData(columns, rows);
  const ground = rgb('--r0');
  for (let i = 0, at = 0; i < rows; ++i) {
    for (let j = 0; j < columns; ++j, at += 4) {
      const [r, g, b] = paint(i, j) || ground;
      image.data[at] = r; image.data[at + 1] = g; image.data[at + 2] = b; image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// length: tokens. labels[t]. paint(i, j): a cell's colour. snap(i): the nearest query that is in the file, from below for
// `up` > 0. axes: what a row is, what a column is. strips: [{ name, paint(t) }]. marks: cells [i, j] of right answers. title: for who cannot see. choose(i, j) is told
// what was picked, hover(i, j) what is under the pointer (i < 0: nothing).
function heatMap({ length, labels, axes, paint, snap, strips = [], marks = [], title, describedBy, choose, hover }) {
  const left = 52, above = 18, below = 30, stripHeight = 13;
  const canvas = make('canvas', { class: 'heat', 'data-length': length, tabindex: 0, role: 'application', 'aria-roledescription': 'heat map', 'aria-label': title, 'aria-describedby': describedBy });
  const frame = make('div', { class: 'heat-frame' }, canvas);
  let cells, rows, zoom = 1, side = 100;
  const height = () => above + side + strips.length * stripHeight + below;

  function draw() {
    side = Math.max(120, Math.min(560, (frame.clientWidth || 560) - left - 2)) * zoom;
    const dpr = Math.min(window.devicePixelRatio || 1, 4000 / (left + side));  // a phone has no larger canvas
    canvas.style.width = `${left + side}px`;
    canvas.style.height = `${height()}px`;
    canvas.width = Math.round((left + side) * dpr);
    canvas.height = Math.round(height() * dpr);
    const context = canvas.getContext('2d');
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    const cell = side / length, { query, key } = canvas;
    context.fillStyle = css('--page');
    context.fillRect(0, 0, left + side, height());
    context.translate(0, above);
    context.imageSmoothingEnabled = length > side * dpr;
    context.drawImage(cells, left, 0, side, side);
    rows.forEach((strip, n) => {
      context.imageSmoothingEnabled = false;
      context.drawImage(strip, left, side + n * stripHeight + 1, side, stripHeight - 1);
    });

    context.font = '10px ui-monospace, monospace';
    context.textBaseline = 'middle';
    const name = (t, bold, x, y, turned) => {
      context.save();
      context.translate(x, y);
      if (turned) context.rotate(-Math.PI / 2);
      context.textAlign = 'right';
      const text = labels[t].length > 5 ? labels[t].slice(0, 4) + '…' : labels[t];
      if (bold) {
        const w = context.measureText(text).width;
        context.fillStyle = css('--mark');
        context.fillRect(-w - 3, -7, w + 6, 14);
      }
      context.fillStyle = css(bold ? '--page' : '--soft');
      context.fillText(text, 0, 0);
      context.restore();
    };
    const step = Math.max(1, Math.ceil(11 / cell)), foot = side + strips.length * stripHeight + 4;
    for (let t = 0; t < length; t += step) {
      if (Math.abs(t - query) * cell > 12) name(t, false, left - 4, (t + 0.5) * cell, false);
      if (Math.abs(t - key) * cell > 12) name(t, false, left + (t + 0.5) * cell, foot, true);
    }
    context.textAlign = 'right';
    context.fillStyle = css('--text');
    context.fillText(`${axes[1]} →`, left - 4, foot + 14);
    context.fillText(`↓ ${axes[0]}`, left - 4, -10);
    strips.forEach((strip, n) => context.fillText(strip.name, left - 4, side + (n + 0.5) * stripHeight));

    const box = (i, j, color, width) => {
      context.strokeStyle = color;
      context.lineWidth = width;
      const w = Math.max(cell, 4);
      context.strokeRect(left + (j + 0.5) * cell - w / 2, (i + 0.5) * cell - w / 2, w, w);
    };
    for (const [i, j] of marks) box(i, j, css('--answer'), i === query ? 2.5 : 1);
    context.strokeStyle = css('--mark');
    context.lineWidth = 1;
    const h = Math.max(cell, 3);
    context.strokeRect(left, (query + 0.5) * cell - h / 2, side, h);
    context.setLineDash([2, 4]);
    context.beginPath();
    context.moveTo(left + (key + 0.5) * cell, 0);
    context.lineTo(left + (key + 0.5) * cell, foot - 4);
    context.stroke();
    context.setLineDash([]);
    box(query, key, css('--mark'), 2);
    name(query, true, left - 4, clamp((query + 0.5) * cell, 7, side - 7), false);
    name(key, true, left + clamp((key + 0.5) * cell, 7, side - 7), foot, true);
  }
  const place = (event) => {
    const bounds = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left - left, event.clientY - bounds.top - above];
    if (x < 0 || y < 0 || y >= side) return null;
    return [clamp(Math.floor((y / side) * length), 0, length - 1), clamp(Math.floor((x / side) * length), 0, length - 1)];
  };
  const move = (i, j) => {
    canvas.query = snap(clamp(i, 0, length - 1), i - canvas.query);
    canvas.key = clamp(j, 0, length - 1);
    if (cells) draw();
    choose(canvas.query, canvas.key);
  };
  canvas.addEventListener('click', (event) => { const at = place(event); if (at) move(at[0], at[1]); });
  canvas.addEventListener('pointermove', (event) => { const at = place(event); if (at) hover(snap(at[0], 0), at[1]); else hover(-1, -1); });
  canvas.addEventListener('pointerleave', () => hover(-1, -1));
  canvas.addEventListener('keydown', (event) => {
    const { query: i, key: j } = canvas;
    const to = { ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1], PageUp: [i - 10, j], PageDown: [i + 10, j], Home: [i, 0], End: [i, i] }[event.key];
    if (!to) return;
    event.preventDefault();
    move(to[0], to[1]);
  });
  new ResizeObserver(() => { if (cells && Math.abs(side - Math.max(120, Math.min(560, frame.clientWidth - left - 2)) * zoom) > 2) draw(); }).observe(frame);
  canvas.query = canvas.key = 0;
  return {
    frame, canvas, move,
    // Paints the cells anew, as after a change of colours.
    paint() {
      cells = pixels(length, length, (i, j) => (j > i ? null : paint(i, j)));
      rows = strips.map((strip) => pixels(length, 1, (_, t) => strip.paint(t)));
      draw();
    },
    zoom(factor) { zoom = factor; draw(); },
  };
}
