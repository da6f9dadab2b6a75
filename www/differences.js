// Which words of two texts differ.

// Longest common subsequence needs one cell per pair of words; two reports of 512 tokens stay far below.
const MAX_CELLS = 4_000_000;

/** Words, runs of spaces and single other characters; Chinese is told apart character by character. @param {string} value */
const pieces = (value) => value.match(/\p{Script=Han}|[\p{L}\p{N}]+|\s+|[^\p{L}\p{N}\s]/gu) ?? [];

/**
 * Both texts as runs, in order: `same` in both, or in one only.
 * @param {string} first @param {string} second
 * @returns {[{ text: string, same: boolean }[], { text: string, same: boolean }[]]}
 */
export function differences(first, second) {
  const [a, b] = [pieces(first), pieces(second)];
  const [inA, inB] = [a.map(() => false), b.map(() => false)];
  let start = 0;
  while (start < Math.min(a.length, b.length) && a[start] === b[start]) {
    inA[start] = true;
    inB[start] = true;
    start += 1;
  }
  const [rows, columns] = [a.length - start, b.length - start];
  if (rows * columns <= MAX_CELLS) {
    // length[i][j]: of the longest common subsequence of a[start + i ..] and b[start + j ..]
    const width = columns + 1;
    const length = new Uint16Array((rows + 1) * width);
    for (let i = rows - 1; i >= 0; i--) {
      for (let j = columns - 1; j >= 0; j--) {
        length[i * width + j] = a[start + i] === b[start + j]
          ? length[(i + 1) * width + j + 1] + 1 : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
      }
    }
    for (let [i, j] = [0, 0]; i < rows && j < columns;) {
      if (a[start + i] === b[start + j]) {
        inA[start + i] = true;
        inB[start + j] = true;
        i += 1;
        j += 1;
      } else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) i += 1;
      else j += 1;
    }
  }
  return [runs(a, inA), runs(b, inB)];
}

/** @param {readonly string[]} words @param {readonly boolean[]} same */
function runs(words, same) {
  /** @type {{ text: string, same: boolean }[]} */
  const found = [];
  for (const [i, word] of words.entries()) {
    const last = found.at(-1);
    if (last?.same === same[i]) last.text += word;
    else found.push({ text: word, same: same[i] });
  }
  return found;
}
