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
