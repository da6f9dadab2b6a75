//! One model on one device: volumes and texts in, latents and rankings out.
//!
//! Everything asynchronous is here: opening, and reading back. Touches no file, clock or output.

mod estimate;
mod explain;
mod prompts;
mod self_test;
mod texts;

pub use estimate::TimeEstimate;
pub use explain::ExplainOptions;
pub use explain::Explained;
pub use explain::SentenceScore;
pub use explain::Summary;
pub use prompts::bake;
pub use self_test::SelfTest;
pub use self_test::known_answers;

use crate::device::Device;
use crate::error::Error;
use crate::error::NOTICE;
use crate::error::Result;
use crate::model::ImageSide;
use crate::model::Model;
use crate::model::Pause;
use crate::model::TextTower;
use crate::model::load::Loader;
use crate::model::stages::StageTensor;
use crate::model::stages::Stages;
use crate::rank;
use crate::rank::Latent;
use crate::rank::RankOptions;
use crate::rank::Ranking;
use crate::rank::background::Standing;
use crate::rank::store::ModelIdentity;
use crate::rank::zero_shot::PromptLatents;
use crate::text::TokenIds;
use crate::text::Tokenizer;
use crate::volume::Volume;
use crate::volume::preprocess::Preprocessor;
use crate::weights;
use crate::weights::schema::FileEntry;
use crate::weights::schema::Manifest;
use crate::weights::schema::Purpose;
use crate::weights::schema::Variant;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::Transaction;
use serde::Serialize;
use std::collections::HashMap;
use std::io::Read;
use std::io::Seek;
use std::pin::Pin;
use std::sync::Mutex;
use texts::TextCache;

/// What a call is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// voxels to the model grid and into the first layer, in depth slabs
    Preprocess,
    /// transformer layers of the image tower
    Encode,
    /// encoder layers of the text tower
    Text,
    /// encodes with a cube hidden
    Occlude,
    /// the known answers on this device
    SelfTest,
}

impl Phase {
    /// The name that progress reports use.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Preprocess => "preprocess",
            Phase::Encode => "encode",
            Phase::Text => "text",
            Phase::Occlude => "occlude",
            Phase::SelfTest => "self-test",
        }
    }
}

/// A point between two steps of a long call, where the caller shows progress, lets other work run, or stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// what is being done
    pub phase: Phase,
    /// steps done
    pub done: usize,
    /// steps in all
    pub total: usize,
}

/// A caller that does not care about progress.
pub async fn unwatched(_: Progress) -> Result<()> {
    Ok(())
}

/// Between two parts of one step the caller is told of the step again.
struct Within<'p, P> {
    pace: &'p mut P,
    progress: Progress,
}

impl<P: AsyncFnMut(Progress) -> Result<()>> Pause for Within<'_, P> {
    fn here(&mut self) -> Pin<Box<dyn Future<Output = Result<()>> + '_>> {
        Box::pin((self.pace)(self.progress))
    }
}

/// What the image tower makes of one volume.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageEncoding {
    /// unit vector in the shared space
    pub latent: Latent,
    /// codebook index per token, (depth, height, width) order
    pub codes: Vec<u16>,
    /// class logits of a fine-tuned model
    pub class_logits: Option<Vec<f32>>,
}

/// What the text tower makes of one text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEncoding {
    /// unit vector in the shared space
    pub latent: Latent,
    /// tokens with the special ones
    pub tokens: usize,
    /// whether the end of the text was cut off
    pub truncated: bool,
    /// whether the latent was there already: from an earlier call, or from an equal text before it in the list
    pub cached: bool,
}

/// A named intermediate result read back from the device.
#[derive(Debug, Clone, PartialEq)]
pub struct StageValues {
    /// as in the reference fixtures
    pub name: String,
    /// row-major
    pub shape: Vec<usize>,
    /// numbers or indices
    pub values: StageNumbers,
}

/// Numbers of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum StageNumbers {
    /// activations
    Float(Vec<f32>),
    /// codebook indices
    Int(Vec<i32>),
}

