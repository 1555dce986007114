//! From nodes that refer to each other by name, with functions and variables, to a [`Graph`].
//!
//! Only what is asked for is built: training, saving and summary nodes beside the inference part are
//! never looked at. Functions are inlined where they are called; identities vanish.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prost::Message;

use super::api::tfpb::attr_value::Value;
use super::api::tfpb::{AttrValue, FunctionDef, NodeDef, TensorProto};
use super::api::{EngineTensor, tensor0};
use super::bundle::Bundle;
use super::constants::{self, Expansion};
use super::files::Files;
use super::graph::{Attributes, Content, Graph, Node, Port};
use super::op_outputs::OpDefs;
use super::{malformed, unsupported};
use crate::load::LoadError;

/// The most nodes of a graph whose functions are inlined.
const MAX_NODES: usize = 1 << 18;
/// The most calls of functions that are inlined, and how deep one may lie in another.
const MAX_CALLS: usize = 1 << 16;
const MAX_DEPTH: usize = 64;
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
    function_constants: HashMap<*const NodeDef, Arc<EngineTensor>>,
    expansion: Expansion,
    calls: usize,
    /// The nodes of all functions that were called, as often as they were.
    entered: usize,
    /// The bytes of the attributes that were copied.
    copied: u64,
    pub(super) budget: u64,
}

/// Nodes that know each other by name: the graph itself, or the body of one call.
#[derive(Default)]
pub(super) struct Frame<'a> {
    nodes: HashMap<&'a str, &'a NodeDef>,
    arguments: HashMap<&'a str, Wire>,
    /// What is given from outside in place of an output of a node.
    pub(super) feeds: HashMap<(String, usize), Port>,
    built: HashMap<&'a str, Built>,
    attributes: HashMap<&'a str, &'a Value>,
    in_function: bool,
    depth: usize,
}

/// A reference that has been followed; dead where it comes out of a branch that is never taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Live(Port),
    Dead,
}

