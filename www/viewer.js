// Three linked planes on canvas. Slices come from the session as int16 HU; the window is applied here, so changing it
// needs no new slice. No full copy of the volume is kept.

import { number, text } from './i18n.js';
import { permutation } from './orientation.js';
import { drawMap, drawProfile, slabProfile } from './overlay.js';
import { Ruler, drawRuler, makeRulerLayer } from './ruler.js';

/** @typedef {import('../pkg/index.js').Volume} Volume @typedef {import('../pkg/index.js').Slice} Slice */
/**
 * What is cut into slices: `min` to `max` are its outer faces in voxels of the volume, along left, posterior and superior.
 * @typedef {{ name: 'native' | 'model', dims: readonly number[], min: readonly number[], max: readonly number[] }} Grid
 */

// Width and level in HU: VIEWER_AND_RANKING_UI.md 3. `auto` is computed.
export const WINDOWS = Object.freeze({
  lung: [1500, -600], mediastinum: [350, 50], bone: [1800, 400], model: [2000, 0],
});
const WIDTH_LIMITS = [1, 8000];
const LEVEL_LIMITS = [-2000, 4000];

const SLICES_KEPT = 8; // per plane
const AHEAD = 2; // slices fetched in the direction of scrolling
const MAX_ZOOM = 16;
const PAGE = 10; // slices
const CLICK_PIXELS = 3; // a pointer that moves less was not dragged

// `axes`: which canonical axis (left, posterior, superior) is the slice index, the column and the row. Superior is up.
const PLANES = {
  axial: { axes: [2, 0, 1], letters: { left: 'R', right: 'L', top: 'A', bottom: 'P' } },
  coronal: { axes: [1, 0, 2], letters: { left: 'R', right: 'L', top: 'S', bottom: 'I' } },
  sagittal: { axes: [0, 1, 2], letters: { left: 'A', right: 'P', top: 'S', bottom: 'I' } },
};
// World mm grow to the right, to the front and up, as in the header of a NIfTI file: letters below and from zero.
const WORLD = ['LR', 'PA', 'IS'];

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** @param {string} tag @param {string} [className] @returns {any} */
const make = (tag, className = '') => Object.assign(document.createElement(tag), { className });

/** @param {Volume} volume @returns {Grid} */
const nativeGrid = ({ dims }) => ({ name: 'native', dims, min: dims.map(() => -0.5), max: dims.map((n) => n - 0.5) });

/** One plane: canvas, letters, cross-hair, slider; keeps few slices and asks only for the newest. */
class PlaneView {
  /** @type {Map<number, Slice>} */
  slices = new Map();
  /** @type {Map<number, Promise<Slice>>} */
  pending = new Map();
  /** the one that is shown @type {Slice | undefined} */
  slice;
  busy = false;
  direction = 1;
  /** painted into again and again @type {ImageData | undefined} */
  image;
  /** `x`, `y`: where the image's corner is, in parts of the view */
  look = { zoom: 1, x: 0, y: 0 };

  /** @param {keyof typeof PLANES} name @param {Viewer} viewer */
  constructor(name, viewer) {
    this.name = name;
    this.viewer = viewer;
    this.plane = PLANES[name];
    this.figure = make('figure', 'plane');
    this.figure.dataset.plane = name;
    this.view = make('div', 'view');
    this.view.tabIndex = 0;
    this.view.setAttribute('role', 'group');
    this.stage = make('div', 'stage');
    this.canvas = make('canvas');
    this.map = make('canvas', 'map');
    this.map.hidden = true;
    this.box = make('div', 'box');
    this.box.hidden = true;
    this.cells = make('div', 'cells');
    this.cells.hidden = true;
    this.stage.append(this.canvas, this.map, this.cells, this.box);
    for (const canvas of [this.canvas, this.map]) canvas.setAttribute('role', 'img');
    this.letters = Object.keys(this.plane.letters).map((edge) => [edge, make('span', `letter ${edge}`)]);
    this.crossV = make('div', 'cross v');
    this.crossH = make('div', 'cross h');
    this.ruler = makeRulerLayer();
    this.view.append(this.stage, this.crossV, this.crossH, this.ruler, ...this.letters.map(([, letter]) => letter));
    this.profile = make('canvas', 'profile');
    this.profile.hidden = true;
    this.profile.setAttribute('role', 'img');
    this.slider = Object.assign(make('input'), { type: 'range', min: '0', step: '1' });
    this.caption = make('figcaption');
    this.enlarge = Object.assign(make('button'), { type: 'button', textContent: '⤢' });
    const foot = make('div', 'foot');
    foot.append(this.caption, this.enlarge);
    this.figure.append(this.view, this.profile, this.slider, foot);

    this.enlarge.addEventListener('click', () => viewer.enlarge(this.name));
    this.slider.addEventListener('input', () => this.move(Number(this.slider.value)));
    this.view.addEventListener('wheel', (event) => {
      event.preventDefault();
      if (event.ctrlKey) this.zoom(event.deltaY < 0 ? 1.25 : 0.8, ...this.fraction(event));
      else this.move(this.index + Math.sign(event.deltaY));
    }, { passive: false });
    this.view.addEventListener('keydown', (event) => this.onKey(event));
    this.view.addEventListener('pointerdown', (event) => this.onDrag(event));
    this.view.addEventListener('pointermove', (event) => viewer.probe(this.voxelAt(event), this.huAt(event)));
    this.view.addEventListener('pointerleave', () => viewer.probe());
    this.view.addEventListener('contextmenu', (event) => event.preventDefault());
  }

