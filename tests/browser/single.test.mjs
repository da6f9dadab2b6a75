// The page as one file, opened from the disk in a folder of its own.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { buildSingle } from '../../hosting/single.mjs';
import { MESSAGES } from '../../www/i18n.js';
import { attempt, out, SLOW_MS, startBrowser, www } from './harness.mjs';

const folder = mkdtempSync(join(tmpdir(), 'ctmatch-single-'));
const address = pathToFileURL(join(folder, 'ctmatch.html')).href;
let browser;
before(async () => {
  await buildSingle(join(folder, 'ctmatch.html'));
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

/** The page from the disk without a network, what went wrong on it, and what it asked for. */
async function openSingle() {
  const context = await browser.newContext({ locale: 'en-US' });
  await context.setOffline(true);
  const page = await context.newPage();
  const faults = [];
  const requests = [];
  page.on('console', (message) => { if (message.type() === 'error') faults.push(message.text()); });
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('request', (request) => { if (!/^(?:blob|data):/.test(request.url())) requests.push(request.url()); });
  await page.goto(address);
  await page.click('#first-run button');
  await page.waitForFunction(() => !document.querySelector('#use-sample').disabled);
  const assertQuiet = () => {
    assert.deepEqual(requests, [address], 'the page itself');
    assert.deepEqual(faults, []);
  };
  return { context, page, assertQuiet };
}

test('another model by file picker', { timeout: SLOW_MS }, async () => {
  const model = join(www, 'model');
  const files = await Promise.all((await readdir(model)).map(async (name) => {
    const bytes = await readFile(join(model, name));
    const buffer = name === 'manifest.json' ? Buffer.from(JSON.stringify({ ...JSON.parse(bytes.toString()), id: 'from-a-stick' })) : bytes;
    return { name, mimeType: 'application/octet-stream', buffer };
  }));
  const { context, page, assertQuiet } = await openSingle();
  await page.check('input[name="backend"][value="cpu"]');
  await page.setInputFiles('#model-files', files);
  await page.waitForFunction(([id, source]) => [id, source].every((text) => document.querySelector('#model-facts').textContent.includes(text)), ['from-a-stick', MESSAGES.from_file[0]]);
  await page.click('#use-sample');
  await page.waitForFunction(() => !document.querySelector('#rank').disabled);
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  assertQuiet();
  await context.close();
});

for (const backend of ['cpu', 'webgpu']) {
  test(`sample, Rank, export, without a server (${backend})`, { timeout: 2 * SLOW_MS }, async () => {
    const { context, page, assertQuiet } = await openSingle();
    assert.equal(await page.textContent('#network-state'), MESSAGES.net_single[0]);
    await page.check(`input[name="backend"][value="${backend}"]`);
    await page.check('#allow-software');
    await page.click('#use-sample');
    await page.waitForFunction(() => !document.querySelector('#rank').disabled);
    await page.click('#rank');
    await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
    await page.screenshot({ path: join(out, `single-${backend}.png`), fullPage: true });
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
    const saved = JSON.parse(await readFile(await download.path(), 'utf8'));
    assert.equal(saved.candidates.length, 4);
    assert.match(saved.app.build_sha256, /^[0-9a-f]{64}$/);
    assert.match(saved.app.commit, /^[0-9a-f]{40}|unknown/);
    const cosines = saved.candidates.map(({ cosine }) => cosine);
    assert.deepEqual(cosines, [...cosines].sort((a, b) => b - a));
    assertQuiet();

    // The policy: nothing by address, not even from the disk, and no other worker.
    const refused = await attempt(page, async () => {
      const outcome = (work) => Promise.resolve().then(work).then(() => 'allowed', ({ name }) => name);
      const image = (src) => new Promise((resolve, reject) => { Object.assign(new Image(), { onload: resolve, onerror: () => reject(new TypeError(src)), src }); });
      return [
        await outcome(() => fetch('https://example.org/')), await outcome(() => fetch('./other.json')), await outcome(() => image('https://example.org/x.png')),
        await outcome(() => { const script = document.createElement('script'); script.text = 'window.injected = true'; document.head.append(script); }), window.injected,
      ];
    });
    assert.deepEqual(refused.slice(0, 3), ['TypeError', 'TypeError', 'TypeError']);
    assert.ok(refused[4] === undefined || refused[4] === null);
    await context.close();
  });
}
