// Heat maps of attention and of the states' memory.
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).split(',').map(Number);
// A colour of its own for each bin, the same in every picture.
function binColor(bin) {
  let hash = 2166136261;
  for (const c of bin) hash = Math.imul(hash ^ c.charCodeAt(0), 16777619) >>> 0;
  return `hsl(${hash % 360} ${50 + (hash >>> 9) % 30}% ${45 + (hash >>> 17) % 20}%)`;
}
const targetsOf = (sample) => data.targets.filter((t) => t.sample === sample);
const labelOf = (sample, t) => data.samples[sample].labels[t];

function choices(where, pictures, draw) {
  const names = pictures.map((p) => `layer ${p.layer}, sample ${p.sample} (${p.op})`);
  const select = make('select', { id: where + '-choice' }, names.map((name, i) => make('option', { value: i }, name)));
  select.addEventListener('change', () => draw(pictures[Number(select.value)]));
  $(where + '-controls').replaceChildren(make('label', {}, 'Picture ', select));
  draw(pictures[0]);
}
function cutNote(sample, shown) {
  const all = data.samples[sample].tokens.length;
  return shown < all ? make('p', { class: 'note' }, `Cut: the first ${shown} of ${all} tokens are drawn.`) : null;
}

// A square picture, a row a query and a column a key. at(i, j): 0 to 1, or null where there is nothing to see; shade(x): brightness.
function heatMap(length, at, title, choose) {
  const cell = Math.max(1, Math.min(10, Math.floor(560 / length)));
  const canvas = make('canvas', { class: 'heat', width: length * cell, height: length * cell, role: 'img', tabindex: 0, 'aria-label': title });
  const context = canvas.getContext('2d');
  const [low, high, allowed] = [color('--r0'), color('--r1'), color('--allowed')];
  canvas.redraw = (query, key) => {
    context.fillStyle = `rgb(${low})`;
    context.fillRect(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < length; ++i) {
      for (let j = 0; j <= i; ++j) {
        const x = at(i, j);
        if (x === null) continue;
        const s = Math.sqrt(Math.min(1, x));
        context.fillStyle = `rgb(${allowed.map((a, c) => Math.round(a + s * (high[c] - a)))})`;
        context.fillRect(j * cell, i * cell, cell, cell);
      }
    }
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue('--mark');
    context.lineWidth = Math.max(1, cell / 5);
    context.strokeRect(0, query * cell, canvas.width, Math.max(2, cell));
    if (key >= 0) context.strokeRect(key * cell, query * cell, Math.max(2, cell), Math.max(2, cell));
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const clamp = (x) => Math.max(0, Math.min(length - 1, Math.floor(x * length)));
    choose(clamp((event.clientY - box.top) / box.height), clamp((event.clientX - box.left) / box.width));
  };
  canvas.addEventListener('click', place);
  canvas.addEventListener('keydown', (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(length - 1, canvas.query + move[0])), Math.max(0, Math.min(length - 1, canvas.key + move[1])));
  });
  return canvas;
}
function strip(count, fill, title) {
  const canvas = make('canvas', { class: 'strip', width: count, height: 1, role: 'img', 'aria-label': title, title });
  const context = canvas.getContext('2d');
  for (let t = 0; t < count; ++t) { context.fillStyle = fill(t); context.fillRect(t, 0, 1, 1); }
  return canvas;
}
// The sample's tokens as buttons; `share(j)` shades them.
function tokenRow(sample, length, query, share, pick) {
  const target = targetsOf(sample).find((t) => t.position === query);
  return make('div', { class: 'tokens', style: '--shade: 240, 130, 30' }, Array.from({ length }, (_, j) => {
    const marks = [j === query ? 'query' : '', target && target.answer >= 0 && (j === target.answer || j === target.answer + 1) ? 'answer' : ''].join(' ').trim();
    return make('button', { class: marks || undefined, style: `--a: ${(Math.sqrt(Math.min(1, share(j))) * 0.9).toFixed(2)}`, title: `position ${j}`, click: () => pick(j) }, labelOf(sample, j));
  }));
}
function questionTable(sample, length, share, pick) {
  const rows = targetsOf(sample).filter((t) => t.position < length);
  if (!rows.length) return null;
  return make('div', {}, make('h2', {}, 'Questions'), make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Questions' }, make('table', {},
    make('thead', {}, make('tr', {}, ['query', 'right answer', 'model says', 'probability', 'share on the answer’s key and value'].map((t) => make('th', { scope: 'col' }, t)))),
    make('tbody', {}, rows.map((t) => make('tr', {}, make('td', {}, make('button', { class: 'link', click: () => pick(t.position) }, `${labelOf(sample, t.position)} at ${t.position}`)), make('td', {}, t.label),
      make('td', { class: t.predicted === t.label ? undefined : 'wrong' }, t.predicted + (t.predicted === t.label ? '' : ' ✗')), make('td', {}, (100 * t.probability).toFixed(1) + ' %'),
      make('td', {}, t.answer < 0 ? '–' : (100 * (share(t.position, t.answer) + share(t.position, t.answer + 1))).toFixed(1) + ' %')))))));
}

