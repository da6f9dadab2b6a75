// What a person prefers, kept in this browser until everything is cleared: the theme, keys, and that the notice was read.

import { $ } from './dom.js';

const THEME = 'ctmatch-theme';
const NOTICE = 'ctmatch-notice';
const KEYS = 'ctmatch-keys';

/** Storage can be forbidden; the page works without. @param {string} key */
function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** @param {string} key @param {string} value */
function keep(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // asked again the next time
  }
}

/** @param {string} theme */
function wear(theme) {
  document.documentElement.dataset.theme = theme;
  $('theme').value = theme;
}

wear(recall(THEME) ?? 'dark');
$('theme').addEventListener('change', () => {
  wear($('theme').value);
  keep(THEME, $('theme').value);
});
if (recall(NOTICE) === null) $('first-run').showModal();
$('first-run').addEventListener('close', () => keep(NOTICE, 'read'));

// Keys of one character can be switched off (WCAG 2.1.4).
export const singleKeys = () => $('single-keys').checked;
$('single-keys').checked = recall(KEYS) !== 'off';
$('single-keys').addEventListener('change', () => keep(KEYS, singleKeys() ? 'on' : 'off'));
