// Weights on their way into a session: the cache, broken downloads, wrong bytes, full disks, no network.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { attempt as raw, host, pkg, SLOW_MS, www } from './harness.mjs';

const SHARDS = 4;
// Whatever fails, fails before this, also on a machine that does other work.
const SOON_MS = 20_000;
// Silence that the tests wait for; the package's own is longer.
const STALL_MS = 2000;
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** The embedded model with its tensors dealt out to several shards: `{ folder, files: Map<path, bytes>, manifest }`. */
function splitModel() {
  const folder = mkdtempSync(join(tmpdir(), 'ctmatch-split-'));
  const manifest = JSON.parse(readFileSync(join(www, 'model/manifest.json'), 'utf8'));
  const [variant] = Object.values(manifest.variants);
  const whole = readFileSync(join(www, 'model', variant.shards[0].path));
  const start = 8 + Number(whole.readBigUInt64LE(0));
  const { __metadata__: metadata, ...tensors } = JSON.parse(whole.subarray(8, start));
  const side = [manifest.files.tokenizer, variant.prompts];
  const files = new Map(side.map(({ path }) => [path, readFileSync(join(www, 'model', path))]));
  const dealt = Array.from({ length: SHARDS }, () => []);
  const held = dealt.map(() => 0);
  for (const tensor of Object.entries(tensors).sort(([, { data_offsets: [a, b] }], [, { data_offsets: [c, d] }]) => d - c - (b - a))) {
    const least = held.indexOf(Math.min(...held));
    dealt[least].push(tensor);
    held[least] += tensor[1].data_offsets[1] - tensor[1].data_offsets[0];
  }
  variant.shards = dealt.map((part, i) => {
    const header = metadata ? { __metadata__: metadata } : {};
    const data = [];
    let at = 0;
    for (const [name, tensor] of part) {
      const bytes = whole.subarray(start + tensor.data_offsets[0], start + tensor.data_offsets[1]);
      header[name] = { ...tensor, data_offsets: [at, at + bytes.length] };
      data.push(bytes);
      at += bytes.length;
    }
    let text = JSON.stringify(header);
    text = text.padEnd(Math.ceil(text.length / 8) * 8);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    const bytes = Buffer.concat([length, Buffer.from(text), ...data]);
    const path = `part-${i + 1}.safetensors`;
    files.set(path, bytes);
    return { path, bytes: bytes.length, sha256: sha256(bytes) };
  });
  files.set('manifest.json', Buffer.from(JSON.stringify(manifest)));
  for (const [path, bytes] of files) writeFileSync(join(folder, path), bytes);
  return { folder, files, manifest, shards: variant.shards, listed: [manifest.files.tokenizer, ...variant.shards, variant.prompts] };
}

const model = splitModel();
after(() => rmSync(model.folder, { recursive: true, force: true }));
const total = model.listed.reduce((sum, { bytes }) => sum + bytes, 0);
/** What the server was asked for below /split. @type {{ path: string, range?: string, version?: string }[]} */
let asked = [];
/** What a test lets the server do instead. */
let rule;
const tests = host({
  gpu: false,
  mounts: { '/split': model.folder },
  intercept(request, response) {
    if (!request.url.startsWith('/split/')) return false;
    const path = request.url.slice('/split/'.length);
    asked.push({ path, range: request.headers.range, version: request.headers['if-range'] });
    return rule?.(path, request, response) ?? false;
  },
});
/** The latent of the text with the embedded model as it is, in one shard. */
let reference;
/** That latent wherever it is within rounding: the module with threads multiplies and adds in one step, the other in two. */
const known = (value) => {
  if (Array.isArray(value) && value.length === reference?.length && value.every((x, i) => Math.abs(x - reference[i]) < 1e-6)) return reference;
  if (value && typeof value === 'object') for (const [key, member] of Object.entries(value)) value[key] = known(member);
  return value;
};
const attempt = async (...args) => known(await raw(...args));
beforeEach(async () => {
  rule = undefined;
  if (!reference) {
    const { page, finish } = await newPage();
    ({ vector: reference } = await load(page, { model: '/model/manifest.json', cache: 'none' }));
    assert.ok(reference.length > 0);
    await finish();
  }
  asked = [];
});