function drawAttention(picture) {
  const length = picture.queries.length, sample = picture.sample;
  const maps = picture.queries.map((list) => { const m = new Map(); for (let z = 0; z < list.length; z += 2) m.set(list[z], list[z + 1]); return m; });
  const tops = maps.map((m) => Math.max(1e-9, ...m.values()));
  const share = (i, j) => (i < length && maps[i].get(j)) || 0;
  const reading = make('p', { class: 'reading', 'aria-live': 'polite', id: 'attention-reading' });
  const row = make('div', {});
  const canvas = heatMap(length, (i, j) => (maps[i].has(j) ? maps[i].get(j) / tops[i] : null), `Attention of layer ${picture.layer}: row is the query, column the key. Arrow keys move.`, choose);
  function choose(i, j) {
    canvas.query = i; canvas.key = j;
    canvas.redraw(i, j);
    const best = [...maps[i].entries()].sort((a, b) => b[1] - a[1]).slice(0, 3).map(([k, w]) => `${labelOf(sample, k)} at ${k} (${(100 * w).toFixed(1)} %)`).join(', ');
    const target = targetsOf(sample).find((t) => t.position === i);
    reading.textContent = `Query ${labelOf(sample, i)} at ${i}, ${maps[i].size} keys allowed` + (best ? `; looks most at ${best}` : '') + `. Key ${labelOf(sample, j)} at ${j}: ` +
      (j > i ? 'later than the query.' : maps[i].has(j) ? `${(100 * maps[i].get(j)).toFixed(2)} %.` : 'not allowed.') + (picture.query_bin ? ` Query’s bin ${picture.query_bin[i]}, key’s bin ${picture.key_bin[j]}.` : '') +
      (picture.key_score ? ` Key’s score ${number(picture.key_score[j])}.` : '') + (target ? ` Asked for ${target.label}, says ${target.predicted}.` : '');
    row.replaceChildren(tokenRow(sample, length, i, (k) => share(i, k), (k) => choose(k, Math.min(k, j))));
  }
  const strips = [];
  if (picture.key_bin) strips.push(strip(length, (t) => binColor(picture.key_bin[t]), 'Keys, coloured by their hash bin'), strip(length, (t) => binColor(picture.query_bin[t]), 'Queries, coloured by their hash bin'));
  if (picture.key_score) {
    const [least, most] = [Math.min(...picture.key_score), Math.max(...picture.key_score)], [low, high] = [color('--r0'), color('--r1')];
    strips.push(strip(length, (t) => { const s = most > least ? (picture.key_score[t] - least) / (most - least) : 0; return `rgb(${low.map((a, c) => Math.round(a + s * (high[c] - a)))})`; }, 'Scores of the keys, key selection'));
  }
  strips.forEach((s) => { s.style.width = canvas.width + 'px'; });
  fill($('attention-body'), [cutNote(sample, length), make('p', { class: 'note' }, 'A row is a query, a column a key. Grey: allowed; the darker (lighter on dark) the more weight, relative to the row’s largest.' +
    (strips.length ? ' Below: ' + strips.map((s) => s.title.toLowerCase()).join('; ') + '.' : '')), make('div', { class: 'picture' }, make('div', {}, canvas, strips), make('div', {}, reading, row)), questionTable(sample, length, share, (i) => choose(i, 0))]);
  const first = targetsOf(sample).find((t) => t.position < length);
  choose(first ? first.position : length - 1, first && first.answer >= 0 ? first.answer : 0);
}

