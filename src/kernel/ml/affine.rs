//! Rows times weights plus bias: the arithmetic of the linear models, and dot products.
//!
//! The loops are plain ones over arrays of lanes; `pulp` has the compiler make them once for each
//! instruction set and picks the widest that the processor has.
#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]

use pulp::{Arch, Simd, WithSimd};

use super::common::Number;
use crate::kernel::BuildError;

/// Partial sums run in so many lanes, which the compiler keeps in a vector register.
const LANES: usize = 8;

/// Of few targets, as a model of two or three classes has, fewer lanes would stand idle.
const FEW: usize = 4;

/// Sums in f32 are folded into f64 after so many terms: the rounding of a sum over a thousand
/// features stays that of a sum over 64.
const BLOCK: usize = 64;

/// `y = x * weights + bias` for rows of features.
#[derive(Debug)]
pub(super) struct Affine {
    features: usize,
    targets: usize,
    /// `[targets, features]`, as the file has it: for a dot product each.
    by_target: Vec<f32>,
    /// For several targets at a time: `[groups of lanes, features, lanes]`, filled up with zeros;
    /// empty for one target.
    by_group: Vec<f32>,
    bias: Vec<f32>,
}

impl Affine {
    /// `weights` are those of the first target, then those of the next; an empty `bias` is zero.
    pub(super) fn new(weights: &[f32], targets: usize, bias: &[f32]) -> Result<Self, BuildError> {
        if targets == 0 || weights.is_empty() || !weights.len().is_multiple_of(targets) {
            return Err(BuildError::invalid(format!(
                "attribute `coefficients`: expected as many values for each of {targets} targets, found {} in all",
                weights.len()
            )));
        }
        let features = weights.len() / targets;
        let lanes = if targets <= FEW { FEW } else { LANES };
        let mut by_group = Vec::new();
        if targets > 1 {
            for group in weights.chunks(lanes.saturating_mul(features)) {
                for feature in 0..features {
                    let values = group.iter().skip(feature).step_by(features);
                    by_group.extend(values.copied().chain(std::iter::repeat(0.0)).take(lanes));
                }
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(targets, 0.0);
        Ok(Self { features, targets, by_target: weights.to_vec(), by_group, bias })
    }

    pub(super) const fn features(&self) -> usize {
        self.features
    }

    pub(super) const fn targets(&self) -> usize {
        self.targets
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<f32>() * (self.by_target.len() + self.by_group.len() + self.bias.len())
    }

    /// One output row of `targets` for each input row of `features`.
    pub(super) fn apply_f32(&self, x: &[f32], out: &mut [f32]) {
        Arch::new().dispatch(Apply { affine: self, x, out });
    }

    /// The same for any number type, in f64.
    pub(super) fn apply<T: Number>(&self, x: &[T], out: &mut [f32]) {
        for (row, out) in x.chunks_exact(self.features).zip(out.chunks_exact_mut(self.targets)) {
            let targets = self.by_target.chunks_exact(self.features).zip(&self.bias);
            for (out, (weights, bias)) in out.iter_mut().zip(targets) {
                let sum: f64 = row.iter().zip(weights).map(|(x, w)| x.to_f64() * f64::from(*w)).sum();
                *out = (sum + f64::from(*bias)).to_f32();
            }
        }
    }

    #[inline(always)]
    fn one_target(&self, x: &[f32], out: &mut [f32]) {
        let bias = self.bias.first().copied().unwrap_or(0.0);
        for (out, row) in out.iter_mut().zip(x.chunks_exact(self.features)) {
            *out = dot(row, &self.by_target) + bias;
        }
    }

    /// All rows, four at a time: each weight that is loaded serves four of them.
    #[inline(always)]
    fn groups<const N: usize>(&self, x: &[f32], out: &mut [f32]) {
        let mut rows = x.chunks_exact(self.features.saturating_mul(4));
        let mut outs = out.chunks_exact_mut(self.targets.saturating_mul(4));
        for (rows, out) in rows.by_ref().zip(outs.by_ref()) {
            let (first, second) = rows.split_at(2 * self.features);
            let ((a, b), (c, d)) = (first.split_at(self.features), second.split_at(self.features));
            self.rows::<4, N>([a, b, c, d], out);
        }
        let rows = rows.remainder().chunks_exact(self.features);
        for (row, out) in rows.zip(outs.into_remainder().chunks_exact_mut(self.targets)) {
            self.rows::<1, N>([row], out);
        }
    }

    #[inline(always)]
    fn rows<const R: usize, const N: usize>(&self, rows: [&[f32]; R], out: &mut [f32]) {
        let groups = self.by_group.chunks_exact(self.features * N).zip(self.bias.chunks(N));
        for (group, (weights, bias)) in groups.enumerate() {
            let (weights, _) = weights.as_chunks::<N>();
            let sums = products::<R, N>(rows, weights);
            for (out, sums) in out.chunks_exact_mut(self.targets).zip(sums) {
                let out = out.get_mut(group * N..).unwrap_or_default();
                for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                    *out = sum + bias;
                }
            }
        }
    }
}

struct Apply<'a> {
    affine: &'a Affine,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        match self.affine.targets {
            1 => self.affine.one_target(self.x, self.out),
            2..=FEW => self.affine.groups::<FEW>(self.x, self.out),
            _ => self.affine.groups::<LANES>(self.x, self.out),
        }
    }
}

