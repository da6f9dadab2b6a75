// A hostile dependency: code that runs in the page and tries every way out. Each way has its own listener for TCP and UDP. Without a
// policy they are heard, so that their silence under the shipped headers says something.

import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildSite, HEADERS } from '../../hosting/site.mjs';
import { here, idle, SLOW_MS, startBrowser, startServer, www } from './harness.mjs';
import { serve } from './serve.mjs';

// Long enough for a request that is not stopped: the slowest way out was heard in this many times less.
const PATIENCE = 3;
const LEAST_MS = 4000;

/** In the page. `url` is of another origin; what throws is refused. */
const CHANNELS = {
  'fetch()': (url) => fetch(url, { mode: 'no-cors' }),
  'fetch() that outlives the page': (url) => { fetch(url, { mode: 'no-cors', keepalive: true }); location.reload(); },
  XMLHttpRequest: (url) => { const request = new XMLHttpRequest(); request.open('GET', url); request.send(); },
  sendBeacon: (url) => navigator.sendBeacon(url, 'x'),
  WebSocket: (url) => new WebSocket(url.replace('http', 'ws')),
  EventSource: (url) => new EventSource(url),
  image: (url) => { new Image().src = url; },
  'CSS url()': (url) => { document.body.style.backgroundImage = `url(${url})`; },
  font: (url) => new FontFace('x', `url(${url})`).load(),
  script: (url) => document.head.append(Object.assign(document.createElement('script'), { src: url })),
  'import()': (url) => import(url),
  stylesheet: (url) => document.head.append(Object.assign(document.createElement('link'), { rel: 'stylesheet', href: url })),
  'ping of a link': (url) => Object.assign(document.createElement('a'), { href: '#x', ping: url }).click(),
  'download link': (url) => Object.assign(document.createElement('a'), { href: url, download: 'x' }).click(),
  prefetch: (url) => document.head.append(Object.assign(document.createElement('link'), { rel: 'prefetch', href: url })),
  preconnect: (url) => document.head.append(Object.assign(document.createElement('link'), { rel: 'preconnect', href: url })),
  media: (url) => document.body.append(Object.assign(document.createElement('video'), { src: url, preload: 'auto' })),
  object: (url) => document.body.append(Object.assign(document.createElement('object'), { data: url, type: 'text/html' })),
  'speculation rules': (url) => document.head.append(Object.assign(document.createElement('script'),
    { type: 'speculationrules', textContent: JSON.stringify({ prefetch: [{ urls: [url], eagerness: 'immediate' }] }) })),
  'worker from a blob': (url) => new Worker(URL.createObjectURL(new Blob([`fetch('${url}', { mode: 'no-cors' })`], { type: 'text/javascript' }))),
  'worker of the site': (url) => new Worker('/test/leak-worker.js').postMessage(url),
  form: (url) => {
    const form = Object.assign(document.createElement('form'), { action: url, method: 'post' });
    document.body.append(form);
    form.submit();
  },
  frame: (url) => document.body.append(Object.assign(document.createElement('iframe'), { src: url })),
  'window.open': (url) => open(url),
  'location =': (url) => { location = url; },
  'meta refresh': (url) => {
    const meta = Object.assign(document.createElement('meta'), { content: `0; url=${url}` });
    meta.httpEquiv = 'refresh';
    document.head.append(meta);
  },
  WebRTC: (url) => {
    const peer = new RTCPeerConnection({ iceServers: [{ urls: url.replace('http://', 'stun:').replace(/\/.*/, '') }] });
    peer.createDataChannel('x');
    return peer.setLocalDescription();
  },
  // guard.js removes WebRTC from the page; an empty frame brings its own.
  'WebRTC of an empty frame': (url) => {
    const frame = document.createElement('iframe');
    document.body.append(frame);
    const peer = new frame.contentWindow.RTCPeerConnection({ iceServers: [{ urls: url.replace('http://', 'stun:').replace(/\/.*/, '') }] });
    peer.createDataChannel('x');
    return peer.setLocalDescription();
  },
  'fetch() of an empty frame': (url) => {
    const frame = document.createElement('iframe');
    document.body.append(frame);
    return frame.contentWindow.fetch(url, { mode: 'no-cors' });
  },
  WebTransport: (url) => new WebTransport(url.replace('http', 'https')).ready,
};
// Chromium sends nothing for these in a test without any policy (NIFTI_AND_PRIVACY.md 11).
const SILENT = ['preconnect', 'WebTransport'];

/** One port of 127.0.0.1 for both protocols; `heard` is what arrived. */
async function listener() {
  for (;;) {
    const heard = [];
    const tcp = createServer((socket) => {
      heard.push('TCP');
      socket.on('error', () => {}).end('HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n');
    });
    await new Promise((resolve) => { tcp.listen(0, '127.0.0.1', resolve); });
    const { port } = tcp.address();
    const udp = createSocket('udp4').on('message', () => heard.push('UDP'));
    const bound = await new Promise((resolve) => { udp.once('error', () => resolve(false)).bind(port, '127.0.0.1', () => resolve(true)); });
    const close = () => { tcp.close(); if (bound) udp.close(); };
    if (bound) return { url: `http://127.0.0.1:${port}/x`, heard, close };
    close();
  }
}