/// Collects the files of a model folder.
#[derive(Debug)]
pub struct SessionBuilder {
    device: Device,
    manifest: Manifest,
    variant_name: String,
    variant: Variant,
    loader: Loader,
    tokenizer: Option<Tokenizer>,
    prompts: Option<PromptLatents>,
    /// faults of the device before the first upload
    faults: usize,
}

impl SessionBuilder {
    /// Reads the manifest and prepares to load one variant.
    ///
    /// # Errors
    /// As [`Manifest::parse`] and [`Loader::new`]; [`Error::DeviceLost`].
    pub fn new(manifest_json: &str, variant: &str, device: &Device) -> Result<Self> {
        let manifest = Manifest::parse(manifest_json)?;
        let loader = Loader::new(&manifest, variant, device)?;
        let (device, variant_name) = (device.clone(), variant.to_owned());
        let variant = manifest.variant(variant)?.clone();
        let faults = device.faults()?;
        Ok(Self { device, manifest, variant_name, variant, loader, tokenizer: None, prompts: None, faults })
    }

    /// The files to bring, in the order of loading.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.manifest.files_of(&self.variant)
    }

    /// Name of the variant.
    pub fn variant(&self) -> &str {
        &self.variant_name
    }

    /// Checks a file and takes it in; a shard is read tensor by tensor.
    ///
    /// # Errors
    /// As [`Loader::add_shard`] for a shard; [`Error::Integrity`] for every file, [`Error::TextInput`] for the tokenizer,
    /// [`Error::Manifest`] for it and for the prompts.
    pub fn add_file<R: Read + Seek>(&mut self, path: &str, file: &mut R) -> Result<()> {
        let sha256 = weights::sha256(file)?;
        self.add_hashed_file(path, file, &sha256)
    }

    /// [`SessionBuilder::add_file`] with the SHA-256 of all its bytes, in hexadecimal digits, that the caller has computed.
    ///
    /// # Errors
    /// As `add_file`.
    pub fn add_hashed_file<R: Read + Seek>(&mut self, path: &str, file: &mut R, sha256: &str) -> Result<()> {
        let named = |entry: &Option<FileEntry>| entry.as_ref().filter(|entry| entry.path == path).cloned();
        if let Some(entry) = named(&self.manifest.files.tokenizer) {
            self.tokenizer = Some(self.tokenizer(&checked(&entry, file, sha256)?)?);
            return Ok(());
        }
        if let (Some(entry), Some(recipe)) = (named(&self.variant.prompts), &self.manifest.recipes.zero_shot) {
            let shape = [recipe.labels.len(), self.manifest.dim_latent];
            self.prompts = Some(PromptLatents::from_bytes(&checked(&entry, file, sha256)?, shape)?);
            return Ok(());
        }
        self.loader.add_shard(path, file, sha256)
    }

    fn tokenizer(&self, bytes: &[u8]) -> Result<Tokenizer> {
        let text = &self.manifest.text;
        let tokenizer = Tokenizer::from_json(bytes, text.max_position_embeddings)?;
        if tokenizer.vocab_size() > text.vocab_size {
            let (needed, found) = (text.vocab_size, tokenizer.vocab_size());
            return Err(Error::Manifest(format!("the tokenizer may have {needed} entries, found {found}")));
        }
        Ok(tokenizer)
    }

    /// The session, once every file is there.
    ///
    /// # Errors
    /// [`Error::Tensors`] or [`Error::Manifest`] naming what is missing; errors of the device during the upload.
    pub async fn finish(self) -> Result<Session> {
        let watch = self.device.watch_since(self.faults);
        if self.manifest.files.tokenizer.is_some() && self.tokenizer.is_none() {
            return Err(Error::Manifest("the tokenizer file is missing".into()));
        }
        if self.variant.prompts.is_some() && self.prompts.is_none() {
            return Err(Error::Manifest("the file of the prompts is missing".into()));
        }
        let model = self.loader.finish()?;
        // A read-back of nothing in particular: what failed since the first upload is reported by now.
        let probe = Tensor::<1>::zeros([1], self.device.tensors());
        watch.read(Transaction::default().register(probe)).await?;
        let session = Session {
            device: self.device.clone(),
            manifest: self.manifest,
            variant_name: self.variant_name,
            variant: self.variant,
            model,
            tokenizer: self.tokenizer,
            prompts: self.prompts,
            texts: Mutex::default(),
            air: Mutex::default(),
        };
        Ok(session)
    }
}

