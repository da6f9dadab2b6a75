// Where everything comes from: crates and their licences by deny.toml, pinned tools, the bill of materials, workflows.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { checksums, crates, WASM } from '../../hosting/sbom.mjs';
import { here, pkg, repository } from './harness.mjs';

const NATIVE = ['--all-features', '--edges', 'normal,build,dev'];
const FUZZ = ['--manifest-path', 'tests/fuzz/Cargo.toml', '--edges', 'normal,build'];
/** In the repository, so without a checksum. */
const OURS = new Set(['ctmatch', 'ctmatch-fuzz']);

/** Whether an SPDX expression can be satisfied from a list. @param {string} expression @param {Set<string>} allowed */
function satisfied(expression, allowed) {
  // Old manifests write `/` for OR.
  const tokens = expression.replaceAll('/', ' OR ').replaceAll(/[()]/g, ' $& ').trim().split(/\s+/);
  const either = () => {
    let value = both();
    while (tokens[0] === 'OR') value = [tokens.shift(), both()][1] || value;
    return value;
  };
  const both = () => {
    let value = one();
    while (tokens[0] === 'AND') value = [tokens.shift(), one()][1] && value;
    return value;
  };
  const one = () => {
    const token = tokens.shift();
    if (token === '(') return [either(), tokens.shift()][0];
    if (tokens[0] !== 'WITH') return allowed.has(token);
    return allowed.has(`${token} WITH ${tokens.splice(0, 2)[1]}`);
  };
  return either();
}

test('expressions of licences are read right', () => {
  const allowed = new Set(['MIT', 'Apache-2.0', 'Apache-2.0 WITH LLVM-exception']);
  for (const [expression, expected] of [
    ['MIT', true], ['GPL-3.0', false], ['GPL-3.0 OR MIT', true], ['GPL-3.0/MIT', true], ['GPL-3.0 AND MIT', false], ['(MIT OR GPL-3.0) AND Apache-2.0', true],
    ['(MIT OR GPL-3.0) AND NCSA', false], ['Apache-2.0 WITH LLVM-exception', true], ['MIT WITH LLVM-exception', false], ['GPL-3.0 AND MIT OR MIT', true], ['', false],
  ]) assert.equal(satisfied(expression, allowed), expected, expression);
});

test('every crate has an allowed licence and a checksum', async () => {
  const deny = await readFile(join(repository, 'deny.toml'), 'utf8');
  const allowed = new Set([...deny.match(/^allow = \[([^\]]*)\]/m)[1].matchAll(/"([^"]+)"/g)].map(([, id]) => id));
  const clarified = new Map([...deny.matchAll(/^crate = "([^"]+)"\nexpression = "([^"]+)"/gm)].map(([, name, expression]) => [name, expression]));
  const sums = new Map([...checksums(), ...checksums('tests/fuzz/Cargo.lock')]);
  const wasm = crates(WASM);
  const fuzz = crates(FUZZ);
  assert.ok(wasm.length > 100 && fuzz.length > 50 && allowed.size > 5);
  const offences = [];
  for (const { name, version, license } of [...wasm, ...crates(NATIVE), ...fuzz]) {
    if (!satisfied(clarified.get(name) ?? license, allowed)) offences.push(`${name} ${version}: ${license}`);
    if (!OURS.has(name) && !sums.has(`${name} ${version}`)) offences.push(`${name} ${version}: no checksum`);
  }
  assert.deepEqual(offences, []);
});

test('every lock file of cargo names crates.io, and a checksum for each crate', async () => {
  for (const [path, least] of [['Cargo.lock', 400], ['tests/fuzz/Cargo.lock', 100]]) {
    const packages = (await readFile(join(repository, path), 'utf8')).split('[[package]]\n').slice(1);
    assert.ok(packages.length > least, `${path}: ${packages.length}`);
    const foreign = packages.filter((entry) => !OURS.has(entry.match(/^name = "(.+)"$/m)[1]));
    assert.equal(foreign.length, packages.length - 1, path);
    for (const entry of foreign) assert.match(entry, /^source = "registry\+https:\/\/github\.com\/rust-lang\/crates\.io-index"\nchecksum = "[0-9a-f]{64}"$/m, `${path}: ${entry}`);
  }
});

test('every advisory that is set aside has its reason, and its crate is still there', async () => {
  const [, list] = (await readFile(join(repository, 'deny.toml'), 'utf8')).match(/^ignore = \[\n([^\]]*)\]/m);
  const names = new Set([...checksums().keys()].map((crate) => crate.split(' ')[0]));
  const lines = list.trim().split('\n');
  assert.ok(lines.length > 0);
  for (const line of lines) {
    const [, name] = line.match(/^ *\{ id = "RUSTSEC-\d{4}-\d{4}", reason = "([\w-]+): .{20,}" \},$/) ?? assert.fail(line);
    assert.ok(names.has(name), name);
  }
});

