// Tabs and the start.
const tabs = [...document.querySelectorAll('[role=tab]')];
function selectTab(name) {
  for (const tab of tabs) {
    const on = tab.id === 'tab-' + name;
    tab.setAttribute('aria-selected', String(on));
    tab.tabIndex = on ? 0 : -1;
    $(tab.getAttribute('aria-controls')).hidden = !on;
  }
  // What was hidden had no size to draw by.
  if (name === 'graph') graphArcs();
  if (name === 'backward') showStep(current);
  // Not the section's id: the browser would scroll there.
  try { history.replaceState(null, '', '#view=' + name); } catch { /* in a frame of another page there is no address to keep */ }
}
for (const tab of tabs) {
  tab.addEventListener('click', () => selectTab(tab.id.slice(4)));
  tab.addEventListener('keydown', (event) => {
    const at = tabs.indexOf(tab), last = tabs.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = tabs[to];
    selectTab(next.id.slice(4));
    next.focus();
  });
}
$('title').textContent = data.title;
const entry = (name, value) => make('div', {}, make('dt', {}, name), make('dd', {}, value));
$('summary').replaceChildren(entry('loss', number(data.loss)), entry('of it ranking', number(data.gate_loss * data.gate_loss_weight)), entry('accuracy', (100 * data.accuracy).toFixed(1) + ' %'),
  entry('ops', String(data.ops.length)), entry('parameters', String(data.parameters.reduce((n, p) => n + p.value.count, 0))), entry('tokens', String(data.samples.reduce((n, s) => n + s.tokens.length, 0))));
const tree = scopeTree();
$('tree').replaceChildren(...tree.items.map((item) => (typeof item === 'number' ? opButton(item) : scopeElement(item, 0))));
$('tree').addEventListener('toggle', graphArcs, true);
for (const [event, leaves] of [['pointerover', false], ['pointerleave', true]]) {
  $('tree').addEventListener(event, ({ target }) => {
    const op = leaves ? null : target.closest('.op');
    pointed = op ? Number(op.id.slice(3)) : -1;
    graphArcs();
  });
}
showOp(data.ops.length - 1);  // the loss
new ResizeObserver(() => { graphArcs(); flowArcs(current); }).observe(document.querySelector('main'));
buildBackward();
buildParameters();
function buildPictures() {
  if (data.attention.length) choices('attention', data.attention, drawAttention);
  else $('attention-body').replaceChildren(make('p', {}, 'This model has no attention.'));
  if (data.memory.length) choices('state', data.memory, drawState);
  else $('state-body').replaceChildren(make('p', {}, 'This model has no state: it has attention alone.'));
}
buildPictures();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', buildPictures);
const asked = location.hash.replace('#view=', '');
selectTab(tabs.some((t) => t.id === 'tab-' + asked) ? asked : 'graph');
