// A distance between two places of the volume, drawn over a plane (V-12). Places are in voxels of the volume.

import { svg } from './dom.js';
import { number, text } from './i18n.js';

/** @typedef {readonly number[]} Place */

/** @param {Place} from @param {Place} to @param {readonly number[]} spacingMm */
export const distanceMm = (from, to, spacingMm) => Math.hypot(...from.map((value, axis) => (value - to[axis]) * spacingMm[axis]));

export class Ruler {
  /** none, one while the other is looked for, or both @type {Place[]} */
  ends = [];
  #changed;

  /** @param {() => void} changed */
  constructor(changed) {
    this.#changed = changed;
  }

  /** The next end; a third one starts again. @param {Place} place */
  mark(place) {
    this.ends = this.ends.length === 1 ? [...this.ends, place] : [place];
    this.#changed();
  }

  /** The second end follows the pointer. @param {Place} from @param {Place} to */
  stretch(from, to) {
    this.ends = [from, to];
    this.#changed();
  }

  /** True when there was one. */
  remove() {
    const had = this.ends.length > 0;
    this.ends = [];
    this.#changed();
    return had;
  }

  /** @param {readonly number[]} spacingMm */
  words(spacingMm) {
    const [from, to] = this.ends;
    if (!from) return '';
    if (!to) return text('ruler_second');
    return text('ruler_length', { mm: number(distanceMm(from, to, spacingMm), { minimumFractionDigits: 1, maximumFractionDigits: 1 }) });
  }
}

/** What a view draws its ruler into. It says nothing by itself: the value stands beside the views. */
export const makeRulerLayer = () => svg('svg', { class: 'ruler', 'aria-hidden': 'true' });

/** @param {Element} layer @param {readonly (readonly [number, number])[]} ends across and down in parts of the view, none to draw nothing */
export function drawRuler(layer, ends) {
  const percent = (part) => `${100 * part}%`;
  const marks = ends.map(([x, y]) => svg('circle', { cx: percent(x), cy: percent(y), r: '4' }));
  const [from, to] = ends;
  const lines = to ? ['under', 'over'].map((name) => svg('line', { class: name, x1: percent(from[0]), y1: percent(from[1]), x2: percent(to[0]), y2: percent(to[1]) })) : [];
  layer.replaceChildren(...lines, ...marks);
}
