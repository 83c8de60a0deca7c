// Small helpers, the ops folded by scope, the backward pass and the parameters.
const data = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);

// An element with attributes and children; text is always text, never markup.
function make(tag, attributes, ...children) {
  const svg = ['svg', 'rect', 'text', 'path', 'line', 'title'].includes(tag);
  const element = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === 'click') element.addEventListener('click', value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
  return element;
}
// Puts children, lists of them and gaps (null) in place of what an element holds.
const fill = (element, ...children) => element.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));
const number = (x) => (x === null || x === undefined ? '–' : x === 0 ? '0' : Math.abs(x) >= 1e4 || Math.abs(x) < 1e-3 ? x.toExponential(2) : String(Number(x.toPrecision(4))));
const time = (s) => (s === undefined ? '–' : s >= 1e-3 ? (1e3 * s).toFixed(1) + ' ms' : (1e6 * s).toFixed(1) + ' µs');
const bytes = (b) => (b >= 1e6 ? (b / 1e6).toFixed(1) + ' MB' : b >= 1e3 ? (b / 1e3).toFixed(1) + ' kB' : b + ' B');
const shape = (s) => '[' + s.join(', ') + ']';
const short = (scope) => scope.replace('backbone.', '') || 'model';

function histogram(stats, color, title) {
  const top = Math.max(1, ...stats.histogram);
  const bars = stats.histogram.map((n, i) => make('rect', { x: 10 * i, y: 50 - 50 * Math.sqrt(n / top), width: 9, height: 50 * Math.sqrt(n / top), style: `--c: var(--${color})` }, make('title', {}, `${n} numbers`)));
  return make('figure', {}, make('figcaption', {}, title), make('svg', { class: 'histogram', viewBox: '0 0 240 50', role: 'img', preserveAspectRatio: 'none',
    'aria-label': `${title}: histogram from ${number(stats.min)} to ${number(stats.max)}, the fullest of ${stats.histogram.length} bins has ${top} numbers` }, bars),
    make('div', { class: 'ends' }, make('span', {}, number(stats.min)), make('span', {}, number(stats.max))));
}
// Value and gradient side by side.
function statistics(columns) {
  const share = (part, s) => (s.count ? (100 * part / s.count).toFixed(part ? 1 : 0) + ' %' : '–');
  const lines = [['norm', (s) => number(s.norm)], ['mean', (s) => number(s.mean)], ['std', (s) => number(s.std)], ['min', (s) => number(s.min)], ['max', (s) => number(s.max)],
    ['zeros', (s) => share(s.zeros, s)], ['NaN, infinite', (s) => share(s.nan + s.infinite, s)]];
  return make('table', {}, make('thead', {}, make('tr', {}, make('td', {}), columns.map(([name]) => make('th', { scope: 'col' }, name)))),
    make('tbody', {}, lines.map(([name, read]) => make('tr', {}, make('th', { scope: 'row' }, name), columns.map(([, s]) => make('td', { class: name === 'NaN, infinite' && s.nan + s.infinite ? 'wrong' : undefined }, read(s)))))));
}
function tensorCard(name, tensor) {
  const columns = [['value', tensor.value]];
  if (tensor.gradient) columns.push(['gradient', tensor.gradient]);
  return make('div', {}, make('h3', {}, `${name} ${shape(tensor.shape)} ${tensor.dtype}, ${bytes(tensor.bytes)}`), make('div', { class: 'numbers' }, statistics(columns),
    make('div', {}, columns.filter(([, s]) => s.count).map(([what, s]) => histogram(s, what, what)))));
}
// A formula on one line needs no wide gaps between its parts.
const formulaOf = (op) => {
  const text = (data.formulas[op] || '').trimEnd();
  return text ? make('pre', { tabindex: 0, 'aria-label': 'Formula' }, text.includes('\n') ? text : text.replace(/ {3,}/g, '   ')) : null;
};

