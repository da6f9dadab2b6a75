// Zero-shot scores, multiple choice and retrieval on the page.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { outcomeOf, parseItems, shuffled, totals, volumeName, wilson } from '../../www/choice.js';
import { kindText, MESSAGES, text } from '../../www/i18n.js';
import { isShared, ranksOf } from '../../www/ties.js';
import { gzipSync, host, idle, out, sampleNifti, SLOW_MS, useSample, www } from './harness.mjs';

const tests = host({ gpu: false });
const manifest = JSON.parse(await readFile(join(www, 'model/manifest.json'), 'utf8'));

const openSample = async (options) => {
  const made = await tests.newAppPage(options);
  const { page } = made;
  await useSample(page);
  await page.check('input[name="backend"][value="cpu"]');
  return made;
};

test('zero-shot: 18 findings in the published order, and a question', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await openSample();
  await page.click('#zero-shot > summary');
  await page.click('#zero-shot-run');
  await page.waitForSelector('#zero-shot-rows tr', { timeout: SLOW_MS });
  assert.deepEqual(await page.locator('#zero-shot-rows th').allTextContents(), manifest.recipes.zeroShot.labels);
  const scores = (await page.locator('#zero-shot-rows td:last-child').allTextContents()).map(parseFloat);
  for (const score of scores) assert.ok(score >= 0 && score <= 100, String(score)); // a certain one is shown as 100 %
  await page.selectOption('#zero-shot-order', 'score');
  assert.deepEqual((await page.locator('#zero-shot-rows td:last-child').allTextContents()).map(parseFloat), scores.toSorted((a, b) => b - a));

  await page.fill('#question', 'Is there a lung nodule?');
  await page.click('#ask');
  await page.waitForSelector('#answer-rows tr');
  await idle(page);
  await page.fill('#question', 'Is there a rib fracture?');
  await page.click('#ask');
  await page.waitForFunction(() => document.querySelectorAll('#answer-rows tr').length === 2);
  assert.deepEqual(await page.locator('#answer-rows th').allTextContents(), ['Is there a lung nodule? (Lung nodule)', 'Is there a rib fracture?']);
  assert.equal(await page.inputValue('#question'), '');
  await idle(page);
  await page.fill('#question', 'what?');
  await page.click('#ask');
  await page.waitForSelector('#error:not([hidden])');
  assert.equal(await page.locator('#answer-rows tr').count(), 2, 'the answers stay');
  await page.click('#lang-zh');
  assert.equal(await page.locator('#answer-rows th').first().textContent(), 'Is there a lung nodule? (肺结节)');
  await page.screenshot({ path: join(out, 'zero-shot-zh.png'), fullPage: true });
  await finish();
});

test('zero-shot labels have a Chinese name', () => {
  for (const label of manifest.recipes.zeroShot.labels) {
    assert.equal(MESSAGES[`finding_${label}`][0], label);
    assert.match(MESSAGES[`finding_${label}`][1], /^\p{Script=Han}/u);
  }
});