test('the bill of materials that a build wrote: its modules, each crate once with its checksum, the tools', async () => {
  const { bomFormat, specVersion, metadata, components, formulation } = JSON.parse(await readFile(join(pkg, 'sbom.cdx.json'), 'utf8'));
  assert.deepEqual([bomFormat, specVersion, metadata.component.name], ['CycloneDX', '1.6', 'ctmatch']);
  const modules = (await readdir(join(pkg, 'wasm'))).filter((name) => name.endsWith('.wasm')).sort();
  assert.equal(modules.length, 2);
  assert.deepEqual(metadata.component.components.map(({ name, hashes }) => [name, hashes]), await Promise.all(modules.map(async (name) => (
    [`wasm/${name}`, [{ alg: 'SHA-256', content: createHash('sha256').update(await readFile(join(pkg, 'wasm', name))).digest('hex') }]]))));

  const purl = ({ name, version }) => `pkg:cargo/${name}@${version}`;
  const names = components.map((component) => component.purl);
  assert.deepEqual(names, crates(WASM).slice(1).map(purl).sort(), 'of the lock file that is here');
  for (const name of ['burn', 'wgpu', 'tokenizers', 'flate2']) assert.ok(names.some((found) => found.startsWith(`pkg:cargo/${name}@`)), name);
  // The command line does not reach the browser.
  for (const name of ['clap', 'indicatif']) assert.ok(!names.some((found) => found.startsWith(`pkg:cargo/${name}@`)), name);
  const sums = checksums();
  for (const { name, version, hashes } of components) assert.deepEqual(hashes, [{ alg: 'SHA-256', content: sums.get(`${name} ${version}`) }], name);

  const tools = formulation.flatMap((formula) => formula.components).map(({ name, version }) => `${name} ${version}`);
  assert.ok(tools.some((tool) => /^rustc \d+\.\d+\.\d+/.test(tool)), tools.join());
  assert.ok(sums.has(tools.at(-1)) && tools.at(-1).startsWith('wasm-bindgen '), tools.join());
});

