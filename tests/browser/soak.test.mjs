// Many encodes in one tab, volumes and texts changing: the same input gives the same bits, and no memory grows. The suite runs a short
// version; CTMATCH_SOAK=200 gives the number of encodes on the CPU, in one thread and once more in threads; a tenth of it, or
// CTMATCH_SOAK_GPU, runs on the GPU.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { attempt, brighter, host, pkg, SLOW_MS } from './harness.mjs';

const ENCODES = Number(process.env.CTMATCH_SOAK ?? 20);
const VOLUMES = 3;
const GPU_ENCODES = Number(process.env.CTMATCH_SOAK_GPU ?? Math.max(VOLUMES + 1, Math.round(ENCODES / 10)));
// The first ones fill caches and pools.
const WARM_UP = 2 * VOLUMES;
// Per heap, whatever the number of encodes. Measured: see tests/README.md.
const BOUND = { wasm: 0, js: 2 ** 20, gpu: 2 ** 20 };

const tests = host();

/** In the page, before anything: bytes of GPU buffers that were made and not destroyed. */
const countGpuBytes = () => {
  window.gpuBytes = 0;
  const { createBuffer } = GPUDevice.prototype;
  const { destroy } = GPUBuffer.prototype;
  GPUDevice.prototype.createBuffer = function counted(descriptor) {
    window.gpuBytes += descriptor.size;
    return createBuffer.call(this, descriptor);
  };
  GPUBuffer.prototype.destroy = function counted() {
    window.gpuBytes -= this.size;
    return destroy.call(this);
  };
};

/** What sends a command of the DevTools to a worker of the page's own. @param {import('playwright-core').Page} page @param {string} path of its script */
async function workerDebugger(page, path) {
  const browser = await page.context().browser().newBrowserCDPSession();
  const { targetInfos } = await browser.send('Target.getTargets', { filter: [{ type: 'worker' }] });
  // A thread's parent is the session's worker.
  const [{ targetId }] = targetInfos.filter(({ url, parentId, parentFrameId }) => new URL(url).pathname === path && parentId === parentFrameId);
  const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: false });
  const waiting = new Map();
  browser.on('Target.receivedMessageFromTarget', ({ message }) => {
    const { id, result } = JSON.parse(message);
    waiting.get(id)?.(result);
  });
  return (method) => new Promise((resolve) => {
    const id = waiting.size + 1;
    waiting.set(id, resolve);
    browser.send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id, method }) });
  });
}

/** Bytes of an isolate: objects, and what its array buffers hold, where Chromium tells. @param {(method: string) => Promise<any>} send */
async function heapBytes(send) {
  await send('HeapProfiler.collectGarbage');
  const { usedSize, backingStorageSize = 0 } = await send('Runtime.getHeapUsage');
  return usedSize + backingStorageSize;
}

/** In the page or the worker: bytes of the wasm module's memory. */
const wasmBytes = async (path) => (await (await import(path)).default()).memory.buffer.byteLength;

for (const [what, { backend, worker }, encodes] of [
  ['cpu', { backend: 'cpu', worker: false }, ENCODES], ['cpu in threads', { backend: 'cpu' }, ENCODES], ['webgpu', { backend: 'webgpu', worker: false }, GPU_ENCODES],
]) {
  test(`${encodes} encodes (${what})`, { timeout: SLOW_MS + encodes * 60_000 }, async () => {
    const { page, finish } = await tests.newPackagePage({ init: countGpuBytes });
    const debug = await page.context().newCDPSession(page);
    const volumes = await Promise.all(Array.from({ length: VOLUMES }, (_, i) => brighter(40 * i)));
    const threads = await attempt(page, async ({ volumes: given, ...chosen }) => {
      const session = await window.ctmatch.open({ ...chosen, allowSoftwareAdapter: true, model: '/model/manifest.json', cache: 'none' });
      const files = given.map((base64) => new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))]));
      window.once = async (i) => {
        const volume = await session.readVolume(files[i % files.length]);
        const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
        const image = await session.encodeVolume(volume, { accept });
        const reports = await session.encodeReports(['Clear lungs.', `A nodule of ${i % 50} mm.`]);
        await session.rank(image, reports);
        volume.close();
        return { vector: [...image.vector].join(), text: [...reports.vectors.subarray(0, image.vector.length)].join(), gpu: window.gpuBytes };
      };
      window.finish = () => session.close();
      return session.info.threads ?? 1;
    }, { volumes, backend, worker });
    assert.ok(worker === false ? threads === 1 : threads > 1, JSON.stringify(threads));
    const isolates = [(method) => debug.send(method)];
    const module = `/ctmatch/wasm/ctmatch${backend === 'cpu' ? '_cpu' : ''}.js`;
    let wasm = () => page.evaluate(wasmBytes, module);
    if (worker !== false) {
      isolates.push(await workerDebugger(page, '/ctmatch/worker.js'));
      // The first has started the others, and all have one memory.
      wasm = () => page.workers()[0].evaluate(wasmBytes, module);
    }
    const jsBytes = async () => (await Promise.all(isolates.map(heapBytes))).reduce((sum, bytes) => sum + bytes);

    const first = [];
    let warm;
    let last;
    const warmUp = Math.min(WARM_UP, VOLUMES * Math.floor((encodes - 1) / VOLUMES));
    for (let i = 0; i < encodes; i++) {
      const found = await attempt(page, (n) => window.once(n), i);
      assert.equal(found.error, undefined);
      const same = (first[i % VOLUMES] ??= found);
      assert.ok(found.vector === same.vector && found.text === first[0].text, `encode ${i} differs`);
      last = { wasm: await wasm(), js: await jsBytes(), gpu: found.gpu };
      if (i + 1 === warmUp) warm = last;
    }
    assert.equal(new Set(first.map(({ vector }) => vector)).size, VOLUMES, 'the volumes differ');
    const grown = Object.fromEntries(Object.keys(BOUND).map((heap) => [heap, last[heap] - warm[heap]]));
    console.log(`${encodes} encodes, ${what}`, { warm, grown });
    for (const [heap, bytes] of Object.entries(BOUND)) assert.ok(grown[heap] <= bytes, `${heap}: ${grown[heap]} bytes`);
    await attempt(page, () => window.finish());
    if (backend === 'webgpu') assert.ok(warm.gpu > 0 && (await page.evaluate(() => window.gpuBytes)) <= last.gpu);
    await finish();
  });
}

test('of a lent device, buffers that are gone are forgotten, and the others given back', async () => {
  const { WeakRef: Real } = globalThis;
  let looked = 0;
  globalThis.WeakRef = class extends Real {
    deref() {
      looked += 1;
      return super.deref();
    }
  };
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc');
  try {
    const { lentAdapter } = await import(join(pkg, 'device.js'));
    let destroyed = 0;
    const theirs = Object.assign(new EventTarget(), { limits: {}, features: new Set(), createBuffer: () => ({ bytes: new Array(100), destroy() { destroyed += 1; } }) });
    const device = await lentAdapter(theirs, { watched: () => ({}) }).requestDevice();
    const kept = Array.from({ length: 10 }, () => device.createBuffer({}));
    for (let i = 0; i < 20_000; i++) device.createBuffer({});
    for (let i = 0; i < 10; i++) {
      await new Promise((resolve) => { setTimeout(resolve, 10); });
      gc();
    }
    device.destroy();
    assert.equal(kept.length, 10);
    assert.ok(destroyed >= 10 && looked < 200, `${destroyed} destroyed, ${looked} remembered`);
  } finally {
    globalThis.WeakRef = Real;
  }
});