let browser;
const closing = [];
before(async () => { browser = await startBrowser({ gpu: false }); });
after(async () => {
  await browser?.close();
  for (const close of closing) await close();
});

/**
 * Every channel in a page of its own.
 * @param {string} page address
 * @param {(heard: () => Record<string, string[]>) => Promise<unknown>} wait
 * @param {import('playwright-core').BrowserContext} [context]
 * @param {(tab: import('playwright-core').Page) => Promise<unknown>} [prepare]
 */
async function drive(page, wait, context, prepare) {
  const own = context ?? await browser.newContext();
  const listeners = {};
  await Promise.all(Object.keys(CHANNELS).map(async (name) => { listeners[name] = await listener(); }));
  const heard = () => Object.fromEntries(Object.entries(listeners).map(([name, { heard: found }]) => [name, [...new Set(found)]]));
  try {
    for (const [name, act] of Object.entries(CHANNELS)) {
      const tab = await own.newPage();
      await tab.goto(page);
      await prepare?.(tab);
      const { url } = listeners[name];
      // As an expression: the policy forbids code from text. A channel may end the page.
      await tab.evaluate(`Promise.race([(async () => (${act})('${url}'))(), new Promise((resolve) => setTimeout(resolve, 300))]).then(() => {}, () => {})`).catch(() => {});
    }
    await wait(heard);
    return heard();
  } finally {
    await own.close();
    for (const { close } of Object.values(listeners)) close();
  }
}

let patience = LEAST_MS;
const quiet = () => new Promise((resolve) => { setTimeout(resolve, patience); });
const silence = Object.fromEntries(Object.keys(CHANNELS).map((name) => [name, []]));

test('without a policy every way out is heard', { timeout: SLOW_MS }, async () => {
  const server = await startServer({ headers: {} });
  closing.push(server.close);
  let from;
  const heard = await drive(`${server.origin}/test/bare.html`, async (now) => {
    from = performance.now();
    while (performance.now() - from < 20_000 && Object.entries(now()).some(([name, found]) => found.length === 0 && !SILENT.includes(name))) {
      await new Promise((resolve) => { setTimeout(resolve, 50); });
    }
  });
  patience = Math.max(LEAST_MS, PATIENCE * (performance.now() - from));
  assert.deepEqual(Object.entries(heard).filter(([name, found]) => found.length === 0 && !SILENT.includes(name)), []);
  assert.deepEqual([heard.WebRTC, heard['fetch()']], [['UDP'], ['TCP']]);
});

test('under the shipped headers nothing leaves, not even a connection', { timeout: SLOW_MS }, async () => {
  const server = await startServer();
  closing.push(server.close);
  assert.deepEqual(await drive(`${server.origin}/test/blank.html`, quiet), silence);
});

test('the same in the page that people use, with a volume open', { timeout: 2 * SLOW_MS }, async () => {
  const server = await startServer();
  closing.push(server.close);
  const context = await browser.newContext();
  await context.addInitScript(() => { localStorage.setItem('ctmatch-notice', 'read'); });
  const volumeOpen = async (tab) => {
    await tab.waitForFunction(() => !document.querySelector('#use-sample').disabled);
    await tab.setInputFiles('#file', join(www, 'sample/chest.nii.gz'));
    await tab.waitForSelector('#volume:not([hidden])');
    await idle(tab);
  };
  assert.deepEqual(await drive(`${server.origin}/`, quiet, context, volumeOpen), silence);
});

test('where Connection-Allowlist is unknown, two ways are left: the connection for a frame, and WebRTC of an empty one', { timeout: SLOW_MS }, async () => {
  const { 'Connection-Allowlist': _, ...headers } = HEADERS;
  const server = await startServer({ headers });
  closing.push(server.close);
  assert.deepEqual(await drive(`${server.origin}/test/blank.html`, quiet), { ...silence, frame: ['TCP'], 'WebRTC of an empty frame': ['UDP'] });
});

test('on a host without headers nothing leaves once the service worker has taken over', { timeout: SLOW_MS }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ctmatch-leaks-'));
  closing.push(() => rmSync(folder, { recursive: true, force: true }));
  await buildSite(folder);
  const server = await serve({ root: folder, mounts: { '/test': join(here, 'pages') }, headers: {} });
  closing.push(server.close);
  const context = await browser.newContext();
  const first = await context.newPage();
  await first.goto(`${server.origin}/`);
  await first.waitForFunction(() => document.querySelector('#network-state')?.dataset.text === 'net_open');
  await first.close();
  assert.deepEqual(await drive(`${server.origin}/storage.html`, quiet, context), silence);
});
