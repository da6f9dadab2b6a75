// What a built site says of itself (hosting/site.mjs); a page that is served from the sources says `unknown`.

/** @param {string} name */
const built = (name) => document.querySelector(`meta[name="${name}"]`)?.getAttribute('content') ?? 'unknown';

/** `build_sha256`: over the files, the headers and the commit of the site. */
export const BUILD = { commit: built('commit'), build_sha256: built('build') };
