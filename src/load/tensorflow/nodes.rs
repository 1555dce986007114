//! Nodes of a file as nodes of a [`Graph`](super::graph::Graph): attributes whole, constants as tensors.

use std::collections::HashMap;

use prost::Message;

use super::api::tensor0;
use super::api::tfpb::attr_value::Value;
use super::api::tfpb::{AttrValue, NodeDef};
use super::builder::{Builder, Wire};
use super::frame::Frame;
use super::graph::{Attributes, Content, Node, Port};
use super::stored::Stored;
use super::{constants, malformed};
use crate::load::{LoadError, Payload};

impl<'a> Builder<'a> {
    /// An ordinary node; those that take a variable or a table by its handle get its value.
    pub(super) fn push_node(
        &mut self,
        frame: &Frame<'a>,
        node: &'a NodeDef,
        inputs: &[Wire],
    ) -> Result<usize, LoadError> {
        let mut ports = Vec::with_capacity(inputs.len());
        for (position, wire) in inputs.iter().enumerate() {
            let Wire::Live(mut port) = *wire else { continue };
            let by_handle =
                matches!(node.op.as_str(), "ResourceGather" | "ResourceGatherNd") && position == 0;
            if by_handle || (self.is_ref_variable(port) && !node.op.starts_with("Assign")) {
                port = self.variable(port)?;
            }
            ports.push(port);
        }
        if matches!(node.op.as_str(), "LookupTableFindV2" | "LookupTableFind") {
            ports = self.with_table(node, ports)?;
        }
        let mut attributes = HashMap::new();
        let mut constant = None;
        for (name, value) in &node.attr {
            if node.op == "Const" && name == "value" {
                continue;
            }
            let value = match &value.value {
                Some(Value::Placeholder(outer)) => frame.attributes.get(outer.as_str()).map(|v| (*v).clone()),
                other => other.clone(),
            };
            let value = AttrValue { value };
            self.charge(&node.name, value.encoded_len() as u64)?;
            attributes.insert(name.clone(), value);
        }
        if node.op == "Const" {
            constant = Some(self.constant(frame, node)?);
        }
        let mut attributes = Attributes::new(attributes);
        let mut defaults = 0_u64;
        for (name, value) in self.ops.defaults(&node.op) {
            if attributes.set_default(name, value) {
                defaults = defaults.saturating_add(value.encoded_len() as u64);
            }
        }
        self.charge(&node.name, defaults)?;
        let is_learning_phase = node.op == "Placeholder" && node.name.ends_with("keras_learning_phase");
        if is_learning_phase {
            constant = Some(tensor0(false).into());
        }
        self.push(Node {
            name: node.name.clone(),
            op: if is_learning_phase { "Const".to_owned() } else { node.op.clone() },
            attributes,
            inputs: ports,
            content: constant.map_or(Content::None, Stored::into_content),
        })
    }

    /// A node without attributes that is no node of the file's: a step of what `node` is taken apart
    /// into.
    pub(super) fn step(&mut self, node: &NodeDef, op: &str, inputs: Vec<Port>) -> Result<Port, LoadError> {
        Ok(Port::first(self.push(Node {
            name: node.name.clone(),
            op: op.to_owned(),
            attributes: Attributes::default(),
            inputs,
            content: Content::None,
        })?))
    }

    /// Counts a copy of an attribute: a function's nodes are copied at each of its calls.
    fn charge(&mut self, node: &str, bytes: u64) -> Result<(), LoadError> {
        self.copied = self.copied.saturating_add(bytes);
        if self.copied > self.budget {
            let what = format!("the attributes of the nodes up to `{node}`");
            return Err(LoadError::OverBudget { what, needed: self.copied, budget: self.budget });
        }
        Ok(())
    }

    fn constant(&mut self, frame: &Frame<'a>, node: &'a NodeDef) -> Result<Stored, LoadError> {
        if !frame.in_function
            && let Some(proto) = self.top_constants.remove(&node.name)
        {
            let content = self.contents.remove(&node.name).unwrap_or_default();
            let value = constants::value(&node.name, proto, content, &mut self.expansion)?;
            // A loop may need it once more inside.
            self.function_constants.insert(std::ptr::from_ref(node), value.clone());
            return Ok(value);
        }
        let identity = std::ptr::from_ref(node);
        if let Some(known) = self.function_constants.get(&identity) {
            return Ok(known.clone());
        }
        let Some(Value::Tensor(proto)) = node.attr.get("value").and_then(|a| a.value.as_ref()) else {
            return Err(malformed(format!("the constant `{}` has no value", node.name)));
        };
        let value = constants::value(&node.name, proto.clone(), Payload::default(), &mut self.expansion)?;
        self.function_constants.insert(identity, value.clone());
        Ok(value)
    }
}
