// Latents in files: of the volume that is shown, of the candidates, or both in one store; and back again. The package's own format:
// no text of a report, no voxel. A store of the command (`ctmatch encode --store`) is read too, and searched.

import { changed, each, encodedVolume, freshSession, missingVolume, on, onClear, purpose, run, state, withModel } from './app.js';
import { candidates } from './candidates.js';
import { exportLatents, importLatents } from './ctmatch/index.js';
import { $, download, element, headings } from './dom.js';
import { encodeCandidates, otherModel } from './encode.js';
import { number, text } from './i18n.js';
import { noticeText } from './record.js';
import { isShared, ranksOf } from './ties.js';
import { newEntry } from './volume.js';

/** @typedef {import('../pkg/index.js').Store} Store @typedef {import('../pkg/index.js').Hit} Hit */

const HITS = 10;

/** `session`: the one that has the store open. @type {{ source: Blob, store: Store, session: unknown } | undefined} */
let archive;
/** `image`: the latent that was asked with; `ranks`: of the hits. @type {{ image: unknown, find: string, hits: Hit[], ranks: number[] } | undefined} */
let found;

/** @param {File} file */
export const isKeptFile = (file) => file.name.toLowerCase().endsWith('.safetensors');

/** The embedding space of the model in use, where there is one. */
const space = () => state.session?.info.model?.embeddingSpace ?? state.manifest?.embeddingSpace;

/** What `exportLatents` made; undefined for another file. @param {Blob} file */
const latentsIn = (file) => importLatents(file).catch((error) => {
  if (error?.code === 'INVALID_ARGUMENT') return undefined;
  throw error;
});

/** @param {Blob} file @param {import('./app.js').Call} call */
export async function loadKept(file, call) {
  const session = await freshSession(call);
  const latents = await latentsIn(file);
  call.signal.throwIfAborted();
  const madeBy = latents && ('vectors' in latents ? latents.embeddingSpace : latents.provenance.embeddingSpace);
  if (madeBy && space() && madeBy !== space()) throw otherModel(space() ?? '', madeBy);
  if (!latents) {
    const store = await session.openStore(file, { signal: call.signal }).catch((error) => {
      throw error?.code === 'CHECKPOINT' ? Object.assign(new Error(error.message), { code: 'STORE' }) : error;
    });
    if (space() && store.model.embeddingSpace !== space()) {
      store.close();
      throw otherModel(space() ?? '', store.model.embeddingSpace);
    }
    closeStore();
    archive = { source: file, store, session };
    $('retrieval').open = true;
  } else if ('vectors' in latents) {
    candidates.addSaved(latents);
    state.result = undefined;
  } else {
    state.entries.push({ ...newEntry(undefined), kept: latents, latent: { key: '', image: latents } });
  }
  changed('candidates', 'result', 'entries');
}

