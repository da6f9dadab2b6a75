// Latents as files: safetensors, whose metadata says of which model they are. No model and no wasm is needed.

import { CtmatchError } from './error.js';

/**
 * @typedef {import('./index.js').ImageLatent} ImageLatent
 * @typedef {import('./index.js').ReportSet} ReportSet
 * @typedef {{ dtype: 'F32' | 'I32', shape: number[], data_offsets: [number, number] }} Entry
 */

// In the metadata; to change with the meaning of anything in it.
const FORMAT = 'ctmatch-latents-1';

const LENGTH_BYTES = 8;

/** The command writes tensors of the same names. @param {ImageLatent | ReportSet} latents */
export function exportLatents(latents) {
  const isSet = 'vectors' in latents;
  const { embeddingSpace } = isSet ? latents : latents.provenance;
  const about = isSet ? { rows: latents.rows, view: latents.view } : { provenance: latents.provenance, timingsMs: latents.timingsMs };
  /** @type {Record<string, unknown>} */
  const header = { __metadata__: { format: FORMAT, embeddingSpace, about: JSON.stringify(about) } };
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const parts = [];
  let at = 0;
  /** @param {string} name @param {number} rows @param {'F32' | 'I32'} dtype @param {Float32Array | Int32Array} values */
  const add = (name, rows, dtype, values) => {
    header[name] = { dtype, shape: [rows, rows && values.length / rows], data_offsets: [at, at + values.byteLength] };
    at += values.byteLength;
    parts.push(new Uint8Array(values.slice().buffer));
  };
  if (isSet) add('text_latents', latents.size, 'F32', latents.vectors);
  else {
    add('image_latents', 1, 'F32', latents.vector);
    add('vq_indices', 1, 'I32', Int32Array.from(latents.codes));
    if (latents.classLogits) add('class_logits', 1, 'F32', latents.classLogits);
  }
  const encoded = new TextEncoder().encode(JSON.stringify(header));
  const text = new Uint8Array(Math.ceil(encoded.length / LENGTH_BYTES) * LENGTH_BYTES).fill(0x20);
  text.set(encoded);
  const length = new DataView(new ArrayBuffer(LENGTH_BYTES));
  length.setBigUint64(0, BigInt(text.length), true);
  return new Blob([length.buffer, text, ...parts], { type: 'application/octet-stream' });
}

/** @param {unknown} [cause] */
const refused = (cause) => new CtmatchError('INVALID_ARGUMENT', 'expected a file that exportLatents has made, found another or a damaged one', { cause });

/**
 * @param {Blob} file
 * @returns {Promise<ImageLatent | ReportSet>}
 */
export async function importLatents(file) {
  try {
    const bytes = await file.arrayBuffer();
    const start = LENGTH_BYTES + Number(new DataView(bytes).getBigUint64(0, true));
    const { __metadata__: { format, embeddingSpace, about }, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, LENGTH_BYTES, start - LENGTH_BYTES)));
    if (format !== FORMAT || typeof embeddingSpace !== 'string') throw refused();
    /** The values, and how many rows they are. @param {string} name @param {Entry['dtype']} dtype */
    const take = (name, dtype) => {
      const { dtype: found, shape: [rows, width], data_offsets: [from, to] } = /** @type {Entry} */ (entries[name]);
      const values = new (dtype === 'F32' ? Float32Array : Int32Array)(bytes.slice(start + from, start + to));
      if (found !== dtype || values.length !== rows * width || !(rows > 0)) throw refused();
      return { values, rows };
    };
    const { rows, view = 'full', provenance, timingsMs } = JSON.parse(about);
    if (rows) {
      const { values, rows: size } = take('text_latents', 'F32');
      if (rows.length !== size) throw refused();
      return { size, embeddingSpace, view, rows, vectors: /** @type {Float32Array} */ (values) };
    }
    if (provenance.embeddingSpace !== embeddingSpace) throw refused();
    const vector = /** @type {Float32Array} */ (take('image_latents', 'F32').values);
    const codes = Uint16Array.from(take('vq_indices', 'I32').values);
    const classLogits = entries.class_logits && /** @type {Float32Array} */ (take('class_logits', 'F32').values);
    return { vector, codes, ...(classLogits && { classLogits }), provenance, timingsMs };
  } catch (error) {
    throw error instanceof CtmatchError ? error : refused(error);
  }
}
