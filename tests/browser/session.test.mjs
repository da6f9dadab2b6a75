// The package in the browser: the numbers, the in-thread twin, abort, and every refusal that is not the GPU's.

import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { attempt, cosine, EXPECTED, host, MIN_COSINE, pkg, SLOW_MS, startServer, www } from './harness.mjs';
import { POLICY_HEADERS } from './serve.mjs';

const tests = host();

/** In the page: a session over the sample, in `window.sample`. */
const openSample = async (options) => {
  const { open } = window.ctmatch;
  const session = await open({ model: '/model/manifest.json', allowSoftwareAdapter: true, ...options });
  const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
  const reports = await session.parseReports(await (await fetch('/sample/reports.json')).blob(), { format: 'json' });
  const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
  window.sample = { session, volume, reports, accept };
};

const encodeAndRank = async () => {
  const { session, volume, reports, accept } = window.sample;
  const image = await session.encodeVolume(volume, { accept });
  const set = await session.encodeReports(reports);
  const ranking = await session.rank(image, set);
  const { rows: zeroShot, answers } = await session.zeroShot(image, { ask: ['Does this image contain a lung nodule?', 'Is there a mild cyst?'] });
  const dim = image.vector.length;
  return {
    image: [...image.vector], order: ranking.rows.map((row) => row.index), provenance: ranking.provenance,
    texts: reports.map((_, i) => [...set.vectors.subarray(i * dim, (i + 1) * dim)]), rows: ranking.rows, set: set.rows,
    timingsMs: image.timingsMs, codes: image.codes.length, info: session.info, zeroShot, answers, box: await volume.modelBox(),
  };
};

test('latents and order equal the native command; the worker and the calling thread agree', { timeout: 2 * SLOW_MS }, async () => {
  const expected = JSON.parse(await readFile(EXPECTED, 'utf8'));
  const { page, finish } = await tests.newPackagePage();
  assert.equal(await attempt(page, openSample), undefined);
  const worker = await attempt(page, encodeAndRank);
  assert.equal(worker.error, undefined);
  const similar = { image: cosine(worker.image, expected.image), texts: worker.texts.map((v, i) => cosine(v, expected.texts[i])) };
  console.log('cosine to native', similar, 'timings', worker.timingsMs);
  assert.ok(similar.image >= MIN_COSINE);
  for (const value of similar.texts) assert.ok(value >= MIN_COSINE);
  assert.equal(worker.texts.length, expected.texts.length);
  assert.deepEqual(worker.order, expected.order);
  assert.deepEqual(worker.rows.map((row) => row.cosine), worker.rows.map((row) => row.cosine).sort((a, b) => b - a));
  assert.equal(worker.provenance.backend, 'webgpu');
  assert.ok([208, 160, 30].every((count, axis) => worker.box.min[axis] < 0 && worker.box.max[axis] > count - 1), JSON.stringify(worker.box));
  assert.match(worker.provenance.voxelSha256, /^[0-9a-f]{64}$/);
  for (const row of worker.set) assert.match(row.textSha256, /^[0-9a-f]{64}$/);

  assert.deepEqual(worker.info.model.capabilities, { images: true, reports: true, zeroShot: true });
  assert.deepEqual(worker.zeroShot.map((row) => row.finding), expected.zeroShot.map((row) => row.finding));
  for (const [i, { score }] of expected.zeroShot.entries()) assert.ok(Math.abs(worker.zeroShot[i].score - score) < 1e-3, `${i}`);
  const [nodule, cyst] = worker.answers;
  assert.deepEqual({ ...nodule, ...worker.zeroShot[9] }, nodule);
  assert.deepEqual([nodule.label, cyst.label, cyst.finding], ['Lung nodule', undefined, 'Mild cyst']);

  // Texts are encoded once: a second set of the same texts is all cache.
  const again = await attempt(page, async () => {
    const { session, reports } = window.sample;
    await session.encodeReports(reports);
    return session.info.encoded;
  });
  assert.deepEqual(again, { volumes: 1, texts: expected.texts.length, textsFromCache: expected.texts.length });
  const text = await attempt(page, () => window.sample.session.diagnostics());
  assert.ok(!text.includes('nodule') && JSON.parse(text).backend === 'webgpu');

  await attempt(page, openSample, { worker: false });
  const thread = await attempt(page, encodeAndRank);
  assert.equal(thread.error, undefined);
  assert.ok(cosine(thread.image, worker.image) > 1 - 1e-9);
  assert.deepEqual(thread.order, worker.order);
  assert.deepEqual(thread.set, worker.set);
  assert.deepEqual(thread.box, worker.box);
  await finish();
});

