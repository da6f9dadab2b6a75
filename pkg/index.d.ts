export type Backend = 'webgpu' | 'cpu';
export type Plane = 'axial' | 'coronal' | 'sagittal';
export type Triple = readonly [number, number, number];

/** Runtime codes; loader codes (`E_...`) are error codes too. An abort is no CtmatchError: it rejects with `signal.reason`. */
export type ErrorCode =
  | 'NO_WEBGPU' | 'SOFTWARE_ADAPTER' | 'LIMITS' | 'GPU_OOM' | 'DEVICE_LOST' | 'SHADER_INVALID'
  | 'BAD_RESULT' | 'SELF_TEST_FAILED' | 'CSP_WASM_BLOCKED' | 'WORKER_BLOCKED' | 'WASM_ABORT'
  | 'NETWORK' | 'NETWORK_POLICY' | 'OFFLINE_MISS' | 'INTEGRITY' | 'MANIFEST' | 'MODEL_SHAPE' | 'CHECKPOINT'
  | 'MODEL_PURPOSE' | 'STORE' | 'NO_MODEL' | 'NEEDS_CONFIRMATION' | 'TEXT_INPUT' | 'INVALID_ARGUMENT' | 'CLOSED' | `E_${string}`;

export declare class CtmatchError extends Error {
  constructor(code: ErrorCode, message: string, more?: {
    retryable?: boolean; detail?: Readonly<Record<string, unknown>>; cause?: unknown;
  });
  readonly code: ErrorCode;
  /** true when the same call may succeed after the cure named in the message */
  readonly retryable: boolean;
  /** plain data: numbers, limits, URLs of our own files; never header, file-name or report text */
  readonly detail: Readonly<Record<string, unknown>>;
}

/**
 * 'compile': of the wasm module, what is left once it is there. 'upload': of the model to the device, file by file; a volume goes there
 * in 'preprocess'. 'self-test': also compiles the shaders; the longest part of a first load.
 */
export type Progress =
  | { phase: 'wasm' | 'weights' | 'read'; loadedBytes: number; totalBytes?: number;
      source: 'network' | 'cache' | 'file' }
  | { phase: 'compile' | 'encode' | 'text' | 'occlude'; done: number; total: number }
  | { phase: 'self-test' | 'preprocess' | 'upload'; fraction: number };
export interface CallOptions { signal?: AbortSignal; onProgress?: (p: Progress) => void }

/** Manifest URL, parsed manifest, or local files (an IT department's USB stick). There is no default host. */
export type ModelRef = string | URL | ModelManifest | { files: ReadonlyMap<string, Blob> };
export interface ModelManifest {
  schema: 1; id: string; revision: string; license: string;
  /** two latents compare only when this is equal */
  embeddingSpace: string;
  /** true for random weights: scores have no meaning */
  untrained?: boolean;
  /** true for weights that were trained on synthetic volumes only */
  synthetic?: boolean;
  /** default 'match' */
  purpose?: Purpose;
  variants: Readonly<Record<string, Variant>>;
  /** a tokenizer where there is a text tower */
  files: { readonly tokenizer?: Shard };
}
/** What a folder was converted for: it has no other parts. 'match' has all, 'zero-shot' no text tower. */
export type Purpose = 'match' | 'zero-shot' | 'images' | 'reports';
export interface Shard { path: string; bytes: number; sha256: string }
export interface Variant {
  shards: readonly Shard[]; needsF16: boolean; gpuBytes: number; tieTolerance: number;
  /** latents of the zero-shot prompts */
  prompts?: Shard;
}

/** As `open` would be called. */
export type ProbeOptions = Pick<OpenOptions,
  'model' | 'variant' | 'cache' | 'network' | 'allowSoftwareAdapter' | 'gpuMemoryBudgetBytes' | 'threads' | 'worker' | 'stallMs' | 'signal'>;
/** Why the CPU computes in one thread; `probe().advice.notes` says it in words. */
export type OneThread = 'asked' | 'not-in-worker' | 'not-isolated' | 'no-shared-memory' | 'no-relaxed-simd' | 'one-core' | 'no-module' | 'gpu-failed' | 'not-started';
export interface ProbeReport {
  webgpu: {
    usable: boolean;
    /** where there is an adapter */
    scope: 'worker' | 'main' | 'none';
    /** 'limits': every variant of the model needs more than `gpuMemoryBudgetBytes` */
    reason?: 'insecure-context' | 'no-navigator-gpu' | 'no-adapter' | 'software-adapter' | 'limits';
    adapter?: { vendor: string; architecture: string; fallback: boolean };
    features: { f16: boolean; subgroups: boolean; dp4a: boolean }; limits?: Readonly<Record<string, number>>;
  };
  /** `threads`: those that the package would use */
  cpu: { simd: boolean; threads: number; oneThread?: OneThread; crossOriginIsolated: boolean };
  storage: { opfs: boolean; quotaBytes?: number; usageBytes?: number };
  /** `downloadBytes`: what of the model is not in the cache; `notes`: what is off, and why, in English */
  advice: { backend: Backend; variant?: string; downloadBytes?: number; gpuBytes?: number; notes: string[] };
}
/** What would happen here. Requests the worker's scripts and the manifest; opens no device, loads no wasm, stores nothing. */
export declare function probe(o?: ProbeOptions): Promise<ProbeReport>;

