// Long lists: of thousands of rows only those in sight are in the document. By keyboard arrows or keys of one character move,
// Enter opens, others mark as reviewed and go to the filter (VIEWER_AND_RANKING_UI.md 3).

import { $ } from './dom.js';
import { actionOf } from './keys.js';

/** Rows that are drawn at once; with more, those in sight and some around them. */
export const DRAWN_AT_ONCE = 200;
const AROUND = 10;
// Until the first rows are measured, pixels.
const ROW_HEIGHT = 60;

/** @template T */
export class Rows {
  #scroller;
  #body;
  #runway;
  #make;
  #counted;
  /** @type {readonly T[]} */
  #rows = [];
  /** in the document, by place in the list @type {Map<number, HTMLElement>} */
  #made = new Map();
  /** measured, 0 where not yet */
  #heights = new Float64Array(0);
  /** of a row that was never in sight; it stays while a list is shown, so that nothing jumps */
  #usual = 0;
  /** had the focus when it was scrolled out of sight @type {number | undefined} */
  #left;

  /**
   * @param {{ scroller: HTMLElement, body: HTMLElement, runway: HTMLElement, make: (row: T) => HTMLElement,
   *   counted: (row: HTMLElement, place: number, count: number) => void }} parts `body` takes the rows; `runway`, around it, becomes as high as
   *   all of them; `counted` says where in the whole list a row is
   */
  constructor({ scroller, body, runway, make, counted }) {
    this.#scroller = scroller;
    this.#body = body;
    this.#runway = runway;
    this.#make = make;
    this.#counted = counted;
    scroller.addEventListener('scroll', () => { if (this.#isLong) this.#draw(); }, { passive: true });
    scroller.addEventListener('focusin', ({ target }) => { if (target !== scroller) this.#left = undefined; });
    let width = 0;
    new ResizeObserver(() => {
      if (!this.#isLong || width === scroller.clientWidth) return;
      width = scroller.clientWidth;
      const place = this.#firstInSight();
      this.#heights.fill(0);
      this.#usual = 0;
      this.#draw();
      if (place === undefined) return;
      scroller.scrollTop = this.#top(place);
      this.#draw();
    }).observe(scroller);
  }

  get count() {
    return this.#rows.length;
  }

  get #isLong() {
    return this.count > DRAWN_AT_ONCE;
  }

  /** @param {readonly T[]} rows */
  show(rows) {
    this.#rows = rows;
    this.#made.clear();
    this.#heights = new Float64Array(rows.length);
    this.#usual = 0;
    this.#left = undefined;
    this.#body.replaceChildren();
    this.#scroller.classList.toggle('long', this.#isLong);
    if (this.#isLong) {
      // As high as it will be at least, so that it is known how much is in sight.
      const { scrollTop } = this.#scroller;
      this.#runway.style.paddingBottom = `${ROW_HEIGHT * this.count}px`;
      this.#scroller.scrollTop = scrollTop;
    }
    this.#draw();
  }

  /** To the first row. */
  first() {
    this.#scroller.scrollTop = 0;
  }

  /** Where an element's row is in the list, or the row that had the focus last. @param {HTMLElement} element */
  placeOf(element) {
    for (const [place, row] of this.#made) if (row.contains(element)) return place;
    return this.#left;
  }

  /** Of the row that holds an element. @param {HTMLElement} element */
  rowOf(element) {
    return [...this.#made.values()].find((row) => row.contains(element));
  }

  /** @param {number} place */
  focus(place) {
    if (!this.#made.has(place)) {
      this.#scroller.scrollTop = this.#top(place) - this.#scroller.clientHeight / 2;
      this.#draw();
    }
    this.#made.get(place)?.focus();
  }

  /** @param {number} place */
  #height(place) {
    return this.#heights[place] || this.#usual || ROW_HEIGHT;
  }

  /** Pixels above a row. @param {number} place */
  #top(place) {
    let top = 0;
    for (let i = 0; i < place; i++) top += this.#height(i);
    return top;
  }

  /** First row that reaches below `y`, pixels from the top of the list. @param {number} y */
  #at(y) {
    let place = 0;
    for (let bottom = this.#height(0); bottom < y && place < this.count - 1; bottom += this.#height(place)) place += 1;
    return place;
  }

  /** The first and the last row in sight, by what is known of their heights. */
  #range() {
    const { scrollTop, clientHeight } = this.#scroller;
    return [this.#at(scrollTop), this.#at(scrollTop + clientHeight)];
  }

  #firstInSight() {
    const edge = this.#scroller.getBoundingClientRect().top;
    return [...this.#made.keys()].toSorted((a, b) => a - b).find((place) => (this.#made.get(place)?.getBoundingClientRect().bottom ?? 0) > edge);
  }

  /** @param {number} [tries] what is drawn is measured, and may turn out to lie elsewhere */
  #draw(tries = 3) {
    const [first, last] = this.#isLong ? this.#range() : [0, this.count - 1];
    const [from, to] = this.#isLong ? [Math.max(0, first - AROUND), Math.min(this.count, last + 1 + AROUND)] : [0, this.count];
    // One that stays is to stay where it is, whatever is found about the rows above it.
    const seen = this.#isLong ? this.#firstInSight() : undefined;
    const stays = seen !== undefined && seen >= from && seen < to ? this.#made.get(seen) : undefined;
    const before = stays?.getBoundingClientRect().top ?? 0;
    let lost = false;
    for (const [place, row] of this.#made) {
      if (place >= from && place < to) continue;
      if (row.contains(document.activeElement)) [lost, this.#left] = [true, place];
      row.remove();
      this.#made.delete(place);
    }
    /** @type {HTMLElement | null} */
    let next = null;
    for (let place = to - 1; place >= from; place--) {
      let row = this.#made.get(place);
      if (!row) {
        row = this.#make(this.#rows[place]);
        this.#counted(row, place, this.count);
        this.#made.set(place, row);
        this.#body.insertBefore(row, next);
      }
      next = row;
    }
    if (!this.#isLong) {
      Object.assign(this.#runway.style, { paddingTop: '', paddingBottom: '' });
      return;
    }
    for (const [place, row] of this.#made) this.#heights[place] = row.getBoundingClientRect().height;
    const drawn = this.#top(to) - this.#top(from);
    this.#usual ||= drawn / (to - from);
    const all = this.#top(this.count);
    Object.assign(this.#runway.style, { paddingTop: `${this.#top(from)}px`, paddingBottom: `${all - this.#top(to)}px` });
    if (stays) this.#scroller.scrollTop += stays.getBoundingClientRect().top - before;
    if (lost) this.#scroller.focus({ preventScroll: true });
    const [firstNow, lastNow] = this.#range();
    if (tries > 0 && (firstNow < from || lastNow >= to)) this.#draw(tries - 1);
  }
}

/**
 * @param {HTMLElement} list takes the focus; its rows take it one after the other
 * @param {{ rows: Rows<any>, open: (row: HTMLElement) => void, review: (row: HTMLElement) => void, filter: HTMLInputElement }} acts
 */
export function walkable(list, { rows, open, review, filter }) {
  list.addEventListener('keydown', (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.altKey || event.metaKey || target.matches('input, textarea, select')) return;
    const row = rows.rowOf(target);
    const move = (by) => {
      const place = rows.placeOf(target);
      if (rows.count > 0) rows.focus(place === undefined ? (by > 0 ? 0 : rows.count - 1) : Math.min(Math.max(place + by, 0), rows.count - 1));
    };
    // Enter on a button in a row is the button's.
    const acts = {
      ArrowDown: () => move(1), ArrowUp: () => move(-1), key_next: () => move(1), key_previous: () => move(-1), help: () => $('help').showModal(),
      ...(row && { help_reviewed: () => review(row) }), ...(row && target === row && { Enter: () => open(row) }),
      help_filter: () => {
        if (filter.parentElement) filter.parentElement.hidden = false;
        filter.focus();
      },
    };
    const act = acts[actionOf(event.key) ?? event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
