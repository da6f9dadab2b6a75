// The page: what belongs to no panel, and the start.

import { cures, freshSession, on, renderAll, run, showError, state, tryAgain } from './app.js';
import { addFiles, isReportFile } from './reports.js';
import { $ } from './dom.js';
import { currentLanguage, setLanguage } from './i18n.js';
import { openVolumes } from './volume.js';
import { MANIFEST_NAME, useFiles } from './model.js';
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
window.addEventListener('drop', async (event) => {
  const files = [...(event.dataTransfer?.files ?? [])];
  if (files.some(({ name }) => name === MANIFEST_NAME)) return useFiles(files);
  const reports = files.filter(isReportFile);
  const volumes = files.filter((file) => !reports.includes(file));
  await openVolumes(volumes);
  // What was said of the volumes stays when the reports can be read.
  const refused = volumes.length > 0 && state.error;
  await addFiles(reports);
  if (refused && !state.error) showError(refused);
  return undefined;
});

// ---- start

showNetwork(() => state.session?.info.urls ?? []);
speak(keptLanguage());
run('phase_wasm', async (call) => { await freshSession(call); });
