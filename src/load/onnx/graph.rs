//! From the messages of a file to a graph in no format's own terms, of which both engines are
//! built: pruned to what the chosen outputs need, in an order in which it can run.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::attributes::{constant, convert};
use super::check::{describe, malformed};
use super::contributed::{self, Ranks};
use super::held::HeldTypes;
use super::proto::{
    DimensionValue, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, TypeProto, TypeValue,
    ValueInfoProto,
};
use super::sparse;
use crate::kernel::program::{GraphParts, InputParts, NodeParts};
use crate::kernel::{Attribute, Attributes, Fact, FactDim, Narrow, ROUNDED_TO};
use crate::load::tensor_proto::{BFLOAT16, FLOAT16, element_type, type_name};
use crate::load::{LoadError, LoadOptions};
use crate::tensor::ElementType;

/// A graph that is ready for an engine, with what the file declares of its inputs and outputs.
#[derive(Debug)]
pub(super) struct Graph {
    /// The nodes are in an order in which they can run.
    pub(super) parts: GraphParts,
    pub(super) inputs: Vec<Declared>,
    pub(super) outputs: Vec<Declared>,
}

/// What a file says of an input or output. Not to be believed of outputs.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    /// `None` where the file does not say, or says something that is no tensor.
    pub(super) element: Option<ElementType>,
    pub(super) dims: Option<Vec<DeclaredDim>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeclaredDim {
    Fixed(usize),
    Named(String),
    Unnamed,
}

impl DeclaredDim {
    pub(super) const fn fixed(&self) -> Option<usize> {
        match self {
            Self::Fixed(size) => Some(*size),
            Self::Named(_) | Self::Unnamed => None,
        }
    }
}

impl Graph {
    /// Takes a checked model apart.
    pub(super) fn new(model: ModelProto, options: &LoadOptions) -> Result<Self, LoadError> {
        let sets = OperatorSets(model.opset_import.iter().map(|s| (domain(&s.domain), s.version)).collect());
        let mut graph = model.graph.ok_or_else(|| malformed("there is no graph"))?;
        let outputs = choose("output", &options.outputs, &graph.output, |name| {
            graph.node.iter().flat_map(|n| &n.output).any(|output| output == name)
        })?;
        let dense = graph.initializer.iter().map(|t| t.name.as_str());
        let defaults: HashSet<&str> =
            dense.chain(graph.sparse_initializer.iter().map(sparse::name)).collect();
        let declared: Vec<_> =
            graph.input.iter().filter(|i| !defaults.contains(i.name.as_str())).cloned().collect();
        let inputs = choose("input", &options.inputs, &declared, |_| false)?;
        for input in &inputs {
            check_input(input)?;
        }
        let wanted: Vec<String> = outputs.iter().map(|o| o.name.clone()).collect();
        graph.input = inputs;
        let builder = GraphPartsBuilder {
            sets: &sets,
            room: Cell::new(options.memory_budget),
            held: HeldTypes::default(),
        };
        let parts = builder.build(graph, wanted)?;
        let inputs: Vec<Declared> = parts.1.iter().map(declare).collect();
        let mut parts = parts.0;
        round_halves(&mut parts, &outputs);
        Ok(Self { parts, inputs, outputs: outputs.iter().map(declare).collect() })
    }

    /// The bytes that the constants take.
    pub(super) fn constant_bytes(&self) -> u64 {
        self.parts.constants.iter().map(|(_, tensor)| crate::kernel::program::bytes(tensor) as u64).sum()
    }
}

/// What the file declares as half floats leaves the graph as one of them would, though it is held
/// as f32.
fn round_halves(parts: &mut GraphParts, outputs: &[ValueInfoProto]) {
    let halves = outputs.iter().map(|output| match output.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::Tensor(t)) if matches!(t.elem_type, FLOAT16 | BFLOAT16) => Some(t.elem_type),
        _ => None,
    });
    for (name, half) in parts.outputs.iter_mut().zip(halves) {
        let Some(half) = half else { continue };
        let rounded = format!("{name}.rounded");
        let mut attributes = Attributes::default();
        attributes.insert("to", Attribute::Int(1));
        attributes.insert(ROUNDED_TO, Attribute::Int(half.into()));
        parts.nodes.push(NodeParts {
            name: rounded.clone(),
            operator: "Cast".to_owned(),
            domain: String::new(),
            version: 13,
            attributes,
            inputs: vec![std::mem::replace(name, rounded.clone())],
            outputs: vec![rounded],
        });
    }
}

/// The version that the file imports of each domain.
pub(super) struct OperatorSets(HashMap<String, i64>);

impl OperatorSets {
    /// Files without a version of the domain are common where the node's domain is implied.
    fn version(&self, domain: &str) -> i64 {
        self.0.get(domain).copied().unwrap_or(1)
    }
}

