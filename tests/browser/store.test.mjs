// Views, stores and evaluation in the browser: the numbers of the native command, from both threads, and every refusal.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { attempt, host, www } from './harness.mjs';

const MOST_MS = 50; // DESIGN.md 5: the best of 10,000 latents

const folder = mkdtempSync(join(tmpdir(), 'ctmatch-store-'));
const run = (...args) => execFileSync(process.env.CTMATCH, [...args, '--quiet'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
const volume = join(www, 'sample/chest.nii.gz');
const reports = join(www, 'sample/reports.json');
const model = ['--model', join(www, 'model'), '--device', 'cpu'];
before(() => {
  mkdirSync(join(folder, 'scans'));
  copyFileSync(volume, join(folder, 'scans/chest.nii.gz'));
  run('encode', ...model, '--volumes', join(folder, 'scans'), '--reports', reports, '--view', 'keywords', '--store', join(folder, 'keywords.safetensors'));
});
after(() => rmSync(folder, { recursive: true, force: true }));
const tests = host({ gpu: false, mounts: { '/store': folder } });

const openSample = async (worker) => {
  const { open } = window.ctmatch;
  const session = await open({ model: '/model/manifest.json', backend: 'cpu', ...(worker ? {} : { worker }) });
  const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
  const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
  const list = await session.parseReports(await (await fetch('/sample/reports.json')).blob());
  window.sample = { session, list, image: await session.encodeVolume(volume, { accept }) };
};

for (const worker of [true, false]) {
  test(`views, a store of the command, and search in it, ${worker ? 'in the worker' : 'in the thread'}`, async () => {
    const { page, finish } = await tests.newPackagePage();
    assert.equal(await attempt(page, openSample, worker), undefined);
    const ranked = JSON.parse(run('rank', ...model, '--volume', volume, '--reports', reports, '--view', 'full,impression,keywords,sentences', '--meta', 'Age: 67', '--json'));
    const found = await attempt(page, async () => {
      const { session, list, image } = window.sample;
      const order = {};
      for (const view of ['full', 'impression', 'keywords', 'sentences']) {
        const set = await session.encodeReports(list, { view, meta: 'Age: 67' });
        if (set.view !== view) throw new Error(set.view);
        order[view] = (await session.rank(image, set)).rows.map(({ index, cosine }) => [index, cosine]);
      }
      const store = await session.openStore(await (await fetch('/store/keywords.safetensors')).blob());
      const before = { view: store.view, precision: store.precision, volumes: store.volumes.map(({ id }) => id), reports: store.reports.length, model: store.model };
      const hits = await store.search(image, { find: 'reports', topK: 3 });
      const [first] = await store.search(await session.encodeReports([list[1]], { view: 'keywords' }), { find: 'volumes', hubness: 'centred' });

      const own = await session.openStore(undefined, { precision: 'int8' });
      await own.add({ volumes: [{ id: 'a', latent: image }], reports: await session.encodeReports(list) });
      const again = await session.openStore(await own.save());
      const same = JSON.stringify(await again.search(image, { find: 'reports' })) === JSON.stringify(await own.search(image, { find: 'reports' }));
      const code = (promise) => promise.then(() => 'accepted', (error) => error.code);
      const other = { ...image, provenance: { ...image.provenance, embeddingSpace: 'another' } };
      const refused = [
        await code(own.add({ volumes: [{ id: 'a', latent: image }] })), await code(own.add({ reports: await session.encodeReports(['no nodule'], { view: 'sentences' }) })),
        await code(own.add({ volumes: [{ id: 'b', latent: other }] })), await code(own.search(other, { find: 'reports' })),
        await code(own.search(await session.encodeReports(list), { find: 'volumes' })), await code(session.openStore(new Blob(['no store']))),
        await code(session.encodeReports(['only text'], { view: 'findings' })),
      ];
      own.close();
      refused.push(await code(own.save()));
      return { order, before, hits, first, precision: again.precision, entries: [again.volumes.length, again.reports.length], sha256: again.volumes[0].sha256, stored: store.volumes[0].sha256, same, refused };
    });
    assert.equal(found.error, undefined, JSON.stringify(found.error));
    for (const [view, { rows }] of Object.entries(ranked.views)) {
      assert.deepEqual(found.order[view].map(([index]) => index), rows.map(({ index }) => index), view);
      for (const [i, { cosine }] of rows.entries()) assert.ok(Math.abs(found.order[view][i][1] - cosine) < 1e-5, `${view} ${i}`);
    }
    const searched = JSON.parse(run('search', '--store', join(folder, 'keywords.safetensors'), '--volume-id', 'chest', '--find', 'reports', '--top-k', '3', '--json'));
    assert.deepEqual(found.before.volumes, ['chest']);
    assert.deepEqual([found.before.view, found.before.precision, found.before.reports, found.before.model], ['keywords', 'f16', searched.searched, searched.model]);
    assert.deepEqual(found.hits.map(({ id }) => id), searched.hits.map(({ id }) => id));
    for (const [i, { cosine }] of searched.hits.entries()) assert.ok(Math.abs(found.hits[i].cosine - cosine) < 1e-3);
    assert.equal(found.first.id, 'chest');
    assert.deepEqual([found.precision, found.entries, found.same], ['int8', [1, searched.searched], true]);
    assert.equal(found.sha256, found.stored); // the command and the package hash a volume alike
    assert.deepEqual(found.refused, ['STORE', 'STORE', 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'CHECKPOINT', 'TEXT_INPUT', 'CLOSED']);
    await finish();
  });
}

test('10,000 latents are searched in time', async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const session = await open({ model: '/model/manifest.json', backend: 'cpu', worker: false });
    const [count, length] = [10_000, 512];
    const vectors = Float32Array.from({ length: count * length }, (_, i) => Math.sin(i * i + 0.5));
    for (let row = 0; row < count; row++) {
      const one = vectors.subarray(row * length, (row + 1) * length);
      const norm = Math.hypot(...one);
      one.forEach((x, i) => { one[i] = x / norm; });
    }
    const { embeddingSpace } = session.info.model;
    const rows = Array.from({ length: count }, (_, i) => ({ id: String(i), tokens: 1, truncated: false, textSha256: '' }));
    const store = await session.openStore();
    const t0 = performance.now();
    await store.add({ reports: { size: count, embeddingSpace, view: 'full', rows, vectors } });
    const query = { size: 1, embeddingSpace, view: 'full', rows: [rows[7]], vectors: vectors.slice(7 * length, 8 * length) };
    const added = performance.now() - t0;
    const times = [];
    let hits;
    for (let i = 0; i < 5; i++) {
      const from = performance.now();
      hits = await store.search(query, { find: 'reports' });
      times.push(performance.now() - from);
    }
    await session.close();
    return { hits: hits.map(({ id }) => id), times, added };
  });
  console.log('10,000 latents: added in', found.added, 'ms, searched in', found.times);
  assert.equal(found.hits[0], '7');
  assert.equal(found.hits.length, 10);
  assert.ok(Math.min(...found.times) <= MOST_MS);
  await finish();
});