test('abort rejects with the reason within 500 ms in every phase, and the session goes on', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const measured = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const results = {};
    /** Starts `work`, aborts it at the first progress of `phase`. */
    const aborted = async (phase, work) => {
      const controller = new AbortController();
      const reason = new DOMException('enough', 'AbortError');
      let at;
      const onProgress = (progress) => {
        if (progress.phase !== phase || at) return;
        at = performance.now();
        controller.abort(reason);
      };
      const outcome = await work({ signal: controller.signal, onProgress }).then(() => 'finished', (error) => (error === reason ? 'reason' : `${error.code} ${error.message}`));
      results[phase] = { outcome, ms: performance.now() - at };
    };
    const settings = { allowSoftwareAdapter: true };
    await aborted('wasm', (call) => open({ ...settings, ...call }));
    const session = await open(settings);
    await aborted('weights', (call) => session.loadModel('/model/manifest.json', call));
    await session.loadModel('/model/manifest.json');
    const file = await (await fetch('/sample/chest.nii.gz')).blob();
    await aborted('read', (call) => session.readVolume(file, call));
    const volume = await session.readVolume(file);
    const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
    await aborted('preprocess', (call) => session.encodeVolume(volume, { ...call, accept }));
    await aborted('encode', (call) => session.encodeVolume(volume, { ...call, accept }));
    const stopped = performance.now();
    await aborted('text', (call) => session.encodeReports(['one text', 'another text', 'a third text'], call));
    const served = performance.now() - stopped;
    const image = await session.encodeVolume(volume, { accept });
    const set = await session.encodeReports(['one text', 'another text']);
    const { rows } = await session.rank(image, set);
    await session.close();
    return { results, served, ranked: rows.length };
  });
  console.log('abort', JSON.stringify(measured));
  assert.equal(measured.error, undefined);
  for (const [phase, { outcome, ms }] of Object.entries(measured.results)) {
    assert.equal(outcome, 'reason', phase);
    assert.ok(ms < 500, `${phase}: ${ms} ms`);
  }
  assert.equal(measured.ranked, 2);
  await finish();
});

for (const worker of [undefined, false]) {
  test(`the phases of a load, and an abort in each of them (${worker === false ? 'calling thread' : 'worker'})`, { timeout: SLOW_MS }, async () => {
    const { page, finish } = await tests.newPackagePage();
    const found = await attempt(page, async (worker) => {
      const { open } = window.ctmatch;
      const options = { worker, backend: 'cpu', cache: 'none', model: '/model/manifest.json' };
      const phases = ['wasm', 'compile', 'weights', 'upload', 'self-test'];
      const aborted = {};
      for (const wanted of phases) {
        const controller = new AbortController();
        const reason = new DOMException('enough', 'AbortError');
        let from;
        const onProgress = ({ phase }) => {
          if (phase !== wanted || from) return;
          from = performance.now();
          controller.abort(reason);
        };
        const outcome = await open({ ...options, onProgress, signal: controller.signal }).then(() => 'opened', (error) => (error === reason ? 'reason' : error.message));
        aborted[wanted] = [outcome, performance.now() - from < 500];
      }
      const seen = {};
      const session = await open({ ...options, onProgress: ({ phase, done, total, fraction }) => { seen[phase] = fraction ?? (total ? done / total : 1); } });
      const texts = (await session.encodeReports(['one'])).size;
      await session.close();
      return { aborted, seen, texts };
    }, worker);
    const stopped = ['reason', true];
    assert.deepEqual(found, {
      aborted: { wasm: stopped, compile: stopped, weights: stopped, upload: stopped, 'self-test': stopped },
      // One module serves a thread.
      seen: { ...(worker === undefined && { wasm: 1, compile: 1 }), weights: 1, upload: 1, 'self-test': 1 }, texts: 1,
    });
    await finish();
  });
}

