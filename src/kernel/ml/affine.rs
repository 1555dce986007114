//! Rows times weights plus bias: the arithmetic of the linear models.

use super::common::Number;
use crate::kernel::BuildError;

/// Partial sums run in so many lanes, each of which the compiler keeps in a vector register.
const LANES: usize = 8;

/// Sums in f32 are folded into f64 after so many terms: the rounding of a sum over a thousand
/// features stays that of a sum over 64.
const BLOCK: usize = 64;

/// `y = x * weights + bias` for rows of features.
#[derive(Debug)]
pub(super) struct Affine {
    features: usize,
    targets: usize,
    /// `[targets, features]`, as the file has it: for few targets, a dot product each.
    by_target: Vec<f32>,
    /// `[features, padded]`, targets padded to whole lanes: a feature at a time for all targets.
    by_feature: Vec<f32>,
    padded: usize,
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
        // Lanes that stand for no target are not worth more than the work they save.
        let padded = if targets <= 4 { 4 } else { targets.next_multiple_of(LANES) };
        let mut by_feature = Vec::new();
        if targets > 1 {
            by_feature.reserve(features.saturating_mul(padded));
            for feature in 0..features {
                by_feature.extend(weights.iter().skip(feature).step_by(features));
                by_feature.extend(std::iter::repeat_n(0.0, padded - targets));
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(targets, 0.0);
        Ok(Self { features, targets, by_target: weights.to_vec(), by_feature, padded, bias })
    }

    pub(super) const fn features(&self) -> usize {
        self.features
    }

    pub(super) const fn targets(&self) -> usize {
        self.targets
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<f32>() * (self.by_target.len() + self.by_feature.len() + self.bias.len())
    }

    /// One output row of `targets` for each input row of `features`.
    pub(super) fn apply_f32(&self, x: &[f32], out: &mut [f32]) {
        let rows = x.chunks_exact(self.features).zip(out.chunks_exact_mut(self.targets));
        match (self.targets, self.padded) {
            (1, _) => {
                for (out, row) in out.iter_mut().zip(x.chunks_exact(self.features)) {
                    *out = dot(row, &self.by_target) + self.bias.first().copied().unwrap_or(0.0);
                }
            }
            (_, 4) => rows.for_each(|(row, out)| self.row_of_lanes::<4>(row, out)),
            (_, LANES) => rows.for_each(|(row, out)| self.row_of_lanes::<LANES>(row, out)),
            _ => {
                for (row, out) in rows {
                    let targets = self.by_target.chunks_exact(self.features).zip(&self.bias);
                    for (out, (weights, bias)) in out.iter_mut().zip(targets) {
                        *out = dot(row, weights) + bias;
                    }
                }
            }
        }
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

    /// One row where all targets together fit `N` lanes.
    fn row_of_lanes<const N: usize>(&self, row: &[f32], out: &mut [f32]) {
        let mut total = [0.0_f64; N];
        let mut weights = self.by_feature.chunks_exact(N);
        let mut blocks = row.chunks(BLOCK).peekable();
        while let Some(block) = blocks.next() {
            let mut sums = [0.0_f32; N];
            for (x, weights) in block.iter().zip(weights.by_ref()) {
                for (sum, w) in sums.iter_mut().zip(weights) {
                    *sum += x * w;
                }
            }
            if row.len() <= BLOCK {
                for ((out, sum), bias) in out.iter_mut().zip(sums).zip(&self.bias) {
                    *out = sum + bias;
                }
                return;
            }
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += f64::from(sum));
        }
        for ((out, sum), bias) in out.iter_mut().zip(total).zip(&self.bias) {
            *out = (sum + f64::from(*bias)).to_f32();
        }
    }
}

/// The sum of the products, in lanes of f32 within a block and in f64 over the blocks.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    if a.len() <= BLOCK {
        return dot_of_block(a, b);
    }
    let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK));
    blocks.map(|(a, b)| f64::from(dot_of_block(a, b))).sum::<f64>().to_f32()
}

/// The squared distance, summed like [`dot`].
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK));
    blocks.map(|(a, b)| f64::from(distance_of_block(a, b))).sum::<f64>().to_f32()
}

#[inline]
fn dot_of_block(a: &[f32], b: &[f32]) -> f32 {
    in_lanes(a, b, |x, y| x * y)
}

#[inline]
fn distance_of_block(a: &[f32], b: &[f32]) -> f32 {
    in_lanes(a, b, |x, y| (x - y) * (x - y))
}

#[inline]
fn in_lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| term(*x, *y)).sum();
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += term(*x, *y);
        }
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
                let x = numbers(5 * features, 3);
                let affine = Affine::new(&weights, targets, &bias).unwrap();
                let expected = plain(&x, &weights, targets, &bias);
                let doubles: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                let (mut narrow, mut wide) = (vec![0.0; 5 * targets], vec![0.0; 5 * targets]);
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
