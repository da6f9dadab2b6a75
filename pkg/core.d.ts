import type { OpenOptions, ProbeOptions, ProbeReport, Session } from './index.js';
export * from './index.js';
/** The same session in the calling thread; `worker` is ignored. */
export declare function open(o?: OpenOptions): Promise<Session>;
/** Of the calling thread; `worker` is ignored. */
export declare function probe(o?: ProbeOptions): Promise<ProbeReport>;
