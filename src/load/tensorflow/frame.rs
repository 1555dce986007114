//! Nodes that know each other by name: a graph, the body of a call, a turn of a loop.

use std::collections::HashMap;
use std::rc::Rc;

use super::api::tfpb::NodeDef;
use super::api::tfpb::attr_value::Value;
use super::builder::{Built, MAX_DEPTH, Wire};
use super::circles::LoopFrames;
use super::guards::Guards;
use super::malformed;
use crate::load::LoadError;

/// Nodes that know each other by name: the graph itself, or the body of one call.
#[derive(Default)]
pub(super) struct Frame<'a> {
    pub(super) nodes: Rc<HashMap<&'a str, &'a NodeDef>>,
    pub(super) arguments: HashMap<&'a str, Wire>,
    /// What is given from outside in place of an output of a node.
    pub(super) feeds: HashMap<(String, usize), Wire>,
    pub(super) built: HashMap<&'a str, Built>,
    /// What the states of a loop of TensorFlow 1 are after it, by the name of its frame.
    pub(super) loops: HashMap<&'a str, Vec<Wire>>,
    pub(super) loop_frames: Option<Rc<LoopFrames<'a>>>,
    /// The conditions that a node's value lies inside, as far as somebody asked.
    pub(super) guards: HashMap<&'a str, Guards<'a>>,
    pub(super) attributes: HashMap<&'a str, &'a Value>,
    pub(super) in_function: bool,
    pub(super) depth: usize,
}

impl<'a> Frame<'a> {
    /// The graph outside all functions.
    pub(super) fn top(nodes: &'a [NodeDef]) -> Self {
        Self { nodes: Rc::new(nodes.iter().map(|n| (n.name.as_str(), n)).collect()), ..Self::default() }
    }

    /// The same nodes inside a loop, where nothing is built yet.
    pub(super) fn inside(&self, at: &NodeDef) -> Result<Self, LoadError> {
        if self.depth >= MAX_DEPTH {
            return Err(malformed(format!("the loop `{}` lies too deep in others", at.name)));
        }
        Ok(Self {
            nodes: Rc::clone(&self.nodes),
            arguments: self.arguments.clone(),
            feeds: self.feeds.clone(),
            attributes: self.attributes.clone(),
            in_function: self.in_function,
            depth: self.depth + 1,
            loop_frames: self.loop_frames.clone(),
            ..Self::default()
        })
    }

    /// Gives something from outside in place of an output of a node.
    pub(super) fn give(&mut self, node: &str, slot: usize, wire: Wire) {
        self.feeds.insert((node.to_owned(), slot), wire);
    }

    /// The loops of TensorFlow 1 among the nodes.
    pub(super) fn loop_frames(&mut self) -> &Rc<LoopFrames<'a>> {
        self.loop_frames.get_or_insert_with(|| Rc::new(LoopFrames::find(&self.nodes)))
    }

    /// The node that a reference names.
    pub(super) fn node(&self, reference: &str) -> Result<&'a NodeDef, LoadError> {
        let name = reference.split(':').next().unwrap_or(reference);
        self.nodes.get(name).copied().ok_or_else(|| malformed(format!("there is no node `{name}`")))
    }
}
