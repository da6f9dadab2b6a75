// Which model runs, and where: the one that comes with the page, a converted folder, files of one, or one of this site.

import { MANIFEST, changed, doubtAbout, note, on, onClear, ownFile, run, showError, state, withModel } from './app.js';
import { BUILD } from './build.js';
import { $, element } from './dom.js';
import { number, text } from './i18n.js';
import { MANIFEST_NAME, dropFiles, dropManifest, keepFiles, keepManifest, keptFiles, keptManifest } from './modelfiles.js';
import { settled } from './offline.js';
import { MODEL, keep, recall } from './preferences.js';

/** In place of an address: the files that this browser keeps. */
const FILES = 'files:';

/** Those of the model in use are kept. */
let filesKept = false;
/** The one that was chosen is not there any more: the own one stands in for it. */
let gone = false;

const unused = (message) => Object.assign(new Error(message), { code: 'MANIFEST' });

// As the package reads; the published model's has 30 kB.
const MANIFEST_BYTES = 32 * 2 ** 20;

/** @param {Blob} blob */
async function parsed(blob) {
  if (blob.size > MANIFEST_BYTES) throw unused(`expected a manifest of at most ${MANIFEST_BYTES} bytes, found ${blob.size}`);
  try {
    return JSON.parse(await blob.text());
  } catch {
    throw unused('the manifest is not JSON');
  }
}

/** @typedef {{ manifest: any, ref: import('../pkg/index.js').ModelRef }} Found */

/** For the next visit. @param {Found} found @param {string} address @param {import('./app.js').Call} call */
async function remember({ manifest, ref }, address, call) {
  if (typeof ref === 'object' && 'files' in ref) {
    filesKept = await keepFiles(/** @type {Map<string, File>} */ (ref.files), manifest, state.session?.info.variant ?? '', call);
    changed('model');
    // Not kept, the choice before holds.
    if (!filesKept) return;
    keep(MODEL, FILES);
    await dropManifest();
  } else {
    keep(MODEL, address);
    await dropFiles();
    await (address === MANIFEST ? dropManifest() : keepManifest(address, manifest));
  }
}

/**
 * Loads another model; if that fails, the one before stays chosen.
 * @param {string} address @param {(signal: AbortSignal) => Promise<Found>} find
 */
const use = (address, find) => run('phase_model', async (call) => {
  const { modelRef, manifest } = state;
  try {
    const found = await find(call.signal);
    Object.assign(state, { modelRef: found.ref, manifest: found.manifest });
    await withModel(call);
    gone = false;
    await remember(found, address, call);
  } catch (error) {
    Object.assign(state, { modelRef, manifest });
    changed('model');
    throw error;
  }
  return 'model_loaded';
});

/** The page's own by one name, so that its button goes. @param {string} address */
const refOf = (address) => (address === MANIFEST ? MANIFEST : new URL(address, document.baseURI).href);

/** A folder as `ctmatch convert` writes it, or all its files. @param {readonly File[]} given */
export const useFiles = (given) => use(FILES, async () => {
  const pathOf = (file) => file.webkitRelativePath || file.name;
  const manifestFile = given.find((file) => file.name === MANIFEST_NAME);
  if (!manifestFile) throw unused('expected manifest.json among the files, found none');
  const folder = pathOf(manifestFile).slice(0, -MANIFEST_NAME.length);
  const files = new Map(given.filter((file) => pathOf(file).startsWith(folder)).map((file) => [pathOf(file).slice(folder.length), file]));
  return { manifest: await parsed(manifestFile), ref: { files } };
});

/** @param {string} address of a manifest on this site; the next visit starts with it */
const useAddress = (address) => use(address, async (signal) => {
  const url = new URL(address, document.baseURI);
  // The package refuses it too; nothing is asked of another site before.
  if (url.origin !== location.origin) {
    throw Object.assign(new Error('expected an address of this site'), { code: 'NETWORK_POLICY', detail: { url: url.href } });
  }
  return { manifest: await parsed(await ownFile(url.href, signal)), ref: refOf(address) };
});

/** The variant that runs, or would be tried first. */
function variant() {
  const name = state.session?.info.variant ?? Object.keys(state.manifest?.variants ?? {})[0];
  return { name, files: state.manifest?.variants?.[name] };
}

/** Bytes of the files that a variant needs. */
function modelBytes() {
  const { files } = variant();
  const shards = [...(files?.shards ?? []), files?.prompts, state.manifest?.files?.tokenizer];
  return shards.reduce((sum, shard) => sum + (shard?.bytes ?? 0), 0);
}

/** @param {import('../pkg/index.js').SelfTest | undefined} result */
function selfTestText(result) {
  if (!result) return text('self_test_skipped');
  const small = (value) => number(value, { notation: 'scientific', maximumFractionDigits: 1 });
  const parts = [
    ...(result.codes ? [text('self_test_codes', { same: result.codes[0], total: result.codes[1] })] : []),
    ...['tokens', 'image', 'text'].filter((key) => result[key] !== undefined).map((key) => `${text(`self_test_${key}`)} ${small(result[key])}`),
  ];
  return `${text('self_test_passed')} (${parts.join(', ')})`;
}

