// The evidence map: which cubes carry a score, over the planes, the highest of them to jump to and to hide, and the map as a file.

import { changed, encodedVolume, missingVolume, on, onClear, purpose, run, state } from './app.js';
import { $, button, download, element, headings } from './dom.js';
import { vectorOf } from './encode.js';
import { findingText, number, text } from './i18n.js';
import { lay } from './legend.js';
import { conditions, runOf } from './record.js';
import { comparedPair } from './results.js';
import { viewer } from './volume.js';

/** @typedef {import('../pkg/index.js').ScoreTarget} ScoreTarget @typedef {import('../pkg/index.js').ImageLatent} ImageLatent */

const TOP = 10;
/** In cosine, by the weights; the package gives no map above 1e-4. @param {ImageLatent} image */
const mostError = ({ provenance: { variant } }) => (variant === 'f32' ? 1e-5 : 1e-4);
// Reports that can be chosen; more make a list that nobody reads.
const REPORTS = 20;

/**
 * `image`: the latent that was explained; `run`, `of`: for the record; `hidden`: by cube, the fall of the score when it was filled with air.
 * @type {{ image: ImageLatent, run: Awaited<ReturnType<typeof runOf>>, of: Record<string, string>, target: ScoreTarget, map: import('../pkg/index.js').HeatMap, box: import('../pkg/index.js').VoxelBox,
 *   hidden: Map<number, number>, milliseconds: number } | undefined}
 */
let shown;

/**
 * What can be explained now: value and text of an option, the target, and what a record says of it.
 * @typedef {[key: string, name: string, target: () => ScoreTarget, of: Record<string, string>]} Choice
 * @returns {Choice[]}
 */
function targets() {
  const { ranking, set } = state.result ?? {};
  const rows = ranking?.rows ?? [];
  const of = ({ index }) => vectorOf(set, index);
  /** @returns {Choice} */
  const against = (key, [better, other]) => [key, text('evidence_against', { better: better.id, other: other.id }),
    () => ({ text: of(better), against: of(other) }), { report: better.id, against: other.id }];
  const pair = comparedPair();
  return [
    ...(pair.length === 2 && pair.some((row, i) => row !== rows[i]) ? [against('compared', pair)] : []),
    ...(rows.length > 1 ? [against('against', rows)] : []),
    ...rows.slice(0, REPORTS).map((row) => /** @type {Choice} */ ([`report ${row.index}`, text('evidence_report', { id: row.id }), () => ({ text: of(row) }), { report: row.id }])),
    ...(state.manifest?.recipes?.zeroShot?.labels ?? []).map((label) => [`label ${label}`, findingText(label), () => ({ label }), { label }]),
  ];
}

