// The list of candidate reports: equal texts are merged, ids are unique.

/** @typedef {'full' | 'findings' | 'impression'} View the sections that are compared */
/**
 * `text` is the whole report; a candidate of a saved set has a latent instead.
 * @typedef {{ id: string, text: string, findings?: string, impression?: string, label?: string, tokens?: number, truncated?: boolean,
 *   cjk?: boolean, reviewed?: boolean, hints?: import('../pkg/index.js').Hint[], latent?: Latent }} Candidate
 * @typedef {{ vector: Float32Array, embeddingSpace: string, view: import('../pkg/index.js').ReportView, textSha256: string }} Latent
 */

export const MAX_CANDIDATES = 5000;
export const MAX_TOKENS = 512;

/** True when more than a fifth of the letters are Chinese, Japanese or Korean. @param {string} value */
export function mostlyCjk(value) {
  const letters = value.match(/\p{L}/gu) ?? [];
  const cjk = letters.filter((letter) => /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}/u.test(letter));
  return cjk.length > 0.2 * letters.length;
}

// What CT-RATE holds in place of an empty section.
const NOT_GIVEN = 'Not given.';

/** @param {string | undefined} section */
const given = (section = '') => (section.trim() === NOT_GIVEN ? '' : section);

/**
 * What the model is given of a text. The package says so of whole reports when it reads them, before there is a model: of sections and
 * of what is edited it would only when they are encoded.
 * @param {string | undefined} written
 */
const compared = (written) => given(written).replaceAll(/["'()]/g, '');

export class Candidates {
  /** @type {Candidate[]} */
  rows = [];
  /** @type {View} */
  view = 'full';
  merged = 0;
  leftOut = 0;
  #numbered = 0;
  /** Of this list in this view. */
  #apart = { rows: this.rows, count: 0, view: this.view, usable: /** @type {Candidate[]} */ ([]), equal: 0 };

  /** True where a report has sections to choose from. */
  get hasSections() {
    return this.rows.some(({ findings, impression }) => given(findings) || given(impression));
  }

  /** What is compared of a report, as it is written; empty where it has no such section. @param {Candidate} row */
  textOf(row) {
    return this.view === 'full' ? row.text : given(row[this.view]);
  }

  /** Those with something to compare, each text once: different reports can have an equal section. */
  get usable() {
    return this.#toldApart().usable;
  }

  /** How many are left out because one before them is equal. */
  get equal() {
    return this.#toldApart().equal;
  }

  /** Why nothing can be compared, as a message key. */
  get missing() {
    if (this.rows.length === 0) return 'needs_reports';
    return this.usable.length === 0 ? 'needs_section' : undefined;
  }

  /** Once per change: the page asks often, for up to 5,000 texts. */
  #toldApart() {
    const { rows, view } = this;
    if (this.#apart.rows === rows && this.#apart.count === rows.length && this.#apart.view === view) return this.#apart;
    const keys = new Set();
    const usable = [];
    let equal = 0;
    for (const row of rows) {
      const key = row.latent ? (row.latent.view === view ? row.latent.textSha256 : '') : compared(this.textOf(row));
      if (key.trim() === '') continue;
      if (keys.has(key)) equal += 1;
      else usable.push(row);
      keys.add(key);
    }
    this.#apart = { rows, count: rows.length, view, usable, equal };
    return this.#apart;
  }

  /** @param {readonly import('../pkg/index.js').Report[]} reports */
  add(reports) {
    const fresh = ({ text, findings, impression, label }) =>
      ({ text, ...(findings ? { findings } : {}), ...(impression ? { impression } : {}), ...(label ? { label } : {}) });
    this.#take(reports.filter(({ text }) => compared(text).trim() !== ''), ({ text }) => compared(text), fresh);
  }

  /** Latents without their texts. @param {import('../pkg/index.js').ReportSet} set */
  addSaved({ rows, vectors, size, embeddingSpace, view }) {
    const length = vectors.length / size;
    const latents = rows.map(({ id, tokens, truncated, textSha256 }, i) =>
      ({ id, tokens, truncated, latent: { vector: vectors.slice(i * length, (i + 1) * length), embeddingSpace, view, textSha256 } }));
    this.#take(latents, ({ latent }) => latent.textSha256, ({ tokens, truncated, latent }) => ({ text: '', tokens, truncated, latent }));
  }

  /**
   * @template {{ id?: string }} T
   * @param {readonly T[]} given @param {(row: any) => string} key equal for what is merged @param {(one: T) => Omit<Candidate, 'id'>} fresh
   */
  #take(given, key, fresh) {
    const known = new Set(this.rows.map((row) => (row.latent ? row.latent.textSha256 : compared(row.text))));
    const ids = new Set(this.rows.map((row) => row.id));
    for (const one of given) {
      if (known.has(key(one))) {
        this.merged += 1;
        continue;
      }
      if (this.rows.length >= MAX_CANDIDATES) {
        this.leftOut += 1;
        continue;
      }
      let { id } = one;
      while (!id || ids.has(id)) {
        this.#numbered += 1;
        id = String(this.#numbered);
      }
      known.add(key(one));
      ids.add(id);
      this.rows.push({ id, ...fresh(one) });
    }
  }

  /**
   * Another text, and perhaps another id, in the same place.
   * @param {string} id @param {{ id: string, text: string }} change
   * @returns {string | undefined} why not, as a message key
   */
  edit(id, change) {
    const others = this.rows.filter((row) => row.id !== id);
    const wanted = compared(change.text);
    if (wanted.trim() === '') return 'edit_empty';
    const isNew = this.rows.some((row) => row.id === id && this.textOf(row) !== change.text);
    if (isNew && others.some((row) => compared(this.textOf(row)) === wanted)) return 'edit_equal';
    if (change.id.trim() === '' || others.some((row) => row.id === change.id)) return 'edit_id_taken';
    this.rows = this.rows.map((row) => {
      if (row.id !== id) return row;
      // Counts and hints belong to the text.
      if (this.textOf(row) === change.text) return { ...row, id: change.id };
      if (this.view === 'full') return { ...change, label: row.label };
      const sections = { findings: given(row.findings), impression: given(row.impression), [this.view]: change.text };
      return { id: change.id, ...sections, text: sections.findings + sections.impression, label: row.label };
    });
    return undefined;
  }

  /** Takes out those that turned out to be equal to others. @param {Set<Candidate>} equal */
  merge(equal) {
    this.rows = this.rows.filter((row) => !equal.has(row));
    this.merged += equal.size;
  }

  /** @param {string} id */
  remove(id) {
    this.rows = this.rows.filter((row) => row.id !== id);
  }

  clear() {
    this.rows = [];
    this.view = 'full';
    this.merged = 0;
    this.leftOut = 0;
    this.#numbered = 0;
  }
}

export const candidates = new Candidates();
