// The site as it is hosted: its release table, its service worker, and what a person has without a network.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { appendFile, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildSite, HEADERS, metaPolicy } from '../../hosting/site.mjs';
import { MESSAGES } from '../../www/i18n.js';
import { attempt, here, idle, newPage, out, repository, SLOW_MS, startBrowser, www } from './harness.mjs';
import { serve } from './serve.mjs';

const folder = mkdtempSync(join(tmpdir(), 'ctmatch-site-'));
let browser;
let release;
before(async () => {
  release = await buildSite(folder);
  browser = await startBrowser({ gpu: false });
});
const servers = [];
after(async () => {
  await browser?.close();
  for (const server of servers) await server.close();
  await rm(folder, { recursive: true, force: true });
});

async function serveSite(options) {
  const server = await serve({ root: folder, mounts: {}, ...options });
  servers.push(server);
  return server;
}
/** A page of the site whose service worker is in control. */
async function openSite(origin, options) {
  const made = await newPage(browser, { origin, path: '/', ...options });
  await stateIs(made.page, 'net_open');
  await made.page.check('input[name="backend"][value="cpu"]');
  return made;
}
const stateIs = (page, key) => page.waitForFunction((name) => document.querySelector('#network-state')?.dataset.text === name, key);
const noteIs = (page, key) => page.waitForSelector(`#network-notes [data-text="${key}"]`, { state: 'attached' });
const openPanel = (page) => page.evaluate(() => { document.querySelector('#network').open = true; });
const rankSample = async (page) => {
  await page.waitForFunction(() => !document.querySelector('#use-sample').disabled);
  await page.click('#use-sample');
  await page.waitForFunction(() => !document.querySelector('#rank').disabled);
  await page.click('#rank');
  await page.waitForSelector('#result-rows tr', { timeout: SLOW_MS });
};
// What Chromium prints for a request that the service worker answers with an error, and for a server that is gone.
const REFUSED = /404|net::ERR_(FAILED|CONNECTION_REFUSED|INTERNET_DISCONNECTED)|Failed to update|Failed to load resource/;

test('the release table holds every file with its hash; scripts are pinned', async () => {
  const found = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  assert.equal(found.length, Object.keys(release.files).length + 2, 'and sw.js and _headers');
  for (const [path, expected] of Object.entries(release.files)) {
    assert.equal(createHash('sha256').update(await readFile(join(folder, path))).digest('hex'), expected, path);
  }
  for (const path of ['index.html', 'main.js', 'ctmatch/index.js', 'ctmatch/wasm/ctmatch_bg.wasm', 'model/manifest.json', 'sample/chest.nii.gz']) assert.ok(path in release.files, path);
  const html = await readFile(join(folder, 'index.html'), 'utf8');
  for (const [tag] of html.matchAll(/<(?:script|link rel="stylesheet")[^>]*>/g)) assert.match(tag, / integrity="sha384-/);
  const head = execFileSync('git', ['-C', repository, 'rev-parse', 'HEAD'], { encoding: 'utf8' }).trim();
  assert.match(html, new RegExp(`<meta name="commit" content="${head}(-changed)?">`), 'what it was built from');
  assert.ok(html.includes(`content="${metaPolicy()}"`) && !metaPolicy().includes('frame-ancestors'));
});

test('every sample configuration sends the headers of www/_headers', async () => {
  const configured = {
    'nginx.conf': /^ *add_header ([\w-]+) "([^"]+)" always;$/gm,
    Caddyfile: /^\t\t([\w-]+) "([^"]+)"$/gm,
  };
  assert.ok(Object.keys(HEADERS).length >= 9 && HEADERS['Content-Security-Policy'].startsWith("default-src 'none'; "));
  for (const [name, pattern] of Object.entries(configured)) {
    const text = await readFile(join(repository, 'hosting', name), 'utf8');
    assert.deepEqual(Object.fromEntries([...text.matchAll(pattern)].map(([, header, value]) => [header, value])), HEADERS, name);
  }
  // These publish the folder that was built: with the headers in a file that the host reads, and the policy in its pages.
  const published = {
    'netlify.toml': /^ *command = "\.\/build\.sh site (\S+)"\n *publish = "(\S+)"$/m,
    'github-pages.yml': /^ *- run: \.\/build\.sh site (\S+)\n *- uses: actions\/upload-pages-artifact@\S+\n *with:\n *path: (\S+)$/m,
  };
  for (const [name, pattern] of Object.entries(published)) {
    const [, built, sent] = (await readFile(join(repository, 'hosting', name), 'utf8')).match(pattern) ?? assert.fail(name);
    assert.equal(sent, built, name);
  }
  const headers = await readFile(join(folder, '_headers'), 'utf8');
  assert.equal(headers, await readFile(join(www, '_headers'), 'utf8'));
  assert.match(headers, /^\/\*\n {2}Content-Security-Policy: /m, 'for every path');
  const pages = Object.keys(release.files).filter((path) => path.endsWith('.html'));
  assert.ok(pages.length > 1);
  for (const path of pages) assert.ok((await readFile(join(folder, path), 'utf8')).includes(`http-equiv="Content-Security-Policy" content="${metaPolicy()}"`), path);
});

