// The CPU backend in threads: the same numbers as in one, where threads may be, why there is one elsewhere, and that none is left behind.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { attempt, cosine, EXPECTED, host, MIN_COSINE, pkg, SLOW_MS, startServer } from './harness.mjs';
import { POLICY_HEADERS } from './serve.mjs';

/** What the server gives for a script from a certain request on. @type {{ path: string, after: number, text: string } | undefined} */
let instead;
const tests = host({
  gpu: false,
  intercept: (request, response) => {
    if (!instead || request.url !== instead.path) return false;
    instead.after -= 1;
    return instead.after < 0 && response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(instead.text);
  },
});
const expected = JSON.parse(await readFile(EXPECTED, 'utf8'));
const CPU_MODULE = '/ctmatch/wasm/ctmatch_cpu_bg.wasm';

/** In the page: encodes the sample `repeat` times. */
const encode = async ({ repeat = 1, ...options }) => {
  const session = await window.ctmatch.open({ backend: 'cpu', cache: 'none', model: '/model/manifest.json', ...options });
  const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
  const runs = [];
  const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
  for (let i = 0; i < repeat; i++) runs.push(await session.encodeVolume(volume, { accept }));
  const { backend, threads, oneThread, degraded } = session.info;
  await session.close();
  return {
    vectors: runs.map(({ vector }) => Array.from(vector)), codes: Array.from(runs[0].codes), ms: Math.min(...runs.map(({ timingsMs }) => timingsMs.total)),
    stated: runs[0].provenance.threads, info: { backend, threads, degraded, ...(oneThread && { oneThread }) },
  };
};

test('threads give the numbers of one thread and of the command, to the bit every time', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const cores = await page.evaluate(() => navigator.hardwareConcurrency);
  assert.ok(cores > 1, 'this test needs two processor cores');
  const many = await attempt(page, encode, { repeat: 3 });
  assert.equal(many.error, undefined, JSON.stringify(many.error));
  assert.deepEqual(many.info, { backend: 'cpu', threads: Math.min(cores, 8), degraded: [] });
  assert.equal(many.stated, many.info.threads);
  for (const vector of many.vectors) assert.deepEqual(vector, many.vectors[0]);
  const two = await attempt(page, encode, { threads: 2 });
  assert.equal(two.info.threads, 2);
  const one = await attempt(page, encode, { repeat: 3, threads: 1 });
  assert.deepEqual(one.info, { backend: 'cpu', threads: 1, oneThread: 'asked', degraded: [] });
  assert.equal(one.stated, 1);
  for (const other of [one.vectors[0], two.vectors[0], expected.image]) assert.ok(1 - cosine(many.vectors[0], other) < 1e-5);
  assert.ok(cosine(many.vectors[0], expected.image) >= MIN_COSINE);
  assert.deepEqual(many.codes, one.codes);
  console.log(`one volume: ${Math.round(one.ms)} ms in one thread, ${Math.round(many.ms)} ms in ${many.info.threads}, ratio ${(one.ms / many.ms).toFixed(2)}`);
  await finish();
});

test('an abort leaves the threads to the next call; none outlives its session', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const browser = await page.context().browser().newBrowserCDPSession();
  // Workers of workers, too.
  const workers = async () => (await browser.send('Target.getTargets', { filter: [{ type: 'worker' }] })).targetInfos.map(({ url }) => new URL(url).pathname).sort();
  const ended = async () => {
    for (const from = Date.now(); Date.now() - from < 20_000; await new Promise((resolve) => { setTimeout(resolve, 200); })) {
      if ((await workers()).length === 0) return true;
    }
    return false;
  };
  const openAndAbort = async () => {
    const session = (window.kept = await window.ctmatch.open({
      worker: () => (window.last = new Worker('/ctmatch/worker.js', { type: 'module' })), threads: 2, backend: 'cpu', cache: 'none', model: '/model/manifest.json',
    }));
    const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
    const accept = volume.findings.map(({ code }) => code);
    const reason = new Error('enough');
    const controller = new AbortController();
    const onProgress = ({ phase }) => phase === 'encode' && controller.abort(reason);
    const aborted = await session.encodeVolume(volume, { accept, signal: controller.signal, onProgress }).catch((error) => error === reason);
    const { provenance } = await session.encodeVolume(volume, { accept });
    // Left in the middle of its work.
    window.pending = session.encodeVolume(volume, { accept }).catch(({ code }) => code);
    return { aborted, threads: provenance.threads };
  };
  for (const [end, code] of [[() => window.kept.close(), 'CLOSED'], [() => window.last.terminate(), 'WASM_ABORT']]) {
    assert.deepEqual(await attempt(page, openAndAbort), { aborted: true, threads: 2 });
    assert.deepEqual(await workers(), ['/ctmatch/worker.js', '/ctmatch/worker.js']);
    await page.evaluate(`void (${end})()`);
    assert.ok(await ended(), `left: ${await workers()}`);
    assert.equal(await page.evaluate(() => window.pending), code);
  }
  await finish();
});