const explain = () => run('phase_model', async (call) => {
  const [, , makeTarget, of] = /** @type {Choice} */ (targets().find(([value]) => value === $('evidence-of').value));
  const target = makeTarget();
  const { session, image, accepted } = await encodedVolume(call);
  const volume = /** @type {import('../pkg/index.js').Volume} */ (state.volume);
  const map = await session.explain(image, { ...call, ...target, variant: $('evidence-variant').value, top: TOP, volume });
  if (map.selfCheck > mostError(image)) {
    throw Object.assign(new Error(`expected shares that add up to the score within ${mostError(image)}, found a difference of ${map.selfCheck}`), { code: 'BAD_RESULT' });
  }
  const box = await volume.modelBox({ signal: call.signal });
  shown = { image, run: await runOf(session, image, accepted), of, target, map, box, hidden: new Map(), milliseconds: encodeMs(image) };
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

/** What of the map a record can hold: no text of a report. @param {ImageLatent} image */
export function explanationOf(image) {
  if (!shown || shown.image !== image) return undefined;
  const { of, map: { variant, unit, score, sum, selfCheck }, hidden } = shown;
  return {
    of, variant, unit, score, sum, self_check: { name: 'sum of the shares', max_abs_err: selfCheck, pass: selfCheck <= mostError(image) },
    occluded: [...hidden].map(([cube, fall]) => ({ cube, fall })),
  };
}

// ---- hiding cubes

/** What an encode took. @param {ImageLatent} image */
const encodeMs = ({ timingsMs }) => timingsMs.total ?? Object.values(timingsMs).reduce((sum, ms) => sum + ms, 0);

/** The cubes that would be hidden next: the highest inside the volume. */
function cubesToHide() {
  const wanted = $('occlude-count').validity.valid ? Number($('occlude-count').value) : 0;
  return (shown?.map.top ?? []).filter(({ voxels }) => voxels).slice(0, wanted).map(({ index }) => index);
}

/** One encode per cube; what is done when it is cancelled stays. */
const occlude = () => run('phase_occlude', async (call) => {
  if (!shown || !state.entry || !state.volume) return undefined;
  const { image, target, hidden } = shown;
  const { session, image: now } = await encodedVolume(call);
  if (now !== image) {
    changed('result');
    return 'evidence_gone';
  }
  const cubes = cubesToHide();
  for (const [done, cube] of cubes.entries()) {
    if (hidden.has(cube)) continue;
    call.onProgress({ phase: 'occlude', done, total: cubes.length });
    const started = performance.now();
    const { rows: [{ fall }] } = await session.occlude(state.volume, [cube], { ...target, image, accept: [...state.entry.accepted], signal: call.signal });
    hidden.set(cube, fall);
    shown.milliseconds = performance.now() - started;
    render();
  }
  return 'hide_cubes_done';
});

function renderCost() {
  const n = cubesToHide().filter((cube) => !shown?.hidden.has(cube)).length;
  $('occlude').disabled = state.running !== undefined || n === 0;
  $('occlude-cost').textContent = shown && n > 0 ? text('hide_cubes_cost', { n, s: number((n * shown.milliseconds) / 1000, { maximumSignificantDigits: 2 }) }) : '';
}

// ---- what is shown

/** @param {import('../pkg/index.js').Cube} cube */
function row({ index, value: own, leftOut, canonical, voxels, centerMm }) {
  const middle = canonical?.map(([low, high], axis) => Math.min(Math.max(Math.round((low + high) / 2), 0), state.volume.dims[axis] - 1));
  const place = middle && voxels && centerMm ? viewer.words(centerMm) : undefined;
  const fall = shown?.hidden.get(index);
  return element('tr', {}, element('td', { className: 'number' }, value(own)), element('td', { className: 'number' }, value(leftOut)),
    element('td', { className: 'number', 'data-hidden': index }, fall === undefined ? '' : value(fall)),
    element('td', {}, place ? button(place, () => viewer.moveTo(middle), { 'aria-label': text('evidence_go', { place }) }) : text('evidence_outside')));
}

function render() {
  if (shown && shown.image !== state.entry?.latent?.image) shown = undefined;
  $('evidence-result').hidden = !shown;
  if (!shown) {
    lay(undefined);
    return;
  }
  const { map, box } = shown;
  const unit = text(`evidence_${map.unit}`);
  lay({ ...overlay(map), ...box, unit, exact: map.variant === 'share' });
  $('evidence-sum').textContent = text('evidence_sum', { sum: value(map.sum), score: value(map.score), unit, check: number(map.selfCheck, { maximumSignificantDigits: 2 }) });
  $('evidence-head').replaceChildren(...headings([['evidence_value', 'number'], ['evidence_left_out', 'number'], ['hide_cubes_fall', 'number'], ['evidence_place', '']]));
  $('evidence-rows').replaceChildren(...map.top.map(row));
  renderCost();
}
on('result', render);

/** What a person chose; otherwise the first is offered. */
let chosen = '';

function renderTargets() {
  const all = targets();
  $('evidence-of').replaceChildren(...all.map(([key, name]) => element('option', { value: key }, name)));
  if (all.some(([key]) => key === chosen)) $('evidence-of').value = chosen;
}
for (const topic of /** @type {const} */ (['result', 'model', 'compared'])) on(topic, renderTargets);

on('controls', () => {
  const why = ['images', 'reports'].includes(purpose()) ? 'zero_shot_unfit' : missingVolume();
  $('evidence-show').disabled = state.running !== undefined || why !== undefined || $('evidence-of').options.length === 0;
  $('evidence-hint').textContent = why ? text(why) : '';
  renderCost();
});

onClear(() => {
  shown = undefined;
  chosen = '';
  render();
});

$('evidence-show').addEventListener('click', explain);
$('evidence-of').addEventListener('change', () => { chosen = $('evidence-of').value; });
$('occlude-count').addEventListener('input', renderCost);
$('occlude').addEventListener('click', occlude);
$('evidence-save').addEventListener('click', () => run('phase_model', async ({ signal }) => {
  if (!shown || !state.volume) return;
  const grid = $('evidence-grid').value;
  const record = { schema: 'ctmatch-result-1', ...conditions(shown.run, state.result?.set?.view ?? null), explanation: explanationOf(shown.image) };
  download(await state.volume.exportMap(shown.map, { grid, comment: JSON.stringify(record), signal }), grid === 'token' ? 'ctmatch-evidence-cubes.nii.gz' : 'ctmatch-evidence.nii.gz');
}));
