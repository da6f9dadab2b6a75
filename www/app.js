// What the panels share: the state, who is told of a change, and one piece of work at a time with progress, cancel and errors.

import { open } from './ctmatch/index.js';
import { $, button } from './dom.js';
import { errorText, number, text } from './i18n.js';
import { isSealed, seal, touched } from './offline.js';

/** @typedef {string | (() => string)} State a message key, or a line made again when the language changes */
/** @typedef {{ signal: AbortSignal, onProgress: (progress: import('../pkg/index.js').Progress) => void }} Call */
/**
 * A volume of this sitting. Only the current one is open; the others can be read again, but for a saved latent (`kept`), which has no source.
 * @typedef {{ id: string, source?: import('../pkg/index.js').VolumeSource, name: string, kept?: import('../pkg/index.js').ImageLatent, reading: import('../pkg/index.js').ReadOptions,
 *   metadataJson?: string, accepted: Set<string>, dims?: readonly number[], latent?: { key: string, image: import('../pkg/index.js').ImageLatent } }} Entry
 */

export const MANIFEST = './model/manifest.json';

export const state = {
  /** @type {import('../pkg/index.js').Session | undefined} */
  session: undefined,
  /** the settings were changed after `session` was opened */
  stale: true,
  /** @type {Entry[]} */
  entries: [],
  /** the one that is shown @type {Entry | undefined} */
  entry: undefined,
  /** a source that could not be read, for the cures of its error @type {Entry | undefined} */
  refused: undefined,
  /** of `entry` @type {import('../pkg/index.js').Volume | undefined} */
  volume: undefined,
  /** the texts of the volume's identifiers, while the user looks at them @type {string[] | undefined} */
  revealed: undefined,
  /** @type {any} */
  result: undefined,
  /** @type {import('../pkg/index.js').ModelRef} */
  modelRef: MANIFEST,
  /** the one that `session` has loaded @type {import('../pkg/index.js').ModelRef | undefined} */
  loadedRef: undefined,
  /** where its weights came from: network, cache or file @type {string | undefined} */
  weightsFrom: undefined,
  /** of `modelRef`, known before any weight is loaded @type {import('../pkg/index.js').ModelManifest | undefined} */
  manifest: undefined,
  /** @type {AbortController | undefined} */
  running: undefined,
  /** @type {unknown} */
  error: undefined,
  /** @type {State} */
  status: '',
};

/** What must be known of a model's scores: the key of a text. @param {{ untrained?: boolean, synthetic?: boolean } | undefined} model */
export const doubtAbout = (model) => ['untrained', 'synthetic'].find((doubt) => model?.[doubt]);

// ---- who is told

/** @typedef {'controls' | 'volume' | 'candidates' | 'result' | 'entries' | 'model' | 'compared' | 'keys'} Topic */

/** @type {Map<Topic, Set<() => void>>} */
const renders = new Map();

/** `render` draws what it shows of `topic`; a change of language draws all. @param {Topic} topic @param {() => void} render */
export function on(topic, render) {
  if (!renders.has(topic)) renders.set(topic, new Set());
  renders.get(topic)?.add(render);
}

/** @param {...Topic} topics */
export function changed(...topics) {
  for (const render of new Set([...topics, 'controls'].flatMap((topic) => [...(renders.get(/** @type {Topic} */ (topic)) ?? [])]))) render();
}

/** @type {(() => void)[]} */
const forgets = [];

/** `forget` drops what a panel keeps beside the state. @param {() => void} forget */
export const onClear = (forget) => forgets.push(forget);

/** Drawn into by the panels. What is filled once and never again stays. */
const drawn = document.querySelectorAll('main [id]:empty:not(#planes, #presets, #sample, input, textarea)');

/** As at the start; the next work opens a session. */
export function clearState() {
  state.session?.close();
  failed = undefined;
  noted = '';
  Object.assign(state, {
    session: undefined, stale: true, entries: [], entry: undefined, volume: undefined, refused: undefined, revealed: undefined, result: undefined,
    loadedRef: undefined,
  });
  for (const forget of forgets) forget();
  // A hidden panel still holds what it drew, and a field what was typed.
  for (const place of drawn) place.replaceChildren();
  for (const field of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll('textarea, input:not([type]), input[type="search"]'))) field.value = field.defaultValue;
  changed(...renders.keys());
}

