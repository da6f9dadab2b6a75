// The wiring: one session, one volume, one list of reports. It changes what is shown and decides nothing about numbers.

import { open } from './ctmatch/index.js';
import { currentLanguage, errorText, languageTag, number, placeText, ruleText, setLanguage, text } from './i18n.js';
import { seal, start as showNetwork } from './offline.js';
import { Candidates, record, renderRanking } from './ranking.js';
import { Viewer } from './viewer.js';

/** @typedef {string | (() => string)} State a message key, or a line made again when the language changes */

const MANIFEST = './model/manifest.json';
// What a saved copy is called: nothing of the original name.
const CLEAN_NAME = 'volume.nii.gz';
// Identifiers drawn at once; the count is of all.
const IDENTIFIERS_SHOWN = 200;

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

const candidates = new Candidates();
const viewer = new Viewer(
  { planes: $('planes'), presets: $('presets'), width: $('window-width'), level: $('window-level'), probe: $('probe') },
  (error) => showError(error),
);

const state = {
  /** @type {import('../pkg/index.js').Session | undefined} */
  session: undefined,
  /** the settings were changed after `session` was opened */
  stale: true,
  /** kept so that a new session can read it again @type {import('../pkg/index.js').VolumeSource | undefined} */
  source: undefined,
  /** read options of `source`, corrections included @type {import('../pkg/index.js').ReadOptions} */
  reading: {},
  /** a source that could not be read, for the cures of its error @type {{ source: import('../pkg/index.js').VolumeSource, reading: import('../pkg/index.js').ReadOptions } | undefined} */
  refused: undefined,
  /** @type {import('../pkg/index.js').Volume | undefined} */
  volume: undefined,
  /** @type {Set<string>} */
  accepted: new Set(),
  /** the texts of the volume's identifiers, while the user looks at them @type {string[] | undefined} */
  revealed: undefined,
  /** @type {{ key: string, image: import('../pkg/index.js').ImageLatent } | undefined} */
  latent: undefined,
  /** @type {any} */
  result: undefined,
  /** from the manifest, before any weight is loaded */
  model: { license: undefined, untrained: false, purpose: 'match' },
  /** @type {AbortController | undefined} */
  running: undefined,
  /** @type {unknown} */
  error: undefined,
  /** @type {State} */
  status: '',
};

// ---- what is shown

/** Findings that stop encoding unless accepted. */
const toAccept = () => (state.volume?.findings ?? []).filter(({ code, action }) => action === 'ask' || code === 'E_NOT_HU');

function missing() {
  // Ranking needs both towers.
  if (state.model.purpose !== 'match') return `only_${state.model.purpose}`;
  if (!state.volume) return 'needs_volume';
  if (candidates.rows.length === 0) return 'needs_reports';
  if (toAccept().some(({ code }) => !state.accepted.has(code))) return 'needs_accept';
  return undefined;
}

function renderControls() {
  const busy = state.running !== undefined;
  const why = missing();
  $('rank').disabled = busy || why !== undefined;
  $('hint').textContent = busy ? '' : text(why ?? 'ready');
  $('cancel').hidden = !busy;
  $('progress').hidden = !busy;
  for (const id of ['use-sample', 'choose-file', 'add-pasted', 'choose-reports', 'save-clean', 'uncorrect']) $(id).disabled = busy;
  for (const button of document.querySelectorAll('[data-correct]')) /** @type {HTMLButtonElement} */ (button).disabled = busy;
  for (const input of document.querySelectorAll('.settings input')) /** @type {HTMLInputElement} */ (input).disabled = busy;

  const { backend, adapter, software, model } = state.session?.info ?? {};
  const badge = backend
    ? [backend === 'webgpu' ? 'WebGPU' : 'CPU', adapter, ...(software ? [text('software')] : []), state.session?.info.variant]
    : [text('backend_none')];
  $('backend-badge').textContent = badge.filter(Boolean).join(' · ');

  const license = model?.license ?? state.model.license;
  $('notice-weights').textContent = license ? text('notice_weights', { license }) : '';
  $('untrained').hidden = !(model?.untrained ?? state.model.untrained);
}

