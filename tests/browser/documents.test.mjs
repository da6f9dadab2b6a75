// The code of pkg/README.md and pkg/RECIPES.md that consumers.test.mjs does not run.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { README, RECIPES } from './fences.mjs';
import { attempt, host, repository, SLOW_MS, startServer, www } from './harness.mjs';
import { POLICY_HEADERS } from './serve.mjs';

// Served as /documents, with the package where a bundler would have put it.
const folder = mkdtempSync(join(tmpdir(), 'ctmatch-documents-'));
for (const [name, code] of Object.entries({ ...README, ...RECIPES })) writeFileSync(join(folder, name), code.replace("'ctmatch'", "'/ctmatch/index.js'").replace("'@niivue/niivue'", "'/niivue/index.js'"));
after(() => rm(folder, { recursive: true, force: true }));
const NIIVUE = join(repository, 'tests/browser/node_modules/@niivue/niivue/dist');
const tests = host({ mounts: { '/documents': folder, '/niivue': NIIVUE } });

const openSample = async () => {
  const { open } = window.ctmatch;
  const session = await open({ model: '/model/manifest.json', backend: 'cpu' });
  const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
  window.sample = { session, volume };
};

test('every piece of code is run', async () => {
  const runners = await Promise.all(['documents.test.mjs', 'consumers.test.mjs'].map((name) => readFile(join(repository, 'tests/browser', name), 'utf8')));
  for (const name of [...Object.keys(README), ...Object.keys(RECIPES)]) {
    assert.ok(runners.some((text) => text.includes(`${name}'`)), name);
  }
});

test("the front page has the package's example", async () => {
  assert.ok((await readFile(join(repository, 'README.md'), 'utf8')).includes(`\n\`\`\`js\n${README['rank.js']}\`\`\`\n`));
});

test('ask first', async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const { openAfterAsking } = await import('/documents/ask-first.js');
    const options = { model: '/model/manifest.json' };
    const asked = [];
    const refused = await openAfterAsking(options, (advice) => { asked.push(advice); return false; });
    const session = await openAfterAsking(options, async () => true);
    const { backend } = session.info;
    await session.close();
    return { asked, refused: refused === undefined, backend };
  });
  assert.deepEqual([found.asked.length, found.asked[0].variant, found.refused, found.backend], [1, 'q8', true, 'cpu']);
  assert.ok(found.asked[0].downloadBytes > 1e6);
  await finish();
});

test('explain', async () => {
  const { page, finish } = await tests.newPackagePage();
  assert.equal(await attempt(page, openSample), undefined);
  const found = await attempt(page, async () => {
    const { explain } = await import('/documents/explain.js');
    const { session, volume } = window.sample;
    const { map, rows, overlay } = await explain(session, volume, 'There is a nodule.', 'No nodule.');
    return { score: map.score, sum: map.sum, rows: rows.map(({ index }) => index), top: map.top.map(({ index, centerMm }) => [index, centerMm.length]), bytes: overlay.size };
  });
  assert.equal(found.error, undefined);
  assert.ok(Math.abs(found.score - found.sum) < 1e-4 && found.bytes > 352);
  assert.deepEqual([found.rows, found.top[0][1]], [found.top.slice(0, 2).map(([index]) => index), 3]);
  await finish();
});

test('cancel; encode again', async () => {
  const { page, finish } = await tests.newPackagePage();
  assert.equal(await attempt(page, openSample), undefined);
  const found = await attempt(page, async () => {
    const { encodeWithCancel } = await import('/documents/with-cancel.js');
    const { encodeAgain } = await import('/documents/encode-again.js');
    const { session, volume } = window.sample;
    const button = document.createElement('button');
    const bar = { set value(done) { this.last = done; if (this.stop) button.click(); } };
    const whole = await encodeWithCancel(session, volume, { button, bar });
    const { last } = bar;
    const cancelled = await encodeWithCancel(session, volume, { button, bar: Object.assign(bar, { stop: true }) });

    let calls = 0;
    let recovered = 0;
    const failing = (code) => ({
      encodeVolume: (given) => (calls++ === 0 ? Promise.reject(new window.ctmatch.CtmatchError(code, 'made up')) : session.encodeVolume(given)),
      recover: async () => { recovered += 1; },
    });
    const again = await encodeAgain(failing('DEVICE_LOST'), volume);
    calls = 0;
    const other = await encodeAgain(failing('GPU_OOM'), volume).catch(({ code }) => code);
    return { whole: whole.vector.length, last, cancelled: cancelled === undefined, again: again.vector.length, recovered, other };
  });
  assert.deepEqual({ ...found, last: found.last > 0 && found.last < 1 }, { whole: 96, last: true, cancelled: true, again: 96, recovered: 1, other: 'GPU_OOM' });
  await finish();
});

