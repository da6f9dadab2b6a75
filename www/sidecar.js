// CT-RATE keeps slope, intercept and spacing of its first release in a table beside the volumes: the row of one volume.

import { volumeName } from './choice.js';
import { delimiterOf, firstRecords } from './table.js';

const COLUMNS = ['volumename', 'rescaleslope', 'rescaleintercept'];
const SPACING = ['xyspacing', 'zspacing'];

/** @param {string} message */
const refuse = (message) => Object.assign(new Error(message), { code: 'SIDECAR' });

/** @param {string | undefined} cell */
const numberIn = (cell) => Number(cell?.trim() || NaN);

/**
 * @param {string} content of the table
 * @param {string} name of the volume's file, without folder and ending; a table of one row needs none
 * @returns {{ scaling: { slope: number, intercept: number }, sidecar?: import('../pkg/index.js').ReadOptions['sidecar'] }} `sidecar`: where the
 *   table has the spacing too
 */
export function rowIn(content, name) {
  const [head, ...rows] = firstRecords(content, delimiterOf(content), Infinity);
  const names = (head?.cells ?? []).map((cell) => cell.trim().toLowerCase());
  const missing = COLUMNS.filter((column) => !names.includes(column));
  if (missing.length > 0) throw refuse(`expected the columns ${COLUMNS.join(', ')}; missing: ${missing.join(', ')}`);
  const cellOf = (row, column) => row.cells[names.indexOf(column)] ?? '';
  const row = rows.length === 1 ? rows[0] : rows.find((other) => volumeName(cellOf(other, COLUMNS[0])) === name);
  if (!row) throw refuse(`expected a row for this volume, found none in ${rows.length}`);
  const [slope, intercept] = COLUMNS.slice(1).map((column) => numberIn(cellOf(row, column)));
  if (!Number.isFinite(slope) || !Number.isFinite(intercept)) throw refuse('expected numbers in the row of this volume');
  if (!SPACING.every((column) => names.includes(column))) return { scaling: { slope, intercept } };
  // One number or a list such as [0.7, 0.7].
  const xySpacing = cellOf(row, SPACING[0]).replace(/^\s*[[(]|[\])]\s*$/g, '').split(',').map(numberIn);
  const zSpacing = numberIn(cellOf(row, SPACING[1]));
  if (![...xySpacing, zSpacing].every((mm) => mm > 0 && Number.isFinite(mm))) throw refuse('expected a spacing in the row of this volume');
  return { scaling: { slope, intercept }, sidecar: { rescaleSlope: slope, rescaleIntercept: intercept, xySpacing, zSpacing } };
}