export function renderAll() {
  changed(...renders.keys());
  renderError();
}

// ---- work

function renderStatus() {
  $('work').classList.toggle('idle', !state.running && !state.status && !state.error);
  $('progress-text').textContent = typeof state.status === 'function' ? state.status() : state.status && text(state.status);
}

/** What a person can do about an error, by code. @type {Record<string, string[]>} */
const CURES = {
  NO_WEBGPU: ['use_cpu'], SOFTWARE_ADAPTER: ['use_software', 'use_cpu'], LIMITS: ['use_cpu'], GPU_OOM: ['use_cpu'],
  DEVICE_LOST: ['restore', 'use_cpu'], SHADER_INVALID: ['restore', 'use_cpu'], BAD_RESULT: ['restore', 'use_cpu'], SELF_TEST_FAILED: ['restore', 'use_cpu'],
  E_XFORM: ['assume_lps'], E_SPACING: ['load_sidecar'], WASM_ABORT: ['reopen'], WORKER_BLOCKED: ['reopen'], CLOSED: ['reopen'],
  NETWORK: ['net_unlock', 'model_folder'],
};
/** Where a cure would change something; elsewhere always. @type {Record<string, () => boolean>} */
const NEEDED = { use_cpu: () => chosenBackend() !== 'cpu', net_unlock: isSealed, model_folder: isSealed };
/** After these a session computes nothing, or nothing that can be trusted: the next work opens another. */
const ENDS_SESSION = ['SHADER_INVALID', 'BAD_RESULT', 'SELF_TEST_FAILED', 'WASM_ABORT', 'CLOSED'];

/** @type {Record<string, () => void>} */
const actions = {};
/** The work that failed last. @type {(() => unknown) | undefined} */
let failed;

/** The work that failed, once more. */
export const tryAgain = () => failed?.();

/** What the button of a cure does. @param {Record<string, () => void>} given by message key */
export const cures = (given) => Object.assign(actions, given);

function renderError() {
  const error = /** @type {any} */ (state.error);
  renderStatus();
  $('error').hidden = !error;
  if (!error) return;
  /** of several files @type {any[]} */
  const errors = error.errors ?? [error];
  $('error-text').textContent = errors.map((one) => (one.file ? `${text('file_of', one.file)} ` : '') + errorText(one)).join(' ');
  $('error-code').textContent = errors.map(({ code, name }) => code ?? name).join(' ');
  // The exact message helps in a bug report; codes of files explain themselves.
  $('error-more').textContent = errors.filter(({ code }) => !/^E_/.test(code ?? '')).map(({ message }) => message).join(' ');
  // Which of several files a cure would be for is not known.
  const keys = errors.length > 1 ? [] : (CURES[errors[0].code] ?? []).filter((key) => NEEDED[key]?.() ?? true);
  $('error-actions').replaceChildren(...keys.map((key) => button(text(key), actions[key], { 'data-cure': key })));
}

/** @param {unknown} error @param {() => unknown} [again] what its cures try again */
export function showError(error, again) {
  state.error = error;
  if (again) failed = again;
  renderError();
}

/** Said as soon as no work has a last line of its own. @type {State} */
let noted = '';

/** @param {State} line */
export function note(line) {
  if (state.running) noted = line;
  else state.status = line;
  renderStatus();
}

// An estimate from less is a guess.
const LEAST_SHARE = 0.05;
let lastShown = 0;
/** Of the phase that is in progress: when it began, and how much of it is done. */
let phase = { name: '', from: 0, share: 0 };

