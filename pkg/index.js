// The main-thread client: the session lives in a worker, this forwards to it.

import { AsStore, AsVolume, ASYNC_DISPOSE, CtmatchError, within } from './error.js';

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
      if (value?.key) this.call('release', [], {}, value.key).catch(() => {});
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
   * @param {unknown[]} [args]
   * @param {CallOptions} [options] and what else the method takes
   * @param {number} [key] whose method it is, if not the session's
   * @returns {Promise<any>}
   */
  call(method, args = [], { signal, onProgress, ...options } = {}, key) {
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
        const named = Object.entries(options).map(([name, value]) => [name, sent(value, this)]);
        this.worker.postMessage({ id, method, key, args: args.map((value) => sent(value, this)), options: Object.fromEntries(named) });
      } catch (cause) {
        this.#pending.delete(id);
        settled();
        reject(cause instanceof CtmatchError ? cause : new CtmatchError('INVALID_ARGUMENT', 'an argument cannot be sent to the worker', { cause }));
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
    else this.worker.postMessage({ id: 0, method: 'close', options: {} });
    this.worker.removeEventListener('message', this.#onMessage);
    this.worker.removeEventListener('error', this.#onError);
  }
}

/** Where volumes and stores are as long as they are open. @type {WeakMap<object, { channel: Channel, key: number }>} */
const homes = new WeakMap();

/** @param {object} of */
function homeOf(of) {
  const home = homes.get(of);
  if (!home) throw new CtmatchError('CLOSED', 'the volume or store is closed');
  return home;
}

/** @param {any} value @param {Channel} channel */
function sent(value, channel) {
  if (value instanceof Volume) {
    const { channel: home, key } = homeOf(value);
    if (home !== channel) throw new CtmatchError('INVALID_ARGUMENT', 'expected an open volume of this session');
    return { held: key };
  }
  // Neither URLs nor all iterables can be sent.
  if (value instanceof URL) return value.href;
  return typeof value === 'object' && value?.[Symbol.iterator] && !ArrayBuffer.isView(value) ? [...value] : value;
}

/** @param {object} of @param {string} method @param {unknown[]} [args] @param {CallOptions} [options] */
async function ask(of, method, args, options) {
  const { channel, key } = homeOf(of);
  return channel.call(method, args, options, key);
}

/** @param {object} of */
function release(of) {
  ask(of, 'release').catch(() => {});
  homes.delete(of);
}

/** @implements {PublicVolume} */
class Volume extends AsVolume {
  /** @type {PublicVolume['slice']} */
  slice(plane, index, options) {
    return ask(this, 'slice', [plane, index], options);
  }

  /** @type {PublicVolume['modelBox']} */
  modelBox(options) {
    return ask(this, 'modelBox', [], options);
  }

  /** @type {PublicVolume['exportMap']} */
  exportMap({ values }, options) {
    return ask(this, 'exportMap', [{ values }], options);
  }

  revealIdentifiers() {
    return ask(this, 'revealIdentifiers');
  }

  /** @type {PublicVolume['cleanCopy']} */
  cleanCopy(options) {
    return ask(this, 'cleanCopy', [], options);
  }

  close() {
    release(this);
  }
}

/** @implements {PublicStore} */
class Store extends AsStore {
  /** @type {PublicStore['add']} */
  async add({ volumes = [], reports }, options) {
    Object.assign(this, await ask(this, 'add', [{ volumes: [...volumes], reports }], options));
  }

  /** @type {PublicStore['search']} */
  search(query, options) {
    return ask(this, 'search', [query], options);
  }

  /** @type {PublicStore['evaluate']} */
  evaluate(options) {
    return ask(this, 'evaluate', [], options);
  }

  /** @type {PublicStore['save']} */
  save(options) {
    return ask(this, 'save', [], options);
  }

  close() {
    release(this);
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

  /** @type {PublicSession['loadModel']} */
  loadModel(model, options) {
    return this.#load('loadModel', [model], options);
  }

  /** @type {PublicSession['recover']} */
  recover(options) {
    return this.#load('recover', [], options);
  }

  /** @template {object} T @param {new (facts: any) => T} Made @param {Promise<{ key: number, facts: object }>} answer */
  async #held(Made, answer) {
    const { key, facts } = await answer;
    const made = new Made(facts);
    homes.set(made, { channel: this.#channel, key });
    return made;
  }

  /** @type {PublicSession['readVolume']} */
  readVolume(source, options) {
    return this.#held(Volume, this.#channel.call('readVolume', [source], options));
  }

  /** @type {PublicSession['openStore']} */
  openStore(file, options) {
    return this.#held(Store, this.#channel.call('openStore', [file], options));
  }

  /** The method of the worker's session: so many arguments, then options. @param {string} method @param {number} count @returns {any} */
  #remote(method, count) {
    return async (/** @type {unknown[]} */ ...args) => this.#channel.call(method, Array.from({ length: count }, (_, i) => args[i]), /** @type {any} */ (args[count]));
  }

  /** @type {PublicSession['selfTest']} */
  selfTest = this.#remote('selfTest', 0);

  /** @type {PublicSession['estimate']} */
  estimate = this.#remote('estimate', 1);

  /** @type {PublicSession['parseReports']} */
  parseReports = this.#remote('parseReports', 1);

  /** @type {PublicSession['textHints']} */
  textHints = this.#remote('textHints', 1);

  /** @type {PublicSession['privacyNotices']} */
  privacyNotices = this.#remote('privacyNotices', 1);

  /** @type {PublicSession['encodeVolume']} */
  encodeVolume = this.#remote('encodeVolume', 1);

  /** @type {PublicSession['encodeReports']} */
  encodeReports = this.#remote('encodeReports', 1);

  /** @type {PublicSession['rank']} */
  rank = this.#remote('rank', 2);

  /** @type {PublicSession['zeroShot']} */
  zeroShot = this.#remote('zeroShot', 1);

  /** @type {PublicSession['explain']} */
  explain = this.#remote('explain', 1);

  /** @type {PublicSession['occlude']} */
  occlude = this.#remote('occlude', 2);

  /** @type {PublicSession['evaluate']} */
  evaluate = this.#remote('evaluate', 1);

  /** @type {PublicSession['evaluateLabels']} */
  evaluateLabels = this.#remote('evaluateLabels', 1);

  /** @type {PublicSession['parseLabels']} */
  parseLabels = this.#remote('parseLabels', 1);

  /** @type {PublicSession['buildItems']} */
  buildItems = this.#remote('buildItems', 1);

  /** @type {PublicSession['clearCache']} */
  clearCache = this.#remote('clearCache', 0);

  /** @type {PublicSession['diagnostics']} */
  diagnostics = this.#remote('diagnostics', 0);

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
async function greeting(channel, signal) {
  const name = `ctmatch worker ${Math.random()}`;
  await within(new Promise((resolve, reject) => {
    channel.onFailure = (event) => reject(workerBlocked(event instanceof ErrorEvent && event.message ? event.message : 'not loaded'));
    channel.call('hello', [], /** @type {CallOptions} */ ({ name, signal })).then(resolve, reject);
  }), WORKER_START_MS, () => workerBlocked(`no answer in ${WORKER_START_MS / 1000} s`));
  channel.watch(name);
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

/** Inside the worker, relative URLs would be relative to worker.js. @param {import('./index.js').OpenOptions} options */
const sendable = ({ worker, ...plain }) => ({ ...plain, baseUrl: globalThis.document?.baseURI ?? location.href });

/** @type {typeof import('./index.js').open} */
export async function open(options = {}) {
  const { worker, device, signal } = options;
  // A device cannot be sent to a worker.
  if (worker === false || device) {
    const core = await import('./core.js');
    return core.open(options);
  }
  const channel = await connect(worker, signal);
  try {
    const session = new Session(channel);
    await channel.call('open', [], sendable(options));
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
      report = await channel.call('probe', [], sendable(options));
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
