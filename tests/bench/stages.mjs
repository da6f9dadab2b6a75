// The stages of ctmatch from an empty page to a ranking, in seconds: in Chromium through the package, natively by `ctmatch bench` and by the
// clock around whole processes.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from '../browser/harness.mjs';
import { digits, ratio, table } from './report.mjs';

/** @typedef {Record<string, number>} Seconds by stage */

const SENTENCES_EACH = 7;
/** No two alike: a text that was encoded before costs nothing. */
export const MOST_REPORTS = 1000;

/** Distinct reports of sentences of the sample. @param {number} count */
export function reports(count) {
  const sample = JSON.parse(readFileSync(join(repository, 'www/sample/reports.json'), 'utf8'));
  const sentences = [...new Set(sample.flatMap(({ findings, impression }) => `${findings} ${impression}`.match(/[^.]+\./g).map((sentence) => sentence.trim())))];
  return Array.from({ length: count }, (_, i) => {
    const [first, stride] = [i % sentences.length, 1 + Math.floor(i / sentences.length)];
    return Array.from({ length: SENTENCES_EACH }, (_, n) => sentences[(first + n * stride) % sentences.length]).join(' ');
  });
}

/**
 * In an empty page. The package tells one time for an encode; its progress tells when the last slab was handed on.
 * @param {{ backend: 'cpu' | 'webgpu', threads?: number, model: string, volume: string, texts: string[] }} given addresses
 * @returns {Promise<{ seconds: Seconds, tokens: number }>} tokens of a report on average
 */
export const inPage = async ({ backend, threads, model, volume: address, texts }) => {
  const file = await (await fetch(address)).blob();
  const seconds = {};
  const timed = async (stage, work) => {
    const from = performance.now();
    const value = await work();
    seconds[stage] = (performance.now() - from) / 1000;
    return value;
  };
  const session = await timed('scripts, worker and wasm module', async () => {
    const { open } = await import('/ctmatch/index.js');
    return open({ backend, threads, allowSoftwareAdapter: true, cache: 'none', selfTest: 'off' });
  });
  await timed('load model', () => session.loadModel(model));
  const { passed } = await timed('self-test', () => session.selfTest());
  if (!passed) throw new Error('the self-test did not pass');
  if (backend === 'cpu' && session.info.threads !== threads) throw new Error(`expected ${threads} threads, found ${JSON.stringify(session.info)}`);
  const volume = await timed('read volume', () => session.readVolume(file));
  const accept = volume.findings.map(({ code }) => code);
  const begun = {};
  const onProgress = ({ phase }) => { begun[phase] ??= performance.now(); };
  const image = await timed('call', () => session.encodeVolume(volume, { accept, onProgress }));
  const encode = image.timingsMs.total / 1000;
  const embedded = (begun.encode - begun.preprocess) / 1000;
  seconds['preprocess and patch embedding'] = embedded;
  seconds['transformers, codebook and projection'] = encode - embedded;
  seconds['encode volume'] = encode;
  seconds['hash of the voxels'] = seconds.call - encode;
  delete seconds.call;
  const set = await timed('encode reports', () => session.encodeReports(texts));
  if (session.info.encoded.textsFromCache > 0) throw new Error('expected reports that are all different');
  await timed('rank', () => session.rank(image, set));
  await session.close();
  return { seconds, tokens: set.rows.reduce((sum, row) => sum + row.tokens, 0) / set.size };
};

/**
 * @param {(...args: string[]) => string} run the native command
 * @param {{ model: string, volume: string, texts: string[], grid: number[], folder: string }} given files, and a folder for what is written
 * @returns {{ seconds: Seconds }}
 */
export function natively(run, { model, volume, texts, grid, folder }) {
  const at = (name) => join(folder, name);
  writeFileSync(at('reports.json'), JSON.stringify(texts));
  writeFileSync(at('report.json'), JSON.stringify(texts.slice(0, 1)));
  const timed = (...args) => {
    const from = performance.now();
    run(...args);
    return (performance.now() - from) / 1000;
  };
  const encode = (name) => timed('encode', '--model', model, '--reports', at(name), '--out', at('texts.safetensors'));
  const bench = JSON.parse(run('bench', '--model', model, '--repeat', '2', '--json'));
  const sum = (stages) => stages.reduce((total, { seconds }) => total + seconds, 0);
  return {
    seconds: {
      'load model and self-test': bench.loadSeconds,
      ...Object.fromEntries(bench.image.map(({ name, seconds }) => [name, seconds])),
      'transformers, codebook and projection': sum(bench.image.filter(({ name }) => name !== 'patch embedding')),
      'text tower, one text of 40 tokens': sum(bench.text),
      'process: preprocess': timed('preprocess', volume, '--grid', grid.join(','), '--out', at('preprocessed.npy')),
      'process: encode 1 report': encode('report.json'),
      'process: encode reports': encode('reports.json'),
      // As the page, which accepts whatever can be.
      'process: rank': timed('rank', '--model', model, '--volume', volume, '--reports', at('reports.json'), '--accept', 'E_NOT_HU'),
    },
  };
}

/** The fastest of each stage, and what follows from these. @param {Seconds[]} rounds @param {number} count of reports @returns {Seconds} */
export function fastest(rounds, count) {
  /** @type {Seconds} */
  const least = {};
  for (const [stage, time] of rounds.flatMap((round) => Object.entries(round))) least[stage] = Math.min(least[stage] ?? Infinity, time);
  if ('self-test' in least) least['load model and self-test'] = least['load model'] + least['self-test'];
  const more = least['process: encode reports'] - least['process: encode 1 report'];
  if (more > 0) least['encode reports'] = more * count / (count - 1);
  return least;
}

const ORDER = [
  'scripts, worker and wasm module', 'load model', 'self-test', 'load model and self-test', 'read volume', 'preprocess and patch embedding',
  'patch embedding', 'spatial transformer', 'temporal transformer', 'codebook and projection', 'transformers, codebook and projection', 'encode volume',
  'hash of the voxels', 'text tower, one text of 40 tokens', 'encode reports', 'rank', 'process: preprocess', 'process: encode 1 report',
  'process: encode reports', 'process: rank',
];

/**
 * A row per stage, a column per engine; in brackets ÷ the first engine in the browser.
 * @param {{ name: string, seconds: Seconds, textsPerSecond: number | null }[]} columns
 */
export function stageTable(columns) {
  const reference = columns.find(({ seconds }) => 'rank' in seconds);
  // Ranking takes less than a millisecond.
  const shown = (time) => (time < 0.01 ? time.toPrecision(2) : time.toFixed(3));
  const cell = (column, stage) => {
    if (!(stage in column.seconds)) return '';
    const times = column === reference ? '' : ratio(column.seconds[stage], reference?.seconds[stage]);
    return `${shown(column.seconds[stage])}${times && ` (${times})`}`;
  };
  const stages = ORDER.filter((stage) => columns.some(({ seconds }) => stage in seconds));
  return table(['stage, seconds', ...columns.map(({ name }) => name)], [
    ...stages.map((stage) => [stage, ...columns.map((column) => cell(column, stage))]),
    ['reports per second', ...columns.map(({ textsPerSecond }) => digits(textsPerSecond, 1))],
  ]);
}
