// The ranking of the candidates against the volume that is shown, and two of them side by side.

import { changed, cures, encodedVolume, missingVolume, on, onClear, purpose, run, state } from './app.js';
import { candidates } from './candidates.js';
import { differences } from './differences.js';
import { $, Pages, bar, button, element, headings } from './dom.js';
import { encodeCandidates } from './encode.js';
import { number, text } from './i18n.js';
import { bodyOf, reviewButton, reviewById } from './reports.js';
import { walkable } from './rows.js';

/** @typedef {import('../pkg/index.js').Ranked} Ranked */

const ROWS_OF_A_PAGE = 50;

export const cosineText = (value) => number(value, { minimumFractionDigits: 3, maximumFractionDigits: 3 });
export const percent = (value) => number(value, { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** The two that are compared, by index of the candidate. @type {number[]} */
let compared = [];

export const rank = () => run('phase_model', async (call) => {
  const started = performance.now();
  const { session, image, accepted } = await encodedVolume(call);
  const { rows, set } = await encodeCandidates(session, call);
  const ranking = await session.rank(image, set, { signal: call.signal });
  compared = [];
  const { device } = JSON.parse(await session.diagnostics());
  state.result = {
    ranking, rows, set, image, timingsMs: image.timingsMs, accepted, volume: state.volume, entry: state.entry, info: session.info, device,
    createdUtc: new Date().toISOString(),
  };
  const seconds = (performance.now() - started) / 1000;
  changed('candidates', 'result');
  $('result').scrollIntoView({ block: 'nearest' });
  return () => text('done', { s: number(seconds, { maximumFractionDigits: 1 }) });
});

/** Why ranking cannot start, as a message key. */
function missing() {
  if (purpose() !== 'match') return `only_${purpose()}`; // it needs both towers
  const volume = missingVolume();
  if (volume === 'needs_volume') return volume;
  if (candidates.rows.length === 0) return 'needs_reports';
  return candidates.usable.length === 0 ? 'needs_section' : volume;
}

on('controls', () => {
  const busy = state.running !== undefined;
  const why = missing();
  $('rank').disabled = busy || why !== undefined;
  $('hint').textContent = busy ? '' : text(why ?? 'ready');
});

// ---- table

const pages = new Pages($('result-pages'), ROWS_OF_A_PAGE, renderRows);

/** The rows with the words that are asked for. */
function filtered() {
  const { ranking, rows } = state.result;
  const wanted = $('result-filter').value.trim().toLowerCase();
  return ranking.rows.filter(({ id, index }) => !wanted || id.toLowerCase().includes(wanted) || bodyOf(rows[index]).toLowerCase().includes(wanted));
}

/** The two that are compared, the better one first. @returns {Ranked[]} */
export const comparedPair = () => (compared.length === 2 ? state.result.ranking.rows.filter((row) => compared.includes(row.index)) : []);

/** @param {number} index */
function compare(index) {
  compared = compared.includes(index) ? compared.filter((other) => other !== index) : [...compared, index].slice(-2);
  for (const made of document.querySelectorAll('#result-rows [data-compare]')) {
    made.setAttribute('aria-pressed', String(compared.includes(Number(/** @type {HTMLElement} */ (made).dataset.compare))));
  }
  changed('compared');
}

function renderRows() {
  const { ranking, rows } = state.result;
  const cosines = ranking.rows.map((row) => row.cosine);
  const [low, high] = [cosines.at(-1), cosines[0]];
  const inGroup = new Map();
  for (const { tieGroup } of ranking.rows) inGroup.set(tieGroup, (inGroup.get(tieGroup) ?? 0) + 1);
  const last = ranking.rows.at(-1);
  $('result-rows').replaceChildren(...pages.of(filtered()).map((row) => {
    const place = element('td', { className: 'number' }, String(row.rank));
    if (inGroup.get(row.tieGroup) > 1) place.append(' ', element('span', { className: 'tie' }, text('tie')));
    const { truncated } = rows[row.index];
    return element('tr', { tabIndex: -1, 'data-id': row.id }, place,
      element('td', {}, element('strong', {}, row.id), ' ', reviewButton(rows[row.index]), ' ', button(text('compare'), () => compare(row.index), {
        'data-compare': row.index, 'aria-pressed': compared.includes(row.index), 'aria-label': text('compare_id', { id: row.id }),
      }), ...(truncated ? [' ', element('span', { className: 'tie' }, text('truncated_short'))] : []),
        element('div', { className: 'excerpt' }, bodyOf(rows[row.index]))),
      element('td', { className: 'number cosine' }, cosineText(row.cosine)),
      element('td', { className: 'number' }, row === last ? '' : cosineText(row.marginToNext)),
      element('td', {}, bar(high > low ? (row.cosine - low) / (high - low) : 1)),
      element('td', { className: 'number' }, percent(row.share)));
  }));
}

on('result', () => {
  $('result').hidden = !state.result;
  if (!state.result) {
    $('result-filter').value = '';
    return;
  }
  $('result-filter').parentElement.hidden = state.result.rows.length < 10;
  const { ranking, timingsMs } = state.result;
  $('result-head').replaceChildren(...headings([['col_rank', 'number'], ['col_report', ''], ['col_cosine', 'number'], ['col_margin', 'number'],
    ['col_bar', ''], ['col_share', 'number', { n: ranking.rows.length }]]));
  renderRows();

  const lines = [];
  if (ranking.rows.length > 1 && ranking.rows[0].marginToNext < ranking.tieTolerance) lines.push(text('noise'));
  lines.push(text('no_background'));
  const total = timingsMs.total ?? Object.values(timingsMs).reduce((sum, ms) => sum + ms, 0);
  lines.push(text('timing', { s: number(total / 1000, { maximumFractionDigits: 2 }), adapter: ranking.provenance.adapter }));
  $('result-notes').textContent = lines.join(' ');
});

// ---- two candidates

function renderComparison() {
  const [better, other] = state.result ? comparedPair() : [];
  $('comparison').hidden = !better;
  if (!better) return;
  const { rows } = state.result;
  const runs = differences(bodyOf(rows[better.index]), bodyOf(rows[other.index]));
  $('comparison-texts').replaceChildren(...[better, other].map((row, side) => element('div', {},
    element('h4', {}, `${row.rank}. ${row.id} · ${cosineText(row.cosine)}`),
    element('p', {}, ...runs[side].map((run) => (run.same || run.text.trim() === '' ? run.text : element('mark', {}, run.text)))))));
  $('comparison-note').textContent = text('comparison_note', { difference: cosineText(better.cosine - other.cosine) });
}

on('compared', renderComparison);
on('result', renderComparison);

onClear(() => {
  compared = [];
  for (const id of ['result-rows', 'comparison-texts']) $(id).replaceChildren();
  renderComparison();
});

walkable($('result-table'), {
  rows: '#result-rows > tr', filter: $('result-filter'), open: (row) => row.classList.toggle('open'), review: (row) => reviewById(row.dataset.id ?? ''),
});
$('result-filter').addEventListener('input', () => {
  pages.first();
  renderRows();
});
$('rank').addEventListener('click', rank);
$('comparison-close').addEventListener('click', () => compare(compared[0]));
cures({
  use_cpu() {
    /** @type {HTMLInputElement} */ (document.querySelector('input[name="backend"][value="cpu"]')).checked = true;
    state.stale = true;
    rank();
  },
  use_software() {
    $('allow-software').checked = true;
    state.stale = true;
    rank();
  },
  restore: rank,
});
