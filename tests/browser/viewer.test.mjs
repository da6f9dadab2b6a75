// The three planes: geometry, values, tools, what the model sees, and what a view costs.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES, placeText, text } from '../../www/i18n.js';
import { binned } from '../../www/histogram.js';
import { slabProfile } from '../../www/overlay.js';
import { rowIn } from '../../www/sidecar.js';
import { host, idle, out, sampleNifti, SLOW_MS, useSample } from './harness.mjs';

const tests = host({ gpu: false });

const openSample = async () => {
  const made = await tests.newAppPage();
  await useSample(made.page);
  return made;
};
const openFile = async (page, nifti) => {
  await page.setInputFiles('#file', { name: 'x.nii', mimeType: 'application/octet-stream', buffer: nifti });
  await page.waitForSelector('#volume:not([hidden])');
  await idle(page);
};

/** A volume of LPS order with HU -1000 + 10x + 100y + 300z, as the loader's samples have. */
async function ramp([nx, ny, nz]) {
  const header = Buffer.from((await sampleNifti()).subarray(0, 352));
  [3, nx, ny, nz, 1, 1, 1, 1].forEach((n, i) => header.writeInt16LE(n, 40 + 2 * i));
  const voxels = Buffer.alloc(2 * nx * ny * nz);
  for (let z = 0, at = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, at += 2) voxels.writeInt16LE(-1000 + 10 * x + 100 * y + 300 * z, at);
  return Buffer.concat([header, voxels]);
}

test('the HU under the pointer and at the cross-hair, in all planes, zoomed too', async () => {
  const { page, finish } = await tests.newAppPage();
  const dims = [24, 22, 20];
  await openFile(page, await ramp(dims));
  const seen = await page.evaluate(async ({ dims }) => {
    const { viewer } = await import('/volume.js');
    const found = [];
    for (const view of viewer.views) {
      for (const zoom of [1, 3]) {
        view.fit();
        view.zoom(zoom);
        for (let i = 0; i < 40; i++) {
          const frame = view.view.getBoundingClientRect();
          const at = { clientX: frame.left + frame.width * ((i * 0.37 + 0.01) % 1), clientY: frame.top + frame.height * ((i * 0.61 + 0.01) % 1), bubbles: true };
          view.view.dispatchEvent(new PointerEvent('pointermove', at));
          found.push(document.querySelector('#probe').textContent);
        }
      }
      view.fit();
    }
    for (const position of [[0, 0, 0], dims.map((n) => n - 1), [3, 17, 8]]) {
      await viewer.moveTo(position);
      found.push(document.querySelector('#cross').textContent);
    }
    return found;
  }, { dims });
  assert.equal(seen.length, 243);
  const places = new Set();
  for (const line of seen) {
    const [, hu, x, y, z] = line.replaceAll(',', '').match(/^(-?\d+)(?: \(not HU\))?(?: HU)? at voxel (\d+) (\d+) (\d+) · [LR] [\d.]+ [PA] [\d.]+ [IS] [\d.]+ mm$/) ?? assert.fail(line);
    assert.equal(Number(hu), -1000 + 10 * x + 100 * y + 300 * z, line);
    places.add(`${x} ${y} ${z}`);
  }
  assert.ok(places.size > 100, `${places.size} places`);
  assert.match(seen.at(-1), /voxel 3, 17, 8/);
  await finish();
});

test('radiological convention: the patient\'s right on the left, the front on top', async () => {
  const { page, finish } = await openSample();
  const columns = await page.evaluate(async () => {
    const { viewer } = await import('/volume.js');
    // In the right lung, at the front, in the upper half.
    await viewer.moveTo([62, 60, 24]);
    return viewer.views.map((view) => view.cross.map((part) => part < 0.5));
  });
  assert.deepEqual(columns, [[true, true], [true, true], [true, true]]);
  assert.match(await page.textContent('#cross'), /R \d.* A \d.* S \d/);
  const letters = await page.locator('.plane').evaluateAll((planes) => planes.map((plane) => [...plane.querySelectorAll('.letter')].map((letter) => letter.textContent).join('')));
  assert.deepEqual(letters, ['RLAP', 'RLSI', 'APSI']);
  await finish();
});

