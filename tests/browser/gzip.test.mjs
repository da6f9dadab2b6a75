// Two ways through gzip: the browser's decoder first, our own where that fails. Both give the same voxels, or the same refusal.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { attempt, host } from './harness.mjs';

const tests = host({ gpu: false });

const hu = (x, y, z) => -1000 + 10 * x + 100 * y + 300 * z;

/** A NIfTI-1 file of int16: 7 x 6 x 5 voxels of 0.75 x 0.75 x 1.5 mm that grow toward right, anterior, superior. */
const nifti = () => {
  const file = blank(7, 6, 5);
  let at = 352;
  for (let z = 0; z < 5; z++) {
    for (let y = 0; y < 6; y++) {
      for (let x = 0; x < 7; x++) at = file.writeInt16LE(hu(x, y, z), at);
    }
  }
  return file;
};

/** A file of that many voxels, all 0 HU. */
const blank = (i, j, k) => {
  const file = Buffer.alloc(352 + 2 * i * j * k);
  file.writeInt32LE(348, 0);
  [3, i, j, k, 1, 1, 1, 1].forEach((size, axis) => file.writeInt16LE(size, 40 + 2 * axis));
  file.writeInt16LE(4, 70); // int16
  file.writeInt16LE(16, 72);
  [1, 0.75, 0.75, 1.5].forEach((spacing, axis) => file.writeFloatLE(spacing, 76 + 4 * axis));
  file.writeFloatLE(352, 108); // first voxel
  file.writeFloatLE(1, 112); // slope
  file.writeUInt8(2, 123); // mm
  file.writeInt16LE(1, 254); // sform
  [0.75, 0, 0, -100, 0, 0.75, 0, -120, 0, 0, 1.5, -300].forEach((value, n) => file.writeFloatLE(value, 280 + 4 * n));
  file.write('n+1', 344);
  return file;
};

/** One bit of a byte changed, counted from the end. */
const flipped = (bytes, fromEnd) => {
  const copy = Buffer.from(bytes);
  copy[copy.length - fromEnd] ^= 0x40;
  return copy;
};

/** Counts how the browser's decoder ends; `?own` in the address takes it away. */
const watch = () => {
  const browsers = { ended: 0, failed: 0 };
  window.browsersDecoder = browsers;
  if (location.search === '?own') {
    delete window.DecompressionStream;
    return;
  }
  const Original = window.DecompressionStream;
  window.DecompressionStream = class {
    constructor(format) {
      const inner = new Original(format);
      const reader = inner.readable.getReader();
      this.writable = inner.writable;
      this.readable = new ReadableStream({
        async pull(controller) {
          try {
            const { done, value } = await reader.read();
            if (!done) return controller.enqueue(value);
            browsers.ended += 1;
            controller.close();
          } catch (error) {
            browsers.failed += 1;
            controller.error(error);
          }
        },
      });
    }
  };
};

const read = async (file) => {
  const session = await window.ctmatch.open({ worker: false });
  window.browsersDecoder.ended = 0;
  window.browsersDecoder.failed = 0;
  const bytes = Uint8Array.from(file);
  const outcome = await session.readVolume(new Blob([bytes])).then(async (volume) => {
    const voxels = [];
    for (let k = 0; k < volume.dims[2]; k++) voxels.push([...(await volume.slice('axial', k)).hu]);
    return { voxels, codes: volume.findings.map(({ code }) => code) };
  }, ({ code }) => ({ code }));
  await session.close();
  return { outcome, browsers: { ...window.browsersDecoder } };
};

test('both decoders agree, and ours reads what the browser cannot', async () => {
  const file = nifti();
  const plain = gzipSync(file);
  // Stored, not compressed: a changed voxel is seen by the checksum alone.
  const stored = gzipSync(file, { level: 0 });
  const cases = [
    // file, ends in the browser's decoder, code of the refusal
    ['plain', plain, true],
    ['two members', Buffer.concat([gzipSync(file.subarray(0, 400)), gzipSync(file.subarray(400))]), false],
    ['zero padding', Buffer.concat([plain, Buffer.alloc(64)]), false],
    ['cut', plain.subarray(0, plain.length - 20), false, 'E_GZ_CUT'],
    ['voxel', flipped(stored, 8 + 100), false, 'E_GZ_CRC'],
    ['checksum', flipped(plain, 8), false, 'E_GZ_CRC'],
    ['size', flipped(plain, 1), false, 'E_GZ_CRC'],
    ['junk', Buffer.concat([plain, Buffer.from('junk')]), false, 'E_GZ_CRC'],
  ];
  const pages = [];
  for (const search of ['', '?own']) {
    const made = await tests.newPackagePage({ init: watch, search });
    pages.push(made);
  }
  // Slices are in LPS order: x and y run against the stored order.
  const slice = (k) => Array.from({ length: 7 * 6 }, (_, n) => hu(6 - n % 7, 5 - Math.floor(n / 7), k));
  const truth = [0, 1, 2, 3, 4].map(slice);
  for (const [name, bytes, browserReads, code] of cases) {
    const [first, own] = [await attempt(pages[0].page, read, [...bytes]), await attempt(pages[1].page, read, [...bytes])];
    assert.deepEqual(first.outcome, own.outcome, name);
    assert.equal(first.browsers.ended === 1, browserReads, `${name}: ${JSON.stringify(first.browsers)}`);
    assert.deepEqual(own.browsers, { ended: 0, failed: 0 }, name);
    if (code) assert.equal(first.outcome.code, code, name);
    else assert.deepEqual(first.outcome.voxels, truth, name);
  }
  for (const { finish } of pages) await finish();
});

test('a scan of 512 x 512 x 600 costs the wasm heap its voxels and little more', async () => {
  const voxelBytes = 2 * 512 * 512 * 600;
  const file = gzipSync(blank(512, 512, 600), { level: 1 }).toString('base64');
  const { page, finish } = await tests.newPackagePage();
  const found = await attempt(page, async (base64) => {
    const session = await window.ctmatch.open({ worker: false, cache: 'none' });
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const volume = await session.readVolume(new Blob([bytes]));
    const { memory } = await (await import('/ctmatch/wasm/ctmatch.js')).default();
    const { dims, voxelBytes } = volume;
    await session.close();
    return { dims, voxelBytes, heapBytes: memory.buffer.byteLength };
  }, file);
  console.log(found);
  assert.deepEqual({ dims: found.dims, voxelBytes: found.voxelBytes }, { dims: [512, 512, 600], voxelBytes });
  assert.ok(found.heapBytes <= voxelBytes + 32 * 2 ** 20, `${found.heapBytes} bytes`);
  await finish();
});