/** `GPUDevice`, where the program's types know WebGPU */
export type SharedDevice = typeof globalThis extends { GPUDevice: { prototype: infer T } } ? T : object;
export interface OpenOptions extends CallOptions {
  /** may be given later through `loadModel`; reading and viewing a volume need no model and no GPU */
  model?: ModelRef;
  /** default 'webgpu' */
  backend?: Backend;
  /** default 'error': the GPU is never swapped for the CPU without being asked */
  fallback?: 'error' | 'cpu';
  /** default 'auto': the first variant of the manifest that the device can run */
  variant?: string;
  /**
   * Known answers on this device after loading; a device that computes others is refused (SELF_TEST_FAILED). Default 'always', or true: it
   * is short, compiles the shaders that the first encode needs anyway, and a page cannot see that a driver was
   * replaced. 'once-per-device' takes a passed one of before for the same adapter, browser version, package version and manifest, kept where
   * `cache` keeps files on the disk; elsewhere it is 'always'. 'off', or false: never.
   */
  selfTest?: 'always' | 'once-per-device' | 'off' | boolean;
  /**
   * Where finished files of a model from a URL are kept, by SHA-256, and unfinished ones, to be resumed. Default 'opfs': the
   * browser's private storage for this origin, with the wasm module for 'offline'; when it is full or missing, shards pass
   * through memory and `info.degraded` holds 'cache: quota' or 'cache: no opfs'. 'memory': until the session ends.
   * Local files are never copied, and `navigator.storage.persist()` is left to the caller.
   */
  cache?: 'opfs' | 'memory' | 'none';
  /**
   * default 'same-origin'; 'offline' takes everything from the cache and turns every request into OFFLINE_MISS; `allow` lists
   * further origins
   */
  network?: 'same-origin' | 'offline' | { allow: readonly string[] };
  /** default false: a fallback adapter is SOFTWARE_ADAPTER */
  allowSoftwareAdapter?: boolean;
  /**
   * Default 150. Work is submitted to the GPU in parts of at most 32 kernels, and, as soon as one takes longer than this, in smaller ones
   * that are measured on; no more than about this much waits in the queue, and an abort is looked for in between. A single kernel cannot be
   * cut, and the first part that is too long is known only afterwards: `diagnostics` tells the longest. Infinity: not bounded.
   */
  maxSubmitMs?: number;
  /** of the manifest's `gpuBytes`; a variant that needs more is passed over, and LIMITS when none is left */
  gpuMemoryBudgetBytes?: number;
  /**
   * A device to share with another library; implies `worker: false`. The model must fit its limits (LIMITS), and f16 and subgroups are
   * used if they were requested with it. `close` leaves it usable, with the caller's own buffers. Any error on it during a call makes
   * that call fail, so no error scope of the caller's may be open then. `recover` cannot replace it when it is lost: open another session.
   */
  device?: SharedDevice;
  /** a worker made by the caller's bundler, or false to run in the calling thread */
  worker?: Worker | (() => Worker) | false;
  /**
   * At most so many threads on the CPU backend; default: the processor's cores, at most 8. There is one in a page's own thread, in Node and
   * on pages that are not cross-origin isolated: see `info.oneThread`.
   */
  threads?: number;
  /**
   * Default 30,000: a download that brings nothing for so many milliseconds is NETWORK, and can be tried again from where it was. A slow one
   * that moves is never cut. Infinity: waits for ever.
   */
  stallMs?: number;
  /** default: beside the package's scripts; in Node, file URLs are read */
  wasmUrl?: string | URL;
  /** the module for the CPU with threads; default: beside the package's scripts, unless `wasmUrl` is given */
  cpuWasmUrl?: string | URL;
}
/** Loads the wasm module, and the model when one is given. The GPU is opened with the model. */
export declare function open(o?: OpenOptions): Promise<Session>;

