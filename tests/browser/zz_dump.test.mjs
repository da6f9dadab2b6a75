import { test } from 'node:test';
import { writeFileSync } from 'node:fs';
import { attempt, host, SLOW_MS } from '/tmp/wt/package/tests/browser/harness.mjs';
const tests = host();
test('dump', { timeout: 6 * SLOW_MS }, async () => {
  const { page, finish } = await tests.newPackagePage({ init: () => {
    window.codes = [];
    const original = GPUDevice.prototype.createShaderModule;
    GPUDevice.prototype.createShaderModule = function (d) { window.codes.push(d.code); return original.call(this, d); };
  } });
  const t = Date.now();
  const r = await attempt(page, async () => { const s = await window.ctmatch.open({ worker: false, allowSoftwareAdapter: true, model: '/model/manifest.json' }); await s.close(); return window.codes; });
  console.log(Date.now() - t, r.length ?? r);
  writeFileSync('/tmp/codes.json', JSON.stringify(r));
  await finish();
});
