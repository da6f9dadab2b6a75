// The message shell around a session: `{ id, method, key, args, options }` in, `{ id, value | error, info }` out. With a key the method is that
// of a volume or store which the page knows by this number, else the session's.

import { CtmatchError, open, probe } from './core.js';
import { AsVolume } from './error.js';
import { becomeThread } from './threads.js';

/** @type {Awaited<ReturnType<typeof open>> | undefined} */
let session;
/**
 * What the page holds by number.
 * @typedef {Awaited<ReturnType<typeof open>>} Session
 * @type {Map<number, Awaited<ReturnType<Session['readVolume'] | Session['openStore']>>>}
 */
const handles = new Map();
/** @type {Map<number, AbortController>} */
const calls = new Map();
let lastHandle = 0;
/** Given up when this worker ends. @type {string | undefined} */
let lock;

// Trusted Types ask this worker's own policy for the script of a thread, which is this one. Where the name is not allowed there are none.
try {
  const own = (/** @type {string} */ url) => (new URL(url, location.href).origin === location.origin ? url : null);
  /** @type {any} */ (globalThis).trustedTypes?.createPolicy('default', { createScriptURL: own });
} catch { /* see above */ }

const opened = () => {
  if (!session) throw new CtmatchError('CLOSED', 'the session is not open');
  return session;
};

/** @param {number} key */
const handle = (key) => {
  const found = handles.get(key);
  if (!found) throw new CtmatchError('CLOSED', 'the volume or store is closed');
  return found;
};

/** @param {any} sent */
const received = (sent) => (sent?.held ? handle(sent.held) : sent);

/** The session makes a new promise once it has another device. @type {Promise<unknown> | undefined} */
let watched;
const watchLoss = () => {
  const { lost } = session ?? {};
  if (!lost || lost === watched) return;
  watched = lost;
  lost.then((loss) => postMessage({ lost: loss }));
};

/** What is not the session's. @type {Record<string, (options: any, key: number) => unknown>} */
const own = {
  async hello({ name }) {
    lock = name;
    // Held as long as this worker lives: whoever gets it knows that it is gone.
    await new Promise((resolve) => {
      if (!navigator.locks) return resolve(undefined);
      return navigator.locks.request(name, () => new Promise(() => resolve(undefined))).catch(resolve);
    });
  },
  probe: (options) => probe({ ...options, script: location.href }),
  async open(options) {
    session = await open({ ...options, script: location.href, lock });
  },
  release(_options, key) {
    handles.get(key)?.close();
    handles.delete(key);
  },
  async close() {
    await session?.close();
    session = undefined;
    handles.clear();
  },
};

/** @param {{ method: string, key: number, args: any[], options: any }} asked @param {import('./index.js').CallOptions} call */
async function answer({ method, key, args, options }, call) {
  const given = { ...options, ...call };
  if (given.volume) given.volume = received(given.volume);
  if (own[method]) return own[method](given, key);
  /** @type {any} */
  const target = key ? handle(key) : opened();
  const value = await target[method](...args.map(received), given);
  // The lists of the store.
  if (method === 'add') return { ...target };
  // A volume or a store.
  if (!(value instanceof AsVolume)) return value;
  lastHandle += 1;
  handles.set(lastHandle, /** @type {any} */ (value));
  const { reading: _, ...facts } = /** @type {any} */ (value);
  return { key: lastHandle, facts };
}

/** @param {any} error */
const plainError = (error) => {
  const { name, code, message, retryable, detail } = error ?? {};
  return error instanceof CtmatchError ? { name, code, message, retryable, detail } : { name, message: message ?? String(error) };
};

addEventListener('message', async ({ data }) => {
  const { id, thread } = data;
  if (thread) return becomeThread(thread);
  if (data.method === 'abort') {
    calls.get(id)?.abort();
    return undefined;
  }
  const controller = new AbortController();
  calls.set(id, controller);
  try {
    const onProgress = (/** @type {import('./index.js').Progress} */ progress) => postMessage({ id, progress });
    const value = await answer(data, { signal: controller.signal, onProgress });
    watchLoss();
    // Every answer is made for the page.
    const transfer = Object.values(value ?? {}).filter(ArrayBuffer.isView).map(({ buffer }) => buffer);
    postMessage({ id, value, info: session?.info }, { transfer });
  } catch (error) {
    postMessage({ id, error: plainError(error), info: session?.info });
  } finally {
    calls.delete(id);
  }
  return undefined;
});
