//! The text tower in burn's operations, so that burn differentiates it; the formulas of `ctmatch::model::TextTower`.

use super::parameters::Gradients;
use super::parameters::Parameters;
use burn::tensor::Device;
use burn::tensor::Gradients as Graph;
use burn::tensor::Int;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use burn::tensor::activation::gelu;
use burn::tensor::activation::softmax;
use burn::tensor::module::layer_norm;
use ctmatch::kernel::l2_normalize;
use ctmatch::weights::schema::TextConfig;
use std::cell::RefCell;
use std::collections::BTreeMap;

const BERT: &str = "text_transformer";
/// Added to the logits of padding.
const PADDED: f32 = -1e9;

/// Parameters as tensors of one step; those that are asked for get a gradient when the device differentiates.
pub struct Leaves<'a> {
    pub parameters: &'a Parameters,
    pub device: Device,
    used: RefCell<BTreeMap<String, Tensor<1>>>,
}

impl<'a> Leaves<'a> {
    pub fn new(parameters: &'a Parameters, device: Device) -> Self {
        Self { parameters, device, used: RefCell::default() }
    }

    pub fn get<const D: usize>(&self, name: &str) -> Tensor<D> {
        let shape = &self.parameters.get(name).shape;
        let shape: [usize; D] = shape.clone().try_into().unwrap_or_else(|_| panic!("shape of {name}"));
        self.leaf(name).reshape(shape)
    }

    /// A parameter of one number.
    pub fn scalar(&self, name: &str) -> Tensor<1> {
        self.leaf(name)
    }

    fn leaf(&self, name: &str) -> Tensor<1> {
        let values = &self.parameters[name];
        let mut used = self.used.borrow_mut();
        let leaf = used.entry(name.into()).or_insert_with(|| {
            let leaf = self.constant(values, [values.len()]);
            if self.device.is_autodiff() { leaf.require_grad() } else { leaf }
        });
        leaf.clone()
    }

    pub fn constant<const D: usize>(&self, values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &self.device)
    }

    pub fn gradients(&self, graph: &Graph, gradients: &mut Gradients) {
        for (name, leaf) in self.used.borrow().iter() {
            if let Some(gradient) = leaf.grad(graph) {
                gradients.add(name, &numbers(gradient));
            }
        }
    }
}

/// The numbers of a tensor.
pub fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("tensors here are f32")
}

/// Tokens from which on a text is long.
const LONG: usize = 72;

/// Unit latents of texts. Short and long ones run apart, so that little of a batch is padding.
///
/// # Shape
/// `[texts, latent]`
pub fn latents(leaves: &Leaves<'_>, config: &TextConfig, texts: &[&[u32]]) -> Tensor<2> {
    let (long, short): (Vec<usize>, Vec<usize>) = (0..texts.len()).partition(|&i| texts[i].len() > LONG);
    let parts = [&short, &long].into_iter().filter(|part| !part.is_empty()).map(|part| {
        let texts: Vec<&[u32]> = part.iter().map(|&i| texts[i]).collect();
        padded(leaves, config, &texts)
    });
    let both = Tensor::cat(parts.collect(), 0);
    let mut places = vec![0; texts.len()];
    short.iter().chain(&long).enumerate().for_each(|(row, &i)| places[i] = row as i32);
    both.select(0, Tensor::from_data(TensorData::new(places, [texts.len()]), &leaves.device))
}

fn padded(leaves: &Leaves<'_>, config: &TextConfig, texts: &[&[u32]]) -> Tensor<2> {
    let (count, hidden, heads) = (texts.len(), config.hidden_size, config.num_attention_heads);
    let length = texts.iter().map(|ids| ids.len()).max().unwrap_or(1);
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for text in texts {
        let padding = length - text.len();
        ids.extend(text.iter().map(|&id| id as i32).chain(std::iter::repeat_n(0, padding)));
        mask.extend(std::iter::repeat_n(0.0, text.len()).chain(std::iter::repeat_n(PADDED, padding)));
    }
    let device = &leaves.device;
    let ids: Tensor<1, Int> = Tensor::from_data(TensorData::new(ids, [count * length]), device);
    let mask: Tensor<4> = leaves.constant(&mask, [count, 1, 1, length]);
    let norm = |x: Tensor<2>, name: &str| {
        let [weight, bias] = ["weight", "bias"].map(|field| leaves.get::<1>(&format!("{name}.{field}")));
        layer_norm(x, weight, Some(bias), config.layer_norm_eps)
    };
    let linear = |x: Tensor<2>, name: &str| {
        let bias: Tensor<1> = leaves.get(&format!("{name}.bias"));
        x.matmul(leaves.get::<2>(&format!("{name}.weight")).transpose()) + bias.unsqueeze()
    };
    let at = format!("{BERT}.embeddings");
    let words =
        leaves.get::<2>(&format!("{at}.word_embeddings.weight")).select(0, ids).reshape([count, length, hidden]);
    let positions = leaves.get::<2>(&format!("{at}.position_embeddings.weight")).slice_dim(0, 0..length);
    let kind = leaves.get::<2>(&format!("{at}.token_type_embeddings.weight")).slice_dim(0, 0..1);
    let sum = words + (positions + kind).unsqueeze();
    let mut x = norm(sum.reshape([count * length, hidden]), &format!("{at}.LayerNorm"));
    for l in 0..config.num_hidden_layers {
        let at = format!("{BERT}.encoder.layer.{l}");
        let split = |name: &str, x: &Tensor<2>| {
            let y = linear(x.clone(), &format!("{at}.attention.self.{name}"));
            y.reshape([count, length, heads, hidden / heads]).swap_dims(1, 2)
        };
        let (q, k, v) = (split("query", &x), split("key", &x), split("value", &x));
        let logits = q.matmul(k.swap_dims(2, 3)) / ((hidden / heads) as f32).sqrt() + mask.clone();
        let context = softmax(logits, 3).matmul(v).swap_dims(1, 2).reshape([count * length, hidden]);
        let y = linear(context, &format!("{at}.attention.output.dense")) + x;
        let y = norm(y, &format!("{at}.attention.output.LayerNorm"));
        let inner = gelu(linear(y.clone(), &format!("{at}.intermediate.dense")));
        x = norm(linear(inner, &format!("{at}.output.dense")) + y, &format!("{at}.output.LayerNorm"));
    }
    let cls = x.reshape([count, length, hidden]).slice_dim(1, 0..1).reshape([count, hidden]);
    l2_normalize(cls.matmul(leaves.get::<2>("to_text_latent.weight").transpose()))
}
