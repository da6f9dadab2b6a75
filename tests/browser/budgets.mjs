// What may not grow unnoticed. Counts and bytes are gates; times on shared machines are not.

export const BUDGETS = {
  // JavaScript as bundlers ship it: minified. Comments do not count; they are for readers of the source.
  jsGzBytes: 20 * 1024, // pkg/*.js, as WEB_PACKAGE.md K-30 allows
  glueGzBytes: 11.5 * 1024, // pkg/wasm/ctmatch.js, made by wasm-bindgen
  cpuGlueGzBytes: 8 * 1024, // pkg/wasm/ctmatch_cpu.js
  appJsGzBytes: 36e3, // all scripts of the small Vite application of tests/consumers, glue included
  wasmGzBytes: 3.75e6, // to come down to 2.0e6 (WEB_PACKAGE.md K-30)
  cpuWasmGzBytes: 1.7e6, // 1.57e6 measured
  // One volume through the embedded model
  dispatchesPerVolume: 105, // 102 measured
  submissionsPerVolume: 18, // 16 measured
  // The published shape at q8 with a scan of 512 x 512 x 600 voxels (DESIGN.md 5)
  gpuBytesFullSize: 1.2e9, // 0.86e9 measured
  wasmHeapLoading: 64 * 2 ** 20, // 35 MiB measured (WEB_PACKAGE.md K-26)
  wasmHeapFullSize: 512 * 2 ** 20, // 388 MiB measured
  dispatchesFullSize: 340, // 327 measured
  pipelinesFullSize: 44, // 35 while the model loads and 6 in the encode
  writtenFullSize: 221.3e6, // 221.19e6 measured: the grid in f32 is 221.18e6
};
