// The map over the planes: whether it is shown, how strong, from which value on and against what; its colour bar (V-10, R-23 to R-25).

import { $ } from './dom.js';
import { number, text } from './i18n.js';
import { largest } from './overlay.js';
import { viewer } from './volume.js';

/** @typedef {Pick<import('./overlay.js').CubeMap, 'values' | 'dims' | 'min' | 'max'> & { unit: string, exact: boolean }} Given */

/** @type {Given | undefined} */
let given;

/** The same values less their mean: a cosine has a large part that all cells share. @param {Float32Array} values */
export function lessMean(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.map((value) => value - mean);
}

/** Edges of a cell in mm, once where they are equal. @param {Given} map @param {readonly number[]} spacingMm */
export function cellSize({ dims, min, max }, spacingMm) {
  const edges = dims.map((n, axis) => number(((max[axis] - min[axis]) / n) * spacingMm[axis], { maximumSignificantDigits: 2 }));
  return edges.every((edge) => edge === edges[0]) ? edges[0] : edges.join(' × ');
}

const isOn = () => $('map-on').getAttribute('aria-pressed') === 'true';

/** @param {Given} map @param {number} most @param {readonly number[]} spacingMm */
function wordsOf(map, most, spacingMm) {
  const end = (value) => number(value, { maximumSignificantDigits: 2, signDisplay: 'exceptZero' });
  return { low: end(-most), high: end(most), unit: map.unit, label: text(map.exact ? 'map_share' : 'map_other', { mm: cellSize(map, spacingMm) }) };
}

/** What belongs to the map wherever it is shown: the ends of its scale, its label and what was taken from it. */
export function legend() {
  const { map, volume } = viewer;
  if (!given || !map || !volume) return undefined;
  return { ...wordsOf(given, largest(map), volume.spacingMm), relative: $('map-relative').checked ? text('map_relative') : undefined };
}

function render() {
  const { volume } = viewer;
  $('legend').hidden = !given || !volume;
  if (!given || !volume) {
    viewer.showMap(undefined);
    return;
  }
  const values = $('map-relative').checked ? lessMean(given.values) : given.values;
  const map = { ...given, values, opacity: Number($('map-opacity').value), threshold: Number($('map-threshold').value), outlines: $('map-outlines').checked };
  viewer.showMap(isOn() ? map : undefined);
  for (const id of ['map-opacity', 'map-threshold']) $(id).setAttribute('aria-valuetext', number(Number($(id).value), { style: 'percent' }));
  const { low, high, unit, label } = wordsOf(given, largest(map), volume.spacingMm);
  $('legend-low').textContent = low;
  $('legend-high').textContent = high;
  $('legend-unit').textContent = unit;
  $('legend-note').textContent = label;
}

/** Lays a map over the planes, or takes it away. @param {Given | undefined} map */
export function lay(map) {
  given = map;
  render();
}

/** On and off; what was set stays. */
export function toggleMap() {
  if (!given) return;
  $('map-on').setAttribute('aria-pressed', String(!isOn()));
  render();
}

$('map-on').addEventListener('click', toggleMap);
for (const id of ['map-opacity', 'map-threshold', 'map-outlines', 'map-relative']) $(id).addEventListener('input', render);
