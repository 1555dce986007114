//! A `CatBoost` model with categorical features, ready to answer.

use smallvec::{SmallVec, smallvec};

use super::super::model::TreeModel;
use super::encoder::Encoder;
use crate::load::{Model, RunError};
use crate::signature::Signature;
use crate::tensor::{Shape, Tensor, TensorView};

/// How many values of rows are made at a time, on the stack where a row is no longer.
const BLOCK_VALUES: usize = 2048;

/// Trees behind an encoder of categories.
#[derive(Debug)]
pub(super) struct CategoricalModel {
    signature: Signature,
    encoder: Encoder,
    trees: TreeModel,
}

impl CategoricalModel {
    /// `trees` tests the columns that `encoder` makes.
    pub(super) fn new(encoder: Encoder, trees: TreeModel) -> Self {
        let signature = Signature::new(encoder.input().specs(), trees.signature().outputs().to_vec());
        Self { signature, encoder, trees }
    }

    fn score(&self, inputs: &[TensorView<'_>], scores: &mut [f32]) -> Result<(), RunError> {
        let (_, mut rows) = self.encoder.input().rows(inputs).ok_or(WRONG_INPUTS)?;
        let width = self.encoder.width();
        let block = (BLOCK_VALUES / width.max(1)).max(1);
        let mut values: SmallVec<[f32; BLOCK_VALUES]> = smallvec![0.0; block * width];
        for scores in scores.chunks_mut(block * self.trees.columns()) {
            let count = scores.len() / self.trees.columns();
            let values = values.get_mut(..count * width).unwrap_or(&mut []);
            for (columns, row) in values.chunks_exact_mut(width).zip(rows.by_ref().take(count)) {
                self.encoder.encode(row, columns);
            }
            self.trees.score(values, scores)?;
        }
        Ok(())
    }

    fn count(&self, inputs: &[TensorView<'_>]) -> Result<usize, RunError> {
        self.encoder.input().rows(inputs).map(|(rows, _)| rows).ok_or(WRONG_INPUTS)
    }
}

const WRONG_INPUTS: RunError = RunError::Operator {
    operator: "CatBoost",
    expected: "inputs of the types and shapes that the signature says, with as many rows each",
};

impl Model for CategoricalModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let rows = self.count(inputs)?;
        let [output] = outputs else {
            return Err(RunError::Operator { operator: "CatBoost", expected: "one output" });
        };
        self.score(inputs, output.reset(Shape::matrix(rows, self.trees.columns())))
    }

    fn run_into(&self, inputs: &[TensorView<'_>], out: &mut [f32]) -> Result<(), RunError> {
        let expected = self.count(inputs)?.saturating_mul(self.trees.columns());
        if out.len() != expected {
            return Err(RunError::OutputSize { expected, found: out.len() });
        }
        self.score(inputs, out)
    }

    fn memory(&self) -> usize {
        self.trees.memory() + self.encoder.memory()
    }

    fn engine(&self) -> &'static str {
        "direct"
    }
}
