// The parity test body in Chromium: every activation of the tiny reference models, on WebGPU and on the wasm CPU.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { host, SLOW_MS } from './harness.mjs';

const tests = host();

for (const backend of ['cpu', 'webgpu']) {
  test(`${backend} equals the reference at every stage`, { timeout: 3 * SLOW_MS }, async () => {
    const { page, finish } = await tests.newPage({ path: '/test/blank.html' });
    const reports = await page.evaluate(async (backend) => {
      const parity = await import('/parity/parity.js');
      (await parity.default()).__wasm_call_ctors();
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
