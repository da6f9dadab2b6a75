// A static server on 127.0.0.1 that puts the policy headers on every response: for `build.sh demo` and the tests.
//
//   node serve.mjs [--root DIR] [--mount /PREFIX=DIR]... [--port N]

import { createReadStream } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { dirname, extname, join, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { HEADERS } from '../../hosting/site.mjs';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

// They are needed on worker and wasm responses too: a worker has the policy of its own response.
export { HEADERS as POLICY_HEADERS };

const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8', '.json': 'application/json', '.wasm': 'application/wasm', '.svg': 'image/svg+xml',
  '.png': 'image/png', '.gz': 'application/gzip', '.txt': 'text/plain; charset=utf-8', '.md': 'text/plain; charset=utf-8',
};

/**
 * The file behind a request path, or undefined: never outside its folder, not by `..` and not by a link.
 * @param {string} path decoded
 * @param {[string, string][]} mounts longest prefix first
 */
async function locate(path, mounts) {
  if (path.includes('\0') || path.includes('\\')) return undefined;
  const [prefix, folder] = mounts.find(([p]) => path.startsWith(p)) ?? [];
  if (!folder) return undefined;
  const inside = path.slice(prefix.length);
  try {
    const base = await realpath(folder);
    const file = await realpath(join(base, inside === '' || inside.endsWith('/') ? `${inside}index.html` : inside));
    if (!file.startsWith(base + sep)) return undefined;
    const { size, mtimeMs } = await stat(file).then((s) => (s.isFile() ? s : Promise.reject(new Error('not a file'))));
    return { file, size, etag: `"${size.toString(16)}-${Math.round(mtimeMs).toString(16)}"` };
  } catch {
    return undefined;
  }
}

/**
 * The one range a request asks for: null when it is outside, undefined when all is to be sent.
 * @param {import('node:http').IncomingHttpHeaders} headers
 * @param {{ size: number, etag: string }} found
 */
function asked({ range, 'if-range': version }, { size, etag }) {
  const [, first, last] = range?.match(/^bytes=(\d*)-(\d*)$/) ?? [];
  if ((!first && !last) || (version && version !== etag)) return undefined;
  const start = first ? Number(first) : Math.max(0, size - Number(last));
  const end = first && last ? Math.min(Number(last), size - 1) : size - 1;
  if (first && last && Number(last) < start) return undefined;
  return start < size ? { start, end } : null;
}

/**
 * @param {{ root?: string, mounts?: Record<string, string>, port?: number, headers?: Record<string, string>,
 *   intercept?: (request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse) => unknown }} [options]
 *   `mounts`: URL prefix to folder; `headers` replaces the policy headers; `intercept` gives true when it answers itself
 * @returns {Promise<{ origin: string, requests: string[], close(): Promise<void> }>}
 */
export async function serve({ root = join(repository, 'www'), mounts = { '/ctmatch': join(repository, 'pkg') }, port = 0, headers = HEADERS, intercept } = {}) {
  const table = Object.entries({ ...mounts, '': root })
    .map(([prefix, folder]) => /** @type {[string, string]} */ ([`${prefix.replace(/\/+$/, '')}/`, resolve(folder)]))
    .sort(([a], [b]) => b.length - a.length);
  const requests = [];

  const server = createServer(async (request, response) => {
    response.setHeader('Cache-Control', 'no-cache');
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    requests.push(`${request.method} ${request.url}`);
    if (await intercept?.(request, response)) return undefined;
    const plain = (status, text) => {
      response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' });
      response.end(`${text}\n`);
    };
    if (request.method !== 'GET' && request.method !== 'HEAD') return plain(405, 'only GET');
    let path;
    try {
      path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    } catch {
      return plain(400, 'bad path');
    }
    const found = await locate(path, table);
    if (!found) return plain(404, 'not found');
    response.setHeader('Accept-Ranges', 'bytes');
    response.setHeader('ETag', found.etag);
    const range = request.method === 'GET' ? asked(request.headers, found) : undefined;
    if (range === null) {
      response.setHeader('Content-Range', `bytes */${found.size}`);
      return plain(416, 'no such range');
    }
    if (range) response.setHeader('Content-Range', `bytes ${range.start}-${range.end}/${found.size}`);
    response.writeHead(range ? 206 : 200, {
      'Content-Type': TYPES[extname(found.file)] ?? 'application/octet-stream', 'Content-Length': range ? range.end - range.start + 1 : found.size,
    });
    if (request.method === 'HEAD') return response.end();
    createReadStream(found.file, range).on('error', () => response.destroy()).pipe(response);
  });

  await new Promise((done, fail) => server.once('error', fail).listen(port, '127.0.0.1', done));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    requests,
    close: () => new Promise((done) => {
      server.close(done);
      server.closeAllConnections();
    }),
  };
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { root: { type: 'string' }, mount: { type: 'string', multiple: true }, port: { type: 'string', default: '8080' } },
  });
  // Another root has its own folder `ctmatch`.
  const mounts = values.mount || values.root ? Object.fromEntries((values.mount ?? []).map((pair) => {
    const at = pair.indexOf('=');
    return [pair.slice(0, at), pair.slice(at + 1)];
  })) : undefined;
  const { origin } = await serve({ root: values.root, mounts, port: Number(values.port) });
  console.log(`${origin}/`);
}
