import type { OpenOptions, Session } from './index.js';
export * from './index.js';
/** The same session in the calling thread; `worker` is ignored. */
export declare function open(o?: OpenOptions): Promise<Session>;