  get grid() {
    return /** @type {Grid} */ (this.viewer.grid);
  }

  get count() {
    return this.grid.dims[this.plane.axes[0]];
  }

  /** Of the slice at the cross-hair. */
  get index() {
    return this.indexOf(this.viewer.position);
  }

  /** Of the slice that holds a place. @param {readonly number[]} place in voxels of the volume */
  indexOf(place) {
    return clamp(Math.floor(this.along(this.plane.axes[0], place) * this.count), 0, this.count - 1);
  }

  /** Where a place is on an axis of the grid, 0 to 1. @param {number} axis @param {readonly number[]} place in voxels of the volume */
  along(axis, place) {
    const { min, max } = this.grid;
    return (place[axis] - min[axis]) / (max[axis] - min[axis]);
  }

  // ---- input

  onKey(event) {
    const slices = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -PAGE, PageDown: PAGE, Home: -Infinity, End: Infinity };
    const pans = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 0], ArrowRight: [-1, 0] };
    const acts = {
      zoom_in: () => this.zoom(1.25), zoom_out: () => this.zoom(0.8), fit: () => this.fit(), invert: () => this.viewer.invert(),
      ruler: () => this.viewer.ruler.mark(this.viewer.position),
    };
    for (const name of [...Object.keys(WINDOWS), 'auto']) acts[`window_${name}`] = () => this.viewer.preset(name);
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === 'Escape' && this.viewer.ruler.remove()) return event.preventDefault();
    const action = this.viewer.actionOf(event.key) ?? '';
    if (event.shiftKey && event.key in pans) this.pan(...pans[event.key].map((part) => part * 0.1));
    else if (event.key in slices) this.move(this.index + slices[event.key]);
    else if (event.key === ' ') this.viewer.reset();
    else if (action in acts) acts[action]();
    else if (!this.viewer.act(action)) return;
    event.preventDefault();
  }

  /** The chosen tool with the first button, the window with the second, the image with the third or with Shift. */
  onDrag(event) {
    const tool = event.button === 2 ? 'window' : event.button === 1 || event.shiftKey ? 'pan' : this.viewer.tool;
    const { width, level, ruler } = this.viewer;
    let [x, y] = [event.clientX, event.clientY];
    const [startX, startY] = [x, y];
    const start = tool === 'ruler' ? this.placeAt(event) : [];
    const move = (at) => {
      if (tool === 'cross') this.viewer.moveTo(this.voxelAt(at));
      else if (tool === 'ruler') {
        if (Math.hypot(at.clientX - startX, at.clientY - startY) > CLICK_PIXELS) ruler.stretch(start, this.placeAt(at));
      }
      // 4 HU a pixel: a bone window is within a hand's reach of a lung window.
      else if (tool === 'window') this.viewer.setWindow(width + 4 * (at.clientX - startX), level + 4 * (at.clientY - startY));
      else {
        const frame = this.view.getBoundingClientRect();
        this.pan((at.clientX - x) / frame.width, (at.clientY - y) / frame.height);
        [x, y] = [at.clientX, at.clientY];
      }
    };
    if (tool === 'cross') move(event);
    // A click is one end, a drag is both.
    if (tool === 'ruler') ruler.mark(start);
    this.view.setPointerCapture(event.pointerId);
    this.view.addEventListener('pointermove', move);
    this.view.addEventListener('lostpointercapture', () => this.view.removeEventListener('pointermove', move), { once: true });
  }

  /** @param {number} index of the shown grid */
  move(index) {
    const [axis] = this.plane.axes;
    const position = [...this.viewer.position];
    position[axis] = this.viewer.voxel(axis, clamp(index, 0, this.count - 1));
    this.viewer.moveTo(position);
  }

  /** Where in the image a pointer is, 0 to 1 across and down. */
  fraction(event) {
    const frame = this.view.getBoundingClientRect();
    const { zoom, x, y } = this.look;
    const inside = (value) => clamp(value, 0, 1 - Number.EPSILON);
    return [inside(((event.clientX - frame.left) / frame.width - x) / zoom), inside(((event.clientY - frame.top) / frame.height - y) / zoom)];
  }

  /** In voxels of the volume, exactly under the pointer. */
  placeAt(event) {
    const [across, down] = this.fraction(event);
    const [, column, row] = this.plane.axes;
    const { min, max } = this.grid;
    const place = [...this.viewer.position];
    place[column] = min[column] + across * (max[column] - min[column]);
    place[row] = min[row] + (row === 2 ? 1 - down : down) * (max[row] - min[row]);
    return place;
  }

  /** In voxels of the volume, at the middle of what is under the pointer. */
  voxelAt(event) {
    const [across, down] = this.fraction(event);
    const [, column, row] = this.plane.axes;
    const position = [...this.viewer.position];
    // The pixel first, as `value` finds it, so that place and HU are of one voxel also on the line between two.
    const at = (axis, part, turned = false) => {
      const { [axis]: count } = this.grid.dims;
      const pixel = clamp(Math.floor(part * count), 0, count - 1);
      return this.viewer.voxel(axis, turned ? count - 1 - pixel : pixel);
    };
    position[column] = at(column, across);
    position[row] = at(row, down, row === 2); // superior is up
    return position;
  }

  /** @param {readonly [number, number]} fraction */
  value([across, down]) {
    if (!this.slice || this.sliceIndex !== this.index) return undefined;
    const { hu, width, height } = this.slice;
    return hu[clamp(Math.floor(down * height), 0, height - 1) * width + clamp(Math.floor(across * width), 0, width - 1)];
  }

  huAt(event) {
    return this.value(this.fraction(event));
  }

  /** Where the cross-hair is in the image, 0 to 1 across and down. */
  get cross() {
    return this.inImage(this.viewer.position);
  }

  /** Where a place is in the image, 0 to 1 across and down. @param {readonly number[]} place @returns {[number, number]} */
  inImage(place) {
    const [, column, row] = this.plane.axes;
    const down = this.along(row, place);
    return [this.along(column, place), row === 2 ? 1 - down : down];
  }

  // ---- zoom and pan

  /** Keeps the given point of the image where it is; by default the cross-hair. */
  zoom(factor, across = this.cross[0], down = this.cross[1]) {
    const { zoom, x, y } = this.look;
    const next = clamp(zoom * factor, 1, MAX_ZOOM);
    this.look = { zoom: next, x: x + across * (zoom - next), y: y + down * (zoom - next) };
    this.place();
  }

  /** @param {number} x @param {number} y parts of the view */
  pan(x, y) {
    this.look = { ...this.look, x: this.look.x + x, y: this.look.y + y };
    this.place();
  }

  fit() {
    this.look = { zoom: 1, x: 0, y: 0 };
    this.place();
  }

  place() {
    const { look } = this;
    look.x = clamp(look.x, 1 - look.zoom, 0);
    look.y = clamp(look.y, 1 - look.zoom, 0);
    this.stage.style.transform = `translate(${100 * look.x}%, ${100 * look.y}%) scale(${look.zoom})`;
    const inView = (place) => {
      const [across, down] = this.inImage(place);
      return /** @type {[number, number]} */ ([look.x + across * look.zoom, look.y + down * look.zoom]);
    };
    const [across, down] = inView(this.viewer.position);
    this.crossV.style.left = `${100 * across}%`;
    this.crossH.style.top = `${100 * down}%`;
    const { ends } = this.viewer.ruler;
    drawRuler(this.ruler, ends.every((end) => this.indexOf(end) === this.index) ? ends.map(inView) : []);
  }

  // ---- slices

  reset() {
    this.slices.clear();
    this.pending.clear();
    this.slice = undefined;
    this.slider.max = String(this.count - 1);
  }

  /** @param {number} index @returns {Promise<Slice>} */
  async fetch(index) {
    const { volume, grid, slabMm } = this.viewer;
    const kept = this.slices.get(index);
    const asked = kept ?? this.pending.get(index) ?? /** @type {Volume} */ (volume).slice(this.name, index, { grid: grid?.name, slabMm });
    if (!kept) this.pending.set(index, /** @type {Promise<Slice>} */ (asked));
    const slice = /** @type {Slice} */ (await asked);
    if (grid !== this.viewer.grid) return slice;
    this.pending.delete(index);
    this.slices.delete(index);
    this.slices.set(index, slice);
    if (this.slices.size > SLICES_KEPT) this.slices.delete(/** @type {number} */ (this.slices.keys().next().value));
    return slice;
  }

  /** Shows the slice at the cross-hair, now or as soon as it is there. @returns {Promise<void>} */
  update() {
    if (Number(this.slider.value) !== this.index) this.direction = Math.sign(this.index - Number(this.slider.value));
    this.slider.value = String(this.index);
    this.place();
    if (!this.busy) {
      this.busy = true;
      this.settled = this.follow();
    }
    return this.settled;
  }

  async follow() {
    try {
      while (this.sliceIndex !== this.index || !this.slice) {
        const { grid, index } = this;
        const slice = await this.fetch(index);
        if (grid !== this.grid) continue;
        this.slice = slice;
        this.sliceIndex = index;
        this.paint();
      }
      this.label();
      this.viewer.showCross();
    } catch (error) {
      // A volume closed for its successor: the successor's update follows.
      if (error?.code !== 'CLOSED') this.viewer.onError(error);
    } finally {
      this.busy = false;
    }
    this.ahead();
  }

  /** The next slices in the direction of scrolling, while nothing newer is asked for. */
  async ahead() {
    const { index } = this;
    const { grid } = this.viewer;
    // A slab is many slices: the next one would keep the worker from what is asked for now.
    for (let step = 1; step <= (this.viewer.slabMm ? 0 : AHEAD); step++) {
      const next = index + step * this.direction;
      if (this.busy || grid !== this.viewer.grid || this.index !== index || next < 0 || next >= this.count || this.slices.has(next)) return;
      try {
        await this.fetch(next);
      } catch {
        return; // it will be asked for again when it is shown
      }
    }
  }

  paint() {
    if (!this.slice) return;
    const { hu, width, height, spacingMm } = this.slice;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const ratio = (width * spacingMm[0]) / (height * spacingMm[1]);
    this.view.style.aspectRatio = String(ratio);
    this.view.style.setProperty('--ratio', String(ratio));
    if (this.image?.width !== width || this.image.height !== height) this.image = new ImageData(width, height);
    const pixels = new Uint32Array(this.image.data.buffer);
    const { grey } = this.viewer;
    for (let i = 0; i < hu.length; i++) pixels[i] = grey[hu[i] & 0xffff];
    this.canvas.getContext('2d').putImageData(this.image, 0, 0);
    this.paintBox();
    this.paintMap();
  }

  /** Sets an element over the part of the image from `min` to `max`, in voxels of the volume. */
  cover(element, { min, max }) {
    const { grid } = this;
    const [, column, row] = this.plane.axes;
    const part = (axis, value) => (value - grid.min[axis]) / (grid.max[axis] - grid.min[axis]);
    const [left, right] = [part(column, min[column]), part(column, max[column])];
    const [top, bottom] = row === 2 ? [1 - part(row, max[row]), 1 - part(row, min[row])] : [part(row, min[row]), part(row, max[row])];
    Object.assign(element.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
  }

  /** What the model does not see is dimmed (V-25). */
  paintBox() {
    const { box } = this.viewer;
    const shown = box !== undefined && this.grid.name === 'native';
    const at = this.viewer.position[this.plane.axes[0]];
    const inside = shown && at > box.min[this.plane.axes[0]] && at < box.max[this.plane.axes[0]];
    this.box.hidden = !inside;
    this.stage.classList.toggle('outside', shown && !inside);
    if (inside) this.cover(this.box, box);
  }

  paintMap() {
    const { map } = this.viewer;
    this.map.hidden = this.cells.hidden = true;
    this.profile.hidden = !map || this.name !== 'axial';
    if (!map) return;
    const [axis, column, row] = this.plane.axes;
    const part = (this.viewer.position[axis] - map.min[axis]) / (map.max[axis] - map.min[axis]);
    if (part >= 0 && part < 1) {
      this.map.hidden = false;
      this.cover(this.map, map);
      drawMap(this.map, map, { axis, column, row, part });
      if (map.outlines) {
        this.cells.hidden = false;
        this.cover(this.cells, map);
        this.cells.style.backgroundSize = `${100 / map.dims[column]}% ${100 / map.dims[row]}%`;
      }
    }
    if (this.name !== 'axial') return;
    drawProfile(this.profile, map, this.grid);
    this.labelProfile();
  }

  /** What the bars of the profile say (1.1.1). */
  labelProfile() {
    const { map } = this.viewer;
    const value = (sum) => number(sum, { maximumSignificantDigits: 2, signDisplay: 'exceptZero' });
    this.profile.setAttribute('aria-label', [text('profile'), ...(map ? [slabProfile(map).map(value).join('; ')] : [])].join(': '));
  }

  label() {
    const { lettersHidden } = this.viewer;
    for (const [edge, letter] of this.letters) letter.textContent = lettersHidden ? '?' : this.plane.letters[edge];
    this.slider.setAttribute('aria-label', text('slice_slider', { plane: text(this.name) }));
    this.enlarge.setAttribute('aria-label', text('enlarge', { plane: text(this.name) }));
    if (!this.slice) return;
    const mm = number(this.slice.positionMm, { maximumFractionDigits: 1 });
    const place = text('slice_of', { plane: text(this.name), n: this.index + 1, total: this.count, mm });
    const { slices } = this.slice;
    const line = slices > 1 ? `${place} · ${text('slab_of', { n: slices })}` : place;
    this.caption.textContent = line;
    const hu = this.value(this.cross);
    const label = hu === undefined ? line : `${line}, ${text(this.viewer.inHu ? 'hu_at_cross' : 'value_at_cross', { hu })}`;
    for (const element of [this.view, this.canvas]) element.setAttribute('aria-label', label);
    this.slider.setAttribute('aria-valuetext', line);
    this.map.setAttribute('aria-label', text('map_of', { plane: text(this.name) }));
    this.labelProfile();
  }
}

