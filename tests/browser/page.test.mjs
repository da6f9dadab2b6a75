// The page as a person uses it.

import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES, text } from '../../www/i18n.js';
import { WINDOWS } from '../../www/viewer.js';
import { Candidates, mostlyCjk } from '../../www/candidates.js';
import { gzipSync, host, idle, newPage, out, sampleNifti, SLOW_MS, startBrowser, useSample, www } from './harness.mjs';

const tests = host();

/** What the session has encoded so far: the diagnostics, as they are copied. @param {import('playwright-core').Page} page */
async function encoded(page) {
  await page.evaluate(() => { navigator.clipboard.writeText = async (copied) => { window.diagnosed = copied; }; });
  await page.click('#diagnostics');
  await page.waitForFunction(() => window.diagnosed);
  return page.evaluate(() => {
    const found = JSON.parse(window.diagnosed).encoded;
    window.diagnosed = undefined;
    return found;
  });
}

test('sample, Rank: two clicks to an ordered list', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  assert.equal(await page.textContent('#notice strong'), MESSAGES.notice_lead[0]);
  assert.match(await page.textContent('#notice-weights'), /\w/);

  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  for (const plane of await page.locator('.plane figcaption').all()) assert.match(await plane.textContent(), /slice \d+ of \d+/);
  assert.ok(!tests.requests.some((line) => line.includes('safetensors')), 'the volume is shown before any weight is loaded');

  // The adapter of these tests is software: the page says so, and asks.
  await page.click('#rank');
  await page.waitForSelector('[data-cure="use_software"]');
  assert.equal(await page.textContent('#error-code'), 'SOFTWARE_ADAPTER');
  await page.click('[data-cure="use_software"]');
  await page.waitForSelector('#cancel:not([hidden])');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });

  const rows = await page.locator('#result-rows tr').all();
  assert.equal(rows.length, 4);
  const cosines = await page.locator('#result-rows .cosine').allTextContents();
  for (const shown of cosines) assert.match(shown, /^-?[01]\.\d{3}$/);
  assert.deepEqual(cosines.map(Number), cosines.map(Number).sort((a, b) => b - a));
  assert.match(await page.textContent('#backend-badge'), /WebGPU.*software/);
  assert.match(await page.textContent('#reports'), /\d+ tokens/);
  assert.equal(await page.textContent('#untrained strong'), MESSAGES.synthetic[0]);
  assert.ok(await page.isVisible('#notice'));
  await page.screenshot({ path: join(out, 'page-en.png'), fullPage: true });

  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
  const saved = JSON.parse(await readFile(await download.path(), 'utf8'));
  assert.ok(saved.notice.en.startsWith(MESSAGES.notice_lead[0]) && saved.notice.zh.startsWith(MESSAGES.notice_lead[1]));
  assert.deepEqual(saved.warning, { en: MESSAGES.synthetic[0], zh: MESSAGES.synthetic[1] });
  assert.deepEqual(saved.candidates.map((row) => row.cosine.toFixed(3)), cosines);
  assert.match(saved.input.voxel_sha256, /^[0-9a-f]{64}$/);
  assert.match(saved.candidates[0].text_sha256, /^[0-9a-f]{64}$/);
  assert.ok(!JSON.stringify(saved).includes('bronchi are open'), 'no report text in the record');

  await page.click('#lang-zh');
  assert.equal(await page.getAttribute('html', 'lang'), 'zh-CN');
  assert.equal(await page.textContent('#notice strong'), MESSAGES.notice_lead[1]);
  assert.ok((await page.textContent('#result-head')).includes(MESSAGES.col_bar[1]));
  await page.screenshot({ path: join(out, 'page-zh.png'), fullPage: true });

  // A second ranking with the same volume and texts is free: nothing is encoded again.
  const before = await encoded(page);
  assert.deepEqual([before.volumes, before.texts], [1, 4]);
  await page.click('#rank');
  await page.waitForFunction(() => document.querySelector('#cancel').hidden);
  const { volumes, texts } = await encoded(page);
  assert.deepEqual([volumes, texts], [1, 4]);
  // Another report is the only one to be encoded.
  await page.fill('#paste', 'Clear lungs.');
  await page.click('#add-pasted');
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 5);
  await page.waitForFunction(() => !document.querySelector('#rank').disabled);
  await page.click('#rank');
  await page.waitForFunction(() => document.querySelectorAll('#result-rows tr').length === 5, undefined, { timeout: SLOW_MS });
  const after = await encoded(page);
  assert.deepEqual([after.volumes, after.texts], [1, 5]);
  await finish();
});

