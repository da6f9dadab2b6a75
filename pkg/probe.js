// What this browser can do for a model, before any weight is downloaded and any device is opened.

import { CtmatchError, within } from './error.js';
import { ONE_THREAD, planThreads } from './threads.js';
import { ModelCache, modelFiles, parseManifest } from './weights.js';

/** @typedef {import('./index.js').ProbeReport} ProbeReport */

// (module (func (result v128) (i8x16.splat (i32.const 0)))): the package's module is full of such instructions.
const VECTOR_MODULE = new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0, 10, 8, 1, 6, 0, 0x41, 0, 0xfd, 0x0f, 0x0b]);
// A module's first 8 bytes are a module without content.
const EMPTY_MODULE = VECTOR_MODULE.subarray(0, 8);

// As the engine tells them (src/device.rs): not every browser marks them as fallback.
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render driver/i;

/** @type {Record<NonNullable<ProbeReport['webgpu']['reason']>, string>} */
export const REASONS = {
  'insecure-context': 'WebGPU needs https or localhost',
  'no-navigator-gpu': 'there is no WebGPU in this thread',
  'no-adapter': 'WebGPU finds no adapter',
  'software-adapter': 'the only adapter is software; allowSoftwareAdapter uses it',
  limits: 'no variant of the model fits gpuMemoryBudgetBytes',
};

const LIMITS = /** @type {const} */ (['maxBufferSize', 'maxStorageBufferBindingSize', 'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupStorageSize']);

/** Why not even an empty module compiles. @returns {Promise<string | undefined>} */
export async function wasmBlocked() {
  try {
    await WebAssembly.compile(EMPTY_MODULE);
    return undefined;
  } catch {
    return "the page's policy blocks WebAssembly; script-src needs 'wasm-unsafe-eval'";
  }
}

/** Why there can be no adapter: this thread has no `navigator.gpu`. @returns {'insecure-context' | 'no-navigator-gpu' | undefined} */
export function gpuMissing() {
  if (globalThis.navigator?.gpu) return undefined;
  return globalThis.isSecureContext === false ? 'insecure-context' : 'no-navigator-gpu';
}

/** What an adapter is called. @param {Partial<GPUAdapterInfo>} [info] */
export const adapterName = ({ vendor, architecture, device, description } = {}) => [vendor, architecture, device, description].filter(Boolean).join(' ');

// A driver that hangs may never answer; one that starts takes seconds.
const ANSWER_MS = 30_000;

/** @template T @param {Promise<T>} promise of the browser's WebGPU */
export const answered = (promise) => within(promise, ANSWER_MS, () => new Error('WebGPU does not answer'));

/** The adapter that the engine will open, and what the browser says of it: the wasm side sees none of that (wgpu 30). */
export async function findAdapter() {
  const adapter = await answered(navigator.gpu.requestAdapter({ powerPreference: 'high-performance' })).catch(() => null);
  if (!adapter) return undefined;
  // Safari 26.0 has no `info`; the flag has been on the adapter and on its info.
  /** @type {Partial<GPUAdapterInfo>} */
  const info = adapter.info ?? {};
  const { vendor = '', architecture = '', isFallbackAdapter } = info;
  const name = adapterName(info);
  const fallback = isFallbackAdapter || /** @type {any} */ (adapter).isFallbackAdapter || SOFTWARE.test(name);
  return { adapter, name, vendor, architecture, fallback: fallback === true };
}

/** @param {boolean} allowSoftware @returns {Promise<ProbeReport['webgpu']>} */
async function probeGpu(allowSoftware) {
  const none = { f16: false, subgroups: false, dp4a: false };
  const missing = gpuMissing();
  const found = missing ? undefined : await findAdapter();
  if (!found) return { usable: false, scope: 'none', reason: missing ?? 'no-adapter', features: none };
  const { adapter, vendor, architecture, fallback } = found;
  return {
    usable: !fallback || allowSoftware, ...(fallback && !allowSoftware && { reason: 'software-adapter' }),
    scope: globalThis.document ? 'main' : 'worker',
    adapter: { vendor, architecture, fallback },
    features: {
      f16: adapter.features.has('shader-f16'), subgroups: adapter.features.has('subgroups'),
      dp4a: navigator.gpu.wgslLanguageFeatures?.has('packed_4x8_integer_dot_product') ?? false,
    },
    limits: Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]])),
  };
}