/// The products of `R` rows with the weights of `N` targets.
#[inline(always)]
fn products<const R: usize, const N: usize>(rows: [&[f32]; R], weights: &[[f32; N]]) -> [[f32; N]; R] {
    if weights.len() <= BLOCK {
        return products_of_block(rows, weights);
    }
    let mut totals = [[0.0_f64; N]; R];
    let mut rest = rows;
    for weights in weights.chunks(BLOCK) {
        let blocks = rest.map(|row| row.split_at(weights.len().min(row.len())));
        rest = blocks.map(|(_, rest)| rest);
        let sums = products_of_block(blocks.map(|(block, _)| block), weights);
        for (total, sum) in totals.iter_mut().flatten().zip(sums.as_flattened()) {
            *total += f64::from(*sum);
        }
    }
    totals.map(|row| row.map(Number::to_f32))
}

#[inline(always)]
fn products_of_block<const R: usize, const N: usize>(
    rows: [&[f32]; R],
    weights: &[[f32; N]],
) -> [[f32; N]; R] {
    let mut sums = [[0.0_f32; N]; R];
    let mut rows = rows.map(<[f32]>::iter);
    for weights in weights {
        for (sums, row) in sums.iter_mut().zip(&mut rows) {
            let x = row.next().copied().unwrap_or(0.0);
            for (sum, w) in sums.iter_mut().zip(weights) {
                *sum += x * w;
            }
        }
    }
    sums
}

/// The sum of the products, in lanes of f32 within a block and in f64 over the blocks.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    in_blocks(a, b, |x, y| x * y)
}

/// The squared distance, summed like [`dot`].
#[inline(always)]
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    in_blocks(a, b, |x, y| (x - y) * (x - y))
}

/// The sum of the magnitudes, summed like [`dot`].
#[inline(always)]
pub(super) fn sum_of_magnitudes(row: &[f32]) -> f32 {
    in_blocks(row, row, |x, _| x.abs())
}

#[inline(always)]
fn in_blocks(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    if a.len() <= BLOCK {
        return in_lanes(a, b, term);
    }
    let mut total = 0.0_f64;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        total += f64::from(in_lanes(a, b, term));
    }
    total.to_f32()
}

#[inline(always)]
fn in_lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += term(*x, *y);
        }
    }
    let mut tail = 0.0;
    for (x, y) in a_tail.iter().zip(b_tail) {
        tail += term(*x, *y);
    }
    sums.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `Affine` computes, written out plainly.
    fn plain(x: &[f32], weights: &[f32], targets: usize, bias: &[f32]) -> Vec<f32> {
        let features = weights.len() / targets;
        let dot = |row: &[f32], w: &[f32]| {
            row.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>()
        };
        x.chunks(features)
            .flat_map(|row| {
                let targets = weights.chunks(features).zip(bias);
                targets.map(|(w, b)| (dot(row, w) + f64::from(*b)).to_f32()).collect::<Vec<_>>()
            })
            .collect()
    }

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
        };
        std::iter::repeat_with(next).take(n).collect()
    }

    #[test]
    fn every_layout_computes_the_same() {
        for targets in [1, 2, 3, 4, 5, 8, 9, 17] {
            for features in [1, 3, 8, 64, 65, 200] {
                let (weights, bias) = (numbers(targets * features, 1), numbers(targets, 2));
                let x = numbers(6 * features, 3);
                let affine = Affine::new(&weights, targets, &bias).unwrap();
                let expected = plain(&x, &weights, targets, &bias);
                let doubles: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                let (mut narrow, mut wide) = (vec![0.0; 6 * targets], vec![0.0; 6 * targets]);
                affine.apply_f32(&x, &mut narrow);
                affine.apply(&doubles, &mut wide);
                for ((narrow, wide), expected) in narrow.iter().zip(&wide).zip(&expected) {
                    assert!((narrow - expected).abs() < 2e-6 * 8.0, "{targets} x {features}");
                    assert!((wide - expected).abs() < 1e-6, "{targets} x {features}");
                }
            }
        }
    }

    #[test]
    fn distances_are_sums_of_squares() {
        assert!((squared_distance(&numbers(70, 1), &numbers(70, 1))).abs() < f32::EPSILON);
        assert!((squared_distance(&[1.0; 70], &[3.0; 70]) - 280.0).abs() < f32::EPSILON);
    }

    #[test]
    fn coefficients_that_do_not_divide_among_the_targets_are_refused() {
        assert!(Affine::new(&[1.0; 5], 2, &[]).is_err());
        assert!(Affine::new(&[], 1, &[]).is_err());
        assert!(Affine::new(&[1.0], 0, &[]).is_err());
    }
}
