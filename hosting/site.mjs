// The site as it is hosted: www/ with the package as its folder ctmatch/, hashes in sw.js and in the script tags, and the
// policy as a <meta> for hosts that send no headers.
//
//   node hosting/site.mjs OUT

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const www = join(repository, 'www');
const pkg = join(repository, 'pkg');

// What the page requests of the package; the rest is for developers.
const PACKAGE_FILES = /\.(?:js|wasm)$/;

const digest = (algorithm, encoding, bytes) => createHash(algorithm).update(bytes).digest(encoding);

/** The headers of `www/_headers`. @param {string} text @returns {Record<string, string>} */
function parseHeaders(text) {
  return Object.fromEntries([...text.matchAll(/^ +([\w-]+): (.+)$/gm)].map(([, name, value]) => [name, value]));
}

/** Every header that the page is to be served with, the caching rule included. */
export const HEADERS = parseHeaders(readFileSync(join(www, '_headers'), 'utf8'));

/** What a `<meta>` can say of the policy: browsers ignore the other directives there, with an error on the console. */
export const metaPolicy = (policy = HEADERS['Content-Security-Policy']) => policy.split('; ').filter((rule) => !/^(frame-ancestors|sandbox|report-)/.test(rule)).join('; ');

/** What the repository holds, as git names it; a file that was changed since has no name. `unknown` without git. */
function commit() {
  const git = (...args) => execFileSync('git', ['-C', repository, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    return git('rev-parse', 'HEAD') + (git('status', '--porcelain') ? '-changed' : '');
  } catch {
    return 'unknown';
  }
}

/** @param {string} folder @returns {Promise<string[]>} */
async function files(folder) {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  return found.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1).replaceAll('\\', '/')).sort();
}

/**
 * @param {string} out a folder; what is in it is removed
 * @param {(folder: string) => unknown} [change] changes the files before they are hashed: tests make another release with it
 * @returns {Promise<{ version: string, files: Record<string, string> }>} path to SHA-256
 */
export async function buildSite(out, change) {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  await cp(www, out, { recursive: true });
  for (const path of (await files(pkg)).filter((name) => PACKAGE_FILES.test(name))) await cp(join(pkg, path), join(out, 'ctmatch', path));
  await change?.(out);

  // Neither is a file of the release: the browser fetches sw.js itself, and _headers is for the server.
  const paths = (await files(out)).filter((path) => !['sw.js', '_headers'].includes(path));
  const hashes = async () => Object.fromEntries(await Promise.all(paths.map(async (path) => [path, digest('sha256', 'hex', await readFile(join(out, path)))])));
  const worker = await readFile(join(out, 'sw.js'), 'utf8');
  const madeFrom = commit();
  const build = digest('sha256', 'hex', JSON.stringify([await hashes(), worker, HEADERS, madeFrom]));
  const version = build.slice(0, 16);

  for (const path of paths.filter((name) => name.endsWith('.html'))) {
    const pinned = [];
    const html = (await readFile(join(out, path), 'utf8'))
      .replace('<meta charset="utf-8">', `$&\n  <meta http-equiv="Content-Security-Policy" content="${metaPolicy()}">\n  <meta name="release" content="${version}">\n  <meta name="build" content="${build}">\n  <meta name="commit" content="${madeFrom}">`)
      .replace(/ (?:src|href)="\.\/([\w-]+\.(?:js|css))"/g, (attribute, name) => {
        pinned.push(name);
        return `${attribute} integrity="sha384-${digest('sha384', 'base64', readFileSync(join(out, name)))}"`;
      });
    if (!html.includes(version) || !pinned.includes('guard.js')) throw new Error(`${path}: expected a charset, guard.js and a style sheet`);
    await writeFile(join(out, path), html);
  }

  const release = { version, headers: HEADERS, files: await hashes() };
  const made = worker.replace('const RELEASE = null;', () => `const RELEASE = ${JSON.stringify(release)};`);
  if (made === worker) throw new Error('sw.js: expected the line of the release table');
  await writeFile(join(out, 'sw.js'), made);
  return release;
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  if (!process.argv[2]) throw new Error('usage: node hosting/site.mjs OUT');
  const { version, files: made } = await buildSite(resolve(process.argv[2]));
  console.log(`release ${version}, ${Object.keys(made).length} files`);
}
