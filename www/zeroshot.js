// Zero-shot scores of the volume that is shown: the 18 published findings, and questions of one's own.

import { changed, encodedVolume, missingVolume, on, onClear, purpose, run, state } from './app.js';
import { $, element, headings } from './dom.js';
import { findingText, text } from './i18n.js';
import { runOf } from './record.js';
import { cosineText, percent } from './results.js';

/** @typedef {import('../pkg/index.js').ZeroShotRow} Row */

/** Questions of this sitting, asked of each volume. @type {string[]} */
let questions = [];
/** `run`: of the latent that was scored, for the record. @type {{ run: Awaited<ReturnType<typeof runOf>>, scores: import('../pkg/index.js').ZeroShot } | undefined} */
let shown;

export const zeroShotOf = (image) => (shown?.run.image === image ? shown?.scores : undefined);

/** The run whose scores are shown. */
export const scoredRun = () => (shown && shown.run.image === state.entry?.latent?.image ? shown.run : undefined);

const score = (ask) => run('phase_model', async (call) => {
  const { session, image, accepted } = await encodedVolume(call);
  const scores = await session.zeroShot(image, { ...call, ask });
  // A question that was refused is not asked again.
  questions = ask;
  shown = { run: await runOf(session, image, accepted), scores };
  changed('result');
  return 'zero_shot_done';
});

/** A bar from the middle to the side of the sign. @param {number} share -1 to 1 */
function diverging(share) {
  const fill = element('i');
  fill.style.width = `${50 * Math.abs(share)}%`;
  fill.style.left = share < 0 ? `${50 - 50 * Math.abs(share)}%` : '50%';
  return element('span', { className: 'bar diverging', 'aria-hidden': 'true' }, fill);
}

/** @param {readonly Row[]} rows @param {(row: any) => string} name */
function table(rows, name) {
  const difference = (row) => row.cosPresent - row.cosAbsent;
  const widest = Math.max(...rows.map((row) => Math.abs(difference(row))), Number.EPSILON);
  return rows.map((row) => element('tr', {}, element('th', { scope: 'row' }, name(row)), element('td', {}, diverging(difference(row) / widest)),
    element('td', { className: 'number' }, cosineText(difference(row))), element('td', { className: 'number' }, percent(row.score))));
}

on('result', () => {
  if (!scoredRun()) shown = undefined;
  $('zero-shot-result').hidden = !shown;
  if (!shown) return;
  const { rows, answers, classes } = shown.scores;
  const order = $('zero-shot-order').value;
  const sorted = order === 'score' ? rows.toSorted((a, b) => b.score - a.score) : rows;
  $('zero-shot-head').replaceChildren(...headings([['col_finding', ''], ['col_bar', ''], ['col_difference', 'number'], ['col_pair', 'number']]));
  $('zero-shot-rows').replaceChildren(...table(sorted, ({ finding }) => findingText(finding)));
  $('answers').hidden = answers.length === 0;
  $('answer-head').replaceChildren(...headings([['col_question', ''], ['col_bar', ''], ['col_difference', 'number'], ['col_pair', 'number']]));
  $('answer-rows').replaceChildren(...table(answers, ({ question, label }) => (label ? `${question} (${findingText(label)})` : question)));
  $('classes').hidden = !classes;
  $('class-rows').replaceChildren(...(classes ?? []).map(({ finding, score: value }) =>
    element('tr', {}, element('th', { scope: 'row' }, findingText(finding)), element('td', { className: 'number' }, percent(value)))));
});

on('controls', () => {
  const unfit = ['images', 'reports'].includes(purpose());
  const why = unfit ? 'zero_shot_unfit' : missingVolume();
  for (const id of ['zero-shot-run', 'ask']) $(id).disabled = state.running !== undefined || why !== undefined;
  $('zero-shot-hint').textContent = why ? text(why) : '';
});

onClear(() => {
  questions = [];
  shown = undefined;
  $('answer-rows').replaceChildren();
});

$('zero-shot-run').addEventListener('click', () => score(questions));
$('zero-shot-order').addEventListener('change', () => changed('result'));
$('ask-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const question = $('question').value.trim();
  if (!question) return;
  score([...questions.filter((other) => other !== question), question]).then(() => { if (!state.error) $('question').value = ''; });
});