function renderVolume() {
  const { volume } = state;
  $('volume').hidden = !volume;
  if (!volume) return;
  const triple = (values) => values.map((v) => number(v, { maximumFractionDigits: 3 })).join(' × ');
  const facts = [
    ['dims', triple(volume.dims)], ['spacing', `${triple(volume.spacingMm)} mm`],
    ['orientation', volume.orientationKnown ? volume.orientation : `${volume.orientation} (${text('assumed')})`],
    ['datatype', volume.datatype], ['hu_range', volume.huRange.map((v) => number(v)).join(' … ')],
  ];
  $('strip').replaceChildren(...facts.map(([key, value]) => {
    const pair = document.createElement('div');
    pair.append(
      Object.assign(document.createElement('dt'), { textContent: text(key) }),
      Object.assign(document.createElement('dd'), { textContent: value }),
    );
    return pair;
  }));

  const items = volume.findings.map((finding) => {
    const item = document.createElement('li');
    item.append(
      Object.assign(document.createElement('code'), { textContent: finding.code }),
      Object.assign(document.createElement('span'), { textContent: text(finding.code, finding.params) }),
      Object.assign(document.createElement('span'), { className: 'quiet', textContent: text(`action_${finding.action}`) }),
    );
    if (toAccept().includes(finding)) {
      const label = document.createElement('label');
      const box = Object.assign(document.createElement('input'), { type: 'checkbox', checked: state.accepted.has(finding.code) });
      box.dataset.accept = finding.code;
      box.addEventListener('change', () => {
        if (box.checked) state.accepted.add(finding.code);
        else state.accepted.delete(finding.code);
        renderControls();
        renderOrientation();
      });
      label.append(box, ` ${text(finding.code === 'W_NOXFORM' ? 'accept_W_NOXFORM' : 'accept')}`);
      item.append(...corrections(finding), label);
    }
    return item;
  });
  if (items.length === 0) items.push(Object.assign(document.createElement('li'), { textContent: text('findings_none') }));
  $('findings').replaceChildren(...items);

  const { scaling, orientation } = state.reading;
  const made = [
    ...(typeof scaling === 'object' ? [text('corrected_scaling', scaling)] : []),
    ...(orientation ? [text(orientation === 'assume-lps' ? 'assume_lps' : 'other_form')] : []),
  ];
  $('corrected').hidden = made.length === 0;
  $('corrected-text').textContent = `${text('corrected')} ${made.join('; ')}`;
  renderIdentifiers();
  renderOrientation();
}

/** Letters wait for the user's word when the file does not give them, and are marked as assumed after (N-14). */
function renderOrientation() {
  const { volume } = state;
  if (!volume) return;
  viewer.lettersHidden = !volume.orientationKnown && toAccept().some(({ code }) => code === 'W_NOXFORM' && !state.accepted.has(code));
  viewer.inHu = !volume.findings.some(({ code }) => ['E_NOT_HU', 'W_HU_RAW', 'W_HU_OFFSET', 'W_MASK'].includes(code));
  $('orientation-banner').hidden = volume.orientationKnown;
  $('orientation-banner').textContent = text(viewer.lettersHidden ? 'orientation_unknown' : 'orientation_assumed');
  viewer.relabel();
}

/** What can be done about a finding other than accepting it. @param {import('../pkg/index.js').Finding} finding */
function corrections({ code }) {
  const given = typeof state.reading.scaling === 'object' ? state.reading.scaling : { slope: 1, intercept: 0 };
  const button = (key, change) => {
    const made = Object.assign(document.createElement('button'), { type: 'button', textContent: text(key) });
    made.dataset.correct = key;
    made.addEventListener('click', () => readAgain(change));
    return made;
  };
  const assumeLps = () => button('assume_lps', { orientation: 'assume-lps' });
  switch (code) {
    // On top of a scaling that was given before.
    case 'W_HU_OFFSET': return [button('subtract_1024', { scaling: { ...given, intercept: given.intercept - 1024 } })];
    case 'W_HU_RAW': return [scalingForm(given)];
    case 'W_DISAGREE': return [button('other_form', { orientation: 'other-form' }), assumeLps()];
    case 'E_XFORM': return [assumeLps()];
    default: return [];
  }
}

