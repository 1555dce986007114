//! From nodes that refer to each other by name, with functions and variables, to a [`Graph`].
//!
//! Only what is asked for is built: training, saving and summary nodes beside the inference part are
//! never looked at. Functions are inlined where they are called; identities vanish.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::api::tfpb::attr_value::Value;
use super::api::tfpb::{FunctionDef, NodeDef, TensorProto};
use super::bundle::Bundle;
use super::constants::Expansion;
use super::files::Files;
use super::frame::Frame;
use super::graph::{Attributes, Graph, Node, Port};
use super::op_outputs::OpDefs;
use super::pieces::Contents;
use super::stored::Stored;
use super::{malformed, unsupported};
use crate::load::LoadError;

/// The most nodes of a graph whose functions are inlined.
pub(super) const MAX_NODES: usize = 1 << 18;
/// The most calls of functions that are inlined, and how deep one may lie in another.
const MAX_CALLS: usize = 1 << 16;
pub(super) const MAX_DEPTH: usize = 64;
/// The most branches of one condition.
const MAX_SIDES: usize = 1 << 12;
/// The most nodes that the functions called may have together, whether they are needed or not.
const MAX_ENTERED: usize = 1 << 22;

/// Builds a [`Graph`] from the outputs backwards.
pub(super) struct Builder<'a> {
    pub(super) graph: Graph,
    pub(super) functions: HashMap<&'a str, &'a FunctionDef>,
    pub(super) ops: OpDefs,
    pub(super) bundle: Option<Bundle<'a>>,
    /// Where the asset files are that initialise tables.
    pub(super) files: Option<&'a dyn Files>,
    /// The value that the checkpoint gives a variable, by the node of its handle.
    pub(super) variables: HashMap<usize, Port>,
    /// Keys and values of a table, by the node of its handle.
    pub(super) tables: HashMap<usize, (Port, Port)>,
    /// Names of variables by the checkpoint's own object graph.
    pub(super) object_keys: HashMap<String, String>,
    /// The values of the constants outside functions, taken out of their nodes.
    pub(super) top_constants: HashMap<String, TensorProto>,
    /// What the large ones among them consist of.
    pub(super) contents: Contents,
    pub(super) function_constants: HashMap<*const NodeDef, Stored>,
    pub(super) expansion: Expansion,
    calls: usize,
    /// The nodes of all functions that were called, as often as they were.
    entered: usize,
    /// The bytes of the attributes that were copied.
    pub(super) copied: u64,
    pub(super) budget: u64,
    /// How many loops there are, and how many nodes are in them.
    pub(super) loops: usize,
    pub(super) loop_nodes: usize,
}

/// A reference that has been followed; dead where it comes out of a branch that is never taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Live(Port),
    Dead,
}

pub(super) enum Built {
    Node(usize),
    Wires(Vec<Wire>),
}

impl<'a> Builder<'a> {
    pub(super) fn new(functions: &'a [FunctionDef], ops: OpDefs, memory_budget: u64) -> Self {
        let named = functions.iter().filter_map(|f| Some((f.signature.as_ref()?.name.as_str(), f)));
        Self {
            graph: Graph::default(),
            functions: named.collect(),
            ops,
            bundle: None,
            files: None,
            variables: HashMap::new(),
            tables: HashMap::new(),
            object_keys: HashMap::new(),
            top_constants: HashMap::new(),
            contents: Contents::new(),
            function_constants: HashMap::new(),
            expansion: Expansion::new(memory_budget),
            calls: 0,
            entered: 0,
            copied: 0,
            budget: memory_budget,
            loops: 0,
            loop_nodes: 0,
        }
    }