/** Seconds that the phase has taken, and what is left. Beside the live region: read out each second it would drown the rest. */
function renderTime() {
  if (!state.running) {
    $('progress-time').textContent = '';
    return;
  }
  const seconds = (performance.now() - phase.from) / 1000;
  const whole = (value) => number(Math.round(value));
  const { share } = phase;
  $('progress-time').textContent = share >= LEAST_SHARE && share < 1 ? text('time_left', { s: whole(seconds), left: whole((seconds / share) * (1 - share)) })
    : text('time', { s: whole(seconds) });
}
setInterval(() => { if (state.running) renderTime(); }, 1000);

/** @param {any} progress */
function onProgress(progress) {
  const now = performance.now();
  const [done, total] = 'done' in progress ? [progress.done, progress.total]
    : 'fraction' in progress ? [progress.fraction, 1] : [progress.loadedBytes, progress.totalBytes];
  const shown = $('progress-bar');
  if (total) shown.value = done / total;
  else shown.removeAttribute('value');
  const fresh = progress.phase !== phase.name;
  phase = { name: progress.phase, from: fresh ? now : phase.from, share: total ? done / total : 0 };
  // A screen reader should not be flooded.
  if (now - lastShown < 250 && done !== total && !fresh) return;
  lastShown = now;
  state.status = () => {
    const mb = (bytes) => number(bytes / 1e6, { maximumFractionDigits: 1 });
    const line = [text(`phase_${progress.phase}`)];
    if ('done' in progress) line.push(text('amount_steps', { done, total }));
    else if ('totalBytes' in progress && total) line.push(text('amount_bytes', { done: mb(done), total: mb(total) }));
    if (progress.size) line.push(text('size_claimed', { dims: progress.size.dims.join(' × '), mb: mb(progress.size.bytes) }));
    return line.join(': ');
  };
  renderStatus();
  renderTime();
}

/**
 * One piece of work at a time, with progress, cancel and errors.
 * @param {string} first phase, shown until there is progress
 * @param {(call: Call) => Promise<State | void>} work returns the last line
 */
export async function run(first, work) {
  if (state.running) return;
  const controller = new AbortController();
  state.running = controller;
  state.error = undefined;
  failed = undefined;
  state.status = first;
  phase = { name: '', from: performance.now(), share: 0 };
  $('progress-bar').removeAttribute('value');
  renderError();
  changed('controls');
  try {
    const line = await work({ signal: controller.signal, onProgress });
    state.status = line ?? noted;
    if (line === undefined) noted = '';
  } catch (error) {
    if (controller.signal.aborted) state.status = 'cancelled';
    else {
      state.status = '';
      failed = () => run(first, work);
      if (ENDS_SESSION.includes(error?.code)) state.stale = true;
      showError(error);
    }
  }
  state.running = undefined;
  touched(state.session?.info.urls);
  renderStatus();
  renderTime();
  changed('controls');
}

/** Codes of a file that cannot be used; others end the work. */
const OF_A_FILE = /^(E_\w+|TEXT_INPUT|STORE)$/;

/**
 * Several files, one after the other: one that cannot be used keeps no other out. Each message has the file's place, and not its name.
 * @template T @param {readonly T[]} files @param {(file: T) => Promise<unknown>} use
 * @returns {Promise<T[]>} those that could not be used
 */
export async function each(files, use) {
  const refused = [];
  const errors = [];
  for (const [i, file] of files.entries()) {
    try {
      await use(file);
    } catch (error) {
      if (files.length === 1 || !OF_A_FILE.test(error?.code)) throw error;
      refused.push(file);
      errors.push(Object.assign(error, { file: { n: i + 1, total: files.length } }));
    }
  }
  if (errors.length > 0) showError(new AggregateError(errors));
  return refused;
}

// ---- session

/** A file of this site. @param {string} path @param {AbortSignal} [signal] */
export async function ownFile(path, signal) {
  const response = await fetch(path, { signal }).catch(() => new Response(null, { status: 503 }));
  signal?.throwIfAborted();
  if (response.ok) return response.blob();
  throw Object.assign(new Error(`${path} answered ${response.status}`), { code: 'NETWORK', detail: { url: path, status: response.status } });
}

