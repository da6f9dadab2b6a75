// The candidates as one set of latents: those with a text are encoded, those of a saved set have theirs.

import { changed, state } from './app.js';
import { candidates } from './candidates.js';

/** @typedef {import('../pkg/index.js').ReportSet} ReportSet @typedef {import('./candidates.js').Candidate} Candidate */

/** Latents are of another model than the one that is loaded. @param {string} expected @param {string} found embedding spaces */
export const otherModel = (expected, found) =>
  Object.assign(new Error(`embedding space: expected ${expected}, found ${found}`), { code: 'STORE', detail: { expected, found } });

/**
 * @param {import('../pkg/index.js').Session} session with a model @param {import('./app.js').Call} call
 * @returns {Promise<{ rows: Candidate[], set: ReportSet }>} in the same order
 */
export async function encodeCandidates(session, call) {
  const { view, usable: rows } = candidates;
  const space = session.info.model?.embeddingSpace ?? '';
  const other = rows.find(({ latent }) => latent && latent.embeddingSpace !== space);
  if (other?.latent) throw otherModel(space, other.latent.embeddingSpace);
  const written = rows.filter(({ latent }) => !latent);
  const encoded = written.length > 0 || rows.length === 0 ? await session.encodeReports(written, { ...call, view }) : undefined;
  if (encoded) for (const [i, { tokens, truncated }] of encoded.rows.entries()) Object.assign(written[i], { tokens, truncated });
  // Of a saved report only the hash is known: that its text is here too shows now.
  const hashes = new Set(encoded?.rows.map(({ textSha256 }) => textSha256));
  const equal = new Set(rows.filter(({ latent }) => latent && hashes.has(latent.textSha256)));
  if (equal.size > 0) {
    candidates.merge(equal);
    state.result = undefined;
    changed('candidates', 'result');
    return encodeCandidates(session, call);
  }
  if (encoded && written.length === rows.length) return { rows, set: encoded };

  const length = (encoded ? encoded.vectors.length / encoded.size : rows[0].latent?.vector.length) ?? 0;
  const vectors = new Float32Array(rows.length * length);
  const facts = rows.map(({ id, tokens = 0, truncated = false, latent }, i) => {
    const at = latent ? -1 : written.indexOf(rows[i]);
    vectors.set(latent?.vector ?? /** @type {ReportSet} */ (encoded).vectors.subarray(at * length, (at + 1) * length), i * length);
    return { id, tokens, truncated, textSha256: latent?.textSha256 ?? /** @type {ReportSet} */ (encoded).rows[at].textSha256 };
  });
  return { rows, set: { size: rows.length, embeddingSpace: space, view, rows: facts, vectors } };
}

/** The latent of one report of a set. @param {ReportSet} set @param {number} index */
export function vectorOf({ vectors, size }, index) {
  const length = vectors.length / size;
  return vectors.slice(index * length, (index + 1) * length);
}