/// `ai.onnx` is the default domain's other name.
fn domain(name: &str) -> String {
    if name == "ai.onnx" { String::new() } else { name.to_owned() }
}

pub(super) struct GraphPartsBuilder<'s> {
    sets: &'s OperatorSets,
    /// What sparse tensors may yet take.
    room: Cell<u64>,
    held: HeldTypes,
}

impl<'s> GraphPartsBuilder<'s> {
    fn build(
        &self,
        graph: GraphProto,
        wanted: Vec<String>,
    ) -> Result<(GraphParts, Vec<ValueInfoProto>), LoadError> {
        let order = order(&graph.node, &wanted)?;
        self.held.learn(&graph);
        let mut needed: HashSet<String> = wanted.iter().cloned().collect();
        let mut nodes: Vec<Option<NodeProto>> = graph.node.into_iter().map(Some).collect();
        let mut nodes: Vec<NodeProto> =
            order.into_iter().filter_map(|index| nodes.get_mut(index).and_then(Option::take)).collect();
        nodes.iter_mut().for_each(|node| self.held.settle(node));
        for node in &nodes {
            reads(node, &mut |name| {
                needed.insert(name.to_owned());
            });
        }
        // Each initializer's bytes are let go of as soon as its tensor is there.
        let mut constants = Vec::new();
        for tensor in graph.initializer {
            if needed.contains(&tensor.name) {
                constants.push((tensor.name.clone(), self.tensor(tensor)?));
            }
        }
        for tensor in graph.sparse_initializer {
            if needed.contains(sparse::name(&tensor)) {
                constants.push((sparse::name(&tensor).to_owned(), Arc::new(self.dense(tensor)?)));
            }
        }
        let known: HashSet<String> = constants.iter().map(|(name, _)| name.clone()).collect();
        let mut ranks: Ranks =
            constants.iter().map(|(name, value)| (name.clone(), value.dims().len())).collect();
        let mut kept = Vec::with_capacity(nodes.len());
        for node in nodes {
            if let Some(value) = constant(&node, |tensor| self.dense(tensor))? {
                let name = node.output.first().cloned().unwrap_or_default();
                ranks.insert(name.clone(), value.dims().len());
                constants.push((name, Arc::new(value)));
            } else {
                let lowered = contributed::lower(self.node(node)?, &ranks)?;
                kept.extend(lowered.nodes);
                constants.extend(lowered.constants);
            }
        }
        let inputs: Vec<_> = graph.input.into_iter().filter(|i| !known.contains(&i.name)).collect();
        let parts = GraphParts {
            constants,
            inputs: inputs.iter().map(input_parts).collect(),
            nodes: kept,
            outputs: wanted,
            captures: 0,
        };
        Ok((parts, inputs))
    }

    /// The graph of an attribute: a body of If, Loop or Scan.
    pub(super) fn body(&self, graph: GraphProto) -> Result<GraphParts, LoadError> {
        let wanted = graph.output.iter().map(|o| o.name.clone()).collect();
        Ok(self.build(graph, wanted)?.0)
    }

    fn node(&self, node: NodeProto) -> Result<NodeParts, LoadError> {
        let description = describe(&node);
        let domain = domain(&node.domain);
        Ok(NodeParts {
            version: self.sets.version(&domain),
            attributes: convert(self, node.attribute, &description)?,
            name: node.name,
            operator: node.op_type,
            domain,
            inputs: node.input,
            outputs: node.output,
        })
    }

    fn dense(&self, tensor: SparseTensorProto) -> Result<crate::tensor::Tensor, LoadError> {
        let mut room = self.room.get();
        let dense = sparse::dense(tensor, &mut room)?;
        self.room.set(room);
        Ok(dense)
    }

    #[expect(clippy::unused_self, reason = "reads as the others do")]
    fn tensor(&self, tensor: TensorProto) -> Result<Arc<crate::tensor::Tensor>, LoadError> {
        tensor.into_tensor().map(Arc::new).map_err(malformed)
    }
}

/// The nodes that the wanted tensors need, by index, each after those whose outputs it reads.
fn order(nodes: &[NodeProto], wanted: &[String]) -> Result<Vec<usize>, LoadError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let makers: HashMap<&str, usize> = nodes
        .iter()
        .enumerate()
        .flat_map(|(i, node)| node.output.iter().map(move |name| (name.as_str(), i)))
        .filter(|(name, _)| !name.is_empty())
        .collect();
    let mut marks = vec![Mark::New; nodes.len()];
    let mut order = Vec::new();
    let mut stack: Vec<usize> = wanted.iter().rev().filter_map(|n| makers.get(n.as_str()).copied()).collect();
    while let Some(&index) = stack.last() {
        let (Some(mark), Some(node)) = (marks.get_mut(index), nodes.get(index)) else { break };
        match *mark {
            Mark::Done => {
                stack.pop();
            }
            Mark::Open => {
                *mark = Mark::Done;
                order.push(index);
                stack.pop();
            }
            Mark::New => {
                *mark = Mark::Open;
                let mut open = false;
                reads(node, &mut |name| {
                    if let Some(&maker) = makers.get(name) {
                        match marks.get(maker) {
                            Some(Mark::New) => stack.push(maker),
                            Some(Mark::Open) => open = true,
                            _ => {}
                        }
                    }
                });
                if open {
                    return Err(malformed(format!("{} needs its own output", describe(node))));
                }
            }
        }
    }
    Ok(order)
}

