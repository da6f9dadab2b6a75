// A program against the public declarations: compiled, never run.

import { open, CtmatchError, type Progress, type Session } from '../../../pkg/index.js';
import { open as openHere } from '../../../pkg/core.js';

const onProgress = (p: Progress): number => ('loadedBytes' in p ? p.loadedBytes : 'done' in p ? p.done / p.total : p.fraction);

export async function example(file: File, signal: AbortSignal): Promise<string> {
  await using session: Session = await open({ model: '/models/ct-clip/manifest.json', onProgress, signal });
  const volume = await session.readVolume(file, { onProgress, signal });
  const image = await session.encodeVolume(volume, { accept: ['W_UNITS'], signal });
  const reports = await session.encodeReports(['first report', { id: 'b', text: 'second report' }], { signal });
  const ranking = await session.rank(image, reports, { topK: 5 });
  const best = ranking.rows[0]?.cosine ?? 0;
  try {
    await session.loadModel({ files: new Map([['manifest.json', new Blob([])]]) });
  } catch (error) {
    if (error instanceof CtmatchError && error.code === 'INTEGRITY') return String(error.detail.path);
  }
  // @ts-expect-error a report set is not an image latent
  await session.rank(reports, image);
  const here: Session = await openHere({ worker: false });
  await here.close();
  return best.toFixed(3);
}