/** In every page: `load` opens a session, loads the model and encodes a text; `entries` lists the cache. */
function helpers() {
  window.track = (stopAt) => {
    const controller = new AbortController();
    const seen = { bytes: {}, events: 0, loaded: 0, reason: new DOMException('enough', 'AbortError') };
    const onProgress = ({ phase, loadedBytes, totalBytes, source }) => {
      if (phase !== 'weights') return;
      seen.bytes[source] = (seen.bytes[source] ?? 0) + loadedBytes - seen.loaded;
      Object.assign(seen, { loaded: loadedBytes, total: totalBytes, events: seen.events + 1 });
      if (loadedBytes >= stopAt) {
        seen.stopped ??= performance.now();
        controller.abort(seen.reason);
      }
    };
    return { seen, call: { signal: controller.signal, onProgress } };
  };
  window.vector = async (session) => [...(await session.encodeReports(['two small nodules in the left lower lobe'])).vectors];
  window.load = async ({ model = '/split/manifest.json', ...options } = {}) => {
    const result = {};
    const from = performance.now();
    let session;
    try {
      session = await window.ctmatch.open({ backend: 'cpu', ...options });
      const { seen, call } = window.track();
      result.bytes = seen.bytes;
      await session.loadModel(model, call);
      Object.assign(result, { events: seen.events, loaded: seen.loaded, total: seen.total, vector: await window.vector(session) });
    } catch (error) {
      Object.assign(result, { code: error.code ?? error.name, retryable: error.retryable });
    }
    result.ms = performance.now() - from;
    Object.assign(result, { degraded: session?.info.degraded, urls: session?.info.urls });
    await session?.close();
    return result;
  };
  window.entries = async () => {
    const found = {};
    try {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('ctmatch');
      for await (const [name, handle] of folder.entries()) found[name] = (await handle.getFile()).size;
    } catch (error) {
      if (error.name !== 'NotFoundError') throw error;
      return null;
    }
    return found;
  };
  window.overwrite = async (name, change) => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('ctmatch');
    const handle = await folder.getFileHandle(name);
    const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
    const stream = await handle.createWritable();
    await stream.write(change(bytes));
    await stream.close();
  };
}

const newPage = (expect) => tests.newPackagePage({ expect, init: helpers });
/** What fails, fails soon. */
const load = async (page, options = {}) => {
  const found = await attempt(page, (o) => window.load(o), options);
  assert.ok(!found.code || found.ms < SOON_MS, `${found.code} after ${found.ms} ms`);
  return found;
};
const entries = (page) => attempt(page, () => window.entries());
const addresses = () => model.listed.map(({ sha256: address }) => address);
const files = () => asked.filter(({ path }) => path !== 'manifest.json');
const LOST = /net::ERR|503/;

/** The answer's beginning, then nothing more: the connection ends, or stays silent. */
const half = (path, { end }) => (asking, request, response) => {
  if (asking !== path) return false;
  const bytes = model.files.get(path);
  response.writeHead(200, { 'Content-Length': bytes.length, ETag: '"one"' });
  response.write(bytes.subarray(0, bytes.length >> 1), () => { if (end) setTimeout(() => response.destroy(), 100); });
  return true;
};

/** The bytes in pieces, each some time after the one before. */
const slowly = (response, bytes, pieces, pauseMs) => {
  response.writeHead(200, { 'Content-Length': bytes.length });
  const piece = Math.ceil(bytes.length / pieces);
  const next = (at) => (at < bytes.length ? response.write(bytes.subarray(at, at + piece), () => setTimeout(next, pauseMs, at + piece)) : response.end());
  next(0);
  return true;
};

/** @param {any} result @param {Record<string, number>} bytes by source */
function assertLoaded(result, bytes, message) {
  assert.deepEqual([result.error, result.code], [undefined, undefined], message);
  assert.deepEqual(result.bytes, bytes, message);
  assert.deepEqual([result.loaded, result.total], [total, total], message);
  assert.deepEqual(result.vector, reference, message);
}

test('first from the network, then from the cache, in a worker and in the calling thread', async () => {
  const { page, finish } = await newPage();
  assert.equal(await entries(page), null);
  assertLoaded(await load(page), { network: total });
  assert.deepEqual(files().map(({ path, range }) => [path, range]), model.listed.map(({ path }) => [path, undefined]));
  const kept = await entries(page);
  for (const { sha256: address, bytes } of model.listed) assert.equal(kept[address], bytes);
  assert.equal(Object.keys(kept).length, model.listed.length + 2, 'and the manifest and the wasm module for offline');
  asked = [];
  for (const worker of [undefined, false]) {
    const again = await load(page, { worker });
    assertLoaded(again, { cache: total });
    assert.deepEqual([files(), again.degraded], [[], []]);
  }
  await finish();
});

