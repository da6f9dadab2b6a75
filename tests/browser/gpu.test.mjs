// A GPU that fails must fail loudly. Most sessions here run in the page's own thread, where the GPU can be tampered with.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { BUDGETS } from './budgets.mjs';
import { attempt, cosine, EXPECTED, host, MIN_COSINE, SLOW_MS } from './harness.mjs';

const tests = host();

// Whatever fails on the GPU, fails before this, with shaders to compile and on a machine that does other work.
const SOON_MS = 60_000;

/**
 * In the page, before anything: counts what goes to the GPU, keeps the devices and which of them got shaders, and can spoil shaders, leave out
 * dispatches, refuse devices, give none or lost ones, lower limits, and make one buffer that there is no memory for.
 */
const tamper = () => {
  const gpu = {
    dispatches: 0, submissions: 0, spoil: 0, spoiled: 0, skipEvery: 0, refuse: false, never: false, lost: false, limits: {}, noBuffer: 0,
    devices: [], shaders: new Set(),
  };
  window.gpuTest = gpu;
  const wrap = (prototype, name, make) => { prototype[name] = make(prototype[name]); };
  wrap(GPUAdapter.prototype, 'requestDevice', (original) => async function (...args) {
    if (gpu.refuse) throw new DOMException('refused', 'OperationError');
    if (gpu.never) return new Promise(() => {});
    const device = await original.apply(this, args);
    gpu.devices.push(device);
    if (gpu.lost) {
      device.destroy();
      await device.lost;
    }
    return device;
  });
  // What waits long for a device that never comes, waits less.
  const { setTimeout: wait } = window;
  window.setTimeout = (task, ms, ...rest) => wait(task, gpu.never && ms >= 10_000 ? 500 : ms, ...rest);
  // The largest that may be asked for is more than SwiftShader has: an invalid buffer, and an out-of-memory error.
  wrap(GPUDevice.prototype, 'createBuffer', (original) => function (descriptor) {
    gpu.noBuffer -= 1;
    return original.call(this, gpu.noBuffer === 0 ? { ...descriptor, size: this.limits.maxBufferSize } : descriptor);
  });
  wrap(GPUDevice.prototype, 'createShaderModule', (original) => function (descriptor) {
    gpu.shaders.add(this);
    if (gpu.spoil === 0) return original.call(this, descriptor);
    gpu.spoil -= 1;
    gpu.spoiled += 1;
    return original.call(this, { ...descriptor, code: `${descriptor.code}\nthis is not WGSL` });
  });
  wrap(GPUQueue.prototype, 'submit', (original) => function (...args) {
    gpu.submissions += 1;
    return original.apply(this, args);
  });
  for (const name of ['dispatchWorkgroups', 'dispatchWorkgroupsIndirect']) {
    wrap(GPUComputePassEncoder.prototype, name, (original) => function (...args) {
      gpu.dispatches += 1;
      return gpu.dispatches % gpu.skipEvery === 0 ? undefined : original.apply(this, args);
    });
  }
  const limits = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, 'limits').get;
  Object.defineProperty(GPUAdapter.prototype, 'limits', {
    get() {
      const real = limits.call(this);
      return new Proxy(real, { get: (_, name) => gpu.limits[name] ?? real[name] });
    },
  });
};

/** `worker`: its script, if not in the page's thread. */
const openSample = async (arg) => {
  const worker = arg?.worker ? () => new Worker(arg.worker, { type: 'module' }) : false;
  // The budgets are of a fast device, where no submission takes too long.
  const session = await window.ctmatch.open({ worker, allowSoftwareAdapter: true, model: '/model/manifest.json', maxSubmitMs: Infinity });
  const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
  const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
  window.sample = { session, volume, accept };
};
const encode = async () => [...(await window.sample.session.encodeVolume(window.sample.volume, { accept: window.sample.accept })).vector];

