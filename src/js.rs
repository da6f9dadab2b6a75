//! The browser's face of the crate: converts, calls [`Session`], converts back. No arithmetic, no decisions.
//!
//! `pkg/core.js` is its only user; the typed API for applications is `pkg/index.d.ts`.

use crate::device::Backend;
use crate::device::Device;
use crate::error::Error;
use crate::kernel;
use crate::rank::Latent;
use crate::rank::build::Plan;
use crate::rank::build::Source;
use crate::rank::build::Strategy;
use crate::rank::build::build;
use crate::rank::evaluate::Choice;
use crate::rank::evaluate::Outcome;
use crate::rank::evaluate::compare;
use crate::rank::evaluate::evaluate;
use crate::rank::explain;
use crate::rank::explain::Variant;
use crate::rank::items::volume_name;
use crate::rank::labelled::label_metrics;
use crate::rank::retrieval;
use crate::rank::store::Kind;
use crate::rank::store::Store;
use crate::rank::zero_shot::question::Question;
use crate::session::ExplainOptions;
use crate::session::ImageEncoding;
use crate::session::Progress;
use crate::session::Session;
use crate::session::SessionBuilder;
use crate::text::keywords::LABELS;
use crate::text::labels;
use crate::text::labels::LabelSet;
use crate::text::reports;
use crate::volume;
use crate::volume::Finding;
use crate::volume::Lang;
use crate::volume::Limits;
use crate::volume::MapGrid;
use crate::volume::OrientationMode;
use crate::volume::Plane;
use crate::volume::Preprocessor;
use crate::volume::ReadOptions;
use crate::volume::ScalingSource;
use crate::volume::Sidecar;
use crate::volume::clean;
use crate::volume::privacy;
use crate::volume::privacy::Identifier;
use crate::weights;
use crate::weights::recipe::PromptPair;
use gloo::timers::future::TimeoutFuture;
use js_sys::Float32Array;
use js_sys::Int16Array;
use js_sys::Reflect;
use js_sys::Uint8Array;
use js_sys::Uint16Array;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use std::cell::RefCell;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;

type JsResult<T> = Result<T, JsValue>;

/// Milliseconds of work after which a step lets the event loop run, so that an abort can arrive.
const YIELD_AFTER_MS: f64 = 8.0;

/// The same within a step, of which a full-size model has hundreds of parts: a browser's timer takes 4 ms.
const PART_YIELDS_AFTER_MS: f64 = 100.0;

#[wasm_bindgen(start)]
fn start() {
    console_error_panic_hook::set_once();
    // Fails only when there is a logger already, from an earlier start of the same module.
    let _ = log::set_logger(&CONSOLE);
    log::set_max_level(log::LevelFilter::Warn);
}

/// Warnings of the libraries below go to the console: the only trace of a shader that the browser refused (K-8). This crate
/// logs nothing itself.
struct Console;

static CONSOLE: Console = Console;

impl log::Log for Console {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            web_sys::console::warn_1(&format!("{}: {}", record.target(), record.args()).into());
        }
    }

    fn flush(&self) {}
}

/// Version of the package.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// The memory of all threads.
#[cfg(feature = "threads")]
#[wasm_bindgen(js_name = sharedMemory)]
pub fn shared_memory() -> JsValue {
    wasm_bindgen::memory()
}

/// Makes the calling thread and the workers that wait in `work`, one less than `threads`, compute together.
#[cfg(feature = "threads")]
#[wasm_bindgen(js_name = startThreads)]
pub fn start_threads(threads: usize) -> JsResult<()> {
    crate::kernel::pool::start(threads).map_err(thrown)
}

/// What a worker does for the rest of its life: it never returns.
#[cfg(feature = "threads")]
#[wasm_bindgen]
pub fn work() {
    crate::kernel::pool::work();
}

/// An `Error` with `code`, `retryable`, `detail`, and for loader codes the Chinese sentence as `zh`.
fn thrown(error: Error) -> JsValue {
    let js = js_sys::Error::new(&error.to_string());
    let set = |name: &str, value: &JsValue| {
        // Setting a property of a fresh Error cannot fail.
        let _ = Reflect::set(&js, &name.into(), value);
    };
    set("code", &error.code().into());
    set("retryable", &error.is_retryable().into());
    let detail = match &error {
        Error::NeedsConfirmation { codes } => json!({ "codes": codes }),
        Error::Purpose { purpose, .. } => json!({ "purpose": purpose }),
        Error::DeviceLimit { limit, needed, found } => json!({ "limit": limit, "needed": needed, "found": found }),
        Error::NoWebGpu(_) => json!({ "reason": "no-adapter" }),
        Error::SoftwareAdapter(adapter) => json!({ "adapter": adapter }),
        Error::DeviceLost { destroyed, .. } => json!({ "reason": if *destroyed { "destroyed" } else { "unknown" } }),
        _ => Finding::from_error(&error).map_or_else(|| json!({}), |finding| json!(finding.params)),
    };
    set("detail", &plain(&detail));
    js.into()
}

/// A plain JavaScript value of the same shape.
///
/// Through JSON text: serde-wasm-bindgen makes `Map`s and refuses integers beyond 2⁵³.
fn plain(value: &impl Serialize) -> JsValue {
    let text = serde_json::to_string(value).expect("our own plain types serialize");
    js_sys::JSON::parse(&text).expect("serde_json writes JSON")
}

