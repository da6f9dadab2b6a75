// Times the image encode of ctmatch beside onnxruntime-web and PyTorch: same network, same weights, same grid, in turn, in one run; then the
// stages of ctmatch. No round begins before every engine in it has given the latent of the native command. An engine that fails is named
// and left out, and the exit code is 1.
//
//   CTMATCH=… BENCH_PYTHON=… node run.mjs [--size tiny|quarter|full] [--repeat 3] [--reports 100] [--only TEXT]... [--webgpu]
//     [--install-torch] [--torch-python PATH] [--json FILE] [--plot FILE]

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { attempt, cosine, newPage, repository, startBrowser, startServer } from '../browser/harness.mjs';
import { best, nodeRates, onAdapter, rateTable, TASK } from './rates.mjs';
import { bars, digits, ratio, table } from './report.mjs';
import { folderOf, nativeLatent, prepare, SIZES } from './sizes.mjs';
import { fastest, inPage, MOST_REPORTS, natively, reports, stageTable } from './stages.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const { CTMATCH: ctmatch, BENCH_PYTHON: python } = process.env;
assert.ok(ctmatch && python, 'CTMATCH must name the native command, BENCH_PYTHON a Python with requirements.txt');
const { values: options } = parseArgs({
  options: {
    size: { type: 'string', default: 'tiny' }, repeat: { type: 'string', default: '3' }, reports: { type: 'string', default: '100' },
    only: { type: 'string', multiple: true }, webgpu: { type: 'boolean' }, 'install-torch': { type: 'boolean' },
    'torch-python': { type: 'string', default: python }, json: { type: 'string' }, plot: { type: 'string' },
  },
});

const MIN_COSINE = 0.9999;
const CORES = availableParallelism();
const [rounds, count] = [options.repeat, options.reports].map(Number);
assert.ok(Number.isInteger(rounds) && rounds >= 0, `--repeat: expected 0 or more, found ${options.repeat}`);
assert.ok(Number.isInteger(count) && count >= 2 && count <= MOST_REPORTS, `--reports: expected 2 to ${MOST_REPORTS}, found ${options.reports}`);

const config = SIZES[options.size];
assert.ok(config, `no size ${options.size}`);
const folder = folderOf(options.size);
const file = (name) => join(folder, name);
const native = (...args) => execFileSync(ctmatch, [...args, '--device', 'cpu', '--quiet'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

/**
 * @typedef {{ latent: ArrayLike<number>, seconds: number, cpu?: number }} Encode wall clock; `cpu`: processor seconds of all threads, which
 *   other work on the machine changes less
 * @typedef {import('./rates.mjs').Rates} Rates
 * @typedef {import('./stages.mjs').Seconds} Seconds
 * @typedef {{ version?: string, encode?(): Promise<Encode>, rates?(): Promise<Rates>, close?(): unknown }} Running without `encode`: has rates only
 * @typedef {{ name: string, threads: number | string, start(): Promise<Running>, stages?(): Promise<{ seconds: Seconds, tokens?: number }> }} Engine
 */

const texts = reports(count);
// The stages of `tiny` are those of the demo model, as the page has it.
const stagesOf = options.size === 'tiny' ? { files: join(repository, 'www/model'), address: '/model/manifest.json' }
  : { files: file('model'), address: '/bench/model/manifest.json' };

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
      rates: async () => ({ f32: rate }),
    };
  },
  stages: async () => natively(native, {
    model: stagesOf.files, volume: file('volume.nii'), texts, grid: [config.frames, config.vit.image_size, config.vit.image_size], folder,
  }),
};