export class Viewer {
  /** @type {Volume | undefined} */
  volume;
  /** @type {Grid | undefined} */
  grid;
  /** letters are shown as `?` */
  lettersHidden = false;
  /** the values are in Hounsfield units, as far as the file check can tell */
  inHu = true;
  /** of the cross-hair, in voxels of the volume */
  position = [0, 0, 0];
  /** the model's field of view, when it is to be shown @type {import('../pkg/index.js').VoxelBox | undefined} */
  box;
  /** over the planes, when there is one @type {import('./overlay.js').CubeMap | undefined} */
  map;
  /** what dragging does: `cross`, `window`, `pan` or `ruler` */
  tool = 'cross';
  inverted = false;
  /** thickness of a maximum intensity projection, 0 for single slices */
  slabMm = 0;
  ruler = new Ruler(() => this.showRuler());
  /** what a key of one character does @type {(key: string) => string | undefined} */
  actionOf = () => undefined;
  /** actions that belong to the page; true when it was one of them @type {(action: string) => boolean} */
  act = () => false;
  // Grey as RGBA in memory order, by the 16 bits of the HU.
  grey = new Uint32Array(65536);

  /**
   * @param {{ planes: HTMLElement, presets: HTMLElement, width: HTMLInputElement, level: HTMLInputElement, probe: HTMLOutputElement,
   *   cross: HTMLOutputElement, length: HTMLOutputElement }} elements
   * @param {(error: unknown) => void} onError
   */
  constructor({ planes, presets, width, level, probe, cross, length }, onError) {
    this.onError = onError;
    this.widthInput = width;
    this.levelInput = level;
    this.probeOutput = probe;
    this.crossOutput = cross;
    this.lengthOutput = length;
    this.planes = planes;
    this.views = /** @type {(keyof typeof PLANES)[]} */ (Object.keys(PLANES)).map((name) => new PlaneView(name, this));
    planes.append(...this.views.map((view) => view.figure));
    this.presetButtons = [...Object.keys(WINDOWS), 'auto'].map((name) => {
      const button = Object.assign(make('button'), { type: 'button' });
      button.dataset.window = name;
      button.dataset.text = `window_${name}`;
      button.addEventListener('click', () => this.preset(name));
      return button;
    });
    presets.append(...this.presetButtons);
    for (const input of [width, level]) input.addEventListener('change', () => this.setWindow(Number(width.value), Number(level.value)));
    this.preset('lung');
  }

