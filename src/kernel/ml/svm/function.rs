//! The kernel functions, and the support vectors that they compare a row with.

use pulp::{Arch, Simd, WithSimd};

use crate::kernel::ml::affine::{dot, squared_distance};
use crate::kernel::ml::common::{Number, check_length};
use crate::kernel::standard::vector::exp_in_place;
use crate::kernel::{Attributes, BuildError};

/// A kernel function with its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Function {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Function {
    /// Reads `kernel_type` and `kernel_params`, which are gamma, coef0 and degree.
    pub(super) fn from_attributes(attributes: &Attributes) -> Result<Self, BuildError> {
        let parameters = attributes.floats("kernel_params")?;
        check_length("kernel_params", parameters.len(), &[3])?;
        let parameter = |i: usize| parameters.get(i).copied().unwrap_or(0.0);
        let (gamma, coef0, degree) = (parameter(0), parameter(1), parameter(2));
        match attributes.string("kernel_type")? {
            None | Some("LINEAR") => Ok(Self::Linear),
            Some("POLY") => Ok(Self::Poly { gamma, coef0, degree }),
            Some("RBF") => Ok(Self::Rbf { gamma }),
            Some("SIGMOID") => Ok(Self::Sigmoid { gamma, coef0 }),
            Some(other) => Err(BuildError::invalid(format!(
                "attribute `kernel_type`: expected LINEAR, POLY, RBF or SIGMOID, found `{other}`"
            ))),
        }
    }
}

/// The support vectors of a model, one row each.
#[derive(Debug)]
pub(super) struct SupportVectors {
    function: Function,
    features: usize,
    vectors: Vec<f32>,
}

impl SupportVectors {
    /// `count` vectors; the width of a row follows from how many values there are.
    pub(super) fn new(function: Function, vectors: &[f32], count: usize) -> Result<Self, BuildError> {
        if count == 0 || vectors.is_empty() || !vectors.len().is_multiple_of(count) {
            return Err(BuildError::invalid(format!(
                "attribute `support_vectors`: expected as many values for each of {count} vectors, found {} in all",
                vectors.len()
            )));
        }
        Ok(Self { function, features: vectors.len() / count, vectors: vectors.to_vec() })
    }

    pub(super) const fn features(&self) -> usize {
        self.features
    }

    pub(super) fn count(&self) -> usize {
        self.vectors.len() / self.features
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(self.vectors.as_slice())
    }

    /// The kernel of this row with each vector.
    pub(super) fn compare(&self, row: &[f32], out: &mut [f32]) {
        if let Function::Poly { .. } = self.function {
            // A power makes the error of a sum in f32 that many times larger.
            return self.compare_wide(row, out);
        }
        Arch::new().dispatch(Compare { vectors: self, row, out });
        match self.function {
            Function::Linear | Function::Poly { .. } => {}
            Function::Rbf { .. } => exp_in_place(out),
            Function::Sigmoid { gamma, coef0 } => {
                for x in out {
                    *x = (gamma * *x + coef0).tanh();
                }
            }
        }
    }

    /// The same of a row of wider numbers, in f64.
    pub(super) fn compare_wide<T: Number>(&self, row: &[T], out: &mut [f32]) {
        for (out, vector) in out.iter_mut().zip(self.vectors.chunks_exact(self.features)) {
            let pairs = row.iter().zip(vector).map(|(x, y)| (x.to_f64(), f64::from(*y)));
            let dot = |pairs: &mut dyn Iterator<Item = (f64, f64)>| pairs.map(|(x, y)| x * y).sum::<f64>();
            let value = match self.function {
                Function::Linear => dot(&mut { pairs }),
                Function::Rbf { gamma } => {
                    (-f64::from(gamma) * pairs.map(|(x, y)| (x - y) * (x - y)).sum::<f64>()).exp()
                }
                Function::Poly { gamma, coef0, degree } => {
                    (f64::from(gamma) * dot(&mut { pairs }) + f64::from(coef0)).powf(f64::from(degree))
                }
                Function::Sigmoid { gamma, coef0 } => {
                    (f64::from(gamma) * dot(&mut { pairs }) + f64::from(coef0)).tanh()
                }
            };
            *out = value.to_f32();
        }
    }
}

/// The products of a row with each vector, or for RBF what the exponential is taken of.
struct Compare<'a> {
    vectors: &'a SupportVectors,
    row: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Compare<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "what is not inlined is not compiled for the instruction set")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let vectors = self.vectors.vectors.chunks_exact(self.vectors.features);
        if let Function::Rbf { gamma } = self.vectors.function {
            for (out, vector) in self.out.iter_mut().zip(vectors) {
                *out = -gamma * squared_distance(self.row, vector);
            }
        } else {
            for (out, vector) in self.out.iter_mut().zip(vectors) {
                *out = dot(self.row, vector);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_rows_give_what_narrow_rows_give() {
        let (gamma, coef0) = (0.5, 0.3);
        let functions = [
            Function::Linear,
            Function::Rbf { gamma },
            Function::Sigmoid { gamma, coef0 },
            Function::Poly { gamma, coef0, degree: 2.0 },
            Function::Poly { gamma, coef0, degree: 3.0 },
            Function::Poly { gamma: 1.0, coef0: 9.0, degree: 2.5 },
        ];
        for function in functions {
            let vectors = SupportVectors::new(function, &[1.0, 0.0, -1.0, 0.5], 2).unwrap();
            let (mut narrow, mut wide) = ([0.0; 2], [0.0; 2]);
            vectors.compare(&[0.25, -2.0], &mut narrow);
            vectors.compare_wide(&[0.25_f64, -2.0], &mut wide);
            for (n, w) in narrow.iter().zip(wide) {
                assert!((n - w).abs() <= 1e-6 * w.abs(), "{function:?}: {narrow:?}, {wide:?}");
            }
        }
    }

    #[test]
    fn vectors_that_do_not_divide_are_refused() {
        assert!(SupportVectors::new(Function::Linear, &[1.0; 5], 2).is_err());
        assert!(SupportVectors::new(Function::Linear, &[], 2).is_err());
    }
}
