//! The GPU's kernels of our own: what burn composes of many (a layer norm of 9, an attention of 20 and more) in one each, without the
//! tensors between them. `None` for tensors that are not on a GPU, are empty or have gradients: then burn's operations do it.

mod product;
mod shaders;

use super::Matrix;
use burn::backend::Wgpu;
use burn::tensor::DType;
use burn::tensor::Int;
use burn::tensor::Shape;
use burn::tensor::Tensor;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::CubeCount;
use cubecl::CubeDim;
use cubecl::calculate_cube_count_elemwise;
use product::SizesLaunch;
use product::Stored;

/// WebGPU's limit for each direction of the grid of cubes (WebGPU 3.6.2).
const MAX_CUBES: usize = 65_535;

/// Numbers of keys in a tile of attention, and as many of values: 8 KiB of the 16 that every device has for a cube.
const TILE_NUMBERS: usize = 1024;

/// Widest head whose query and sums a thread may keep: 64 registers of four numbers.
const MAX_HEAD: usize = 128;

/// As the kernels read it: row by row. There is always something to read.
fn floats<const D: usize>(x: &Tensor<D>) -> Option<CubeTensor> {
    let filled = Some(x.clone()).filter(|x| x.dims().iter().all(|&size| size > 0))?;
    filled.try_into_primitive::<Wgpu>().ok().map(into_contiguous)
}

fn ints<const D: usize>(x: &Tensor<D, Int>) -> Option<CubeTensor> {
    x.clone().try_into_primitive::<Wgpu>().ok().map(into_contiguous)
}

/// Room for the numbers of `shape` beside `like`.
fn empty(shape: impl Into<Shape>, like: &CubeTensor) -> CubeTensor {
    empty_of(DType::F32, shape, like)
}

fn empty_of(numbers: DType, shape: impl Into<Shape>, like: &CubeTensor) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), numbers)
}

fn tensor<const D: usize>(x: CubeTensor) -> Tensor<D> {
    Tensor::from_primitive::<Wgpu>(x)
}

/// How many numbers are read at a time, so that all of these rows divide by it.
fn vector(widths: &[usize]) -> usize {
    if widths.iter().all(|width| width.is_multiple_of(4)) { 4 } else { 1 }
}

/// Along two directions of the grid a cube for each of `count`, perhaps some more.
fn cubes(count: usize) -> [u32; 2] {
    let first = count.min(MAX_CUBES);
    [first as u32, count.div_ceil(first) as u32]
}

/// A cube for each row, perhaps some more.
fn cube_for_each(rows: usize) -> CubeCount {
    let [x, y] = cubes(rows);
    CubeCount::Static(x, y, 1)
}

/// A thread for each of `count`.
fn threads(count: usize, like: &CubeTensor) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(&like.client, count);
    (calculate_cube_count_elemwise(&like.client, count, dim), dim)
}

/// Rows and width of the last axis.
fn rows_of<const D: usize>(x: &Tensor<D>) -> [usize; 2] {
    let shape = x.dims();
    [shape[..D - 1].iter().product(), shape[D - 1]]
}

/// Cubes of a product along the columns, `width` each, and the rows, and how many times 64 rows a cube takes.
fn tiles(rows: usize, columns: usize, width: usize) -> (usize, usize, usize) {
    /// With fewer large cubes than this small ones keep more of a GPU busy.
    const ENOUGH_CUBES: usize = 256;
    let across = columns.div_ceil(width);
    let large = rows.div_ceil(128);
    if across * large >= ENOUGH_CUBES { (across, large, 2) } else { (across, rows.div_ceil(64), 1) }
}

/// Whether [`product`] takes such weights: it unpacks four numbers at a time, with one scale.
pub(super) fn multiplies(weight: &Matrix) -> bool {
    match weight {
        Matrix::Dense(_) => true,
        Matrix::Quantized(matrix) => (matrix.dims()[1] / matrix.parts().1.dims()[1]).is_multiple_of(4),
    }
}

/// A weight matrix as the kernels of products take it. What they do not ask for still needs a buffer to be bound.
struct Weight {
    stored: Stored,
    dense: CubeTensor,
    q: CubeTensor,
    scale: CubeTensor,
    zero: CubeTensor,
    words: usize,
    groups: usize,
}

impl Weight {
    fn new(weight: &Matrix, other: &CubeTensor) -> Option<Self> {
        let other = || other.clone();
        let matrix = match weight {
            Matrix::Dense(tensor) => {
                let [dense, q, scale, zero] = [floats(tensor)?, other(), other(), other()];
                return Some(Self { stored: Stored::Floats, dense, q, scale, zero, words: 1, groups: 1 });
            }
            Matrix::Quantized(matrix) => matrix,
        };
        let (q, scale, zero) = matrix.parts();
        let ([_, words], [_, groups]) = (q.dims(), scale.dims());
        let (dense, q, scale) = (other(), ints(q)?, floats(scale)?);
        let (stored, zero) = match zero {
            Some(zero) => (Stored::Nibbles, floats(zero)?),
            None => (Stored::Bytes, other()),
        };
        Some(Self { stored, dense, q, scale, zero, words, groups })
    }
}

