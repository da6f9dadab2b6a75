// The evidence map on the page: the numbers of the session, over the planes, with places to go to and a file.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES } from '../../www/i18n.js';
import { gunzipSync, host, idle, out, rankOnCpu, SLOW_MS, useSample } from './harness.mjs';

const tests = host({ gpu: false });

test('why the best report: map, sum, places, file; gone with the volume', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await page.click('#evidence > summary');
  assert.ok(await page.isDisabled('#evidence-show'), 'there is no volume');
  assert.match(await page.textContent('#evidence'), /no segmentation/);
  await useSample(page);
  await rankOnCpu(page);
  await idle(page);

  const [first, second] = await page.locator('#result-rows strong').allTextContents();
  assert.equal(await page.locator('#evidence-of option').first().textContent(), MESSAGES.evidence_against[0].replace('{better}', first).replace('{other}', second));
  await page.selectOption('#evidence-of', 'against');
  await page.selectOption('#evidence-variant', 'share');
  await page.click('#evidence-show');
  await page.waitForSelector('#evidence-result:not([hidden])', { timeout: SLOW_MS });
  await idle(page);
  const [sum, score] = (await page.textContent('#evidence-sum')).match(/[+-]\d\.\d{4}/g).map(Number);
  const margin = Number((await page.locator('#result-rows tr').first().locator('td').nth(3).textContent()));
  assert.ok(Math.abs(sum - score) <= 1e-4 && Math.abs(score - margin) < 1e-3, `${sum} ${score} ${margin}`);
  assert.equal(await page.locator('#evidence-rows tr').count(), 10);
  const maps = () => page.evaluate(async () => (await import('/volume.js')).viewer.views.map(({ map }) => map.hidden));
  assert.deepEqual(await maps(), [false, false, false]);

  // To the highest cube: the cross-hair is there, and the map has colour there.
  const go = page.locator('#evidence-rows button').first();
  const place = await go.textContent();
  const before = await page.textContent('#cross');
  await go.click();
  // The button names the middle of the cube, the cross-hair is on the voxel nearest to it.
  const world = (words) => [...words.matchAll(/([RLAPSI]) ([\d.]+)/g)].map(([, letter, mm]) => ('LPI'.includes(letter) ? -mm : Number(mm)));
  await page.waitForFunction((before) => document.querySelector('#cross').textContent !== before, before);
  const [middle, cross] = [world(place), world(await page.textContent('#cross'))];
  const halfVoxel = [1.5, 1.5, 9.5].map((mm) => mm / 2 + 0.1); // and the rounding of both
  assert.ok(middle.length === 3 && middle.every((mm, axis) => Math.abs(mm - cross[axis]) <= halfVoxel[axis]), `${place}, ${cross}`);
  await page.waitForFunction(async () => (await import('/volume.js')).viewer.views.every((view) => view.sliceIndex === view.index));
  const colour = await page.evaluate(async () => {
    const { map } = (await import('/volume.js')).viewer.views[0];
    return Math.max(...map.getContext('2d').getImageData(0, 0, map.width, map.height).data.filter((_, i) => i % 4 === 3));
  });
  assert.ok(colour > 0);
  await page.screenshot({ path: join(out, 'evidence-en.png'), fullPage: true });

  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#evidence-save')]);
  const nifti = gunzipSync(await readFile(await download.path()));
  assert.deepEqual([nifti.readInt16LE(42), nifti.readInt16LE(44), nifti.readInt16LE(46), nifti.readInt16LE(70)], [208, 160, 30, 16]);
  // The record is a comment behind the header, the notice its description too.
  const voxels = nifti.readFloatLE(108);
  assert.deepEqual([nifti[348], nifti.readInt32LE(352), nifti.readInt32LE(356)], [1, voxels - 352, 6]);
  const record = JSON.parse(nifti.toString('utf8', 360, voxels).replace(/\0+$/, ''));
  assert.deepEqual([record.schema, record.explanation.of.report, record.explanation.sum.toFixed(4)], ['ctmatch-result-1', first, sum.toFixed(4)]);
  for (const [part, name] of [['model', 'weights_sha256'], ['input', 'voxel_sha256'], ['runtime', 'backend'], ['notice', 'zh']]) assert.ok(record[part][name], name);
  assert.match(nifti.toString('latin1', 148, 228), /^Research use only\. Not a medical device\.\0/);
  await idle(page);

  // A finding, by another method; then another volume.
  await page.click('#lang-zh');
  await page.selectOption('#evidence-of', 'label Pleural effusion');
  await page.selectOption('#evidence-variant', 'baseline');
  await page.click('#evidence-show');
  await page.waitForFunction(() => document.querySelector('#evidence-sum').textContent.includes('logit'), undefined, { timeout: SLOW_MS });
  await idle(page);
  await page.screenshot({ path: join(out, 'evidence-zh.png'), fullPage: true });
  await page.selectOption('#sample', 'chest-2');
  await page.click('#use-sample');
  await page.waitForFunction(() => document.querySelector('#evidence-result').hidden, undefined, { timeout: SLOW_MS });
  assert.deepEqual(await maps(), [true, true, true]);
  await idle(page);
  await finish();
});

