// One thread of the CPU backend: an instance of the module on the memory of all, in a worker of its own.

import init, { work } from './wasm/ctmatch_cpu.js';

addEventListener('message', async ({ data: { module, memory, lock } }) => {
  try {
    await init({ module_or_path: module, memory });
  } catch (error) {
    postMessage(String(error));
    return;
  }
  postMessage(undefined);
  try {
    work();
  } catch {
    // The session's worker may wait for this thread for ever and take no message: whoever waits for its lock learns that it is over.
    if (lock) navigator.locks?.request(lock, { steal: true }, () => {}).catch(() => {});
  }
}, { once: true });
