// Keys of one character: what each does, changed or taken away by the person, or all switched off (WCAG 2.1.4).

import { on } from './app.js';
import { $, element } from './dom.js';
import { text } from './i18n.js';
import { keep, recall } from './preferences.js';

const SWITCH = 'ctmatch-keys';
const CHANGES = 'ctmatch-key-changes';

/** Action to key (VIEWER_AND_RANKING_UI.md 3), by where it works. @type {Record<string, Record<string, string>>} */
const DEFAULTS = {
  view: {
    zoom_in: '+', zoom_out: '-', fit: '=', window_lung: '1', window_mediastinum: '2', window_bone: '3', window_model: '4', window_auto: '0',
    ruler: 'r', invert: 'i', smooth: 'p', model_box: 'b', model_grid: 'm', map_on: 'h',
  },
  list: { key_next: 'j', key_previous: 'k', help_reviewed: 'x', help_filter: '/' },
  both: { help: '?' },
};
/** @type {Record<string, string>} */
const ALL = Object.assign({}, ...Object.values(DEFAULTS));

/** A letter, digit or sign; none takes a key away. @param {unknown} key @returns {key is string} */
const isKey = (key) => typeof key === 'string' && (key === '' || ([...key].length === 1 && key.trim() !== ''));

/** What else has a key. @param {Record<string, string>} keys @param {string} action @param {string} key */
const owner = (keys, action, key) => (key === '' ? undefined : Object.keys(keys).find((other) => other !== action && keys[other] === key));

/** The defaults with what was changed; a change that is not understood, or would give a key two meanings, is left out. @param {string | null} kept */
export function withChanges(kept) {
  const keys = { ...ALL };
  try {
    for (const [action, key] of Object.entries(JSON.parse(kept ?? '{}') ?? {})) if (action in ALL && isKey(key)) keys[action] = key;
  } catch {
    // not ours
  }
  return Object.keys(keys).some((action) => owner(keys, action, keys[action])) ? { ...ALL } : keys;
}

let keys = withChanges(recall(CHANGES));

/** What a key of one character does now. @param {string} key @returns {string | undefined} */
export const actionOf = (key) => ($('single-keys').checked && key !== '' ? Object.keys(keys).find((action) => keys[action] === key) : undefined);

/** @param {Record<string, string>} next */
function change(next) {
  keys = next;
  keep(CHANGES, JSON.stringify(Object.fromEntries(Object.entries(keys).filter(([action, key]) => ALL[action] !== key))));
}

/** @param {string} note */
const say = (note) => { $('keys-note').textContent = note; };

/** @param {string} action */
function keyField(action) {
  const input = element('input', { className: 'key', size: 1, maxLength: 2, value: keys[action], 'data-key': action, autocomplete: 'off', spellcheck: false, autocapitalize: 'off' });
  input.addEventListener('focus', () => input.select());
  input.addEventListener('input', () => {
    const key = [...input.value].at(-1) ?? '';
    const other = owner(keys, action, key);
    if (isKey(key) && !other) change({ ...keys, [action]: key });
    say(other ? text('key_taken', { key, what: text(other) }) : '');
    input.value = keys[action];
    input.select();
  });
  // Enter in a field would close the dialog.
  input.addEventListener('keydown', (event) => { if (event.key === 'Enter') event.preventDefault(); });
  return element('li', {}, element('label', {}, input, ' ', text(action)));
}

function renderKeys() {
  for (const [place, actions] of Object.entries(DEFAULTS)) $(`keys-${place}`).replaceChildren(...Object.keys(actions).map(keyField));
}
on('keys', renderKeys);

$('single-keys').checked = recall(SWITCH) !== 'off';
$('single-keys').addEventListener('change', () => keep(SWITCH, $('single-keys').checked ? 'on' : 'off'));
$('keys-reset').addEventListener('click', () => {
  change({ ...ALL });
  renderKeys();
  say(text('keys_are_reset'));
});
$('help').addEventListener('close', () => say(''));
