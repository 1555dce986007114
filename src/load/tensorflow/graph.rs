//! A network as the rest of this module sees it: no names to look up, no functions, no variables.

use std::collections::HashMap;
use std::sync::Arc;

use super::api::tfpb::attr_value::{ListValue, Value};
use super::api::tfpb::{AttrValue, DataType};
use super::api::{DatumType, EngineTensor};
use crate::kernel::Kernel;
use crate::tensor::Tensor;

/// Nodes in an order in which every node comes after those it reads; only what the outputs need.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) inputs: Vec<GraphInput>,
    pub(super) outputs: Vec<GraphOutput>,
}

impl Graph {
    /// How often each output of a node is read.
    pub(super) fn reads(&self) -> HashMap<Port, usize> {
        let mut reads = HashMap::new();
        let outputs = self.outputs.iter().map(|o| o.port);
        for port in self.nodes.iter().flat_map(|n| n.inputs.iter().copied()).chain(outputs) {
            *reads.entry(port).or_insert(0) += 1;
        }
        reads
    }

    /// For each node, whether these ports need it. What a node itself needs is looked at where
    /// `follow` says so.
    pub(super) fn needed(
        &self,
        ports: impl Iterator<Item = Port>,
        follow: impl Fn(usize) -> bool,
    ) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        let mut open: Vec<usize> = ports.map(|p| p.node).collect();
        while let Some(index) = open.pop() {
            if let (Some(seen), Some(node)) = (needed.get_mut(index), self.nodes.get(index))
                && !std::mem::replace(seen, true)
                && follow(index)
            {
                open.extend(node.inputs.iter().map(|p| p.node));
            }
        }
        needed
    }

    /// All nodes, those inside loops too.
    pub(super) fn all_nodes(&self) -> Vec<&Node> {
        let mut open = vec![self];
        let mut nodes = Vec::new();
        while let Some(graph) = open.pop() {
            for node in &graph.nodes {
                nodes.push(node);
                if let Content::Loop(repeat) = &node.content {
                    open.extend([&repeat.condition, &repeat.body]);
                }
            }
        }
        nodes
    }
}

/// One operator.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// For messages; not unique.
    pub(super) name: String,
    pub(super) op: String,
    pub(super) attributes: Attributes,
    pub(super) inputs: Vec<Port>,
    pub(super) content: Content,
}

/// What a node holds beside its attributes.
#[derive(Clone, Debug)]
pub(super) enum Content {
    None,
    Constant(Arc<EngineTensor>),
    /// A constant of many `f32`, which a layer may take over.
    Weights(Arc<Tensor>),
    /// A constant of complex numbers, by its real and its imaginary parts.
    Complex(Arc<[Arc<EngineTensor>; 2]>),
    /// A layer that has taken over its weights; its only input is what it works on.
    Layer(Arc<dyn Kernel>),
    /// Input of the model, by position; in a loop, state or else something from outside.
    Input(usize),
    /// A state of a loop that is under construction.
    State,
    Loop(Box<Loop>),
}

/// A loop: its states, as long as a condition on them holds, become what a turn makes of them.
///
/// The node's inputs are the states before the first turn, then what the loop takes from outside;
/// both graphs have these inputs. The node's outputs are the states after the last turn.
#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) condition: Graph,
    pub(super) body: Graph,
    pub(super) states: usize,
}

/// An output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Port {
    pub(super) node: usize,
    pub(super) slot: usize,
}

impl Port {
    pub(super) const fn first(node: usize) -> Self {
        Self { node, slot: 0 }
    }
}

/// An input of the model.
#[derive(Clone, Debug)]
pub(super) struct GraphInput {
    pub(super) name: String,
    pub(super) datum: DatumType,
    /// `None` for an open dimension; all `None` for an unknown rank.
    pub(super) dims: Option<Vec<Option<usize>>>,
    /// True for a feature that the file reads out of a serialised message.
    pub(super) parsed: bool,
}

/// An output of the model.
#[derive(Clone, Debug)]
pub(super) struct GraphOutput {
    pub(super) name: String,
    pub(super) port: Port,
    /// Its type as the file declares it, where it does.
    pub(super) datum: Option<DatumType>,
}

/// The attributes of a node, each asked for by the type that it should have.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(HashMap<String, AttrValue>);

impl Attributes {
    pub(super) const fn new(values: HashMap<String, AttrValue>) -> Self {
        Self(values)
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)?.value.as_ref()
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), AttrValue { value: Some(value) });
    }

    /// Sets an attribute where the file leaves it out; false where it does not.
    pub(super) fn set_default(&mut self, name: &str, value: &AttrValue) -> bool {
        let is_absent = !self.0.contains_key(name);
        if is_absent {
            self.0.insert(name.to_owned(), value.clone());
        }
        is_absent
    }

    pub(super) fn into_inner(self) -> HashMap<String, AttrValue> {
        self.0
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.value(name)? {
            Value::I(i) => Some(*i),
            _ => None,
        }
    }

    pub(super) fn float(&self, name: &str) -> Option<f32> {
        match self.value(name)? {
            Value::F(f) => Some(*f),
            _ => None,
        }
    }

    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        match self.value(name)? {
            Value::B(b) => Some(*b),
            _ => None,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::S(s) => std::str::from_utf8(s).ok(),
            _ => None,
        }
    }

    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        Some(&self.list(name)?.i)
    }

    pub(super) fn floats(&self, name: &str) -> Option<&[f32]> {
        Some(&self.list(name)?.f)
    }

    pub(super) fn list(&self, name: &str) -> Option<&ListValue> {
        match self.value(name)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    pub(super) fn data_type(&self, name: &str) -> Option<DataType> {
        match self.value(name)? {
            Value::Type(t) => DataType::try_from(*t).ok(),
            _ => None,
        }
    }

    /// The type that is computed with: what is of half the precision is computed in single.
    pub(super) fn datum(&self, name: &str) -> Option<DatumType> {
        super::constants::computed_type(self.data_type(name)?)
    }

    /// A shape: `None` inside for an open dimension, `None` in all for an unknown rank.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<Option<usize>>> {
        match self.value(name)? {
            Value::Shape(shape) if !shape.unknown_rank => {
                Some(shape.dim.iter().map(|d| usize::try_from(d.size).ok()).collect())
            }
            _ => None,
        }
    }
}
