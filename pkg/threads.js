// The threads of the CPU backend: how many there may be, and how they are started.

/** @typedef {import('./index.js').OneThread} OneThread */

// A product of the model is cut into few parts: more threads than this wait for each other.
const MOST = 8;

// As for the session's own worker: one that a policy blocks may never answer and never fail.
const START_MS = 10_000;

/** @type {Record<OneThread, string>} */
export const ONE_THREAD = {
  asked: 'one thread was asked for',
  'not-a-worker': 'a page\'s own thread and Node may not wait for others',
  'not-isolated': 'the page is not cross-origin isolated: serve it with COOP and COEP',
  'no-shared-memory': 'this browser has no memory or no waiting that threads can share',
  'one-core': 'the browser tells of one processor core',
  'no-module': 'the module for threads is missing: `wasmUrl` was given without `cpuWasmUrl`, or it was not stored for offline use',
  'gpu-failed': 'the CPU took over after the module for the GPU was started',
  'not-started': 'the threads did not start; check worker-src, Trusted Types and that thread.js is served',
};

/**
 * What the calling thread can have.
 * @param {number} [wanted]
 * @returns {{ threads: number, oneThread?: OneThread }}
 */
export function planThreads(wanted) {
  /** @param {OneThread} oneThread */
  const one = (oneThread) => ({ threads: 1, oneThread });
  if (wanted !== undefined && wanted <= 1) return one('asked');
  if (!('WorkerGlobalScope' in globalThis)) return one('not-a-worker');
  if (!globalThis.crossOriginIsolated) return one('not-isolated');
  try {
    // As large as the module's may become: 4 GiB of addresses. Its futures wait by `waitAsync`.
    new WebAssembly.Memory({ initial: 1, maximum: 65_536, shared: true });
    if (!('waitAsync' in Atomics)) return one('no-shared-memory');
  } catch {
    return one('no-shared-memory');
  }
  const threads = Math.min(wanted ?? MOST, navigator.hardwareConcurrency ?? 1);
  return threads > 1 ? { threads } : one('one-core');
}

/**
 * Starts workers that are ready to become threads. They end with the calling worker.
 * @param {number} count
 * @param {{ module: WebAssembly.Module, memory: WebAssembly.Memory, lock?: string }} start `lock`: taken away from the calling worker
 *   when a thread fails
 */
export async function startThreads(count, start) {
  /** @type {Worker[]} */
  const workers = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  try {
    await Promise.race([
      new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('no answer')), START_MS); }),
      Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
        const worker = new Worker(new URL('./thread.js', import.meta.url), { type: 'module' });
        workers.push(worker);
        worker.onmessage = ({ data }) => (data === undefined ? resolve(undefined) : reject(new Error(data)));
        worker.onerror = (event) => {
          event.preventDefault(); // or it would be the session's own
          reject(event);
        };
        worker.postMessage(start);
      }))),
    ]);
  } catch (cause) {
    for (const worker of workers) worker.terminate();
    throw cause;
  } finally {
    clearTimeout(timer);
  }
}