test('multiple choice of the list: hidden until revealed, then the totals; the record has no text', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await openSample();
  await page.click('#quiz > summary');
  assert.equal(await page.inputValue('#quiz-answer'), '', 'the answer of the sample is not shown (R-17)');
  assert.equal(await page.textContent('#quiz-answer option:checked'), MESSAGES.quiz_of_sample[0]);
  await page.fill('#quiz-seed', '7');
  await page.click('#quiz-list');
  await page.waitForSelector('#quiz-options li');
  const options = await page.locator('#quiz-options li').allTextContents();
  assert.equal(options.length, 4);
  assert.ok(!/cosine|true report/.test(options.join()), options.join());
  const places = (html) => html.replace(/ name="quiz-option"| disabled=""/g, '').replace(/>[^<]+/g, '>');
  const made = await page.locator('#quiz-options li').evaluateAll((items) => items.map((item) => item.outerHTML));
  assert.equal(new Set(made.map(places)).size, 1, 'nothing else tells the true option');
  const truth = options.findIndex((line) => line.includes('Severe cardiomegaly'));
  await page.locator('#quiz-options input').nth(truth).check();
  await page.click('#quiz-reveal');
  await page.waitForSelector('#quiz-totals:not([hidden])', { timeout: SLOW_MS });
  const revealed = await page.locator('#quiz-options li').allTextContents();
  assert.ok(revealed[truth].includes(MESSAGES.quiz_true[0]) && revealed[truth].includes(MESSAGES.quiz_yours[0]), revealed[truth]);
  assert.match(await page.textContent('#quiz-figures'), /You correct1\/1/);
  assert.match(await page.textContent('#quiz-figures'), /by chance25\.0%/);
  await page.locator('#quiz').screenshot({ path: join(out, 'quiz-en.png') });

  // The scores are those of the list: the order of the options changes nothing.
  const cosines = revealed.map((line) => line.match(/cosine (-?[\d.]+)/)[1]).sort();
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  assert.deepEqual((await page.locator('#result-rows .cosine').allTextContents()).sort(), cosines);

  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#quiz-save')]);
  const saved = await readFile(await download.path(), 'utf8');
  const record = JSON.parse(saved);
  assert.equal(record.seed, 7);
  assert.deepEqual(record.items[0].order, shuffled(4, 7, 0));
  assert.equal(record.items[0].reader, true);
  assert.ok(record.notice.zh && !saved.includes('Severe cardiomegaly'));
  // The record of VIEWER_AND_RANKING_UI.md 9, with the volume of each item.
  const fields = { app: ['version', 'commit', 'build_sha256'], model: ['id', 'weights_sha256', 'tokenizer_sha256'], preprocess: ['grid', 'interpolation'], runtime: ['backend', 'limits', 'self_check'] };
  for (const [part, names] of Object.entries(fields)) for (const name of names) assert.notEqual(record[part]?.[name], undefined, `${part}.${name}`);
  assert.match(record.items[0].input.voxel_sha256, /^[0-9a-f]{64}$/);
  await finish();
});

test('two volumes: items by volume, and each report with each volume', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await openSample();
  const nifti = await sampleNifti();
  for (let at = 352 + 2 * 208 * 160 * 12; at < 352 + 2 * 208 * 160 * 16; at += 2) nifti.writeInt16LE(40, at); // another volume
  await page.setInputFiles('#file', { name: 'case_b.nii.gz', mimeType: 'application/octet-stream', buffer: gzipSync(nifti) });
  await page.waitForFunction(() => document.querySelectorAll('#volumes li').length === 2);
  await idle(page);
  await page.click('#retrieval > summary');
  assert.ok(!(await page.content()).includes('case_b'), 'file names are not shown');
  await page.click('#compare-all');
  await page.waitForSelector('#matrix-rows tr', { timeout: SLOW_MS });
  await idle(page);
  assert.equal(await page.locator('#matrix-rows tr').count(), 4);
  assert.equal(await page.locator('#matrix-rows td').count(), 8);
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#matrix-save')]);
  const csv = (await readFile(await download.path(), 'utf8')).split('\r\n');
  const [names, ...rows] = csv.filter((line) => line && !line.startsWith('# ')).map((line) => line.split(','));
  assert.deepEqual(names, ['report', 'volume 1', 'volume 2']);
  const shown = await page.locator('#matrix-rows tr').evaluateAll((all) => all.map((row) => [row.querySelector('th').textContent, ...[...row.querySelectorAll('td')].map((cell) => cell.textContent.match(/-?\d\.\d{3}/)[0])]));
  assert.deepEqual(rows.map(([id, ...cosines]) => [id, ...cosines.map((value) => Number(value).toFixed(3))]), shown);
  const about = JSON.parse(csv.findLast((line) => line.startsWith('# ')).slice(2));
  assert.equal(new Set(about.volumes.map(({ voxel_sha256: sha }) => sha)).size, 2);
  assert.ok(about.notice.zh && about.model.weights_sha256 && !csv.join().includes('case_b'));
  const marks = (key) => page.locator('#matrix-rows .tie').filter({ hasText: new RegExp(`^${MESSAGES[key][0]}$`) }).count();
  assert.equal(await marks('best_report'), 2, 'one for each volume');
  assert.equal(await marks('best_volume'), 4, 'one for each report');
  await page.locator('#retrieval').screenshot({ path: join(out, 'retrieval-en.png') });

  const option = (line, label, kind) => ({ text: line, label, kind });
  const items = [
    { id: 'one', image: 'folder/case_b.nii.gz', options: [option('Clear lungs.', 1, 'true'), option('Emphysema.', 0, 'random')] },
    { id: 'two', image: 'elsewhere', options: [option('Clear lungs.', 0, 'negation'), option('Emphysema.', 1, 'true')] },
  ];
  await page.setInputFiles('#quiz-file', { name: 'i.jsonl', mimeType: 'text/plain', buffer: Buffer.from(items.map((item) => JSON.stringify(item)).join('\n')) });
  await page.waitForFunction(() => document.querySelectorAll('#quiz-options li').length === 2);
  await idle(page);
  await page.click('#volumes [data-volume="1"]');
  await page.waitForSelector('#volumes [data-volume="2"]');
  await idle(page);
  await page.click('#quiz > summary');
  await page.click('#quiz-reveal');
  await page.waitForSelector('#quiz-totals:not([hidden])', { timeout: SLOW_MS });
  assert.equal(await page.locator('#strip dd').first().textContent(), '2', 'the volume of the item is shown');
  assert.equal(await page.textContent('#quiz-kinds th'), MESSAGES.kind_random[0]);
  await page.click('#lang-zh');
  assert.equal(await page.textContent('#quiz-kinds th'), MESSAGES.kind_random[1]);
  await page.click('#lang-en');
  await idle(page);
  await page.click('#quiz-after');
  assert.equal(await page.textContent('#quiz-volume'), MESSAGES.quiz_no_volume[0]);
  assert.ok(await page.isDisabled('#quiz-reveal'));
  await finish();
});

