// Voxels that a program holds, as a NIfTI-1 file: one reader checks everything.

import { CtmatchError } from './error.js';

const HEADER_BYTES = 352;
// Row and sign in world coordinates (RAS+) of the direction that a letter names.
/** @type {Record<string, [row: number, sign: number]>} */
const DIRECTIONS = { R: [0, 1], L: [0, -1], A: [1, 1], P: [1, -1], S: [2, 1], I: [2, -1] };

/** @param {{ data: Int16Array, dims: import('./index.js').Triple, spacingMm: import('./index.js').Triple, orientation: string }} source */
export function niftiOf({ data, dims, spacingMm, orientation }) {
  const axes = [...`${orientation}`].map((letter) => DIRECTIONS[letter]);
  if (!(data instanceof Int16Array) || data.length !== dims?.[0] * dims?.[1] * dims?.[2] || axes.length !== 3 || new Set(axes.map((axis) => axis?.[0])).size !== 3
    || axes.includes(/** @type {any} */ (undefined)) || !spacingMm?.every((mm) => mm > 0)) {
    throw new CtmatchError('INVALID_ARGUMENT', 'expected HU as an Int16Array of dims, spacings above 0, and an orientation such as LPS');
  }
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  const int16 = (/** @type {number} */ at, /** @type {number[]} */ ...values) => values.forEach((value, i) => header.setInt16(at + 2 * i, value, true));
  const float = (/** @type {number} */ at, /** @type {number} */ value) => header.setFloat32(at, value, true);
  header.setInt32(0, 348, true);
  int16(40, 3, ...dims, 1, 1, 1, 1);
  int16(70, 4, 16); // datatype and bits of INT16
  spacingMm.forEach((mm, i) => {
    const [row, sign] = axes[i];
    float(80 + 4 * i, mm);
    float(280 + 16 * row + 4 * i, sign * mm); // srow_x, srow_y, srow_z
  });
  float(76, 1);
  float(108, HEADER_BYTES);
  float(112, 1); // slope
  header.setUint8(123, 2); // mm
  int16(254, 1); // sform_code: scanner
  header.setUint32(344, 0x6e2b3100); // n+1
  return new Blob([header, /** @type {Int16Array<ArrayBuffer>} */ (data)]);
}