/// Calls `found` with every name that the node reads, those that its bodies read included.
fn reads(node: &NodeProto, found: &mut impl FnMut(&str)) {
    fn body(graph: &GraphProto, found: &mut dyn FnMut(&str)) {
        for node in &graph.node {
            node.input.iter().for_each(|name| found(name));
            for graph in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
                body(graph, found);
            }
        }
        graph.output.iter().for_each(|output| found(&output.name));
    }
    node.input.iter().for_each(|name| found(name));
    for graph in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        body(graph, found);
    }
}

/// Those that were asked for, in that order, or all that the file declares.
fn choose(
    what: &'static str,
    asked: &[String],
    declared: &[ValueInfoProto],
    also: impl Fn(&str) -> bool,
) -> Result<Vec<ValueInfoProto>, LoadError> {
    if asked.is_empty() {
        return Ok(declared.to_vec());
    }
    let find = |name: &String| match declared.iter().find(|value| value.name == *name) {
        Some(value) => Ok(value.clone()),
        None if also(name) => Ok(ValueInfoProto { name: name.clone(), r#type: None }),
        None => Err(LoadError::UnknownName {
            what,
            name: name.clone(),
            known: declared.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", "),
        }),
    };
    asked.iter().map(find).collect()
}

fn check_input(input: &ValueInfoProto) -> Result<(), LoadError> {
    let refuse = |what: &str| malformed(format!("input `{}` is {what}, not a tensor", input.name));
    match input.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(TypeValue::Tensor(tensor)) => match element(tensor.elem_type) {
            Some(_) => Ok(()),
            None => Err(malformed(format!(
                "input `{}` has elements of type {}",
                input.name,
                type_name(tensor.elem_type)
            ))),
        },
        Some(TypeValue::Sequence(_)) => Err(refuse("a sequence")),
        Some(TypeValue::Map(_)) => Err(refuse("a map")),
        Some(TypeValue::SparseTensor(_)) => Err(refuse("a sparse tensor")),
        Some(TypeValue::Optional(_)) => Err(refuse("optional")),
        None => Err(malformed(format!("input `{}` has no type", input.name))),
    }
}

/// Half floats are computed as f32, and narrower types as the next one: widened in the file's constants,
/// and at the inputs and outputs.
fn element(data_type: i32) -> Option<ElementType> {
    match data_type {
        FLOAT16 | BFLOAT16 => Some(ElementType::F32),
        _ => Narrow::of(data_type).map(Narrow::element_type).or_else(|| element_type(data_type)),
    }
}

fn declare(value: &ValueInfoProto) -> Declared {
    let (element, dims) = match value.r#type.as_ref().and_then(|t: &TypeProto| t.value.as_ref()) {
        Some(TypeValue::Tensor(tensor)) => {
            let dims = tensor.shape.as_ref().map(|shape| {
                let size = |size: i64| {
                    // Exporters write 0 and -1 for what they don't know.
                    usize::try_from(size)
                        .ok()
                        .filter(|n| *n > 0)
                        .map_or(DeclaredDim::Unnamed, DeclaredDim::Fixed)
                };
                let dims = shape.dim.iter().map(|dim| match &dim.value {
                    Some(DimensionValue::Size(n)) => size(*n),
                    Some(DimensionValue::Symbol(name)) if !name.is_empty() && name != "?" => {
                        DeclaredDim::Named(name.clone())
                    }
                    Some(DimensionValue::Symbol(_)) | None => DeclaredDim::Unnamed,
                });
                dims.collect()
            });
            (element(tensor.elem_type), dims)
        }
        _ => (None, None),
    };
    Declared { name: value.name.clone(), element, dims }
}

fn input_parts(value: &ValueInfoProto) -> InputParts {
    let declared = declare(value);
    let dim = |dim: &DeclaredDim| dim.fixed().map_or(FactDim::Unknown, FactDim::Fixed);
    let fact = declared
        .element
        .map(|element| Fact { element, dims: declared.dims.map(|dims| dims.iter().map(dim).collect()) });
    InputParts { name: declared.name, fact }
}