/// `x · weightᵀ + bias`, or of a layer's values and gates `values · gelu(gates)`; see [`super::Factor`].
pub(super) fn product(x: &Tensor<2>, weight: &Matrix, bias: Option<&Tensor<1>>, gated: bool) -> Option<Tensor<2>> {
    let ([rows, depth], [all, _]) = (x.dims(), weight.dims());
    let (columns, width) = if gated { (all / 2, product::COLUMNS / 2) } else { (all, product::COLUMNS) };
    let input = floats(x)?;
    let weight = Weight::new(weight, &input)?;
    let biases = bias.map_or(Some(input.clone()), floats)?;
    let out = empty([rows, columns], &input);
    let (across, down, pieces) = tiles(rows, columns, width);
    product::product::launch(
        &out.client.clone(),
        CubeCount::Static(across as u32, down as u32, 1),
        CubeDim::new_1d(product::UNITS),
        vector(&[depth]),
        vector(&[columns]),
        input.into_buffer_arg(),
        weight.dense.into_buffer_arg(),
        weight.q.into_buffer_arg(),
        weight.scale.into_buffer_arg(),
        weight.zero.into_buffer_arg(),
        biases.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        SizesLaunch::new(rows, columns, depth, weight.words, weight.groups),
        pieces,
        weight.stored,
        bias.is_some(),
        gated,
    );
    Some(tensor(out))
}

/// See [`super::products_by_position`].
pub(super) fn products_by_position(x: &Tensor<3>, weight: &Matrix) -> Option<Tensor<2>> {
    let ([batch, positions, depth], [rows, _]) = (x.dims(), weight.dims());
    let columns = rows / positions;
    let input = floats(x)?;
    let weight = Weight::new(weight, &input)?;
    let out = empty([batch, columns], &input);
    product::products_by_position::launch(
        &out.client.clone(),
        CubeCount::Static(columns as u32, batch as u32, 1),
        CubeDim::new_1d(shaders::ROW_UNITS),
        vector(&[depth]),
        input.into_buffer_arg(),
        weight.dense.into_buffer_arg(),
        weight.q.into_buffer_arg(),
        weight.scale.into_buffer_arg(),
        weight.zero.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        positions,
        SizesLaunch::new(batch * positions, columns, depth, weight.words, weight.groups),
        weight.stored,
    );
    Some(tensor(out))
}

/// See [`super::argmax_of_product`].
pub(super) fn argmax_of_product(x: &Tensor<2>, weight: &Matrix) -> Option<Tensor<1, Int>> {
    /// As many cubes as keep a large GPU busy.
    const CUBES: usize = 1024;
    let ([rows, depth], [columns, _]) = (x.dims(), weight.dims());
    let input = floats(x)?;
    let weight = Weight::new(weight, &input)?;
    let (across, down, pieces) = tiles(rows, columns, product::COLUMNS);
    let tiles = across.div_ceil(CUBES.div_ceil(down).min(across));
    let parts = across.div_ceil(tiles);
    let candidates = parts * product::CANDIDATES;
    let values = empty([rows, candidates], &input);
    let found = empty_of(DType::I32, [rows, candidates], &input);
    let out = empty_of(DType::I32, [rows], &input);
    let client = out.client.clone();
    let (count, dim) = threads(rows, &input);
    product::largest::launch(
        &client,
        CubeCount::Static(parts as u32, down as u32, 1),
        CubeDim::new_1d(product::UNITS),
        vector(&[depth]),
        input.into_buffer_arg(),
        weight.dense.into_buffer_arg(),
        weight.q.into_buffer_arg(),
        weight.scale.into_buffer_arg(),
        weight.zero.into_buffer_arg(),
        values.clone().into_buffer_arg(),
        found.clone().into_buffer_arg(),
        SizesLaunch::new(rows, columns, depth, weight.words, weight.groups),
        tiles,
        candidates,
        pieces,
        weight.stored,
    );
    product::first_of_largest::launch(
        &client,
        count,
        dim,
        values.into_buffer_arg(),
        found.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        candidates,
    );
    Some(Tensor::from_primitive::<Wgpu>(out))
}

/// See [`super::layer_norm`].
pub(super) fn layer_norm<const D: usize>(
    x: &Tensor<D>,
    gamma: &Tensor<1>,
    beta: &Tensor<1>,
    epsilon: f64,
) -> Option<Tensor<D>> {
    let (input, gamma, beta) = (floats(x)?, floats(gamma)?, floats(beta)?);
    let [rows, width] = rows_of(x);
    let (out, n) = (empty(x.dims(), &input), vector(&[width]));
    shaders::layer_norm::launch(
        &out.client.clone(),
        cube_for_each(rows),
        CubeDim::new_1d(shaders::ROW_UNITS),
        n,
        input.into_buffer_arg(),
        gamma.into_buffer_arg(),
        beta.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        rows,
        width / n,
        epsilon as f32,
    );
    Some(tensor(out))
}