test('an answer that a person gives is hidden again; a label is the kind of a distractor; without an answer nothing is counted', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await openSample();
  await page.click('#clear-reports');
  const table = 'case,reading,how\nA,"Severe cardiomegaly, left effusion.",true one\nB,"Normal heart, clear lungs.",negation\nC,Emphysema.,mine\n';
  await page.fill('#paste', table);
  await page.click('#add-pasted');
  await page.waitForSelector('#columns[open]');
  for (const [i, role] of ['id', 'text', 'label'].entries()) await page.locator('#columns select').nth(i).selectOption(role);
  assert.equal(await page.locator('#columns select option:checked').last().textContent(), MESSAGES.column_label[0]);
  await page.click('#columns-use');
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 3);
  await idle(page);
  await page.click('#quiz > summary');
  assert.equal(await page.textContent('#quiz-answer option:checked'), MESSAGES.quiz_not_known[0], "this A is not the sample's");
  await page.selectOption('#quiz-answer', 'A');
  await page.click('#quiz-list');
  await page.waitForSelector('#quiz-options li');
  assert.equal(await page.inputValue('#quiz-answer'), '');
  const reveal = async () => {
    await page.click('#quiz-reveal');
    await page.waitForFunction(() => document.querySelector('#quiz-outcome').textContent !== '', undefined, { timeout: SLOW_MS });
    await idle(page);
  };
  await reveal();
  assert.match(await page.locator('#quiz-options li.true').textContent(), /Severe cardiomegaly/);
  assert.ok([MESSAGES.kind_negation[0], '“mine”'].includes(await page.textContent('#quiz-kinds th')), await page.textContent('#quiz-kinds'));

  await page.click('#quiz-list');
  await page.waitForSelector('#quiz-totals', { state: 'hidden' });
  assert.ok(await page.isHidden('#quiz-save'));
  await page.locator('#quiz-options input').first().check();
  await reveal();
  assert.equal(await page.textContent('#quiz-outcome'), MESSAGES.quiz_uncounted[0]);
  assert.ok(await page.isHidden('#quiz-totals'));
  const shown = await page.locator('#quiz-options li').allTextContents();
  assert.ok(shown[0].includes(MESSAGES.quiz_yours[0]) && shown.every((line) => /rank \d, cosine/.test(line) && !line.includes(MESSAGES.quiz_true[0])), shown.join());
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#quiz-save')]);
  const record = JSON.parse(await readFile(await download.path(), 'utf8'));
  assert.equal(record.totals, null);
  assert.deepEqual([record.items.length, record.items[0].correct, record.items[0].chosen, Object.keys(record.items[0].cosines).length], [1, undefined, record.items[0].order[0], 3]);
  await finish();
});

