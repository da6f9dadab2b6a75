// Ties where the package ranks nothing: the volumes for a report, and what a store has found.

/**
 * Ranks from 1, in the order given, as `session.rank` makes them: a group has all that are within the tolerance of its first.
 * @param {readonly number[]} cosines @param {number} tolerance
 */
export function ranksOf(cosines, tolerance) {
  const ranks = cosines.map(() => 0);
  let [first, rank] = [Infinity, 0];
  for (const [place, index] of [...cosines.keys()].sort((a, b) => cosines[b] - cosines[a]).entries()) {
    if (first - cosines[index] > tolerance) [first, rank] = [cosines[index], place + 1];
    ranks[index] = rank;
  }
  return ranks;
}

/** Whether others have this rank too. @param {readonly number[]} ranks @param {number} rank */
export const isShared = (ranks, rank) => ranks.indexOf(rank) !== ranks.lastIndexOf(rank);