/// `ReadOptions` of the package (WEB_PACKAGE.md 5).
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct JsReadOptions {
    frame: Option<usize>,
    orientation: Option<JsOrientation>,
    scaling: Option<JsScaling>,
    sidecar: Option<JsSidecar>,
    reference_exact: Option<bool>,
    /// of a `File`
    file_name: Option<String>,
    /// text of the `.json` that a converter wrote beside the file
    metadata_json: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum JsOrientation {
    Auto,
    OtherForm,
    AssumeLps,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsScaling {
    Named(JsScalingName),
    Explicit { slope: f64, intercept: f64 },
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum JsScalingName {
    Auto,
    AlreadyHu,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsSidecar {
    rescale_slope: f64,
    rescale_intercept: f64,
    xy_spacing: Vec<f64>,
    z_spacing: f64,
}

/// How to read, and what to do with what was read.
#[derive(Default)]
struct Reading {
    options: ReadOptions,
    after: AfterReading,
}

#[derive(Default)]
struct AfterReading {
    scaling: Option<[f64; 2]>,
    /// searched for identifiers like the file itself, and shown nowhere
    file_name: Option<String>,
    /// as `file_name`
    metadata_json: Option<String>,
}

fn parse_reading(options: JsValue) -> JsResult<Reading> {
    if options.is_undefined() || options.is_null() {
        return Ok(Reading::default());
    }
    let js: JsReadOptions = parse(options)?;
    let reference_exact = js.reference_exact.unwrap_or(false);
    let orientation = match js.orientation {
        _ if reference_exact => OrientationMode::AsStored,
        None | Some(JsOrientation::Auto) => OrientationMode::Auto,
        Some(JsOrientation::OtherForm) => OrientationMode::OtherForm,
        Some(JsOrientation::AssumeLps) => OrientationMode::AssumeLps,
    };
    let sidecar = js.sidecar.map(|s| Sidecar {
        slope: s.rescale_slope,
        intercept: s.rescale_intercept,
        xy_spacing: s.xy_spacing,
        z_spacing: s.z_spacing,
    });
    let already_hu = matches!(js.scaling, Some(JsScaling::Named(JsScalingName::AlreadyHu)));
    let explicit = match js.scaling {
        Some(JsScaling::Explicit { slope, intercept }) => Some([slope, intercept]),
        _ => None,
    };
    // Values that the user declares to be HU, or scales by hand, are not asked about because of a table; its spacing holds.
    let given = (already_hu || explicit.is_some()) && !reference_exact;
    let scaling = if given { ScalingSource::Given } else { ScalingSource::Header };
    let named_gz = js.file_name.as_ref().map(|name| name.to_ascii_lowercase().ends_with(".gz"));
    let options = ReadOptions { frame: js.frame, orientation, scaling, sidecar, named_gz, ..ReadOptions::default() };
    let after = AfterReading { scaling: explicit, file_name: js.file_name, metadata_json: js.metadata_json };
    Ok(Reading { options, after })
}

/// A value of one of our types; the message names what does not fit.
fn parse<T: serde::de::DeserializeOwned>(value: JsValue) -> JsResult<T> {
    serde_wasm_bindgen::from_value(value).map_err(|e| thrown(Error::InvalidArgument(e.to_string())))
}

/// One of the names of an enum.
fn parse_name<T: serde::de::DeserializeOwned>(name: &str) -> JsResult<T> {
    serde_json::from_value(json!(name)).map_err(|e| thrown(Error::InvalidArgument(e.to_string())))
}

fn object(fields: &[(&str, JsValue)]) -> JsValue {
    let object = js_sys::Object::new();
    for (name, value) in fields {
        // Setting a property of a fresh object cannot fail.
        let _ = Reflect::set(&object, &(*name).into(), value);
    }
    object.into()
}

/// Bytes that stay with JavaScript until they are read.
struct Outside {
    bytes: Uint8Array,
    at: u64,
}

impl Read for Outside {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = u64::from(self.bytes.length());
        let end = self.at.saturating_add(into.len() as u64).min(len);
        let start = self.at.min(end);
        let read = (end - start) as usize;
        // Both are below the length, which has 32 bits.
        self.bytes.subarray(start as u32, end as u32).copy_to(&mut into[..read]);
        self.at = end;
        Ok(read)
    }
}

impl Seek for Outside {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let from = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => u64::from(self.bytes.length()).checked_add_signed(by),
        };
        self.at = from.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[wasm_bindgen]
extern "C" {
    /// What a long call reports to and asks.
    pub type Control;
    #[wasm_bindgen(method)]
    fn progress(this: &Control, phase: &str, done: u32, total: u32);
    #[wasm_bindgen(method)]
    fn aborted(this: &Control) -> bool;
    /// A promise where the GPU has enough to do.
    #[wasm_bindgen(method)]
    fn wait(this: &Control) -> Option<js_sys::Promise>;
    /// Floating-point operations for one submission.
    #[wasm_bindgen(method)]
    fn limit(this: &Control) -> f64;
}

/// Floating-point operations that this thread has started.
#[wasm_bindgen]
pub fn flops() -> f64 {
    kernel::flops() as f64
}

/// A `pace` for session calls: reports, waits for the GPU, lets the event loop run now and then, and stops when asked.
fn pace(control: &Control) -> impl AsyncFnMut(Progress) -> crate::error::Result<()> + '_ {
    let mut last_ms = js_sys::Date::now();
    let mut last = None;
    async move |progress: Progress| {
        let after_ms = if last == Some(progress) { PART_YIELDS_AFTER_MS } else { YIELD_AFTER_MS };
        if last.replace(progress) != Some(progress) {
            control.progress(progress.phase.name(), progress.done as u32, progress.total as u32);
        }
        if let Some(done) = control.wait() {
            // A queue that fails is found at the read-back.
            let _ = JsFuture::from(done).await;
            last_ms = js_sys::Date::now();
        } else if js_sys::Date::now() - last_ms > after_ms {
            TimeoutFuture::new(0).await;
            last_ms = js_sys::Date::now();
        }
        // Another session of this thread may have set its own meanwhile.
        kernel::limit_submissions(control.limit() as u64);
        if control.aborted() { Err(Error::Aborted) } else { Ok(()) }
    }
}

/// A volume that was read.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Volume {
    volume: volume::Volume,
    findings: Vec<Finding>,
    identifiers: Vec<Identifier>,
}

impl Volume {
    fn new(mut volume: volume::Volume, after: &AfterReading) -> JsResult<Self> {
        if let Some([slope, intercept]) = after.scaling {
            volume.rescale(slope, intercept).map_err(thrown)?;
        }
        let findings = volume.findings().iter().cloned().chain(volume::assess(&volume).findings).collect();
        let mut identifiers = privacy::identifiers(&volume, after.file_name.as_deref());
        if let Some(text) = &after.metadata_json {
            identifiers.extend(privacy::identifiers_in_sidecar(text.as_bytes()));
        }
        Ok(Self { volume, findings, identifiers })
    }
}

#[wasm_bindgen]
impl Volume {
    /// Geometry, intensity and findings, as a plain object.
    pub fn info(&self) -> JsValue {
        let v = &self.volume;
        let voxels = v.stored_voxels();
        let low = voxels.iter().min().copied().unwrap_or(0);
        let high = voxels.iter().max().copied().unwrap_or(0);
        let findings: Vec<_> =
            self.findings.iter().map(|f| json!({ "code": f.code, "action": f.action, "params": f.params })).collect();
        let mut facts = json!({
            "dims": v.dims(), "spacingMm": v.spacing_mm(), "orientation": v.orientation().code(),
            "orientationKnown": v.orientation_known(), "datatype": v.source().datatype, "findings": findings,
            "huRange": [low, high], "voxelBytes": 2 * voxels.len(), "identifiers": self.identifiers, "affine": v.canonical_affine(),
        });
        if let Some(scaling) = v.source().header_scaling {
            facts["headerScaling"] = json!(scaling);
        }
        plain(&facts)
    }

    /// The texts behind the masked identifiers, in the same order: for the user who asks to see them.
    pub fn reveal(&self) -> Vec<String> {
        self.identifiers.iter().map(|identifier| identifier.reveal().to_owned()).collect()
    }

    /// A slice in display order, or the highest values of a slab around it.
    pub fn slice(&self, plane: &str, index: usize, slab_mm: f64) -> JsResult<JsValue> {
        let slice = volume::slab(&self.volume, parse_plane(plane)?, index, slab_mm).map_err(thrown)?;
        Ok(slice_object(&slice))
    }

    /// As in stores and in the command's records.
    #[wasm_bindgen(js_name = voxelSha256)]
    pub fn voxel_sha256(&self) -> String {
        self.volume.sha256()
    }
}

fn parse_plane(plane: &str) -> JsResult<Plane> {
    match plane {
        "axial" => Ok(Plane::Axial),
        "coronal" => Ok(Plane::Coronal),
        "sagittal" => Ok(Plane::Sagittal),
        _ => Err(thrown(Error::InvalidArgument("the plane should be axial, coronal or sagittal".into()))),
    }
}

fn slice_object(slice: &volume::Slice) -> JsValue {
    object(&[
        ("hu", Int16Array::from(slice.hu.as_slice()).into()),
        ("width", (slice.width as u32).into()),
        ("height", (slice.height as u32).into()),
        ("spacingMm", plain(&slice.spacing_mm)),
        ("positionMm", slice.position_mm.into()),
        ("slices", (slice.slices as u32).into()),
    ])
}

/// Takes the bytes of a file in pieces.
#[wasm_bindgen]
pub struct VolumeReader {
    reader: volume::Reader,
    after: AfterReading,
}

#[wasm_bindgen]
impl VolumeReader {
    /// Starts reading.
    #[wasm_bindgen(constructor)]
    pub fn new(options: JsValue) -> JsResult<VolumeReader> {
        let Reading { options, after } = parse_reading(options)?;
        Ok(Self { reader: volume::Reader::new(options), after })
    }

    /// Starts reading what the browser unpacks of a gzip file; `first` are the first bytes of the file itself.
    #[wasm_bindgen(js_name = forUnpacked)]
    pub fn for_unpacked(first: &[u8], options: JsValue) -> JsResult<VolumeReader> {
        let Reading { options, after } = parse_reading(options)?;
        Ok(Self { reader: volume::Reader::for_unpacked(first, options), after })
    }

    /// Takes the next bytes.
    pub fn push(&mut self, chunk: &[u8]) -> JsResult<()> {
        self.reader.push(chunk).map_err(thrown)
    }

    /// The volume, once all bytes are in; the reader is used up.
    pub fn finish(self) -> JsResult<Volume> {
        Volume::new(self.reader.finish().map_err(thrown)?, &self.after)
    }
}

/// Voxels of a program: how many, how large, and where their axes run to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsVoxels {
    dims: [usize; 3],
    spacing_mm: [f64; 3],
    orientation: String,
}

