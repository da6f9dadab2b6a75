// The theme, and that the notice was read.

import { $ } from './dom.js';
import { THEME, keep, recall, wear } from './preferences.js';

const NOTICE = 'ctmatch-notice';

$('theme').value = wear();
$('theme').addEventListener('change', () => keep(THEME, wear($('theme').value)));
if (recall(NOTICE) === null) $('first-run').showModal();
$('first-run').addEventListener('close', () => keep(NOTICE, 'read'));
