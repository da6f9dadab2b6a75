// The session in the calling thread: files in, plain answers out. It adds order, abort and provenance to the wasm
// module and does no arithmetic of its own.

import * as mainModule from './wasm/ctmatch.js';
import * as cpuModule from './wasm/ctmatch_cpu.js';
import { lentAdapter, ownAdapter, Pacer, withAdapter } from './device.js';
import { AsStore, AsVolume, ASYNC_DISPOSE, CtmatchError } from './error.js';
import { adapterName, findAdapter, gpuMissing, gpuRefusal, REASONS, wasmBlocked } from './probe.js';
import { cpuModuleLacks, planThreads, startThreads } from './threads.js';
import { checkSizes, ModelCache, modelFiles, parseManifest, pieces, request, resolved } from './weights.js';

export { exportLatents, importLatents } from './latents.js';
export { probe } from './probe.js';
export { CtmatchError };

/**
 * @typedef {import('./index.js').Session} PublicSession
 * @typedef {import('./index.js').OpenOptions} OpenOptions
 * @typedef {import('./index.js').CallOptions} CallOptions
 * @typedef {import('./index.js').Progress} Progress
 * @typedef {import('./index.js').Report} Report
 * @typedef {import('./index.js').ImageLatent} ImageLatent
 * @typedef {import('./index.js').ReportSet} ReportSet
 * @typedef {import('./index.js').ScoreTarget} ScoreTarget
 * @typedef {{ reason: 'destroyed' | 'unknown' | 'wasm-abort', message: string }} Loss
 */

/**
 * What crosses from the wasm module.
 * @typedef {import('./error.js').VolumeFacts} VolumeFacts
 * @typedef {{ backend: import('./index.js').Backend, adapter: string, vendor: string, software: boolean,
 *   limits: Record<string, number> }} DeviceFacts
 * @typedef {{ info: import('./index.js').ModelInfo, provenance: import('./index.js').Provenance, variant: string,
 *   selfTest: import('./index.js').SelfTest | null, gpuBytes: number, dimLatent: number, preprocess: object }} LoadedModel `provenance`: what is known without a volume
 * @typedef {{ vector: Float32Array<ArrayBuffer>, codes: Uint16Array<ArrayBuffer>, classLogits?: Float32Array,
 *   timingsMs: Record<string, number> }} RawImage
 * @typedef {{ vectors: Float32Array, rows: Omit<ReportSet['rows'][number], 'id'>[], encoded: number }} RawTexts
 * @typedef {{ rows: (Omit<import('./index.js').Ranked, 'id'> & { tied: boolean })[], tieTolerance: number,
 *   background?: import('./index.js').Background | null }} RawRanking
 * @typedef {{ values: Float32Array<ArrayBuffer>, plane: Float32Array<ArrayBuffer>,
 *   summary: Omit<import('./index.js').HeatMap, 'values' | 'plane' | 'asked' | 'provenance'> }} RawMap
 */

// One read of a Blob; between two reads the thread can take messages, and so an abort.
const CHUNK_BYTES = 2 * 1024 * 1024;

// The same while cleaning, where every byte is packed again.
const CLEAN_CHUNK_BYTES = 256 * 1024;

// Longer than any gzip header that names a file.
const GZIP_HEADER_BYTES = 64 * 1024;

/** @typedef {(loadedBytes: number) => void} Loaded */

/** @param {Blob} blob @param {Loaded} progress @param {number} [step] */
async function* chunks(blob, progress, step = CHUNK_BYTES) {
  for (let at = 0; at < blob.size; at += step) {
    yield new Uint8Array(await blob.slice(at, at + step).arrayBuffer());
    progress(Math.min(at + step, blob.size));
  }
}

/** What the browser makes of a gzip file, checksums verified. @param {Blob} blob @param {Loaded} progress */
async function* unpacked(blob, progress) {
  let loaded = 0;
  /** @type {TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>} */
  const counter = new TransformStream({
    transform(chunk, controller) {
      loaded += chunk.length;
      controller.enqueue(chunk);
    },
  });
  for await (const piece of pieces(blob.stream().pipeThrough(counter).pipeThrough(new DecompressionStream('gzip')))) {
    yield piece;
    progress(loaded);
  }
}

/**
 * @param {VolumeReader} reader is used up
 * @param {AsyncIterable<Uint8Array>} source
 * @param {AbortSignal} [signal]
 */
async function readAll(reader, source, signal) {
  /** @type {VolumeReader | undefined} */
  let open = reader;
  try {
    for await (const chunk of source) {
      signal?.throwIfAborted();
      reader.push(chunk);
    }
    signal?.throwIfAborted();
    open = undefined; // `finish` consumes it
    return reader.finish();
  } finally {
    open?.free();
  }
}

/**
 * What the read options hold, and nothing else: they go into the provenance.
 * @param {import('./index.js').ReadOptions} options
 */
function plainReading({ frame, orientation, scaling, sidecar, referenceExact }) {
  return JSON.parse(JSON.stringify({ frame, orientation, scaling, sidecar, referenceExact }));
}

/** A name is looked at for identifiers and kept nowhere else. @param {Blob} blob */
const nameOf = (blob) => ('File' in globalThis && blob instanceof File ? blob.name : undefined);

/** How often each rule applied: all that a record may say of them. @param {readonly { rule: string }[]} identifiers */
function ruleCounts(identifiers) {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const { rule } of identifiers) counts[rule] = (counts[rule] ?? 0) + 1;
  return counts;
}

/**
 * @typedef {typeof mainModule} Wasm
 * @typedef {import('./wasm/ctmatch.js').Engine} Engine
 * @typedef {import('./wasm/ctmatch.js').LatentStore} LatentStore
 * @typedef {import('./wasm/ctmatch.js').Target} Target
 * @typedef {import('./wasm/ctmatch.js').VolumeReader} VolumeReader
 * @typedef {import('./index.js').OneThread} OneThread
 * @typedef {{ baseUrl?: string, script?: string, lock?: string }} Home in the package's worker: the page's address, the worker's script, and a
 *   lock that is held as long as it lives
 */

// One module is for WebGPU and computes on the CPU too; the other is for the CPU alone: smaller, faster, and threads may share its memory.
// wasm-bindgen keeps one instance of each per thread: it is started once, also by two sessions that open at once, and useless after a trap.
const main = { wasm: mainModule, ready: false, starting: /** @type {Promise<void> | undefined} */ (undefined) };
const cpu = {
  wasm: /** @type {Wasm} */ (/** @type {unknown} */ (cpuModule)), ready: false, starting: /** @type {Promise<void> | undefined} */ (undefined),
  threads: 1,
};
let trapped = false;

