// The shell of the single-file page, before the page's own scripts: files come from the page itself, because a page from the disk
// has neither fetch() nor workers by address.

/** In the page and in its worker: `files` are answered from memory, every other address fails. `size`: of a file that is compressed, before that. */
function serve(base, files) {
  globalThis.fetch = async (input, { signal } = {}) => {
    signal?.throwIfAborted();
    const file = files[new URL(input, base).href];
    if (!file) throw new TypeError('expected a file of this page');
    const { blob, size } = file;
    const body = size === undefined ? blob : blob.stream().pipeThrough(new DecompressionStream('gzip'));
    return new Response(body, { headers: { 'content-type': blob.type, 'content-length': String(size ?? blob.size) } });
  };
}

const base = new URL('.', document.baseURI).href;
/** Where the package's script would be on a server. */
const ctmatchModule = `${base}ctmatch/index.js`;
const files = Object.fromEntries(Array.from(document.querySelectorAll('script[data-path]'), (element) => {
  const { path, type, size } = element.dataset;
  const text = atob(element.textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  element.remove();
  return [base + path, { blob: new Blob([bytes], { type }), size }];
}));
serve(base, files);

const { Worker: RealWorker } = globalThis;
const own = globalThis.trustedTypes?.createPolicy('ctmatch', { createScriptURL: (address) => address });
globalThis.Worker = function Worker(url) {
  const address = new URL(url, base).href;
  // A worker of a page from the disk has an opaque origin and reads no address of the page: it is told its own, and sent the files.
  const script = new Blob([
    `${serve}
Object.defineProperty(globalThis, 'location', { value: new URL(${JSON.stringify(address)}) });
const ctmatchModule = location.href;
addEventListener('message', (event) => {
  event.stopImmediatePropagation();
  serve(${JSON.stringify(base)}, event.data);
}, { once: true });
`, files[address].blob,
  ], { type: 'text/javascript' });
  const made = URL.createObjectURL(script);
  const worker = new RealWorker(own ? own.createScriptURL(made) : made);
  worker.postMessage(files);
  return worker;
};