test('tools: windows by button, number, key and drag; zoom, pan, fit; invert; one plane; help', async () => {
  const { page, finish } = await openSample();
  const window = async () => [await page.inputValue('#window-width'), await page.inputValue('#window-level')];
  const axial = page.locator('.view').first();
  const look = () => page.evaluate(async () => ({ ...(await import('/volume.js')).viewer.views[0].look }));
  // How many messages the worker gets from here on.
  await page.evaluate(() => {
    window.sent = 0;
    const { postMessage } = Worker.prototype;
    Worker.prototype.postMessage = function post(...given) {
      window.sent += 1;
      return postMessage.apply(this, given);
    };
  });
  await page.click('[data-window="bone"]');
  assert.deepEqual(await window(), ['1800', '400']);
  await page.fill('#window-level', '40');
  await page.press('#window-level', 'Enter');
  assert.equal(await page.getAttribute('[data-window="bone"]', 'aria-pressed'), 'false');
  await page.fill('#window-width', '-5');
  await page.press('#window-width', 'Enter');
  assert.deepEqual(await window(), ['1', '40'], 'kept in its limits');
  await axial.focus();
  await page.keyboard.press('2');
  assert.deepEqual(await window(), ['350', '50']);
  const frame = await axial.boundingBox();
  await page.mouse.move(frame.x + 100, frame.y + 100);
  await page.mouse.down({ button: 'right' });
  await page.mouse.move(frame.x + 110, frame.y + 95, { steps: 3 });
  await page.mouse.up({ button: 'right' });
  assert.deepEqual(await window(), ['390', '30']);
  const pixel = () => page.evaluate(() => [...document.querySelector('.stage canvas').getContext('2d').getImageData(112, 96, 1, 1).data.slice(0, 3)]);
  const before = await pixel();
  await page.keyboard.press('i');
  assert.deepEqual(await pixel(), before.map((value) => 255 - value));
  assert.equal(await page.evaluate(() => window.sent), 0, 'a window needs no slice');

  await page.keyboard.press('+');
  await page.keyboard.press('+');
  assert.equal((await look()).zoom, 1.5625);
  const { x } = await look();
  await page.keyboard.press('Shift+ArrowRight');
  assert.ok(Math.abs((await look()).x - (x - 0.1)) < 1e-9);
  await page.selectOption('#tool', 'pan');
  await page.mouse.move(frame.x + 200, frame.y + 200);
  await page.mouse.down();
  await page.mouse.move(frame.x + 2000, frame.y + 200, { steps: 3 });
  await page.mouse.up();
  assert.equal((await look()).x, 0, 'the image covers the view');
  await page.keyboard.press('=');
  assert.deepEqual(await look(), { zoom: 1, x: 0, y: 0 });
  await page.click('#zoom-in');
  assert.equal((await look()).zoom, 1.5);
  await page.click('#reset');
  assert.deepEqual([await look(), await window()], [{ zoom: 1, x: 0, y: 0 }, ['1500', '-600']]);

  await page.click('.plane[data-plane="coronal"] .foot button');
  assert.deepEqual(await page.locator('.plane').evaluateAll((planes) => planes.map((plane) => plane.hidden)), [true, false, true]);
  await page.click('.plane[data-plane="coronal"] .foot button');
  await axial.focus();
  await page.keyboard.press('?');
  await page.waitForSelector('#help[open]');
  await page.screenshot({ path: join(out, 'help-en.png') });
  await page.keyboard.press('Escape');
  await page.keyboard.press('p');
  assert.equal(await page.getAttribute('#smooth', 'aria-pressed'), 'false');
  // A cross-hair dragged in one plane moves the others.
  await page.selectOption('#tool', 'cross');
  await page.mouse.move(frame.x + 50, frame.y + 60);
  await page.mouse.down();
  await page.mouse.move(frame.x + 90, frame.y + 70, { steps: 4 });
  await page.mouse.up();
  const place = await page.evaluate(async () => {
    const { viewer } = await import('/volume.js');
    await viewer.update();
    return viewer.position.map(Math.round);
  });
  const captions = await page.locator('figcaption').allTextContents();
  assert.ok(captions[1].includes(`slice ${place[1] + 1} of`) && captions[2].includes(`slice ${place[0] + 1} of`), captions.join());
  await finish();
});

test('what the model sees, and its field of view on the planes', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await openSample();
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#model-box');
  await page.waitForSelector('.box:not([hidden])', { timeout: SLOW_MS });
  await idle(page);
  const found = await page.evaluate(async () => {
    const { state } = await import('/app.js');
    const { min, max } = await state.volume.modelBox();
    const [axial] = document.querySelectorAll('.view');
    const [stage, box] = [axial.querySelector('.stage'), axial.querySelector('.box')].map((element) => element.getBoundingClientRect());
    return { min, max, box: [(box.left - stage.left) / stage.width, (box.top - stage.top) / stage.height, box.width / stage.width, box.height / stage.height] };
  });
  const { min, max } = found;
  const expected = [(min[0] + 0.5) / 208, (min[1] + 0.5) / 160, (max[0] - min[0]) / 208, (max[1] - min[1]) / 160];
  found.box.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 0.005, `${found.box} ${expected}`));
  // The model's field is a cube of 360 mm: larger than the sample.
  assert.ok(found.box[2] > 1 && found.box[3] > 1);

  const before = await page.textContent('#cross');
  await page.click('#model-grid');
  await page.waitForFunction(() => /of 48,/.test(document.querySelector('figcaption').textContent));
  await idle(page);
  for (const [i, caption] of (await page.locator('figcaption').allTextContents()).entries()) assert.match(caption, i === 0 ? /of 48,/ : /of 96,/);
  const sizes = await page.locator('.stage canvas:first-child').evaluateAll((all) => all.map(({ width, height }) => [width, height]));
  assert.deepEqual(sizes, [[96, 96], [96, 48], [96, 48]]);
  const place = (line) => line.match(/voxel (\d+), (\d+), (\d+)/).slice(1).map(Number);
  const after = place(await page.textContent('#cross'));
  place(before).forEach((value, axis) => assert.ok(Math.abs(value - after[axis]) <= 2, `${before} ${after}`));
  await page.screenshot({ path: join(out, 'model-grid-en.png') });
  await page.click('#model-grid');
  await page.waitForFunction(() => /of 30,/.test(document.querySelector('figcaption').textContent));
  await finish();
});

