// What the page saves, clearing everything, samples, and models of one's own.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { MESSAGES, text } from '../../www/i18n.js';
import { attempt, here, host, idle, out, rankOnCpu, sampleNifti, SLOW_MS, useSample, www } from './harness.mjs';

const { CTMATCH: ctmatch } = process.env;
if (!ctmatch) throw new Error('CTMATCH must name the native command');
const tests = host({ gpu: false, mounts: { '/expected': join(here, 'expected') } });

const ranked = async (options) => {
  const made = await tests.newAppPage(options);
  const { page } = made;
  await useSample(page);
  await rankOnCpu(page);
  await idle(page);
  return made;
};
const saved = async (page, button) => {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click(button)]);
  return { name: download.suggestedFilename(), content: await readFile(await download.path(), 'utf8') };
};

test('JSON, CSV and a page: the record and the notice in each, texts only when asked for', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  await page.click('#zero-shot > summary');
  await page.click('#zero-shot-run');
  await page.waitForSelector('#zero-shot-rows tr', { timeout: SLOW_MS });
  await idle(page);

  const json = await saved(page, '#export');
  const record = JSON.parse(json.content);
  assert.equal(record.zero_shot.length, 18);
  assert.equal(record.prompts[0].present, '{} is present.');
  const csv = await saved(page, '#export-csv');
  const html = await saved(page, '#export-html');
  assert.deepEqual([json, csv, html].map(({ name }) => name), ['ctmatch-result.json', 'ctmatch-result.csv', 'ctmatch-result.html']);
  for (const { name, content } of [json, csv, html]) {
    for (const line of [MESSAGES.notice_lead[0], MESSAGES.notice_lead[1]]) assert.ok(content.includes(line), name);
    assert.ok(content.includes(record.input.voxel_sha256), name);
    assert.ok(content.includes(MESSAGES.synthetic[0]), name);
    assert.ok(!content.includes('Severe cardiomegaly'), `${name} holds text of a report`);
  }
  const lines = csv.content.split('\r\n');
  const comments = lines.filter((line) => line.startsWith('# '));
  assert.deepEqual(JSON.parse(comments.at(-1).slice(2)), record);
  const rows = lines.filter((line) => line && !line.startsWith('# '));
  assert.equal(rows[0], 'rank,id,cosine,share,n_tokens,truncated,text_sha256');
  assert.deepEqual(rows.slice(1).map((line) => Number(line.split(',')[2])), record.candidates.map(({ cosine }) => cosine));

  assert.ok(!/<script|https?:\/\/|src="(?!data:)/.test(html.content), 'one file, without script');
  await page.check('#export-texts');
  assert.ok((await saved(page, '#export-csv')).content.includes('"Trachea and both main bronchi'.replace('"', '')));
  await page.click('#lang-zh');
  const withTexts = await saved(page, '#export-html');
  assert.ok(withTexts.content.includes('Severe cardiomegaly') && withTexts.content.includes('lang="zh-CN"') && withTexts.content.includes('肺结节'));
  await finish();

  // As a person opens it.
  const path = join(out, 'report.html');
  await writeFile(path, withTexts.content);
  const plain = await tests.newPage();
  await plain.page.setContent(withTexts.content);
  assert.equal(await plain.page.locator('img').count(), 3);
  const sizes = await plain.page.locator('img').evaluateAll((images) => images.map(({ naturalWidth }) => naturalWidth));
  assert.deepEqual(sizes, [560, 560, 560]);
  await plain.page.screenshot({ path: join(out, 'report-zh.png'), fullPage: true });
  await plain.finish();
});

test('the command computes a result of the page again', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  const folder = await mkdtemp(join(tmpdir(), 'ctmatch-'));
  try {
    const path = join(folder, 'result.json');
    await writeFile(path, (await saved(page, '#export')).content);
    const { stdout } = await promisify(execFile)(ctmatch, ['verify', path, '--model', join(www, 'model'), '--volume', join(www, 'sample/chest.nii.gz'),
      '--reports', join(www, 'sample/reports.json'), '--device', 'cpu', '--json', '--quiet']);
    const { reproduced, candidates, largestDifference } = JSON.parse(stdout);
    assert.deepEqual([reproduced, candidates], [true, 4]);
    assert.ok(largestDifference < 1e-5, String(largestDifference));
  } finally {
    await rm(folder, { recursive: true });
  }
  await finish();
});