/** @param {{ slope: number, intercept: number }} given */
function scalingForm(given) {
  const form = document.createElement('form');
  const fields = Object.entries(given).map(([name, value]) => {
    const input = Object.assign(document.createElement('input'), { type: 'number', step: 'any', required: true, name, value: String(value) });
    const label = document.createElement('label');
    label.append(`${text(name)} `, input);
    form.append(label);
    return [name, input];
  });
  const apply = Object.assign(document.createElement('button'), { textContent: text('apply_scaling') });
  apply.dataset.correct = 'apply_scaling';
  form.append(apply);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    readAgain({ scaling: Object.fromEntries(fields.map(([name, input]) => [name, Number(input.value)])) });
  });
  return form;
}

function renderIdentifiers() {
  const { volume, revealed } = state;
  if (!volume) return;
  const { identifiers } = volume;
  $('privacy-summary').textContent = text(identifiers.length === 0 ? 'privacy_none' : 'privacy_some', { n: identifiers.length });
  const items = identifiers.slice(0, IDENTIFIERS_SHOWN).map(({ rule, place, masked }, i) => {
    const item = document.createElement('li');
    item.append(
      Object.assign(document.createElement('span'), { textContent: placeText(place) }),
      Object.assign(document.createElement('span'), { className: 'quiet', textContent: ruleText(rule) }),
      Object.assign(document.createElement('code'), { textContent: revealed?.[i] ?? masked }),
    );
    return item;
  });
  if (identifiers.length > IDENTIFIERS_SHOWN) {
    items.push(Object.assign(document.createElement('li'), { className: 'quiet', textContent: text('first_shown', { n: IDENTIFIERS_SHOWN }) }));
  }
  $('identifiers').replaceChildren(...items);
  $('identifiers').hidden = items.length === 0;
  $('reveal').hidden = items.length === 0;
  $('reveal').textContent = text(revealed ? 'conceal' : 'reveal');
  $('reveal').setAttribute('aria-expanded', String(revealed !== undefined));
}

function renderCandidates() {
  candidates.render({ list: $('reports'), notes: $('report-notes'), hints: $('hints-notes') }, (id) => {
    candidates.remove(id);
    renderCandidates();
    renderControls();
  });
}

function renderResult() {
  $('result').hidden = !state.result;
  if (!state.result) return;
  const { ranking, rows, timingsMs } = state.result;
  renderRanking({ head: $('result-head'), rows: $('result-rows'), notes: $('result-notes') }, ranking, rows, timingsMs);
}

function renderStatus() {
  $('progress-text').textContent = typeof state.status === 'function' ? state.status() : state.status && text(state.status);
}

/** What a person can do about an error, by code. */
const CURES = {
  NO_WEBGPU: ['use_cpu'], SOFTWARE_ADAPTER: ['use_software', 'use_cpu'], LIMITS: ['use_cpu'], GPU_OOM: ['use_cpu'],
  E_XFORM: ['assume_lps'], DEVICE_LOST: ['restore'], WASM_ABORT: ['reopen'], WORKER_BLOCKED: ['reopen'], CLOSED: ['reopen'],
};
const ACTIONS = {
  use_cpu() {
    document.querySelector('input[name="backend"][value="cpu"]').checked = true;
    state.stale = true;
    rank();
  },
  use_software() {
    $('allow-software').checked = true;
    state.stale = true;
    rank();
  },
  restore: () => rank(),
  assume_lps() {
    const { refused } = state;
    if (refused) run('phase_read', (call) => openVolume(refused.source, { ...refused.reading, orientation: 'assume-lps' }, call));
  },
  reopen() {
    state.stale = true;
    run('phase_wasm', async (call) => { await freshSession(call); });
  },
};