/** No ReadableStream: a source must be able to start again. */
export type VolumeSource = Blob | ArrayBuffer | { header: Blob; image: Blob } | Voxels;
/** Voxels of a program, first axis fastest. `orientation`: where each axis runs to, as 'LPS'; the first voxel is at 0, 0, 0 mm. */
export interface Voxels { data: Int16Array; dims: Triple; spacingMm: Triple; orientation: string }
export interface ReadOptions extends CallOptions {
  /** from 0, for a file with more than one volume */
  frame?: number;
  /** 'other-form' answers W_DISAGREE and E_XFORM; 'assume-lps' takes the stored order as left, posterior, superior */
  orientation?: 'auto' | 'other-form' | 'assume-lps';
  /** slope and intercept are applied to the values as read: { slope: 1, intercept: -1024 } answers W_HU_OFFSET */
  scaling?: 'auto' | 'already-hu' | { slope: number; intercept: number };
  /**
   * A row of CT-RATE's metadata. Its spacing takes the place of one that the header lacks or that differs (W_SPACING asks then). Its slope
   * and intercept are never applied beside the header's: W_HU_RAW asks where they differ, unless `scaling` says what the values are.
   */
  sidecar?: { rescaleSlope: number; rescaleIntercept: number; xySpacing: readonly number[]; zSpacing: number };
  /** voxels in stored order, the header's slope and intercept and then those of `sidecar`, as the published evaluation reads */
  referenceExact?: boolean;
  /** text of the `.json` that a converter (dcm2niix) wrote beside the file: searched for identifiers, nothing of it is applied */
  metadataJson?: string;
}
export type Action = 'refuse' | 'ask' | 'note';
/** A text of the file or of its name that may identify a person, without its letters and digits. */
export interface Identifier { rule: string; place: string; masked: string }
export interface Hint { rule: string; masked: string }
export interface Bilingual { en: string; zh: string }
export interface PrivacyNotices { summary: Bilingual; voxels: Bilingual }
export interface Finding { code: string; action: Action; params: Readonly<Record<string, string | number>> }
/**
 * Rows and columns as shown: patient right in the first column of axial and coronal slices, anterior in the first
 * column of sagittal ones; anterior in the first row of axial slices, superior in the first row of the others.
 */
export interface Slice {
  hu: Int16Array; width: number; height: number; spacingMm: readonly [number, number]; positionMm: number;
  /** whose highest values these are; 1 without a slab */
  slices: number;
}
/** Outer faces in canonical voxels: voxel x spans x - 0.5 to x + 0.5. May reach outside the volume. */
export interface VoxelBox { min: Triple; max: Triple }
export interface SliceOptions {
  grid?: 'native' | 'model';
  /** default 0: the slice alone; else the highest value of every slice whose centre is at most half of this away (maximum intensity) */
  slabMm?: number;
  signal?: AbortSignal;
}
export interface Volume {
  /** voxels along the patient's left, posterior and superior direction */
  readonly dims: Triple;
  readonly spacingMm: Triple; readonly orientation: string; readonly datatype: string;
  /** voxel (along left, posterior, superior, from 0) to world mm (right, anterior, superior): three rows, the last number of each the offset */
  readonly affine: readonly (readonly [number, number, number, number])[];
  /** slope and intercept that the header asks for; absent when it asks for none */
  readonly headerScaling?: readonly [number, number];
  /** false when left and right cannot be verified: a viewer must not show letters unasked */
  readonly orientationKnown: boolean;
  readonly findings: readonly Finding[];
  /** By text patterns only: an empty list is no proof of anonymity, and the voxels are not looked at. */
  readonly identifiers: readonly Identifier[];
  readonly huRange: readonly [number, number];
  /** memory held by the voxels */
  readonly voxelBytes: number;
  /** canonical (LPS) axes; 'model' shows what the loaded model sees, NO_MODEL before there is one */
  slice(plane: Plane, index: number, o?: SliceOptions): Promise<Slice>;
  /** what the loaded model sees, NO_MODEL before there is one */
  modelBox(o?: { signal?: AbortSignal }): Promise<VoxelBox>;
  /**
   * A map of this volume as a .nii.gz of 32-bit floats, for a viewer to lay over it. Its only texts are the notice and `comment`, a header
   * extension, for instance a record of how the map was made.
   */
  exportMap(map: Pick<HeatMap, 'values'>, o?: { grid?: MapGrid; comment?: string; signal?: AbortSignal }): Promise<Blob>;
  /** The texts behind `identifiers`, in the same order: call it only when the user asks to see them. */
  revealIdentifiers(): Promise<string[]>;
  /**
   * The file as a .nii.gz with the same voxels and geometry and without any text; reads the source again. Name it
   * neutrally. Corrections of `ReadOptions` are not in it.
   */
  cleanCopy(o?: CallOptions): Promise<Blob>;
  close(): void;
}