test('a model that cannot rank: JSON, CSV and a page of the findings', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#model > summary');
  await page.fill('#model-url', 'expected/zero-shot/manifest.json');
  await page.click('#model-address button');
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.model_loaded[0], { timeout: SLOW_MS });
  await useSample(page);
  assert.ok(await page.isHidden('#exports'));
  await page.click('#zero-shot > summary');
  await page.click('#zero-shot-run');
  await page.waitForSelector('#zero-shot-rows tr', { timeout: SLOW_MS });
  await idle(page);
  assert.ok(await page.isDisabled('#rank') && await page.isHidden('#export-texts'));
  const record = JSON.parse((await saved(page, '#export')).content);
  assert.equal(record.zero_shot.length, 18);
  assert.deepEqual([record.candidates, record.preprocess.text_source], [undefined, null]);
  for (const [part, name] of [['model', 'weights_sha256'], ['input', 'voxel_sha256'], ['runtime', 'backend']]) assert.ok(record[part][name], `${part}.${name}`);
  const csv = await saved(page, '#export-csv');
  const rows = csv.content.split('\r\n').filter((line) => line && !line.startsWith('# '));
  assert.equal(rows[0], 'finding,logit,score');
  assert.deepEqual(rows.slice(1).map((line) => Number(line.split(',').at(-1))), record.zero_shot.map(({ score }) => score));
  const html = await saved(page, '#export-html');
  for (const { name, content } of [csv, html]) {
    for (const line of [...MESSAGES.notice_lead, record.input.voxel_sha256, 'Cardiomegaly']) assert.ok(content.includes(line), `${name}: ${line}`);
  }
  assert.equal(html.content.match(/<img /g).length, 3);
  // Another volume has no scores yet.
  await page.setInputFiles('#file', { name: 'y.nii', mimeType: 'application/octet-stream', buffer: (await sampleNifti()).fill(40, 5000, 9000) });
  await idle(page);
  assert.ok(await page.isHidden('#exports'));
  await finish();
});

test('a model of this site that was chosen is there at the next visit; one that is gone gives way to the own', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage({ expect: /404/ });
  const facts = () => page.textContent('#model-facts');
  const again = async () => {
    await page.reload();
    await page.waitForFunction(() => document.querySelector('#model-facts').textContent !== '');
    await page.evaluate(() => { document.querySelector('#model').open = true; });
  };
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#model > summary');
  const own = await facts();
  const loaded = () => page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.model_loaded[0], { timeout: SLOW_MS });
  await page.fill('#model-url', 'expected/zero-shot/manifest.json');
  await page.click('#model-address button');
  await loaded();
  await again();
  assert.notEqual(await facts(), own);
  assert.equal(await page.inputValue('#model-url'), 'expected/zero-shot/manifest.json');
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#model-load');
  await loaded();
  await page.click('#model-own');
  await loaded();
  await again();
  assert.equal(await facts(), own);
  const line = () => page.textContent('#progress-text');
  await idle(page);
  assert.equal(await line(), '');
  for (const missing of ['gone/manifest.json', 'files:']) {
    await page.evaluate((address) => localStorage.setItem('ctmatch-model', address), missing);
    await again();
    await page.waitForFunction((said) => document.querySelector('#progress-text').textContent === said, MESSAGES.model_gone[0]);
    assert.equal(await facts(), own);
    assert.ok(await page.isHidden('#error') && await page.isVisible('#model-own'));
  }
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#model-own');
  await loaded();
  assert.ok(await page.isHidden('#model-own'));
  await again();
  await idle(page);
  assert.deepEqual([await facts(), await line()], [own, '']);
  await finish();
});

