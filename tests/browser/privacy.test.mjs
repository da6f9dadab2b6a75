// What may identify a person: shown masked, revealed on request, nowhere else; the clean copy; and the file check's corrections.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MESSAGES, placeText, ruleText, text } from '../../www/i18n.js';
import { attempt, gunzipSync, host, idle, out, repository, sampleNifti, searchOwnStore, SLOW_MS } from './harness.mjs';
import { FILE_NAME, found, inFile, PLANTED, plantedFile } from './planted.mjs';

const tests = host({ gpu: false });

const upload = async (page, name, buffer) => {
  await page.setInputFiles('#file', { name, mimeType: 'application/octet-stream', buffer });
  await page.waitForFunction(() => !document.querySelector('#choose-file').disabled);
};

const openPage = async (options) => {
  const made = await tests.newAppPage(options);
  await made.page.check('input[name="backend"][value="cpu"]');
  return made;
};

const downloaded = async (page, button) => {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click(button)]);
  return { name: download.suggestedFilename(), bytes: await readFile(await download.path()) };
};

/** Everything that the browser keeps for the origin. */
const stored = (page) => attempt(page, async () => {
  const files = [];
  const walk = async (folder, path) => {
    for await (const [name, handle] of folder.entries()) {
      files.push(`${path}/${name}`);
      if (handle.kind === 'directory') await walk(handle, `${path}/${name}`);
    }
  };
  await walk(await navigator.storage.getDirectory(), '');
  const requests = [];
  for (const name of await caches.keys()) requests.push(name, ...(await (await caches.open(name)).keys()).map(({ url }) => url));
  return JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, await indexedDB.databases(), requests, files]);
});