test('a cut download is resumed by range', async () => {
  const { path, bytes } = model.shards[1];
  for (const worker of [undefined, false]) {
    const { page, finish } = await newPage(LOST);
    const before = model.listed.slice(0, 2).reduce((sum, file) => sum + file.bytes, 0);
    asked = [];
    rule = half(path, { end: true });
    const cut = await load(page, { worker });
    assert.deepEqual([cut.code, cut.retryable], ['NETWORK', true]);
    const got = cut.bytes.network - before;
    assert.ok(got > 0 && got < bytes);
    assert.equal((await entries(page))[`${model.shards[1].sha256}.part`], got);
    // Once more while the server fails: nothing is lost.
    rule = (asking, request, response) => asking === path && response.writeHead(503).end();
    assert.deepEqual((await load(page, { worker })).code, 'NETWORK');
    asked = [];
    // The same version: the server of these tests has another tag for the file.
    rule = (asking, request) => { if (request.headers['if-range'] === '"one"') delete request.headers['if-range']; };
    assertLoaded(await load(page, { worker }), { cache: before + got, network: total - before - got });
    assert.deepEqual(files()[0], { path, range: `bytes=${got}-`, version: '"one"' });
    assert.deepEqual(Object.keys(await entries(page)).filter((name) => name.includes('.')), []);
    await finish();
  }
});

test('a server without ranges, or with another version, starts the file again', async () => {
  const { path } = model.shards[0];
  const answers = {
    'another version': () => false, // the tag differs, so the answer is 200
    416: (response) => response.writeHead(416).end(),
    'another range': (response) => response.writeHead(206, { 'Content-Range': 'bytes 0-4/5' }).end('wrong'),
    '206 without a range': (response) => response.writeHead(206).end('wrong'),
  };
  for (const [name, answer] of Object.entries(answers)) {
    const { page, finish } = await newPage(/net::ERR|416/);
    rule = half(path, { end: true });
    assert.equal((await load(page)).code, 'NETWORK');
    rule = (asking, request, response) => asking === path && request.headers.range && answer(response);
    assertLoaded(await load(page), { cache: model.listed[0].bytes, network: total - model.listed[0].bytes }, name);
    await finish();
  }
});

test('wrong bytes end the load and are not kept', async () => {
  const { page, finish } = await newPage(LOST);
  const { path, bytes, sha256: address } = model.shards[0];
  const wrong = Buffer.from(model.files.get(path));
  wrong[bytes - 1] ^= 1;
  const refused = async () => {
    const found = await load(page);
    assert.deepEqual([found.code, found.retryable], ['INTEGRITY', true]);
    assert.deepEqual(Object.keys(await entries(page)).filter((name) => name.startsWith(address)), []);
  };
  // Whole, and as the rest of a download that began well.
  rule = (asking, request, response) => asking === path && response.writeHead(200, { 'Content-Length': bytes }).end(wrong);
  await refused();
  rule = half(path, { end: true });
  assert.equal((await load(page)).code, 'NETWORK');
  rule = (asking, request, response) => {
    if (asking !== path) return false;
    const at = Number(request.headers.range.match(/^bytes=(\d+)-$/)[1]);
    return response.writeHead(206, { 'Content-Range': `bytes ${at}-${bytes - 1}/${bytes}` }).end(wrong.subarray(at));
  };
  await refused();
  // Too long and too short.
  for (const body of [Buffer.concat([wrong, wrong]), wrong.subarray(1)]) {
    rule = (asking, request, response) => asking === path && response.writeHead(200).end(body);
    await refused();
  }
  rule = undefined;
  assert.equal((await load(page)).code, undefined);
  await finish();
});

test('wrong bytes from files, and where the browser computes no hash', async () => {
  const { page, finish } = await newPage();
  const { path, bytes } = model.shards[0];
  const wrong = Buffer.from(model.files.get(path));
  wrong[bytes - 1] ^= 1;
  rule = (asking, request, response) => asking === path && response.writeHead(200, { 'Content-Length': bytes }).end(wrong);
  const fromFiles = (paths) => attempt(page, async (paths) => {
    const files = new Map();
    for (const path of paths) files.set(path, await (await fetch(`/split/${path}`)).blob());
    return window.load({ model: { files } });
  }, paths);
  const paths = [...model.files.keys()];
  assert.equal((await fromFiles(paths)).code, 'INTEGRITY');
  // As on a page that came by http from another host; the module computes it then.
  await page.evaluate(() => Object.defineProperty(crypto, 'subtle', { value: undefined }));
  const plain = { worker: false, cache: 'none' };
  assert.equal((await load(page, plain)).code, 'INTEGRITY');
  rule = undefined;
  assertLoaded(await load(page, plain), { network: total });
  assertLoaded(await fromFiles(paths), { file: total });
  await finish();
});

