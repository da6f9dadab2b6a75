// After a failure on the page: what was finished is still shown and can be saved, each error has a way on, and that way repeats what failed.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES } from '../../www/i18n.js';
import { host, idle, rankOnCpu, SLOW_MS, useSample, www } from './harness.mjs';

const tests = host();

/** In the page, before anything: keeps the session's worker, notes what is asked of it, and lets chosen calls fail with a code. */
const tamper = () => {
  const plan = { asked: [], fail: {}, workers: [] };
  window.plan = plan;
  const Real = Worker;
  window.Worker = class extends Real {
    constructor(url, options) {
      const session = String(url).endsWith('/ctmatch/worker.js');
      super(session && window.workerUrl ? window.workerUrl : url, options);
      if (session) plan.workers.push(this);
    }

    postMessage(message, ...rest) {
      if (message.method) plan.asked.push(message.method);
      const code = plan.fail[message.method];
      if (!code) return super.postMessage(message, ...rest);
      delete plan.fail[message.method];
      const error = { name: 'CtmatchError', code, message: 'made to fail', retryable: true, detail: { reason: 'no-adapter', adapter: 'none' } };
      return queueMicrotask(() => this.dispatchEvent(new MessageEvent('message', { data: { id: message.id, error } })));
    }
  };
};
/** As `tamper`, with a worker whose GPU device the page can destroy. */
const tamperGpu = () => { window.workerUrl = '/test/destroy-worker.js'; };

/** What the session was asked for since the last time. @param {import('playwright-core').Page} page */
const asked = (page) => page.evaluate(() => window.plan.asked.splice(0));
const fail = (page, calls) => page.evaluate((fails) => { Object.assign(window.plan.fail, fails); }, calls);
const offered = (page) => page.evaluate(() => [...document.querySelectorAll('#error-actions [data-cure]')].map((made) => made.dataset.cure));
/** Waits for the end of the work that is in progress, which has to fail so. */
async function fails(page, code) {
  await page.waitForFunction(() => document.querySelector('#cancel').hidden && !document.querySelector('#error').hidden, undefined, { timeout: SLOW_MS });
  assert.equal(await page.textContent('#error-code'), code);
}
/** Cosines as they are shown; none where no result is. */
const ranking = (page) => page.evaluate(() => (document.querySelector('#result').hidden ? [] : [...document.querySelectorAll('#result-rows .cosine')].map((cell) => cell.textContent)));
const record = async (page) => {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
  return JSON.parse(await readFile(await download.path(), 'utf8'));
};
/** The page's own model, as files. @returns {Promise<{ name: string, mimeType: string, buffer: Buffer }[]>} */
async function modelFiles() {
  const folder = join(www, 'model');
  return Promise.all((await readdir(folder)).map(async (name) => ({ name, mimeType: 'application/octet-stream', buffer: await readFile(join(folder, name)) })));
}
const openAll = (page) => page.evaluate(() => { for (const details of document.querySelectorAll('details')) details.open = true; });
/** Waits for the end of the work that is in progress, which has to succeed. */
async function done(page) {
  await idle(page);
  assert.ok(await page.isHidden('#error'), await page.textContent('#error'));
}

/** The sample, ranked on the CPU. */
async function ranked() {
  const made = await tests.newAppPage({ init: tamper });
  const { page } = made;
  await useSample(page);
  await rankOnCpu(page);
  await idle(page);
  await openAll(page);
  return made;
}

