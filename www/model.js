// Which model runs, and where: the one that comes with the page, a converted folder, files of one, or one of this site.

import { MANIFEST, changed, doubtAbout, on, onClear, ownFile, run, showError, state, withModel } from './app.js';
import { BUILD } from './build.js';
import { $, element } from './dom.js';
import { number, text } from './i18n.js';
import { MODEL, keep, recall } from './preferences.js';

export const MANIFEST_NAME = 'manifest.json';

const unused = (message) => Object.assign(new Error(message), { code: 'MANIFEST' });

/** @param {Blob} blob */
async function parsed(blob) {
  try {
    return JSON.parse(await blob.text());
  } catch {
    throw unused('the manifest is not JSON');
  }
}

/**
 * Loads another model; if that fails, the one before stays chosen.
 * @param {(signal: AbortSignal) => Promise<{ manifest: any, ref: import('../pkg/index.js').ModelRef, address?: string }>} find
 */
const use = (find) => run('phase_model', async (call) => {
  const { modelRef, manifest } = state;
  try {
    const found = await find(call.signal);
    Object.assign(state, { modelRef: found.ref, manifest: found.manifest });
    await withModel(call);
    if (found.address) keep(MODEL, found.address);
  } catch (error) {
    Object.assign(state, { modelRef, manifest });
    changed('model');
    throw error;
  }
  return 'model_loaded';
});

/** A folder as `ctmatch convert` writes it, or all its files. @param {readonly File[]} given */
export const useFiles = (given) => use(async () => {
  const pathOf = (file) => file.webkitRelativePath || file.name;
  const manifestFile = given.find((file) => file.name === MANIFEST_NAME);
  if (!manifestFile) throw unused('expected manifest.json among the files, found none');
  const folder = pathOf(manifestFile).slice(0, -MANIFEST_NAME.length);
  const files = new Map(given.filter((file) => pathOf(file).startsWith(folder)).map((file) => [pathOf(file).slice(folder.length), file]));
  return { manifest: await parsed(manifestFile), ref: { files } };
});

/** @param {string} address of a manifest on this site; the next visit starts with it */
const useAddress = (address) => use(async (signal) => {
  const url = new URL(address, document.baseURI);
  // The package refuses it too; nothing is asked of another site before.
  if (url.origin !== location.origin) {
    throw Object.assign(new Error('expected an address of this site'), { code: 'NETWORK_POLICY', detail: { url: url.href } });
  }
  // The page's own as at the start, so that its button goes.
  return { manifest: await parsed(await ownFile(url.href, signal)), ref: address === MANIFEST ? MANIFEST : url.href, address };
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
    ...(loaded ? /** @type {[string, string][]} */ ([['model_memory', mb(session?.info.gpuBytes ?? 0)], ['self_test', selfTestText(session?.info.selfTest)]]) : []),
  ];
  $('model-facts').replaceChildren(...facts.filter(([, value]) => value).map(([key, value]) => element('div', {}, element('dt', {}, text(key)), element('dd', {}, value))));
});

on('controls', () => {
  const busy = state.running !== undefined;
  for (const input of document.querySelectorAll('.settings input, #model button, #model-url')) /** @type {HTMLInputElement} */ (input).disabled = busy;
  $('model-own').hidden = state.modelRef === MANIFEST;

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
async function start() {
  const kept = recall(MODEL) ?? MANIFEST;
  // One that is gone, or of another page on this site, gives way to the page's own.
  for (const address of new Set([kept, MANIFEST])) {
    const manifest = await ownFile(address).then(parsed).catch(() => undefined);
    if (!manifest) continue;
    if (!state.manifest) Object.assign(state, { manifest, modelRef: address === MANIFEST ? MANIFEST : new URL(address, document.baseURI).href });
    if (address !== MANIFEST) $('model-url').value = address;
    changed('model');
    return;
  }
}
start().then(show);