export interface Provenance {
  package: string; model: string; revision: string; license: string; untrained: boolean; purpose: Purpose;
  embeddingSpace: string; variant: string; weightsSha256: string;
  /** of the tokenizer, or of the one that the stored zero-shot prompts were encoded with */
  tokenizerSha256?: string;
  /** what a reader of the numbers must know, in English; and what is shown wherever they are */
  warnings: readonly string[]; notice: string;
  /** `threads`: of the CPU backend */
  backend: Backend; threads?: number; adapter: string; software: boolean; voxelSha256: string;
  /** 'passed-earlier': in another session of this device, see `OpenOptions.selfTest` */
  selfTest: 'passed' | 'passed-earlier' | 'skipped';
  /** with `reading`: the read options, and how often each identifier rule applied; no file name, no text of the file */
  preprocess: Readonly<Record<string, unknown>>; degraded: readonly string[];
}
export interface ImageLatent {
  readonly vector: Float32Array;
  /** codebook index per token; all maps and scores can be recomputed from it */
  readonly codes: Uint16Array;
  /** of a model with a classifier (ClassFine): `zeroShot` makes `classes` of them */
  readonly classLogits?: Float32Array;
  /** `timingsMs`: `total`, and on WebGPU `longestSubmission` */
  readonly provenance: Provenance; readonly timingsMs: Readonly<Record<string, number>>;
}
export interface Report {
  id?: string; text: string; label?: string;
  /** sections, where the file has them; views read these before `text` */
  findings?: string; impression?: string;
}
/**
 * What of a report is encoded. 'keywords': the CT-RATE findings that it states or leaves open, by rules for English. 'sentences': each
 * by itself; the vector is their mean, scaled to length 1.
 */