enum Built {
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
            function_constants: HashMap::new(),
            expansion: Expansion::new(memory_budget),
            calls: 0,
            entered: 0,
            copied: 0,
            budget: memory_budget,
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
            if let Some(input) = node.input.get(*next) {
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
            let mut inputs = Vec::new();
            for input in node.input.iter().filter(|i| !i.starts_with('^')) {
                let wire = self.look_up(frame, input)?;
                inputs.push(wire.ok_or_else(|| malformed(format!("`{input}` is not built")))?);
            }
            let built = self.build(frame, node, &inputs)?;
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
    pub(super) fn push_constant(&mut self, name: &str, value: Arc<EngineTensor>) -> Result<Port, LoadError> {
        let node = Node {
            name: name.to_owned(),
            op: "Const".to_owned(),
            attributes: Attributes::default(),
            inputs: Vec::new(),
            content: Content::Constant(value),
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
            nodes: function.node_def.iter().map(|n| (n.name.as_str(), n)).collect(),
            arguments: declared.iter().map(|a| a.name.as_str()).zip(arguments.iter().copied()).collect(),
            attributes: call.attr.iter().filter_map(|(k, v)| Some((k.as_str(), v.value.as_ref()?))).collect(),
            in_function: true,
            depth: caller.depth + 1,
            ..Frame::default()
        };
        Ok((function, frame))
    }

    fn call(
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
            "Merge" | "RefMerge" => {
                let live: Vec<_> = inputs.iter().filter(|w| **w != Wire::Dead).collect();
                match live.as_slice() {
                    [one] => Built::Wires(vec![**one]),
                    _ => Built::Wires(vec![Wire::Live(self.build_merge(node, inputs)?)]),
                }
            }
            _ if inputs.contains(&Wire::Dead) => Built::Wires(vec![Wire::Dead; 8]),
            "ReadVariableOp" => match first()? {
                Wire::Live(handle) => Built::Wires(vec![Wire::Live(self.variable(handle)?)]),
                Wire::Dead => Built::Wires(vec![Wire::Dead]),
            },
            "VariableV2" | "Variable" => {
                let handle = self.push_node(frame, node, inputs)?;
                Built::Node(handle)
            }
            _ => Built::Node(self.push_node(frame, node, inputs)?),
        })
    }

    /// An ordinary node; those that take a variable or a table by its handle get its value.
    fn push_node(
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
            constant = Some(Arc::new(tensor0(false)));
        }
        self.push(Node {
            name: node.name.clone(),
            op: if is_learning_phase { "Const".to_owned() } else { node.op.clone() },
            attributes,
            inputs: ports,
            content: constant.map_or(Content::None, Content::Constant),
        })
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

    fn constant(&mut self, frame: &Frame<'a>, node: &'a NodeDef) -> Result<Arc<EngineTensor>, LoadError> {
        if !frame.in_function
            && let Some(proto) = self.top_constants.remove(&node.name)
        {
            return constants::tensor(&node.name, proto, &mut self.expansion).map(Arc::new);
        }
        let identity = std::ptr::from_ref(node);
        if let Some(known) = self.function_constants.get(&identity) {
            return Ok(Arc::clone(known));
        }
        let Some(Value::Tensor(proto)) = node.attr.get("value").and_then(|a| a.value.as_ref()) else {
            return Err(malformed(format!("the constant `{}` has no value", node.name)));
        };
        let tensor = Arc::new(constants::tensor(&node.name, proto.clone(), &mut self.expansion)?);
        self.function_constants.insert(identity, Arc::clone(&tensor));
        Ok(tensor)
    }

    /// A condition that is known is followed; of any other both branches are computed, and the
    /// outputs chosen from.
    fn build_if(
        &mut self,
        frame: &Frame<'a>,
        node: &'a NodeDef,
        inputs: &[Wire],
    ) -> Result<Vec<Wire>, LoadError> {
        let (condition, arguments) = inputs
            .split_first()
            .ok_or_else(|| malformed(format!("the node `{}` has no condition", node.name)))?;
        let branch = |taken| function_attribute(node, if taken { "then_branch" } else { "else_branch" });
        if let Some(taken) = self.truth(*condition) {
            return self.call(frame, branch(taken)?, arguments, node);
        }
        let yes = self.call(frame, branch(true)?, arguments, node)?;
        let no = self.call(frame, branch(false)?, arguments, node)?;
        let choose = |(yes, no)| self.push_select(node, *condition, yes, no);
        yes.into_iter().zip(no).map(choose).collect()
    }

    fn push_select(
        &mut self,
        node: &NodeDef,
        condition: Wire,
        yes: Wire,
        no: Wire,
    ) -> Result<Wire, LoadError> {
        let (Wire::Live(condition), Wire::Live(yes), Wire::Live(no)) = (condition, yes, no) else {
            return Ok(Wire::Dead);
        };
        if yes == no {
            return Ok(Wire::Live(yes));
        }
        let select = Node {
            name: node.name.clone(),
            op: "SelectV2".to_owned(),
            attributes: Attributes::default(),
            inputs: vec![condition, yes, no],
            content: Content::None,
        };
        Ok(Wire::Live(Port::first(self.push(select)?)))
    }

    /// The two branches of an old condition come together: both were computed, one is chosen.
    fn build_merge(&mut self, node: &'a NodeDef, inputs: &[Wire]) -> Result<Port, LoadError> {
        let [Wire::Live(a), Wire::Live(b)] = inputs else { return Err(cycle(node)) };
        let (side_a, side_b) = (self.branch_of(*a), self.branch_of(*b));
        let (condition, yes, no) = match (side_a, side_b) {
            (Some((condition, false)), Some((_, true)) | None) | (None, Some((condition, true))) => {
                (condition, b, a)
            }
            (Some((condition, true)), Some((_, false)) | None) | (None, Some((condition, false))) => {
                (condition, a, b)
            }
            _ => return Err(cycle(node)),
        };
        match self.push_select(node, Wire::Live(condition), Wire::Live(*yes), Wire::Live(*no))? {
            Wire::Live(port) => Ok(port),
            Wire::Dead => Err(cycle(node)),
        }
    }

    /// The condition of the nearest switch that a value comes through, and its side.
    fn branch_of(&self, port: Port) -> Option<(Port, bool)> {
        let (mut seen, mut ways) = (HashSet::new(), vec![port]);
        while let Some(port) = ways.pop() {
            let node = self.graph.nodes.get(port.node)?;
            if node.op == "Switch" {
                return Some((*node.inputs.get(1)?, port.slot == 1));
            }
            if seen.insert(port.node) && seen.len() < 4096 {
                ways.extend(&node.inputs);
            }
        }
        None
    }

    /// The value of a condition that does not depend on the input.
    fn truth(&self, wire: Wire) -> Option<bool> {
        let Wire::Live(mut port) = wire else { return None };
        let mut negated = false;
        loop {
            // A node only reads nodes before it, so this ends.
            let node = self.graph.nodes.get(port.node)?;
            match (&node.content, node.op.as_str()) {
                (Content::Constant(value), _) => {
                    return value.cast_to_scalar::<bool>().ok().map(|truth| truth != negated);
                }
                (_, "LogicalNot") => port = *node.inputs.first()?,
                _ => return None,
            }
            negated = !negated;
        }
    }

    fn look_up(&self, frame: &Frame<'a>, reference: &str) -> Result<Option<Wire>, LoadError> {
        let (name, output) = reference.split_once(':').unwrap_or((reference, ""));
        if let Some(wire) = frame.arguments.get(name) {
            return Ok(Some(*wire));
        }
        let missing = || malformed(format!("`{reference}` is an output that its node does not have"));
        let slot = if frame.in_function && !output.is_empty() {
            let (argument, index) = output.split_once(':').unwrap_or((output, "0"));
            let index = index.parse().map_err(|_| missing())?;
            self.ops.flat_index(frame.node(reference)?, argument, index).ok_or_else(missing)?
        } else if output.is_empty() {
            0
        } else {
            output.parse().map_err(|_| missing())?
        };
        if let Some(port) = frame.feeds.get(&(name.to_owned(), slot)) {
            return Ok(Some(Wire::Live(*port)));
        }
        match frame.built.get(name) {
            None => Ok(None),
            Some(Built::Node(node)) => Ok(Some(Wire::Live(Port { node: *node, slot }))),
            Some(Built::Wires(wires)) => wires.get(slot).copied().map(Some).ok_or_else(missing),
        }
    }
}