// A curve over the tokens, with a band where `least` and `most` are given.
function curve(title, values, least, most) {
  const w = 700, h = 130, top = Math.max(1e-12, ...(most || values)), n = values.length;
  const x = (t) => 44 + (w - 54) * (n > 1 ? t / (n - 1) : 0), y = (v) => 112 - 100 * (v / top);
  const line = (v) => v.map((a, t) => `${t ? 'L' : 'M'}${x(t).toFixed(1)} ${y(a).toFixed(1)}`).join('');
  return make('figure', { style: 'margin:0' }, make('h3', {}, title), make('svg', { class: 'curve', viewBox: `0 0 ${w} ${h}`, role: 'img', 'aria-label': `${title}: from ${number(Math.min(...values))} to ${number(Math.max(...values))} over ${n} tokens` },
    make('line', { class: 'axis', x1: 44, x2: w - 10, y1: 112, y2: 112 }), make('line', { class: 'axis', x1: 44, x2: 44, y1: 8, y2: 112 }),
    least ? make('path', { class: 'band', d: line(most) + [...least.keys()].reverse().map((t) => `L${x(t).toFixed(1)} ${y(least[t]).toFixed(1)}`).join('') + 'Z' }) : null, make('path', { d: line(values) }),
    make('text', { x: 40, y: 16, 'text-anchor': 'end' }, number(top)), make('text', { x: 40, y: 112, 'text-anchor': 'end' }, '0'), make('text', { x: 44, y: 126 }, 'token 0'), make('text', { x: w - 10, y: 126, 'text-anchor': 'end' }, `token ${n - 1}`)));
}
function drawState(picture) {
  const length = picture.kept.length, sample = picture.sample;
  const kept = (i, j) => (j > i ? 0 : picture.kept[i][i - j] || 0);
  const reading = make('p', { class: 'reading', 'aria-live': 'polite', id: 'state-reading' });
  const row = make('div', {});
  const reach = picture.kept.map((list) => list.filter((x) => x >= 0.1).length);
  const canvas = heatMap(length, (i, j) => kept(i, j) || null, `What the state of layer ${picture.layer} still holds: row is now, column the token that wrote. Arrow keys move.`, choose);
  function choose(i, j) {
    canvas.query = i; canvas.key = j;
    canvas.redraw(i, j);
    reading.textContent = `At token ${labelOf(sample, i)} (${i}) the state keeps ${(100 * kept(i, j)).toFixed(2)} % of what ${labelOf(sample, j)} (${j}) wrote. A tenth or more is left of the last ${reach[i]} tokens. Δ ${number(picture.dt_mean[i])} on average, |state| ${number(picture.state_norm[i])}.`;
    row.replaceChildren(tokenRow(sample, length, i, (k) => kept(i, k), (k) => choose(k, Math.min(k, j))));
  }
  fill($('state-body'), [cutNote(sample, length), make('p', { class: 'note' }, 'How far back an output can depend on its inputs: the share that is left of what each earlier token wrote into the state, the product of the decays exp(Δ A) in between, averaged over channels and states. Below a thousandth nothing is drawn.'),
    make('div', { class: 'picture' }, make('div', {}, canvas), make('div', {}, reading, row)),
    curve('Δ of each token (mean; band: smallest to largest)', picture.dt_mean, picture.dt_least, picture.dt_most), curve('Norm of the state', picture.state_norm), curve('Tokens of which a tenth or more is left', reach)]);
  choose(length - 1, Math.max(0, length - 4));
}