/// The header of a `.nii` file of such voxels.
#[wasm_bindgen(js_name = voxelHeader)]
pub fn voxel_header(voxels: JsValue) -> JsResult<Vec<u8>> {
    let JsVoxels { dims, spacing_mm, orientation } = parse(voxels)?;
    volume::voxel_header(dims, spacing_mm, &orientation).map_err(thrown)
}

/// Reads the two halves of a pair.
#[wasm_bindgen(js_name = readPair)]
pub fn read_pair(header: &[u8], image: &[u8], options: JsValue) -> JsResult<Volume> {
    let Reading { options, after } = parse_reading(options)?;
    Volume::new(volume::read_pair(header, image, &options).map_err(thrown)?, &after)
}

/// Makes the clean copy of a file that comes in pieces; the pieces of the copy come back at once.
#[wasm_bindgen]
pub struct Cleaner {
    cleaner: clean::Cleaner,
}

#[wasm_bindgen]
impl Cleaner {
    /// For one file; with `header`, for the image half of a pair.
    #[wasm_bindgen(constructor)]
    pub fn new(header: Option<Vec<u8>>) -> JsResult<Cleaner> {
        let cleaner = match header {
            None => clean::Cleaner::new(Limits::default()),
            Some(header) => clean::Cleaner::for_pair(&header, Limits::default()).map_err(thrown)?,
        };
        Ok(Self { cleaner })
    }

