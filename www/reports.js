// The candidate reports on the page: adding, editing, removing.

import { changed, each, freshSession, on, onClear, run, state } from './app.js';
import { MAX_CANDIDATES, MAX_TOKENS, candidates, mostlyCjk } from './candidates.js';
import { chooseColumns } from './columns.js';
import { $, button, element } from './dom.js';
import { number, ruleText, text } from './i18n.js';
import { isKeptFile, loadKept } from './kept.js';
import { Rows, walkable } from './rows.js';
import { isTable } from './table.js';

/** @typedef {import('./candidates.js').Candidate} Candidate */

const FORMATS = ['json', 'jsonl', 'csv', 'tsv', 'txt'];

// ---- adding

/** Rules are applied once to each new text. @param {import('../pkg/index.js').Session} session */
async function findHints(session) {
  const fresh = candidates.rows.filter((row) => !row.hints && !row.latent);
  const hints = await session.textHints(fresh.map((row) => row.text));
  for (const [i, row] of fresh.entries()) row.hints = hints[i];
}

/**
 * @param {Blob | string} source
 * @param {import('../pkg/index.js').ReportFormat} format
 * @param {import('./app.js').Call} call
 */
export async function addReports(source, format, call) {
  const session = await freshSession(call);
  candidates.add(await session.parseReports(source, { format, signal: call.signal }));
  await findHints(session);
  state.result = undefined;
  changed('candidates', 'result');
}

/**
 * Content that nobody said the form of. Where it is a table that the package takes for text, because it knows none of the columns, the person
 * is asked.
 * @param {Blob} source @param {import('./app.js').Call} call @returns {Promise<boolean>} false when the person closes the dialog
 */
async function addAny(source, call) {
  const session = await freshSession(call);
  const read = async (format) => JSON.stringify(await session.parseReports(source, { format, signal: call.signal }));
  const isAsked = isTable(await source.text()) && await read('auto') === await read('txt');
  const chosen = isAsked ? await chooseColumns(source, true) : source;
  if (chosen) await addReports(chosen, chosen !== source ? 'csv' : isAsked ? 'txt' : 'auto', call);
  return chosen !== undefined;
}

/** @param {string} name */
const formatOf = (name) => /** @type {any} */ (FORMATS.find((ending) => name.toLowerCase().endsWith(`.${ending}`)));

/** @param {File} file */
export const isReportFile = (file) => formatOf(file.name) !== undefined || isKeptFile(file);

/** @param {readonly File[]} files */
export const addFiles = (files) => files.length > 0 && run('phase_read', async (call) => {
  await each(files, async (file) => {
    if (isKeptFile(file)) return loadKept(file, call);
    const format = formatOf(file.name);
    if (!format) return addAny(file, call);
    if (format !== 'csv' && format !== 'tsv') return addReports(file, format, call);
    const source = await chooseColumns(file);
    // The header names its columns now, and the package finds the delimiter.
    return source && addReports(source, 'csv', call);
  });
});

// ---- what is shown

/** A count that opens to the rules and the masked texts. @param {readonly import('../pkg/index.js').Hint[]} hints */
function hintsOf(hints) {
  const list = hints.map(({ rule, masked }) => element('li', {}, element('code', {}, masked), element('span', { className: 'quiet' }, ruleText(rule))));
  return element('details', { className: 'hints', title: [...new Set(hints.map(({ rule }) => ruleText(rule)))].join(', ') },
    element('summary', {}, text('hints', { n: hints.length })), element('ul', {}, ...list));
}

/** What stands for a candidate: what is compared of it, or that its text was not kept. @param {Candidate} row */
export const bodyOf = (row) => (row.latent ? text('saved_text', { sha256: row.latent.textSha256.slice(0, 16) }) : candidates.textOf(row) || text('no_section'));

/** Told apart by shape, not by colour alone. @param {Candidate} row */
const reviewSign = ({ reviewed }) => (reviewed ? '☑' : '☐');

/** A button that marks a candidate as reviewed, wherever it is shown. @param {Candidate} row */
export const reviewButton = (row) => button(reviewSign(row), () => review(row),
  { 'data-review': row.id, 'aria-pressed': row.reviewed ?? false, 'aria-label': text('reviewed', { id: row.id }), title: text('reviewed', { id: row.id }) });

/** @param {Candidate} row */
function review(row) {
  row.reviewed = !row.reviewed;
  // Drawing the lists again would take the focus away.
  for (const made of document.querySelectorAll('[data-review]')) {
    if (/** @type {HTMLElement} */ (made).dataset.review !== row.id) continue;
    made.setAttribute('aria-pressed', String(row.reviewed));
    made.textContent = reviewSign(row);
  }
  renderReviewed();
}

/** @param {string} id */
export const reviewById = (id) => {
  const row = candidates.rows.find((other) => other.id === id);
  if (row) review(row);
};

function renderReviewed() {
  const done = candidates.rows.filter(({ reviewed }) => reviewed).length;
  $('reviewed-notes').textContent = done > 0 ? text('reviewed_count', { n: done, total: candidates.rows.length }) : '';
}