test('a map over its volume in NiiVue', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  assert.equal(await attempt(page, openSample), undefined);
  const found = await attempt(page, async () => {
    const { showMap } = await import('/documents/niivue-overlay.js');
    const { session, volume } = window.sample;
    const map = await session.explain(volume, { label: 'Lung nodule', volume });
    const file = new File([await (await fetch('/sample/chest.nii.gz')).blob()], 'chest.nii.gz');
    const canvas = Object.assign(document.createElement('canvas'), { width: 300, height: 200 });
    document.body.append(canvas);
    const viewer = await showMap(canvas, file, volume, map);
    const { volumes: [base, overlay], gl } = viewer;
    viewer.drawScene();
    const pixels = new Uint32Array(gl.drawingBufferWidth * gl.drawingBufferHeight);
    gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(pixels.buffer));
    return {
      dims: [base, overlay].map(({ hdr }) => hdr.dims.slice(1, 4)),
      // At the middle of each cube, in the viewer's own coordinates.
      top: map.top.map(({ value, centerMm }) => value - overlay.getValue(...overlay.mm2vox(centerMm))), colours: new Set(pixels).size,
    };
  });
  assert.equal(found.error, undefined, JSON.stringify(found.error));
  assert.deepEqual([found.dims, found.top.length], [Array(2).fill([208, 160, 30]), 10]);
  assert.ok(found.colours > 100, `${found.colours} colours`);
  for (const off of found.top) assert.ok(Math.abs(off) < 1e-6, JSON.stringify(found));
  await finish();
});

test('a shared device', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async () => {
    const { openOn } = await import('/documents/shared-device.js');
    const options = { model: '/model/manifest.json', allowSoftwareAdapter: true, selfTest: false };
    const { device, session } = await openOn(await navigator.gpu.requestAdapter(), options);
    const { backend, gpuBytes } = session.info;
    await session.close();
    const { size } = device.createBuffer({ size: 4, usage: GPUBufferUsage.COPY_DST });
    return { backend, there: gpuBytes > 0, subgroups: device.features.has('subgroups'), size };
  });
  assert.deepEqual(found, { backend: 'webgpu', there: true, subgroups: true, size: 4 });
  await finish();
});

test('kept latents', async () => {
  const { page, finish } = await tests.newPackagePage();
  assert.equal(await attempt(page, openSample), undefined);
  const found = await attempt(page, async () => {
    const { keep, rankKept } = await import('/documents/kept-latents.js');
    const { session, volume } = window.sample;
    const image = await session.encodeVolume(volume);
    const reports = await session.encodeReports(['one text', 'another']);
    const { rows } = await session.rank(image, reports);
    const kept = await rankKept(session, ...keep(image, reports));
    return { before: rows, after: kept.rows };
  });
  assert.equal(found.before.length, 2);
  assert.deepEqual(found.after, found.before);
  await finish();
});

test('views, an archive, a multiple-choice test', async () => {
  const { page, finish } = await tests.newPackagePage();
  assert.equal(await attempt(page, openSample), undefined);
  const found = await attempt(page, async () => {
    const { ranksByView } = await import('/documents/views.js');
    const { addAndSearch } = await import('/documents/archive.js');
    const { judge } = await import('/documents/judge.js');
    const { session, volume } = window.sample;
    const image = await session.encodeVolume(volume);
    const texts = [{ id: 'a', text: 'Nodule in the left lung.', impression: 'Lung nodule.' }, { id: 'b', text: 'Pleural effusion on the right side.', impression: 'Effusion.' }];
    const first = await addAndSearch(session, undefined, [{ id: 'v', latent: image }], texts, image);
    const more = await addAndSearch(session, first.archive, [], [{ id: 'c', text: 'No finding.' }], image);
    const options = texts.map(({ text }) => text);
    return {
      views: await ranksByView(session, image, texts), hits: [first.hits.length, more.hits.length],
      summary: await judge(session, [0, 1].map((truth) => ({ id: String(truth), patient: 'p', image, options, truth }))),
    };
  });
  assert.equal(found.error, undefined, JSON.stringify(found.error));
  assert.deepEqual(Object.values(found.views).map((ids) => ids.toSorted()), Array(4).fill(['a', 'b']));
  assert.deepEqual(found.hits, [2, 3]);
  assert.deepEqual([found.summary.items, found.summary.top1.value, found.summary.meanRank.value], [2, 0.5, 1.5]);
  await finish();
});

