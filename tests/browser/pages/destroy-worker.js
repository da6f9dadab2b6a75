// The package's worker, whose GPU device the page can destroy.
import '/ctmatch/worker.js';

let last;
const { requestDevice } = GPUAdapter.prototype;
GPUAdapter.prototype.requestDevice = async function kept(...args) {
  last = await requestDevice.apply(this, args);
  return last;
};
new BroadcastChannel('destroy').onmessage = () => last.destroy();
