//! What the classifiers and regressors of `ai.onnx.ml` do to their raw scores: the attribute
//! `post_transform`, and the second score of a two-class model that computes only one. Linear models
//! transform in `f32`, trees in the `f64` that their sums are finished in.
//!
//! The specification names the transforms and leaves the rest open; where it is silent this follows
//! what onnxruntime 1.32 answers. A NaN score makes every score of its row NaN that the transform
//! derives from it, so that it can never pass for an ordinary score.

use std::str::FromStr;

use num_traits::Float;

use super::standard::vector::exp_in_place;
use super::{Attributes, BuildError};

/// The attribute `post_transform`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PostTransform {
    #[default]
    None,
    Softmax,
    Logistic,
    /// Softmax over the scores that are not zero; the others stay (almost) zero.
    SoftmaxZero,
    Probit,
}

impl PostTransform {
    /// Reads the attribute; `NONE` where it is absent.
    pub(crate) fn from_attributes(attributes: &Attributes) -> Result<Self, BuildError> {
        attributes.string("post_transform")?.unwrap_or("NONE").parse()
    }

    /// By the number that `TreeEnsemble` of version 5 states.
    pub(crate) fn from_number(number: i64) -> Result<Self, BuildError> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Softmax,
            2 => Self::Logistic,
            3 => Self::SoftmaxZero,
            4 => Self::Probit,
            _ => {
                return Err(BuildError::invalid(format!(
                    "attribute `post_transform`: expected 0 to 4, found {number}"
                )));
            }
        })
    }

    /// Transforms rows of `width` scores, in place.
    ///
    /// Of a row that has only one score, PROBIT alone does anything: a regressor of one target, or a
    /// classifier of one class, keeps its raw score under the other four, in onnxruntime too. A
    /// two-class model that computes one score goes through [`pair`](Self::pair) instead.
    pub(crate) fn apply(self, scores: &mut [f32], width: usize) {
        match self {
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
            _ if width < 2 => {}
            Self::None => {}
            Self::Logistic => logistic_all(scores),
            Self::Softmax => softmax_all(scores, width),
            Self::SoftmaxZero => scores.chunks_exact_mut(width).for_each(softmax_zero),
        }
    }

    /// Transforms one row in place, be it of a single score. Trees do; of a regressor with one target
    /// onnxruntime transforms the score under PROBIT alone, and leaves it raw under the others.
    pub(crate) fn apply_row<T: Float>(self, row: &mut [T]) {
        match self {
            Self::None => {}
            Self::Logistic => row.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Softmax => softmax(row),
            Self::SoftmaxZero => softmax_zero(row),
            Self::Probit => row.iter_mut().for_each(|score| *score = probit(*score)),
        }
    }

    /// The two scores, of the negative class and of the positive one, of a two-class model that
    /// computes only `score`, that of the positive class.
    ///
    /// In onnxruntime this is `add_second_class`. LOGISTIC gives two probabilities whatever `second`
    /// says. NONE, SOFTMAX and `SOFTMAX_ZERO` give the score beside its complement or its negation.
    /// `PROBIT` gives the probit beside its negation, which is the probit of the complement;
    /// onnxruntime leaves the second score unwritten there.
    pub(crate) fn pair(self, score: f32, second: SecondClass) -> [f32; 2] {
        match (self, second) {
            (Self::Logistic, _) => [logistic(-score), logistic(score)],
            (Self::Probit, _) => {
                let score = probit(score);
                [-score, score]
            }
            (_, SecondClass::Complement) => [1.0 - score, score],
            (_, SecondClass::Negation) => [-score, score],
        }
    }
}

/// What stands beside the only score of a two-class model, see [`PostTransform::pair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecondClass {
    /// `1 - score`: the score is a probability. `add_second_class` 0 and 1 of onnxruntime: linear
    /// classifiers, and trees whose weights are all positive.
    Complement,
    /// `-score`: the score is a distance. `add_second_class` 2 and 3 of onnxruntime: support vector
    /// machines, and trees with weights of either sign.
    Negation,
}

impl FromStr for PostTransform {
    type Err = BuildError;

    fn from_str(name: &str) -> Result<Self, BuildError> {
        Ok(match name {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => {
                return Err(BuildError::invalid(format!(
                    "attribute `post_transform`: expected NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT, \
                     found `{other}`"
                )));
            }
        })
    }
}

