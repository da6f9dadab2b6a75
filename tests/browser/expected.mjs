// Writes what the native command makes of the sample on the CPU, the reference of the browser's numbers, and an untrained model of the
// bundled one's shape, whole and without its text tower.
// Usage: CTMATCH=path/to/ctmatch node expected.mjs

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { repository } from './harness.mjs';

const ctmatch = process.env.CTMATCH;
if (!ctmatch) throw new Error('CTMATCH must name the native command');

const folder = mkdtempSync(join(tmpdir(), 'ctmatch-'));
const sample = (name) => join(repository, 'www/sample', name);
const model = join(repository, 'www/model');
const common = ['--model', model, '--volume', sample('chest.nii.gz'), '--device', 'cpu', '--quiet'];
const reports = ['--reports', sample('reports.json')];
const run = (...args) => execFileSync(ctmatch, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

/** The f32 tensors of a safetensors file, as rows. @param {string} path */
function tensors(path) {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString('utf8'));
  const rows = ({ shape: [count, width], data_offsets: [start] }) =>
    Array.from({ length: count }, (_, row) =>
      Array.from({ length: width }, (_, column) => bytes.readFloatLE(8 + length + start + 4 * (row * width + column))));
  return Object.fromEntries(Object.entries(header).filter(([, { dtype }]) => dtype === 'F32').map(([name, info]) => [name, rows(info)]));
}

try {
  run('encode', ...common, ...reports, '--out', join(folder, 'latents.safetensors'));
  const { image_latents, text_latents } = tensors(join(folder, 'latents.safetensors'));
  const ranking = JSON.parse(run('rank', ...common, ...reports, '--json'));
  const { rows: zeroShot } = JSON.parse(run('zero-shot', ...common, '--json'));
  const explained = (...args) => JSON.parse(run('explain', ...common, ...args, '--json'));
  const explain = {
    label: explained('--ask', 'Lung nodule', '--map', 'baseline', '--occlude', '2'), report: explained(...reports, '--map', 'leave-one-out'),
  };
  const out = new URL('./expected/', import.meta.url);
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out);
  const checkpoint = join(folder, 'hash.safetensors');
  const config = ['--config', join(model, 'config.json')];
  run('hash-checkpoint', ...config, '--out', checkpoint, '--quiet');
  for (const purpose of ['match', 'zero-shot']) {
    run('convert', checkpoint, ...config, '--tokenizer', join(model, 'tokenizer.json'), '--untrained', '--for', purpose,
      '--out', fileURLToPath(new URL(purpose, out)), '--quiet');
  }
  const expected = { image: image_latents[0], texts: text_latents, order: ranking.rows.map(({ index }) => index), zeroShot, explain };
  writeFileSync(new URL('./expected/sample.json', import.meta.url), JSON.stringify(expected));
} finally {
  rmSync(folder, { recursive: true });
}
