// Attention and the states' memory, from the packed rows of the page (pack.h).
const digits = new Uint8Array(128);
[...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'].forEach((c, i) => { digits[c.charCodeAt(0)] = i; });
function unpack(text, at, count) {
  let value = 0;
  for (let n = 0; n < count; ++n) value = 64 * value + digits[text.charCodeAt(at + n)];
  return value;
}
function unpackShare(text, at, count, least) {
  const code = unpack(text, at, count);
  return code ? Math.exp(Math.log(least) * (1 - (code - 1) / (64 ** count - 2))) : 0;
}
// What a query sees: keys ascending, a weight each.
function unpackKeys(text, query) {
  const all = text.startsWith('*'), width = all ? 3 : 5;
  const count = (text.length - (all ? 1 : 0)) / width;
  const keys = new Int32Array(count), weights = new Float64Array(count);
  for (let z = 0, at = all ? 1 : 0; z < count; ++z, at += width) {
    keys[z] = all ? z : unpack(text, at, 2);
    weights[z] = unpackShare(text, all ? at : at + 2, 3, 1e-6);
  }
  let most = 1e-9;
  for (const w of weights) most = Math.max(most, w);
  const slot = new Int32Array(query + 1).fill(-1);
  keys.forEach((key, z) => { slot[key] = z; });
  return { keys, weights, most, sees: (j) => j <= query && slot[j] >= 0, weight: (j) => (j >= 0 && j <= query && slot[j] >= 0 ? weights[slot[j]] : 0) };
}
function unpackKept(text) {
  const kept = new Float64Array(text.length / 2);
  for (let d = 0; d < kept.length; ++d) kept[d] = unpackShare(text, 2 * d, 2, 1e-3);
  return kept;
}
// The nearest row that is in the file: at or below i when `direction` > 0 and there is one, else at or above.
function snapper(packed) {
  return (i, direction) => {
    let at = i;
    if (direction > 0) { while (at < packed.length && packed[at] === null) ++at; if (at < packed.length) return at; at = i; }
    while (at > 0 && packed[at] === null) --at;
    return at;
  };
}

const targetsOf = (sample) => data.targets.filter((t) => t.sample === sample);
const labelOf = (sample, t) => data.samples[sample].labels[t];
const percent = (x, figures = 3) => (x >= 0.9995 ? '100' : x > 0 ? Number((100 * x).toPrecision(figures)) : 0) + ' %';

function choices(where, pictures, draw) {
  const names = pictures.map((p) => `layer ${p.layer}, sample ${p.sample} (${p.op})`);
  const before = $(where + '-choice') ? $(where + '-choice').value : 0;
  const select = make('select', { id: where + '-choice' }, names.map((name, i) => make('option', { value: i }, name)));
  const own = make('span', { class: 'controls', id: where + '-own' });
  select.value = before;
  select.addEventListener('change', () => draw(pictures[Number(select.value)], own));
  $(where + '-controls').replaceChildren(make('label', {}, 'Picture ', select), own);
  draw(pictures[Number(select.value)], own);
}
function choice(name, options, change) {
  const select = make('select', {}, options.map(([value, text]) => make('option', { value }, text)));
  select.addEventListener('change', () => change(select.value));
  return make('label', {}, name + ' ', select);
}
const zoomChoice = (map) => choice('Zoom', [[1, '1 ×'], [2, '2 ×'], [4, '4 ×']], (factor) => map.zoom(Number(factor)));
function notes(sample, packed, asks) {
  const all = data.samples[sample].tokens.length, shown = packed.length, texts = [];
  if (shown < all) texts.push(`Cut: the first ${shown} of ${all} tokens are drawn.`);
  if (packed.includes(null)) {
    const asked = data.asked_stride === 1 ? ', and every one that asks for an answer' : `, and of those that ask for an answer one in ${data.asked_stride}`;
    texts.push(`Thinned, so that this file stays small: one row in ${data.row_stride}${asks ? asked : ''}; the rows between repeat the one above. Fewer samples, or --format json, have them all.`);
  }
  if (data.pictures_left_out) texts.push(`${data.pictures_left_out} pictures of the last layers and samples are left out, so that this file stays small.`);
  return texts.map((text) => make('p', { class: 'note cut' }, text));
}
const swatch = (color, text) => make('span', { class: 'swatch' }, make('i', { style: `background:${color}`, 'aria-hidden': 'true' }), text);
const frameSwatch = (color, text) => make('span', { class: 'swatch' }, make('i', { style: `border:2px solid ${color}`, 'aria-hidden': 'true' }), text);

// The sample's tokens as buttons; show(query, share, answer) shades them.
function tokenRow(sample, length, pick) {
  const buttons = Array.from({ length }, (_, j) => make('button', { title: `position ${j}`, click: () => pick(j) }, labelOf(sample, j)));
  const row = make('div', { class: 'tokens', role: 'group', 'aria-label': 'Tokens of the sample' }, buttons);
  row.show = (query, share, answer) => buttons.forEach((button, j) => {
    button.style.setProperty('--a', (0.85 * Math.sqrt(Math.min(1, share(j)))).toFixed(2));
    button.className = j === query ? 'query' : answer >= 0 && (j === answer || j === answer + 1) ? 'answer' : '';
  });
  return row;
}
const heads = (names) => make('thead', {}, make('tr', {}, names.map((t) => make('th', { scope: 'col' }, t))));
function questionTable(sample, length, share, pick) {
  const rows = targetsOf(sample).filter((t) => t.position < length);
  if (!rows.length) return null;
  return make('div', {}, make('h2', {}, 'Questions'), make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Questions' }, make('table', { id: 'questions' },
    heads(['query', 'right answer', 'model says', 'probability of the right one', 'attention on the answer’s key and value']),
    make('tbody', {}, rows.map((t) => {
      const attention = t.answer < 0 ? null : share(t.position, t.answer, t.answer + 1);
      return make('tr', {}, make('td', {}, make('button', { class: 'link', click: () => pick(t.position) }, `${labelOf(sample, t.position)} at ${t.position}`)), make('td', {}, t.label),
        make('td', { class: t.predicted === t.label ? undefined : 'wrong' }, t.predicted + (t.predicted === t.label ? '' : ' ✗')), make('td', {}, percent(t.probability)),
        make('td', {}, attention === null ? '–' : percent(attention)));
    })))));
}