/// All bytes of a file that is what the manifest says.
fn checked<R: Read + Seek>(entry: &FileEntry, file: &mut R, sha256: &str) -> Result<Vec<u8>> {
    weights::verify(entry, file, sha256)?;
    let mut bytes = vec![0; entry.bytes as usize];
    weights::zip::fill(file, 0, &mut bytes)?;
    Ok(bytes)
}

/// A loaded model, ready to encode.
#[derive(Debug)]
pub struct Session {
    device: Device,
    manifest: Manifest,
    variant_name: String,
    variant: Variant,
    model: Model,
    tokenizer: Option<Tokenizer>,
    prompts: Option<PromptLatents>,
    texts: Mutex<TextCache>,
    /// codes of volumes of air, by depth in tokens
    air: Mutex<HashMap<usize, Vec<u16>>>,
}

/// What a result was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// name and version of this package
    pub package: String,
    /// short name of the model
    pub model: String,
    /// revision of the weights
    pub revision: String,
    /// licence of the weights
    pub license: String,
    /// true for random weights
    pub untrained: bool,
    /// what the model folder is for
    pub purpose: Purpose,
    /// latents compare only when it is equal
    pub embedding_space: String,
    /// set of weights
    pub variant: String,
    /// [`Session::weights_sha256`]
    pub weights_sha256: String,
    /// of the tokenizer, or of the one that the stored prompts were encoded with
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer_sha256: Option<String>,
    /// `cpu` or `webgpu`
    pub backend: &'static str,
    /// name of the adapter
    pub adapter: String,
    /// whether the adapter is software
    pub software: bool,
    /// what a reader of the numbers must know
    pub warnings: Vec<&'static str>,
    /// shown wherever results are shown
    pub notice: &'static str,
}

/// What a loaded model can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// encoding volumes
    pub images: bool,
    /// encoding reports, and so ranking by free text
    pub reports: bool,
    /// the zero-shot labels: their prompts are stored
    pub zero_shot: bool,
}

impl Session {
    /// The manifest of the loaded model.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Name and description of the loaded variant.
    pub fn variant(&self) -> (&str, &Variant) {
        (&self.variant_name, &self.variant)
    }

    /// What the model folder has the parts for.
    pub fn capabilities(&self) -> Capabilities {
        let (images, reports) = (self.model.image.is_some(), self.model.text.is_some());
        Capabilities { images, reports, zero_shot: self.prompts.is_some() }
    }

    /// Latents of the zero-shot prompts, where the folder has them.
    pub fn prompts(&self) -> Option<&PromptLatents> {
        self.prompts.as_ref()
    }

    /// The error of a call for a part that the folder was made without.
    fn lacks(&self, needed: &'static str, cure: &'static str) -> Error {
        Error::Purpose { needed, purpose: self.manifest.purpose.name(), cure }
    }

    fn image_side(&self) -> Result<&ImageSide> {
        self.model.image.as_ref().ok_or_else(|| self.lacks("an image tower", "match, zero-shot or images"))
    }

    fn text_tower(&self) -> Result<&TextTower> {
        self.model.text.as_ref().ok_or_else(|| self.lacks_text_tower())
    }

    fn lacks_text_tower(&self) -> Error {
        self.lacks("a text tower", "match or reports")
    }

    /// The device that computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// One digest over all shards of the variant, in order.
    pub fn weights_sha256(&self) -> String {
        self.variant.weights_sha256()
    }

    /// Which model the latents are of.
    pub fn identity(&self) -> ModelIdentity {
        let manifest = &self.manifest;
        ModelIdentity {
            id: manifest.id.clone(),
            revision: manifest.revision.clone(),
            embedding_space: manifest.embedding_space.clone(),
            variant: self.variant_name.clone(),
            weights_sha256: self.weights_sha256(),
            license: manifest.license.clone(),
            untrained: manifest.untrained,
        }
    }

