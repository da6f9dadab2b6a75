// Forgetting everything: memory, and all that this origin keeps in the browser.

import { clearState, run, state } from './app.js';
import { $ } from './dom.js';
import { start as findModel } from './model.js';
import { cleared } from './offline.js';
import { removeStored } from './stored.js';

const clearAll = () => run('phase_clear', async () => {
  await state.session?.clearCache();
  clearState();
  // A new session is opened when it is needed: it would keep its wasm module again.
  const removed = await removeStored();
  cleared();
  // The choice of another is gone too.
  await findModel();
  return removed ? 'cleared' : 'stored_failed';
});

$('clear-all').addEventListener('click', () => $('clear').showModal());
$('clear').addEventListener('close', () => {
  if ($('clear').returnValue === 'clear') clearAll();
  $('clear').returnValue = '';
});
