// What `probe` says before anything is downloaded, against what `open` then does.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { attempt, host, newPage, SLOW_MS, startBrowser, startServer, www } from './harness.mjs';
import { POLICY_HEADERS } from './serve.mjs';

const tests = host();
const manifest = JSON.parse(await readFile(join(www, 'model/manifest.json'), 'utf8'));
const MODEL_BYTES = [manifest.files.tokenizer, ...manifest.variants.q8.shards, manifest.variants.q8.prompts].reduce((sum, { bytes }) => sum + bytes, 0);

const MODEL = { model: '/model/manifest.json' };
/** In the page: `arg.worker` may name a script. */
const probe = (page, options = {}) => attempt(page, ({ worker, ...rest }) =>
  window.ctmatch.probe({ ...rest, worker: worker && (() => new Worker(worker, { type: 'module' })) }), { ...MODEL, ...options });
const probeHere = (page, options = {}) => attempt(page, (o) => window.ctmatch.probe({ ...o, worker: false }), { ...MODEL, ...options });

test('a software adapter, the bytes of the model, and no request but for scripts and the manifest', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const before = tests.requests.length;
  const { webgpu, cpu, storage, advice } = await probe(page);
  assert.deepEqual(tests.requests.slice(before).filter((line) => !line.endsWith('.js')), ['GET /model/manifest.json']);
  assert.deepEqual([webgpu.usable, webgpu.reason, webgpu.scope, webgpu.adapter.fallback], [false, 'software-adapter', 'worker', true]);
  assert.match(`${webgpu.adapter.vendor} ${webgpu.adapter.architecture}`, /swiftshader/);
  assert.deepEqual(webgpu.features, { f16: false, subgroups: true, dp4a: true });
  assert.ok(webgpu.limits.maxStorageBufferBindingSize >= 2 ** 27);
  assert.deepEqual(cpu, { simd: true, threads: Math.min(availableParallelism(), 8), crossOriginIsolated: true });
  assert.equal(storage.opfs, true);
  assert.ok(storage.quotaBytes > storage.usageBytes);
  const { notes, ...bytes } = advice;
  assert.deepEqual(bytes, { backend: 'cpu', variant: 'q8', downloadBytes: MODEL_BYTES, gpuBytes: manifest.variants.q8.gpuBytes });
  assert.deepEqual(notes, ['the only adapter is software; allowSoftwareAdapter uses it; the CPU is much slower']);

  // What is said is what happens.
  const opened = await attempt(page, async () => {
    const refused = await window.ctmatch.open({ model: '/model/manifest.json' }).catch(({ code }) => code);
    const session = await window.ctmatch.open({ model: '/model/manifest.json', allowSoftwareAdapter: true });
    const { info } = session;
    await session.close();
    return { refused, backend: info.backend, variant: info.variant, gpuBytes: info.gpuBytes };
  });
  assert.deepEqual(opened, { refused: 'SOFTWARE_ADAPTER', backend: 'webgpu', variant: 'q8', gpuBytes: bytes.gpuBytes });
  const again = await probe(page, { allowSoftwareAdapter: true });
  assert.deepEqual([again.webgpu.usable, again.advice], [true, { backend: 'webgpu', variant: 'q8', downloadBytes: 0, gpuBytes: bytes.gpuBytes, notes: [] }]);
  assert.equal((await probe(page, { cache: 'none' })).advice.downloadBytes, MODEL_BYTES);
  assert.equal((await probeHere(page)).webgpu.scope, 'main');
  assert.deepEqual(Object.keys((await attempt(page, () => window.ctmatch.probe())).advice), ['backend', 'notes']);
  await finish();
});