test('a model without a text tower scores the labels and refuses the rest by name', { timeout: SLOW_MS }, async () => {
  const own = await startServer({ mounts: { '/expected': new URL('expected', import.meta.url).pathname } });
  const { page, finish } = await tests.newPackagePage({ origin: own.origin });
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const failure = (promise) => promise.then(() => 'no error', (error) => [error.code, error.detail.purpose]);
    const scores = async (model) => {
      // Files are kept by their digest, and both folders have the same prompts.
      const session = await open({ backend: 'cpu', model, cache: 'none' });
      const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
      const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
      return { session, image: await session.encodeVolume(volume, { accept }), scored: await session.zeroShot(volume, { accept, ask: ['nodules in the lung'] }) };
    };
    const [whole, without] = [await scores('/expected/match/manifest.json'), await scores('/expected/zero-shot/manifest.json')];
    const { session } = without;
    const reports = await whole.session.encodeReports(['a report']);
    return {
      model: session.info.model, urls: session.info.urls.map((url) => new URL(url).pathname.split('/').pop()).filter((name) => /tokenizer|prompts/.test(name)),
      rows: [whole.scored.rows, without.scored.rows], label: without.scored.answers[0].label, purpose: without.scored.provenance.purpose,
      // Latents of both folders are of one space.
      ranked: (await session.rank(without.image, reports)).rows.length,
      reports: await failure(session.encodeReports(['a report'])), free: await failure(session.zeroShot(without.image, { ask: ['pneumothorax'] })),
      prompts: await failure(whole.session.zeroShot(whole.image, { prompts: [{ present: 'yes', absent: 'no' }] })),
      question: await failure(session.zeroShot(without.image, { ask: ['有肺结节吗？'] })),
    };
  });
  assert.equal(found.error, undefined);
  assert.deepEqual([found.model.purpose, found.model.capabilities], ['zero-shot', { images: true, reports: false, zeroShot: true }]);
  assert.deepEqual([found.urls, found.label, found.purpose, found.ranked], [['prompts-q8.safetensors'], 'Lung nodule', 'zero-shot', 1]);
  for (const [i, row] of found.rows[0].entries()) assert.ok(Math.abs(row.score - found.rows[1][i].score) < 1e-6, row.finding);
  assert.deepEqual([found.reports, found.free], [['MODEL_PURPOSE', 'zero-shot'], ['MODEL_PURPOSE', 'zero-shot']]);
  assert.deepEqual([found.prompts[0], found.question[0]], ['INVALID_ARGUMENT', 'TEXT_INPUT']);
  await finish();
  await own.close();
});