test('labels: each plane has slice, place and HU in words, its slider the slice from 1', async () => {
  const { page, finish } = await openSample();
  const axial = page.locator('.plane').first();
  await axial.locator('.view').focus();
  await page.keyboard.press('Home');
  await page.waitForFunction(() => /slice 1 of/.test(document.querySelector('figcaption').textContent));
  const words = async () => {
    const [hu] = (await page.textContent('#cross')).match(/-?[\d,]+ HU/);
    return `${await axial.locator('figcaption').textContent()}, ${hu} at the cross-hair`;
  };
  for (const place of ['.view', 'canvas']) assert.equal(await axial.locator(place).first().getAttribute('aria-label'), await words(), place);
  assert.match(await axial.locator('input[type="range"]').getAttribute('aria-valuetext'), /^axial slice 1 of \d+, /);
  // Also where only the cross-hair moves within the plane.
  const before = await words();
  await page.evaluate(async () => {
    const { viewer } = await import('/volume.js');
    await viewer.moveTo([100, 80, 0]);
  });
  assert.notEqual(await words(), before);
  assert.equal(await axial.locator('.view').getAttribute('aria-label'), await words());
  await finish();
});

test('a map of cubes: cells unsmoothed at their place, signs by colour, clear below the threshold, profile by slab', async () => {
  const { page, finish } = await openSample();
  const map = { dims: [2, 2, 2], values: [0.1, 1, -1, 0, 0.5, 0, 0, -0.5] }; // [superior, posterior, left]
  const pixels = await page.evaluate(async ({ dims, values }) => {
    const { viewer } = await import('/volume.js');
    viewer.showMap({ dims, values: Float32Array.from(values), min: [-0.5, -0.5, -0.5], max: [207.5, 159.5, 29.5], opacity: 0.5, threshold: 0.2 });
    const read = () => viewer.views.map(({ map }) => (map.hidden ? null : [...map.getContext('2d').getImageData(0, 0, 2, 2).data]));
    await viewer.moveTo([0, 0, 0]);
    const low = read();
    await viewer.moveTo([207, 159, 29]);
    const high = read();
    const profile = !viewer.views[0].profile.hidden && viewer.views[0].profile.getAttribute('aria-label');
    viewer.showMap(undefined);
    return { low, high, profile, hidden: read() };
  }, map);
  const [above, below, clear] = [[255, 170, 60], [80, 160, 255], [0, 0, 0, 0]];
  const alpha = (colour, share) => [...colour, Math.round(127.5 * share)];
  const near = (found, expected) => found.forEach((value, i) => assert.ok(Math.abs(value - expected.flat()[i]) <= 3, `${found} ${expected}`));
  near(pixels.low[0], [clear, alpha(above, 1), alpha(below, 1), clear]); // axial, inferior: rows from the front
  near(pixels.low[1], [alpha(above, 0.5), clear, clear, alpha(above, 1)]); // coronal, front: the upper row is superior
  near(pixels.high[2], [clear, alpha(below, 0.5), alpha(above, 1), clear]); // sagittal, left
  assert.deepEqual([pixels.profile, pixels.hidden], [`${MESSAGES.profile[0]}: +0.1; 0`, [null, null, null]]);
  assert.deepEqual(slabProfile({ ...map, values: Float32Array.from(map.values) }).map((sum) => Math.round(sum * 10)), [1, 0]);
  await finish();
});

test('few slices are kept, the next ones are fetched ahead, and only the newest is shown', async () => {
  const { page, finish } = await openSample();
  const kept = await page.evaluate(async () => {
    const { viewer } = await import('/volume.js');
    for (let i = 0; i < 30; i++) await viewer.moveTo([i, i, i]);
    const slow = viewer.moveTo([100, 100, 20]);
    viewer.moveTo([120, 110, 25]);
    await slow;
    await new Promise((done) => setTimeout(done, 300));
    return viewer.views.map(({ slices, sliceIndex }) => [slices.size, sliceIndex, slices.has(sliceIndex + 1)]);
  });
  assert.deepEqual(kept, [[8, 25, true], [8, 110, true], [8, 120, true]]);
  await finish();
});

test('the keys that are explained are those that work', async () => {
  const { page, finish } = await openSample();
  const fixed = await page.locator('#help kbd').allTextContents();
  const changed = await page.locator('#help .key').evaluateAll((fields) => fields.map(({ value }) => value));
  for (const key of ['PgUp', 'Home', 'Space', 'Enter']) assert.ok(fixed.includes(key), key);
  assert.deepEqual(changed.toSorted(), [...'+-=12340ripbmhjkx/?'].toSorted());
  await page.click('#lang-zh');
  await page.click('#help-open');
  assert.equal(await page.textContent('#help-heading'), MESSAGES.help[1]);
  await page.screenshot({ path: join(out, 'help-zh.png') });
  await finish();
});

