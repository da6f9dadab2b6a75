// Explanations through the package: the numbers of the native command, maps as files, occlusion, abort and refusals.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { open } from '../../pkg/index.js';
import { attempt, EXPECTED, gunzipSync, host, sampleNifti, SLOW_MS, www } from './harness.mjs';

const tests = host();
const LABEL = 'Lung nodule';
const near = (found, expected, most, what) => assert.ok(Math.abs(found - expected) <= most, `${what}: ${found}, expected ${expected}`);

/** What is the same on every device. */
function compare(found, expected, tolerance) {
  for (const name of ['score', 'sum']) near(found[name], expected[name], tolerance, name);
  assert.ok(found.selfCheck <= 1e-4);
  assert.deepEqual([found.variant, found.unit, found.grid, found.top.length], [expected.variant, expected.unit, expected.grid, expected.top.length]);
  for (const [i, slab] of expected.slabs.entries()) {
    near(found.slabs[i].value, slab.value, tolerance, `slab ${i}`);
    assert.deepEqual(found.slabs[i].slices, slab.slices);
  }
  const { value, share, leftOut, ...place } = found.top[0];
  const { value: v, share: s, leftOut: l, occluded, ...expectedPlace } = expected.top[0];
  for (const [a, b] of [[value, v], [share, s], [leftOut, l]]) near(a, b, tolerance, 'first cube');
  assert.deepEqual(place, expectedPlace);
}

test('in Node: maps, places and falls equal the native command; the file is on the grid of the volume', { timeout: SLOW_MS }, async () => {
  const { explain: expected } = JSON.parse(await readFile(EXPECTED, 'utf8'));
  const session = await open({ worker: false, backend: 'cpu', model: pathToFileURL(join(www, 'model/manifest.json')) });
  const volume = await session.readVolume(new Blob([await readFile(join(www, 'sample/chest.nii.gz'))]));
  const reports = await session.parseReports(await readFile(join(www, 'sample/reports.json'), 'utf8'), { format: 'json' });
  const set = await session.encodeReports(reports);

  const map = await session.explain(volume, { label: LABEL, variant: 'baseline' });
  compare(map, expected.label, 1e-4);
  assert.deepEqual(map.asked, { question: LABEL, finding: LABEL, label: LABEL });
  const { score, rows } = await session.occlude(volume, map.top.slice(0, 2).map(({ index }) => index), { label: LABEL });
  near(score, expected.label.score, 1e-4, 'score');
  for (const [i, row] of rows.entries()) near(row.fall, expected.label.top[i].occluded, 1e-3, `fall ${i}`);

  // From what was kept of an encode, a text as words or as its latent.
  const image = await session.encodeVolume(volume);
  const best = (await session.rank(image, set)).rows[0];
  const vector = set.vectors.slice(best.index * image.vector.length, (best.index + 1) * image.vector.length);
  const byVector = await session.explain(image, { text: vector, variant: 'leave-one-out', volume });
  compare(byVector, expected.report, 1e-5);
  near(byVector.score, best.cosine, 1e-9, 'the cosine of the ranking');
  const byText = await session.explain(image, { text: reports[best.index].text, variant: 'leave-one-out', region: [5, 7], sentences: true });
  assert.deepEqual([byText.values, byText.top[0].voxels, byText.region.cubes], [byVector.values, undefined, 2]);
  assert.ok(byText.sentences[0].length > 1 && byText.sentences[0].every(({ text, leftOut }) => reports[best.index].text.includes(text) && Number.isFinite(leftOut)));
  near(byVector.plane.reduce((sum, value) => sum + value, 0), byVector.sum, 1e-4, 'plane');

  const source = await sampleNifti();
  const file = gunzipSync(Buffer.from(await (await volume.exportMap(byVector)).arrayBuffer()));
  const header = (bytes) => [42, 44, 46].map((at) => bytes.readInt16LE(at));
  assert.deepEqual(header(file), header(source));
  for (let at = 280; at < 328; at += 4) near(file.readFloatLE(at), source.readFloatLE(at), 1e-5, 'affine');
  const [ni, nj] = header(file);
  const seen = byVector.top.filter(({ voxels }) => voxels);
  assert.ok(seen.length > 0);
  for (const cube of seen) {
    for (const end of [0, 1]) {
      const [i, j, k] = cube.voxels.map((range) => range[end]);
      near(file.readFloatLE(352 + 4 * ((k * nj + j) * ni + i)), cube.value, 1e-6, `voxel ${i},${j},${k}`);
    }
  }
  const tokens = gunzipSync(Buffer.from(await (await volume.exportMap(byVector, { grid: 'token' })).arrayBuffer()));
  assert.deepEqual(header(tokens), [map.grid[1], map.grid[2], map.grid[0]]);
  const commented = gunzipSync(Buffer.from(await (await volume.exportMap(byVector, { grid: 'token', comment: '{"made": "so"}' })).arrayBuffer()));
  assert.deepEqual([commented.readFloatLE(108), commented.toString('utf8', 360, 376)], [384, '{"made": "so"}\0\0']);
  assert.ok(commented.subarray(384).equals(tokens.subarray(352)));
  await session.close();
});