/** A model folder as a person chooses it, under another name. @param {string} folder @param {string} id */
async function modelFiles(folder, id) {
  const names = (await readdir(folder)).filter((name) => name !== 'config.json');
  return Promise.all(names.map(async (name) => {
    const bytes = await readFile(join(folder, name));
    return { name, mimeType: 'application/octet-stream', buffer: name === 'manifest.json' ? Buffer.from(JSON.stringify({ ...JSON.parse(bytes.toString()), id })) : bytes };
  }));
}
/** The names below the browser's private files. */
const privateFiles = (page) => attempt(page, async () => {
  const found = [];
  const walk = async (folder, path) => {
    for await (const [name, handle] of folder.entries()) {
      if (handle.kind === 'directory') await walk(handle, `${path}${name}/`);
      else found.push(path + name);
    }
  };
  await walk(await navigator.storage.getDirectory(), '');
  return found.sort();
});
const says = (page, line) => page.waitForFunction((said) => document.querySelector('#progress-text').textContent === said, line, { timeout: SLOW_MS });

test('a model of files is kept: there at the next visit; dropped for a model by address, and with everything else', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  const facts = () => page.textContent('#model-facts');
  const again = async () => {
    await page.reload();
    await page.waitForFunction(() => document.querySelector('#model-facts').textContent !== '');
    await page.evaluate(() => { document.querySelector('#model').open = true; });
    await idle(page);
    await page.check('input[name="backend"][value="cpu"]');
  };
  const choose = async (files) => {
    await page.setInputFiles('#model-files', files);
    await says(page, MESSAGES.model_loaded[0]);
  };
  const copied = async () => (await privateFiles(page)).filter((name) => name.startsWith('model/'));
  const files = await modelFiles(join(www, 'model'), 'from-a-stick');
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#model > summary');
  await choose(files);
  assert.ok((await facts()).includes(MESSAGES.files_kept[0]), await facts());
  const names = (await copied()).map((name) => name.slice('model/'.length));
  assert.ok(names.includes('manifest.json') && names.length > 2 && names.every((name) => files.some((file) => file.name === name)), `${names}`);

  await again();
  for (const part of ['from-a-stick', MESSAGES.files_kept[0]]) assert.ok((await facts()).includes(part), part);
  assert.ok(await page.isVisible('#model-own'));
  assert.deepEqual([await page.inputValue('#model-url'), await page.textContent('#progress-text')], ['', '']);
  await page.click('#model-load');
  await says(page, MESSAGES.model_loaded[0]);
  assert.ok((await facts()).includes(MESSAGES.from_file[0]));

  await page.fill('#model-url', 'expected/zero-shot/manifest.json');
  await page.click('#model-address button');
  await page.waitForFunction((purpose) => document.querySelector('#model-facts').textContent.includes(purpose), MESSAGES['purpose_zero-shot'][0], { timeout: SLOW_MS });
  await idle(page);
  assert.deepEqual(await copied(), []);
  await choose(files);
  assert.notDeepEqual(await copied(), []);
  await page.click('#clear-all');
  await page.click('#clear button[value="clear"]');
  await says(page, MESSAGES.cleared[0]);
  assert.deepEqual(await privateFiles(page), []);
  assert.ok(!(await facts()).includes('from-a-stick') && await page.isHidden('#model-own'), 'nor is it chosen any more');
  await again();
  assert.ok(!(await facts()).includes('from-a-stick'));
  assert.equal(await page.textContent('#progress-text'), '');
  await finish();
});

test('a model of files where the storage is full or missing: it works, and the page says that it is not kept', { timeout: 2 * SLOW_MS }, async () => {
  const full = () => {
    FileSystemFileHandle.prototype.createWritable = async () => { throw new DOMException('full', 'QuotaExceededError'); };
  };
  const missing = () => { StorageManager.prototype.getDirectory = async () => { throw new DOMException('no', 'SecurityError'); }; };
  for (const init of [full, missing]) {
    const { page, finish } = await tests.newAppPage({ init });
    await page.check('input[name="backend"][value="cpu"]');
    await page.click('#model > summary');
    await page.setInputFiles('#model-files', await modelFiles(join(www, 'model'), 'from-a-stick'));
    await says(page, MESSAGES.model_loaded[0]);
    const facts = await page.textContent('#model-facts');
    for (const part of ['from-a-stick', MESSAGES.files_not_kept[0]]) assert.ok(facts.includes(part), `${init.name}: ${facts}`);
    assert.ok(await page.isHidden('#error'));
    await useSample(page);
    await rankOnCpu(page);
    await idle(page);
    await page.reload();
    await page.waitForFunction(() => document.querySelector('#model-facts').textContent !== '');
    await idle(page);
    assert.ok(!(await page.textContent('#model-facts')).includes('from-a-stick'), 'the choice before');
    assert.equal(await page.textContent('#progress-text'), '');
    await finish();
  }
});