test('swapped, missing, cut off and slow shards: a code at once or the model, and the next load works', async () => {
  const { page, finish } = await newPage(/net::ERR|404/);
  const [first, second] = model.shards;
  const body = (path) => model.files.get(path);
  const answers = {
    swapped: [['INTEGRITY', true], (path, request, response) => [first.path, second.path].includes(path) &&
      response.writeHead(200).end(body(path === first.path ? second.path : first.path))],
    missing: [['NETWORK', false], (path, request, response) => path === second.path && response.writeHead(404).end()],
    'cut off before the first byte': [['NETWORK', true], (path, request) => path === second.path && request.destroy()],
    'no answer': [['NETWORK', true], (path, request, response) => path === second.path && response.socket.destroy()],
  };
  for (const [name, [expected, answer]] of Object.entries(answers)) {
    rule = answer;
    const found = await load(page);
    assert.deepEqual([found.code, found.retryable], expected, name);
  }
  // Slow, and in many pieces: longer than the silence that ends a download.
  rule = (path, request, response) => path === second.path && !request.headers.range && slowly(response, body(path), 12, STALL_MS / 4);
  const slow = await load(page, { stallMs: STALL_MS });
  assert.deepEqual([slow.code, slow.loaded, slow.vector], [undefined, total, reference]);
  assert.ok(slow.ms > 2 * STALL_MS);
  rule = undefined;
  assertLoaded(await load(page), { cache: total });
  await finish();
});

test('a load that fails: the volume and what was computed stay, and recover brings back the model before', { timeout: SLOW_MS }, async () => {
  const { page, finish } = await newPage(/404/);
  const { path, bytes } = model.shards[2];
  const wrong = Buffer.from(model.files.get(path));
  wrong[bytes >> 1] ^= 1;
  const missing = (absent) => (asking, request, response) => asking === absent && response.writeHead(404).end();
  for (const worker of [undefined, false]) {
    rule = undefined;
    assert.equal(await attempt(page, async (worker) => {
      const session = await window.ctmatch.open({ backend: 'cpu', worker, cache: 'none', model: '/split/manifest.json' });
      const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
      const image = await session.encodeVolume(volume);
      const reports = await session.encodeReports(['one text', 'another']);
      const ranked = async () => JSON.stringify((await session.rank(image, reports)).rows);
      window.kept = { session, volume, image, ranked, before: await ranked() };
    }, worker), undefined);
    // Until the manifest is there, the model before is in use; its device is given back before weights are asked for.
    for (const [name, answer, expected] of [
      ['a damaged shard', (asking, request, response) => asking === path && response.end(wrong), ['INTEGRITY', true, 'NO_MODEL']],
      ['a shard that is not there', missing(path), ['NETWORK', false, 'NO_MODEL']],
      ['nothing there', missing('manifest.json'), ['NETWORK', false, 'the same']],
    ]) {
      rule = answer;
      const failed = await attempt(page, async () => {
        const { session, volume, ranked, before } = window.kept;
        const from = performance.now();
        const { code, retryable } = await session.loadModel('/split/manifest.json').catch((error) => error) ?? {};
        const ms = performance.now() - from;
        const later = await ranked().then((rows) => (rows === before ? 'the same' : rows), (error) => error.code);
        return { found: [code, retryable, later], ms, slice: (await volume.slice('axial', 0)).width };
      });
      assert.deepEqual([failed.found, failed.slice], [expected, 208], name);
      assert.ok(failed.ms < SOON_MS, `${name}: ${failed.ms} ms`);
      rule = undefined;
      const again = await attempt(page, async () => {
        const { session, ranked, before } = window.kept;
        await session.recover();
        return { same: await ranked() === before, vector: await window.vector(session) };
      });
      assert.deepEqual(again, { same: true, vector: reference }, name);
    }
    const last = await attempt(page, async () => {
      const { session, volume, image } = window.kept;
      const { vector } = await session.encodeVolume(volume);
      await session.close();
      return vector.every((value, i) => Math.abs(value - image.vector[i]) < 1e-6);
    });
    assert.equal(last, true);
  }
  await finish();
});