export type ReportView = 'full' | 'findings' | 'impression' | 'keywords' | 'sentences';
export interface ReportOptions extends CallOptions {
  /** default 'full' */
  view?: ReportView;
  /** put in front as a sentence, as 'Age: 67, Sex: M' */
  meta?: string;
}
export type ReportFormat = 'auto' | 'json' | 'jsonl' | 'csv' | 'tsv' | 'txt';
export interface ReportSet {
  readonly size: number; readonly embeddingSpace: string; readonly view: ReportView;
  readonly rows: readonly { id: string; tokens: number; truncated: boolean; textSha256: string }[];
  /** unit vectors, row after row: size x latent length */
  readonly vectors: Float32Array;
}
/** A safetensors file with `image_latents` and `vq_indices`, or `text_latents`; no text of a report, no file name. */
export declare function exportLatents(l: ImageLatent | ReportSet): Blob;
/** What `exportLatents` was given. INVALID_ARGUMENT for anything else; `rank` refuses latents of another model. */
export declare function importLatents(file: Blob): Promise<ImageLatent | ReportSet>;
export interface Ranked {
  index: number; id: string; cosine: number; rank: number; tieGroup: number; marginToNext: number; share: number;
}
/** How the best cosine of a list stands beside those of volumes with the reports of other patients. */
export interface Background {
  /** share of the pairs that the best cosine exceeds, 0 to 1 */
  readonly shareBelow: number;
  /** the same for the best of as many unrelated reports, in half of all lists (independent draws) */
  readonly shareBelowByChance: number;
  readonly pairs: number; readonly volumes: number; readonly reports: number;
  readonly view: ReportView;
  /** what the volumes and reports are, in English */
  readonly source: string;
}
export interface Ranking {
  readonly rows: readonly Ranked[]; readonly tieTolerance: number; readonly provenance: Provenance;
  /** absent when the model folder has no such numbers, or has them of another view of the reports: `ctmatch background` writes them */
  readonly background?: Background;
}
/** A latent's name, and the hash of what it is of. */
export interface StoreEntry { id: string; sha256: string }
export interface StoreFacts {
  readonly model: Readonly<{
    id: string; revision: string; embeddingSpace: string; variant: string; weightsSha256: string; license: string; untrained: boolean;
  }>;
  readonly precision: 'f16' | 'int8';
  /** of the reports, once there are some */
  readonly view?: ReportView;
  readonly volumes: readonly StoreEntry[]; readonly reports: readonly StoreEntry[];
}
export interface SearchOptions {
  find: 'volumes' | 'reports';
  /** default 10 */
  topK?: number;
  /** default 'raw'; the others correct for latents that are close to everything, by the store's latents of the query's kind */
  hubness?: 'raw' | 'csls' | 'centred';
  signal?: AbortSignal;
}
/** `score` orders: the cosine, minus the correction. `index`: among `volumes` or `reports` of the store. */
export interface Hit { id: string; index: number; cosine: number; score: number }
/** Latents under names, in one safetensors file that the command's `encode --store` and `search` read and write. No text, no voxel. */
export interface Store extends StoreFacts {
  /** STORE when an id is there already or the view is another; what came before it in the list is kept. */
  add(more: { volumes?: Iterable<{ id: string; latent: ImageLatent }>; reports?: ReportSet }, o?: { signal?: AbortSignal }): Promise<void>;
  /** Best first. A query is a volume's latent, or a set of one report. */
  search(query: ImageLatent | ReportSet, o: SearchOptions): Promise<Hit[]>;
  /** Retrieval metrics over volumes and reports of the same id, as the command's `evaluate --retrieval` gives them. */
  evaluate(o?: RetrievalOptions): Promise<RetrievalEvaluation>;
  save(o?: { signal?: AbortSignal }): Promise<Blob>;
  close(): void;
}
export interface RetrievalOptions {
  /** a row for every volume that has a report; without labels no overlap and no gain is measured */
  labels?: Iterable<{ id: string; labels: readonly boolean[] }>;
  /** default 'raw' */
  hubness?: SearchOptions['hubness'];
  /** resamples of patients (`train_3_a_1` is of patient `train_3`), default 1000; and their seed */
  rounds?: number; seed?: number;
  signal?: AbortSignal;
}
/** By K. */
export interface Recall {
  recall: Readonly<Record<string, Estimate>>; chance: Readonly<Record<string, number>>; medianRank: number;
}
/** By K: like labels (Jaccard index) early in the order. */
export interface Gain { ndcg: Readonly<Record<string, Estimate>>; chance: Readonly<Record<string, number>> }
export interface RetrievalEvaluation {
  /** `SameReport`: any volume or report with the same words is a success */
  readonly summary: {
    pairs: number; reportToVolume: Recall; reportToVolumeSameReport: Recall; volumeToReport: Recall; volumeToReportSameReport: Recall;
    /** the reference's "MAP@K" of volumes for volumes, and as its script prints it */
    labelJaccard?: { gallery: number; perK: Readonly<Record<string, number>>; cumulativeAsReported: Readonly<Record<string, number>> };
    reportToVolumeGain?: Gain; volumeToReportGain?: Gain;
  };
  /** places of the first success, from 1 */
  readonly pairs: readonly {
    id: string; reportToVolume: number; reportToVolumeSameReport: number; volumeToReport: number; volumeToReportSameReport: number;
  }[];
  readonly volumesWithoutReport: number; readonly reportsWithoutVolume: number;
}
/** The 18 findings of CT-RATE, or the 16 that the authors judge on RAD-ChestCT: one calcification, no mosaic attenuation. */
export type LabelSet = 'ct-rate' | 'rad-chest-ct';
export interface LabelTable {
  readonly set: LabelSet; readonly names: readonly string[]; readonly rows: readonly { id: string; labels: readonly boolean[] }[];
}
export interface LabelOptions {
  /** what the labels are, default 'ct-rate'; the scores are always of the 18 */
  set?: LabelSet;
  /** resamples of patients, default 1000; and their seed */
  rounds?: number; seed?: number;
}
/** A volume: scores of the 18 findings as `zeroShot` orders them, and the truth. */
export interface Labelled { patient: string; scores: readonly number[]; labels: readonly boolean[] }
/** Numbers as the command's `evaluate --zero-shot` gives them; null where one class is empty. */
export interface LabelEvaluation {
  readonly volumes: number; readonly patients: number; readonly macroAuroc: Estimate | null;
  /** `threshold`: by the reference's rule on these volumes, so no operating point */
  readonly labels: readonly {
    label: string; positives: number; negatives: number; auroc: Estimate | null;
    threshold: number | null; accuracy: number | null; weightedF1: number | null; precision: number | null;
  }[];
}
/** A report under the name of its volume, with its labels where they are known (else by rules from the text). */
export interface ItemSource extends Omit<Report, 'id' | 'text'> {
  id: string; text?: string; labels?: readonly boolean[]; meta?: Readonly<Record<string, string | number>>;
}
export interface ItemOptions {
  /** of each item, the true one included: 2 to 16, default 4 */
  options?: number;
  /**
   * How distractors are made, in turn; default ['random']. 'd1' to 'd18': labels differ on so many findings; 'nn_text': the closest text,
   * which needs `latents`; others change one fact of the true report.
   */
  strategies?: readonly ('random' | `d${number}` | 'nn_text' | Edit)[];
  /** default 0; the same seed gives the same items */
  seed?: number;
  /** default: one per report */
  items?: number;
  /** of the reports, in their order */
  latents?: ReportSet;
}
export type Edit =
  | 'presence' | 'negation' | 'laterality' | 'lobe' | 'size' | 'unit' | 'severity' | 'count' | 'omission' | 'insertion' | 'device';
