// What may not grow unnoticed. Counts and bytes are gates; times on shared machines are not.

export const BUDGETS = {
  jsGzBytes: 20 * 1024, // all of pkg/*.js
  wasmGzBytes: 4.6e6, // to come down to 2.0e6 (WEB_PACKAGE.md K-30)
  // One volume through the embedded model
  dispatchesPerVolume: 2000,
  submissionsPerVolume: 400,
};
