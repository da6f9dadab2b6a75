// Bytes of model files: from URLs under a network policy through a cache, or from local files. One shard is held at a
// time, never the model.

import { CtmatchError } from './error.js';

/**
 * @typedef {import('./index.js').Shard} Shard
 * @typedef {'network' | 'cache' | 'file'} Source
 * @typedef {Uint8Array<ArrayBuffer>} Bytes
 * @typedef {{ policy: NonNullable<import('./index.js').OpenOptions['network']>, urls: string[] }} Network
 * @typedef {{ signal?: AbortSignal, onBytes?: (bytes: number, source: Source) => void }} ReadControl
 * @typedef {{ manifest(signal?: AbortSignal): Promise<string>, read(file: Shard, control: ReadControl): Promise<Bytes>,
 *   missing(file: Shard): Promise<number>, complete(): Promise<void> }} ModelFiles `missing`: bytes that `read` would request;
 *   `complete`: the model is loaded
 * @typedef {{ write(bytes: BufferSource, at: number): unknown, truncate(bytes: number): unknown, close(): unknown }} Sink
 */

/** Files in Node, which has no origin of its own; not by `import`, which bundlers would follow. */
const nodeFiles = () => globalThis.location ? undefined : /** @type {any} */ (globalThis).process?.getBuiltinModule?.('node:fs/promises');

/**
 * One request under the policy. Redirects are errors: they could lead to another origin after the check.
 * @param {URL} url
 * @param {Network} network
 * @param {AbortSignal} [signal]
 * @param {RequestInit} [init] with `headers` it asks for a range, and 416 is an answer
 */
