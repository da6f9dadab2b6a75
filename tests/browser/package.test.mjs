// The package as npm sees it, and as a stranger installs it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { BUDGETS } from './budgets.mjs';
import { newPage, pkg, repository, SLOW_MS, startBrowser, www } from './harness.mjs';
import { serve } from './serve.mjs';

const here = join(repository, 'tests/browser');
const tool = (name) => join(here, 'node_modules/.bin', name);
const exec = promisify(execFile);

/** Runs a program; a failure shows its output. */
async function run(file, args, cwd) {
  try {
    return (await exec(file, args, { cwd, maxBuffer: 1e8, env: { ...process.env, NO_COLOR: '1' } })).stdout;
  } catch (error) {
    assert.fail(`${file} ${args.join(' ')}\n${error.stdout}\n${error.stderr}`);
  }
}

let temporary;
let tarball;
before(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'ctmatch-'));
  const [{ filename }] = JSON.parse(await run('npm', ['pack', '--json', '--pack-destination', temporary], pkg));
  tarball = join(temporary, filename);
});
after(() => temporary && rm(temporary, { recursive: true, force: true }));

test('the tarball holds exactly these files', async () => {
  const [{ files }] = JSON.parse(await run('npm', ['pack', '--dry-run', '--json'], pkg));
  assert.deepEqual(files.map(({ path }) => path).sort(), [
    'LICENSE', 'README.md', 'core.d.ts', 'core.js', 'error.js', 'index.d.ts', 'index.js', 'package.json',
    'wasm/ctmatch.d.ts', 'wasm/ctmatch.js', 'wasm/ctmatch_bg.wasm', 'wasm/ctmatch_bg.wasm.d.ts',
    'weights.js', 'worker.d.ts', 'worker.js',
  ]);
});

test('no dependency, no script that runs at installation', async () => {
  const manifest = JSON.parse(await readFile(join(pkg, 'package.json'), 'utf8'));
  for (const key of ['dependencies', 'peerDependencies', 'optionalDependencies', 'scripts']) assert.equal(manifest[key], undefined, key);
});

test('publint', async () => { await run(tool('publint'), ['--strict', pkg], here); });

test('attw', async () => { await run(tool('attw'), [tarball, '--profile', 'esm-only', '--exclude-entrypoints', './core.wasm', '--no-emoji'], here); });

test('the declarations hold for the code, and a user of them compiles', async () => {
  await run(tool('tsc'), ['--project', join(here, 'tsconfig.json')], here);
  await run(tool('tsc'), ['--project', join(here, 'types/tsconfig.json')], here);
});

test('import has no side effect', async () => {
  const script = `
    const before = new Set(Object.getOwnPropertyNames(globalThis));
    for (const name of ['Worker', 'fetch', 'navigator', 'document']) {
      Object.defineProperty(globalThis, name, { get() { throw new Error(name + ' was touched'); } });
      before.add(name);
    }
    const names = Object.keys(await import(${JSON.stringify(join(pkg, 'index.js'))})).sort();
    console.log(JSON.stringify({ names, added: Object.getOwnPropertyNames(globalThis).filter((name) => !before.has(name)) }));`;
  const found = JSON.parse(await run(process.execPath, ['--input-type=module', '--eval', script], temporary));
  assert.deepEqual(found, { names: ['CtmatchError', 'open'], added: [] });
});

test('bytes', async () => {
  const scripts = (await readdir(pkg)).filter((name) => name.endsWith('.js'));
  const js = (await Promise.all(scripts.map((name) => readFile(join(pkg, name))))).reduce((sum, bytes) => sum + gzipSync(bytes, { level: 9 }).length, 0);
  const wasm = gzipSync(await readFile(join(pkg, 'wasm/ctmatch_bg.wasm')), { level: 9 }).length;
  console.log(`js ${js} of ${BUDGETS.jsGzBytes} bytes gz, wasm ${wasm} of ${BUDGETS.wasmGzBytes} bytes gz`);
  assert.ok(js <= BUDGETS.jsGzBytes);
  assert.ok(wasm <= BUDGETS.wasmGzBytes);
});

test('no foreign address and no code from text in page or package', async () => {
  for (const folder of [pkg, www]) {
    for (const name of (await readdir(folder)).filter((file) => /\.(js|html|css)$/.test(file))) {
      const source = await readFile(join(folder, name), 'utf8');
      assert.doesNotMatch(source, /https?:\/\/|\beval\(|new Function|importScripts|blob:|innerHTML/, name);
    }
  }
});

test('installed from the tarball, the README example ranks the sample on a static page', { timeout: SLOW_MS }, async () => {
  const app = join(temporary, 'app');
  await mkdir(app);
  await writeFile(join(app, 'package.json'), '{ "name": "app", "private": true, "type": "module" }\n');
  await run('npm', ['install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', tarball], app);
  assert.deepEqual((await readdir(join(app, 'node_modules'))).filter((name) => !name.startsWith('.')), ['ctmatch']);

  const [, example] = (await readFile(join(pkg, 'README.md'), 'utf8')).match(/```js\n([\s\S]*?)```/);
  await writeFile(join(app, 'example.js'), example.replace("'ctmatch'", "'./node_modules/ctmatch/index.js'"));
  await writeFile(join(app, 'main.js'), `
    import { rankReports } from './example.js';
    const file = await (await fetch('/sample/chest.nii.gz')).blob();
    const texts = (await (await fetch('/sample/reports.json')).json()).map((report) => report.findings);
    rankReports(file, texts, { allowSoftwareAdapter: true })
      .then((rows) => { window.rows = rows; }, (error) => { window.rows = String(error.code ?? error); });`);
  await copyFile(join(www, 'guard.js'), join(app, 'guard.js'));
  await writeFile(join(app, 'index.html'), '<!doctype html><title>app</title><link rel="icon" href="data:,"><script src="./guard.js"></script><script type="module" src="./main.js"></script>');

  const server = await serve({ root: app, mounts: { '/sample': join(www, 'sample'), '/model': join(www, 'model') } });
  const browser = await startBrowser();
  try {
    const { page, finish } = await newPage(browser, { origin: server.origin, path: '/' });
    const rows = await (await page.waitForFunction(() => window.rows, undefined, { timeout: SLOW_MS })).jsonValue();
    assert.equal(rows.length, 4, String(rows));
    assert.equal(rows[0].rank, 1);
    assert.ok(rows[0].cosine >= rows[3].cosine);
    await finish();
  } finally {
    await browser.close();
    await server.close();
  }
});
