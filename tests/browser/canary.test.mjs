// Planted identifiers against every byte: what the browser sends while a person works with the hosted site, what it keeps for the
// site, and what it leaves on the disk. Once more in a network namespace without a route.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { buildSite } from '../../hosting/site.mjs';
import { attempt, LAUNCH, SLOW_MS } from './harness.mjs';
import { FILE_NAME, PLANTED, plantedFile } from './planted.mjs';
import { serve } from './serve.mjs';

const JOURNEY = 'nothing planted leaves the page or stays behind';
const WITHOUT_A_ROUTE = 'CTMATCH_TEST_WITHOUT_A_ROUTE';

const folder = mkdtempSync(join(tmpdir(), 'ctmatch-canary-'));
const closing = [];
after(async () => {
  for (const close of closing.reverse()) await close();
  rmSync(folder, { recursive: true, force: true });
});

/** A token as it may be written: plain, in UTF-16, in hexadecimal digits, in base64 at each of the three positions. */
function spellings(token) {
  const inBase64 = [0, 1, 2].map((shift) => Buffer.from(' '.repeat(shift) + token).toString('base64')
    // What the neighbours of the token decide is cut off.
    .slice(Math.ceil((shift * 4) / 3), Math.floor(((shift + token.length) * 4) / 3)));
  return [token, Buffer.from(token, 'utf16le').toString('latin1'), Buffer.from(token).toString('hex'), ...inBase64];
}
const NEEDLES = Object.entries(PLANTED).flatMap(([place, token]) => spellings(token).map((text) => [place, text]));
/** @param {string} latin1 */
const planted = (latin1) => [...new Set(NEEDLES.filter(([, text]) => latin1.includes(text)).map(([place]) => place))];

/** A relay in front of `origin` that keeps every byte the browser sends. */
async function recorder(origin) {
  const sent = [];
  const sockets = [];
  const server = createServer((socket) => {
    const onward = connect(Number(new URL(origin).port), '127.0.0.1');
    const bytes = [];
    sent.push(bytes);
    socket.on('data', (chunk) => bytes.push(chunk));
    sockets.push(socket, onward);
    for (const [a, b] of [[socket, onward], [onward, socket]]) a.on('error', () => b.destroy()).pipe(b);
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  closing.push(() => new Promise((resolve) => {
    server.close(resolve);
    for (const socket of sockets) socket.destroy();
  }));
  return { origin: `http://127.0.0.1:${server.address().port}`, sent: () => sent.map((bytes) => Buffer.concat(bytes).toString('latin1')) };
}

/** In the page: which needles are in what the browser keeps for the origin, names and contents, and how much that is. */
const searchKept = async (needles) => {
  const kept = [];
  // Bytes to characters one to one, as far as the needles need it.
  const text = async (blob) => new TextDecoder('latin1').decode(await blob.arrayBuffer());
  const walk = async (directory) => {
    for await (const [name, handle] of directory.entries()) {
      kept.push(name);
      if (handle.kind === 'directory') await walk(handle);
      else kept.push(await text(await handle.getFile()));
    }
  };
  await walk(await navigator.storage.getDirectory());
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) kept.push(name, request.url, await text(await (await cache.match(request)).blob()));
  }
  kept.push(JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, await indexedDB.databases(), history.state]));
  return { length: kept.reduce((sum, part) => sum + part.length, 0), found: needles.filter(([, needle]) => kept.some((part) => part.includes(needle))) };
};

test(JOURNEY, { timeout: 2 * SLOW_MS }, async () => {
  if (process.env[WITHOUT_A_ROUTE]) assert.deepEqual(Object.keys(networkInterfaces()), ['lo']);
  const site = join(folder, 'site');
  const release = await buildSite(site);
  const server = await serve({ root: site, mounts: {} });
  closing.push(server.close);
  const { origin, sent } = await recorder(server.origin);
  const profile = join(folder, 'profile');
  const context = await chromium.launchPersistentContext(profile, { ...LAUNCH, acceptDownloads: true });
  closing.push(() => context.close());
  const page = await context.newPage();
  const lines = [];
  page.on('console', (message) => lines.push(message.text()));
  page.on('pageerror', (error) => lines.push(String(error)));
  await page.goto(`${origin}/`);
  await page.waitForFunction(() => document.querySelector('#network-state')?.dataset.text === 'net_open');
  await page.click('#first-run button');
  await page.check('input[name="backend"][value="cpu"]');

  const file = join(folder, FILE_NAME);
  writeFileSync(file, (await plantedFile()).bytes);
  await page.setInputFiles('#file', file);
  await page.waitForFunction(() => !document.querySelector('#choose-file').disabled);
  await page.click('#reveal');
  await page.fill('#paste', `Clear lungs. Seen for MRN ${PLANTED.report} on 2023-05-06.\n\nSmall left pleural effusion.`);
  await page.click('#add-pasted');
  await page.waitForFunction(() => document.querySelectorAll('#reports li .body').length === 2);
  for (const box of await page.locator('[data-accept]').all()) await box.check();
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
  for (const button of ['#export', '#save-clean']) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.click(button)]);
    assert.deepEqual(planted(download.suggestedFilename()), [], button);
    await download.delete();
  }
  // Typed and not used: browsers keep such text to fill the form again.
  await page.fill('#paste', `Not added. MRN ${PLANTED.report}.`);
  await page.waitForTimeout(1000);

  assert.deepEqual(planted(lines.join('\n')), [], 'console');
  assert.deepEqual(planted(`${await page.title()} ${page.url()}`), [], 'title and address');
  const kept = await attempt(page, searchKept, NEEDLES);
  assert.ok(kept.length > 1e7, 'the files of the release are among it');
  assert.deepEqual(kept.found, [], 'storage');
  await context.close();

  const requests = sent();
  assert.deepEqual(planted(requests.join('\n')), [], 'sent');
  // Stronger: only known files were asked for, and nothing but the request for them was sent.
  const known = new Set(['/', '/sw.js', ...Object.keys(release.files).map((path) => `/${path}`)]);
  const asked = requests.flatMap((text) => text.split('\r\n\r\n')).filter(Boolean);
  assert.ok(asked.length > 10);
  for (const request of asked) {
    const [, path] = request.match(/^GET (\S+) HTTP\/1\.1\r\n/) ?? assert.fail(request);
    assert.ok(known.has(path), path);
    assert.doesNotMatch(request, /^(content-length|transfer-encoding|cookie):/im);
  }

  const found = readdirSync(profile, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    .flatMap((entry) => planted(`${entry.name} ${readFileSync(join(entry.parentPath, entry.name), 'latin1')}`).map((place) => `${entry.name}: ${place}`));
  assert.deepEqual(found, [], 'the profile on the disk');
});

test('the same in a network namespace without a route', { timeout: 2 * SLOW_MS }, (t) => {
  const possible = spawnSync('unshare', ['-rn', 'ip', 'link', 'set', 'lo', 'up'], { encoding: 'utf8' });
  if (possible.status !== 0) {
    t.diagnostic(`no network namespace here: ${possible.error?.code ?? possible.stderr}`);
    return;
  }
  const inner = spawnSync('unshare', ['-rn', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', process.execPath, '--test', `--test-name-pattern=^${JOURNEY}$`, fileURLToPath(import.meta.url)], {
    encoding: 'utf8', timeout: 2 * SLOW_MS, env: { ...process.env, NODE_TEST_CONTEXT: undefined, [WITHOUT_A_ROUTE]: '1' },
  });
  assert.equal(inner.status, 0, inner.stdout + inner.stderr);
  assert.match(inner.stdout, /# pass 1\b/);
});