test('a killed worker: ranking, scores and map stay through a new session, and nothing is encoded again', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  await page.click('#zero-shot-run');
  await page.waitForSelector('#zero-shot-rows tr', { timeout: SLOW_MS });
  await idle(page);
  await page.click('#evidence-show');
  await page.waitForSelector('#evidence-rows tr', { timeout: SLOW_MS });
  await idle(page);
  const [cosines, before] = [await ranking(page), await record(page)];
  assert.equal(cosines.length, 4);
  const all = async () => [await ranking(page), await page.locator('#zero-shot-rows tr').count(), await page.locator('#evidence-rows tr').count(), await page.isVisible('#zero-shot-result')];
  const shown = await all();

  await page.evaluate(() => window.plan.workers.at(-1).terminate());
  await page.click('#zero-shot-run');
  await fails(page, 'WASM_ABORT');
  assert.deepEqual(await all(), shown, 'after the failure');
  assert.deepEqual(await record(page), before, 'it can still be saved');
  await asked(page);
  await page.click('[data-cure="reopen"]');
  await done(page);
  assert.deepEqual(await all(), shown, 'after the new session');
  assert.deepEqual((await asked(page)).filter((method) => method !== 'slice'), ['hello', 'open', 'readVolume']);

  await page.click('#zero-shot-run');
  await done(page);
  assert.deepEqual(await ranking(page), cosines, 'after the model came back');
  assert.deepEqual((await record(page)).candidates, before.candidates);
  await page.click('#rank');
  await done(page);
  assert.deepEqual(await ranking(page), cosines);
  assert.ok(!(await asked(page)).includes('encodeVolume'), 'the latent is kept');

  // Without the cure: the next work opens a session by itself.
  await page.evaluate(() => window.plan.workers.at(-1).terminate());
  await page.click('#zero-shot-run');
  await fails(page, 'WASM_ABORT');
  await page.click('#rank');
  await done(page);
  assert.deepEqual(await ranking(page), cosines);
  await finish();
});

test('a device that computes wrongly: a fresh session repeats what failed, and nothing else', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  const cosines = await ranking(page);
  const works = [
    ['SHADER_INVALID', 'zeroShot', '#zero-shot-run', '#zero-shot-rows tr'], ['BAD_RESULT', 'explain', '#evidence-show', '#evidence-rows tr'],
    ['SELF_TEST_FAILED', 'modelBox', '#model-box', '#model-box[aria-pressed="true"]'],
  ];
  for (const [code, method, button, outcome] of works) {
    await fail(page, { [method]: code });
    await page.click(button);
    await fails(page, code);
    assert.equal(await page.textContent('#error-text'), MESSAGES[code][0]);
    assert.deepEqual(await offered(page), ['restore'], `${code}: the CPU computes already`);
    assert.equal(await page.locator(outcome).count(), 0, code);
    await asked(page);
    await page.click('[data-cure="restore"]');
    await page.waitForSelector(outcome, { timeout: SLOW_MS, state: 'attached' });
    await done(page);
    const calls = await asked(page);
    assert.deepEqual([calls.includes('open'), calls.includes(method), calls.includes('rank'), calls.includes('encodeVolume')], [true, true, false, false], calls.join());
    assert.deepEqual(await ranking(page), cosines, code);
  }
  await finish();
});

test('another backend is for what failed, whichever it was', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage({ init: tamper });
  await useSample(page);
  await openAll(page);
  // The adapter of these tests is software.
  await page.click('#zero-shot-run');
  await fails(page, 'SOFTWARE_ADAPTER');
  await fail(page, { loadModel: 'SELF_TEST_FAILED' });
  await page.click('[data-cure="use_software"]');
  await fails(page, 'SELF_TEST_FAILED');
  assert.ok(await page.isChecked('#allow-software'));
  assert.deepEqual(await offered(page), ['restore', 'use_cpu']);
  await page.click('[data-cure="use_cpu"]');
  await page.waitForSelector('#zero-shot-rows tr', { timeout: SLOW_MS });
  await done(page);
  assert.match(await page.textContent('#backend-badge'), /^CPU/);
  assert.deepEqual(await ranking(page), [], 'nothing was ranked');
  assert.ok(!(await asked(page)).includes('rank'));
  await finish();
});

