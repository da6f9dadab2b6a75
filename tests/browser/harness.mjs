// What the browser tests share: one server, one Chromium, pages that fail on any console error, 4xx or foreign request.

import assert from 'node:assert/strict';
import { closeSync, openSync, writeSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { chromium } from 'playwright-core';
import { serve } from './serve.mjs';

export const here = dirname(fileURLToPath(import.meta.url));
export const repository = resolve(here, '../..');
export const www = join(repository, 'www');
export const pkg = join(repository, 'pkg');
export const out = join(here, 'out');

// SwiftShader through WebGPU: `--enable-unsafe-webgpu` alone gives it where there is no GPU (WEB_PACKAGE.md 10).
const GPU_FLAGS = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'];
// The full browser: the headless shell has no WebGPU.
const FLAGS = ['--headless=new', '--no-sandbox', '--disable-background-networking'];

// SwiftShader runs the embedded model in seconds to minutes, depending on what else the machine does.
export const SLOW_MS = 180_000;

/** How Chromium is started. */
export const LAUNCH = { executablePath: process.env.CHROME ?? '/usr/bin/chromium', headless: true, args: FLAGS };

export async function startBrowser({ gpu = true } = {}) {
  await mkdir(out, { recursive: true });
  return chromium.launch({ ...LAUNCH, args: gpu ? [...GPU_FLAGS, ...FLAGS] : FLAGS });
}

/** The page and the package as `build.sh demo` serves them. */
export const startServer = ({ mounts, ...options } = {}) =>
  serve({ root: www, mounts: { '/ctmatch': pkg, '/test': join(here, 'pages'), '/parity': join(here, 'parity'), ...mounts }, ...options });

/**
 * A page of `origin` in a context of its own, and what went wrong on it.
 * @param {import('playwright-core').Browser} browser
 * @param {{ origin: string, path?: string, locale?: string, expect?: RegExp, colorScheme?: 'dark' | 'light', init?: () => void, allow?: readonly string[], firstRun?: boolean, viewport?: { width: number, height: number } }} options
 *   `expect`: faults that the test provokes; `init` runs in the page before anything else; `allow`: further origins
 */
export async function newPage(browser, { origin, path, locale = 'en-US', expect, colorScheme = 'dark', init, allow = [], firstRun = false, viewport = { width: 1440, height: 1000 } }) {
  const context = await browser.newContext({ locale, colorScheme, viewport });
  // The notice of the first run was read, unless it is what the test is about.
  if (!firstRun) await context.addInitScript(() => { try { localStorage.setItem('ctmatch-notice', 'read'); } catch { /* a page without storage */ } });
  const page = await context.newPage();
  const faults = [];
  const fault = (line) => { if (!expect?.test(line)) faults.push(line); };
  await context.route('**/*', (route) => {
    const url = route.request().url();
    if ([origin, ...allow].includes(new URL(url).origin)) return route.continue();
    fault(`request left the origin: ${url}`);
    return route.abort();
  });
  page.on('websocket', (socket) => fault(`web socket: ${socket.url()}`));
  page.on('response', (response) => { if (response.status() >= 400) fault(`${response.status()} ${response.url()}`); });
  page.on('console', (message) => { if (message.type() === 'error') fault(`console: ${message.text()}`); });
  page.on('pageerror', (error) => fault(`uncaught: ${error.message}`));
  if (init) await page.addInitScript(init);
  if (path) await page.goto(origin + path);
  return {
    page,
    async finish() {
      await context.close();
      assert.deepEqual(faults, []);
    },
  };
}

/**
 * One browser and one server for all tests of the calling file, and pages of them.
 * @param {{ gpu?: boolean } & Parameters<typeof serve>[0]} [options]
 */
export function host({ gpu = true, ...served } = {}) {
  let browser;
  let server;
  before(async () => {
    browser = await startBrowser({ gpu });
    server = await startServer(served);
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });
  const open = (options) => newPage(browser, { origin: server.origin, ...options });
  return {
    get origin() { return server.origin; },
    /** what the server was asked for, as `GET /path` */
    get requests() { return server.requests; },
    newPage: open,
    /** An empty page of the same policy, with `window.ctmatch` the package: for tests of the package itself. */
    async newPackagePage({ path = '/test/blank.html', search = '', ...options } = {}) {
      const made = await open({ path: path + search, ...options });
      await made.page.evaluate(async () => { window.ctmatch = await import('/ctmatch/index.js'); });
      return made;
    },
    /** The page that people use, ready. */
    async newAppPage(options) {
      const made = await open({ path: '/', ...options });
      await made.page.waitForFunction(() => !document.querySelector('#use-sample').disabled);
      return made;
    },
  };
}

/** Until no work is in progress on the page. @param {import('playwright-core').Page} page */
export const idle = (page) => page.waitForFunction(() => document.querySelector('#cancel').hidden, undefined, { timeout: SLOW_MS });

/** Opens the chosen sample with its reports. @param {import('playwright-core').Page} page */
export async function useSample(page) {
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await idle(page);
}

/** The candidates against the volume that is open; the rows are there, the work may still be ending. @param {import('playwright-core').Page} page */
export async function rankOnCpu(page) {
  await page.check('input[name="backend"][value="cpu"]');
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
}

/** Saves the latents of the sitting as a store, loads it and searches it. @param {import('playwright-core').Page} page */
export async function searchOwnStore(page) {
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#kept-store')]);
  await idle(page);
  await page.setInputFiles('#kept-file', { name: 'x.safetensors', mimeType: 'application/octet-stream', buffer: await readFile(await download.path()) });
  await page.waitForSelector('#store:not([hidden])');
  await idle(page);
  await page.click('#store-search');
  await page.waitForSelector('#store-rows tr');
  await idle(page);
}

/**
 * Runs `body(arg)` in the page; an error comes back as `{ error: { name, code, message, detail } }`. The source goes as an
 * expression, because the page's policy forbids making functions from text.
 * @param {import('playwright-core').Page} page
 * @param {(arg: any) => unknown} body
 * @param {unknown} [arg] JSON
 */
export const attempt = (page, body, arg = null) => page.evaluate(`(async () => {
  try {
    return await (${body})(${JSON.stringify(arg)});
  } catch (error) {
    return { error: { name: error?.name, code: error?.code, message: error?.message, detail: error?.detail } };
  }
})()`);

/** The sample's bytes, unpacked, to make damaged files from. */
export const sampleNifti = async () => gunzipSync(await readFile(join(www, 'sample/chest.nii.gz')));
export { gunzipSync, gzipSync };

/** The sample, brighter by `hu` in the body: another volume of the same kind, packed, in base64. @param {number} hu */
export async function brighter(hu) {
  const nifti = await sampleNifti();
  for (let at = 352; at < nifti.length; at += 2) if (nifti.readInt16LE(at) > -500) nifti.writeInt16LE(nifti.readInt16LE(at) + hu, at);
  return gzipSync(nifti, { level: 1 }).toString('base64');
}

/** The native command's latents of www/sample: { image, texts, order, zeroShot, explain }. */
export const EXPECTED = process.env.CTMATCH_EXPECTED ?? new URL('./expected/sample.json', import.meta.url);
export const MIN_COSINE = 0.99999;

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
export function cosine(a, b) {
  assert.equal(a.length, b.length);
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / Math.sqrt(aa * bb);
}

/** Writes a volume of noise slice by slice: the header of the sample, other dimensions. @param {string} path @param {number[]} dims */
export async function writeLargeNifti(path, dims) {
  const header = Buffer.from((await sampleNifti()).subarray(0, 352));
  [3, ...dims, 1, 1, 1, 1].forEach((n, i) => header.writeInt16LE(n, 40 + 2 * i));
  const file = openSync(path, 'w');
  writeSync(file, header);
  const slice = Buffer.alloc(2 * dims[0] * dims[1]);
  for (let i = 0; i < slice.length; i += 2) slice.writeInt16LE(((i * 7919) % 1600) - 1000, i);
  for (let z = 0; z < dims[2]; z++) writeSync(file, slice);
  closeSync(file);
}