test('refusals: each has its code', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ expect: /404/ });
  const manifest = JSON.parse(await readFile(join(www, 'model/manifest.json'), 'utf8'));
  const found = await attempt(page, async (manifest) => {
    const { open } = window.ctmatch;
    const code = (promise) => promise.then(() => 'no error', (error) => error.code ?? error.name);
    const detail = (promise) => promise.then(() => ({}), (error) => ({ code: error.code, ...error.detail }));
    const cpu = { backend: 'cpu' };
    const [shard] = Object.values(manifest.variants)[0].shards;
    const first = await open({ ...cpu, model: '/model/manifest.json' });
    const local = new Map();
    for (const url of first.info.urls.filter((url) => new URL(url).pathname.startsWith('/model/'))) {
      local.set(new URL(url).pathname.slice('/model/'.length), await (await fetch(url)).blob());
    }
    await first.close();
    const damaged = new Map(local);
    const bytes = new Uint8Array(await local.get(shard.path).arrayBuffer());
    bytes[0] ^= 0xff;
    bytes[bytes.length - 1] ^= 0xff;
    damaged.set(shard.path, new Blob([bytes]));
    const cut = new Map(local);
    cut.set(shard.path, local.get(shard.path).slice(0, -1));
    const without = new Map(local);
    without.delete(shard.path);

    const session = await open(cpu);
    const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
    const results = {
      noModel: await code(session.encodeVolume(volume)),
      nothingToRecover: await code(session.recover()),
      noBox: await code(volume.modelBox()),
      notFound: await detail(session.loadModel('/model/nowhere.json')),
      foreign: await code(session.loadModel('https://example.org/manifest.json')),
      notJson: await code(session.loadModel({ files: new Map([['manifest.json', new Blob(['<html>'])]]) })),
      noVariant: await code(open({ ...cpu, variant: 'none', model: '/model/manifest.json' })),
      damaged: await code(session.loadModel({ files: damaged })),
      cut: await code(session.loadModel({ files: cut })),
      without: await code(session.loadModel({ files: without })),
      offline: await code(open({ ...cpu, network: 'offline', cache: 'none' })),
    };
    await session.loadModel({ files: local });
    results.noReports = await code(session.encodeReports([]));
    results.emptyReport = await code(session.encodeReports(['one', ' ']));
    results.oneString = await code(session.encodeReports('one'));
    results.slice = await code(volume.slice('axial', 100000));
    results.source = await code(session.readVolume(7));
    results.spaces = await code(session.rank(
      { vector: new Float32Array(1), provenance: { embeddingSpace: 'another' } }, { size: 0, rows: [], vectors: new Float32Array(0), embeddingSpace: 'another' }));
    const other = await open(cpu);
    results.otherSession = await code(other.encodeVolume(volume));
    volume.close();
    results.closedVolume = await code(volume.slice('axial', 0));
    await session.close();
    await session.close();
    results.closed = await code(session.encodeReports(['one']));
    results.afterClose = await code(other.readVolume(await (await fetch('/sample/chest.nii.gz')).blob()));
    await other.close();
    return results;
  }, manifest);
  assert.deepEqual(found, {
    noModel: 'NO_MODEL', nothingToRecover: 'NO_MODEL', noBox: 'NO_MODEL', notFound: { code: 'NETWORK', url: `${tests.origin}/model/nowhere.json`, status: 404 }, foreign: 'NETWORK_POLICY',
    notJson: 'MANIFEST', noVariant: 'MANIFEST', damaged: 'INTEGRITY', cut: 'INTEGRITY', without: 'MANIFEST', offline: 'OFFLINE_MISS',
    noReports: 'TEXT_INPUT', emptyReport: 'TEXT_INPUT', oneString: 'INVALID_ARGUMENT', slice: 'INVALID_ARGUMENT', source: 'INVALID_ARGUMENT',
    spaces: 'INVALID_ARGUMENT', otherSession: 'INVALID_ARGUMENT', closedVolume: 'CLOSED', closed: 'CLOSED', afterClose: 'no error',
  });
  await finish();
});

test('a volume with an open question is not encoded', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const session = await open({ backend: 'cpu', model: '/model/manifest.json' });
    const packed = await fetch('/sample/chest.nii.gz');
    const nifti = new Uint8Array(await new Response(packed.body.pipeThrough(new DecompressionStream('gzip'))).arrayBuffer());
    nifti.fill(0, 252, 256); // qform_code and sform_code: orientation is not stored
    const volume = await session.readVolume(new Blob([nifti]));
    const asked = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
    const refused = await session.encodeVolume(volume).then(() => ({}), (error) => ({ code: error.code, codes: error.detail.codes }));
    const image = await session.encodeVolume(volume, { accept: asked });
    return { asked, refused, accepted: image.provenance.preprocess.accepted };
  });
  assert.deepEqual(found, { asked: ['W_NOXFORM'], refused: { code: 'NEEDS_CONFIRMATION', codes: ['W_NOXFORM'] }, accepted: ['W_NOXFORM'] });
  await finish();
});