const HEADERS = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp', 'Cross-Origin-Resource-Policy': 'same-origin' };
const server = await startServer({ mounts: { '/ort': join(here, 'node_modules/onnxruntime-web/dist'), '/bench': folder }, headers: HEADERS });
const browsers = {};
/** A page of its own process. */
async function pageOf(browser) {
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
/** WebGPU is computed on the processor. */
const page = async (gpu) => pageOf(await (browsers[gpu] ??= startBrowser({ gpu })));

/** In a browser of its own: nothing is compiled or stored. */
async function alone(gpu, body, arg) {
  const browser = await startBrowser({ gpu });
  try {
    const { call, close } = await pageOf(browser);
    const answer = await call(body, arg);
    await close();
    return answer;
  } finally {
    await browser.close();
  }
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
  stages: () => alone(backend === 'webgpu', inPage, {
    backend, threads: Number(threads) || undefined, model: stagesOf.address, volume: '/bench/volume.nii', texts,
  }),
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
      encode, rates: async () => ({ f32: await call(() => window.product()) }), close,
    };
  },
});

const torch = {
  name: 'PyTorch', threads: CORES,
  async start() {
    const script = [join(here, 'torch_engine.py'), file('config.json'), file('checkpoint.safetensors'), folder, String(CORES)];
    const child = spawn(options['torch-python'], script, { stdio: ['pipe', 'pipe', 'inherit'] });
    // A process that has ended is told by its output.
    child.stdin.on('error', () => {});
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
    return { version: await next(), encode: () => ask('encode'), rates: () => ask('rates'), close: () => child.stdin.end() };
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

const inNode = { name: 'Node, Float32Array.set', threads: 1, start: async () => ({ rates: nodeRates }) };
const adapter = {
  name: 'WebGPU, a plain tiled product of ours', threads: 'SwiftShader',
  async start() {
    const { call, close } = await page(true);
    return { rates: () => call(onAdapter, TASK), close };
  },
};

prepare({ config, folder, native, python });
const known = nativeLatent({ folder, native });
/** @type {Engine[]} */
let engines = [ours, inChromium('cpu', 1), inChromium('cpu', CORES), ort('wasm', 1), ort('wasm', CORES)];
if (hasTorch()) engines.push(torch);
if (options.webgpu) engines.push(inChromium('webgpu', 'SwiftShader'), ort('webgpu', 'SwiftShader'));
const called = ({ name, threads }) => `${name}, ${threads}`;
// The native command counts the work, so it is always there.
engines = engines.filter((engine) => engine === ours || (options.only ?? ['']).some((part) => called(engine).includes(part)));

/** @type {{ engine: string, message: string }[]} */
const failed = [];
const hasFailed = (engine) => failed.some(({ engine: name }) => name === called(engine));
/** What `work` gives; nothing where it or an earlier part of this engine failed. @template T @param {Engine} engine @param {() => Promise<T>} work */
async function attempted(engine, work) {
  if (hasFailed(engine)) return undefined;
  try {
    return await work();
  } catch (error) {
    failed.push({ engine: called(engine), message: error.message });
    console.log(`${called(engine)} failed: ${error.message}`);
    return undefined;
  }
}

const load = loadavg()[0];
const started = [];
for (const engine of [inNode, ...engines, ...(options.webgpu ? [adapter] : [])]) {
  const row = { engine, running: await attempted(engine, engine.start), agreement: NaN, first: undefined, times: [], rates: [] };
  if (row.running?.encode) {
    await attempted(engine, async () => {
      row.first = await row.running.encode();
      row.agreement = cosine(known, row.first.latent);
      console.log(`${called(engine)}: cosine to the native latent ${row.agreement.toFixed(7)}`);
      assert.ok(row.agreement > MIN_COSINE, 'it computes another latent');
    });
  }
  started.push(row);
}
assert.ok(!hasFailed(ours), 'the native command counts the work');
for (let round = 0; round < rounds; round++) {
  for (const { engine, running, times, rates } of started) {
    await attempted(engine, async () => {
      if (running.encode) times.push(await running.encode());
      if (running.rates) rates.push(await running.rates());
    });
  }
  const line = started.filter(({ engine, running }) => running?.encode && !hasFailed(engine)).map(({ times }) => times.at(-1).seconds.toFixed(3));
  console.log(`round ${round + 1}: ${line.join('  ')} s`);
}
// Also of those that failed.
for (const { engine, running } of started) {
  if (hasFailed(engine)) await Promise.resolve(running?.close?.()).catch(() => {});
  else await attempted(engine, async () => running.close?.());
}
for (const browser of Object.values(browsers)) await browser.then((one) => one.close()).catch(() => {});

const done = started.filter(({ engine }) => !hasFailed(engine));
const results = done.filter(({ running }) => running.encode).map(({ engine, running, agreement, first, times, rates }) => {
  const timesOf = (key) => (times.length ? times : [first]).map((time) => time[key]);
  const least = (key) => Math.min(...timesOf(key));
  const seconds = least('seconds');
  return {
    engine: engine.name, threads: engine.threads, version: running.version, cosine: agreement, seconds, cpuSeconds: least('cpu') || null,
    allSeconds: timesOf('seconds'), allCpuSeconds: timesOf('cpu'), gflopPerSecond: work / seconds, productGflopPerSecond: best(rates).f32 ?? null,
  };
});
const rates = done.filter((row) => row.rates.length).map((row) => ({ name: called(row.engine), ...best(row.rates), all: row.rates }));

const journeys = engines.filter((engine) => engine.stages).map((engine) => ({ engine, found: [] }));
for (let round = 0; round < rounds; round++) {
  for (const { engine, found } of journeys) {
    const one = await attempted(engine, engine.stages);
    if (one) found.push(one);
  }
  console.log(`stages, round ${round + 1}`);
}
await server.close();
const stages = journeys.filter(({ engine, found }) => found.length && !hasFailed(engine)).map(({ engine, found }) => {
  const all = found.map(({ seconds }) => seconds);
  const seconds = fastest(all, count);
  return { name: called(engine), seconds, textsPerSecond: seconds['encode reports'] ? count / seconds['encode reports'] : null, tokens: found[0].tokens ?? null, all };
});

const measured = {
  date: new Date().toISOString(), cpu: cpus()[0].model, cores: CORES, loadAverage: [load, loadavg()[0]], size: options.size, gflop: work, rounds, results,
  rates, reports: count, stages, failed,
};
if (options.json) writeFileSync(options.json, `${JSON.stringify(measured, null, 1)}\n`);
const machine = `${measured.cpu}, ${CORES} cores, ${measured.date}; fastest of ${rounds || 1}`;
if (options.plot && results.length) {
  const drawn = results.map(({ engine, threads, seconds }) => ({ name: called({ name: engine, threads }), seconds, own: engine.startsWith('ctmatch') }));
  writeFileSync(options.plot, bars(`Image encode, ${options.size}, ${work.toFixed(1)} GFLOP`, machine, drawn));
}

const reference = results.find(({ engine }) => engine === 'ctmatch Chromium wasm');
console.log(`\n${options.size}: ${work.toFixed(2)} GFLOP, ${machine}; load average ${measured.loadAverage.map((one) => one.toFixed(1)).join(' to ')}\n`);
console.log(table(
  ['engine', 'threads', 'seconds', 'GFLOP/s', 'one product, GFLOP/s', 'processor seconds', 'GFLOP per processor second', 'time ÷ Chromium wasm', 'processor time ÷ Chromium wasm'],
  results.map(({ engine, threads, version, seconds, cpuSeconds, gflopPerSecond, productGflopPerSecond }) => [
    `${engine} ${version}`, threads, digits(seconds, 3), digits(gflopPerSecond, 1), digits(productGflopPerSecond, 1), digits(cpuSeconds, 2),
    cpuSeconds ? digits(work / cpuSeconds, 1) : '', ratio(seconds, reference?.seconds), ratio(cpuSeconds, reference?.cpuSeconds),
  ]),
));
if (rates.length) console.log(`\n${rateTable(rates)}`);
if (stages.length) {
  const tokens = stages.find((one) => one.tokens)?.tokens;
  console.log(`\n${count} reports${tokens ? ` of ${tokens.toFixed(0)} tokens on average` : ''}; in brackets ÷ the first engine in the browser\n\n${stageTable(stages)}`);
}
for (const { engine, message } of failed) console.log(`\nfailed: ${engine}: ${message}`);
process.exitCode = failed.length ? 1 : 0;