test('no build takes what is not locked', async () => {
  const script = await readFile(join(repository, 'build.sh'), 'utf8');
  const calls = script.split('\n').filter((line) => /^[^#]*\bcargo (?:bench|build|check|clippy|doc|install|run|rustc|test|tree)\b/.test(line));
  assert.ok(calls.length >= 8, calls.join('\n'));
  // wasm-bindgen's own lock file may name what a mirror does not have.
  assert.deepEqual(calls.filter((line) => !line.includes(' --locked')).map((line) => line.trim().replace(/^.*cargo install/, 'cargo install')),
    ['cargo install -q wasm-bindgen-cli --version "$version" --root "$cache/tools"']);
  assert.match(script, /^setup\(\) \{\n(?: .*\n)*? {2}cargo tree -q --locked /m, 'before any module is built');
  for (const line of (await readFile(join(repository, 'tests/bench/requirements.txt'), 'utf8')).trim().split('\n')) assert.match(line, /^[\w-]+==[\d.]+$/);
});

test('npm tools: locked by hash, and only tests use them', async () => {
  const consumers = join(repository, 'tests/consumers');
  const folders = [here, join(repository, 'tests/bench'), ...(await readdir(consumers)).map((name) => join(consumers, name))];
  let locked = 0;
  for (const folder of folders) {
    const lock = await readFile(join(folder, 'package-lock.json'), 'utf8').then(JSON.parse, () => undefined);
    for (const [path, { integrity, link }] of Object.entries(lock?.packages ?? {})) {
      if (path === '' || link) continue;
      assert.match(integrity ?? '', /^sha512-/, `${folder}: ${path}`);
      locked += 1;
    }
  }
  assert.ok(locked > 100);
});

/** The titles of a file's tests; `…` stands for what a template fills in. One that is set aside is none. @param {string} source */
function titles(source) {
  const constant = (name) => source.match(new RegExp(`^const ${name} = '([^']*)';`, 'm'))?.[1];
  return [...source.matchAll(/^ *(?:test|it)\((?:'((?:[^'\\]|\\.)*)'|"([^"]*)"|`([^`]*)`|(\w+)), (?!.*\b(?:skip|todo)\b)/gm)].map(([, single, double, template, name]) => (
    single?.replaceAll('\\', '') ?? double ?? template?.replaceAll(/\$\{[^}]*\}/g, '…') ?? constant(name)));
}

/** The names of a module's tests. @param {string} source */
const nativeTests = (source) => [...source.matchAll(/((?:^#\[[^\n]*\]\n)+)fn (\w+)\(\)/gm)]
  .filter(([, attributes]) => attributes.includes('#[test]\n') && !attributes.includes('#[ignore')).map(([, , name]) => name);

test('what is a test, and what only looks like one', () => {
  assert.deepEqual(titles("const NAME = 'named';\ntest('plain', () => {\n  test(`a ${b.c} d`, { timeout: 1 }, async () => {\ntest(\"it's\", f);\ntest(NAME, f);\nit('that\\'s', f);\n"
    + "// test('comment', f)\nconst x = 'test(';\ntest('later', { skip: true }, f);\ntest.skip('never', f);\ncontest('other', f);\n"), ['plain', 'a … d', "it's", 'named', "that's"]);
  assert.deepEqual(nativeTests('#[test]\nfn one() {\n#[test]\n#[should_panic]\nfn two() {\nfn helper() {\n#[test]\n#[ignore = "slow"]\nfn three() {\n#[cfg(x)]\nfn four() {\n'), ['one', 'two']);
});

const suiteOf = (module) => readFile(join(repository, 'tests/suite', `${module}.rs`), 'utf8').then(nativeTests);

test('every promise of SECURITY.md names tests that exist', async () => {
  const [, table] = (await readFile(join(repository, 'SECURITY.md'), 'utf8')).split('| promise | held by |');
  const rows = table.split('\n\n')[0].split('\n').filter((line) => line.startsWith('| ')).map((line) => line.split(' | '));
  assert.ok(rows.length > 15);
  for (const [promise, held] of rows) {
    let tests = 0;
    // A file of tests/browser holds until the next; names of native tests stand alone.
    let found;
    for (const [, name, suite, native, title] of held.matchAll(/`([\w-]+\.test\.mjs)`|`(\w+)::(\w+)`|"([^"]+)"/g)) {
      if (name) found = titles(await readFile(join(here, name), 'utf8'));
      else {
        tests += 1;
        assert.ok((title ? found : await suiteOf(suite)).includes(title ?? native), `${promise} ${title ?? `${suite}::${native}`}`);
      }
    }
    assert.ok(tests > 0, promise);
  }
});

test('tests that the other documents name exist', async () => {
  const [own, suites] = [await readdir(here), (await readdir(join(repository, 'tests/suite'))).map((name) => name.replace('.rs', ''))];
  let [files, names] = [0, 0];
  for (const document of ['ARCHITECTURE.md', 'CONTRIBUTING.md', 'README.md', 'SECURITY.md', 'pkg/README.md', 'pkg/RECIPES.md', 'tests/README.md', 'tests/bench/README.md']) {
    const text = await readFile(join(repository, document), 'utf8');
    for (const [name] of text.matchAll(/[\w-]+\.test\.mjs/g)) assert.ok(own.includes(name), `${document}: ${name}`, files += 1);
    // Our functions have two words at most, tests whole sentences.
    for (const [, suite, name] of text.matchAll(/`(\w+)::((?:[a-z0-9]+_){2,}[a-z0-9]+)`/g)) {
      if (suites.includes(suite)) assert.ok((await suiteOf(suite)).includes(name), `${document}: ${suite}::${name}`, names += 1);
    }
  }
  assert.ok(files > 30 && names > 10, `${files} ${names}`);
});

test('the modules name no folder of the machine that built them', async () => {
  for (const name of ['ctmatch', 'ctmatch_cpu']) {
    const module = await readFile(join(pkg, `wasm/${name}_bg.wasm`), 'latin1');
    // Messages of panics are there, and name files.
    assert.match(module, /\/crates\/[\w-]+-\d/, name);
    for (const folder of [repository, homedir(), process.env.CARGO_HOME, process.env.CARGO_TARGET_DIR].filter(Boolean)) {
      assert.ok(!module.includes(folder.replace(/\/*$/, '/')), `${name}: ${folder}`);
    }
  }
});

test('workflows: named permissions, and none to write where code of ours or of others is run', async () => {
  const files = (await readdir(join(repository, 'hosting'))).filter((name) => name.endsWith('.yml'));
  assert.ok(files.length > 1);
  for (const name of files) {
    const text = await readFile(join(repository, 'hosting', name), 'utf8');
    const [top, jobs] = text.split(/^jobs:\n/m);
    assert.match(top, /^permissions:\n {2}contents: read\n(?! )/m, name);
    assert.doesNotMatch(text, /write-all|pull_request_target|persist-credentials: true/, name);
    for (const [, reference] of text.matchAll(/uses: (\S+)/g)) assert.match(reference, /^actions\/[\w-]+@(?:v\d+|[0-9a-f]{40})$/, reference);
    let built = 0;
    for (const job of jobs.split(/^(?= {2}[\w-]+:\n)/m)) {
      const runs = /^ +(?:- )?run:/m.test(job);
      built += job.includes('./build.sh') ? 1 : 0;
      if (runs) assert.doesNotMatch(job, /^ +[\w-]+: write$/m, `${name}: ${job}`);
      if (job.includes('actions/checkout')) assert.ok(job.includes('persist-credentials: false'), name);
    }
    assert.equal(built, 1, name);
  }
});
