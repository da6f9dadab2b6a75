//! Matrix products on slices. burn's, crate `gemm`, are as fast on one core where the processor has AVX-512; but they pack their operands for
//! each product anew, and are calls of their own, so that all that is between two of them goes through memory.
//!
//! Both operands are packed so that the innermost loop reads them in order: the left one in groups of rows, the right one in panels of
//! columns. The sums of a tile of both stay in registers. A whole encode on two cores of an Intel Xeon (quarter grid, f32) takes 0.46 s so,
//! and 0.62 s with burn's products and AVX-512.

#[cfg_attr(target_family = "wasm", path = "product/wasm.rs")]
#[cfg_attr(not(target_family = "wasm"), path = "product/native.rs")]
mod tile;

use super::host::Scratch;
use super::host::for_chunks;
use super::host::for_groups;
use super::host::threads;
use super::matrix::HostMatrix;
use std::cell::RefCell;
use std::ops::Range;
use tile::COLUMNS;
use tile::Columns;
use tile::DEPTH;
use tile::ROWS;

/// Panels that are kept when they are not used any more: pages that are new to the process cost as much as packing. As many as a layer has; small
/// ones come cheaply.
const MOST_SPARE: usize = 6;
const LEAST_SPARE: usize = (1 << 20) / size_of::<Columns>();

thread_local! {
    static SPARE: RefCell<Vec<Vec<Columns>>> = const { RefCell::new(Vec::new()) };
}

/// Rows of panels that a task packs at least: fewer are not worth another thread.
const TASK_ROWS_PACKED: usize = 4096;

/// Rows of the left operand that a task packs: 96 times 512 numbers stay in the second cache.
pub(super) const TASK_ROWS: usize = 96;

/// Rows of `width` numbers that begin `stride` apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// All rows that begin in `values`, the last of which may end there.
    pub fn new(values: &'a [f32], stride: usize, width: usize) -> Self {
        assert!(
            0 < width && width <= stride && !values.is_empty() && (values.len() - 1) % stride + 1 >= width,
            "whole rows"
        );
        Self { values, stride, width }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        self.values.len().div_ceil(self.stride)
    }

    pub(super) fn row(self, i: usize) -> &'a [f32] {
        &self.values[i * self.stride..][..self.width]
    }

    /// Those of these numbers.
    pub fn some(self, range: Range<usize>) -> Self {
        let end = (range.end * self.stride).min(self.values.len());
        Self { values: &self.values[range.start * self.stride..end], ..self }
    }
}

/// Rows of a left operand in groups, term by term.
pub type Packed = Vec<[f32; ROWS]>;

/// The right operand of a product, packed: for each panel of columns `depth` rows of them.
#[derive(Debug)]
pub struct Panels {
    numbers: Vec<Columns>,
    depth: usize,
    columns: usize,
}

impl Panels {
    /// The operand whose columns are these rows, as weights are stored.
    pub fn of_columns(columns: Rows<'_>) -> Self {
        let (depth, count) = (columns.width, columns.count());
        Self::filled(
            [count, depth],
            #[inline(always)]
            |panel, numbers| transpose(columns.some(columns_of(panel, count)), numbers),
        )
    }

    /// The same with the rows of a matrix, unpacked panel by panel.
    pub(super) fn of_matrix(matrix: &HostMatrix, [count, depth]: [usize; 2]) -> Self {
        Self::filled(
            [count, depth],
            #[inline(always)]
            |panel, numbers| {
                let mut scratch = Scratch::take();
                transpose(matrix.rows(columns_of(panel, count), &mut scratch.wide), numbers);
                scratch.keep();
            },
        )
    }

    /// The operand with these rows.
    pub fn of_rows(rows: Rows<'_>) -> Self {
        let (depth, columns) = (rows.count(), rows.width);
        Self::filled(
            [columns, depth],
            #[inline(always)]
            |panel, numbers| {
                let range = columns_of(panel, columns);
                for (k, numbers) in numbers.iter_mut().enumerate() {
                    let mut row = [0.0; COLUMNS];
                    row[..range.len()].copy_from_slice(&rows.row(k)[range.clone()]);
                    *numbers = tile::columns(row);
                }
            },
        )
    }

    /// Panels that are written on all threads, `fill(i, panel i)`.
    fn filled([columns, depth]: [usize; 2], fill: impl Fn(usize, &mut [Columns]) + Sync) -> Self {
        let mut numbers = Self::room(depth, columns);
        for_groups(&mut numbers, depth, TASK_ROWS_PACKED / depth, fill);
        Self { numbers, depth, columns }
    }

    /// How many columns it has.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Memory for so many, whatever is in it: that of earlier ones, where it fits best.
    fn room(depth: usize, columns: usize) -> Vec<Columns> {
        let len = depth * columns.div_ceil(COLUMNS);
        let mut numbers = SPARE.with_borrow_mut(|spare| {
            let fits = |&i: &usize| spare[i].capacity() >= len;
            let best = (0..spare.len()).filter(fits).min_by_key(|&i| spare[i].capacity());
            best.map_or_else(Vec::new, |i| spare.swap_remove(i))
        });
        numbers.resize(len, tile::columns([0.0; COLUMNS]));
        numbers
    }