test('a Chinese browser gets the Chinese page', async () => {
  const { page, finish } = await tests.newAppPage({ locale: 'zh-CN', colorScheme: 'light' });
  assert.equal(await page.getAttribute('html', 'lang'), 'zh-CN');
  assert.equal(await page.textContent('#rank'), MESSAGES.rank[1]);
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await page.screenshot({ path: join(out, 'page-zh-light.png'), fullPage: true });
  await finish();
});

test('a dropped file and pasted reports are ranked on the CPU, and nothing of them shows outside the page', { timeout: SLOW_MS }, async () => {
  const canary = 'CANARY7Q4XWZ';
  const nifti = await sampleNifti();
  nifti.write(canary, 148, 'latin1'); // descrip
  const { page, finish } = await tests.newAppPage();
  const lines = [];
  page.on('console', (message) => lines.push(message.text()));

  const file = gzipSync(nifti).toString('base64');
  await page.evaluate(([name, base64]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name));
    document.querySelector('#drop').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, [`${canary}.nii.gz`, file]);
  await page.waitForSelector('#volume:not([hidden])');
  await page.fill('#paste', `Clear lungs ${canary}.\n\nSmall left pleural effusion.\n\nSmall left pleural effusion.`);
  await page.click('#add-pasted');
  await page.waitForSelector('#reports li');
  assert.equal(await page.locator('#reports li').count(), 2);
  assert.match(await page.textContent('#report-notes'), /1 equal texts merged/);

  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  assert.match(await page.textContent('#backend-badge'), /^CPU/);

  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
  const places = {
    export: await readFile(await download.path(), 'utf8'), name: download.suggestedFilename(), title: await page.title(),
    requests: tests.requests.join('\n'), console: lines.join('\n'), url: page.url(),
    storage: await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])),
  };
  for (const [place, content] of Object.entries(places)) assert.ok(!content.includes(canary), place);
  await finish();
});

test('cancel keeps everything, and the next run works', { timeout: 3 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await page.check('#allow-software');
  await page.click('#rank');
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent.includes(line), MESSAGES.phase_encode[0], { timeout: SLOW_MS });
  const clicked = Date.now();
  await page.click('#cancel');
  await page.waitForSelector('#cancel', { state: 'hidden' });
  const took = Date.now() - clicked;
  assert.ok(took < 500, `${took} ms`);
  assert.equal(await page.textContent('#progress-text'), MESSAGES.cancelled[0]);
  assert.equal(await page.locator('#reports li').count(), 4);
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr, #error:not([hidden])', { timeout: 2 * SLOW_MS });
  assert.equal(await page.textContent('#error-code'), '');
  await finish();
});

test('cancel while a session with other settings opens: the volume is still there', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await useSample(page);
  let go;
  const held = new Promise((resolve) => { go = resolve; });
  await page.route('**/*.wasm', async (route) => {
    await held;
    await route.continue();
  });
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#rank');
  await page.click('#cancel');
  await page.waitForSelector('#cancel', { state: 'hidden' });
  go();
  assert.equal(await page.textContent('#progress-text'), MESSAGES.cancelled[0]);
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr, #error:not([hidden])', { timeout: SLOW_MS });
  assert.equal(await page.textContent('#error-code'), '');
  assert.match(await page.textContent('.plane figcaption'), /slice \d+ of \d+/);
  await finish();
});

test('while a file is read, its size and what it takes of memory are told', async () => {
  const { page, finish } = await tests.newAppPage();
  const nifti = await sampleNifti();
  const told = await page.evaluateHandle(() => {
    const lines = new Set();
    new MutationObserver(() => lines.add(document.querySelector('#progress-text').textContent))
      .observe(document.querySelector('#progress-text'), { childList: true, characterData: true, subtree: true });
    return lines;
  });
  const size = text('size_claimed', { dims: '208 × 160 × 30', mb: '2' }, 'en');
  for (const buffer of [nifti, gzipSync(nifti), nifti.subarray(0, 400), Buffer.from('no NIfTI at all')]) {
    await told.evaluate((lines) => lines.clear());
    await page.setInputFiles('#file', { name: 'x', mimeType: 'application/octet-stream', buffer });
    await page.waitForFunction(() => !document.querySelector('#choose-file').disabled);
    const lines = await told.evaluate((all) => [...all]);
    assert.equal(lines.some((line) => line.endsWith(size)), buffer.length > 100, JSON.stringify(lines));
  }
  await finish();
});

