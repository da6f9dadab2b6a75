// Which columns of a table are the report. The first record of the file is written again with the names that the package knows,
// and the package reads the file.

import { $, element } from './dom.js';
import { text } from './i18n.js';
import { ROLES, delimiterOf, firstRecords, guess, headerFor } from './table.js';

const HEAD_BYTES = 64 * 1024;
const PREVIEW_ROWS = 3;
const BYTE_ORDER_MARK = '239,187,191';

/**
 * Asks which columns are the report.
 * @param {Blob} file @param {boolean} [maybeText] nobody said that it is a table
 * @returns {Promise<Blob | undefined>} the table as the package understands it, the file itself where it is none; undefined when the person
 *   closes the dialog
 */
export async function chooseColumns(file, maybeText = false) {
  // `text` drops a byte order mark. A character that is cut at the end is in no first record.
  const content = await file.slice(0, HEAD_BYTES).text();
  const delimiter = delimiterOf(content);
  const [head, ...rows] = firstRecords(content, delimiter, 1 + PREVIEW_ROWS, file.size > HEAD_BYTES);
  // Not a table: the package says what is wrong.
  if (!head) return file;
  const { roles, ctRate } = guess(head.cells);
  const selects = head.cells.map((_, i) => {
    const select = element('select', { 'aria-label': text('column_use', { n: i + 1 }) },
      ...['', ...Object.keys(ROLES)].map((role) => element('option', { value: role, selected: roles[i] === role }, text(role ? `column_${role}` : 'column_none'))));
    select.addEventListener('change', () => {
      // A role has one column.
      for (const other of selects) if (other !== select && other.value === select.value) other.value = '';
      check();
    });
    return select;
  });
  const check = () => {
    const usable = selects.some(({ value }) => ['findings', 'impression', 'text'].includes(value));
    $('columns-use').disabled = !usable;
    $('columns-note').textContent = text(!usable ? 'columns_needed' : ctRate ? 'columns_ct_rate' : 'columns_note');
  };
  const excerpt = (cell = '') => (cell.length > 80 ? `${cell.slice(0, 80)}…` : cell);
  const headRow = element('tr', {}, ...head.cells.map((name) => element('th', { scope: 'col' }, name)));
  $('columns-table').replaceChildren(
    element('thead', {}, headRow, element('tr', {}, ...selects.map((select) => element('td', {}, select)))),
    element('tbody', {}, ...rows.map(({ cells }) => element('tr', {}, ...head.cells.map((_, i) => element('td', {}, excerpt(cells[i])))))),
  );
  check();

  const dialog = $('columns');
  $('columns-text').hidden = !maybeText;
  dialog.returnValue = '';
  dialog.showModal();
  $('columns-use').focus();
  await new Promise((closed) => dialog.addEventListener('close', closed, { once: true }));
  $('columns-table').replaceChildren();
  if (dialog.returnValue === 'text') return file;
  if (dialog.returnValue !== 'use') return undefined;
  const bytes = new TextEncoder().encode(content.slice(0, head.end)).length;
  const mark = new Uint8Array(await file.slice(0, 3).arrayBuffer()).join() === BYTE_ORDER_MARK ? 3 : 0;
  return new Blob([headerFor(selects.map(({ value }) => value), delimiter), file.slice(mark + bytes)]);
}
