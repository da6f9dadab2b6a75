// The CT volume: opening it, what the file check and the privacy check found, and the views.

import { changed, cures, each, freshSession, on, onClear, readEntry, run, showError, state, toAccept } from './app.js';
import { $, button, download, element } from './dom.js';
import { claimedSize } from './header.js';
import { number, placeText, ruleText, text } from './i18n.js';
import { histogramOf, needsHistogram } from './histogram.js';
import { rowIn } from './sidecar.js';
import { Viewer } from './viewer.js';

/** @typedef {import('../pkg/index.js').VolumeSource} VolumeSource @typedef {import('../pkg/index.js').ReadOptions} ReadOptions */
/** @typedef {import('./app.js').Entry} Entry */

// What a saved copy is called: nothing of the original name.
const CLEAN_NAME = 'volume.nii.gz';
// Identifiers drawn at once; the count is of all.
const IDENTIFIERS_SHOWN = 200;

export const viewer = new Viewer(
  { planes: $('planes'), presets: $('presets'), width: $('window-width'), level: $('window-level'), probe: $('probe'), cross: $('cross'), length: $('ruler-length') },
  (error) => showError(error),
);

// ---- opening

/** @param {Entry} entry @param {import('./app.js').Call} call */
export async function openEntry(entry, call) {
  $('frame-form').hidden = true;
  const session = await freshSession(call);
  const size = await claimedSize(entry.source);
  const onProgress = (progress) => call.onProgress({ ...progress, size });
  let volume;
  try {
    volume = await readEntry(session, entry, { ...call, onProgress });
  } catch (error) {
    refuse(entry, error);
    throw error;
  }
  const before = state.volume;
  const again = state.entry?.source === entry.source ? before : undefined;
  before?.close();
  // What was accepted of the same file stays accepted while it says the same.
  const same = (a, b) => JSON.stringify([a.code, a.action, a.params]) === JSON.stringify([b.code, b.action, b.params]);
  const asked = new Set(volume.findings.map(({ code }) => code));
  const unchanged = new Set(volume.findings.filter((now) => again?.findings.some((then) => same(now, then))).map(({ code }) => code));
  entry.accepted = new Set([...entry.accepted].filter((code) => (again ? unchanged : asked).has(code)));
  entry.dims = volume.dims;
  if (!state.entries.includes(entry)) state.entries.push(entry);
  Object.assign(state, { entry, volume, refused: undefined, revealed: undefined, result: undefined });
  changed('volume', 'result', 'entries');
  await viewer.shown;
}

/** A file's name without what it says: letters and digits are hidden, the ending stays (V-8). @param {VolumeSource | undefined} source */
function maskedName(source) {
  const { name = '' } = /** @type {Partial<File>} */ (source && 'header' in source ? source.header : source ?? {});
  const [ending] = name.match(/\.(nii|nii\.gz|hdr|gz)$/i) ?? [''];
  return name.slice(0, name.length - ending.length).replace(/[\p{L}\p{N}]/gu, '•') + ending;
}

/** @param {VolumeSource | undefined} source @param {string} [name] of the file; never shown @returns {Entry} */
export function newEntry(source, name = '') {
  const used = state.entries.map(({ id }) => Number(id));
  return { id: String(Math.max(0, ...used) + 1), source, name, reading: {}, accepted: new Set() };
}

/** What is said when a volume is open: what its file check found. */
export const opened = () => text('opened', { findings: state.volume?.findings.map(({ code, params }) => text(code, params)).join(' ') || text('findings_none') });

/** The same file with something else known of it; as before when it cannot be read so. @param {Entry} entry @param {Partial<Entry>} change */
const changeEntry = (entry, change) => run('phase_read', (call) => {
  const before = { ...entry };
  Object.assign(entry, change);
  return openEntry(entry, call).then(() => opened, (error) => {
    Object.assign(entry, before);
    throw error;
  });
});

/** With a correction: its latent is no longer right. @param {ReadOptions} change */
function readAgain(change) {
  if (state.entry) changeEntry(state.entry, { reading: { ...state.entry.reading, ...change }, latent: undefined });
}

/** What its cures need. @param {Entry} entry @param {any} error */
function refuse(entry, error) {
  state.refused = entry;
  if (error?.code === 'E_4D') askFrame(entry, error.detail.n);
}

/** @param {Entry} entry @param {number} count */
function askFrame(entry, count) {
  $('frame-form').hidden = false;
  $('frame').max = count;
  $('frame-form').onsubmit = (event) => {
    event.preventDefault();
    run('phase_read', (call) => openEntry({ ...entry, reading: { ...entry.reading, frame: Number($('frame').value) - 1 } }, call).then(() => opened));
  };
}

