// The main-thread client: the session lives in a worker, this forwards to it.

import { ASYNC_DISPOSE, CtmatchError } from './error.js';

export { exportLatents, importLatents } from './latents.js';
export { CtmatchError };

/**
 * @typedef {import('./index.js').Session} PublicSession
 * @typedef {import('./index.js').Volume} PublicVolume
 * @typedef {import('./index.js').Store} PublicStore
 * @typedef {import('./index.js').CallOptions} CallOptions
 * @typedef {import('./index.js').SessionInfo} SessionInfo
 * @typedef {{ resolve: (value: any) => void, reject: (error: unknown) => void, onProgress?: CallOptions['onProgress'] }} Pending
 */

// A worker blocked by a policy may never answer and never fail.
const WORKER_START_MS = 20_000;

/** @param {{ name?: string, code?: any, message: string, retryable?: boolean, detail?: any }} plain */
function revive({ name, code, message, retryable, detail }) {
  if (code) return new CtmatchError(code, message, { retryable, detail });
  return Object.assign(new Error(message), { name: name ?? 'Error' });
}

/** @param {string} why @param {unknown} [cause] */
const workerBlocked = (why, cause) => new CtmatchError('WORKER_BLOCKED',
  `the worker did not start (${why}); check worker-src, Trusted Types and that worker.js is served, or pass \`worker\` (false: no worker)`, { cause });

/** Calls over messages; aborts and worker failures settle what is pending. */
class Channel {
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #last = 0;
  /** @type {unknown} */
  #ended;
  #owned;
  #watching = new AbortController();
  /** @type {(error: Event) => void} */
  onFailure = () => {};
  /** @type {(loss: any) => void} */
  onLost = () => {};
  /** @type {SessionInfo} */
  info = { gpuBytes: 0, degraded: [], urls: [], encoded: { volumes: 0, texts: 0, textsFromCache: 0 } };

