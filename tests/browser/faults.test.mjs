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

// Whatever fails, fails before this, also on a machine that does other work.
const SOON_MS = 20_000;

/**
 * In every page: what a call ends with, and how a session is opened whose heap grows by no more than `bytes`: the module for the GPU has its own
 * memory, the one for the CPU that of its worker.
 */
function helpers() {
  window.code = (promise) => promise.then(() => 'no error', (error) => [error.code, error.retryable]);
  /** In `ms` at most, or late. */
  window.soon = (ms, promise) => Promise.race([promise, new Promise((resolve) => { setTimeout(resolve, ms, 'late'); })]);
  window.small = (where, bytes) => ({
    backend: 'cpu', cache: 'none', ...(where === 'calling thread' && { worker: false }), ...(where !== 'threads' && { wasmUrl: '/ctmatch/wasm/ctmatch_bg.wasm' }),
    ...(where === 'threads' && { worker: () => new Worker(`/test/small-heap-worker.js?bytes=${bytes}`, { type: 'module' }) }),
  });
}

for (const where of ['worker', 'calling thread', 'threads']) {
  test(`a volume that the heap cannot hold (${where})`, { timeout: SLOW_MS }, async () => {
    module = withHeap(48e6);
    const { page, finish } = await tests.newPackagePage({ init: helpers, expect: /unreachable|memory/ });
    const found = await attempt(page, async ({ large, where, SOON_MS }) => {
      const { code, small } = window;
      const session = await window.ctmatch.open({ ...small(where, 48e6), model: '/model/manifest.json' });
      const threads = session.info.threads > 1;
      const sample = await (await fetch('/sample/chest.nii.gz')).blob();
      const volume = await session.readVolume(sample);
      const from = performance.now();
      const refused = await code(session.readVolume(new Blob([Uint8Array.from(atob(large), (c) => c.charCodeAt(0))])));
      const ms = performance.now() - from;
      const result = { refused, soon: ms < SOON_MS, threads, slice: (await volume.slice('axial', 0)).width, again: (await session.readVolume(sample)).dims, reports: (await session.encodeReports(['one'])).size };
      await session.close();
      return result;
    }, { large: await air([512, 512, 300]), where, SOON_MS });
    assert.deepEqual(found, { refused: ['E_BIG', false], soon: true, threads: where === 'threads', slice: 208, again: [208, 160, 30], reports: 1 });
    await finish();
  });

  test(`a model that the heap cannot hold (${where})`, { timeout: SLOW_MS }, async () => {
    module = withHeap(1e6);
    const { page, finish } = await tests.newPackagePage({ init: helpers, expect: /unreachable|memory/ });
    const found = await attempt(page, async ({ where, SOON_MS }) => {
      const { code, small, soon } = window;
      const { open, exportLatents } = window.ctmatch;
      const options = { backend: 'cpu', model: '/model/manifest.json', cache: 'none' };
      // What was computed before stays, in the page.
      const before = await open(options);
      const reports = await before.encodeReports(['one', 'another']);
      const file = exportLatents(await before.encodeVolume(await before.readVolume(await (await fetch('/sample/chest.nii.gz')).blob())));
      await before.close();
      const session = await open(small(where, 1e6));
      window.kept = { options, reports, file };
      return { load: await soon(SOON_MS, code(session.loadModel('/model/manifest.json'))), lost: (await soon(SOON_MS, session.lost)).reason };
    }, { where, SOON_MS });
    assert.deepEqual(found, { load: ['WASM_ABORT', true], lost: 'wasm-abort' });
    // The page goes on in another worker.
    module = undefined;
    assert.deepEqual(await attempt(page, async () => {
      const { options, reports, file } = window.kept;
      const session = await window.ctmatch.open(options);
      const { rows } = await session.rank(await window.ctmatch.importLatents(file), reports);
      return [rows.length, (await session.encodeReports(['one'])).size];
    }), [2, 1]);
    await finish();
  });
}

