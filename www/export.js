// What is saved: the reproducibility record (VIEWER_AND_RANKING_UI.md 9), and a table and a page that hold it.

import { on, state } from './app.js';
import { $, bar, csvText, download, element, headings } from './dom.js';
import { explanationOf } from './evidence.js';
import { currentLanguage, findingText, languageTag, number, text } from './i18n.js';
import { legend } from './legend.js';
import { ABOVE, BELOW } from './overlay.js';
import { conditions, noticeText } from './record.js';
import { bodyOf } from './reports.js';
import { contextText, cosineText, percent } from './results.js';
import { sharesShown } from './settings.js';
import { viewer } from './volume.js';
import { scoredRun, zeroShotOf } from './zeroshot.js';

/**
 * The record of VIEWER_AND_RANKING_UI.md 9: no file name, no header text, no report text; of identifiers the rules' counts.
 * @param {any} run of results.js, or without a ranking of zeroshot.js
 */
export function record(run) {
  const { ranking, set, image } = run;
  const zeroShot = zeroShotOf(image);
  const explanation = explanationOf(image);
  const { background } = ranking ?? {};
  return {
    schema: 'ctmatch-result-1',
    ...conditions(run, set?.view ?? null),
    // Questions are a person's words: they stay on the page.
    ...(zeroShot ? { prompts: zeroShot.prompts, zero_shot: zeroShot.rows.map(({ finding, logit, score }) => ({ finding, logit, score })) } : {}),
    ...(explanation ? { explanation } : {}),
    ...(ranking ? {
      tie_tolerance: ranking.tieTolerance,
      background: background ? {
        share_below: background.shareBelow, share_below_by_chance: background.shareBelowByChance, pairs: background.pairs, volumes: background.volumes,
        reports: background.reports, view: background.view, source: background.source,
      } : null,
      candidates: ranking.rows.map((row) => ({
        id: row.id, text_sha256: set.rows[row.index].textSha256, n_tokens: set.rows[row.index].tokens,
        truncated: set.rows[row.index].truncated, cosine: row.cosine, rank: row.rank, tie_group: row.tieGroup, margin: row.marginToNext, share: row.share,
      })),
    } : {}),
  };
}

const withTexts = () => $('export-texts').checked;

/** RFC 4180, after comment lines with the notice and the record: the candidates, without a ranking the findings. @param {any} run */
export function csv(run) {
  const saved = record(run);
  if (!run.ranking) return csvText(saved, ['finding', 'logit', 'score'], saved.zero_shot);
  const names = ['rank', 'id', 'cosine', 'share', 'n_tokens', 'truncated', 'text_sha256', ...(withTexts() ? ['text'] : [])];
  return csvText(saved, names, saved.candidates.map((row, i) => ({ ...row, ...(withTexts() ? { text: bodyOf(run.rows[run.ranking.rows[i].index]) } : {}) })));
}

// ---- images

const IMAGE_WIDTH = 560;
const LINE = 16;
const MARGIN = 6;
const SCALE_WIDTH = 240;