test('offline: after one visit the whole journey works with the server gone, and nothing is requested once sealed', { timeout: 2 * SLOW_MS }, async () => {
  const server = await serveSite();
  const { page, finish } = await openSite(server.origin, { expect: REFUSED });
  await noteIs(page, 'net_offline_ready');
  await rankSample(page);
  await stateIs(page, 'net_sealed');

  // Sealed: the page, and the session's worker, which was there before the service worker.
  const asked = server.requests.length;
  const refused = await attempt(page, async () => {
    const outcome = (promise) => promise.then(() => 'answered', (error) => error.code ?? error.name);
    const { open } = await import('./ctmatch/index.js');
    const session = await open({ backend: 'cpu' });
    const result = {
      page: await outcome(fetch('./not-stored.json')), query: (await fetch('./?a=1')).status, post: await outcome(fetch('./', { method: 'POST', body: 'x' })),
      worker: await outcome(session.loadModel('./not-stored/manifest.json')), stored: await outcome(session.loadModel('./model/manifest.json')),
    };
    await session.close();
    return result;
  });
  assert.deepEqual(refused, { page: 'TypeError', query: 200, post: 'TypeError', worker: 'NETWORK', stored: 'answered' });
  // The browser looks for a newer service worker by itself, and sends nothing with it.
  assert.deepEqual(server.requests.slice(asked).filter((line) => line !== 'GET /sw.js'), []);
  await openPanel(page);
  await page.waitForFunction(() => document.querySelectorAll('#network-urls li').length > 5);
  const listed = await page.locator('#network-urls li').allTextContents();
  // An isolated page computes in threads: with the module for the CPU alone.
  for (const path of ['/', '/main.js', '/model/manifest.json', '/ctmatch/wasm/ctmatch_cpu_bg.wasm']) assert.ok(listed.includes(server.origin + path), path);
  for (const url of listed) assert.ok(url.startsWith(server.origin), url);
  await page.screenshot({ path: join(out, 'network-en.png'), fullPage: true });

  await server.close();
  await page.context().setOffline(true);
  await page.reload();
  await stateIs(page, 'net_sealed');
  await noteIs(page, 'net_no_connection');
  await page.check('input[name="backend"][value="cpu"]');
  await rankSample(page);
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
  assert.ok(JSON.parse(await readFile(await download.path(), 'utf8')).candidates.length > 0);
  await page.click('#lang-zh');
  assert.equal(await page.textContent('#network-state'), MESSAGES.net_sealed[1]);
  await openPanel(page);
  await page.click('#net-unlock');
  await stateIs(page, 'net_open');
  await finish();
});