test('a ruler: by keys, clicks and drag; in its slice only; removed by Esc; keys can be switched off', async () => {
  const { page, finish } = await openSample();
  const axial = page.locator('.view').first();
  const length = () => page.textContent('#ruler-length');
  const go = (position) => page.evaluate(async (to) => { await (await import('/volume.js')).viewer.moveTo(to); }, position);
  const lines = () => page.evaluate(() => [...document.querySelectorAll('.ruler')].map((layer) => layer.querySelectorAll('line').length));
  await go([60, 50, 15]);
  await axial.focus();
  await page.keyboard.press('r');
  assert.equal(await length(), MESSAGES.ruler_second[0]);
  await go([100, 80, 15]); // 40 and 30 voxels of 1.5 mm
  await page.keyboard.press('r');
  assert.equal(await length(), MESSAGES.ruler_length[0].replace('{mm}', '75.0'));
  assert.deepEqual(await lines(), [2, 0, 0], 'in the plane that holds both ends');
  await page.locator('#planes').screenshot({ path: join(out, 'ruler.png') });
  await page.keyboard.press('PageDown');
  await page.waitForFunction(() => /slice 26 of/.test(document.querySelector('figcaption').textContent));
  assert.deepEqual(await lines(), [0, 0, 0]);
  await page.keyboard.press('Escape');
  assert.ok(await page.isHidden('#ruler-length'));
  await go([60, 50, 3]);
  await page.keyboard.press('r');
  await go([60, 50, 5]);
  await page.keyboard.press('r');
  assert.match(await length(), /^19\.0 mm/, 'across slices of 9.5 mm');

  await page.selectOption('#tool', 'ruler');
  const { x, y, width } = await axial.boundingBox();
  await page.mouse.move(x + 0.25 * width, y + 60);
  await page.mouse.down();
  await page.mouse.move(x + 0.75 * width, y + 60, { steps: 4 });
  await page.mouse.up();
  const half = 0.5 * 208 * 1.5;
  const near = async () => assert.ok(Math.abs(parseFloat(await length()) - half) < 1, await length());
  await near();
  await page.click('#ruler-remove');
  for (const part of [0.25, 0.75]) await page.mouse.click(x + part * width, y + 60);
  await near();

  await page.click('#help-open');
  await page.uncheck('#single-keys');
  await page.click('#help .primary');
  await axial.focus();
  const before = await page.inputValue('#window-width');
  await page.keyboard.press('3');
  assert.equal(await page.inputValue('#window-width'), before);
  await page.keyboard.press('Home');
  await page.waitForFunction(() => /slice 1 of/.test(document.querySelector('figcaption').textContent));
  await page.reload();
  assert.ok(!await page.isChecked('#single-keys'), 'kept');
  await finish();
});

test('keys of one character: another one, none, the defaults again; kept; two actions have no key in common', async () => {
  const { page, finish } = await openSample();
  const axial = page.locator('.view').first();
  const width = () => page.inputValue('#window-width');
  const press = async (key) => {
    await axial.focus();
    await page.keyboard.press(key);
  };
  const type = async (action, key) => {
    await page.click('#help-open');
    await page.focus(`[data-key="${action}"]`);
    await page.keyboard.press(key);
    const found = [await page.inputValue(`[data-key="${action}"]`), await page.textContent('#keys-note')];
    await page.keyboard.press('Escape');
    return found;
  };
  assert.deepEqual(await type('window_bone', 'w'), ['w', '']);
  assert.equal(await page.evaluate(() => document.querySelector('#help').open), false);
  await press('3');
  assert.equal(await width(), '1500');
  await press('w');
  assert.equal(await width(), '1800');
  assert.deepEqual(await type('invert', '1'), ['i', text('key_taken', { key: '1', what: text('window_lung') })]);
  await press('1');
  assert.equal(await width(), '1500');
  assert.deepEqual(await type('window_mediastinum', 'Backspace'), ['', '']);
  await press('2');
  assert.equal(await width(), '1500', 'without a key');
  // A key that became free can be taken.
  assert.deepEqual(await type('key_next', '2'), ['2', '']);
  await page.reload();
  await page.waitForFunction(() => !document.querySelector('#use-sample').disabled);
  await useSample(page);
  await press('w');
  assert.equal(await width(), '1800', 'kept');
  await page.focus('#report-list');
  await page.keyboard.press('2');
  assert.ok(await page.evaluate(() => document.activeElement.matches('#reports > li')));
  await page.keyboard.press('j');
  assert.ok(await page.evaluate(() => document.activeElement.matches('#reports > li:first-child')), 'the key before does nothing');
  await page.keyboard.press('?');
  await page.waitForSelector('#help[open]');
  await page.screenshot({ path: join(out, 'keys-en.png') });
  await page.click('#keys-reset');
  assert.equal(await page.inputValue('[data-key="window_bone"]'), '3');
  assert.equal(await page.textContent('#keys-note'), MESSAGES.keys_are_reset[0]);
  await page.keyboard.press('Escape');
  await press('3');
  assert.equal(await width(), '1800');
  await press('w');
  await press('1');
  assert.equal(await width(), '1500');
  await finish();
});

test('kept keys that make no sense are not used', async () => {
  for (const kept of ['{', 'null', '7', '{"invert":"1"}', '{"invert":"ab"}', '{"invert":" "}', '{"invert":5}', '{"__proto__":"q"}']) {
    const { page, finish } = await tests.newAppPage();
    await page.evaluate((value) => localStorage.setItem('ctmatch-key-changes', value), kept);
    await page.reload();
    await page.waitForFunction(() => !document.querySelector('#use-sample').disabled);
    const values = await page.locator('#help .key').evaluateAll((fields) => fields.map(({ value }) => value));
    assert.deepEqual(values.toSorted(), [...'+-=12340ripbmhjkx/?'].toSorted(), kept);
    await finish();
  }
});

