// A GPU that fails must fail loudly. Most sessions here run in the page's own thread, where the GPU can be tampered with.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { BUDGETS } from './budgets.mjs';
import { attempt, brighter, cosine, EXPECTED, host, MIN_COSINE, SLOW_MS, www } from './harness.mjs';

/** What the server has beside its files. @type {Map<string, Buffer | string>} */
const made = new Map();
const tests = host({ intercept: ({ url }, response) => made.has(url) && response.end(made.get(url)) });

// Whatever fails on the GPU, fails before this, with shaders to compile and on a machine that does other work.
const SOON_MS = 60_000;

/**
 * In the page, before anything: counts what goes to the GPU (`writes`: to the last device), keeps the devices and which of them got shaders, and can
 * spoil shaders, leave out dispatches, refuse devices, give none or lost ones, lower limits, and make one buffer that there is no memory for.
 */
const tamper = () => {
  const gpu = {
    dispatches: 0, submissions: 0, writes: 0, spoil: 0, spoiled: 0, skipEvery: 0, refuse: false, never: false, lost: false, limits: {}, noBuffer: 0,
    devices: [], shaders: new Set(),
  };
  window.gpuTest = gpu;
  /** The code, in time. */
  window.ended = async (promise, soonMs) => {
    const from = performance.now();
    const code = await promise.then(() => 'no error', (error) => error.code ?? `${error}`);
    const ms = performance.now() - from;
    return ms < soonMs ? code : `${code} after ${ms} ms`;
  };
  const wrap = (prototype, name, make) => { prototype[name] = make(prototype[name]); };
  wrap(GPUAdapter.prototype, 'requestDevice', (original) => async function (...args) {
    if (gpu.refuse) throw new DOMException('refused', 'OperationError');
    if (gpu.never) return new Promise(() => {});
    const device = await original.apply(this, args);
    gpu.devices.push(device);
    gpu.writes = 0;
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
  wrap(GPUQueue.prototype, 'writeBuffer', (original) => function (...args) {
    gpu.writes += 1;
    return original.apply(this, args);
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
  for (const { prototype } of [GPUAdapter, GPUDevice]) {
    const limits = Object.getOwnPropertyDescriptor(prototype, 'limits').get;
    Object.defineProperty(prototype, 'limits', {
      get() {
        const real = limits.call(this);
        return new Proxy(real, { get: (_, name) => gpu.limits[name] ?? real[name] });
      },
    });
  }
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
      const from = performance.now();
      const result = {
        outcome: await code(session.encodeVolume(volume, { accept, onProgress: ({ phase }) => { if (phase === 'encode') destroy(); } })),
        later: await code(session.encodeVolume(volume, { accept })), reason: (await lost).reason,
      };
      const ms = performance.now() - from;
      await session.recover();
      result.lostAgain = await Promise.race([session.lost, new Promise((resolve) => { setTimeout(resolve, 50, 'not'); })]);
      const image = await session.encodeVolume(volume, { accept });
      result.rows = (await session.rank(image, reports)).rows.length;
      result.slice = (await volume.slice('axial', 0)).width;
      return { ...result, ms, vector: [...image.vector] };
    }, script);
    const { vector, ms, ...rest } = found;
    assert.ok(ms < SOON_MS, `${ms} ms`);
    assert.deepEqual(rest, { outcome: 'DEVICE_LOST true', later: 'DEVICE_LOST true', reason: 'destroyed', lostAgain: 'not', rows: 2, slice: 208 });
    assert.ok(cosine(vector, undisturbed) > 1 - 1e-9);
    await finish();
  });
}

test('refused devices, kernels that write nothing, no memory: each has its code, and the next try works', { timeout: 4 * SLOW_MS }, async () => {
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
    refused: 'NO_WEBGPU', skipped: [true, true], whole: 'no error',
    memory: 'GPU_OOM', before: 'DEVICE_LOST', kept: [true, 2], rows: 2,
  });
  await finish();
});

