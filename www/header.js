// The sizes that a file's header claims, known before the file is read: what it will take of memory (N-18). Nothing else goes by them.

const HEAD = 544; // of a NIfTI-2 file; that of NIfTI-1 is shorter
const PACKED = 65_536; // holds the packed head

/** @param {Blob} blob */
async function head(blob) {
  const [a, b] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (a !== 0x1f || b !== 0x8b) return new DataView(await blob.slice(0, HEAD).arrayBuffer());
  const reader = blob.slice(0, PACKED).stream().pipeThrough(new DecompressionStream('gzip')).getReader();
  const bytes = new Uint8Array(HEAD);
  let at = 0;
  while (at < HEAD) {
    const { done, value } = await reader.read();
    if (done) break;
    bytes.set(value.subarray(0, HEAD - at), at);
    at += value.length;
  }
  // What follows was cut off above: that is no error.
  await reader.cancel().catch(() => {});
  return new DataView(bytes.buffer);
}

/** @param {unknown} source @returns {Promise<{ dims: number[], bytes: number } | undefined>} nothing for what does not look like NIfTI */
export async function claimedSize(source) {
  const blob = /** @type {any} */ (source)?.header ?? source;
  if (!(blob instanceof Blob)) return undefined;
  try {
    const view = await head(blob);
    const little = [348, 540].includes(view.getInt32(0, true));
    const length = view.getInt32(0, little);
    if (length !== 348 && length !== 540) return undefined;
    const dims = [1, 2, 3].map((axis) => (length === 348 ? view.getInt16(40 + 2 * axis, little) : Number(view.getBigInt64(16 + 8 * axis, little))));
    return dims.every((n) => n > 0) ? { dims, bytes: 2 * dims.reduce((product, n) => product * n) } : undefined;
  } catch {
    // The package says what is wrong with it.
    return undefined;
  }
}