test('files are pasted, and a folder is dropped: what the page cannot read is passed over', async () => {
  const { page, finish } = await tests.newAppPage();
  const bytes = [...await sampleNifti()];
  await page.evaluate((given) => {
    window.given = new File([new Uint8Array(given)], 'a.nii');
    const transfer = new DataTransfer();
    transfer.items.add(window.given);
    window.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer }));
  }, bytes);
  await page.waitForFunction(() => document.querySelectorAll('#volumes li').length === 1);
  await idle(page);
  await page.evaluate(() => {
    const file = (content) => ({ isFile: true, file: (found) => found(content) });
    // A browser gives a folder in parts.
    const folder = (...parts) => ({ isDirectory: true, createReader: () => ({ readEntries: (found) => found(parts.shift() ?? []) }) });
    const items = [folder([file(window.given), folder([file(new File(['{}'], 'notes.docx'))])], [file(new File(['A nodule.'], 'reports.txt'))])];
    const event = new Event('drop', { bubbles: true, cancelable: true });
    event.dataTransfer = { items: items.map((entry) => ({ webkitGetAsEntry: () => entry })), files: [] };
    document.querySelector('#drop').dispatchEvent(event);
  });
  await page.waitForFunction(() => document.querySelectorAll('#volumes li').length === 2 && document.querySelectorAll('#reports > li').length === 1);
  await idle(page);
  assert.ok(await page.isHidden('#error'));
  await finish();
});

test('several files at once: each pair is one volume, one bad file keeps no other out, and its message says which it is', async () => {
  const { page, finish } = await tests.newAppPage();
  const nifti = await sampleNifti();
  const header = Buffer.from(nifti.subarray(0, 352));
  header.write('ni1\0', 344, 'latin1');
  header.writeFloatLE(0, 108);
  const image = nifti.subarray(352);
  const give = async (given) => {
    await page.setInputFiles('#file', Object.entries(given).map(([name, buffer]) => ({ name, mimeType: 'application/octet-stream', buffer })));
    await page.waitForFunction(() => !document.querySelector('#choose-file').disabled);
  };
  const volumes = () => page.locator('#volumes li').count();
  const notNifti = Buffer.from('PatientName: nobody. '.repeat(40));
  await give({ 'b.img': image, 'a.img': image, 'lone.hdr': header, 'a.hdr': header, 'b.hdr': header, 'note.nii': notNifti, 'c.nii': nifti });
  assert.equal(await page.textContent('#error-code'), 'E_PAIR E_NOT_NIFTI');
  const place = (n) => text('file_of', { n, total: 5 }, 'en');
  assert.equal(await page.textContent('#error-text'), `${place(1)} ${MESSAGES.E_PAIR[0]} ${place(4)} ${MESSAGES.E_NOT_NIFTI[0]}`);
  assert.equal(await volumes(), 3);
  assert.match(await page.textContent('#progress-text'), /^The volume is open/);

  // One that can be helped is helped, although a good one came after it.
  const twoFrames = Buffer.concat([nifti, image]);
  twoFrames.writeInt16LE(4, 40);
  twoFrames.writeInt16LE(2, 48);
  await give({ 'frames.nii': twoFrames, 'd.nii': nifti });
  assert.equal(await page.textContent('#error-code'), 'E_4D');
  assert.ok(await page.isVisible('#frame-form'));
  assert.equal(await volumes(), 4);
  await page.fill('#frame', '2');
  await page.click('#frame-form button');
  await page.waitForFunction(() => document.querySelectorAll('#volumes li').length === 5);
  // A lone header and lone voxels belong together, whatever they are called.
  await give({ 'x.hdr': header, 'y.img': image });
  assert.ok(await page.isHidden('#error'));
  assert.equal(await volumes(), 6);
  await finish();
});

test('without WebGPU the page says why and offers the CPU', { timeout: SLOW_MS }, async () => {
  const plain = await startBrowser({ gpu: false });
  try {
    const { page, finish } = await newPage(plain, { origin: tests.origin, path: '/', expect: /WebGPU|GPU/ });
    await page.click('#use-sample');
    await page.waitForSelector('#reports li');
    await page.click('#rank');
    await page.waitForSelector('[data-cure="use_cpu"]');
    assert.equal(await page.textContent('#error-code'), 'NO_WEBGPU');
    assert.ok((await page.textContent('#error-text')).includes(MESSAGES['no-adapter'][0]));
    await page.click('[data-cure="use_cpu"]');
    await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
    assert.match(await page.textContent('#backend-badge'), /^CPU/);
    await finish();
  } finally {
    await plain.close();
  }
});

