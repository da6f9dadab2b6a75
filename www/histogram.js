// The distribution of the values as read, beside the question whether they are Hounsfield units: with marks where air and water
// would be if they were.

import { element, svg } from './dom.js';
import { number, text } from './i18n.js';

/** @typedef {import('../pkg/index.js').Volume} Volume */

const SLICES = 16; // spread over the volume; the shape needs no more
const BINS = 96;
const [WIDTH, HEIGHT] = [480, 120];
const MARKS = /** @type {const} */ ([['air', -1000], ['water', 0]]);
const PADDING_BELOW = -1500; // HU; left out of statistics (NIFTI_AND_PRIVACY.md 6)
const ASKED = ['E_NOT_HU', 'W_HU_RAW', 'W_HU_OFFSET', 'W_MASK'];

/** @param {Volume} volume */
export const needsHistogram = ({ findings }) => findings.some(({ code }) => ASKED.includes(code));

/** How often each 16-bit value occurs, from -32768. @param {Volume} volume */
async function counted(volume) {
  const [, , count] = volume.dims;
  const indices = new Set(Array.from({ length: SLICES }, (_, i) => Math.floor(((i + 0.5) / SLICES) * count)));
  const counts = new Uint32Array(65536);
  for (const index of indices) for (const value of (await volume.slice('axial', index)).hu) counts[value + 32768] += 1;
  return counts;
}

/**
 * Bins over what occurs and over the marks.
 * @param {Uint32Array} counts from -32768 @returns {{ from: number, width: number, bins: number[], lowest: number, middle: number, highest: number }}
 */
export function binned(counts) {
  const lowest = counts.findIndex((n) => n > 0) - 32768;
  const highest = counts.findLastIndex((n) => n > 0) - 32768;
  let half = counts.reduce((sum, n) => sum + n, 0) / 2;
  const middle = counts.findIndex((n) => (half -= n) <= 0) - 32768;
  const shown = [lowest, highest, ...MARKS.map(([, hu]) => hu)];
  // Padding far below air would leave no room for the rest.
  const from = Math.max(Math.min(...shown), PADDING_BELOW);
  const width = Math.max(1, (Math.max(...shown) + 1 - from) / BINS);
  const bins = Array(BINS).fill(0);
  for (let value = Math.max(from, lowest); value <= highest; value++) bins[Math.min(BINS - 1, Math.floor((value - from) / width))] += counts[value + 32768];
  return { from, width, bins, lowest, middle, highest };
}

/** @param {Volume} volume @returns {Promise<Element[]>} the children of a figure */
export async function histogramOf(volume) {
  const { from, width, bins, lowest, middle, highest } = binned(await counted(volume));
  const most = Math.sqrt(Math.max(...bins));
  const x = (value) => (((value - from) / width) * WIDTH) / BINS;
  // Square roots: beside the air around the patient everything else would be flat.
  const bars = bins.map((n, i) => svg('rect', { x: (i * WIDTH) / BINS, width: WIDTH / BINS, y: HEIGHT * (1 - Math.sqrt(n) / most), height: (HEIGHT * Math.sqrt(n)) / most }));
  const marks = MARKS.flatMap(([, hu]) => [svg('line', { x1: x(hu), x2: x(hu), y1: 0, y2: HEIGHT })]);
  const words = text('histogram_values', { lowest: number(lowest), middle: number(middle), highest: number(highest) });
  const drawing = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${text('histogram')}: ${words}` }, ...bars, ...marks);
  const labels = element('div', { className: 'marks', 'aria-hidden': 'true' }, ...MARKS.map(([name, hu]) => {
    const label = element('span', {}, text('histogram_mark', { name: text(name), hu: number(hu) }));
    const percent = `${(100 * x(hu)) / WIDTH}%`;
    // Inside the figure also at its ends.
    Object.assign(label.style, { left: percent, translate: `-${percent}` });
    return label;
  }));
  return [element('figcaption', {}, text('histogram')), drawing, labels, element('p', { className: 'quiet' }, words)];
}