test('an invalid shader makes the call fail; recover keeps volume and reports, and a new session works', { timeout: 3 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /WGSL|shader|invalid|unreachable|GPU/i });
  assert.equal(await attempt(page, openSample), undefined);
  const bad = await attempt(page, async () => {
    const { session, volume, accept } = window.sample;
    window.sample.reports = await session.encodeReports(['one text', 'another']);
    window.gpuTest.spoil = 1;
    const from = performance.now();
    const code = await session.encodeVolume(volume, { accept }).then(() => 'a result', (error) => error.code);
    return { code, ms: performance.now() - from };
  });
  assert.equal(await attempt(page, () => window.gpuTest.spoiled), 1, 'a shader was compiled during the call');
  assert.equal(bad.code, 'SHADER_INVALID');
  assert.ok(bad.ms < SOON_MS, `${bad.ms} ms`);
  // The same session goes on with what it has.
  const recovered = await attempt(page, async () => {
    const { session, volume, accept, reports } = window.sample;
    await session.recover();
    const { rows } = await session.rank(await session.encodeVolume(volume, { accept }), reports);
    return { rows: rows.length, slice: (await volume.slice('axial', 0)).width };
  });
  assert.deepEqual(recovered, { rows: 2, slice: 208 });

  await attempt(page, () => window.sample.session.close());
  assert.equal(await attempt(page, openSample), undefined);
  await attempt(page, () => { Object.assign(window.gpuTest, { spoil: 0, dispatches: 0, submissions: 0 }); });
  const good = await attempt(page, encode);
  assert.equal(good.error, undefined);
  assert.ok(good.some((value) => value !== 0) && good.every(Number.isFinite));

  const counts = await attempt(page, () => ({ dispatches: window.gpuTest.dispatches, submissions: window.gpuTest.submissions }));
  console.log('one volume', counts, 'budget', BUDGETS);
  assert.ok(counts.dispatches > 0 && counts.submissions > 0, 'the GPU was used');
  assert.ok(counts.dispatches <= BUDGETS.dispatchesPerVolume);
  assert.ok(counts.submissions <= BUDGETS.submissionsPerVolume);
  await finish();
});

/** The sample's latent, of a device that nothing happened to. */
let undisturbed;
for (const worker of [false, true]) {
  test(`a lost device makes the call fail; everything stays valid through recover (${worker ? 'worker' : 'calling thread'})`, { timeout: 3 * SLOW_MS }, async () => {
    const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /lost|destroyed|GPU/i });
    const script = worker && '/test/destroy-worker.js';
    assert.equal(await attempt(page, openSample, { worker: script }), undefined);
    undisturbed ??= await attempt(page, encode);
    const found = await attempt(page, async (script) => {
      const { session, volume, accept } = window.sample;
      const reports = await session.encodeReports(['one text', 'another']);
      const destroy = script ? () => new BroadcastChannel('destroy').postMessage('') : () => window.gpuTest.devices.at(-1).destroy();
      const code = (promise) => promise.then(() => 'a result', (error) => `${error.code} ${error.retryable}`);
      const { lost } = session;
      const result = {
        outcome: await code(session.encodeVolume(volume, { accept, onProgress: ({ phase }) => { if (phase === 'encode') destroy(); } })),
        later: await code(session.encodeVolume(volume, { accept })), reason: (await lost).reason,
      };
      await session.recover();
      result.lostAgain = await Promise.race([session.lost, new Promise((resolve) => { setTimeout(resolve, 50, 'not'); })]);
      const image = await session.encodeVolume(volume, { accept });
      result.rows = (await session.rank(image, reports)).rows.length;
      result.slice = (await volume.slice('axial', 0)).width;
      return { ...result, vector: [...image.vector] };
    }, script);
    const { vector, ...rest } = found;
    assert.deepEqual(rest, { outcome: 'DEVICE_LOST true', later: 'DEVICE_LOST true', reason: 'destroyed', lostAgain: 'not', rows: 2, slice: 208 });
    assert.ok(cosine(vector, undisturbed) > 1 - 1e-9);
    await finish();
  });
}

