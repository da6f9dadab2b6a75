// The page: what belongs to no panel, and the start.

import { cures, freshSession, on, renderAll, run, showError, state, tryAgain } from './app.js';
import { addFiles, isReportFile } from './reports.js';
import { $ } from './dom.js';
import { currentLanguage, setLanguage } from './i18n.js';
import { describeVolumes, isVolumeFile, metadataAmong, openVolumes } from './volume.js';
import { useFiles } from './model.js';
import { MANIFEST_NAME } from './modelfiles.js';
import { start as showNetwork, unlock } from './offline.js';
import './results.js';
import './sample.js';
import './export.js';
import './tools.js';
import './zeroshot.js';
import './evidence.js';
import './quiz.js';
import './privacy.js';
import './settings.js';
import { LANGUAGE, keep, keptLanguage } from './preferences.js';
import './retrieval.js';

// ---- language

/** @param {'en' | 'zh'} language */
function speak(language) {
  setLanguage(language);
  renderAll();
}

/** @param {'en' | 'zh'} language */
function choose(language) {
  keep(LANGUAGE, language);
  speak(language);
}
on('controls', () => {
  for (const language of ['en', 'zh']) $(`lang-${language}`).setAttribute('aria-pressed', String(currentLanguage() === language));
  const busy = state.running !== undefined;
  $('cancel').hidden = !busy;
  $('progress').hidden = !busy;
});
$('lang-en').addEventListener('click', () => choose('en'));
$('lang-zh').addEventListener('click', () => choose('zh'));

// ---- work

$('cancel').addEventListener('click', () => state.running?.abort(new DOMException('cancelled', 'AbortError')));
cures({
  reopen() {
    state.stale = true;
    run('phase_wasm', async (call) => { await freshSession(call); });
  },
  restore: tryAgain,
  use_cpu() {
    /** @type {HTMLInputElement} */ (document.querySelector('input[name="backend"][value="cpu"]')).checked = true;
    state.stale = true;
    tryAgain();
  },
  use_software() {
    $('allow-software').checked = true;
    state.stale = true;
    tryAgain();
  },
  net_unlock: () => unlock().then(tryAgain),
  model_folder: () => $('model-folder').click(),
});

// ---- files dropped anywhere: one beside the zone must not replace the page

const drop = $('drop');
for (const type of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  window.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.toggle('over', type === 'dragenter' || type === 'dragover');
  });
}
/** @param {File} file */
const isDicomName = ({ name }) => /\.(dcm|ima)$/i.test(name);

/**
 * The files of folders too; of those only what the page can read. Entries must be asked for before anything is waited for.
 * @param {DataTransfer | null} given @returns {Promise<File[]>}
 */
async function filesOf(given) {
  const walk = async (entry) => {
    if (entry.isFile) return [await new Promise((found, failed) => { entry.file(found, failed); })];
    const reader = entry.createReader();
    const files = [];
    // A part at a time, until there is none.
    for (let part; part?.length !== 0;) {
      part = await new Promise((found, failed) => { reader.readEntries(found, failed); });
      for (const inner of part) files.push(...await walk(inner));
    }
    return files;
  };
  const entries = [...(given?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some(({ isDirectory }) => isDirectory)) return [...(given?.files ?? [])];
  const files = [];
  for (const entry of entries) files.push(...await walk(entry));
  if (files.some(({ name }) => name === MANIFEST_NAME)) return files;
  const known = files.filter((file) => isVolumeFile(file) || isReportFile(file));
  // What a folder of other files holds, such as DICOM, is told by one of them.
  return known.length > 0 ? known : files.slice(0, 1);
}

const take = async (given) => {
  const asked = filesOf(given);
  await started;
  if (state.running) return showError(Object.assign(new Error('one piece of work at a time'), { code: 'BUSY' }));
  // A series of DICOM files has one message.
  const files = (await asked).filter((file, i, all) => !isDicomName(file) || all.findIndex(isDicomName) === i);
  if (files.some(({ name }) => name === MANIFEST_NAME)) return useFiles(files);
  const metadata = await metadataAmong(files);
  const described = new Set([...metadata.values()].map(({ file }) => file));
  const volumes = files.filter((file) => !isReportFile(file));
  await openVolumes(volumes, metadata);
  await describeVolumes(metadata);
  // What describes no volume here is refused with the reports, and says why.
  for (const { file } of metadata.values()) described.delete(file);
  const reports = files.filter((file) => isReportFile(file) && !described.has(file));
  // What was said of the volumes stays when the reports can be read.
  const refused = volumes.length > 0 && state.error;
  await addFiles(reports);
  if (refused && !state.error) showError(refused);
  return undefined;
};
window.addEventListener('drop', (event) => take(event.dataTransfer));
// Text is pasted where it belongs; files can only be meant for the page.
window.addEventListener('paste', (event) => {
  if (event.clipboardData?.files.length) take(event.clipboardData);
});

// ---- start

showNetwork();
speak(keptLanguage());
const started = run('phase_wasm', async (call) => { await freshSession(call); });