test('the self-check of the shares by the weights: 1e-5 of f32, 1e-4 of others', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await useSample(page);
  await rankOnCpu(page);
  await idle(page);
  await page.click('#evidence > summary');
  // What such weights would give.
  const show = async (variant, selfCheck) => {
    await page.evaluate(async (given) => {
      const { state } = await import('/app.js');
      const { session } = state;
      state.entry.latent.image.provenance.variant = given.variant;
      session.real ??= session.explain;
      session.explain = async (...args) => ({ ...await session.real(...args), selfCheck: given.selfCheck });
    }, { variant, selfCheck });
    await page.click('#evidence-show');
    await idle(page);
    return page.isVisible('#evidence-result');
  };
  assert.ok(await show('q8', 5e-5));
  assert.ok(await show('f32', 5e-6));
  await show('f32', 5e-5);
  assert.equal(await page.textContent('#error-code'), 'BAD_RESULT');
  await finish();
});

test('the map: colour bar, strength, against the mean, off and on by key; cubes hidden one by one, and cancelled', { timeout: 3 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await useSample(page);
  await rankOnCpu(page);
  await idle(page);
  assert.ok(await page.isHidden('#legend'));
  // The two that a person compares can be explained too.
  for (const row of [2, 4]) await page.click(`#result-rows tr:nth-child(${row}) [data-compare]`);
  const ids = await page.locator('#result-rows strong').allTextContents();
  await page.click('#evidence > summary');
  await page.selectOption('#evidence-of', 'compared');
  assert.equal(await page.locator('#evidence-of option').first().textContent(), MESSAGES.evidence_against[0].replace('{better}', ids[1]).replace('{other}', ids[3]));
  await page.selectOption('#evidence-variant', 'share');
  await page.click('#evidence-show');
  await page.waitForSelector('#legend:not([hidden])', { timeout: SLOW_MS });
  await idle(page);
  const cell = MESSAGES.map_share[0].split('{mm}');
  const note = await page.textContent('#legend-note');
  assert.ok(note.startsWith(cell[0]) && note.endsWith(cell[1]), note);
  const drawn = () => page.evaluate(async () => {
    const { map, views } = (await import('/volume.js')).viewer;
    return { sum: map?.values.reduce((sum, value) => sum + value, 0), opacity: map?.opacity, hidden: views[0].map.hidden, cells: views[0].cells.hidden };
  });
  const first = await drawn();
  const score = Number((await page.textContent('#evidence-sum')).match(/[+-]\d\.\d{4}/)[0]);
  assert.ok(Math.abs(first.sum - score) < 1e-3 && Math.abs(score) > 1e-3 && !first.hidden && first.cells, JSON.stringify(first));
  await page.check('#map-relative');
  assert.ok(Math.abs((await drawn()).sum) < 1e-4, 'the mean is taken away');
  await page.check('#map-outlines');
  await page.fill('#map-opacity', '0.8');
  const now = await drawn();
  assert.deepEqual([now.opacity, now.cells], [0.8, false]);
  await page.screenshot({ path: join(out, 'legend-en.png'), fullPage: true });
  // What is saved says what the colours are, in the pictures too.
  const saved = async (name) => {
    const [file] = await Promise.all([page.waitForEvent('download'), page.click('#export-html')]);
    const content = await readFile(await file.path(), 'utf8');
    const plain = await tests.newPage();
    await plain.page.setContent(content);
    await plain.page.screenshot({ path: join(out, `report-map-${name}.png`), fullPage: true });
    const found = {
      heights: await plain.page.locator('img').evaluateAll((images) => images.map(({ naturalHeight }) => naturalHeight)),
      // Along each row of the first picture: how many pixels have the colours at the ends of the scale.
      scale: await plain.page.locator('img').first().evaluate((image) => {
        const { naturalWidth: width, naturalHeight: height } = image;
        const context = Object.assign(document.createElement('canvas'), { width, height }).getContext('2d');
        context.drawImage(image, 0, 0);
        const rows = Array.from({ length: height }, (_, y) => context.getImageData(0, y, width, 1).data);
        const near = (row, colour) => row.some((_, i) => i % 4 === 0 && colour.every((value, c) => Math.abs(row[i + c] - value) < 6));
        return rows.filter((row) => near(row, [80, 160, 255]) && near(row, [255, 170, 60])).length;
      }),
      text: await plain.page.locator('main').innerText(),
    };
    await plain.finish();
    return found;
  };
  const [low, high, unit, label] = await Promise.all(['low', 'high', 'unit', 'note'].map((part) => page.textContent(`#legend-${part}`)));
  const english = await saved('en');
  for (const part of [label, `${low} … ${high} ${unit}`, MESSAGES.map_relative[0]]) assert.ok(english.text.includes(part), part);
  assert.ok(english.scale >= 8, String(english.scale));
  await page.click('#lang-zh');
  const chinese = await saved('zh');
  for (const part of [await page.textContent('#legend-note'), MESSAGES.map_relative[1]]) assert.ok(chinese.text.includes(part), part);
  assert.ok(chinese.scale >= 8, String(chinese.scale));
  await page.click('#lang-en');
  await page.click('#map-on');
  const without = await saved('off');
  assert.ok(!without.text.includes(label) && without.scale === 0 && without.heights.every((height, i) => height < english.heights[i]), 'the map is off');
  await page.click('#map-on');

  await page.locator('.view').first().focus();
  await page.keyboard.press('h');
  assert.deepEqual([(await drawn()).hidden, await page.getAttribute('#map-on', 'aria-pressed')], [true, 'false']);
  await page.keyboard.press('h');
  assert.equal((await drawn()).hidden, false);

  await page.fill('#occlude-count', '9');
  assert.ok(await page.isDisabled('#occlude'), 'at most 8');
  await page.fill('#occlude-count', '2');
  assert.match(await page.textContent('#occlude-cost'), /^2 encodes, about [\d.]+ s$/);
  await page.click('#occlude');
  await page.waitForSelector('#evidence-rows [data-hidden]:not(:empty)', { timeout: SLOW_MS });
  await idle(page);
  const falls = async () => (await page.locator('#evidence-rows [data-hidden]').allTextContents()).filter(Boolean).map(Number);
  assert.equal((await falls()).length, 2);
  // The package's own numbers for the highest cube.
  const direct = await page.evaluate(async () => {
    const { state } = await import('/app.js');
    const { set, image, ranking } = state.result;
    const length = set.vectors.length / set.size;
    const [text, against] = [1, 3].map((i) => set.vectors.slice(ranking.rows[i].index * length, (ranking.rows[i].index + 1) * length));
    const cube = Number(document.querySelector('#evidence-rows [data-hidden]').dataset.hidden);
    return (await state.session.occlude(state.volume, [cube], { text, against, image })).rows[0].fall;
  });
  assert.ok(Math.abs(direct - (await falls())[0]) < 1e-4, `${direct} ${await falls()}`);

  // Cancelled after the third: what was found stays, and it goes on from there.
  await page.fill('#occlude-count', '8');
  await page.click('#occlude');
  await page.waitForFunction(() => [...document.querySelectorAll('#evidence-rows [data-hidden]')].filter((cell) => cell.textContent).length >= 3, undefined, { timeout: SLOW_MS });
  await page.click('#cancel');
  await idle(page);
  const kept = (await falls()).length;
  assert.ok(kept >= 3 && kept < 8, String(kept));
  assert.equal(await page.textContent('#progress-text'), MESSAGES.cancelled[0]);
  await page.selectOption('#evidence-grid', 'token');
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#evidence-save')]);
  const nifti = gunzipSync(await readFile(await download.path()));
  assert.ok(nifti.readInt16LE(42) < 208, 'one voxel per cube');
  await finish();
});
