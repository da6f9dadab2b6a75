// The sentences about files: the page's table holds the program's, and a file of every kind shows its own, in both languages.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MESSAGES, text } from '../../www/i18n.js';
import { gzipSync, host, idle, repository } from './harness.mjs';

const tests = host({ gpu: false });
const folder = mkdtempSync(join(tmpdir(), 'ctmatch-messages-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const source = (path) => readFile(join(repository, path), 'utf8');

/** Code to [English, Chinese] of `MESSAGES` in src/volume/messages.rs. */
async function sentences() {
  const rust = await source('src/volume/messages.rs');
  const [, table] = rust.match(/MESSAGES: [^=]+= &\[\n([\s\S]+?)\n\];/);
  const found = [...table.matchAll(/\(\s*"([A-Z0-9_]+)",\s*"([^"]+)",\s*"([^"]+)",?\s*\)/g)].map(([, code, en, zh]) => [code, [en, zh]]);
  assert.equal(found.length, table.match(/"[A-Z]_[A-Z0-9_]+"/g).length, 'every entry is read');
  return Object.fromEntries(found);
}

/** Those of the package alone: a file that was changed since it was chosen. */
const OF_THE_PACKAGE = ['E_READ'];

test("the page's table holds the sentences of messages.rs, word for word, and no other of a file", async () => {
  const ours = Object.entries(MESSAGES).filter(([key]) => /^[EWH]_[A-Z0-9_]+$/.test(key) && !OF_THE_PACKAGE.includes(key));
  assert.deepEqual(Object.fromEntries(ours), await sentences());
  const core = await source('pkg/core.js');
  for (const code of OF_THE_PACKAGE) assert.ok(core.includes(`'${code}', '${MESSAGES[code][0]}'`), code);
});

test('a sentence for every other code of the package and the program, and for no more', async () => {
  const declared = await source('pkg/index.d.ts');
  const union = declared.slice(declared.indexOf('type ErrorCode'), declared.indexOf('`E_$'));
  const codes = [...union.matchAll(/'([A-Z0-9_]+)'/g)].map(([, code]) => code);
  assert.ok(codes.length > 20, `${codes}`);
  const ours = Object.keys(MESSAGES).filter((key) => /^[A-Z][A-Z0-9_]+$/.test(key) && !/^[EWH]_/.test(key));
  // The page's own: a metadata table without a row, and what has no code.
  assert.deepEqual(ours.toSorted(), [...codes, 'BUSY', 'SIDECAR', 'UNKNOWN'].toSorted());

  const rust = (await source('src/error.rs')).match(/fn code\(&self\)[\s\S]+?\n {4}\}/)[0];
  const raised = [...rust.matchAll(/"([A-Z0-9_]+)"/g)].map(([, code]) => code);
  assert.ok(raised.length > 30, `${raised}`);
  // An abort is the caller's own signal, never an error of the package.
  for (const code of raised.filter((name) => name !== 'ABORTED')) assert.ok(code in MESSAGES, code);
});

// ---- files

const [WIDTH, HEIGHT, DEPTH] = [8, 7, 24];
const VOXELS = WIDTH * HEIGHT * DEPTH;
const START = 352;
const AT = { dim: 40, datatype: 70, bitpix: 72, pixdim: 76, offset: 108, slope: 112, inter: 116, units: 123, qform: 252, sform: 254, quatern: 256, srow: 280, magic: 344, extender: 348 };
const INT16 = 4;
const FLOAT32 = 16;

/** Rows of the sform: identity in LPS, 1 mm. */
const LPS = [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0]];
const placed = (file, rows) => rows.flat().forEach((value, i) => file.writeFloatLE(value, AT.srow + 4 * i));

/** A volume in HU, of air and tissue, small enough to be no chest. @param {(file: Buffer) => void} [change] @param {(i: number) => number} [hu] */
function nifti(change = () => {}, hu = (i) => -1000 + ((37 * i) % 1500)) {
  const file = Buffer.alloc(START + 2 * VOXELS);
  file.writeInt32LE(348, 0);
  [3, WIDTH, HEIGHT, DEPTH, 1, 1, 1, 1].forEach((n, i) => file.writeInt16LE(n, AT.dim + 2 * i));
  file.writeInt16LE(INT16, AT.datatype);
  file.writeInt16LE(16, AT.bitpix);
  for (let i = 0; i < 4; i++) file.writeFloatLE(1, AT.pixdim + 4 * i);
  file.writeFloatLE(START, AT.offset);
  file.writeFloatLE(1, AT.slope);
  file[AT.units] = 2; // mm
  file.writeInt16LE(1, AT.sform);
  placed(file, LPS);
  file.write('n+1\0', AT.magic, 'latin1');
  for (let i = 0; i < VOXELS; i++) file.writeInt16LE(hu(i), START + 2 * i);
  change(file);
  return file;
}