test('a download that stops: its code after the silence, what came is kept, and whoever waited goes on', async () => {
  const { path, bytes, sha256: address } = model.shards[1];
  const before = model.listed.slice(0, 2).reduce((sum, file) => sum + file.bytes, 0);
  const stall = { stallMs: STALL_MS };
  for (const worker of [undefined, false]) {
    const { page, finish } = await newPage(/net::ERR/);
    rule = half(path, { end: false });
    const silent = await load(page, { worker, ...stall });
    assert.deepEqual([silent.code, silent.retryable, silent.bytes.network], ['NETWORK', true, before + (bytes >> 1)]);
    assert.ok(silent.ms > STALL_MS, `${silent.ms} ms`);
    assert.equal((await entries(page))[`${address}.part`], bytes >> 1);
    rule = (asking, request) => { delete request.headers['if-range']; };
    assertLoaded(await load(page, { worker, ...stall }), { cache: before + (bytes >> 1), network: total - before - (bytes >> 1) });

    // Of two sessions one asks, and the other waits for what it holds: when the first gives up, it asks itself.
    await attempt(page, async () => { await (await window.ctmatch.open()).clearCache(); });
    let stops = 1;
    rule = (asking, request, response) => {
      delete request.headers['if-range'];
      if (asking !== path || stops === 0) return false;
      stops -= 1;
      return half(path, { end: false })(asking, request, response);
    };
    const both = await attempt(page, (options) => Promise.all([window.load(options), window.load(options)]), { worker, ...stall });
    assert.deepEqual(both.map(({ code }) => code).sort(), ['NETWORK', undefined]);
    const other = both.find(({ code }) => code === undefined);
    assert.deepEqual([other.vector, other.loaded], [reference, total]);
    assert.ok(both.every(({ ms }) => ms < SOON_MS));
    await finish();
  }
});

test('an answer that never begins, a manifest and a wasm file that stop in the middle', async () => {
  const { page, finish } = await newPage(/net::ERR/);
  const wasm = readFileSync(join(pkg, 'wasm/ctmatch_bg.wasm'));
  const silences = {
    'no answer': ['manifest.json', () => true],
    'half of the manifest': ['manifest.json', (request, response) => half('manifest.json', { end: false })('manifest.json', request, response)],
    'no answer for a shard': [model.shards[0].path, () => true],
    'half of the module': ['module.wasm', (request, response) => response.writeHead(200, { 'Content-Type': 'application/wasm', 'Content-Length': wasm.length }).write(wasm.subarray(0, wasm.length >> 1))],
    'half of the module, without its type': ['module.wasm', (request, response) => response.writeHead(200, { 'Content-Length': wasm.length }).write(wasm.subarray(0, wasm.length >> 1))],
    // Not silent: the connection ends.
    'a module that is cut off': ['module.wasm', (request, response) => {
      response.writeHead(200, { 'Content-Type': 'application/wasm', 'Content-Length': wasm.length });
      return response.write(wasm.subarray(0, 1000), () => setTimeout(() => response.destroy(), 100));
    }],
  };
  for (const [name, [path, answer]] of Object.entries(silences)) {
    rule = (asking, request, response) => {
      if (asking !== path) return false;
      answer(request, response);
      return true;
    };
    const found = await load(page, { stallMs: STALL_MS, cache: 'none', ...(path === 'module.wasm' && { wasmUrl: '/split/module.wasm' }) });
    assert.deepEqual([found.code, found.retryable], ['NETWORK', true], name);
  }
  rule = (asking, request, response) => asking === 'module.wasm' && response.writeHead(200, { 'Content-Type': 'application/wasm' }).end(wasm);
  assertLoaded(await load(page, { stallMs: STALL_MS, cache: 'none', wasmUrl: '/split/module.wasm' }), { network: total });
  await finish();
});

test('absurd sizes are refused before anything of that size is requested or held', async () => {
  const { page, finish } = await newPage(/net::ERR/);
  const refused = async (change) => {
    const manifest = structuredClone(model.manifest);
    change(manifest, Object.values(manifest.variants)[0]);
    asked = [];
    rule = (path, request, response) => path === 'manifest.json' && response.end(JSON.stringify(manifest));
    const { code, retryable } = await load(page, { cache: 'none' });
    return [code, retryable, files().length];
  };
  for (const bytes of [1025 * 2 ** 20 + 1, 2 ** 33, Number.MAX_SAFE_INTEGER]) {
    assert.deepEqual(await refused((_, variant) => { variant.shards[2].bytes = bytes; }), ['MANIFEST', false, 0], `a shard of ${bytes} bytes`);
    assert.deepEqual(await refused((_, variant) => { variant.prompts.bytes = bytes; }), ['MANIFEST', false, 0], `prompts of ${bytes} bytes`);
  }
  assert.deepEqual(await refused((manifest) => { manifest.files.tokenizer.bytes = 32 * 2 ** 20 + 1; }), ['MANIFEST', false, 0]);

  // A manifest without end.
  let sent = 0;
  rule = (path, request, response) => {
    if (path !== 'manifest.json') return false;
    const more = () => {
      while (!response.destroyed && sent < 2 ** 30) {
        sent += 2 ** 20;
        if (!response.write(' '.repeat(2 ** 20))) return;
      }
    };
    response.on('drain', more);
    more();
    return true;
  };
  const endless = await load(page, { cache: 'none' });
  assert.deepEqual([endless.code, endless.retryable], ['MANIFEST', false]);
  assert.ok(sent < 2 ** 27, `${sent} bytes`);

  // A size that is allowed and that the browser cannot give.
  rule = undefined;
  const none = await attempt(page, (bytes) => {
    const { Uint8Array: real } = window;
    window.Uint8Array = new Proxy(real, { construct(target, args) {
      if (args[0] === bytes) throw new RangeError('Array buffer allocation failed');
      return Reflect.construct(target, args);
    } });
    return window.load({ cache: 'none', worker: false }).finally(() => { window.Uint8Array = real; });
  }, model.shards[2].bytes);
  assert.deepEqual([none.code, none.retryable], ['LIMITS', false]);
  assertLoaded(await load(page, { cache: 'none', worker: false }), { network: total });
  await finish();
});

