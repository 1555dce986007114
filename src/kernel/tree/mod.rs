//! Tree ensembles: decision trees, forests, gradient boosting, of ONNX and of the tree libraries.
//!
//! A file's trees go through [`builder`], which checks them, as a [`forest`] into an [`ensemble`], which
//! lays them out for speed ([`keyed`], [`bits`] and [`blocks`]), for size ([`wide`]) or for generality ([`general`]).

mod bits;
mod blocks;
pub(crate) mod builder;
pub(crate) mod ensemble;
pub(crate) mod forest;
mod general;
mod keyed;
mod keys;
pub(crate) mod leaves;
mod less;
mod numbers;
mod onnx;
mod onnx_v5;
mod operator;
pub(crate) mod sets;
mod threshold;
mod wide;

use super::{BuildError, Kernel, Node};

/// How many walks go side by side: enough that the loads of one overlap those of the others.
const LANES: usize = 16;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(crate) fn build(node: &Node<'_>) -> Result<Box<dyn Kernel>, BuildError> {
    if node.domain != "ai.onnx.ml" {
        return Err(BuildError::Unsupported);
    }
    let operator = match node.operator {
        "TreeEnsembleClassifier" => onnx::classifier(node.attributes),
        "TreeEnsembleRegressor" => onnx::regressor(node.attributes),
        "TreeEnsemble" => onnx_v5::ensemble(node.attributes),
        _ => return Err(BuildError::Unsupported),
    };
    Ok(Box::new(operator?))
}

#[cfg(test)]
mod tests;
