// Times the image encode of ctmatch beside onnxruntime-web and PyTorch: same network, same weights, same grid, in turn, in one run.
// No round begins before every engine has given the latent of the native command.
//
//   CTMATCH=… BENCH_PYTHON=… node run.mjs [--size tiny|quarter|full] [--repeat 3] [--only TEXT]... [--webgpu] [--install-torch]
//     [--torch-python PATH] [--json FILE]

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { attempt, cosine, newPage, repository, startBrowser, startServer } from '../browser/harness.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const { CTMATCH: ctmatch, BENCH_PYTHON: python } = process.env;
assert.ok(ctmatch && python, 'CTMATCH must name the native command, BENCH_PYTHON a Python with requirements.txt');
const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: 'tiny' }, repeat: { type: 'string', default: '3' }, only: { type: 'string', multiple: true },
    webgpu: { type: 'boolean' }, 'install-torch': { type: 'boolean' }, 'torch-python': { type: 'string', default: python }, json: { type: 'string' },
  },
});

const MIN_COSINE = 0.9999;
const CORES = availableParallelism();

const tiny = JSON.parse(readFileSync(join(repository, 'www/model/config.json'), 'utf8'));
// The published image tower. The text tower stays tiny: no image passes through it.
const full = {
  ...tiny, dim_latent: 512, frames: 240, spacing_mm: [1.5, 0.75, 0.75],
  vit: { dim: 512, codebook_size: 8192, image_size: 480, patch_size: 20, temporal_patch_size: 10, spatial_depth: 4, temporal_depth: 4, dim_head: 32, heads: 8 },
};
const quarter = { ...full, frames: 120, vit: { ...full.vit, image_size: 240 } };
const config = { tiny, quarter, full }[options.size];
assert.ok(config, `no size ${options.size}`);