const policy = (change) => ({ ...POLICY_HEADERS, 'Content-Security-Policy': change(POLICY_HEADERS['Content-Security-Policy']) });
const noWasm = policy((csp) => csp.replace(" 'wasm-unsafe-eval'", ''));
/** The server's answer for one path, in place of the file. */
const answer = (path, status, type, body) => (request, response) => request.url === path && response.writeHead(status, { 'Content-Type': type }).end(body);
const WASM = '/ctmatch/wasm/ctmatch_bg.wasm';
const EMPTY_WASM = Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);

for (const [name, code, options, served, path] of [
  ['a policy without wasm', 'CSP_WASM_BLOCKED', () => ({}), { headers: noWasm }],
  ['a policy without wasm, in the calling thread', 'CSP_WASM_BLOCKED', () => ({ worker: false }), { headers: noWasm }],
  ['a policy without workers', 'WORKER_BLOCKED', () => ({}), { headers: policy((csp) => csp.replace("worker-src 'self'", "worker-src 'none'")) }],
  ['no Trusted Types policy for the worker', 'WORKER_BLOCKED', () => ({}), {}, '/test/bare.html'],
  ['another worker that is not there', 'WORKER_BLOCKED', () => ({ worker: () => new Worker('/nowhere.js', { type: 'module' }) })],
  ['no worker.js', 'WORKER_BLOCKED', () => ({}), { intercept: answer('/ctmatch/worker.js', 404, 'text/html', 'not found') }],
  ['a page of the site in place of worker.js', 'WORKER_BLOCKED', () => ({}), { intercept: answer('/ctmatch/worker.js', 200, 'text/html', '<!doctype html>') }],
  ['no core.js for the worker', 'WORKER_BLOCKED', () => ({}), { intercept: answer('/ctmatch/core.js', 404, 'text/html', 'not found') }],
  ['no wasm file', 'NETWORK', () => ({}), { intercept: answer(WASM, 404, 'text/html', 'not found') }],
  ['no wasm file at a given URL', 'NETWORK', () => ({ wasmUrl: '/nowhere.wasm' })],
  ['a page of the site in place of the wasm file', 'NETWORK', () => ({}), { intercept: answer(WASM, 200, 'text/html', '<!doctype html>') }],
  ['the same with the MIME type of wasm', 'NETWORK', () => ({ worker: false }), { intercept: answer(WASM, 200, 'application/wasm', '<!doctype html>') }],
  ['another wasm module', 'INTEGRITY', () => ({}), { intercept: answer(WASM, 200, 'application/wasm', EMPTY_WASM) }],
  ['another wasm module, in the calling thread', 'INTEGRITY', () => ({ worker: false }), { intercept: answer(WASM, 200, 'application/wasm', EMPTY_WASM) }],
  ['wasm with a wrong MIME type', undefined, () => ({}), { intercept: async (request, response) =>
    request.url === WASM && response.writeHead(200, { 'Content-Type': 'text/plain' }).end(await readFile(join(pkg, 'wasm/ctmatch_bg.wasm'))) }],
]) {
  test(`open does not hang: ${name}`, { timeout: 20_000 }, async () => {
    const own = await startServer(served);
    const { page, finish } = await tests.newPackagePage({ origin: own.origin, path, expect: /Content Security Policy|violates|404|MIME type|TrustedScriptURL/ });
    const found = await attempt(page, `async () => (await window.ctmatch.open((${options})())).info`);
    assert.equal(found.error?.code, code, JSON.stringify(found));
    if (!code) assert.deepEqual(found.urls, [own.origin + WASM]);
    await finish();
    await own.close();
  });
}

