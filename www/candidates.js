// The list of candidate reports: equal texts are merged, ids are unique.

/**
 * @typedef {{ id: string, text: string, label?: string, tokens?: number, truncated?: boolean, cjk?: boolean,
 *   hints?: import('../pkg/index.js').Hint[] }} Candidate
 */

export const MAX_CANDIDATES = 5000;
export const MAX_TOKENS = 512;

/** True when more than a fifth of the letters are Chinese, Japanese or Korean. @param {string} value */
export function mostlyCjk(value) {
  const letters = value.match(/\p{L}/gu) ?? [];
  const cjk = letters.filter((letter) => /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}/u.test(letter));
  return cjk.length > 0.2 * letters.length;
}

export class Candidates {
  /** @type {Candidate[]} */
  rows = [];
  merged = 0;
  leftOut = 0;
  #numbered = 0;

  /** @param {readonly { id?: string, text: string, label?: string }[]} reports */
  add(reports) {
    const texts = new Set(this.rows.map((row) => row.text));
    const ids = new Set(this.rows.map((row) => row.id));
    for (const report of reports) {
      if (report.text.trim() === '') continue;
      if (texts.has(report.text)) {
        this.merged += 1;
        continue;
      }
      if (this.rows.length >= MAX_CANDIDATES) {
        this.leftOut += 1;
        continue;
      }
      let id = report.id;
      while (!id || ids.has(id)) {
        this.#numbered += 1;
        id = String(this.#numbered);
      }
      texts.add(report.text);
      ids.add(id);
      this.rows.push({ id, text: report.text, ...(report.label ? { label: report.label } : {}) });
    }
  }

  /**
   * Another text, and perhaps another id, in the same place.
   * @param {string} id @param {{ id: string, text: string }} change
   * @returns {string | undefined} why not, as a message key
   */
  edit(id, change) {
    const others = this.rows.filter((row) => row.id !== id);
    if (change.text.trim() === '') return 'edit_empty';
    if (others.some((row) => row.text === change.text)) return 'edit_equal';
    if (change.id.trim() === '' || others.some((row) => row.id === change.id)) return 'edit_id_taken';
    this.rows = this.rows.map((row) => {
      if (row.id !== id) return row;
      // Counts and hints belong to the text.
      return row.text === change.text ? { ...row, id: change.id } : { ...change, label: row.label };
    });
    return undefined;
  }

  /** @param {string} id */
  remove(id) {
    this.rows = this.rows.filter((row) => row.id !== id);
  }

  clear() {
    this.rows = [];
    this.merged = 0;
    this.leftOut = 0;
    this.#numbered = 0;
  }
}

export const candidates = new Candidates();
