// The evidence map: which cubes carry a score, over the planes, the highest of them to jump to, and the map as a file.

import { changed, encodedVolume, missingVolume, on, onClear, purpose, run, state } from './app.js';
import { $, button, download, element, headings } from './dom.js';
import { findingText, number, text } from './i18n.js';
import { viewer } from './volume.js';

const TOP = 10;
// Reports that can be chosen; more make a list that nobody reads.
const REPORTS = 20;

/** `image`: the latent that was explained. @type {{ image: import('../pkg/index.js').ImageLatent, map: import('../pkg/index.js').HeatMap, box: import('../pkg/index.js').VoxelBox } | undefined} */
let shown;

/** What can be explained now: value and text of an option, and the target. @returns {[string, string, object][]} */
function targets() {
  const { ranking, rows } = state.result ?? {};
  const best = ranking?.rows.slice(0, REPORTS) ?? [];
  const [first, second] = best;
  return [
    ...(second ? [['against', text('evidence_against', { better: first.id, other: second.id }), { text: rows[first.index].text, against: rows[second.index].text }]] : []),
    ...best.map(({ id, index }) => [`report ${index}`, text('evidence_report', { id }), { text: rows[index].text }]),
    ...(state.manifest?.recipes?.zeroShot?.labels ?? []).map((label) => [`label ${label}`, findingText(label), { label }]),
  ];
}

const explain = () => run('phase_model', async (call) => {
  const [, , target] = targets().find(([value]) => value === $('evidence-of').value) ?? [];
  const { session, image } = await encodedVolume(call);
  const volume = /** @type {import('../pkg/index.js').Volume} */ (state.volume);
  const map = await session.explain(image, { ...call, ...target, variant: $('evidence-variant').value, top: TOP, volume });
  shown = { image, map, box: await volume.modelBox() };
  changed('result');
  return 'evidence_done';
});

/** In the viewer's order: superior, posterior, left. @param {import('../pkg/index.js').HeatMap} map */
function overlay({ values, grid: [depth, height, width] }) {
  const turned = new Float32Array(values.length);
  for (let s = 0; s < depth; s++) {
    for (let p = 0; p < width; p++) for (let l = 0; l < height; l++) turned[(s * width + p) * height + l] = values[(s * height + l) * width + p];
  }
  return { values: turned, dims: [height, width, depth] };
}

const value = (x) => number(x, { minimumFractionDigits: 4, maximumFractionDigits: 4, signDisplay: 'exceptZero' });

/** @param {import('../pkg/index.js').Cube} cube */
function row({ value: own, leftOut, canonical, voxels }) {
  const middle = canonical?.map(([low, high], axis) => Math.min(Math.max(Math.round((low + high) / 2), 0), state.volume.dims[axis] - 1));
  const place = middle && voxels ? viewer.place(middle) : undefined;
  return element('tr', {}, element('td', { className: 'number' }, value(own)), element('td', { className: 'number' }, value(leftOut)),
    element('td', {}, place ? button(place.mm || `${middle}`, () => viewer.moveTo(middle), { 'aria-label': text('evidence_go', { place: place.mm || `${middle}` }) }) : text('evidence_outside')));
}

function render() {
  if (shown && shown.image !== state.entry?.latent?.image) shown = undefined;
  $('evidence-result').hidden = !shown;
  viewer.showMap(shown && { ...overlay(shown.map), ...shown.box, opacity: 0.5, threshold: 0.3 });
  if (!shown) return;
  const { map } = shown;
  const unit = text(`evidence_${map.unit}`);
  $('evidence-sum').textContent = text('evidence_sum', { sum: value(map.sum), score: value(map.score), unit, check: number(map.selfCheck, { maximumSignificantDigits: 2 }) });
  $('evidence-head').replaceChildren(...headings([['evidence_value', 'number'], ['evidence_left_out', 'number'], ['evidence_place', '']]));
  $('evidence-rows').replaceChildren(...map.top.map(row));
}
on('result', render);

/** The choice is kept while it can be. */
function renderTargets() {
  const { value: chosen } = $('evidence-of');
  const all = targets();
  $('evidence-of').replaceChildren(...all.map(([key, name]) => element('option', { value: key }, name)));
  if (all.some(([key]) => key === chosen)) $('evidence-of').value = chosen;
}
on('result', renderTargets);
on('model', renderTargets);

on('controls', () => {
  const why = ['images', 'reports'].includes(purpose()) ? 'zero_shot_unfit' : missingVolume();
  $('evidence-show').disabled = state.running !== undefined || why !== undefined || $('evidence-of').options.length === 0;
  $('evidence-hint').textContent = why ? text(why) : '';
});

function hide() {
  shown = undefined;
  render();
}
onClear(hide);

$('evidence-show').addEventListener('click', explain);
$('evidence-hide').addEventListener('click', hide);
$('evidence-save').addEventListener('click', () => run('phase_model', async () => {
  if (!shown || !state.volume) return;
  download(await state.volume.exportMap(shown.map), 'ctmatch-evidence.nii.gz');
}));