test('each step says what is missing: an item of the list, all with all, saving latents (A-3)', async () => {
  const { page, finish } = await tests.newAppPage();
  await page.evaluate(() => { for (const panel of document.querySelectorAll('details')) panel.open = true; });
  const says = async (expected) => {
    for (const [id, line] of Object.entries(expected)) {
      const hint = await page.getAttribute(`#${id}`, 'aria-describedby');
      assert.equal(await page.textContent(`#${hint.split(' ').at(-1)}`), line, id);
      assert.equal(await page.isDisabled(`#${id}`), line !== '', id);
    }
  };
  const line = (key, params) => text(key, params, 'en');
  const [volume, reports, section] = ['needs_volume', 'needs_reports', 'needs_section'].map((key) => line(key));
  await says({ 'quiz-list': volume, 'compare-all': volume, 'kept-volume': volume, 'kept-reports': reports, 'kept-store': line('kept_nothing') });
  await useSample(page);
  await says({ 'quiz-list': '', 'compare-all': '', 'kept-volume': '', 'kept-reports': '', 'kept-store': '' });
  const many = Array.from({ length: 17 }, (_, i) => `Nodule of ${i} mm.`).join('\n\n');
  await page.fill('#paste', many);
  await page.click('#add-pasted');
  await page.waitForFunction(() => document.querySelectorAll('#reports > li').length === 21);
  await idle(page);
  await says({ 'quiz-list': line('quiz_needs_reports', { least: 2, most: 16, n: 21 }), 'compare-all': '' });
  await page.click('#clear-reports');
  await says({ 'quiz-list': line('quiz_needs_reports', { least: 2, most: 16, n: 0 }), 'compare-all': reports, 'kept-volume': '', 'kept-reports': reports });
  await page.fill('#paste', '[{"id":"a","findings":"Clear lungs."}]');
  await page.click('#add-pasted');
  await page.waitForSelector('#reports > li');
  await idle(page);
  await page.selectOption('#report-view', 'impression');
  await says({ 'compare-all': section, 'kept-reports': section });
  await page.click('#lang-zh');
  await says({ 'compare-all': text('needs_section', {}, 'zh') });
  await page.click('#lang-en');

  // A volume that asks.
  const option = (report) => ({ text: report });
  const nifti = await sampleNifti();
  nifti.writeInt32LE(0, 252); // qform_code, sform_code
  await page.setInputFiles('#file', { name: 'asks.nii', mimeType: 'application/octet-stream', buffer: nifti });
  await page.waitForSelector('[data-accept="W_NOXFORM"]');
  await idle(page);
  await page.setInputFiles('#quiz-file', { name: 'i.json', mimeType: 'text/plain', buffer: Buffer.from(JSON.stringify([{ image: 'asks.nii', options: [option('Clear.'), option('Not.')] }])) });
  await page.waitForSelector('#quiz-options li');
  await idle(page);
  await says({ 'kept-volume': line('needs_accept'), 'quiz-reveal': line('needs_accept') });
  await finish();
});

test('ties by the tolerance: against the first of the group, in any order (R-8)', () => {
  assert.deepEqual(ranksOf([0.3, 0.5, 0.499, 0.4975, 0.1], 0.002), [4, 1, 1, 3, 5]);
  assert.deepEqual(ranksOf([0.5, 0.4985, 0.497, 0.4955], 0.002), [1, 1, 3, 3], 'a chain of small steps is not one group');
  assert.deepEqual(ranksOf([0.2, 0.2, 0.4], 0), [2, 2, 1]);
  assert.deepEqual(ranksOf([], 1), []);
  assert.deepEqual([isShared([1, 3, 1], 1), isShared([1, 3, 1], 3)], [true, false]);
});

