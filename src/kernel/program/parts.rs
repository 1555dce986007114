//! A graph in no file format's own terms: what a [`Program`](super::Program) is built from.

use std::collections::HashSet;
use std::sync::Arc;

use crate::kernel::{Attributes, BuildError, Fact};
use crate::tensor::Tensor;

/// Values by their names, shared so that a loader that may yet need them for another engine can keep
/// them without a copy; it should let go of them as early as it can.
pub(crate) type Constants = Vec<(String, Arc<Tensor>)>;

/// A graph as a file states it. Tensors are known by their names; the empty name stands for an
/// optional one that is left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct GraphParts {
    /// The values that the file holds.
    pub(crate) constants: Constants,
    /// What the graph is given at run time, in the order in which [`super::Program::run`] wants it.
    /// A name that is among the constants too is an input with a default, which is not used: leave
    /// it out of here to make it a constant.
    pub(crate) inputs: Vec<InputParts>,
    /// In any order.
    pub(crate) nodes: Vec<NodeParts>,
    /// What is wanted, by name. What these do not need is not computed, nor kept.
    pub(crate) outputs: Vec<String>,
    /// How many of the last inputs are values of the graph around this one that its nodes name. It
    /// is set, and the inputs added, when the program around is built: leave it 0.
    pub(crate) captures: usize,
}

/// An input of a graph.
#[derive(Clone, Debug)]
pub(crate) struct InputParts {
    pub(crate) name: String,
    /// What the file says of it; a dimension that is not [`FactDim::Fixed`](crate::kernel::FactDim)
    /// is open. `None` where the file says nothing.
    pub(crate) fact: Option<Fact>,
}

/// A node of a graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeParts {
    /// The node's own name; may be empty.
    pub(crate) name: String,
    pub(crate) operator: String,
    /// Empty for the default domain.
    pub(crate) domain: String,
    /// The version of the domain's operator set that the file imports.
    pub(crate) version: i64,
    pub(crate) attributes: Attributes,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
}

impl GraphParts {
    /// How deep graphs are nested in attributes; 1 where there are none.
    pub(crate) fn depth(&self) -> usize {
        let inner = self.nodes.iter().flat_map(|n| n.attributes.graphs()).map(Self::depth).max();
        1 + inner.unwrap_or(0)
    }

    /// How deep loops are nested in each other; 0 where there are none.
    pub(crate) fn loops(&self) -> usize {
        let inside = |node: &NodeParts| {
            let inner = node.attributes.graphs().map(Self::loops).max().unwrap_or(0);
            inner + usize::from(node.is("Loop") || node.is("Scan"))
        };
        self.nodes.iter().map(inside).max().unwrap_or(0)
    }

    /// The names that nodes and outputs need and nothing in here makes, in the order in which they
    /// occur.
    pub(crate) fn free_names(&self) -> Vec<String> {
        let mut known: HashSet<&str> = self.constants.iter().map(|(name, _)| name.as_str()).collect();
        known.extend(self.inputs.iter().map(|i| i.name.as_str()));
        known.extend(self.nodes.iter().flat_map(|n| &n.outputs).map(String::as_str));
        let mut free = Vec::new();
        let inner = self.nodes.iter().map(|n| {
            n.attributes
                .graphs()
                .flat_map(Self::free_names)
                .chain(n.inputs.iter().cloned())
                .collect::<Vec<_>>()
        });
        let mut seen = HashSet::new();
        for name in inner.flatten().chain(self.outputs.iter().cloned()) {
            if !name.is_empty() && !known.contains(name.as_str()) && seen.insert(name.clone()) {
                free.push(name);
            }
        }
        free
    }
}

impl NodeParts {
    /// `Scaler`, or with its domain where that is not one that everybody knows by heart.
    pub(crate) fn full_operator(&self) -> String {
        match self.domain.as_str() {
            "" | "ai.onnx" | "ai.onnx.ml" => self.operator.clone(),
            domain => format!("{domain}.{}", self.operator),
        }
    }

    /// True for an operator of the default domain by this name.
    pub(crate) fn is(&self, operator: &str) -> bool {
        matches!(self.domain.as_str(), "" | "ai.onnx") && self.operator == operator
    }
}

/// Why a graph did not become a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProgramError {
    /// There is no kernel for an operator, or not for this form of it; another engine may have one.
    #[error("unsupported operator {operator}{}", at(node))]
    Unsupported { operator: String, node: String },
    /// An operator's attributes or inputs contradict the specification.
    #[error("{operator}{}: {reason}", at(node))]
    Invalid { operator: String, node: String, reason: String },
    /// Nothing makes a tensor that is asked for.
    #[error("{}: no tensor `{name}`", if operator.is_empty() { "outputs" } else { operator })]
    UnknownTensor { name: String, operator: String },
    /// Two nodes, or a node and an input, make the same tensor.
    #[error("two tensors of the name `{name}`")]
    Duplicate { name: String },
    /// A tensor is needed to compute itself.
    #[error("a cycle through {operator}{}", at(node))]
    Cycle { operator: String, node: String },
    /// Graphs inside graphs inside graphs.
    #[error("graphs are nested {depth} deep, at most {max} are taken")]
    TooDeep { depth: usize, max: usize },
}

impl ProgramError {
    /// The error of a node's kernel, with the node's name.
    pub(crate) fn of(node: &NodeParts, error: BuildError) -> Self {
        let (operator, name) = (node.full_operator(), node.name.clone());
        match error {
            BuildError::Unsupported => Self::Unsupported { operator, node: name },
            BuildError::Invalid(reason) => Self::Invalid { operator, node: name, reason },
        }
    }
}

/// As the error of a kernel that holds the program, such as Scan.
impl From<ProgramError> for BuildError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::Unsupported { .. } => Self::Unsupported,
            other => Self::Invalid(other.to_string()),
        }
    }
}

fn at(node: &str) -> String {
    if node.is_empty() { String::new() } else { format!(" (node `{node}`)") }
}