/** @param {{ readonly name: string }} file */
export const isVolumeFile = ({ name }) => /\.(nii(\.gz)?|hdr|img)$/i.test(name);
const stem = (name) => name.replace(/\.(nii(\.gz)?|hdr|img|gz)$/i, '');

/** Each header with its voxels: those of its name, or the only ones. @param {readonly File[]} files @returns {[VolumeSource, string][]} */
function sourcesIn(files) {
  const ending = (wanted) => files.filter(({ name }) => name.toLowerCase().endsWith(wanted));
  const [headers, images] = [ending('.hdr'), ending('.img')];
  const only = headers.length === 1 && images.length === 1;
  const pairs = headers.flatMap((header) => {
    const image = images.find(({ name }) => only || stem(name) === stem(header.name));
    return image ? [{ header, image }] : [];
  });
  return files.flatMap((file) => {
    const pair = pairs.find(({ header, image }) => file === header || file === image);
    return pair?.image === file ? [] : [[pair ?? file, stem(file.name)]];
  });
}

// dcm2niix writes a few kilobytes.
const METADATA_BYTES = 2 ** 20;

/** Of volumes, by the volume's name. @typedef {Map<string, { file: File, content: string }>} Metadata */

/**
 * What dcm2niix (and others that follow BIDS) wrote beside a volume, under its name: no report, and it may name the patient (P-1).
 * @param {readonly File[]} files @returns {Promise<Metadata>}
 */
export async function metadataAmong(files) {
  const found = new Map();
  for (const file of files.filter(({ name, size }) => /\.json$/i.test(name) && size <= METADATA_BYTES)) {
    const content = await file.text();
    try {
      const value = JSON.parse(content);
      if ('Modality' in value || 'ConversionSoftware' in value) found.set(file.name.slice(0, -'.json'.length), { file, content });
    } catch {
      // no JSON, or no object
    }
  }
  return found;
}

/** For volumes that are open already; those are taken out of `metadata`. @param {Metadata} metadata */
export async function describeVolumes(metadata) {
  for (const entry of state.entries.filter(({ source, name }) => source && metadata.has(name))) {
    const change = { metadataJson: metadata.get(entry.name)?.content };
    metadata.delete(entry.name);
    if (entry === state.entry) await changeEntry(entry, change);
    else Object.assign(entry, change);
  }
}

/**
 * One volume, or several one after the other; the last one that can be read stays open.
 * @param {readonly File[]} files @param {Metadata} metadata those of these files are taken out of it
 */
export function openVolumes(files, metadata) {
  const sources = sourcesIn(files);
  if (sources.length === 0) return undefined;
  return run('phase_read', async (call) => {
    /** @type {(() => void) | undefined} */
    let offer;
    const refused = await each(sources, async ([source, name]) => {
      const entry = Object.assign(newEntry(source, name), { metadataJson: metadata.get(name)?.content });
      metadata.delete(name);
      await openEntry(entry, call).catch((error) => {
        offer = () => refuse(entry, error);
        throw error;
      });
    });
    // The files after it took its cures away.
    offer?.();
    return refused.length < sources.length ? opened : undefined;
  });
}

cures({
  load_sidecar() {
    lacking = state.refused;
    $('sidecar').click();
  },
  assume_lps() {
    const { refused } = state;
    if (refused) run('phase_read', (call) => openEntry({ ...refused, reading: { ...refused.reading, orientation: 'assume-lps' } }, call).then(() => opened));
  },
});

// ---- what is shown

