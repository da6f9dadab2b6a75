// The package as npm and TypeScript see it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { BUDGETS } from './budgets.mjs';
import { pkg, repository, www } from './harness.mjs';

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
    'LICENSE', 'README.md', 'RECIPES.md', 'core.d.ts', 'core.js', 'device.js', 'error.js', 'index.d.ts', 'index.js', 'latents.js', 'package.json', 'probe.js',
    'sbom.cdx.json', 'threads.js',
    'wasm/ctmatch.d.ts', 'wasm/ctmatch.js', 'wasm/ctmatch_bg.wasm', 'wasm/ctmatch_bg.wasm.d.ts',
    'wasm/ctmatch_cpu.d.ts', 'wasm/ctmatch_cpu.js', 'wasm/ctmatch_cpu_bg.wasm', 'wasm/ctmatch_cpu_bg.wasm.d.ts',
    'weights.js', 'worker.d.ts', 'worker.js',
  ]);
});

test('no dependency, no script that runs at installation', async () => {
  const manifest = JSON.parse(await readFile(join(pkg, 'package.json'), 'utf8'));
  for (const key of ['dependencies', 'peerDependencies', 'optionalDependencies', 'scripts']) assert.equal(manifest[key], undefined, key);
});

test('publint', async () => { await run(tool('publint'), ['--strict', pkg], here); });

test('attw', async () => { await run(tool('attw'), [tarball, '--profile', 'esm-only', '--exclude-entrypoints', './core.wasm', './cpu.wasm', '--no-emoji'], here); });

test('the declarations hold for the code', async () => { await run(tool('tsc'), ['--project', join(here, 'tsconfig.json')], here); });

test('a user of the packed declarations compiles', async () => {
  await writeFile(join(temporary, 'package.json'), '{ "private": true, "type": "module" }\n');
  await run('npm', ['install', '--offline', '--ignore-scripts', '--no-audit', '--no-fund', tarball], temporary);
  for (const name of ['user.ts', 'tsconfig.json']) await copyFile(join(here, 'types', name), join(temporary, name));
  for (const resolution of [['--module', 'nodenext'], ['--module', 'esnext', '--moduleResolution', 'bundler']]) {
    await run(tool('tsc'), ['--project', join(temporary, 'tsconfig.json'), ...resolution], temporary);
  }
});

test('lock files name no host', async () => {
  const folders = [here, ...(await readdir(join(repository, 'tests/consumers'))).map((name) => join(repository, 'tests/consumers', name))];
  const locks = (await Promise.all(folders.map((folder) => readFile(join(folder, 'package-lock.json'), 'utf8').catch(() => undefined)))).filter(Boolean);
  assert.equal(locks.length, 6);
  for (const lock of locks) assert.doesNotMatch(lock, /"resolved": "http/);
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
    cpuGlueGzBytes: await minified(['wasm/ctmatch_cpu.js']), wasmGzBytes: gz(await readFile(join(pkg, 'wasm/ctmatch_bg.wasm'))),
    cpuWasmGzBytes: gz(await readFile(join(pkg, 'wasm/ctmatch_cpu_bg.wasm'))),
  };
  console.log(found, 'as published', Object.fromEntries(await Promise.all((await readdir(pkg)).filter((name) => name.endsWith('.js'))
    .map(async (name) => [name, gz(await readFile(join(pkg, name)))]))));
  for (const [what, bytes] of Object.entries(found)) assert.ok(bytes <= BUDGETS[what], `${what}: ${bytes}`);
});

test("a module's constructors run once, not in every call", async () => {
  for (const name of ['ctmatch', 'ctmatch_cpu']) {
    assert.doesNotMatch(await readFile(join(pkg, `wasm/${name}.js`), 'utf8'), /command_export/);
    assert.match(await readFile(join(pkg, `wasm/${name}.d.ts`), 'utf8'), /__wasm_call_ctors/);
  }
});

test('no foreign address and no code from text in page or package', async () => {
  for (const folder of [pkg, www]) {
    for (const name of (await readdir(folder)).filter((file) => /\.(js|html|css)$/.test(file))) {
      const source = await readFile(join(folder, name), 'utf8');
      assert.doesNotMatch(source, /https?:\/\/|\beval\(|new Function|importScripts|blob:|innerHTML/, name);
    }
  }
});