/// See [`super::l2_normalize`].
pub(super) fn l2_normalize<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    let input = floats(x)?;
    let [rows, width] = rows_of(x);
    let (out, n) = (empty(x.dims(), &input), vector(&[width]));
    shaders::l2_normalize::launch(
        &out.client.clone(),
        cube_for_each(rows),
        CubeDim::new_1d(shaders::ROW_UNITS),
        n,
        input.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        rows,
        width / n,
    );
    Some(tensor(out))
}

/// See [`super::gelu`].
pub(super) fn gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    let input = floats(x)?;
    let out = empty(x.dims(), &input);
    let (count, dim) = threads(x.dims().iter().product(), &input);
    shaders::gelu::launch(&out.client.clone(), count, dim, input.into_buffer_arg(), out.clone().into_buffer_arg());
    Some(tensor(out))
}

/// See [`super::QuantizedMatrix::dense`].
pub(super) fn dequantize(
    q: &Tensor<2, Int>,
    scale: &Tensor<2>,
    zero: Option<&Tensor<2>>,
    columns: usize,
) -> Option<Tensor<2>> {
    let ([rows, words], [_, groups]) = (q.dims(), scale.dims());
    let (q, scale_of) = (ints(q)?, floats(scale)?);
    // Where there is no offset the kernel has none; its binding needs a buffer all the same.
    let zero_of = floats(zero.unwrap_or(scale))?;
    let n = vector(&[columns, columns / groups]);
    let out = empty([rows, columns], &q);
    let (count, dim) = threads(rows * columns / n, &q);
    shaders::dequantize::launch(
        &out.client.clone(),
        count,
        dim,
        n,
        q.into_buffer_arg(),
        scale_of.into_buffer_arg(),
        zero_of.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        columns,
        words,
        groups,
        zero.is_some(),
    );
    Some(tensor(out))
}

/// See [`super::depthwise`].
pub(super) fn depthwise(x: &Tensor<5>, weight: &Tensor<5>, bias: &Tensor<1>) -> Option<Tensor<5>> {
    let shape @ [_, depth, height, width, channels] = x.dims();
    let (input, bias) = (floats(x)?, floats(bias)?);
    // Next to each other in memory what neighbouring threads read.
    let weight = floats(&weight.clone().reshape([channels, 27]).transpose())?;
    let (out, n) = (empty(shape, &input), vector(&[channels]));
    let (count, dim) = threads(shape.iter().product::<usize>() / n, &input);
    shaders::depthwise::launch(
        &out.client.clone(),
        count,
        dim,
        n,
        input.into_buffer_arg(),
        weight.into_buffer_arg(),
        bias.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        depth,
        height,
        width,
        channels / n,
    );
    Some(tensor(out))
}

/// Whether [`attention`] takes heads of this width.
pub(super) fn attends(dim_head: usize) -> bool {
    dim_head <= MAX_HEAD
}

/// `softmax(logits) · values`, `[sequences, tokens, inner]`.
pub(super) fn attention(a: &super::Attention<'_>) -> Option<Tensor<3>> {
    let shape @ [sequences, tokens, inner] = a.q.dims();
    let dim_head = inner / a.heads;
    let (q, keys) = (floats(a.q)?, floats(a.keys)?);
    let values = a.values.map_or(Some(keys.clone()), floats)?;
    // What the kernel does not ask for still needs a buffer to be bound.
    let [q_scale, k_scale] = match a.scales {
        Some([q_scale, k_scale]) => [floats(q_scale)?, floats(k_scale)?],
        None => [q.clone(), q.clone()],
    };
    // Next to each other in memory what the threads read: one key and many queries.
    let bias = a.bias.map_or(Some(q.clone()), |bias| floats(&bias.clone().swap_dims(1, 2)))?;
    let n = vector(&[dim_head]);
    let units = if tokens > 32 { 64 } else { 32 };
    let out = empty(shape, &q);
    let [y, z] = cubes(sequences * a.heads);
    shaders::attention::launch(
        &out.client.clone(),
        CubeCount::Static(tokens.div_ceil(units) as u32, y, z),
        CubeDim::new_1d(units as u32),
        n,
        q.into_buffer_arg(),
        keys.into_buffer_arg(),
        values.into_buffer_arg(),
        q_scale.into_buffer_arg(),
        k_scale.into_buffer_arg(),
        bias.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        sequences,
        tokens,
        a.heads,
        a.keys.dims()[2] / n,
        if a.values.is_some() { 0 } else { inner / n },
        a.scale,
        dim_head / n,
        (TILE_NUMBERS / dim_head).min(tokens),
        units as u32,
        a.scales.is_some(),
        a.bias.is_some(),
    );
    Some(tensor(out))
}
