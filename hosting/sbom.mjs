// The software bill of materials of what is shipped, as CycloneDX JSON: the wasm modules as they lie in pkg/, the crates that they are
// linked from, with the checksums of Cargo.lock, and the tools that made them. The page and the package have no other dependencies.
//
//   node hosting/sbom.mjs 'rustc 1.2.3 (…)'... > pkg/sbom.cdx.json     each compiler as it names itself

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** What the wasm modules are linked from, together. */
export const WASM = ['--target', 'wasm32-unknown-unknown', '--no-default-features', '--features', 'gpu,threads', '--edges', 'normal,no-proc-macro'];

/** Checksums by `name version`. @param {string} [path] in the repository */
export function checksums(path = 'Cargo.lock') {
  const lock = readFileSync(join(repository, path), 'utf8');
  return new Map([...lock.matchAll(/name = "([^"]+)"\nversion = "([^"]+)"\nsource = "[^"]+"\nchecksum = "([0-9a-f]{64})"/g)]
    .map(([, name, version, checksum]) => [`${name} ${version}`, checksum]));
}

/**
 * The crates of one build, ours included.
 * @param {string[]} build arguments of `cargo tree`
 * @returns {{ name: string, version: string, license: string }[]} `license`: as its manifest has it
 */
export function crates(build) {
  const lines = execFileSync('cargo', ['tree', '--locked', '--offline', '--prefix', 'none', '--format', '{p}|{l}', ...build], { cwd: repository, encoding: 'utf8' });
  const found = [...lines.matchAll(/^(\S+) v(\S+)[^|\n]*\|(.*?)(?: \(\*\))?$/gm)].map(([, name, version, license]) => [`${name} ${version}`, { name, version, license }]);
  return [...new Map(found).values()];
}

const MODULES = ['wasm/ctmatch_bg.wasm', 'wasm/ctmatch_cpu_bg.wasm'];

/** @param {string[]} compilers what `rustc --version` said */
export function sbom(compilers) {
  const [own, ...others] = crates(WASM);
  const sums = checksums();
  const component = ({ name, version, license }) => ({
    type: 'library', 'bom-ref': `pkg:cargo/${name}@${version}`, name, version, purl: `pkg:cargo/${name}@${version}`,
    ...(license && { licenses: [{ expression: license.replaceAll(/ *\/ */g, ' OR ') }] }),
    ...(sums.has(`${name} ${version}`) && { hashes: [{ alg: 'SHA-256', content: sums.get(`${name} ${version}`) }] }),
  });
  const byName = (/** @type {{ purl: string }} */ a, /** @type {{ purl: string }} */ b) => (a.purl < b.purl ? -1 : 1);
  const module = (/** @type {string} */ name) => ({
    type: 'file', 'bom-ref': name, name, hashes: [{ alg: 'SHA-256', content: createHash('sha256').update(readFileSync(join(repository, 'pkg', name))).digest('hex') }],
  });
  const tool = (/** @type {string} */ name, /** @type {string} */ version) => ({ type: 'application', 'bom-ref': `${name} ${version}`, name, version });
  // build.sh installs the command of the version that is linked.
  const bindgen = others.find(({ name }) => name === 'wasm-bindgen')?.version ?? '';
  return {
    bomFormat: 'CycloneDX', specVersion: '1.6', version: 1,
    metadata: { component: { ...component(own), components: MODULES.map(module) } },
    components: others.map(component).sort(byName),
    formulation: [{ components: [...[...new Set(compilers)].map((line) => tool('rustc', line.replace('rustc ', ''))), tool('wasm-bindgen', bindgen)] }],
  };
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const compilers = process.argv.slice(2);
  if (compilers.length === 0 || !compilers.every((line) => /^rustc \d/.test(line))) throw new Error("usage: node hosting/sbom.mjs 'rustc 1.2.3 (…)'...");
  console.log(JSON.stringify(sbom(compilers), null, 1));
}