/// `1 / (1 + exp(-x))`, with full relative precision on both sides. NaN gives NaN.
pub(crate) fn logistic<T: Float>(x: T) -> T {
    let e = (-x.abs()).exp();
    if x < T::zero() { e / (T::one() + e) } else { T::one() / (T::one() + e) }
}

/// Shares that add up to 1, in proportion to `e^x`.
pub(crate) fn softmax<T: Float>(row: &mut [T]) {
    let max = largest(row);
    let mut sum = T::zero();
    for score in row.iter_mut() {
        *score = (*score - max).exp();
        sum = sum + *score;
    }
    for score in row {
        *score = *score / sum;
    }
}

/// The position of the largest value, the first of them where several are equal; `None` of nothing.
///
/// A NaN never wins over a number that stands before it and never loses to one that comes after,
/// which is how onnxruntime's comparison falls out: a label has no way to say "unknown", the NaN in
/// the scores beside it does.
pub(crate) fn arg_max(scores: &[f32]) -> Option<usize> {
    let mut scores = scores.iter().copied().enumerate();
    let first = scores.next()?;
    Some(scores.fold(first, |best, next| if next.1 > best.1 { next } else { best }).0)
}

fn logistic_all(scores: &mut [f32]) {
    for score in scores {
        *score = logistic(*score);
    }
}

/// The exponentials of all rows in one go: rows are short, and vectors are not.
fn softmax_all(scores: &mut [f32], width: usize) {
    for row in scores.chunks_exact_mut(width) {
        let max = largest(row);
        for score in row {
            *score -= max;
        }
    }
    exp_in_place(scores);
    for row in scores.chunks_exact_mut(width) {
        let sum: f32 = row.iter().sum();
        for score in row {
            *score /= sum;
        }
    }
}

/// Scores within 1e-7 of zero count as zero, and a row of nothing else becomes NaN, as in
/// onnxruntime.
fn softmax_zero<T: Float>(row: &mut [T]) {
    let max = largest(row);
    let scale = (-max).exp();
    let mut sum = T::zero();
    for score in row.iter_mut() {
        if score.abs() <= constant(1e-7) {
            *score = *score * scale;
        } else {
            *score = (*score - max).exp();
            sum = sum + *score;
        }
    }
    for score in row {
        *score = *score / sum;
    }
}

/// The largest number of a row, NaN aside: a NaN reaches the result through the sum.
fn largest<T: Float>(row: &[T]) -> T {
    row.iter().copied().fold(T::min_value(), T::max)
}

/// The inverse of the normal distribution, by Winitzki's approximation of the inverse error
/// function with the constants of onnxruntime: the exact one would differ from it by up to 2e-3.
/// NaN outside of 0 to 1, infinite at both ends.
pub(crate) fn probit<T: Float>(x: T) -> T {
    let two = T::one() + T::one();
    let a = constant::<T>(0.147);
    let y = two * x - T::one();
    let log = ((T::one() - y) * (T::one() + y)).ln();
    #[expect(clippy::approx_constant, reason = "the constant that onnxruntime has")]
    let v = two / (constant::<T>(3.14159) * a) + log / two;
    let root = ((v * v - log / a).sqrt() - v).sqrt();
    constant::<T>(std::f64::consts::SQRT_2) * if y < T::zero() { -root } else { root }
}

