// How long the page takes for a slice: from the request to the pixels on the canvas, by plane, on a volume of 512 x 512 x 600.
// Run by hand: node frames.mjs. It writes 300 MB to the system's temporary folder, and removes them.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newPage, startBrowser, startServer, writeLargeNifti } from './harness.mjs';

const DIMS = [512, 512, 600];
const MOVES = 150;

const folder = mkdtempSync(join(tmpdir(), 'ctmatch-'));
const path = join(folder, 'volume.nii');
await writeLargeNifti(path, DIMS);

const browser = await startBrowser({ gpu: false });
const server = await startServer();
try {
  const { page } = await newPage(browser, { origin: server.origin, path: '/' });
  await page.waitForFunction(() => !document.querySelector('#use-sample').disabled);
  await page.setInputFiles('#file', path);
  await page.waitForSelector('#volume:not([hidden])', { timeout: 300_000 });
  await page.waitForFunction(() => document.querySelector('#cancel').hidden, undefined, { timeout: 300_000 });
  const times = await page.evaluate(async (moves) => {
    const { viewer } = await import('/volume.js');
    const percentile = (values, share) => values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))].toFixed(1);
    const found = {};
    for (const view of viewer.views) {
      const [axis] = view.plane.axes;
      // Jumps are never in the cache; steps are fetched ahead when there is time between them.
      for (const [kind, step, wait] of [['jump', 37, 0], ['step', 1, 16]]) {
        const measured = [];
        for (let i = 0; i < moves; i++) {
          const position = [...viewer.position];
          position[axis] = (step * (i + 1)) % viewer.volume.dims[axis];
          const started = performance.now();
          viewer.moveTo(position);
          await view.settled;
          measured.push(performance.now() - started);
          await new Promise((done) => setTimeout(done, wait));
        }
        found[`${view.name} ${kind}`] = { 'p50 ms': percentile(measured, 0.5), 'p95 ms': percentile(measured, 0.95) };
      }
    }
    const started = performance.now();
    for (let i = 0; i < 20; i++) viewer.setWindow(1500 + i, -600);
    found['window of three planes'] = { 'p50 ms': ((performance.now() - started) / 20).toFixed(1) };
    return found;
  }, MOVES);
  console.table(times);
} finally {
  await browser.close();
  await server.close();
  rmSync(folder, { recursive: true });
}
