//! What the classifiers and regressors of `ai.onnx.ml` do to their raw scores: the attribute
//! `post_transform`, and the second score of a two-class model that computes only one.
//!
//! The specification names the transforms and leaves the rest open; where it is silent this follows
//! what onnxruntime 1.32 answers. A NaN score makes every score of its row NaN that the transform
//! derives from it, so that it can never pass for an ordinary score.

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
        Ok(match attributes.string("post_transform")? {
            None | Some("NONE") => Self::None,
            Some("SOFTMAX") => Self::Softmax,
            Some("LOGISTIC") => Self::Logistic,
            Some("SOFTMAX_ZERO") => Self::SoftmaxZero,
            Some("PROBIT") => Self::Probit,
            Some(other) => {
                return Err(BuildError::invalid(format!(
                    "attribute `post_transform`: expected NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT, \
                     found `{other}`"
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

/// `1 / (1 + exp(-x))`, with full relative precision on both sides. NaN gives NaN.
pub(crate) fn logistic(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
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

/// Scores within 1e-7 of zero count as zero, as in onnxruntime.
fn softmax_zero(row: &mut [f32]) {
    let max = largest(row);
    let scale = (-max).exp();
    let mut sum = 0.0;
    for score in row.iter_mut() {
        if score.abs() <= 1e-7 {
            *score *= scale;
        } else {
            *score = (*score - max).exp();
            sum += *score;
        }
    }
    for score in row {
        *score /= sum;
    }
}

/// The largest number of a row, NaN aside: a NaN reaches the result through the sum.
fn largest(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::MIN, f32::max)
}

/// The inverse of the normal distribution, by Winitzki's approximation of the inverse error
/// function with the constants of onnxruntime. NaN outside of 0 to 1, infinite at both ends.
fn probit(x: f32) -> f32 {
    const A: f32 = 0.147;
    let y = 2.0 * x - 1.0;
    let log = ((1.0 - y) * (1.0 + y)).ln();
    #[expect(clippy::approx_constant, reason = "the constant that onnxruntime has")]
    let v = 2.0 / (3.14159 * A) + 0.5 * log;
    let root = ((v * v - log / A).sqrt() - v).sqrt();
    std::f32::consts::SQRT_2 * if y < 0.0 { -root } else { root }
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
    fn softmax_zero_leaves_zeros_out() {
        close(&applied(PostTransform::SoftmaxZero, &[0.0, 1.0, 1.0], 3), &[0.0, 0.5, 0.5]);
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
        close(&[logistic(-20.0) * 1e9], &[2.061_153_6]);
        close(&[logistic(200.0), logistic(-200.0)], &[1.0, 0.0]);
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