test('the column of shares can be left out, on the page and in the saved one; the choice is kept', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  const heading = MESSAGES.col_share[0].replace('{n}', '4');
  const columns = () => page.locator('#result-head th:visible').allTextContents();
  assert.ok((await columns()).includes(heading));
  await page.uncheck('#show-shares');
  assert.ok(!(await columns()).includes(heading));
  assert.equal(await page.locator('#result-rows .share:visible').count(), 0);
  await page.locator('#result').screenshot({ path: join(out, 'without-shares-en.png') });
  assert.ok(!(await saved(page, '#export-html')).content.includes(heading));
  await page.reload();
  assert.equal(await page.isChecked('#show-shares'), false);
  await finish();
});

test('clear all: nothing is left in memory or in the browser', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  await page.evaluate(async () => {
    await caches.open('x');
    await new Promise((done) => { indexedDB.open('x').onsuccess = ({ target }) => { target.result.close(); done(); }; });
  });
  const left = () => attempt(page, async () => {
    const files = [];
    for await (const name of (await navigator.storage.getDirectory()).keys()) files.push(name);
    return { files, local: Object.keys(localStorage), caches: await caches.keys(), databases: (await indexedDB.databases()).length };
  });
  assert.notDeepEqual((await left()).files, [], 'the model was cached');
  await page.click('#clear-all');
  await page.click('#clear button[value="clear"]');
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.cleared[0], { timeout: SLOW_MS });
  assert.deepEqual(await left(), { files: [], local: [], caches: [], databases: 0 });
  assert.equal(await page.locator('#reports li').count(), 0);
  for (const id of ['volume', 'result']) assert.ok(await page.isHidden(`#${id}`), id);
  assert.ok(await page.isDisabled('#rank'));
  assert.notEqual(await page.textContent('#model-facts'), '', 'the own model');
  assert.ok(!(await page.content()).includes('Severe cardiomegaly'));
  // And it can be used again.
  await idle(page);
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await finish();
});

test('a model of files: its facts, and the one before when it is damaged', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newAppPage();
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#model > summary');
  const folder = join(www, 'model');
  const names = (await readdir(folder)).filter((name) => name !== 'config.json');
  const buffers = await Promise.all(names.map(async (name) => ({ name, mimeType: 'application/octet-stream', buffer: await readFile(join(folder, name)) })));
  await page.setInputFiles('#model-files', buffers);
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.model_loaded[0], { timeout: SLOW_MS });
  const facts = await page.textContent('#model-facts');
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'));
  const { shards, prompts } = manifest.variants.q8;
  const bytes = [...shards, prompts, manifest.files.tokenizer].reduce((sum, file) => sum + file.bytes, 0);
  for (const part of [manifest.id, manifest.revision, manifest.license, manifest.embeddingSpace, MESSAGES.from_file[0], MESSAGES.self_test_passed[0], `${(bytes / 1e6).toFixed(1)} MB`]) {
    assert.ok(facts.includes(part), `${part} in ${facts}`);
  }
  assert.match(await page.textContent('#backend-badge'), /CPU · q8 · \d+ threads/);
  await page.screenshot({ path: join(out, 'model-en.png'), fullPage: true });
  assert.ok(await page.isVisible('#model-own'));

  const cut = buffers.map((file) => (file.name.startsWith('weights') ? { ...file, buffer: file.buffer.subarray(0, 1000) } : file));
  await page.setInputFiles('#model-files', cut);
  await page.waitForSelector('#error:not([hidden])');
  assert.equal(await page.textContent('#error-code'), 'INTEGRITY');
  await page.click('#lang-zh');
  assert.ok(/^[ -~]+$/.test(await page.textContent('#error-more')) && await page.getAttribute('#error-more', 'lang') === 'en', 'a part in another language (WCAG 3.1.2)');
  await page.click('#lang-en');
  await page.setInputFiles('#model-files', buffers.filter(({ name }) => name !== 'manifest.json'));
  await page.waitForFunction(() => document.querySelector('#error-code').textContent === 'MANIFEST');

  await page.fill('#model-url', 'https://elsewhere.example/manifest.json');
  await page.click('#model-address button');
  await page.waitForFunction(() => document.querySelector('#error-code').textContent === 'NETWORK_POLICY');
  await idle(page);
  await page.fill('#model-url', 'model/manifest.json');
  await page.click('#model-address button');
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.model_loaded[0], { timeout: SLOW_MS });
  assert.ok((await page.textContent('#model-facts')).includes(MESSAGES.from_network[0]));
  await idle(page);
  await page.click('#model-own');
  await page.waitForFunction(() => document.querySelector('#model-own').hidden, undefined, { timeout: SLOW_MS });
  await finish();
});

