// What is saved: the reproducibility record (VIEWER_AND_RANKING_UI.md 9) and the files that hold it.

import { state } from './app.js';
import { $, download } from './dom.js';
import { MESSAGES, text } from './i18n.js';

/** The notice as one paragraph. @param {string | undefined} license @param {'en' | 'zh'} [language] */
export function noticeText(license, language) {
  const gap = language === 'zh' ? '' : ' ';
  const parts = [text('notice_lead', {}, language), text('notice', {}, language)];
  if (license) parts.push(text('notice_weights', { license }, language));
  return parts.join(gap);
}

/**
 * The record of VIEWER_AND_RANKING_UI.md 9: no file name, no header text, no report text; of identifiers the rules' counts.
 * @param {{ ranking: Ranking, volume: import('../pkg/index.js').Volume, set: import('../pkg/index.js').ReportSet,
 *   info: import('../pkg/index.js').SessionInfo, accepted: readonly string[], timingsMs: Readonly<Record<string, number>> }} run
 */
export function record({ ranking, volume, set, info, accepted, timingsMs }) {
  const { provenance: p } = ranking;
  const license = info.model?.license;
  /** @type {any} */
  const { reading } = p.preprocess;
  return {
    schema: 'ctmatch-result-1',
    notice: { en: noticeText(license, 'en'), zh: noticeText(license, 'zh') },
    ...(info.model?.untrained ? { warning: { en: MESSAGES.untrained[0], zh: MESSAGES.untrained[1] } } : {}),
    app: { version: p.package },
    model: {
      id: p.model, revision: p.revision, weights_sha256: p.weightsSha256, variant: p.variant,
      embedding_space: p.embeddingSpace, licence: license, untrained: info.model?.untrained ?? false,
    },
    input: {
      voxel_sha256: p.voxelSha256, dims: volume.dims, spacing_mm: volume.spacingMm, orientation_in: volume.orientation,
      orientation_known: volume.orientationKnown, datatype: volume.datatype,
      hu_override: reading?.scaling ?? null, possible_identifiers: reading?.identifiers ?? {},
      findings: volume.findings.map(({ code }) => ({ code, accepted: accepted.includes(code) })),
    },
    preprocess: p.preprocess,
    runtime: {
      backend: p.backend, adapter_info: p.adapter, software: info.software ?? false, browser: navigator.userAgent,
      timings_ms: timingsMs, degraded: p.degraded, self_test: p.selfTest,
    },
    tie_tolerance: ranking.tieTolerance,
    candidates: ranking.rows.map((row) => ({
      id: row.id, text_sha256: set.rows[row.index].textSha256, n_tokens: set.rows[row.index].tokens,
      truncated: set.rows[row.index].truncated, cosine: row.cosine, rank: row.rank, tie_group: row.tieGroup, share: row.share,
    })),
  };
}

$('export').addEventListener('click', () => {
  download(new Blob([JSON.stringify(record(state.result), null, 2)], { type: 'application/json' }), 'ctmatch-result.json');
});
