// From an empty page to the first ranking of the sample on the CPU backend, in parts: in one thread and in as many as there are cores,
// in turn. Every start is a browser of its own, so that nothing is compiled or stored.
//
//   node start.mjs [ROUNDS]

import { availableParallelism } from 'node:os';
import { attempt, newPage, startBrowser, startServer } from '../browser/harness.mjs';

const rounds = Number(process.argv[2] ?? 5);
const server = await startServer();

/** Milliseconds by part, in the page. */
const start = async (threads) => {
  const at = [performance.now()];
  const part = async (value) => { at.push(performance.now()); return value; };
  const { open } = await part(await import('/ctmatch/index.js'));
  const session = await part(await open({ backend: 'cpu', threads, cache: 'none' }));
  await part(await session.loadModel('/model/manifest.json'));
  const volume = await part(await session.readVolume(await (await fetch('/sample/chest.nii.gz')).blob()));
  const image = await part(await session.encodeVolume(volume, { accept: volume.findings.map(({ code }) => code) }));
  const texts = await session.parseReports(await (await fetch('/sample/reports.json')).blob(), { format: 'json' });
  await part(await session.rank(image, await session.encodeReports(texts)));
  if (session.info.threads !== threads) throw new Error(`expected ${threads} threads, found ${JSON.stringify(session.info)}`);
  await session.close();
  return [...at.slice(1).map((time, i) => time - at[i]), at.at(-1) - at[0]];
};
const PARTS = ['scripts', 'module and threads', 'model and self-test', 'volume', 'encode', 'texts and ranking', 'all'];

const results = new Map([1, availableParallelism()].map((threads) => [threads, []]));
for (let round = 0; round < rounds; round++) {
  for (const [threads, times] of results) {
    const browser = await startBrowser({ gpu: false });
    const { page, finish } = await newPage(browser, { origin: server.origin, path: '/test/blank.html' });
    const found = await attempt(page, start, threads);
    if (found.error) throw new Error(JSON.stringify(found.error));
    times.push(found);
    await finish();
    await browser.close();
  }
}
await server.close();

console.log(`milliseconds, fastest of ${rounds} starts (of \`all\`: the fastest start)`);
console.log(`| threads | ${PARTS.join(' | ')} |\n|---|${PARTS.map(() => '---|').join('')}`);
for (const [threads, times] of results) console.log(`| ${threads} | ${PARTS.map((_, i) => Math.round(Math.min(...times.map((time) => time[i])))).join(' | ')} |`);
