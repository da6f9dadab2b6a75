// Bytes of model files, from URLs under a network policy or from local files. Hashes are checked where the bytes
// are used (`Engine.addFile`); here only sizes are.

import { CtmatchError } from './error.js';

/**
 * @typedef {import('./index.js').Shard} Shard
 * @typedef {{ policy: NonNullable<import('./index.js').OpenOptions['network']>, urls: string[] }} Network
 * @typedef {{ signal?: AbortSignal, onBytes?: (bytes: number) => void }} ReadControl
 * @typedef {{ source: 'network' | 'file', manifest(signal?: AbortSignal): Promise<string>,
 *   read(file: Shard, control: ReadControl): Promise<Uint8Array<ArrayBuffer>> }} ModelFiles
 */

/**
 * One request under the policy. Redirects are errors: they could lead to another origin after the check.
 * @param {URL} url
 * @param {Network} network
 * @param {AbortSignal} [signal]
 */
export async function request(url, { policy, urls }, signal) {
  if (policy === 'offline') throw new CtmatchError('OFFLINE_MISS', `offline: ${url.href} was not requested`, { detail: { url: url.href } });
  const allowed = typeof policy === 'object' ? policy.allow.map((origin) => new URL(origin).origin) : [];
  if (url.origin !== location.origin && !allowed.includes(url.origin)) {
    throw new CtmatchError('NETWORK_POLICY', `network policy: expected ${[location.origin, ...allowed].join(' or ')}, found ${url.origin}`,
      { detail: { url: url.href } });
  }
  urls.push(url.href);
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url, { signal, redirect: 'error', credentials: 'same-origin', referrerPolicy: 'no-referrer' });
  } catch (cause) {
    signal?.throwIfAborted();
    throw new CtmatchError('NETWORK', `request failed: ${url.href}`, { retryable: true, detail: { url: url.href }, cause });
  }
  if (!response.ok) {
    throw new CtmatchError('NETWORK', `${url.href} answered ${response.status}`,
      { retryable: response.status >= 500, detail: { url: url.href, status: response.status } });
  }
  return response;
}

/** @param {Shard} file @param {number} got */
const wrongSize = (file, got) => new CtmatchError('INTEGRITY', `${file.path}: expected ${file.bytes} bytes, found ${got}`,
  { retryable: true, detail: { path: file.path, bytes: file.bytes, got } });

/**
 * Reads a stream of known length into one buffer.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 * @param {Shard} file
 * @param {ReadControl} control
 */
async function collect(stream, file, { signal, onBytes }) {
  const bytes = new Uint8Array(file.bytes);
  const reader = stream.getReader();
  let at = 0;
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { done, value } = await reader.read();
      if (done) break;
      if (at + value.length > bytes.length) throw wrongSize(file, at + value.length);
      bytes.set(value, at);
      at += value.length;
      onBytes?.(value.length);
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    signal?.throwIfAborted();
    if (error instanceof CtmatchError) throw error;
    throw new CtmatchError('NETWORK', `${file.path}: connection lost after ${at} of ${file.bytes} bytes`,
      { retryable: true, detail: { path: file.path, bytes: file.bytes, got: at }, cause: error });
  }
  if (at !== bytes.length) throw wrongSize(file, at);
  return bytes;
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
    source: 'file',
    manifest: async () => file('manifest.json').text(),
    read: async (shard, control) => collect(file(shard.path).stream(), shard, control),
  };
}

/**
 * @param {URL} base
 * @param {Network} network
 * @param {string} [manifest] its text, when it did not come from `base`
 * @returns {ModelFiles}
 */
function remoteFiles(base, network, manifest) {
  return {
    source: 'network',
    manifest: async (signal) => manifest ?? (await request(base, network, signal)).text(),
    async read(shard, control) {
      const { body } = await request(new URL(shard.path, base), network, control.signal);
      if (!body) throw wrongSize(shard, 0);
      return collect(body, shard, control);
    },
  };
}

/**
 * @param {import('./index.js').ModelRef} model
 * @param {Network} network
 * @param {string} base what relative URLs are relative to
 */
export function modelFiles(model, network, base) {
  if (typeof model === 'string' || model instanceof URL) return remoteFiles(new URL(model, base), network);
  if ('files' in model && model.files instanceof Map) return localFiles(model.files);
  return remoteFiles(new URL(base), network, JSON.stringify(model));
}