/** @param {Candidate} row */
function itemOf(row) {
  const item = element('li', { tabIndex: -1, 'data-id': row.id }, element('strong', {}, row.id), element('div', { className: 'body' }, bodyOf(row)), element('span', { className: 'tools' },
    ...(row.latent ? [] : [button('✎', () => openEditor(row), { 'aria-label': text('edit', { id: row.id }), 'data-edit': '' })]),
    reviewButton(row),
    button('×', () => {
      candidates.remove(row.id);
      listChanged();
      $('report-list').focus();
    }, { 'aria-label': text('remove', { id: row.id }) })));
  if (row.tokens !== undefined) {
    item.append(element('div', { className: 'meta quiet' }, text('tokens', { n: row.tokens }),
      ...(row.truncated ? [' · ', element('strong', { className: 'warning' }, text('truncated', { n: MAX_TOKENS }))] : [])));
  }
  if (row.hints?.length) item.append(hintsOf(row.hints));
  return item;
}

const list = new Rows({
  scroller: $('report-list'), body: $('reports'), runway: $('reports'), make: itemOf,
  counted: (item, place, count) => {
    item.setAttribute('aria-posinset', String(place + 1));
    item.setAttribute('aria-setsize', String(count));
  },
});

function renderList() {
  const wanted = $('report-filter').value.trim().toLowerCase();
  const rows = wanted ? candidates.rows.filter((row) => row.id.toLowerCase().includes(wanted) || row.text.toLowerCase().includes(wanted)) : candidates.rows;
  $('report-shown').textContent = rows.length < candidates.rows.length ? text('rows_shown', { n: number(rows.length), total: number(candidates.rows.length) }) : '';
  list.show(rows);
}

on('candidates', () => {
  const { rows, usable, equal, merged, leftOut } = candidates;
  $('report-view-label').hidden = !candidates.hasSections;
  $('report-view').value = candidates.view;
  renderReviewed();
  $('report-filter').parentElement.hidden = rows.length < 10;
  if (rows.length === 0) $('report-filter').value = '';
  renderList();
  $('hints-notes').textContent = rows.length > 0 ? text('hints_review', { n: rows.filter((row) => row.hints?.length).length, total: rows.length }) : '';
  for (const row of rows) row.cjk ??= mostlyCjk(row.text);
  const cut = rows.filter((row) => row.truncated).length;
  const lines = [];
  if (rows.length > 0) lines.push(rows.length === 1 ? text('report_count_one') : text('report_count', { n: rows.length }));
  if (usable.length + equal < rows.length) lines.push(text('view_left_out', { n: rows.length - usable.length - equal }));
  if (merged + equal > 0) lines.push(text('duplicates', { n: merged + equal }));
  if (cut > 0) lines.push(text('truncated_count', { n: cut, limit: MAX_TOKENS }));
  if (leftOut > 0) lines.push(text('too_many', { limit: MAX_CANDIDATES, n: leftOut }));
  if (rows.some((row) => row.cjk)) lines.push(text('english_only'));
  $('report-notes').textContent = lines.join(' · ');
});

on('controls', () => {
  const busy = state.running !== undefined;
  for (const id of ['add-pasted', 'choose-reports']) $(id).disabled = busy;
});

function listChanged() {
  state.result = undefined;
  changed('candidates', 'result');
}

// ---- editing

/** @param {Candidate} row */
function openEditor(row) {
  $('edit-id').value = row.id;
  $('edit-text').value = candidates.textOf(row);
  $('edit-problem').textContent = '';
  $('edit-form').onsubmit = (event) => {
    event.preventDefault();
    const problem = candidates.edit(row.id, { id: $('edit-id').value.trim(), text: $('edit-text').value });
    $('edit-problem').textContent = problem ? text(problem) : '';
    if (problem) return;
    $('edit').close();
    listChanged();
    run('phase_read', async (call) => {
      await findHints(await freshSession(call));
      changed('candidates');
    });
  };
  $('edit').showModal();
}

onClear(() => {
  candidates.clear();
  $('edit-form').onsubmit = null;
});

// ---- events

$('edit-cancel').addEventListener('click', () => $('edit').close());
$('columns-cancel').addEventListener('click', () => $('columns').close());
walkable($('report-list'), {
  rows: list, filter: $('report-filter'), open: (row) => /** @type {HTMLElement | null} */ (row.querySelector('[data-edit]'))?.click(),
  review: (row) => reviewById(row.dataset.id ?? ''),
});
$('report-view').addEventListener('change', () => {
  candidates.view = $('report-view').value;
  // How many tokens, and whether it was cut, are of the text that was encoded.
  for (const row of candidates.rows) if (!row.latent) Object.assign(row, { tokens: undefined, truncated: undefined });
  listChanged();
});
$('report-filter').addEventListener('input', () => {
  list.first();
  renderList();
});
$('choose-reports').addEventListener('click', () => $('reports-file').click());
$('reports-file').addEventListener('change', () => {
  addFiles([...$('reports-file').files]);
  $('reports-file').value = '';
});
$('add-pasted').addEventListener('click', () => run('phase_read', async (call) => {
  if (await addAny(new Blob([$('paste').value]), call)) $('paste').value = '';
}));
$('clear-reports').addEventListener('click', () => {
  candidates.clear();
  listChanged();
});
