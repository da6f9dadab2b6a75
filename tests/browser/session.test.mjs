// The package in the browser: the numbers, the in-thread twin, abort, and every refusal that is not the GPU's.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { attempt, cosine, here, newPackagePage, pkg, SLOW_MS, startBrowser, startServer, www } from './harness.mjs';
import { POLICY_HEADERS } from './serve.mjs';

// The native command's latents of www/sample: { image, texts, order }.
const EXPECTED = process.env.CTMATCH_EXPECTED ?? new URL('./expected/sample.json', import.meta.url);
const MIN_COSINE = 0.99999;

let browser;
let server;
before(async () => {
  browser = await startBrowser();
  server = await startServer();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

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
    timingsMs: image.timingsMs, codes: image.codes.length, info: session.info, zeroShot, answers,
  };
};

test('latents and order equal the native command; the worker and the calling thread agree', { timeout: 2 * SLOW_MS }, async () => {
  const expected = JSON.parse(await readFile(EXPECTED, 'utf8'));
  const { page, finish } = await newPackagePage(browser, server.origin);
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
  await finish();
});

test('abort rejects with the reason within 500 ms in every phase, and the session goes on', { timeout: 2 * SLOW_MS }, async () => {
  const { page, finish } = await newPackagePage(browser, server.origin);
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

test('a model without a text tower scores the labels and refuses the rest by name', { timeout: SLOW_MS }, async () => {
  const own = await startServer({ mounts: { '/ctmatch': pkg, '/test': join(here, 'pages'), '/zero-shot': join(here, 'expected/zero-shot') } });
  const { page, finish } = await newPackagePage(browser, own.origin);
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const failure = (promise) => promise.then(() => 'no error', (error) => [error.code, error.detail.purpose]);
    const scores = async (model) => {
      const session = await open({ backend: 'cpu', model });
      const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
      const accept = volume.findings.filter(({ action }) => action === 'ask').map(({ code }) => code);
      return { session, image: await session.encodeVolume(volume, { accept }), scored: await session.zeroShot(volume, { accept, ask: ['nodules in the lung'] }) };
    };
    const [whole, without] = [await scores('/model/manifest.json'), await scores('/zero-shot/manifest.json')];
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
  const { page, finish } = await newPackagePage(browser, server.origin, { expect: /404/ });
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
    noModel: 'NO_MODEL', notFound: { code: 'NETWORK', url: `${server.origin}/model/nowhere.json`, status: 404 }, foreign: 'NETWORK_POLICY',
    notJson: 'MANIFEST', noVariant: 'MANIFEST', damaged: 'INTEGRITY', cut: 'INTEGRITY', without: 'MANIFEST', offline: 'OFFLINE_MISS',
    noReports: 'TEXT_INPUT', emptyReport: 'TEXT_INPUT', oneString: 'INVALID_ARGUMENT', slice: 'INVALID_ARGUMENT', source: 'INVALID_ARGUMENT',
    spaces: 'INVALID_ARGUMENT', otherSession: 'INVALID_ARGUMENT', closedVolume: 'CLOSED', closed: 'CLOSED', afterClose: 'no error',
  });
  await finish();
});

test('a volume with an open question is not encoded', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await newPackagePage(browser, server.origin);
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

test('policies that block wasm or the worker give an error, not silence', async () => {
  const policy = (change) => ({ ...POLICY_HEADERS, 'Content-Security-Policy': change(POLICY_HEADERS['Content-Security-Policy']) });
  const cases = [
    ['CSP_WASM_BLOCKED', policy((csp) => csp.replace(" 'wasm-unsafe-eval'", '')), () => ({})],
    ['CSP_WASM_BLOCKED', policy((csp) => csp.replace(" 'wasm-unsafe-eval'", '')), () => ({ worker: false })],
    ['WORKER_BLOCKED', policy((csp) => csp.replace("worker-src 'self'", "worker-src 'none'")), () => ({})],
    ['WORKER_BLOCKED', POLICY_HEADERS, () => ({ worker: () => new Worker('/nowhere.js', { type: 'module' }) })],
    ['NETWORK', POLICY_HEADERS, () => ({ wasmUrl: '/nowhere.wasm' })],
    ['NETWORK', POLICY_HEADERS, () => ({ wasmUrl: '/style.css' })],
  ];
  for (const [code, headers, options] of cases) {
    const own = await startServer({ headers });
    const { page, finish } = await newPackagePage(browser, own.origin, { expect: /Content Security Policy|violates|404/ });
    const found = await attempt(page, `async () => (await window.ctmatch.open((${options})())).info`);
    assert.equal(found.error?.code, code, JSON.stringify(found));
    await finish();
    await own.close();
  }
});

test('a trap in the wasm module ends the call and the session', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await newPackagePage(browser, server.origin, { expect: /unreachable/ });
  const found = await attempt(page, async () => {
    const { open } = window.ctmatch;
    const session = await open({ worker: false, backend: 'cpu', model: '/model/manifest.json' });
    const file = await (await fetch('/sample/chest.nii.gz')).blob();
    const code = (promise) => promise.then(() => 'no error', (error) => error.code ?? error.name);
    // As a panic inside a Rust future looks from outside: an uncaught error while the call is pending.
    const onProgress = () => setTimeout(() => { throw new WebAssembly.RuntimeError('unreachable'); });
    return {
      call: await code(session.readVolume(file, { onProgress }).then(() => session.loadModel('/model/manifest.json'))),
      lost: (await session.lost).reason, later: await code(session.readVolume(file)), reopened: await code(open({ worker: false })),
      worker: await code(open({ backend: 'cpu' })),
    };
  });
  assert.deepEqual(found, { call: 'WASM_ABORT', lost: 'wasm-abort', later: 'WASM_ABORT', reopened: 'WASM_ABORT', worker: 'no error' });
  await finish();
});