function renderError() {
  const { error } = state;
  $('error').hidden = !error;
  if (!error) return;
  $('error-text').textContent = errorText(error);
  $('error-code').textContent = error.code ?? error.name;
  // The exact message helps in a bug report; codes of files explain themselves.
  $('error-more').textContent = /^E_/.test(error.code ?? '') ? '' : error.message;
  $('error-actions').replaceChildren(...(CURES[error.code] ?? []).map((key) => {
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: text(key) });
    button.dataset.cure = key;
    button.addEventListener('click', ACTIONS[key]);
    return button;
  }));
}

/** @param {unknown} error */
function showError(error) {
  state.error = error;
  renderError();
}

function renderAll() {
  for (const language of ['en', 'zh']) $(`lang-${language}`).setAttribute('aria-pressed', String(currentLanguage() === language));
  renderControls();
  renderVolume();
  renderCandidates();
  renderResult();
  renderStatus();
  renderError();
}

// ---- what is done

let lastShown = 0;

/** @param {import('../pkg/index.js').Progress} progress */
function onProgress(progress) {
  const now = performance.now();
  const amount = 'done' in progress ? [progress.done, progress.total]
    : 'fraction' in progress ? [progress.fraction, 1] : [progress.loadedBytes, progress.totalBytes];
  const bar = $('progress-bar');
  if (amount[1]) bar.value = amount[0] / amount[1];
  else bar.removeAttribute('value');
  // A screen reader should not be flooded.
  if (now - lastShown < 250 && amount[0] !== amount[1]) return;
  lastShown = now;
  state.status = () => {
    const mb = (bytes) => number(bytes / 1e6, { maximumFractionDigits: 1 });
    const line = [text(`phase_${progress.phase}`)];
    if ('done' in progress) line.push(text('amount_steps', { done: progress.done, total: progress.total }));
    else if ('totalBytes' in progress && progress.totalBytes) {
      line.push(text('amount_bytes', { done: mb(progress.loadedBytes), total: mb(progress.totalBytes) }));
    }
    return line.join(': ');
  };
  renderStatus();
}

/**
 * One piece of work at a time, with progress, cancel and errors.
 * @param {string} phase shown until the first progress
 * @param {(call: { signal: AbortSignal, onProgress: typeof onProgress }) => Promise<State | void>} work returns the last line
 */
async function run(phase, work) {
  if (state.running) return;
  const controller = new AbortController();
  state.running = controller;
  state.error = undefined;
  state.status = phase;
  $('progress-bar').removeAttribute('value');
  renderError();
  renderStatus();
  renderControls();
  try {
    state.status = (await work({ signal: controller.signal, onProgress })) ?? '';
  } catch (error) {
    if (controller.signal.aborted) state.status = 'cancelled';
    else {
      state.status = '';
      showError(error);
    }
  }
  state.running = undefined;
  renderStatus();
  renderControls();
}

/** A session with the present settings; a volume that was open is read again. */
async function freshSession(call) {
  if (state.session && !state.stale) return state.session;
  await state.session?.close();
  Object.assign(state, { session: undefined, latent: undefined, stale: true });
  const backend = document.querySelector('input[name="backend"]:checked').value;
  state.session = await open({ ...call, backend, allowSoftwareAdapter: $('allow-software').checked });
  if (state.source) {
    state.volume = await state.session.readVolume(state.source, { ...state.reading, ...call });
    await viewer.show(state.volume, true);
  }
  state.stale = false;
  return state.session;
}

/**
 * @param {import('../pkg/index.js').VolumeSource} source
 * @param {object} reading
 * @param {{ signal: AbortSignal }} call
 */