/** As a line of the command's `build-items`. `label`: 1 for the true option, else 0. */
export interface Item {
  id: string; image: string; meta?: Readonly<Record<string, unknown>>;
  options: readonly {
    findings?: string; impression?: string; text?: string; label: 0 | 1; kind: string; src?: string; distance?: number;
    edits?: readonly Readonly<Record<string, unknown>>[]; meta?: Readonly<Record<string, unknown>>;
  }[];
  notMade?: readonly { kind: string; reason: string }[];
}
/** `leftOut`: reports that allow no item. */
export interface BuiltItems { readonly items: readonly Item[]; readonly leftOut: readonly { id: string; reason: string }[] }
/** A multiple-choice item: a score per option, higher is more alike. */
export interface Choice {
  id: string;
  /** whose scan it is: intervals resample patients */
  patient: string;
  /** position of the true option */
  truth: number;
  scores: readonly number[];
  /** how each option was made, and on how many labels it differs from the true one */
  kinds?: readonly string[]; distances?: readonly (number | null)[];
}
export interface EvaluateOptions {
  /** default: that of the loaded model */
  tieTolerance?: number;
  /** logarithm of the factor before the softmax over options; without one no calibration is measured */
  temperature?: number;
  /** resamples of patients, default 1000; and their seed */
  rounds?: number; seed?: number;
  /** outcomes of another run on the same items */
  compareWith?: Evaluation['outcomes'];
}
/** With its 95 % interval over patients, where there is more than one. */
export interface Estimate { value: number; low: number | null; high: number | null }
export interface PairAccuracy { kind: string; pairs: number; accuracy: Estimate; tiesFail: number }
/** Numbers as the command's `evaluate` writes them. */
export interface Evaluation {
  readonly summary: {
    items: number; patients: number; top1: Estimate; top1Shared: Estimate; recall: Readonly<Record<string, Estimate>>;
    mrr: Estimate; mrrTiesFail: number; meanRank: Estimate; meanRankTiesFail: number; margin: Estimate; auroc: Estimate | null;
    tiedItems: number; ece: number | null; brier: Estimate | null; byKind: readonly PairAccuracy[]; byDistance: readonly PairAccuracy[];
    chance: { top1: number; recall: Readonly<Record<string, number>>; mrr: number; meanRank: number }; positionInvariant: boolean;
  };
  readonly outcomes: readonly {
    id: string; truth: number; chosen: number; rank: number; ties: number; correct: boolean; credit: number; margin: number;
  }[];
  /** with `compareWith`: items right in both, one or neither run, and `p` of McNemar's exact test */
  readonly comparison: { both: number; thisOnly: number; otherOnly: number; neither: number; p: number } | null;
}
/** Two statements about a finding, for which {} stands. */
export interface PromptPair { present: string; absent: string }
export interface ZeroShotRow {
  finding: string; cosPresent: number; cosAbsent: number;
  /** exp(temperature) x (cosPresent - cosAbsent) */
  logit: number;
  /** softmax over both statements, the share of 'present'; no probability of disease, and no threshold is known */
  score: number;
}
/** `label`: the question means this one; without it the prompts were made from the words of the question. */
export interface ZeroShotAnswer extends ZeroShotRow { question: string; label?: string }
export interface ZeroShot {
  /** the 18 labels in the published order */
  readonly rows: readonly ZeroShotRow[];
  readonly answers: readonly ZeroShotAnswer[];
  /** outputs of the classifier of a fine-tuned model; `score` is the sigmoid */
  readonly classes?: readonly { finding: string; logit: number; score: number }[];
  readonly prompts: readonly PromptPair[]; readonly ensemble: 'normalized-mean'; readonly score: 'softmax-pair';
  readonly provenance: Provenance;
}
export interface ZeroShotOptions extends CallOptions {
  /** Yes/no questions in English, as 'Is there a lung nodule?'. Other than about the labels they need `capabilities.reports`. */
  ask?: Iterable<string>;
  /** instead of the published prompts, averaged; needs `capabilities.reports` */
  prompts?: readonly PromptPair[];
  /** for a volume, as in `encodeVolume` */
  accept?: readonly string[];
}
/**
 * What a score compares a volume with: a text, why it is closer than another (`against`), or a label or yes/no question as in
 * `zeroShot`. A text is a report as in `encodeReports`, or its latent: `reports.vectors.subarray(i * n, (i + 1) * n)`.
 */
