// The volumes of this sitting, and all of them against all candidate reports.

import { changed, hasLatent, on, onClear, purpose, readEntry, run, state, withModel } from './app.js';
import { candidates } from './candidates.js';
import { BUILD } from './build.js';
import { $, Pages, button, csvText, download, element } from './dom.js';
import { encodeCandidates, otherModel } from './encode.js';
import { text } from './i18n.js';
import { headOf, modelOf } from './record.js';
import { cosineText } from './results.js';
import { isShared, ranksOf } from './ties.js';
import { openEntry, opened } from './volume.js';

/** @typedef {import('./app.js').Entry} Entry */

const ROWS_OF_A_PAGE = 50;

/**
 * `places[v][r]`: rank of report r for volume v; `found[r][v]`: rank of volume v for report r.
 * @type {{ entries: Entry[], ids: string[], cosines: number[][], places: number[][], found: number[][] } | undefined}
 */
let matrix;

/** Reads a volume that is not shown, encodes it and closes it. @param {Entry} entry */
async function encodeHidden(entry, session, call) {
  const volume = await readEntry(session, entry, call);
  try {
    const accepted = [...entry.accepted];
    entry.latent = { key: accepted.join(), image: await session.encodeVolume(volume, { ...call, accept: accepted }) };
  } finally {
    volume.close();
  }
}

const compareAll = () => run('phase_model', async (call) => {
  const session = await withModel(call);
  const entries = [];
  let unanswered = 0;
  for (const entry of state.entries) {
    try {
      const madeBy = entry.kept?.provenance.embeddingSpace;
      if (madeBy && madeBy !== session.info.model?.embeddingSpace) throw otherModel(session.info.model?.embeddingSpace ?? '', madeBy);
      if (!hasLatent(entry, session)) await encodeHidden(entry, session, call);
      entries.push(entry);
    } catch (error) {
      // Its questions are answered where it is shown.
      if (error?.code !== 'NEEDS_CONFIRMATION') throw error;
      unanswered += 1;
    }
  }
  const { rows, set } = await encodeCandidates(session, call);
  const cosines = [];
  const places = [];
  let tolerance = 0;
  for (const entry of entries) {
    const { rows: ranked, tieTolerance } = await session.rank(/** @type {any} */ (entry.latent).image, set, { signal: call.signal });
    tolerance = tieTolerance;
    const [byReport, byPlace] = [new Array(rows.length), new Array(rows.length)];
    for (const { index, cosine, rank } of ranked) [byReport[index], byPlace[index]] = [cosine, rank];
    cosines.push(byReport);
    places.push(byPlace);
  }
  const found = rows.map((_, r) => ranksOf(cosines.map((own) => own[r]), tolerance));
  matrix = { entries, ids: rows.map(({ id }) => id), cosines, places, found };
  changed('entries');
  return unanswered > 0 ? () => text('retrieval_unanswered', { n: unanswered }) : 'retrieval_done';
});

/** Reports down, volumes across; the volumes' digests say which they are. */
function saveMatrix() {
  if (!matrix) return;
  const { entries, ids, cosines } = matrix;
  const images = entries.map(({ latent }) => /** @type {NonNullable<Entry['latent']>} */ (latent).image);
  const saved = {
    schema: 'ctmatch-matrix-1', ...headOf(state.session?.info.model, new Date().toISOString()), app: { version: images[0].provenance.package, ...BUILD },
    model: modelOf(images[0].provenance), text_source: candidates.view,
    volumes: entries.map(({ id }, v) => ({ id, voxel_sha256: images[v].provenance.voxelSha256 })),
  };
  const rows = ids.map((id, r) => ({ report: id, ...Object.fromEntries(entries.map((entry, v) => [`volume ${entry.id}`, cosines[v][r]])) }));
  download(new Blob([csvText(saved, ['report', ...entries.map(({ id }) => `volume ${id}`)], rows)], { type: 'text/csv' }), 'ctmatch-matrix.csv');
}

const pages = new Pages($('matrix-pages'), ROWS_OF_A_PAGE, renderMatrix);

function renderMatrix() {
  if (!matrix) return;
  const { entries, ids, cosines, places, found } = matrix;
  $('matrix-head').replaceChildren(element('th', { scope: 'col' }, text('col_report')),
    ...entries.map(({ id }) => element('th', { scope: 'col', className: 'number' }, text('volume_id', { id }))));
  $('matrix-rows').replaceChildren(...pages.of(ids.map((id, r) => ({ id, r }))).map(({ id, r }) => element('tr', {},
    element('th', { scope: 'row' }, id),
    ...entries.map((_, v) => {
      // The first of its column: the report of the volume. The first of its row: the volume of the report.
      const signs = [...(places[v][r] === 1 ? [isShared(places[v], 1) ? 'tied_report' : 'best_report'] : []),
        ...(entries.length > 1 && found[r][v] === 1 ? [isShared(found[r], 1) ? 'tied_volume' : 'best_volume'] : [])];
      return element('td', { className: 'number' }, ...signs.flatMap((key) => [element('span', { className: 'tie' }, text(key)), ' ']), cosineText(cosines[v][r]));
    }))));
}

on('entries', () => {
  // A matrix of latents that are gone would not be this model's.
  if (matrix?.entries.some((entry) => !entry.latent || !state.entries.includes(entry))) matrix = undefined;
  $('volumes').replaceChildren(...state.entries.map((entry) => element('li', {},
    element('strong', {}, text('volume_id', { id: entry.id })), element('span', { className: 'quiet' }, (entry.dims ?? []).join(' × ')),
    element('span', { className: 'quiet' }, text(entry.kept ? 'volume_kept' : entry.latent ? 'volume_encoded' : 'volume_not_encoded')),
    ...(entry.kept ? [] : [entry === state.entry ? element('span', { className: 'tie' }, text('volume_shown'))
      : button(text('volume_open'), () => run('phase_read', (call) => openEntry(entry, call).then(() => opened)), { 'aria-label': text('volume_open_id', { id: entry.id }), 'data-volume': entry.id })]),
    ...(entry === state.entry ? [] : [button('×', () => {
      state.entries = state.entries.filter((other) => other !== entry);
      changed('entries');
    }, { 'aria-label': text('volume_remove', { id: entry.id }) })]))));
  $('matrix').hidden = !matrix;
  renderMatrix();
});

onClear(() => $('matrix-rows').replaceChildren());
on('candidates', () => {
  if (matrix && matrix.ids.join('\n') !== candidates.usable.map(({ id }) => id).join('\n')) matrix = undefined;
  $('matrix').hidden = !matrix;
});
/** Why nothing can be compared, as a message key. */
function missing() {
  const why = state.entries.length === 0 ? 'needs_volume' : candidates.missing;
  if (why || purpose() === 'match') return why;
  // Saved latents need no tower.
  /** @type {readonly { latent?: unknown }[]} */
  const encoded = purpose() === 'reports' ? state.entries : candidates.usable;
  return encoded.some(({ latent }) => !latent) ? `only_${purpose()}` : undefined;
}
on('controls', () => {
  const busy = state.running !== undefined;
  const why = missing();
  $('compare-all').disabled = busy || why !== undefined;
  $('compare-hint').textContent = !busy && why ? text(why) : '';
});
$('matrix-save').addEventListener('click', saveMatrix);
$('compare-all').addEventListener('click', compareAll);