on('model', () => {
  const { manifest, session } = state;
  const loaded = session?.info.model;
  const mb = (bytes) => `${number(bytes / 1e6, { maximumFractionDigits: 1 })} MB`;
  const { name, files } = variant();
  /** @type {[string, string][]} */
  const facts = !manifest ? [] : [
    ['model_id', manifest.id], ['model_revision', manifest.revision], ['model_license', manifest.license],
    ['model_purpose', text(`purpose_${manifest.purpose ?? 'match'}`)], ['model_variant', name], ['model_size', mb(modelBytes())],
    ['model_space', manifest.embeddingSpace], ['model_digest', files?.shards?.map(({ sha256 }) => sha256.slice(0, 16)).join(' ') ?? ''],
    ['model_state', loaded ? text(`from_${state.weightsFrom ?? 'file'}`) : text('backend_none')],
    ...(typeof state.modelRef === 'object' && 'files' in state.modelRef ? /** @type {[string, string][]} */ ([['model_next', text(filesKept ? 'files_kept' : 'files_not_kept')]]) : []),
    ...(loaded ? /** @type {[string, string][]} */ ([['model_memory', mb(session?.info.gpuBytes ?? 0)], ['self_test', selfTestText(session?.info.selfTest)]]) : []),
  ];
  $('model-facts').replaceChildren(...facts.filter(([, value]) => value).map(([key, value]) => element('div', {}, element('dt', {}, text(key)), element('dd', {}, value))));
});

on('controls', () => {
  const busy = state.running !== undefined;
  for (const input of document.querySelectorAll('.settings input, #model button, #model-url')) /** @type {HTMLInputElement} */ (input).disabled = busy;
  $('model-own').hidden = state.modelRef === MANIFEST && !gone;

  const { backend, adapter, software, threads, model, variant: name } = state.session?.info ?? {};
  const device = backend === 'webgpu' ? 'WebGPU' : 'CPU';
  const computing = threads && (threads > 1 ? text('threads', { n: threads }) : text('one_thread'));
  const badge = backend ? [device, ...(adapter === device ? [] : [adapter]), ...(software ? [text('software')] : []), name, computing] : [text('backend_none')];
  $('backend-badge').textContent = badge.filter(Boolean).join(' · ');

  const license = model?.license ?? state.manifest?.license;
  for (const place of document.querySelectorAll('.weights')) place.textContent = license ? text('notice_weights', { license }) : '';
  const doubt = doubtAbout(model ?? state.manifest);
  $('untrained').hidden = doubt === undefined;
  if (doubt) $('untrained').querySelector('strong').textContent = text(doubt);
  if (doubt) $('untrained').querySelector('span').textContent = text(`${doubt}_more`);
});

for (const input of document.querySelectorAll('.settings input')) input.addEventListener('change', () => { state.stale = true; });
$('model-folder').addEventListener('click', () => $('model-folder-files').click());
$('model-choose').addEventListener('click', () => $('model-files').click());
for (const id of ['model-folder-files', 'model-files']) {
  $(id).addEventListener('change', () => {
    useFiles([...$(id).files]);
    $(id).value = '';
  });
}
$('model-address').addEventListener('submit', (event) => {
  event.preventDefault();
  useAddress($('model-url').value);
});
$('model-own').addEventListener('click', () => useAddress(MANIFEST));
$('model-load').addEventListener('click', () => run('phase_model', async (call) => {
  await withModel(call);
  return 'model_loaded';
}));
/** The package's, and what the page was built from (A-4). */
const diagnostics = async () =>
  JSON.stringify({ page: BUILD, ...(state.session ? JSON.parse(await state.session.diagnostics()) : { browser: navigator.userAgent }) }, null, 2);

$('diagnostics').addEventListener('click', async () => {
  const shown = $('diagnostics-text');
  try {
    shown.value = await diagnostics();
    // A browser may refuse the clipboard: then the text is there to be copied by hand.
    const copied = await navigator.clipboard?.writeText(shown.value).then(() => true, () => false);
    $('copied').textContent = text(copied ? 'copied' : 'copy_by_hand');
    shown.hidden = Boolean(copied);
    if (!copied) shown.select();
  } catch (error) {
    showError(error);
  }
});
onClear(() => {
  Object.assign($('diagnostics-text'), { value: '', hidden: true });
  $('copied').textContent = '';
});

// Licence, warning and purpose belong on the page before any weight is loaded, and before anything else is seen: they would push it down.
const PATIENCE_MS = 1000;
const show = () => document.body.classList.remove('silent');
setTimeout(show, PATIENCE_MS);
/** @param {string} address @returns {Promise<Found>} */
async function chosen(address) {
  if (address !== FILES) return { manifest: await parsed(await ownFile(address)), ref: refOf(address) };
  const files = await keptFiles();
  if (!files) throw unused('expected the files of the model in this browser, found none');
  return { manifest: await parsed(/** @type {File} */ (files.get(MANIFEST_NAME))), ref: { files } };
}

/** @param {string} address @param {Found} found */
function take(address, { manifest, ref }) {
  // A person was faster.
  if (state.manifest) return;
  Object.assign(state, { manifest, modelRef: ref });
  filesKept = address === FILES;
  if (address !== MANIFEST && address !== FILES) $('model-url').value = address;
  changed('model');
}

/** The model that was chosen before. It gives way to the page's own only where it is gone, and that is said. */
export async function start() {
  const address = recall(MODEL) ?? MANIFEST;
  const own = address === MANIFEST;
  try {
    const found = await chosen(address);
    take(address, found);
    if (!own && address !== FILES) await keepManifest(address, found.manifest);
  } catch (error) {
    if (own) return;
    if (error.code === 'NETWORK' && error.detail.status >= 500) {
      // No answer: sealed, or without a network.
      const manifest = await keptManifest(address);
      take(address, { manifest, ref: refOf(address) });
      if (manifest) return;
      await settled;
      showError(error, () => {
        showError(undefined);
        start();
      });
      return;
    }
    const found = await chosen(MANIFEST).catch(() => undefined);
    if (!found || state.manifest) return;
    gone = true;
    take(MANIFEST, found);
    note('model_gone');
  }
}
onClear(() => {
  gone = false;
  if (state.modelRef !== MANIFEST) Object.assign(state, { manifest: undefined, modelRef: MANIFEST });
});
start().then(show);
