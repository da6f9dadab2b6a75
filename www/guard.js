// The page's first script: what may be loaded, and what may not leave (NIFTI_AND_PRIVACY.md P-8, P-9).
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

  window.navigation?.addEventListener('navigate', (event) => {
    if (event.cancelable && !sameOrigin(event.destination.url)) event.preventDefault();
  });
})();
