// What the engine gets when it asks the browser for an adapter and a device: ours, or a device of the caller's. wgpu 30 can only ask.

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

/** @param {GPUAdapter} found */
export const ownAdapter = (found) => adapter(found, found.info, async (descriptor) => {
  const device = await found.requestDevice(descriptor);
  if (!device.adapterInfo) Object.defineProperty(device, 'adapterInfo', { value: described(found.info) });
  return device;
});

/**
 * The adapter of a device that is the caller's. Its limits and features are the device's: the engine writes its shaders for them.
 * `destroy` gives back the buffers that the engine made; the device, and the caller's handler for errors, stay.
 * @param {GPUDevice} device
 */
export const lentAdapter = (device) => adapter(device, device.adapterInfo, async () => {
  /** @type {WeakRef<GPUBuffer>[]} */
  const buffers = [];
  /** @type {any} */
  let listener;
  /** @type {Record<string | symbol, any>} */
  const own = {
    adapterInfo: described(device.adapterInfo),
    createBuffer(/** @type {GPUBufferDescriptor} */ descriptor) {
      const buffer = device.createBuffer(descriptor);
      buffers.push(new WeakRef(buffer));
      return buffer;
    },
    destroy() {
      for (const buffer of buffers) buffer.deref()?.destroy();
      device.removeEventListener('uncapturederror', listener);
    },
  };
  return new Proxy(device, {
    get(_, name) {
      const value = own[name] ?? /** @type {any} */ (device)[name];
      return typeof value === 'function' ? value.bind(device) : value;
    },
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
