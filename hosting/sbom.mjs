// The software bill of materials of what is shipped, as CycloneDX JSON: the crates that the wasm modules are built from, with the
// checksums of Cargo.lock. The page and the package have no other dependencies.
//
//   node hosting/sbom.mjs > sbom.cdx.json

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** What the wasm modules are linked from, together. */
export const WASM = ['--target', 'wasm32-unknown-unknown', '--no-default-features', '--features', 'gpu,threads', '--edges', 'normal,no-proc-macro'];

/** Checksums by `name version`. */
export function checksums() {
  const lock = readFileSync(join(repository, 'Cargo.lock'), 'utf8');
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

export function sbom() {
  const [own, ...others] = crates(WASM);
  const sums = checksums();
  const component = ({ name, version, license }) => ({
    type: 'library', 'bom-ref': `pkg:cargo/${name}@${version}`, name, version, purl: `pkg:cargo/${name}@${version}`,
    ...(license && { licenses: [{ expression: license.replaceAll(/ *\/ */g, ' OR ') }] }),
    ...(sums.has(`${name} ${version}`) && { hashes: [{ alg: 'SHA-256', content: sums.get(`${name} ${version}`) }] }),
  });
  const byName = (/** @type {{ purl: string }} */ a, /** @type {{ purl: string }} */ b) => (a.purl < b.purl ? -1 : 1);
  return { bomFormat: 'CycloneDX', specVersion: '1.6', version: 1, metadata: { component: component(own) }, components: others.map(component).sort(byName) };
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) console.log(JSON.stringify(sbom(), null, 1));