/** @type {Set<(message: string) => void>} */
const trapListeners = new Set();

// A trap inside a Rust future surfaces as an uncaught error, and the promise of the call never settles. Node has no such events:
// there it ends the process.
/** @param {Event} event */
function onUncaught(event) {
  const error = event instanceof ErrorEvent ? event.error : event instanceof PromiseRejectionEvent ? event.reason : undefined;
  if (error instanceof WebAssembly.RuntimeError) for (const listener of [...trapListeners]) listener(error.message);
}

/** @param {(message: string) => void} listener */
function listenForTraps(listener) {
  if (trapListeners.size === 0) {
    globalThis.addEventListener?.('error', onUncaught);
    globalThis.addEventListener?.('unhandledrejection', onUncaught);
  }
  trapListeners.add(listener);
}

/** @param {(message: string) => void} listener */
function ignoreTraps(listener) {
  trapListeners.delete(listener);
  if (trapListeners.size === 0) {
    globalThis.removeEventListener?.('error', onUncaught);
    globalThis.removeEventListener?.('unhandledrejection', onUncaught);
  }
}

/** @param {WebAssembly.Module} module @param {number} threads @param {Home} home */
async function startPool(module, threads, { script = '', lock }) {
  try {
    if (threads > 1) await startThreads(threads - 1, script, { module, memory: cpuModule.sharedMemory(), lock });
    cpu.threads = threads;
  } catch {
    // `info` tells from the one thread that there is.
  }
  cpuModule.startThreads(cpu.threads);
}

/** @param {string} message */
const wasmAbort = (message) => new CtmatchError('WASM_ABORT', `the wasm module stopped: ${message}; open a new session`, { retryable: true });

const noModel = () => new CtmatchError('NO_MODEL', 'no model is loaded; call loadModel first', { retryable: true });

/** @param {string} message @param {Readonly<Record<string, unknown>>} [detail] */
const invalid = (message, detail) => new CtmatchError('INVALID_ARGUMENT', message, { detail });

/** Latents of two models do not compare. @param {string} expected @param {string} found */
function requireSpace(expected, found) {
  if (found !== expected) throw invalid(`embedding space: expected ${expected}, found ${found}`, { expected, found });
}

/** @param {Response} response @param {AbortSignal} [signal] */
async function compile(response, signal) {
  try {
    // A wrong MIME type makes the streaming compiler refuse; the bytes are the same.
    return response.headers.get('content-type')?.startsWith('application/wasm')
      ? await WebAssembly.compileStreaming(response)
      : await WebAssembly.compile(await response.arrayBuffer());
  } catch (cause) {
    signal?.throwIfAborted();
    const blocked = await wasmBlocked();
    if (blocked) throw new CtmatchError('CSP_WASM_BLOCKED', blocked, { cause });
    const whole = cause instanceof WebAssembly.CompileError;
    throw cause instanceof CtmatchError ? cause
      : new CtmatchError('NETWORK', `${response.url} is not a ${whole ? '' : 'whole '}WebAssembly module`, { retryable: !whole, detail: { url: response.url }, cause });
  }
}

/** A volume of the wasm module behind the public shape. */
class Volume extends AsVolume {
  #raw;
  #closed = false;
  #host;
  /** @type {string | undefined} */
  #sha256;

  /**
   * @param {import('./wasm/ctmatch.js').Volume} raw
   * @param {Readonly<Record<string, unknown>>} reading how it was read, for the provenance
   * @param {{ release(free: () => void): void, engine(): Engine, clean(options: CallOptions): Promise<Blob> }} host `release` runs `free` once no call uses the volume; `engine`: with a model
   */
  constructor(raw, reading, host) {
    /** @type {VolumeFacts} */
    const info = raw.info();
    super(info);
    this.#raw = raw;
    this.#host = host;
    this.reading = { ...reading, identifiers: ruleCounts(info.identifiers) };
  }

