// Two ways through gzip: the browser's decoder first, our own where that fails. Both give the same voxels, or the same refusal.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { attempt, newPackagePage, repository, startBrowser, startServer } from './harness.mjs';

let browser;
let server;
before(async () => {
  browser = await startBrowser({ gpu: false });
  server = await startServer();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

const fixture = (name) => readFile(join(repository, 'tests/fixtures/synthetic_nifti', name));

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
  const plain = await fixture('v11_gz.nii.gz');
  const flippedSize = Buffer.from(plain);
  flippedSize[flippedSize.length - 1] ^= 0x40;
  const cases = [
    // file, ends in the browser's decoder, code of the refusal
    ['v11', plain, true],
    ['two members', await fixture('v12_gz_multimember.nii.gz'), false],
    ['zero padding', await fixture('b05_gz_trailing.nii.gz'), false],
    ['cut', await fixture('b03_gz_truncated.nii.gz'), false, 'E_GZ_CUT'],
    ['checksum', await fixture('b04_gz_badcrc.nii.gz'), false, 'E_GZ_CRC'],
    ['size', flippedSize, false, 'E_GZ_CRC'],
    ['junk', Buffer.concat([plain, Buffer.from('junk')]), false, 'E_GZ_CRC'],
  ];
  const pages = [];
  for (const search of ['', '?own']) {
    const made = await newPackagePage(browser, server.origin, { init: watch, search });
    pages.push(made);
  }
  const truth = (await attempt(pages[1].page, read, [...plain])).outcome.voxels;
  assert.equal(truth.flat().length, 7 * 6 * 5);
  for (const [name, file, browserReads, code] of cases) {
    const [first, own] = [await attempt(pages[0].page, read, [...file]), await attempt(pages[1].page, read, [...file])];
    assert.deepEqual(first.outcome, own.outcome, name);
    assert.equal(first.browsers.ended === 1, browserReads, `${name}: ${JSON.stringify(first.browsers)}`);
    assert.deepEqual(own.browsers, { ended: 0, failed: 0 }, name);
    if (code) assert.equal(first.outcome.code, code, name);
    else assert.deepEqual(first.outcome.voxels, truth, name);
  }
  for (const { finish } of pages) await finish();
});
