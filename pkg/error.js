/** For `await using`; lowered code looks under the second name where the first is missing (Safari). @type {typeof Symbol.asyncDispose} */
export const ASYNC_DISPOSE = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose');

/** The one error type of the package: a stable code beside the message. */
export class CtmatchError extends Error {
  /**
   * @param {import('./index.js').ErrorCode} code
   * @param {string} message
   * @param {{ retryable?: boolean, detail?: Readonly<Record<string, unknown>>, cause?: unknown }} [more]
   */
  constructor(code, message, { retryable = false, detail = {}, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'CtmatchError';
    this.code = code;
    this.retryable = retryable;
    this.detail = detail;
  }
}

/** @typedef {Omit<import('./index.js').Volume, 'slice' | 'modelBox' | 'exportMap' | 'close' | 'revealIdentifiers' | 'cleanCopy'>} VolumeFacts */

class Facts {
  /** @param {object} facts */
  constructor(facts) {
    Object.assign(this, facts);
  }
}

/** What is known of a volume, on both sides of a worker. */
export const AsVolume = /** @type {new (facts: VolumeFacts) => VolumeFacts} */ (Facts);
/** The same of a store. */
export const AsStore = /** @type {new (facts: import('./index.js').StoreFacts) => import('./index.js').StoreFacts} */ (/** @type {unknown} */ (Facts));

/**
 * Bounds what a browser may never answer: rejects with what `failure` makes when it takes longer.
 * @template T
 * @param {Promise<T>} promise @param {number} ms @param {() => unknown} failure
 * @returns {Promise<T>}
 */
export async function within(promise, ms, failure) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(failure()), ms); });
  try {
    return await Promise.race([promise, /** @type {Promise<never>} */ (late)]);
  } finally {
    clearTimeout(timer);
  }
}