    /// Takes the next bytes of the file; returns what is ready of the copy.
    pub fn push(&mut self, chunk: &[u8]) -> JsResult<Vec<u8>> {
        let mut out = Vec::new();
        self.cleaner.push(chunk, &mut out).map_err(thrown)?;
        Ok(out)
    }

    /// The end of the copy; the cleaner is used up.
    pub fn finish(self) -> JsResult<Vec<u8>> {
        let mut out = Vec::new();
        self.cleaner.finish(&mut out).map_err(thrown)?;
        Ok(out)
    }
}

/// What may identify a person in a report: rules and masked texts.
#[wasm_bindgen(js_name = textHints)]
pub fn text_hints(report_text: &str) -> JsValue {
    plain(&privacy::text_hints(report_text))
}

/// The sentences about a number of identifiers: `{ summary, voxels }`, each `{ en, zh }`.
#[wasm_bindgen(js_name = privacyNotices)]
pub fn privacy_notices(count: usize) -> JsValue {
    let both = |text: &dyn Fn(Lang) -> String| json!({ "en": text(Lang::En), "zh": text(Lang::Zh) });
    plain(&json!({
        "summary": both(&|lang| privacy::summary(count, lang)),
        "voxels": both(&|lang| privacy::notice("voxels", count, lang)),
    }))
}

/// Reports of a file or paste box, as plain objects.
#[wasm_bindgen(js_name = parseReports)]
pub fn parse_reports(bytes: &[u8], format: &str) -> JsResult<JsValue> {
    let format = parse_name(format)?;
    reports::parse_reports(bytes, format).map(|parsed| plain(&parsed)).map_err(thrown)
}

/// The text of a report as the model reads it.
#[wasm_bindgen(js_name = reportText)]
pub fn report_text(report: JsValue, view: &str, meta: Option<String>, position: Option<usize>) -> JsResult<String> {
    let report: reports::Report = parse(report)?;
    let view = parse_name(view)?;
    report.view_text(view, meta.as_deref(), position.unwrap_or(1)).map_err(thrown)
}

/// Metrics of multiple-choice items: `{ summary, outcomes, comparison }`, the last where outcomes of another run are given.
#[wasm_bindgen(js_name = evaluateChoices)]
pub fn evaluate_choices(choices: JsValue, options: JsValue, other: JsValue) -> JsResult<JsValue> {
    let choices: Vec<Choice> = parse(choices)?;
    let (summary, outcomes) = evaluate(&choices, &parse(options)?).map_err(thrown)?;
    let other: Option<Vec<Outcome>> = parse(other)?;
    let comparison = other.map(|other| compare(&outcomes, &other)).transpose().map_err(thrown)?;
    Ok(plain(&json!({ "summary": summary, "outcomes": outcomes, "comparison": comparison })))
}

/// A table of labels, as a plain object.
#[wasm_bindgen(js_name = parseLabels)]
pub fn parse_labels(bytes: &[u8]) -> JsResult<JsValue> {
    let table = labels::parse_labels(bytes).map_err(thrown)?;
    Ok(plain(&json!({ "set": table.set, "names": table.set.names(), "rows": table.rows })))
}

/// A volume with scores of the 18 findings, and its labels.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsLabelled {
    patient: String,
    scores: [f64; LABELS.len()],
    labels: Vec<bool>,
}

/// Options of [`evaluate_labels`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsLabelOptions {
    set: LabelSet,
    rounds: usize,
    seed: u64,
}

/// Zero-shot metrics.
#[wasm_bindgen(js_name = evaluateLabels)]
pub fn evaluate_labels(rows: JsValue, options: JsValue) -> JsResult<JsValue> {
    let (rows, JsLabelOptions { set, rounds, seed }) = (parse::<Vec<JsLabelled>>(rows)?, parse(options)?);
    let scores: Vec<Vec<f64>> = rows.iter().map(|row| set.scores(&row.scores)).collect();
    let patients: Vec<&str> = rows.iter().map(|row| row.patient.as_str()).collect();
    let labels: Vec<Vec<bool>> = rows.iter().map(|row| row.labels.clone()).collect();
    let summary = label_metrics(&set.names(), &scores, &labels, &patients, rounds, seed).map_err(thrown)?;
    Ok(plain(&summary))
}

