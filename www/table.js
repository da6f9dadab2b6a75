// The head of a table of reports: its records, delimiter and columns. The package reads the rest.

/** What a column can be: the package's names, and those of CT-RATE (VIEWER_AND_RANKING_UI.md 5). */
export const ROLES = {
  id: ['id', 'volumename'],
  findings: ['findings', 'findings_en'],
  impression: ['impression', 'impressions', 'impressions_en'],
  text: ['text', 'report'],
  label: ['label'],
};
const CT_RATE = ['volumename', 'findings_en', 'impressions_en'];

/**
 * Records of RFC 4180 from the start of `content`: cells, and where each record ends. A record cut off by the end of `content` is
 * left out when `cut`.
 * @param {string} content @param {string} delimiter @param {number} count @param {boolean} [cut]
 */
export function firstRecords(content, delimiter, count, cut = false) {
  const records = [];
  let [cells, cell, quoted, at] = [/** @type {string[]} */ ([]), '', false, 0];
  const end = () => {
    cells.push(cell);
    // A line without anything is no record.
    if (cells.length > 1 || cell.trim() !== '') records.push({ cells, end: at });
    [cells, cell] = [[], ''];
  };
  for (; at < content.length && records.length < count; at++) {
    const c = content[at];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (content[at + 1] === '"') cell += content[(at += 1)];
      else quoted = false;
    } else if (c === '"' && cell === '') quoted = true;
    else if (c === delimiter) {
      cells.push(cell);
      cell = '';
    } else if (c === '\n' || c === '\r') end();
    else cell += c;
  }
  if (at >= content.length && records.length < count && !cut) end();
  return records;
}

/** The delimiter that makes most columns of the first record. @param {string} content */
export const delimiterOf = (content) =>
  [',', ';', '\t'].reduce((best, next) => {
    const width = (delimiter) => firstRecords(content, delimiter, 1)[0]?.cells.length ?? 0;
    return width(next) > width(best) ? next : best;
  });

// A column's name is no sentence, and no measure.
const NAME = /^\p{L}[^.!?:;。！？：；]{0,39}$/u;
// A number, or what is numbered.
const IDENTIFIER = /^[\w./-]*\d[\w./-]*$/;
const BLANK_LINE = /(?:\r\n|\n|\r(?!\n))[^\S\r\n]*[\r\n]/y;

/**
 * Whether text is a table, whatever its columns are called. Prose wins every doubt: its lines may have equally many commas, but with a space
 * after them, or without a column of identifiers and without delimiters in quotes.
 * @param {string} content
 */
export function isTable(content) {
  const delimiter = delimiterOf(content);
  const records = firstRecords(content, delimiter, Infinity);
  const [names, ...rows] = records.map(({ cells }) => cells);
  if (!names || names.length < 2 || rows.length === 0 || rows.some((cells) => cells.length !== names.length)) return false;
  const isBlankAfter = ({ end }) => {
    BLANK_LINE.lastIndex = end;
    return BLANK_LINE.test(content);
  };
  if (records.slice(0, -1).some(isBlankAfter)) return false;
  if (!names.every((name) => NAME.test(name)) || new Set(names.map((name) => name.trim().toLowerCase())).size < names.length) return false;
  if ([names, ...rows].some(([, ...cells]) => cells.some((cell) => /^\s/.test(cell)))) return false;
  const inColumn = (is) => names.some((name, i) => rows.every((cells) => is(cells[i], name)));
  return rows.some((cells) => cells.some((cell) => cell.includes(delimiter) || /[\r\n]/.test(cell)))
    || inColumn((cell, name) => IDENTIFIER.test(cell) && !/\d/.test(name))
    // Prose has hardly any tabs; lines of a name and a value have no sentences below the first.
    || (delimiter === '\t' && inColumn((cell) => !NAME.test(cell)));
}

/** The role of each column by its name, each role once. @param {readonly string[]} names */
export function guess(names) {
  const known = names.map((name) => name.trim().toLowerCase());
  const roles = names.map(() => '');
  for (const [role, accepted] of Object.entries(ROLES)) {
    const at = known.findIndex((name) => accepted.includes(name));
    if (at >= 0) roles[at] = role;
  }
  return { roles, ctRate: CT_RATE.every((name) => known.includes(name)) };
}

/** The first record with the names of `roles`; other columns get a name that means nothing. @param {readonly string[]} roles @param {string} delimiter */
export const headerFor = (roles, delimiter) => roles.map((role, i) => role || `column ${i + 1}`).join(delimiter);