function drawAttention(picture, own) {
  const length = picture.packed.length, sample = picture.sample, snap = snapper(picture.packed);
  const rows = picture.packed.map((text, i) => (text === null ? null : unpackKeys(text, i)));
  const row = (i) => rows[i] || rows[snap(i, 0)];
  const label = (t) => `${labelOf(sample, t)} at ${t}`;
  const bins = picture.key_bin, scores = picture.key_score;
  let shade = 'row';
  const [ground, high, allowed] = [rgb('--r0'), rgb('--r1'), rgb('--allowed')];
  const [weightColor, otherColor, scoreColor] = [ramp(allowed, high), ramp(mix(ground, allowed, 0.3), allowed), ramp(ground, high)];
  const paint = (i, j) => {
    const seen = row(i);
    if (!seen.sees(j)) return null;
    const s = Math.sqrt(Math.min(1, seen.weight(j) / (shade === 'absolute' ? 1 : seen.most)));
    if (shade === 'bin' && bins[j] === picture.query_bin[i]) return mix(ground, binColor(bins[j]), 0.25 + 0.75 * s);
    return (shade === 'bin' ? otherColor : weightColor)(s);
  };
  const strips = [];
  if (bins) strips.push({ name: 'K bin', paint: (t) => binColor(bins[t]) }, { name: 'Q bin', paint: (t) => binColor(picture.query_bin[t]) });
  if (scores) {
    let [least, most] = [Infinity, -Infinity];
    for (const s of scores) { least = Math.min(least, s); most = Math.max(most, s); }
    strips.push({ name: 'score', paint: (t) => scoreColor(most > least ? (scores[t] - least) / (most - least) : 0) });
  }
  const asked = targetsOf(sample).filter((t) => t.position < length);
  const marks = asked.filter((t) => t.answer >= 0 && rows[t.position]).flatMap((t) => [[t.position, t.answer], [t.position, t.answer + 1]]);
  const reading = make('p', { class: 'reading', 'aria-live': 'polite', id: 'attention-reading' });
  const pointer = make('p', { class: 'note pointer', id: 'attention-hover', 'aria-hidden': 'true' }, 'Point at a cell, or move with the arrow keys.');
  const list = make('details', { class: 'list' }, make('summary', {}, 'All keys of this query, as a table'));
  const pair = (i, j) => (j > i ? 'later than the query' : row(i).sees(j) ? percent(row(i).weight(j)) : 'not allowed');
  const keyTable = () => {
    const { keys, weights } = row(map.canvas.query);
    const order = [...keys.keys()].sort((a, b) => weights[b] - weights[a]);
    const table = make('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Keys of the query' }, make('table', {},
      heads(['key', 'weight', bins ? 'bin' : null, scores ? 'score' : null].filter(Boolean)),
      make('tbody', {}, order.map((z) => make('tr', {}, make('td', {}, label(keys[z])), make('td', {}, percent(weights[z])),
        bins ? make('td', {}, bins[keys[z]] + (bins[keys[z]] === picture.query_bin[map.canvas.query] ? ' (the query’s)' : '')) : null, scores ? make('td', {}, number(scores[keys[z]])) : null)))));
    list.replaceChildren(list.firstChild, table);
  };
  list.addEventListener('toggle', () => list.open && keyTable());
  const tokens = tokenRow(sample, length, (t) => map.move(t, Math.min(t, map.canvas.key)));
  const map = heatMap({ length, labels: data.samples[sample].labels, axes: ['query', 'key'], paint, snap, strips, marks, describedBy: 'attention-reading',
    title: `Attention of layer ${picture.layer}: a row a query, a column a key. Arrow keys move.`,
    hover: (i, j) => { pointer.textContent = i < 0 ? 'Point at a cell, or move with the arrow keys.' : `Query ${label(i)}, key ${label(j)}: ${pair(i, j)}${bins && j <= i ? bins[j] === picture.query_bin[i] ? ', the same bin' : ', another bin' : ''}`; },
    choose: (i, j) => {
      const { keys, weights } = row(i);
      const best = [...keys.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 3).map((z) => `${label(keys[z])} (${percent(weights[z])})`).join(', ');
      const target = asked.find((t) => t.position === i);
      reading.textContent = `Query ${label(i)}, ${keys.length} keys allowed${best ? `; looks most at ${best}` : ''}. Key ${label(j)}: ${pair(i, j)}.` +
        (bins ? ` Query’s bin ${picture.query_bin[i]}, key’s bin ${bins[j]}.` : '') + (scores ? ` Key’s score ${number(scores[j])}.` : '') +
        (target ? ` Asked for ${target.label}, says ${target.predicted}.` : '') + (target && target.answer >= 0 ? ` The answer is at ${target.answer + 1}.` : '');
      tokens.show(i, (k) => row(i).weight(k), target ? target.answer : -1);
      if (list.open) keyTable();
    } });
  own.replaceChildren(choice('Shade', [['row', 'weight, relative to its row'], ['absolute', 'weight'], ...(bins ? [['bin', 'hash bin']] : [])], (value) => { shade = value; map.paint(); }), zoomChoice(map));
  fill($('attention-body'), [notes(sample, picture.packed, true), make('p', { class: 'legend' }, 'A row is a query, a column a key. ', swatch(`rgb(${allowed})`, 'allowed'), swatch(`rgb(${high})`, 'weight'), frameSwatch(css('--mark'), 'chosen'),
    marks.length ? frameSwatch(css('--answer'), 'key and value of the answer') : null, strips.length ? ' Strips below: ' + [bins ? 'hash bins of keys and of queries, a colour a bin' : null, scores ? 'scores by which keys are selected' : null].filter(Boolean).join('; ') + '.' : null),
    make('div', { class: 'picture' }, make('div', {}, map.frame, pointer), make('div', {}, reading, tokens, list)),
    questionTable(sample, length, (i, ...keys) => (rows[i] ? keys.reduce((sum, j) => sum + rows[i].weight(j), 0) : null), (i) => map.move(i, (asked.find((t) => t.position === i) || { answer: 0 }).answer))]);
  const first = asked.find((t) => rows[t.position]);
  map.paint();
  map.move(first ? first.position : length - 1, first && first.answer >= 0 ? first.answer : 0);
}