  get raw() {
    if (this.#closed) throw new CtmatchError('CLOSED', 'the volume is closed');
    return this.#raw;
  }

  /** Hashed once: it reads every voxel. */
  get voxelSha256() {
    return (this.#sha256 ??= this.raw.voxelSha256());
  }

  /** @template T @param {AbortSignal | undefined} signal @param {(raw: import('./wasm/ctmatch.js').Volume) => T} work */
  async #do(signal, work) {
    signal?.throwIfAborted();
    try {
      return work(this.raw);
    } catch (error) {
      throw publicError(error, signal);
    }
  }

  /**
   * @param {import('./index.js').Plane} plane
   * @param {number} index
   * @param {import('./index.js').SliceOptions} [options]
   * @returns {Promise<import('./index.js').Slice>}
   */
  slice(plane, index, { grid = 'native', slabMm = 0, signal } = {}) {
    return this.#do(signal, (raw) => (grid === 'model' ? this.#host.engine().modelSlice(raw, plane, index, slabMm) : raw.slice(plane, index, slabMm)));
  }

  /** @param {CallOptions} [options] */
  modelBox({ signal } = {}) {
    return this.#do(signal, (raw) => this.#host.engine().modelBox(raw));
  }

  /** @param {{ readonly values: Float32Array }} map @param {{ grid?: import('./index.js').MapGrid, comment?: string, signal?: AbortSignal }} [options] */
  exportMap({ values }, { grid = 'native', comment = '', signal } = {}) {
    return this.#do(signal, (raw) => new Blob([/** @type {Uint8Array<ArrayBuffer>} */ (this.#host.engine().mapFile(raw, values, grid, comment))], { type: 'application/gzip' }));
  }

  async revealIdentifiers() {
    return this.raw.reveal();
  }

  /** @param {CallOptions} [options] */
  async cleanCopy(options = {}) {
    if (this.#closed) throw new CtmatchError('CLOSED', 'the volume is closed');
    return this.#host.clean(options);
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#host.release(() => this.#raw.free());
  }
}

/** A store of the wasm module behind the public shape. */
class Store extends AsStore {
  #raw;
  #closed = false;
  #host;

  /**
   * @param {LatentStore} raw
   * @param {{ call<T>(work: () => T, signal?: AbortSignal): Promise<T>, release(free: () => void): void }} host
   */
  constructor(raw, host) {
    super(raw.info());
    this.#raw = raw;
    this.#host = host;
  }

  get #open() {
    if (this.#closed) throw new CtmatchError('CLOSED', 'the store is closed');
    return this.#raw;
  }

  /** @param {string} found of latents */
  #requireSpace(found) {
    requireSpace(this.model.embeddingSpace, found);
  }

  /** @param {{ volumes?: Iterable<{ id: string, latent: ImageLatent }>, reports?: ReportSet }} added @param {CallOptions} [options] */
  add({ volumes = [], reports }, { signal } = {}) {
    return this.#host.call(() => {
      const raw = this.#open;
      try {
        for (const { id, latent } of volumes) {
          this.#requireSpace(latent.provenance.embeddingSpace);
          raw.addVolume({ id, sha256: latent.provenance.voxelSha256 }, latent.vector);
        }
        if (reports) {
          this.#requireSpace(reports.embeddingSpace);
          const length = reports.vectors.length / reports.size;
          for (const [i, { id, textSha256 }] of reports.rows.entries()) {
            raw.addReport({ id, sha256: textSha256 }, reports.vectors.slice(i * length, (i + 1) * length), reports.view);
          }
        }
      } finally {
        Object.assign(this, raw.info());
      }
    }, signal);
  }

  /**
   * @param {ImageLatent | ReportSet} query
   * @param {import('./index.js').SearchOptions} options
   * @returns {Promise<import('./index.js').Hit[]>}
   */
  search(query, { find, topK = 10, hubness = 'raw', signal }) {
    return this.#host.call(() => {
      const isSet = 'vectors' in query;
      if (isSet && query.size !== 1) throw invalid(`a query is one report, found ${query.size}`);
      this.#requireSpace(isSet ? query.embeddingSpace : query.provenance.embeddingSpace);
      /** @type {Omit<import('./index.js').Hit, 'id'>[]} */
      const hits = this.#open.search(isSet ? query.vectors : query.vector, isSet ? 'report' : 'volume', find === 'volumes' ? 'volume' : 'report', hubness, topK);
      return hits.map((hit) => ({ id: this[find][hit.index].id, ...hit }));
    }, signal);
  }

  /** @param {import('./index.js').RetrievalOptions & CallOptions} [options] @returns {Promise<import('./index.js').RetrievalEvaluation>} */
  evaluate({ labels, signal, onProgress: _, ...options } = {}) {
    return this.#host.call(() => this.#open.evaluate(labels && [...labels], options), signal);
  }

  /** @param {CallOptions} [options] */
  save({ signal } = {}) {
    return this.#host.call(() => new Blob([/** @type {Uint8Array<ArrayBuffer>} */ (this.#open.toBytes())], { type: 'application/octet-stream' }), signal);
  }

  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#host.release(() => this.#raw.free());
  }
}

/**
 * What the caller gets for an error of the wasm module.
 * @param {any} error
 * @param {AbortSignal} [signal]
 */
function publicError(error, signal) {
  if (signal?.aborted && (error?.code === 'ABORTED' || error?.name === 'AbortError')) return signal.reason;
  if (error instanceof WebAssembly.RuntimeError) return wasmAbort(error.message);
  // The file was changed, moved or taken away after it was chosen.
  if (['NotReadableError', 'NotFoundError'].includes(error?.name)) {
    return new CtmatchError('E_READ', 'The file cannot be read any more. Choose it again.', { retryable: true, cause: error });
  }
  if (error instanceof CtmatchError || typeof error?.code !== 'string') return error;
  return new CtmatchError(error.code, error.message, { retryable: error.retryable, detail: error.detail });
}

/** @implements {PublicSession} */
class Session {
  #options;
  /** @type {Engine | undefined} */
  #engine;
  /** @type {DeviceFacts | undefined} */
  #device;
  /** @type {LoadedModel | undefined} */
  #model;
  #gpuBytes = 0;
  /** @type {Set<Volume>} */
  #volumes = new Set();
  #encoded = { volumes: 0, texts: 0, textsFromCache: 0 };
  /** @type {string[]} */
  #degraded = [];
  /** @type {Readonly<Record<string, number>>} */
  #lastTimings = {};
  /** The tail of the calls that use the engine: it serves one at a time. @type {Promise<unknown>} */
  #tail = Promise.resolve();
  #closing = new AbortController();
  #inFlight = 0;
  /** @type {CtmatchError | undefined} */
  #trap;
  /** Until a model is loaded again. @type {CtmatchError | undefined} */
  #deviceLost;
  /** @type {Pacer | undefined} */
  #pacer;
  /** The last one loaded, for `recover`. @type {import('./index.js').ModelRef | undefined} */
  #lastModel;
  /** @type {Set<(error: CtmatchError) => void>} */
  #rejecters = new Set();
  /** @type {(loss: Loss) => void} */
  #lose = () => {};
  lost = this.#watchLoss();

  /** @param {OpenOptions & Home} options */
  constructor(options) {
    this.#options = options;
    this.#network = { policy: options.network ?? 'same-origin', urls: /** @type {string[]} */ ([]), stallMs: options.stallMs };
    this.#cache = new ModelCache(options.cache ?? 'opfs', (note) => {
      if (!this.#degraded.includes(note)) this.#degraded.push(note);
    });
    listenForTraps(this.#onTrap);
  }

  #network;
  #cache;
  /** @type {{ wasm: Wasm, ready: boolean }} */
  #module = main;
  /** @type {OneThread | undefined} */
  #oneThread;
  /** Why the CPU computes from the start although WebGPU was asked for. @type {import('./index.js').ErrorCode | undefined} */
  #gpuRefused;

