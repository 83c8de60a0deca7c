// Tabs and the start.
const tabs = [...document.querySelectorAll('[role=tab]')];
function selectTab(name) {
  for (const tab of tabs) {
    const on = tab.id === 'tab-' + name;
    tab.setAttribute('aria-selected', String(on));
    tab.tabIndex = on ? 0 : -1;
    $(tab.getAttribute('aria-controls')).hidden = !on;
  }
  // Not the section's id: the browser would scroll there.
  try { history.replaceState(null, '', '#view=' + name); } catch { /* in a frame of another page there is no address to keep */ }
}
for (const tab of tabs) {
  tab.addEventListener('click', () => selectTab(tab.id.slice(4)));
  tab.addEventListener('keydown', (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    const next = tabs[(tabs.indexOf(tab) + move + tabs.length) % tabs.length];
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
