//! What is learned: named tensors of the checkpoint, their gradients, and two optimizers: AdamW (Loshchilov, Hutter 2019, arXiv
//! 1711.05101), and for matrices between hidden layers Muon (Jordan 2024, in the scale of arXiv 2502.16982).

use super::tower::linear;
use super::tower::turned;
use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use ctmatch::weights::Dtype;
use ctmatch::weights::checkpoint::Checkpoint;
use ctmatch::weights::safetensors_out::TensorData;
use ctmatch::weights::safetensors_out::write;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Index;

/// Decay of the running means of gradients and of their squares.
const BETAS: [f32; 2] = [0.9, 0.98];
const EPSILON: f32 = 1e-8;
/// Weight decay of matrices; vectors have none.
const DECAY: f32 = 0.05;
/// Decay of Muon's running mean of gradients.
const MOMENTUM: f32 = 0.95;
/// Length of one of its updates per entry, which is about that of AdamW's.
const ENTRY: f32 = 0.2;
/// Keys of matrices that Muon moves: those between hidden layers.
const HIDDEN: [&str; 3] = ["to_patch_emb.2.weight", "enc_spatial_transformer.layers", "encoder.layer"];
/// Largest norm of all gradients together.
const MAX_NORM: f32 = 1.0;
/// Names of what is learned and not part of the checkpoint begin so.
pub const EXTRA: &str = "train.";

/// One tensor with the running means of its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
    means: Vec<f32>,
    squares: Vec<f32>,
}

impl Parameter {
    /// One step of Muon: along the running mean with all its singular values made about 1.
    fn turn(&mut self, gradient: &[f32], rate: f32, decay: f32) {
        self.means.iter_mut().zip(gradient).for_each(|(mean, g)| *mean = MOMENTUM * *mean + g);
        let ahead: Vec<f32> = self.means.iter().zip(gradient).map(|(mean, g)| MOMENTUM * mean + g).collect();
        let longest = self.shape[0].max(self.shape[1]) as f32;
        let length = rate * ENTRY * longest.sqrt();
        let update = orthogonal(&ahead, self.shape[0]);
        self.values.iter_mut().zip(update).for_each(|(value, step)| *value = *value * decay - length * step);
    }
}

/// The nearest matrix with orthogonal rows or columns, roughly: five iterations of Newton and Schulz with Jordan's coefficients.
fn orthogonal(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows;
    if rows > columns {
        return turned(&orthogonal(&turned(matrix, rows), columns), columns);
    }
    let length = matrix.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    let mut x: Vec<f32> = matrix.iter().map(|x| x / length).collect();
    for _ in 0..5 {
        let square = linear(&x, columns, &x);
        let fourth = linear(&square, rows, &square);
        let mixed: Vec<f32> = square.iter().zip(&fourth).map(|(a, b)| -4.775 * a + 2.0315 * b).collect();
        let product = linear(&mixed, rows, &turned(&x, rows));
        x.iter_mut().zip(product).for_each(|(x, y)| *x = 3.4445 * *x + y);
    }
    x
}

/// All tensors by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parameters(BTreeMap<String, Parameter>);

/// Gradients by the names of their parameters.
#[derive(Debug, Default)]
pub struct Gradients(pub BTreeMap<String, Vec<f32>>);

impl Gradients {
    pub fn add(&mut self, name: &str, gradient: &[f32]) {
        match self.0.get_mut(name) {
            Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g),
            None => drop(self.0.insert(name.into(), gradient.to_vec())),
        }
    }

    pub fn merge(&mut self, other: &Gradients) {
        other.0.iter().for_each(|(name, gradient)| self.add(name, gradient));
    }
}

impl Index<&str> for Parameters {
    type Output = [f32];

    fn index(&self, name: &str) -> &[f32] {
        &self.0.get(name).unwrap_or_else(|| panic!("no parameter {name}")).values
    }
}

impl Parameters {
    pub fn insert(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
        let zeros = || vec![0.0; values.len()];
        let (means, squares) = (zeros(), zeros());
        self.0.insert(name.into(), Parameter { shape: shape.to_vec(), values, means, squares });
    }

