// Views, stores and evaluation in the browser: the numbers of the native command, from both threads, and every refusal.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
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
    const refused = await session.evaluate([{ id: '1', patient: 'a', truth: 5, scores: [1, 2] }]).catch((error) => error.code);
    return { result, refused };
  });
  assert.equal(found.error, undefined, JSON.stringify(found.error));
  const { summary, outcomes } = found.result;
  assert.deepEqual([summary.items, summary.patients, summary.top1.value, summary.mrr.value, summary.meanRank.value], [2, 2, 0.5, 0.75, 1.5]);
  assert.ok(Math.abs(summary.margin.value - 0.3) < 1e-12); // (0.7 - 0.1) / 2
  assert.deepEqual(summary.byKind.map(({ kind, accuracy }) => [kind, accuracy.value]), [['lobe', 1], ['random', 0.5]]);
  assert.deepEqual(outcomes.map(({ id, chosen, rank, correct }) => [id, chosen, rank, correct]), [['1', 0, 1, true], ['2', 0, 2, false]]);
  assert.equal(found.refused, 'INVALID_ARGUMENT');
  await finish();
});
