//! Loops, as a graph holds them: what a turn computes is a graph of its own inside a node.
//!
//! TensorFlow 2 writes a loop as a `While` with a function for its condition and one for its turn,
//! TensorFlow 1 as nodes that run in circles ([`circles`](super::circles)). Both are built here among
//! the other nodes, and then what depends on the loop's states is taken out into graphs of their
//! own. So handles of variables and tables work inside as they do outside, and what is the same in
//! every turn is computed once, outside.

use super::api::tfpb::attr_value::Value;
use super::api::tfpb::{DataType, NodeDef};
use super::builder::{Builder, MAX_NODES, Wire, function_attribute};
use super::frame::Frame;
use super::graph::{Attributes, Content, Graph, GraphOutput, Loop, Node, Port};
use super::malformed;
use crate::load::LoadError;

/// The most loops of a graph, and the most states of a loop: what is done for each grows with the
/// size of the graph.
const MAX_LOOPS: usize = 1 << 10;
const MAX_STATES: usize = 1 << 10;
/// The most values that a loop takes from outside.
const MAX_CAPTURES: usize = 1 << 12;

/// A loop whose states have been made, to be built up.
pub(super) struct Opened {
    first: usize,
    initial: Vec<Port>,
    /// What each state is inside the loop.
    pub(super) inside: Vec<Port>,
}

impl<'a> Builder<'a> {
    /// `While` and its kin: a function tells whether another turn is due, another one is the turn.
    pub(super) fn build_while(
        &mut self,
        frame: &Frame<'a>,
        node: &'a NodeDef,
        inputs: &[Wire],
    ) -> Result<Vec<Wire>, LoadError> {
        let mut initial = Vec::with_capacity(inputs.len());
        for wire in inputs {
            let Wire::Live(port) = wire else { return Ok(vec![Wire::Dead; inputs.len()]) };
            initial.push(*port);
        }
        let opened = self.open_loop(node, &initial, |position| is_handle(node, position))?;
        let arguments: Vec<Wire> = opened.inside.iter().map(|port| Wire::Live(*port)).collect();
        let condition = self.call(frame, function_attribute(node, "cond")?, &arguments, node)?;
        let next = self.call(frame, function_attribute(node, "body")?, &arguments, node)?;
        let ([Wire::Live(condition)], true) = (condition.as_slice(), next.len() == inputs.len()) else {
            return Err(malformed(format!("the loop `{}` does not give what it takes", node.name)));
        };
        let mut ports = Vec::with_capacity(next.len());
        for wire in next {
            let Wire::Live(port) = wire else { return Err(never_ends(node)) };
            ports.push(port);
        }
        self.close_loop(node, opened, *condition, &ports)
    }

    /// Makes the states of a loop. A handle of a variable or table is no state: it stays what it is.
    pub(super) fn open_loop(
        &mut self,
        node: &NodeDef,
        initial: &[Port],
        is_handle: impl Fn(usize) -> bool,
    ) -> Result<Opened, LoadError> {
        self.loops += 1;
        if self.loops > MAX_LOOPS || initial.len() > MAX_STATES {
            return Err(malformed(format!(
                "the loop `{}` is one of more than {MAX_LOOPS}, or has more than {MAX_STATES} states",
                node.name
            )));
        }
        let first = self.graph.nodes.len();
        let mut inside = Vec::with_capacity(initial.len());
        let mut given = Vec::with_capacity(initial.len());
        for (position, port) in initial.iter().enumerate() {
            let port = if self.is_ref_variable(*port) { self.variable(*port)? } else { *port };
            given.push(port);
            inside.push(if is_handle(position) { port } else { self.push_state(node)? });
        }
        Ok(Opened { first, initial: given, inside })
    }

    /// Takes what was built since the loop was opened out of the graph, and puts the loop there.
    /// Gives what each state is after the last turn.
    pub(super) fn close_loop(
        &mut self,
        node: &NodeDef,
        opened: Opened,
        condition: Port,
        next: &[Port],
    ) -> Result<Vec<Wire>, LoadError> {
        let Opened { first, initial, inside } = opened;
        let is_state = |position: usize| inside.get(position) != initial.get(position);
        // A state that every turn hands on as it is lies outside.
        let changes = |position: usize| is_state(position) && inside.get(position) != next.get(position);
        let states: Vec<usize> = (0..inside.len()).filter(|p| changes(*p)).collect();
        let outside = |port: Port| match inside.iter().position(|i| *i == port) {
            Some(at) if is_state(at) && !changes(at) => initial.get(at).copied().unwrap_or(port),
            _ => port,
        };
        for node in self.graph.nodes.iter_mut().skip(first) {
            node.inputs.iter_mut().for_each(|port| *port = outside(*port));
        }
        let next: Vec<Port> = next.iter().map(|port| outside(*port)).collect();
        let roots: Vec<Port> = states.iter().filter_map(|p| inside.get(*p).copied()).collect();
        let inner = self.depending(first, &roots);
        let mut parts = Parts { inner: &inner, states: &roots, captures: Vec::new() };
        let wanted: Vec<Port> = states.iter().filter_map(|p| next.get(*p).copied()).collect();
        let condition = parts.graph(&self.graph, &[outside(condition)])?;
        let body = parts.graph(&self.graph, &wanted)?;
        let captures = parts.captures;
        // What two parts need is in both, and so is all that lies inside it.
        self.loop_nodes += condition.all_nodes().len() + body.all_nodes().len();
        if self.loop_nodes > MAX_NODES {
            return Err(malformed(format!("the loops of the graph have more than {MAX_NODES} nodes")));
        }
        let given = states.iter().filter_map(|p| initial.get(*p).copied());
        let inputs: Vec<Port> = given.chain(captures).collect();
        let count = states.len();
        let at = self.push(Node {
            name: node.name.clone(),
            op: "While".to_owned(),
            attributes: Attributes::default(),
            inputs,
            content: Content::Loop(Box::new(Loop { condition, body, states: count })),
        })?;
        let after = |position: usize| match states.iter().position(|s| *s == position) {
            Some(slot) => Wire::Live(Port { node: at, slot }),
            None => initial.get(position).map_or(Wire::Dead, |port| Wire::Live(*port)),
        };
        Ok((0..inside.len()).map(after).collect())
    }