test('weights that are no numbers are refused, and sound ones load in the same page', async () => {
  const { page, finish } = await newPage();
  const spoilt = (value, only = () => true) => {
    const manifest = structuredClone(model.manifest);
    const files = new Map();
    let tensors = 0;
    for (const shard of Object.values(manifest.variants)[0].shards) {
      const bytes = Buffer.from(model.files.get(shard.path));
      const start = 8 + Number(bytes.readBigUInt64LE(0));
      const { __metadata__: _, ...held } = JSON.parse(bytes.subarray(8, start));
      for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(held)) {
        if (dtype !== 'F32' || !only(name)) continue;
        tensors += 1;
        for (let at = start + from; at < start + to; at += 4) bytes.writeFloatLE(value, at);
      }
      shard.sha256 = sha256(bytes);
      files.set(shard.path, bytes);
    }
    assert.notDeepEqual(manifest, model.manifest);
    return { tensors, files: files.set('manifest.json', JSON.stringify(manifest)) };
  };
  const one = (name) => (other) => other === name;
  const cases = [
    ['all', spoilt(NaN), [true, false], 'BAD_RESULT'],
    ['one of the text tower', spoilt(NaN, one('text.layer.0.context.bias')), [true, false], 'BAD_RESULT'],
    ['an infinite one of the text tower', spoilt(Infinity, one('text.embeddings.norm.bias')), [true, false], 'BAD_RESULT'],
    ['one of the image tower', spoilt(NaN, one('vision.spatial.0.ff.norm.bias')), [true], 'SELF_TEST_FAILED'],
    ['an infinite one of the image tower', spoilt(-Infinity, one('vision.patch.linear.bias')), [true], 'SELF_TEST_FAILED'],
  ];
  for (const [name, { tensors, files: given }, selfTests, expected] of cases) {
    assert.ok(name === 'all' ? tensors > 10 : tensors === 1, name);
    rule = (path, request, response) => given.has(path) && response.end(given.get(path));
    for (const selfTest of selfTests) {
      const { code, vector } = await load(page, { selfTest, cache: 'none', worker: false });
      assert.deepEqual([code, vector], [expected, undefined], `${name}, self-test ${selfTest}`);
    }
    if (expected !== 'SELF_TEST_FAILED') continue;
    // Without known answers the volume is refused.
    const encoded = await attempt(page, async () => {
      const session = await window.ctmatch.open({ backend: 'cpu', worker: false, cache: 'none', selfTest: false, model: '/split/manifest.json' });
      const volume = await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob());
      const code = await session.encodeVolume(volume).then(() => 'a result', (error) => error.code);
      await session.close();
      return code;
    });
    assert.equal(encoded, 'BAD_RESULT', name);
  }
  rule = undefined;
  for (const worker of [false, undefined]) assertLoaded(await load(page, { cache: 'none', worker }), { network: total });
  await finish();
});

test('two tabs at once load every file once', async () => {
  const { page, finish } = await newPage();
  const other = await page.context().newPage();
  await other.addInitScript(helpers);
  await other.goto(page.url());
  await other.evaluate(async () => { window.ctmatch = await import('/ctmatch/index.js'); });
  const found = await Promise.all([load(page), load(other)]);
  for (const result of found) assert.deepEqual([result.vector, result.loaded, result.degraded], [reference, total, []]);
  assert.deepEqual(files().map(({ path }) => path).sort(), model.listed.map(({ path }) => path).sort());
  // One clears while the other has the model in use, and loads again.
  await attempt(other, async () => { await (await window.ctmatch.open()).clearCache(); });
  assertLoaded(await load(page), { network: total });
  await finish();
});

test('a damaged cache entry is fetched again', async () => {
  const { page, finish } = await newPage();
  await load(page);
  asked = [];
  await attempt(page, async ([changed, torn]) => {
    await window.overwrite(changed, (bytes) => bytes.map((byte, i) => (i === 1000 ? byte ^ 1 : byte)));
    await window.overwrite(torn, (bytes) => bytes.subarray(0, 1000));
  }, [model.shards[0].sha256, model.shards[2].sha256]);
  const network = model.shards[0].bytes + model.shards[2].bytes;
  assertLoaded(await load(page), { cache: total - network, network });
  assert.deepEqual(files().map(({ path }) => path), [model.shards[0].path, model.shards[2].path]);
  asked = [];
  assertLoaded(await load(page), { cache: total });
  await finish();
});

