//! Computing what has nothing but constants to work on, within bounds, while a program is made.

use super::bytes;
use super::compile::Draft;
use super::parts::NodeParts;
use crate::kernel::{Kernel, RunContext};
use crate::tensor::Tensor;

/// How many bytes are read and written to compute ahead, in all: a product of matrices can take
/// long for its size.
const MAX_FOLDED: usize = 16 << 20;
/// Operators that only move elements may have so many times more.
const MOVES: usize = 64;

impl Draft {
    /// The outputs of a node that has nothing but constants to work on.
    pub(super) fn fold(
        &mut self,
        node: &NodeParts,
        kernel: &dyn Kernel,
        inputs: &[Option<usize>],
    ) -> Option<Vec<Tensor>> {
        if node.attributes.graphs().next().is_some() || self.folded >= MAX_FOLDED {
            return None;
        }
        let given: Vec<_> = inputs
            .iter()
            .map(|input| match input {
                None => Some(None),
                Some(_) => Some(Some(self.constant(*input)?.as_ref())),
            })
            .collect::<Option<_>>()?;
        let mut outputs = vec![Tensor::default(); node.outputs.len()];
        // A `Constant` is a value of the file, not one that a few bytes blow up to.
        let is_value = node.is("Constant");
        let share = if moves(node) { MOVES } else { 1 };
        let left = (MAX_FOLDED - self.folded).saturating_mul(share);
        let read: usize = given.iter().flatten().copied().map(bytes).sum();
        if read > left {
            return None;
        }
        let given: Vec<_> = given.into_iter().map(|tensor| tensor.map(Tensor::view)).collect();
        let cx = if is_value { RunContext::default() } else { RunContext::of_trial(left as u64) };
        // What cannot be computed now may be in a branch that is never taken: it fails when it runs.
        kernel.run(&given, &mut outputs, &cx).ok()?;
        if !is_value {
            let written: usize = outputs.iter().map(bytes).sum();
            self.folded = MAX_FOLDED.min(self.folded + (read + written) / share);
        }
        Some(outputs)
    }
}

/// True for an operator that takes no longer than it takes to copy its input.
fn moves(node: &NodeParts) -> bool {
    matches!(node.domain.as_str(), "" | "ai.onnx")
        && matches!(
            node.operator.as_str(),
            "Cast"
                | "Concat"
                | "Flatten"
                | "Identity"
                | "Reshape"
                | "Slice"
                | "Squeeze"
                | "Transpose"
                | "Unsqueeze"
        )
}
