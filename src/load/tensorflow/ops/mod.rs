//! TensorFlow's operators in terms of tract's, a family a file.
//!
//! Each is stated forwards, with the types and shapes of its inputs at hand; there is nothing to
//! infer. What tract has no operator for, or has one that answers otherwise than TensorFlow (NaN!),
//! is computed by [`computed`] or by the operators of [`crate::load::tract::nan`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::api::TractError;
use super::api::{OutletId, TVec};
use super::graph::{Content, Graph, Node, Port};
use super::{malformed, unsupported};
use crate::load::{LoadError, panic_text};

mod arithmetic;
mod attention;
mod boxes;
mod channelwise;
mod colours;
mod complex;
mod computed;
mod convolution;
mod counting;
mod dilation;
mod fingerprint;
mod fourier;
mod gated;
mod half;
mod hashing;
mod image;
mod indexing;
mod linear;
mod lists;
mod logic;
mod loops;
mod matrices;
mod norm;
mod padding;
mod partition;
mod ragged;
mod ranks;
mod reduce;
mod regex;
mod resize;
mod scatter;
mod segment;
mod selection;
mod shape;
mod sizes;
mod slicing;
mod sparse;
mod special;
mod text;
mod turns;
mod wiring;
mod words;

use complex::{Given, Parts};
pub(super) use wiring::{Wired, Wiring};

type Family = fn(&str) -> Option<Handler>;

/// States one node; gets the outlets of its inputs, gives those of its outputs.
type Handler = fn(&mut Wiring<'_>, &Node, &[super::api::OutletId]) -> Wired;

const FAMILIES: [Family; 30] = [
    arithmetic::handler,
    logic::handler,
    shape::handler,
    padding::handler,
    reduce::handler,
    indexing::handler,
    selection::handler,
    attention::handler,
    convolution::handler,
    norm::handler,
    image::handler,
    text::handler,
    partition::handler,
    lists::handler,
    regex::handler,
    hashing::handler,
    ragged::handler,
    sparse::handler,
    segment::handler,
    scatter::handler,
    special::handler,
    matrices::handler,
    resize::handler,
    words::handler,
    slicing::handler,
    boxes::handler,
    linear::handler,
    colours::handler,
    dilation::handler,
    complex::handler,
];

/// True for an operator that can be stated.
pub(super) fn is_known(op: &str) -> bool {
    handler(op).is_some()
}

/// States all nodes of a graph whose inputs are these; gives the outlets of its outputs.
pub(super) fn state(wiring: &mut Wiring<'_>, graph: &Graph, inputs: &[OutletId]) -> Wired {
    let mut stated: Vec<TVec<Parts>> = Vec::with_capacity(graph.nodes.len());
    let reads = graph.reads();
    for (place, node) in graph.nodes.iter().enumerate() {
        let given = wire(wiring, node, inputs, &stated).map_err(|error| error.at(node))?;
        for (slot, parts) in given.iter().enumerate() {
            if reads.get(&Port { node: place, slot }) == Some(&1) {
                wiring.read_once.insert(parts.real);
            } else {
                wiring.read_once.remove(&parts.real);
            }
        }
        stated.push(given);
    }
    let outputs = graph.outputs.iter().map(|output| {
        let parts = stated.get(output.port.node).and_then(|outlets| outlets.get(output.port.slot));
        let parts = parts.ok_or_else(|| wiring::invalid("an output of the graph is not there"))?;
        whole(*parts, || format!("the output `{}`", output.name))
    });
    outputs.collect()
}

/// The outlet of a tensor that may not be complex where it is.
fn whole(parts: Parts, what: impl Fn() -> String) -> Result<OutletId, WiringError> {
    match parts.imaginary {
        None => Ok(parts.real),
        Some(_) => Err(wiring::invalid(format!(
            "{} is of complex numbers: give their real and imaginary parts, or their magnitudes, instead",
            what()
        ))),
    }
}

/// States one operator.
fn operator(wiring: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    caught(|| real(wiring, node, inputs))
}

/// tract panics on many a shape that its operators cannot work on: that is said with the node.
fn caught<T>(work: impl FnOnce() -> Result<T, WiringError>) -> Result<T, WiringError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(wiring::invalid(format!("its inputs do not fit: {}", panic_text(&*panic))))
    })
}

/// States one operator of real numbers.
fn real(wiring: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let handler = handler(&node.op).ok_or(WiringError::Unsupported)?;
    handler(wiring, node, inputs)
}

fn wire(wiring: &mut Wiring<'_>, node: &Node, inputs: &[OutletId], stated: &[TVec<Parts>]) -> Given {
    let mut given: TVec<Parts> = TVec::new();
    for port in &node.inputs {
        let parts = stated.get(port.node).and_then(|outlets| outlets.get(port.slot));
        let missing = || wiring::invalid(format!("reads output {} of a node that has fewer", port.slot));
        given.push(*parts.ok_or_else(missing)?);
    }
    match &node.content {
        Content::None => {
            if let Some(outcome) = caught(|| complex::operator(wiring, node, &given).transpose())? {
                return Ok(outcome);
            }
        }
        Content::Complex(parts) => return complex::constant(wiring, parts),
        _ => {}
    }
    let given = given.into_iter().map(|parts| whole(parts, || "an input".to_owned()));
    let given: TVec<OutletId> = given.collect::<Result<_, _>>()?;
    let outlets = match &node.content {
        Content::Constant(value) => wiring.constant(Arc::clone(value))?,
        Content::Input(position) => [wiring::input(inputs, *position)?].into_iter().collect(),
        Content::State | Content::Complex(_) => return Err(WiringError::Unsupported),
        Content::Weights(_) => return Err(wiring::invalid("weights that nothing has taken over")),
        Content::Layer(layer) => wiring.layer(layer, &node.name, &given)?,
        Content::Loop(repeat) => loops::wire(wiring, repeat, &given)?,
        Content::None => {
            let outlets = operator(wiring, node, &given)?;
            half::rounded(wiring, node, outlets)?
        }
    };
    Ok(outlets.into_iter().map(Parts::from).collect())
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
    /// Any of these, with the node.
    At(Box<LoadError>),
}

impl From<TractError> for WiringError {
    fn from(error: TractError) -> Self {
        Self::Engine(error)
    }
}

impl WiringError {
    /// The error with the node that it is about.
    fn at(self, node: &Node) -> Self {
        Self::At(Box::new(self.load_error(&node.op, &node.name)))
    }

    /// The error as loading gives it, of a node.
    pub(super) fn load_error(self, op: &str, name: &str) -> LoadError {
        match self {
            Self::Unsupported => unsupported(op, name),
            Self::Invalid(reason) => malformed(format!("{op} `{name}`: {reason}")),
            Self::OverBudget { needed, budget } => {
                LoadError::OverBudget { what: format!("{op} `{name}`"), needed, budget }
            }
            Self::Engine(error) => LoadError::Engine(format!(
                "{op} `{name}`: {}",
                crate::load::tract::convert::engine_text(&error)
            )),
            Self::At(error) => *error,
        }
    }
}
