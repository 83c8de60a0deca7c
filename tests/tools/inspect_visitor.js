// What a visitor of the inspector's page does, and what must then be there. tests/tools/inspect_browser runs it in the page and
// lends it devtools(), which sends real input: pointer, fingers, keys. `phone` says whether there are fingers.
(async () => {
  const failures = [];
  const expect = (fact, what) => { if (!fact) failures.push(what); };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const command = (method, params) => new Promise((done) => { window.answered = done; devtools(method + ' ' + JSON.stringify(params)); });
  const settle = () => new Promise((done) => setTimeout(done, 60));
  async function pointAt(element, x = 0.5, y = 0.5) {
    element.scrollIntoView({ block: 'center', inline: 'nearest' });
    await settle();
    const box = element.getBoundingClientRect(), at = { x: Math.round(box.left + x * box.width), y: Math.round(box.top + y * box.height) };
    const hit = document.elementFromPoint(at.x, at.y);
    expect(hit && element.contains(hit), `${element.id || element.className || element.textContent} cannot be pointed at`);
    if (!phone) await command('Input.dispatchMouseEvent', { type: 'mouseMoved', ...at });
    return at;
  }
  async function click(element, x, y) {
    const at = await pointAt(element, x, y);
    if (phone) {
      await command('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: [at] });
      await command('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] });
    } else {
      for (const type of ['mousePressed', 'mouseReleased']) await command('Input.dispatchMouseEvent', { type, ...at, button: 'left', clickCount: 1 });
    }
    await settle();
  }
  async function press(key, windowsVirtualKeyCode) {
    for (const type of ['keyDown', 'keyUp']) await command('Input.dispatchKeyEvent', { type, key, code: key, windowsVirtualKeyCode });
    await settle();
  }
  const visible = (id) => !$(id).hidden && $(id).getBoundingClientRect().height > 0;
  const fits = (where) => expect(document.documentElement.scrollWidth <= innerWidth + 1, `${where} is ${document.documentElement.scrollWidth} wide in a window of ${innerWidth}`);
  const pairs = (list) => new Set(list.map(({ from, to }) => `${from} ${to}`)).size;
  const arcs = (where, kind = '') => all(`#${where} path${kind}:not(.head)`).length;
  // How many pixels of a part of a canvas have a colour, to within what blending does.
  function painted(canvas, color, x = 0, y = 0, w = 1, h = 1) {
    const [W, H] = [canvas.width, canvas.height];
    const copy = Object.assign(document.createElement('canvas'), { width: W, height: H }), context = copy.getContext('2d', { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const pixels = context.getImageData(x * W, y * H, w * W, h * H).data;
    const wanted = /^#/.test(color) ? [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)) : color.split(',').map(Number);
    let count = 0;
    for (let at = 0; at < pixels.length; at += 4) if (wanted.every((c, n) => Math.abs(pixels[at + n] - c) < 40)) ++count;
    return count;
  }
  const mapsCell = (canvas, i, j) => {  // where a cell lies, as shares of the canvas: cells begin at (52, 18)
    const box = canvas.getBoundingClientRect(), side = box.width - 52, length = +canvas.dataset.length;
    return [(52 + (j + 0.5) * side / length) / box.width, (18 + (i + 0.5) * side / length) / box.height];
  };

  async function graph() {
    fits('Graph');
    expect(all('.op').length === data.ops.length, 'an op is missing from the graph');
    const folded = arcs('tree-arcs');
    expect(folded > 10, `only ${folded} edges are drawn`);
    for (let closed; (closed = all('#tree details:not([open])')[0]);) {
      await click(closed.firstElementChild);
      if (!closed.open) { failures.push('a scope does not unfold'); break; }
    }
    expect(arcs('tree-arcs') === pairs(edges), `${arcs('tree-arcs')} of ${pairs(edges)} edges are drawn`);
    const scan = data.ops.findIndex((op) => op.op === 'selective_scan' || op.op === 'full_attention');
    await click($('op-' + scan));
    const detail = $('detail').textContent;
    expect(detail.includes(data.formulas[data.ops[scan].op].trim().split('\n')[0]), 'no formula in the detail');
    expect(detail.includes('gradient') && all('#detail .histogram').length > 1, 'no gradient in the detail');
    expect(arcs('tree-arcs', '.read') === pairs(edges.filter((e) => e.to === scan)), 'not all that the op reads is marked');
    expect(arcs('tree-arcs', '.sent') === pairs(edges.filter((e) => e.from === scan)), 'not all that read the op are marked');
    const summary = $('op-' + scan).closest('details').firstElementChild;
    await click(summary);
    expect(arcs('tree-arcs') < pairs(edges), 'edges within a folded scope stay');
    if (!phone) {
      const other = data.ops.findIndex((op, i) => op.inputs.some((x) => x.op !== undefined) && $('op-' + i).getClientRects().length);
      await pointAt($('op-' + other));
      await settle();
      expect(arcs('tree-arcs', '.read') > 0 && pointed === other, 'edges do not follow the pointer');
    }
  }
  async function backward() {
    await click($('tab-backward'));
    expect(visible('backward') && !visible('graph'), 'the backward tab does not open');
    fits('Backward');
    await click($('next'));
    await click($('next'));
    expect($('step-text').textContent.startsWith('3 of '), 'Next does not go on');
    expect(all('#flow li b').length > 0, 'no gradient goes on');
    const sent = edges.filter((e) => e.to === steps[2].index && e.gradient !== undefined);
    expect(arcs('steps-arcs', '.flow') === sent.length && sent.length > 0, 'a gradient that goes on has no arc');
    $('step').focus();
    await press('ArrowRight', 39);
    expect($('step-text').textContent.startsWith('4 of '), 'the slider does not move the step');
    await click(document.querySelector('#flow .link'));
    expect(visible('graph'), 'the link of a step does not lead to its op');
  }
  async function parameters() {
    await click($('tab-parameters'));
    fits('Parameters');
    expect(all('#parameter-table tbody tr').length === data.parameters.length, 'a parameter is missing');
    await click(all('#parameter-table thead button')[1]);
    expect(document.querySelector('#parameter-table th[aria-sort]').textContent === 'update ratio', 'parameters are not sorted by ratio');
  }
  async function attention() {
    await click($('tab-attention'));
    fits('Attention');
    const map = document.querySelector('#attention .heat'), reading = () => $('attention-reading').textContent;
    expect(visible('attention') && painted(map, css('--r1')) > 50, 'attention is not drawn');
    expect(painted(map, css('--soft'), 0, 0.05, 50 / map.getBoundingClientRect().width, 0.7) > 50, 'the rows have no labels');
    expect(painted(map, css('--soft'), 0.1, 0.95, 0.9, 0.05) > 20, 'the columns have no labels');
    const box = map.getBoundingClientRect();  // without the strips, where a bin may have that colour
    expect(painted(map, css('--answer'), 0, 0, 1, (box.width - 34) / box.height) > 20, 'the answers are not marked');
    const target = data.targets.find((t) => t.sample === data.attention[0].sample), [i, j] = [target.position, target.answer + 1];
    if (!phone) {
      await pointAt(map, ...mapsCell(map, i, j));
      await settle();
      expect($('attention-hover').textContent.includes(`at ${i}, key`) && $('attention-hover').textContent.includes(`at ${j}:`), 'the pointer does not read out its cell: ' + $('attention-hover').textContent);
    }
    await click(map, ...mapsCell(map, i - 1, j));
    expect(reading().includes(`at ${i - 1},`) && map.key === j, 'a click does not choose its cell: ' + reading());
    map.focus();
    await press('ArrowDown', 40);
    expect(reading().includes(`at ${i},`) && reading().includes(`Asked for ${target.label}`), 'arrow keys do not move the query: ' + reading());
    expect(all('#attention .tokens .answer').length === 2, 'the answer is not framed in the tokens');
    expect(all('#questions tbody tr').length === data.targets.length, 'a question is missing');
  }
  async function state() {
    await click($('tab-state'));
    fits('State');
    if (!data.memory.length) return expect($('state').textContent.includes('no state'), 'no word about the missing state');
    expect(painted(document.querySelector('#state .heat'), css('--r1')) > 20, 'the memory is not drawn');
    expect(all('#state .curve').length === 3, 'curves are missing');
  }
  try {
    for (const view of [graph, backward, parameters, attention, state]) await view();
    for (const control of all('button, select, input, canvas')) expect(control.textContent.trim() || control.getAttribute('aria-label') || control.labels?.length, 'a control without a name: ' + control.outerHTML.slice(0, 80));
  } catch (error) { failures.push(String(error)); }
  devtools('finished ' + (failures.join('; ') || 'passed'));
})();