  /** @param {Volume} volume @param {boolean} [keepPosition] the same file, read again */
  show(volume, keepPosition = false) {
    this.volume = volume;
    this.box = undefined;
    this.map = undefined;
    this.ruler.ends = [];
    if (!keepPosition) {
      this.position = volume.dims.map((n) => Math.floor(n / 2));
      for (const view of this.views) view.look = { zoom: 1, x: 0, y: 0 };
    }
    return this.cut(nativeGrid(volume));
  }

  /** No volume. */
  clear() {
    Object.assign(this, { volume: undefined, grid: undefined, box: undefined, map: undefined });
    this.ruler.ends = [];
    for (const view of this.views) {
      view.slices.clear();
      view.pending.clear();
      view.slice = undefined;
      // A canvas of no size keeps no pixels.
      for (const canvas of [view.canvas, view.map, view.profile]) Object.assign(canvas, { width: 0, height: 0 });
    }
  }

  /** Slices of another grid at the same place. @param {Grid} grid */
  cut(grid) {
    this.grid = grid;
    for (const view of this.views) view.reset();
    this.moveTo(this.position);
    this.shown = Promise.all(this.views.map((view) => view.settled));
    return this.shown;
  }

  /** What the model sees, or the volume (V-24). @param {import('../pkg/index.js').VoxelBox | undefined} box the model's field of view */
  async showModelGrid(box) {
    const { volume } = this;
    if (!volume) return undefined;
    if (!box) return this.cut(nativeGrid(volume));
    const [axial, coronal] = await Promise.all([volume.slice('axial', 0, { grid: 'model' }), volume.slice('coronal', 0, { grid: 'model' })]);
    return this.cut({ name: 'model', dims: [axial.width, axial.height, coronal.height], min: box.min, max: box.max });
  }