test('multiple choice is judged as by hand', async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const session = await open({ model: '/model/manifest.json', backend: 'cpu' });
    const choices = [
      { id: '1', patient: 'a', truth: 0, scores: [0.9, 0.1, 0.2], kinds: ['', 'random', 'lobe'] },
      { id: '2', patient: 'b', truth: 1, scores: [0.5, 0.4, 0.3], kinds: ['random', '', 'lobe'] },
    ];
    const result = await session.evaluate(choices, { tieTolerance: 0, rounds: 50 });
    const better = choices.map((choice) => ({ ...choice, scores: choice.scores.map((_, i) => Number(i === choice.truth)) }));
    const { comparison } = await session.evaluate(better, { rounds: 0, compareWith: result.outcomes });
    const refused = await session.evaluate([{ id: '1', patient: 'a', truth: 5, scores: [1, 2] }]).catch((error) => error.code);
    return { result, refused, comparison };
  });
  assert.equal(found.error, undefined, JSON.stringify(found.error));
  const { summary, outcomes } = found.result;
  assert.deepEqual([summary.items, summary.patients, summary.top1.value, summary.mrr.value, summary.meanRank.value], [2, 2, 0.5, 0.75, 1.5]);
  assert.ok(Math.abs(summary.margin.value - 0.3) < 1e-12); // (0.7 - 0.1) / 2
  assert.deepEqual(summary.byKind.map(({ kind, accuracy }) => [kind, accuracy.value]), [['lobe', 1], ['random', 0.5]]);
  assert.deepEqual(outcomes.map(({ id, chosen, rank, correct }) => [id, chosen, rank, correct]), [['1', 0, 1, true], ['2', 0, 2, false]]);
  assert.equal(found.refused, 'INVALID_ARGUMENT');
  assert.equal(found.result.comparison, null);
  assert.deepEqual(found.comparison, { both: 1, thisOnly: 1, otherOnly: 0, neither: 0, p: 1 });
  await finish();
});

