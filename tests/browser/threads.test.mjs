// The CPU backend in threads: the same numbers as in one, where threads may be, why there is one elsewhere, and that none is left behind.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { attempt, cosine, EXPECTED, host, MIN_COSINE, pkg, SLOW_MS } from './harness.mjs';
import { POLICY_HEADERS } from './serve.mjs';

/** What the server gives instead of a file, by path. */
const instead = new Map();
const tests = host({
  gpu: false,
  intercept: (request, response) => instead.has(request.url) && response.writeHead(200, { 'Content-Type': 'text/javascript' }).end(instead.get(request.url)),
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
  const { info } = session;
  await session.close();
  return {
    vectors: runs.map(({ vector }) => Array.from(vector)), codes: Array.from(runs[0].codes), ms: Math.min(...runs.map(({ timingsMs }) => timingsMs.total)),
    stated: runs[0].provenance.threads,
    info: Object.fromEntries(['backend', 'threads', 'oneThread', 'degraded'].filter((key) => key in info).map((key) => [key, info[key]])),
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
  const three = await attempt(page, encode, { threads: 2 });
  assert.equal(three.info.threads, 2);
  const one = await attempt(page, encode, { repeat: 3, threads: 1 });
  assert.deepEqual(one.info, { backend: 'cpu', threads: 1, oneThread: 'asked', degraded: [] });
  assert.equal(one.stated, 1);
  for (const other of [one.vectors[0], three.vectors[0], expected.image]) assert.ok(1 - cosine(many.vectors[0], other) < 1e-5);
  assert.ok(cosine(many.vectors[0], expected.image) >= MIN_COSINE);
  assert.deepEqual(many.codes, one.codes);
  console.log(`one volume: ${Math.round(one.ms)} ms in one thread, ${Math.round(many.ms)} ms in ${many.info.threads}, ratio ${(one.ms / many.ms).toFixed(2)}`);
  await finish();
});
