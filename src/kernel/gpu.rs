//! The GPU's kernels of our own: what burn composes of many (a layer norm of 9, an attention of 20 and more) in one each, without the
//! tensors between them. `None` for tensors that are not on a GPU, are empty or have gradients, and for heads that are too wide: then burn's
//! operations do it.

mod shaders;

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
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), DType::F32)
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

/// See [`super::geglu`].
pub(super) fn geglu(h: &Tensor<2>) -> Option<Tensor<2>> {
    let input = floats(h)?;
    let [rows, both] = h.dims();
    let out = empty([rows, both / 2], &input);
    let (count, dim) = threads(rows * both / 2, &input);
    shaders::geglu::launch(
        &out.client.clone(),
        count,
        dim,
        input.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        both / 2,
    );
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
    if !attends(dim_head) {
        return None;
    }
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