const folder = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'ctmatch/bench', options.size);
const file = (name) => join(folder, name);
const native = (...args) => execFileSync(ctmatch, [...args, '--device', 'cpu', '--quiet'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/** Makes the files of one size, unless they are there and of these scripts. */
function prepare() {
  const made = createHash('sha256').update(JSON.stringify(config));
  for (const script of ['network.py', 'prepare.py']) made.update(readFileSync(join(here, script)));
  const stamp = made.digest('hex');
  if (existsSync(file('made')) && readFileSync(file('made'), 'utf8') === stamp) return;
  console.log(`writing ${folder}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(file('config.json'), JSON.stringify(config));
  native('hash-checkpoint', '--config', file('config.json'), '--out', file('checkpoint.safetensors'));
  native('convert', file('checkpoint.safetensors'), '--config', file('config.json'), '--tokenizer', join(repository, 'www/model/tokenizer.json'),
    '--weights', 'f32', '--untrained', '--license', 'CC0-1.0', '--out', file('model'));
  execFileSync(python, [join(here, 'prepare.py'), file('config.json'), file('checkpoint.safetensors'), folder], { stdio: 'inherit' });
  writeFileSync(file('made'), stamp);
}

/** What the native command makes of the grid. */
function nativeLatent() {
  native('encode', '--model', file('model'), '--tensor', file('grid.npy'), '--out', file('latent.safetensors'));
  const bytes = readFileSync(file('latent.safetensors'));
  const length = Number(bytes.readBigUInt64LE(0));
  const [start, end] = JSON.parse(bytes.toString('utf8', 8, 8 + length)).image_latents.data_offsets;
  return Float32Array.from({ length: (end - start) / 4 }, (_, i) => bytes.readFloatLE(8 + length + start + 4 * i));
}

/**
 * @typedef {{ latent: ArrayLike<number>, seconds: number, cpu?: number }} Encode wall clock; `cpu`: processor seconds of all threads, which
 *   other work on the machine changes less
 * @typedef {{ version: string, encode(): Promise<Encode>, product?(): Promise<number>, close?(): unknown }} Running
 *   `product` in GFLOP/s
 * @typedef {{ name: string, threads: number | string, start(): Promise<Running> }} Engine
 */

// Each round is a process of its own, which encodes twice: the first run has the page faults.
let work = 0;
const ours = {
  name: 'ctmatch native', threads: CORES,
  async start() {
    let rate = 0;
    return {
      version: execFileSync(ctmatch, ['--version'], { encoding: 'utf8' }).trim().split(' ').at(-1),
      async encode() {
        const report = JSON.parse(native('bench', '--model', file('model'), '--repeat', '2', '--json'));
        const sum = (key) => report.image.reduce((total, stage) => total + stage[key], 0);
        rate = report.matmulGflopPerSecond;
        work = sum('gflop');
        return { latent: known, seconds: sum('seconds') };
      },
      product: async () => rate,
    };
  },
};

const HEADERS = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp', 'Cross-Origin-Resource-Policy': 'same-origin' };
const server = await startServer({ mounts: { '/ort': join(here, 'node_modules/onnxruntime-web/dist'), '/bench': folder }, headers: HEADERS });
const browsers = {};
/** A page of its own process; its WebGPU is computed on the processor. */
async function page(gpu) {
  const browser = await (browsers[gpu] ??= startBrowser({ gpu }));
  const { page: made, finish } = await newPage(browser, { origin: server.origin, path: '/test/bare.html' });
  const call = async (body, arg) => {
    const answer = await attempt(made, body, arg);
    if (answer?.error) throw new Error(JSON.stringify(answer.error));
    return answer;
  };
  const processes = await browser.newBrowserCDPSession();
  const cpuTime = async () => (await processes.send('SystemInfo.getProcessInfo')).processInfo.reduce((total, { cpuTime: one }) => total + one, 0);
  /** The other pages of the browser are idle meanwhile. @returns {Promise<Encode>} */
  const encode = async () => {
    const before = await cpuTime();
    const { latent, seconds } = await call(() => window.encode());
    return { latent, seconds, cpu: await cpuTime() - before };
  };
  return { call, encode, close: finish };
}

const inChromium = (backend, threads) => ({
  name: `ctmatch Chromium ${backend === 'cpu' ? 'wasm' : 'WebGPU'}`, threads,
  async start() {
    const { call, encode, close } = await page(backend === 'webgpu');
    await call(async ({ backend, threads }) => {
      const { open } = await import('/ctmatch/index.js');
      const session = await open({ backend, threads, allowSoftwareAdapter: true, cache: 'none', model: '/bench/model/manifest.json' });
      const volume = await session.readVolume(await (await fetch('/bench/volume.nii')).blob());
      if (backend === 'cpu' && session.info.threads !== threads) throw new Error(`expected ${threads} threads, found ${JSON.stringify(session.info)}`);
      const accept = volume.findings.map(({ code }) => code);
      window.encode = async () => {
        const { vector, timingsMs } = await session.encodeVolume(volume, { accept });
        return { latent: Array.from(vector), seconds: timingsMs.total / 1000 };
      };
    }, { backend, threads: Number(threads) || undefined });
    return {
      version: JSON.parse(readFileSync(join(repository, 'pkg/package.json'), 'utf8')).version,
      encode, close,
    };
  },
});

const ort = (provider, threads) => ({
  name: `onnxruntime-web ${provider}`, threads,
  async start() {
    const { call, encode, close } = await page(provider === 'webgpu');
    await call(async ({ provider, threads }) => {
      const ort = await import(`/ort/ort.${provider}.min.mjs`);
      Object.assign(ort.env, { logLevel: 'error' });
      Object.assign(ort.env.wasm, { numThreads: Number(threads) || 1, wasmPaths: '/ort/' });
      const options = { executionProviders: [provider] };
      const model = await ort.InferenceSession.create('/bench/model.onnx', { ...options, externalData: [{ path: 'model.bin', data: '/bench/model.bin' }] });
      const product = await ort.InferenceSession.create('/bench/product.onnx', options);
      const bytes = await (await fetch('/bench/grid.npy')).arrayBuffer();
      const { inputMetadata: [{ shape }] } = model;
      const grid = new ort.Tensor('float32', new Float32Array(bytes.slice(10 + new DataView(bytes).getUint16(8, true))), shape);
      const [m, k] = product.inputMetadata[0].shape;
      const n = product.outputMetadata[0].shape[1];
      const a = new ort.Tensor('float32', new Float32Array(m * k).fill(0.5), [m, k]);
      const timed = async (session, feeds) => {
        const from = performance.now();
        const outputs = await session.run(feeds);
        return { outputs, seconds: (performance.now() - from) / 1000 };
      };
      window.encode = async () => {
        const { outputs, seconds } = await timed(model, { grid });
        return { latent: Array.from(outputs.latent.data), seconds };
      };
      window.product = async () => {
        let best = Infinity;
        for (let i = 0; i < 10; i++) best = Math.min(best, (await timed(product, { a })).seconds);
        return 2e-9 * m * k * n / best;
      };
    }, { provider, threads });
    return {
      version: JSON.parse(readFileSync(join(here, 'node_modules/onnxruntime-web/package.json'), 'utf8')).version,
      encode, product: () => call(() => window.product()), close,
    };
  },
});

const torch = {
  name: 'PyTorch', threads: CORES,
  async start() {
    const script = [join(here, 'torch_engine.py'), file('config.json'), file('checkpoint.safetensors'), folder, String(CORES)];
    const child = spawn(options['torch-python'], script, { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const next = async () => {
      const { done, value } = await lines.next();
      if (done) throw new Error('the PyTorch process ended');
      return JSON.parse(value);
    };
    const ask = (what) => {
      child.stdin.write(`${what}\n`);
      return next();
    };
    return { version: await next(), encode: () => ask('encode'), product: () => ask('product'), close: () => child.stdin.end() };
  },
};

function hasTorch() {
  if (options['install-torch']) execFileSync(python, ['-m', 'pip', 'install', '-q', 'torch'], { stdio: 'inherit' });
  try {
    execFileSync(options['torch-python'], ['-c', 'import torch'], { stdio: 'ignore' });
    return true;
  } catch {
    console.log('PyTorch is left out: it is not installed (--install-torch, or --torch-python PATH)');
    return false;
  }
}

prepare();
const known = nativeLatent();
/** @type {Engine[]} */
let engines = [ours, inChromium('cpu', 1), inChromium('cpu', CORES), ort('wasm', 1), ort('wasm', CORES)];
if (hasTorch()) engines.push(torch);
if (options.webgpu) engines.push(inChromium('webgpu', 'SwiftShader'), ort('webgpu', 'SwiftShader'));
const called = ({ name, threads }) => `${name}, ${threads}`;
// The native command counts the work, so it is always there.
engines = engines.filter((engine) => engine === ours || (options.only ?? ['']).some((part) => called(engine).includes(part)));

const rows = [];
for (const engine of engines) {
  const running = await engine.start();
  const first = await running.encode();
  const agreement = cosine(known, first.latent);
  console.log(`${called(engine)}: cosine to the native latent ${agreement.toFixed(7)}`);
  assert.ok(agreement > MIN_COSINE, `${engine.name} computes another latent`);
  rows.push({ engine, running, agreement, first, times: [], products: [] });
}
for (let round = 0; round < Number(options.repeat); round++) {
  for (const { running, times, products } of rows) {
    times.push(await running.encode());
    if (running.product) products.push(await running.product());
  }
  console.log(`round ${round + 1}: ${rows.map(({ times }) => times.at(-1).seconds.toFixed(3)).join('  ')} s`);
}
for (const { running } of rows) await running.close?.();
for (const browser of Object.values(browsers)) await (await browser).close();
await server.close();

const results = rows.map(({ engine, running, agreement, first, times, products }) => {
  const timesOf = (key) => (times.length ? times : [first]).map((time) => time[key]);
  const least = (key) => Math.min(...timesOf(key));
  const seconds = least('seconds');
  return {
    engine: engine.name, threads: engine.threads, version: running.version, cosine: agreement, seconds, cpuSeconds: least('cpu') || null,
    allSeconds: timesOf('seconds'), allCpuSeconds: timesOf('cpu'),
    gflopPerSecond: work / seconds, productGflopPerSecond: products.length ? Math.max(...products) : null,
  };
});
const report = { date: new Date().toISOString(), cpu: cpus()[0].model, cores: CORES, size: options.size, gflop: work, results };
if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);

const reference = results.find(({ engine }) => engine === 'ctmatch Chromium wasm');
console.log(`\n${options.size}: ${work.toFixed(2)} GFLOP, ${report.cpu}, ${CORES} cores, ${report.date}; fastest of ${Number(options.repeat) || 1}\n`);
console.log('| engine | threads | seconds | GFLOP/s | one product, GFLOP/s | processor seconds | GFLOP per processor second | time ÷ Chromium wasm | processor time ÷ Chromium wasm |');
console.log('|---|---|---|---|---|---|---|---|---|');
for (const { engine, threads, version, seconds, cpuSeconds, gflopPerSecond, productGflopPerSecond } of results) {
  const digits = (number, count) => number?.toFixed(count) ?? '';
  const ratio = (a, b) => (a && b ? digits(a / b, 2) : '');
  const cells = [
    `${engine} ${version}`, threads, digits(seconds, 3), digits(gflopPerSecond, 1), digits(productGflopPerSecond, 1), digits(cpuSeconds, 2),
    cpuSeconds ? digits(work / cpuSeconds, 1) : '', ratio(seconds, reference?.seconds), ratio(cpuSeconds, reference?.cpuSeconds),
  ];
  console.log(`| ${cells.join(' | ')} |`);
}
