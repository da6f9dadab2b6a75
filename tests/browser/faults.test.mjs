// What else may break: memory, workers, single GPU calls. Each ends in its code, soon, keeps what the user has, and the next try works.
// Broken downloads, disks and caches: weights.test.mjs. Lost devices and bad shaders: gpu.test.mjs.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { attempt, gzipSync, host, pkg, sampleNifti, SLOW_MS } from './harness.mjs';

const WASM = '/ctmatch/wasm/ctmatch_bg.wasm';
const PAGE_BYTES = 65536;

/** @param {Buffer} bytes @param {number} at @returns {[value: number, next: number]} */
function leb(bytes, at) {
  for (let value = 0, shift = 0; ; shift += 7) {
    const byte = bytes[at++];
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) return [value, at];
  }
}
const asLeb = (value) => (value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...asLeb(value >>> 7)]);

/** The module with a heap that cannot grow beyond its start by more than `bytes`, as on a device with little memory. */
function withHeap(bytes) {
  const wasm = readFileSync(join(pkg, WASM.replace('/ctmatch/', '')));
  for (let at = 8; ;) {
    const [size, body] = leb(wasm, at + 1);
    if (wasm[at] === 5) { // the memory section: count, flags, least pages
      const [least] = leb(wasm, body + 2);
      const section = [1, 1, ...asLeb(least), ...asLeb(least + Math.ceil(bytes / PAGE_BYTES))];
      return Buffer.concat([wasm.subarray(0, at), Buffer.from([5, ...asLeb(section.length), ...section]), wasm.subarray(body + size)]);
    }
    at = body + size;
  }
}

/** What the server gives for the wasm module, if not the file. */
let module;
const tests = host({
  gpu: false,
  intercept: (request, response) => module !== undefined && request.url === WASM && response.writeHead(200, { 'Content-Type': 'application/wasm' }).end(module),
});

/** The sample's header with other dimensions, and air. */
async function air(dims) {
  const header = Buffer.from((await sampleNifti()).subarray(0, 352));
  dims.forEach((n, i) => header.writeInt16LE(n, 42 + 2 * i));
  return gzipSync(Buffer.concat([header, Buffer.alloc(2 * dims.reduce((a, b) => a * b))]), { level: 1 }).toString('base64');
}

for (const worker of [undefined, false]) {
  const where = worker === false ? 'calling thread' : 'worker';
  test(`a volume that the heap cannot hold (${where})`, { timeout: SLOW_MS }, async () => {
    module = withHeap(48e6);
    const { page, finish } = await tests.newPackagePage({ expect: /unreachable|memory/ });
    const found = await attempt(page, async ({ large, worker }) => {
      const code = (promise) => promise.then(() => 'no error', (error) => [error.code, error.retryable]);
      const session = await window.ctmatch.open({ worker, threads: 1, backend: 'cpu', model: '/model/manifest.json', cache: 'none' });
      const sample = await (await fetch('/sample/chest.nii.gz')).blob();
      const volume = await session.readVolume(sample);
      const from = performance.now();
      const refused = await code(session.readVolume(new Blob([Uint8Array.from(atob(large), (c) => c.charCodeAt(0))])));
      const ms = performance.now() - from;
      const result = { refused, soon: ms < 10_000, slice: (await volume.slice('axial', 0)).width, again: (await session.readVolume(sample)).dims, reports: (await session.encodeReports(['one'])).size };
      await session.close();
      return result;
    }, { large: await air([512, 512, 300]), worker });
    assert.deepEqual(found, { refused: ['E_BIG', false], soon: true, slice: 208, again: [208, 160, 30], reports: 1 });
    await finish();
  });

  test(`a model that the heap cannot hold (${where})`, { timeout: SLOW_MS }, async () => {
    module = withHeap(1e6);
    const { page, finish } = await tests.newPackagePage({ expect: /unreachable|memory/ });
    const found = await attempt(page, async (worker) => {
      const code = (promise) => promise.then(() => 'no error', (error) => [error.code, error.retryable]);
      const session = await window.ctmatch.open({ worker, threads: 1, backend: 'cpu', cache: 'none' });
      return { load: await code(session.loadModel('/model/manifest.json')), lost: (await session.lost).reason };
    }, worker);
    assert.deepEqual(found, { load: ['WASM_ABORT', true], lost: 'wasm-abort' });
    // The page goes on in another worker.
    module = undefined;
    assert.equal(await attempt(page, async () => {
      const session = await window.ctmatch.open({ backend: 'cpu', model: '/model/manifest.json', cache: 'none' });
      return (await session.encodeReports(['one'])).size;
    }), 1);
    await finish();
  });
}

test('a worker that is killed', { timeout: SLOW_MS }, async () => {
  module = undefined;
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const code = (promise) => promise.then(() => 'no error', (error) => [error.code, error.retryable]);
    let last;
    const worker = () => (last = new Worker('/ctmatch/worker.js', { type: 'module' }));
    const options = { worker, backend: 'cpu', model: '/model/manifest.json' };
    const session = await open(options);
    const sample = await (await fetch('/sample/chest.nii.gz')).blob();
    const volume = await session.readVolume(sample);
    let from;
    const pending = await code(session.encodeVolume(volume, { onProgress: () => {
      if (from) return;
      from = performance.now();
      last.terminate();
    } }));
    const result = { pending, soon: performance.now() - from < 2000, lost: (await session.lost).reason, later: await code(session.encodeReports(['one'])) };
    const next = await open(options);
    result.next = (await next.encodeVolume(await next.readVolume(sample))).vector.length > 0;
    await next.close();
    result.locks = (await navigator.locks.query()).pending.length;
    return result;
  });
  assert.deepEqual(found, { pending: ['WASM_ABORT', true], soon: true, lost: 'wasm-abort', later: ['WASM_ABORT', true], next: true, locks: 0 });
  await finish();
});
