// A hostile model folder: every value of the manifest replaced, deep and huge JSON, damaged weight files under a manifest that agrees
// with them. In Node, which runs the same code as the browser. Each is refused by a code before it computes anything, or is harmless.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { open } from '../../pkg/index.js';
import { www } from './harness.mjs';

const folder = join(www, 'model');
const files = new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
const manifest = JSON.parse(files.get('manifest.json').toString());
const [variant] = Object.keys(manifest.variants);
const [shard] = manifest.variants[variant].shards;

const REFUSALS = ['MANIFEST', 'MODEL_SHAPE', 'INTEGRITY', 'LIMITS', 'TEXT_INPUT'];
// What a manifest that is taken may still end a call with: numbers that are none, or preprocessing that makes no sense.
const NO_RESULT = ['BAD_RESULT', 'INVALID_ARGUMENT'];
// On a machine that does other work; an encode takes a second.
const SOON_MS = 30_000;
const VALUES = [null, true, -1, 0, 0.5, 2 ** 32, 2 ** 53, 1e300, '', '..', '../../manifest.json', 'https://example.org/x', '\0', 'x'.repeat(1e5), [], [[]], {}, { length: 7 }];

let session;
before(async () => { session = await open({ worker: false, backend: 'cpu', selfTest: false }); });
after(() => session.close());

const load = (changed) => session.loadModel({ files: new Map([...files, ...Object.entries(changed)].map(([name, bytes]) => [name, new Blob([bytes])])) })
  .then(() => 'loaded', (error) => error.code ?? String(error));

/** Every place of a JSON value: `[path, value]`. */
function* places(value, path = []) {
  yield [path, value];
  if (value && typeof value === 'object') for (const [key, inner] of Object.entries(value)) yield* places(inner, [...path, key]);
}

function replaced(path, value) {
  const copy = structuredClone(manifest);
  let at = copy;
  for (const key of path.slice(0, -1)) at = at[key];
  if (value === undefined) delete at[path.at(-1)];
  else at[path.at(-1)] = value;
  return JSON.stringify(copy);
}

const works = async () => {
  assert.equal(await load({}), 'loaded');
  assert.equal((await session.encodeReports(['Clear lungs.'])).size, 1);
};

/** What the loaded model makes of a text and, if it can, of a volume: `a result` or a code each. */
async function computed(volume) {
  const found = {};
  const made = {};
  const compute = async (call, work, sound) => {
    const from = performance.now();
    found[call] = await work().then((result) => {
      made[call] = result;
      return sound(result) ? 'a result' : 'no numbers';
    }, (error) => error.code ?? String(error));
    const ms = performance.now() - from;
    if (ms > SOON_MS) found[call] += ` after ${ms} ms`;
  };
  const unit = (vector) => Math.abs(vector.reduce((sum, value) => sum + value * value, 0) - 1) < 1e-4;
  await compute('text', () => session.encodeReports(['Clear lungs.']), ({ vectors }) => unit(vectors));
  if (session.info.model.capabilities.images) await compute('volume', () => session.encodeVolume(volume), ({ vector }) => unit(vector));
  const { text, volume: image } = made;
  if (text && image) await compute('ranking', () => session.rank(image, text), ({ rows }) => rows.every((row) => Number.isFinite(row.cosine) && Number.isFinite(row.share)));
  return found;
}

test('each value of the manifest, replaced and left out', { timeout: 600_000 }, async () => {
  const outcomes = {};
  let tried = 0;
  const volume = await session.readVolume(new Blob([readFileSync(join(www, 'sample/chest.nii.gz'))]));
  // Lists of names and prompts: the first stands for all.
  const all = [...places(manifest)].filter(([path]) => path.length > 0 && !path.some((key) => Number(key) > 0));
  for (const [i, [path]] of all.entries()) {
    // Left out, and every fifth of the values, so that all are tried on each kind of place.
    for (const value of [undefined, ...VALUES.filter((_, v) => v % 5 === i % 5)]) {
      const outcome = await load({ 'manifest.json': replaced(path, value) });
      const what = `${path.join('.')} = ${JSON.stringify(value)?.slice(0, 40)}`;
      if (outcome !== 'loaded' && !REFUSALS.includes(outcome)) assert.fail(`${what}: ${outcome}`);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      if (outcome === 'loaded') {
        for (const [call, found] of Object.entries(await computed(volume))) {
          assert.ok(['a result', ...NO_RESULT].includes(found), `${what}, ${call}: ${found}`);
          outcomes[`${call}: ${found}`] = (outcomes[`${call}: ${found}`] ?? 0) + 1;
        }
      }
      tried += 1;
    }
  }
  console.log(tried, 'manifests', outcomes);
  assert.ok(tried > 300 && outcomes.MANIFEST > tried / 2 && outcomes['volume: a result'] > 10);
  volume.close();
  await works();
});