    pub fn get(&self, name: &str) -> &Parameter {
        self.0.get(name).unwrap_or_else(|| panic!("no parameter {name}"))
    }

    pub fn values_mut(&mut self, name: &str) -> &mut Vec<f32> {
        &mut self.0.get_mut(name).unwrap_or_else(|| panic!("no parameter {name}")).values
    }

    /// Forgets the running means: another loss begins.
    pub fn forget(&mut self) {
        for parameter in self.0.values_mut() {
            parameter.means.fill(0.0);
            parameter.squares.fill(0.0);
        }
    }

    /// One step of AdamW for the parameters that have a gradient, the `number`-th from 1; returns the norm before clipping.
    pub fn step(&mut self, gradients: &Gradients, rate: f32, number: usize) -> f32 {
        let squares: f64 = gradients.0.values().flatten().map(|g| f64::from(*g) * f64::from(*g)).sum();
        let norm = squares.sqrt() as f32;
        if !norm.is_finite() {
            return norm;
        }
        let clip = (MAX_NORM / norm.max(1e-12)).min(1.0);
        let [b1, b2] = BETAS;
        let correction = [1.0 - b1.powi(number as i32), 1.0 - b2.powi(number as i32)];
        for (name, gradient) in &gradients.0 {
            let parameter = self.0.get_mut(name).unwrap_or_else(|| panic!("no parameter {name}"));
            let decay = if parameter.shape.len() > 1 { 1.0 - rate * DECAY } else { 1.0 };
            if parameter.shape.len() == 2 && HIDDEN.iter().any(|key| name.contains(key)) {
                parameter.turn(gradient, rate, decay);
                continue;
            }
            let moments = parameter.means.iter_mut().zip(&mut parameter.squares);
            for ((value, (mean, square)), g) in parameter.values.iter_mut().zip(moments).zip(gradient) {
                let g = g * clip;
                *mean = b1 * *mean + (1.0 - b1) * g;
                *square = b2 * *square + (1.0 - b2) * g * g;
                let update = (*mean / correction[0]) / ((*square / correction[1]).sqrt() + EPSILON);
                *value = *value * decay - rate * update;
            }
        }
        norm
    }

    /// The tensors of the checkpoint as a safetensors file.
    pub fn checkpoint(&self) -> Result<Vec<u8>> {
        let wanted = self.0.iter().filter(|(name, _)| !name.starts_with(EXTRA));
        let tensors: Vec<_> = wanted.map(|(name, p)| (name.clone(), &p.shape[..], bytes(&p.values))).collect();
        safetensors(&tensors, &BTreeMap::new())
    }

    /// Everything that going on needs, with `notes`.
    pub fn state(&self, notes: &BTreeMap<String, String>) -> Result<Vec<u8>> {
        let mut tensors = Vec::new();
        for (name, p) in &self.0 {
            for (suffix, values) in [("value", &p.values), ("mean", &p.means), ("square", &p.squares)] {
                tensors.push((format!("{name}|{suffix}"), &p.shape[..], bytes(values)));
            }
        }
        safetensors(&tensors, notes)
    }

    /// Back from [`Parameters::state`]; every parameter must be there in its shape.
    pub fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut file = Checkpoint::open(Cursor::new(state))?;
        for (name, p) in &mut self.0 {
            for (suffix, values) in [("value", &mut p.values), ("mean", &mut p.means), ("square", &mut p.squares)] {
                let name = format!("{name}|{suffix}");
                let found = file.entries().get(&name).with_context(|| format!("the state has no {name}"))?;
                ensure!(found.shape == p.shape, "the state is that of another model: {name}");
                *values = file.read_f32(&name)?;
            }
        }
        Ok(())
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn safetensors(tensors: &[(String, &[usize], Vec<u8>)], notes: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let described: Vec<_> =
        tensors.iter().map(|(name, shape, bytes)| TensorData { name, dtype: Dtype::F32, shape, bytes }).collect();
    Ok(write(&described, notes)?)
}
