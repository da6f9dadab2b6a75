// The published shape in the browser: 288 million parameters, 480 x 480 x 240 voxels. SwiftShader is far too slow for the arithmetic, so
// the GPU here gets every buffer, binding and pipeline of an encode and none of its dispatches: what is counted is exact, and
// Chromium validates it all. The arithmetic itself is proven by the parity tests, and here on a corner of the token grid.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { BUDGETS } from './budgets.mjs';
import { attempt, gzipSync, host, repository, SLOW_MS } from './harness.mjs';

const MIB = 2 ** 20;
const ctmatch = process.env.CTMATCH;

const folder = mkdtempSync(join(tmpdir(), 'ctmatch-full-'));
after(() => rmSync(folder, { recursive: true, force: true }));
before(() => {
  assert.ok(ctmatch, 'CTMATCH must name the native command');
  const run = (...args) => execFileSync(ctmatch, [...args, '--quiet'], { stdio: ['ignore', 'ignore', 'inherit'] });
  const checkpoint = join(folder, 'checkpoint.safetensors');
  run('hash-checkpoint', '--out', checkpoint);
  run('convert', checkpoint, '--tokenizer', join(repository, 'tests/fixtures/tokenizer/vocab.txt'), '--out', folder, '--license', 'CC0-1.0', '--untrained');
  rmSync(checkpoint);
  writeFileSync(join(folder, 'scan.nii.gz'), scan([512, 512, 600]));
});
const tests = host({ mounts: { '/full': folder } });

/** A NIfTI-1 volume of soft tissue in air, 0.7 x 0.7 x 0.5 mm. @param {[number, number, number]} dims */
function scan([width, height, depth]) {
  const header = Buffer.alloc(352);
  header.writeInt32LE(348, 0);
  [3, width, height, depth, 1, 1, 1, 1].forEach((n, i) => header.writeInt16LE(n, 40 + 2 * i));
  header.writeInt16LE(4, 70); // int16
  header.writeInt16LE(16, 72);
  [1, 0.7, 0.7, 0.5].forEach((n, i) => header.writeFloatLE(n, 76 + 4 * i));
  header.writeFloatLE(352, 108);
  header.writeFloatLE(1, 112); // slope
  header.writeUInt8(2, 123); // mm
  header.writeInt16LE(1, 254); // sform: scanner coordinates, left-posterior-superior
  [[-0.7, 0, 0, 180], [0, -0.7, 0, 180], [0, 0, 0.5, -150]].forEach((row, r) => row.forEach((n, c) => header.writeFloatLE(n, 280 + 16 * r + 4 * c)));
  header.write('n+1\0', 344, 'latin1');
  const slice = new Int16Array(width * height).map((_, i) => (Math.hypot((i % width) - width / 2, Math.floor(i / width) - height / 2) < width * 0.4 ? 40 : -1000));
  const bytes = Buffer.from(slice.buffer);
  return gzipSync(Buffer.concat([header, ...Array(depth).fill(bytes)]), { level: 1 });
}

/** In the page, before anything: counts what goes to the GPU; `dry` keeps the dispatches from it. */
const watch = () => {
  const gpu = { dry: false, dispatches: 0, submissions: 0, pipelines: 0, written: 0, largestBuffer: 0, largestBinding: 0, bytes: 0, peak: 0 };
  window.gpuTest = gpu;
  const wrap = (prototype, name, make) => { prototype[name] = make(prototype[name]); };
  wrap(GPUDevice.prototype, 'createBuffer', (original) => function (descriptor) {
    gpu.largestBuffer = Math.max(gpu.largestBuffer, descriptor.size);
    gpu.bytes += descriptor.size;
    gpu.peak = Math.max(gpu.peak, gpu.bytes);
    return original.call(this, descriptor);
  });
  wrap(GPUBuffer.prototype, 'destroy', (original) => function () {
    gpu.bytes -= this.size;
    return original.call(this);
  });
  wrap(GPUDevice.prototype, 'createBindGroup', (original) => function (descriptor) {
    for (const { resource } of descriptor.entries) {
      if (resource.buffer) gpu.largestBinding = Math.max(gpu.largestBinding, resource.size ?? resource.buffer.size - (resource.offset ?? 0));
    }
    return original.call(this, descriptor);
  });
  for (const name of ['createComputePipeline', 'createComputePipelineAsync']) {
    wrap(GPUDevice.prototype, name, (original) => function (...args) {
      gpu.pipelines += 1;
      return original.apply(this, args);
    });
  }
  wrap(GPUQueue.prototype, 'writeBuffer', (original) => function (buffer, at, data, from, size) {
    gpu.written += size ?? data.byteLength;
    return original.call(this, buffer, at, data, from, size);
  });
  wrap(GPUQueue.prototype, 'submit', (original) => function (...args) {
    gpu.submissions += 1;
    return original.apply(this, args);
  });
  for (const name of ['dispatchWorkgroups', 'dispatchWorkgroupsIndirect']) {
    wrap(GPUComputePassEncoder.prototype, name, (original) => function (...args) {
      gpu.dispatches += 1;
      if (!gpu.dry) original.apply(this, args);
    });
  }
};

test('the full-size model loads, gives its known answers, and fits', { timeout: 5 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: watch });
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const glue = await import('/ctmatch/wasm/ctmatch.js');
    const heap = async () => (await glue.default()).memory.buffer.byteLength;
    const gpu = window.gpuTest;
    // The budget of dispatches is of a fast device, where no submission takes too long.
    const options = { worker: false, allowSoftwareAdapter: true, cache: 'none', maxSubmitMs: Infinity };
    const session = await open(options);
    const start = await heap();
    let from = performance.now();
    await session.loadModel('/full/manifest.json');
    const loaded = { ms: Math.round(performance.now() - from), heap: await heap() - start, gpuBytes: gpu.bytes, pipelines: gpu.pipelines, written: gpu.written, selfTest: session.info.selfTest };

    const volume = await session.readVolume(await (await fetch('/full/scan.nii.gz')).blob());
    const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
    Object.assign(gpu, { dry: true, dispatches: 0, submissions: 0, pipelines: 0, written: 0 });
    from = performance.now();
    const outcome = await session.encodeVolume(volume, { accept }).then(() => 'a latent', ({ code }) => code);
    const encoded = { ms: Math.round(performance.now() - from), outcome, heap: await heap() };
    await session.close();
    return { loaded, encoded, gpu };
  });
  console.log('full size', JSON.stringify(found));
  assert.equal(found.error, undefined);
  const { loaded, encoded, gpu } = found;
  assert.deepEqual(loaded.selfTest.codes, [108, 108]);
  assert.ok(Math.max(loaded.selfTest.tokens, loaded.selfTest.image, loaded.selfTest.text) < 1e-4);
  assert.ok(loaded.heap <= BUDGETS.wasmHeapLoading);
  // Nothing was computed, and what nothing wrote is no latent.
  assert.equal(encoded.outcome, 'BAD_RESULT');
  assert.ok(gpu.largestBuffer <= 256 * MIB && gpu.largestBinding <= 128 * MIB);
  assert.ok(gpu.peak <= BUDGETS.gpuBytesFullSize);
  assert.ok(gpu.dispatches > 0 && gpu.dispatches <= BUDGETS.dispatchesFullSize);
  assert.ok(loaded.pipelines + gpu.pipelines <= BUDGETS.pipelinesFullSize);
  assert.ok(gpu.written <= BUDGETS.writtenFullSize);
  assert.ok(encoded.heap <= BUDGETS.wasmHeapFullSize);
  await finish();
});
