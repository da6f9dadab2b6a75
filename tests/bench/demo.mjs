// Measures the demo model on phantoms that it never saw and writes its card.
// Usage: CTMATCH=path/to/ctmatch node demo.mjs WORK [PHANTOMS] > www/model/CARD.md
// WORK is the folder of `ctmatch train-demo`; without PHANTOMS (a folder of `ctmatch phantom`) 500 are drawn there.
// With MODEL=www/model, a folder with the same q8 weights, the cosines of unrelated pairs go into its manifest. That alone, after a run:
// ctmatch background --model www/model $(printf -- '--store %s ' WORK/q8-*.safetensors) --source '500 synthetic chest phantoms'
// SEED and COMMAND replace the defaults in the card, REMARK says what else is to be known of the training.

import { execFile, execFileSync } from 'node:child_process';
import { existsSync, linkSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const { CTMATCH: ctmatch } = process.env;
const [work, given] = process.argv.slice(2);
if (!ctmatch || !work) throw new Error('CTMATCH must name the native command, the argument the folder of train-demo');
const at = (name) => join(work, name);
const run = (...args) => execFileSync(ctmatch, [...args, '--quiet'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
const start = async (...args) => (await promisify(execFile)(ctmatch, [...args, '--quiet'], { maxBuffer: 1 << 28 })).stdout;
const cpu = ['--device', 'cpu'];

const SIZE = '120,120,60'; // 3 x 3 x 6 mm: finer than the model's grid, so that it is resampled
const phantoms = given ?? at('fresh');
if (!existsSync(join(phantoms, 'labels.csv'))) {
  run('phantom', '--random', '--seed', '1', '--count', '500', '--size', SIZE, '--out', phantoms);
}
const reports = ['--reports', join(phantoms, 'reports.jsonl')];
const labels = ['--labels', join(phantoms, 'labels.csv')];
const model = at('variants');
rmSync(model, { recursive: true, force: true });
const KINDS = { random: 'random reports', d1: 'labels that differ in one finding', laterality: 'left and right exchanged in one finding' };
for (const kind of Object.keys(KINDS)) {
  // One changed report per item where there is only one way to change it.
  const options = kind === 'laterality' ? '2' : '4';
  run('build-items', ...reports, ...labels, '--strategy', kind, '--options', options, '--out', at(`${kind}.jsonl`));
}

const read = (folder) => JSON.parse(readFileSync(join(folder, 'evaluation.json'), 'utf8'));
// Galleries of 100 with their reports.
const GALLERY = 100;
const parts = [];
const lines = readFileSync(join(phantoms, 'reports.jsonl'), 'utf8').trim().split('\n');
for (let first = 0; first + GALLERY <= lines.length; first += GALLERY) {
  const folder = at(`part-${first / GALLERY}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  const chosen = lines.slice(first, first + GALLERY);
  for (const line of chosen) linkSync(join(phantoms, JSON.parse(line).id), join(folder, JSON.parse(line).id));
  writeFileSync(join(folder, 'reports.jsonl'), `${chosen.join('\n')}\n`);
  parts.push(folder);
}
for (const variant of ['f32', 'q8', 'q4']) {
  run('convert', at('checkpoint.safetensors'), '--tokenizer', at('vocab.txt'), '--config', at('config.json'), '--weights', variant,
    '--id', 'demo-phantoms', '--license', 'CC0-1.0', '--out', model);
}

async function measure(variant) {
  const chosen = ['--model', model, '--variant', variant, ...cpu];
  const out = at(`result-${variant}`);
  const stores = [];
  for (const [number, folder] of parts.entries()) {
    const store = at(`${variant}-${number}.safetensors`);
    rmSync(store, { force: true });
    await start('encode', ...chosen, '--volumes', folder, '--reports', join(folder, 'reports.jsonl'), '--accept', 'W_SPACING', '--store', store);
    stores.push(store);
  }
  const all = stores.flatMap((store) => ['--store', store]);
  const result = { choice: {}, retrieval: [] };
  for (const kind of Object.keys(KINDS)) {
    await start('evaluate', ...chosen, '--items', at(`${kind}.jsonl`), ...all, '--out', out);
    result.choice[kind] = read(out);
  }
  await start('evaluate', ...chosen, '--zero-shot', ...labels, ...all, '--out', out);
  result.zeroShot = read(out).zeroShot;
  for (const store of stores) {
    await start('evaluate', '--retrieval', '--store', store, ...labels, '--out', out);
    result.retrieval.push(read(out).retrieval);
  }
  return [variant, result];
}

// Truth as masks: the voxels that each finding changed.
const POINTED = 200;
const FIRST_POINTED = 900_001;
async function point() {
  if (!existsSync(at('pointing/labels.csv'))) {
    await start('phantom', '--random', '--seed', String(FIRST_POINTED), '--count', String(POINTED), '--size', '96,96,48', '--spacing', '3.75,3.75,7.5', '--prevalence', '0.3', '--masks', '--out', at('pointing'));
  }
  const found = await start('evaluate', '--model', model, '--variant', 'q8', ...cpu, '--pointing', at('pointing'), '--out', at('result-pointing'), '--json');
  return { volumes: POINTED, bySize: bySize(), ...JSON.parse(found).pointing };
}

// Hiding each cube in turn takes about a minute per phantom: the first ones, once per model.
const OCCLUDED = 30;
async function occlude() {
  const { revision } = JSON.parse(readFileSync(join(model, 'manifest.json'), 'utf8'));
  const result = at(`occlusion-${revision}.json`);
  if (!existsSync(result)) {
    const folder = at('occluded');
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    const files = readdirSync(at('pointing')).filter((name) => Number(name.match(/^phantom_(\d+)[_.]/)?.[1]) < FIRST_POINTED + OCCLUDED);
    for (const name of files) linkSync(at(`pointing/${name}`), join(folder, name));
    writeFileSync(result, await start('evaluate', '--model', model, '--variant', 'q8', ...cpu, '--pointing', folder, '--occlusion', '--json'));
  }
  return JSON.parse(readFileSync(result, 'utf8')).pointing;
}

/** Diameters of nodules in mm at which they are counted apart: a token is a cube of 30 mm. */
const DIAMETERS = [10, 14, 18, 22, 26, 30];
/** Hits of the share map by diameter of the largest nodule: [from, to, phantoms, share]. */
function bySize() {
  const truth = JSON.parse(readFileSync(at('pointing/truth.json'), 'utf8'));
  const sizes = new Map(truth.map(({ id, findings }) => [id.replace('.nii.gz', ''), findings.find(({ finding }) => finding === 'Lung nodule')?.sizeMm]));
  const lines = readFileSync(at('result-pointing/pointing.csv'), 'utf8').trim().split('\n').slice(1).map((line) => line.split(','));
  const games = lines.filter(([finding, , , , method]) => finding === 'Lung nodule' && method === 'share');
  return DIAMETERS.slice(1).map((to, i) => {
    const hits = games.filter(([, volume]) => sizes.get(volume) >= DIAMETERS[i] && sizes.get(volume) < to).map((game) => game[6] === 'true');
    return [DIAMETERS[i], to, hits.length, hits.filter(Boolean).length / hits.length];
  });
}

const [pointing, ...variants] = await Promise.all([point(), ...['f32', 'q8', 'q4'].map(measure)]);
const occlusion = await occlude();
const measured = Object.fromEntries(variants);

const { MODEL: shipped } = process.env;
const background = shipped && JSON.parse(run('background', '--model', shipped, ...parts.flatMap((_, number) => ['--store', at(`q8-${number}.safetensors`)]),
  '--source', `${parts.length * GALLERY} synthetic chest phantoms`, '--json'));

const q8 = measured.q8;
const percent = (x) => `${(100 * x).toFixed(1)} %`;
const interval = ({ value, low, high }) => `${percent(value)} [${percent(low)}, ${percent(high)}]`;
const mean = (list) => list.reduce((sum, x) => sum + x, 0) / list.length;
const top1 = (result, kind) => result.choice[kind].multipleChoice.top1;
const recall = (result) => mean(result.retrieval.map(({ reportToVolume }) => reportToVolume.recall[5].value));
const areas = (result) => result.zeroShot.labels.filter(({ auroc }) => auroc);
const area = (result) => mean(areas(result).map(({ auroc }) => auroc.value));
const row = (...cells) => `| ${cells.join(' | ')} |`;
const targets = { random: '≥ 95 %', d1: '≥ 70 %', laterality: '≥ 70 %' };
const log = readFileSync(at('log.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
const last = (stage) => log.findLast((line) => line.stage === stage);
const quality = log.findLast((line) => line['slab auroc'])['slab auroc'];
const { evidence } = log.findLast((line) => line.evidence);
const seconds = (stage) => log.filter((line) => line.stage === stage).reduce((most, line) => Math.max(most, line.seconds), 0);
const manifest = JSON.parse(readFileSync(join(model, 'manifest.json'), 'utf8'));
const AIMED = ['Lung nodule', 'Pleural effusion', 'Consolidation'];
const missed = pointing.findings.filter(({ finding, hit }) => AIMED.includes(finding) && hit.share[1].value < 0.6).map(({ finding }) => finding);
const shares = (result) => [...Object.keys(KINDS).map((kind) => top1(result, kind).value), area(result), recall(result)];
/** Largest difference to f32, in points. */
const apart = (variant) => Math.max(...shares(measured[variant]).map((x, i) => 100 * Math.abs(x - shares(measured.f32)[i]))).toFixed(1);
const learned = areas(q8).filter(({ auroc }) => auroc.value >= 0.9).map(({ label }) => label);
const half = areas(q8).filter(({ auroc }) => auroc.value >= 0.7 && auroc.value < 0.9).map(({ label }) => label);
const not = areas(q8).filter(({ auroc }) => auroc.value < 0.7).map(({ label }) => label);
const blind = (kind) => Object.fromEntries(q8.choice[kind].baselines.map(({ name, top1Shared }) => [name, top1Shared.value]));
const names = Object.keys(blind('random'));

console.log(`# demo-phantoms

Trained by \`ctmatch train-demo\` on synthetic chest phantoms and nothing else: no patient, no scanner, no published weights. It shows that
the program works. Its scores mean nothing on a CT of a person. Licence CC0-1.0. Revision ${manifest.revision}. Written by
\`tests/bench/demo.mjs\`.

## Quality

${parts.length * GALLERY} phantoms that it never saw (seeds from 1, ${SIZE.replaceAll(',', ' x ')} voxels, findings at random with related pairs), \`ctmatch evaluate\`, full text, q8, 95 %
intervals over phantoms.

${row('what', 'reached', 'target')}
| --- | --- | --- |
${Object.entries(KINDS).map(([kind, what]) => row(`top-1, ${kind === 'laterality' ? 'choice of 2' : 'choice of 4'}: ${what}`, interval(top1(q8, kind)), targets[kind])).join('\n')}
${row('zero-shot AUROC, mean of 18', area(q8).toFixed(3), '≥ 0.90')}
${row('report to volume, Recall@5 among 100', percent(recall(q8)), '≥ 60 %')}

${row('zero-shot', 'AUROC')}
| --- | --- |
${areas(q8).map(({ label, auroc }) => row(label, `${auroc.value.toFixed(3)} [${auroc.low.toFixed(3)}, ${auroc.high.toFixed(3)}]`)).join('\n')}

What each part of the image side leaves of a finding: AUROC on 200 phantoms of the training's own held-out set. Slabs: the highest patch of a
slab; tokens and codes: the sum over patches of what stands for the finding, before and after the codebook.

${row('finding', 'slabs', 'tokens', 'codes')}
| --- | --- | --- | --- |
${areas(q8).map(({ label }, at) => row(label, ...[quality['highest patch'], evidence.tokens, evidence.codes].map((list) => list[at].toFixed(3)))).join('\n')}

Learned (AUROC at least 0.9): ${learned.join(', ') || 'none'}. In part (0.7 to 0.9): ${half.join(', ') || 'none'}. Not learned: ${not.join(', ') || 'none'}.

## Pointing game

Share of ${pointing.volumes} further phantoms (seeds from ${FIRST_POINTED}, each finding by a chance of 0.3) in which the highest cube of the exact map for
"is present" against "is not present" holds the lesion (hit@1), or one of the three highest does (hit@3); a cube holds it that has at least half
as many changed voxels as the cube with the most. Beside it the map less that of a volume of air (baseline), the cube that holds
the finding most often in other phantoms, and chance. The map is no segmentation: tokens carry information from their surroundings. Aim for
nodule, effusion and consolidation: 60 %.

| finding | phantoms | hit@1 | hit@3 | baseline@1 | same place | chance@1 |
| --- | --- | --- | --- | --- | --- | --- |
${pointing.findings.map(({ finding, volumes, hit, samePlace, chance }) => row(finding, volumes, ...[hit.share[1].value, hit.share[3].value, hit.baseline[1].value, samePlace.value, chance[1]].map(percent))).join('\n')}

Aim not met: ${missed.join(', ') || 'none'}.

On the first ${OCCLUDED} of these phantoms, beside pointing at the cube whose hiding (full of air, one encode for each of the 1728) takes most from the score:

${row('finding', 'phantoms', 'map: hit@1', 'hit@3', 'hiding: hit@1', 'hit@3')}
| --- | --- | --- | --- | --- | --- |
${occlusion.findings.map(({ finding, volumes, hit }) => row(finding, volumes, ...[hit.share[1], hit.share[3], hit.occlusion[1], hit.occlusion[3]].map(({ value }) => percent(value)))).join('\n')}

What decides for a nodule is its size: a voxel of the model is 3.75 x 3.75 x 7.5 mm, a token a cube of 30 mm.

${row('largest nodule', 'phantoms', 'hit@1')}
| --- | --- | --- |
${pointing.bySize.map(([from, to, count, share]) => row(`${from} to ${to - 1} mm`, count, percent(share))).join('\n')}

${background ? `## Unrelated pairs

Cosines of the ${background.volumes} volumes with the reports of other phantoms, q8: ${background.pairs} pairs, ${background.lowest.toFixed(3)} to ${background.highest.toFixed(3)}, median ${background.median.toFixed(3)}. Their
quantiles are in the manifest; the page holds the best of a list against them. Reports of other phantoms may state the same findings.

` : ''}## Precisions

${row('what', 'f32', 'q8', 'q4')}
| --- | --- | --- | --- |
${Object.entries(KINDS).map(([kind, what]) => row(`top-1: ${what}`, ...Object.values(measured).map((result) => percent(top1(result, kind).value)))).join('\n')}
${row('zero-shot AUROC', ...Object.values(measured).map((result) => area(result).toFixed(3)))}
${row('Recall@5 among 100', ...Object.values(measured).map((result) => percent(recall(result))))}

Aim: at most 1 point from f32. The largest difference is ${apart('q8')} points at q8 and ${apart('q4')} at q4.

## Blind baselines

Top-1 without looking at the image (a tie of k counts 1/k). Chance is 25 %, for left and right 50 %.

${row('baseline', ...Object.values(KINDS))}
| --- | --- | --- | --- |
${names.map((name) => row(name, ...Object.keys(KINDS).map((kind) => percent(blind(kind)[name])))).join('\n')}

## Training

Seed ${process.env.SEED ?? 1}, on the processor:

\`\`\`sh
${process.env.COMMAND ?? 'ctmatch train-demo --work work --out www/model'}
\`\`\`

${row('stage', 'steps', 'seconds since the start', 'last losses')}
| --- | --- | --- | --- |
${['text', 'slabs', 'rounded text', 'latents'].filter(last).map((stage) => {
    const { stage: _, step, seconds: __, norm, 'held out': ___, 'slab auroc': ____, hits: _____, ...losses } = last(stage);
    return row(stage, step, seconds(stage), Object.entries(losses).map(([name, x]) => `${name} ${x.toFixed(3)}`).join(', '));
  }).join('\n')}

The whole log is \`train-log.jsonl\`. Times are those of two cores shared with much other work. ${process.env.REMARK ?? ''}

## Limits

- Phantoms only. Their lesions, noise and reports are simpler than anything in a hospital.
- Tokens are cubes of 30 mm: what is smaller than that is seen only as a change of its cube.
${top1(q8, 'laterality').low <= 0.5 ? '- It does not tell left from right better than chance.\n' : ''}- The transformer along depth was not trained: its feed-forward layer holds one unit per finding, which learned on its own.
- The projection is one matrix for each of 24 regions of the plane, not for each place.
`);
