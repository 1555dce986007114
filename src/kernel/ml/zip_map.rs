//! `ZipMap`: names the columns of a probability matrix.
//!
//! The specification makes a sequence of maps of it, which no tensor can be. Here the values stay
//! the matrix that they are, and the names become the labels of the output in the signature.

use smallvec::{SmallVec, smallvec};

use super::common::{class_labels, first_fact, input, label_count, matrix_fact, rows_of_width, values};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::signature::Labels;
use crate::tensor::{ElementType, Tensor, TensorView};

const OPERATOR: &str = "ZipMap";

/// Copies `[n, classes]`; one dimension counts as one row. NaN stays NaN.
#[derive(Debug)]
pub(super) struct ZipMap {
    labels: Labels,
}

impl ZipMap {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        Ok(Self { labels: class_labels(attributes, "classlabels_strings", "classlabels_int64s")? })
    }
}

impl Kernel for ZipMap {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let width = label_count(&self.labels);
        let rows = rows_of_width(x.shape(), width, OPERATOR)?;
        let values = values::<f32>(x, OPERATOR)?;
        if let Some(out) = outputs.first_mut() {
            cx.reset(out, &[rows, width])?.copy_from_slice(values);
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        let width = FactDim::Fixed(label_count(&self.labels));
        Ok(smallvec![matrix_fact(inputs, ElementType::F32, width)])
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        (index == 0).then(|| self.labels.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, close, ints, one, run, strings};
    use super::*;

    #[test]
    fn the_probabilities_pass_and_the_labels_are_known() {
        let kernel = build("ZipMap", vec![("classlabels_strings", strings(&["no", "yes"]))]).unwrap();
        let x = Tensor::new(&[1, 2], vec![0.25_f32, 0.75]).unwrap();
        close(&run(&*kernel, &[x], 1).unwrap()[0], &[1, 2], &[0.25, 0.75]);
        assert_eq!(kernel.labels(0), Some(Labels::Strings(vec!["no".into(), "yes".into()])));
    }

    #[test]
    fn another_number_of_columns_than_labels_is_refused() {
        let x = Tensor::new(&[1, 3], vec![0.0_f32; 3]).unwrap();
        let error = one("ZipMap", vec![("classlabels_int64s", ints(&[0, 1]))], x).unwrap_err().to_string();
        assert_eq!(error, "ZipMap expected 2 values a row, found 3");
    }

    #[test]
    fn labels_of_both_kinds_or_of_none_are_refused() {
        assert!(build("ZipMap", vec![]).is_err());
        let both = vec![("classlabels_int64s", ints(&[0])), ("classlabels_strings", strings(&["a"]))];
        let error = build("ZipMap", both).unwrap_err().to_string();
        assert_eq!(error, "expected `classlabels_strings` or `classlabels_int64s`, found both");
    }
}