test('another model: what the one before found goes', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  const files = await modelFiles();
  const load = async (given) => {
    await page.setInputFiles('#model-files', given);
    await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.model_loaded[0], { timeout: SLOW_MS });
    await idle(page);
  };
  const cosines = await ranking(page);
  await load(files);
  assert.deepEqual(await ranking(page), cosines, 'the same from another place');
  const manifest = JSON.parse(await readFile(join(www, 'model/manifest.json'), 'utf8'));
  const other = Buffer.from(JSON.stringify({ ...manifest, embeddingSpace: '0000000000000000' }));
  await load(files.map((file) => (file.name === 'manifest.json' ? { ...file, buffer: other } : file)));
  assert.deepEqual(await ranking(page), []);
  assert.ok((await page.textContent('#volumes')).includes(MESSAGES.volume_not_encoded[0]));
  await finish();
});

test('files of a model that are damaged: the ranking stays and can be saved, and the model before ranks again', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  const [cosines, before] = [await ranking(page), await record(page)];
  const files = (await modelFiles()).map((file) => {
    if (!file.name.startsWith('weights')) return file;
    const buffer = Buffer.from(file.buffer);
    buffer[buffer.length >> 1] ^= 1;
    return { ...file, buffer };
  });
  await page.setInputFiles('#model-files', files);
  await fails(page, 'INTEGRITY');
  assert.match(await page.textContent('#error-text'), /damaged or incomplete/);
  assert.deepEqual(await ranking(page), cosines);
  assert.deepEqual(await record(page), before, 'it can still be saved');
  await asked(page);
  await page.click('#rank');
  await done(page);
  assert.deepEqual(await ranking(page), cosines);
  const calls = await asked(page);
  assert.ok(calls.includes('loadModel') && calls.includes('rank') && !calls.includes('encodeVolume'), calls.join());
  assert.deepEqual((await record(page)).candidates, before.candidates);
  await finish();
});

test('a lost GPU device: the sentence is true in both languages, and the ranking stays; a new result is of one device', { timeout: 3 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPage({ init: tamper, expect: /lost|destroyed|GPU/i });
  await page.addInitScript(tamperGpu);
  await page.goto(`${tests.origin}/`);
  await useSample(page);
  await page.check('#allow-software');
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  await idle(page);
  await openAll(page);
  const [cosines, before] = [await ranking(page), await record(page)];
  assert.equal(before.runtime.backend, 'webgpu');

  await page.evaluate(() => new BroadcastChannel('destroy').postMessage(''));
  await page.fill('#question', 'Is there a rib fracture?'); // no label of the model: its text is encoded
  await page.click('#ask');
  await fails(page, 'DEVICE_LOST');
  assert.equal(await page.textContent('#error-text'), 'The GPU device was lost. Volume, reports and results are kept.');
  await page.click('#lang-zh');
  assert.equal(await page.textContent('#error-text'), 'GPU 设备已丢失，影像、报告与结果均已保留。');
  assert.equal(await page.textContent('[data-cure="restore"]'), MESSAGES.restore[1]);
  await page.click('#lang-en');
  assert.deepEqual([await ranking(page), await page.locator('#reports > li').count(), await page.isVisible('#volume')], [cosines, 4, true]);
  assert.deepEqual(await offered(page), ['restore', 'use_cpu']);

  await asked(page);
  await page.click('[data-cure="restore"]');
  await page.waitForSelector('#answer-rows tr', { timeout: SLOW_MS });
  await done(page);
  assert.deepEqual(await ranking(page), cosines);
  assert.deepEqual(await record(page).then(({ candidates }) => candidates), before.candidates);
  const calls = await asked(page);
  assert.ok(!calls.includes('encodeVolume') && !calls.includes('rank'), calls.join());
  await page.click('#rank');
  await done(page);
  assert.deepEqual(await ranking(page), cosines);

  // What the GPU found is shown until the CPU has a ranking of its own.
  await page.check('input[name="backend"][value="cpu"]');
  await asked(page);
  await page.click('#zero-shot-run');
  await done(page);
  assert.equal((await asked(page)).filter((method) => method === 'encodeVolume').length, 1);
  assert.deepEqual([await ranking(page), (await record(page)).runtime.backend], [cosines, 'webgpu']);
  await page.click('#rank');
  await done(page);
  assert.equal((await record(page)).runtime.backend, 'cpu');
  await finish();
});
