// The page's first script: what may be loaded, and what may not leave or stay (NIFTI_AND_PRIVACY.md P-8, P-9).
(() => {
  const sameOrigin = (url) => new URL(url, document.baseURI).origin === location.origin;

  // Trusted Types ask this policy for every script URL, that of `new Worker(new URL(...))` included.
  window.trustedTypes?.createPolicy('default', {
    createScriptURL(url) {
      if (sameOrigin(url)) return url;
      throw new TypeError(`expected a script of ${location.origin}, found ${url}`);
    },
  });

  // The policy's connect-src does not cover these.
  for (const name of ['RTCPeerConnection', 'webkitRTCPeerConnection', 'WebTransport', 'open']) delete window[name];

  // Browsers write what is typed into a field to the disk, to fill it again after a crash: report texts too.
  document.addEventListener('focusin', ({ target }) => {
    if (target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement) target.autocomplete = 'off';
  });

  window.navigation?.addEventListener('navigate', (event) => {
    // An export is a download of a blob, which has no origin where the page comes from the disk.
    const own = sameOrigin(event.destination.url) || (event.downloadRequest !== null && /^blob\b/.test(event.destination.url));
    if (event.cancelable && !own) event.preventDefault();
  });
})();