test('a worker that says nothing is given up after 20 s', async () => {
  const { page, finish } = await tests.newPackagePage();
  await page.clock.install();
  await attempt(page, () => {
    window.ctmatch.open({ worker: () => new Worker('/test/silent-worker.js', { type: 'module' }) }).catch((error) => { window.outcome = [error.code, error.message]; });
  });
  await page.clock.runFor(12_000);
  assert.equal(await attempt(page, () => window.outcome), undefined);
  await page.clock.runFor(8_000);
  assert.match(String(await attempt(page, () => window.outcome)), /^WORKER_BLOCKED,.*no answer in 20 s/);
  await finish();
});

test('a file that was taken away is E_READ', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'ctmatch-'));
  const { page, finish } = await tests.newPackagePage();
  await attempt(page, () => document.body.append(Object.assign(document.createElement('input'), { type: 'file' })));
  const path = join(folder, 'volume.nii.gz');
  await copyFile(join(www, 'sample/chest.nii.gz'), path);
  await page.setInputFiles('input', path);
  assert.ok(await attempt(page, () => document.querySelector('input').files[0].size) > 0);
  await rm(folder, { recursive: true });
  for (const worker of [undefined, false]) {
    const found = await attempt(page, async (worker) => {
      const session = await window.ctmatch.open({ worker });
      const outcome = await session.readVolume(document.querySelector('input').files[0]).catch(({ name, code, retryable }) => [name, code, retryable]);
      await session.close();
      return outcome;
    }, worker);
    assert.deepEqual(found, ['CtmatchError', 'E_READ', true]);
  }
  await finish();
});

test("a worker that was given is the giver's: it serves another session after the first is closed", async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const worker = new Worker('/ctmatch/worker.js', { type: 'module' });
    const sizes = [];
    for (const wasmUrl of [undefined, new URL('/ctmatch/wasm/ctmatch_bg.wasm', location.href), '/ctmatch/wasm/ctmatch_bg.wasm']) {
      await window.ctmatch.probe({ worker });
      const session = await window.ctmatch.open({ worker, wasmUrl, backend: 'cpu', model: new URL('/model/manifest.json', location.href) });
      sizes.push((await session.encodeReports(['one text'])).size);
      await session.close();
    }
    worker.terminate();
    return sizes;
  });
  assert.deepEqual(found, [1, 1, 1]);
  await finish();
});

test('`await using` closes the session', async () => {
  const { page, finish } = await tests.newPackagePage();
  for (const worker of ['undefined', 'false']) {
    assert.equal(await attempt(page, `async () => {
      let kept;
      {
        await using session = await window.ctmatch.open({ worker: ${worker} });
        kept = session;
      }
      return kept.diagnostics().catch(({ code }) => code);
    }`), 'CLOSED');
  }
  await finish();
});

test('a trap in the wasm module ends the call and the session; another session, in a worker, works', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ expect: /unreachable/ });
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const session = await open({ worker: false, backend: 'cpu', model: '/model/manifest.json' });
    const file = await (await fetch('/sample/chest.nii.gz')).blob();
    const code = (promise) => promise.then(() => 'no error', (error) => error.code ?? error.name);
    // As a panic inside a Rust future looks from outside: an uncaught error while the call is pending.
    const onProgress = () => setTimeout(() => { throw new WebAssembly.RuntimeError('unreachable'); });
    const from = performance.now();
    const ended = {
      call: await code(session.readVolume(file, { onProgress }).then(() => session.loadModel('/model/manifest.json'))),
      lost: (await session.lost).reason, later: await code(session.readVolume(file)), reopened: await code(open({ worker: false })),
    };
    const ms = performance.now() - from;
    const next = await open({ backend: 'cpu', model: '/model/manifest.json' });
    return { ...ended, ms, texts: (await next.encodeReports(['one text'])).size };
  });
  const { ms, ...rest } = found;
  assert.ok(ms < 20_000, `${ms} ms`);
  assert.deepEqual(rest, { call: 'WASM_ABORT', lost: 'wasm-abort', later: 'WASM_ABORT', reopened: 'WASM_ABORT', texts: 1 });
  await finish();
});