/** The code with which WebGPU would be refused. @param {boolean} allowSoftware @returns {Promise<import('./index.js').ErrorCode | undefined>} */
export async function gpuRefusal(allowSoftware) {
  const { usable, reason } = await probeGpu(allowSoftware);
  return usable ? undefined : reason === 'software-adapter' ? 'SOFTWARE_ADAPTER' : 'NO_WEBGPU';
}

async function probeStorage() {
  const storage = globalThis.navigator?.storage;
  const opfs = await Promise.resolve(storage?.getDirectory?.()).then(Boolean, () => false);
  const { quota, usage } = await Promise.resolve(storage?.estimate?.()).catch(() => undefined) ?? {};
  return { opfs, quotaBytes: quota, usageBytes: usage };
}

/**
 * What `open` with the same options would load.
 * @param {import('./index.js').ProbeOptions & { baseUrl?: string, model: import('./index.js').ModelRef }} options
 */
async function probeModel({ model, variant = 'auto', network = 'same-origin', cache: kind, gpuMemoryBudgetBytes: budget = Infinity, baseUrl, signal, stallMs }) {
  const cache = new ModelCache(kind, () => {});
  const files = modelFiles(model, { policy: network, urls: [], stallMs }, baseUrl ?? globalThis.location?.href, cache);
  const manifest = parseManifest(await files.manifest(signal));
  const variants = manifest.variants ?? {};
  const names = variant === 'auto' ? Object.keys(variants) : [variant];
  const fitting = names.find((name) => !(variants[name]?.gpuBytes > budget));
  const name = fitting ?? names[0];
  const chosen = variants[name];
  if (!chosen) throw new CtmatchError('MANIFEST', `the manifest has no variant ${name}`);
  /** @type {import('./index.js').Shard[]} */
  const all = [...Object.values(manifest.files ?? {}), ...chosen.shards, ...(chosen.prompts ? [chosen.prompts] : [])];
  const missing = await Promise.all(all.map((file) => files.missing(file)));
  return { fits: fitting !== undefined, advice: { variant: name, downloadBytes: missing.reduce((sum, bytes) => sum + bytes, 0), gpuBytes: Number(chosen.gpuBytes) } };
}

/**
 * In the calling thread.
 * @param {import('./index.js').ProbeOptions & { baseUrl?: string, script?: string }} [options]
 * @returns {Promise<ProbeReport>}
 */
export async function probe(options = {}) {
  const { model, signal, allowSoftwareAdapter = false, cache = 'opfs' } = options;
  signal?.throwIfAborted();
  const [webgpu, storage, blocked, wanted] = await Promise.all([
    probeGpu(allowSoftwareAdapter), probeStorage(), wasmBlocked(), model ? probeModel({ ...options, model }) : undefined,
  ]);
  signal?.throwIfAborted();
  if (webgpu.usable && wanted?.fits === false) Object.assign(webgpu, { usable: false, reason: 'limits' });
  const simd = globalThis.WebAssembly?.validate(VECTOR_MODULE) ?? false;
  const plan = planThreads(options);
  const free = (storage.quotaBytes ?? Infinity) - (storage.usageBytes ?? 0);
  const notes = [
    ...(webgpu.reason ? [`${REASONS[webgpu.reason]}; the CPU is much slower`] : []),
    ...(!webgpu.usable && plan.oneThread ? [`the CPU computes in one thread: ${ONE_THREAD[plan.oneThread]}`] : []),
    ...(blocked ? [blocked] : simd ? [] : ['this browser has no vector instructions in WebAssembly, which the package needs']),
    ...(cache === 'opfs' && !storage.opfs ? ['no private file system: model files are downloaded each time'] : []),
    ...(cache === 'opfs' && wanted && wanted.advice.downloadBytes > free ? [`${wanted.advice.downloadBytes} bytes to store, ${free} bytes are free: the rest is downloaded each time`] : []),
  ];
  return {
    webgpu, storage,
    cpu: { simd, ...plan, crossOriginIsolated: globalThis.crossOriginIsolated ?? false },
    advice: { backend: webgpu.usable ? 'webgpu' : 'cpu', ...wanted?.advice, notes },
  };
}