test('every kind of distractor that the command makes has a name; another is shown as it is', async () => {
  const edits = await readFile(new URL('../../src/rank/edits.rs', import.meta.url), 'utf8');
  const made = [...edits.matchAll(/EditKind::\w+ => "(\w+)",/g)].map(([, name]) => name);
  assert.equal(made.length, 11);
  for (const kind of ['random', 'nn_text', 'list', 'other', ...made]) assert.equal(kindText(kind), MESSAGES[`kind_${kind}`][0]);
  assert.equal(kindText('d3'), text('kind_label_distance', { n: 3 }));
  assert.equal(kindText('my own'), '“my own”');
});

test('items: what is read and what is refused', () => {
  const option = (label, more) => ({ text: `t${label}`, label, ...more });
  const [item] = parseItems(JSON.stringify([{ image_path: 'x/train_1_a_1.nii.gz', options: [option(0, { kind: 'd3', edits: [1] }), option('1')] }]));
  assert.deepEqual(item, {
    id: '1', image: 'train_1_a_1',
    options: [{ report: { text: 't0' }, isTrue: false, kind: 'd3' }, { report: { text: 't1' }, isTrue: true, kind: 'true' }],
  });
  const [open] = parseItems(JSON.stringify([{ image: 'a', options: [{ text: 'x' }, { text: 'y', kind: 'size' }] }]));
  assert.deepEqual(open.options.map(({ isTrue, kind }) => [isTrue, kind]), [[false, 'other'], [false, 'size']], 'an answer is optional (R-17)');
  for (const bad of ['', '{', '[]', '[{"options":[]}]', JSON.stringify([{ image: 'a', options: [option(1)] }]), JSON.stringify([{ image: 'a', options: [option(0), option(0)] }])]) {
    assert.throws(() => parseItems(bad), { code: 'TEXT_INPUT' }, bad);
  }
  assert.equal(volumeName('C:\\a\\b.nii'), 'b');
});

test('order by seed, outcomes and totals', () => {
  assert.deepEqual(shuffled(16, 3, 2).toSorted((a, b) => a - b), Array.from({ length: 16 }, (_, i) => i));
  assert.deepEqual(shuffled(16, 3, 2), shuffled(16, 3, 2));
  assert.notDeepEqual(shuffled(16, 3, 2), shuffled(16, 4, 2));
  assert.notDeepEqual(shuffled(16, 3, 2), shuffled(16, 3, 3));
  // Over seeds each place is as likely as another: 4 options, 4000 seeds, five standard deviations.
  const first = [0, 0, 0, 0];
  for (let seed = 0; seed < 4000; seed++) first[shuffled(4, seed, 0)[0]] += 1;
  for (const n of first) assert.ok(Math.abs(n - 1000) < 5 * Math.sqrt(4000 * 0.25 * 0.75), first.join());

  const row = (index, cosine, rank, tieGroup) => ({ index, cosine, rank, tieGroup });
  const clear = [row(2, 0.5, 1, 0), row(0, 0.25, 2, 1), row(1, 0, 3, 2)];
  assert.deepEqual(outcomeOf(clear, 2, 'random'), { options: 3, correct: true, tied: 1, margin: 0.25, kind: 'random' });
  assert.deepEqual(outcomeOf(clear, 0, 'random'), { options: 3, correct: false, tied: 0, margin: -0.25, kind: 'random' });
  const tied = [row(2, 0.5, 1, 0), row(0, 0.5, 1, 0), row(1, 0, 3, 2)];
  assert.deepEqual(outcomeOf(tied, 0, 'size'), { options: 3, correct: false, tied: 2, margin: 0, kind: 'size' });

  // Wilson 1927, worked out by hand.
  const near = (found, expected) => found.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 5e-4, found.join()));
  near(wilson(8, 10), [0.4902, 0.9433]);
  near(wilson(0, 4), [0, 0.4899]);
  const t = totals([
    { ...outcomeOf(clear, 2, 'random'), reader: true }, { ...outcomeOf(tied, 0, 'size'), reader: false }, outcomeOf(clear, 0, 'random'),
  ]);
  assert.deepEqual([t.hits, t.n, t.withTies, t.reader, t.kinds], [1, 3, 0.5, { hits: 1, n: 2 }, [{ kind: 'random', hits: 1, n: 2 }, { kind: 'size', hits: 0, n: 1 }]]);
  assert.ok(Math.abs(t.chance - 1 / 3) < 1e-12);
});
