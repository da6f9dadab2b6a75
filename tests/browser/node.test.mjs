// The package in Node: the CPU without a worker, files from the disk, latents in files. No browser.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { exportLatents, importLatents, open, probe } from '../../pkg/index.js';
import { cosine, EXPECTED, MIN_COSINE, sampleNifti, www } from './harness.mjs';

const MANIFEST = pathToFileURL(join(www, 'model/manifest.json'));
const code = (promise) => promise.then(() => 'no error', (error) => error.code ?? String(error));

let image;
let set;
let rows;
before(async () => {
  const session = await open({ worker: false, backend: 'cpu', model: MANIFEST });
  const volume = await session.readVolume(new Blob([await readFile(join(www, 'sample/chest.nii.gz'))]));
  image = await session.encodeVolume(volume);
  set = await session.encodeReports(await session.parseReports(await readFile(join(www, 'sample/reports.json'), 'utf8'), { format: 'json' }));
  ({ rows } = await session.rank(image, set));
  await session.close();
});

test('latents and order equal the native command', async () => {
  const expected = JSON.parse(await readFile(EXPECTED, 'utf8'));
  const dim = image.vector.length;
  assert.ok(cosine(image.vector, expected.image) >= MIN_COSINE);
  for (const [i, text] of expected.texts.entries()) assert.ok(cosine(set.vectors.subarray(i * dim, (i + 1) * dim), text) >= MIN_COSINE);
  assert.deepEqual(rows.map(({ index }) => index), expected.order);
});

test('how the best of a list stands beside unrelated pairs, where the model has such numbers for the view', async () => {
  const manifest = JSON.parse(await readFile(MANIFEST, 'utf8'));
  const { quantiles, ...measured } = manifest.variants.q8.background;
  const session = await open({ worker: false, backend: 'cpu', model: MANIFEST });
  const { background } = await session.rank(image, set);
  assert.deepEqual({ ...background, ...measured }, background);
  // The quantile at or below the best cosine, by hand: numbers of eight hexadecimal digits, little-endian.
  const values = new Float32Array(Uint8Array.from(quantiles.match(/../g), (byte) => Number.parseInt(byte, 16)).buffer);
  const share = values.filter((value) => value < rows[0].cosine).length / (values.length - 1);
  assert.ok(Math.abs(background.shareBelow - share) <= 1 / (values.length - 1), `${background.shareBelow} ${share}`);
  assert.ok(Math.abs(background.shareBelowByChance ** set.size - 0.5) < 1e-9);
  assert.equal((await session.rank(image, { ...set, view: 'findings' })).background, undefined);
  await session.close();
});

test('a metadata row: its spacing is used whatever is said of the values', async () => {
  const session = await open({ worker: false, backend: 'cpu' });
  const source = new Blob([await sampleNifti()]);
  const own = await session.readVolume(source);
  const sidecar = { rescaleSlope: 1, rescaleIntercept: -1024, xySpacing: [1, 1.25], zSpacing: 8 };
  const read = (options) => session.readVolume(source, { sidecar, ...options });
  const facts = ({ spacingMm, huRange, findings }) => ({ spacingMm, huRange, asked: findings.map(({ code: c }) => c).filter((c) => ['W_SPACING', 'W_HU_RAW'].includes(c)) });
  const spacingMm = [1, 1.25, 8];
  assert.deepEqual(facts(await read({})), { spacingMm, huRange: own.huRange, asked: ['W_SPACING', 'W_HU_RAW'] });
  assert.deepEqual(facts(await read({ scaling: 'already-hu' })), { spacingMm, huRange: own.huRange, asked: ['W_SPACING'] });
  assert.deepEqual(facts(await read({ scaling: { slope: 1, intercept: 10 } })), { spacingMm, huRange: own.huRange.map((hu) => hu + 10), asked: ['W_SPACING'] });
  assert.equal(await code(read({ sidecar: { ...sidecar, zSpacing: 0 } })), 'INVALID_ARGUMENT');
  // Slope and intercept of the header; a slope of 0 means none.
  assert.deepEqual(own.headerScaling, [1, 0]);
  const scaled = await sampleNifti();
  for (const [slope, expected] of [[2, [2, -5]], [0, undefined]]) {
    scaled.writeFloatLE(slope, 112);
    scaled.writeFloatLE(-5, 116);
    assert.deepEqual((await session.readVolume(new Blob([scaled]))).headerScaling, expected);
  }
  await session.close();
});

test('what is not there is said', async () => {
  const { webgpu, storage, advice } = await probe({ worker: false, model: MANIFEST });
  assert.deepEqual([webgpu.usable, webgpu.reason, storage.opfs, advice.backend], [false, 'no-navigator-gpu', false, 'cpu']);
  const manifest = JSON.parse(await readFile(MANIFEST, 'utf8'));
  const { files, variants: { q8 } } = manifest;
  assert.equal(advice.downloadBytes, [files.tokenizer, ...q8.shards, q8.prompts].reduce((sum, { bytes }) => sum + bytes, 0));
  assert.equal(advice.gpuBytes, q8.gpuBytes);
  const cpu = { worker: false, backend: 'cpu' };
  assert.deepEqual({
    worker: await code(open({ backend: 'cpu' })),
    gpu: await code(open({ worker: false, model: MANIFEST })),
    relative: await code(open({ ...cpu, model: 'manifest.json' })),
    missing: await code(open({ ...cpu, model: new URL('nowhere.json', MANIFEST) })),
    remote: await code(open({ ...cpu, model: 'https://example.org/manifest.json' })),
    base: await code(open({ ...cpu, model: manifest })),
  }, { worker: 'WORKER_BLOCKED', gpu: 'NO_WEBGPU', relative: 'INVALID_ARGUMENT', missing: 'NETWORK', remote: 'NETWORK_POLICY', base: 'INVALID_ARGUMENT' });
});