// Ops by scope, nested, in the order in which scopes first appear.
function scopeTree() {
  const root = { inner: new Map(), items: [], seconds: 0, bytes: 0, count: 0 };
  data.ops.forEach((op, index) => {
    let at = root;
    const size = op.outputs.reduce((sum, y) => sum + y.bytes, 0);
    const path = op.scope ? op.scope.replace('layers.', 'layers·').split('.') : [];
    for (const part of ['', ...path]) {
      if (part) {
        if (!at.inner.has(part)) {
          const next = { name: part.replace('·', '.'), inner: new Map(), items: [], seconds: 0, bytes: 0, count: 0 };
          at.inner.set(part, next);
          at.items.push(next);
        }
        at = at.inner.get(part);
      }
      at.seconds += op.forward_s + (op.backward_s || 0);
      at.bytes += size;
      at.count += 1;
    }
    at.items.push(index);
  });
  return root;
}
// Whether the details stand below the graph, as on a phone.
const stacked = () => matchMedia('(max-width: 56rem)').matches;
function opButton(index) {
  const op = data.ops[index];
  const gradient = op.outputs.find((y) => y.gradient);
  return make('button', { class: 'op', id: 'op-' + index, click: () => { showOp(index); if (stacked()) $('detail').scrollIntoView(); } }, make('span', { class: 'name' }, op.op),
    make('span', { class: 'note' }, `${op.outputs.map((y) => shape(y.shape)).join(' ')} · ${time(op.forward_s)}` + (gradient ? ` · gradient ${number(gradient.gradient.norm)}` : op.recorded ? '' : ' · no gradient')));
}
function scopeElement(node, depth) {
  return make('details', { open: depth < 2 }, make('summary', {}, make('b', {}, node.name), make('span', { class: 'note' }, ` ${node.count} ops, ${time(node.seconds)}, ${bytes(node.bytes)}`)),
    node.items.map((item) => (typeof item === 'number' ? opButton(item) : scopeElement(item, depth + 1))));
}
function opLink(index) {
  return make('button', { class: 'link', click: () => { selectTab('graph'); showOp(index); $('detail').focus(); } }, `${data.ops[index].op} (${short(data.ops[index].scope)})`);
}
// An input that the op may do without, and did.
const given = (input) => input.op !== undefined || input.parameter || input.shape.length || input.gradient_norm !== undefined;
function inputName(input) {
  if (input.op !== undefined) return opLink(input.op);
  return make('span', {}, input.parameter ? 'parameter ' + input.parameter.replace('backbone.', '') : 'constant');
}
let chosen = -1;
function showOp(index) {
  const op = data.ops[index];
  document.querySelectorAll('.op[aria-current]').forEach((e) => e.removeAttribute('aria-current'));
  const button = $('op-' + index);
  if (button) {
    button.setAttribute('aria-current', 'true');
    for (let e = button.parentElement; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true;
  }
  const users = data.ops.map((o, i) => [o, i]).filter(([o]) => o.inputs.some((input) => input.op === index)).map(([, i]) => i);
  fill($('detail'), make('button', { class: 'back', click: () => { button.focus(); button.scrollIntoView({ block: 'center' }); } }, 'Back to the graph'), make('h2', {}, op.op), make('p', { class: 'note' }, `op ${index + 1} of ${data.ops.length}, in ${op.scope || 'the step itself'}. Forward ${time(op.forward_s)}` +
    (op.backward_order !== undefined ? `, backward ${time(op.backward_s)}, step ${op.backward_order + 1} of the backward pass.` : op.recorded ? '. No gradient reached it.' : '. Computed without a gradient: a choice, or a number to look at.')),
    formulaOf(op.op), make('h3', {}, 'Reads'), make('ul', {}, op.inputs.filter(given).map((input) => make('li', {}, inputName(input), ` ${shape(input.shape)}`, input.gradient_norm !== undefined ? `, gets a gradient of norm ${number(input.gradient_norm)}` : ''))),
    users.length ? make('h3', {}, 'Read by') : null, users.length ? make('ul', {}, users.map((i) => make('li', {}, opLink(i)))) : null,
    op.outputs.map((y, i) => tensorCard(op.outputs.length > 1 ? `output ${i + 1}` : 'output', y)));
  chosen = index;
  graphArcs();
}

// Backward pass.
const steps = data.ops.map((op, index) => ({ op, index })).filter((s) => s.op.backward_order !== undefined).sort((a, b) => a.op.backward_order - b.op.backward_order);
const arriving = (op) => Math.max(0, ...op.outputs.map((y) => (y.gradient ? y.gradient.norm : 0)));
const norms = steps.map((s) => arriving(s.op)).filter((x) => x > 0);
const [lowest, highest] = [Math.log(Math.min(...norms)), Math.log(Math.max(...norms))];
const width = (norm) => (norm > 0 ? 4 + 96 * (highest > lowest ? (Math.log(norm) - lowest) / (highest - lowest) : 1) : 0);
const bar = (norm) => make('span', { class: 'bar', style: `width:${Math.max(0, Math.min(100, width(norm))).toFixed(1)}%`, 'aria-hidden': 'true' });
let current = 0;
function showStep(n) {
  if (!steps.length) return;
  current = Math.max(0, Math.min(steps.length - 1, n));
  const { op, index } = steps[current];
  $('step').value = current;
  $('step-text').textContent = `${current + 1} of ${steps.length}`;
  document.querySelectorAll('.steprow').forEach((row, i) => (i === current ? row.setAttribute('aria-current', 'true') : row.removeAttribute('aria-current')));
  const list = $('steps'), row = list.querySelectorAll('.steprow')[current].parentElement;
  if (row.offsetTop < list.scrollTop || row.offsetTop > list.scrollTop + list.clientHeight - 40) list.scrollTop = row.offsetTop - 60;
  fill($('flow'), make('h2', {}, opLink(index)),
    make('p', { class: 'note' }, `Step ${current + 1}: the gradient of its output arrives`), make('p', {}, bar(arriving(op)), ' ', make('b', {}, number(arriving(op)))),
    make('p', { class: 'note' }, `and goes on to its inputs (${time(op.backward_s)}):`),
    make('ul', {}, op.inputs.filter(given).map((input) => make('li', {}, inputName(input), ` ${shape(input.shape)}: `, input.gradient_norm === undefined ? 'nothing' : make('b', {}, number(input.gradient_norm)), make('div', {}, bar(input.gradient_norm || 0))))),
    formulaOf(op.op));
  flowArcs(current);
}
function buildBackward() {
  fill($('steps'), make('li', { class: 'gutter', 'aria-hidden': 'true' }, make('svg', { id: 'steps-arcs', class: 'arcs' })), steps.map((s, i) => make('li', {}, make('button', { class: 'steprow', click: () => showStep(i) },
    make('span', { class: 'name' }, s.op.op), make('span', { class: 'note' }, short(s.op.scope)), make('span', { class: 'bars' }, bar(arriving(s.op)))))));
  $('step').max = Math.max(0, steps.length - 1);
  $('step').addEventListener('input', (e) => showStep(Number(e.target.value)));
  for (const [id, to] of [['first', () => 0], ['previous', () => current - 1], ['next', () => current + 1], ['last', () => steps.length - 1]]) $(id).addEventListener('click', () => showStep(to()));
  showStep(0);
}

// Parameters, the largest gradient first.
function buildParameters(by = 'gradient') {
  $('update-note').textContent = data.update_step === 1
    ? `Update ratio: how far the first step of AdamW at learning rate ${number(data.lr)} would move a parameter, relative to its size. With moments of zero that step moves every number by about the learning rate, however small its gradient; gradient ÷ norm tells them apart. The last checkpoint of a run (--checkpoint RUN/last) shows its real next step.`
    : `Update ratio: how far step ${data.update_step} of this run, with its moments and learning rate ${number(data.lr)}, would move a parameter, relative to its size. About 1/1000 is usual; far more is a jump, far less is standing still.`;
  const columns = [['gradient', 'gradient norm', (p) => p.gradient.norm], ['ratio', 'update ratio', (p) => (p.update_ratio === null ? Infinity : p.update_ratio)], ['share', 'gradient ÷ norm', (p) => (p.value.norm ? p.gradient.norm / p.value.norm : Infinity)], ['norm', 'norm', (p) => p.value.norm], ['size', 'numbers', (p) => p.value.count]];
  const key = columns.find((c) => c[0] === by)[2];
  const sorted = [...data.parameters].sort((a, b) => key(b) - key(a));
  fill($('parameter-table'), make('thead', {}, make('tr', {}, make('th', { scope: 'col' }, 'parameter'), make('th', { scope: 'col' }, 'shape'),
    columns.map(([id, name]) => make('th', { scope: 'col', 'aria-sort': id === by ? 'descending' : undefined }, make('button', { click: () => buildParameters(id) }, name))), ['mean', 'std', 'zero gradients'].map((t) => make('th', { scope: 'col' }, t)))),
    make('tbody', {}, sorted.map((p) => make('tr', {}, make('th', { scope: 'row' }, p.name.replace('backbone.', '')), [shape(p.shape), number(p.gradient.norm), p.update_ratio === null ? 'from 0' : number(p.update_ratio), p.value.norm ? number(p.gradient.norm / p.value.norm) : 'from 0', number(p.value.norm), p.value.count, number(p.value.mean), number(p.value.std), (100 * p.gradient.zeros / Math.max(1, p.gradient.count)).toFixed(0) + ' %'].map((t) => make('td', {}, String(t)))))));
}