/// A number as near to this as the type has one.
fn constant<T: Float>(value: f64) -> T {
    T::from(value).unwrap_or_else(T::nan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Attribute;

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            let equal = (f - e).abs() <= 5e-6 * e.abs().max(1e-3)
                || (f.is_nan() && e.is_nan())
                || f.total_cmp(e).is_eq();
            assert!(equal, "found {found:?}, expected {expected:?}");
        }
    }

    fn applied(transform: PostTransform, scores: &[f32], width: usize) -> Vec<f32> {
        let mut scores = scores.to_vec();
        transform.apply(&mut scores, width);
        scores
    }

    #[test]
    fn rows_of_three_become_what_onnxruntime_answers() {
        let row = [-0.3, 0.3, 0.075];
        close(&applied(PostTransform::None, &row, 3), &row);
        close(&applied(PostTransform::Logistic, &row, 3), &[0.425_557_5, 0.574_442_5, 0.518_741_2]);
        close(&applied(PostTransform::Softmax, &row, 3), &[0.233_802_7, 0.426_016_3, 0.340_180_93]);
        close(&applied(PostTransform::SoftmaxZero, &row, 3), &[0.233_802_7, 0.426_016_3, 0.340_180_93]);
        close(&applied(PostTransform::Probit, &row, 3), &[f32::NAN, -0.524_445_9, -1.439_600_5]);
    }

    #[test]
    fn every_row_is_a_distribution_of_its_own() {
        let rows = applied(PostTransform::Softmax, &[0.0, 0.0, 1000.0, 0.0], 2);
        close(&rows, &[0.5, 0.5, 1.0, 0.0]);
    }

    #[test]
    fn a_row_of_trees_is_transformed_whatever_its_width() {
        let row = [-0.35, 0.15, 0.6];
        for (transform, expected) in [
            (PostTransform::None, [-0.35, 0.15, 0.6]),
            (PostTransform::Logistic, [0.413_382, 0.537_430, 0.645_656]),
            (PostTransform::Softmax, [0.191_043, 0.314_976, 0.493_981]),
        ] {
            let mut found = row;
            transform.apply_row(&mut found);
            assert!(found.iter().zip(expected).all(|(f, e): (&f64, _)| (f - e).abs() <= 2e-6), "{found:?}");
        }
        let mut single = [0.35_f64];
        PostTransform::Probit.apply_row(&mut single);
        assert!((single[0] - -0.385_340).abs() < 2e-6);
        PostTransform::Logistic.apply_row(&mut single);
        assert!((single[0] - 0.404_840).abs() < 2e-6);
    }

    #[test]
    fn softmax_zero_leaves_zeros_out() {
        close(&applied(PostTransform::SoftmaxZero, &[0.0, 1.0, 1.0], 3), &[0.0, 0.5, 0.5]);
        close(&applied(PostTransform::SoftmaxZero, &[0.0, 0.0], 2), &[f32::NAN; 2]);
    }

    #[test]
    fn a_single_score_stays_raw_but_under_probit() {
        for transform in [PostTransform::Softmax, PostTransform::Logistic, PostTransform::SoftmaxZero] {
            close(&applied(transform, &[2.0, -3.0], 1), &[2.0, -3.0]);
        }
        close(&applied(PostTransform::Probit, &[0.3, 0.5, 1.0], 1), &[-0.524_445_9, 0.0, f32::INFINITY]);
    }

    #[test]
    fn the_second_class_follows_the_kind_of_score() {
        use SecondClass::{Complement, Negation};
        close(&PostTransform::None.pair(0.3, Complement), &[0.7, 0.3]);
        close(&PostTransform::Softmax.pair(0.3, Complement), &[0.7, 0.3]);
        close(&PostTransform::None.pair(0.3, Negation), &[-0.3, 0.3]);
        for second in [Complement, Negation] {
            close(&PostTransform::Logistic.pair(0.3, second), &[0.425_557_5, 0.574_442_5]);
            close(&PostTransform::Probit.pair(0.3, second), &[0.524_445_9, -0.524_445_9]);
        }
    }

    #[test]
    fn nan_comes_out_as_nan() {
        use PostTransform::{Logistic, None, Probit, Softmax, SoftmaxZero};
        for transform in [Softmax, SoftmaxZero] {
            assert!(applied(transform, &[1.0, f32::NAN, 0.5], 3).iter().all(|s| s.is_nan()), "{transform:?}");
        }
        for transform in [None, Logistic, Probit] {
            assert!(applied(transform, &[0.1, f32::NAN], 2).get(1).is_some_and(|s| s.is_nan()));
            assert!(transform.pair(f32::NAN, SecondClass::Complement).iter().all(|s| s.is_nan()));
        }
    }

    #[test]
    fn the_logistic_of_a_very_negative_score_is_small_and_not_zero() {
        close(&[logistic(-20.0_f32) * 1e9], &[2.061_153_6]);
        close(&[logistic(200.0_f32), logistic(-200.0)], &[1.0, 0.0]);
        assert_eq!((logistic(1e4_f64), logistic(-1e4_f64)), (1.0, 0.0));
        assert!(logistic(-40.0_f64) > 0.0 && logistic(f64::NAN).is_nan());
    }

    #[test]
    fn the_first_of_equal_scores_wins() {
        assert_eq!(arg_max(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(arg_max(&[]), None);
    }

    #[test]
    fn an_unknown_transform_is_named() {
        let mut attributes = Attributes::default();
        attributes.insert("post_transform", Attribute::String("RELU".into()));
        let error = PostTransform::from_attributes(&attributes).unwrap_err().to_string();
        assert!(error.contains("found `RELU`"), "{error}");
    }
}