test('a worker that is killed: while a model loads, a file is read, a volume is encoded, and in between', { timeout: 2 * SLOW_MS }, async () => {
  module = undefined;
  const { page, finish } = await tests.newPackagePage({ init: helpers });
  const found = await attempt(page, async ({ large, SOON_MS }) => {
    const { open, exportLatents, importLatents } = window.ctmatch;
    const { code, soon } = window;
    let last;
    const worker = () => (last = new Worker('/ctmatch/worker.js', { type: 'module' }));
    const options = { worker, backend: 'cpu', model: '/model/manifest.json' };
    const sample = await (await fetch('/sample/chest.nii.gz')).blob();
    const file = new Blob([Uint8Array.from(atob(large), (c) => c.charCodeAt(0))]);
    const first = await open(options);
    const reports = await first.encodeReports(['one', 'another']);
    const image = await importLatents(exportLatents(await first.encodeVolume(await first.readVolume(sample))));
    await first.close();
    /** Kills the worker at the first progress of the call; it must be noticed at once. */
    const killed = async (call) => {
      let from;
      const ended = await soon(SOON_MS, code(call(() => {
        from ??= performance.now();
        last.terminate();
      })));
      return [...ended, performance.now() - from < 2000];
    };
    const calls = {
      load: (session, onProgress) => session.loadModel('/model/manifest.json', { onProgress }),
      read: (session, onProgress) => session.readVolume(file, { onProgress }),
      encode: async (session, onProgress) => session.encodeVolume(await session.readVolume(sample), { onProgress }),
      nothing: (session, kill) => { kill(); return session.encodeReports(['one']); },
    };
    const result = {};
    for (const [name, call] of Object.entries(calls)) {
      const session = await open(options);
      const ended = await killed((kill) => call(session, kill));
      const lost = (await soon(SOON_MS, session.lost)).reason;
      const later = await soon(SOON_MS, code(session.encodeReports(['one'])));
      // Latents and reports of before serve the next session.
      const next = await open(options);
      const { rows } = await next.rank(image, reports);
      result[name] = [...ended, lost, later[0], rows.length];
      await session.close();
      await next.close();
    }
    // Killed while nothing is asked: the session tells of it by itself.
    const idle = await open(options);
    last.terminate();
    result.idle = (await soon(SOON_MS, idle.lost)).reason;
    result.locks = (await navigator.locks.query()).pending.length;
    return result;
  }, { large: await air([512, 512, 300]), SOON_MS });
  const ended = ['WASM_ABORT', true, true, 'wasm-abort', 'WASM_ABORT', 2];
  assert.deepEqual(found, { load: ended, read: ended, encode: ended, nothing: ended, idle: 'wasm-abort', locks: 0 });
  await finish();
});

test('a worker that is killed where there are no locks: nothing tells of it, but a signal frees the caller and the next session works', { timeout: SLOW_MS }, async () => {
  module = undefined;
  const { page, finish } = await tests.newPackagePage({ init: helpers });
  const found = await attempt(page, async (SOON_MS) => {
    Object.defineProperty(Navigator.prototype, 'locks', { value: undefined });
    const { open } = window.ctmatch;
    const { code, soon } = window;
    let last;
    const worker = () => (last = new Worker('/ctmatch/worker.js', { type: 'module' }));
    const options = { worker, backend: 'cpu', model: '/model/manifest.json', threads: 1 };
    const session = await open(options);
    const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
    const reports = await session.encodeReports(['one', 'another']);
    const image = await session.encodeVolume(volume);
    const controller = new AbortController();
    const reason = new DOMException('enough', 'AbortError');
    const call = session.encodeVolume(volume, { signal: controller.signal }).catch((error) => error === reason);
    last.terminate();
    setTimeout(() => controller.abort(reason), 500);
    const freed = await soon(SOON_MS, call);
    const open2 = code(session.encodeReports(['one']));
    await session.close();
    const closed = await soon(SOON_MS, open2);
    const next = await open(options);
    const { rows } = await next.rank(image, reports);
    const again = (await next.encodeReports(['one'])).size;
    await next.close();
    return { freed, closed, rows: rows.length, again };
  }, SOON_MS);
  assert.deepEqual(found, { freed: true, closed: ['CLOSED', false], rows: 2, again: 1 });
  await finish();
});

test('an evidence map, the model\'s view and a store can be cancelled', { timeout: SLOW_MS }, async () => {
  module = undefined;
  const { page, finish } = await tests.newPackagePage({ init: helpers });
  const found = await attempt(page, async () => {
    const result = {};
    for (const worker of [undefined, false]) {
      const session = await window.ctmatch.open({ worker, backend: 'cpu', threads: 1, model: '/model/manifest.json' });
      const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
      const image = await session.encodeVolume(volume);
      const reports = await session.encodeReports(['one', 'another']);
      const map = { values: new Float32Array(image.codes.length) };
      const store = await session.openStore();
      const more = { volumes: [{ id: 'a', latent: image }], reports };
      const calls = { exportMap: (o) => volume.exportMap(map, o), modelBox: (o) => volume.modelBox(o), add: (o) => store.add(more, o), save: (o) => store.save(o) };
      const ended = {};
      for (const [name, call] of Object.entries(calls)) {
        const reason = new DOMException('enough', 'AbortError');
        const is = (promise) => promise.then(() => 'done', (error) => (error === reason ? 'reason' : error.name));
        ended[name] = [await is(call({ signal: AbortSignal.abort(reason) }))];
        // In the worker the caller is free at once; the calling thread has done it by then. What was added stays.
        if (name !== 'add') {
          const controller = new AbortController();
          const running = is(call({ signal: controller.signal }));
          controller.abort(reason);
          ended[name].push(await running);
        }
        await call({ signal: new AbortController().signal });
      }
      result[worker === false ? 'thread' : 'worker'] = { ...ended, size: store.reports.length, saved: (await store.save()).size > 0 };
      await session.close();
    }
    return result;
  });
  const [at, through] = [['reason', 'reason'], ['reason', 'done']];
  assert.deepEqual(found, {
    worker: { exportMap: at, modelBox: at, add: ['reason'], save: at, size: 2, saved: true },
    thread: { exportMap: through, modelBox: through, add: ['reason'], save: at, size: 2, saved: true },
  });
  await finish();
});