/** With the notice in its metadata: the tensors are counted from the end of the header. @param {Blob} blob safetensors */
async function withNotice(blob) {
  const end = 8 + Number(new DataView(await blob.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  const header = JSON.parse(await blob.slice(8, end).text());
  const license = state.session?.info.model?.license;
  header.__metadata__.notice = `${noticeText(license, 'en')} ${noticeText(license, 'zh')}`;
  const bytes = new TextEncoder().encode(JSON.stringify(header));
  const padding = new Uint8Array(-bytes.length & 7).fill(0x20); // spaces, so that the tensors are aligned
  return new Blob([new BigUint64Array([BigInt(bytes.length + padding.length)]), bytes, padding, blob.slice(end)], { type: blob.type });
}

/** @param {Blob} blob @param {string} name */
const save = async (blob, name) => download(await withNotice(blob), `ctmatch-${name}.safetensors`);

const saveVolume = () => run('phase_model', async (call) => {
  await save(exportLatents((await encodedVolume(call)).image), 'volume');
  return 'kept_saved';
});

const saveReports = () => run('phase_model', async (call) => {
  await save(exportLatents((await encodeCandidates(await withModel(call), call)).set), 'reports');
  return 'kept_saved';
});

/** All latents that there are, in one file. */
const saveStore = () => run('phase_model', async (call) => {
  const { signal } = call;
  const session = await withModel(call);
  const volumes = state.entries.flatMap(({ id, latent }) => (latent ? [{ id, latent: latent.image }] : []));
  const reports = candidates.usable.length > 0 ? (await encodeCandidates(session, call)).set : undefined;
  const store = await session.openStore(undefined, { signal });
  try {
    await store.add({ volumes, reports }, { signal });
    await save(await store.save({ signal }), 'store');
  } finally {
    store.close();
  }
  return 'kept_saved';
});

// ---- a store

/** In the present session: a store is gone with the session that opened it. @param {import('./app.js').Call} call */
async function openArchive(call) {
  const session = await withModel(call);
  if (archive && archive.session !== session) archive = { ...archive, store: await session.openStore(archive.source, { signal: call.signal }), session };
  return /** @type {NonNullable<typeof archive>} */ (archive).store;
}

const search = () => run('phase_model', async (call) => {
  const { session, image } = await encodedVolume(call);
  const store = await openArchive(call);
  const find = $('store-find').value;
  const hits = await store.search(image, { find, topK: HITS, signal: call.signal });
  found = { image, find, hits, ranks: ranksOf(hits.map(({ cosine }) => cosine), session.info.model?.tieTolerance ?? 0) };
  changed('entries');
  return 'store_done';
});

function closeStore() {
  archive?.store.close();
  archive = undefined;
  found = undefined;
}

function renderStore() {
  $('store').hidden = !archive;
  if (!archive) return;
  const { volumes, reports, model, precision } = archive.store;
  $('store-facts').textContent = text('store_facts', { volumes: number(volumes.length), reports: number(reports.length), model: model.id, precision });
  if (found && found.image !== state.entry?.latent?.image) found = undefined;
  $('store-hits').hidden = !found;
  $('store-head').replaceChildren(...headings([['col_rank', 'number'], [found?.find === 'volumes' ? 'volume' : 'col_report', ''], ['col_cosine', 'number']]));
  const { hits, ranks } = found ?? { hits: [], ranks: [] };
  const tie = (rank) => (isShared(ranks, rank) ? [' ', element('span', { className: 'tie' }, text('tie'))] : []);
  $('store-rows').replaceChildren(...hits.map(({ id, cosine }, i) => element('tr', {}, element('td', { className: 'number' }, String(ranks[i]), ...tie(ranks[i])),
    element('th', { scope: 'row' }, id), element('td', { className: 'number' }, number(cosine, { minimumFractionDigits: 3, maximumFractionDigits: 3 })))));
}
on('entries', renderStore);
on('result', renderStore);

on('controls', () => {
  const busy = state.running !== undefined;
  const encodes = (what) => purpose() === 'match' || purpose() === what;
  const why = purpose() === 'reports' ? 'only_reports' : missingVolume();
  const noReports = encodes('reports') ? candidates.missing : `only_${purpose()}`;
  const nothing = noReports && !state.entries.some(({ latent }) => latent) ? 'kept_nothing' : undefined;
  for (const [id, lack] of Object.entries({ 'kept-volume': why, 'kept-reports': noReports, 'kept-store': nothing })) {
    $(id).disabled = busy || lack !== undefined;
    $(`${id}-hint`).textContent = !busy && lack ? text(lack) : '';
  }
  for (const id of ['kept-load', 'store-close']) $(id).disabled = busy;
  $('store-search').disabled = busy || why !== undefined;
  $('store-hint').textContent = why ? text(why) : '';
});

onClear(() => {
  closeStore();
  renderStore();
});

$('kept-volume').addEventListener('click', saveVolume);
$('kept-reports').addEventListener('click', saveReports);
$('kept-store').addEventListener('click', saveStore);
$('kept-load').addEventListener('click', () => $('kept-file').click());
$('kept-file').addEventListener('change', () => {
  const files = [...$('kept-file').files];
  run('phase_read', async (call) => { await each(files, (file) => loadKept(file, call)); });
  $('kept-file').value = '';
});
$('store-search').addEventListener('click', search);
$('store-close').addEventListener('click', () => {
  closeStore();
  changed('entries');
});