/** As the command reads them: CT-RATE's tables. */
const TABLE = {
  reports: [
    ['train_1_a_1', 'There is a 12 mm nodule in the right upper lobe.', 'Right upper lobe nodule.'],
    ['train_2_a_1', 'Bilateral pleural effusion. The heart is enlarged.', 'Pleural effusion. Cardiomegaly.'],
    ['train_3_a_1', 'Mild emphysema in both upper lobes.', 'Emphysema.'],
    ['train_4_a_1', 'No nodule is seen. The lungs are clear.', 'Normal chest CT.'],
  ],
  labels: [[9], [12, 2], [7], []],
};

test('items, retrieval and zero-shot metrics are those of the command', async () => {
  const { LABELS, rows } = { LABELS: JSON.parse(readFileSync(join(www, 'model/manifest.json'))).recipes.zeroShot.labels, rows: TABLE.reports };
  const cells = (found) => LABELS.map((_, i) => (found.includes(i) ? 1 : 0));
  const files = {
    reports: ['VolumeName,Findings_EN,Impressions_EN', ...rows.map(([id, ...sections]) => `${id}.nii.gz,${sections.join(',')}`)],
    labels: [`VolumeName,${LABELS.join(',')}`, ...rows.map(([id], i) => `${id}.nii.gz,${cells(TABLE.labels[i]).join(',')}`)],
  };
  for (const [name, lines] of Object.entries(files)) writeFileSync(join(folder, `${name}.csv`), `${lines.join('\n')}\n`);
  mkdirSync(join(folder, 'four'));
  for (const [i, [id]] of rows.entries()) copyFileSync(join(www, `sample/chest${['', '-2', '-3', '-2'][i]}.nii.gz`), join(folder, `four/${id}.nii.gz`));
  const at = (name) => join(folder, name);
  const strategies = ['nn_text', 'laterality', 'presence', 'random'];
  const built = JSON.parse(run('build-items', '--reports', at('reports.csv'), '--labels', at('labels.csv'), '--strategy', strategies.join(','), '--options', '3', '--seed', '5', '--model', join(www, 'model'), '--device', 'cpu', '--out', at('items.jsonl'), '--json'));
  const items = readFileSync(at('items.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  run('encode', ...model, '--volumes', at('four'), '--reports', at('reports.csv'), '--store', at('four.safetensors'));
  const { retrieval, zeroShot } = JSON.parse(run('evaluate', ...model, '--retrieval', '--zero-shot', '--store', at('four.safetensors'), '--labels', at('labels.csv'), '--hubness', 'centred', '--bootstrap', '60', '--seed', '3', '--json'));

  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async (strategies) => {
    const { open } = window.ctmatch;
    const session = await open({ model: '/model/manifest.json', backend: 'cpu' });
    const text = async (name) => (await fetch(`/store/${name}`)).text();
    const list = await session.parseReports(await text('reports.csv'));
    const table = await session.parseLabels(await text('labels.csv'));
    const sources = list.map((report, i) => ({ ...report, labels: table.rows[i].labels }));
    const built = await session.buildItems(sources, { options: 3, strategies, seed: 5, latents: await session.encodeReports(list) });
    const store = await session.openStore(await (await fetch('/store/four.safetensors')).blob());
    const settings = { rounds: 60, seed: 3 };
    const retrieval = await store.evaluate({ ...settings, labels: table.rows, hubness: 'centred' });
    const plain = await store.evaluate(settings);
    const labelled = [];
    for (const [i, { id }] of store.volumes.entries()) {
      const volume = await session.readVolume(await (await fetch(`/store/four/${id}.nii.gz`)).blob());
      const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
      const { rows } = await session.zeroShot(volume, { accept });
      labelled.push({ patient: id.slice(0, 7), scores: rows.map(({ score }) => score), labels: table.rows[i].labels });
      volume.close();
    }
    const zeroShot = await session.evaluateLabels(labelled, settings);
    const external = await session.evaluateLabels(labelled.map((row) => ({ ...row, labels: row.labels.slice(2) })), { ...settings, set: 'rad-chest-ct' });
    const plainOnes = [{ id: 'a', text: 'No nodule.' }, { id: 'b', impression: 'Emphysema.', text: 'not read' }];
    const words = (await session.buildItems(plainOnes, { options: 2 })).items.map(({ options }) => options.map(({ text, impression }) => text ?? impression).sort());
    const code = (promise) => promise.then(() => 'accepted', (error) => error.code);
    const refused = [
      await code(session.buildItems(sources, { strategies: ['nn_text'] })), await code(session.buildItems(sources.slice(0, 1))), await code(session.buildItems(sources, { strategies: ['other'] })),
      await code(session.evaluateLabels(labelled, { set: 'rad-chest-ct' })), await code(session.evaluateLabels([])), await code(session.parseLabels('a,b')),
      await code(store.evaluate({ labels: [] })), await code((await session.openStore()).evaluate()), await code(store.evaluate({ hubness: 'other' })),
    ];
    await session.close();
    return { built, words, retrieval, plain, zeroShot, names: [table.set, table.names], external: external.labels.map(({ label }) => label), refused };
  }, strategies);
  assert.equal(found.error, undefined, JSON.stringify(found.error));
  assert.deepEqual(found.built.items, items);
  assert.equal(items.length, built.items);
  assert.deepEqual(found.words, [['Emphysema.', 'No nodule.'], ['Emphysema.', 'No nodule.']]);
  assert.ok(items.some(({ options }) => options.some(({ kind }) => kind === 'nn_text')) && items.some(({ options }) => options.some(({ kind }) => kind === 'laterality')));
  assert.deepEqual(found.retrieval.summary, retrieval);
  assert.ok(retrieval.reportToVolumeGain.ndcg[1].value >= 0 && !('labelJaccard' in found.plain.summary));
  assert.deepEqual(found.retrieval.pairs.map(({ id }) => id), rows.map(([id]) => id));
  assert.deepEqual(found.names, ['ct-rate', LABELS]);
  assert.deepEqual(found.external.slice(0, 2), ['Medical material', 'Calcification']);
  assert.equal(found.external.length, 16);
  // The store's latents are rounded to f16: the areas of four volumes are the same.
  assert.deepEqual(found.zeroShot.labels.map(({ label, positives, auroc }) => [label, positives, auroc?.value]), zeroShot.labels.map(({ label, positives, auroc }) => [label, positives, auroc?.value]));
  assert.deepEqual([found.zeroShot.volumes, found.zeroShot.patients, found.zeroShot.macroAuroc.value], [4, 4, zeroShot.macroAuroc.value]);
  assert.deepEqual(found.refused, ['INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'TEXT_INPUT', 'TEXT_INPUT', 'STORE', 'INVALID_ARGUMENT']);
  await finish();
});
