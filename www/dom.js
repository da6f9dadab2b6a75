// Elements, files and long lists.

import { number, text } from './i18n.js';

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [given] properties, else attributes
 * @param {...(Node | string)} children
 * @returns {any}
 */
export function element(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (name in made) /** @type {any} */ (made)[name] = value;
    else made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

/**
 * Of a drawing. The page has one, so that its namespace is known: written here it would look like an address to ask for.
 * @param {string} tag @param {Record<string, string | number>} [attributes] @param {...(Node | string)} children
 */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS($('drawing').namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/** @param {string} label @param {() => void} onClick @param {Record<string, unknown>} [given] */
export function button(label, onClick, given = {}) {
  const made = element('button', { type: 'button', ...given }, label);
  made.addEventListener('click', onClick);
  return made;
}

/** @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = element('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** @param {unknown} value */
const cell = (value) => (/[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/**
 * RFC 4180, after comment lines with the notice, the warning and the record.
 * @param {any} saved the record @param {readonly string[]} names of the columns @param {readonly Record<string, unknown>[]} rows
 */
export function csvText(saved, names, rows) {
  const head = [saved.notice.en, saved.notice.zh, ...(saved.warning ? [saved.warning.en] : []), JSON.stringify(saved)];
  const lines = [names, ...rows.map((row) => names.map((name) => row[name]))].map((values) => values.map(cell).join(','));
  return `${[...head.map((line) => `# ${line}`), ...lines].join('\r\n')}\r\n`;
}

/** Column headings: message key and class. @param {readonly [key: string, className: string, params?: object][]} columns */
export const headings = (columns) => columns.map(([key, className, params]) => element('th', { scope: 'col', role: 'columnheader', className }, text(key, params)));

/** A bar of `share`, 0 to 1, beside a number that says the same. @param {number} share */
export function bar(share) {
  const fill = element('i');
  fill.style.width = `${100 * share}%`;
  return element('span', { className: 'bar', 'aria-hidden': 'true' }, fill);
}

/** Draws a long list page by page: thousands of rows would freeze the page. */
export class Pages {
  #at = 0;
  #size;
  #nav;
  #redraw;

  /** @param {HTMLElement} nav where the buttons go @param {number} size rows of a page @param {() => void} redraw */
  constructor(nav, size, redraw) {
    this.#nav = nav;
    this.#size = size;
    this.#redraw = redraw;
  }

  /** The rows to draw now. @template T @param {readonly T[]} rows @returns {T[]} */
  of(rows) {
    const last = Math.max(0, Math.ceil(rows.length / this.#size) - 1);
    this.#at = Math.min(this.#at, last);
    const from = this.#at * this.#size;
    const shown = rows.slice(from, from + this.#size);
    this.#nav.hidden = last === 0;
    const turn = (key, by, off) => {
      const made = button(text(key), () => {
        this.#at += by;
        this.#redraw();
        // The button that was pressed is a new one now.
        this.#nav.querySelector(`[data-turn="${by}"]:enabled`)?.focus();
      }, { 'data-turn': by, disabled: off });
      return made;
    };
    this.#nav.replaceChildren(
      turn('page_before', -1, this.#at === 0),
      element('span', {}, text('page_rows', { from: number(from + 1), to: number(from + shown.length), n: number(rows.length) })),
      turn('page_after', 1, this.#at === last),
    );
    return shown;
  }

  first() {
    this.#at = 0;
  }
}
