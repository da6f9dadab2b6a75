// What the browser keeps for this site: listed, and removed.

/** @typedef {{ name: string, bytes?: number, remove: () => Promise<unknown> }} Entry */

/** @param {any} folder @param {string} path @returns {AsyncGenerator<Entry>} */
async function* privateFiles(folder, path) {
  for await (const [name, handle] of folder.entries()) {
    if (handle.kind === 'directory') yield* privateFiles(handle, `${path}${name}/`);
    else yield { name: path + name, bytes: (await handle.getFile()).size, remove: () => folder.removeEntry(name) };
  }
}

async function* caching() {
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    const remove = () => caches.delete(name);
    yield { name, remove };
    for (const request of await cache.keys()) {
      const bytes = (await (await cache.match(request))?.blob())?.size;
      yield { name: request.url, bytes, remove };
    }
  }
}

async function* databases() {
  for (const { name = '' } of await indexedDB.databases()) {
    yield {
      name, remove: () => new Promise((resolve, reject) => {
        const request = indexedDB.deleteDatabase(name);
        request.onsuccess = resolve;
        request.onerror = request.onblocked = reject;
      }),
    };
  }
}

async function* settings() {
  for (const storage of [localStorage, sessionStorage]) {
    for (const name of Object.keys(storage)) yield { name, remove: async () => storage.removeItem(name) };
  }
  for (const name of document.cookie.split('; ').filter(Boolean).map((pair) => pair.split('=')[0])) {
    yield { name, remove: async () => { document.cookie = `${name}=; Max-Age=0`; } };
  }
}

async function* workers() {
  for (const registration of await navigator.serviceWorker.getRegistrations()) {
    yield { name: registration.scope, remove: () => registration.unregister() };
  }
}

/** Kinds of storage; one that this browser lacks holds nothing. */
const KINDS = { serviceWorker: workers, caches: caching, opfs: async () => privateFiles(await navigator.storage.getDirectory(), '/'), indexedDB: databases, settings };

export async function* stored() {
  for (const [kind, list] of Object.entries(KINDS)) {
    try {
      for await (const entry of await list()) yield { kind, ...entry };
    } catch (error) {
      if (!['SecurityError', 'TypeError', 'NotFoundError'].includes(/** @type {Error} */ (error).name)) throw error;
    }
  }
}

/** True when nothing was in use. */
export async function removeStored() {
  let removed = true;
  const entries = [];
  for await (const entry of stored()) entries.push(entry);
  for (const { remove } of entries) await remove().catch(() => { removed = false; });
  const root = await navigator.storage?.getDirectory?.().catch(() => undefined);
  // Folders are empty by now, unless a file in them is in use.
  if (root) for await (const name of /** @type {any} */ (root).keys()) await root.removeEntry(name, { recursive: true }).catch(() => { removed = false; });
  return removed;
}