test('abort in mid-shard: the session goes on, and so does the download', async () => {
  const { path, bytes } = model.shards[1];
  const before = model.listed.slice(0, 2).reduce((sum, file) => sum + file.bytes, 0);
  for (const worker of [undefined, false]) {
    for (const cache of ['opfs', 'memory']) {
      const { page, finish } = await newPage(/net::ERR/);
      rule = half(path, { end: false });
      await attempt(page, async ([options, stopAt]) => {
        const session = await window.ctmatch.open({ backend: 'cpu', ...options });
        window.session = session;
        const { seen, call } = window.track(stopAt);
        window.outcome = await session.loadModel('/split/manifest.json', call).catch((error) => ({ reason: error === seen.reason, ms: performance.now() - seen.stopped }));
      }, [{ worker, cache }, before + (bytes >> 1)]);
      rule = (asking, request) => { delete request.headers['if-range']; };
      const found = await attempt(page, async () => {
        const { session, outcome } = window;
        const { seen, call } = window.track();
        await session.loadModel('/split/manifest.json', call);
        const result = { outcome, ...seen, vector: await window.vector(session) };
        await session.close();
        return result;
      });
      assert.ok(found.outcome?.reason && found.outcome.ms < 500, JSON.stringify(found.outcome));
      const kept = before + (bytes >> 1);
      assertLoaded(found, { cache: kept, network: total - kept }, `${worker} ${cache}`);
      await finish();
    }
  }
});

test('a full disk, or none: the load goes on from memory and says so', async () => {
  const { page, finish } = await newPage();
  await attempt(page, async () => (await window.ctmatch.open({ backend: 'cpu' })).close()); // the wasm module is stored before the disk is full
  const full = await attempt(page, async () => window.load({ worker: () => new Worker('/test/full-disk-worker.js', { type: 'module' }) }));
  assertLoaded(full, { network: total });
  assert.deepEqual(full.degraded, ['cache: quota']);
  assert.ok(!Object.keys(await entries(page)).some((name) => name.endsWith('.part')));
  // What was stored before the disk was full is of use; then the disk has room again.
  const next = await load(page);
  assert.ok(next.bytes.cache > 0 && next.bytes.network > 0 && next.degraded.length === 0);
  assertLoaded(await load(page), { cache: total });

  const thread = await attempt(page, async () => {
    await (await window.ctmatch.open()).clearCache();
    const { write } = FileSystemWritableFileStream.prototype;
    FileSystemWritableFileStream.prototype.write = async () => { throw new DOMException('full', 'QuotaExceededError'); };
    const result = await window.load({ worker: false });
    FileSystemWritableFileStream.prototype.write = write;
    return result;
  });
  assertLoaded(thread, { network: total });
  assert.deepEqual(thread.degraded, ['cache: quota']);

  // No private file system, or one that refuses, as in some private windows; at last in the worker too.
  const refusing = () => { StorageManager.prototype.getDirectory = async () => { throw new DOMException('refused', 'SecurityError'); }; };
  const missing = () => { delete StorageManager.prototype.getDirectory; };
  const without = [
    await attempt(page, () => window.load({ worker: () => new Worker('/test/no-disk-worker.js', { type: 'module' }) })),
    await attempt(page, `() => { (${refusing})(); return window.load({ worker: false }); }`),
    await attempt(page, `() => { (${missing})(); return window.load({ worker: false }); }`),
  ];
  for (const found of without) {
    assertLoaded(found, { network: total });
    assert.deepEqual(found.degraded, ['cache: no opfs']);
  }
  for (const { ms } of [full, thread, ...without]) assert.ok(ms < SOON_MS, `${ms} ms`);
  await finish();
});

