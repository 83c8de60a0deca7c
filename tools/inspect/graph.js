// Small helpers, the tree of ops, the backward pass and the parameters.
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
  const bars = stats.histogram.map((n, i) => make('rect', {
    x: 10 * i, y: 50 - (50 * Math.sqrt(n / top)), width: 9, height: 50 * Math.sqrt(n / top), style: `--c: var(--${color})` }));
  return make('svg', { class: 'histogram', viewBox: '0 0 240 66', role: 'img', preserveAspectRatio: 'none',
    'aria-label': `${title}: histogram from ${number(stats.min)} to ${number(stats.max)}` },
    bars, make('text', { x: 0, y: 63 }, number(stats.min)), make('text', { x: 240, y: 63, 'text-anchor': 'end' }, number(stats.max)));
}
function statistics(rows) {
  const share = (part, s) => (s.count ? (100 * part / s.count).toFixed(part ? 1 : 0) + ' %' : '–');
  return make('div', { class: 'scroll' }, make('table', {}, make('thead', {}, make('tr', {}, ['', 'norm', 'mean', 'std', 'min', 'max', 'zeros', 'NaN, Inf'].map((t) => make('th', { scope: 'col' }, t)))),
    make('tbody', {}, rows.map(([name, s]) => make('tr', {}, make('th', { scope: 'row' }, name),
      [number(s.norm), number(s.mean), number(s.std), number(s.min), number(s.max), share(s.zeros, s), share(s.nan + s.infinite, s)].map((t) => make('td', {}, t)))))));
}
function tensorCard(name, tensor) {
  const rows = [['value', tensor.value]];
  if (tensor.gradient) rows.push(['gradient', tensor.gradient]);
  return make('div', {}, make('h3', {}, `${name} ${shape(tensor.shape)} ${tensor.dtype}, ${bytes(tensor.bytes)}`), statistics(rows),
    tensor.value.count ? histogram(tensor.value, 'value', name) : null,
    tensor.gradient ? histogram(tensor.gradient, 'gradient', 'gradient of ' + name) : null);
}

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
function opButton(index) {
  const op = data.ops[index];
  const gradient = op.outputs.find((y) => y.gradient);
  return make('button', { class: 'op', id: 'op-' + index, click: () => showOp(index) }, make('span', { class: 'name' }, op.op),
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
function showOp(index) {
  const op = data.ops[index];
  document.querySelectorAll('.op[aria-current]').forEach((e) => e.removeAttribute('aria-current'));
  const button = $('op-' + index);
  if (button) {
    button.setAttribute('aria-current', 'true');
    for (let e = button.parentElement; e; e = e.parentElement) if (e.tagName === 'DETAILS') e.open = true;
  }
  const users = data.ops.map((o, i) => [o, i]).filter(([o]) => o.inputs.some((input) => input.op === index)).map(([, i]) => i);
  fill($('detail'), make('h2', {}, op.op), make('p', { class: 'note' }, `op ${index + 1} of ${data.ops.length}, in ${op.scope || 'the step itself'}. Forward ${time(op.forward_s)}` +
    (op.backward_order !== undefined ? `, backward ${time(op.backward_s)}, step ${op.backward_order + 1} of the backward pass.` : op.recorded ? '. No gradient reached it.' : '. Computed without a gradient: a choice, or a number to look at.')),
    data.formulas[op.op] ? make('pre', { tabindex: 0, 'aria-label': 'Formula' }, data.formulas[op.op].trimEnd()) : null,
    make('h3', {}, 'Reads'), make('ul', {}, op.inputs.filter(given).map((input) => make('li', {}, inputName(input), ` ${shape(input.shape)}`, input.gradient_norm !== undefined ? `, gets a gradient of norm ${number(input.gradient_norm)}` : ''))),
    users.length ? make('h3', {}, 'Read by') : null, users.length ? make('ul', {}, users.map((i) => make('li', {}, opLink(i)))) : null,
    op.outputs.map((y, i) => tensorCard(op.outputs.length > 1 ? `output ${i + 1}` : 'output', y)));
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
  const row = $('steps').children[current], list = $('steps');
  if (row.offsetTop < list.scrollTop + list.offsetTop || row.offsetTop > list.scrollTop + list.offsetTop + list.clientHeight - 40) list.scrollTop = row.offsetTop - list.offsetTop - 60;
  fill($('flow'), make('h2', {}, opLink(index)),
    make('p', { class: 'note' }, `Step ${current + 1}: the gradient of its output arrives`), make('p', {}, bar(arriving(op)), ' ', make('b', {}, number(arriving(op)))),
    make('p', { class: 'note' }, `and goes on to its inputs (${time(op.backward_s)}):`),
    make('ul', {}, op.inputs.filter(given).map((input) => make('li', {}, inputName(input), ` ${shape(input.shape)}: `, input.gradient_norm === undefined ? 'nothing' : make('b', {}, number(input.gradient_norm)), make('div', {}, bar(input.gradient_norm || 0))))),
    data.formulas[op.op] ? make('pre', { tabindex: 0, 'aria-label': 'Formula' }, data.formulas[op.op].trimEnd()) : null);
}
function buildBackward() {
  fill($('steps'), steps.map((s, i) => make('li', {}, make('button', { class: 'steprow', click: () => showStep(i) },
    make('span', { class: 'name' }, s.op.op), make('span', { class: 'note' }, short(s.op.scope)), make('span', { class: 'bars' }, bar(arriving(s.op)))))));
  $('step').max = Math.max(0, steps.length - 1);
  $('step').addEventListener('input', (e) => showStep(Number(e.target.value)));
  for (const [id, to] of [['first', () => 0], ['previous', () => current - 1], ['next', () => current + 1], ['last', () => steps.length - 1]]) $(id).addEventListener('click', () => showStep(to()));
  showStep(0);
}

// Parameters, the largest gradient first.
function buildParameters(by = 'gradient') {
  $('lr').textContent = number(data.lr);
  const columns = [['gradient', 'gradient norm', (p) => p.gradient.norm], ['ratio', 'update ratio', (p) => (p.update_ratio === null ? Infinity : p.update_ratio)], ['norm', 'norm', (p) => p.value.norm], ['size', 'numbers', (p) => p.value.count]];
  const key = columns.find((c) => c[0] === by)[2];
  const sorted = [...data.parameters].sort((a, b) => key(b) - key(a));
  fill($('parameter-table'), make('thead', {}, make('tr', {}, make('th', { scope: 'col' }, 'parameter'), make('th', { scope: 'col' }, 'shape'),
    columns.map(([id, name]) => make('th', { scope: 'col', 'aria-sort': id === by ? 'descending' : undefined }, make('button', { click: () => buildParameters(id) }, name))), ['mean', 'std', 'zero gradients'].map((t) => make('th', { scope: 'col' }, t)))),
    make('tbody', {}, sorted.map((p) => make('tr', {}, make('th', { scope: 'row' }, p.name.replace('backbone.', '')), [shape(p.shape), number(p.gradient.norm), p.update_ratio === null ? 'from 0' : number(p.update_ratio), number(p.value.norm), p.value.count, number(p.value.mean), number(p.value.std), (100 * p.gradient.zeros / Math.max(1, p.gradient.count)).toFixed(0) + ' %'].map((t) => make('td', {}, String(t)))))));
}
