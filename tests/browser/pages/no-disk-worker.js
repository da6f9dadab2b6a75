// The package's worker in a browser that refuses the private file system.
import '/ctmatch/worker.js';

StorageManager.prototype.getDirectory = async () => { throw new DOMException('refused', 'SecurityError'); };