on('volume', () => {
  const { volume, entry } = state;
  $('volume').hidden = !volume;
  $('drop').classList.toggle('compact', volume !== undefined);
  if (!volume) return;
  const triple = (values) => values.map((v) => number(v, { maximumFractionDigits: 3 })).join(' × ');
  const facts = [
    ['volume_n', entry?.id ?? ''], ['file', maskedName(entry?.source)], ['dims', triple(volume.dims)], ['spacing', `${triple(volume.spacingMm)} mm`],
    ['orientation', volume.orientationKnown ? volume.orientation : `${volume.orientation} (${text('assumed')})`],
    ['datatype', volume.datatype], ['hu_range', volume.huRange.map((v) => number(v)).join(' … ')],
  ];
  $('strip').replaceChildren(...facts.filter(([, value]) => value).map(([key, value]) => element('div', {}, element('dt', {}, text(key)), element('dd', {}, value))));

  const items = volume.findings.map((finding) => {
    const item = element('li', {}, element('code', {}, finding.code), element('span', {}, text(finding.code, finding.params)),
      element('span', { className: 'quiet' }, text(`action_${finding.action}`)));
    if (toAccept().includes(finding)) {
      const box = element('input', { type: 'checkbox', checked: entry?.accepted.has(finding.code), 'data-accept': finding.code });
      box.addEventListener('change', () => {
        if (box.checked) entry?.accepted.add(finding.code);
        else entry?.accepted.delete(finding.code);
        changed();
        renderOrientation();
      });
      item.append(...corrections(finding), element('label', {}, box, ` ${text(finding.code === 'W_NOXFORM' ? 'accept_W_NOXFORM' : 'accept')}`));
    }
    return item;
  });
  $('findings').replaceChildren(...(items.length > 0 ? items : [element('li', {}, text('findings_none'))]));

  const { scaling, orientation, sidecar, referenceExact } = entry?.reading ?? {};
  const made = [
    ...(typeof scaling === 'object' ? [text('corrected_scaling', { ...scaling })] : scaling === 'already-hu' ? [text('already_hu')] : []),
    ...(sidecar ? [text('corrected_spacing', { mm: [sidecar.xySpacing[0], sidecar.xySpacing.at(-1), sidecar.zSpacing].join(' × ') })] : []),
    ...(orientation ? [text(orientation === 'assume-lps' ? 'assume_lps' : 'other_form')] : []),
    ...(referenceExact ? [text('reference_exact')] : []),
  ];
  $('corrected').hidden = made.length === 0;
  $('corrected-text').textContent = `${text('corrected')} ${made.join('; ')}`;
  $('reference-exact').checked = referenceExact ?? false;
  renderIdentifiers();
  renderOrientation();
  renderHistogram();
  if (viewer.volume !== volume) viewer.show(volume, looked === entry?.source && viewer.volume?.dims.join() === volume.dims.join());
  looked = entry?.source;
});

/** The file that the planes were shown of last: read again, they stay where they are. @type {VolumeSource | undefined} */
let looked;

on('controls', () => {
  const busy = state.running !== undefined;
  for (const id of ['choose-file', 'save-clean', 'uncorrect', 'reference-exact', 'load-table']) $(id).disabled = busy;
  for (const made of document.querySelectorAll('[data-correct]')) /** @type {HTMLButtonElement} */ (made).disabled = busy;
});

/** Letters wait for the user's word when the file does not give them, and are marked as assumed after (N-14). */
function renderOrientation() {
  const { volume, entry } = state;
  if (!volume) return;
  // In stored order the file's own orientation, which may be another, is not followed: nobody can accept that.
  const stored = entry?.reading.referenceExact;
  viewer.lettersHidden = !volume.orientationKnown && (stored || toAccept().some(({ code }) => code === 'W_NOXFORM' && !entry?.accepted.has(code)));
  viewer.inHu = !volume.findings.some(({ code }) => ['E_NOT_HU', 'W_HU_RAW', 'W_HU_OFFSET', 'W_MASK'].includes(code));
  $('orientation-banner').hidden = volume.orientationKnown;
  $('orientation-banner').textContent = text(stored ? 'orientation_stored' : viewer.lettersHidden ? 'orientation_unknown' : 'orientation_assumed');
  viewer.relabel();
}

/** Of the volume that it was drawn for. @type {import('../pkg/index.js').Volume | undefined} */
let drawn;

/** The values beside the question whether they are HU (NIFTI_AND_PRIVACY.md 6). */
async function renderHistogram() {
  const { volume } = state;
  const wanted = volume !== undefined && needsHistogram(volume);
  if (!wanted || drawn !== volume) $('histogram').replaceChildren();
  $('histogram').hidden = !wanted;
  drawn = volume;
  if (!wanted) return;
  try {
    const children = await histogramOf(volume);
    if (state.volume === volume) $('histogram').replaceChildren(...children);
  } catch (error) {
    // A volume closed for its successor: the successor draws its own.
    if (error?.code !== 'CLOSED') showError(error);
  }
}

/** What can be done about a finding other than accepting it. @param {import('../pkg/index.js').Finding} finding */
function corrections({ code }) {
  const { scaling, sidecar } = state.entry?.reading ?? {};
  const given = typeof scaling === 'object' ? scaling : { slope: 1, intercept: 0 };
  // The table says something else than the header. On values that the header has scaled it would be applied a second time (CT-CLIP #28).
  const unscaled = (state.volume?.headerScaling ?? [1, 0]).join() === '1,0';
  const table = sidecar && { slope: sidecar.rescaleSlope, intercept: sidecar.rescaleIntercept };
  const correct = (key, change) => button(text(key), () => readAgain(change), { 'data-correct': key });
  const assumeLps = () => correct('assume_lps', { orientation: 'assume-lps' });
  switch (code) {
    // On top of a scaling that was given before.
    case 'W_HU_OFFSET': return [correct('subtract_1024', { scaling: { ...given, intercept: given.intercept - 1024 } }), sidecarButton()];
    case 'W_HU_RAW': return table ? [correct('already_hu', { scaling: 'already-hu' }), ...(unscaled ? [correct('apply_table', { scaling: table })] : [])]
      : [scalingForm(given), sidecarButton()];
    case 'W_SPACING': return state.entry?.reading.sidecar ? [] : [sidecarButton()];
    case 'W_DISAGREE': return [correct('other_form', { orientation: 'other-form' }), assumeLps()];
    case 'E_XFORM': return [assumeLps()];
    case 'W_SHEAR': return [element('span', { className: 'quiet' }, text('help_W_SHEAR'))];
    default: return [];
  }
}