test('refused devices, small limits, kernels that write nothing, no memory: each has its code, and the next try works', { timeout: 4 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /GPU|memory|refused/i });
  const found = await attempt(page, async () => {
    const gpu = window.gpuTest;
    let longestMs = 0;
    const code = async (promise) => {
      const from = performance.now();
      const found = await promise.then(() => 'no error', (error) => error.code);
      if (found !== 'no error') longestMs = Math.max(longestMs, performance.now() - from);
      return found;
    };
    const session = await window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, cache: 'memory' });
    const load = () => code(session.loadModel('/model/manifest.json'));
    const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
    const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code: name }) => name);
    const result = {};
    gpu.refuse = true;
    result.refused = await load();
    gpu.refuse = false;
    gpu.limits = { maxStorageBufferBindingSize: 4096 };
    result.limits = await load();
    gpu.limits = {};
    // Nothing is written, or one output in fifty: what stands in the buffers is no result, or another than the known one.
    result.skipped = [];
    for (const every of [1, 50]) {
      gpu.skipEvery = every;
      result.skipped.push(['BAD_RESULT', 'SELF_TEST_FAILED'].includes(await load()));
    }
    gpu.skipEvery = 0;
    result.whole = await load();
    const device = gpu.devices.at(-1);
    let told = false;
    result.memory = await code(session.encodeVolume(volume, { accept, onProgress({ phase }) {
      if (phase !== 'encode' || told) return;
      told = true;
      device.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', { error: new GPUOutOfMemoryError('no memory') }));
    } }));
    const reports = await session.encodeReports(['one text', 'another']);
    const image = await session.encodeVolume(volume, { accept });
    // Lost after everything was computed: what is there stays, and serves again.
    device.destroy();
    await device.lost;
    result.before = await code(session.encodeVolume(volume, { accept }));
    result.kept = [image.vector.length > 0, reports.size];
    await session.recover();
    result.rows = (await session.rank(image, reports)).rows.length;
    await session.close();
    return { ...result, longestMs };
  });
  const { longestMs, ...rest } = found;
  assert.ok(longestMs < SOON_MS, `${longestMs} ms`);
  assert.deepEqual(rest, {
    refused: 'NO_WEBGPU', limits: 'LIMITS', skipped: [true, true], whole: 'no error',
    memory: 'GPU_OOM', before: 'DEVICE_LOST', kept: [true, 2], rows: 2,
  });
  await finish();
});

test('a device that comes lost or never, is lost while a model loads or texts are encoded, and a buffer that cannot be made', { timeout: 4 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /GPU|memory|lost|destroyed|invalid/i });
  const found = await attempt(page, async (SOON_MS) => {
    const gpu = window.gpuTest;
    /** The code, in time. */
    const ended = async (promise) => {
      const from = performance.now();
      const code = await promise.then(() => 'no error', (error) => error.code ?? `${error}`);
      const ms = performance.now() - from;
      return ms < SOON_MS ? code : `${code} after ${ms} ms`;
    };
    const session = await window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, selfTest: 'once-per-device', maxSubmitMs: Infinity });
    const load = (onProgress) => session.loadModel('/model/manifest.json', { onProgress });
    const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
    const destroy = () => gpu.devices.at(-1).destroy();
    const result = {};
    gpu.lost = true;
    result.comesLost = await ended(load());
    gpu.lost = false;
    gpu.never = true;
    result.never = await ended(load());
    gpu.never = false;
    result.upload = await ended(load(({ phase }) => { if (phase === 'upload') destroy(); }));
    result.selfTest = await ended(load(({ phase }) => { if (phase === 'self-test') destroy(); }));
    await load();
    const texts = ['one text', 'another'];
    const reports = await session.encodeReports(texts);
    result.texts = await ended(session.encodeReports(['a third', 'a fourth', 'a fifth'], { onProgress: ({ phase }) => { if (phase === 'text') destroy(); } }));
    result.later = await ended(session.encodeReports(['a sixth']));
    await session.recover();
    result.third = (await session.encodeReports(['a third'])).size;
    // Some buffers into the call.
    gpu.noBuffer = 3;
    // The buffer has no memory, and each use of it is an error too: the cause is told.
    result.buffer = await ended(session.encodeReports(['a seventh']));
    result.reached = gpu.noBuffer <= 0;
    await session.recover();
    const again = await session.encodeReports([...texts, 'a seventh']);
    result.same = reports.vectors.every((value, i) => Math.abs(value - again.vectors[i]) < 1e-6);
    result.kept = [reports.size, again.size, (await volume.slice('axial', 0)).width];
    await session.close();
    return result;
  }, SOON_MS);
  assert.deepEqual(found, {
    comesLost: 'DEVICE_LOST', never: 'NO_WEBGPU', upload: 'DEVICE_LOST', selfTest: 'DEVICE_LOST', texts: 'DEVICE_LOST', later: 'DEVICE_LOST', third: 1,
    buffer: 'GPU_OOM', reached: true, same: true, kept: [2, 3, 208],
  });
  await finish();
});

