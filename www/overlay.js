// A map of values per cube over the planes, and its slab profile beside the slice slider.

/**
 * `values` [dims 2, dims 1, dims 0]: superior, posterior, left, each growing in that direction; `min` to `max` are the outer faces of
 * the cubes in voxels of the volume. Cells below `threshold` times the largest magnitude stay clear.
 * @typedef {{ values: Float32Array, dims: readonly number[], min: readonly number[], max: readonly number[], opacity: number, threshold: number,
 *   outlines?: boolean }} CubeMap
 */

// Orange above zero, blue below: ordered by lightness, told apart by people who do not tell red from green.
export const ABOVE = [255, 170, 60];
export const BELOW = [80, 160, 255];

/** @param {Pick<CubeMap, 'values'>} map */
export const largest = ({ values }) => values.reduce((most, value) => Math.max(most, Math.abs(value)), Number.MIN_VALUE);

/**
 * One pixel per cube, unsmoothed; the style sheet stretches it.
 * @param {HTMLCanvasElement} canvas
 * @param {CubeMap} map
 * @param {{ axis: number, column: number, row: number, part: number }} slice canonical axes, and where along the first, 0 to 1
 */
export function drawMap(canvas, map, { axis, column, row, part }) {
  const { values, dims } = map;
  const [width, height] = [dims[column], dims[row]];
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  const most = largest(map);
  const at = [0, 0, 0];
  at[axis] = Math.floor(part * dims[axis]);
  for (let y = 0; y < height; y++) {
    at[row] = row === 2 ? height - 1 - y : y; // superior is up
    for (let x = 0; x < width; x++) {
      at[column] = x;
      const share = values[(at[2] * dims[1] + at[1]) * dims[0] + at[0]] / most;
      if (Math.abs(share) < map.threshold) continue;
      image.data.set([...(share < 0 ? BELOW : ABOVE), 255 * map.opacity * Math.abs(share)], 4 * (y * width + x));
    }
  }
  canvas.getContext('2d')?.putImageData(image, 0, 0);
}

/** Sum of each slab from bottom to top. @param {CubeMap} map */
export function slabProfile({ values, dims }) {
  const slab = dims[0] * dims[1];
  return Array.from({ length: dims[2] }, (_, z) => values.subarray(z * slab, (z + 1) * slab).reduce((sum, value) => sum + value, 0));
}

/**
 * Bars over the axial slider, zero in the middle, each where its slab is along the slices.
 * @param {HTMLCanvasElement} canvas @param {CubeMap} map @param {{ min: readonly number[], max: readonly number[] }} grid
 */
export function drawProfile(canvas, map, grid) {
  const profile = slabProfile(map);
  const [width, height] = [480, 40];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d');
  if (!context) return;
  const most = Math.max(...profile.map(Math.abs), Number.MIN_VALUE);
  const x = (voxel) => (width * (voxel - grid.min[2])) / (grid.max[2] - grid.min[2]);
  const thick = (map.max[2] - map.min[2]) / profile.length;
  for (const [i, value] of profile.entries()) {
    const from = x(map.min[2] + i * thick);
    context.fillStyle = `rgb(${(value < 0 ? BELOW : ABOVE).join()})`;
    const tall = (height / 2) * (value / most);
    context.fillRect(from + 1, height / 2 - Math.max(0, tall), x(map.min[2] + (i + 1) * thick) - from - 2, Math.max(1, Math.abs(tall)));
  }
}
