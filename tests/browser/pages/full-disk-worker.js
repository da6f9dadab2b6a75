// The package's worker where the disk is full after some bytes.
import '/ctmatch/worker.js';

let left = 400_000;
const { write } = FileSystemSyncAccessHandle.prototype;
FileSystemSyncAccessHandle.prototype.write = function limited(bytes, options) {
  left -= bytes.byteLength;
  if (left < 0) throw new DOMException('full', 'QuotaExceededError');
  return write.call(this, bytes, options);
};
