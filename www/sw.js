// Answers from the files of one release, with the policy headers on every answer, and from nothing else while sealed
// (NIFTI_AND_PRIVACY.md 13). It stores what the release table names, each file checked against its SHA-256, and never a user's file.

/** Written by the site build. @type {{ version: string, headers: Record<string, string>, files: Record<string, string> }} */
const RELEASE = null;

// Several sites may share an origin.
const PREFIX = `ctmatch ${self.registration.scope} `;
const CACHE = PREFIX + RELEASE.version;
// A cache of this name exists while the network is sealed: a service worker keeps no variables, it is stopped at any time.
const SEAL = `${PREFIX}sealed`;

/** @param {string} path */
const address = (path) => new URL(path, self.registration.scope).href;

/** @param {BodyInit | null} body @param {ResponseInit} init */
function withPolicy(body, init) {
  const headers = new Headers(init.headers);
  for (const [name, value] of Object.entries(RELEASE.headers)) headers.set(name, value);
  return new Response(body, { ...init, headers });
}

/** @param {ArrayBuffer} bytes */
async function sha256(bytes) {
  return Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** A file of the release, from an earlier one if it is the same. @param {string} path @param {string} expected */
async function fetched(path, expected) {
  const url = address(path);
  const sources = [() => caches.match(url), () => fetch(url, { cache: 'no-cache', redirect: 'error', credentials: 'same-origin' })];
  for (const source of sources) {
    const response = await source();
    if (!response?.ok) continue;
    const bytes = await response.arrayBuffer();
    if ((await sha256(bytes)) !== expected) continue;
    const type = response.headers.get('content-type') ?? 'application/octet-stream';
    return withPolicy(bytes, { headers: { 'content-type': type, 'content-length': String(bytes.byteLength) } });
  }
  // The browser drops this worker and tries again later; the release before goes on serving, whole.
  throw new Error(`${path} is not the file of release ${RELEASE.version}`);
}

async function install() {
  if (await caches.has(SEAL)) throw new Error('the network is sealed');
  const cache = await caches.open(CACHE);
  for (const [path, expected] of Object.entries(RELEASE.files)) await cache.put(address(path), await fetched(path, expected));
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && ![CACHE, SEAL].includes(name)) await caches.delete(name);
  }
  await self.clients.claim();
}

async function state() {
  const kept = (await caches.has(CACHE)) ? await (await caches.open(CACHE)).keys() : [];
  return { version: RELEASE.version, sealed: await caches.has(SEAL), complete: kept.length === Object.keys(RELEASE.files).length, stored: kept.map(({ url }) => url) };
}

/** @param {Request} request */
async function answer(request) {
  const url = new URL(request.url);
  if (request.method === 'GET' && url.href.startsWith(self.registration.scope)) {
    const path = decodeURIComponent(url.pathname.slice(new URL(self.registration.scope).pathname.length)) || 'index.html';
    const kept = Object.hasOwn(RELEASE.files, path) ? await caches.match(address(path), { cacheName: CACHE }) : undefined;
    if (kept) return kept;
  }
  if (url.origin !== location.origin || (await caches.has(SEAL))) return Response.error();
  const response = await fetch(request);
  // An opaque redirect cannot be copied, and carries nothing.
  if (response.type === 'opaqueredirect') return response;
  const { body, status, statusText, headers } = response;
  return withPolicy(body, { status, statusText, headers });
}

const COMMANDS = {
  state: async () => {},
  // Without a whole release there would be nothing to answer from.
  seal: async () => { if ((await state()).complete) await caches.open(SEAL); },
  unlock: () => caches.delete(SEAL),
  update: () => self.skipWaiting(),
};

self.addEventListener('install', (event) => event.waitUntil(install()));
self.addEventListener('activate', (event) => event.waitUntil(activate()));
self.addEventListener('fetch', (event) => event.respondWith(answer(event.request)));
self.addEventListener('message', (event) => {
  if (!Object.hasOwn(COMMANDS, event.data)) return;
  event.waitUntil(COMMANDS[event.data]().then(state).then((now) => event.ports[0]?.postMessage(now)));
});