test('a slab shows the highest value of its slices', async () => {
  const { page, finish } = await tests.newAppPage();
  await openFile(page, await ramp([24, 22, 20])); // 1.5, 1.5, 9.5 mm; values grow along every axis
  await page.selectOption('#slab', '5');
  const caption = (wanted) => page.waitForFunction((part) => document.querySelectorAll('figcaption')[1].textContent.includes(part), wanted);
  await caption('MIP of 3 slices');
  assert.doesNotMatch(await page.locator('figcaption').first().textContent(), /MIP/, 'a slice is thicker than the slab');
  const found = await page.evaluate(async () => {
    const { viewer } = await import('/volume.js');
    await viewer.moveTo([10, 10, 10]);
    const middle = viewer.views.map((view) => view.value(view.cross));
    await viewer.moveTo([23, 21, 19]);
    return { middle, end: viewer.views.map((view) => view.value(view.cross)) };
  });
  const hu = (px, py, pz) => -1000 + 10 * px + 100 * py + 300 * pz;
  assert.deepEqual(found.middle, [hu(10, 10, 10), hu(10, 11, 10), hu(11, 10, 10)]);
  assert.deepEqual(found.end, [hu(23, 21, 19), hu(23, 21, 19), hu(23, 21, 19)]);
  await caption('MIP of 2 slices'); // a slab ends with the volume
  await page.selectOption('#slab', '0');
  await page.waitForFunction(() => !/MIP/.test(document.querySelectorAll('figcaption')[1].textContent));
  await finish();
});

test('the values beside the question whether they are HU; the file name is masked', async () => {
  const { page, finish } = await tests.newAppPage();
  const nifti = Buffer.from(await sampleNifti());
  for (let at = 352; at < nifti.length; at += 2) nifti.writeInt16LE(nifti.readInt16LE(at) + 1024, at);
  await page.setInputFiles('#file', { name: 'Mei_12.nii', mimeType: 'application/octet-stream', buffer: nifti });
  await page.waitForSelector('#histogram svg');
  await idle(page);
  assert.match(await page.textContent('#findings'), /W_HU_OFFSET/);
  assert.equal(await page.textContent('#progress-text'), MESSAGES.opened[0].replace('{findings}', MESSAGES.W_HU_OFFSET[0]), 'announced');
  const label = await page.getAttribute('#histogram svg', 'aria-label');
  const [lowest, , highest] = label.match(/-?[\d,]+(?=[,.] )/g).map((value) => Number(value.replaceAll(',', '')));
  assert.deepEqual([lowest, highest], (await page.locator('#strip dd').last().textContent()).split(' … ').map((value) => Number(value.replaceAll(',', ''))));
  const bars = await page.locator('#histogram rect').evaluateAll((all) => all.map((bar) => [Number(bar.getAttribute('x')), Number(bar.getAttribute('height'))]));
  const [air] = await page.locator('#histogram line').evaluateAll((all) => all.map((line) => Number(line.getAttribute('x1'))));
  const [tallest] = bars.toSorted((a, b) => b[1] - a[1]);
  assert.ok(tallest[0] > air + 100, `the values of air lie beside the mark of air: ${tallest} ${air}`);
  assert.equal(await page.locator('#strip dd').nth(1).textContent(), '•••_••.nii');
  await page.locator('.findings').screenshot({ path: join(out, 'histogram-en.png') });
  await page.click('[data-correct="subtract_1024"]');
  await page.waitForFunction(() => document.querySelector('#histogram').hidden);
  await finish();
});

test('bins: from the lowest value or mark to the highest, padding in the first', () => {
  const counts = new Uint32Array(65536);
  for (const [value, n] of [[-3024, 5], [-900, 2], [40, 4]]) counts[value + 32768] = n;
  const { from, bins, lowest, middle, highest } = binned(counts);
  assert.deepEqual([from, lowest, middle, highest], [-1500, -3024, -900, 40]);
  assert.equal(bins.reduce((sum, n) => sum + n, 0), 6);
  assert.equal(bins.at(-1), 4);
});

test('slope and intercept from the metadata table of CT-RATE', async () => {
  const { page, finish } = await tests.newAppPage();
  const nifti = Buffer.from(await sampleNifti());
  for (let at = 352; at < nifti.length; at += 2) nifti.writeInt16LE(nifti.readInt16LE(at) + 8192, at);
  await page.setInputFiles('#file', { name: 'train_2_a_1.nii', mimeType: 'application/octet-stream', buffer: nifti });
  await page.waitForSelector('[data-correct="load_sidecar"]');
  await idle(page);
  const give = (lines) => page.setInputFiles('#sidecar', { name: 'm.csv', mimeType: 'text/csv', buffer: Buffer.from(lines.join('\n')) });
  const head = 'VolumeName,Manufacturer,RescaleIntercept,RescaleSlope,XYSpacing,ZSpacing';
  await give([head, 'train_1_a_1.nii.gz,x,0,1,"[1.5, 1.5]",9.5', 'train_3_a_1.nii.gz,x,0,1,"[1.5, 1.5]",9.5']);
  await page.waitForSelector('#error:not([hidden])');
  assert.equal(await page.textContent('#error-code'), 'SIDECAR');
  await give([head, 'train_1_a_1.nii.gz,x,0,1,"[1.5, 1.5]",9.5', 'train_2_a_1.nii.gz,x,-8192,1,"[1.5, 1.5]",9.5']);
  await page.waitForFunction(() => !document.querySelector('#corrected').hidden);
  await idle(page);
  assert.ok(await page.isHidden('#histogram'));
  assert.match(await page.textContent('#strip'), /HU range-1,024 … 721/);
  assert.match(await page.textContent('#corrected-text'), /slope 1, intercept -8,192; spacing of the table 1.5 × 1.5 × 9.5 mm/);
  assert.equal(await page.locator('[data-accept="W_HU_RAW"]').count(), 0, 'not asked about again');
  await page.click('#uncorrect');
  await page.waitForSelector('#histogram svg');
  await finish();
});

