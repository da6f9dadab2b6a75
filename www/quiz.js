// Multiple choice on the page: which of the reports belongs to the volume? The person chooses first, the model's choice and the
// answer are hidden until they are revealed.

import { encodedVolume, missingVolume, on, onClear, purpose, run, state } from './app.js';
import { candidates } from './candidates.js';
import { OPTIONS, outcomeOf, parseItems, shuffled, totals } from './choice.js';
import { $, download, element, headings } from './dom.js';
import { kindText, number, text } from './i18n.js';
import { conditions, runOf } from './record.js';
import { cosineText, percent } from './results.js';
import { sampleAnswer } from './sample.js';
import { openEntry } from './volume.js';

/** @typedef {import('./choice.js').Item} Item @typedef {import('./choice.js').Outcome} Outcome */

/** @type {Item[]} */
let items = [];
let at = 0;
/**
 * By item: the order that was shown, and what came of it, where the answer is known.
 * @type {({ order: number[], rows: import('../pkg/index.js').Ranked[], outcome?: Outcome, chosen?: number, run: Awaited<ReturnType<typeof runOf>> } | undefined)[]}
 */
let done = [];
/** the index of the option that the person chose @type {number | undefined} */
let chosen;
/** the volume that the answer was last chosen for @type {import('./app.js').Entry | undefined} */
let answered;

const letter = (place) => String.fromCharCode(65 + place);
const entryOf = (item) => state.entries.find(({ name, id, source }) => source && (name === item.image || id === item.image));
/** Candidates whose texts can be shown. */
const readable = () => candidates.usable.filter(({ latent }) => !latent);
/** The true report of the sample, if it is in the list. */
function sampleTruth() {
  const known = state.entry && sampleAnswer(state.entry);
  return readable().find(({ id }) => id === known)?.id;
}
const outcomes = () => done.flatMap((one) => one?.outcome ?? []);
const order = () => shuffled(items[at].options.length, Number($('quiz-seed').value) || 0, at);
const optionText = ({ report }) => ['findings', 'impression', 'text'].map((part) => report[part] ?? '').filter(Boolean).join(' ');

function start(given) {
  items = given;
  at = 0;
  done = [];
  chosen = undefined;
  render();
}

/** One item of the list and the volume that is shown. A report's label says what kind of distractor it is. */
function ofList() {
  const { entry } = state;
  if (!entry) return;
  const truth = $('quiz-answer').value || sampleTruth();
  // Above the item it would tell the answer.
  $('quiz-answer').value = '';
  start([{
    id: '1', image: entry.id,
    options: readable().map((row) => ({ report: { text: candidates.textOf(row) }, isTrue: row.id === truth, kind: row.id === truth ? 'true' : row.label || 'list' })),
  }]);
}

const reveal = () => run('phase_model', async (call) => {
  const item = items[at];
  const entry = entryOf(item);
  if (entry && entry !== state.entry) await openEntry(entry, call);
  const { session, image, accepted } = await encodedVolume(call);
  const shown = order();
  // The package joins the sections as it does for candidates.
  const reports = await session.parseReports(JSON.stringify(shown.map((i) => item.options[i].report)), { format: 'json', signal: call.signal });
  const ranking = await session.rank(image, await session.encodeReports(reports, call), { signal: call.signal });
  const rows = ranking.rows.map((row) => ({ ...row, index: shown[row.index] }));
  const truth = item.options.findIndex(({ isTrue }) => isTrue);
  const rival = rows.find(({ index }) => index !== truth);
  const outcome = truth < 0 ? undefined
    : { ...outcomeOf(rows, truth, item.options[rival?.index ?? 0].kind), ...(chosen === undefined ? {} : { reader: chosen === truth }) };
  done[at] = { order: shown, rows, outcome, chosen, run: await runOf(session, image, accepted) };
  render();
  return 'quiz_revealed';
});

/** @param {number} by */
function turn(by) {
  at += by;
  chosen = done[at]?.chosen;
  render();
  $('quiz-item').focus();
}

function renderItem() {
  $('quiz-item').hidden = items.length === 0;
  if (items.length === 0) return;
  const item = items[at];
  const result = done[at];
  const entry = entryOf(item);
  $('quiz-heading').textContent = text('quiz_item', { n: at + 1, total: items.length });
  $('quiz-volume').textContent = entry ? text('quiz_volume', { id: entry.id }) : text('quiz_no_volume');
  const shown = result?.order ?? order();
  $('quiz-options').replaceChildren(...shown.map((index, place) => {
    const option = item.options[index];
    const input = element('input', { type: 'radio', name: 'quiz-option', checked: chosen === index, disabled: result !== undefined });
    input.addEventListener('change', () => { chosen = index; });
    const row = result?.rows.find((other) => other.index === index);
    const signs = !row ? [] : [
      text('quiz_rank', { rank: row.rank, cosine: cosineText(row.cosine) }),
      ...(option.isTrue ? [text('quiz_true')] : []), ...(result?.chosen === index ? [text('quiz_yours')] : []),
    ];
    return element('li', { className: option.isTrue && result ? 'true' : '' }, element('label', {}, input, ` ${letter(place)}. ${optionText(option)}`),
      ...(signs.length > 0 ? [element('div', { className: 'meta' }, signs.join(' · '))] : []));
  }));
  $('quiz-outcome').textContent = result ? outcomeText(result.outcome) : '';
}

