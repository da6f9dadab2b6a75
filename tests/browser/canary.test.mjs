// Planted identifiers against every byte: what the browser sends while a person works with the hosted site, what its own log of the
// network holds, what the page saves, what the browser keeps for the site, and what it leaves on the disk. Once more in a network
// namespace without a route.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { chromium } from 'playwright-core';
import { buildSite } from '../../hosting/site.mjs';
import { MESSAGES } from '../../www/i18n.js';
import { attempt, idle, LAUNCH, SLOW_MS, www } from './harness.mjs';
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
const needles = (tokens) => Object.entries(tokens).flatMap(([place, token]) => spellings(token).map((text) => [place, text]));
const NEEDLES = needles(PLANTED);
/** The places whose token is in a text. @param {string} latin1 */
const planted = (latin1, among = NEEDLES) => [...new Set(among.filter(([, text]) => latin1.includes(text)).map(([place]) => place))];

/** What `work` gives, or nothing where the browser has removed the file or folder meanwhile. @param {() => any[]} work */
function present(work) {
  try {
    return work();
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
}

/** In names and contents of everything below a folder: `file: place`. @param {string} directory @returns {string[]} */
const inFiles = (directory, among = NEEDLES) => present(() => readdirSync(directory, { withFileTypes: true })).flatMap((entry) => {
  const path = join(directory, entry.name);
  const content = entry.isFile() ? present(() => [readFileSync(path, 'latin1')]) : [];
  return [...planted([entry.name, ...content].join(' '), among).map((place) => `${entry.name}: ${place}`), ...(entry.isDirectory() ? inFiles(path, among) : [])];
});

// Words that the test itself puts into each kind of storage: they show that the search on the disk finds what is there, and what of it
// stays when a person clears everything.
const CONTROL = { localStorage: 'ctrl8110001', sessionStorage: 'ctrl8120002', indexedDB: 'ctrl8130003', caches: 'ctrl8140004', opfs: 'ctrl8150005' };
const keepControl = async (words) => {
  localStorage.control = words.localStorage;
  sessionStorage.control = words.sessionStorage;
  await new Promise((resolve) => {
    const request = indexedDB.open('control');
    request.onupgradeneeded = () => request.result.createObjectStore('words').put(words.indexedDB, 1);
    request.onsuccess = () => { request.result.close(); resolve(); };
  });
  await (await caches.open('control')).put('./control', new Response(words.caches));
  const file = await (await (await navigator.storage.getDirectory()).getFileHandle('control', { create: true })).createWritable();
  await file.write(words.opfs);
  await file.close();
};

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

test(JOURNEY, { timeout: 3 * SLOW_MS }, async (t) => {
  if (process.env[WITHOUT_A_ROUTE]) assert.deepEqual(Object.keys(networkInterfaces()), ['lo']);
  const site = join(folder, 'site');
  const release = await buildSite(site);
  const server = await serve({ root: site, mounts: {} });
  closing.push(server.close);
  const { origin, sent } = await recorder(server.origin);
  const profile = join(folder, 'profile');
  const netLog = join(folder, 'net-log.json');
  const context = await chromium.launchPersistentContext(profile, {
    ...LAUNCH, args: [...LAUNCH.args, `--log-net-log=${netLog}`, '--net-log-capture-mode=Everything'], acceptDownloads: true,
  });
  closing.push(() => context.close());
  // Of pages, workers and the service worker.
  const asking = new Set();
  context.on('request', (request) => asking.add(`${request.serviceWorker() ? 'service worker' : 'page'} ${new URL(request.url()).origin}`));
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
  await idle(page);

  // Everything that the page saves, packed and unpacked. The reports' texts are in it where the person asks for them, and nowhere else.
  const save = async (button, expected = []) => {
    const [download] = await Promise.all([page.waitForEvent('download'), page.click(button)]);
    const bytes = readFileSync(await download.path());
    const content = bytes.readUInt16BE(0) === 0x1f8b ? gunzipSync(bytes) : bytes;
    assert.ok(content.length > 200, button);
    assert.deepEqual(planted([download.suggestedFilename(), bytes.toString('latin1'), content.toString('latin1')].join('\n')), expected, button);
    await download.delete();
    await idle(page);
  };
  await page.evaluate(() => { for (const panel of document.querySelectorAll('details')) panel.open = true; });
  for (const button of ['#export', '#export-csv', '#export-html', '#save-clean', '#kept-volume', '#kept-reports', '#kept-store']) await save(button);
  await page.selectOption('#evidence-variant', 'share');
  await page.click('#evidence-show');
  await page.waitForSelector('#evidence-result:not([hidden])', { timeout: SLOW_MS });
  await idle(page);
  for (const grid of ['native', 'token']) {
    await page.selectOption('#evidence-grid', grid);
    await save('#evidence-save');
  }
  await page.selectOption('#quiz-answer', { index: 1 });
  await page.click('#quiz-list');
  await page.locator('#quiz-options input').first().check();
  await page.click('#quiz-reveal');
  await page.waitForSelector('#quiz-totals:not([hidden])', { timeout: SLOW_MS });
  await idle(page);
  await save('#quiz-save');
  await page.click('#compare-all');
  await page.waitForSelector('#matrix:not([hidden])', { timeout: SLOW_MS });
  await idle(page);
  await save('#matrix-save');
  await page.check('#export-texts');
  await save('#export'); // the record never has them
  for (const button of ['#export-csv', '#export-html']) await save(button, ['report']);
  const savers = readdirSync(www).filter((name) => name.endsWith('.js') && /import \{[^}]*\bdownload\b/.test(readFileSync(join(www, name), 'utf8')));
  assert.deepEqual(savers, ['evidence.js', 'export.js', 'kept.js', 'quiz.js', 'retrieval.js', 'volume.js'], 'each is above');
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin });
  await page.click('#diagnostics');
  await page.waitForFunction(() => document.querySelector('#copied').textContent !== '');
  const copied = await attempt(page, () => navigator.clipboard.readText());
  assert.match(copied, /"backend"/);
  assert.deepEqual(planted(copied), [], 'diagnostics');

  // Typed and not used: browsers keep such text to fill the form again.
  await page.fill('#paste', `Not added. MRN ${PLANTED.report}.`);
  await page.waitForTimeout(1000);

  assert.deepEqual(planted(lines.join('\n')), [], 'console');
  assert.deepEqual(planted(`${await page.title()} ${page.url()}`), [], 'title and address');
  const kept = await attempt(page, searchKept, NEEDLES);
  assert.ok(kept.length > 1e7, 'the files of the release are among it');
  assert.deepEqual(kept.found, [], 'storage');

  // The disk, before and after the person clears everything.
  await attempt(page, keepControl, CONTROL);
  const control = needles(CONTROL);
  const controls = () => [...new Set(inFiles(profile, control).map((line) => line.split(': ')[1]))].sort();
  for (const from = Date.now(); controls().length < Object.keys(CONTROL).length && Date.now() - from < 90_000;) await page.waitForTimeout(1000);
  assert.deepEqual(controls(), Object.keys(CONTROL).sort(), 'what a page keeps is found on the disk');
  assert.deepEqual(inFiles(profile), [], 'the profile on the disk, with everything open');
  await page.click('#clear-all');
  await page.click('#clear button[value="clear"]');
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.cleared[0], { timeout: SLOW_MS });
  assert.deepEqual((await attempt(page, searchKept, [...NEEDLES, ...control])).found, [], 'storage after it was cleared');
  await context.close();
  assert.deepEqual(inFiles(profile), [], 'the profile on the disk after it was cleared');
  t.diagnostic(`words of the control that are on the disk after they were cleared: ${inFiles(profile, control).join(', ') || 'none'}`);

  assert.deepEqual([...asking].sort(), [`page ${origin}`, `service worker ${origin}`]);
  // Written to its end when the browser closes: URLs, headers, and every byte of every socket in base64.
  const log = readFileSync(netLog, 'latin1');
  const [, , , ...inBase64] = spellings('GET /model/manifest.json HTTP/1.1');
  const logged = [['url', `${origin}/model/manifest.json`], ...inBase64.map((text) => ['bytes', text])];
  assert.deepEqual(planted(log, logged), ['url', 'bytes'], 'the log has what was asked for');
  assert.deepEqual(planted(log), [], 'the log of the network');

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
});

test('the same in a network namespace without a route', { timeout: 3 * SLOW_MS }, (t) => {
  const possible = spawnSync('unshare', ['-rn', 'ip', 'link', 'set', 'lo', 'up'], { encoding: 'utf8' });
  if (possible.status !== 0) {
    t.diagnostic(`no network namespace here: ${possible.error?.code ?? possible.stderr}`);
    assert.notEqual(process.platform, 'linux', 'unshare -rn, of util-linux, and ip, of iproute2, make a network namespace of a user');
    return;
  }
  const inner = spawnSync('unshare', ['-rn', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', process.execPath, '--test', `--test-name-pattern=^${JOURNEY}$`, fileURLToPath(import.meta.url)], {
    encoding: 'utf8', timeout: 3 * SLOW_MS, env: { ...process.env, NODE_TEST_CONTEXT: undefined, [WITHOUT_A_ROUTE]: '1' },
  });
  assert.equal(inner.status, 0, inner.stdout + inner.stderr);
  assert.match(inner.stdout, /# pass 1\b/);
});
