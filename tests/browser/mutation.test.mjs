// A GPU whose kernels are wrong in one place is not used: while the model loads, one kernel is changed, and the known answers must notice.
// The suite changes one kernel of each family; CTMATCH_MUTATIONS=all tries every kernel in turn (its result stands in tests/README.md).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attempt, host, SLOW_MS } from './harness.mjs';

const tests = host();
const ALL = process.env.CTMATCH_MUTATIONS === 'all';
/** Starts of the names of kernels, and what is done to one of each. */
const FAMILIES = [
  ['matmul_entry', 'sign'], ['matmul_entry', 'axis'], ['reduce_kernel', 'sign'], ['unary_float', 'sign'], ['kernel_binop', 'axis'],
];

/** In the page, before anything: keeps the names of kernels, and changes the one of a given number. */
const mutate = () => {
  const gpu = { names: [], target: -1, kind: '', changed: false };
  window.mutation = gpu;
  const changes = {
    /** The number that is written has the other sign. */
    sign(code) {
      const floats = [...code.matchAll(/read_write> (v\d+): array<(?:f32|vec4<f32>)>/g)].map(([, name]) => name);
      const aliases = floats.flatMap((name) => [...code.matchAll(new RegExp(`let (v\\d+) = &${name};`, 'g'))].map(([, alias]) => alias));
      const places = aliases.flatMap((alias) => [...code.matchAll(new RegExp(`let (v\\d+) = &\\(\\*${alias}\\)\\[`, 'g'))].map(([, place]) => place));
      return places.length === 0 ? code : code.replace(new RegExp(`(\\*(?:${places.join('|')}) = )(v\\d+);`, 'g'), '$1-$2;');
    },
    /** Groups along the first axis stand along the second, and the reverse. */
    axis(code) {
      const [, id] = code.match(/@builtin\(workgroup_id\) (v\d+)/) ?? [];
      return id ? code.replace(new RegExp(`= ${id}\\[([01])\\];`, 'g'), (_, axis) => `= ${id}[${1 - axis}];`) : code;
    },
  };
  const original = GPUDevice.prototype.createShaderModule;
  GPUDevice.prototype.createShaderModule = function createShaderModule(descriptor) {
    gpu.names.push(descriptor.code.match(/fn (\w+)\(@builtin/)?.[1] ?? '');
    if (gpu.names.length - 1 !== gpu.target) return original.call(this, descriptor);
    const code = changes[gpu.kind](descriptor.code);
    gpu.changed = code !== descriptor.code;
    return original.call(this, { ...descriptor, code });
  };
};

/** Loads the model with one kernel changed: `changed`, and the code of the error. */
const load = async ({ target, kind }) => {
  Object.assign(window.mutation, { names: [], target, kind, changed: false });
  const outcome = await window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, model: '/model/manifest.json' })
    .then((session) => session.close().then(() => 'accepted'), (error) => error.code);
  return { outcome, changed: window.mutation.changed, names: window.mutation.names };
};

test('a kernel with a wrong sign or swapped axes is noticed', { timeout: ALL ? 12 * 3_600_000 : 8 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: mutate, expect: /./ });
  const sound = await attempt(page, load, { target: -1, kind: '' });
  assert.deepEqual([sound.outcome, sound.changed], ['accepted', false]);
  const { names } = sound;
  const tried = ALL
    ? names.flatMap((_, target) => ['sign', 'axis'].map((kind) => ({ target, kind })))
    : FAMILIES.map(([start, kind]) => ({ target: names.findIndex((name) => name.startsWith(start)), kind }));
  const accepted = [];
  let changed = 0;
  for (const mutation of tried) {
    assert.ok(mutation.target >= 0, `no kernel for ${mutation.kind}`);
    const found = await attempt(page, load, mutation);
    if (!found.changed) {
      assert.ok(ALL, `${names[mutation.target]}: nothing to change`);
      continue;
    }
    changed += 1;
    if (ALL) console.log(mutation.kind, names[mutation.target], found.outcome);
    if (!['SELF_TEST_FAILED', 'BAD_RESULT'].includes(found.outcome)) accepted.push(`${mutation.kind} ${names[mutation.target]} ${found.outcome}`);
  }
  console.log(`${changed} kernels changed, ${accepted.length} not noticed`, accepted);
  if (!ALL) assert.deepEqual(accepted, []);
  await finish();
});