test('a model of this site stays chosen when the sealed page is reloaded; what is missing of it is said, with the cure', { timeout: 3 * SLOW_MS }, async () => {
  const server = await serveSite({ mounts: { '/other': join(here, 'expected/zero-shot') } });
  const { page, finish } = await openSite(server.origin, { expect: REFUSED });
  await noteIs(page, 'net_offline_ready');
  const { id, embeddingSpace } = JSON.parse(await readFile(join(here, 'expected/zero-shot/manifest.json'), 'utf8'));
  const facts = () => page.textContent('#model-facts');
  const loaded = () => page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.model_loaded[0], { timeout: SLOW_MS });
  const again = async () => {
    await page.reload();
    await stateIs(page, 'net_sealed');
    await idle(page);
    await page.check('input[name="backend"][value="cpu"]');
    await page.evaluate(() => { document.querySelector('#model').open = true; });
  };
  const named = (name) => page.waitForFunction((part) => document.querySelector('#model-facts').textContent.includes(part), name);
  const asked = () => server.requests.filter((line) => line.includes('/other/')).length;
  const refused = () => page.waitForFunction(() => document.querySelector('#error-code').textContent === 'NETWORK' && document.querySelector('[data-cure="net_unlock"]'));
  const remove = (name) => attempt(page, async (entry) => { await (await navigator.storage.getDirectory()).removeEntry(entry, { recursive: true }); }, name);
  await page.click('#model > summary');
  await page.fill('#model-url', 'other/manifest.json');
  await page.click('#model-address button');
  await loaded();
  await stateIs(page, 'net_sealed');
  const before = asked();

  await again();
  await named(embeddingSpace);
  assert.equal(await page.inputValue('#model-url'), 'other/manifest.json');
  assert.ok(await page.isVisible('#model-own') && await page.isHidden('#error'));
  await page.click('#model-load');
  await loaded();
  assert.ok((await facts()).includes(MESSAGES.from_cache[0]), await facts());
  assert.equal(asked(), before);

  // Its weights are not stored any more.
  await remove('ctmatch');
  await again();
  await named(id);
  await page.click('#model-load');
  await refused();
  assert.equal(asked(), before);
  await page.click('[data-cure="net_unlock"]');
  await loaded();
  await stateIs(page, 'net_sealed');
  assert.ok(asked() > before);

  // Nor is its manifest: nothing else takes its place.
  await remove('model.json');
  await again();
  await refused();
  assert.equal(await facts(), '');
  await page.click('#model-load');
  await refused();
  await again();
  await refused();
  await page.click('[data-cure="net_unlock"]');
  await named(embeddingSpace);
  assert.ok(await page.isHidden('#error'));
  await finish();
});

test('the list of addresses grows while it is open, outlives its session and has what the service worker asked for', { timeout: SLOW_MS }, async () => {
  const server = await serveSite({ mounts: { '/other': join(here, 'expected/zero-shot') } });
  const { page, finish } = await openSite(server.origin);
  await noteIs(page, 'net_offline_ready');
  await openPanel(page);
  const listed = (path) => page.waitForFunction((url) => [...document.querySelectorAll('#network-urls li')].some(({ textContent }) => textContent === url), server.origin + path);
  // Never asked for by the page itself.
  for (const path of ['/sw.js', '/storage.html', '/sample/reports.json']) await listed(path);
  await attempt(page, () => fetch('./?later=1').then(() => null));
  await listed('/?later=1');
  await page.click('#model > summary');
  await page.fill('#model-url', 'other/manifest.json');
  await page.click('#model-address button');
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.model_loaded[0], { timeout: SLOW_MS });
  const ofSession = () => attempt(page, async () => (await import('./app.js')).state.session.info.urls);
  const own = await ofSession();
  // The next work opens another session, with a list of its own.
  await page.check('input[name="backend"][value="webgpu"]');
  await page.click('#use-sample');
  await page.waitForSelector('#reports li');
  await idle(page);
  const other = await ofSession();
  const ofOther = (url) => /\/other\/weights/.test(url);
  assert.deepEqual([own.some(ofOther), other.some(ofOther)], [true, false]);
  const all = await page.locator('#network-urls li').allTextContents();
  for (const url of [...own, ...other]) assert.ok(all.includes(url), url);
  await finish();
});