/// A report to build items from.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsSource {
    id: String,
    report: reports::Report,
    labels: Option<Vec<bool>>,
    #[serde(default)]
    meta: serde_json::Map<String, serde_json::Value>,
}

/// Options of [`build_items`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsPlan {
    options: usize,
    strategies: Vec<String>,
    seed: u64,
    items: Option<usize>,
}

/// Multiple-choice items from reports; `vectors` are the reports' latents, row after row.
#[wasm_bindgen(js_name = buildItems)]
pub fn build_items(sources: JsValue, plan: JsValue, vectors: Option<Vec<f32>>) -> JsResult<JsValue> {
    let (sources, JsPlan { options, strategies, seed, items }) = (parse::<Vec<JsSource>>(sources)?, parse(plan)?);
    let vectors = vectors.unwrap_or_default();
    let length = vectors.len() / sources.len().max(1);
    if length * sources.len() != vectors.len() {
        return Err(thrown(Error::InvalidArgument("there should be a latent for every report".into())));
    }
    let source = |(at, source): (usize, JsSource)| -> crate::error::Result<Source> {
        let own = &vectors[at * length..(at + 1) * length];
        let latent = if length > 0 { Some(Latent::new(own.to_vec())?) } else { None };
        let JsSource { id, report, labels, meta } = source;
        Ok(Source { id: volume_name(&id).into(), report, labels, latent, meta })
    };
    let sources = sources.into_iter().enumerate().map(source).collect::<Result<Vec<_>, _>>().map_err(thrown)?;
    let strategies = strategies.iter().map(|name| Strategy::parse(name)).collect::<Result<_, _>>().map_err(thrown)?;
    let built = build(&sources, &Plan { options, strategies, seed, items }).map_err(thrown)?;
    let left_out: Vec<_> = built.left_out.iter().map(|(id, reason)| json!({ "id": id, "reason": reason })).collect();
    Ok(plain(&json!({ "items": built.items, "leftOut": left_out })))
}

/// A volume's labels.
#[derive(Deserialize)]
struct JsLabels {
    id: String,
    labels: Vec<bool>,
}

/// Latents under names.
#[wasm_bindgen]
#[derive(Debug)]
pub struct LatentStore {
    store: Store,
}

#[wasm_bindgen]
impl LatentStore {
    /// Reads a file.
    pub fn read(bytes: &[u8]) -> JsResult<LatentStore> {
        Ok(Self { store: Store::from_bytes(bytes).map_err(thrown)? })
    }

    /// Model, precision, view, and the entries of both sides, as a plain object.
    pub fn info(&self) -> JsValue {
        let store = &self.store;
        let mut facts = json!({
            "model": store.model(), "precision": store.precision(),
            "volumes": store.entries(Kind::Volume), "reports": store.entries(Kind::Report),
        });
        if let Some(view) = store.view() {
            facts["view"] = json!(view);
        }
        plain(&facts)
    }

    /// Adds a volume; `entry` is `{ id, sha256 }`.
    #[wasm_bindgen(js_name = addVolume)]
    pub fn add_volume(&mut self, entry: JsValue, vector: Vec<f32>) -> JsResult<()> {
        let latent = Latent::new(vector).map_err(thrown)?;
        self.store.add_volume(parse(entry)?, &latent).map_err(thrown)
    }

    /// Adds a report that was encoded in a view; `entry` is `{ id, sha256 }`.
    #[wasm_bindgen(js_name = addReport)]
    pub fn add_report(&mut self, entry: JsValue, vector: Vec<f32>, view: &str) -> JsResult<()> {
        let latent = Latent::new(vector).map_err(thrown)?;
        self.store.add_report(parse(entry)?, &latent, view).map_err(thrown)
    }

    /// The closest of a kind to a query of another or the same kind; kinds are `volume` and `report`.
    pub fn search(&self, query: Vec<f32>, of: &str, find: &str, hubness: &str, k: usize) -> JsResult<JsValue> {
        let query = Latent::new(query).map_err(thrown)?;
        let (of, find) = (parse_name(of)?, parse_name(find)?);
        let hits = self.store.search(&query, of, find, parse_name(hubness)?, k).map_err(thrown)?;
        Ok(plain(&hits))
    }

    /// Retrieval metrics over volumes and reports of the same id; `labels` is a list of `{ id, labels }`.
    pub fn evaluate(&self, labels: JsValue, options: JsValue) -> JsResult<JsValue> {
        let labels: Option<Vec<JsLabels>> = parse(labels)?;
        let labels =
            labels.map(|rows| rows.into_iter().map(|row| (volume_name(&row.id).to_owned(), row.labels)).collect());
        let found = retrieval::evaluate::evaluate(&self.store, labels.as_ref(), &parse(options)?).map_err(thrown)?;
        Ok(plain(&found))
    }

    /// The file.
    #[wasm_bindgen(js_name = toBytes)]
    pub fn to_bytes(&self) -> JsResult<Vec<u8>> {
        self.store.to_bytes().map_err(thrown)
    }
}