test('views: keys, wheel, windows and cross-hair', async () => {
  const { page, finish } = await tests.newAppPage();
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  const axial = page.locator('.plane').first();
  const caption = () => axial.locator('figcaption').textContent();
  await axial.locator('.view').focus();
  await page.keyboard.press('Home');
  await page.waitForFunction(() => /slice 1 of/.test(document.querySelector('.plane figcaption').textContent));
  await page.keyboard.press('PageDown');
  await page.waitForFunction(() => /slice 11 of/.test(document.querySelector('.plane figcaption').textContent));
  await axial.locator('.view').hover();
  await page.mouse.wheel(0, 100);
  await page.waitForFunction(() => /slice 12 of/.test(document.querySelector('.plane figcaption').textContent), undefined, { timeout: 5000 });
  await page.keyboard.press('3');
  assert.deepEqual([await page.inputValue('#window-width'), await page.inputValue('#window-level')], ['1800', '400']);
  const before = await page.locator('.plane').nth(2).locator('figcaption').textContent();
  await axial.locator('.view').click({ position: { x: 20, y: 20 } });
  await page.waitForFunction((line) => document.querySelectorAll('.plane figcaption')[2].textContent !== line, before);
  assert.match(await page.textContent('#probe'), /-?\d+ HU/);
  assert.deepEqual(await axial.locator('.letter').allTextContents(), ['R', 'L', 'A', 'P']);
  assert.match(await caption(), /axial slice 12 of/);
  await finish();
});

test('a model without both towers: the page says what it cannot do, and does not offer it', async () => {
  const manifest = JSON.parse(await readFile(join(www, 'model/manifest.json'), 'utf8'));
  for (const purpose of ['zero-shot', 'images', 'reports']) {
    const { page, finish } = await tests.newPage();
    await page.route('**/model/manifest.json', (route) => route.fulfill({ json: { ...manifest, purpose } }));
    await page.goto(`${tests.origin}/`);
    await page.waitForFunction((line) => document.querySelector('#hint').textContent === line, text(`only_${purpose}`, {}, 'en'));
    await page.click('#use-sample');
    await page.waitForSelector('#reports li');
    assert.ok(await page.isDisabled('#rank'), purpose);
    await page.click('#lang-zh');
    assert.equal(await page.textContent('#hint'), text(`only_${purpose}`, {}, 'zh'));
    await finish();
  }
});

test('the window table', () => {
  assert.deepEqual(WINDOWS, { lung: [1500, -600], mediastinum: [350, 50], bone: [1800, 400], model: [2000, 0] });
});

test('message table: both languages, equal placeholders, no forbidden words', () => {
  const placeholders = (line) => (line.match(/\{\w+\}/g) ?? []).sort().join();
  for (const [key, pair] of Object.entries(MESSAGES)) {
    assert.equal(pair.length, 2, key);
    assert.ok(pair.every((line) => line.trim() !== ''), key);
    assert.equal(placeholders(pair[0]), placeholders(pair[1]), key);
    assert.doesNotMatch(pair[0], /\bdetects?\b|\bdiagnos(es|ed?)\b|probability of disease|positive finding|negative finding/i, key);
  }
});

test('every text the page asks for is in the table', async () => {
  const html = await readFile(new URL('../../www/index.html', import.meta.url), 'utf8');
  for (const [, key] of html.matchAll(/data-(?:text|label|placeholder)="(\w+)"/g)) assert.ok(key in MESSAGES, key);
  for (const file of (await readdir(www)).filter((name) => name.endsWith('.js'))) {
    const source = await readFile(join(www, file), 'utf8');
    for (const [, key] of source.matchAll(/\btext\('(\w+)'/g)) assert.ok(key in MESSAGES, `${file}: ${key}`);
  }
});

test('candidates: equal texts merge, ids stay apart, scripts are told apart', () => {
  const list = new Candidates();
  list.add([{ id: 'a', text: 'one' }, { id: 'a', text: 'two' }, { text: 'one' }, { text: '  ' }, { text: 'three' }]);
  assert.deepEqual(list.rows.map((row) => [row.id, row.text]), [['a', 'one'], ['1', 'two'], ['2', 'three']]);
  assert.equal(list.merged, 1);
  assert.equal(mostlyCjk('右肺上叶结节'), true);
  assert.equal(mostlyCjk('Nodule in the right upper lobe (结节).'), false);
});
