// How time and memory of the native command grow with the voxels of a volume, the number of reports and the number of volumes: a table, and
// growth.svg beside this file. The demo model on the CPU; every point is a process of its own, the fastest of three counts (of one from 1,000 on).
//
//   CTMATCH=path/to/ctmatch node growth.mjs [WORK]

import { spawn, execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { label, picture, table } from './report.mjs';

const { CTMATCH: ctmatch } = process.env;
if (!ctmatch) throw new Error('CTMATCH must name the native command');
const here = dirname(fileURLToPath(import.meta.url));
const work = process.argv[2] ?? join(tmpdir(), 'ctmatch-growth');
mkdirSync(work, { recursive: true });
const at = (...name) => join(work, ...name);
const model = ['--model', join(here, '../../www/model'), '--device', 'cpu'];
const POLL_MS = 5;

/** Seconds and peak MiB of one call. */
async function measure(args) {
  const from = performance.now();
  const child = spawn(ctmatch, [...args, '--quiet'], { stdio: ['ignore', 'ignore', 'inherit'] });
  let peak = 0;
  const look = () => {
    try {
      peak = Math.max(peak, Number(readFileSync(`/proc/${child.pid}/status`, 'utf8').match(/VmHWM:\s+(\d+)/)?.[1] ?? 0));
    } catch { /* it has ended */ }
  };
  const timer = setInterval(look, POLL_MS);
  const code = await new Promise((resolve) => child.on('exit', resolve));
  clearInterval(timer);
  if (code !== 0) throw new Error(`${args[0]} ended with ${code}`);
  return { seconds: (performance.now() - from) / 1000, mib: peak / 1024 };
}

function phantoms(folder, ...args) {
  if (existsSync(at(folder, 'reports.jsonl'))) return;
  execFileSync(ctmatch, ['phantom', '--random', ...args, '--out', at(folder), '--quiet'], { stdio: ['ignore', 'ignore', 'inherit'] });
}

const SERIES = [
  {
    title: 'voxels of a volume (millions): read and resampled to 480 x 480 x 240',
    sizes: [[128, 128, 128], [256, 256, 128], [256, 256, 256], [512, 512, 150], [512, 512, 300], [512, 512, 512]],
    count: ([i, j, k]) => i * j * k / 1e6,
    command(size) {
      phantoms(`voxels-${size.join('-')}`, '--size', size.join(','));
      return ['preprocess', at(`voxels-${size.join('-')}`, 'phantom_1.nii.gz'), '--out', at('grid.npy')];
    },
  },
  {
    title: 'reports: encoded into a store',
    sizes: [1, 10, 100, 1000, 2500, 5000, 10_000],
    count: (n) => n,
    command(n) {
      // Small volumes: only their reports are used.
      phantoms('reports', '--size', '16', '--count', '10000');
      writeFileSync(at('some.jsonl'), readFileSync(at('reports', 'reports.jsonl'), 'utf8').split('\n').slice(0, n).join('\n'));
      return ['encode', ...model, '--reports', at('some.jsonl'), '--store', at('store.safetensors')];
    },
  },
  {
    title: 'volumes of 64 x 64 x 64: encoded into a store',
    sizes: [1, 10, 100, 250, 500, 1000],
    count: (n) => n,
    command(n) {
      phantoms('volumes', '--size', '64', '--count', '1000');
      rmSync(at('some'), { recursive: true, force: true });
      mkdirSync(at('some'));
      for (let i = 1; i <= n; i++) copyFileSync(at('volumes', `phantom_${i}.nii.gz`), at('some', `phantom_${i}.nii.gz`));
      return ['encode', ...model, '--volumes', at('some'), '--store', at('store.safetensors')];
    },
  },
];

/** Least squares `y = a + b · x`, and the share of the variance of `y` that it explains. */
function line(points) {
  const mean = (of) => points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const [x, y] = [mean(([x]) => x), mean(([, y]) => y)];
  const b = mean((p) => (p[0] - x) * (p[1] - y)) / mean((p) => (p[0] - x) ** 2);
  const [a, variance] = [y - b * x, mean((p) => (p[1] - y) ** 2)];
  return { a, b, r2: variance === 0 ? 1 : 1 - mean((p) => (p[1] - a - b * p[0]) ** 2) / variance };
}

const WIDTH = 300, HEIGHT = 190, MARGIN = 46;
/** Points and their line; both axes begin at 0. */
function panel(points, { a, b }, [column, row], xLabel, yLabel) {
  const most = [0, 1].map((axis) => Math.max(...points.map((point) => point[axis])) * 1.05);
  const place = ([x, y]) => [MARGIN + x / most[0] * (WIDTH - 1.5 * MARGIN), HEIGHT - MARGIN - y / most[1] * (HEIGHT - 1.5 * MARGIN)].map((z) => z.toFixed(1));
  const [from, to] = [place([0, Math.max(a, 0)]), place([most[0], a + b * most[0]])];
  const number = (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(2));
  return `<g transform="translate(${column * WIDTH} ${row * HEIGHT})"><path d="M${MARGIN} ${MARGIN / 2}V${HEIGHT - MARGIN}H${WIDTH - MARGIN / 2}" class="axis"/>
<path d="M${from.join(' ')}L${to.join(' ')}" class="line"/>${points.map((point) => { const [x, y] = place(point); return `<circle cx="${x}" cy="${y}" r="3"/>`; }).join('')}
${label(WIDTH / 2, HEIGHT - 10, xLabel)}${label(MARGIN, 14, yLabel)}${label(WIDTH - MARGIN / 2, HEIGHT - MARGIN + 14, number(most[0]), 'end')}${label(MARGIN - 4, MARGIN / 2 + 8, number(most[1]), 'end')}${label(MARGIN - 4, HEIGHT - MARGIN + 4, '0', 'end')}</g>`;
}

const panels = [];
for (const [column, { title, sizes, count, command }] of SERIES.entries()) {
  const rows = [];
  for (const size of sizes) {
    const args = command(size);
    const runs = [];
    for (let i = 0; i < (count(size) >= 1000 ? 1 : 3); i++) {
      rmSync(at('store.safetensors'), { force: true });
      runs.push(await measure(args));
    }
    rows.push({ n: count(size), seconds: Math.min(...runs.map(({ seconds }) => seconds)), mib: Math.max(...runs.map(({ mib }) => mib)) });
  }
  const fits = ['seconds', 'mib'].map((key) => line(rows.map((row) => [row.n, row[key]])));
  const cells = rows.map(({ n, seconds, mib }) => [Number(n.toFixed(1)), seconds.toFixed(2), mib.toFixed(0)]);
  console.log(`\n${title}\n\n${table(['n', 'seconds', 'peak MiB'], cells)}`);
  const [time, memory] = fits;
  console.log(`\nTime ${time.a.toFixed(2)} s + ${(1e3 * time.b).toPrecision(3)} ms each, R² ${time.r2.toFixed(4)}; memory ${memory.a.toFixed(0)} MiB + ${memory.b.toPrecision(3)} MiB each, R² ${memory.r2.toFixed(4)}.`);
  panels.push(panel(rows.map(({ n, seconds }) => [n, seconds]), time, [column, 0], title.split(':')[0], 'seconds'));
  panels.push(panel(rows.map(({ n, mib }) => [n, mib]), memory, [column, 1], title.split(':')[0], 'peak MiB'));
}
const voxels = at('voxels-512-512-512', 'phantom_1.nii.gz');
const from = performance.now();
execFileSync('gunzip', ['-kc', voxels], { stdio: ['ignore', 'ignore', 'inherit'] });
console.log(`\ngunzip of the largest (${(statSync(voxels).size / 1e6).toFixed(0)} MB): ${((performance.now() - from) / 1000).toFixed(2)} s`);
writeFileSync(join(here, 'growth.svg'), picture(3 * WIDTH, 2 * HEIGHT, panels));
