// Cancel on the page in each phase that takes long on the CPU: soon over, everything loaded is still there, and the next run ends.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES } from '../../www/i18n.js';
import { host, idle, SLOW_MS, useSample, writeLargeNifti } from './harness.mjs';

const SOON_MS = 500; // VIEWER_AND_RANKING_UI.md A-2
const DIMS = [512, 512, 200]; // a second to read

let slow = false;
const tests = host({
  gpu: false,
  intercept: async ({ url }) => {
    if (slow && url.includes('weights-')) await new Promise((done) => setTimeout(done, 20_000));
    return false;
  },
});

/** Waits for the phase, cancels it, and says how long that took. @param {import('playwright-core').Page} page @param {string} key */
async function cancelIn(page, key) {
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent.includes(line), MESSAGES[key][0], { timeout: SLOW_MS, polling: 20 });
  const took = await page.evaluate(() => new Promise((done) => {
    const cancel = document.querySelector('#cancel');
    const from = performance.now();
    new MutationObserver(() => { if (cancel.hidden) done(performance.now() - from); }).observe(cancel, { attributes: true });
    cancel.click();
  }));
  assert.ok(took < SOON_MS, `${key}: ${took} ms`);
  assert.equal(await page.textContent('#progress-text'), MESSAGES.cancelled[0], key);
}

test('weights, texts, a large file, its clean copy', { timeout: 3 * SLOW_MS }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ctmatch-'));
  const path = join(folder, 'large.nii');
  await writeLargeNifti(path, DIMS);

  const { page, finish } = await tests.newAppPage();
  try {
    await useSample(page);
    await page.check('input[name="backend"][value="cpu"]');
    slow = true;
    await page.click('#rank');
    await page.waitForFunction(() => /\d s/.test(document.querySelector('#progress-time').textContent), undefined, { timeout: SLOW_MS });
    await cancelIn(page, 'phase_model');
    slow = false;

    const texts = Array.from({ length: 400 }, (_, i) => `Nodule of ${i} mm in the right upper lobe. No effusion, no consolidation, normal heart.`);
    await page.setInputFiles('#reports-file', { name: 'x.txt', mimeType: 'text/plain', buffer: Buffer.from(texts.join('\n\n')) });
    await page.waitForFunction(() => document.querySelector('#report-notes').textContent.startsWith('404'));
    await idle(page);
    await page.click('#rank');
    await cancelIn(page, 'phase_text');

    await page.setInputFiles('#file', path);
    await cancelIn(page, 'phase_read');
    assert.match(await page.textContent('#strip'), /208 × 160 × 30/, 'the volume before is still shown');
    await page.setInputFiles('#file', path);
    await page.waitForFunction(() => document.querySelector('#strip').textContent.includes('512 × 512 × 200'), undefined, { timeout: SLOW_MS });
    await idle(page);
    await page.click('#save-clean');
    await cancelIn(page, 'phase_clean');

    await useSample(page);
    assert.equal(await page.locator('#reports > li').count(), 4);
    await page.click('#rank');
    await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
    await idle(page);
    assert.equal(await page.textContent('#progress-time'), '');
  } finally {
    rmSync(folder, { recursive: true });
  }
  await finish();
});

/**
 * Starts work, cancels it as soon as it says a phase, and gives the milliseconds until it is over.
 * @param {import('playwright-core').Page} page @param {string} button @param {string} key
 */
const cancelAt = (page, button, key) => page.evaluate(async ([start, line]) => {
  const [cancel, said] = ['#cancel', '#progress-text'].map((id) => document.querySelector(id));
  const took = new Promise((done) => {
    let from;
    new MutationObserver((_, observer) => {
      if (from === undefined && !cancel.hidden && said.textContent.startsWith(line)) {
        from = performance.now();
        cancel.click();
      } else if (cancel.hidden && said.textContent !== '') {
        observer.disconnect();
        done(from === undefined ? 'the phase was not seen' : performance.now() - from);
      }
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  });
  document.querySelector(start).click();
  return [await took, said.textContent];
}, [button, MESSAGES[key][0]]);

/** What starts work on a page where everything before it is done, and the phases it goes through on the CPU, in their order. @type {[string, string[]][]} */
const WORK = [
  ['#rank', ['phase_compile', 'phase_weights', 'phase_upload', 'phase_self-test', 'phase_preprocess', 'phase_encode', 'phase_text']],
  ['#occlude', ['phase_occlude']],
];

test('every phase of a ranking, and cubes that are hidden, on the CPU', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await useSample(page);
  await page.check('input[name="backend"][value="cpu"]');
  const wrong = [];
  for (const [button, phases] of WORK) {
    if (button === '#occlude') {
      await page.click('#rank');
      await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
      await idle(page);
      await page.click('#evidence > summary');
      await page.click('#evidence-show');
      await page.waitForSelector('#evidence-result:not([hidden])', { timeout: SLOW_MS });
      await idle(page);
    }
    for (const key of phases) {
      const [took, said] = await cancelAt(page, button, key);
      await idle(page);
      if (!(took < SOON_MS) || said !== MESSAGES.cancelled[0]) wrong.push([button, key, took, said]);
      assert.equal(await page.locator('#reports > li').count(), 4, key);
    }
  }
  assert.deepEqual(wrong, []);
  await finish();
});