// A curve over the tokens, with a band where `least` and `most` are given.
function curve(title, values, least, most) {
  const w = 700, h = 130, n = values.length;
  let top = 1e-12;
  for (const v of most || values) top = Math.max(top, v);
  const x = (t) => 44 + (w - 54) * (n > 1 ? t / (n - 1) : 0), y = (v) => 112 - 100 * (v / top);
  const line = (v) => v.map((a, t) => `${t ? 'L' : 'M'}${x(t).toFixed(1)} ${y(a).toFixed(1)}`).join('');
  const [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  return make('figure', { style: 'margin:0' }, make('h3', {}, title), make('svg', { class: 'curve', viewBox: `0 0 ${w} ${h}`, role: 'img', 'aria-label': `${title}: from ${number(low)} to ${number(high)} over ${n} tokens` },
    make('line', { class: 'axis', x1: 44, x2: w - 10, y1: 112, y2: 112 }), make('line', { class: 'axis', x1: 44, x2: 44, y1: 8, y2: 112 }),
    least ? make('path', { class: 'band', d: line(most) + [...least.keys()].reverse().map((t) => `L${x(t).toFixed(1)} ${y(least[t]).toFixed(1)}`).join('') + 'Z' }) : null, make('path', { d: line(values) }),
    make('text', { x: 40, y: 16, 'text-anchor': 'end' }, number(top)), make('text', { x: 40, y: 112, 'text-anchor': 'end' }, '0'), make('text', { x: 44, y: 126 }, 'token 0'), make('text', { x: w - 10, y: 126, 'text-anchor': 'end' }, `token ${n - 1}`)));
}
function drawState(picture, own) {
  const length = picture.packed.length, sample = picture.sample, snap = snapper(picture.packed);
  const rows = picture.packed.map((text) => (text === null ? null : unpackKept(text)));
  const kept = (i, j) => { const r = rows[i] ? i : snap(i, 0); return j > r ? 0 : rows[r][r - j] || 0; };
  const reading = make('p', { class: 'reading', 'aria-live': 'polite', id: 'state-reading' });
  const pointer = make('p', { class: 'note pointer', id: 'state-hover', 'aria-hidden': 'true' }, 'Point at a cell, or move with the arrow keys.');
  const keptColor = ramp(rgb('--allowed'), rgb('--r1'));
  const label = (t) => `${labelOf(sample, t)} at ${t}`;
  const tokens = tokenRow(sample, length, (t) => map.move(t, Math.min(t, map.canvas.key)));
  const map = heatMap({ length, labels: data.samples[sample].labels, axes: ['now', 'wrote'], snap, describedBy: 'state-reading',
    paint: (i, j) => { const x = kept(i, j); return x > 0 ? keptColor(Math.sqrt(x)) : null; },
    title: `What the state of layer ${picture.layer} still holds: a row a moment, a column the token that wrote. Arrow keys move.`,
    hover: (i, j) => { pointer.textContent = i < 0 ? 'Point at a cell, or move with the arrow keys.' : `At ${label(i)}, of what ${label(j)} wrote: ${j > i ? 'not yet written' : percent(kept(i, j), 2)}`; },
    choose: (i, j) => {
      reading.textContent = `At token ${label(i)} the state keeps ${percent(kept(i, j), 2)} of what ${label(j)} wrote. A tenth or more is left of the last ${picture.reach[i]} tokens. Δ ${number(picture.dt_mean[i])} on average, |state| ${number(picture.state_norm[i])}.`;
      tokens.show(i, (k) => kept(i, k), -1);
    } });
  own.replaceChildren(zoomChoice(map));
  fill($('state-body'), [notes(sample, picture.packed, false), make('p', { class: 'legend' }, 'How far back an output can depend on its inputs: the share that is left of what each earlier token wrote into the state, the product of the decays exp(Δ A) in between, averaged over channels and states. Row: now. Column: the token that wrote. Below a thousandth nothing is drawn.'),
    make('div', { class: 'picture' }, make('div', {}, map.frame, pointer), make('div', {}, reading, tokens)),
    curve('Δ of each token (mean; band: smallest to largest)', picture.dt_mean, picture.dt_least, picture.dt_most), curve('Norm of the state', picture.state_norm), curve('Tokens of which a tenth or more is left', picture.reach)]);
  map.paint();
  map.move(length - 1, Math.max(0, length - 4));
}