  get #wasm() {
    return this.#module.wasm;
  }

  get #threads() {
    // Where nothing speaks against more and there is one, the others could not be started.
    const oneThread = this.#oneThread ?? (cpu.threads > 1 ? undefined : 'not-started');
    return oneThread ? { threads: 1, oneThread } : { threads: cpu.threads };
  }

  get info() {
    const { backend, adapter, software } = this.#device ?? {};
    return {
      backend, adapter, software, ...(backend === 'cpu' && this.#threads), variant: this.#model?.variant, gpuBytes: this.#gpuBytes, selfTest: this.#model?.selfTest ?? undefined, model: this.#model?.info,
      degraded: [...this.#degraded], urls: [...this.#network.urls], encoded: { ...this.#encoded },
    };
  }

  /** @returns {Promise<Loss>} */
  #watchLoss() {
    return new Promise((resolve) => { this.#lose = resolve; });
  }

  /** @param {string} message */
  #onTrap = (message) => {
    // With nothing in flight the error belongs to another wasm module of the page.
    if (this.#inFlight === 0) return;
    trapped = true;
    this.#trap = wasmAbort(message);
    this.#lose({ reason: 'wasm-abort', message: this.#trap.message });
    for (const reject of this.#rejecters) reject(this.#trap);
  };

  /**
   * Runs one call: errors become public ones, and a trap or `close` ends it.
   * @template T
   * @param {(signal: AbortSignal | undefined) => Promise<T>} task
   * @param {AbortSignal} [signal]
   * @returns {Promise<T>}
   */
  #call(task, signal) {
    return new Promise((resolve, reject) => {
      if (this.#closing.signal.aborted) return reject(this.#closing.signal.reason);
      if (this.#trap) return reject(this.#trap);
      if (signal?.aborted) return reject(signal.reason);
      const either = signal ? AbortSignal.any([signal, this.#closing.signal]) : this.#closing.signal;
      // The caller is free at once; the task stops at its next step.
      const abort = () => reject(signal?.reason);
      signal?.addEventListener('abort', abort);
      this.#inFlight += 1;
      this.#rejecters.add(reject);
      task(either).then(resolve, (error) => {
        const shown = publicError(error, either);
        if (shown?.code === 'WASM_ABORT') this.#onTrap(shown.message);
        if (shown?.code === 'DEVICE_LOST') {
          this.#deviceLost = shown;
          this.#model = undefined;
          this.#lose({ reason: shown.detail.reason === 'destroyed' ? 'destroyed' : 'unknown', message: shown.message });
        }
        reject(shown);
      }).finally(() => {
        signal?.removeEventListener('abort', abort);
        this.#inFlight -= 1;
        this.#rejecters.delete(reject);
      });
    });
  }

  /**
   * @template T
   * @param {(signal: AbortSignal | undefined) => Promise<T>} task
   * @param {AbortSignal} [signal]
   */
  #queued(task, signal) {
    return this.#call((either) => {
      const turn = this.#tail.then(() => {
        either?.throwIfAborted();
        return task(either);
      });
      this.#tail = turn.catch(() => {});
      return turn;
    }, signal);
  }

  /** @param {CallOptions} [options] */
  async start({ signal, onProgress } = {}) {
    if (trapped) throw new CtmatchError('WASM_ABORT', 'the wasm module of this thread has stopped: reload the page or use a worker');
    await this.#call(async (either) => {
      const { chosen, url, threads } = await this.#chooseModule();
      this.#module = chosen;
      if (chosen.ready) return;
      const kept = this.#network.policy === 'offline' ? await this.#cache.recall(url) : undefined;
      const asked = kept ? undefined : await request(url, this.#network, either);
      const response = asked?.response ?? new Response(kept, { headers: { 'content-type': 'application/wasm', 'content-length': String(kept?.length) } });
      const source = kept ? 'cache' : 'network';
      // For a later `offline` session, beside the compiler, which gets the browser's own answer: compiled code is kept with that.
      const stored = asked && this.#cache.remember(url, asked.body(response.clone()));
      // Of an encoded response the header counts compressed bytes.
      const length = response.headers.has('content-encoding') ? 0 : Number(response.headers.get('content-length'));
      const totalBytes = length || undefined;
      onProgress?.({ phase: 'wasm', loadedBytes: 0, totalBytes, source });
      const module = await compile(response, either);
      onProgress?.({ phase: 'wasm', loadedBytes: length, totalBytes, source });
      onProgress?.({ phase: 'compile', done: 0, total: 1 });
      either?.throwIfAborted();
      try {
        await (chosen.starting ??= this.#startModule(chosen, module, threads));
      } catch (cause) {
        trapped = true;
        if (cause instanceof RangeError) throw wasmAbort(cause.message);
        throw new CtmatchError('INTEGRITY', `${url.href} does not belong to this version of the package`, { detail: { path: url.href }, cause });
      }
      chosen.ready = true;
      await stored;
      onProgress?.({ phase: 'compile', done: 1, total: 1 });
    }, signal);
  }

  /** @param {typeof main | typeof cpu} chosen @param {WebAssembly.Module} module @param {number} threads */
  async #startModule(chosen, module, threads) {
    (await chosen.wasm.default({ module_or_path: module })).__wasm_call_ctors();
    if (chosen === cpu) await startPool(module, threads, this.#options);
  }

  /** The module for the CPU alone where the browser can run it and the CPU computes; elsewhere the other. */
  async #chooseModule() {
    const { backend = 'webgpu', fallback = 'error', allowSoftwareAdapter = false, wasmUrl, cpuWasmUrl, baseUrl } = this.#options;
    // Turbopack makes objects of its own of these, without an origin; their `href` is relative to the page.
    const address = (/** @type {string | URL} */ url) => resolved(url, baseUrl ?? globalThis.location?.href);
    const url = address(wasmUrl ?? new URL('./wasm/ctmatch_bg.wasm', import.meta.url).href);
    const cpuUrl = address(cpuWasmUrl ?? new URL('./wasm/ctmatch_cpu_bg.wasm', import.meta.url).href);
    if (backend === 'webgpu' && fallback === 'cpu') this.#gpuRefused = await gpuRefusal(allowSoftwareAdapter);
    const larger = { chosen: main, url, threads: 1 };
    this.#oneThread = 'gpu-failed';
    if (backend === 'webgpu' && !this.#gpuRefused) return larger;
    const { threads, oneThread } = planThreads(this.#options);
    const missing = wasmUrl ? !cpuWasmUrl : this.#network.policy === 'offline' && !cpu.ready && !(await this.#cache.recall(cpuUrl));
    const lacks = cpuModuleLacks() ?? (missing ? 'no-module' : undefined);
    this.#oneThread = oneThread ?? lacks;
    return lacks ? larger : { chosen: cpu, url: cpuUrl, threads };
  }

  /**
   * @param {AbortSignal | undefined} signal
   * @param {(p: Progress) => void} [onProgress]
   */
  #control(signal, onProgress) {
    return {
      /** @param {'preprocess' | 'encode' | 'text' | 'occlude' | 'self-test'} phase @param {number} done @param {number} total */
      progress(phase, done, total) {
        onProgress?.(phase === 'preprocess' || phase === 'self-test' ? { phase, fraction: done / total } : { phase, done, total });
      },
      aborted: () => signal?.aborted ?? false,
      wait: () => this.#pacer?.wait(),
      limit: () => this.#pacer?.limit ?? Infinity,
    };
  }

  async #openEngine() {
    const { backend = 'webgpu', fallback = 'error', allowSoftwareAdapter = false, device, maxSubmitMs = 150 } = this.#options;
    if (!(maxSubmitMs > 0)) throw invalid('expected maxSubmitMs above 0');
    const plain = { allowSoftwareAdapter, adapterName: null };
    this.#pacer = undefined;
    try {
      if (this.#gpuRefused) throw new CtmatchError(this.#gpuRefused, 'WebGPU cannot be used');
      const { Engine } = this.#wasm;
      if (device && (backend !== 'webgpu' || !device.queue)) throw invalid('expected a GPUDevice, and the backend webgpu');
      if (backend !== 'webgpu') return await Engine.open({ ...plain, backend });
      const missing = gpuMissing();
      const found = missing || device ? undefined : await findAdapter();
      const pacer = new Pacer(maxSubmitMs, this.#wasm.flops);
      const adapter = device ? lentAdapter(device, pacer) : found && ownAdapter(found.adapter, pacer);
      if (missing || !adapter) {
        const reason = missing ?? 'no-adapter';
        throw new CtmatchError('NO_WEBGPU', REASONS[reason], { detail: { reason } });
      }
      const name = found ? found.name : adapterName(device?.adapterInfo);
      const engine = await withAdapter(adapter, () => Engine.open({ ...plain, backend, adapterName: name || null }));
      this.#pacer = pacer;
      return engine;
    } catch (error) {
      const shown = publicError(error);
      if (backend !== 'webgpu' || fallback !== 'cpu' || !(shown instanceof CtmatchError)) throw shown;
      this.#degraded.push(`cpu instead of webgpu: ${shown.code}`);
      return this.#wasm.Engine.open({ ...plain, backend: 'cpu' });
    }
  }

  #dropEngine() {
    // The runtime keeps handles of every device it has seen: memory comes back only by destroying it.
    this.#engine?.destroy();
    this.#engine?.free();
    this.#engine = undefined;
    this.#device = undefined;
    this.#model = undefined;
    this.#deviceLost = undefined;
    this.#gpuBytes = 0;
  }

  /**
   * @param {Engine} engine
   * @param {string} manifest
   * @param {string[]} names
   * @param {import('./index.js').ModelManifest['variants']} variants
   */
  #beginModel(engine, manifest, names, variants) {
    const { gpuMemoryBudgetBytes: found = Infinity } = this.#options;
    for (const [i, name] of names.entries()) {
      try {
        const needed = variants[name]?.gpuBytes;
        if (needed > found && engine.info().backend === 'webgpu') {
          throw new CtmatchError('LIMITS', `${name} needs ${needed} bytes on the GPU, gpuMemoryBudgetBytes is ${found}`, { detail: { limit: 'gpuMemoryBudgetBytes', needed, found } });
        }
        /** @type {import('./index.js').Shard[]} */
        const files = engine.beginModel(manifest, name);
        return files;
      } catch (/** @type {any} */ error) {
        if (error?.code !== 'LIMITS' || i === names.length - 1) throw error;
      }
    }
    throw new CtmatchError('MANIFEST', 'the manifest has no variants');
  }

  /**
   * @param {import('./index.js').ModelRef} model
   * @param {CallOptions} [options]
   */
  loadModel(model, { signal, onProgress } = {}) {
    return this.#queued(async (either) => {
      const files = modelFiles(model, this.#network, this.#options.baseUrl ?? globalThis.location?.href, this.#cache);
      const manifest = await files.manifest(either);
      const parsed = parseManifest(manifest);
      const { variant = 'auto' } = this.#options;
      const names = variant === 'auto' ? Object.keys(parsed?.variants ?? {}) : [variant];
      if (this.#deviceLost) this.lost = this.#watchLoss();
      this.#dropEngine();
      const engine = await this.#openEngine();
      this.#engine = engine;
      try {
        either?.throwIfAborted();
        const all = this.#beginModel(engine, manifest, names, parsed?.variants ?? {});
        checkSizes(parsed, all);
        const totalBytes = all.reduce((sum, file) => sum + file.bytes, 0);
        let loadedBytes = 0;
        const onBytes = (/** @type {number} */ bytes, /** @type {import('./weights.js').Source} */ source) => {
          loadedBytes += bytes;
          onProgress?.({ phase: 'weights', loadedBytes, totalBytes, source });
        };
        for (const file of all) {
          engine.addFile(file.path, ...(await files.read(file, { signal: either, onBytes })));
          onProgress?.({ phase: 'upload', fraction: loadedBytes / totalBytes });
        }
        const { selfTest = true } = this.#options;
        this.#passed = selfTest === 'once-per-device' ? new URL(`self-test:${engine.testKey(globalThis.navigator?.userAgent + manifest)}`) : undefined;
        const earlier = JSON.parse(new TextDecoder().decode(this.#passed && await this.#cache.recall(this.#passed)) || 'null');
        either?.throwIfAborted();
        /** @type {LoadedModel} */
        const loaded = await engine.finishModel(selfTest && selfTest !== 'off' && !earlier, this.#control(either, onProgress));
        if (earlier) loaded.selfTest = { ...earlier, earlier: true };
        else await this.#remember(loaded.selfTest);
        this.#model = loaded;
        this.#lastModel = model;
        await files.complete();
        /** @type {DeviceFacts} */
        const device = engine.info();
        this.#device = device;
        this.#gpuBytes = device.backend === 'webgpu' ? loaded.gpuBytes : 0;
        either?.throwIfAborted();
      } catch (error) {
        // A module that has stopped gives nothing back.
        if (!(error instanceof WebAssembly.RuntimeError)) this.#dropEngine();
        throw error;
      }
    }, signal);
  }

  /** Where it is kept that the known answers were right. @type {URL | undefined} */
  #passed;

  /** @param {import('./index.js').SelfTest | null} passed */
  async #remember(passed) {
    if (this.#passed) await this.#cache.remember(this.#passed, [new TextEncoder().encode(JSON.stringify(passed))]);
  }

  /**
   * @param {CallOptions} [options]
   * @returns {Promise<import('./index.js').SelfTestResult>}
   */
  selfTest({ signal, onProgress } = {}) {
    return this.#queued(async (either) => {
      const { engine, model } = this.#loaded();
      // Until it has passed.
      await this.#remember(null);
      /** @type {import('./index.js').SelfTestResult} */
      const { passed, cosine, ...found } = await engine.selfTest(this.#control(either, onProgress));
      if (passed) await this.#remember(model.selfTest = found);
      return { passed, cosine, ...found };
    }, signal);
  }

  /**
   * @param {import('./index.js').Volume} [volume]
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<import('./index.js').TimeEstimate>}
   */
  estimate(volume, { signal } = {}) {
    return this.#queued(async (either) => {
      const { engine } = this.#loaded();
      const control = this.#control(either);
      return volume ? engine.estimateFor(this.#own(volume).raw, control) : engine.estimate(control);
    }, signal);
  }

  /** @param {CallOptions} [options] */
  async recover(options) {
    if (!this.#lastModel) throw noModel();
    return this.loadModel(this.#lastModel, options);
  }

  #loaded() {
    if (this.#deviceLost) throw this.#deviceLost;
    if (!this.#engine || !this.#model || !this.#device) throw noModel();
    return { engine: this.#engine, model: this.#model, device: this.#device };
  }

  /**
   * @param {Blob} blob
   * @param {object} options
   * @param {AbortSignal | undefined} signal
   * @param {((p: Progress) => void) | undefined} onProgress
   */
  async #stream(blob, options, signal, onProgress) {
    const first = new Uint8Array(await blob.slice(0, GZIP_HEADER_BYTES).arrayBuffer());
    signal?.throwIfAborted();
    /** @param {number} loadedBytes */
    const progress = (loadedBytes) => onProgress?.({ phase: 'read', loadedBytes, totalBytes: blob.size, source: 'file' });
    if (first[0] === 0x1f && first[1] === 0x8b && 'DecompressionStream' in globalThis) {
      try {
        return await readAll(this.#wasm.VolumeReader.forUnpacked(first, options), unpacked(blob, progress), signal);
      } catch (error) {
        // Several members and zero padding are legal and unknown to browsers, and their messages differ: our own decoder reads
        // again from the start and says what is wrong (NIFTI_AND_PRIVACY.md N-5).
        signal?.throwIfAborted();
        if (error instanceof WebAssembly.RuntimeError) throw error;
      }
    }
    return readAll(new this.#wasm.VolumeReader(options), chunks(blob, progress), signal);
  }

  /**
   * @param {import('./index.js').VolumeSource} source
   * @param {import('./index.js').ReadOptions} [options]
   */
  readVolume(source, { signal, onProgress, ...options } = {}) {
    return this.#call(async (either) => {
      /** Kept for the clean copy: handles, not bytes. @type {Blob | undefined} */
      let body;
      /** @type {Blob | undefined} */
      let header;
      if (source instanceof Blob) body = source;
      else if (source instanceof ArrayBuffer) body = new Blob([source]);
      else if ('data' in Object(source)) body = this.#held(/** @type {import('./index.js').Voxels} */ (source));
      else if ('header' in Object(source)) ({ header, image: body } = /** @type {{ header: Blob, image: Blob }} */ (source));
      if (!(body instanceof Blob) || (header && !(header instanceof Blob))) throw invalid('expected a Blob, an ArrayBuffer, { header, image } or voxels');
      const reading = { ...options, fileName: nameOf(header ?? body) };
      let raw;
      if (header) {
        const [first, second] = await Promise.all([header.arrayBuffer(), body.arrayBuffer()]);
        either?.throwIfAborted();
        raw = this.#wasm.readPair(new Uint8Array(first), new Uint8Array(second), reading);
      } else raw = await this.#stream(body, reading, either, onProgress);
      const volume = new Volume(raw, plainReading(options), {
        release: (free) => {
          this.#volumes.delete(volume);
          this.#later(free);
        },
        engine: () => this.#loaded().engine,
        clean: (call) => this.#clean(body, header, call),
      });
      this.#volumes.add(volume);
      return volume;
    }, signal);
  }

  /** Not under a call that borrows it. @param {() => void} free */
  #later(free) {
    this.#tail.then(() => { if (!this.#trap) free(); });
  }

  /** As a file: one reader checks everything. @param {import('./index.js').Voxels} voxels */
  #held({ data, dims, spacingMm, orientation }) {
    if (!(data instanceof Int16Array) || data.length !== dims?.reduce((count, size) => count * size)) throw invalid('expected HU as an Int16Array of dims');
    return new Blob([/** @type {any} */ (this.#wasm.voxelHeader({ dims, spacingMm, orientation })), /** @type {any} */ (data)]);
  }

  /**
   * @param {Blob} body
   * @param {Blob | undefined} header of a pair
   * @param {CallOptions} options
   */
  #clean(body, header, { signal, onProgress }) {
    return this.#call(async (either) => {
      const head = header && new Uint8Array(await header.arrayBuffer());
      either?.throwIfAborted();
      /** @type {Blob[]} */
      const parts = [];
      // A Blob each: the browser may keep them on disk.
      const keep = (/** @type {Uint8Array} */ piece) => {
        if (piece.length > 0) parts.push(new Blob([/** @type {Uint8Array<ArrayBuffer>} */ (piece)]));
      };
      /** @type {import('./wasm/ctmatch.js').Cleaner | undefined} */
      let cleaner = new this.#wasm.Cleaner(head);
      try {
        const progress = (/** @type {number} */ loadedBytes) => onProgress?.({ phase: 'read', loadedBytes, totalBytes: body.size, source: 'file' });
        for await (const chunk of chunks(body, progress, CLEAN_CHUNK_BYTES)) {
          either?.throwIfAborted();
          keep(cleaner.push(chunk));
        }
        either?.throwIfAborted();
        const last = cleaner;
        cleaner = undefined; // `finish` consumes it
        keep(last.finish());
      } finally {
        cleaner?.free();
      }
      return new Blob(parts, { type: 'application/gzip' });
    }, signal);
  }

  /**
   * @param {Iterable<string>} texts
   * @returns {Promise<import('./index.js').Hint[][]>}
   */
  textHints(texts) {
    return this.#call(async () => Array.from(texts, (text) => this.#wasm.textHints(text)));
  }

  /**
   * @param {number} count
   * @returns {Promise<import('./index.js').PrivacyNotices>}
   */
  privacyNotices(count) {
    return this.#call(async () => this.#wasm.privacyNotices(count));
  }

  /**
   * @param {Blob | string} source
   * @param {CallOptions & { format?: import('./index.js').ReportFormat }} [options]
   * @returns {Promise<Report[]>}
   */
  parseReports(source, { format = 'auto', signal } = {}) {
    return this.#call(async (either) => {
      const bytes = typeof source === 'string' ? new TextEncoder().encode(source) : new Uint8Array(await source.arrayBuffer());
      either?.throwIfAborted();
      /** @type {Report[]} */
      const parsed = this.#wasm.parseReports(bytes, format);
      return parsed.map((report) => {
        const { text: _free, ...sections } = report;
        return { ...sections, text: this.#wasm.reportText(report, 'full') };
      });
    }, signal);
  }

  /**
   * @param {import('./index.js').Volume} volume
   * @param {CallOptions & { accept?: readonly string[] }} [options]
   * @returns {Promise<ImageLatent>}
   */
  encodeVolume(volume, { accept = [], signal, onProgress } = {}) {
    return this.#queued(async (either) => {
      const own = this.#own(volume);
      const { engine, model } = this.#loaded();
      if (this.#pacer) this.#pacer.longestMs = 0;
      /** @type {RawImage} */
      const { vector, codes, classLogits, timingsMs } = await engine.encodeVolume(own.raw, this.#control(either, onProgress), [...accept]);
      either?.throwIfAborted();
      this.#encoded.volumes += 1;
      if (this.#pacer) timingsMs.longestSubmission = this.#pacer.longestMs;
      this.#lastTimings = timingsMs;
      const accepted = own.findings.map(({ code }) => code).filter((code) => accept.includes(code));
      return {
        vector, codes, ...(classLogits && { classLogits }), timingsMs,
        provenance: {
          ...model.provenance, ...(this.#device?.backend === 'cpu' && { threads: this.#threads.threads }), selfTest: model.selfTest ? (model.selfTest.earlier ? 'passed-earlier' : 'passed') : 'skipped', voxelSha256: own.voxelSha256,
          preprocess: { ...model.preprocess, reading: own.reading, accepted }, degraded: [...this.#degraded],
        },
      };
    }, signal);
  }

  /**
   * @param {Iterable<string | Report> | Blob} reports
   * @param {import('./index.js').ReportOptions} [options]
   * @returns {Promise<ReportSet>}
   */
  encodeReports(reports, { view = 'full', meta, signal, onProgress } = {}) {
    return this.#queued(async (either) => {
      const { engine, model } = this.#loaded();
      if (typeof reports === 'string') throw invalid('expected a list of reports, found one string');
      const list = reports instanceof Blob ? await this.parseReports(reports) : Array.from(reports, (r) => (typeof r === 'string' ? { text: r } : r));
      if (list.length === 0) throw new CtmatchError('TEXT_INPUT', 'expected at least one report, found none', { detail: { count: 0 } });
      const texts = list.map((report, index) => this.#wasm.reportText(report, view, meta, index + 1));
      /** @type {RawTexts} */
      const { vectors, rows, encoded } = await engine.encodeTexts(texts, view, this.#control(either, onProgress));
      either?.throwIfAborted();
      this.#encoded.texts += encoded;
      this.#encoded.textsFromCache += list.length - encoded;
      return {
        size: list.length, embeddingSpace: model.info.embeddingSpace, view, vectors,
        rows: rows.map((row, i) => ({ id: list[i].id ?? String(i + 1), ...row })),
      };
    }, signal);
  }

  /** The engine, when these are of its model's space. @param {ImageLatent} image @param {ReportSet} [reports] */
  #engineFor(image, reports) {
    const { engine, model: { info: { embeddingSpace: expected } } } = this.#loaded();
    for (const found of [image.provenance.embeddingSpace, reports?.embeddingSpace ?? expected]) requireSpace(expected, found);
    return engine;
  }

  /**
   * @param {import('./index.js').Volume | ImageLatent} of
   * @param {import('./index.js').ZeroShotOptions} [options]
   * @returns {Promise<import('./index.js').ZeroShot>}
   */
  async zeroShot(of, { ask = [], prompts = [], accept, signal, onProgress } = {}) {
    const image = await this.#imageOf(of, { accept, signal, onProgress });
    return this.#queued(async (either) => ({
      ...await this.#engineFor(image).zeroShot(image.vector, image.classLogits, [...ask], prompts, this.#control(either, onProgress)),
      provenance: image.provenance,
    }), signal);
  }

  /** The image latent of a volume, if it is not one already. @param {import('./index.js').Volume | ImageLatent} of @param {CallOptions & { accept?: readonly string[] }} options */
  async #imageOf(of, options) {
    return of instanceof Volume ? this.encodeVolume(of, options) : /** @type {ImageLatent} */ (of);
  }

  /** An open volume of this session. @param {unknown} volume */
  #own(volume) {
    if (!(volume instanceof Volume) || !this.#volumes.has(volume)) throw invalid('expected an open volume of this session');
    return volume;
  }

  /** That whose latent this is. @param {unknown} given @param {ImageLatent} image */
  #volumeOf(given, image) {
    const volume = this.#own(given);
    if (volume.voxelSha256 !== image.provenance.voxelSha256) throw invalid('expected the volume that the latent is of, found another');
    return volume.raw;
  }

  /** @template T @param {Engine} engine @param {ScoreTarget} given @param {() => any} control @param {(target: Target) => Promise<T>} use */
  async #withTarget(engine, { text, against, label }, control, use) {
    if ((text === undefined) === (label === undefined) || (against !== undefined && text === undefined)) throw invalid('expected `text`, perhaps with `against`, or `label`');
    const latent = async (/** @type {string | Float32Array} */ of) =>
      (typeof of === 'string' ? (await engine.encodeTexts([this.#wasm.reportText({ text: of }, 'full')], 'full', control())).vectors : of);
    const target = label === undefined
      ? new this.#wasm.Target(await latent(text ?? ''), against === undefined ? undefined : await latent(against)) : await engine.ask(label, control());
    try {
      return await use(target);
    } finally {
      target.free();
    }
  }

  /**
   * @param {import('./index.js').Volume | ImageLatent} of
   * @param {import('./index.js').ExplainOptions} options
   * @returns {Promise<import('./index.js').HeatMap>}
   */
  async explain(of, { text, against, label, variant = 'share', top = 10, region = [], sentences = false, volume, accept, signal, onProgress }) {
    const image = await this.#imageOf(of, { accept, signal, onProgress });
    const seen = of instanceof Volume ? of : volume;
    return this.#queued(async (either) => {
      const engine = this.#engineFor(image);
      const raw = seen && this.#volumeOf(seen, image);
      const control = () => this.#control(either, onProgress);
      return this.#withTarget(engine, { text, against, label }, control, async (target) => {
        /** @type {RawMap} */
        const { values, plane, summary } = await engine.explain(image.vector, image.codes, target, { variant, top, region: [...region] }, control());
        if (raw) {
          const { places, slices } = engine.places(raw, Uint32Array.from(summary.top, ({ index }) => index));
          summary.top = summary.top.map((cube, i) => ({ ...cube, ...places[i] }));
          summary.slabs = summary.slabs.map((slab, i) => ({ ...slab, slices: slices[i] ?? undefined }));
        }
        const texts = sentences ? [text, against].filter((given) => typeof given === 'string') : [];
        const scores = [];
        for (const given of texts) scores.push(await engine.sentences(image.vector, this.#wasm.reportText({ text: given }, 'full'), control()));
        return { ...summary, values, plane, ...(label && { asked: target.asked() }), ...(scores.length > 0 && { sentences: scores }), provenance: image.provenance };
      });
    }, signal);
  }

  /**
   * @param {import('./index.js').Volume} volume
   * @param {Iterable<number>} cubes
   * @param {import('./index.js').OccludeOptions} options
   * @returns {Promise<import('./index.js').Occlusion>}
   */
  async occlude(volume, cubes, { text, against, label, image: given, accept = [], signal, onProgress }) {
    const image = await this.#imageOf(given ?? volume, { accept, signal, onProgress });
    return this.#queued(async (either) => {
      const engine = this.#engineFor(image);
      const raw = this.#volumeOf(volume, image);
      const control = () => this.#control(either, onProgress);
      return this.#withTarget(engine, { text, against, label }, control, async (target) =>
        ({ ...await engine.occlude(raw, image.vector, Uint32Array.from(cubes), target, control(), [...accept]), provenance: image.provenance }));
    }, signal);
  }

  /**
   * @param {ImageLatent} image
   * @param {ReportSet} reports
   * @param {{ topK?: number, signal?: AbortSignal }} [options]
   * @returns {Promise<import('./index.js').Ranking>}
   */
  rank(image, reports, { topK, signal } = {}) {
    return this.#queued(async () => {
      const engine = this.#engineFor(image, reports);
      /** @type {RawRanking} */
      const { rows, tieTolerance, background } = engine.rank(image.vector, reports.vectors, reports.view, topK);
      return {
        rows: rows.map(({ tied: _, ...row }) => ({ ...row, id: reports.rows[row.index].id })),
        tieTolerance, ...(background && { background }), provenance: image.provenance,
      };
    }, signal);
  }

  /**
   * @param {Blob} [file]
   * @param {{ precision?: 'f16' | 'int8', signal?: AbortSignal }} [options]
   */
  openStore(file, { precision = 'f16', signal } = {}) {
    return this.#call(async (either) => {
      const bytes = file && new Uint8Array(await file.arrayBuffer());
      either?.throwIfAborted();
      const store = new Store(bytes ? this.#wasm.LatentStore.read(bytes) : this.#loaded().engine.newStore(precision), {
        call: (work, callSignal) => this.#call(async () => work(), callSignal),
        release: (free) => this.#later(free),
      });
      return store;
    }, signal);
  }

  /**
   * @param {readonly import('./index.js').Choice[]} choices
   * @param {import('./index.js').EvaluateOptions & CallOptions} [options] from the worker with what every call there has
   * @returns {Promise<import('./index.js').Evaluation>}
   */
  evaluate(choices, { tieTolerance = this.#model?.info.tieTolerance ?? 0, compareWith, signal: _, onProgress: _none, ...options } = {}) {
    return this.#call(async () => this.#wasm.evaluateChoices(choices, { tieTolerance, ...options }, compareWith));
  }

  /**
   * @param {readonly import('./index.js').Labelled[]} rows
   * @param {import('./index.js').LabelOptions} [options]
   * @returns {Promise<import('./index.js').LabelEvaluation>}
   */
  evaluateLabels(rows, { set = 'ct-rate', rounds = 1000, seed = 0 } = {}) {
    return this.#call(async () => this.#wasm.evaluateLabels(rows, { set, rounds, seed }));
  }

  /** @param {Blob | string} source @returns {Promise<import('./index.js').LabelTable>} */
  parseLabels(source) {
    return this.#call(async () => this.#wasm.parseLabels(new Uint8Array(await new Blob([source]).arrayBuffer())));
  }

  /**
   * @param {readonly import('./index.js').ItemSource[]} reports
   * @param {import('./index.js').ItemOptions} [options]
   * @returns {Promise<import('./index.js').BuiltItems>}
   */
  buildItems(reports, { options = 4, strategies = ['random'], seed = 0, items, latents } = {}) {
    // Beside sections, `text` is only what the model is given.
    const sources = reports.map(({ id, labels, meta = {}, findings = '', impression = '', text = '' }) =>
      ({ id, report: { findings, impression, text: findings || impression ? '' : text }, labels, meta }));
    return this.#call(async () => this.#wasm.buildItems(sources, { options, strategies, seed, items }, latents?.vectors));
  }

  clearCache() {
    return this.#queued(() => this.#cache.clear());
  }

  diagnostics() {
    return this.#call(async () => {
      const { urls, ...info } = this.info;
      return JSON.stringify({
        package: `ctmatch@${this.#wasm.version()}`, ...info, requests: urls.length,
        device: this.#device, lastEncodeMs: this.#lastTimings,
        submissions: this.#pacer,
        volumes: [...this.#volumes].map(({ dims, spacingMm, orientation, datatype, findings }) =>
          ({ dims, spacingMm, orientation, datatype, findings: findings.map(({ code }) => code) })),
        browser: globalThis.navigator?.userAgent, crossOriginIsolated: globalThis.crossOriginIsolated ?? false,
      }, null, 2);
    });
  }

  async close() {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new CtmatchError('CLOSED', 'the session is closed'));
    if (!this.#trap) {
      for (const volume of [...this.#volumes]) volume.close();
      await this.#tail;
      this.#dropEngine();
    }
    ignoreTraps(this.#onTrap);
  }

  async [ASYNC_DISPOSE]() {
    await this.close();
  }
}

/** @param {OpenOptions & Home} [options] */
export async function open(options = {}) {
  const { signal, onProgress, model, ...lasting } = options;
  const session = new Session(lasting);
  try {
    await session.start({ signal, onProgress });
    if (model) await session.loadModel(model, { signal, onProgress });
  } catch (error) {
    await session.close();
    throw error;
  }
  return session;
}
