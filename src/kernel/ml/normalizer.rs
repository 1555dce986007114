//! `Normalizer`: every row divided by its largest value, its sum of magnitudes, or its length.

use smallvec::{SmallVec, smallvec};

use super::affine::{dot, sum_of_magnitudes};
use super::common::{Number, first_fact, input, rows_and_width, same_shape, with_numbers};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

const OPERATOR: &str = "Normalizer";

/// The result is f32. A row whose divisor is zero stays as it is. A NaN makes its whole row NaN.
#[derive(Debug)]
pub(super) struct Normalizer {
    norm: Norm,
}

#[derive(Clone, Copy, Debug)]
enum Norm {
    /// The largest value with its sign, as specification and onnxruntime have it; scikit-learn's
    /// `max` takes magnitudes, and its exporter does not use this norm.
    Max,
    L1,
    L2,
}

impl Normalizer {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let norm = match attributes.string("norm")? {
            None | Some("MAX") => Norm::Max,
            Some("L1") => Norm::L1,
            Some("L2") => Norm::L2,
            Some(other) => {
                return Err(BuildError::invalid(format!(
                    "attribute `norm`: expected MAX, L1 or L2, found `{other}`"
                )));
            }
        };
        Ok(Self { norm })
    }

    fn normalize<T: Number>(&self, values: &[T], width: usize, out: &mut [f32]) {
        if width == 0 {
            return;
        }
        for (row, out) in values.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let divisor = self.norm.divisor(row);
            if divisor == 0.0 {
                out.iter_mut().zip(row).for_each(|(out, x)| *out = x.to_f32());
            } else {
                out.iter_mut().zip(row).for_each(|(out, x)| *out = (x.to_f64() / divisor).to_f32());
            }
        }
    }

    /// Rows of f32, in f32 where the divisor is an ordinary number there.
    fn normalize_f32(&self, values: &[f32], width: usize, out: &mut [f32]) {
        if width == 0 {
            return;
        }
        for (row, out) in values.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let divisor = match self.norm {
                // Scanning for the largest is exact in any type.
                Norm::Max => self.norm.divisor(row).to_f32(),
                Norm::L1 => sum_of_magnitudes(row),
                Norm::L2 => dot(row, row).sqrt(),
            };
            if divisor > 1e-15 && divisor < f32::MAX {
                for (out, x) in out.iter_mut().zip(row) {
                    *out = x / divisor;
                }
            } else {
                self.normalize(row, width, out);
            }
        }
    }
}

impl Norm {
    fn divisor<T: Number>(self, row: &[T]) -> f64 {
        match self {
            Self::Max => row
                .iter()
                .map(|x| x.to_f64())
                .fold(f64::MIN, |max, x| if max.is_nan() || x <= max { max } else { x }),
            Self::L1 => row.iter().map(|x| x.to_f64().abs()).sum(),
            Self::L2 => row.iter().map(|x| x.to_f64() * x.to_f64()).sum::<f64>().sqrt(),
        }
    }
}

impl Kernel for Normalizer {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let (_, width) = rows_and_width(x.shape(), OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        if let Some(values) = x.values::<f32>() {
            self.normalize_f32(values, width, cx.reset(out, x.dims())?);
            return Ok(());
        }
        with_numbers!(x, OPERATOR, values => {
            self.normalize(values, width, cx.reset(out, x.dims())?);
            Ok(())
        })
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        Ok(smallvec![same_shape(inputs, ElementType::F32)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, close, one, text};
    use super::*;

    fn normalized(norm: &str, values: &[f32]) -> Tensor {
        let x = Tensor::new(&[values.len() / 2, 2], values.to_vec()).unwrap();
        one("Normalizer", vec![("norm", text(norm))], x).unwrap()
    }

    #[test]
    fn each_norm_divides_each_row_by_its_own_divisor() {
        close(&normalized("MAX", &[1.0, 4.0, -2.0, -4.0]), &[2, 2], &[0.25, 1.0, 1.0, 2.0]);
        close(&normalized("L1", &[1.0, -4.0, 2.0, 2.0]), &[2, 2], &[0.2, -0.8, 0.5, 0.5]);
        close(&normalized("L2", &[3.0, -4.0, 0.0, 2.0]), &[2, 2], &[0.6, -0.8, 0.0, 1.0]);
    }

    #[test]
    fn a_row_of_zeros_stays() {
        for norm in ["MAX", "L1", "L2"] {
            close(&normalized(norm, &[0.0, 0.0]), &[1, 2], &[0.0, 0.0]);
        }
    }

    #[test]
    fn nan_spreads_over_its_row_only() {
        for norm in ["MAX", "L1", "L2"] {
            for row in [[f32::NAN, 1.0], [1.0, f32::NAN]] {
                let y = normalized(norm, &[row[0], row[1], 0.0, 1.0]);
                close(&y, &[2, 2], &[f32::NAN, f32::NAN, 0.0, 1.0]);
            }
        }
    }

    #[test]
    fn a_single_dimension_is_one_row_and_the_norm_is_max_where_absent() {
        let y = one("Normalizer", vec![], Tensor::vector(vec![1_i32, 2])).unwrap();
        close(&y, &[2], &[0.5, 1.0]);
    }

    #[test]
    fn no_rows_give_no_rows() {
        close(&normalized("L2", &[]), &[0, 2], &[]);
    }

    #[test]
    fn very_small_and_very_large_rows_keep_their_direction() {
        close(&normalized("L2", &[3e-30, 4e-30, 3e30, 4e30]), &[2, 2], &[0.6, 0.8, 0.6, 0.8]);
    }

    #[test]
    fn an_unknown_norm_is_named() {
        let error = build("Normalizer", vec![("norm", text("L3"))]).unwrap_err().to_string();
        assert_eq!(error, "attribute `norm`: expected MAX, L1 or L2, found `L3`");
    }
}