test('several samples: a choice, the reports once, the answer of each', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPage();
  const sample = (id, title, answer) => ({ id, title: { en: title, zh: `示例 ${id}` }, volume: 'chest.nii.gz', reports: 'reports.json', answer });
  await page.route('**/sample/samples.json', (route) => route.fulfill({ json: { schema: 1, samples: [sample('one', 'first', 'A'), sample('two', 'second', 'C')] } }));
  await page.goto(`${tests.origin}/`);
  await page.waitForSelector('#sample:not([hidden])');
  await idle(page);
  assert.deepEqual(await page.locator('#sample option').allTextContents(), ['first', 'second']);
  for (const [id, answer] of [['two', 'C'], ['one', 'A'], ['two', 'C']]) {
    await page.selectOption('#sample', id);
    await page.click('#use-sample');
    await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 4 && !document.querySelector('#use-sample').disabled);
    await idle(page);
    const known = await attempt(page, async () => {
      const [{ state }, { sampleAnswer }] = await Promise.all([import('/app.js'), import('/sample.js')]);
      return sampleAnswer(state.entry);
    });
    assert.equal(known, answer);
    const shown = await page.evaluate(() => { const { value, selectedOptions } = document.querySelector('#quiz-answer'); return [value, selectedOptions[0].textContent]; });
    assert.deepEqual(shown, ['', MESSAGES.quiz_of_sample[0]], 'the answer is known and not shown (R-17)');
  }
  assert.equal(await page.locator('#volumes li').count(), 2, 'a sample is one volume, however often it is opened');
  assert.equal(await page.locator('#reports > li').count(), 4);
  await page.click('#lang-zh');
  assert.deepEqual(await page.locator('#sample option').allTextContents(), ['示例 one', '示例 two']);
  await finish();
});