test('limits below those of every WebGPU device are refused by name before anything is loaded, and the next load works', { timeout: 3 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /GPU|memory|error happened/i });
  const least = {
    maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 27, maxStorageBuffersPerShaderStage: 8, maxComputeWorkgroupStorageSize: 2 ** 14,
    maxComputeInvocationsPerWorkgroup: 128, maxComputeWorkgroupSizeX: 128, maxComputeWorkgroupSizeY: 128, maxComputeWorkgroupSizeZ: 64,
    maxComputeWorkgroupsPerDimension: 65_535,
  };
  const found = await attempt(page, async ({ limits, SOON_MS }) => {
    const gpu = window.gpuTest;
    const session = await window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, cache: 'memory', maxSubmitMs: Infinity, selfTest: false });
    const load = () => session.loadModel('/model/manifest.json');
    const refused = {};
    for (const [limit, value] of Object.entries(limits)) {
      gpu.limits = { [limit]: value - 1 };
      const from = performance.now();
      const { code, retryable, detail: { limit: named, found: offered, needed } = {} } = await load().catch((error) => error) ?? {};
      refused[limit] = [code, retryable, named, offered, needed, performance.now() - from < SOON_MS];
    }
    // The least is enough, all at once.
    gpu.limits = limits;
    await load();
    const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
    const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
    return { refused, vector: [...(await session.encodeVolume(volume, { accept })).vector], size: (await session.encodeReports(['one text'])).size };
  }, { limits: least, SOON_MS });
  assert.equal(found.error, undefined, JSON.stringify(found.error));
  assert.deepEqual(found.refused, Object.fromEntries(Object.entries(least).map(([limit, value]) => [limit, ['LIMITS', false, limit, value - 1, value, true]])));
  assert.equal(found.size, 1);
  assert.ok(cosine(found.vector, JSON.parse(await readFile(EXPECTED, 'utf8')).image) > MIN_COSINE);
  await finish();
});

test('a device that comes lost or never, is lost while a model loads or texts are encoded, and a buffer that cannot be made', { timeout: 4 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /GPU|memory|lost|destroyed|invalid/i });
  const found = await attempt(page, async (SOON_MS) => {
    const gpu = window.gpuTest;
    const ended = (promise) => window.ended(promise, SOON_MS);
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

test('no memory for a buffer, the first, one in the middle or the last of a load, or one of an encode: GPU_OOM, what was there stays, the next try works', { timeout: 6 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /GPU|memory|invalid/i });
  const found = await attempt(page, async (SOON_MS) => {
    const gpu = window.gpuTest;
    const ended = (promise) => window.ended(promise, SOON_MS);
    const file = await (await fetch('/sample/chest.nii.gz')).blob();
    const open = (selfTest) => window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, cache: 'memory', maxSubmitMs: Infinity, selfTest });
    const load = (session) => session.loadModel('/model/manifest.json');
    /** Without memory for buffer `at` of what `work` makes. */
    const without = async (at, work) => {
      gpu.noBuffer = at;
      const code = await ended(work());
      return [code, gpu.noBuffer <= 0];
    };
    const session = await open(false);
    gpu.noBuffer = 0;
    await load(session);
    const buffers = -gpu.noBuffer;
    const volume = await session.readVolume(file);
    const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
    gpu.noBuffer = 0;
    const image = await session.encodeVolume(volume, { accept });
    const ofEncode = -gpu.noBuffer;
    const reports = await session.encodeReports(['one text', 'another']);
    const { rows } = await session.rank(image, reports);
    const result = { buffers, ofEncode, loads: [], slices: [] };
    for (const at of [1, buffers >> 1, buffers]) {
      result.loads.push(await without(at, () => load(session)));
      result.slices.push((await volume.slice('axial', 0)).width);
    }
    // With the known answers: in the upload, and at their end.
    const tested = await open(true);
    gpu.noBuffer = 0;
    await load(tested);
    const withAnswers = -gpu.noBuffer;
    result.more = withAnswers > buffers;
    for (const at of [buffers >> 1, withAnswers]) result.loads.push(await without(at, () => load(tested)));
    await load(tested);
    result.texts = (await tested.encodeReports(['one text'])).size;
    await tested.close();

    await session.recover();
    result.ranked = JSON.stringify((await session.rank(image, reports)).rows) === JSON.stringify(rows);
    result.encode = await without(ofEncode >> 1, () => session.encodeVolume(volume, { accept }));
    await session.recover();
    const again = await session.encodeVolume(volume, { accept });
    result.same = again.vector.every((value, i) => Math.abs(value - image.vector[i]) < 1e-6);
    await session.close();
    return result;
  }, SOON_MS);
  const { buffers, ofEncode, ...rest } = found;
  assert.ok(buffers > 10 && ofEncode > 2, JSON.stringify(found));
  const none = ['GPU_OOM', true];
  assert.deepEqual(rest, { loads: Array(5).fill(none), slices: [208, 208, 208], more: true, texts: 1, ranked: true, encode: none, same: true });
  await finish();
});