export interface ScoreTarget { text?: string | Float32Array; against?: string | Float32Array; label?: string }
/**
 * What a map shows of each cube, in the unit of the score. 'share': its exact part of the score, which is their sum. 'tangent': how
 * it turns the latent toward the target; the sum is 0. 'leave-one-out': the fall of the score without its token. 'baseline': the
 * tangent map less that of a volume of air, for which the first such call encodes once more.
 */
export type MapVariant = 'share' | 'tangent' | 'leave-one-out' | 'baseline';
/** 'native': the voxels of the volume's file, 0 outside the model's view; 'token': one voxel per cube */
export type MapGrid = 'native' | 'token';
/** A cube of the model grid, whose token has this number. `value` is of the map, `leftOut` the exact fall of the score without it. */
export interface Cube {
  index: number; at: Triple; value: number; share: number; leftOut: number;
  /** where a volume is given: samples of the model grid along depth, height, width, first and last */
  model?: readonly (readonly [number, number])[];
  /** world, RAS+ */
  centerMm?: Triple;
  /** faces in canonical voxels, as of `VoxelBox`: low and high per axis */
  canonical?: readonly (readonly [number, number])[];
  /** first and last voxel along the axes of the file; null outside the volume */
  voxels?: readonly (readonly [number, number])[] | null;
}
/** `leftOut`: fall of the cosine when the text is encoded without the sentence; absent where no other is left */
export interface SentenceScore { text: string; cosine: number; leftOut?: number }
/**
 * Where a score comes from. A cube's token also carries information from its surroundings: this is not a location of disease, and a
 * page must say so.
 */