test('identifiers stay in the panel, masked until asked for; HU + 1024 is corrected; the clean copy has none', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await openPage();
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  const lines = [];
  page.on('console', (message) => lines.push(message.text()));
  page.on('request', (request) => lines.push(`${request.url()} ${JSON.stringify(request.headers())} ${request.postData() ?? ''}`));
  const planted = await plantedFile({ offset: 1024 });
  await upload(page, FILE_NAME, planted.bytes);

  const panel = () => page.textContent('#privacy');
  const count = await page.locator('#identifiers li').count();
  assert.ok(count >= inFile.length, await panel());
  assert.equal(await page.textContent('#privacy-summary'), text('privacy_some', { n: count }));
  for (const place of ['file name', 'descrip', 'aux_file', 'extension 6', 'gzip header']) assert.ok((await panel()).includes(placeText(place)), place);
  for (const rule of ['free-text', 'extension-kind', 'gzip-name', 'person-name']) assert.ok((await panel()).includes(ruleText(rule)), rule);
  assert.ok((await panel()).includes(MESSAGES.privacy_voxels[0]));
  assert.deepEqual(found(await page.content()), []);
  await page.click('#reveal');
  await page.waitForFunction((label) => document.querySelector('#reveal').textContent === label, MESSAGES.conceal[0]);
  assert.deepEqual(found(await panel(), inFile), inFile);
  await page.click('#reveal');
  await page.waitForFunction((label) => document.querySelector('#reveal').textContent === label, MESSAGES.reveal[0]);
  assert.deepEqual(found(await page.content()), []);

  const copies = [await downloaded(page, '#save-clean')];
  await page.waitForFunction(() => !document.querySelector('#save-clean').disabled);
  copies.push(await downloaded(page, '#save-clean'));
  await page.waitForFunction(() => !document.querySelector('#save-clean').disabled);
  assert.deepEqual(copies.map(({ name }) => name), ['volume.nii.gz', 'volume.nii.gz']);
  assert.ok(copies[0].bytes.equals(copies[1].bytes), 'two copies differ');
  assert.equal(copies[0].bytes[3], 0, 'gzip flags');
  assert.equal(copies[0].bytes.readUInt32LE(4), 0, 'gzip time');
  const plain = gunzipSync(copies[0].bytes);
  assert.deepEqual(found(plain.toString('latin1')), []);
  assert.ok(plain.subarray(352).equals(planted.voxels));

  // The question is asked, and answered with the button.
  await page.fill('#paste', `Clear lungs. Seen for MRN ${PLANTED.report} on 2023-05-06.\n\nSmall left pleural effusion.`);
  await page.click('#add-pasted');
  await page.waitForFunction(() => document.querySelectorAll('#reports li .body').length === 2);
  assert.ok((await page.textContent('#findings')).includes(MESSAGES.W_HU_OFFSET[0]));
  assert.equal(await page.isDisabled('#rank'), true);
  assert.match(await page.textContent('#strip'), /range0 … 1,\d+/);
  await page.click('[data-correct="subtract_1024"]');
  await page.waitForSelector('#corrected:not([hidden])');
  await page.waitForFunction(() => !document.querySelector('#rank').disabled);
  assert.match(await page.textContent('#strip'), /-1,024 … /);
  assert.ok(!(await page.textContent('#findings')).includes('W_HU_OFFSET'));
  assert.equal(await page.locator('#reports .body').count(), 2, 'the candidates stay');

  // Hints: a count per report, the rules when opened.
  assert.equal(await page.locator('.hints').count(), 1);
  assert.match(await page.textContent('.hints summary'), /possible identifiers: [23]/);
  await page.click('.hints summary');
  assert.ok((await page.locator('.hints ul').innerText()).includes(ruleText('date')));
  assert.deepEqual(found(await page.textContent('.hints')), []);
  assert.equal(await page.textContent('#hints-notes'), text('hints_review', { n: 1, total: 2 }));
  await page.screenshot({ path: join(out, 'privacy-en.png'), fullPage: true });

  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  const record = (await downloaded(page, '#export')).bytes.toString('utf8');
  const { input, preprocess } = JSON.parse(record);
  assert.deepEqual(preprocess.reading.scaling, { slope: 1, intercept: -1024 });
  assert.deepEqual(input.hu_override, { slope: 1, intercept: -1024 });
  const counts = Object.entries(preprocess.reading.identifiers);
  for (const [rule, n] of counts) assert.ok(`rule_${rule}` in MESSAGES && Number.isInteger(n), rule);
  assert.equal(counts.reduce((sum, [, n]) => sum + n, 0), count);

  await page.click('#diagnostics');
  await page.waitForFunction(() => document.querySelector('#copied').textContent !== '');
  const diagnostics = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(JSON.parse(diagnostics).backend, 'cpu');
  const places = {
    record, diagnostics, title: await page.title(), url: page.url(), storage: await stored(page),
    console: lines.join('\n'), requests: tests.requests.join('\n'),
  };
  for (const [place, content] of Object.entries(places)) assert.deepEqual(found(content), [], place);
  await finish();
});