/** The same as FLOAT32. @param {(values: Float32Array) => void} change */
function floats(change) {
  const values = Float32Array.from({ length: VOXELS }, (_, i) => -1000 + ((37 * i) % 1500));
  change(values);
  const header = nifti((file) => {
    file.writeInt16LE(FLOAT32, AT.datatype);
    file.writeInt16LE(32, AT.bitpix);
  }).subarray(0, START);
  return Buffer.concat([header, Buffer.from(values.buffer)]);
}

const short = (at, value) => (file) => file.writeInt16LE(value, at);
const float = (at, value) => (file) => file.writeFloatLE(value, at);
const both = (...changes) => (file) => { for (const change of changes) change(file); };
const rad = (degrees) => (degrees * Math.PI) / 180;

const packed = gzipSync(nifti());
const wrongSum = Buffer.from(packed);
wrongSum[wrongSum.length - 8] ^= 1;
const dicom = Buffer.alloc(1024);
dicom.write('DICM', 128, 'latin1');
const [cos20, sin20] = [Math.cos(rad(20)), Math.sin(rad(20))];

/** @type {[code: string, buffer: Buffer, params?: object, name?: string][]} */
const REFUSED = [
  ['E_EMPTY', Buffer.alloc(0)],
  ['E_DICOM', dicom],
  ['E_ZIP', Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), Buffer.alloc(600)])],
  ['E_NOT_NIFTI', Buffer.from('no header of any kind. '.repeat(40))],
  ['E_ANALYZE', nifti((file) => file.fill(0, AT.magic, AT.magic + 4))],
  ['E_PAIR', nifti((file) => file.write('ni1\0', AT.magic, 'latin1')).subarray(0, 348), {}, 'x.hdr'],
  ['E_GZ_CUT', packed.subarray(0, packed.length - 40), {}, 'x.nii.gz'],
  ['E_GZ_CRC', wrongSum, {}, 'x.nii.gz'],
  ['E_TRUNC', nifti().subarray(0, START + 2 * VOXELS - 100), { got: 2 * VOXELS - 100, need: 2 * VOXELS }],
  ['E_DIM', nifti(short(AT.dim + 2, -7))],
  ['E_2D', nifti(short(AT.dim + 6, 1))],
  ['E_4D', nifti(both(short(AT.dim, 4), short(AT.dim + 8, 3))), { n: 3 }],
  ['E_DTYPE', nifti(short(AT.datatype, 128)), { name: 'RGB24' }],
  ['E_BIG', nifti(short(AT.dim + 2, 10000)), { size: `10000 x ${HEIGHT} x ${DEPTH} voxels`, limit: '8192 per axis' }],
  ['E_OFFSET', nifti(float(AT.offset, 100))],
  ['E_SCALE', nifti(float(AT.slope, Infinity))],
  ['E_SPACING', nifti(both(short(AT.sform, 0), float(AT.pixdim + 4, 0)))],
  ['E_XFORM', nifti((file) => placed(file, LPS.map(() => [0, 0, 0, 0])))],
];

