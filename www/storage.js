// The page about what the browser keeps for this site. A page of its own, so that the memory of the other one is gone by then.

import { number, setLanguage, text } from './i18n.js';
import { keptLanguage, wear } from './preferences.js';
import { removeStored, stored } from './stored.js';

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

async function render() {
  const lines = [];
  for await (const { kind, name, bytes } of stored()) lines.push(`${text(`stored_${kind}`)}: ${name}${bytes === undefined ? '' : ` (${number(bytes)} B)`}`);
  $('stored').replaceChildren(...lines.map((line) => Object.assign(document.createElement('li'), { textContent: line })));
  return lines.length;
}

async function clear() {
  $('clear').disabled = true;
  const removed = await removeStored();
  const left = await render();
  $('stored-state').textContent = text(removed && left === 0 ? 'stored_none' : 'stored_failed');
  $('clear').disabled = false;
}

wear();
setLanguage(keptLanguage());
document.title = text('stored_title');
$('clear').addEventListener('click', clear);
if ((await render()) === 0) $('stored-state').textContent = text('stored_none');
