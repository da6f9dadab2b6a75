// The package's worker, and its threads, where shared memory grows by `?bytes=` at most: a device with little memory.
import '/ctmatch/worker.js';

const bytes = Number(new URLSearchParams(location.search).get('bytes'));
const { Memory } = WebAssembly;
WebAssembly.Memory = function limited({ initial, maximum, shared }) {
  // The package asks with one page what there may be.
  return new Memory({ initial, maximum: shared && initial > 1 ? initial + Math.ceil(bytes / 65536) : maximum, shared });
};
