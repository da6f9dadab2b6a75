// The tool bar of the views: what dragging does, zoom, slabs, the model's field of view, help.

import { on, run, state, withModel } from './app.js';
import { $ } from './dom.js';
import { toggleMap } from './legend.js';
import { actionOf } from './keys.js';
import { viewer } from './volume.js';

/** Loads the model when there is none: its field of view is asked for. @param {(box: import('../pkg/index.js').VoxelBox) => unknown} show */
const withBox = (show) => run('phase_model', async (call) => {
  await withModel(call);
  const box = await state.volume?.modelBox({ signal: call.signal });
  if (box) await show(box);
  pressViews();
});

const pressed = (id) => $(id).getAttribute('aria-pressed') === 'true';
const press = (id, value) => $(id).setAttribute('aria-pressed', String(value));

function pressViews() {
  press('model-box', viewer.box !== undefined);
  press('model-grid', viewer.grid?.name === 'model');
}

async function toggleBox() {
  if (pressed('model-box')) viewer.showBox(undefined);
  else await withBox((box) => viewer.showBox(box));
  pressViews();
}

async function toggleModelGrid() {
  if (pressed('model-grid')) await viewer.showModelGrid(undefined);
  else await withBox((box) => viewer.showModelGrid(box));
  pressViews();
}

function toggleSmooth() {
  press('smooth', !pressed('smooth'));
  $('planes').classList.toggle('pixels', !pressed('smooth'));
}

viewer.actionOf = actionOf;
viewer.act = (action) => {
  const acts = { model_box: toggleBox, model_grid: toggleModelGrid, smooth: toggleSmooth, map_on: toggleMap, help: () => $('help').showModal() };
  acts[action]?.();
  return action in acts;
};

on('volume', pressViews);
on('controls', () => {
  for (const id of ['model-box', 'model-grid']) $(id).disabled = state.running !== undefined || !state.volume;
});

$('tool').addEventListener('change', () => { viewer.tool = $('tool').value; });
$('slab').addEventListener('change', () => viewer.showSlab(Number($('slab').value)));
$('ruler-remove').addEventListener('click', () => viewer.ruler.remove());
$('zoom-in').addEventListener('click', () => viewer.zoom(1.5));
$('zoom-out').addEventListener('click', () => viewer.zoom(1 / 1.5));
$('fit').addEventListener('click', () => viewer.fit());
$('reset').addEventListener('click', () => viewer.reset());
$('invert').addEventListener('click', () => viewer.invert());
$('smooth').addEventListener('click', toggleSmooth);
$('model-box').addEventListener('click', toggleBox);
$('model-grid').addEventListener('click', toggleModelGrid);
$('help-open').addEventListener('click', () => $('help').showModal());
