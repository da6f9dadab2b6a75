// Maximum intensity projection of neighbouring slices (V-13), folded here one slice after the other: no more than two are held.

/** @typedef {import('../pkg/index.js').Slice} Slice */

/**
 * First and last slice of a slab about `index`, inside the volume.
 * @param {number} index @param {number} count slices of the plane @param {number} spacingMm between slices @param {number} thicknessMm
 */
export function slabRange(index, count, spacingMm, thicknessMm) {
  const half = Math.max(0, Math.round((thicknessMm / spacingMm - 1) / 2));
  return [Math.max(0, index - half), Math.min(count - 1, index + half)];
}

/**
 * The slice of `index`, each pixel the highest of the slab.
 * @param {(index: number) => Promise<Slice>} cut @param {number} index @param {readonly number[]} range first and last slice
 * @returns {Promise<Slice>}
 */
export async function maximum(cut, index, [first, last]) {
  const middle = await cut(index);
  for (let i = first; i <= last; i++) {
    if (i === index) continue;
    const { hu } = await cut(i);
    for (let at = 0; at < hu.length; at++) if (hu[at] > middle.hu[at]) middle.hu[at] = hu[at];
  }
  return middle;
}