  /** Middle of a slice of the shown grid, in voxels of the volume. @param {number} axis @param {number} index */
  voxel(axis, index) {
    const { min, max, dims } = /** @type {Grid} */ (this.grid);
    return min[axis] + ((index + 0.5) / dims[axis]) * (max[axis] - min[axis]);
  }

  update() {
    return Promise.all(this.views.map((view) => view.update()));
  }

  /** @param {readonly number[]} position in voxels of the volume */
  moveTo(position) {
    const { grid } = this;
    if (!grid) return Promise.resolve();
    this.position = position.map((value, axis) => clamp(value, this.voxel(axis, 0), this.voxel(axis, grid.dims[axis] - 1)));
    for (const view of this.views) view.paintBox();
    return this.update();
  }

  /** Zooms all planes about the cross-hair. @param {number} factor */
  zoom(factor) {
    for (const view of this.views) view.zoom(factor);
  }

  fit() {
    for (const view of this.views) view.fit();
  }

  /** Fit, middle, lung window, not inverted. */
  reset() {
    this.fit();
    this.inverted = false;
    this.preset('lung');
    if (this.volume) this.moveTo(this.volume.dims.map((n) => Math.floor(n / 2)));
  }

  /** One plane alone, or all three. @param {string} name */
  enlarge(name) {
    this.planes.dataset.only = this.planes.dataset.only === name ? '' : name;
    for (const view of this.views) {
      view.figure.hidden = Boolean(this.planes.dataset.only) && this.planes.dataset.only !== view.name;
      view.enlarge.setAttribute('aria-pressed', String(this.planes.dataset.only === view.name));
    }
  }