/** A plane as it is shown, its letters, and under it the slice, the window, the map's scale and label, and the notice. @param {import('./viewer.js').Viewer['views'][number]} view */
function picture(view) {
  const { canvas: source, map, look, slice } = view;
  if (!slice) return undefined;
  const ratio = (slice.width * slice.spacingMm[0]) / (slice.height * slice.spacingMm[1]);
  const height = Math.round(IMAGE_WIDTH / ratio);
  const canvas = element('canvas', { width: IMAGE_WIDTH });
  const context = canvas.getContext('2d');
  const scale = map.hidden ? undefined : legend();
  const lines = [
    view.caption.textContent, text('window_of', { width: viewer.width, level: viewer.level }),
    ...(scale ? [scale, ...wrapped(context, scale.label), ...(scale.relative ? wrapped(context, scale.relative) : [])] : []),
    ...wrapped(context, noticeText(state.session?.info.model?.license)),
  ];
  canvas.height = height + LINE * (lines.length + 0.5);
  context.fillStyle = '#000';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.save();
  context.beginPath();
  context.rect(0, 0, IMAGE_WIDTH, height);
  context.clip();
  context.translate(look.x * IMAGE_WIDTH, look.y * height);
  context.scale(look.zoom, look.zoom);
  context.drawImage(source, 0, 0, IMAGE_WIDTH, height);
  if (!map.hidden) {
    context.imageSmoothingEnabled = false;
    const part = (name, whole) => (parseFloat(map.style[name]) / 100) * whole;
    context.drawImage(map, part('left', IMAGE_WIDTH), part('top', height), part('width', IMAGE_WIDTH), part('height', height));
  }
  context.restore();
  context.fillStyle = '#fff';
  context.font = '600 16px system-ui, sans-serif';
  context.textAlign = 'center';
  const at = { left: [12, height / 2], right: [IMAGE_WIDTH - 12, height / 2], top: [IMAGE_WIDTH / 2, 18], bottom: [IMAGE_WIDTH / 2, height - 8] };
  for (const [edge, letter] of view.letters) context.fillText(letter.textContent, ...at[edge]);
  context.textAlign = 'left';
  context.font = '12px system-ui, sans-serif';
  for (const [i, line] of lines.entries()) {
    const y = height + LINE * (i + 1);
    if (typeof line === 'string') context.fillText(line, MARGIN, y);
    else drawScale(context, line, y);
  }
  return element('img', { src: canvas.toDataURL('image/png'), alt: view.caption.textContent, width: IMAGE_WIDTH, height: canvas.height });
}

/** The colours of overlay.js over black, between their ends. @param {CanvasRenderingContext2D} context @param {{ low: string, high: string, unit: string }} scale @param {number} y of the line */
function drawScale(context, { low, high, unit }, y) {
  const from = MARGIN + context.measureText(low).width + MARGIN;
  const colours = context.createLinearGradient(from, 0, from + SCALE_WIDTH, 0);
  [BELOW, [0, 0, 0], ABOVE].forEach((colour, i) => colours.addColorStop(i / 2, `rgb(${colour.join()})`));
  context.fillText(low, MARGIN, y);
  context.fillText(`${high} ${unit}`, from + SCALE_WIDTH + MARGIN, y);
  context.fillStyle = colours;
  context.fillRect(from, y - 10, SCALE_WIDTH, 11);
  context.fillStyle = context.strokeStyle = '#fff';
  context.strokeRect(from - 0.5, y - 10.5, SCALE_WIDTH + 1, 12);
}

/** A paragraph in lines that fit. @param {CanvasRenderingContext2D} context @param {string} paragraph */
function wrapped(context, paragraph) {
  context.font = '12px system-ui, sans-serif';
  const lines = [''];
  for (const word of paragraph.match(/\S+\s*|\s+/g) ?? []) {
    // Chinese has no spaces: what is too long is cut anywhere.
    for (const piece of context.measureText(word).width > IMAGE_WIDTH / 2 ? [...word] : [word]) {
      if (context.measureText(lines.at(-1) + piece).width > IMAGE_WIDTH - 2 * MARGIN) lines.push('');
      lines[lines.length - 1] += piece;
    }
  }
  return lines;
}

// ---- page

const STYLE = `body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 75rem; padding: 0 1rem; color: #16191c; background: #fff; }
table { border-collapse: collapse; margin: .7rem 0; } th, td { text-align: left; vertical-align: top; border-bottom: 1px solid #79828c; padding: .25rem .6rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; } img { max-width: 100%; height: auto; margin: 0 .5rem .5rem 0; }
.notice, .untrained { border: 2px solid #5a4300; background: #fff3d0; padding: .5rem .8rem; } pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; }
.bar { display: inline-block; width: 8rem; height: .7rem; border: 1px solid #79828c; } .bar i { display: block; height: 100%; background: #6f9bc9; }`;