test('voxels of a program are a volume like any other', async () => {
  const session = await open({ worker: false, backend: 'cpu' });
  const file = await session.readVolume(new Blob([await readFile(join(www, 'sample/chest.nii.gz'))]));
  const { dims, spacingMm, orientation } = file;
  assert.equal(orientation, 'LPS');
  const nifti = await sampleNifti();
  const data = new Int16Array(nifti.buffer.slice(nifti.byteOffset + 352));
  const [width, height, depth] = dims;
  // The same voxels with other axes first, the second one backwards.
  const turned = new Int16Array(data.length);
  for (let [z, at] = [0, 0]; z < depth; z++) for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) turned[z + depth * (height - 1 - y + height * x)] = data[at++];
  for (const source of [
    { data, dims, spacingMm, orientation }, { data: turned, dims: dims.toReversed(), spacingMm: spacingMm.toReversed(), orientation: 'SAL' },
  ]) {
    const volume = await session.readVolume(source);
    assert.deepEqual([volume.dims, volume.orientation, volume.orientationKnown, volume.identifiers], [dims, source.orientation, true, []]);
    for (const [plane, index] of [['axial', 7], ['coronal', 50], ['sagittal', 90]]) {
      const [found, wanted] = [await volume.slice(plane, index), await file.slice(plane, index)];
      assert.deepEqual([found.hu, found.spacingMm], [wanted.hu, wanted.spacingMm], plane);
    }
  }
  const source = { data, dims, spacingMm, orientation };
  for (const wrong of [{ orientation: 'LPL' }, { orientation: 'XYZ' }, { orientation: 7 }, { dims: [1, 2, 3] }, { dims: undefined }, { spacingMm: [1, 0, 1] }, { data: [...data.subarray(0, 9)] }]) {
    assert.equal(await code(session.readVolume({ ...source, ...wrong })), 'INVALID_ARGUMENT', JSON.stringify(Object.keys(wrong)));
  }
  for (const wrong of [7, undefined, null, {}, { header: 1, image: 2 }, { header: new Blob([]) }]) assert.equal(await code(session.readVolume(wrong)), 'INVALID_ARGUMENT');
  await session.close();
});

test('latents go into a safetensors file and come back', async () => {
  for (const [latents, tensors] of [
    [image, { image_latents: ['F32', [1, image.vector.length]], vq_indices: ['I32', [1, image.codes.length]] }],
    [{ ...image, classLogits: Float32Array.of(1, -2) }, { image_latents: ['F32', [1, image.vector.length]], vq_indices: ['I32', [1, image.codes.length]], class_logits: ['F32', [1, 2]] }],
    [set, { text_latents: ['F32', [set.size, image.vector.length]] }],
  ]) {
    const file = exportLatents(latents);
    assert.deepEqual(await importLatents(file), latents);
    const bytes = Buffer.from(await file.arrayBuffer());
    const start = 8 + Number(bytes.readBigUInt64LE(0));
    assert.equal(start % 8, 0);
    assert.ok(!bytes.includes('nodule'), 'text of a report');
    const { __metadata__: metadata, ...entries } = JSON.parse(bytes.subarray(8, start).toString());
    assert.equal(metadata.embeddingSpace, set.embeddingSpace);
    assert.deepEqual(Object.fromEntries(Object.entries(entries).map(([name, { dtype, shape }]) => [name, [dtype, shape]])), tensors);
    const [[, first]] = Object.entries(entries);
    assert.equal(bytes.readFloatLE(start + first.data_offsets[0]), (latents.vector ?? latents.vectors)[0]);
    assert.equal(start + Math.max(...Object.values(entries).map(({ data_offsets: [, end] }) => end)), bytes.length);
  }
});

test('a file of latents that is damaged or of another kind is refused', async () => {
  const bytes = Buffer.from(await exportLatents(set).arrayBuffer());
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  /** The header's text changed to another of the same length. */
  const changed = (from, to) => {
    const text = bytes.subarray(8, start).toString();
    assert.ok(text.includes(from) && from.length === to.length);
    return Buffer.concat([bytes.subarray(0, 8), Buffer.from(text.replace(from, to)), bytes.subarray(start)]);
  };
  for (const [name, content] of Object.entries({
    empty: Buffer.alloc(0), json: Buffer.from('{"vectors": [1, 2, 3, 4, 5, 6, 7, 8]}'), weights: await readFile(join(www, 'model/weights-q8-00001-of-00001.safetensors')),
    cut: bytes.subarray(0, -4), header: bytes.subarray(0, 20), another: changed('ctmatch-latents-1', 'ctmatch-latents-9'),
    dtype: changed('"F32"', '"F16"'), rows: changed('[4,', '[3,'), name: changed('text_latents', 'tixt_latents'),
  })) assert.equal(await code(importLatents(new Blob([content]))), 'INVALID_ARGUMENT', name);
});

test('latents of another model are not ranked', async () => {
  const session = await open({ worker: false, backend: 'cpu', model: MANIFEST });
  const copy = (latents) => importLatents(exportLatents(latents));
  const foreign = await copy({ ...set, embeddingSpace: 'another' });
  assert.equal(await code(session.rank(image, foreign)), 'INVALID_ARGUMENT');
  const stranger = await copy({ ...image, provenance: { ...image.provenance, embeddingSpace: 'another' } });
  assert.equal(await code(session.rank(stranger, set)), 'INVALID_ARGUMENT');
  assert.deepEqual((await session.rank(await copy(image), await copy(set))).rows, rows);
  await session.close();
});
