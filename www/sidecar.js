// CT-RATE keeps slope and intercept of its first release in a table beside the volumes: the row of one volume.

import { volumeName } from './choice.js';
import { delimiterOf, firstRecords } from './table.js';

const COLUMNS = ['volumename', 'rescaleslope', 'rescaleintercept'];

/** @param {string} message */
const refuse = (message) => Object.assign(new Error(message), { code: 'SIDECAR' });

/**
 * @param {string} content of the table
 * @param {string} name of the volume's file, without folder and ending; a table of one row needs none
 */
export function scalingIn(content, name) {
  const [head, ...rows] = firstRecords(content, delimiterOf(content), Infinity);
  const names = (head?.cells ?? []).map((cell) => cell.trim().toLowerCase());
  const at = COLUMNS.map((column) => names.indexOf(column));
  const missing = COLUMNS.filter((_, i) => at[i] < 0);
  if (missing.length > 0) throw refuse(`expected the columns ${COLUMNS.join(', ')}; missing: ${missing.join(', ')}`);
  const row = rows.length === 1 ? rows[0] : rows.find(({ cells }) => volumeName(cells[at[0]]) === name);
  if (!row) throw refuse(`expected a row for this volume, found none in ${rows.length}`);
  const [slope, intercept] = at.slice(1).map((i) => Number(row.cells[i] || NaN));
  if (!Number.isFinite(slope) || !Number.isFinite(intercept)) throw refuse('expected numbers in the row of this volume');
  return { slope, intercept };
}
