// Bytes of model files: from URLs under a network policy through a cache, or from local files. One shard is held at a
// time, never the model.

import { CtmatchError } from './error.js';

/**
 * @typedef {import('./index.js').Shard} Shard
 * @typedef {'network' | 'cache' | 'file'} Source
 * @typedef {Uint8Array<ArrayBuffer>} Bytes
 * @typedef {[Bytes, string]} Hashed a file, and its SHA-256 as `sha256` gives it
 * @typedef {{ policy: NonNullable<import('./index.js').OpenOptions['network']>, urls: string[], stallMs?: number }} Network
 * @typedef {{ signal?: AbortSignal, onBytes?: (bytes: number, source: Source) => void }} ReadControl
 * @typedef {{ manifest(signal?: AbortSignal): Promise<string>, read(file: Shard, control: ReadControl): Promise<Hashed>,
 *   missing(file: Shard): Promise<number>, complete(): Promise<void> }} ModelFiles `missing`: bytes that `read` would request;
 *   `complete`: the model is loaded
 * @typedef {{ write(bytes: BufferSource, at: number): unknown, truncate(bytes: number): unknown, close(): unknown }} Sink
 */

/** Files in Node, which has no origin of its own; not by `import`, which bundlers would follow. */
const nodeFiles = () => globalThis.location ? undefined : /** @type {any} */ (globalThis).process?.getBuiltinModule?.('node:fs/promises');

// What `convert --shard-mib` makes at most, with a shard's header.
const MOST_SHARD_BYTES = 1025 * 2 ** 20;

// The manifest and the tokenizer: the published model's have less than 1 MB.
const MOST_TEXT_BYTES = 32 * 2 ** 20;

/** @param {string} path @param {number} bytes @param {number} most */
function checkSize(path, bytes, most) {
  if (bytes > most) throw new CtmatchError('MANIFEST', `${path}: expected at most ${most} bytes, found ${bytes}`, { detail: { path, bytes, most } });
}

/** Before any of them is requested. @param {any} manifest @param {readonly Shard[]} listed */
export function checkSizes({ files }, listed) {
  for (const { path, bytes } of listed) checkSize(path, bytes, path === files.tokenizer?.path ? MOST_TEXT_BYTES : MOST_SHARD_BYTES);
}

/**
 * Not by `for await`, which not every browser has for streams.
 * @param {ReadableStream<Bytes>} stream
 * @param {(next: Promise<any>) => Promise<any>} [waiting]
 * @returns {AsyncGenerator<Bytes>}
 */
export async function* pieces(stream, waiting = (next) => next) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await waiting(reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    // After an early end nobody wants the rest; a stream that failed has nothing to cancel.
    reader.cancel().catch(() => {});
  }
}

/** @param {AsyncIterable<Bytes> | Bytes[]} from */
async function gathered(from) {
  const parts = [];
  for await (const piece of from) parts.push(piece);
  return new Blob(parts);
}

/**
 * One request under the policy, cut when nothing comes for `stallMs`. Redirects are errors: they could lead to another origin after the check.
 * @param {URL} url
 * @param {Network} network
 * @param {AbortSignal} [signal]
 * @param {RequestInit} [init] with `headers` it asks for a range, and 416 is an answer
 * @returns {Promise<{ response: Response, body(of?: Response, most?: number): AsyncIterable<Bytes> }>} `body`: of the response or its clone, at
 *   most so many bytes; who reads it notices when nothing comes
 */
export async function request(url, { policy, urls, stallMs = 30_000 }, signal, init) {
  const { href } = url;
  const detail = { url: href };
  if (policy === 'offline') throw new CtmatchError('OFFLINE_MISS', `offline: ${href} was not requested`, { detail });
  const disk = url.protocol === 'file:' && nodeFiles();
  const allowed = [...(globalThis.location ? [location.origin] : []), ...(typeof policy === 'object' ? policy.allow.map((origin) => resolved(origin).origin) : [])];
  if (!disk && !allowed.includes(url.origin)) {
    throw new CtmatchError('NETWORK_POLICY', `network policy: expected ${allowed.join(' or ')}, found ${url.origin}`, { detail });
  }
  urls.push(href);
  const ended = new AbortController();
  const either = AbortSignal.any([ended.signal, ...(signal ? [signal] : [])]);
  let got = 0;
  /** @param {string} why @param {unknown} [cause] */
  const failed = (why, cause) => new CtmatchError('NETWORK', `${href}: ${why} after ${got} bytes`, { retryable: true, detail: { ...detail, got }, cause });
  /** Waits while something comes. @template T @param {Promise<T>} next @returns {Promise<T>} */
  const moving = async (next) => {
    // A longer timer would not wait at all.
    const timer = setTimeout(() => ended.abort(failed(`nothing came for ${stallMs / 1000} s`)), Math.min(stallMs, 2 ** 31 - 1));
    try {
      return await next;
    } catch (cause) {
      either.throwIfAborted();
      throw failed('the request failed', cause);
    } finally {
      clearTimeout(timer);
    }
  };
  const response = await moving(disk ? disk.readFile(url, { signal }).then((/** @type {Bytes} */ bytes) => new Response(bytes))
    : fetch(url, { ...init, signal: either, redirect: 'error', credentials: 'same-origin', referrerPolicy: 'no-referrer' }));
  if (!response.ok && !(init?.headers && response.status === 416)) {
    throw new CtmatchError('NETWORK', `${href} answered ${response.status}`, { retryable: response.status >= 500, detail: { ...detail, status: response.status } });
  }
  return {
    response,
    async* body(of = response, most = Infinity) {
      for await (const piece of pieces(of.body ?? new Blob().stream(), moving)) {
        got += piece.length;
        checkSize(href, got, most);
        yield piece;
      }
    },
  };
}

