//! Post-transforms of scores, with onnxruntime's arithmetic.

use std::str::FromStr;

use crate::kernel::BuildError;

/// What becomes of a row of scores in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostTransform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl PostTransform {
    /// By the number that `TreeEnsemble` of version 5 states.
    pub(crate) fn from_number(number: i64) -> Result<Self, BuildError> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Softmax,
            2 => Self::Logistic,
            3 => Self::SoftmaxZero,
            4 => Self::Probit,
            _ => return Err(BuildError::invalid(format!("post_transform: expected 0 to 4, found {number}"))),
        })
    }

    /// Transforms one row in place.
    pub(crate) fn apply(self, row: &mut [f64]) {
        match self {
            Self::None => {}
            Self::Logistic => row.iter_mut().for_each(|v| *v = logistic(*v)),
            Self::Softmax => softmax(row),
            Self::SoftmaxZero => softmax_zero(row),
            Self::Probit => row.iter_mut().for_each(|v| *v = probit(*v)),
        }
    }
}

impl FromStr for PostTransform {
    type Err = BuildError;

    fn from_str(name: &str) -> Result<Self, BuildError> {
        Ok(match name {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            _ => {
                return Err(BuildError::invalid(format!(
                    "post_transform: expected NONE, LOGISTIC, SOFTMAX, SOFTMAX_ZERO or PROBIT, found `{name}`"
                )));
            }
        })
    }
}

/// `1 / (1 + e^-x)`, without overflow on either side.
pub(crate) fn logistic(x: f64) -> f64 {
    let positive = 1.0 / (1.0 + (-x.abs()).exp());
    // Not `1 - positive`, which loses the digits of a small probability.
    if x < 0.0 { positive * (-x.abs()).exp() } else { positive }
}

/// Shares that add up to 1, in proportion to `e^x`.
pub(crate) fn softmax(row: &mut [f64]) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    for v in row.iter_mut() {
        *v /= sum;
    }
}

/// As [`softmax`], but scores of zero stay zero and take no share.
fn softmax_zero(row: &mut [f64]) {
    const ZERO: f64 = 1e-7;
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for v in row.iter_mut() {
        if v.abs() > ZERO {
            *v = (*v - max).exp();
            sum += *v;
        } else {
            *v *= (-max).exp();
        }
    }
    if sum != 0.0 {
        for v in row.iter_mut() {
            *v /= sum;
        }
    }
}

/// The quantile function of the normal distribution, by Winitzki's approximation of the inverse
/// error function as onnxruntime has it: the exact one would differ from it by up to 2e-3.
pub(crate) fn probit(x: f64) -> f64 {
    const A: f64 = 0.147;
    // As many digits as onnxruntime has.
    #[expect(clippy::approx_constant, reason = "the approximation is to be the same")]
    const PI: f64 = 3.14159;
    let y = 2.0 * x - 1.0;
    let log = ((1.0 - y) * (1.0 + y)).ln();
    let half = 2.0 / (PI * A) + 0.5 * log;
    let inverse = (-half + (half * half - log / A).sqrt()).sqrt();
    std::f64::consts::SQRT_2 * if y < 0.0 { -inverse } else { inverse }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-6 * b.abs().max(1.0))
    }

    // The expectations are what onnxruntime 1.32 answers.
    #[test]
    fn transforms_answer_as_onnxruntime() {
        let row = [-0.35, 0.15, 0.6];
        for (transform, expected) in [
            (PostTransform::None, [-0.35, 0.15, 0.6]),
            (PostTransform::Logistic, [0.413_382, 0.537_430, 0.645_656]),
            (PostTransform::Softmax, [0.191_043, 0.314_976, 0.493_981]),
        ] {
            let mut found = row;
            transform.apply(&mut found);
            assert!(close(&found, &expected), "{transform:?} {found:?}");
        }
        assert!((probit(0.35) - -0.385_340).abs() < 2e-6);
        assert!((probit(0.6) - 0.253_354).abs() < 2e-6);
    }

    #[test]
    fn softmax_zero_gives_zero_no_share() {
        let mut row = [0.0, 0.3, 0.3];
        PostTransform::SoftmaxZero.apply(&mut row);
        assert_eq!(row, [0.0, 0.5, 0.5]);
        let mut row = [0.0, 0.0];
        PostTransform::SoftmaxZero.apply(&mut row);
        assert_eq!(row, [0.0, 0.0]);
    }

    #[test]
    fn far_scores_neither_overflow_nor_vanish() {
        assert_eq!((logistic(1e4), logistic(-1e4)), (1.0, 0.0));
        assert!(logistic(-40.0) > 0.0);
        assert!(logistic(f64::NAN).is_nan());
    }
}
