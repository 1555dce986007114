//! TensorFlow's operators in terms of tract's, a family a file.
//!
//! Each is stated forwards, with the types and shapes of its inputs at hand; there is nothing to
//! infer. What tract has no operator for, or has one that answers otherwise than TensorFlow (NaN!),
//! is computed by [`computed`] or by the operators of [`crate::load::tract::nan`].

use super::api::TractError;
use super::graph::Node;
use super::{malformed, unsupported};
use crate::load::LoadError;

mod arithmetic;
mod attention;
mod computed;
mod convolution;
mod fingerprint;
mod image;
mod indexing;
mod logic;
mod norm;
mod partition;
mod reduce;
mod selection;
mod shape;
mod text;
mod wiring;

pub(super) use wiring::{Wired, Wiring};

type Family = fn(&str) -> Option<Handler>;

/// States one node; gets the outlets of its inputs, gives those of its outputs.
type Handler = fn(&mut Wiring<'_>, &Node, &[super::api::OutletId]) -> Wired;

const FAMILIES: [Family; 12] = [
    arithmetic::handler,
    logic::handler,
    shape::handler,
    reduce::handler,
    indexing::handler,
    selection::handler,
    attention::handler,
    convolution::handler,
    norm::handler,
    image::handler,
    text::handler,
    partition::handler,
];

/// True for an operator that can be stated.
pub(super) fn is_known(op: &str) -> bool {
    handler(op).is_some()
}

/// States one node.
pub(super) fn wire(wiring: &mut Wiring<'_>, node: &Node, inputs: &[super::api::OutletId]) -> Wired {
    let handler = handler(&node.op).ok_or(WiringError::Unsupported)?;
    handler(wiring, node, inputs)
}

fn handler(op: &str) -> Option<Handler> {
    FAMILIES.iter().find_map(|family| family(op))
}

/// Why a node could not be stated.
#[derive(Debug)]
pub(super) enum WiringError {
    /// No such operator, or not with these attributes or types.
    Unsupported,
    /// What is asked of the operator makes no sense.
    Invalid(String),
    /// It would take too much memory.
    OverBudget {
        needed: u64,
        budget: u64,
    },
    Engine(TractError),
}

impl From<TractError> for WiringError {
    fn from(error: TractError) -> Self {
        Self::Engine(error)
    }
}

impl WiringError {
    /// The error with the node that it is about, and its text.
    pub(super) fn at(self, node: &Node) -> (LoadError, String) {
        let error = match self {
            Self::Unsupported => unsupported(&node.op, &node.name),
            Self::Invalid(reason) => malformed(format!("{} `{}`: {reason}", node.op, node.name)),
            Self::OverBudget { needed, budget } => {
                LoadError::OverBudget { what: format!("{} `{}`", node.op, node.name), needed, budget }
            }
            Self::Engine(error) => LoadError::Engine(format!(
                "{} `{}`: {}",
                node.op,
                node.name,
                crate::load::tract::convert::engine_text(&error)
            )),
        };
        let text = error.to_string();
        (error, text)
    }
}
