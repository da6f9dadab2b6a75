// A program against the public declarations: compiled, never run.

import { exportLatents, importLatents, open, probe, CtmatchError, type ImageLatent, type Progress, type ReportSet, type Session, type Store, type TimeEstimate } from 'ctmatch';
import { open as openHere, probe as probeHere } from 'ctmatch/core';

const onProgress = (p: Progress): number => ('loadedBytes' in p ? p.loadedBytes : 'done' in p ? p.done / p.total : p.fraction);

export async function example(file: File, signal: AbortSignal): Promise<string> {
  const model = '/models/ct-clip/manifest.json';
  const { webgpu, advice } = await probe({ model, allowSoftwareAdapter: true, signal });
  const needed: number = (advice.downloadBytes ?? 0) + ((await probeHere()).storage.usageBytes ?? 0);
  if (webgpu.reason === 'no-adapter') console.log(advice.notes.join('\n'), needed);
  // @ts-expect-error nothing is compiled for a probe
  await probe({ wasmUrl: '/core.wasm' });
  await using session: Session = await open({ model, onProgress, signal, selfTest: 'once-per-device', maxSubmitMs: 100 });
  // @ts-expect-error there are three modes
  await open({ selfTest: 'sometimes' });
  session.lost.then(({ reason }) => (reason === 'wasm-abort' ? session.close() : session.recover({ onProgress, signal })));
  const volume = await session.readVolume(file, { onProgress, signal });
  const masked: string[] = volume.identifiers.map(({ rule, place, masked: shown }) => `${rule} ${place} ${shown}`);
  const texts: string[] = await volume.revealIdentifiers();
  const clean: Blob = await volume.cleanCopy({ onProgress, signal });
  const hints: number[] = (await session.textHints(new Set(['first report']))).map((found) => found.length);
  const { summary, voxels } = await session.privacyNotices(masked.length + texts.length + hints.length + clean.size);
  console.log(summary.en, voxels.zh);
  const held = await session.readVolume({ data: new Int16Array(6), dims: [1, 2, 3], spacingMm: [1, 1, 1], orientation: 'LPS' });
  held.close();
  const image = await session.encodeVolume(volume, { accept: ['W_UNITS'], signal });
  const reports = await session.encodeReports(['first report', { id: 'b', text: 'second report' }], { signal });
  const { encodeVolumeMs, flops }: TimeEstimate = await session.estimate(volume, { signal });
  const { passed, cosine: agreement, codes } = await session.selfTest({ onProgress, signal });
  const slab: Int16Array = (await volume.slice('axial', 3, { slabMm: 10 })).hu;
  console.log(encodeVolumeMs / flops, passed && agreement, codes?.[0], slab.length, image.provenance.selfTest === 'passed-earlier');
  const { min, max } = await volume.modelBox({ signal });
  console.log(max[0] - min[0]);
  const kept: readonly Blob[] = [image, reports].map(exportLatents);
  const latents: ImageLatent | ReportSet = await importLatents(kept[0]!);
  if ('vectors' in latents) console.log(latents.rows.length);
  else console.log(latents.provenance.embeddingSpace);
  const ranking = await session.rank(image, reports, { topK: 5 });
  const { rows, answers, classes } = await session.zeroShot(volume, { ask: new Set(['Is there a lung nodule?']), accept: ['W_UNITS'] });
  const scores: number[] = [...rows, ...answers, ...(classes ?? [])].map(({ score }) => score);
  const again = await session.zeroShot(image, { prompts: [{ present: '{} is visible.', absent: 'no {}.' }], signal });
  console.log(scores, again.provenance.warnings, session.info.model?.capabilities.zeroShot);
  const byKeywords: ReportSet = await session.encodeReports([{ text: '', findings: 'a', impression: 'b' }], { view: 'keywords', meta: 'Age: 67', signal });
  const store: Store = await session.openStore(new Blob([]), { precision: 'int8', signal });
  await store.add({ volumes: new Set([{ id: 'a', latent: image }]), reports: byKeywords }, { signal });
  const hits: readonly string[] = (await store.search(image, { find: 'reports', hubness: 'csls', topK: 3 })).map(({ id }) => id);
  // @ts-expect-error what to find must be said
  await store.search(image, {});
  const { summary: judged } = await session.evaluate([{ id: '1', patient: 'p', truth: 0, scores: [1, 0] }], { rounds: 100 });
  console.log(hits, (await store.save({ signal })).size, store.volumes[0]?.sha256, judged.top1.low ?? judged.top1.value);
  store.close();
  const map = await session.explain(image, { text: reports.vectors.subarray(0, 512), against: 'second report', variant: 'leave-one-out', volume, sentences: true });
  const fall: number | undefined = (await session.occlude(volume, map.top.map(({ index }) => index), { label: 'Lung nodule', image, signal })).rows[0]?.fall;
  const overlay: Blob = await volume.exportMap(map, { grid: 'token', signal });
  console.log(fall, overlay.size, map.values[0], map.top[0]?.centerMm?.[2], map.slabs[0]?.slices?.[1]);
  // @ts-expect-error there are four variants
  await session.explain(volume, { label: 'Lung nodule', variant: 'gradient' });
  const best = ranking.rows[0]?.cosine ?? 0;
  console.log(ranking.background && ranking.background.shareBelow * ranking.background.pairs, volume.headerScaling?.[0]);
  try {
    await session.loadModel({ files: new Map([['manifest.json', new Blob([])]]) });
  } catch (error) {
    if (error instanceof CtmatchError && error.code === 'INTEGRITY') return String(error.detail.path);
  }
  // @ts-expect-error the file's name is for the session alone to take
  await session.readVolume(file, { fileName: file.name });
  // @ts-expect-error a report set is not an image latent
  await session.rank(reports, image);
  const here: Session = await openHere({ worker: false, cache: 'memory', network: 'offline' });
  const device: GPUDevice = await (await navigator.gpu.requestAdapter())!.requestDevice();
  await using shared = await open({ device, gpuMemoryBudgetBytes: 2e9 });
  // @ts-expect-error an adapter is no device
  await open({ device: await navigator.gpu.requestAdapter() });
  await shared.clearCache();
  await here.clearCache();
  await here.close();
  return best.toFixed(3);
}