test('latents are saved and loaded again: the same ranks without a text; a store is searched; another model is refused', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  const figures = () => page.evaluate(() => [...document.querySelectorAll('#result-rows tr')].map((row) => [row.dataset.id, row.querySelector('.cosine').textContent]));
  const before = await figures();
  await page.click('#retrieval > summary');
  const files = {};
  for (const kind of ['volume', 'reports', 'store']) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.click(`#kept-${kind}`)]);
    assert.equal(download.suggestedFilename(), `ctmatch-${kind}.safetensors`);
    files[kind] = await readFile(await download.path());
    assert.ok(!files[kind].includes('cardiomegaly'), `${kind} holds no text`);
    const metadata = JSON.parse(files[kind].subarray(8, 8 + Number(files[kind].readBigUInt64LE(0))).toString()).__metadata__;
    for (const line of MESSAGES.notice_lead) assert.ok(metadata.notice.includes(line), `${kind}: ${line}`);
    await idle(page);
  }
  await page.click('#clear-reports');
  const load = async (buffer) => {
    await page.setInputFiles('#kept-file', { name: 'x.safetensors', mimeType: 'application/octet-stream', buffer });
    await idle(page);
  };
  await load(files.reports);
  assert.equal(await page.locator('#reports > li').count(), 4);
  assert.match(await page.textContent('#reports'), /text not kept; SHA-256 starts with [0-9a-f]{16}/);
  await page.fill('#paste', 'Clear lungs.');
  await page.click('#add-pasted');
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 5);
  await idle(page);
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  await idle(page);
  assert.equal(await page.locator('#result-rows tr').count(), 5);
  assert.deepEqual((await figures()).filter(([id]) => id !== '1'), before);

  await load(files.volume);
  assert.equal(await page.locator('#volumes li').count(), 2);
  assert.ok((await page.textContent('#volumes')).includes(MESSAGES.volume_kept[0]));
  await page.click('#compare-all');
  await page.waitForSelector('#matrix-rows tr', { timeout: SLOW_MS });
  await idle(page);
  for (const cells of await page.locator('#matrix-rows tr').evaluateAll((all) => all.map((row) => [...row.querySelectorAll('td')].map((cell) => cell.textContent.match(/-?\d\.\d{3}/)[0])))) {
    assert.equal(cells[0], cells[1], 'the saved latent is that of the volume');
  }

  await load(files.store);
  assert.match(await page.textContent('#store-facts'), /1 volumes, 4 reports/);
  await page.click('#store-search');
  await page.waitForSelector('#store-rows tr');
  await idle(page);
  assert.deepEqual(await page.locator('#store-rows tr').evaluateAll((all) => all.map((row) => row.querySelector('th').textContent)), before.map(([id]) => id));
  await page.locator('#retrieval').screenshot({ path: join(out, 'kept-en.png') });

  const { embeddingSpace } = JSON.parse(await readFile(join(www, 'model/manifest.json'), 'utf8'));
  const other = Buffer.from(files.reports.toString('latin1').replaceAll(embeddingSpace, '0000000000000000'), 'latin1');
  assert.ok(!other.equals(files.reports), 'the space of the demonstration model');
  for (const bad of [other, Buffer.from('nothing'), files.reports.subarray(0, 300)]) {
    await load(bad);
    assert.equal(await page.textContent('#error-code'), 'STORE');
    assert.equal(await page.textContent('#error-text'), MESSAGES.STORE[0]);
  }
  assert.equal(await page.locator('#reports > li').count(), 5);
  await page.click('#store-close');
  assert.ok(await page.isHidden('#store'));
  await finish();
});

test('what is within the tolerance is a tie, in the matrix and in a store; a text that is saved and here is one (R-4, R-8)', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  await page.click('#retrieval > summary');
  const download = async (id) => {
    const [made] = await Promise.all([page.waitForEvent('download'), page.click(id)]);
    await idle(page);
    return readFile(await made.path());
  };
  const load = async (buffer) => {
    await page.setInputFiles('#kept-file', { name: 'x.safetensors', mimeType: 'application/octet-stream', buffer });
    await idle(page);
  };
  // The volume's latent again, turned by less than the model can tell apart.
  const volume = await download('#kept-volume');
  const start = 8 + Number(volume.readBigUInt64LE(0));
  const at = start + JSON.parse(volume.subarray(8, start).toString()).image_latents.data_offsets[0];
  volume.writeFloatLE(volume.readFloatLE(at) + 1e-4, at);
  await load(volume);
  await page.click('#compare-all');
  await page.waitForSelector('#matrix-rows tr', { timeout: SLOW_MS });
  await idle(page);
  const [csv] = (await download('#matrix-save')).toString().split('\r\n').filter((line) => line.startsWith('A,'));
  const [one, other] = csv.split(',').slice(1).map(Number);
  assert.ok(one !== other && Math.abs(one - other) < 0.002, csv);
  const marks = (key) => page.locator('#matrix-rows .tie').filter({ hasText: new RegExp(`^${MESSAGES[key][0]}$`) }).count();
  assert.deepEqual([await marks('tied_volume'), await marks('best_volume'), await marks('best_report')], [8, 0, 2]);

  // The same words as those of the best with another space: another text, and the same latent.
  const reports = await download('#kept-reports');
  const best = (await page.locator('#result-rows strong').allTextContents())[0];
  const { findings, impression } = JSON.parse(await readFile(join(www, 'sample/reports.json'), 'utf8')).find(({ id }) => id === best);
  await page.fill('#paste', `${findings}${impression}`.replace(' ', '  '));
  await page.click('#add-pasted');
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 5);
  await idle(page);
  await load(await download('#kept-store'));
  await page.click('#store-search');
  await page.waitForSelector('#store-rows tr');
  await idle(page);
  const badge = ` ${MESSAGES.tie[0]}`;
  assert.deepEqual(await page.locator('#store-rows td:first-child').allTextContents(), [`1${badge}`, `1${badge}`, '3', '4', '5']);
  await page.locator('#retrieval').screenshot({ path: join(out, 'ties-en.png') });

  // Saved ones have no text: when those here are encoded, the equal ones are merged.
  await load(reports);
  assert.equal(await page.locator('#reports > li').count(), 9);
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  await idle(page);
  assert.deepEqual([await page.locator('#reports > li').count(), await page.locator('#result-rows tr').count()], [5, 5]);
  assert.ok((await page.textContent('#report-notes')).includes(text('duplicates', { n: 4 })));
  assert.ok(!(await page.textContent('#reports')).includes('SHA-256'), 'those with their texts stay');
  await finish();
});