const inPage = async (options) => {
  const { open } = window.ctmatch;
  const session = await open({ model: '/model/manifest.json', allowSoftwareAdapter: true, ...options });
  const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
  const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
  const image = await session.encodeVolume(volume, { accept });
  const map = await session.explain(image, { label: 'Lung nodule', volume });
  const other = await session.explain(image, { text: 'There is a nodule.', against: 'No effusion.', variant: 'tangent' });
  const blob = await volume.exportMap(map);
  return { map: { ...map, values: [...map.values], plane: [] }, backend: map.provenance.backend, tangent: other.sum, selfCheck: other.selfCheck, bytes: blob.size, type: blob.type };
};

test('in a worker on WebGPU and in the thread on the CPU', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const worker = await attempt(page, inPage);
  assert.equal(worker.error, undefined, JSON.stringify(worker.error));
  const thread = await attempt(page, inPage, { worker: false, backend: 'cpu' });
  assert.equal(thread.error, undefined, JSON.stringify(thread.error));
  assert.deepEqual([worker.backend, thread.backend], ['webgpu', 'cpu']);
  compare(worker.map, { ...thread.map, top: thread.map.top }, 1e-4);
  near(worker.map.values.reduce((sum, value) => sum + value, 0), worker.map.score, 1e-4, 'sum');
  for (const { tangent, selfCheck, bytes, type } of [worker, thread]) {
    near(tangent, 0, 1e-4, 'tangent');
    assert.ok(selfCheck <= 1e-4 && bytes > 352 && type === 'application/gzip');
  }
  await finish();
});

test('an abort between two encodes; refusals', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const session = await open({ backend: 'cpu', model: '/model/manifest.json' });
    const file = await (await fetch('/sample/chest.nii.gz')).blob();
    const volume = await session.readVolume(file);
    const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
    const image = await session.encodeVolume(volume, { accept });
    const label = 'Lung nodule';
    const code = (promise) => promise.then(() => 'no error', (error) => (error.name === 'AbortError' ? error.name : error.code));

    const controller = new AbortController();
    const seen = [];
    const onProgress = (progress) => {
      if (progress.phase !== 'occlude') return;
      seen.push([progress.done, progress.total]);
      if (progress.done === 1) controller.abort(new DOMException('enough', 'AbortError'));
    };
    const aborted = await code(session.occlude(volume, [0, 1, 2, 3], { label, image, accept, signal: controller.signal, onProgress }));

    const nifti = new Uint8Array(await new Response(file.stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer());
    nifti[nifti.length - 1] ^= 1;
    const other = await session.readVolume(new Blob([nifti]));
    return {
      aborted, first: seen[0], last: seen.at(-1)[0],
      nothing: await code(session.explain(image, {})),
      both: await code(session.explain(image, { label, text: 'a' })),
      alone: await code(session.explain(image, { against: 'a' })),
      variant: await code(session.explain(image, { label, variant: 'gradient' })),
      cube: await code(session.explain(image, { label, region: [1e6] })),
      question: await code(session.explain(image, { label: '有肺结节吗？' })),
      latent: await code(session.explain(image, { text: Float32Array.of(1, 0) })),
      codes: await code(session.explain({ ...image, codes: image.codes.slice().reverse() }, { label })),
      few: await code(session.explain({ ...image, codes: image.codes.slice(1) }, { label })),
      space: await code(session.explain({ ...image, provenance: { ...image.provenance, embeddingSpace: 'another' } }, { label })),
      other: await code(session.explain(image, { label, volume: other })),
      occlude: await code(session.occlude(other, [0], { label, image, accept })),
      twice: await code(session.occlude(volume, [3, 3], { label, image, accept })),
      values: await code(volume.exportMap({ values: new Float32Array(3) })),
      after: await code(session.explain(image, { label })),
    };
  });
  assert.deepEqual(found, {
    aborted: 'AbortError', first: [0, 4], last: 1, nothing: 'INVALID_ARGUMENT', both: 'INVALID_ARGUMENT', alone: 'INVALID_ARGUMENT',
    variant: 'INVALID_ARGUMENT', cube: 'INVALID_ARGUMENT', question: 'TEXT_INPUT', latent: 'INVALID_ARGUMENT', codes: 'INVALID_ARGUMENT',
    few: 'INVALID_ARGUMENT', space: 'INVALID_ARGUMENT', other: 'INVALID_ARGUMENT', occlude: 'INVALID_ARGUMENT', twice: 'INVALID_ARGUMENT',
    values: 'INVALID_ARGUMENT', after: 'no error',
  });
  await finish();
});