    /// Writes `a` times this operand to `out`, `[rows, columns]`; what was there is lost. `packed` is memory to use again.
    pub fn multiply_into(&self, a: Rows<'_>, out: &mut [f32], packed: &mut Packed) {
        let Self { depth, columns, .. } = *self;
        assert_eq!((a.width, a.count() * columns), (depth, out.len()), "operands that fit");
        pack(a, packed);
        let mut sums = [[0.0; COLUMNS]; ROWS];
        for first in (0..depth).step_by(DEPTH) {
            let terms = first..(first + DEPTH).min(depth);
            for (panel, b) in self.numbers.chunks_exact(depth).enumerate() {
                let b = &b[terms.clone()];
                let column = panel * COLUMNS;
                let width = COLUMNS.min(columns - column);
                for (a, out) in packed.chunks_exact(depth).zip(out.chunks_mut(ROWS * columns)) {
                    tile::multiply(&a[terms.clone()], b, &mut sums);
                    for (row, sums) in out.chunks_exact_mut(columns).zip(&sums) {
                        let row = &mut row[column..column + width];
                        match (<&mut [f32; COLUMNS]>::try_from(&mut *row), first) {
                            (Ok(row), 0) => *row = *sums,
                            (Ok(row), _) => (0..COLUMNS).for_each(|i| row[i] += sums[i]),
                            (Err(_), 0) => row.copy_from_slice(&sums[..width]),
                            (Err(_), _) => row.iter_mut().zip(sums).for_each(|(x, sum)| *x += sum),
                        }
                    }
                }
            }
        }
    }

    /// `a` times this operand, `[rows, columns]`, on all threads; `bias` is added to each row.
    pub fn multiply(&self, a: Rows<'_>, bias: Option<&[f32]>) -> Vec<f32> {
        let mut out = vec![0.0; a.count() * self.columns];
        let rows_of_task = rows_of_task(a.count());
        for_chunks(
            &mut out,
            rows_of_task * self.columns,
            #[inline(always)]
            |task, out| {
                let rows = out.len() / self.columns;
                let first = task * rows_of_task;
                let mut scratch = Scratch::take();
                self.multiply_into(a.some(first..first + rows), out, &mut scratch.packed);
                scratch.keep();
                if let Some(bias) = bias {
                    out.chunks_exact_mut(bias.len())
                        .for_each(|row| row.iter_mut().zip(bias).for_each(|(x, b)| *x += b));
                }
            },
        );
        out
    }
}

impl Drop for Panels {
    fn drop(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        // A thread that ends has none any more.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if numbers.capacity() < LEAST_SPARE {
                return;
            }
            spare.push(numbers);
            if spare.len() > MOST_SPARE
                && let Some(smallest) = (0..spare.len()).min_by_key(|&i| spare[i].capacity())
            {
                spare.swap_remove(smallest);
            }
        });
    }
}

/// The columns of a panel.
fn columns_of(panel: usize, count: usize) -> Range<usize> {
    panel * COLUMNS..((panel + 1) * COLUMNS).min(count)
}

/// Columns that a panel lacks repeat the first: their sums are not used.
#[inline(always)]
fn transpose(columns: Rows<'_>, panel: &mut [Columns]) {
    let count = columns.count();
    tile::transpose(std::array::from_fn(|j| columns.row(if j < count { j } else { 0 })), panel);
}

/// `a` times the transpose of a matrix of `columns` rows, `[rows of a, columns]`, on all threads and without packing; `bias` is added to each
/// row. For few rows.
#[cfg(not(target_family = "wasm"))]
pub(super) fn multiply_few(a: Rows<'_>, b: &HostMatrix, columns: usize, bias: Option<&[f32]>) -> Vec<f32> {
    /// Columns that a task takes.
    const TASK_COLUMNS: usize = 32;
    let rows = a.count();
    let mut turned = vec![0.0; rows * columns];
    for_chunks(
        &mut turned,
        TASK_COLUMNS * rows,
        #[inline(always)]
        |task, turned| {
            let first = task * TASK_COLUMNS;
            let mut scratch = Scratch::take();
            tile::by_rows(a, b.rows(first..first + turned.len() / rows, &mut scratch.wide), turned);
            scratch.keep();
        },
    );
    let mut out = vec![0.0; turned.len()];
    for_chunks(
        &mut out,
        columns,
        #[inline(always)]
        |i, out| {
            out.iter_mut().zip(turned[i..].iter().step_by(rows)).for_each(|(out, sum)| *out = *sum);
            if let Some(bias) = bias {
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        },
    );
    out
}

/// Rows of a task, about [`TASK_ROWS`], so that all threads end together.
pub(super) fn rows_of_task(rows: usize) -> usize {
    let most = TASK_ROWS / ROWS;
    let longest = |groups: &usize| rows.div_ceil(ROWS * groups).div_ceil(threads()) * groups;
    ROWS * (most / 2 + 1..=most + most / 4).rev().min_by_key(longest).unwrap_or(most)
}

/// Groups of rows, term by term; rows that the last group lacks repeat the last one, and their sums are not used.
fn pack(a: Rows<'_>, packed: &mut Packed) {
    let count = a.count();
    packed.resize(count.div_ceil(ROWS) * a.width, [0.0; ROWS]);
    for (group, packed) in packed.chunks_exact_mut(a.width).enumerate() {
        let rows: [&[f32]; ROWS] = std::array::from_fn(|i| a.row((group * ROWS + i).min(count - 1)));
        tile::pack(rows, packed);
    }
}