/// Options of [`Engine::open`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EngineOptions {
    backend: String,
    #[serde(default)]
    allow_software_adapter: bool,
    /// what `GPUAdapterInfo` says
    adapter_name: Option<String>,
}

/// What a score compares a volume with.
#[wasm_bindgen]
pub struct Target {
    target: explain::Target,
    asked: Option<Question>,
}

#[wasm_bindgen]
impl Target {
    /// A latent, or why a volume is closer to it than to another.
    #[wasm_bindgen(constructor)]
    pub fn new(text: Vec<f32>, against: Option<Vec<f32>>) -> JsResult<Target> {
        let text = Latent::new(text).map_err(thrown)?;
        let target = match against {
            None => explain::Target::text(&text),
            Some(other) => explain::Target::against(&text, &Latent::new(other).map_err(thrown)?).map_err(thrown)?,
        };
        Ok(Self { target, asked: None })
    }

    /// What a question was understood as: `{ question, finding, label }`.
    pub fn asked(&self) -> JsValue {
        match &self.asked {
            None => JsValue::UNDEFINED,
            Some(Question { question, finding, label }) => {
                plain(&json!({ "question": question, "finding": finding, "label": label }))
            }
        }
    }
}

/// Options of [`Engine::explain`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsExplain {
    variant: Variant,
    top: usize,
    region: Vec<usize>,
}

/// A device, and later a model on it.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Engine {
    device: Device,
    builder: Option<SessionBuilder>,
    session: Option<Session>,
    /// why the device serves no more
    refused: RefCell<Option<Error>>,
}

#[wasm_bindgen]
impl Engine {
    /// Opens a device: `webgpu` or `cpu`.
    pub async fn open(options: JsValue) -> JsResult<Engine> {
        let options: EngineOptions = parse(options)?;
        let device = match options.backend.as_str() {
            "cpu" => Device::cpu(),
            "webgpu" => {
                Device::gpu(options.allow_software_adapter, options.adapter_name.as_deref()).await.map_err(thrown)?
            }
            _ => return Err(thrown(Error::InvalidArgument("the backend should be webgpu or cpu".into()))),
        };
        Ok(Self { device, builder: None, session: None, refused: RefCell::default() })
    }

    /// What was opened, as a plain object.
    pub fn info(&self) -> JsValue {
        let info = self.device.info();
        let limits = match info.backend {
            Backend::Cpu => json!({}),
            Backend::WebGpu => json!({
                "maxBufferSize": info.max_buffer_bytes, "maxStorageBufferBindingSize": info.max_binding_bytes,
            }),
        };
        plain(&json!({
            "backend": info.backend.name(), "adapter": info.adapter, "vendor": info.vendor, "software": info.software,
            "limits": limits, "features": { "f16": info.shader_f16 },
        }))
    }

    /// Prepares to load a variant; returns the files to bring.
    #[wasm_bindgen(js_name = beginModel)]
    pub fn begin_model(&mut self, manifest_json: &str, variant: &str) -> JsResult<JsValue> {
        let builder = SessionBuilder::new(manifest_json, variant, &self.device).map_err(thrown)?;
        let files = plain(&builder.files().collect::<Vec<_>>());
        self.builder = Some(builder);
        Ok(files)
    }

    /// A hash of all that decides what the known answers are and who computes them; `rest` is what this side cannot tell.
    #[wasm_bindgen(js_name = testKey)]
    pub fn test_key(&self, rest: &str) -> JsResult<String> {
        let builder = self.builder.as_ref().ok_or_else(|| thrown(Error::NoModel))?;
        let (info, package, variant) = (self.device.info(), env!("CARGO_PKG_VERSION"), builder.variant());
        let device = (info.backend.name(), &info.vendor, &info.adapter, info.shader_f16);
        Ok(weights::sha256_hex(json!([package, device, variant, rest]).to_string().as_bytes()))
    }

    /// Checks a file and takes it in, tensor by tensor: the module's memory never holds a whole shard. `sha256` as WebCrypto computed it,
    /// which has the processor's instructions for it; empty where there is none, then it is computed here.
    #[wasm_bindgen(js_name = addFile)]
    pub fn add_file(&mut self, path: &str, bytes: Uint8Array, sha256: &str) -> JsResult<()> {
        let builder = self.builder.as_mut().ok_or_else(|| thrown(Error::NoModel))?;
        let file = &mut Outside { bytes, at: 0 };
        match sha256 {
            "" => builder.add_file(path, file),
            found => builder.add_hashed_file(path, file, found),
        }
        .map_err(thrown)
    }

    /// Makes the model ready once all files are in and, if asked, the device gives the known answers; a model that was loaded before
    /// is replaced only now.
    #[wasm_bindgen(js_name = finishModel)]
    pub async fn finish_model(&mut self, self_test: bool, control: Control) -> JsResult<JsValue> {
        let builder = self.builder.take().ok_or_else(|| thrown(Error::NoModel))?;
        let session = builder.finish().await.map_err(thrown)?;
        let tested = if self_test { Some(session.self_test(pace(&control)).await.map_err(thrown)?) } else { None };
        let (manifest, (name, variant)) = (session.manifest(), session.variant());
        let described = plain(&json!({
            "info": {
                "id": manifest.id, "revision": manifest.revision, "license": manifest.license,
                "embeddingSpace": manifest.embedding_space, "untrained": manifest.untrained, "synthetic": manifest.synthetic,
                "tieTolerance": variant.tie_tolerance, "purpose": manifest.purpose,
                "capabilities": session.capabilities(),
            },
            "provenance": session.provenance(), "selfTest": tested, "variant": name, "gpuBytes": variant.gpu_bytes,
            "dimLatent": manifest.dim_latent, "preprocess": manifest.preprocess,
        }));
        self.session = Some(session);
        Ok(described)
    }

