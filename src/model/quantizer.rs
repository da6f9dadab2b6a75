//! The cosine codebook: every token becomes its nearest codebook row (CTCLIP.md 3.7).

use super::chunks;
use super::joined;
use crate::kernel;
use crate::kernel::Factor;
use crate::kernel::Matrix;
use crate::kernel::l2_normalize;
use burn::tensor::Int;
use burn::tensor::Tensor;

/// Codebook with its normalized twin for the search.
#[derive(Debug, Clone)]
pub struct Codebook {
    /// `[codes, dim]` as stored: what a token is replaced by
    rows: Matrix,
    /// `[codes, dim]`, unit rows, f32: the argmax is the one discontinuity of the network
    search: Matrix,
}

impl Codebook {
    /// Takes the rows as stored, `[codes, dim]`.
    pub fn new(rows: Matrix) -> Self {
        let search = Matrix::Dense(l2_normalize(rows.dense()));
        Self { rows, search }
    }

    /// Index of the row with the largest cosine for each token, and the rows themselves.
    ///
    /// # Shape
    /// - `tokens`: `[tokens, dim]`; returns `[tokens]` and `[tokens, dim]`
    pub fn quantize(&self, tokens: Tensor<2>) -> (Tensor<1, Int>, Tensor<2>) {
        let count = tokens.dims()[0];
        let codes = self.search.dims()[0];
        let dim = tokens.dims()[1];
        let search = Factor::new(&self.search, count);
        let width = if search.stores_products() { codes } else { dim };
        let parts = chunks(&tokens.device(), count, 4 * width, 2 * kernel::product_of([dim, codes])).map(|range| {
            let tokens = l2_normalize(tokens.clone().slice_dim(0, range));
            kernel::argmax_of_product(tokens, &search)
        });
        let indices: Tensor<1, Int> = joined(parts.collect());
        let rows = self.rows(indices.clone());
        (indices, rows)
    }

    /// The rows of these numbers, as stored.
    ///
    /// # Shape
    /// - `indices`: `[tokens]`; returns `[tokens, dim]`
    pub fn rows(&self, indices: Tensor<1, Int>) -> Tensor<2> {
        self.rows.select(indices)
    }
}