    /// Follows a reference; what it needs is built. No recursion but for function calls, however
    /// long the chain.
    pub(super) fn need(&mut self, frame: &mut Frame<'a>, reference: &str) -> Result<Wire, LoadError> {
        if let Some(wire) = self.look_up(frame, reference)? {
            return Ok(wire);
        }
        let mut stack: Vec<(&'a NodeDef, usize)> = vec![(frame.node(reference)?, 0)];
        let mut open: HashSet<&'a str> = stack.iter().map(|(n, _)| n.name.as_str()).collect();
        while let Some((node, next)) = stack.last_mut() {
            let node: &'a NodeDef = node;
            let is_exit = matches!(node.op.as_str(), "Exit" | "RefExit");
            let input = if is_exit {
                {
                    let frames = Rc::clone(frame.loop_frames());
                    frames.need(&frame.loops, node, *next)
                }
            } else {
                node.input.get(*next).map(String::as_str)
            };
            if let Some(input) = input {
                *next += 1;
                if input.starts_with('^') || self.look_up(frame, input)?.is_some() {
                    continue;
                }
                let input = frame.node(input)?;
                if !open.insert(&input.name) {
                    return Err(cycle(input));
                }
                stack.push((input, 0));
                continue;
            }
            let built = if is_exit {
                Built::Wires(vec![self.build_exit(frame, node)?])
            } else {
                let mut inputs = Vec::new();
                for input in node.input.iter().filter(|i| !i.starts_with('^')) {
                    let wire = self.look_up(frame, input)?;
                    inputs.push(wire.ok_or_else(|| malformed(format!("`{input}` is not built")))?);
                }
                let live = inputs.iter().filter(|w| **w != Wire::Dead).count();
                if matches!(node.op.as_str(), "Merge" | "RefMerge") && live > 1 {
                    Built::Wires(vec![self.build_merge(frame, node, &inputs)?])
                } else {
                    self.build(frame, node, &inputs)?
                }
            };
            frame.built.insert(&node.name, built);
            open.remove(node.name.as_str());
            stack.pop();
        }
        self.look_up(frame, reference)?.ok_or_else(|| malformed(format!("`{reference}` is not built")))
    }

    /// The live port that a reference leads to.
    pub(super) fn need_live(&mut self, frame: &mut Frame<'a>, reference: &str) -> Result<Port, LoadError> {
        match self.need(frame, reference)? {
            Wire::Live(port) => Ok(port),
            Wire::Dead => Err(malformed(format!("`{reference}` lies in a branch that is never taken"))),
        }
    }

    /// Adds a node.
    pub(super) fn push(&mut self, node: Node) -> Result<usize, LoadError> {
        if self.graph.nodes.len() >= MAX_NODES {
            return Err(malformed(format!("the graph has more than {MAX_NODES} nodes")));
        }
        self.graph.nodes.push(node);
        Ok(self.graph.nodes.len() - 1)
    }

    /// Adds a constant.
    pub(super) fn push_constant(&mut self, name: &str, value: impl Into<Stored>) -> Result<Port, LoadError> {
        let node = Node {
            name: name.to_owned(),
            op: "Const".to_owned(),
            attributes: Attributes::default(),
            inputs: Vec::new(),
            content: value.into().into_content(),
        };
        Ok(Port::first(self.push(node)?))
    }

    /// The body of a call, its arguments in place.
    pub(super) fn enter(
        &mut self,
        caller: &Frame<'a>,
        name: &str,
        arguments: &[Wire],
        call: &'a NodeDef,
    ) -> Result<(&'a FunctionDef, Frame<'a>), LoadError> {
        let function = *self.functions.get(name).ok_or_else(|| {
            malformed(format!("the function `{name}` that `{}` calls is missing", call.name))
        })?;
        self.calls += 1;
        self.entered = self.entered.saturating_add(function.node_def.len());
        if caller.depth >= MAX_DEPTH || self.calls > MAX_CALLS || self.entered > MAX_ENTERED {
            return Err(malformed(format!("the function `{name}` is called again and again")));
        }
        let signature = function.signature.as_ref();
        let declared = signature.map(|s| s.input_arg.as_slice()).unwrap_or_default();
        if declared.len() != arguments.len() {
            return Err(malformed(format!(
                "the function `{name}` takes {} arguments, `{}` gives {}",
                declared.len(),
                call.name,
                arguments.len()
            )));
        }
        let frame = Frame {
            nodes: Rc::new(function.node_def.iter().map(|n| (n.name.as_str(), n)).collect()),
            arguments: declared.iter().map(|a| a.name.as_str()).zip(arguments.iter().copied()).collect(),
            attributes: call.attr.iter().filter_map(|(k, v)| Some((k.as_str(), v.value.as_ref()?))).collect(),
            in_function: true,
            depth: caller.depth + 1,
            ..Frame::default()
        };
        Ok((function, frame))
    }

    pub(super) fn call(
        &mut self,
        caller: &Frame<'a>,
        name: &str,
        arguments: &[Wire],
        node: &'a NodeDef,
    ) -> Result<Vec<Wire>, LoadError> {
        let (function, mut frame) = self.enter(caller, name, arguments, node)?;
        let outputs = function.signature.as_ref().map(|s| s.output_arg.as_slice()).unwrap_or_default();
        let mut wires = Vec::with_capacity(outputs.len());
        for output in outputs {
            let reference = function.ret.get(&output.name).ok_or_else(|| {
                malformed(format!("the function `{name}` does not give its output `{}`", output.name))
            })?;
            wires.push(self.need(&mut frame, reference)?);
        }
        Ok(wires)
    }

    fn build(&mut self, frame: &Frame<'a>, node: &'a NodeDef, inputs: &[Wire]) -> Result<Built, LoadError> {
        let first = || {
            let wire = inputs.first().copied();
            wire.ok_or_else(|| malformed(format!("the node `{}` has no input", node.name)))
        };
        if self.functions.contains_key(node.op.as_str()) {
            return Ok(Built::Wires(self.call(frame, &node.op, inputs, node)?));
        }
        Ok(match node.op.as_str() {
            "PartitionedCall" | "StatefulPartitionedCall" => {
                let name = function_attribute(node, "f")?;
                Built::Wires(self.call(frame, name, inputs, node)?)
            }
            "If" | "StatelessIf" => Built::Wires(self.build_if(frame, node, inputs)?),
            "Case" | "StatelessCase" => Built::Wires(self.build_case(frame, node, inputs)?),
            "While" | "StatelessWhile" => Built::Wires(self.build_while(frame, node, inputs)?),
            op if op.starts_with("TensorArray") && !inputs.contains(&Wire::Dead) => {
                Built::Wires(self.build_array(node, inputs)?)
            }
            "Identity"
            | "StopGradient"
            | "PreventGradient"
            | "Snapshot"
            | "CheckNumerics"
            | "EnsureShape"
            | "RefIdentity"
            | "GuaranteeConst"
            | "DebugIdentityV2"
            | "Print"
            | "PrintV2"
            | "PlaceholderWithDefault"
            | "OptimizationBarrier" => Built::Wires(vec![first()?]),
            "IdentityN" => Built::Wires(inputs.to_vec()),
            "Switch" | "RefSwitch" => match (first()?, inputs.get(1).and_then(|w| self.truth(*w))) {
                (data, Some(true)) => Built::Wires(vec![Wire::Dead, data]),
                (data, Some(false)) => Built::Wires(vec![data, Wire::Dead]),
                (_, None) => Built::Node(self.push_node(frame, node, inputs)?),
            },
            "_SwitchN" => {
                let outputs = Attributes::new(node.attr.clone()).int("num_outs").unwrap_or(0);
                let outputs = usize::try_from(outputs).ok().filter(|n| (1..=MAX_SIDES).contains(n));
                let outputs = outputs.ok_or_else(|| malformed(format!("`{}` has no sides", node.name)))?;
                match inputs.get(1).and_then(|w| self.number(*w)) {
                    Some(taken) => {
                        let taken = usize::try_from(taken).unwrap_or(outputs).min(outputs - 1);
                        let data = first()?;
                        let side = |at| if at == taken { data } else { Wire::Dead };
                        Built::Wires((0..outputs).map(side).collect())
                    }
                    None => Built::Wires(vec![first()?; outputs]),
                }
            }
            "Merge" | "RefMerge" => {
                let live = inputs.iter().copied().find(|w| *w != Wire::Dead);
                Built::Wires(vec![live.unwrap_or(Wire::Dead)])
            }
            _ if inputs.contains(&Wire::Dead) => Built::Wires(vec![Wire::Dead; 8]),
            "ParseExample" | "ParseExampleV2" => Built::Wires(self.build_examples(node, inputs)?),
            "ReadVariableOp" => match first()? {
                Wire::Live(handle) => Built::Wires(vec![Wire::Live(self.variable(handle)?)]),
                Wire::Dead => Built::Wires(vec![Wire::Dead]),
            },
            "LookupTableSizeV2" | "LookupTableSize" => match first()? {
                Wire::Live(table) => Built::Wires(vec![Wire::Live(self.table_size(node, table)?)]),
                Wire::Dead => Built::Wires(vec![Wire::Dead]),
            },
            "VariableV2" | "Variable" => {
                let handle = self.push_node(frame, node, inputs)?;
                Built::Node(handle)
            }
            _ => Built::Node(self.push_node(frame, node, inputs)?),
        })
    }

    fn look_up(&self, frame: &Frame<'a>, reference: &str) -> Result<Option<Wire>, LoadError> {
        let (name, output) = reference.split_once(':').unwrap_or((reference, ""));
        if let Some(wire) = frame.arguments.get(name) {
            return Ok(Some(*wire));
        }
        let missing = || malformed(format!("`{reference}` is an output that its node does not have"));
        let slot = if let Ok(slot) = output.parse() {
            slot
        } else if frame.in_function && !output.is_empty() {
            let (argument, index) = output.split_once(':').unwrap_or((output, "0"));
            let index = index.parse().map_err(|_| missing())?;
            self.ops.flat_index(frame.node(reference)?, argument, index).ok_or_else(missing)?
        } else if output.is_empty() {
            0
        } else {
            return Err(missing());
        };
        if let Some(port) = frame.feeds.get(&(name.to_owned(), slot)) {
            return Ok(Some(*port));
        }
        match frame.built.get(name) {
            None => Ok(None),
            Some(Built::Node(node)) => Ok(Some(Wire::Live(Port { node: *node, slot }))),
            Some(Built::Wires(wires)) => wires.get(slot).copied().map(Some).ok_or_else(missing),
        }
    }
}

pub(super) fn function_attribute<'n>(node: &'n NodeDef, attribute: &str) -> Result<&'n str, LoadError> {
    match node.attr.get(attribute).and_then(|a| a.value.as_ref()) {
        Some(Value::Func(f)) => Ok(&f.name),
        _ => Err(malformed(format!("the node `{}` does not say which function it calls", node.name))),
    }
}

/// A graph that runs in circles is a loop of TensorFlow 1.
pub(super) fn cycle(node: &NodeDef) -> LoadError {
    match node.op.as_str() {
        "Merge" | "RefMerge" | "NextIteration" | "Enter" | "Exit" | "LoopCond" | "Switch" => {
            unsupported(node.op.as_str(), &node.name)
        }
        _ => malformed(format!("the graph has a cycle at `{}`", node.name)),
    }
}
