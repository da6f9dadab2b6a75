//! Intermediate results by name, for parity tests and `encode --stages`. Collects nothing unless asked.

use burn::tensor::Int;
use burn::tensor::Tensor;

/// One intermediate result, still on the device.
#[derive(Debug)]
pub enum StageTensor {
    /// flat numbers
    Float(Tensor<1>),
    /// flat indices
    Int(Tensor<1, Int>),
}

/// Named intermediate results in the order of computation. Names as in the reference fixtures.
#[derive(Debug, Default)]
pub struct Stages {
    wanted: bool,
    list: Vec<(String, Vec<usize>, StageTensor)>,
}

impl Stages {
    /// Collects nothing: what an ordinary encode uses.
    pub fn off() -> Self {
        Self::default()
    }

    /// Keeps every stage.
    pub fn all() -> Self {
        Self { wanted: true, list: Vec::new() }
    }

    /// Keeps a result under a name.
    pub fn keep<const D: usize>(&mut self, name: impl FnOnce() -> String, tensor: &Tensor<D>) {
        if self.wanted {
            let flat = StageTensor::Float(tensor.clone().reshape([-1]));
            self.list.push((name(), tensor.dims().to_vec(), flat));
        }
    }

    /// Keeps one part of a result that is computed in parts along the first axis.
    pub fn keep_part(&mut self, name: &str, tensor: &Tensor<2>) {
        if !self.wanted {
            return;
        }
        let flat = tensor.clone().reshape([-1]);
        match self.list.iter_mut().find(|(kept, _, _)| kept == name) {
            Some((_, shape, StageTensor::Float(whole))) => {
                shape[0] += tensor.dims()[0];
                *whole = Tensor::cat(vec![whole.clone(), flat], 0);
            }
            _ => self.list.push((name.into(), tensor.dims().to_vec(), StageTensor::Float(flat))),
        }
    }

    /// Splits the first axis of a result into these axes.
    pub fn split_rows(&mut self, name: &str, axes: &[usize]) {
        if let Some((_, shape, _)) = self.list.iter_mut().find(|(kept, _, _)| kept == name) {
            shape.splice(0..1, axes.iter().copied());
        }
    }

    /// Keeps indices under a name.
    pub fn keep_indices<const D: usize>(&mut self, name: impl FnOnce() -> String, tensor: &Tensor<D, Int>) {
        if self.wanted {
            let flat = StageTensor::Int(tensor.clone().reshape([-1]));
            self.list.push((name(), tensor.dims().to_vec(), flat));
        }
    }

    /// Name, shape and tensor of each stage.
    pub fn into_list(self) -> Vec<(String, Vec<usize>, StageTensor)> {
        self.list
    }
}
