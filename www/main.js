// The page: what belongs to no panel, and the start.

import { cures, freshSession, on, renderAll, run, state } from './app.js';
import { addFiles, isReportFile } from './reports.js';
import { $ } from './dom.js';
import { currentLanguage, setLanguage } from './i18n.js';
import { openVolumes } from './volume.js';
import { MANIFEST_NAME, useFiles } from './model.js';
import { start as showNetwork } from './offline.js';
import './results.js';
import './sample.js';
import './export.js';
import './tools.js';
import './zeroshot.js';
import './evidence.js';
import './quiz.js';
import './privacy.js';
import './settings.js';
import './retrieval.js';

// ---- language

/** @param {'en' | 'zh'} language */
function speak(language) {
  setLanguage(language);
  renderAll();
}
on('controls', () => {
  for (const language of ['en', 'zh']) $(`lang-${language}`).setAttribute('aria-pressed', String(currentLanguage() === language));
  const busy = state.running !== undefined;
  $('cancel').hidden = !busy;
  $('progress').hidden = !busy;
});
$('lang-en').addEventListener('click', () => speak('en'));
$('lang-zh').addEventListener('click', () => speak('zh'));

// ---- work

$('cancel').addEventListener('click', () => state.running?.abort(new DOMException('cancelled', 'AbortError')));
cures({
  reopen() {
    state.stale = true;
    run('phase_wasm', async (call) => { await freshSession(call); });
  },
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
  await openVolumes(files.filter((file) => !reports.includes(file)));
  return addFiles(reports);
});

// ---- start

showNetwork(() => state.session?.info.urls ?? []);
speak(currentLanguage());
run('phase_wasm', async (call) => { await freshSession(call); });
