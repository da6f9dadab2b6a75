// What was asked for, and forgetting everything.

import { clearState, run, state } from './app.js';
import { $, element } from './dom.js';
import { text } from './i18n.js';

/** Every address the page and its worker have asked for. */
const addresses = () => [...new Set([
  location.href.split('#')[0],
  ...performance.getEntriesByType('resource').map(({ name }) => name),
  ...(state.session?.info.urls ?? []).map((url) => new URL(url, document.baseURI).href),
])].filter((url) => !url.startsWith('data:') && !url.startsWith('blob:'));

function renderAddresses() {
  if (!$('requests').open) return;
  const list = addresses();
  const foreign = list.filter((url) => new URL(url).origin !== location.origin).length;
  $('requests-summary').textContent = text(foreign === 0 ? 'requests_own' : 'requests_foreign', { n: list.length, foreign });
  $('requests-list').replaceChildren(...list.map((url) => element('li', {}, element('code', {}, url))));
}

/** Memory, and all that this origin keeps in the browser. */
const clearAll = () => run('phase_clear', async () => {
  await state.session?.clearCache();
  clearState();
  for (const area of [localStorage, sessionStorage]) area.clear();
  for (const name of (await globalThis.caches?.keys()) ?? []) await caches.delete(name);
  for (const { name } of (await indexedDB.databases?.()) ?? []) if (name) indexedDB.deleteDatabase(name);
  const folder = await navigator.storage?.getDirectory?.().catch(() => undefined);
  if (folder) for await (const name of folder.keys()) await folder.removeEntry(name, { recursive: true });
  for (const worker of (await navigator.serviceWorker?.getRegistrations()) ?? []) await worker.unregister();
  // A new session is opened when it is needed: it would keep its wasm module again.
  return 'cleared';
});

$('requests').addEventListener('toggle', renderAddresses);
$('clear-all').addEventListener('click', () => $('clear').showModal());
$('clear').addEventListener('close', () => {
  if ($('clear').returnValue === 'clear') clearAll();
  $('clear').returnValue = '';
});