test('a model in numbers', async () => {
  const { page, finish } = await tests.newPackagePage();
  assert.equal(await attempt(page, openSample), undefined);
  const found = await attempt(page, async (names) => {
    const { evaluateModel } = await import('/documents/evaluate.js');
    const { session, volume } = window.sample;
    const first = await session.encodeVolume(volume);
    const other = await session.readVolume(await (await fetch('/sample/chest-2.nii.gz')).blob());
    const images = new Map([['a', first], ['b', await session.encodeVolume(other)]]);
    const reports = [{ id: 'a', findings: 'There is a nodule in the left lung.', impression: 'Lung nodule.' }, { id: 'b', findings: 'The heart is enlarged.', impression: 'Cardiomegaly.' }];
    const row = (id, finding) => [id, ...names.map((name) => Number(name === finding))].join();
    const labels = [['VolumeName', ...names].join(), row('a', 'Lung nodule'), row('b', 'Cardiomegaly')].join('\n');
    return evaluateModel(session, reports, labels, images);
  }, JSON.parse(await readFile(join(www, 'model/manifest.json'))).recipes.zeroShot.labels);
  assert.equal(found.error, undefined, JSON.stringify(found.error));
  assert.deepEqual([found.choice.items, found.retrieval.pairs, found.zeroShot.volumes], [2, 2, 2]);
  assert.deepEqual(found.choice.byKind.map(({ kind }) => kind), ['presence']);
  assert.ok(found.retrieval.reportToVolumeGain.ndcg[1].value <= 1 && found.zeroShot.macroAuroc.value <= 1);
  assert.deepEqual(found.zeroShot.labels.filter(({ auroc }) => auroc).map(({ label }) => label), ['Cardiomegaly', 'Lung nodule']);
  await finish();
});

test('a model from a folder; offline once the wasm module is there', async () => {
  const { page, finish } = await tests.newPackagePage();
  await attempt(page, () => document.body.append(Object.assign(document.createElement('input'), { type: 'file', webkitdirectory: true })));
  await page.setInputFiles('input', join(www, 'model'));
  const found = await attempt(page, async () => {
    const { openLocal } = await import('/documents/local-model.js');
    const input = document.querySelector('input');
    const results = [];
    for (const network of ['same-origin', 'offline']) {
      const session = await openLocal(input, { backend: 'cpu', network });
      results.push({ urls: session.info.urls.map((url) => new URL(url).pathname), texts: (await session.encodeReports(['one text'])).size });
      await session.close();
    }
    return results;
  });
  assert.deepEqual(found, [{ urls: ['/ctmatch/wasm/ctmatch_cpu_bg.wasm'], texts: 1 }, { urls: [], texts: 1 }]);
  await finish();
});

test('a model server on another origin', async () => {
  const port = await new Promise((resolve) => {
    const probing = createServer().listen(0, '127.0.0.1', () => {
      const { port: free } = probing.address();
      probing.close(() => resolve(free));
    });
  });
  const models = `http://127.0.0.1:${port}`;
  const policy = POLICY_HEADERS['Content-Security-Policy'].replace("connect-src 'self'", `connect-src 'self' ${models}`);
  const { 'Connection-Allowlist': _, ...headers } = POLICY_HEADERS;
  const own = await startServer({ mounts: { '/documents': folder }, headers: { ...headers, 'Content-Security-Policy': policy } });
  const server = spawn(process.execPath, [join(folder, 'model-server.mjs'), join(www, 'model'), own.origin, String(port)], { stdio: 'inherit' });
  try {
    for (let tries = 0; !(await fetch(models).catch(() => undefined)); tries += 1) {
      assert.ok(tries < 100, 'the server did not start');
      await new Promise((resolve) => { setTimeout(resolve, 100); });
    }
    const { page, finish } = await tests.newPackagePage({ origin: own.origin, allow: [models], expect: /404/ });
    const found = await attempt(page, async (models) => {
      const { openFrom } = await import('/documents/other-origin.js');
      const session = await openFrom(models, { backend: 'cpu' });
      const result = { foreign: session.info.urls.filter((url) => url.startsWith(models)).length, texts: (await session.encodeReports(['one text'])).size };
      await session.close();
      const range = await fetch(`${models}/tokenizer.json`, { headers: { Range: 'bytes=5-' } });
      return { ...result, range: [range.status, range.headers.get('content-range')], missing: (await fetch(`${models}/nothing`)).status };
    }, models);
    assert.deepEqual(found, { foreign: 4, texts: 1, range: [206, 'bytes 5-5274/5275'], missing: 404 });
    await finish();
  } finally {
    server.kill();
    await own.close();
  }
});