    /// The record that belongs to every result.
    pub fn provenance(&self) -> Provenance {
        let (manifest, info) = (&self.manifest, self.device.info());
        let tokenizer = manifest.files.tokenizer.as_ref().map(|file| &file.sha256);
        let recipe = manifest.recipes.zero_shot.as_ref().map(|recipe| &recipe.tokenizer_sha256);
        Provenance {
            package: concat!("ctmatch@", env!("CARGO_PKG_VERSION")).into(),
            model: manifest.id.clone(),
            revision: manifest.revision.clone(),
            license: manifest.license.clone(),
            untrained: manifest.untrained,
            purpose: manifest.purpose,
            embedding_space: manifest.embedding_space.clone(),
            variant: self.variant_name.clone(),
            weights_sha256: self.weights_sha256(),
            tokenizer_sha256: tokenizer.or(recipe).cloned(),
            backend: info.backend.name(),
            adapter: info.adapter.clone(),
            software: info.software,
            warnings: manifest.warnings(),
            notice: NOTICE,
        }
    }

    /// Encodes a volume.
    ///
    /// # Errors
    /// [`Error::Purpose`] without an image tower, [`Error::BadResult`], errors of the device, and whatever `pace` returns.
    pub async fn encode_volume(
        &self,
        volume: &Volume,
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<ImageEncoding> {
        let preprocessor = Preprocessor::new(volume, &self.manifest.preprocess)?;
        self.encode_one(self.slabs(&preprocessor), self.manifest.token_grid()[0], pace).await
    }

    /// The slabs of a volume, to be asked for in order: made on all cores, a few at once.
    fn slabs<'p>(&self, preprocessor: &'p Preprocessor<'_>) -> impl FnMut(usize) -> Vec<f32> + use<'p> {
        let thickness = self.manifest.vision.temporal_patch_size;
        let depth = self.manifest.token_grid()[0];
        let mut ready = Vec::new().into_iter();
        move |t| {
            ready.next().unwrap_or_else(|| {
                let count = Preprocessor::parallel_slabs().min(depth - t);
                ready = preprocessor.slabs(t * thickness, thickness, count).into_iter();
                ready.next().expect("at least one slab was made")
            })
        }
    }

    /// Encodes one model grid of `depth` slabs.
    async fn encode_one(
        &self,
        slabs: impl FnMut(usize) -> Vec<f32>,
        depth: usize,
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<ImageEncoding> {
        let mut encodings = self.encode_slabs(slabs, 1, depth, &mut Stages::off(), pace).await?;
        Ok(encodings.remove(0))
    }

    /// Encodes a batch of model grids and returns every intermediate result.
    ///
    /// # Shape
    /// - `grids`: `[batch, 1, depth, height, width]` in -1..=1, of any depth that the patches divide
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another shape, else as [`Session::encode_volume`].
    pub async fn encode_grids(
        &self,
        grids: &[f32],
        shape: [usize; 5],
        stages: &mut Stages,
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Vec<ImageEncoding>> {
        let v = &self.manifest.vision;
        let [batch, channels, depth, height, width] = shape;
        let fits = channels == 1 && height == v.image_size && width == v.image_size && batch > 0 && depth > 0;
        if !fits || !depth.is_multiple_of(v.temporal_patch_size) || grids.len() != shape.iter().product::<usize>() {
            let (size, thickness) = (v.image_size, v.temporal_patch_size);
            let wanted = format!("[n, 1, k·{thickness}, {size}, {size}]");
            return Err(Error::InvalidArgument(format!("the tensor should be {wanted}, found {shape:?}")));
        }
        let slab_len = v.temporal_patch_size * height * width;
        let slabs = |i: usize| grids[i * slab_len..(i + 1) * slab_len].to_vec();
        self.encode_slabs(slabs, batch, depth / v.temporal_patch_size, stages, pace).await
    }

    /// `slabs(i)` is slab `i` of all `batch · depth`, `[patch depth, image, image]`.
    async fn encode_slabs(
        &self,
        mut slabs: impl FnMut(usize) -> Vec<f32>,
        batch: usize,
        depth: usize,
        stages: &mut Stages,
        mut pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Vec<ImageEncoding>> {
        let ImageSide { tower, heads } = self.image_side()?;
        let watch = self.device.watch()?;
        let count = batch * depth;
        let mut embedded = Vec::with_capacity(count);
        let embedding = tower.embedding(count);
        for i in 0..count {
            pace(Progress { phase: Phase::Preprocess, done: i, total: count }).await?;
            embedded.push(embedding.slab(&slabs(i), self.device.tensors(), stages));
            watch.check()?;
        }
        drop(embedding);
        let [_, side, _] = self.manifest.token_grid();
        for name in ["patch_ln_in", "patch_embed"] {
            stages.split_rows(name, &[batch, depth, side, side]);
        }
        let mut x = Tensor::cat(embedded, 0);
        let total = tower.steps() + 1;
        for step in 0..tower.steps() {
            let progress = Progress { phase: Phase::Encode, done: step, total };
            pace(progress).await?;
            x = tower.step(step, x, depth, stages, &mut Within { pace: &mut pace, progress }).await?;
            watch.check()?;
        }
        pace(Progress { phase: Phase::Encode, done: tower.steps(), total }).await?;
        let codes = tower.quantize(x, stages);
        let latents = heads.image_latent(codes.rows, stages);
        let mut wanted = Transaction::default().register(codes.mean).register(latents.clone()).register(codes.indices);
        if let Some(logits) = heads.classify(latents) {
            wanted = wanted.register(logits);
        }
        let mut data = watch.read(wanted).await?.into_iter();
        if !float_rows(data.next(), 1)?.concat().iter().all(|mean| mean.is_finite()) {
            return Err(Error::BadResult("the image tokens are not finite".into()));
        }
        let latents = float_rows(data.next(), batch)?;
        let codes = int_rows(data.next(), batch)?;
        let logits = data.next().map(|logits| float_rows(Some(logits), batch)).transpose()?;
        let mut encodings = Vec::with_capacity(batch);
        for (i, (latent, codes)) in latents.into_iter().zip(codes).enumerate() {
            let latent = Latent::new(latent)?;
            let codes = codes.into_iter().map(|code| self.code(code)).collect::<Result<_>>()?;
            encodings.push(ImageEncoding { latent, codes, class_logits: logits.as_ref().map(|l| l[i].clone()) });
        }
        Ok(encodings)
    }

    /// A codebook index that exists.
    fn code(&self, index: i32) -> Result<u16> {
        u16::try_from(index)
            .ok()
            .filter(|&code| usize::from(code) < self.manifest.vision.codebook_size)
            .ok_or_else(|| Error::BadResult("a codebook index is out of range".into()))
    }

    /// Token ids of a text, at its own length.
    ///
    /// # Errors
    /// [`Error::TextInput`]; [`Error::Purpose`] without a text tower.
    pub fn tokenize(&self, text: &str) -> Result<TokenIds> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| self.lacks_text_tower())?;
        tokenizer.encode(text)
    }

    /// Encodes a batch of equally long token sequences and returns every intermediate result.
    ///
    /// # Shape
    /// - `ids` and `mask`: `batch` rows of `length`; the mask is 1 for real tokens
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for ids or lengths that the model does not have, else as [`Session::encode_text`].
    pub async fn encode_ids(
        &self,
        ids: &[u32],
        mask: Option<&[u8]>,
        length: usize,
        stages: &mut Stages,
        pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Vec<Latent>> {
        if length == 0 || !ids.len().is_multiple_of(length) || mask.is_some_and(|mask| mask.len() != ids.len()) {
            let problem = "ids and attention mask should be rows of the same length";
            return Err(Error::InvalidArgument(problem.into()));
        }
        self.encode_sequences(ids, &vec![length; ids.len() / length], mask, stages, pace).await
    }

    /// Token sequences of these lengths, one after the other; the mask is of sequences of one length.
    async fn encode_sequences(
        &self,
        ids: &[u32],
        lengths: &[usize],
        mask: Option<&[u8]>,
        stages: &mut Stages,
        mut pace: impl AsyncFnMut(Progress) -> Result<()>,
    ) -> Result<Vec<Latent>> {
        let t = &self.manifest.text;
        let longest = t.max_position_embeddings;
        if lengths.is_empty() {
            return Err(Error::InvalidArgument("expected at least one sequence, found none".into()));
        }
        if let Some(length) = lengths.iter().find(|&length| !(1..=longest).contains(length)) {
            return Err(Error::InvalidArgument(format!("sequences may have 1 to {longest} tokens, found {length}")));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= t.vocab_size) {
            let size = t.vocab_size;
            return Err(Error::InvalidArgument(format!("token ids should be below {size}, found {id}")));
        }
        let watch = self.device.watch()?;
        let device = self.device.tensors();
        let tower = self.text_tower()?;
        let mask = mask.map(|mask| tower.mask(mask, lengths[0], device));
        let mut x = tower.embed(ids, lengths, device, stages);
        for l in 0..tower.depth() {
            pace(Progress { phase: Phase::Text, done: l, total: tower.depth() }).await?;
            x = tower.layer(l, x, lengths, mask.as_ref(), stages);
            watch.check()?;
        }
        let latents = tower.latent(x, lengths, stages);
        let data = watch.read(Transaction::default().register(latents)).await?;
        float_rows(data.into_iter().next(), lengths.len())?.into_iter().map(Latent::new).collect()
    }

    /// Orders texts by their similarity with an image.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the latents have different lengths.
    pub fn rank(&self, image: &Latent, texts: &[Latent], top_k: Option<usize>) -> Result<Ranking> {
        let temperature = f64::from(self.manifest.similarity.temperature);
        rank::rank(image, texts, &RankOptions { temperature, tie_tolerance: self.variant.tie_tolerance, top_k })
    }

    /// How the best cosine of a list of `listed` reports, encoded in `view`, stands beside those of unrelated pairs; `None` when the
    /// folder has no such numbers.
    pub fn standing(&self, view: &str, best: f64, listed: usize) -> Option<Standing> {
        self.variant.background.as_ref().and_then(|background| Standing::new(background, view, best, listed))
    }

    /// Reads collected stages back.
    ///
    /// # Errors
    /// Errors of the device.
    pub async fn read_stages(&self, stages: Stages) -> Result<Vec<StageValues>> {
        let watch = self.device.watch()?;
        let mut values = Vec::new();
        for (name, shape, tensor) in stages.into_list() {
            let values_of_stage = match tensor {
                StageTensor::Float(tensor) => {
                    let data = watch.read(Transaction::default().register(tensor)).await?;
                    StageNumbers::Float(float_rows(data.into_iter().next(), 1)?.remove(0))
                }
                StageTensor::Int(tensor) => {
                    let data = watch.read(Transaction::default().register(tensor)).await?;
                    StageNumbers::Int(int_rows(data.into_iter().next(), 1)?.remove(0))
                }
            };
            values.push(StageValues { name, shape, values: values_of_stage });
        }
        Ok(values)
    }
}

/// Rows of a tensor that was read back.
fn float_rows(data: Option<TensorData>, rows: usize) -> Result<Vec<Vec<f32>>> {
    let values = data.and_then(|d| d.try_into_vec::<f32>().ok()).ok_or_else(not_read)?;
    Ok(values.chunks(values.len() / rows).map(<[f32]>::to_vec).collect())
}

fn int_rows(data: Option<TensorData>, rows: usize) -> Result<Vec<Vec<i32>>> {
    let values = data.and_then(|d| d.try_into_vec::<i32>().ok()).ok_or_else(not_read)?;
    Ok(values.chunks(values.len() / rows).map(<[i32]>::to_vec).collect())
}

fn not_read() -> Error {
    Error::BadResult("the device returned another type than was computed".into())
}