  /** @param {number} thicknessMm 0 for single slices */
  showSlab(thicknessMm) {
    this.slabMm = thicknessMm;
    return this.grid && this.cut({ ...this.grid });
  }

  showRuler() {
    if (!this.volume) return;
    for (const view of this.views) view.place();
    const words = this.ruler.words(this.volume.spacingMm);
    /** @type {HTMLElement} */ (this.lengthOutput.closest('div')).hidden = words === '';
    this.lengthOutput.textContent = words;
  }

  /** @param {import('../pkg/index.js').VoxelBox | undefined} box */
  showBox(box) {
    this.box = box;
    for (const view of this.views) view.paintBox();
  }

  /** @param {import('./overlay.js').CubeMap | undefined} map */
  showMap(map) {
    this.map = map;
    for (const view of this.views) view.paintMap();
  }

  // ---- values

  /** World mm in words. @param {readonly number[]} world along right, anterior, superior */
  words(world) {
    return world.map((exact, axis) => {
      const value = Math.round(exact * 100) / 100;
      return `${this.lettersHidden ? '?' : WORLD[axis][Number(value >= 0)]} ${number(Math.abs(value), { maximumFractionDigits: 1 })}`;
    }).join(' ');
  }

  /** A place in words: mm, and the voxel as the file counts it, so that other programs find it (V-18). @param {readonly number[]} voxel along left, posterior, superior */
  place(voxel) {
    const { affine, dims, orientation } = /** @type {Volume} */ (this.volume);
    const mm = this.words(affine.map(([l, p, s, offset]) => l * voxel[0] + p * voxel[1] + s * voxel[2] + offset));
    const nearest = voxel.map(Math.round);
    const [x, y, z] = permutation(orientation).reduce((/** @type {number[]} */ stored, along, axis) => {
      stored[Math.abs(along) - 1] = along > 0 ? nearest[axis] : dims[axis] - 1 - nearest[axis];
      return stored;
    }, []);
    return { x, y, z, mm };
  }

