// Projects of strangers: each installs the packed tarball, is built by its own tools and ranks the sample, under the policy that
// pkg/README.md prints. What Node finds with the same tarball is the reference.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { BUDGETS } from './budgets.mjs';
import { POLICY, README, RECIPES } from './fences.mjs';
import { newPage, pkg, repository, SLOW_MS, startBrowser, www } from './harness.mjs';
import { POLICY_HEADERS, serve } from './serve.mjs';

const projects = join(repository, 'tests/consumers');
// Installed tools, by project and lock file, for the next run.
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ctmatch/consumers');
const FORGOTTEN_MS = 3_600_000;

/** Runs a program; a failure shows its output. */
async function run(file, args, cwd) {
  try {
    return (await promisify(execFile)(file, args, { cwd, maxBuffer: 1e8, env: { ...process.env, NO_COLOR: '1', NEXT_TELEMETRY_DISABLED: '1' } })).stdout;
  } catch (error) {
    return assert.fail(`${file} ${args.join(' ')}\n${error.stdout}\n${error.stderr}`);
  }
}
const npm = (args, cwd) => run('npm', [...args, '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], cwd);

let browser;
let temporary;
let tarball;
before(async () => {
  await mkdir(cache, { recursive: true });
  for (const name of (await readdir(cache)).filter((entry) => entry.startsWith('run-'))) {
    const { mtimeMs } = await stat(join(cache, name)).catch(() => ({}));
    if (Date.now() - mtimeMs > FORGOTTEN_MS) await rm(join(cache, name), { recursive: true, force: true });
  }
  temporary = await mkdtemp(join(tmpdir(), 'ctmatch-'));
  const [{ filename }] = JSON.parse(await npm(['pack', '--json', '--pack-destination', temporary], pkg));
  tarball = join(temporary, filename);
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await rm(temporary, { recursive: true, force: true });
});

/**
 * Calls `work(folder)` with a copy of the project, its tools and the tarball installed. The tools are moved out of the cache and
 * back, so that two runs at once do not share a folder.
 */
async function installed(name, work) {
  const lock = await readFile(join(projects, name, 'package-lock.json')).catch(() => undefined);
  const kept = lock && join(cache, `${name}-${createHash('sha256').update(lock).digest('hex').slice(0, 12)}`);
  const folder = await mkdtemp(join(cache, 'run-'));
  try {
    await cp(join(projects, name), folder, { recursive: true, filter: (path) => basename(path) !== 'node_modules' });
    const tools = join(folder, 'node_modules');
    const there = await rename(kept ?? '', tools).then(() => true, () => false);
    // Not `npm ci`: lock files lack the packages for platforms that the registry of their maker did not have.
    await npm(['install', '--no-save', there || !kept ? '--offline' : '--prefer-offline', tarball], folder);
    await work(folder);
    if (kept) await rename(tools, kept).catch(() => {}); // another run was first
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const write = (folder, files) => Promise.all(Object.entries(files).map(([name, text]) => writeFile(join(folder, name), text)));
const MODEL = { '/sample': join(www, 'sample'), '/model': join(www, 'model') };
const texts = JSON.parse(await readFile(join(www, 'sample/reports.json'), 'utf8')).map(({ findings }) => findings);

/** The order of the sample's reports, best first, by the README's program for Node. */
let inNode;
const reference = () => (inNode ??= (async () => {
  let order;
  await installed('static', async (folder) => {
    await write(folder, { 'node.mjs': README['node.mjs'] });
    assert.deepEqual((await readdir(join(folder, 'node_modules'))).filter((name) => !name.startsWith('.')), ['ctmatch']);
    const printed = await run(process.execPath, ['node.mjs', join(www, 'model/manifest.json'), join(www, 'sample/chest.nii.gz'), ...texts], folder);
    order = JSON.parse(printed).map(({ index }) => index);
  });
  assert.deepEqual([...order].sort(), texts.map((_, i) => i));
  return order;
})());

test('node', async () => { await reference(); });

/** The README's policy; inline scripts of the built page by their hashes. @param {string} html */
function headers(html) {
  const inline = [...html.matchAll(/<script(?![^>]*\ssrc=)[^>]*>([\s\S]*?)<\/script>/g)]
    .map(([, script]) => `'sha256-${createHash('sha256').update(script).digest('base64')}'`);
  return { 'Content-Security-Policy': POLICY.replace("'wasm-unsafe-eval'", ["'wasm-unsafe-eval'", ...new Set(inline)].join(' ')), 'X-Content-Type-Options': 'nosniff' };
}

/** With which a page is cross-origin isolated. */
const ISOLATION = Object.fromEntries(Object.entries(POLICY_HEADERS).filter(([name]) => name.startsWith('Cross-Origin-')));

/** Opens the page and reads the ranking off it. */
async function ranks(origin, expect) {
  const { page, finish } = await newPage(browser, { origin, path: '/', expect });
  await page.waitForSelector('li', { timeout: SLOW_MS });
  const items = await page.locator('li').allTextContents();
  assert.deepEqual(items.map(Number), await reference(), items.join('\n'));
  await finish();
}

const CONSUMERS = {
  vite: { build: ['vite', 'build'], gpu: true, files: { 'options.js': 'export const options = { allowSoftwareAdapter: true };\n' } },
  webpack: { build: ['webpack'], page: true, isolated: true },
  parcel: { build: ['parcel', 'build', 'index.html', '--no-source-maps', '--no-cache'], isolated: true },
  esbuild: { files: { 'build.mjs': README['build.mjs'], 'options.js': README['options.js'] }, page: true, isolated: true },
  next: { build: ['next', 'build'], out: 'out', app: { 'app/use-ranking.jsx': RECIPES['use-ranking.jsx'] } },
};
for (const [name, { build, files, page, app, gpu, isolated, out = 'dist' }] of Object.entries(CONSUMERS)) {
  test(name, { timeout: 2 * SLOW_MS }, async (t) => {
    await installed(name, async (folder) => {
      if (!app) await cp(join(projects, 'app'), folder, { recursive: true });
      await write(folder, app ?? { 'rank.js': README['rank.js'], ...files });
      if (build) await run(join(folder, 'node_modules/.bin', build[0]), build.slice(1), folder);
      else await run(process.execPath, ['build.mjs'], folder);
      const built = join(folder, out);
      if (page) await copyFile(join(folder, 'index.html'), join(built, 'index.html'));
      const policy = { ...headers(await readFile(join(built, 'index.html'), 'utf8')), ...(isolated && ISOLATION) };
      const server = await serve({ root: built, mounts: MODEL, headers: policy });
      t.after(() => server.close());
      await ranks(server.origin);
      const requested = (ending) => [...new Set(server.requests.map((line) => line.split(' ')[1]).filter((path) => path.endsWith(ending)))];
      const wasm = await Promise.all(requested('.wasm').map(async (path) => (await stat(join(built, path))).size));
      assert.deepEqual(wasm, [(await stat(join(pkg, `wasm/ctmatch${gpu ? '' : '_cpu'}_bg.wasm`))).size]);
      const scripts = requested('.js');
      const bytes = (await Promise.all(scripts.map(async (path) => gzipSync(await readFile(join(built, path)), { level: 9 }).length))).reduce((a, b) => a + b, 0);
      console.log(`${name}: ${scripts.length} scripts, ${bytes} bytes gz`);
      if (name === 'vite') assert.ok(bytes <= BUDGETS.appJsGzBytes, `${bytes} bytes of JavaScript in a Vite build`);
    });
  });
}

test('vite, development server', { timeout: 2 * SLOW_MS }, async () => {
  await installed('vite', async (folder) => {
    await cp(join(projects, 'app'), folder, { recursive: true });
    await write(folder, { 'rank.js': README['rank.js'] });
    for (const [path, from] of Object.entries(MODEL)) await cp(from, join(folder, 'public', path), { recursive: true });
    const vite = spawn(process.execPath, [join(folder, 'node_modules/vite/bin/vite.js'), '--host', '127.0.0.1'], { cwd: folder, env: { ...process.env, NO_COLOR: '1' } });
    try {
      const origin = await new Promise((resolve, reject) => {
        let shown = '';
        vite.on('exit', () => reject(new Error(shown)));
        vite.stdout.on('data', (chunk) => {
          shown += chunk;
          const [found] = shown.match(/http:\/\/127\.0\.0\.1:\d+/) ?? [];
          if (found) resolve(found);
        });
      });
      await ranks(origin, /^web socket: ws:\/\/127\.0\.0\.1/);
    } finally {
      vite.kill();
    }
  });
});

test('static files', { timeout: 2 * SLOW_MS }, async (t) => {
  await installed('static', async (folder) => {
    await write(folder, { 'index.html': RECIPES['index.html'], 'main.js': RECIPES['main.js'] });
    const server = await serve({ root: folder, mounts: { ...MODEL, '/ctmatch': join(folder, 'node_modules/ctmatch') }, headers: headers('') });
    t.after(() => server.close());
    const { page, finish } = await newPage(browser, { origin: server.origin, path: '/' });
    await page.setInputFiles('#file', join(www, 'sample/chest.nii.gz'));
    await page.fill('#reports', texts.join('\n\n'));
    await page.click('#rank');
    await page.waitForSelector('li, #error:not(:empty)', { timeout: SLOW_MS });
    assert.equal(await page.textContent('#error'), '');
    const items = await page.locator('li').allTextContents();
    assert.deepEqual(items.map((item) => item.replace(/^-?\d\.\d{3} /, '')), (await reference()).map((index) => texts[index]));
    await finish();
  });
});
