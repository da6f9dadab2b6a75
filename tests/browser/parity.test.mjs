// The parity test body in Chromium: every activation of the tiny reference models, on WebGPU and on the wasm CPU.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { newPage, SLOW_MS, startBrowser, startServer } from './harness.mjs';

let browser;
let server;
before(async () => {
  browser = await startBrowser();
  server = await startServer();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

for (const backend of ['cpu', 'webgpu']) {
  test(`${backend} equals the reference at every stage`, { timeout: 3 * SLOW_MS }, async () => {
    const { page, finish } = await newPage(browser, server.origin);
    await page.goto(`${server.origin}/test/blank.html`);
    const reports = await page.evaluate(async (backend) => {
      const parity = await import('/parity/parity.js');
      await parity.default();
      return [JSON.parse(await parity.compare(0, backend)), JSON.parse(await parity.compare(1, backend))];
    }, backend);
    console.log(reports);
    assert.deepEqual(reports.map(({ name }) => name), ['tiny_cube', 'tiny_rect']);
    for (const { compared, differing } of reports) {
      assert.ok(compared >= 41, `only ${compared} stages were compared`);
      assert.deepEqual(differing, []);
    }
    await finish();
  });
}
