//! Every tensor that a configuration needs: its name in a model folder, its shape, and its origin in a checkpoint.
//!
//! The only place that knows names, of either kind (checkpoint names: CTCLIP.md 8). Loader and `convert` both read this list,
//! so a folder written by one is by construction what the other asks for.

use crate::weights::schema::Manifest;
use crate::weights::schema::Precision;
use crate::weights::schema::Storage;
use std::collections::BTreeMap;

/// Largest stored tensor in elements: 16 MiB in f32, so that shards of 32 MiB hold any tensor whole.
pub const MAX_ELEMENTS: usize = 4 << 20;

/// The part of the model that a tensor belongs to; each has its own precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// image tower and codebook
    Trunk,
    /// flatten-then-project matrix
    Projection,
    /// word and position embeddings of the text tower
    Embeddings,
    /// text tower and its projection
    Text,
}

impl Part {
    /// Whether it belongs to the text side; the rest is the image side.
    fn is_text(self) -> bool {
        matches!(self, Part::Embeddings | Part::Text)
    }
}

/// How a stored tensor is made from the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// the same numbers under this key, perhaps in another shape
    Key(String),
    /// consecutive rows of the matrix under this key, from this row on
    Rows(String, usize),
    /// the position-bias network evaluated for all offsets (CTCLIP.md 3.3)
    PositionBias,
    /// in-plane positions of the visual projection, from this position on: `[position · latent, dim]`
    ProjectionBlock(String, usize),
}

/// One tensor of a model folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// name in the model folder
    pub name: String,
    /// shape in the model folder
    pub shape: Vec<usize>,
    /// part it belongs to
    pub part: Part,
    /// whether it is a weight matrix; anything else is always stored in f32
    pub matrix: bool,
    /// where its numbers come from
    pub origin: Origin,
}