test('what is off has its reason', async () => {
  const { page, finish } = await tests.newPackagePage({ expect: /404/ });
  const split = await probe(page, { worker: '/test/no-gpu-worker.js', allowSoftwareAdapter: true });
  assert.deepEqual([split.webgpu.usable, split.webgpu.scope], [true, 'main']);
  assert.match(split.advice.notes.join(), /own thread only: pass `worker: false`/);
  const blocked = await probe(page, { worker: '/nowhere.js' });
  assert.equal(blocked.webgpu.scope, 'main');
  assert.match(blocked.advice.notes.join(), /the worker did not start/);

  await attempt(page, () => {
    const { estimate } = StorageManager.prototype;
    StorageManager.prototype.estimate = async () => ({ quota: 1000, usage: 900 });
    window.restore = () => { StorageManager.prototype.estimate = estimate; };
  });
  assert.match((await probeHere(page)).advice.notes.join(), new RegExp(`${MODEL_BYTES} bytes to store, 100 bytes are free`));
  await attempt(page, () => {
    window.restore();
    delete StorageManager.prototype.getDirectory;
  });
  const bare = await probeHere(page);
  assert.equal(bare.storage.opfs, false);
  assert.match(bare.advice.notes.join(), /no private file system/);
  await attempt(page, () => { delete Navigator.prototype.gpu; });
  assert.equal((await probeHere(page)).webgpu.reason, 'no-navigator-gpu');
  assert.deepEqual(await attempt(page, () => window.ctmatch.open({ worker: false, model: '/model/manifest.json' }).catch(({ code, detail }) => [code, detail])),
    ['NO_WEBGPU', { reason: 'no-navigator-gpu' }]);
  await attempt(page, () => { Object.defineProperty(window, 'isSecureContext', { value: false }); });
  assert.equal((await probeHere(page)).webgpu.reason, 'insecure-context');

  const refused = (options) => attempt(page, (o) => window.ctmatch.probe(o).catch(({ code }) => code), options);
  assert.equal(await refused({ model: '/nowhere.json' }), 'NETWORK');
  assert.equal(await refused({ model: '/guard.js' }), 'MANIFEST');
  assert.equal(await refused({ ...MODEL, variant: 'f64' }), 'MANIFEST');
  assert.equal(await refused({ model: 'https://example.org/manifest.json' }), 'NETWORK_POLICY');
  assert.equal(await refused({ ...MODEL, network: 'offline' }), 'OFFLINE_MISS');
  assert.equal(await attempt(page, () => {
    const reason = new DOMException('enough', 'AbortError');
    return window.ctmatch.probe({ signal: AbortSignal.abort(reason) }).catch((error) => error === reason);
  }), true);
  await finish();
});

test('no adapter; a policy that blocks wasm', async () => {
  const server = await startServer({ headers: { ...POLICY_HEADERS, 'Content-Security-Policy': POLICY_HEADERS['Content-Security-Policy'].replace(" 'wasm-unsafe-eval'", '') } });
  const plain = await startBrowser({ gpu: false });
  try {
    const { page, finish } = await newPage(plain, { origin: server.origin, path: '/test/blank.html', expect: /WebGPU|GPU|Content Security Policy/ });
    await page.evaluate(async () => { window.ctmatch = await import('/ctmatch/index.js'); });
    const { webgpu, advice } = await probe(page);
    assert.deepEqual([webgpu.usable, webgpu.scope, webgpu.reason, advice.backend], [false, 'none', 'no-adapter', 'cpu']);
    assert.match(advice.notes.join(), /WebGPU finds no adapter.*script-src needs 'wasm-unsafe-eval'/);
    await finish();
  } finally {
    await plain.close();
    await server.close();
  }
});

test('an adapter that never comes is none, in time', async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    Object.defineProperty(Navigator.prototype, 'gpu', { value: { requestAdapter: () => new Promise(() => {}) } });
    // What waits long, waits less.
    const { setTimeout: wait } = window;
    window.setTimeout = (task, ms, ...rest) => wait(task, ms >= 10_000 ? 500 : ms, ...rest);
    const { webgpu } = await window.ctmatch.probe({ worker: false });
    const opened = await window.ctmatch.open({ worker: false, model: '/model/manifest.json' }).catch(({ code }) => code);
    return [webgpu.usable, webgpu.reason, opened];
  });
  assert.deepEqual(found, [false, 'no-adapter', 'NO_WEBGPU']);
  await finish();
});