async function openVolume(source, reading, call) {
  $('frame-form').hidden = true;
  const session = await freshSession(call);
  let volume;
  try {
    volume = await session.readVolume(source, { ...reading, ...call });
  } catch (error) {
    state.refused = { source, reading };
    if (error?.code === 'E_4D') askFrame(source, reading, error.detail.n);
    throw error;
  }
  const before = state.source === source ? state.volume : undefined;
  state.volume?.close();
  Object.assign(state, { source, reading, volume, refused: undefined, revealed: undefined, latent: undefined, result: undefined });
  // What was accepted of the same file stays accepted while it says the same.
  const same = (a, b) => JSON.stringify([a.code, a.action, a.params]) === JSON.stringify([b.code, b.action, b.params]);
  const kept = volume.findings.filter((now) => before?.findings.some((then) => same(now, then))).map(({ code }) => code);
  state.accepted = new Set(kept.filter((code) => state.accepted.has(code)));
  renderVolume();
  renderResult();
  await viewer.show(volume, before?.dims.join() === volume.dims.join());
}

/** The same file with a correction. @param {import('../pkg/index.js').ReadOptions} change */
const readAgain = (change) => run('phase_read', (call) => {
  if (!state.source) throw new Error('no volume is open');
  return openVolume(state.source, { ...state.reading, ...change }, call);
});

/**
 * @param {import('../pkg/index.js').VolumeSource} source
 * @param {import('../pkg/index.js').ReadOptions} reading
 * @param {number} count
 */
function askFrame(source, reading, count) {
  $('frame-form').hidden = false;
  $('frame').max = count;
  $('frame-form').onsubmit = (event) => {
    event.preventDefault();
    run('phase_read', (call) => openVolume(source, { ...reading, frame: Number($('frame').value) - 1 }, call));
  };
}

/** @param {readonly File[]} files */
function openFiles(files) {
  const named = (ending) => files.find((file) => file.name.toLowerCase().endsWith(ending));
  const [header, image] = [named('.hdr'), named('.img')];
  const source = header && image ? { header, image } : files[0];
  if (source) run('phase_read', (call) => openVolume(source, {}, call));
}

/**
 * @param {Blob | string} source
 * @param {import('../pkg/index.js').ReportFormat} format
 */
async function addReports(source, format, call) {
  const session = await freshSession(call);
  candidates.add(await session.parseReports(source, { format, signal: call.signal }));
  const fresh = candidates.rows.filter((row) => !row.hints);
  const hints = await session.textHints(fresh.map((row) => row.text));
  for (const [i, row] of fresh.entries()) row.hints = hints[i];
  state.result = undefined;
  renderCandidates();
  renderResult();
}

/** @param {string} path @param {AbortSignal} signal */
async function ownFile(path, signal) {
  const response = await fetch(path, { signal }).catch(() => new Response(null, { status: 503 }));
  signal.throwIfAborted();
  if (response.ok) return response.blob();
  throw Object.assign(new Error(`${path} answered ${response.status}`), { code: 'NETWORK', detail: { url: path, status: response.status } });
}

const useSample = () => run('phase_read', async (call) => {
  const [volume, reports] = await Promise.all(['./sample/chest.nii.gz', './sample/reports.json'].map((path) => ownFile(path, call.signal)));
  await openVolume(volume, {}, call);
  candidates.clear();
  await addReports(reports, 'json', call);
});

const rank = () => run('phase_model', async (call) => {
  const started = performance.now();
  const session = await freshSession(call);
  if (!session.info.model) {
    await session.loadModel(new URL(MANIFEST, document.baseURI), call);
    await seal();
    state.latent = undefined;
    renderControls();
  }
  const accepted = [...state.accepted];
  const key = accepted.join();
  if (state.latent?.key !== key) state.latent = { key, image: await session.encodeVolume(state.volume, { ...call, accept: accepted }) };
  const { image } = state.latent;
  const rows = [...candidates.rows];
  const set = await session.encodeReports(rows, call);
  for (const [i, { tokens, truncated }] of set.rows.entries()) Object.assign(rows[i], { tokens, truncated });
  const ranking = await session.rank(image, set, { signal: call.signal });
  state.result = { ranking, rows, set, timingsMs: image.timingsMs, accepted, volume: state.volume, info: session.info };
  const seconds = (performance.now() - started) / 1000;
  renderCandidates();
  renderResult();
  $('result').scrollIntoView({ block: 'nearest' });
  return () => text('done', { s: number(seconds, { maximumFractionDigits: 1 }) });
});