impl TensorSpec {
    /// How the tensor is stored under a precision.
    pub fn storage(&self, precision: &Precision) -> Storage {
        if !self.matrix {
            return Storage::F32;
        }
        match self.part {
            Part::Trunk => precision.trunk,
            Part::Projection => precision.projection,
            Part::Embeddings => precision.embeddings,
            Part::Text => precision.text,
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Prefix of the image tower's keys.
const VISUAL: &str = "visual_transformer";
/// Prefix of the text tower's keys.
const TEXTUAL: &str = "text_transformer";

/// Keys of the position-bias network, first to last layer, without `.weight` / `.bias`.
pub const POSITION_BIAS_KEYS: [&str; 3] = [
    "visual_transformer.spatial_rel_pos_bias.net.0.0",
    "visual_transformer.spatial_rel_pos_bias.net.1.0",
    "visual_transformer.spatial_rel_pos_bias.net.2",
];

/// Key of the learned logit scale.
pub const TEMPERATURE_KEY: &str = "temperature";

/// Checkpoint keys that belong to the architecture and that inference does not need, with their shapes (CTCLIP.md 8, marked ✗);
/// a key that is neither here nor needed is unknown.
pub fn unused_keys(manifest: &Manifest) -> BTreeMap<String, Vec<usize>> {
    let (v, t) = (&manifest.vision, &manifest.text);
    let h = t.hidden_size;
    let (patch, first) = (v.patch_len(), v.patch_size * v.patch_size);
    let embedding = format!("{VISUAL}.to_patch_emb_first_frame");
    let codebook = format!("{VISUAL}.vq._codebook");
    let mut keys = BTreeMap::from([
        (format!("{TEXTUAL}.embeddings.position_ids"), vec![1, t.max_position_embeddings]),
        (format!("{TEXTUAL}.pooler.dense.weight"), vec![h, h]),
        (format!("{TEXTUAL}.pooler.dense.bias"), vec![h]),
        (format!("{embedding}.1.weight"), vec![first]),
        (format!("{embedding}.1.bias"), vec![first]),
        (format!("{embedding}.2.weight"), vec![v.dim, first]),
        (format!("{embedding}.2.bias"), vec![v.dim]),
        (format!("{embedding}.3.weight"), vec![v.dim]),
        (format!("{embedding}.3.bias"), vec![v.dim]),
        (format!("{codebook}.initted"), vec![1]),
        (format!("{codebook}.cluster_size"), vec![1, v.codebook_size]),
        (format!("{VISUAL}.to_pixels_first_frame.0.weight"), vec![first, v.dim]),
        (format!("{VISUAL}.to_pixels_first_frame.0.bias"), vec![first]),
        (format!("{VISUAL}.to_pixels.0.weight"), vec![patch, v.dim]),
        (format!("{VISUAL}.to_pixels.0.bias"), vec![patch]),
        ("to_text_latent_extra.weight".into(), vec![manifest.dim_latent, h]),
        ("to_visual_latent_extra.weight".into(), vec![manifest.dim_latent, v.side() * v.side() * v.dim]),
    ]);
    for (tower, depth) in [("spatial", v.spatial_depth), ("temporal", v.temporal_depth)] {
        for l in 0..depth {
            let attention = format!("{VISUAL}.enc_{tower}_transformer.layers.{l}.1");
            keys.insert(format!("{attention}.null_kv"), vec![v.heads, 0, v.dim_head]);
            keys.insert(format!("{attention}.context_norm.gamma"), vec![v.dim]);
            keys.insert(format!("{attention}.context_norm.beta"), vec![v.dim]);
        }
    }
    keys
}

/// Rows of a `[rows, columns]` matrix that one stored tensor holds.
fn rows_per_block(columns: usize) -> usize {
    (MAX_ELEMENTS / columns.max(1)).max(1)
}

/// In-plane positions that one stored block of the visual projection holds.
pub fn positions_per_block(manifest: &Manifest) -> usize {
    rows_per_block(manifest.dim_latent * manifest.vision.dim)
}

struct List(Vec<TensorSpec>);

impl List {
    fn add(&mut self, name: String, shape: &[usize], part: Part, matrix: bool, origin: Origin) {
        self.0.push(TensorSpec { name, shape: shape.to_vec(), part, matrix, origin });
    }

    fn vector(&mut self, name: String, shape: &[usize], part: Part, key: String) {
        self.add(name, shape, part, false, Origin::Key(key));
    }

    fn matrix(&mut self, name: String, shape: [usize; 2], part: Part, key: String) {
        self.add(name, &shape, part, true, Origin::Key(key));
    }

    /// `weight` and `bias` of a layer norm of `n` channels.
    fn norm(&mut self, name: &str, n: usize, part: Part, key: &str) {
        for field in ["weight", "bias"] {
            self.vector(format!("{name}.{field}"), &[n], part, format!("{key}.{field}"));
        }
    }

    /// A layer norm whose parameters are called gamma and beta in the checkpoint.
    fn gamma_norm(&mut self, name: &str, n: usize, key: &str) {
        for (field, origin) in [("weight", "gamma"), ("bias", "beta")] {
            self.vector(format!("{name}.{field}"), &[n], Part::Trunk, format!("{key}.{origin}"));
        }
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], part: Part, key: &str) {
        self.matrix(format!("{name}.weight"), shape, part, format!("{key}.weight"));
        self.vector(format!("{name}.bias"), &[shape[0]], part, format!("{key}.bias"));
    }
}

/// Every tensor that the manifest's configuration needs for its purpose, in the order of the data.
pub fn inventory(manifest: &Manifest) -> Vec<TensorSpec> {
    let purpose = manifest.purpose;
    let mut list = architecture(manifest);
    list.retain(|spec| if spec.part.is_text() { purpose.encodes_texts() } else { purpose.encodes_images() });
    list
}

/// The tensors of both towers, whatever the folder is for.
pub(super) fn architecture(manifest: &Manifest) -> Vec<TensorSpec> {
    let mut list = List(Vec::new());
    vision(manifest, &mut list);
    projection(manifest, &mut list);
    text(manifest, &mut list);
    if let Some(classes) = manifest.classes {
        list.linear("classifier", [classes, manifest.dim_latent], Part::Projection, "classifier");
    }
    list.0
}

fn vision(manifest: &Manifest, list: &mut List) {
    let v = &manifest.vision;
    let patch = format!("{VISUAL}.to_patch_emb");
    list.norm("vision.patch.norm_in", v.patch_len(), Part::Trunk, &format!("{patch}.1"));
    list.linear("vision.patch.linear", [v.dim, v.patch_len()], Part::Trunk, &format!("{patch}.2"));
    list.norm("vision.patch.norm_out", v.dim, Part::Trunk, &format!("{patch}.3"));
    let offsets = 2 * v.side() - 1;
    let bias_shape = [v.heads, offsets, offsets];
    list.add("vision.position_bias".into(), &bias_shape, Part::Trunk, false, Origin::PositionBias);
    for (tower, depth) in [("spatial", v.spatial_depth), ("temporal", v.temporal_depth)] {
        let key = format!("{VISUAL}.enc_{tower}_transformer");
        for l in 0..depth {
            let (name, key) = (format!("vision.{tower}.{l}"), format!("{key}.layers.{l}"));
            list.vector(format!("{name}.peg.weight"), &[v.dim, 27], Part::Trunk, format!("{key}.0.dsconv.weight"));
            list.vector(format!("{name}.peg.bias"), &[v.dim], Part::Trunk, format!("{key}.0.dsconv.bias"));
            list.gamma_norm(&format!("{name}.attention.norm"), v.dim, &format!("{key}.1.norm"));
            for scale in ["q_scale", "k_scale"] {
                list.vector(
                    format!("{name}.attention.{scale}"),
                    &[v.dim_head],
                    Part::Trunk,
                    format!("{key}.1.{scale}"),
                );
            }
            for (matrix, shape) in
                [("to_q", [v.inner(), v.dim]), ("to_kv", [2 * v.inner(), v.dim]), ("to_out", [v.dim, v.inner()])]
            {
                let stored = format!("{name}.attention.{matrix}.weight");
                list.matrix(stored, shape, Part::Trunk, format!("{key}.1.{matrix}.weight"));
            }
            list.norm(&format!("{name}.ff.norm"), v.dim, Part::Trunk, &format!("{key}.3.0"));
            let up = [2 * v.ff_inner(), v.dim];
            list.matrix(format!("{name}.ff.up.weight"), up, Part::Trunk, format!("{key}.3.1.weight"));
            let down = [v.dim, v.ff_inner()];
            list.matrix(format!("{name}.ff.down.weight"), down, Part::Trunk, format!("{key}.3.4.weight"));
        }
        list.gamma_norm(&format!("vision.{tower}.norm"), v.dim, &format!("{key}.norm_out"));
    }
    let codebook = format!("{VISUAL}.vq._codebook.embed");
    list.matrix("vision.codebook".into(), [v.codebook_size, v.dim], Part::Trunk, codebook);
}

fn projection(manifest: &Manifest, list: &mut List) {
    let v = &manifest.vision;
    let (positions, step) = (v.side() * v.side(), positions_per_block(manifest));
    for (block, first) in (0..positions).step_by(step).enumerate() {
        let rows = step.min(positions - first) * manifest.dim_latent;
        let origin = Origin::ProjectionBlock("to_visual_latent.weight".into(), first);
        list.add(format!("projection.{block}.weight"), &[rows, v.dim], Part::Projection, true, origin);
    }
}

fn text(manifest: &Manifest, list: &mut List) {
    let t = &manifest.text;
    let h = t.hidden_size;
    let embeddings = format!("{TEXTUAL}.embeddings");
    let step = rows_per_block(h);
    for (block, first) in (0..t.vocab_size).step_by(step).enumerate() {
        let rows = step.min(t.vocab_size - first);
        let origin = Origin::Rows(format!("{embeddings}.word_embeddings.weight"), first);
        list.add(format!("text.embeddings.word.{block}"), &[rows, h], Part::Embeddings, true, origin);
    }
    let positions = [t.max_position_embeddings, h];
    let key = format!("{embeddings}.position_embeddings.weight");
    list.matrix("text.embeddings.position".into(), positions, Part::Embeddings, key);
    let token_type = Origin::Rows(format!("{embeddings}.token_type_embeddings.weight"), 0);
    list.add("text.embeddings.token_type".into(), &[1, h], Part::Text, false, token_type);
    list.norm("text.embeddings.norm", h, Part::Text, &format!("{embeddings}.LayerNorm"));
    for l in 0..t.num_hidden_layers {
        let (name, key) = (format!("text.layer.{l}"), format!("{TEXTUAL}.encoder.layer.{l}"));
        for matrix in ["query", "key", "value"] {
            list.linear(&format!("{name}.{matrix}"), [h, h], Part::Text, &format!("{key}.attention.self.{matrix}"));
        }
        list.linear(&format!("{name}.context"), [h, h], Part::Text, &format!("{key}.attention.output.dense"));
        list.norm(&format!("{name}.context_norm"), h, Part::Text, &format!("{key}.attention.output.LayerNorm"));
        let inner = t.intermediate_size;
        list.linear(&format!("{name}.up"), [inner, h], Part::Text, &format!("{key}.intermediate.dense"));
        list.linear(&format!("{name}.down"), [h, inner], Part::Text, &format!("{key}.output.dense"));
        list.norm(&format!("{name}.output_norm"), h, Part::Text, &format!("{key}.output.LayerNorm"));
    }
    let latent = [manifest.dim_latent, h];
    list.matrix("text.projection.weight".into(), latent, Part::Text, "to_text_latent.weight".into());
}
