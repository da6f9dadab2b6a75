// Multiple choice without the page: items, order, outcomes and totals (VIEWER_AND_RANKING_UI.md 8).

/**
 * @typedef {{ id: string, image: string, options: { report: Record<string, unknown>, isTrue: boolean, kind: string }[] }} Item without a true
 * option its answer is not known
 * `margin`: cosine of the true option less that of the best other one; `tied`: options that share the first rank with the true one
 * @typedef {{ options: number, correct: boolean, tied: number, margin: number, reader?: boolean, kind: string }} Outcome
 */

export const OPTIONS = { least: 2, most: 16 };
// Normal quantile of a two-sided 95 % interval.
const Z = 1.959963984540054;

/** Name without folder and ending, as `ctmatch` names volumes. @param {string} path */
export const volumeName = (path) => (path.split(/[\\/]/).pop() ?? '').replace(/\.(nii(\.gz)?|hdr|img)$/i, '');

/**
 * Items of `ctmatch build-items` (JSON Lines), or an array of them.
 * @param {string} content
 * @returns {Item[]} throws an error with code TEXT_INPUT; it names the item by its position
 */
export function parseItems(content) {
  const refuse = (message) => Object.assign(new Error(message), { code: 'TEXT_INPUT' });
  const trimmed = content.trim();
  /** @type {any[]} */
  let given;
  try {
    given = trimmed.startsWith('[') ? JSON.parse(trimmed) : trimmed.split('\n').filter((line) => line.trim()).map((line) => JSON.parse(line));
  } catch {
    throw refuse('expected JSON Lines or a JSON array of items');
  }
  if (given.length === 0) throw refuse('expected at least one item, found none');
  return given.map((item, i) => {
    const image = item?.image ?? item?.image_path;
    const options = Array.isArray(item?.options) ? item.options : [];
    if (typeof image !== 'string') throw refuse(`item ${i + 1} names no volume`);
    if (options.length < OPTIONS.least || options.length > OPTIONS.most) throw refuse(`item ${i + 1} should have 2 to 16 options, found ${options.length}`);
    const isTrue = (option) => Number(option?.label) === 1;
    // The answer is optional; labels that say it must say which.
    const isAnswered = options.some((option) => (option?.label ?? undefined) !== undefined);
    if (isAnswered && options.filter(isTrue).length !== 1) throw refuse(`item ${i + 1} should have one option with label 1, or no labels`);
    return {
      id: String(item.id ?? i + 1), image: volumeName(image),
      options: options.map(({ label, kind, src, distance, edits, meta, ...report }) =>
        ({ report, isTrue: isTrue({ label }), kind: isTrue({ label }) ? 'true' : String(kind ?? 'other') })),
    };
  });
}

/** 0 to `count` - 1 in an order that the seed and the item's number fix (mulberry32, Fisher and Yates). */
export function shuffled(count, seed, item) {
  let state = (Math.imul(seed, 0x9e3779b1) + Math.imul(item + 1, 0x85ebca6b)) | 0;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/**
 * What the ranking made of an item. A tie of the true option with another one is a failure.
 * @param {readonly import('../pkg/index.js').Ranked[]} rows `index` is that of the option
 * @param {number} truth index of the true option
 * @param {string} kind of the best false option
 * @returns {Outcome}
 */
export function outcomeOf(rows, truth, kind) {
  const own = rows.find(({ index }) => index === truth);
  const best = rows.find(({ index }) => index !== truth);
  if (!own || !best) throw new Error('an item has a true option and others');
  const tied = own.rank === 1 ? rows.filter(({ tieGroup }) => tieGroup === own.tieGroup).length : 0;
  return { options: rows.length, correct: tied === 1, tied, margin: own.cosine - best.cosine, kind };
}

/** Wilson's 95 % interval of a share. @param {number} hits @param {number} n @returns {[number, number]} */
export function wilson(hits, n) {
  const share = hits / n;
  const middle = (share + Z ** 2 / (2 * n)) / (1 + Z ** 2 / n);
  const half = (Z / (1 + Z ** 2 / n)) * Math.sqrt((share * (1 - share)) / n + Z ** 2 / (4 * n ** 2));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/** @param {readonly Outcome[]} outcomes at least one */
export function totals(outcomes) {
  const n = outcomes.length;
  const mean = (value) => outcomes.reduce((sum, outcome) => sum + value(outcome), 0) / n;
  const count = (of) => ({ hits: of.filter(({ correct }) => correct).length, n: of.length });
  const read = outcomes.filter(({ reader }) => reader !== undefined);
  return {
    ...count(outcomes), interval: wilson(count(outcomes).hits, n), withTies: mean(({ tied }) => (tied > 0 ? 1 / tied : 0)),
    chance: mean(({ options }) => 1 / options), margin: mean(({ margin }) => margin),
    reader: { hits: read.filter(({ reader }) => reader).length, n: read.length },
    kinds: [...new Set(outcomes.map(({ kind }) => kind))].map((kind) => ({ kind, ...count(outcomes.filter((outcome) => outcome.kind === kind)) })),
  };
}