/**
 * WebCrypto digests whole buffers only: a shard is hashed once it is complete. With 32 MiB shards that costs tens of
 * milliseconds off the thread, and an incremental hash would save no memory, because the shard is held anyway.
 * @param {BufferSource} bytes
 * @returns {Promise<string>} empty outside secure contexts (https, localhost), where there is no `crypto.subtle`
 */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) return '';
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** In hexadecimal digits. */
const ADDRESS_LENGTH = 64;

const encode = (/** @type {string} */ text) => new TextEncoder().encode(text);

/** The SHA-256, if it is the manifest's or unknown. @param {Shard} file @param {Bytes} bytes */
async function intact(file, bytes) {
  const found = await sha256(bytes);
  return found === '' || found === file.sha256.toLowerCase() ? found : undefined;
}

/** @param {Shard} file @param {number} got */
const wrongSize = (file, got) => new CtmatchError('INTEGRITY', `${file.path}: expected ${file.bytes} bytes, found ${got}`,
  { retryable: true, detail: { path: file.path, bytes: file.bytes, got } });

/** @param {Shard} file @returns {Bytes} */
function room({ path, bytes }) {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new CtmatchError('LIMITS', `${path}: no memory for ${bytes} bytes at once`, { detail: { limit: 'memory', needed: bytes }, cause });
  }
}

/**
 * Copies a file into `bytes` from `at` on.
 * @param {Bytes} bytes
 * @param {number} at
 * @param {AsyncIterable<Bytes>} source
 * @param {Shard} file
 * @param {AbortSignal} [signal]
 * @param {(chunk: Bytes, at: number) => unknown} [onChunk] awaited
 */
async function fill(bytes, at, source, file, signal, onChunk) {
  for await (const value of source) {
    signal?.throwIfAborted();
    if (at + value.length > bytes.length) throw wrongSize(file, at + value.length);
    bytes.set(value, at);
    await onChunk?.(value, at);
    at += value.length;
  }
  if (at !== bytes.length) throw wrongSize(file, at);
}

// Under a content address: the verified file. With these endings: an unfinished download, and the version it is of.
const PART = '.part';
const ETAG = '.etag';

/**
 * One tab at a time downloads or removes what is under an address; where locks are missing, hashes still protect.
 * @template T
 * @param {string} address
 * @param {AbortSignal | undefined} signal ends the waiting
 * @param {() => Promise<T>} task
 * @returns {Promise<T>}
 */
async function locked(address, signal, task) {
  return globalThis.navigator?.locks ? navigator.locks.request(`ctmatch ${address}`, { signal }, task) : task();
}

/** @param {any} error */
const notThere = (error) => {
  if (error?.name !== 'NotFoundError') throw error;
};

/** Files in the origin's private file system. */
class Disk {
  #root;

  /** @param {FileSystemDirectoryHandle} root */
  constructor(root) {
    this.#root = root;
  }

