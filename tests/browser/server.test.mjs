// The policy: every response carries it, nothing outside the folders is served, and it holds in the page.

import assert from 'node:assert/strict';
import { request } from 'node:http';
import { test } from 'node:test';
import { attempt, host } from './harness.mjs';
import { POLICY_HEADERS } from './serve.mjs';

const tests = host({ gpu: false });

/** A request as written: `fetch` would tidy the path. Gives status and headers. */
const raw = (method, path) => new Promise((resolve, reject) => {
  request({ host: '127.0.0.1', port: new URL(tests.origin).port, method, path }, (response) => {
    response.resume();
    response.on('end', () => resolve({ status: response.statusCode, headers: response.headers }));
  }).on('error', reject).end();
});

test('every response has every header', async () => {
  for (const [method, path, status] of [
    ['GET', '/', 200], ['GET', '/main.js', 200], ['GET', '/ctmatch/worker.js', 200], ['GET', '/ctmatch/wasm/ctmatch_bg.wasm', 200],
    ['GET', '/sample/chest.nii.gz', 200], ['HEAD', '/', 200], ['GET', '/nowhere', 404], ['POST', '/', 405], ['GET', '/%zz', 400],
  ]) {
    const found = await raw(method, path);
    assert.equal(found.status, status, path);
    for (const [name, value] of Object.entries(POLICY_HEADERS)) assert.equal(found.headers[name.toLowerCase()], value, `${path}: ${name}`);
  }
});

test('MIME types', async () => {
  for (const [path, type] of [
    ['/', 'text/html'], ['/ctmatch/worker.js', 'text/javascript'], ['/ctmatch/wasm/ctmatch_bg.wasm', 'application/wasm'],
    ['/sample/reports.json', 'application/json'], ['/style.css', 'text/css'],
  ]) assert.ok((await fetch(tests.origin + path)).headers.get('content-type').startsWith(type), path);
  assert.equal((await fetch(`${tests.origin}/sample/chest.nii.gz`)).headers.get('content-encoding'), null);
});

test('one range of a file, if it is still the same file', async () => {
  const url = `${tests.origin}/sample/reports.json`;
  const whole = await fetch(url);
  const [text, etag] = [await whole.text(), whole.headers.get('etag')];
  const size = Buffer.byteLength(text);
  for (const [headers, status, contentRange, body] of [
    [{ Range: 'bytes=0-3' }, 206, `bytes 0-3/${size}`, text.slice(0, 4)],
    [{ Range: `bytes=${size - 2}-` }, 206, `bytes ${size - 2}-${size - 1}/${size}`, text.slice(-2)],
    [{ Range: 'bytes=-2' }, 206, `bytes ${size - 2}-${size - 1}/${size}`, text.slice(-2)],
    [{ Range: `bytes=${size}-` }, 416, `bytes */${size}`],
    [{ Range: 'bytes=0-1,3-4' }, 200, null, text],
    [{ Range: 'bytes=0-3', 'If-Range': etag }, 206, `bytes 0-3/${size}`, text.slice(0, 4)],
    [{ Range: 'bytes=0-3', 'If-Range': '"another"' }, 200, null, text],
  ]) {
    const found = await fetch(url, { headers });
    assert.deepEqual([found.status, found.headers.get('content-range')], [status, contentRange], JSON.stringify(headers));
    if (body !== undefined) assert.equal(await found.text(), body, JSON.stringify(headers));
  }
});

test('nothing outside the folders is served', async () => {
  for (const path of ['/../Cargo.toml', '/%2e%2e/Cargo.toml', '/ctmatch/../../Cargo.toml', '/ctmatch/..%2f..%2fCargo.toml', '/..%5cCargo.toml', '/sample', '//etc/passwd', '/%00']) {
    assert.ok([400, 404].includes((await raw('GET', path)).status), path);
  }
});

test('the policy holds in the page: foreign scripts, workers, requests and peers are refused', async () => {
  const { page, finish } = await tests.newPackagePage({ expect: /Content Security Policy|violates|Connection-Allowlist|TrustedHTML/i });
  const found = await attempt(page, async () => {
    const refused = (work) => Promise.resolve().then(work).then(() => 'allowed', (error) => error.name);
    return {
      peers: [typeof RTCPeerConnection, typeof WebTransport],
      worker: await refused(() => new Worker('https://example.org/worker.js', { type: 'module' })),
      html: await refused(() => { document.body.innerHTML = '<b>x</b>'; }),
      request: await refused(() => fetch('https://example.org/')),
    };
  });
  assert.deepEqual(found, { peers: ['undefined', 'undefined'], worker: 'TypeError', html: 'TypeError', request: 'TypeError' });
  await finish();
});
