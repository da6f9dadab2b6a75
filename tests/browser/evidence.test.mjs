// The evidence map on the page: the numbers of the session, over the planes, with places to go to and a file.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES } from '../../www/i18n.js';
import { gunzipSync, host, idle, out, SLOW_MS, useSample } from './harness.mjs';

const tests = host({ gpu: false });

test('why the best report: map, sum, places, file; gone with the volume', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await page.click('#evidence > summary');
  assert.ok(await page.isDisabled('#evidence-show'), 'there is no volume');
  assert.match(await page.textContent('#evidence'), /no segmentation/);
  await useSample(page);
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
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
  await go.click();
  await page.waitForFunction((line) => document.querySelector('#cross').textContent.includes(line), place);
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