const asMask = nifti(undefined, (i) => i % 4);
const badExtensions = Buffer.concat([nifti(both(float(AT.offset, START + 16), (file) => { file[AT.extender] = 1; })).subarray(0, START), Buffer.alloc(16, 7), nifti().subarray(START)]);
/** Opened: what the file check says, and whether it asks. @type {[code: string, asks: boolean, buffer: Buffer, params?: object, name?: string][]} */
const FOUND = [
  ['E_2D', false, nifti(short(AT.dim + 6, 5))],
  ['E_XFORM', true, nifti(both((file) => placed(file, LPS.map(() => [0, 0, 0, 0])), short(AT.qform, 1)))],
  ['E_NOT_HU', true, nifti(undefined, () => 7)],
  ['W_NOXFORM', true, nifti(short(AT.sform, 0))],
  ['W_DISAGREE', true, nifti(short(AT.qform, 1))], // no rotation is RAS
  ['W_SHEAR', true, nifti((file) => placed(file, [[-1, 0, 0, 0], [0, -1, Math.sin(rad(15)), 0], [0, 0, Math.cos(rad(15)), 0]])), { deg: 15 }],
  ['W_OBLIQUE', true, nifti((file) => placed(file, [[-cos20, sin20, 0, 0], [-sin20, -cos20, 0, 0], [0, 0, 1, 0]])), { deg: 20 }],
  ['W_SPACING', true, nifti(both(float(AT.pixdim + 4, 3), (file) => placed(file, [[-3, 0, 0, 0], ...LPS.slice(1)]))), { x: 3, y: 1, z: 1 }],
  ['W_UNITS', false, nifti((file) => { file[AT.units] = 0; })],
  ['H_UNITS', false, nifti(both((file) => { file[AT.units] = 1; }, ...[4, 8, 12].map((at) => float(AT.pixdim + at, 0.001)), (file) => placed(file, LPS.map((row) => row.map((v) => v / 1000)))))],
  ['H_PIXDIM', false, nifti(float(AT.pixdim + 4, -1))],
  ['H_NAME', false, packed],
  ['W_BITPIX', false, nifti(short(AT.bitpix, 8))],
  ['W_EXT', false, badExtensions],
  ['W_TRAIL', false, Buffer.concat([nifti(), Buffer.alloc(10, 1)])],
  ['W_NAN', true, floats((values) => values.fill(NaN, 0, 3)), { n: 3 }],
  ['H_PAD', false, nifti(undefined, (i) => (i < 5 ? -2000 : -1000 + ((37 * i) % 1500))), { n: 5 }],
  ['W_HU_OFFSET', true, nifti(undefined, (i) => 24 + ((37 * i) % 1500))],
  ['W_HU_RAW', true, nifti(undefined, (i) => (i === 0 ? -5000 : -1000 + ((37 * i) % 1500)))],
  ['W_MASK', true, asMask],
  ['W_NOT_CHEST', true, nifti()],
  ['W_FOV', true, nifti()],
];

/** Both languages of what is shown, one after the other. @param {import('playwright-core').Page} page @param {() => Promise<any>} read */
async function inBoth(page, read) {
  const en = await read();
  await page.click('#lang-zh');
  const zh = await read();
  await page.click('#lang-en');
  return { en, zh };
}

test('a file of every kind: its code and its sentence, in both languages', { timeout: 120_000 }, async () => {
  const { page, finish } = await tests.newAppPage();
  const open = async (buffer, name = 'x.nii') => {
    await page.setInputFiles('#file', { name, mimeType: 'application/octet-stream', buffer });
    await page.waitForFunction(() => !document.querySelector('#choose-file').disabled);
    await idle(page);
  };
  const wrong = [];
  const compare = (found, expected) => {
    try {
      assert.deepEqual(found, expected);
    } catch {
      wrong.push({ found, expected });
    }
  };
  for (const [code, buffer, params, name] of REFUSED) {
    await open(buffer, name);
    const found = await inBoth(page, async () => [await page.textContent('#error-code'), await page.textContent('#error-text')]);
    compare(found, { en: [code, text(code, params, 'en')], zh: [code, text(code, params, 'zh')] });
    compare([code, await page.isVisible('#frame-form'), code === 'E_4D' && await page.getAttribute('#frame', 'max')], [code, code === 'E_4D', code === 'E_4D' && '3']);
  }
  for (const [code, asks, buffer, params, name] of FOUND) {
    await open(buffer, name);
    compare([code, await page.isHidden('#error')], [code, true]);
    const found = await inBoth(page, () => page.locator('#findings li').evaluateAll((items, wanted) =>
      items.filter((item) => item.querySelector('code')?.textContent === wanted).map((item) => [item.querySelector('span').textContent, item.querySelector('[data-accept]') !== null]), code));
    compare({ code, ...found }, { code, en: [[text(code, params, 'en'), asks]], zh: [[text(code, params, 'zh'), asks]] });
  }

  // Chosen, then changed on the disk: a correction reads it again.
  const path = join(folder, 'x.nii');
  writeFileSync(path, nifti(undefined, (i) => 24 + ((37 * i) % 1500)));
  await page.setInputFiles('#file', path);
  await page.waitForSelector('[data-correct="subtract_1024"]');
  await idle(page);
  writeFileSync(path, nifti().subarray(0, 1000));
  await page.click('[data-correct="subtract_1024"]');
  await page.waitForSelector('#error:not([hidden])');
  compare(await inBoth(page, async () => [await page.textContent('#error-code'), await page.textContent('#error-text')]),
    { en: ['E_READ', text('E_READ', {}, 'en')], zh: ['E_READ', text('E_READ', {}, 'zh')] });

  assert.deepEqual(wrong, []);
  // The page still works.
  await open(nifti());
  assert.ok(await page.isHidden('#error'));
  const tried = new Set([...REFUSED, ...FOUND].map(([code]) => code));
  assert.deepEqual(Object.keys(await sentences()).filter((code) => !tried.has(code)), [], 'every code has its file');
  await finish();
});
