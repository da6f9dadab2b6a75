// The message shell around a session: `{ id, method, args }` in, `{ id, value | error, info }` out.

import { CtmatchError, open, probe } from './core.js';
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

/** @param {number} key @returns {any} a volume or a store, as the method that takes the key says */
const handle = (key) => {
  const found = handles.get(key);
  if (!found) throw new CtmatchError('CLOSED', 'the volume or store is closed');
  return found;
};

/** @param {import('./index.js').Store} store */
const storeFacts = ({ model, precision, view, volumes, reports }) => ({ model, precision, view, volumes, reports });

/** A volume, if it is the key of one. @param {any} from */
const received = (from) => (typeof from === 'number' ? handle(from) : from);

/** The session makes a new promise once it has another device. @type {Promise<unknown> | undefined} */
let watched;
const watchLoss = () => {
  const { lost } = opened();
  if (lost === watched) return;
  watched = lost;
  lost.then((loss) => postMessage({ lost: loss }));
};

/** @type {Record<string, (call: import('./index.js').CallOptions, ...args: any[]) => Promise<{ value?: unknown, transfer?: Transferable[] }>>} */
const methods = {
  async hello(_call, name) {
    lock = name;
    // Held as long as this worker lives: whoever gets it knows that it is gone.
    await new Promise((resolve) => {
      if (!navigator.locks) return resolve(undefined);
      return navigator.locks.request(name, () => new Promise(() => resolve(undefined))).catch(resolve);
    });
    return {};
  },
  async probe({ signal }, options) {
    return { value: await probe({ ...options, signal, script: location.href }) };
  },
  async open(call, options) {
    session = await open({ ...options, ...call, script: location.href, lock });
    watchLoss();
    return {};
  },
  async loadModel(call, model) {
    await opened().loadModel(model, call);
    watchLoss();
    return {};
  },
  async recover(call) {
    await opened().recover(call);
    watchLoss();
    return {};
  },
  async selfTest(call) {
    return { value: await opened().selfTest(call) };
  },
  async estimate({ signal }, from) {
    return { value: await opened().estimate(received(from), { signal }) };
  },
  async readVolume(call, source, options) {
    const read = await opened().readVolume(source, { ...options, ...call });
    lastHandle += 1;
    handles.set(lastHandle, read);
    const { dims, spacingMm, orientation, orientationKnown, datatype, headerScaling, findings, identifiers, huRange, voxelBytes } = read;
    const facts = { dims, spacingMm, orientation, orientationKnown, datatype, headerScaling, findings, identifiers, huRange, voxelBytes };
    return { value: { key: lastHandle, facts } };
  },
  async slice(call, key, plane, index, options) {
    const slice = await handle(key).slice(plane, index, { ...options, signal: call.signal });
    return { value: slice, transfer: [slice.hu.buffer] };
  },
  async modelBox(_call, key) {
    return { value: await handle(key).modelBox() };
  },
  async exportMap(_call, key, values, options) {
    return { value: await handle(key).exportMap({ values }, options) };
  },
  async revealIdentifiers(_call, key) {
    return { value: await handle(key).revealIdentifiers() };
  },
  async cleanCopy(call, key) {
    return { value: await handle(key).cleanCopy(call) };
  },
  async openStore(call, file, options) {
    const store = await opened().openStore(file, { ...options, signal: call.signal });
    lastHandle += 1;
    handles.set(lastHandle, store);
    return { value: { key: lastHandle, facts: storeFacts(store) } };
  },
  async addToStore(_call, key, added) {
    const store = handle(key);
    await store.add(added);
    return { value: storeFacts(store) };
  },
  async searchStore(call, key, query, options) {
    return { value: await handle(key).search(query, { ...options, signal: call.signal }) };
  },
  async evaluateStore(call, key, options) {
    return { value: await handle(key).evaluate({ ...options, signal: call.signal }) };
  },
  async saveStore(_call, key) {
    return { value: await handle(key).save() };
  },
  async release(_call, key) {
    handles.get(key)?.close();
    handles.delete(key);
    return {};
  },
  async evaluate(_call, choices, options) {
    return { value: await opened().evaluate(choices, options) };
  },
  async evaluateLabels(_call, rows, options) {
    return { value: await opened().evaluateLabels(rows, options) };
  },
  async parseLabels(_call, source) {
    return { value: await opened().parseLabels(source) };
  },
  async buildItems(_call, reports, options) {
    return { value: await opened().buildItems(reports, options) };
  },
  async parseReports(call, source, options) {
    return { value: await opened().parseReports(source, { ...options, ...call }) };
  },
  async textHints(_call, texts) {
    return { value: await opened().textHints(texts) };
  },
  async privacyNotices(_call, count) {
    return { value: await opened().privacyNotices(count) };
  },
  async encodeVolume(call, key, options) {
    const latent = await opened().encodeVolume(handle(key), { ...options, ...call });
    return { value: latent, transfer: [latent.vector.buffer, latent.codes.buffer] };
  },
  async encodeReports(call, reports, options) {
    const set = await opened().encodeReports(reports, { ...options, ...call });
    return { value: set, transfer: [set.vectors.buffer] };
  },
  async rank(call, image, reports, options) {
    return { value: await opened().rank(image, reports, { ...options, signal: call.signal }) };
  },
  async zeroShot(call, from, options) {
    return { value: await opened().zeroShot(received(from), { ...options, ...call }) };
  },
  async explain(call, from, seen, options) {
    const map = await opened().explain(received(from), { ...options, volume: received(seen), ...call });
    return { value: map, transfer: [map.values.buffer, map.plane.buffer] };
  },
  async occlude(call, key, cubes, options) {
    return { value: await opened().occlude(handle(key), cubes, { ...options, ...call }) };
  },
  async clearCache() {
    await opened().clearCache();
    return {};
  },
  async diagnostics() {
    return { value: await opened().diagnostics() };
  },
  async close() {
    await session?.close();
    session = undefined;
    handles.clear();
    return {};
  },
};

/** @param {any} error */
const plainError = (error) => {
  const { name, code, message, retryable, detail } = error ?? {};
  return error instanceof CtmatchError ? { name, code, message, retryable, detail } : { name, message: message ?? String(error) };
};

addEventListener('message', async ({ data: { id, method, args, thread } }) => {
  if (thread) return becomeThread(thread);
  if (method === 'abort') {
    calls.get(id)?.abort();
    return undefined;
  }
  const controller = new AbortController();
  calls.set(id, controller);
  try {
    const onProgress = (/** @type {import('./index.js').Progress} */ progress) => postMessage({ id, progress });
    const { value, transfer = [] } = await methods[method]({ signal: controller.signal, onProgress }, ...args);
    postMessage({ id, value, info: session?.info }, { transfer });
  } catch (error) {
    postMessage({ id, error: plainError(error), info: session?.info });
  } finally {
    calls.delete(id);
  }
  return undefined;
});
