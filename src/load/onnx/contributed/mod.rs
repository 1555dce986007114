//! The operators that onnxruntime's optimiser and quantiser write, of the domain `com.microsoft`:
//! each becomes the standard operators that it stands for, by onnxruntime's `ContribOperators.md`.

mod attention;
mod fused;
mod quantized;
mod rewrite;

use std::collections::HashMap;

use self::rewrite::Rewrite;
use super::check::{malformed, title};
use crate::kernel::BuildError;
use crate::kernel::program::{Constants, NodeParts};
use crate::load::LoadError;

/// What became of a node: others and what they need, or itself.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) nodes: Vec<NodeParts>,
    pub(super) constants: Constants,
}

/// The ranks of tensors, as far as they are known beforehand: those of constants.
pub(super) type Ranks = HashMap<String, usize>;

/// Takes a node apart, where it is one that onnxruntime made of several.
pub(super) fn lower(node: NodeParts, ranks: &Ranks) -> Result<Lowered, LoadError> {
    let Some(family) = family(&node) else { return Ok(Lowered::of(node)) };
    let mut rewrite = Rewrite::new(&node, ranks);
    match family(&mut rewrite) {
        Ok(()) => Ok(rewrite.finish()),
        // The engine names the operator that it does not know.
        Err(BuildError::Unsupported) => Ok(Lowered::of(node)),
        Err(BuildError::Invalid(reason)) => Err(malformed(format!("{}: {reason}", title(&node)))),
    }
}

/// What to do about an operator that there is no kernel for; see
/// [`LoadError::UnsupportedOperator`].
pub(in crate::load::onnx) fn hint(operator: &str) -> String {
    let what = if operator.starts_with("com.microsoft.nchwc.") {
        "; onnxruntime wrote it for one kind of processor: save the model with ORT_ENABLE_EXTENDED or less"
    } else if operator.starts_with("com.microsoft.") {
        "; it is onnxruntime's own: export the model without its optimisations"
    } else {
        ""
    };
    what.to_owned()
}

impl Lowered {
    fn of(node: NodeParts) -> Self {
        Self { nodes: vec![node], constants: Vec::new() }
    }
}

type Family = fn(&mut Rewrite<'_>) -> Result<(), BuildError>;

fn family(node: &NodeParts) -> Option<Family> {
    let operator = node.operator.as_str();
    match node.domain.as_str() {
        // onnxruntime knows this one as an operator of the standard domain.
        "" if operator == "SimplifiedLayerNormalization" => Some(fused::lower),
        "com.microsoft" if fused::OPERATORS.contains(&operator) => Some(fused::lower),
        "com.microsoft" if quantized::OPERATORS.contains(&operator) => Some(quantized::lower),
        "com.microsoft" if attention::OPERATORS.contains(&operator) => Some(attention::lower),
        _ => None,
    }
}
