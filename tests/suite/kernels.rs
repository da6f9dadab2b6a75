//! `ctmatch::kernel`: the processor's twins, the GPU's and plain formulas in f64 agree; and what an encode costs is what the
//! formulas say.

use crate::gpu;
use crate::npy::parse_npy;
use crate::parity_body::CASES;
use crate::parity_body::Folder;
use burn::tensor::Device as TensorDevice;
use burn::tensor::Tensor;
use burn::tensor::TensorData;
use ctmatch::device::Device;
use ctmatch::kernel;
use ctmatch::kernel::Factor;
use ctmatch::kernel::Matrix;
use ctmatch::kernel::product::Packed;
use ctmatch::kernel::product::Panels;
use ctmatch::kernel::product::Rows;
use ctmatch::model::stages::Stages;
use ctmatch::session::Phase;
use ctmatch::session::Progress;
use ctmatch::session::unwatched;
use ctmatch::weights::schema::VisionConfig;

/// Seeded numbers in -1..1.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &TensorDevice) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    wide(&tensor.into_data().try_to_vec::<f32>().unwrap())
}

/// Every number within `tolerance` of the largest expected one.
fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f64, |most, x| most.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / largest;
        assert!(error <= tolerance, "{what} [{i}]: {found} for {expected}, {error:e} of the largest");
    }
}

/// Both kinds of device.
fn devices() -> [Device; 2] {
    [Device::cpu(), gpu::device()]
}

#[test]
fn gated_units_equal_the_formula() {
    // Odd widths leave a rest behind the vectors; the range covers both tails of the error function.
    for (rows, inner) in [(1, 1), (3, 5), (7, 1365), (40, 64)] {
        let values: Vec<f32> = numbers(1, rows * 2 * inner).into_iter().map(|x| x * 9.0).collect();
        let expected: Vec<f64> = values
            .chunks_exact(2 * inner)
            .flat_map(|row| (0..inner).map(|i| f64::from(row[i]) * gelu(f64::from(row[inner + i]))))
            .collect();
        for device in devices() {
            let h = tensor(&values, [rows, 2 * inner], device.tensors());
            assert_close("geglu", &read(kernel::geglu(h)), &expected, 1e-6);
        }
    }
}

/// `x · Φ(x)`; the error function as its power series, which f64 carries to |z| < 7.
fn gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    let (mut term, mut sum) = (z, z);
    for n in 1..400 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    let erf = if z.abs() > 5.0 { z.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() };
    0.5 * x * (1.0 + erf)
}

