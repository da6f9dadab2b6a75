// What the next visit needs of the model that was chosen, in the browser's storage of this site: the files of one from a person's disk, of one
// of this site the manifest, because a sealed page cannot ask for it. Its weights are in the package's cache.

export const MANIFEST_NAME = 'manifest.json';
const FOLDER = 'model';
const ADDRESSED = 'model.json';

const root = () => navigator.storage.getDirectory();

/** @param {boolean} create @returns {Promise<any>} */
const folder = async (create) => (await root()).getDirectoryHandle(FOLDER, { create });

/** What one variant needs, the manifest last: a copy without it was cut off, and is not used. @param {any} manifest @param {string} variant */
function namesOf({ files, variants }, variant) {
  const { shards, prompts } = variants[variant];
  return [...[...shards, prompts, files?.tokenizer].filter(Boolean).map(({ path }) => path), MANIFEST_NAME];
}

/** Without storage, or with nothing in it, there is nothing to do. @param {string} name */
async function drop(name) {
  try {
    await (await root()).removeEntry(name, { recursive: true });
  } catch {
    // none
  }
}
export const dropFiles = () => drop(FOLDER);
export const dropManifest = () => drop(ADDRESSED);

/** @param {string} address @param {any} manifest */
export async function keepManifest(address, manifest) {
  await dropManifest();
  try {
    /** @type {any} */
    const handle = await (await root()).getFileHandle(ADDRESSED, { create: true });
    const sink = await handle.createWritable();
    await sink.write(JSON.stringify({ address, manifest }));
    await sink.close();
  } catch {
    await dropManifest();
  }
}

/** @param {string} address @returns {Promise<any>} undefined when it is not kept */
export async function keptManifest(address) {
  try {
    const kept = JSON.parse(await (await (await (await root()).getFileHandle(ADDRESSED)).getFile()).text());
    return kept.address === address ? kept.manifest : undefined;
  } catch {
    return undefined;
  }
}

/**
 * In place of those kept before. A full or absent storage, or a cancel, leaves none.
 * @param {ReadonlyMap<string, Blob>} files by path @param {any} manifest @param {string} variant @param {import('./app.js').Call} call
 * @returns {Promise<boolean>} whether they are kept
 */
export async function keepFiles(files, manifest, variant, { signal, onProgress }) {
  await dropFiles();
  try {
    const chosen = namesOf(manifest, variant).map((name) => /** @type {const} */ ([name, /** @type {Blob} */ (files.get(name))]));
    const totalBytes = chosen.reduce((sum, [, { size }]) => sum + size, 0);
    let loadedBytes = 0;
    const kept = await folder(true);
    for (const [name, file] of chosen) {
      const sink = await (await kept.getFileHandle(encodeURIComponent(name), { create: true })).createWritable();
      const counter = new TransformStream({
        transform(chunk, controller) {
          loadedBytes += chunk.length;
          onProgress(/** @type {any} */ ({ phase: 'keep', loadedBytes, totalBytes }));
          controller.enqueue(chunk);
        },
      });
      await file.stream().pipeThrough(counter, { signal }).pipeTo(sink, { signal });
    }
    return true;
  } catch {
    await dropFiles();
    return false;
  }
}

/** @returns {Promise<Map<string, File> | undefined>} */
export async function keptFiles() {
  try {
    const files = new Map();
    for await (const [name, handle] of (await folder(false)).entries()) files.set(decodeURIComponent(name), await handle.getFile());
    return files.has(MANIFEST_NAME) ? files : undefined;
  } catch {
    return undefined;
  }
}
