// The package as npm sees it, and as a stranger installs it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
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
    'LICENSE', 'README.md', 'core.d.ts', 'core.js', 'error.js', 'index.d.ts', 'index.js', 'latents.js', 'package.json', 'probe.js',
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
    const names = [];
    for (const path of ${JSON.stringify(['index.js', 'core.js'].map((name) => join(pkg, name)))}) names.push(Object.keys(await import(path)).sort());
    console.log(JSON.stringify({ names, added: Object.getOwnPropertyNames(globalThis).filter((name) => !before.has(name)) }));`;
  const found = JSON.parse(await run(process.execPath, ['--input-type=module', '--eval', script], temporary));
  const names = ['CtmatchError', 'exportLatents', 'importLatents', 'open', 'probe'];
  assert.deepEqual(found, { names: [names, names], added: [] });
});

test('where there is no Symbol.asyncDispose, sessions have the one that lowered code looks for', async () => {
  const script = `
    const context = (await import('node:vm')).default.createContext();
    const source = (await import('node:fs')).readFileSync(${JSON.stringify(join(pkg, 'error.js'))}, 'utf8');
    const { SourceTextModule, runInContext } = (await import('node:vm')).default;
    const module = new SourceTextModule(source, { context });
    await module.link(() => {});
    await module.evaluate();
    console.log(runInContext('Symbol.asyncDispose === undefined', context), module.namespace.ASYNC_DISPOSE === Symbol.for('Symbol.asyncDispose'));`;
  assert.equal(await run(process.execPath, ['--no-warnings', '--experimental-vm-modules', '--input-type=module', '--eval', script], temporary), 'true true\n');
});

test('bytes', async () => {
  const gz = (bytes) => gzipSync(bytes, { level: 9 }).length;
  const minified = async (files) => (await build({
    entryPoints: files.map((name) => join(pkg, name)), bundle: true, splitting: true, minify: true, format: 'esm', external: ['./wasm/*'], outdir: temporary, write: false,
  })).outputFiles.reduce((sum, { contents }) => sum + gz(contents), 0);
  const found = {
    jsGzBytes: await minified(['index.js', 'core.js', 'worker.js']), glueGzBytes: await minified(['wasm/ctmatch.js']),
    wasmGzBytes: gz(await readFile(join(pkg, 'wasm/ctmatch_bg.wasm'))),
  };
  console.log(found, 'as published', Object.fromEntries(await Promise.all((await readdir(pkg)).filter((name) => name.endsWith('.js'))
    .map(async (name) => [name, gz(await readFile(join(pkg, name)))]))));
  for (const [what, bytes] of Object.entries(found)) assert.ok(bytes <= BUDGETS[what], `${what}: ${bytes}`);
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