test('a spacing that the header lacks or has otherwise, from the metadata table; slope and intercept are then not applied', async () => {
  const { page, finish } = await tests.newAppPage();
  const table = (xy, z, intercept = 0) => ({ name: 'm.csv', mimeType: 'text/csv', buffer: Buffer.from(`VolumeName,RescaleIntercept,RescaleSlope,XYSpacing,ZSpacing\nx.nii.gz,${intercept},1,"${xy}",${z}`) });
  const spacing = () => page.locator('#strip dd').nth(3).textContent();
  // Neither form, no size of a voxel.
  const nifti = Buffer.from(await sampleNifti());
  for (const at of [252, 254]) nifti.writeInt16LE(0, at);
  for (const at of [80, 84, 88]) nifti.writeFloatLE(0, at);
  await page.setInputFiles('#file', { name: 'x.nii', mimeType: 'application/octet-stream', buffer: nifti });
  await page.waitForSelector('[data-cure="load_sidecar"]');
  assert.equal(await page.textContent('#error-code'), 'E_SPACING');
  await idle(page);
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('[data-cure="load_sidecar"]')]);
  await chooser.setFiles(table('[1.5, 1.5]', 9.5));
  await page.waitForSelector('#volume:not([hidden])');
  await idle(page);
  assert.equal(await spacing(), '1.5 × 1.5 × 9.5 mm');
  assert.equal(await page.locator('[data-accept="W_SPACING"]').count(), 0);

  // Twice as far between the slices as the table says.
  const other = Buffer.from(await sampleNifti());
  for (const at of [88, 280 + 8, 296 + 8, 312 + 8]) other.writeFloatLE(2 * other.readFloatLE(at), at);
  await page.setInputFiles('#file', { name: 'x.nii', mimeType: 'application/octet-stream', buffer: other });
  await page.waitForFunction(() => /× 19 mm/.test(document.querySelector('#strip').textContent));
  await idle(page);
  const range = await page.locator('#strip dd').last().textContent();
  const [second] = await Promise.all([page.waitForEvent('filechooser'), page.click('[data-correct="load_sidecar"]')]);
  await second.setFiles(table('[1.5]', 9.5, -1024));
  await page.waitForFunction(() => /× 9.5 mm/.test(document.querySelector('#strip').textContent));
  await idle(page);
  assert.equal(await page.locator('#strip dd').last().textContent(), range, 'the values are those of the header');
  assert.equal(await page.locator('[data-accept="W_SPACING"]').count(), 1, 'asked about');
  assert.equal(await page.locator('[data-accept="W_HU_RAW"]').count(), 1, 'as is the other scaling');
  assert.equal(await page.textContent('#corrected-text'), `${MESSAGES.corrected[0]} ${text('corrected_spacing', { mm: '1.5 × 1.5 × 9.5' })}`);
  await page.click('#uncorrect');
  await page.waitForFunction(() => /× 19 mm/.test(document.querySelector('#strip').textContent));
  await idle(page);
  await page.setInputFiles('#sidecar', { name: 'm.csv', mimeType: 'text/csv', buffer: Buffer.from('VolumeName,RescaleIntercept,RescaleSlope\nx,0,1') });
  await page.waitForSelector('#error:not([hidden])');
  assert.equal(await page.textContent('#error-code'), 'SIDECAR');
  await finish();
});

test('a metadata table: one row needs no name, spacing where it has it, and what is refused', () => {
  const head = 'VolumeName;RescaleSlope;RescaleIntercept';
  assert.deepEqual(rowIn(`${head}\na.nii.gz;1;-1024`, 'b'), { scaling: { slope: 1, intercept: -1024 } });
  const spaced = (xy, z) => rowIn(`${head};XYSpacing;ZSpacing\na;1;0;${xy};${z}`, 'a').sidecar;
  for (const [xy, expected] of [['[0.5, 0.75]', [0.5, 0.75]], ['"[0.5]"', [0.5]], ['0.5', [0.5]], ['(0.5,0.75)', [0.5, 0.75]]]) {
    assert.deepEqual(spaced(xy, ' 2 '), { rescaleSlope: 1, rescaleIntercept: 0, xySpacing: expected, zSpacing: 2 }, xy);
  }
  for (const [xy, z] of [['', 2], ['[]', 2], ['x', 2], ['0', 2], ['0.5', 0], ['0.5', ''], ['0.5', -1], ['[0.5,]', 2]]) assert.throws(() => spaced(xy, z), { code: 'SIDECAR' }, `${xy} ${z}`);
  for (const bad of ['', 'a,b\n1,2', head, `${head}\na;1;`, `${head}\na;1;x`]) assert.throws(() => rowIn(bad, 'a'), { code: 'SIDECAR' }, bad);
});

/** Files dropped on the page together. */
const drop = (page, files) => page.evaluate((given) => {
  const transfer = new DataTransfer();
  for (const [name, bytes] of given) transfer.items.add(new File([new Uint8Array(bytes)], name));
  document.querySelector('#drop').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
}, Object.entries(files).map(([name, bytes]) => [name, [...Buffer.from(bytes)]]));
const shown = async (page, n) => {
  await page.waitForFunction((count) => document.querySelectorAll('#volumes li').length === count, n);
  await idle(page);
};