test('clear all leaves nothing of file, reports and questions in the page, shown or hidden', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await openPage();
  const id = `ACC${PLANTED.report}`;
  await upload(page, FILE_NAME, (await plantedFile()).bytes);
  await page.click('#reveal');
  await page.waitForFunction((label) => document.querySelector('#reveal').textContent === label, MESSAGES.conceal[0]);
  const report = (name, words) => ({ id: name, text: `${words} Seen for MRN ${PLANTED.report}.` });
  const json = JSON.stringify([report(id, 'Clear lungs.'), report(`${id}-2`, 'Small effusion.')]);
  await page.setInputFiles('#reports-file', { name: 'x.json', mimeType: 'application/json', buffer: Buffer.from(json) });
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 2);
  await idle(page);
  for (const box of await page.locator('[data-accept]').all()) await box.check();
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  await idle(page);
  await page.evaluate(() => { for (const panel of document.querySelectorAll('details')) panel.open = true; });
  for (const made of await page.locator('#result-rows [data-compare]').all()) await made.click();
  await page.locator('[data-edit]').first().click();
  await page.click('#edit-cancel');
  await page.selectOption('#evidence-variant', 'share');
  await page.click('#evidence-show');
  await page.waitForSelector('#evidence-result:not([hidden])', { timeout: SLOW_MS });
  await idle(page);
  await page.selectOption('#quiz-answer', id);
  await page.click('#quiz-list');
  await searchOwnStore(page);
  await page.click('#compare-all');
  await page.waitForSelector('#matrix-rows tr', { timeout: SLOW_MS });
  await idle(page);
  for (const field of ['#question', '#paste', '#report-filter', '#result-filter']) await page.evaluate(([to, words]) => { document.querySelector(to).value = words; }, [field, id]);
  await page.locator('.view').first().hover();
  await page.waitForFunction(() => document.querySelector('#probe').textContent !== '');
  // A file of several volumes, and a refused one that a metadata table was to be loaded for.
  const series = await sampleNifti();
  series.writeInt16LE(4, 40);
  series.writeInt16LE(3, 48);
  await upload(page, FILE_NAME, series);
  await page.waitForSelector('#frame-form:not([hidden])');

  const held = () => page.evaluate(() => [
    document.documentElement.outerHTML, ...Array.from(document.querySelectorAll('input, textarea, select'), (field) => field.value),
  ].join('\n'));
  assert.deepEqual(found(await held(), inFile), inFile);
  assert.ok((await held()).includes(id));
  await page.click('#clear-all');
  await page.click('#clear button[value="clear"]');
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.cleared[0], { timeout: SLOW_MS });
  assert.deepEqual(found(await held()), []);
  assert.deepEqual(await page.evaluate(() => ['strip', 'probe', 'cross', 'findings', 'identifiers', 'evidence-rows', 'error-text'].filter((place) => document.getElementById(place).textContent)), []);
  assert.ok(await page.isHidden('#frame-form') && await page.isHidden('#error'));
  assert.equal(await page.evaluate(() => document.querySelector('#frame-form').onsubmit), null);
  const pixels = await page.evaluate(() => Array.from(document.querySelectorAll('#planes canvas'), ({ width, height }) => width * height));
  assert.deepEqual(pixels, pixels.map(() => 0));
  // And the page works as before.
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await idle(page);
  assert.match(await page.textContent('#strip'), /208 × 160/);
  await finish();
});

test('unknown orientation: ? and a banner until accepted, letters and a banner after', async () => {
  const { page, finish } = await openPage({ locale: 'zh-CN', colorScheme: 'light' });
  const nifti = await sampleNifti();
  nifti.fill(0, 252, 256); // qform_code, sform_code
  const letters = () => page.locator('.plane').first().locator('.letter').allTextContents();
  await upload(page, 'x.nii', nifti);
  assert.deepEqual(await letters(), ['?', '?', '?', '?']);
  assert.equal(await page.textContent('#orientation-banner'), MESSAGES.orientation_unknown[1]);
  await page.screenshot({ path: join(out, 'orientation-zh.png'), fullPage: true });
  await page.check('[data-accept="W_NOXFORM"]');
  assert.deepEqual(await letters(), ['R', 'L', 'A', 'P']);
  assert.equal(await page.textContent('#orientation-banner'), MESSAGES.orientation_assumed[1]);
  await page.uncheck('[data-accept="W_NOXFORM"]');
  assert.deepEqual(await letters(), ['?', '?', '?', '?']);
  await upload(page, 'y.nii', await sampleNifti());
  assert.deepEqual(await letters(), ['R', 'L', 'A', 'P']);
  assert.ok(await page.isHidden('#orientation-banner'));
  await finish();
});

