// Lists by keyboard: j and k or arrows move, Enter opens, x marks as reviewed, / goes to the filter (VIEWER_AND_RANKING_UI.md 3).

import { singleKeys } from './settings.js';

/**
 * @param {HTMLElement} list takes the focus; its rows take it one after the other
 * @param {{ rows: string, open: (row: HTMLElement) => void, review: (row: HTMLElement) => void, filter: HTMLInputElement }} acts `rows`: a selector
 */
export function walkable(list, { rows, open, review, filter }) {
  list.addEventListener('keydown', (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.altKey || event.metaKey || target.matches('input, textarea, select')) return;
    if (event.key.length === 1 && !singleKeys()) return;
    const all = /** @type {HTMLElement[]} */ ([...list.querySelectorAll(rows)]);
    const row = /** @type {HTMLElement | null} */ (target.closest(rows));
    const move = (by) => all[row ? Math.min(Math.max(all.indexOf(row) + by, 0), all.length - 1) : by > 0 ? 0 : all.length - 1]?.focus();
    // Enter on a button in a row is the button's.
    const acts = {
      j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1), ...(row && { x: () => review(row) }),
      ...(row && target === row && { Enter: () => open(row) }),
      '/': () => {
        if (filter.parentElement) filter.parentElement.hidden = false;
        filter.focus();
      },
    };
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  });
}
