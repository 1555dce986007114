//! Writes the nodes that take another's place.

use std::sync::Arc;

use super::{Lowered, Ranks};
use crate::kernel::program::{Constants, NodeParts};
use crate::kernel::{Attribute, Attributes, BuildError, OWN_DOMAIN};
use crate::tensor::Tensor;

/// The nodes that take the place of one.
pub(super) struct Rewrite<'n> {
    pub(super) node: &'n NodeParts,
    ranks: &'n Ranks,
    nodes: Vec<NodeParts>,
    constants: Constants,
}

/// Attributes of a node in the making.
pub(super) type Stated<'a> = &'a [(&'a str, Attribute)];

impl<'n> Rewrite<'n> {
    pub(super) const fn new(node: &'n NodeParts, ranks: &'n Ranks) -> Self {
        Self { node, ranks, nodes: Vec::new(), constants: Vec::new() }
    }

    pub(super) fn finish(self) -> Lowered {
        Lowered { nodes: self.nodes, constants: self.constants }
    }

    /// The name of an input of the node; empty where it is left out.
    pub(super) fn input(&self, index: usize) -> &'n str {
        self.node.inputs.get(index).map_or("", String::as_str)
    }

    /// An input, where it is there.
    pub(super) fn maybe(&self, index: usize) -> Option<&'n str> {
        Some(self.input(index)).filter(|name| !name.is_empty())
    }

    /// The rank of an input, where it is a constant.
    pub(super) fn rank(&self, index: usize) -> Option<usize> {
        self.ranks.get(self.input(index)).copied()
    }

    /// True where anybody may read this output.
    pub(super) fn wants(&self, output: usize) -> bool {
        self.node.outputs.get(output).is_some_and(|name| !name.is_empty())
    }

    pub(super) fn attributes(&self) -> &'n Attributes {
        &self.node.attributes
    }

    /// True where the attribute is there and not 0.
    pub(super) fn flag(&self, name: &str) -> Result<bool, BuildError> {
        Ok(self.attributes().int(name)?.unwrap_or(0) != 0)
    }

    /// Adds a node of this operator of the standard domain, of this version of its operator set; it
    /// answers the name of its output.
    pub(super) fn add(
        &mut self,
        operator: &str,
        version: i64,
        inputs: &[&str],
        attributes: Stated<'_>,
    ) -> String {
        let [output] = self.add_many(operator, version, inputs, attributes);
        output
    }

    /// [`Rewrite::add`] for an operator that no format has.
    pub(super) fn add_own(&mut self, operator: &str, inputs: &[&str], attributes: Stated<'_>) -> String {
        let output = self.add(operator, 1, inputs, attributes);
        self.nodes.iter_mut().rev().take(1).for_each(|node| OWN_DOMAIN.clone_into(&mut node.domain));
        output
    }

    /// [`Rewrite::add`] for a node with several outputs.
    pub(super) fn add_many<const N: usize>(
        &mut self,
        operator: &str,
        version: i64,
        inputs: &[&str],
        attributes: Stated<'_>,
    ) -> [String; N] {
        let mut all = Attributes::default();
        for (name, value) in attributes {
            all.insert(*name, value.clone());
        }
        self.add_node(operator, version, inputs, all)
    }

    /// [`Rewrite::add`] with the attributes of the node, but for those that the operator does not have.
    pub(super) fn add_like(
        &mut self,
        operator: &str,
        version: i64,
        inputs: &[&str],
        without: &[&str],
    ) -> String {
        let mut kept = Attributes::default();
        for (name, value) in self.attributes().iter().filter(|(name, _)| !without.contains(name)) {
            kept.insert(name, value.clone());
        }
        let [output] = self.add_node(operator, version, inputs, kept);
        output
    }

    fn add_node<const N: usize>(
        &mut self,
        operator: &str,
        version: i64,
        inputs: &[&str],
        attributes: Attributes,
    ) -> [String; N] {
        let base = self.base();
        let number = self.nodes.len();
        let outputs: [String; N] = std::array::from_fn(|i| format!("{base}/{operator}.{number}.{i}"));
        self.nodes.push(NodeParts {
            name: format!(
                "{}/{operator}.{number}",
                if self.node.name.is_empty() { base } else { &self.node.name }
            ),
            operator: operator.to_owned(),
            domain: String::new(),
            version,
            attributes,
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: outputs.to_vec(),
        });
        outputs
    }

    /// Adds a constant.
    pub(super) fn constant(&mut self, value: Tensor) -> String {
        let name = format!("{}/constant.{}", self.base(), self.constants.len());
        self.constants.push((name.clone(), Arc::new(value)));
        name
    }

    /// A list of whole numbers, as shapes and axes are given.
    pub(super) fn ints(&mut self, values: &[i64]) -> String {
        self.constant(Tensor::vector(values.to_vec()))
    }

    /// Makes a value an output of the node.
    pub(super) fn answer(&mut self, output: usize, value: &str) {
        let Some(wanted) = self.node.outputs.get(output).filter(|name| !name.is_empty()) else { return };
        let rename = |name: &mut String| {
            if name == value {
                name.clone_from(wanted);
            }
        };
        let is_made = self.nodes.iter().any(|node| node.outputs.iter().any(|name| name == value));
        if is_made {
            self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().chain(&mut n.outputs)).for_each(rename);
        } else {
            let name = self.add("Identity", 13, &[value], &[]);
            self.answer(output, &name);
        }
    }

    /// What tells this node's tensors from those of others.
    fn base(&self) -> &'n str {
        self.node.outputs.iter().find(|name| !name.is_empty()).map_or("", String::as_str)
    }
}