test('preprocessing that makes no sense is refused at the latest when a volume is encoded', { timeout: 300_000 }, async () => {
  const volume = await session.readVolume(new Blob([readFileSync(join(www, 'sample/chest.nii.gz'))]));
  for (const [change, expected] of [
    [{ scaleHu: 0 }, 'MANIFEST'], [{ offsetHu: 1e300 }, 'MANIFEST'], [{ scaleHu: 1e300 }, 'MANIFEST'], [{ pad: 1e300 }, 'MANIFEST'], [{ windowHu: [1000, -1000] }, 'MANIFEST'],
    [{ spacingMm: [1e300, 1, 1] }, 'INVALID_ARGUMENT'], [{ grid: [2 ** 31, 2 ** 31, 2 ** 31] }, 'MANIFEST'],
  ]) {
    const outcome = await load({ 'manifest.json': JSON.stringify({ ...manifest, preprocess: { ...manifest.preprocess, ...change } }) });
    const found = outcome === 'loaded' ? await session.encodeVolume(volume).then(() => 'a latent', ({ code }) => code) : outcome;
    assert.equal(found, expected, JSON.stringify(change));
  }
  volume.close();
  await works();
});

test('JSON that is deep, huge, or not JSON', async () => {
  for (const text of ['', '{', 'null', '7', '"x"', '[]', '['.repeat(1e5), '{"a":'.repeat(1e5), `{"schema":1${' '.repeat(1e7)}}`, '{"schema":1e999}', '\ufeff{}', `{"schema":1,${'"a":0,'.repeat(1e5)}"b":0}`]) {
    assert.equal(await load({ 'manifest.json': text }), 'MANIFEST', text.slice(0, 20));
  }
  await works();
});

test('damaged weights whose hash the manifest gives', { timeout: 300_000 }, async () => {
  const whole = files.get(shard.path);
  const headerBytes = Number(whole.readBigUInt64LE(0));
  const header = JSON.parse(whole.subarray(8, 8 + headerBytes));
  const [name] = Object.keys(header).filter((key) => key !== '__metadata__');
  const packed = (changed, length) => {
    const text = Buffer.from(typeof changed === 'string' ? changed : JSON.stringify(changed));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(length ?? BigInt(text.length));
    return Buffer.concat([size, text, whole.subarray(8 + headerBytes)]);
  };
  const tensor = (change) => packed({ ...header, [name]: { ...header[name], ...change } });
  const [from, to] = header[name].data_offsets;
  const cases = {
    'no bytes': Buffer.alloc(0), 'seven bytes': Buffer.alloc(7), 'a header of 2^64 - 1 bytes': packed(header, 2n ** 64n - 1n), 'a header beyond the file': packed(header, BigInt(whole.length)),
    'no JSON': packed('x'.repeat(headerBytes)), 'deep JSON': packed('['.repeat(1e5)), 'another type': tensor({ dtype: 'F64' }), 'no such type': tensor({ dtype: 'X' }),
    'a dimension of 2^53': tensor({ shape: [2 ** 53, 2 ** 53] }), 'a negative dimension': tensor({ shape: [-1] }), 'no dimension': tensor({ shape: [] }),
    'offsets beyond the file': tensor({ data_offsets: [from, whole.length * 2] }), 'offsets that run back': tensor({ data_offsets: [to, from] }),
    'an overlap': tensor({ data_offsets: [from + 4, to + 4] }), 'offsets of 2^63': tensor({ data_offsets: [2 ** 63, 2 ** 63 + to - from] }),
    'a tensor too many': packed({ ...header, extra: { dtype: 'F32', shape: [0], data_offsets: [to, to] } }), 'a tensor too few': packed(Object.fromEntries(Object.entries(header).filter(([key]) => key !== name))),
    'another name': packed(Object.fromEntries(Object.entries(header).map(([key, value]) => [key === name ? '../../x' : key, value]))),
    'a name twice': packed(JSON.stringify(header).replace(/}$/, `,${JSON.stringify(name)}:${JSON.stringify(header[name])}}`)),
    'bytes at the end': Buffer.concat([whole, Buffer.alloc(4)]), 'cut short': whole.subarray(0, -4),
  };
  for (const [what, bytes] of Object.entries(cases)) {
    const agreeing = structuredClone(manifest);
    Object.assign(agreeing.variants[variant].shards[0], { bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') });
    // No file is empty: the manifest says something senseless then.
    assert.ok((bytes.length === 0 ? ['MANIFEST'] : ['MODEL_SHAPE', 'CHECKPOINT']).includes(await load({ 'manifest.json': JSON.stringify(agreeing), [shard.path]: bytes })), what);
  }
  await works();
});
