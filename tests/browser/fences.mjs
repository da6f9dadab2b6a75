// The code in the package's documents. A fence that says `file=NAME` is a file; tests run each of them.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pkg } from './harness.mjs';

/** @returns {Record<string, string>} name to code */
function read(document) {
  const fences = [...readFileSync(join(pkg, document), 'utf8').matchAll(/^```(\S*) ?(.*)\n([\s\S]*?)^```$/gm)];
  const code = fences.filter(([, language]) => language !== '').map(([, language, info, body]) => {
    const [, name] = info.match(/^file=(\S+)$/) ?? assert.fail(`${document}: a ${language} fence without file=NAME is run by no test`);
    return [name, body];
  });
  assert.equal(new Set(code.map(([name]) => name)).size, code.length, `${document}: two fences of one name`);
  return Object.fromEntries(code);
}

export const README = read('README.md');
export const RECIPES = read('RECIPES.md');

/** The policy that the README prints. */
export const [, POLICY] = readFileSync(join(pkg, 'README.md'), 'utf8').match(/^Content-Security-Policy: (.*)$/m);
