// The package's worker in a browser that has WebGPU in the page's thread only.
import '/ctmatch/worker.js';

delete WorkerNavigator.prototype.gpu;
