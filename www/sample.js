// The samples that come with the page: sample/samples.json lists volumes and their candidate reports.

import { changed, on, ownFile, run, state } from './app.js';
import { candidates } from './candidates.js';
import { addReports } from './reports.js';
import { $, element } from './dom.js';
import { currentLanguage } from './i18n.js';
import { newEntry, openEntry, opened } from './volume.js';

/**
 * `volume` and `reports` are files beside samples.json; `answer` is the id of the report that belongs to the volume.
 * @typedef {{ id: string, title: { en: string, zh: string }, volume: string, reports: string, answer?: string }} Sample
 */

const FOLDER = './sample/';

/** @type {Sample[]} */
let samples = [];
/** Texts of the true reports, by sample: in another list the same id is another report. @type {Map<string, string | undefined>} */
const truths = new Map();

async function listed() {
  if (samples.length === 0) samples = JSON.parse(await (await ownFile(`${FOLDER}samples.json`)).text()).samples;
  return samples;
}

const useSample = () => run('phase_read', async (call) => {
  const list = await listed();
  const sample = list.find(({ id }) => id === $('sample').value) ?? list[0];
  const [volume, reports] = await Promise.all([sample.volume, sample.reports].map((name) => ownFile(FOLDER + name, call.signal)));
  const known = state.entries.find(({ name }) => name === sample.id);
  await openEntry(known ?? newEntry(volume, sample.id), call);
  candidates.clear();
  await addReports(reports, 'json', call);
  truths.set(sample.id, candidates.rows.find(({ id }) => id === sample.answer)?.text);
  changed('candidates');
  return opened;
});

/** The report that belongs to a volume of the page's own, while it is in the list. @param {import('./app.js').Entry} entry */
export const sampleAnswer = (entry) => candidates.rows.find(({ text }) => text && text === truths.get(entry.name))?.id;

on('controls', () => {
  $('use-sample').disabled = state.running !== undefined;
  $('sample').hidden = samples.length < 2;
  for (const [i, option] of [...$('sample').options].entries()) option.textContent = samples[i].title[currentLanguage()];
});

$('use-sample').addEventListener('click', useSample);
// One sample needs no choice; a page without the list still opens files.
listed().then((list) => {
  $('sample').replaceChildren(...list.map(({ id, title }) => element('option', { value: id }, title[currentLanguage()])));
  $('sample').hidden = list.length < 2;
}, () => {});