/** @returns {'webgpu' | 'cpu'} */
const chosenBackend = () => /** @type {any} */ (document.querySelector('input[name="backend"]:checked')).value;

/** What another model made is not compared; what the same one made in a session before stays. @param {import('../pkg/index.js').SessionInfo} info */
function forgetOthers({ model, variant }) {
  const same = ({ provenance: p }) => p.embeddingSpace === model?.embeddingSpace && p.variant === variant;
  for (const entry of state.entries) if (!entry.kept && entry.latent && !same(entry.latent.image)) entry.latent = undefined;
  if (state.result && !same(state.result.image)) state.result = undefined;
}

/** A latent of this session's device: no new result is of two. @param {Entry} entry @param {import('../pkg/index.js').Session} session */
export const hasLatent = ({ kept, latent }, { info }) => latent !== undefined && (kept !== undefined || latent.image.provenance.backend === info.backend);

/** @param {import('../pkg/index.js').Session} session @param {Entry} entry @param {Call} call */
export const readEntry = (session, { source, reading, metadataJson }, call) =>
  session.readVolume(/** @type {import('../pkg/index.js').VolumeSource} */ (source), { ...reading, ...(metadataJson !== undefined && { metadataJson }), ...call });

/** A session with the present settings. A volume that was open is read again. @param {Call} call */
export async function freshSession(call) {
  if (state.session && !state.stale) return state.session;
  await state.session?.close();
  Object.assign(state, { session: undefined, volume: undefined, stale: true });
  state.session = await open({ ...call, backend: chosenBackend(), allowSoftwareAdapter: $('allow-software').checked });
  if (state.entry) state.volume = await readEntry(state.session, state.entry, call);
  state.stale = false;
  changed('volume', 'result', 'entries', 'model');
  return state.session;
}

/** The session with the chosen model. @param {Call} call */
export async function withModel(call) {
  const session = await freshSession(call);
  const { modelRef } = state;
  if (!session.info.model || state.loadedRef !== modelRef) {
    const onProgress = (progress) => {
      if (progress.phase === 'weights') state.weightsFrom = progress.source;
      call.onProgress(progress);
    };
    const load = (ref) => session.loadModel(ref, { ...call, onProgress });
    const ref = typeof modelRef === 'string' ? new URL(modelRef, document.baseURI) : modelRef;
    await load(ref).catch(async (error) => {
      // Sealed, or without a network: the manifest that is known, and of the weights what the cache holds.
      const { url, status } = error?.detail ?? {};
      if (error?.code !== 'NETWORK' || status !== undefined || url !== String(ref) || !state.manifest) throw error;
      await load(state.manifest).catch((second) => { throw second?.code === 'NETWORK' ? error : second; });
    });
    state.loadedRef = modelRef;
    await seal();
    forgetOthers(session.info);
    changed('result', 'entries', 'model');
  }
  return session;
}

/** The latent of the volume that is shown. @param {Call} call */
export async function encodedVolume(call) {
  const session = await withModel(call);
  const { entry, volume } = state;
  if (!entry || !volume) throw new Error('no volume is open');
  const accepted = [...entry.accepted];
  const key = accepted.join();
  if (!hasLatent(entry, session) || entry.latent?.key !== key) {
    entry.latent = { key, image: await session.encodeVolume(volume, { ...call, accept: accepted }) };
    changed('entries');
  }
  return { session, image: entry.latent.image, accepted };
}

/** Findings that stop encoding unless accepted. */
export const toAccept = () => (state.volume?.findings ?? []).filter(({ code, action }) => action === 'ask' || code === 'E_NOT_HU');

/** What the model is for, loaded or not. */
export const purpose = () => state.session?.info.model?.purpose ?? state.manifest?.purpose ?? 'match';

/** Why the shown volume cannot be encoded now, as a message key. */
export function missingVolume() {
  // Between two sessions there is no open volume; the next work opens it again.
  if (!state.entry) return 'needs_volume';
  if (toAccept().some(({ code }) => !state.entry?.accepted.has(code))) return 'needs_accept';
  return undefined;
}