test('one thread, and why', { timeout: 2 * SLOW_MS }, async (t) => {
  const info = async (page, options = {}) => {
    const found = await attempt(page, async (options) => {
      const session = await window.ctmatch.open({ backend: 'cpu', cache: 'none', selfTest: false, model: '/model/manifest.json', ...options });
      const { backend, threads, oneThread, degraded } = session.info;
      await session.close();
      return JSON.parse(JSON.stringify({ backend, threads, oneThread, degraded }));
    }, options);
    assert.equal(found.error, undefined, JSON.stringify(found.error));
    return found;
  };
  const oneThread = (reason) => ({ backend: 'cpu', threads: 1, oneThread: reason, degraded: [] });

  // Without the two headers; the module for the CPU needs none of them, and the larger one is not even requested.
  const { 'Cross-Origin-Opener-Policy': _opener, 'Cross-Origin-Embedder-Policy': _embedder, ...headers } = POLICY_HEADERS;
  const plain = await startServer({ headers });
  t.after(() => plain.close());
  const bare = await tests.newPackagePage({ origin: plain.origin });
  assert.deepEqual(await info(bare.page), oneThread('not-isolated'));
  assert.ok(plain.requests.some((line) => line.includes(CPU_MODULE)));
  assert.ok(!plain.requests.some((line) => /ctmatch_bg/.test(line)));
  const { cpu, advice } = await attempt(bare.page, () => window.ctmatch.probe());
  assert.deepEqual(cpu, { simd: true, threads: 1, oneThread: 'not-isolated', crossOriginIsolated: false });
  assert.match(advice.notes.join(), /one thread: the page is not cross-origin isolated/);
  await bare.finish();

  const { page, finish } = await tests.newPackagePage({ expect: /404/ });
  assert.deepEqual(await info(page, { worker: false }), oneThread('not-in-worker'));
  assert.deepEqual(await info(page, { wasmUrl: '/ctmatch/wasm/ctmatch_bg.wasm' }), oneThread('no-module'));
  assert.deepEqual(await info(page, { wasmUrl: '/nowhere.wasm', cpuWasmUrl: CPU_MODULE, threads: 2 }), { backend: 'cpu', threads: 2, degraded: [] });
  assert.deepEqual(await info(page, { backend: 'webgpu', fallback: 'cpu', threads: 2 }), { backend: 'cpu', threads: 2, degraded: ['cpu instead of webgpu: NO_WEBGPU'] });
  instead = { path: '/ctmatch/worker.js', after: 1, text: 'throw new Error("not a thread")' };
  assert.deepEqual(await info(page, { threads: 2 }), oneThread('not-started'));
  const worker = await readFile(join(pkg, 'worker.js'), 'utf8');
  instead = { path: '/ctmatch/worker.js', after: 0, text: `WebAssembly.validate = () => false;\n${worker}` };
  assert.deepEqual(await info(page, { threads: 2 }), oneThread('no-relaxed-simd'));
  instead = undefined;
  await finish();
});

test('a thread that fails ends the session', { timeout: SLOW_MS }, async () => {
  const text = (await readFile(join(pkg, 'threads.js'), 'utf8')).replace('    work();', '    throw new WebAssembly.RuntimeError("unreachable");');
  assert.match(text, /RuntimeError/);
  instead = { path: '/ctmatch/threads.js', after: 0, text };
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, () => window.ctmatch.open({ backend: 'cpu', threads: 2 }).catch(({ code, retryable }) => [code, retryable]));
  assert.deepEqual(found, ['WASM_ABORT', true]);
  instead = undefined;
  assert.equal(await attempt(page, async () => {
    const session = await window.ctmatch.open({ backend: 'cpu', threads: 2 });
    return (await session.parseReports('one')).length;
  }), 1);
  await finish();
});