export interface HeatMap {
  variant: MapVariant; unit: 'cosine' | 'logit'; score: number;
  /** of `values` */
  sum: number;
  /** difference between the sum of the shares and the score, in cosine; above 1e-4 the call is BAD_RESULT */
  selfCheck: number;
  /** cubes along depth, height, width: the order of `values`. Depth runs toward S, height toward L, width toward P. */
  grid: Triple; values: Float32Array<ArrayBuffer>;
  /** sums along depth: height x width */
  plane: Float32Array<ArrayBuffer>;
  /** sums over each slab of cubes, from below, and its canonical slices where a volume is given */
  slabs: { value: number; slices?: readonly [number, number] }[];
  /** highest first */
  top: Cube[];
  /** of the cubes of `region` together */
  region?: { cubes: number; share: number; tangent: number; leftOut: number };
  /** what `label` was understood as */
  asked?: { question: string; finding: string; label: string | null };
  /** of `text`, and of `against` */
  sentences?: SentenceScore[][];
  provenance: Provenance;
}
export interface ExplainOptions extends ScoreTarget, CallOptions {
  /** default 'share' */
  variant?: MapVariant;
  /** default 10 */
  top?: number;
  /** numbers of cubes to score together */
  region?: Iterable<number>;
  /** default false: two encodes per sentence, of texts that are strings */
  sentences?: boolean;
  /** of an image latent: says where the cubes lie */
  volume?: Volume;
  /** for a volume, as in `encodeVolume` */
  accept?: readonly string[];
}
export interface OccludeOptions extends ScoreTarget, CallOptions {
  /** of the volume, where it is known */
  image?: ImageLatent;
  accept?: readonly string[];
}
export interface Occlusion {
  readonly score: number;
  /** by cube: the score without it, and by how much that is lower */
  readonly rows: readonly { index: number; score: number; fall: number }[];
  readonly provenance: Provenance;
}
/** A call for what is false here is MODEL_PURPOSE. */
export interface Capabilities { images: boolean; reports: boolean; zeroShot: boolean }
/** How close the device came to the known answers: relative distances, absent for a side that the model folder does not have. */
export interface SelfTest {
  /** image tokens with the known code, of all */
  codes?: readonly [number, number];
  tokens?: number;
  image?: number;
  text?: number;
  /** not measured in this session */
  earlier?: true;
}
/** `cosine`: the lower one of both latents with the known ones. */
export interface SelfTestResult extends SelfTest { passed: boolean; cosine: number }
/** `flops`: floating-point operations of one encode. `measuredMs`: what asking took. */
export interface TimeEstimate { encodeVolumeMs: number; flops: number; measuredMs: number }
export interface ModelInfo {
  id: string; revision: string; license: string; embeddingSpace: string; untrained: boolean; synthetic: boolean; tieTolerance: number;
  purpose: Purpose; capabilities: Capabilities;
}
export interface SessionInfo {
  /** on the CPU backend: its threads, and why there is only one */
  threads?: number; oneThread?: OneThread;
  backend?: Backend; variant?: string; adapter?: string; software?: boolean; gpuBytes: number; selfTest?: SelfTest;
  model?: ModelInfo;
  degraded: readonly string[];
  /** everything this session has requested */
  urls: readonly string[];
  encoded: { volumes: number; texts: number; textsFromCache: number };
}
export interface Session extends AsyncDisposable {
  readonly info: SessionInfo;
  /** resolves when a call finds the device lost or the module stopped; a new promise after the way back */
  readonly lost: Promise<{ reason: 'destroyed' | 'unknown' | 'wasm-abort'; message: string }>;
  /** The way back after DEVICE_LOST: a new device and the last model again; volumes, latents and report sets stay valid. */
  recover(o?: CallOptions): Promise<void>;
  loadModel(m: ModelRef, o?: CallOptions): Promise<void>;
  /**
   * The known answers now, whatever was asked for at the start. When it does not pass, or an error ends it, every later call is
   * SELF_TEST_FAILED until a model is loaded again.
   */
  selfTest(o?: CallOptions): Promise<SelfTestResult>;
  /**
   * How long `encodeVolume` would take here: a few depth slabs of the volume (else of air) are encoded, and the time goes up with the exact
   * count of operations. It costs about a fifth of an encode of the full-size model; shaders that are not compiled yet are left out.
   */
  estimate(v?: Volume, o?: { signal?: AbortSignal }): Promise<TimeEstimate>;
  readVolume(v: VolumeSource, o?: ReadOptions): Promise<Volume>;
  /** Reads report files of any supported format; `text` is what the model will be given. */
  parseReports(source: Blob | string, o?: CallOptions & { format?: ReportFormat }): Promise<Report[]>;
  /** What may identify a person in each text, by rules that miss names: a person must review the texts. */
  textHints(texts: Iterable<string>): Promise<Hint[][]>;
  /** The sentences to show beside `count` identifiers, and always about the voxels. */
  privacyNotices(count: number): Promise<PrivacyNotices>;
  /** NEEDS_CONFIRMATION unless every 'ask' finding, and E_NOT_HU, is in `accept`; other 'refuse' cannot be */
  encodeVolume(v: Volume, o?: CallOptions & { accept?: readonly string[] }): Promise<ImageLatent>;
  /** A text is encoded once per loaded model, however often it is given. */
  encodeReports(r: Iterable<string | Report> | Blob, o?: ReportOptions): Promise<ReportSet>;
  /** Reads a store, or makes an empty one for the loaded model (default precision 'f16'). */
  openStore(file?: Blob, o?: { precision?: 'f16' | 'int8'; signal?: AbortSignal }): Promise<Store>;
  /** Metrics of multiple-choice items, as the command's `evaluate` gives them. */
  evaluate(choices: readonly Choice[], o?: EvaluateOptions): Promise<Evaluation>;
  /** Zero-shot metrics of scores against labels. */
  evaluateLabels(rows: readonly Labelled[], o?: LabelOptions): Promise<LabelEvaluation>;
  /** A comma-separated table of labels with a column `VolumeName` or `id`, as CT-RATE has. */
  parseLabels(source: Blob | string): Promise<LabelTable>;
  /** Multiple-choice items from reports, as the command's `build-items` makes them; never the words or the patient of another option. */
  buildItems(reports: readonly ItemSource[], o?: ItemOptions): Promise<BuiltItems>;
  rank(v: ImageLatent, r: ReportSet, o?: { topK?: number; signal?: AbortSignal }): Promise<Ranking>;
  /** Compares an image with "X is present." and "X is not present." for every label and question. */
  zeroShot(v: Volume | ImageLatent, o?: ZeroShotOptions): Promise<ZeroShot>;
  /** Takes a score apart by cubes, exactly and without a second encode. */
  explain(of: Volume | ImageLatent, o: ExplainOptions): Promise<HeatMap>;
  /** Fills each of these cubes with air in turn and encodes again, one encode per cube: the slow check of a map. */
  occlude(v: Volume, cubes: Iterable<number>, o: OccludeOptions): Promise<Occlusion>;
  /** Removes all cached files of this origin, of other sessions too; a loaded model stays usable. */
  clearCache(): Promise<void>;
  /** text to paste into a bug report; no file name, header or report text */
  diagnostics(): Promise<string>;
  close(): Promise<void>;
}
