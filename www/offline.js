// The network as a person sees it: open or sealed, ready to work without one, a newer release, and every address asked for.
// Without a release table (a page that was not built by hosting/site.mjs) there is no service worker, and it says so.

import { text } from './i18n.js';

/** `stored`: what the service worker has fetched. @typedef {{ version: string, sealed: boolean, complete: boolean, stored: string[] }} State */

// One file from the disk, made by hosting/single.mjs: its policy leaves no way to request anything.
const SINGLE = location.protocol === 'file:';
const RELEASE = document.querySelector('meta[name="release"]')?.getAttribute('content');
const workers = RELEASE ? navigator.serviceWorker : undefined;

/** @type {ServiceWorkerRegistration | undefined} */
let registration;
/** @type {State | undefined} */
let state;
/** Sealing was asked for before there was a service worker to do it. */
let sealWanted = false;
/** Another tab has put a newer release in this one's place. */
let replaced = false;
/** Every address asked for: by the page, by its sessions' workers, and by the service worker when it stored the release. @type {Set<string>} */
const asked = new Set();
/** @type {() => void} */
let settle = () => {};
/** Until it is known whether the network is sealed. @type {Promise<void>} */
export const settled = new Promise((resolve) => { settle = resolve; });

/** @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {Record<string, string>} [properties] */
const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

/** Texts are named, not set: a change of language finds them. @param {HTMLElement} element @param {string} key */
function say(element, key) {
  element.dataset.text = key;
  element.textContent = text(key);
  return element;
}

const parts = {
  panel: make('details', { className: 'network', id: 'network' }), status: make('span', { id: 'network-state' }),
  notes: make('ul', { id: 'network-notes' }), actions: make('div', { className: 'row', id: 'network-actions' }),
  urls: make('ul', { id: 'network-urls', className: 'quiet' }),
};

/** @param {string} command @param {ServiceWorker | null | undefined} worker @returns {Promise<State | undefined>} */
function ask(command, worker = workers?.controller) {
  if (!worker) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => resolve(data);
    worker.postMessage(command, [port2]);
  });
}

/** What may be done, by what is so. @returns {[key: string, act: () => unknown][]} */
function actions() {
  return [
    ...(state?.sealed ? [/** @type {[string, () => unknown]} */ (['net_unlock', unlock])] : []),
    ...(state?.complete && !state.sealed ? [/** @type {[string, () => unknown]} */ (['net_seal', () => tell('seal')])] : []),
    ...(registration?.waiting ? [/** @type {[string, () => unknown]} */ (['net_use_update', update])] : []),
  ];
}

function notes() {
  if (SINGLE) return ['net_offline_ready'];
  return [
    ...(navigator.onLine ? [] : ['net_no_connection']),
    state?.complete ? 'net_offline_ready' : 'net_offline_missing',
    // What the policy headers cause, where they arrive.
    ...(workers && !globalThis.crossOriginIsolated ? ['net_no_headers'] : []),
    ...(registration?.waiting ? ['net_update'] : []),
    ...(replaced ? ['net_replaced'] : []),
  ];
}

function render() {
  say(parts.status, state ? (state.sealed ? 'net_sealed' : 'net_open') : SINGLE ? 'net_single' : 'net_no_worker');
  parts.notes.replaceChildren(...notes().map((key) => say(make('li'), key)));
  parts.actions.replaceChildren(...actions().map(([key, act]) => {
    const button = /** @type {HTMLButtonElement} */ (say(make('button', { type: 'button', id: key.replace('_', '-') }), key));
    button.addEventListener('click', act);
    return button;
  }), ...(SINGLE ? [] : [say(make('a', { href: './storage.html', id: 'net-storage' }), 'net_storage')]));
}

function renderUrls() {
  if (parts.panel.open) parts.urls.replaceChildren(...Array.from(asked, (url) => make('li', { textContent: url })));
}

/** The worker's requests are in no list of the page's. @param {readonly string[]} [urls] */
export function touched(urls = []) {
  const { size } = asked;
  for (const url of urls) if (!/^(data|blob):/.test(url)) asked.add(url);
  if (asked.size > size) renderUrls();
}
// The browser's own list ends at 250 entries; an observer is told of all.
for (const type of ['navigation', 'resource']) new PerformanceObserver((list) => touched(list.getEntries().map(({ name }) => name))).observe({ type, buffered: true });

/** @param {string} command @param {ServiceWorker | null} [worker] */
async function tell(command, worker) {
  state = (await ask(command, worker)) ?? state;
  touched([...(workers?.controller ? [workers.controller.scriptURL] : []), ...(state?.stored ?? [])]);
  render();
}

let updating = false;
function update() {
  updating = true;
  tell('update', registration?.waiting);
}

export const isSealed = () => state?.sealed ?? false;

export const unlock = () => tell('unlock');

/** What was stored has been removed: says so, and seals no more, because there is no release to answer from. */
export async function cleared() {
  sealWanted = false;
  await tell('state');
}

/** Once everything is in memory: from now on the service worker answers from the stored release and sends nothing. */
export async function seal() {
  sealWanted = true;
  if (state?.complete) await tell('seal');
}

export async function start() {
  const summary = make('summary');
  summary.append(say(make('span'), 'net_heading'), ' ', parts.status);
  parts.panel.append(summary, parts.notes, parts.actions, say(make('h3'), 'net_urls'), parts.urls);
  parts.panel.addEventListener('toggle', renderUrls);
  const footer = make('footer');
  footer.append(parts.panel);
  document.querySelector('main')?.after(footer);
  for (const name of ['online', 'offline']) window.addEventListener(name, render);
  render();
  if (!workers) {
    settle();
    return;
  }

  let controlled = workers.controller !== null;
  workers.addEventListener('controllerchange', async () => {
    if (updating) return location.reload();
    replaced = controlled;
    controlled = true;
    await tell('state');
    if (sealWanted) await seal();
    return undefined;
  });
  try {
    registration = await workers.register('./sw.js', { updateViaCache: 'none' });
    const watch = () => registration?.installing?.addEventListener('statechange', render);
    watch();
    registration?.addEventListener('updatefound', watch);
  } catch {
    // Refused by a setting of the browser, or the network is gone and a stored release serves: both show in the state.
  }
  await tell('state');
  settle();
}
