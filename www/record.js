// The part of the reproducibility record that needs no candidates (VIEWER_AND_RANKING_UI.md 9): what computed which volume, how.

import { doubtAbout, state } from './app.js';
import { BUILD } from './build.js';
import { $ } from './dom.js';
import { MESSAGES, text } from './i18n.js';
import { permutation } from './orientation.js';

/** @typedef {import('../pkg/index.js').ImageLatent} ImageLatent */

/** The notice as one paragraph. @param {string | undefined} license @param {'en' | 'zh'} [language] */
export function noticeText(license, language) {
  const gap = language === 'zh' ? '' : ' ';
  const parts = [text('notice_lead', {}, language), text('notice', {}, language)];
  if (license) parts.push(text('notice_weights', { license }, language));
  return parts.join(gap);
}

/**
 * What a record needs of a latent of the shown volume, as long as both are there.
 * @param {import('../pkg/index.js').Session} session @param {ImageLatent} image @param {readonly string[]} accepted
 */
export async function runOf(session, image, accepted) {
  const { device } = JSON.parse(await session.diagnostics());
  return { image, timingsMs: image.timingsMs, accepted, volume: state.volume, entry: state.entry, info: session.info, device, createdUtc: new Date().toISOString() };
}

/** Notice, time and warning: the head of every saved record. @param {import('../pkg/index.js').ModelInfo | undefined} model @param {string} createdUtc */
export function headOf(model, createdUtc) {
  const doubt = doubtAbout(model);
  return {
    ...($('export-time').checked ? { created_utc: createdUtc } : {}),
    notice: { en: noticeText(model?.license, 'en'), zh: noticeText(model?.license, 'zh') },
    ...(doubt ? { warning: { en: MESSAGES[doubt][0], zh: MESSAGES[doubt][1] } } : {}),
  };
}

/** @param {import('../pkg/index.js').Provenance} p */
export const modelOf = (p) => ({
  id: p.model, revision: p.revision, weights_sha256: p.weightsSha256, variant: p.variant, tokenizer_sha256: p.tokenizerSha256,
  embedding_space: p.embeddingSpace, licence: p.license, untrained: p.untrained,
});

/**
 * No file name and no header text; of identifiers the rules' counts.
 * @param {Omit<Awaited<ReturnType<typeof runOf>>, 'entry'> & { volume: any }} run
 * @param {string | null} view of the reports; null where none was compared
 */
export function conditions({ image: { provenance: p }, volume, info, accepted, timingsMs, device, createdUtc }, view) {
  const scl = volume.headerScaling ?? null;
  /** @type {any} */
  const { reading } = p.preprocess;
  return {
    ...headOf(info.model, createdUtc),
    app: { version: p.package, ...BUILD },
    model: { ...modelOf(p), synthetic: info.model?.synthetic ?? false },
    input: {
      voxel_sha256: p.voxelSha256, dims: volume.dims, spacing_mm: volume.spacingMm, orientation_in: volume.orientation, permutation: permutation(volume.orientation),
      orientation_known: volume.orientationKnown, datatype: volume.datatype, scl: scl && { slope: scl[0], inter: scl[1] },
      hu_override: reading?.scaling ?? null, possible_identifiers: reading?.identifiers ?? {},
      findings: volume.findings.map(({ code }) => ({ code, accepted: accepted.includes(code) })),
    },
    // The one that src/volume/preprocess.rs has: between voxel centres, at the edges the outermost voxel.
    preprocess: { ...p.preprocess, interpolation: 'trilinear', text_source: view, reference_exact: reading?.referenceExact ?? false },
    runtime: {
      backend: p.backend, threads: p.threads, adapter_info: p.adapter, limits: device.limits, shader_f16: device.features.f16, software: info.software ?? false,
      browser: navigator.userAgent, os: /** @type {any} */ (navigator).userAgentData?.platform ?? navigator.platform,
      timings_ms: timingsMs, degraded: p.degraded, self_check: { name: 'known answers', pass: p.selfTest !== 'skipped', ...info.selfTest },
    },
  };
}