test('places are the file\'s: its own voxel numbers, and world mm also where slices are oblique', async () => {
  const { page, finish } = await tests.newAppPage();
  const dims = [24, 22, 20];
  const nifti = await ramp(dims);
  // Stored right, anterior, superior; turned by 9 degrees about the axis from left to right.
  const [sin, cos] = [Math.sin, Math.cos].map((of) => of((9 * Math.PI) / 180));
  const affine = [[1.5, 0, 0, -20], [0, 2 * cos, -3 * sin, 10], [0, 2 * sin, 3 * cos, -300]];
  nifti.writeInt16LE(0, 252);
  affine.flat().forEach((value, i) => nifti.writeFloatLE(value, 280 + 4 * i));
  [1.5, 2, 3].forEach((mm, i) => nifti.writeFloatLE(mm, 80 + 4 * i));
  await openFile(page, nifti);
  const stored = [[2, 3, 4], [20, 1, 17], [11, 21, 0]];
  const said = await page.evaluate(async ({ places, sizes: [nx, ny] }) => {
    const { viewer } = await import('/volume.js');
    const found = [];
    for (const [i, j, k] of places) {
      await viewer.moveTo([nx - 1 - i, ny - 1 - j, k]);
      found.push(document.querySelector('#cross').textContent);
    }
    return found;
  }, { places: stored, sizes: dims });
  for (const [n, [i, j, k]] of stored.entries()) {
    const mm = affine.map(([a, b, c, d], axis) => {
      const value = a * i + b * j + c * k + d;
      return `${['LR', 'PA', 'IS'][axis][Number(value >= 0)]} ${(Math.round(Math.abs(value) * 100) / 100).toLocaleString('en', { maximumFractionDigits: 1 })}`;
    }).join(' ');
    const hu = (-1000 + 10 * i + 100 * j + 300 * k).toLocaleString('en');
    assert.equal(said[n], text('probe', { hu, x: i, y: j, z: k, mm }));
  }
  await finish();
});

test('the .json of a converter beside a volume is no report: it is searched for identifiers', async () => {
  const { page, finish } = await tests.newAppPage();
  const nifti = await sampleNifti();
  const name = 'ZQX^VKW';
  const metadata = JSON.stringify({ Modality: 'CT', ConversionSoftware: 'dcm2niix', PatientName: name });
  const counts = () => page.evaluate(() => ['#identifiers li', '#reports > li'].map((wanted) => document.querySelectorAll(wanted).length));
  const places = async () => (await page.locator('#identifiers').textContent()).split(placeText('sidecar')).length - 1;
  await drop(page, { 'a.nii': nifti, 'a.json': metadata, 'r.json': '["Clear lungs."]' });
  await shown(page, 1);
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 1);
  const [found] = await counts();
  assert.ok(found > 0 && (await places()) > 0 && (await page.isHidden('#error')), `${found}`);
  assert.ok(!(await page.content()).includes('ZQX'));
  await page.click('#reveal');
  await page.waitForFunction((wanted) => document.querySelector('#identifiers').textContent.includes(wanted), name);
  await page.click('#reveal');

  // Chosen with the volume; and for a volume that is open already.
  await page.setInputFiles('#file', [['b.nii', nifti], ['b.json', Buffer.from(metadata)]].map(([file, buffer]) => ({ name: file, mimeType: 'application/octet-stream', buffer })));
  await shown(page, 2);
  assert.ok((await places()) > 0 && (await page.isHidden('#error')));
  await drop(page, { 'c.nii': nifti });
  await shown(page, 3);
  assert.equal(await places(), 0);
  await drop(page, { 'c.json': metadata });
  await page.waitForFunction((wanted) => document.querySelector('#identifiers').textContent.includes(wanted), placeText('sidecar'));
  await idle(page);
  assert.equal((await counts())[1], 1);
  // Of no volume that is here.
  await drop(page, { 'd.json': metadata });
  await page.waitForSelector('#error:not([hidden])');
  assert.equal(await page.textContent('#error-code'), 'TEXT_INPUT');
  // A report may have its volume's name.
  await idle(page);
  await drop(page, { 'e.nii': nifti, 'e.json': '{"findings": "Emphysema."}' });
  await shown(page, 4);
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 2);
  assert.equal(await places(), 0);
  await finish();
});

test('as the published evaluation reads: stored order, both scalings, and no letters that nobody checked', async () => {
  const { page, finish } = await tests.newAppPage();
  const nifti = Buffer.from(await sampleNifti());
  // From left to right and from back to front: the other way along both axes.
  for (const at of [280, 300]) nifti.writeFloatLE(-nifti.readFloatLE(at), at);
  nifti.writeInt16LE(0, 252);
  nifti.writeFloatLE(1, 112);
  nifti.writeFloatLE(-24, 116);
  await openFile(page, nifti);
  const range = async () => (await page.locator('#strip dd').last().textContent()).replaceAll(',', '').split(' … ').map(Number);
  const letters = () => page.locator('.letter').allTextContents();
  const before = await range();
  assert.ok(!(await letters()).includes('?') && (await page.isHidden('#orientation-banner')));
  await page.click('#reading > summary');
  await page.check('#reference-exact');
  await page.waitForFunction(() => !document.querySelector('#corrected').hidden);
  await idle(page);
  assert.ok((await letters()).every((letter) => letter === '?'));
  assert.equal(await page.textContent('#orientation-banner'), MESSAGES.orientation_stored[0]);
  assert.ok((await page.textContent('#corrected-text')).includes(MESSAGES.reference_exact[0]));
  assert.deepEqual(await range(), before);
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#load-table')]);
  await chooser.setFiles({ name: 'm.csv', mimeType: 'text/csv', buffer: Buffer.from('VolumeName,RescaleIntercept,RescaleSlope,XYSpacing,ZSpacing\nx.nii,-100,1,"[1.5, 1.5]",9.5') });
  await page.waitForFunction(() => /1.5 × 1.5 × 9.5/.test(document.querySelector('#corrected-text').textContent));
  await idle(page);
  assert.deepEqual(await range(), before.map((hu) => hu - 100), 'the table after the header');
  await page.click('#uncorrect');
  await page.waitForFunction(() => document.querySelector('#corrected').hidden);
  await idle(page);
  assert.ok(!(await page.isChecked('#reference-exact')) && (await page.isHidden('#orientation-banner')));
  await finish();
});

