// What a person prefers, kept in this browser until everything is cleared: the theme, whether shares are shown, and that the notice was read.

import { $ } from './dom.js';

const THEME = 'ctmatch-theme';
const NOTICE = 'ctmatch-notice';
const SHARES = 'ctmatch-shares';

/** Storage can be forbidden; the page works without. @param {string} key */
export function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** @param {string} key @param {string} value */
export function keep(key, value) {
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

/** The column of shares can be left out. */
export const sharesShown = () => $('show-shares').checked;

function showShares() {
  $('result-grid').classList.toggle('without-shares', !sharesShown());
}

$('show-shares').checked = recall(SHARES) !== 'no';
showShares();
$('show-shares').addEventListener('change', () => {
  showShares();
  keep(SHARES, sharesShown() ? 'yes' : 'no');
});
wear(recall(THEME) ?? 'dark');
$('theme').addEventListener('change', () => {
  wear($('theme').value);
  keep(THEME, $('theme').value);
});
if (recall(NOTICE) === null) $('first-run').showModal();
$('first-run').addEventListener('close', () => keep(NOTICE, 'read'));