  /** @param {readonly number[]} [voxel] @param {number} [hu] */
  probe(voxel, hu) {
    this.probeOutput.textContent = !voxel || hu === undefined || !this.volume ? '' : text(this.inHu ? 'probe' : 'probe_not_hu', { hu, ...this.place(voxel) });
  }

  showCross() {
    const [axial] = this.views;
    const hu = axial.value(axial.cross);
    if (hu !== undefined) this.crossOutput.textContent = text(this.inHu ? 'probe' : 'probe_not_hu', { hu, ...this.place(this.position) });
  }

  // ---- window

  preset(name) {
    if (name === 'auto') this.setWindow(...this.autoWindow(), name);
    else this.setWindow(...WINDOWS[name], name);
  }

  /** 0.5 to 99.5 percentile of what is shown. */
  autoWindow() {
    const values = this.views.flatMap((view) => (view.slice ? [view.slice.hu] : []));
    const counts = new Uint32Array(65536);
    let total = 0;
    for (const hu of values) {
      for (const value of hu) counts[value + 32768] += 1;
      total += hu.length;
    }
    const percentile = (share) => {
      let seen = 0;
      return counts.findIndex((count) => (seen += count) > share * total) - 32768;
    };
    if (total === 0) return WINDOWS.lung;
    const [low, high] = [percentile(0.005), percentile(0.995)];
    return [high - low, Math.round((high + low) / 2)];
  }

  /** @param {number} width @param {number} level HU @param {string} [name] of the preset */
  setWindow(width, level, name) {
    this.width = clamp(Math.round(width) || 1, ...WIDTH_LIMITS);
    this.level = clamp(Math.round(level) || 0, ...LEVEL_LIMITS);
    this.widthInput.value = String(this.width);
    this.levelInput.value = String(this.level);
    for (const button of this.presetButtons) button.setAttribute('aria-pressed', String(button.dataset.window === name));
    for (let hu = -32768; hu < 32768; hu++) {
      const value = clamp(Math.round(((hu - this.level) / this.width + 0.5) * 255), 0, 255);
      this.grey[hu & 0xffff] = (0xff000000 | ((this.inverted ? 255 - value : value) * 0x010101)) >>> 0;
    }
    for (const view of this.views) view.paint();
  }

  invert() {
    this.inverted = !this.inverted;
    this.setWindow(this.width, this.level, this.presetButtons.find((button) => button.getAttribute('aria-pressed') === 'true')?.dataset.window);
  }

  relabel() {
    if (!this.volume) return;
    for (const view of this.views) view.label();
    this.showCross();
    this.showRuler();
  }
}
