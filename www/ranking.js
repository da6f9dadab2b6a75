// Candidate reports, the result table and the record that is saved.

import { MESSAGES, number, ruleText, text } from './i18n.js';

/**
 * @typedef {{ id: string, text: string, tokens?: number, truncated?: boolean,
 *   hints?: import('../pkg/index.js').Hint[] }} Candidate
 * @typedef {import('../pkg/index.js').Ranking} Ranking
 */

export const MAX_CANDIDATES = 5000;
// Rows drawn at once; the saved record holds all.
const ROWS_SHOWN = 200;
const MAX_TOKENS = 512;

const cosineText = (value) => number(value, { minimumFractionDigits: 3, maximumFractionDigits: 3 });

/** @param {string} tag @param {string} [content] @param {string} [className] */
function element(tag, content = '', className = '') {
  return Object.assign(document.createElement(tag), { textContent: content, className });
}

/** A count that opens to the rules and the masked texts. @param {readonly import('../pkg/index.js').Hint[]} hints */
function hintsOf(hints) {
  const details = element('details', '', 'hints');
  const summary = element('summary', text('hints', { n: hints.length }));
  details.title = [...new Set(hints.map(({ rule }) => ruleText(rule)))].join(', ');
  const list = element('ul');
  list.append(...hints.map(({ rule, masked }) => {
    const item = element('li');
    item.append(element('code', masked), element('span', ruleText(rule), 'quiet'));
    return item;
  }));
  details.append(summary, list);
  return details;
}

/** True when more than a fifth of the letters are Chinese, Japanese or Korean. */
export function mostlyCjk(value) {
  const letters = value.match(/\p{L}/gu) ?? [];
  const cjk = letters.filter((letter) => /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}/u.test(letter));
  return cjk.length > 0.2 * letters.length;
}

/** The list of candidates: equal texts are merged, ids are unique. */
export class Candidates {
  /** @type {Candidate[]} */
  rows = [];
  merged = 0;
  leftOut = 0;
  #numbered = 0;

  /** @param {readonly { id?: string, text: string }[]} reports */
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
      this.rows.push({ id, text: report.text });
    }
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

  /**
   * @param {{ list: HTMLElement, notes: HTMLElement, hints: HTMLElement }} into
   * @param {(id: string) => void} onRemove
   */
  render({ list, notes, hints }, onRemove) {
    list.replaceChildren(...this.rows.slice(0, ROWS_SHOWN).map((row) => {
      const item = element('li');
      const remove = element('button', '×');
      remove.setAttribute('aria-label', text('remove', { id: row.id }));
      remove.addEventListener('click', () => onRemove(row.id));
      item.append(element('strong', row.id), element('div', row.text, 'body'), remove);
      if (row.tokens !== undefined) {
        const parts = [text('tokens', { n: row.tokens }), ...(row.truncated ? [text('truncated', { n: MAX_TOKENS })] : [])];
        item.append(element('div', parts.join(' · '), 'meta quiet'));
      }
      if (row.hints?.length) item.append(hintsOf(row.hints));
      return item;
    }));
    const withHints = this.rows.filter((row) => row.hints?.length).length;
    hints.textContent = this.rows.length > 0 ? text('hints_review', { n: withHints, total: this.rows.length }) : '';
    const lines = [];
    if (this.rows.length > 0) lines.push(this.rows.length === 1 ? text('report_count_one') : text('report_count', { n: this.rows.length }));
    if (this.rows.length > ROWS_SHOWN) lines.push(text('first_shown', { n: ROWS_SHOWN }));
    if (this.merged > 0) lines.push(text('duplicates', { n: this.merged }));
    if (this.leftOut > 0) lines.push(text('too_many', { limit: MAX_CANDIDATES, n: this.leftOut }));
    if (mostlyCjk(this.rows.map((row) => row.text).join(' '))) lines.push(text('english_only'));
    notes.textContent = lines.join(' · ');
  }
}

/**
 * @param {{ head: HTMLElement, rows: HTMLElement, notes: HTMLElement }} into
 * @param {Ranking} ranking
 * @param {readonly Candidate[]} candidates in the order they were ranked with
 * @param {Readonly<Record<string, number>>} timingsMs
 */
