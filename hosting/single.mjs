// The page as one HTML file, for a computer without a network or a server: it is opened from the disk. Scripts are bundled; the wasm
// modules (compressed), the worker, the demonstration model and the samples are inside as base64 and reach the page through single.js.
//
//   node hosting/single.mjs OUT.html      after `npm ci` in tests/browser, whose esbuild it uses

import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { buildSite, HEADERS, metaPolicy } from './site.mjs';

const here = dirname(fileURLToPath(import.meta.url));

const WORKER = 'ctmatch/worker.js';
const TYPES = { '.wasm': 'application/wasm', '.json': 'application/json', '.js': 'text/javascript' };
/** What the page's code asks for by address; scripts are bundled instead. */
const DATA = /^ctmatch\/.*\.wasm$|^(?:model|sample)\//;

/** One classic script of `entry` and all that it imports. @param {string} site @param {string} entry */
async function bundle(site, entry) {
  const { build } = createRequire(join(here, '../tests/browser/package.json'))('esbuild');
  const { outputFiles: [{ text }] } = await build({
    entryPoints: [join(site, entry)], bundle: true, minify: true, format: 'iife', target: 'esnext', charset: 'utf8', write: false,
    define: { 'import.meta.url': 'ctmatchModule' }, // set by single.js
  });
  return text;
}

const hash = (/** @type {string} */ text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
const element = (/** @type {string} */ name, /** @type {string} */ text) => `<${name}>${text}</${name}>`;
/** A script's text may not end its element. */
const safe = (/** @type {string} */ text) => text.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');

/** @param {string} out */
export async function buildSingle(out) {
  const site = await mkdtemp(join(tmpdir(), 'ctmatch-single-'));
  try {
    const { files } = await buildSite(site);
    const text = (/** @type {string} */ path) => readFile(join(site, path), 'utf8');
    const data = await Promise.all(Object.keys(files).filter((path) => DATA.test(path)).map(async (path) => ({ path, bytes: await readFile(join(site, path)) })));
    data.push({ path: WORKER, bytes: Buffer.from(await bundle(site, WORKER)) });
    const [guard, style] = [safe(await text('guard.js')), await text('style.css')];
    const main = safe(`${await readFile(join(here, 'single.js'), 'utf8')}\n${await bundle(site, 'main.js')}`);
    const policy = metaPolicy(HEADERS['Content-Security-Policy']
      .replace("script-src 'self'", `script-src ${hash(guard)} ${hash(main)}`).replace("style-src 'self'", `style-src ${hash(style)}`)
      .replace("worker-src 'self'", 'worker-src blob:').replaceAll("'self'", "'none'"))
      .replace("img-src 'none' ", 'img-src ');
    const embedded = data.map(({ path, bytes }) => {
      const packed = extname(path) === '.wasm';
      const about = `data-path="${path}" data-type="${TYPES[extname(path)] ?? 'application/octet-stream'}"${packed ? ` data-size="${bytes.length}"` : ''}`;
      return `<script type="text/plain" ${about}>${(packed ? gzipSync(bytes, { level: 9 }) : bytes).toString('base64')}</script>`;
    });
    const replaced = [
      [/<meta http-equiv="Content-Security-Policy"[^>]*>\n *<meta name="release"[^>]*>/, `<meta http-equiv="Content-Security-Policy" content="${policy}">`],
      [/<script src="\.\/guard\.js"[^>]*><\/script>/, element('script', guard)],
      [/<link rel="stylesheet"[^>]*>/, element('style', style)],
      [/ *<script type="module"[^>]*><\/script>\n/, ''],
      ['</body>', `${embedded.join('\n')}\n${element('script', main)}\n</body>`],
    ];
    let html = await text('index.html');
    for (const [from, to] of replaced) {
      const next = html.replace(from, () => to);
      if (next === html) throw new Error(`index.html: expected ${from}`);
      html = next;
    }
    const left = html.match(/<(?:script|link)[^>]* (?:src|href)="\.[^>]*>/);
    if (left) throw new Error(`index.html: expected no further file, found ${left[0]}`);
    await writeFile(out, html);
    return html.length;
  } finally {
    await rm(site, { recursive: true, force: true });
  }
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  if (!process.argv[2]) throw new Error('usage: node hosting/single.mjs OUT.html');
  console.log(`${await buildSingle(resolve(process.argv[2]))} bytes`);
}