test('a software adapter is named and refused unless allowed', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const refused = await open({ model: '/model/manifest.json' }).then(() => ({}), ({ code, retryable, detail }) => ({ code, retryable, adapter: detail.adapter }));
    const session = await open({ model: '/model/manifest.json', allowSoftwareAdapter: true });
    const { backend, software, adapter } = session.info;
    const asked = await open({ model: '/model/manifest.json', fallback: 'cpu' });
    return { refused, allowed: { backend, software, adapter }, asked: { backend: asked.info.backend, degraded: asked.info.degraded } };
  });
  assert.equal(found.refused.code, 'SOFTWARE_ADAPTER');
  assert.equal(found.refused.retryable, true);
  assert.match(found.refused.adapter, /swiftshader/i);
  assert.deepEqual({ ...found.allowed, adapter: '' }, { backend: 'webgpu', software: true, adapter: '' });
  assert.match(found.allowed.adapter, /swiftshader/i);
  assert.equal(found.asked.backend, 'cpu');
  assert.equal(found.asked.degraded.length, 1);
  await finish();
});

test('abort in the calling thread stops at the next step', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper });
  assert.equal(await attempt(page, openSample), undefined);
  await attempt(page, encode); // shaders are compiled
  const found = await attempt(page, async () => {
    const { session, volume, accept } = window.sample;
    const controller = new AbortController();
    let at;
    const onProgress = ({ phase }) => {
      if (phase !== 'encode' || at) return;
      at = performance.now();
      controller.abort();
    };
    const outcome = await session.encodeVolume(volume, { accept, onProgress, signal: controller.signal })
      .then(() => 'finished', (error) => (error === controller.signal.reason ? 'reason' : error.code));
    const ms = performance.now() - at;
    return { outcome, ms, texts: (await session.encodeReports(['one text'])).size };
  });
  console.log('abort in the calling thread', found);
  assert.equal(found.outcome, 'reason');
  assert.ok(found.ms < 500, `${found.ms} ms`);
  assert.equal(found.texts, 1);
  await finish();
});

test('browsers that do not tell what an adapter is, or measure no times', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    delete GPUAdapter.prototype.info;
    delete GPUDevice.prototype.adapterInfo;
    const { get } = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, 'features');
    Object.defineProperty(GPUAdapter.prototype, 'features', { get() { return new Set([...get.call(this)].filter((name) => name !== 'timestamp-query')); } });
    const session = await window.ctmatch.open({ worker: false, model: '/model/manifest.json' });
    const { adapter, software, selfTest } = session.info;
    await session.close();
    return { adapter, software, codes: selfTest.codes[0] > 0 };
  });
  assert.deepEqual(found, { adapter: '', software: false, codes: true });
  await finish();
});

test('sessions that open at once get each its own device, and the browser is left as it was', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper });
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const { gpu } = navigator;
    const used = new Map();
    const { createBuffer } = GPUDevice.prototype;
    GPUDevice.prototype.createBuffer = function counted(descriptor) {
      used.set(this, (used.get(this) ?? 0) + 1);
      return createBuffer.call(this, descriptor);
    };
    const options = { worker: false, model: '/model/manifest.json', allowSoftwareAdapter: true, selfTest: false };
    const given = await Promise.all([1, 2].map(async () => (await gpu.requestAdapter()).requestDevice()));
    // Another library has put its own in place.
    const theirs = () => GPU.prototype.requestAdapter.call(gpu);
    Object.defineProperty(gpu, 'requestAdapter', { value: theirs, configurable: true });
    const opened = await Promise.all([
      open({ ...options, device: given[0] }), open(options), open({ ...options, device: {} }).catch(({ code }) => code), open({ ...options, device: given[1] }), open(options),
    ]);
    const counts = window.gpuTest.devices.map((device) => used.get(device));
    for (const session of opened) await session.close?.();
    return { counts, kept: gpu.requestAdapter === theirs, refused: opened[2] };
  });
  const [count] = found.counts ?? [];
  assert.ok(count > 10, JSON.stringify(found));
  assert.deepEqual(found, { counts: Array(4).fill(count), kept: true, refused: 'INVALID_ARGUMENT' });
  await finish();
});