    /// Compares the device with the known answers once more: the distances, `passed` and `cosine`. A device that does not pass serves
    /// no more.
    #[wasm_bindgen(js_name = selfTest)]
    pub async fn self_test(&self, control: Control) -> JsResult<JsValue> {
        let found = self.session()?.compare(pace(&control)).await;
        let failed = match &found {
            Ok(test) => (!test.passed()).then(|| format!("{test:?}")),
            Err(Error::Aborted | Error::DeviceLost { .. }) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failed {
            self.refused.replace(Some(Error::SelfTest(why)));
        }
        let test = found.map_err(thrown)?;
        let mut result = json!(test);
        result["passed"] = test.passed().into();
        result["cosine"] = test.cosine().into();
        Ok(plain(&result))
    }

    /// How long an encode of a volume would take.
    #[wasm_bindgen(js_name = estimateFor)]
    pub async fn estimate_for(&self, volume: &Volume, control: Control) -> JsResult<JsValue> {
        let found = self.session()?.estimate(Some(&volume.volume), js_sys::Date::now, pace(&control)).await;
        found.map(|found| plain(&found)).map_err(thrown)
    }

    /// The same of air.
    pub async fn estimate(&self, control: Control) -> JsResult<JsValue> {
        let found = self.session()?.estimate(None, js_sys::Date::now, pace(&control)).await;
        found.map(|found| plain(&found)).map_err(thrown)
    }

    fn session(&self) -> JsResult<&Session> {
        if let Some(error) = &*self.refused.borrow() {
            return Err(thrown(error.clone()));
        }
        self.session.as_ref().ok_or_else(|| thrown(Error::NoModel))
    }

    fn preprocessor<'v>(&self, volume: &'v Volume) -> JsResult<Preprocessor<'v>> {
        Preprocessor::new(&volume.volume, &self.session()?.manifest().preprocess).map_err(thrown)
    }

    /// The same of what the model sees.
    #[wasm_bindgen(js_name = modelSlice)]
    pub fn model_slice(&self, volume: &Volume, plane: &str, index: usize, slab_mm: f64) -> JsResult<JsValue> {
        let plane = parse_plane(plane)?;
        let slice = volume::model_slab(&self.preprocessor(volume)?, plane, index, slab_mm).map_err(thrown)?;
        Ok(slice_object(&slice))
    }

    /// The model's field of view in canonical voxel coordinates along L, P, S: `{ min, max }`.
    #[wasm_bindgen(js_name = modelBox)]
    pub fn model_box(&self, volume: &Volume) -> JsResult<JsValue> {
        let faces = self.preprocessor(volume)?.map().model_box();
        Ok(plain(&json!({ "min": faces.map(|face| face[0]), "max": faces.map(|face| face[1]) })))
    }

    /// Encodes a volume; every finding that asks must be in `accept`.
    #[wasm_bindgen(js_name = encodeVolume)]
    pub async fn encode_volume(&self, volume: &Volume, control: Control, accept: Vec<String>) -> JsResult<JsValue> {
        volume::require_accepted(&volume.findings, &accept).map_err(thrown)?;
        let started = js_sys::Date::now();
        let encoding = self.session()?.encode_volume(&volume.volume, pace(&control)).await.map_err(thrown)?;
        Ok(object(&[
            ("vector", Float32Array::from(encoding.latent.as_slice()).into()),
            ("codes", Uint16Array::from(encoding.codes.as_slice()).into()),
            (
                "classLogits",
                encoding.class_logits.map_or(JsValue::UNDEFINED, |l| Float32Array::from(l.as_slice()).into()),
            ),
            ("timingsMs", object(&[("total", (js_sys::Date::now() - started).into())])),
        ]))
    }

    /// Encodes texts of a view: `{ vectors, rows, encoded }` with the vectors row after row, and how many were not known already.
    #[wasm_bindgen(js_name = encodeTexts)]
    pub async fn encode_texts(&self, texts: Vec<String>, view: &str, control: Control) -> JsResult<JsValue> {
        let view = parse_name(view)?;
        let encoded = self.session()?.encode_in_view(&texts, view, pace(&control)).await.map_err(thrown)?;
        let vectors: Vec<f32> = encoded.iter().flat_map(|text| text.latent.as_slice()).copied().collect();
        let rows = texts.iter().zip(&encoded).map(|(text, encoding)| {
            let sha256 = weights::sha256_hex(text.as_bytes());
            json!({ "tokens": encoding.tokens, "truncated": encoding.truncated, "textSha256": sha256 })
        });
        let fresh = encoded.iter().filter(|text| !text.cached).count();
        Ok(object(&[
            ("vectors", Float32Array::from(vectors.as_slice()).into()),
            ("rows", plain(&rows.collect::<Vec<_>>())),
            ("encoded", (fresh as u32).into()),
        ]))
    }

    /// Orders texts, given as rows of one array and encoded in `view`, by their similarity with an image.
    pub fn rank(&self, image: Vec<f32>, texts: Vec<f32>, view: &str, top_k: Option<usize>) -> JsResult<JsValue> {
        let session = self.session()?;
        let length = session.manifest().dim_latent;
        if image.len() != length || !texts.len().is_multiple_of(length) {
            return Err(thrown(Error::InvalidArgument(format!("latents of this model have {length} numbers"))));
        }
        let image = Latent::new(image).map_err(thrown)?;
        let texts: Result<Vec<_>, _> = texts.chunks_exact(length).map(|row| Latent::new(row.to_vec())).collect();
        let texts = texts.map_err(thrown)?;
        let ranking = session.rank(&image, &texts, top_k).map_err(thrown)?;
        let best = ranking.rows.first().and_then(|row| session.standing(view, row.cosine, texts.len()));
        Ok(plain(&json!({ "rows": ranking.rows, "tieTolerance": ranking.tie_tolerance, "background": best })))
    }

    /// Scores an image by the zero-shot labels and by yes/no questions; `prompts` is a list of `{ present, absent }`.
    #[wasm_bindgen(js_name = zeroShot)]
    pub async fn zero_shot(
        &self,
        image: Vec<f32>,
        class_logits: Option<Vec<f32>>,
        ask: Vec<String>,
        prompts: JsValue,
        control: Control,
    ) -> JsResult<JsValue> {
        let prompts: Vec<PromptPair> = parse(prompts)?;
        let image = Latent::new(image).map_err(thrown)?;
        let classifier = self.session()?.zero_shot(&ask, &prompts, pace(&control)).await.map_err(thrown)?;
        classifier.score(&image, class_logits.as_deref()).map(|scored| plain(&scored)).map_err(thrown)
    }

    /// An empty store for latents of this model, `f16` or `int8`.
    #[wasm_bindgen(js_name = newStore)]
    pub fn new_store(&self, precision: &str) -> JsResult<LatentStore> {
        Ok(LatentStore { store: Store::new(self.session()?.identity(), parse_name(precision)?) })
    }

    /// What a label or yes/no question compares a volume with.
    pub async fn ask(&self, question: String, control: Control) -> JsResult<Target> {
        let asked = self.session()?.question_target(&question, pace(&control)).await;
        let (target, asked) = asked.map_err(thrown)?;
        Ok(Target { target, asked: Some(asked) })
    }

    /// Takes a score apart: `{ values, plane, summary }`.
    pub async fn explain(
        &self,
        vector: Vec<f32>,
        codes: Vec<u16>,
        target: &Target,
        options: JsValue,
        control: Control,
    ) -> JsResult<JsValue> {
        let JsExplain { variant, top, region } = parse(options)?;
        let image = ImageEncoding { latent: Latent::new(vector).map_err(thrown)?, codes, class_logits: None };
        let options = ExplainOptions { baseline: variant == Variant::Baseline, region };
        let explain = self.session()?.explain(&image, target.target.clone(), &options, pace(&control));
        let explained = explain.await.map_err(thrown)?;
        let map = explained.explanation.map(variant).map_err(thrown)?;
        let floats = |values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            JsValue::from(Float32Array::from(values.as_slice()))
        };
        Ok(object(&[
            ("values", floats(map.values())),
            ("plane", floats(&map.plane())),
            ("summary", plain(&explained.summary(variant, top, None).map_err(thrown)?)),
        ]))
    }

    /// Where cubes lie in a volume, and the slices of each slab: `{ places, slices }`.
    pub fn places(&self, volume: &Volume, cubes: Vec<usize>) -> JsResult<JsValue> {
        let found = self.session()?.cubes(&volume.volume).map_err(thrown)?;
        let places = cubes.into_iter().map(|cube| found.place(cube)).collect::<Result<Vec<_>, _>>().map_err(thrown)?;
        Ok(plain(&json!({ "places": places, "slices": found.slices() })))
    }

    /// A map as a `.nii.gz`, on the grid `native` or `token`.
    #[wasm_bindgen(js_name = mapFile)]
    pub fn map_file(&self, volume: &Volume, values: &[f32], grid: &str, comment: &str) -> JsResult<Vec<u8>> {
        let grid: MapGrid = parse_name(grid)?;
        let cubes = self.session()?.cubes(&volume.volume).map_err(thrown)?;
        cubes.to_nii_gz(values, grid, comment).map_err(thrown)
    }

    /// The score of a volume, and with each of these cubes hidden: `{ score, rows }`.
    pub async fn occlude(
        &self,
        volume: &Volume,
        vector: Vec<f32>,
        cubes: Vec<usize>,
        target: &Target,
        control: Control,
        accept: Vec<String>,
    ) -> JsResult<JsValue> {
        volume::require_accepted(&volume.findings, &accept).map_err(thrown)?;
        let (image, target) = (Latent::new(vector).map_err(thrown)?, &target.target);
        let score = target.score(&image).map_err(thrown)?;
        let latents = self.session()?.occlude(&volume.volume, &cubes, pace(&control)).await.map_err(thrown)?;
        let rows = target.occluded(&image, &cubes, &latents).map_err(thrown)?;
        Ok(plain(&json!({ "score": score, "rows": rows })))
    }

    /// The sentences of a text beside an image.
    pub async fn sentences(&self, vector: Vec<f32>, text: String, control: Control) -> JsResult<JsValue> {
        let image = Latent::new(vector).map_err(thrown)?;
        let scores = self.session()?.sentence_scores(&image, &text, pace(&control)).await.map_err(thrown)?;
        Ok(plain(&scores))
    }

    /// Gives the GPU device back.
    pub fn destroy(&self) {
        self.device.destroy();
    }
}
