// Three linked planes on canvas. Slices come from the session as int16 HU; the window is applied here, so changing it
// needs no new slice. No full copy of the volume is kept.

import { number, text } from './i18n.js';

/** @typedef {import('../pkg/index.js').Volume} Volume @typedef {import('../pkg/index.js').Slice} Slice */

// Width and level in HU: VIEWER_AND_RANKING_UI.md 3. `auto` is computed.
export const WINDOWS = Object.freeze({
  lung: [1500, -600], mediastinum: [350, 50], bone: [1800, 400], model: [2000, 0],
});
const WINDOW_KEYS = { 1: 'lung', 2: 'mediastinum', 3: 'bone', 4: 'model', 0: 'auto' };

const SLICES_KEPT = 8; // per plane

// `axes`: which canonical axis (left, posterior, superior) is the slice index, the column and the row. Superior is up.
const PLANES = {
  axial: { axes: [2, 0, 1], letters: { left: 'R', right: 'L', top: 'A', bottom: 'P' } },
  coronal: { axes: [1, 0, 2], letters: { left: 'R', right: 'L', top: 'S', bottom: 'I' } },
  sagittal: { axes: [0, 1, 2], letters: { left: 'A', right: 'P', top: 'S', bottom: 'I' } },
};

/** @param {string} tag @param {string} [className] */
const make = (tag, className = '') => Object.assign(document.createElement(tag), { className });

/** One plane: canvas, letters, cross-hair, slider; keeps few slices and asks only for the newest. */
class PlaneView {
  constructor(name, viewer) {
    this.name = name;
    this.viewer = viewer;
    this.plane = PLANES[name];
    this.slices = new Map();
    this.busy = false;
    this.slice = undefined;

    this.figure = make('figure', 'plane');
    this.view = make('div', 'view');
    this.view.tabIndex = 0;
    this.view.setAttribute('role', 'img');
    this.canvas = make('canvas');
    this.view.append(this.canvas);
    this.letters = Object.keys(this.plane.letters).map((edge) => {
      const letter = make('span', `letter ${edge}`);
      this.view.append(letter);
      return [edge, letter];
    });
    this.crossV = make('div', 'cross v');
    this.crossH = make('div', 'cross h');
    this.view.append(this.crossV, this.crossH);
    this.slider = Object.assign(make('input'), { type: 'range', min: '0', step: '1' });
    this.caption = make('figcaption');
    this.figure.append(this.view, this.slider, this.caption);

    this.slider.addEventListener('input', () => this.move(Number(this.slider.value)));
    this.view.addEventListener('wheel', (event) => {
      event.preventDefault();
      this.move(this.index + Math.sign(event.deltaY));
    }, { passive: false });
    this.view.addEventListener('keydown', (event) => this.onKey(event));
    this.view.addEventListener('click', (event) => this.viewer.moveTo(this.voxelAt(event)));
    this.view.addEventListener('pointermove', (event) => this.viewer.probe(this.voxelAt(event), this.huAt(event)));
  }

  get index() {
    return this.viewer.position[this.plane.axes[0]];
  }

  get count() {
    return this.viewer.volume.dims[this.plane.axes[0]];
  }