/// `[sequences, tokens, inner]` of `softmax(8 · q̂ · k̂ᵀ + bias) · v`, number by number.
fn attention(
    [sequences, tokens, heads, dim]: [usize; 4],
    [q, kv]: [&[f32]; 2],
    scales: [&[f32]; 2],
    bias: Option<&[f32]>,
) -> Vec<f64> {
    let inner = heads * dim;
    let unit = |row: &[f32], scale: &[f32]| -> Vec<f64> {
        let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        row.iter().zip(scale).map(|(&x, &s)| f64::from(x) / length * f64::from(s)).collect()
    };
    let mut out = vec![0.0; sequences * tokens * inner];
    for s in 0..sequences {
        for h in 0..heads {
            for i in 0..tokens {
                let query = unit(&q[(s * tokens + i) * inner + h * dim..][..dim], scales[0]);
                let row = |j: usize| &kv[(s * tokens + j) * 2 * inner..][..2 * inner];
                let logit = |j: usize| {
                    let key = unit(&row(j)[h * dim..][..dim], scales[1]);
                    let cosine: f64 = query.iter().zip(&key).map(|(a, b)| a * b).sum();
                    8.0 * cosine + bias.map_or(0.0, |bias| f64::from(bias[(h * tokens + i) * tokens + j]))
                };
                let weights: Vec<f64> = (0..tokens).map(|j| logit(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for c in 0..dim {
                    let sum: f64 = (0..tokens).map(|j| weights[j] * f64::from(row(j)[inner + h * dim + c])).sum();
                    out[(s * tokens + i) * inner + h * dim + c] = sum / total;
                }
            }
        }
    }
    out
}

#[test]
fn cosine_attention_equals_the_formula() {
    // Below a tile of keys and beyond, one cube of queries and several with a rest; heads that no vector of four divides, the widest
    // that the GPU's kernel takes, and a wider one; more sequences than one direction of the grid has cubes.
    for (shape, biased) in [
        ([2, 5, 3, 4], true),
        ([3, 24, 2, 32], false),
        ([1, 33, 1, 7], true),
        ([4, 1, 2, 2], false),
        ([2, 150, 2, 32], true),
        ([1, 70, 2, 128], true),
        ([2, 9, 1, 132], true),
        ([40_000, 2, 2, 1], false),
    ] {
        let [sequences, tokens, heads, dim] = shape;
        let inner = heads * dim;
        let q = numbers(2, sequences * tokens * inner);
        let kv = numbers(3, sequences * tokens * 2 * inner);
        let (q_scale, k_scale) = (numbers(4, dim), numbers(5, dim));
        let bias: Vec<f32> = numbers(6, heads * tokens * tokens).into_iter().map(|x| x * 4.0).collect();
        let bias = biased.then_some(&bias[..]);
        let expected = attention(shape, [&q, &kv], [&q_scale, &k_scale], bias);
        for device in devices() {
            let device = device.tensors();
            let bias = bias.map(|bias| tensor(bias, [heads, tokens, tokens], device));
            let found = kernel::cosine_attention(
                tensor(&q, [sequences, tokens, inner], device),
                tensor(&kv, [sequences, tokens, 2 * inner], device),
                &tensor(&q_scale, [dim], device),
                &tensor(&k_scale, [dim], device),
                8.0,
                bias.as_ref(),
            );
            assert_close("attention", &read(found), &expected, 1e-5);
        }
    }
}

#[test]
fn attention_of_texts_equals_the_formula() {
    for (shape, masked) in
        [([2, 5, 3, 4], false), ([1, 130, 2, 64], false), ([3, 7, 2, 5], true), ([2, 6, 1, 130], false)]
    {
        let [sequences, tokens, heads, dim] = shape;
        let inner = heads * dim;
        let [q, k, v] = [2, 3, 4].map(|seed| numbers(seed, sequences * tokens * inner));
        let mask: Vec<f32> =
            (0..sequences * tokens).map(|i| if masked && i % 3 == 0 { f32::MIN } else { 0.0 }).collect();
        let at =
            |x: &[f32], s: usize, i: usize, h: usize, c: usize| f64::from(x[((s * tokens + i) * heads + h) * dim + c]);
        let mut expected = Vec::new();
        for (s, i, h) in cells([sequences, tokens, heads]) {
            let weight = |j: usize| {
                let product: f64 = (0..dim).map(|c| at(&q, s, i, h, c) * at(&k, s, j, h, c)).sum();
                (product / (dim as f64).sqrt() + f64::from(mask[s * tokens + j])).exp()
            };
            let weights: Vec<f64> = (0..tokens).map(weight).collect();
            let total: f64 = weights.iter().sum();
            expected
                .extend((0..dim).map(|c| (0..tokens).map(|j| weights[j] * at(&v, s, j, h, c)).sum::<f64>() / total));
        }
        for device in devices() {
            let device = device.tensors();
            let [q, k, v] = [&q, &k, &v].map(|x| tensor(x, [sequences, tokens, inner], device));
            let mask = masked.then(|| tensor(&mask, [sequences, 1, 1, tokens], device));
            let found = kernel::attention(q, k, v, heads, mask.as_ref());
            assert_close("attention of texts", &read(found), &expected, 1e-5);
        }
    }
}

#[test]
fn norms_and_gelu_equal_the_formula() {
    // Rows below the threads of a cube and beyond, and more rows than one direction of the grid has cubes.
    for [rows, width] in [[1, 1], [3, 5], [2, 64], [5, 512], [2, 1030], [70_000, 3]] {
        // Neighbours differ, or a variance of nearly nothing would magnify how numbers were rounded.
        let x: Vec<f32> = (0..).zip(numbers(1, rows * width)).map(|(i, x)| x + (i % 2 * 3) as f32).collect();
        let (gamma, beta) = (numbers(2, width), numbers(3, width));
        let rows_of_x = || x.chunks_exact(width).map(wide);
        let expected = normal(&x, &gamma, &beta);
        let unit: Vec<f64> = rows_of_x()
            .flat_map(|row| {
                let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                row.into_iter().map(move |x| x / length).collect::<Vec<_>>()
            })
            .collect();
        let gated: Vec<f64> = wide(&x).into_iter().map(gelu).collect();
        for device in devices() {
            let device = device.tensors();
            let x = tensor(&x, [rows, width], device);
            let (gamma, beta) = (tensor(&gamma, [width], device), tensor(&beta, [width], device));
            assert_close("layer norm", &read(kernel::layer_norm(x.clone(), &gamma, &beta, 1e-5)), &expected, 2e-6);
            assert_close("unit rows", &read(kernel::l2_normalize(x.clone())), &unit, 1e-6);
            assert_close("gelu", &read(kernel::gelu(x)), &gated, 1e-6);
        }
    }
    for device in devices() {
        let zero = tensor(&[0.0; 8], [2, 4], device.tensors());
        assert_eq!(read(kernel::l2_normalize(zero)), [0.0; 8]);
    }
}

#[test]
fn kernels_take_views_of_larger_tensors() {
    let x = numbers(1, 6 * 10 * 8);
    for device in devices() {
        let whole = tensor(&x, [6, 10, 8], device.tensors());
        let part = |x: Tensor<3>| x.slice([1..5, 2..9, 0..8]).swap_dims(0, 1);
        let view = part(whole.clone());
        let copied = tensor(&part(whole).into_data().try_to_vec::<f32>().unwrap(), [7, 4, 8], device.tensors());
        assert_eq!(read(kernel::l2_normalize(view.clone())), read(kernel::l2_normalize(copied.clone())));
        assert_eq!(read(kernel::gelu(view.clone())), read(kernel::gelu(copied.clone())));
        let attend = |x: Tensor<3>| read(kernel::attention(x.clone(), x.clone() * 2.0, x, 2, None));
        assert_eq!(attend(view), attend(copied));
    }
}

#[test]
fn packed_products_equal_the_formula() {
    // One tile, ragged tiles, several tasks of rows, and sums that are taken in two parts.
    for [rows, depth, columns] in [[1, 1, 1], [4, 3, 8], [5, 17, 9], [97, 33, 50], [200, 32, 7], [9, 1030, 12]] {
        let (stride, width) = (depth + 3, columns + 2);
        let a = &numbers(10, rows * stride)[1..];
        let b = numbers(11, depth * width);
        let bias = numbers(12, columns);
        let product = |i: usize, j: usize| {
            (0..depth).map(|k| f64::from(a[i * stride + k]) * f64::from(b[k * width + j])).sum::<f64>()
        };
        let cells = || (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
        let expected: Vec<f64> = cells().map(|(i, j)| product(i, j) + f64::from(bias[j])).collect();
        let columns_of_b: Vec<f32> =
            (0..columns).flat_map(|j| (0..depth).map(move |k| (j, k))).map(|(j, k)| b[k * width + j]).collect();
        let a = Rows::new(a, stride, depth);
        for b in
            [Panels::of_rows(Rows::new(&b, width, columns)), Panels::of_columns(Rows::new(&columns_of_b, depth, depth))]
        {
            assert_close("product", &wide(&b.multiply(a, Some(&bias))), &expected, 1e-5);
            let mut out = vec![f32::NAN; rows * columns];
            // Memory that another product has left.
            let mut packed = Packed::new();
            let other = vec![f32::NAN; 13 * depth];
            b.multiply_into(Rows::new(&other, depth, depth), &mut vec![0.0; 13 * columns], &mut packed);
            b.multiply_into(a, &mut out, &mut packed);
            let expected: Vec<f64> = cells().map(|(i, j)| product(i, j)).collect();
            assert_close("product without bias", &wide(&out), &expected, 1e-5);
        }
    }
}

/// `x · weightᵀ`, row by row.
fn product_of(x: &[f64], weight: &[f32], depth: usize) -> Vec<f64> {
    let dot = |row: &[f64], column: &[f32]| row.iter().zip(column).map(|(a, &b)| a * f64::from(b)).sum();
    x.chunks_exact(depth).flat_map(|row| weight.chunks_exact(depth).map(move |column| dot(row, column))).collect()
}

#[test]
fn products_with_weights_equal_the_formula() {
    // Few rows and many, more than it was made ready for and fewer; ragged in every direction.
    for [rows, ready, depth, columns] in [
        [1, 1, 1, 1],
        [5, 5, 17, 9],
        [63, 63, 48, 33],
        [64, 64, 33, 50],
        [3, 200, 20, 70],
        [200, 3, 20, 70],
        [301, 301, 1030, 12],
        // On a GPU these take 128 rows a cube.
        [2100, 2100, 20, 1000],
        [8200, 8200, 3, 253],
    ] {
        let (x, weight, bias) = (numbers(1, rows * depth), numbers(2, columns * depth), numbers(3, columns));
        let expected = product_of(&wide(&x), &weight, depth);
        for device in devices() {
            let device = device.tensors();
            let factor = Factor::new(&Matrix::Dense(tensor(&weight, [columns, depth], device)), ready);
            let x = || tensor(&x, [rows, depth], device);
            assert_close("product", &read(factor.multiply(x(), None)), &expected, 1e-5);
            let largest: Vec<i32> = expected
                .chunks_exact(columns)
                .map(|row| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as i32)
                .collect();
            let found = kernel::argmax_of_product(x(), &factor).into_data().try_to_vec::<i32>().unwrap();
            assert_eq!(found, largest, "{rows} x {depth} x {columns}");
            let biased: Vec<f64> = expected.iter().zip(wide(&bias).iter().cycle()).map(|(x, b)| x + b).collect();
            let found = factor.multiply(x(), Some(&tensor(&bias, [columns], device)));
            assert_close("product with bias", &read(found), &biased, 1e-5);
            // A view: the rows but the first.
            if rows > 1 {
                let part = factor.multiply(x().slice_dim(0, 1..rows), None);
                assert_close("product of a view", &read(part), &expected[columns..], 1e-5);
            }
        }
    }
}

#[test]
fn products_by_position_equal_the_formula() {
    for [batch, positions, out, depth] in [[1, 1, 1, 1], [1, 16, 40, 20], [3, 5, 7, 33], [2, 2, 3, 1100]] {
        let (x, weight) = (numbers(1, batch * positions * depth), numbers(2, positions * out * depth));
        let expected: Vec<f64> = cells([batch, out, 1])
            .map(|(b, o, _)| {
                let row = |p: usize| &weight[(p * out + o) * depth..][..depth];
                let part = |p: usize| &x[(b * positions + p) * depth..][..depth];
                (0..positions).flat_map(|p| row(p).iter().zip(part(p))).map(|(w, x)| f64::from(w * x)).sum()
            })
            .collect();
        for device in devices() {
            let device = device.tensors();
            let weight = Matrix::Dense(tensor(&weight, [positions * out, depth], device));
            let found = kernel::products_by_position(tensor(&x, [batch, positions, depth], device), &weight);
            assert_eq!(found.dims(), [batch, out]);
            assert_close("products by position", &read(found), &expected, 1e-5);
        }
    }
}

#[test]
fn feed_forward_layers_equal_the_formula() {
    for [rows, dim, inner] in [[1, 4, 3], [63, 12, 20], [64, 12, 20], [250, 33, 41], [2100, 8, 530]] {
        let x: Vec<f32> = (0..).zip(numbers(1, rows * dim)).map(|(i, x)| x + (i % 2 * 3) as f32).collect();
        let (gamma, beta) = (numbers(2, dim), numbers(3, dim));
        let (up, down) = (numbers(4, 2 * inner * dim), numbers(5, dim * inner));
        let h = product_of(&normal(&x, &gamma, &beta), &up, dim);
        let gated: Vec<f64> =
            h.chunks_exact(2 * inner).flat_map(|row| (0..inner).map(|i| row[i] * gelu(row[inner + i]))).collect();
        let expected = product_of(&gated, &down, inner);
        for device in devices() {
            let device = device.tensors();
            let [gamma, beta] = [&gamma, &beta].map(|x| tensor(x, [dim], device));
            let up = Factor::new(&Matrix::Dense(tensor(&up, [2 * inner, dim], device)), rows);
            let down = Factor::new(&Matrix::Dense(tensor(&down, [dim, inner], device)), rows);
            let x = tensor(&x, [rows, dim], device);
            let found = kernel::feed_forward(x.clone(), (&gamma, &beta, 1e-5), &up, &down);
            assert_close("feed-forward", &read(found), &expected, 1e-5);
            assert_eq!(read(kernel::add(x.clone(), x.clone())), read(x * 2.0));
        }
    }
}

/// Layer norm in f64.
fn normal(x: &[f32], gamma: &[f32], beta: &[f32]) -> Vec<f64> {
    let normal_row = |row: &[f32]| {
        let row = wide(row);
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        let scaled = |(c, x)| (x - mean) / (variance + 1e-5).sqrt() * f64::from(gamma[c]) + f64::from(beta[c]);
        row.into_iter().enumerate().map(scaled).collect::<Vec<_>>()
    };
    x.chunks_exact(gamma.len()).flat_map(normal_row).collect()
}

#[test]
fn large_logits_neither_overflow_nor_vanish() {
    // One key wins by 16 over the others, on top of a bias that exp alone could not hold.
    for device in devices() {
        let device = device.tensors();
        let q = tensor(&[1.0, 0.0, 0.0, 1.0], [1, 2, 2], device);
        let kv = tensor(&[1.0, 0.0, 5.0, 6.0, -1.0, 0.0, 7.0, 8.0], [1, 2, 4], device);
        let one = tensor(&[1.0, 1.0], [2], device);
        for shift in [-300.0, 300.0] {
            let bias = tensor(&[shift; 4], [1, 2, 2], device);
            let found = read(kernel::cosine_attention(q.clone(), kv.clone(), &one, &one, 8.0, Some(&bias)));
            let first = 1.0 / (1.0 + (-16f64).exp());
            let mix = |a: f64, b: f64| a * first + b * (1.0 - first);
            assert_close("attention", &found, &[mix(5.0, 7.0), mix(6.0, 8.0), 6.0, 7.0], 1e-6);
        }
    }
}

#[test]
fn depthwise_convolution_equals_the_formula() {
    for shape in [[1, 1, 1, 1, 1], [2, 3, 4, 5, 3], [1, 5, 1, 2, 64], [1, 2, 3, 3, 130]] {
        let [batch, depth, height, width, channels] = shape;
        let x = numbers(7, shape.iter().product());
        let (weight, bias) = (numbers(8, channels * 27), numbers(9, channels));
        let mut expected = Vec::with_capacity(x.len());
        let at = |b: usize, d: usize, h: usize, w: usize, c: usize| {
            f64::from(x[(((b * depth + d) * height + h) * width + w) * channels + c])
        };
        for b in 0..batch {
            for (d, h, w) in cells([depth, height, width]) {
                for c in 0..channels {
                    let mut sum = f64::from(bias[c]);
                    for (kd, kh, kw) in cells([3, 3, 3]) {
                        // Causal in depth: two before, none after; centred in the plane.
                        let from = (d + kd).checked_sub(2).zip((h + kh).checked_sub(1)).zip((w + kw).checked_sub(1));
                        let Some(((d, h), w)) = from else { continue };
                        if d < depth && h < height && w < width {
                            sum += f64::from(weight[c * 27 + (kd * 3 + kh) * 3 + kw]) * at(b, d, h, w, c);
                        }
                    }
                    expected.push(sum);
                }
            }
        }
        for device in devices() {
            let device = device.tensors();
            let weight = tensor(&weight, [channels, 1, 3, 3, 3], device);
            let found = kernel::depthwise(tensor(&x, shape, device), &weight, &tensor(&bias, [channels], device));
            assert_close("depthwise", &read(found), &expected, 1e-6);
        }
    }
}

fn cells([a, b, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

#[test]
fn the_first_of_the_largest_is_found() {
    let mut x = numbers(10, 37 * 129);
    for row in 0..37 {
        // Twice the same largest number, in front, behind and within.
        let (first, second) = (row * 3 % 129, row * 3 % 129 + (128 - row * 3 % 129) / 2);
        x[row * 129 + first] = 2.0;
        x[row * 129 + second] = 2.0;
    }
    let expected: Vec<i32> = (0..37).map(|row| row * 3 % 129).collect();
    for device in devices() {
        let found = kernel::argmax(tensor(&x, [37, 129], device.tensors()));
        assert_eq!(found.into_data().try_to_vec::<i32>().unwrap(), expected);
    }
    // Of products: all below 0, which is what a column behind the last would give; every weight is there twice, in the same part of the columns
    // and in others. The depth is of whole steps and not.
    for (rows, depth, distinct) in [(1, 1, 1), (3, 16, 40), (70, 5, 33), (2100, 7, 250)] {
        let x: Vec<f32> = numbers(11, rows * depth).into_iter().map(|x| x.abs() + 0.1).collect();
        let half: Vec<f32> = numbers(12, distinct * depth).into_iter().map(|x| -x.abs() - 0.1).collect();
        let weight = [half.clone(), half].concat();
        let first =
            |products: &[f64]| (0..distinct).fold(0, |best, i| if products[i] > products[best] { i } else { best });
        let expected: Vec<i32> =
            product_of(&wide(&x), &weight, depth).chunks_exact(2 * distinct).map(|row| first(row) as i32).collect();
        for device in devices() {
            let factor = Factor::new(&Matrix::Dense(tensor(&weight, [2 * distinct, depth], device.tensors())), rows);
            let found = kernel::argmax_of_product(tensor(&x, [rows, depth], device.tensors()), &factor);
            assert_eq!(found.into_data().try_to_vec::<i32>().unwrap(), expected, "{rows} x {depth} x {distinct}");
        }
    }
}

#[test]
fn one_voxel_that_is_no_number_spoils_the_encode() {
    // The search would give such a token a code like any other, and the latent would look sound.
    let case = &CASES[0];
    let volume = parse_npy(case.volume);
    let shape: [usize; 5] = volume.shape.clone().try_into().unwrap();
    for device in devices() {
        let folder = Folder::convert(case.config, case.checkpoint, "f32").unwrap();
        let session = pollster::block_on(folder.open(&device)).unwrap();
        for spoiled in [f32::NAN, f32::INFINITY] {
            let mut voxels = volume.f32().to_vec();
            voxels[1234] = spoiled;
            let mut stages = Stages::off();
            let encoded = pollster::block_on(session.encode_grids(&voxels, shape, &mut stages, unwatched));
            assert_eq!(encoded.expect_err("a voxel is no number").code(), "BAD_RESULT");
        }
    }
}

/// Floating-point operations of the matrix products and convolutions of one image encode (CTCLIP.md 8.2).
fn image_flops(v: &VisionConfig, depth: usize, dim_latent: usize) -> usize {
    let plane = v.side() * v.side();
    let tokens = depth * plane;
    let inner = v.heads * v.dim_head;
    let layer = |sequence: usize| {
        let peg = 27 * v.dim;
        let projections = 4 * v.dim * inner;
        let attention = 2 * sequence * inner;
        let feed_forward = 3 * v.dim * v.ff_inner();
        tokens * (peg + projections + attention + feed_forward)
    };
    let patches = tokens * v.patch_len() * v.dim;
    let search = tokens * v.dim * v.codebook_size;
    let projection = plane * v.dim * dim_latent;
    2 * (patches + v.spatial_depth * layer(plane) + v.temporal_depth * layer(depth) + search + projection)
}

#[test]
fn an_encode_costs_what_the_formulas_say() {
    for case in &CASES {
        let folder = Folder::convert(case.config, case.checkpoint, "f32").unwrap();
        let session = pollster::block_on(folder.open(&Device::cpu())).unwrap();
        let volume = parse_npy(case.volume);
        let shape: [usize; 5] = volume.shape.clone().try_into().unwrap();
        let before = kernel::flops();
        let mut stages = Stages::off();
        pollster::block_on(session.encode_grids(volume.f32(), shape, &mut stages, unwatched)).unwrap();
        let m = session.manifest();
        let expected = shape[0] * image_flops(&m.vision, shape[2] / m.vision.temporal_patch_size, m.dim_latent);
        assert_eq!(kernel::flops() - before, expected as u64, "{}", case.name);
        let depth = shape[2] / m.vision.temporal_patch_size;
        assert_eq!(shape[0] as u64 * m.vision.flops(depth, m.dim_latent), expected as u64, "{}", case.name);
    }
    // The published model: 789.6 GFLOP, the budget of DESIGN.md 5 being 800.
    let full = VisionConfig {
        dim: 512,
        codebook_size: 8192,
        image_size: 480,
        patch_size: 20,
        temporal_patch_size: 10,
        spatial_depth: 4,
        temporal_depth: 4,
        dim_head: 32,
        heads: 8,
    };
    let gflop = image_flops(&full, 24, 512) as f64 / 1e9;
    assert!((789.0..800.0).contains(&gflop), "{gflop}");
}

#[test]
fn small_submissions_and_the_pauses_between_change_no_result() {
    let case = &CASES[0];
    let folder = Folder::convert(case.config, case.checkpoint, "f32").unwrap();
    let session = pollster::block_on(folder.open(&gpu::device())).unwrap();
    let volume = parse_npy(case.volume);
    let shape: [usize; 5] = volume.shape.clone().try_into().unwrap();
    let encode = || {
        let (mut pauses, mut stages) = (0, Stages::off());
        let pace = async |_| {
            pauses += 1;
            Ok(())
        };
        let found = pollster::block_on(session.encode_grids(volume.f32(), shape, &mut stages, pace)).unwrap();
        (found, pauses)
    };
    let (whole, few) = encode();
    // Attention and feed-forward layers in parts of one sequence and one group of rows.
    kernel::limit_submissions(1000);
    let (cut, many) = encode();
    kernel::limit_submissions(u64::MAX);
    assert!(few > 8 && many > 2 * few, "{few} {many}");
    for (whole, cut) in whole.iter().zip(&cut) {
        assert_eq!(whole.codes, cut.codes);
        let cosine: f32 = whole.latent.as_slice().iter().zip(cut.latent.as_slice()).map(|(a, b)| a * b).sum();
        assert!(cosine > 1.0 - 1e-6, "{cosine}");
    }
}

#[test]
fn a_call_stops_between_the_parts_of_a_step() {
    let case = &CASES[0];
    let folder = Folder::convert(case.config, case.checkpoint, "f32").unwrap();
    let session = pollster::block_on(folder.open(&Device::cpu())).unwrap();
    let volume = parse_npy(case.volume);
    let shape: [usize; 5] = volume.shape.clone().try_into().unwrap();
    let mut last = None;
    // The second time that a step is reported, the call is within it.
    let pace = async |at: Progress| {
        if last.replace(at) == Some(at) { Err(ctmatch::Error::Aborted) } else { Ok(()) }
    };
    let stopped = pollster::block_on(session.encode_grids(volume.f32(), shape, &mut Stages::off(), pace));
    assert_eq!(stopped.expect_err("it was to stop").code(), "ABORTED");
    assert_eq!(last.map(|at| (at.phase, at.done)), Some((Phase::Encode, 0)));
}

/// With a clock that goes with the work, the work is all that the estimate knows.
#[test]
fn an_estimate_reckons_with_the_work() {
    let case = &CASES[0];
    let folder = Folder::convert(case.config, case.checkpoint, "f32").unwrap();
    let clock = || kernel::flops() as f64 / 1e3;
    for device in devices() {
        let session = pollster::block_on(folder.open(&device)).unwrap();
        let found = pollster::block_on(session.estimate(None, clock, unwatched)).unwrap();
        let m = session.manifest();
        assert_eq!(found.flops, image_flops(&m.vision, m.token_grid()[0], m.dim_latent) as u64);
        assert!((found.encode_volume_ms / (found.flops as f64 / 1e3) - 1.0).abs() < 1e-9, "{found:?}");
        assert!(found.measured_ms > 0.0);
    }
}

/// Work of our own would lose them without a word.
#[test]
fn gradients_pass_through_every_operation() {
    let device = TensorDevice::flex().autodiff();
    let x = numbers(1, 2 * 4 * 8);
    let [gamma, beta] = [2, 3].map(|seed| tensor(&numbers(seed, 8), [8], &device));
    let weight = Factor::new(&Matrix::Dense(tensor(&numbers(4, 64), [8, 8], &device)), 1000);
    let up = Factor::new(&Matrix::Dense(tensor(&numbers(5, 128), [16, 8], &device)), 1000);
    let ones = tensor(&[1.0; 4], [4], &device);
    let tokens = |x: &Tensor<2>| x.clone().reshape([2, 4, 8]);
    let rows = |x: Tensor<3>| x.reshape([8, 8]);
    let kv = |x: &Tensor<2>| Tensor::cat(vec![tokens(x), tokens(x)], 2);
    type Operation<'a> = &'a dyn Fn(&Tensor<2>) -> Tensor<2>;
    let operations: [(&str, Operation); 9] = [
        ("unit rows", &|x| kernel::l2_normalize(x.clone())),
        ("layer norm", &|x| kernel::layer_norm(x.clone(), &gamma, &beta, 1e-5)),
        ("gelu", &|x| kernel::gelu(x.clone())),
        ("geglu", &|x| kernel::geglu(x.clone())),
        ("add", &|x| kernel::add(x.clone(), x.clone())),
        ("product", &|x| weight.multiply(x.clone(), Some(&beta))),
        ("feed-forward", &|x| {
            let down = Factor::new(&Matrix::Dense(weight.multiply(x.clone(), None)), 1000);
            kernel::feed_forward(x.clone(), (&gamma, &beta, 1e-5), &up, &down)
        }),
        ("attention", &|x| rows(kernel::attention(tokens(x), tokens(x), tokens(x), 2, None))),
        ("cosine attention", &|x| rows(kernel::cosine_attention(tokens(x), kv(x), &ones, &ones, 8.0, None))),
    ];
    for (name, operation) in operations {
        let x = tensor(&x, [8, 8], &device).require_grad();
        // The sum of the squares of a unit row has no slope.
        let gradients = operation(&x).square().square().sum().backward();
        let gradient = x.grad(&gradients).expect(name);
        assert!(read(gradient).iter().any(|slope| slope.abs() > 1e-6), "{name}");
    }
}