export async function request(url, { policy, urls }, signal, init) {
  if (policy === 'offline') throw new CtmatchError('OFFLINE_MISS', `offline: ${url.href} was not requested`, { detail: { url: url.href } });
  const disk = url.protocol === 'file:' && nodeFiles();
  const allowed = [...(globalThis.location ? [location.origin] : []), ...(typeof policy === 'object' ? policy.allow.map((origin) => resolved(origin).origin) : [])];
  if (!disk && !allowed.includes(url.origin)) {
    throw new CtmatchError('NETWORK_POLICY', `network policy: expected ${allowed.join(' or ')}, found ${url.origin}`, { detail: { url: url.href } });
  }
  urls.push(url.href);
  /** @type {Response} */
  let response;
  try {
    response = disk ? new Response(await disk.readFile(url, { signal })) : await fetch(url, { ...init, signal, redirect: 'error', credentials: 'same-origin', referrerPolicy: 'no-referrer' });
  } catch (cause) {
    signal?.throwIfAborted();
    throw new CtmatchError('NETWORK', `request failed: ${url.href}`, { retryable: true, detail: { url: url.href }, cause });
  }
  if (!response.ok && !(init?.headers && response.status === 416)) {
    throw new CtmatchError('NETWORK', `${url.href} answered ${response.status}`,
      { retryable: response.status >= 500, detail: { url: url.href, status: response.status } });
  }
  return response;
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

/** Without `crypto.subtle` the check in `Engine.addFile` is the only one. @param {Shard} file @param {Bytes} bytes */
async function intact(file, bytes) {
  const found = await sha256(bytes);
  return found === '' || found === file.sha256.toLowerCase();
}

/** @param {Shard} file @param {number} got */
const wrongSize = (file, got) => new CtmatchError('INTEGRITY', `${file.path}: expected ${file.bytes} bytes, found ${got}`,
  { retryable: true, detail: { path: file.path, bytes: file.bytes, got } });

/**
 * Copies a stream into `bytes` from `at` on.
 * @param {Bytes} bytes
 * @param {number} at
 * @param {ReadableStream<Bytes>} stream
 * @param {Shard} file
 * @param {AbortSignal} [signal]
 * @param {(chunk: Bytes, at: number) => unknown} [onChunk] awaited
 */
async function fill(bytes, at, stream, file, signal, onChunk) {
  const reader = stream.getReader();
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { done, value } = await reader.read();
      if (done) break;
      if (at + value.length > bytes.length) throw wrongSize(file, at + value.length);
      bytes.set(value, at);
      await onChunk?.(value, at);
      at += value.length;
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    signal?.throwIfAborted();
    if (error instanceof CtmatchError) throw error;
    throw new CtmatchError('NETWORK', `${file.path}: reading stopped after ${at} of ${file.bytes} bytes`,
      { retryable: true, detail: { path: file.path, bytes: file.bytes, got: at }, cause: error });
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

  /** The file if it is there, whole and unchanged. @param {Shard} file */
  async get(file) {
    const store = await this.#store;
    try {
      const blob = await store?.get(file.sha256);
      if (!blob) return undefined;
      const bytes = new Uint8Array(await blob.arrayBuffer());
      if (bytes.length === file.bytes && (await intact(file, bytes))) return bytes;
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

  /** @param {URL} url @param {Response} response is used up */
  async remember(url, response) {
    const store = await this.writable();
    try {
      if (!(store instanceof Disk)) return await response.body?.cancel();
      const bytes = new Uint8Array(await response.arrayBuffer());
      const [address, sum] = [await sha256(encode(url.href)), await sha256(bytes)];
      const last = await store.get(address);
      if (last?.size === ADDRESS_LENGTH + bytes.length && (await last.slice(0, ADDRESS_LENGTH).text()) === sum) return;
      await store.put(address, new Uint8Array(await new Blob([sum, bytes]).arrayBuffer()));
    } catch (error) {
      this.failed(error);
    }
  }

  /** @param {URL} url */
  async forget(url) {
    await (await this.#store)?.remove(await sha256(encode(url.href))).catch(() => {});
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
    manifest: async () => file('manifest.json').text(),
    async read(shard, { signal, onBytes }) {
      const blob = file(shard.path);
      if (blob.size !== shard.bytes) throw wrongSize(shard, blob.size);
      const bytes = new Uint8Array(shard.bytes);
      await fill(bytes, 0, blob.stream(), shard, signal, (chunk) => onBytes?.(chunk.length, 'file'));
      return bytes;
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
 * @returns {Promise<[number, Response]>}
 */
async function continued(url, shard, network, at, etag, signal) {
  /** The browser's own cache would hold every shard a second time. @type {RequestInit} */
  const init = { cache: 'no-store' };
  if (at > 0) {
    /** @type {Record<string, string>} */
    const headers = { Range: `bytes=${at}-` };
    // To another origin it would need a preflight; the hash decides anyway.
    if (etag && url.origin === globalThis.location?.origin) headers['If-Range'] = etag;
    const response = await request(url, network, signal, { ...init, headers });
    if (response.status === 200) return [0, response];
    const range = response.headers.get('content-range') ?? '';
    if (response.status === 206 && [`${shard.bytes}`, '*'].some((total) => range === `bytes ${at}-${shard.bytes - 1}/${total}`)) return [at, response];
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
 */
async function download(url, shard, network, cache, { signal, onBytes }) {
  const bytes = new Uint8Array(shard.bytes);
  const [part, version] = [shard.sha256 + PART, shard.sha256 + ETAG];
  let store = await cache.writable();
  /** @type {Sink | undefined} */
  let sink;
  let at = 0;
  /** @type {string | undefined} */
  let etag;
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
        await fill(bytes.subarray(0, blob.size), 0, blob.stream(), { ...shard, bytes: blob.size });
        at = blob.size;
        etag = await (await from.get(version))?.text();
      }
    });
    signal?.throwIfAborted();
    if (at < bytes.length) {
      const [from, response] = await continued(url, shard, network, at, etag, signal);
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
      if (!response.body) throw wrongSize(shard, from);
      await fill(bytes, from, response.body, shard, signal, async (chunk, position) => {
        await storing((_, open) => open?.write(chunk, position));
        onBytes?.(chunk.length, 'network');
      });
    } else onBytes?.(at, 'cache');
    if (!(await intact(shard, bytes))) {
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
  return bytes;
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
      return kept ? new TextDecoder().decode(kept) : (fetched = await (await request(base, network, signal)).text());
    },
    read: (shard, control) => locked(shard.sha256, control.signal, async () => {
      const kept = await cache.get(shard);
      control.signal?.throwIfAborted();
      if (!kept) return download(new URL(shard.path, base), shard, network, cache, control);
      control.onBytes?.(kept.length, 'cache');
      return kept;
    }),
    missing: async (file) => ((await cache.holds(file)) ? 0 : file.bytes),
    // Only now: a manifest that does not load must not take the place of one that does.
    complete: async () => { if (fetched) await cache.remember(base, new Response(fetched)); },
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