test('corrections: the other orientation, none that is valid, slope and intercept', async () => {
  const { page, finish } = await openPage();
  const findings = () => page.locator('#findings code').allTextContents();
  const done = () => page.waitForFunction(() => !document.querySelector('#choose-file').disabled);

  const flipped = await sampleNifti();
  flipped.writeFloatLE(-flipped.readFloatLE(280), 280); // srow_x[0]: left and right of the sform swapped
  await upload(page, 'x.nii', flipped);
  assert.deepEqual(await findings(), ['W_DISAGREE']);
  assert.equal(await page.locator('[data-accept]').count(), 1);
  await page.click('[data-correct="other_form"]');
  await page.waitForSelector('#corrected:not([hidden])');
  assert.equal(await page.locator('[data-accept]').count(), 0, 'the correction is the answer');
  await done();
  await page.click('#uncorrect');
  await page.waitForSelector('#corrected', { state: 'hidden' });
  assert.equal(await page.locator('[data-accept="W_DISAGREE"]').count(), 1);

  const singular = await sampleNifti();
  singular.writeInt16LE(0, 252); // no qform
  singular.fill(0, 280, 328);
  await done();
  await upload(page, 'x.nii', singular);
  assert.equal(await page.textContent('#error-code'), 'E_XFORM');
  await page.click('[data-cure="assume_lps"]');
  await page.waitForSelector('#error', { state: 'hidden' });
  await done();
  assert.equal(await page.textContent('#orientation-banner'), MESSAGES.orientation_assumed[0]);

  const raw = await sampleNifti();
  raw.writeInt16LE(-8192, 352);
  await upload(page, 'x.nii', raw);
  assert.deepEqual((await findings()).filter((code) => code === 'W_HU_RAW'), ['W_HU_RAW']);
  await page.fill('#findings input[name="slope"]', '0.5');
  await page.fill('#findings input[name="intercept"]', '-10');
  await page.click('[data-correct="apply_scaling"]');
  await page.waitForSelector('#corrected:not([hidden])');
  assert.match(await page.textContent('#strip'), /-4,106 … /);
  await done();
  await finish();
});

test('values that are not HU: accepted by the user, and recorded', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await openPage();
  const bytes = await sampleNifti();
  for (let at = 353; at < bytes.length; at += 2) bytes[at] = 0; // 0..255
  await upload(page, 'x.nii', bytes);
  await page.fill('#paste', 'Clear lungs.');
  await page.click('#add-pasted');
  await page.waitForSelector('#reports li');
  assert.equal(await page.isDisabled('#rank'), true);
  await page.locator('.view').first().hover();
  assert.match(await page.textContent('#probe'), /\(not HU\)/);
  for (const box of await page.locator('[data-accept]').all()) await box.check();
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  const { input } = JSON.parse((await downloaded(page, '#export')).bytes.toString('utf8'));
  assert.deepEqual(input.findings.filter(({ code }) => code === 'E_NOT_HU'), [{ code: 'E_NOT_HU', accepted: true }]);
  await finish();
});