test('the record has the fields of VIEWER_AND_RANKING_UI.md 9', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await ranked();
  await page.evaluate(() => { document.querySelector('#evidence').open = true; });
  await page.selectOption('#evidence-variant', 'share');
  await page.click('#evidence-show');
  await page.waitForSelector('#evidence-result:not([hidden])', { timeout: SLOW_MS });
  await idle(page);
  const before = Date.now();
  const record = JSON.parse((await saved(page, '#export')).content);
  const fields = {
    app: ['version', 'commit', 'build_sha256'], model: ['id', 'revision', 'weights_sha256', 'variant', 'tokenizer_sha256', 'embedding_space', 'licence'],
    input: ['voxel_sha256', 'dims', 'spacing_mm', 'orientation_in', 'permutation', 'datatype', 'scl', 'hu_override', 'findings'],
    preprocess: ['spacingMm', 'windowHu', 'grid', 'clip', 'pad', 'interpolation', 'text_source'],
    runtime: ['backend', 'adapter_info', 'limits', 'shader_f16', 'browser', 'os', 'timings_ms', 'degraded', 'self_check'],
    explanation: ['of', 'variant', 'score', 'sum', 'self_check'],
  };
  for (const [part, names] of Object.entries(fields)) for (const name of names) assert.notEqual(record[part]?.[name], undefined, `${part}.${name}`);
  for (const name of ['id', 'text_sha256', 'n_tokens', 'truncated', 'cosine', 'rank', 'tie_group']) assert.notEqual(record.candidates[0][name], undefined, name);
  assert.ok(Math.abs(Date.parse(record.created_utc) - before) < 10 * 60_000 && record.created_utc.endsWith('Z'), record.created_utc);
  assert.deepEqual(record.input.permutation, [1, 2, 3]);
  const header = await sampleNifti();
  assert.deepEqual(record.input.scl, header.readFloatLE(112) === 0 ? null : { slope: header.readFloatLE(112), inter: header.readFloatLE(116) });
  assert.deepEqual([record.app.commit, record.app.build_sha256], ['unknown', 'unknown'], 'this page was not built');
  assert.ok(record.background.share_below > 0 && record.background.pairs > 1e5 && record.background.view === 'full', JSON.stringify(record.background));
  assert.deepEqual(record.explanation.of, { report: record.candidates[0].id, against: record.candidates[1].id });
  assert.equal(record.explanation.self_check.pass, true);
  assert.equal(record.runtime.self_check.pass, true);
  await page.uncheck('#export-time');
  assert.equal(JSON.parse((await saved(page, '#export')).content).created_utc, undefined);
  await finish();
});
