// The edges of the graph: arcs beside the list of ops, from who makes a tensor to who reads it. Where a scope is folded, its
// arcs end at its line.
const edges = data.ops.flatMap((op, to) => op.inputs.filter((input) => input.op !== undefined).map((input) => ({ from: input.op, to, gradient: input.gradient_norm })));

// arcs: { a, b (heights), kind, width }, drawn from a to b; what stands out last, so that it lies on top.
function drawArcs(svg, width, height, arcs) {
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('width', width);
  svg.setAttribute('height', height);
  fill(svg, arcs.sort((x, y) => (x.kind ? 1 : 0) - (y.kind ? 1 : 0)).map(({ a, b, kind, width: thick = 1 }) => {
    // The longer the further out, and none beyond the edge: a curve reaches three quarters of the way to its control points.
    const x = width - 14 - (1.3 * width - 16) * (1 - Math.exp(-Math.abs(b - a) / 400)), end = width - 5;
    return [make('path', { class: kind || undefined, style: `stroke-width:${thick.toFixed(1)}`, d: `M${width - 1} ${a.toFixed(1)}C${x.toFixed(1)} ${a.toFixed(1)} ${x.toFixed(1)} ${b.toFixed(1)} ${end} ${b.toFixed(1)}` }),
      make('path', { class: kind + ' head', d: `M${width} ${b.toFixed(1)}l-7 ${kind ? '-4v8z' : '-2.5v5z'}` })];
  }));
}

// Graph: all edges faintly, those of the op under the pointer, else of the chosen one, clearly.
let pointed = -1;
function graphArcs() {
  const box = $('tree'), svg = $('tree-arcs');
  if (!box.getClientRects().length) return;
  const top = box.getBoundingClientRect().top;
  const heights = data.ops.map((_, index) => {
    let shown = $('op-' + index);
    for (let e = shown.parentElement; e !== box; e = e.parentElement) if (e.tagName === 'DETAILS' && !e.open) shown = e.firstElementChild;
    const row = shown.getBoundingClientRect();
    return row.top + row.height / 2 - top;
  });
  const arcs = new Map(), lit = pointed < 0 ? chosen : pointed;
  for (const { from, to } of edges) {
    const [a, b] = [heights[from], heights[to]];
    if (Math.abs(a - b) < 2) continue;  // inside one folded scope
    const kind = to === lit ? 'read' : from === lit ? 'sent' : '', key = `${a} ${b}`;
    if (kind || !arcs.has(key)) arcs.set(key, { a, b, kind, width: kind ? 2.5 : 1 });
  }
  drawArcs(svg, svg.parentElement.clientWidth, box.scrollHeight, [...arcs.values()]);
}

// Backward: where the gradients of a step go, the wider the larger.
function flowArcs(step) {
  const list = $('steps'), svg = $('steps-arcs');
  if (!list.getClientRects().length) return;
  const rows = [...list.querySelectorAll('.steprow')].map((row) => row.parentElement.offsetTop + row.parentElement.offsetHeight / 2);
  const at = new Map(steps.map((s, i) => [s.index, i]));
  const arcs = edges.filter((e) => e.gradient !== undefined && at.has(e.from) && at.has(e.to)).map((e) => ({ a: rows[at.get(e.to)], b: rows[at.get(e.from)],
    kind: at.get(e.to) === step ? 'flow' : at.get(e.from) === step ? 'came' : '', width: at.get(e.to) === step || at.get(e.from) === step ? 1.5 + width(e.gradient) / 22 : 1 }));
  drawArcs(svg, svg.parentElement.clientWidth, list.scrollHeight, arcs);
}
