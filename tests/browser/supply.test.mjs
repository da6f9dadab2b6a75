// Where everything comes from: crates and their licences by deny.toml, pinned tools, the bill of materials, workflows.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { checksums, crates, sbom, WASM } from '../../hosting/sbom.mjs';
import { here, repository } from './harness.mjs';

const NATIVE = ['--all-features', '--edges', 'normal,build,dev'];

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

test('every crate has an allowed licence and comes from crates.io with a checksum', async () => {
  const deny = await readFile(join(repository, 'deny.toml'), 'utf8');
  const allowed = new Set([...deny.match(/^allow = \[([^\]]*)\]/m)[1].matchAll(/"([^"]+)"/g)].map(([, id]) => id));
  const clarified = new Map([...deny.matchAll(/^crate = "([^"]+)"\nexpression = "([^"]+)"/gm)].map(([, name, expression]) => [name, expression]));
  const sums = checksums();
  const wasm = crates(WASM);
  assert.ok(wasm.length > 100 && allowed.size > 5);
  const offences = [];
  for (const { name, version, license } of [...wasm, ...crates(NATIVE)]) {
    if (!satisfied(clarified.get(name) ?? license, allowed)) offences.push(`${name} ${version}: ${license}`);
    if (name !== 'ctmatch' && !sums.has(`${name} ${version}`)) offences.push(`${name} ${version}: no checksum`);
  }
  assert.deepEqual(offences, []);
  const sources = new Set([...(await readFile(join(repository, 'Cargo.lock'), 'utf8')).matchAll(/^source = "(.*)"$/gm)].map(([, source]) => source));
  assert.deepEqual([...sources], ['registry+https://github.com/rust-lang/crates.io-index']);
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

test('the bill of materials names each crate of the module once, with its checksum', () => {
  const { bomFormat, specVersion, metadata, components } = sbom();
  assert.deepEqual([bomFormat, specVersion, metadata.component.name], ['CycloneDX', '1.6', 'ctmatch']);
  const names = components.map(({ purl }) => purl);
  assert.equal(new Set(names).size, names.length);
  for (const name of ['burn', 'wgpu', 'tokenizers', 'flate2']) assert.ok(names.some((purl) => purl.startsWith(`pkg:cargo/${name}@`)), name);
  // The command line does not reach the browser.
  for (const name of ['clap', 'indicatif']) assert.ok(!names.some((purl) => purl.startsWith(`pkg:cargo/${name}@`)), name);
  for (const { name, hashes } of components) assert.match(hashes?.[0].content ?? '', /^[0-9a-f]{64}$/, name);
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

test('every promise of SECURITY.md names tests that exist', async () => {
  const [, table] = (await readFile(join(repository, 'SECURITY.md'), 'utf8')).split('| promise | held by |');
  const rows = table.split('\n\n')[0].split('\n').filter((line) => line.startsWith('| ')).map((line) => line.split(' | '));
  assert.ok(rows.length > 15);
  for (const [promise, held] of rows) {
    let tests = 0;
    // A file of tests/browser holds until the next; names of native tests stand alone.
    let file;
    for (const [, name, suite, native, title] of held.matchAll(/`([\w-]+\.test\.mjs)`|`(\w+)::(\w+)`|"([^"]+)"/g)) {
      if (name) file = await readFile(join(here, name), 'utf8');
      else {
        tests += 1;
        const source = title ? file : await readFile(join(repository, 'tests/suite', `${suite}.rs`), 'utf8');
        assert.ok(title ? source.includes(title) : source.includes(`fn ${native}()`), `${promise}: ${title ?? native}`);
      }
    }
    assert.ok(tests > 0, promise);
  }
});

test('workflows ask for named permissions and never for all', async () => {
  const files = (await readdir(join(repository, 'hosting'))).filter((name) => name.endsWith('.yml'));
  assert.ok(files.length > 0);
  for (const name of files) {
    const text = await readFile(join(repository, 'hosting', name), 'utf8');
    assert.match(text, /^permissions:\n {2}contents: read\n/m, name);
    assert.doesNotMatch(text, /write-all|pull_request_target|persist-credentials: true/, name);
    for (const [, reference] of text.matchAll(/uses: (\S+)/g)) assert.match(reference, /@v\d+$|@[0-9a-f]{40}$/, reference);
  }
});
