//! `FeatureVectorizer`: several inputs side by side in one matrix.

use smallvec::{SmallVec, smallvec};

use super::common::{NUMBERS, Number, first_fact, input, matrix_fact, rows_and_width, with_numbers};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

const OPERATOR: &str = "FeatureVectorizer";

/// The result is f32. An input that is narrower than the attribute says is filled up with zeros, a
/// wider one is cut, as in onnxruntime. NaN stays NaN.
#[derive(Debug)]
pub(super) struct FeatureVectorizer {
    widths: Vec<usize>,
    total: usize,
}

impl FeatureVectorizer {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let widths = attributes.ints("inputdimensions")?;
        let read: Option<Vec<usize>> = widths.iter().map(|w| usize::try_from(*w).ok()).collect();
        let total = read.as_ref().and_then(|w| w.iter().try_fold(0_usize, |n, w| n.checked_add(*w)));
        match (read, total) {
            (Some(widths), Some(total)) if !widths.is_empty() => Ok(Self { widths, total }),
            _ => Err(BuildError::invalid(format!(
                "attribute `inputdimensions`: expected the width of each input, found {widths:?}"
            ))),
        }
    }

    fn place<T: Number>(&self, values: &[T], found: usize, start: usize, width: usize, out: &mut [f32]) {
        for (row, out) in out.chunks_exact_mut(self.total).enumerate() {
            let values = values.get(row * found..).and_then(|rest| rest.get(..found)).unwrap_or(&[]);
            let Some(out) = out.get_mut(start..start + width) else { return };
            let (filled, rest) = out.split_at_mut(found.min(width));
            filled.iter_mut().zip(values).for_each(|(out, x)| *out = x.to_f32());
            rest.fill(0.0);
        }
    }
}

impl Kernel for FeatureVectorizer {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        if inputs.len() != self.widths.len() {
            return Err(RunError::Operator { operator: OPERATOR, expected: "as many inputs as dimensions" });
        }
        let (rows, _) = rows_and_width(input(inputs, 0, OPERATOR)?.shape(), OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let out = cx.reset(out, &[rows, self.total])?;
        if self.total == 0 {
            return Ok(());
        }
        let mut start = 0;
        for (i, width) in self.widths.iter().copied().enumerate() {
            let x = input(inputs, i, OPERATOR)?;
            let (found_rows, found) = rows_and_width(x.shape(), OPERATOR)?;
            if found_rows != rows {
                return Err(RunError::Operator {
                    operator: OPERATOR,
                    expected: "inputs of as many rows each",
                });
            }
            with_numbers!(x, OPERATOR, values => {
                self.place(values, found, start, width, out);
                Ok(())
            })?;
            start += width;
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        if inputs.len() != self.widths.len() {
            return Err(BuildError::invalid(format!(
                "expected {} inputs of {NUMBERS}, found {}",
                self.widths.len(),
                inputs.len()
            )));
        }
        Ok(smallvec![matrix_fact(inputs, ElementType::F32, FactDim::Fixed(self.total))])
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, close, ints, run};
    use super::*;

    #[test]
    fn inputs_stand_side_by_side_whatever_their_types() {
        let kernel = build("FeatureVectorizer", vec![("inputdimensions", ints(&[2, 1]))]).unwrap();
        let a = Tensor::new(&[2, 2], vec![1.0_f32, 2.0, 3.0, f32::NAN]).unwrap();
        let b = Tensor::new(&[2, 1], vec![5_i64, 6]).unwrap();
        close(&run(&*kernel, &[a, b], 1).unwrap()[0], &[2, 3], &[1.0, 2.0, 5.0, 3.0, f32::NAN, 6.0]);
    }

    #[test]
    fn narrow_inputs_are_filled_and_wide_ones_cut() {
        let kernel = build("FeatureVectorizer", vec![("inputdimensions", ints(&[2, 1]))]).unwrap();
        let a = Tensor::new(&[1, 1], vec![1.0_f32]).unwrap();
        let b = Tensor::new(&[1, 2], vec![5.0_f32, 6.0]).unwrap();
        close(&run(&*kernel, &[a, b], 1).unwrap()[0], &[1, 3], &[1.0, 0.0, 5.0]);
    }

    #[test]
    fn inputs_of_different_batches_or_too_few_are_refused() {
        let kernel = build("FeatureVectorizer", vec![("inputdimensions", ints(&[1, 1]))]).unwrap();
        let (one, two) = (Tensor::column(vec![1.0_f32]), Tensor::column(vec![1.0_f32; 2]));
        assert!(run(&*kernel, &[one.clone(), two], 1).is_err());
        let error = run(&*kernel, &[one], 1).unwrap_err().to_string();
        assert_eq!(error, "FeatureVectorizer expected as many inputs as dimensions");
    }

    #[test]
    fn negative_or_absent_widths_are_refused() {
        assert!(build("FeatureVectorizer", vec![("inputdimensions", ints(&[-1]))]).is_err());
        assert!(build("FeatureVectorizer", vec![]).is_err());
    }

    #[test]
    fn no_rows_give_no_rows() {
        let kernel = build("FeatureVectorizer", vec![("inputdimensions", ints(&[2]))]).unwrap();
        let x = Tensor::new(&[0, 2], Vec::<f32>::new()).unwrap();
        close(&run(&*kernel, &[x], 1).unwrap()[0], &[0, 2], &[]);
    }
}
