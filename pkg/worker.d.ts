/** The worker entry: build it as its own file and pass the Worker to `open({ worker })`. */
export {};