/** The candidates in their order. @param {any} run @param {any} saved its record */
function ranked({ ranking, rows }, saved) {
  const [high, low] = [ranking.rows[0].cosine, ranking.rows.at(-1).cosine];
  const shares = sharesShown();
  return [
    element('h2', {}, text('result')),
    element('table', {}, element('thead', {}, element('tr', {}, ...headings([['col_rank', 'number'], ['col_report', ''], ['col_cosine', 'number'],
      ['col_margin', 'number'], ['col_bar', ''], .../** @type {[string, string, object][]} */ (shares ? [['col_share', 'number', { n: ranking.rows.length }]] : [])]))),
    element('tbody', {}, ...ranking.rows.map((row, i) => element('tr', {}, element('td', { className: 'number' }, String(row.rank)),
      element('td', {}, element('strong', {}, row.id), ...(withTexts() ? [element('div', {}, bodyOf(rows[row.index]))] : []),
        ...(saved.candidates[i].truncated ? [element('div', {}, text('truncated', { n: saved.candidates[i].n_tokens }))] : [])),
      element('td', { className: 'number' }, cosineText(row.cosine)),
      element('td', { className: 'number' }, i + 1 < ranking.rows.length ? cosineText(row.marginToNext) : ''),
      element('td', {}, bar(high > low ? (row.cosine - low) / (high - low) : 1)),
      ...(shares ? [element('td', { className: 'number' }, percent(row.share))] : []))))),
    element('p', {}, contextText(ranking)),
  ];
}

/** One file without script; texts only when asked for. @param {any} run */
export function html(run) {
  const saved = record(run);
  const { ranking, set, image } = run;
  const made = document.implementation.createHTMLDocument(text('title'));
  made.documentElement.lang = languageTag();
  made.head.prepend(element('meta', { charset: 'utf-8' }));
  const fact = ([key, value]) => element('tr', {}, element('th', { scope: 'row' }, text(key)), element('td', {}, value));
  const { input, model, runtime } = saved;
  const zeroShot = zeroShotOf(image);
  const scale = legend();
  made.body.append(element('main', {},
    element('h1', {}, text('title')),
    element('p', { className: 'notice' }, noticeText(model.licence)),
    ...(saved.warning ? [element('p', { className: 'untrained' }, element('strong', {}, saved.warning[currentLanguage()]))] : []),
    element('h2', {}, text('volume')),
    element('table', {}, ...[
      ['dims', input.dims.join(' × ')], ['spacing', `${input.spacing_mm.map((mm) => number(mm, { maximumFractionDigits: 3 })).join(' × ')} mm`],
      ['orientation', input.orientation_in], ['datatype', input.datatype], ['voxel_digest', input.voxel_sha256],
      ['findings', input.findings.map(({ code, accepted }) => (accepted ? `${code} (${text('accepted')})` : code)).join(', ') || text('findings_none')],
      ['model_id', `${model.id} ${model.revision} ${model.variant}`], ['model_license', model.licence], ['settings', `${runtime.backend} · ${runtime.adapter_info}`],
      ...(set ? [['view', text(`view_${set.view}`)]] : []), ...(saved.created_utc ? [['created', saved.created_utc]] : []),
    ].map(fact)),
    element('p', {}, ...viewer.views.flatMap((view) => picture(view) ?? [])),
    ...(scale ? [`${text('evidence')}: ${scale.low} … ${scale.high} ${scale.unit}`, scale.label, ...(scale.relative ? [scale.relative] : [])].map((line) => element('p', {}, line)) : []),
    ...(ranking ? ranked(run, saved) : []),
    ...(zeroShot ? [element('h2', {}, text('zero_shot')), element('p', {}, text('zero_shot_note')),
      element('table', {}, ...zeroShot.rows.map(({ finding, score }) => element('tr', {}, element('th', { scope: 'row' }, findingText(finding)), element('td', { className: 'number' }, percent(score)))))] : []),
    element('details', {}, element('summary', {}, text('record')), element('pre', {}, JSON.stringify(saved, null, 2))),
  ));
  // The policy of this page would refuse the style element itself.
  return `<!doctype html>\n${made.documentElement.outerHTML.replace('</head>', `<style>${STYLE}</style></head>`)}\n`;
}

const SAVED = {
  export: ['json', 'application/json', (run) => JSON.stringify(record(run), null, 2)],
  'export-csv': ['csv', 'text/csv', csv],
  'export-html': ['html', 'text/html', html],
};
/** What can be saved now: the ranking, else the scores of the findings. */
const saveable = () => state.result ?? scoredRun();
for (const [id, [ending, type, make]] of Object.entries(SAVED)) {
  $(id).addEventListener('click', () => download(new Blob([make(saveable())], { type }), `ctmatch-result.${ending}`));
}
on('result', () => {
  $('exports').hidden = !saveable();
  $('export-texts').parentElement.hidden = !state.result;
});