  /** Looked up each time: another tab may have cleared the cache. */
  #folder() {
    return this.#root.getDirectoryHandle('ctmatch', { create: true });
  }

  /** @param {string} name @returns {Promise<Blob | undefined | void>} */
  async get(name) {
    return (await this.#folder()).getFileHandle(name).then((handle) => handle.getFile()).catch(notThere);
  }

  /** @param {string} name @returns {Promise<Sink>} */
  async sink(name) {
    /** @type {any} */
    const handle = await (await this.#folder()).getFileHandle(name, { create: true });
    if (handle.createSyncAccessHandle) { // in workers only
      const sync = await handle.createSyncAccessHandle();
      return {
        write(bytes, at) {
          if (sync.write(bytes, { at }) !== bytes.byteLength) throw new DOMException('short write', 'QuotaExceededError');
        },
        truncate: (bytes) => sync.truncate(bytes),
        close: () => sync.close(),
      };
    }
    // Writes to a copy that `close` puts in place: after a crash the copy is gone.
    const stream = await handle.createWritable({ keepExistingData: true });
    return {
      write: (data, position) => stream.write({ type: 'write', position, data }),
      truncate: (bytes) => stream.truncate(bytes),
      close: () => stream.close(),
    };
  }

  /** @param {string} name @param {Bytes} bytes */
  async put(name, bytes) {
    const sink = await this.sink(name);
    try {
      await sink.truncate(0);
      await sink.write(bytes, 0);
    } finally {
      await sink.close();
    }
  }

  /** @param {string} from @param {string} to @param {Bytes} bytes its content */
  async rename(from, to, bytes) {
    /** @type {any} */
    const handle = await (await this.#folder()).getFileHandle(from);
    if (handle.move) return handle.move(to);
    await this.put(to, bytes);
    return this.remove(from);
  }

  /** @param {string} name */
  async remove(name) {
    await (await this.#folder()).removeEntry(name).catch(notThere);
  }

  async clear() {
    const names = [];
    for await (const name of /** @type {any} */ (await this.#folder()).keys()) names.push(name);
    // Another tab may be writing one: it finishes first.
    for (const name of names) await locked(name.split('.')[0], undefined, () => this.remove(name));
    // Not empty when another tab has stored something meanwhile.
    await this.#root.removeEntry('ctmatch').catch(() => {});
  }
}

/** The same for one session, as Blobs: the browser may keep them outside the thread's memory. */
class Memory {
  /** @type {Map<string, Blob>} */
  #kept = new Map();

  /** @param {string} name */
  async get(name) {
    return this.#kept.get(name);
  }

  /** @param {string} name @returns {Promise<Sink>} */
  async sink(name) {
    const parts = [this.#kept.get(name) ?? new Blob()];
    return {
      write: (bytes) => parts.push(new Blob([bytes])),
      truncate: () => parts.splice(0),
      close: () => this.#kept.set(name, new Blob(parts)),
    };
  }

  /** @param {string} name @param {Bytes} bytes */
  async put(name, bytes) {
    this.#kept.set(name, new Blob([bytes]));
  }

  /** @param {string} from @param {string} to @param {Bytes} bytes */
  async rename(from, to, bytes) {
    this.#kept.delete(from);
    await this.put(to, bytes);
  }

  /** @param {string} name */
  async remove(name) {
    this.#kept.delete(name);
  }
}

/** Model files of earlier loads. It never makes a load fail: what cannot be read or stored is a miss, and is noted. */
export class ModelCache {
  #kind;
  #note;
  #full = false;
  #store;

  /**
   * @param {import('./index.js').OpenOptions['cache']} kind
   * @param {(note: string) => void} note takes what the user should know
   */
  constructor(kind = 'opfs', note) {
    this.#kind = kind;
    this.#note = note;
    this.#store = this.#open();
  }

  async #open() {
    if (this.#kind === 'none') return undefined;
    // What cannot be hashed is not kept.
    if (this.#kind === 'memory' && globalThis.crypto?.subtle) return new Memory();
    try {
      return new Disk(await navigator.storage.getDirectory());
    } catch {
      this.#note('cache: no opfs');
      return undefined;
    }
  }

  /** Where to store, if anywhere. */
  async writable() {
    return this.#full ? undefined : this.#store;
  }

  /** @param {any} error */
  failed(error) {
    // Another tab without locks is storing the same.
    if (error?.name === 'NoModificationAllowedError') return;
    this.#full = true;
    this.#note(error?.name === 'QuotaExceededError' ? 'cache: quota' : `cache: ${error?.name}`);
  }

  /** The file if it is there, whole and unchanged. @param {Shard} file @returns {Promise<Hashed | undefined>} */
  async get(file) {
    const store = await this.#store;
    try {
      const blob = await store?.get(file.sha256);
      if (!blob) return undefined;
      const bytes = new Uint8Array(await blob.arrayBuffer());
      const digest = await intact(file, bytes);
      if (bytes.length === file.bytes && digest !== undefined) return [bytes, digest];
      await store?.remove(file.sha256);
    } catch {
      // Unreadable: as if it were not there.
    }
    return undefined;
  }

  /** Whether `get` would find it, unless it is damaged. @param {Shard} file */
  async holds(file) {
    const blob = await (await this.#store)?.get(file.sha256).catch(() => undefined);
    return blob?.size === file.bytes;
  }

  /** What `url` gave last, behind its hash; only `offline` asks for it. @param {URL} url @returns {Promise<Bytes | undefined>} */
  async recall(url) {
    try {
      const blob = await (await this.#store)?.get(await sha256(encode(url.href)));
      if (!blob) return undefined;
      const bytes = new Uint8Array(await blob.slice(ADDRESS_LENGTH).arrayBuffer());
      return (await blob.slice(0, ADDRESS_LENGTH).text()) === (await sha256(bytes)) ? bytes : undefined;
    } catch {
      return undefined;
    }
  }

  /** @param {URL} url @param {AsyncIterable<Bytes> | Bytes[]} content is used up */
  async remember(url, content) {
    const store = await this.writable();
    try {
      const bytes = new Uint8Array(await (await gathered(content)).arrayBuffer());
      if (!(store instanceof Disk)) return;
      const [address, sum] = [await sha256(encode(url.href)), await sha256(bytes)];
      const last = await store.get(address);
      if (last?.size === ADDRESS_LENGTH + bytes.length && (await last.slice(0, ADDRESS_LENGTH).text()) === sum) return;
      await store.put(address, new Uint8Array(await new Blob([sum, bytes]).arrayBuffer()));
    } catch (error) {
      this.failed(error);
    }
  }

  /** Of every session of the origin. */
  async clear() {
    this.#store = this.#open();
    this.#full = false;
    const root = await globalThis.navigator?.storage?.getDirectory?.().catch(() => undefined);
    if (root) await new Disk(root).clear();
  }
}

/**
 * @param {ReadonlyMap<string, Blob>} files
 * @returns {ModelFiles}
 */
function localFiles(files) {
  // A folder picker puts the folder's name before every path.
  const manifestPath = [...files.keys()].find((path) => path === 'manifest.json' || path.endsWith('/manifest.json'));
  const folder = manifestPath?.slice(0, -'manifest.json'.length) ?? '';
  /** @param {string} path */
  const file = (path) => {
    const blob = files.get(folder + path);
    if (blob) return blob;
    throw new CtmatchError('MANIFEST', `${path} is not among the files given`, { detail: { path } });
  };
  return {
    async manifest() {
      const blob = file('manifest.json');
      checkSize('manifest.json', blob.size, MOST_TEXT_BYTES);
      return blob.text();
    },
    async read(shard, { signal, onBytes }) {
      const blob = file(shard.path);
      if (blob.size !== shard.bytes) throw wrongSize(shard, blob.size);
      const bytes = room(shard);
      await fill(bytes, 0, pieces(blob.stream()), shard, signal, (chunk) => onBytes?.(chunk.length, 'file'));
      return [bytes, await sha256(bytes)];
    },
    missing: async () => 0,
    complete: async () => {},
  };
}

/**
 * The answer to a download, and the byte it starts with: `at` when the server continues there, else 0.
 * @param {URL} url
 * @param {Shard} shard
 * @param {Network} network
 * @param {number} at
 * @param {string | undefined} etag
 * @param {AbortSignal} [signal]
 * @returns {Promise<[number, Awaited<ReturnType<typeof request>>]>}
 */
async function continued(url, shard, network, at, etag, signal) {
  /** The browser's own cache would hold every shard a second time. @type {RequestInit} */
  const init = { cache: 'no-store' };
  if (at > 0) {
    /** @type {Record<string, string>} */
    const headers = { Range: `bytes=${at}-` };
    // To another origin it would need a preflight; the hash decides anyway.
    if (etag && url.origin === globalThis.location?.origin) headers['If-Range'] = etag;
    const answer = await request(url, network, signal, { ...init, headers });
    const { response } = answer;
    if (response.status === 200) return [0, answer];
    const range = response.headers.get('content-range') ?? '';
    if (response.status === 206 && [`${shard.bytes}`, '*'].some((total) => range === `bytes ${at}-${shard.bytes - 1}/${total}`)) return [at, answer];
    response.body?.cancel().catch(() => {});
  }
  return [0, await request(url, network, signal, init)];
}

/**
 * Downloads a shard, from where an earlier attempt has ended, and stores it as it comes. When storing fails, storing ends
 * and the download goes on.
 * @param {URL} url
 * @param {Shard} shard
 * @param {Network} network
 * @param {ModelCache} cache
 * @param {ReadControl} control

 * @returns {Promise<Hashed>}
 */
async function download(url, shard, network, cache, { signal, onBytes }) {
  const bytes = room(shard);
  const [part, version] = [shard.sha256 + PART, shard.sha256 + ETAG];
  let store = await cache.writable();
  /** @type {Sink | undefined} */
  let sink;
  let at = 0;
  /** @type {string | undefined} */
  let etag;
  /** @type {string | undefined} */
  let digest;
  /** @param {(to: NonNullable<typeof store>, open: Sink | undefined) => unknown} work */
  const storing = async (work) => {
    const to = store;
    try {
      if (to) await work(to, sink);
    } catch (error) {
      store = undefined;
      cache.failed(error);
      await (async () => sink?.close())().catch(() => {});
      await to?.remove(part).catch(() => {});
    }
  };
  try {
    await storing(async (from) => {
      const blob = await from.get(part);
      if (blob && blob.size <= bytes.length) {
        await fill(bytes.subarray(0, blob.size), 0, pieces(blob.stream()), { ...shard, bytes: blob.size });
        at = blob.size;
        etag = await (await from.get(version))?.text();
      }
    });
    signal?.throwIfAborted();
    if (at < bytes.length) {
      const [from, { response, body }] = await continued(url, shard, network, at, etag, signal);
      await storing(async (to) => {
        sink = await to.sink(part);
        if (from > 0) return;
        await sink.truncate(0);
        const given = response.headers.get('etag');
        // A weak one does not promise equal bytes.
        if (given?.startsWith('"')) await to.put(version, encode(given));
        else await to.remove(version);
      });
      if (from > 0) onBytes?.(from, 'cache');
      await fill(bytes, from, body(), shard, signal, async (chunk, position) => {
        await storing((_, open) => open?.write(chunk, position));
        onBytes?.(chunk.length, 'network');
      });
    } else onBytes?.(at, 'cache');
    digest = await intact(shard, bytes);
    if (digest === undefined) {
      throw new CtmatchError('INTEGRITY', `${shard.path}: its SHA-256 is not the manifest's`, { retryable: true, detail: { path: shard.path } });
    }
  } catch (error) {
    await storing((_, open) => open?.close());
    if (error instanceof CtmatchError && error.code === 'INTEGRITY') {
      await storing(async (from) => {
        await from.remove(part);
        await from.remove(version);
      });
    }
    throw error;
  }
  await storing(async (to, open) => {
    await open?.close();
    await to.rename(part, shard.sha256, bytes);
    await to.remove(version);
  });
  return [bytes, digest];
}

/**
 * @param {URL} base
 * @param {Network} network
 * @param {ModelCache} cache
 * @param {string} [given] the manifest's text, when it did not come from `base`
 * @returns {ModelFiles}
 */
function remoteFiles(base, network, cache, given) {
  /** @type {string | undefined} */
  let fetched;
  return {
    async manifest(signal) {
      if (given !== undefined) return given;
      const kept = network.policy === 'offline' && (await cache.recall(base));
      if (kept) return new TextDecoder().decode(kept);
      const { response, body } = await request(base, network, signal);
      return (fetched = await (await gathered(body(response, MOST_TEXT_BYTES))).text());
    },
    read: (shard, control) => locked(shard.sha256, control.signal, async () => {
      const kept = await cache.get(shard);
      control.signal?.throwIfAborted();
      if (!kept) return download(new URL(shard.path, base), shard, network, cache, control);
      control.onBytes?.(kept[0].length, 'cache');
      return kept;
    }),
    missing: async (file) => ((await cache.holds(file)) ? 0 : file.bytes),
    // Only now: a manifest that does not load must not take the place of one that does.
    complete: async () => { if (fetched) await cache.remember(base, [encode(fetched)]); },
  };
}

/** @param {string} text @returns {any} */
export function parseManifest(text) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new CtmatchError('MANIFEST', 'the manifest is not JSON', { cause });
  }
}

/** @param {string | URL} url @param {string} [base] the page's */
export function resolved(url, base) {
  try {
    return new URL(url, base);
  } catch (cause) {
    throw new CtmatchError('INVALID_ARGUMENT', `expected ${base ? 'a URL' : 'an absolute URL'}`, { cause });
  }
}

/**
 * @param {import('./index.js').ModelRef} model
 * @param {Network} network
 * @param {string | undefined} base what relative URLs are relative to
 * @param {ModelCache} cache for files with a URL
 */
export function modelFiles(model, network, base, cache) {
  if (typeof model === 'string' || model instanceof URL) return remoteFiles(resolved(model, base), network, cache);
  if ('files' in model && model.files instanceof Map) return localFiles(model.files);
  return remoteFiles(resolved('', base), network, cache, JSON.stringify(model));
}
