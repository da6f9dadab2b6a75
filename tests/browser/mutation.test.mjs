// A GPU whose kernels are wrong in one place is not used: while the model loads, one kernel is changed, and the known answers must notice.
// The suite changes a kernel of each family; CTMATCH_MUTATIONS=all changes every kernel in every way, CTMATCH_MUTATIONS=all:7-9 those from
// number 7 to number 9.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { attempt, host, repository, SLOW_MS } from './harness.mjs';

// The demo model has biases of 0 and scales of 1, which a kernel may lose without another number. No weight of this one is such.
const model = mkdtempSync(join(tmpdir(), 'ctmatch-'));
after(() => rmSync(model, { recursive: true }));
const fixture = (file) => join(repository, 'tests/fixtures', file);
const { CTMATCH: ctmatch } = process.env;
if (!ctmatch) throw new Error('CTMATCH must name the native command');
execFileSync(ctmatch, ['convert', fixture('tiny_cube/state_dict.pt'), '--config', fixture('tiny_cube/config.json'), '--tokenizer',
  fixture('tokenizer/vocab.txt'), '--out', model, '--untrained', '--quiet'], { stdio: ['ignore', 'ignore', 'inherit'] });

const tests = host({ mounts: { '/tiny': model } });
const [ALL, RANGE = '0-'] = (process.env.CTMATCH_MUTATIONS ?? '').split(':');
const [FIRST, LAST] = RANGE.split('-').map((number) => (number === '' ? Infinity : Number(number)));
const KINDS = ['sign', 'axis', 'skip'];
/** Starts of the names of kernels, and what is done to one of each. */
const FAMILIES = [
  ['product_', 'sign'], ['product_', 'axis'], ['largest', 'sign'], ['first_of_largest', 'skip'], ['products_by_position', 'sign'],
  ['products_by_position', 'axis'], ['attention', 'sign'], ['attention', 'axis'], ['layer_norm', 'sign'], ['l2_normalize', 'skip'],
  ['gelu', 'skip'], ['dequantize', 'sign'], ['depthwise', 'skip'], ['reduce_kernel', 'sign'], ['kernel_binop', 'axis'],
  ['select_kernel', 'skip'], ['slice_assign_kernel', 'skip'],
];

/** Changes that change no number of a result, by the name of the kernel (its hash is of its code), and why: a run of all may accept these. */
const POISON = 'makes the NaN that the free memory is filled with, and nothing else';
const EQUIVALENT = {
  full_kernel_c_f32_n_1_aeb5e13d: [['sign', 'skip'], POISON],
  kernel_scalar_binop_c_f32_n_1_8fbf2e77: [KINDS, POISON],
  product_n_4_o_4_2a85db00: [['sign'], 'queries and keys, values and the output of an attention: signs cancel in pairs'],
  attention_n_4_56362fed: [KINDS, 'of the shorter text before the known one, whose own latent is not compared'],
  select_kernel_t_f32_i_i32_5f46251c: [['sign'], 'rows and columns of the position bias: two uses of it, whose signs cancel'],
};

/** How a load with a changed kernel may end. */
const NOTICED = ['SELF_TEST_FAILED', 'BAD_RESULT'];

/** In the page, before anything: keeps the names of kernels, and changes the one of a given number. */
const mutate = () => {
  const gpu = { names: [], uneven: [], target: -1, kind: '', changed: false };
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
    /** Nothing is written. */
    skip: (code) => code.replace(/(fn \w+\(@builtin[^{]*\{)/, '$1 return;'),
  };
  const number = new WeakMap();
  const after = (prototype, name, then) => {
    const original = prototype[name];
    prototype[name] = function wrapped(...args) {
      return then.call(this, (...changed) => original.apply(this, changed), ...args);
    };
  };
  after(GPUDevice.prototype, 'createShaderModule', (call, descriptor) => {
    const at = gpu.names.push(descriptor.code.match(/fn (\w+)\(@builtin/)?.[1] ?? '') - 1;
    gpu.uneven[at] = false;
    const code = at === gpu.target ? changes[gpu.kind](descriptor.code) : descriptor.code;
    gpu.changed ||= code !== descriptor.code;
    const module = call({ ...descriptor, code });
    number.set(module, at);
    return module;
  });
  after(GPUDevice.prototype, 'createComputePipeline', (call, descriptor) => {
    const pipeline = call(descriptor);
    number.set(pipeline, number.get(descriptor.compute.module));
    return pipeline;
  });
  after(GPUComputePassEncoder.prototype, 'setPipeline', function keep(call, pipeline) {
    number.set(this, number.get(pipeline));
    return call(pipeline);
  });
  after(GPUComputePassEncoder.prototype, 'dispatchWorkgroups', function count(call, x, y = 1, z = 1) {
    const at = number.get(this);
    gpu.uneven[at] ||= x !== y;
    return call(x, y, z);
  });
};

/** Loads the model with one kernel changed: `changed`, and the code of the error; of each kernel whether it ever has more groups along one axis. */
const load = async ({ target, kind }) => {
  Object.assign(window.mutation, { names: [], uneven: [], target, kind, changed: false });
  const outcome = await window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, model: '/tiny/manifest.json' })
    .then((session) => session.close().then(() => 'accepted'), (error) => error.code);
  const { changed, names, uneven } = window.mutation;
  return { outcome, changed, names, uneven };
};

test('a kernel with a wrong sign, swapped axes or without effect is noticed', { timeout: ALL ? 12 * 3_600_000 : FAMILIES.length * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: mutate, expect: /./ });
  const sound = await attempt(page, load, { target: -1, kind: '' });
  assert.deepEqual([sound.outcome, sound.changed], ['accepted', false]);
  const { names, uneven } = sound;
  // As many groups along one axis as along the other are the same groups when the axes are exchanged.
  const differs = ({ target, kind }) => kind !== 'axis' || uneven[target];
  const tried = ALL
    ? names.flatMap((_, target) => KINDS.map((kind) => ({ target, kind }))).slice(KINDS.length * FIRST, KINDS.length * (LAST + 1)).filter(differs)
    : FAMILIES.map(([start, kind]) => ({ target: names.findIndex((name, target) => name.startsWith(start) && differs({ target, kind })), kind }));
  const accepted = [];
  const changed = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
  for (const { target, kind } of tried) {
    assert.ok(target >= 0, `no kernel for ${kind}`);
    const found = await attempt(page, load, { target, kind });
    const what = `${target} ${kind} ${names[target]}: ${found.changed ? found.outcome : 'nothing to change'}`;
    if (ALL) console.log(what);
    assert.ok(found.changed || (ALL && kind !== 'skip'), what);
    if (!found.changed) continue;
    changed[kind] += 1;
    if (!NOTICED.includes(found.outcome) && !EQUIVALENT[names[target]]?.[0].includes(kind)) accepted.push(what);
  }
  console.log('kernels changed:', changed, 'of', names.length);
  assert.deepEqual(accepted, []);
  await finish();
});
