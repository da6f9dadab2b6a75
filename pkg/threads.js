// The threads of the CPU backend: how many there may be, and how they are started.

import { within } from './error.js';
import init, { work } from './wasm/ctmatch_cpu.js';

/** @typedef {Exclude<import('./index.js').OneThread, 'no-module' | 'gpu-failed' | 'not-started'>} OneThread what can be known beforehand */

// A product of the model is cut into few parts: more threads than this wait for each other.
const MOST = 8;

// As for the session's own worker: one that a policy blocks may never answer and never fail.
const START_MS = 10_000;

/** @type {Record<OneThread, string>} */
export const ONE_THREAD = {
  asked: 'as asked',
  'not-in-worker': 'only the package\'s worker has more',
  'not-isolated': 'the page is not cross-origin isolated (COOP and COEP)',
  'no-shared-memory': 'no shared memory in this browser',
  'one-core': 'one core in this browser',
  'no-relaxed-simd': 'no relaxed SIMD in this browser',
};

// A module with nothing but `f32x4.relaxed_madd` of three zeros.
const RELAXED_SIMD = new Uint8Array([
  0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0, 10, 19, 1, 17, 0,
  0x41, 0, 0xfd, 0x0f, 0x41, 0, 0xfd, 0x0f, 0x41, 0, 0xfd, 0x0f, 0xfd, 0x85, 2, 0x0b,
]);

/** @returns {OneThread | ''} */
function lacks() {
  try {
    // As large as the module's may become: 4 GiB of addresses. Pages that are not isolated may have it too, but send it to no worker.
    new WebAssembly.Memory({ initial: 1, maximum: 65_536, shared: true });
  } catch {
    return 'no-shared-memory';
  }
  // Its futures wait by `waitAsync`.
  if (!('waitAsync' in Atomics)) return 'no-shared-memory';
  return WebAssembly.validate(RELAXED_SIMD) ? '' : 'no-relaxed-simd';
}

/** Asked once: a browser has addresses for few such memories. @type {OneThread | '' | undefined} */
let lacking;

/** What keeps this browser from the module for the CPU alone, with one thread too. */
export const cpuModuleLacks = () => (lacking ??= lacks()) || undefined;

/**
 * What the calling worker can have.
 * @param {{ threads?: number, script?: string }} options `script`: of the worker, when it is the package's, which can become a thread too
 * @returns {{ threads: number, oneThread?: OneThread }}
 */
export function planThreads({ threads: wanted = MOST, script }) {
  const threads = Math.min(wanted, globalThis.navigator?.hardwareConcurrency ?? 1);
  const oneThread = wanted <= 1 ? 'asked'
    : !script ? 'not-in-worker'
      : !globalThis.crossOriginIsolated ? 'not-isolated'
        : (cpuModuleLacks() ?? (threads > 1 ? undefined : 'one-core'));
  return oneThread ? { threads: 1, oneThread } : { threads };
}

/**
 * @typedef {{ module: WebAssembly.Module, memory: WebAssembly.Memory, lock?: string }} Start `lock`: of the session's worker, taken from it when
 *   a thread fails
 * @param {string} script @param {WorkerType} type @param {Start} start
 */
async function startThread(script, type, start) {
  const worker = new Worker(script, { type });
  try {
    await within(new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data === undefined ? resolve(undefined) : reject(new Error(data)));
      worker.onerror = (event) => {
        event.preventDefault(); // or it would be the session's own
        reject(event);
      };
      worker.postMessage({ thread: start });
    }), START_MS, () => new Error('no answer'));
    return worker;
  } catch (cause) {
    worker.terminate();
    throw cause;
  }
}

/** Workers that are ready to become threads; they end with the calling one. @param {number} count @param {string} script @param {Start} start */
export async function startThreads(count, script, start) {
  // Some bundlers make classic scripts of workers, which import nothing as a module.
  const first = await startThread(script, 'module', start).then(() => 'module', () => startThread(script, 'classic', start).then(() => 'classic'));
  const type = /** @type {WorkerType} */ (first);
  await Promise.all(Array.from({ length: count - 1 }, () => startThread(script, type, start)));
}

/** What a worker does instead of serving a session. @param {Start} start */
export async function becomeThread({ module, memory, lock }) {
  try {
    await init({ module_or_path: module, memory });
  } catch (error) {
    postMessage(String(error));
    return;
  }
  postMessage(undefined);
  try {
    work();
  } catch {
    // The session's worker may wait for this thread for ever and take no message: whoever waits for its lock learns that it is over.
    if (lock) navigator.locks?.request(lock, { steal: true }, () => {}).catch(() => {});
  }
}