test('a device of another library: used alone, left usable, its loss and its limits noticed', { timeout: 4 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /lost|destroyed|GPU/i });
  const expected = JSON.parse(await readFile(EXPECTED, 'utf8'));
  const found = await attempt(page, async () => {
    const gpu = window.gpuTest;
    const { open } = window.ctmatch;
    const failure = (promise) => promise.then(() => 'no error', (error) => ({ code: error.code, ...error.detail }));
    const newDevice = async () => (await navigator.gpu.requestAdapter()).requestDevice();
    const options = { model: '/model/manifest.json', allowSoftwareAdapter: true, selfTest: false };
    const file = await (await fetch('/sample/chest.nii.gz')).blob();
    const reports = await (await fetch('/sample/reports.json')).blob();
    const result = {};

    const device = await newDevice();
    const heard = [];
    device.onuncapturederror = ({ error }) => heard.push(error.message);
    const { onuncapturederror } = device;
    // What the other library holds, and does with it.
    const bytes = Float32Array.of(1, 2, 3);
    const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const theirs = device.createBuffer({ size: bytes.byteLength, usage });
    device.queue.writeBuffer(theirs, 0, bytes);
    const readBack = async () => {
      const to = device.createBuffer({ size: bytes.byteLength, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(theirs, 0, to, 0, bytes.byteLength);
      device.queue.submit([encoder.finish()]);
      await to.mapAsync(GPUMapMode.READ);
      return [...new Float32Array(to.getMappedRange())];
    };

    // One session on it, and one that opens a device of its own meanwhile, in the same thread.
    const [session, other] = await Promise.all([open({ ...options, device }), failure(open({ ...options, worker: false, variant: 'none' }))]);
    result.other = other.code;
    result.devices = gpu.devices.map((opened) => opened === device);
    result.own = Object.keys(Object.getOwnPropertyDescriptors(navigator.gpu));
    const volume = await session.readVolume(file);
    const image = await session.encodeVolume(volume);
    const onCpu = await open({ ...options, worker: false, backend: 'cpu' });
    const set = await onCpu.encodeReports(await onCpu.parseReports(reports, { format: 'json' }));
    result.order = (await session.rank(image, set)).rows.map(({ index }) => index);
    result.shaders = gpu.devices.map((opened) => gpu.shaders.has(opened));
    result.info = { backend: session.info.backend, named: /swiftshader/i.test(session.info.adapter) };
    const vector = [...image.vector];

    // Its error during a call is the call's, and still the owner's.
    let told = false;
    const error = new GPUUncapturedErrorEvent('uncapturederror', { error: new GPUValidationError('of the other library') });
    result.error = await failure(session.encodeVolume(volume, { onProgress({ phase }) {
      if (phase !== 'preprocess' || told) return;
      told = true;
      device.dispatchEvent(error);
    } }));
    await session.close();
    result.kept = await readBack();
    await device.queue.onSubmittedWorkDone();
    result.heard = [heard, device.onuncapturederror === onuncapturederror];

    // Devices that will not do.
    result.cpu = await failure(open({ ...options, device, backend: 'cpu' }));
    result.none = await failure(open({ ...options, device: {} }));
    result.budget = await failure(open({ ...options, device, gpuMemoryBudgetBytes: 1000 }));
    result.software = (await failure(open({ ...options, device, allowSoftwareAdapter: false }))).code;
    const small = await newDevice();
    const { limits } = small;
    Object.defineProperty(small, 'limits', { value: new Proxy(limits, { get: (_, name) => (name === 'maxStorageBufferBindingSize' ? 4096 : limits[name]) }) });
    result.small = await failure(open({ ...options, device: small }));

    // Its owner destroys it in the middle.
    const lost = await open({ ...options, device });
    const last = await lost.readVolume(file);
    result.lost = [
      (await failure(lost.encodeVolume(last, { onProgress({ fraction }) { if (fraction > 0) device.destroy(); } }))).code,
      (await lost.lost).reason, (await failure(lost.recover())).code, (await last.slice('axial', 0)).width,
    ];
    await lost.close();
    result.opened = gpu.devices.length;
    return { ...result, vector };
  });
  assert.equal(found.error?.message, undefined, JSON.stringify(found.error));
  const { vector, small, budget, ...rest } = found;
  assert.deepEqual([budget.code, budget.limit, budget.found, budget.needed > 1000], ['LIMITS', 'gpuMemoryBudgetBytes', 1000, true]);
  assert.ok(cosine(vector, expected.image) >= MIN_COSINE);
  assert.deepEqual([small.code, small.limit, small.found, small.needed > 4096], ['LIMITS', 'maxStorageBufferBindingSize', 4096, true]);
  assert.deepEqual(rest, {
    other: 'MANIFEST', devices: [true, false], own: [], order: expected.order, shaders: [true, false], info: { backend: 'webgpu', named: true },
    error: { code: 'SHADER_INVALID' }, kept: [1, 2, 3], heard: [['of the other library'], true],
    cpu: { code: 'INVALID_ARGUMENT' }, none: { code: 'INVALID_ARGUMENT' }, software: 'SOFTWARE_ADAPTER',
    lost: ['DEVICE_LOST', 'destroyed', 'DEVICE_LOST', 208], opened: 3,
  });
  await finish();
});