test('the page says what the package says', async () => {
  const { page, finish } = await tests.newPackagePage();
  const notices = await attempt(page, async () => {
    const session = await window.ctmatch.open();
    return Promise.all([0, 3].map((n) => session.privacyNotices(n)));
  });
  const both = (key, params) => ({ en: text(key, params, 'en'), zh: text(key, params, 'zh') });
  const voxels = both('privacy_voxels');
  assert.deepEqual(notices, [{ summary: both('privacy_none'), voxels }, { summary: both('privacy_some', { n: 3 }), voxels }]);
  const source = await readFile(join(repository, 'src/volume/privacy.rs'), 'utf8');
  const table = source.slice(source.indexOf('pub const RULES'), source.indexOf('];', source.indexOf('pub const RULES')));
  const rules = [...table.matchAll(/\("([^"]+)", "([^"]+)", "([^"]+)"\)/g)];
  assert.ok(rules.length > 10);
  for (const [, rule, en, zh] of rules) assert.deepEqual(MESSAGES[`rule_${rule}`], [en, zh]);
  const places = source.slice(source.indexOf('impl fmt::Display for Place'), source.indexOf('impl Serialize for Place'));
  for (const [, place] of places.matchAll(/=> "([^"]+)"/g)) assert.ok(`place_${place.replaceAll(' ', '_')}` in MESSAGES, place);
  await finish();
});

for (const worker of [undefined, false]) {
  test(`the package: clean copy, abort, revealing, hints (${worker === false ? 'calling thread' : 'worker'})`, async () => {
    const { page, finish } = await tests.newPackagePage();
    const planted = await plantedFile();
    const result = await attempt(page, async ({ base64, name, worker }) => {
      const session = await window.ctmatch.open({ worker });
      const file = new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name);
      const volume = await session.readVolume(file);
      const facts = JSON.stringify([volume.identifiers, volume.findings, await session.diagnostics(), session.info]);
      const texts = await volume.revealIdentifiers();

      const controller = new AbortController();
      const reason = new DOMException('enough', 'AbortError');
      let at;
      const aborted = await volume.cleanCopy({
        signal: controller.signal,
        onProgress: () => { at ??= performance.now(); controller.abort(reason); },
      }).then(() => 'finished', (error) => (error === reason ? 'reason' : String(error)));
      const abortMs = performance.now() - at;

      const seen = [];
      const copies = [];
      for (let i = 0; i < 2; i++) copies.push(await volume.cleanCopy({ onProgress: ({ loadedBytes, totalBytes }) => seen.push(loadedBytes / totalBytes) }));
      const [first, second] = await Promise.all(copies.map(async (copy) => new Uint8Array(await copy.arrayBuffer())));
      const copy = await session.readVolume(copies[0]);
      let differ = 0;
      for (const plane of ['axial', 'coronal', 'sagittal']) {
        const [a, b] = await Promise.all([volume, copy].map((v) => v.slice(plane, 17)));
        if (a.positionMm !== b.positionMm || a.spacingMm.join() !== b.spacingMm.join()) differ += 1;
        for (let i = 0; i < a.hu.length; i++) if (a.hu[i] !== b.hu[i]) differ += 1;
      }
      const head = new Uint8Array(await new Response(copies[0].stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer());
      const pair = { header: new Blob([head.slice(0, 344), new TextEncoder().encode('ni1\0')]), image: new Blob([new Uint8Array(352), head.slice(352)]) };
      const fromPair = await (await session.readVolume(pair)).cleanCopy();
      volume.close();
      const closed = await volume.cleanCopy().then(() => 'no error', (error) => error.code);
      const hints = await session.textHints(['Seen by Dr. Miller on 2023-05-06.', '患者：王小明，2023年5月6日检查。', 'Clear lungs.']);
      await session.close();
      return {
        facts, texts, aborted, abortMs, seen: [seen[0] > 0, seen.at(-1)], type: copies[0].type, named: 'name' in copies[0],
        equal: first.length === second.length && first.every((byte, i) => byte === second[i]), differ,
        found: copy.identifiers.length, orientation: copy.orientation, fromPair: fromPair.size === copies[0].size, closed, hints,
      };
    }, { base64: planted.bytes.toString('base64'), name: FILE_NAME, worker });
    assert.equal(result.error, undefined, JSON.stringify(result.error));
    const { facts, texts, abortMs, hints, ...rest } = result;
    assert.deepEqual(found(facts), []);
    assert.deepEqual(found(texts.join('\n'), inFile), inFile);
    assert.ok(abortMs < 500, `${abortMs} ms`);
    assert.deepEqual(rest, {
      aborted: 'reason', seen: [true, 1], type: 'application/gzip', named: false, equal: true, differ: 0, found: 0, orientation: 'LPS',
      fromPair: true, closed: 'CLOSED',
    });
    const rules = hints.map((list) => list.map(({ rule }) => rule));
    assert.deepEqual([rules[0].includes('title'), rules[0].includes('date')], [true, true], JSON.stringify(hints));
    assert.deepEqual([rules[1].includes('person-name'), rules[1].includes('date')], [true, true], JSON.stringify(hints));
    assert.deepEqual(rules[2], []);
    assert.doesNotMatch(JSON.stringify(hints), /Miller|2023|王|小明/);
    await finish();
  });
}