export function renderRanking({ head, rows, notes }, ranking, candidates, timingsMs) {
  const columns = [['col_rank', 'number'], ['col_report', ''], ['col_cosine', 'number'], ['col_margin', 'number'], ['col_bar', ''], ['col_share', 'number']];
  head.replaceChildren(...columns.map(([key, className]) => {
    const cell = element('th', text(key, { n: ranking.rows.length }), className);
    cell.setAttribute('scope', 'col');
    return cell;
  }));

  const cosines = ranking.rows.map((row) => row.cosine);
  const [low, high] = [Math.min(...cosines), Math.max(...cosines)];
  const inGroup = new Map();
  for (const { tieGroup } of ranking.rows) inGroup.set(tieGroup, (inGroup.get(tieGroup) ?? 0) + 1);

  rows.replaceChildren(...ranking.rows.slice(0, ROWS_SHOWN).map((row, i) => {
    const line = element('tr');
    const rank = element('td', String(row.rank), 'number');
    if (inGroup.get(row.tieGroup) > 1) rank.append(' ', element('span', text('tie'), 'tie'));
    const report = element('td');
    report.append(element('strong', row.id), element('div', candidates[row.index].text, 'excerpt'));
    const last = i === ranking.rows.length - 1;
    const bar = element('td');
    const frame = element('span', '', 'bar');
    const fill = element('i');
    fill.style.width = `${high > low ? (100 * (row.cosine - low)) / (high - low) : 100}%`;
    frame.append(fill);
    frame.setAttribute('aria-hidden', 'true');
    bar.append(frame);
    line.append(rank, report, element('td', cosineText(row.cosine), 'number cosine'),
      element('td', last ? '' : cosineText(row.marginToNext), 'number'), bar,
      element('td', number(row.share, { style: 'percent', maximumFractionDigits: 1 }), 'number'));
    return line;
  }));

  const lines = [];
  if (ranking.rows.length > 1 && ranking.rows[0].marginToNext < ranking.tieTolerance) lines.push(text('noise'));
  lines.push(text('no_background'));
  if (ranking.rows.length > ROWS_SHOWN) lines.push(text('first_shown', { n: ROWS_SHOWN }));
  const total = timingsMs.total ?? Object.values(timingsMs).reduce((sum, ms) => sum + ms, 0);
  lines.push(text('timing', { s: number(total / 1000, { maximumFractionDigits: 2 }), adapter: ranking.provenance.adapter }));
  notes.textContent = lines.join(' ');
}

/** The notice as one paragraph. @param {string | undefined} license @param {'en' | 'zh'} [language] */
export function noticeText(license, language) {
  const gap = language === 'zh' ? '' : ' ';
  const parts = [text('notice_lead', {}, language), text('notice', {}, language)];
  if (license) parts.push(text('notice_weights', { license }, language));
  return parts.join(gap);
}

/**
 * The record of VIEWER_AND_RANKING_UI.md 9: no file name, no header text, no report text; of identifiers the rules' counts.
 * @param {{ ranking: Ranking, volume: import('../pkg/index.js').Volume, set: import('../pkg/index.js').ReportSet,
 *   info: import('../pkg/index.js').SessionInfo, accepted: readonly string[], timingsMs: Readonly<Record<string, number>> }} run
 */
export function record({ ranking, volume, set, info, accepted, timingsMs }) {
  const { provenance: p } = ranking;
  const license = info.model?.license;
  /** @type {any} */
  const { reading } = p.preprocess;
  return {
    schema: 'ctmatch-result-1',
    notice: { en: noticeText(license, 'en'), zh: noticeText(license, 'zh') },
    ...(info.model?.untrained ? { warning: { en: MESSAGES.untrained[0], zh: MESSAGES.untrained[1] } } : {}),
    app: { version: p.package },
    model: {
      id: p.model, revision: p.revision, weights_sha256: p.weightsSha256, variant: p.variant,
      embedding_space: p.embeddingSpace, licence: license, untrained: info.model?.untrained ?? false,
    },
    input: {
      voxel_sha256: p.voxelSha256, dims: volume.dims, spacing_mm: volume.spacingMm, orientation_in: volume.orientation,
      orientation_known: volume.orientationKnown, datatype: volume.datatype,
      hu_override: reading?.scaling ?? null, possible_identifiers: reading?.identifiers ?? {},
      findings: volume.findings.map(({ code }) => ({ code, accepted: accepted.includes(code) })),
    },
    preprocess: p.preprocess,
    runtime: {
      backend: p.backend, adapter_info: p.adapter, software: info.software ?? false, browser: navigator.userAgent,
      timings_ms: timingsMs, degraded: p.degraded, self_test: p.selfTest,
    },
    tie_tolerance: ranking.tieTolerance,
    candidates: ranking.rows.map((row) => ({
      id: row.id, text_sha256: set.rows[row.index].textSha256, n_tokens: set.rows[row.index].tokens,
      truncated: set.rows[row.index].truncated, cosine: row.cosine, rank: row.rank, tie_group: row.tieGroup, share: row.share,
    })),
  };
}
