// The ranking of the candidates against the volume that is shown, and two of them side by side.

import { changed, encodedVolume, missingVolume, on, onClear, purpose, run, state } from './app.js';
import { candidates } from './candidates.js';
import { differences } from './differences.js';
import { $, bar, button, element, headings } from './dom.js';
import { encodeCandidates } from './encode.js';
import { number, text } from './i18n.js';
import { runOf } from './record.js';
import { bodyOf, reviewButton, reviewById } from './reports.js';
import { Rows, walkable } from './rows.js';

/** @typedef {import('../pkg/index.js').Ranked} Ranked */

export const cosineText = (value) => number(value, { minimumFractionDigits: 3, maximumFractionDigits: 3 });
export const percent = (value) => number(value, { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });

// Never up to what was not reached: 99.96 % is not 100 %.
const above = (share) => percent(Math.floor(1000 * share) / 1000);

/** How the best of a list stands beside unrelated reports (VIEWER_AND_RANKING_UI.md R-11). @param {import('../pkg/index.js').Ranking} ranking */
export function contextText({ background, rows }) {
  if (!background) return text('no_background');
  const { shareBelow, shareBelowByChance, pairs, source } = background;
  return text('background', { share: above(shareBelow), pairs: number(pairs), source, n: number(rows.length), chance: above(shareBelowByChance) });
}

/** The two that are compared, by index of the candidate. @type {number[]} */
let compared = [];

const rank = () => run('phase_model', async (call) => {
  const started = performance.now();
  const { session, image, accepted } = await encodedVolume(call);
  const { rows, set } = await encodeCandidates(session, call);
  const ranking = await session.rank(image, set, { signal: call.signal });
  compared = [];
  state.result = { ranking, rows, set, ...await runOf(session, image, accepted) };
  const seconds = (performance.now() - started) / 1000;
  changed('candidates', 'result');
  $('result').scrollIntoView({ block: 'nearest' });
  return () => text('done', { s: number(seconds, { maximumFractionDigits: 1 }) });
});

/** Why ranking cannot start, as a message key. */
function missing() {
  if (purpose() !== 'match') return `only_${purpose()}`; // it needs both towers
  const volume = missingVolume();
  return volume === 'needs_volume' ? volume : candidates.missing ?? volume;
}

on('controls', () => {
  const busy = state.running !== undefined;
  const why = missing();
  $('rank').disabled = busy || why !== undefined;
  $('hint').textContent = busy ? '' : text(why ?? 'ready');
});

// ---- table

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

/** What the rows need to know of the whole list. */
let scale = { low: 0, high: 1, last: /** @type {Ranked | undefined} */ (undefined), inGroup: new Map() };

/** @param {Ranked} row */
function rowOf(row) {
  const { low, high, last, inGroup } = scale;
  const candidate = state.result.rows[row.index];
  const cell = (className, ...children) => element('td', { role: 'cell', className }, ...children);
  const tie = inGroup.get(row.tieGroup) > 1 ? [' ', element('span', { className: 'tie' }, text('tie'))] : [];
  return element('tr', { role: 'row', tabIndex: -1, 'data-id': row.id },
    cell('number', String(row.rank), ...tie),
    cell('id', element('strong', {}, row.id), ...(candidate.truncated ? [' ', element('span', { className: 'tie' }, text('truncated_short'))] : [])),
    cell('number cosine', cosineText(row.cosine)),
    cell('number', row === last ? '' : cosineText(row.marginToNext)),
    cell('', bar(high > low ? (row.cosine - low) / (high - low) : 1)),
    cell('number share', percent(row.share)),
    cell('body', element('div', { className: 'excerpt' }, bodyOf(candidate)), reviewButton(candidate), button(text('compare'), () => compare(row.index), {
      'data-compare': row.index, 'aria-pressed': compared.includes(row.index), 'aria-label': text('compare_id', { id: row.id }),
    })));
}

const list = new Rows({
  scroller: $('result-table'), body: $('result-rows'), runway: $('result-run'), make: rowOf,
  // The heading is the first row.
  counted: (row, place) => row.setAttribute('aria-rowindex', String(place + 2)),
});

function renderRows() {
  const all = state.result.ranking.rows;
  scale = { low: all.at(-1).cosine, high: all[0].cosine, last: all.at(-1), inGroup: new Map() };
  for (const { tieGroup } of all) scale.inGroup.set(tieGroup, (scale.inGroup.get(tieGroup) ?? 0) + 1);
  const rows = filtered();
  $('result-grid').setAttribute('aria-rowcount', String(rows.length + 1));
  $('result-shown').textContent = rows.length < all.length ? text('rows_shown', { n: number(rows.length), total: number(all.length) }) : '';
  list.show(rows);
  // The headings stay in sight: a row that gets the focus is not under them.
  $('result-table').style.scrollPaddingTop = `${$('result-head').offsetHeight}px`;
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
    ['col_bar', ''], ['col_share', 'number share', { n: ranking.rows.length }], ['col_text', 'unseen']]));
  renderRows();

  const lines = [];
  if (ranking.rows.length > 1 && ranking.rows[0].marginToNext < ranking.tieTolerance) lines.push(text('noise'));
  lines.push(contextText(ranking));
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
  list.show([]);
  $('comparison-texts').replaceChildren();
  renderComparison();
});

walkable($('result-table'), {
  rows: list, filter: $('result-filter'), open: (row) => row.classList.toggle('open'), review: (row) => reviewById(row.dataset.id ?? ''),
});
$('result-filter').addEventListener('input', () => {
  list.first();
  renderRows();
});
$('rank').addEventListener('click', rank);
$('comparison-close').addEventListener('click', () => compare(compared[0]));