/** @param {Blob} blob @param {string} name */
function download(blob, name) {
  const link = Object.assign(document.createElement('a'), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function save() {
  download(new Blob([JSON.stringify(record(state.result), null, 2)], { type: 'application/json' }), 'ctmatch-result.json');
}

const saveClean = () => run('phase_clean', async ({ signal, onProgress: shown }) => {
  const copy = await state.volume?.cleanCopy({ signal, onProgress: (progress) => shown(/** @type {any} */ ({ ...progress, phase: 'clean' })) });
  if (!copy) return;
  download(copy, CLEAN_NAME);
  return () => text('clean_saved', { name: CLEAN_NAME });
});

async function reveal() {
  const { volume } = state;
  try {
    const texts = state.revealed ? undefined : await volume?.revealIdentifiers();
    if (volume !== state.volume) return;
    state.revealed = texts;
    renderIdentifiers();
  } catch (error) {
    showError(error);
  }
}

// ---- events

$('lang-en').addEventListener('click', () => { setLanguage('en'); renderAll(); });
$('lang-zh').addEventListener('click', () => { setLanguage('zh'); renderAll(); });
$('use-sample').addEventListener('click', useSample);
$('choose-file').addEventListener('click', () => $('file').click());
$('file').addEventListener('change', () => {
  openFiles([...$('file').files]);
  $('file').value = '';
});
$('choose-reports').addEventListener('click', () => $('reports-file').click());
$('reports-file').addEventListener('change', () => {
  const [file] = $('reports-file').files;
  const format = ['json', 'jsonl', 'csv', 'tsv', 'txt'].find((ending) => file.name.toLowerCase().endsWith(`.${ending}`)) ?? 'auto';
  run('phase_read', (call) => addReports(file, format, call));
  $('reports-file').value = '';
});
$('add-pasted').addEventListener('click', () => run('phase_read', async (call) => {
  await addReports($('paste').value, 'txt', call);
  $('paste').value = '';
}));
$('clear-reports').addEventListener('click', () => {
  candidates.clear();
  renderCandidates();
  renderControls();
});
$('uncorrect').addEventListener('click', () => readAgain({ scaling: undefined, orientation: undefined }));
$('reveal').addEventListener('click', reveal);
$('save-clean').addEventListener('click', saveClean);
$('rank').addEventListener('click', rank);
$('cancel').addEventListener('click', () => state.running?.abort(new DOMException('cancelled', 'AbortError')));
$('export').addEventListener('click', save);
$('diagnostics').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(state.session ? await state.session.diagnostics() : navigator.userAgent);
    $('copied').textContent = text('copied');
  } catch (error) {
    showError(error);
  }
});
for (const input of document.querySelectorAll('.settings input')) input.addEventListener('change', () => { state.stale = true; });

const drop = $('drop');
for (const type of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  // Anywhere on the page: a file dropped beside the zone must not replace the page.
  window.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.toggle('over', type === 'dragenter' || type === 'dragover');
  });
}
window.addEventListener('drop', (event) => openFiles([...(event.dataTransfer?.files ?? [])]));

showNetwork(() => state.session?.info.urls ?? []);
setLanguage(currentLanguage());
document.documentElement.lang = languageTag();
renderAll();

// The licence and the warning belong on the page before any weight is loaded.
fetch(MANIFEST).then((response) => (response.ok ? response.json() : undefined)).then((manifest) => {
  if (manifest) state.model = { license: manifest.license, untrained: manifest.untrained === true, purpose: manifest.purpose ?? 'match' };
  renderControls();
}, () => {});
run('phase_wasm', async (call) => { await freshSession(call); });