    fn push_state(&mut self, node: &NodeDef) -> Result<Port, LoadError> {
        let state = Node {
            name: node.name.clone(),
            op: "While".to_owned(),
            attributes: Attributes::default(),
            inputs: Vec::new(),
            content: Content::State,
        };
        Ok(Port::first(self.push(state)?))
    }

    /// Which of the nodes from `first` on need one of these.
    fn depending(&self, first: usize, roots: &[Port]) -> Vec<bool> {
        let mut depends = vec![false; self.graph.nodes.len()];
        for root in roots {
            depends.get_mut(root.node).into_iter().for_each(|d| *d = true);
        }
        for (index, node) in self.graph.nodes.iter().enumerate().skip(first) {
            if node.inputs.iter().any(|port| depends.get(port.node) == Some(&true)) {
                depends.get_mut(index).into_iter().for_each(|d| *d = true);
            }
        }
        depends
    }
}

/// Takes graphs out of a graph. Their inputs are the states, then what they take from outside.
struct Parts<'p> {
    /// Which nodes lie inside.
    inner: &'p [bool],
    states: &'p [Port],
    captures: Vec<Port>,
}

impl Parts<'_> {
    /// The graph of what these outputs need; constants go along.
    fn graph(&mut self, whole: &Graph, outputs: &[Port]) -> Result<Graph, LoadError> {
        let needed = whole.needed(outputs.iter().copied(), |index| self.inner.get(index) == Some(&true));
        let mut part = Taken { graph: Graph::default(), places: std::collections::HashMap::new() };
        for (index, node) in whole.nodes.iter().enumerate() {
            if needed.get(index) != Some(&true) || self.inner.get(index) != Some(&true) {
                continue;
            }
            if let Some(position) = self.states.iter().position(|s| s.node == index) {
                part.add_input(Port::first(index), position);
                continue;
            }
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for port in &node.inputs {
                inputs.push(self.place(&mut part, whole, *port)?);
            }
            part.graph.nodes.push(Node {
                name: node.name.clone(),
                op: node.op.clone(),
                attributes: node.attributes.clone(),
                inputs,
                content: node.content.clone(),
            });
            part.places.insert(Port::first(index), part.graph.nodes.len() - 1);
        }
        for output in outputs {
            let port = self.place(&mut part, whole, *output)?;
            part.graph.outputs.push(GraphOutput { name: String::new(), port, datum: None });
        }
        Ok(part.graph)
    }

    /// Where something that lies in the whole is in the part.
    fn place(&mut self, part: &mut Taken, whole: &Graph, port: Port) -> Result<Port, LoadError> {
        if self.inner.get(port.node) == Some(&true) {
            let node = part.places.get(&Port::first(port.node));
            let node = *node.ok_or_else(|| malformed("a loop runs backwards"))?;
            return Ok(Port { node, slot: port.slot });
        }
        if let Some(node) = part.places.get(&port) {
            return Ok(Port::first(*node));
        }
        if let Some(node) = whole.nodes.get(port.node)
            && matches!(node.content, Content::Constant(_) | Content::Weights(_))
        {
            part.graph.nodes.push(Node {
                name: node.name.clone(),
                op: node.op.clone(),
                attributes: Attributes::default(),
                inputs: Vec::new(),
                content: node.content.clone(),
            });
            let at = part.graph.nodes.len() - 1;
            part.places.insert(port, at);
            return Ok(Port::first(at));
        }
        let known = self.captures.iter().position(|c| *c == port);
        if known.is_none() {
            self.captures.push(port);
        }
        let capture = known.unwrap_or(self.captures.len() - 1);
        if capture >= MAX_CAPTURES {
            return Err(malformed(format!("a loop takes more than {MAX_CAPTURES} values from outside")));
        }
        Ok(Port::first(part.add_input(port, self.states.len() + capture)))
    }
}

struct Taken {
    graph: Graph,
    /// Nodes of the part, by what they are in the whole.
    places: std::collections::HashMap<Port, usize>,
}

impl Taken {
    fn add_input(&mut self, of: Port, position: usize) -> usize {
        self.graph.nodes.push(Node {
            name: String::new(),
            op: "Placeholder".to_owned(),
            attributes: Attributes::default(),
            inputs: Vec::new(),
            content: Content::Input(position),
        });
        let at = self.graph.nodes.len() - 1;
        self.places.insert(of, at);
        at
    }
}

/// True for an argument that is a handle of a variable or a table.
fn is_handle(node: &NodeDef, position: usize) -> bool {
    let types = match node.attr.get("T").and_then(|a| a.value.as_ref()) {
        Some(Value::List(list)) => list.r#type.as_slice(),
        _ => &[],
    };
    types.get(position) == Some(&(DataType::DtResource as i32))
}

pub(super) fn never_ends(node: &NodeDef) -> LoadError {
    malformed(format!("the loop `{}` has a turn that never ends", node.name))
}
