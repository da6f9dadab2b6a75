// The theme, whether shares are shown, and that the notice was read.

import { $ } from './dom.js';
import { THEME, keep, recall, wear } from './preferences.js';

const NOTICE = 'ctmatch-notice';
const SHARES = 'ctmatch-shares';

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
$('theme').value = wear();
$('theme').addEventListener('change', () => keep(THEME, wear($('theme').value)));
if (recall(NOTICE) === null) $('first-run').showModal();
$('first-run').addEventListener('close', () => keep(NOTICE, 'read'));