  onKey(event) {
    const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in steps) this.move(this.index + steps[event.key]);
    else if (event.key in WINDOW_KEYS) this.viewer.preset(WINDOW_KEYS[event.key]);
    else return;
    event.preventDefault();
  }

  move(index) {
    const position = [...this.viewer.position];
    position[this.plane.axes[0]] = index;
    this.viewer.moveTo(position);
  }

  cell(event) {
    const box = this.view.getBoundingClientRect();
    const { width, height } = this.canvas;
    const inside = (value, count) => Math.min(count - 1, Math.max(0, Math.floor(value * count)));
    return [inside((event.clientX - box.left) / box.width, width), inside((event.clientY - box.top) / box.height, height)];
  }

  voxelAt(event) {
    const [column, row] = this.cell(event);
    const [slice, across, down] = this.plane.axes;
    const position = [0, 0, 0];
    position[slice] = this.index;
    position[across] = column;
    position[down] = down === 2 ? this.viewer.volume.dims[2] - 1 - row : row;
    return position;
  }

  huAt(event) {
    if (!this.slice || this.sliceIndex !== this.index) return undefined;
    const [column, row] = this.cell(event);
    return this.slice.hu[row * this.slice.width + column];
  }

  reset() {
    this.slices.clear();
    this.slice = undefined;
    this.slider.max = String(this.count - 1);
  }

  /** Shows the slice at the position, now or as soon as it is there. */
  async update() {
    const { dims } = this.viewer.volume;
    const [, across, down] = this.plane.axes;
    this.slider.value = String(this.index);
    const at = (axis) => (this.viewer.position[axis] + 0.5) / dims[axis];
    this.crossV.style.left = `${100 * at(across)}%`;
    this.crossH.style.top = `${100 * (down === 2 ? 1 - at(down) : at(down))}%`;
    if (this.busy) return; // the loop below looks again
    this.busy = true;
    try {
      while (this.sliceIndex !== this.index || !this.slice) {
        const { volume } = this.viewer;
        const index = this.index;
        const slice = this.slices.get(index) ?? (await volume.slice(this.name, index));
        if (volume !== this.viewer.volume) continue;
        this.slices.delete(index);
        this.slices.set(index, slice);
        if (this.slices.size > SLICES_KEPT) this.slices.delete(this.slices.keys().next().value);
        this.slice = slice;
        this.sliceIndex = index;
        this.paint();
      }
      this.label();
    } catch (error) {
      // A volume closed for its successor: the successor's update follows.
      if (error?.code !== 'CLOSED') this.viewer.onError(error);
    } finally {
      this.busy = false;
    }
  }

  paint() {
    if (!this.slice) return;
    const { hu, width, height, spacingMm } = this.slice;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.view.style.aspectRatio = `${width * spacingMm[0]} / ${height * spacingMm[1]}`;
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const { grey } = this.viewer;
    for (let i = 0; i < hu.length; i++) pixels[i] = grey[hu[i] & 0xffff];
    this.canvas.getContext('2d').putImageData(image, 0, 0);
  }

  label() {
    const { lettersHidden } = this.viewer;
    for (const [edge, letter] of this.letters) letter.textContent = lettersHidden ? '?' : this.plane.letters[edge];
    this.slider.setAttribute('aria-label', text('slice_slider', { plane: text(this.name) }));
    if (!this.slice) return;
    const mm = number(this.slice.positionMm, { maximumFractionDigits: 1 });
    const line = text('slice_of', { plane: text(this.name), n: this.index + 1, total: this.count, mm });
    this.caption.textContent = line;
    this.view.setAttribute('aria-label', line);
  }
}

export class Viewer {
  /**
   * @param {{ planes: HTMLElement, presets: HTMLElement, width: HTMLInputElement, level: HTMLInputElement,
   *   probe: HTMLOutputElement }} elements
   * @param {(error: unknown) => void} onError
   */
  constructor({ planes, presets, width, level, probe }, onError) {
    this.onError = onError;
    this.volume = undefined;
    /** letters are shown as `?` */
    this.lettersHidden = false;
    /** the values are in Hounsfield units, as far as the file check can tell */
    this.inHu = true;
    this.position = [0, 0, 0];
    // Grey as RGBA in memory order, by the 16 bits of the HU.
    this.grey = new Uint32Array(65536);
    this.widthInput = width;
    this.levelInput = level;
    this.probeOutput = probe;
    this.views = Object.keys(PLANES).map((name) => new PlaneView(name, this));
    planes.append(...this.views.map((view) => view.figure));
    this.presetButtons = [...Object.keys(WINDOWS), 'auto'].map((name) => {
      const button = Object.assign(make('button'), { type: 'button' });
      button.dataset.window = name;
      button.dataset.text = `window_${name}`;
      button.addEventListener('click', () => this.preset(name));
      return button;
    });
    presets.append(...this.presetButtons);
    for (const input of [width, level]) {
      input.addEventListener('change', () => this.setWindow(Math.max(1, Number(width.value)), Number(level.value)));
    }
    this.setWindow(...WINDOWS.lung, 'lung');
  }

  /** @param {Volume} volume @param {boolean} [keepPosition] the same file, read again */
  show(volume, keepPosition = false) {
    this.volume = volume;
    if (!keepPosition) this.position = volume.dims.map((n) => Math.floor(n / 2));
    for (const view of this.views) view.reset();
    return this.update();
  }

  update() {
    return Promise.all(this.views.map((view) => view.update()));
  }

  moveTo(position) {
    if (!this.volume) return;
    this.position = position.map((value, axis) => Math.min(this.volume.dims[axis] - 1, Math.max(0, value)));
    this.update();
  }

  probe([x, y, z], hu) {
    this.probeOutput.textContent = hu === undefined ? '' : text(this.inHu ? 'probe' : 'probe_not_hu', { hu, x, y, z });
  }

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
    return [Math.max(1, high - low), Math.round((high + low) / 2)];
  }

  setWindow(width, level, name) {
    this.widthInput.value = String(width);
    this.levelInput.value = String(level);
    for (const button of this.presetButtons) button.setAttribute('aria-pressed', String(button.dataset.window === name));
    for (let hu = -32768; hu < 32768; hu++) {
      const value = Math.min(255, Math.max(0, Math.round(((hu - level) / width + 0.5) * 255)));
      this.grey[hu & 0xffff] = (0xff000000 | (value * 0x010101)) >>> 0;
    }
    for (const view of this.views) view.paint();
  }

  relabel() {
    if (this.volume) for (const view of this.views) view.label();
  }
}