/** @param {Outcome | undefined} outcome */
function outcomeText(outcome) {
  if (!outcome) return text('quiz_uncounted');
  return text(outcome.correct ? 'quiz_right' : outcome.tied > 1 ? 'quiz_tied' : 'quiz_wrong', { margin: cosineText(outcome.margin) });
}

function renderTotals() {
  const counted = outcomes();
  $('quiz-totals').hidden = counted.length === 0;
  $('quiz-save').parentElement.hidden = !done.some(Boolean);
  if (counted.length === 0) return;
  const t = totals(counted);
  const of = ({ hits, n }) => `${number(hits)}/${number(n)} (${percent(hits / n)})`;
  const rows = [
    ['quiz_accuracy', `${of(t)}, ${text('interval', { low: percent(t.interval[0]), high: percent(t.interval[1]) })}`],
    ['quiz_with_ties', percent(t.withTies)], ['quiz_chance', percent(t.chance)],
    ...(t.reader.n > 0 ? [['quiz_reader', of(t.reader)]] : []), ['quiz_margin', cosineText(t.margin)],
  ];
  $('quiz-figures').replaceChildren(...rows.map(([key, value]) => element('div', {}, element('dt', {}, text(key)), element('dd', {}, value))));
  $('quiz-kind-head').replaceChildren(...headings([['quiz_kind', ''], ['quiz_accuracy', 'number']]));
  $('quiz-kinds').replaceChildren(...t.kinds.map((kind) => element('tr', {}, element('th', { scope: 'row' }, kindText(kind.kind)), element('td', { className: 'number' }, of(kind)))));
}

/** Why the list makes no item. */
function missing() {
  if (purpose() !== 'match') return text(`only_${purpose()}`);
  if (!state.entry) return text('needs_volume');
  const n = readable().length;
  return n < OPTIONS.least || n > OPTIONS.most ? text('quiz_needs_reports', { ...OPTIONS, n }) : '';
}

function renderControls() {
  const busy = state.running !== undefined;
  const lack = missing();
  $('quiz-list').disabled = busy || lack !== '';
  $('quiz-hint').textContent = busy ? '' : lack;
  $('quiz-load').disabled = busy;
  const item = items[at];
  const unfit = purpose() === 'match' ? undefined : `only_${purpose()}`;
  const why = unfit ?? (item && entryOf(item) === state.entry ? missingVolume() : undefined);
  $('quiz-reveal').disabled = busy || !item || !entryOf(item) || why !== undefined || done[at] !== undefined;
  $('quiz-reveal-hint').textContent = !busy && why && !done[at] ? text(why) : '';
  $('quiz-before').disabled = busy || at === 0;
  $('quiz-after').disabled = busy || at + 1 >= items.length;
  // Another seed is another order: not between the questions.
  $('quiz-seed').disabled = busy || done.some(Boolean);
}

function render() {
  renderItem();
  renderTotals();
  renderControls();
}

/** The record, with seed, shown order and outcome of every item; no text, no name of a volume. */
function save() {
  const of = ({ run }) => conditions(run, candidates.view);
  const items = done.flatMap((one, i) => (one ? [{ item: i + 1, order: one.order, chosen: one.chosen ?? null, ...one.outcome,
    cosines: Object.fromEntries(one.rows.map(({ index, cosine }) => [index, cosine])), input: of(one).input, timings_ms: one.run.timingsMs }] : []));
  const counted = outcomes();
  // Each item has a volume of its own; the rest is the same for all.
  const { input, ...common } = of(done.find(Boolean));
  const record = { schema: 'ctmatch-choice-1', ...common, seed: Number($('quiz-seed').value) || 0, totals: counted.length > 0 ? totals(counted) : null, items };
  download(new Blob([JSON.stringify(record, null, 2)], { type: 'application/json' }), 'ctmatch-choice.json');
}

function renderAnswers() {
  const before = $('quiz-answer').value;
  const ids = readable().length > OPTIONS.most ? [] : readable().map(({ id }) => id);
  $('quiz-answer').replaceChildren(element('option', { value: '' }, text(sampleTruth() === undefined ? 'quiz_not_known' : 'quiz_of_sample')),
    ...ids.map((id) => element('option', { value: id }, id)));
  // Another volume has another answer.
  $('quiz-answer').value = state.entry === answered && ids.includes(before) ? before : '';
  answered = state.entry;
}
on('candidates', renderAnswers);
on('volume', renderAnswers);
on('entries', render);
onClear(() => {
  start([]);
  $('quiz-options').replaceChildren();
});
on('controls', renderControls);

$('quiz-answer').addEventListener('change', renderControls);
$('quiz-list').addEventListener('click', ofList);
$('quiz-load').addEventListener('click', () => $('quiz-file').click());
$('quiz-file').addEventListener('change', () => {
  const [file] = $('quiz-file').files;
  run('phase_read', async () => { start(parseItems(await file.text())); });
  $('quiz-file').value = '';
});
$('quiz-seed').addEventListener('change', render);
$('quiz-reveal').addEventListener('click', reveal);
$('quiz-before').addEventListener('click', () => turn(-1));
$('quiz-after').addEventListener('click', () => turn(1));
$('quiz-save').addEventListener('click', save);
