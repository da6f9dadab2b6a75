// What the machine itself does: copies on the processor, copies and matrix products on the adapter that WebGPU has.
// A copied byte counts twice: it is read and written.

import { digits, ratio, table } from './report.mjs';

/**
 * @typedef {{ copy?: number, f32?: number, f16?: number | null, adapter?: string }} Rates copies in GB/s, products in GFLOP/s; `f16` is null
 *   where the adapter has no 'shader-f16'
 */

// Many times the caches of one core.
const COPY_FLOATS = 64 * 2 ** 20;

/** Float32Array.set in this thread. @returns {Promise<Rates>} */
export async function nodeRates() {
  // Zeros may be one page of memory, mapped again and again.
  const from = new Float32Array(COPY_FLOATS).fill(1);
  const to = new Float32Array(COPY_FLOATS);
  let best = Infinity;
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    to.set(from);
    best = Math.min(best, performance.now() - started);
  }
  return { copy: 2e-6 * from.byteLength / best };
}

const SIDE = 1024;

/** @param {'f32' | 'f16'} type of the numbers and of the sums */
const shader = (type) => `${type === 'f16' ? 'enable f16;' : ''}
// c = a b, square. A workgroup makes 64 x 64 of c from tiles in shared memory, each of its threads 4 x 4.
alias T = ${type};
const N = ${SIDE}u;
@group(0) @binding(0) var<storage, read> a: array<T>;              // (N, N)
@group(0) @binding(1) var<storage, read> b: array<vec4<T>>;        // (N, N / 4)
@group(0) @binding(2) var<storage, read_write> c: array<vec4<T>>;  // (N, N / 4)
var<workgroup> tile_a: array<T, 1024>;                             // (64, 16)
var<workgroup> tile_b: array<vec4<T>, 256>;                        // (16, 64 / 4)

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) tile: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) index: u32) {
  let first_row = tile.y * 64u;
  let first_column = tile.x * 16u;
  var sums: array<vec4<T>, 4>;
  for (var k = 0u; k < N; k += 16u) {
    for (var i = index; i < 1024u; i += 256u) {
      tile_a[i] = a[(first_row + i / 16u) * N + k + i % 16u];
    }
    tile_b[index] = b[(k + index / 16u) * (N / 4u) + first_column + index % 16u];
    workgroupBarrier();
    for (var l = 0u; l < 16u; l++) {
      let right = tile_b[l * 16u + local.x];
      for (var r = 0u; r < 4u; r++) {
        sums[r] = fma(vec4<T>(tile_a[(local.y * 4u + r) * 16u + l]), right, sums[r]);
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 4u; r++) {
    c[(first_row + local.y * 4u + r) * (N / 4u) + first_column + local.x] = sums[r];
  }
}`;

/** For `onAdapter`: 64 MiB is less than every adapter's largest buffer. */
export const TASK = { side: SIDE, shaders: { f32: shader('f32'), f16: shader('f16') }, copyBytes: 64 * 2 ** 20 };

/** In a page. A product that is not exact is an error. @param {typeof TASK} task @returns {Promise<Rates>} */
export const onAdapter = async ({ side, shaders, copyBytes }) => {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw new Error('WebGPU finds no adapter');
  const { vendor, architecture, device: model, description } = adapter.info;
  const half = adapter.features.has('shader-f16');
  const device = await adapter.requestDevice({ requiredFeatures: half ? ['shader-f16'] : [] });
  const { queue } = device;

  /** Seconds of one, of as many in one submission as take a tenth of a second; the fastest of three. The first makes the device ready. */
  const secondsOf = async (record) => {
    const timed = async (count) => {
      const encoder = device.createCommandEncoder();
      for (let i = 0; i < count; i++) record(encoder);
      const commands = encoder.finish();
      const from = performance.now();
      queue.submit([commands]);
      await queue.onSubmittedWorkDone();
      return (performance.now() - from) / 1000;
    };
    await timed(1);
    let count = 1;
    while (count < 1024 && await timed(count) < 0.1) count *= 2;
    return Math.min(await timed(count), await timed(count), await timed(count)) / count;
  };

  // Multiples of 1/8 whose products cancel out: every partial sum is exact, in f16 too.
  const [left, right] = [(i, k) => ((7 * i + 3 * k) % 11 - 5) / 8, (k, j) => ((5 * k + j) % 13 - 6) / 8];
  const product = async (type) => {
    const Numbers = type === 'f16' ? Float16Array : Float32Array;
    const size = side * side * Numbers.BYTES_PER_ELEMENT;
    const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    const buffers = [left, right].map((of) => {
      const buffer = device.createBuffer({ size, usage: STORAGE | COPY_DST });
      queue.writeBuffer(buffer, 0, Numbers.from({ length: side * side }, (_, n) => of(Math.floor(n / side), n % side)));
      return buffer;
    });
    const made = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
    const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module: device.createShaderModule({ code: shaders[type] }), entryPoint: 'main' } });
    const entries = [...buffers, made].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    const seconds = await secondsOf((encoder) => {
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(side / 64, side / 64);
      pass.end();
    });
    const read = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(made, 0, read, 0, size);
    queue.submit([encoder.finish()]);
    await read.mapAsync(GPUMapMode.READ);
    const found = new Numbers(read.getMappedRange());
    // A prime number apart: all rows and columns of the tiles.
    for (let n = 0; n < found.length; n += 4099) {
      let expected = 0;
      for (let k = 0; k < side; k++) expected += left(Math.floor(n / side), k) * right(k, n % side);
      if (found[n] !== expected) throw new Error(`the ${type} product of the adapter: expected ${expected} at ${n}, found ${found[n]}`);
    }
    return 2e-9 * side ** 3 / seconds;
  };
  const copy = async () => {
    const [from, to] = [0, 1].map(() => device.createBuffer({ size: copyBytes, usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST }));
    return 2e-9 * copyBytes / await secondsOf((encoder) => encoder.copyBufferToBuffer(from, 0, to, 0, copyBytes));
  };

  try {
    for (const kind of ['validation', 'out-of-memory']) device.pushErrorScope(kind);
    const rates = { adapter: [vendor, architecture, model, description].filter(Boolean).join(' '), copy: await copy(), f32: await product('f32'), f16: half ? await product('f16') : null };
    for (const error of [await device.popErrorScope(), await device.popErrorScope()]) if (error) throw new Error(error.message);
    return rates;
  } finally {
    device.destroy();
  }
};

/** The best of the rounds. @param {Rates[]} rounds @returns {Rates} */
export function best(rounds) {
  /** @type {Rates} */
  const found = { ...rounds[0] };
  for (const key of ['copy', 'f32', 'f16']) if (typeof found[key] === 'number') found[key] = Math.max(...rounds.map((rates) => rates[key]));
  return found;
}

/**
 * A row each. Ratios are to the first row that has a number: the copy in Node, and the product of the native command.
 * @param {({ name: string } & Rates)[]} rows
 */
export function rateTable(rows) {
  const [f32, copy] = ['f32', 'copy'].map((key) => rows.find((row) => row[key])?.[key]);
  return table(['source', 'f32 product, GFLOP/s', 'f16 product, GFLOP/s', 'copy, GB/s', 'f32 product ÷ ctmatch native', 'copy ÷ Node'], rows.map((row) => [
    row.adapter ? `${row.name} (${row.adapter})` : row.name, digits(row.f32, 1), row.f16 === null ? "no 'shader-f16'" : digits(row.f16, 1),
    digits(row.copy, 1), ratio(row.f32, f32), ratio(row.copy, copy),
  ]));
}