impl<'a> Frame<'a> {
    /// The graph outside all functions.
    pub(super) fn top(nodes: &'a [NodeDef]) -> Self {
        Self { nodes: nodes.iter().map(|n| (n.name.as_str(), n)).collect(), ..Self::default() }
    }

    /// The node that a reference names.
    pub(super) fn node(&self, reference: &str) -> Result<&'a NodeDef, LoadError> {
        let name = reference.split(':').next().unwrap_or(reference);
        self.nodes.get(name).copied().ok_or_else(|| malformed(format!("there is no node `{name}`")))
    }
}

pub(super) fn function_attribute<'n>(node: &'n NodeDef, attribute: &str) -> Result<&'n str, LoadError> {
    match node.attr.get(attribute).and_then(|a| a.value.as_ref()) {
        Some(Value::Func(f)) => Ok(&f.name),
        _ => Err(malformed(format!("the node `{}` does not say which function it calls", node.name))),
    }
}

/// A graph that runs in circles is a loop of TensorFlow 1.
fn cycle(node: &NodeDef) -> LoadError {
    match node.op.as_str() {
        "Merge" | "RefMerge" | "NextIteration" | "Enter" | "Exit" | "LoopCond" | "Switch" => {
            unsupported(node.op.as_str(), &node.name)
        }
        _ => malformed(format!("the graph has a cycle at `{}`", node.name)),
    }
}