test('a session that was open before the service worker is sealed too', { timeout: SLOW_MS }, async () => {
  const server = await serveSite();
  const { page, finish } = await newPage(browser, { origin: server.origin, path: '/storage.html', expect: REFUSED });
  const found = await attempt(page, async () => {
    const outcome = (promise) => promise.then(() => 'answered', (error) => error.code ?? error.name);
    const { open } = await import('./ctmatch/index.js');
    const session = await open({ backend: 'cpu' });
    const { seal, start } = await import('./offline.js');
    const before = [navigator.serviceWorker.controller, await outcome(session.loadModel('./first/manifest.json'))];
    await start();
    await new Promise((resolve) => { if (navigator.serviceWorker.controller) resolve(); else navigator.serviceWorker.addEventListener('controllerchange', resolve); });
    while (document.querySelector('#network-state').dataset.text !== 'net_sealed') {
      await seal();
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
    return [...before, await outcome(session.loadModel('./second/manifest.json'))];
  });
  assert.deepEqual(found, [null, 'NETWORK', 'NETWORK']);
  assert.deepEqual(server.requests.filter((line) => /first|second/.test(line)), ['GET /first/manifest.json']);
  await finish();
});

test('a host without headers: the first load says so, and from the second on the page and its workers have them', { timeout: SLOW_MS }, async () => {
  const server = await serveSite({ headers: {} });
  const { page, finish } = await openSite(server.origin, { expect: /violates|Content Security Policy|Connection-Allowlist/ });
  await noteIs(page, 'net_no_headers');
  assert.equal(await page.evaluate(() => crossOriginIsolated), false);
  const foreign = () => attempt(page, () => fetch('https://example.org/').then(() => 'answered', ({ name }) => name));
  assert.equal(await foreign(), 'TypeError', 'the policy of the <meta>');
  await page.reload();
  await stateIs(page, 'net_open');
  assert.equal(await page.locator('[data-text="net_no_headers"]').count(), 0);
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  const headers = await attempt(page, async () => Object.fromEntries((await fetch('./ctmatch/worker.js')).headers));
  for (const [name, value] of Object.entries(HEADERS)) assert.equal(headers[name.toLowerCase()], value, name);
  await finish();
});

test('a site below a path: ranked, stored and reloaded, and nothing is asked for outside of it', { timeout: SLOW_MS }, async () => {
  const server = await serveSite({ root: mkdtempSync(join(tmpdir(), 'ctmatch-empty-')), mounts: { '/some/path': folder } });
  const { page, finish } = await openSite(server.origin, { path: '/some/path/' });
  await rankSample(page);
  await stateIs(page, 'net_sealed');
  await noteIs(page, 'net_offline_ready');
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
  const { app } = JSON.parse(await readFile(await download.path(), 'utf8'));
  assert.match(app.build_sha256, /^[0-9a-f]{64}$/);
  assert.ok(app.build_sha256.startsWith(release.version), app.build_sha256);
  await page.reload();
  await page.waitForFunction(() => !document.querySelector('#use-sample').disabled);
  await openPanel(page);
  await page.click('#net-storage');
  await page.waitForSelector('#stored li');
  await page.click('main a');
  await page.waitForFunction(() => !document.querySelector('#use-sample').disabled);
  assert.equal(new URL(page.url()).pathname, '/some/path/');
  assert.deepEqual(server.requests.filter((line) => !line.startsWith('GET /some/path/')), []);
  await finish();
});

test('a stale service worker: one release at a time, whole, and a half-deployed one is not taken', { timeout: SLOW_MS }, async () => {
  const server = await serveSite();
  const { page, finish } = await openSite(server.origin, { expect: REFUSED });
  const mark = () => attempt(page, async () => [
    document.querySelector('meta[name="release"]').content, (await (await fetch('./style.css')).text()).includes('/* next */'),
  ]);
  assert.deepEqual(await mark(), [release.version, false]);

  try {
    const next = await buildSite(folder, async (site) => { await appendFile(join(site, 'style.css'), '/* next */\n'); });
    assert.notEqual(next.version, release.version);
    // Half-deployed: the table is the new one, one file is still another.
    const whole = await readFile(join(folder, 'style.css'));
    await writeFile(join(folder, 'style.css'), '/* neither */');
    const update = () => attempt(page, async () => {
      const registration = await navigator.serviceWorker.getRegistration();
      await registration.update().catch(() => {});
      const { installing } = registration;
      await new Promise((resolve) => { if (installing) installing.addEventListener('statechange', resolve); else resolve(); });
      return [registration.waiting !== null, registration.active.state];
    });
    assert.deepEqual(await update(), [false, 'activated']);
    await page.reload();
    await stateIs(page, 'net_open');
    assert.deepEqual(await mark(), [release.version, false]);

    // Whole: kept aside until the person takes it; a reload alone does not mix them.
    await writeFile(join(folder, 'style.css'), whole);
    assert.deepEqual(await update(), [true, 'activated']);
    await page.reload();
    await noteIs(page, 'net_update');
    assert.deepEqual(await mark(), [release.version, false]);
    await openPanel(page);
    await Promise.all([page.waitForEvent('load'), page.click('#net-use_update')]);
    await stateIs(page, 'net_open');
    assert.deepEqual(await mark(), [next.version, true]);
    assert.deepEqual(await attempt(page, async () => (await caches.keys()).length), 1, 'the older release is gone');
  } finally {
    await buildSite(folder);
  }
  await finish();
});

test('what is stored is listed, and cleared', { timeout: SLOW_MS }, async () => {
  const server = await serveSite();
  const { page, finish } = await openSite(server.origin);
  await attempt(page, async () => {
    localStorage.planted = 'a';
    sessionStorage.planted = 'b';
    document.cookie = 'planted=c';
    await new Promise((resolve) => { indexedDB.open('planted').onsuccess = ({ target }) => { target.result.close(); resolve(); }; });
    const { open } = await import('./ctmatch/index.js');
    await (await open({ backend: 'cpu', model: './model/manifest.json' })).close();
  });
  await openPanel(page);
  await Promise.all([page.waitForEvent('load'), page.click('#net-storage')]);
  await page.waitForSelector('#stored li');
  const lines = await page.locator('#stored li').allTextContents();
  const kinds = Object.groupBy ? Object.keys(Object.groupBy(lines, (line) => line.split(':')[0])) : [...new Set(lines.map((line) => line.split(':')[0]))];
  assert.deepEqual(kinds.sort(), ['caches', 'indexedDB', 'opfs', 'serviceWorker', 'settings'].map((kind) => MESSAGES[`stored_${kind}`][0]).sort());
  for (const path of Object.keys(release.files)) assert.ok(lines.some((line) => line.startsWith(`${MESSAGES.stored_caches[0]}: ${server.origin}/${path} (`)), path);
  await page.screenshot({ path: join(out, 'storage-en.png'), fullPage: true });
  await page.click('#clear');
  await page.waitForFunction((line) => document.querySelector('#stored-state').textContent === line, MESSAGES.stored_none[0]);
  assert.deepEqual(await attempt(page, async () => {
    const files = [];
    for await (const name of (await navigator.storage.getDirectory()).keys()) files.push(name);
    return [await caches.keys(), (await navigator.serviceWorker.getRegistrations()).length, await indexedDB.databases(), localStorage.length, sessionStorage.length, document.cookie, files];
  }), [[], 0, [], 0, 0, '', []]);
  await finish();
});

test('clear all, then a model: the page says that nothing is stored and seals nothing; a reload stores the release again', { timeout: 2 * SLOW_MS }, async () => {
  const server = await serveSite();
  const { page, finish } = await openSite(server.origin, { expect: REFUSED });
  await noteIs(page, 'net_offline_ready');
  await rankSample(page);
  await stateIs(page, 'net_sealed');
  await page.click('#clear-all');
  await page.click('#clear button[value="clear"]');
  await page.waitForFunction((line) => document.querySelector('#progress-text').textContent === line, MESSAGES.cleared[0], { timeout: SLOW_MS });
  await stateIs(page, 'net_open');
  await noteIs(page, 'net_offline_missing');

  const stored = () => attempt(page, async () => (await caches.keys()).length);
  await rankSample(page);
  await page.waitForFunction(() => document.querySelector('#cancel').hidden);
  assert.deepEqual([await stored(), await page.getAttribute('#network-state', 'data-text')], [0, 'net_open']);
  // Nor by another page that does not know yet.
  const sealed = await attempt(page, () => new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => resolve(data.sealed);
    navigator.serviceWorker.controller.postMessage('seal', [port2]);
  }));
  assert.deepEqual([sealed, await stored()], [false, 0]);

  await page.reload();
  await stateIs(page, 'net_open');
  await noteIs(page, 'net_offline_ready');
  await finish();
});

test('sealed, a model that is not stored: unlocking or a folder is offered', { timeout: SLOW_MS }, async () => {
  const server = await serveSite();
  const { page, finish } = await openSite(server.origin, { expect: REFUSED });
  await noteIs(page, 'net_offline_ready');
  await openPanel(page);
  await page.click('#net-seal');
  await stateIs(page, 'net_sealed');
  const asked = () => server.requests.filter((line) => line.includes('elsewhere')).length;
  const refused = () => page.waitForFunction(() => document.querySelector('#error-code').textContent === 'NETWORK' && document.querySelector('#cancel').hidden);
  const offered = () => page.locator('#error-actions button').allTextContents();
  await page.click('#model > summary');
  await page.fill('#model-url', 'elsewhere/manifest.json');
  await page.click('#model-address button');
  await refused();
  assert.deepEqual([await offered(), asked()], [[MESSAGES.net_unlock[0], MESSAGES.model_folder[0]], 0]);
  await page.click('[data-cure="net_unlock"]');
  await stateIs(page, 'net_open');
  await page.waitForFunction(() => document.querySelectorAll('#error-actions button').length === 0);
  await refused();
  assert.deepEqual([await offered(), asked()], [[], 1], 'it was asked for, and is not there');
  await finish();
});