/** Folders of the model whose one shard is damaged and whose manifest agrees with it: `[what, address of the manifest, code, whether it is sent]`. */
function damagedFolders() {
  const folder = join(www, 'model');
  const manifest = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'));
  const [variant] = Object.keys(manifest.variants);
  const { shards: [{ path }], prompts } = manifest.variants[variant];
  const whole = readFileSync(join(folder, path));
  const data = whole.subarray(8 + Number(whole.readBigUInt64LE(0)));
  const header = JSON.parse(whole.subarray(8, whole.length - data.length));
  const [last, [from, to]] = Object.entries(header).map(([name, { data_offsets: at }]) => [name, at]).filter(([, at]) => at).sort(([, [a]], [, [b]]) => b - a)[0];
  const words = Object.keys(header).find((name) => header[name].dtype === 'U32');
  const packed = (changed, rest = data) => {
    const text = Buffer.from(typeof changed === 'string' ? changed : JSON.stringify(changed));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    return Buffer.concat([size, text, rest]);
  };
  const altered = (name, change) => packed({ ...header, [name]: { ...header[name], ...change } });
  const renamed = (name, other) => Object.fromEntries(Object.entries(header).map(([key, value]) => [key === name ? other : key, value]));
  const without = Object.fromEntries(Object.entries(header).filter(([name]) => name !== last));
  return [
    ['no JSON', packed('x'.repeat(100)), 'CHECKPOINT'],
    ['cut short', whole.subarray(0, -4), 'CHECKPOINT'],
    ['the last tensor beyond the file', altered(last, { data_offsets: [from, to + 4] }), 'CHECKPOINT'],
    ['the last tensor in another shape', altered(last, { shape: header[last].shape.toReversed() }), 'MODEL_SHAPE'],
    ['the last tensor by another name', packed(renamed(last, 'another')), 'MODEL_SHAPE'],
    ['words of another type', altered(words, { dtype: 'F32' }), 'MANIFEST'],
    // Known to be missing only when every shard is there: this one counts as sound, and shows what the count counts.
    ['the last tensor missing', packed(without, data.subarray(0, from)), 'MODEL_SHAPE', true],
  ].map(([what, bytes, code, sent = false], i) => {
    const agreeing = structuredClone(manifest);
    Object.assign(agreeing.variants[variant].shards[0], { bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') });
    made.set(`/damaged/${i}/manifest.json`, JSON.stringify(agreeing)).set(`/damaged/${i}/${path}`, bytes);
    for (const { path: other } of [manifest.files.tokenizer, prompts]) made.set(`/damaged/${i}/${other}`, readFileSync(join(folder, other)));
    return [what, `/damaged/${i}/manifest.json`, code, sent];
  });
}

test('a damaged shard that agrees with its manifest is refused before a byte of it goes to the GPU', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper });
  const folders = damagedFolders();
  const found = await attempt(page, async ({ addresses, SOON_MS }) => {
    const gpu = window.gpuTest;
    const session = await window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, cache: 'none', selfTest: false });
    const outcomes = [];
    for (const address of [...addresses, '/model/manifest.json']) {
      const { length } = gpu.devices;
      outcomes.push([await window.ended(session.loadModel(address), SOON_MS), gpu.devices.length - length, gpu.writes > 0]);
    }
    const texts = (await session.encodeReports(['one text'])).size;
    await session.close();
    return { outcomes, texts };
  }, { addresses: folders.map(([, address]) => address), SOON_MS });
  assert.equal(found.error, undefined);
  for (const [i, [what, , code, sent]] of folders.entries()) assert.deepEqual(found.outcomes[i], [code, 1, sent], what);
  assert.deepEqual([found.outcomes.at(-1), found.texts], [['no error', 1, true], 1]);
  await finish();
});

test('kernels that stop writing after a good call: BAD_RESULT, and not what was read before', { timeout: 4 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: tamper, expect: /GPU/ });
  const found = await attempt(page, async ({ other, SOON_MS }) => {
    const gpu = window.gpuTest;
    const session = await window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, model: '/model/manifest.json', maxSubmitMs: Infinity, selfTest: false });
    const volumes = [await (await fetch('/sample/chest.nii.gz')).blob(), new Blob([Uint8Array.from(atob(other), (c) => c.charCodeAt(0))])];
    const [first, second] = await Promise.all(volumes.map((file) => session.readVolume(file)));
    const encode = (volume) => session.encodeVolume(volume, { accept: volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code) });
    const text = (size) => session.encodeReports([`A nodule of ${size} mm.`]);
    const stopped = async (work) => {
      gpu.skipEvery = 1;
      const code = await window.ended(work(), SOON_MS);
      gpu.skipEvery = 0;
      return code;
    };
    const apart = (a, b) => Math.max(...a.map((value, i) => Math.abs(value - b[i])));
    const image = await encode(first);
    const result = { volume: await stopped(() => encode(second)) };
    const next = await encode(second);
    result.volumes = apart(image.vector, next.vector);
    const report = await text(3);
    result.text = await stopped(() => text(5));
    result.texts = apart(report.vectors, (await text(5)).vectors);
    await session.close();
    return result;
  }, { other: await brighter(40), SOON_MS });
  const { volumes, texts, ...codes } = found;
  assert.deepEqual(codes, { volume: 'BAD_RESULT', text: 'BAD_RESULT' });
  assert.ok(volumes > 1e-6 && texts > 1e-6, JSON.stringify(found));
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
