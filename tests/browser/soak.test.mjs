// Many encodes in one tab, volumes and texts changing: the same input gives the same bits, and no memory grows. The suite runs a short
// version; CTMATCH_SOAK=200 gives the number of encodes on the CPU, a tenth of it runs on the GPU.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { attempt, gzipSync, host, pkg, sampleNifti, SLOW_MS } from './harness.mjs';

const ENCODES = Number(process.env.CTMATCH_SOAK ?? 20);
const VOLUMES = 3;
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

/** The sample, brighter by `hu` in the body. */
async function brighter(hu) {
  const nifti = await sampleNifti();
  for (let at = 352; at < nifti.length; at += 2) if (nifti.readInt16LE(at) > -500) nifti.writeInt16LE(nifti.readInt16LE(at) + hu, at);
  return gzipSync(nifti, { level: 1 }).toString('base64');
}

for (const [backend, encodes] of [['cpu', ENCODES], ['webgpu', Math.max(VOLUMES + 1, Math.round(ENCODES / 10))]]) {
  test(`${encodes} encodes (${backend})`, { timeout: SLOW_MS + encodes * 60_000 }, async () => {
    const { page, finish } = await tests.newPackagePage({ init: countGpuBytes });
    const debug = await page.context().newCDPSession(page);
    const jsBytes = async () => {
      await debug.send('HeapProfiler.collectGarbage');
      return (await debug.send('Runtime.getHeapUsage')).usedSize;
    };
    const volumes = await Promise.all(Array.from({ length: VOLUMES }, (_, i) => brighter(40 * i)));
    assert.equal(await attempt(page, async ({ volumes: given, backend: chosen }) => {
      const session = await window.ctmatch.open({ worker: false, backend: chosen, allowSoftwareAdapter: true, model: '/model/manifest.json', cache: 'none' });
      const { memory } = await (await import('/ctmatch/wasm/ctmatch.js')).default();
      const files = given.map((base64) => new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))]));
      window.once = async (i) => {
        const volume = await session.readVolume(files[i % files.length]);
        const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
        const image = await session.encodeVolume(volume, { accept });
        const reports = await session.encodeReports(['Clear lungs.', `A nodule of ${i % 50} mm.`]);
        await session.rank(image, reports);
        volume.close();
        return { vector: [...image.vector].join(), text: [...reports.vectors.subarray(0, image.vector.length)].join(), wasm: memory.buffer.byteLength, gpu: window.gpuBytes };
      };
      window.finish = () => session.close();
    }, { volumes, backend }), undefined);

    const first = [];
    let warm;
    let last;
    const warmUp = Math.min(WARM_UP, VOLUMES * Math.floor((encodes - 1) / VOLUMES));
    for (let i = 0; i < encodes; i++) {
      const found = await attempt(page, (n) => window.once(n), i);
      assert.equal(found.error, undefined);
      const same = (first[i % VOLUMES] ??= found);
      assert.ok(found.vector === same.vector && found.text === first[0].text, `encode ${i} differs`);
      last = { wasm: found.wasm, js: await jsBytes(), gpu: found.gpu };
      if (i + 1 === warmUp) warm = last;
    }
    assert.equal(new Set(first.map(({ vector }) => vector)).size, VOLUMES, 'the volumes differ');
    const grown = Object.fromEntries(Object.keys(BOUND).map((heap) => [heap, last[heap] - warm[heap]]));
    console.log(`${encodes} encodes, ${backend}`, { warm, grown });
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
