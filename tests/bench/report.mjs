// What the scripts here print and draw: Markdown tables, and pictures as SVG.

/** @param {string[]} head @param {(string | number)[][]} rows */
export const table = (head, rows) => [`| ${head.join(' | ')} |`, `|${head.map(() => '---').join('|')}|`, ...rows.map((cells) => `| ${cells.join(' | ')} |`)].join('\n');

/** Empty where nothing was measured. @param {number | null} [number] */
export const digits = (number, count) => number?.toFixed(count) ?? '';

/** @param {number | null} [a] @param {number | null} [b] */
export const ratio = (a, b) => (a && b ? digits(a / b, 2) : '');

const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;' };

/** @param {number | string} x @param {number | string} y @param {string} text @param {'start' | 'middle' | 'end'} [anchor] */
export const label = (x, y, text, anchor = 'middle') => `<text x="${x}" y="${y}" text-anchor="${anchor}">${text.replace(/[&<>]/g, (mark) => ENTITIES[mark])}</text>`;

/** A whole picture. @param {number} width @param {number} height @param {string[]} parts */
export const picture = (width, height, parts) => `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="11">
<style>.axis{fill:none;stroke:#555}.grid{stroke:#ddd}.line{stroke:#0a66c2;stroke-width:1.5}circle,.own{fill:#c2410c}.other{fill:#8a9ba8}text{fill:#333}</style><rect width="100%" height="100%" fill="#fff"/>
${parts.join('\n')}
</svg>
`;

// Beyond this the shorter bars of a linear scale cannot be told apart.
const LINEAR_UP_TO = 20;

/**
 * Where an axis begins and ends, and its marks. A logarithmic one begins at the power of ten below the least value.
 * @param {number[]} values above 0
 */
export function scale(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const logarithmic = most > LINEAR_UP_TO * least;
  if (logarithmic) {
    const first = Math.ceil(Math.log10(least)) - 1;
    const marks = [];
    for (let power = first; 10 ** power <= most; power++) marks.push(Number(`1e${power}`));
    return { logarithmic, marks, at: (value) => (Math.log10(value) - first) / (Math.log10(most) - first) };
  }
  const power = 10 ** Math.floor(Math.log10(most / 2));
  const step = power * [1, 2, 5].find((times) => most / (times * power) <= 6);
  const marks = Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => Number((i * step).toPrecision(3)));
  return { logarithmic, marks, at: (value) => value / most };
}

const WIDTH = 760, ROW = 22, TOP = 56, PER_LETTER = 6.6, FOR_VALUE = 60;

/**
 * Horizontal bars in their order, seconds.
 * @param {string} title @param {string} subtitle @param {{ name: string, seconds: number, own: boolean }[]} rows `own`: of ctmatch
 */
export function bars(title, subtitle, rows) {
  const left = 16 + PER_LETTER * Math.max(...rows.map(({ name }) => name.length));
  const { logarithmic, marks, at } = scale(rows.map(({ seconds }) => seconds));
  const x = (value) => (left + at(value) * (WIDTH - left - FOR_VALUE)).toFixed(1);
  const bottom = TOP + ROW * rows.length;
  return picture(WIDTH, bottom + 44, [
    label(12, 20, title, 'start'),
    label(12, 38, subtitle, 'start'),
    ...marks.map((mark) => `<path d="M${x(mark)} ${TOP}V${bottom}" class="grid"/>${label(x(mark), bottom + 14, String(mark))}`),
    ...rows.map(({ name, seconds, own }, i) => {
      const y = TOP + ROW * i;
      return `${label(left - 6, y + 15, name, 'end')}<rect x="${left}" y="${y + 3}" width="${(x(seconds) - left).toFixed(1)}" height="${ROW - 6}" class="${own ? 'own' : 'other'}"/>`
        + label(Number(x(seconds)) + 5, y + 15, seconds < 100 ? seconds.toPrecision(3) : seconds.toFixed(0), 'start');
    }),
    `<path d="M${left} ${TOP}V${bottom}" class="axis"/>`,
    label(left, bottom + 34, `seconds${logarithmic ? ', logarithmic scale' : ''}`, 'start'),
  ]);
}