/** The file that a metadata table is loaded for: the volume that is shown, or one that was refused. @type {Entry | undefined} */
let lacking;

function chooseTable() {
  lacking = state.entry;
  $('sidecar').click();
}
const sidecarButton = () => button(text('load_sidecar'), chooseTable, { 'data-correct': 'load_sidecar' });

/** Slope and intercept only where it is asked whether the values are HU: never on top of those of the header. @param {string} content */
async function useTable(content) {
  const entry = lacking ?? state.entry;
  if (!entry) return undefined;
  const { scaling, sidecar } = rowIn(content, entry.name);
  if (entry !== state.entry) return run('phase_read', (call) => openEntry({ ...entry, reading: { ...entry.reading, sidecar } }, call).then(() => opened));
  const unitAsked = !entry.reading.sidecar && state.volume?.findings.some(({ code }) => ['W_HU_OFFSET', 'W_HU_RAW'].includes(code));
  if (!unitAsked && !sidecar) throw Object.assign(new Error('expected the columns XYSpacing and ZSpacing'), { code: 'SIDECAR' });
  return readAgain({ ...(unitAsked && { scaling }), ...(sidecar && { sidecar }) });
}

/** @param {{ slope: number, intercept: number }} given */
function scalingForm(given) {
  const fields = Object.entries(given).map(([name, value]) =>
    element('input', { type: 'number', step: 'any', required: true, name, value: String(value) }));
  const form = element('form', {}, ...fields.map((input) => element('label', {}, `${text(input.name)} `, input)),
    element('button', { 'data-correct': 'apply_scaling' }, text('apply_scaling')));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    readAgain({ scaling: /** @type {any} */ (Object.fromEntries(fields.map((input) => [input.name, Number(input.value)]))) });
  });
  return form;
}

// ---- privacy

function renderIdentifiers() {
  const { volume, revealed } = state;
  if (!volume) return;
  const { identifiers } = volume;
  $('privacy-summary').textContent = text(identifiers.length === 0 ? 'privacy_none' : 'privacy_some', { n: identifiers.length });
  const items = identifiers.slice(0, IDENTIFIERS_SHOWN).map(({ rule, place, masked }, i) => element('li', {},
    element('span', {}, placeText(place)), element('span', { className: 'quiet' }, ruleText(rule)), element('code', {}, revealed?.[i] ?? masked)));
  if (identifiers.length > IDENTIFIERS_SHOWN) items.push(element('li', { className: 'quiet' }, text('first_shown', { n: IDENTIFIERS_SHOWN })));
  $('identifiers').replaceChildren(...items);
  $('identifiers').hidden = items.length === 0;
  $('reveal').hidden = items.length === 0;
  $('reveal').textContent = text(revealed ? 'conceal' : 'reveal');
  $('reveal').setAttribute('aria-expanded', String(revealed !== undefined));
}

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

const saveClean = () => run('phase_clean', async ({ signal, onProgress }) => {
  const copy = await state.volume?.cleanCopy({ signal, onProgress: (progress) => onProgress(/** @type {any} */ ({ ...progress, phase: 'clean' })) });
  if (!copy) return undefined;
  download(copy, CLEAN_NAME);
  return () => text('clean_saved', { name: CLEAN_NAME });
});

onClear(() => {
  viewer.clear();
  lacking = undefined;
  Object.assign($('frame-form'), { hidden: true, onsubmit: null });
});

$('choose-file').addEventListener('click', () => $('file').click());
$('file').addEventListener('change', async () => {
  const files = [...$('file').files];
  $('file').value = '';
  const metadata = await metadataAmong(files);
  const described = [...metadata.values()].map(({ file }) => file);
  openVolumes(files.filter((file) => !described.includes(file)), metadata);
});
$('uncorrect').addEventListener('click', () => readAgain({ scaling: undefined, sidecar: undefined, orientation: undefined, referenceExact: undefined }));
$('load-table').addEventListener('click', chooseTable);
$('reference-exact').addEventListener('change', () => readAgain({ referenceExact: $('reference-exact').checked || undefined }));
$('sidecar').addEventListener('change', async () => {
  const [file] = $('sidecar').files;
  $('sidecar').value = '';
  try {
    await useTable(await file.text());
  } catch (error) {
    showError(error);
  }
});
$('reveal').addEventListener('click', reveal);
$('save-clean').addEventListener('click', saveClean);
