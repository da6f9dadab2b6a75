// What the engine gets when it asks the browser for an adapter and a device: ours, or a device of the caller's. wgpu 30 can only ask.

import { answered } from './probe.js';

/**
 * The facts that the engine reads of adapters and devices; Safari 26.0 does not tell them.
 * @param {Partial<GPUAdapterInfo>} [info]
 */
const described = ({ description = '', isFallbackAdapter = false, subgroupMinSize = 0, subgroupMaxSize = 0 } = {}) =>
  ({ description, isFallbackAdapter, subgroupMinSize, subgroupMaxSize });

/**
 * @param {Pick<GPUAdapter | GPUDevice, 'limits' | 'features'>} of
 * @param {Partial<GPUAdapterInfo> | undefined} info
 * @param {GPUAdapter['requestDevice']} requestDevice
 */
const adapter = ({ limits, features }, info, requestDevice) => ({
  // The engine measures no times, and yet stops where they cannot be measured (cubecl-wgpu 0.11.3 stream.rs).
  limits, features: new Set([...features, 'timestamp-query']), info: described(info), requestDevice,
});

/**
 * An object with some other properties; its methods know it as `this`.
 * @template {object} T
 * @param {T} target
 * @param {Record<string | symbol, any>} own
 * @param {ProxyHandler<T>} [traps]
 */
const altered = (target, own, traps) => new Proxy(target, {
  get(_, name) {
    const value = own[name] ?? /** @type {any} */ (target)[name];
    return typeof value === 'function' ? value.bind(target) : value;
  },
  ...traps,
});

// Operations of one submission at least, however slow the device: below this the submissions cost more than the work.
const MIN_LIMIT = 2 ** 26;

/**
 * Times each submission to a queue, and keeps them and what waits in the queue at about `maxMs` (WEB_PACKAGE.md K-21). The engine cuts its
 * work by operations; here it learns how many fit. One kernel cannot be cut, nor can what compiles shaders be foreseen.
 */
export class Pacer {
  #flops;
  #counted = 0;
  #compiled = false;
  /** When the queue was last known to be empty up to a submission. */
  #free = 0;
  /** What the latest submissions took, the longest counting most. */
  #recentMs = 150;
  /** @type {Promise<unknown>[]} */
  #pending = [];
  /** of one submission */
  limit = Infinity;
  longestMs = 0;
  waits = 0;

  /** @param {number} maxMs @param {() => number} flops started so far, by anyone in this thread */
  constructor(maxMs, flops) {
    this.maxMs = maxMs;
    this.#flops = flops;
  }

  /** What the engine must see of a device. @param {GPUDevice} device @returns {Record<string, any>} */
  watched(device) {
    const { queue } = device;
    return {
      queue: altered(queue, {
        submit: (/** @type {GPUCommandBuffer[]} */ buffers) => {
          queue.submit(buffers);
          this.#submitted(queue);
        },
      }),
      createComputePipeline: (/** @type {GPUComputePipelineDescriptor} */ descriptor) => {
        this.#compiled = true;
        return device.createComputePipeline(descriptor);
      },
    };
  }

  /** @param {GPUQueue} queue */
  #submitted(queue) {
    const [at, started, compiled] = [performance.now(), this.#flops(), this.#compiled];
    const flops = started - this.#counted;
    this.#counted = started;
    this.#compiled = false;
    this.#pending.push(queue.onSubmittedWorkDone().catch(() => {}).then(() => {
      this.#pending.shift();
      const now = performance.now();
      const ms = now - Math.max(at, this.#free);
      this.#free = now;
      if (!compiled) this.#learn(ms, flops);
    }));
  }

  /** @param {number} ms @param {number} flops */
  #learn(ms, flops) {
    this.longestMs = Math.max(this.longestMs, ms);
    this.#recentMs = Math.max(ms, 0.8 * this.#recentMs);
    if (flops === 0) return;
    if (ms > this.maxMs) this.limit = Math.max(MIN_LIMIT, Math.min(this.limit, flops) * Math.max(0.25, 0.7 * this.maxMs / ms));
    else if (ms < this.maxMs / 2 && flops > this.limit / 2) this.limit *= 1.5;
  }

  /** Until the queue holds no more than `maxMs` of work, or one submission. Undefined when that is so. @returns {Promise<unknown> | undefined} */
  wait() {
    const most = Math.max(1, Math.floor(this.maxMs / this.#recentMs));
    const last = this.#pending.at(-1 - most);
    if (last) this.waits += 1;
    // On a lost device they are done at once.
    return last;
  }
}

/** @param {GPUAdapter} found @param {Pacer} pacer */
export const ownAdapter = (found, pacer) => adapter(found, found.info, async (descriptor) => {
  const device = await answered(found.requestDevice(descriptor));
  return altered(device, { adapterInfo: device.adapterInfo ?? described(found.info), ...pacer.watched(device) }, {
    set: (_, name, value) => Reflect.set(device, name, value),
  });
});

/**
 * The adapter of a device that is the caller's. Its limits and features are the device's: the engine writes its shaders for them.
 * `destroy` gives back the buffers that the engine made; the device, and the caller's handler for errors, stay.
 * @param {GPUDevice} device
 * @param {Pacer} pacer
 */
export const lentAdapter = (device, pacer) => adapter(device, device.adapterInfo, async () => {
  /** @type {Set<WeakRef<GPUBuffer>>} */
  const buffers = new Set();
  const gone = new FinalizationRegistry((/** @type {WeakRef<GPUBuffer>} */ ref) => buffers.delete(ref));
  /** @type {any} */
  let listener;
  return altered(device, {
    ...pacer.watched(device),
    adapterInfo: described(device.adapterInfo),
    createBuffer(/** @type {GPUBufferDescriptor} */ descriptor) {
      const buffer = device.createBuffer(descriptor);
      const ref = new WeakRef(buffer);
      buffers.add(ref);
      gone.register(buffer, ref);
      return buffer;
    },
    destroy() {
      for (const buffer of buffers) buffer.deref()?.destroy();
      device.removeEventListener('uncapturederror', listener);
    },
  }, {
    // Of `onuncapturederror`: the engine sets nothing else.
    set(_, _name, value) {
      device.removeEventListener('uncapturederror', listener);
      device.addEventListener('uncapturederror', listener = value);
      return true;
    },
  });
});

/** @type {Promise<void>} */
let turn = Promise.resolve();

/**
 * Runs `open`, which asks the browser for an adapter, and gets this one. One at a time until it has: another session must not get it.
 * @template T
 * @param {ReturnType<typeof adapter>} given
 * @param {() => Promise<T>} open
 * @returns {Promise<T>}
 */
export async function withAdapter(given, open) {
  const before = turn;
  let next = () => {};
  turn = new Promise((resolve) => { next = resolve; });
  await before;
  const { gpu } = navigator;
  const own = Object.getOwnPropertyDescriptor(gpu, 'requestAdapter');
  let restore = () => {
    restore = () => {};
    delete (/** @type {any} */ (gpu).requestAdapter);
    if (own) Object.defineProperty(gpu, 'requestAdapter', own);
    next();
  };
  const value = async () => {
    restore();
    return given;
  };
  try {
    Object.defineProperty(gpu, 'requestAdapter', { value, configurable: true });
    return await open();
  } finally {
    restore();
  }
}