test('offline: everything from the cache, or OFFLINE_MISS; clearCache leaves nothing', async () => {
  const { page, finish } = await newPage();
  const offline = { network: 'offline' };
  assert.equal((await load(page, offline)).code, 'OFFLINE_MISS', 'the wasm module');
  await attempt(page, async () => (await window.ctmatch.open()).close());
  assert.equal((await load(page, offline)).code, 'OFFLINE_MISS', 'the manifest');
  await load(page);
  const requests = tests.requests.length;
  const found = await load(page, offline);
  assertLoaded(found, { cache: total });
  assert.deepEqual(found.urls, []);
  assert.deepEqual(tests.requests.slice(requests).filter((line) => !line.endsWith('.js')), []);
  await attempt(page, (address) => window.overwrite(address, (bytes) => bytes.subarray(1)), model.shards[3].sha256);
  assert.equal((await load(page, offline)).code, 'OFFLINE_MISS', 'a shard');

  const cleared = await attempt(page, async () => {
    const session = await window.ctmatch.open({ backend: 'cpu', model: '/split/manifest.json' });
    await session.clearCache();
    const left = await window.entries();
    const vector = await window.vector(session);
    const { seen, call } = window.track();
    await session.loadModel('/split/manifest.json', call);
    await session.clearCache();
    await session.clearCache();
    await session.close();
    return { left, vector, again: seen.bytes, end: await window.entries() };
  });
  assert.deepEqual(cleared, { left: null, vector: reference, again: { network: total }, end: null });
  await finish();
});

test('two sessions at once load every file once', async () => {
  const { page, finish } = await newPage();
  const found = await attempt(page, () => Promise.all([window.load(), window.load(), window.load({ worker: false })]));
  for (const result of found) {
    assert.deepEqual([result.vector, result.loaded, result.degraded], [reference, total, []]);
  }
  assert.deepEqual(files().map(({ path }) => path).sort(), model.listed.map(({ path }) => path).sort());
  assert.deepEqual(Object.keys(await entries(page)).filter((name) => name.includes('.')), []);
  await finish();
});

test('a browser without locks and without renaming: two sessions at once, then the cache', async () => {
  const { page, finish } = await newPage();
  const found = await attempt(page, async () => {
    Object.defineProperty(Navigator.prototype, 'locks', { value: undefined });
    delete FileSystemFileHandle.prototype.move;
    const both = await Promise.all([window.load({ worker: false }), window.load({ worker: false })]);
    return { both, after: [await window.load({ worker: false }), await window.load({ worker: false })] };
  });
  for (const result of [...found.both, ...found.after]) assert.deepEqual([result.vector, result.loaded], [reference, total]);
  assertLoaded(found.after[1], { cache: total });
  await finish();
});

test('a session that waits for another one to load can be aborted', async () => {
  const { page, finish } = await newPage(/net::ERR/);
  rule = half(model.shards[0].path, { end: false });
  const found = await attempt(page, async (stopAt) => {
    const first = await window.ctmatch.open({ backend: 'cpu' });
    const stop = new AbortController();
    let loading;
    await new Promise((resolve) => {
      const onProgress = ({ loadedBytes }) => { if (loadedBytes >= stopAt) resolve(); };
      loading = first.loadModel('/split/manifest.json', { signal: stop.signal, onProgress }).catch((error) => error.name);
    });
    const second = await window.ctmatch.open({ backend: 'cpu', worker: false });
    const waiting = new AbortController();
    const reason = new DOMException('enough', 'AbortError');
    const outcome = second.loadModel('/split/manifest.json', { signal: waiting.signal }).catch((error) => error === reason);
    await new Promise((resolve) => { setTimeout(resolve, 300); });
    const at = performance.now();
    waiting.abort(reason);
    const result = [await outcome, performance.now() - at < 500];
    stop.abort();
    result.push(await loading);
    await second.close();
    await first.close();
    return result;
  }, model.listed[0].bytes + (model.shards[0].bytes >> 1));
  assert.deepEqual(found, [true, true, 'AbortError']);
  await finish();
});

test("'memory' lasts as long as the session, 'none' not even that; local files are read, not copied", async () => {
  const { page, finish } = await newPage();
  const twice = (options) => attempt(page, async (o) => {
    const session = await window.ctmatch.open({ backend: 'cpu', ...o });
    const bytes = [];
    for (let i = 0; i < 2; i++) {
      const { seen, call } = window.track();
      await session.loadModel('/split/manifest.json', call);
      bytes.push(seen.bytes);
    }
    await session.close();
    return bytes;
  }, options);
  assert.deepEqual(await twice({ cache: 'memory' }), [{ network: total }, { cache: total }]);
  assert.deepEqual(await twice({ cache: 'none' }), [{ network: total }, { network: total }]);
  assert.equal(await entries(page), null);
  asked = [];
  const local = await attempt(page, async (paths) => {
    const files = new Map();
    for (const path of paths) files.set(`folder/${path}`, await (await fetch(`/split/${path}`)).blob());
    return window.load({ model: { files }, network: { allow: [] } });
  }, [...model.files.keys()]);
  assertLoaded(local, { file: total });
  assert.ok(local.events >= model.listed.length);
  assert.equal(asked.length, model.files.size, 'by the test itself');
  const kept = await entries(page);
  assert.deepEqual(addresses().filter((address) => address in kept), []);
  await finish();
});