test('a table that contradicts a header: its scaling is not put on top of the header\'s, and the values can be said to be HU', async () => {
  const { page, finish } = await tests.newAppPage();
  const nifti = Buffer.from(await sampleNifti());
  nifti.writeFloatLE(1, 112);
  nifti.writeFloatLE(-24, 116);
  const give = async (bytes) => {
    await openFile(page, bytes);
    await page.evaluate(() => { document.querySelector('#reading').open = true; });
    const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#load-table')]);
    await chooser.setFiles({ name: 'm.csv', mimeType: 'text/csv', buffer: Buffer.from('VolumeName,RescaleIntercept,RescaleSlope,XYSpacing,ZSpacing\nx.nii,-1024,1,"[1.5, 1.5]",9.5') });
    await page.waitForSelector('[data-accept="W_HU_RAW"]');
    await idle(page);
  };
  const corrections = () => page.locator('[data-correct]').evaluateAll((all) => all.map(({ dataset }) => dataset.correct));
  const unit = () => page.textContent('#cross');
  await give(nifti);
  assert.deepEqual(await corrections(), ['already_hu']);
  assert.match(await unit(), /not HU/);
  await page.click('[data-correct="already_hu"]');
  await page.waitForFunction(() => !document.querySelector('[data-accept="W_HU_RAW"]'));
  await idle(page);
  assert.doesNotMatch(await unit(), /not HU/);
  assert.ok((await page.textContent('#corrected-text')).includes(MESSAGES.already_hu[0]));
  // Without a scaling of its own, the table's may be what is missing.
  await give(await sampleNifti());
  assert.deepEqual((await corrections()).filter((key) => /hu|table/.test(key)), ['already_hu', 'apply_table']);
  await page.click('[data-correct="apply_table"]');
  await page.waitForFunction(() => !document.querySelector('[data-accept="W_HU_RAW"]'));
  await idle(page);
  assert.match(await page.textContent('#corrected-text'), /slope 1, intercept -1,024/);
  await finish();
});

test('tilt is explained; another file of equal size starts in its middle; a folder of DICOM and files while something runs have their word', async () => {
  const { page, finish } = await tests.newAppPage();
  const nifti = await sampleNifti();
  const sheared = Buffer.from(nifti);
  sheared.writeInt16LE(0, 252);
  const rad = (15 * Math.PI) / 180;
  [[-1.5, 0, 0, 0], [0, -1.5, 9.5 * Math.sin(rad), 0], [0, 0, 9.5 * Math.cos(rad), 0]].flat().forEach((value, i) => sheared.writeFloatLE(value, 280 + 4 * i));
  await openFile(page, sheared);
  assert.ok((await page.textContent('#findings')).includes(MESSAGES.help_W_SHEAR[0]));
  const position = () => page.evaluate(async () => (await import('/volume.js')).viewer.position);
  const middle = await position();
  await page.evaluate(async () => (await import('/volume.js')).viewer.moveTo([3, 4, 5]));
  await page.check('[data-accept="W_SHEAR"]');
  assert.deepEqual(await position(), [3, 4, 5]);
  await drop(page, { 'other.nii': nifti });
  await shown(page, 2);
  assert.deepEqual(await position(), middle);

  const dicom = Buffer.alloc(400);
  dicom.write('DICM', 128, 'latin1');
  await page.evaluate((bytes) => {
    const file = (name) => ({ isFile: true, file: (found) => found(new File([new Uint8Array(bytes)], name)) });
    const parts = [[file('IM0001'), file('IM0002')]];
    const event = new Event('drop', { bubbles: true, cancelable: true });
    event.dataTransfer = { items: [{ webkitGetAsEntry: () => ({ isDirectory: true, createReader: () => ({ readEntries: (found) => found(parts.shift() ?? []) }) }) }], files: [] };
    document.querySelector('#drop').dispatchEvent(event);
  }, [...dicom]);
  await page.waitForFunction(() => document.querySelector('#error-code').textContent === 'E_DICOM');
  await idle(page);
  await drop(page, { '1.dcm': dicom, '2.dcm': dicom, '3.dcm': dicom });
  await page.waitForFunction(() => !document.querySelector('#choose-file').disabled);
  await idle(page);
  assert.equal(await page.textContent('#error-code'), 'E_DICOM');

  // A reading that waits keeps the page busy.
  await page.evaluate(async () => {
    const { run } = await import('/app.js');
    window.working = run('phase_read', () => new Promise((done) => { window.done = done; }));
  });
  await drop(page, { 'late.nii': nifti });
  await page.waitForFunction(() => document.querySelector('#error-code').textContent === 'BUSY');
  await page.evaluate(async () => {
    window.done('');
    await window.working;
  });
  assert.equal(await page.locator('#volumes li').count(), 2);
  await finish();
});