  /** @param {Worker} worker @param {boolean} owned whether `end` may terminate it */
  constructor(worker, owned) {
    this.worker = worker;
    this.#owned = owned;
    worker.addEventListener('message', this.#onMessage);
    worker.addEventListener('error', this.#onError);
  }

  /** @param {MessageEvent} event */
  #onMessage = ({ data: { id, value, error, progress, info, lost } }) => {
    if (lost) this.onLost(lost);
    const call = this.#pending.get(id);
    if (progress) {
      call?.onProgress?.(progress);
      return;
    }
    if (info) this.info = info;
    if (!call) {
      // Read just before its call was aborted: nobody holds it.
      if (value?.key) this.call('release', [value.key]).catch(() => {});
      return;
    }
    this.#pending.delete(id);
    if (error) call.reject(revive(error));
    else call.resolve(value);
  };

  /** @param {ErrorEvent} event */
  #onError = (event) => this.onFailure(event);

  /**
   * @param {string} method
   * @param {unknown[]} args
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   */
  call(method, args, { signal, onProgress } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended);
      if (signal?.aborted) return reject(signal.reason);
      this.#last += 1;
      const id = this.#last;
      // The caller is free at once; the worker stops at its next step.
      const abort = () => {
        this.#pending.delete(id);
        this.worker.postMessage({ id, method: 'abort' });
        reject(signal?.reason);
      };
      const settled = () => signal?.removeEventListener('abort', abort);
      signal?.addEventListener('abort', abort, { once: true });
      this.#pending.set(id, {
        onProgress,
        resolve: (value) => { settled(); resolve(value); },
        reject: (error) => { settled(); reject(error); },
      });
      try {
        this.worker.postMessage({ id, method, args });
      } catch (cause) {
        this.#pending.delete(id);
        settled();
        reject(new CtmatchError('INVALID_ARGUMENT', 'an argument cannot be sent to the worker', { cause }));
      }
    });
  }

  /** A worker that is killed says nothing, but the lock that it holds comes free. @param {string} lock */
  watch(lock) {
    globalThis.navigator?.locks?.request(lock, { signal: this.#watching.signal }, async () => this.onFailure(new Event('gone'))).catch(() => {});
  }

  /** @param {unknown} error what pending and later calls reject with */
  end(error) {
    if (this.#ended) return;
    this.#ended = error;
    this.#watching.abort();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    if (this.#owned) this.worker.terminate();
    else this.worker.postMessage({ id: 0, method: 'close', args: [] });
    this.worker.removeEventListener('message', this.#onMessage);
    this.worker.removeEventListener('error', this.#onError);
  }
}

/** @implements {PublicVolume} */
class Volume {
  #channel;
  #key;
  #closed = false;

  /**
   * @param {Channel} channel
   * @param {number} key
   * @param {Omit<import('./index.js').Volume, 'slice' | 'modelBox' | 'exportMap' | 'close' | 'revealIdentifiers' | 'cleanCopy'>} facts
   */
  constructor(channel, key, facts) {
    this.#channel = channel;
    this.#key = key;
    this.dims = facts.dims;
    this.spacingMm = facts.spacingMm;
    this.orientation = facts.orientation;
    this.orientationKnown = facts.orientationKnown;
    this.datatype = facts.datatype;
    this.headerScaling = facts.headerScaling;
    this.findings = facts.findings;
    this.identifiers = facts.identifiers;
    this.huRange = facts.huRange;
    this.voxelBytes = facts.voxelBytes;
  }

  /**
   * The worker's name for it, if it belongs to that worker and is open.
   * @param {unknown} volume
   * @param {Channel} channel
   */
  static key(volume, channel) {
    if (!(volume instanceof Volume) || volume.#channel !== channel) {
      throw new CtmatchError('INVALID_ARGUMENT', 'expected an open volume of this session');
    }
    if (volume.#closed) throw new CtmatchError('CLOSED', 'the volume is closed');
    return volume.#key;
  }

  /**
   * @param {import('./index.js').Plane} plane
   * @param {number} index
   * @param {import('./index.js').SliceOptions} [options]
   */
  async slice(plane, index, { grid, slabMm, signal } = {}) {
    return this.#channel.call('slice', [Volume.key(this, this.#channel), plane, index, { grid, slabMm }], { signal });
  }

  async modelBox() {
    return this.#channel.call('modelBox', [Volume.key(this, this.#channel)]);
  }

  /** @type {PublicVolume['exportMap']} */
  async exportMap({ values }, { grid } = {}) {
    return this.#channel.call('exportMap', [Volume.key(this, this.#channel), values, { grid }]);
  }

  async revealIdentifiers() {
    return this.#channel.call('revealIdentifiers', [Volume.key(this, this.#channel)]);
  }

  /** @param {CallOptions} [options] */
  async cleanCopy(options) {
    return this.#channel.call('cleanCopy', [Volume.key(this, this.#channel)], options);
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#channel.call('release', [this.#key]).catch(() => {});
  }
}

/** @implements {PublicStore} */
class Store {
  #channel;
  #key;
  #closed = false;
  #facts;

  /** @param {Channel} channel @param {number} key @param {import('./index.js').StoreFacts} facts */
  constructor(channel, key, facts) {
    this.#channel = channel;
    this.#key = key;
    this.#facts = facts;
  }

  get model() { return this.#facts.model; }
  get precision() { return this.#facts.precision; }
  get view() { return this.#facts.view ?? undefined; }
  get volumes() { return this.#facts.volumes; }
  get reports() { return this.#facts.reports; }

  /** @param {string} method @param {unknown[]} args @param {CallOptions} [options] */
  async #call(method, args, options) {
    if (this.#closed) throw new CtmatchError('CLOSED', 'the store is closed');
    return this.#channel.call(method, [this.#key, ...args], options);
  }

  /** @type {PublicStore['add']} */
  async add({ volumes = [], reports }) {
    this.#facts = await this.#call('addToStore', [{ volumes: [...volumes], reports }]);
  }

  /** @type {PublicStore['search']} */
  async search(query, { find, topK, hubness, signal }) {
    return this.#call('searchStore', [query, { find, topK, hubness }], { signal });
  }

  /** @type {PublicStore['evaluate']} */
  async evaluate({ labels, signal, ...options } = {}) {
    return this.#call('evaluateStore', [{ labels: labels && [...labels], ...options }], { signal });
  }

  async save() {
    return this.#call('saveStore', []);
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#channel.call('release', [this.#key]).catch(() => {});
  }
}

/** @implements {PublicSession} */
class Session {
  #channel;
  #lossSeen = false;
  /** @type {import('./index.js').Session['lost']} */
  lost;

  /** @param {Channel} channel */
  constructor(channel) {
    this.#channel = channel;
    this.lost = this.#watchLoss();
    channel.onFailure = (event) => {
      const message = event instanceof ErrorEvent ? event.message : 'the worker failed';
      const error = new CtmatchError('WASM_ABORT', `the worker stopped: ${message}; open a new session`, { retryable: true });
      channel.onLost({ reason: 'wasm-abort', message: error.message });
      channel.end(error);
    };
  }

  /** @returns {import('./index.js').Session['lost']} */
  #watchLoss() {
    this.#lossSeen = false;
    return new Promise((resolve) => {
      this.#channel.onLost = (loss) => {
        this.#lossSeen = true;
        resolve(loss);
      };
    });
  }

  get info() {
    return this.#channel.info;
  }

  /** @param {string} method @param {unknown[]} args @param {CallOptions} [options] */
  async #load(method, args, options) {
    await this.#channel.call(method, args, options);
    if (this.#lossSeen) this.lost = this.#watchLoss();
  }

  /** @type {import('./index.js').Session['loadModel']} */
  async loadModel(model, options) {
    await this.#load('loadModel', [model instanceof URL ? model.href : model], options);
  }

  /** @type {import('./index.js').Session['recover']} */
  async recover(options) {
    await this.#load('recover', [], options);
  }

  /** @type {import('./index.js').Session['selfTest']} */
  async selfTest(options) {
    return this.#channel.call('selfTest', [], options);
  }

  /** @type {import('./index.js').Session['estimate']} */
  async estimate(volume, options) {
    return this.#channel.call('estimate', [volume && Volume.key(volume, this.#channel)], options);
  }

  /** @type {import('./index.js').Session['readVolume']} */
  async readVolume(source, { signal, onProgress, ...reading } = {}) {
    const { key, facts } = await this.#channel.call('readVolume', [source, reading], { signal, onProgress });
    return new Volume(this.#channel, key, facts);
  }

  /** @type {import('./index.js').Session['parseReports']} */
  async parseReports(source, { format, signal } = {}) {
    return this.#channel.call('parseReports', [source, { format }], { signal });
  }

  /** @type {import('./index.js').Session['textHints']} */
  async textHints(texts) {
    return this.#channel.call('textHints', [[...texts]]);
  }

  /** @type {import('./index.js').Session['privacyNotices']} */
  async privacyNotices(count) {
    return this.#channel.call('privacyNotices', [count]);
  }

  /** @type {import('./index.js').Session['encodeVolume']} */
  async encodeVolume(volume, { accept = [], signal, onProgress } = {}) {
    return this.#channel.call('encodeVolume', [Volume.key(volume, this.#channel), { accept: [...accept] }], { signal, onProgress });
  }

  /** @type {import('./index.js').Session['encodeReports']} */
  async encodeReports(reports, { view, meta, signal, onProgress } = {}) {
    const list = reports instanceof Blob || typeof reports === 'string' ? reports : [...reports];
    return this.#channel.call('encodeReports', [list, { view, meta }], { signal, onProgress });
  }

  /** @type {import('./index.js').Session['rank']} */
  async rank(image, reports, { topK, signal } = {}) {
    return this.#channel.call('rank', [image, reports, { topK }], { signal });
  }

  /** What the worker calls it. @param {unknown} of */
  #sent(of) {
    return of instanceof Volume ? Volume.key(of, this.#channel) : of;
  }

  /** @type {import('./index.js').Session['zeroShot']} */
  async zeroShot(of, { ask = [], accept = [], prompts, signal, onProgress } = {}) {
    return this.#channel.call('zeroShot', [this.#sent(of), { ask: [...ask], accept: [...accept], prompts }], { signal, onProgress });
  }

  /** @type {import('./index.js').Session['explain']} */
  async explain(of, { signal, onProgress, volume, ...options }) {
    return this.#channel.call('explain', [this.#sent(of), this.#sent(volume), options], { signal, onProgress });
  }

  /** @type {import('./index.js').Session['occlude']} */
  async occlude(volume, cubes, { signal, onProgress, ...options }) {
    return this.#channel.call('occlude', [Volume.key(volume, this.#channel), [...cubes], options], { signal, onProgress });
  }

  /** @type {import('./index.js').Session['openStore']} */
  async openStore(file, { precision, signal } = {}) {
    const { key, facts } = await this.#channel.call('openStore', [file, { precision }], { signal });
    return new Store(this.#channel, key, facts);
  }

  /** @type {import('./index.js').Session['evaluate']} */
  async evaluate(choices, options) {
    return this.#channel.call('evaluate', [choices, options]);
  }

  /** @type {import('./index.js').Session['evaluateLabels']} */
  async evaluateLabels(rows, options) {
    return this.#channel.call('evaluateLabels', [rows, options]);
  }

  /** @type {import('./index.js').Session['parseLabels']} */
  async parseLabels(source) {
    return this.#channel.call('parseLabels', [source]);
  }

  /** @type {import('./index.js').Session['buildItems']} */
  async buildItems(reports, options) {
    return this.#channel.call('buildItems', [reports, options]);
  }

  /** @type {import('./index.js').Session['clearCache']} */
  async clearCache() {
    await this.#channel.call('clearCache', []);
  }

  /** @type {import('./index.js').Session['diagnostics']} */
  async diagnostics() {
    return this.#channel.call('diagnostics', []);
  }

  /** @type {import('./index.js').Session['close']} */
  async close() {
    this.#channel.end(new CtmatchError('CLOSED', 'the session is closed'));
  }

  async [ASYNC_DISPOSE]() {
    await this.close();
  }
}

/** @param {Worker | (() => Worker) | undefined} given */
function startWorker(given) {
  if (given && typeof given !== 'function') return given;
  try {
    return given ? given() : new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
  } catch (cause) {
    throw workerBlocked(cause instanceof Error ? cause.name : 'blocked', cause);
  }
}

/**
 * Waits, boundedly, until the worker's code runs.
 * @param {Channel} channel
 * @param {AbortSignal} [signal]
 */
function greeting(channel, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(workerBlocked(`no answer in ${WORKER_START_MS / 1000} s`)), WORKER_START_MS);
    channel.onFailure = (event) => {
      clearTimeout(timer);
      reject(workerBlocked(event instanceof ErrorEvent && event.message ? event.message : 'not loaded'));
    };
    const lock = `ctmatch worker ${Math.random()}`;
    channel.call('hello', [lock], { signal }).then(() => resolve(channel.watch(lock)), reject).finally(() => clearTimeout(timer));
  });
}

/**
 * A worker that answers.
 * @param {Worker | (() => Worker) | undefined} worker
 * @param {AbortSignal} [signal]
 */
async function connect(worker, signal) {
  const channel = new Channel(startWorker(worker), !worker || typeof worker === 'function');
  try {
    await greeting(channel, signal);
  } catch (error) {
    channel.end(error);
    throw error;
  }
  return channel;
}

/** What can be sent of the options; inside the worker, relative URLs would be relative to worker.js. @param {import('./index.js').OpenOptions} options */
function sendable({ worker, signal, onProgress, model, wasmUrl, cpuWasmUrl, ...plain }) {
  return {
    ...plain, baseUrl: globalThis.document?.baseURI ?? location.href,
    model: model instanceof URL ? model.href : model, wasmUrl: wasmUrl instanceof URL ? wasmUrl.href : wasmUrl,
    cpuWasmUrl: cpuWasmUrl instanceof URL ? cpuWasmUrl.href : cpuWasmUrl,
  };
}

/** @type {typeof import('./index.js').open} */
export async function open(options = {}) {
  const { worker, device, signal, onProgress } = options;
  // A device cannot be sent to a worker.
  if (worker === false || device) {
    const core = await import('./core.js');
    return core.open(options);
  }
  const channel = await connect(worker, signal);
  try {
    const session = new Session(channel);
    await channel.call('open', [sendable(options)], { signal, onProgress });
    return session;
  } catch (error) {
    channel.end(error);
    throw error;
  }
}

/** @type {typeof import('./index.js').probe} */
export async function probe(options = {}) {
  const { worker, signal } = options;
  const here = async () => (await import('./probe.js')).probe(options);
  if (worker === false) return here();
  /** @type {import('./index.js').ProbeReport | undefined} */
  let report;
  let note = "WebGPU exists in the page's own thread only: pass `worker: false`";
  try {
    const channel = await connect(worker, signal);
    try {
      report = await channel.call('probe', [sendable(options)], { signal });
    } finally {
      channel.end(new CtmatchError('CLOSED', 'the probe is over'));
    }
  } catch (error) {
    if (!(error instanceof CtmatchError && error.code === 'WORKER_BLOCKED')) throw error;
    note = error.message;
  }
  if (report && report.webgpu.scope !== 'none') return report;
  const own = await here();
  if (report && own.webgpu.scope === 'none') return report;
  own.advice.notes.push(note);
  return own;
}
