//! A frozen graph: a GraphDef whose variables are constants.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Buf;

use super::api::tfpb::attr_value::Value;
use super::api::tfpb::{DataType, GraphDef, NodeDef, TensorProto};
use super::builder::{Builder, Wire};
use super::constants::computed_type;
use super::frame::Frame;
use super::graph::{Attributes, Graph, GraphInput, GraphOutput, Port};
use super::op_outputs::OpDefs;
use super::pieces::{self, Contents};
use super::prune::prune;
use super::saved_model::{input_node, split_reference};
use super::{examples, malformed, unknown_name, weight};
use crate::load::{LoadError, LoadOptions, Payload, protobuf};

/// The most nodes that a file may have; a node of two bytes takes a hundred times that in memory.
const MAX_NODES: usize = 1 << 20;

/// The attribute in which `freeze` keeps the name of an output that an input has too: two nodes of a graph
/// cannot share one.
pub(super) const OUTPUT_NAME: &str = "_output_name";

/// The attribute by which `freeze` marks what a signature takes, whether an output needs it or not.
pub(super) const SIGNATURE_INPUT: &str = "_signature_input";

/// The most outputs of a graph that does not say which of its results are meant.
const MAX_OUTPUTS: usize = 1 << 12;

/// From this version of the format on a shape without dimensions means a scalar; before, it was
/// what an exporter wrote that knew nothing.
const FIRST_WITH_UNKNOWN_RANK: i32 = 24;

/// Reads a GraphDef in binary form.
pub(super) fn read(payload: Payload, options: &LoadOptions) -> Result<Graph, LoadError> {
    let nodes = top_fields(payload.clone()).filter(|(field, ..)| *field == 1).count();
    if nodes > MAX_NODES {
        return Err(malformed(format!("the graph has {nodes} nodes, more than {MAX_NODES}")));
    }
    protobuf::check(&payload, &weight::GRAPH, options.memory_budget)?;
    let (graph, contents) = pieces::graph(payload)?;
    build(graph, contents, options)
}

/// The graph of a decoded GraphDef. Its inputs are the placeholders, in the order of the file,
/// unless the options name tensors; its outputs those that are named, or else all results that
/// nothing consumes.
pub(super) fn build(
    mut graph: GraphDef,
    contents: Contents,
    options: &LoadOptions,
) -> Result<Graph, LoadError> {
    if graph.node.is_empty() {
        return Err(malformed("the graph has no nodes"));
    }
    let top_constants = take_constants(&mut graph.node);
    let functions = graph.library.take().map(|l| l.function).unwrap_or_default();
    let knows_scalars = graph.versions.as_ref().is_some_and(|v| v.producer >= FIRST_WITH_UNKNOWN_RANK);
    let nodes = &graph.node;
    let outputs = if options.outputs.is_empty() { results(nodes) } else { options.outputs.clone() };
    if outputs.is_empty() {
        return Err(malformed("the graph has no output; name one with `outputs`"));
    }
    if outputs.len() > MAX_OUTPUTS {
        return Err(malformed(format!(
            "the graph has {} results that nothing reads, more than {MAX_OUTPUTS}; name some with `outputs`",
            outputs.len()
        )));
    }
    let inputs =
        if options.inputs.is_empty() { placeholders(nodes, &outputs) } else { options.inputs.clone() };
    let mut builder = Builder::new(&functions, OpDefs::default(), options.memory_budget);
    builder.top_constants = top_constants;
    builder.contents = contents;
    let mut top = Frame::top(nodes);
    for (position, name) in inputs.iter().enumerate() {
        let (node, slot) = split_reference(name)?;
        let declared = top.node(node).map_err(|_| unknown_name("input", name, &placeholder_names(nodes)))?;
        let input = declared_input(name, declared, knows_scalars)?;
        builder.graph.inputs.push(input);
        let port = Port::first(builder.push(input_node(name, position))?);
        top.give(node, slot, Wire::Live(port));
    }
    builder.collect_assignments(&mut top, nodes)?;
    for name in &outputs {
        let (node, _) = split_reference(name)?;
        let Ok(node) = top.node(node) else {
            return Err(unknown_name("output", name, &results(nodes).join(", ")));
        };
        let port = builder.need_live(&mut top, name)?;
        let attribute = |attribute: &str| node.attr.get(attribute).and_then(|a| a.value.as_ref());
        let datum = match attribute("T") {
            Some(Value::Type(datum)) if node.op == "Identity" => {
                DataType::try_from(*datum).ok().and_then(computed_type)
            }
            _ => None,
        };
        let name = match attribute(OUTPUT_NAME) {
            Some(Value::S(name)) => String::from_utf8_lossy(name).into_owned(),
            _ => name.clone(),
        };
        builder.graph.outputs.push(GraphOutput { name, port, datum });
    }
    let mut graph = builder.graph;
    prune(&mut graph);
    examples::keep_parsed(&mut graph);
    Ok(graph)
}

/// Takes the values out of the constants, so that each is held once and goes when it is converted.
pub(super) fn take_constants(nodes: &mut [NodeDef]) -> HashMap<String, TensorProto> {
    let mut constants = HashMap::new();
    for node in nodes.iter_mut().filter(|n| n.op == "Const") {
        if let Some(Value::Tensor(tensor)) = node.attr.get_mut("value").and_then(|a| a.value.take()) {
            constants.insert(node.name.clone(), tensor);
        }
    }
    constants
}

/// True for bytes that look like a GraphDef: nothing but its fields, and first a node.
pub(super) fn recognises(payload: &Payload) -> bool {
    let mut fields = top_fields(payload.clone());
    let Some((1, 2, head)) = fields.next() else { return false };
    // A node begins with its name; its operator may come first in other writers.
    let named = matches!(head.first(), Some(0x0a | 0x12));
    named
        && fields
            .by_ref()
            .take(64)
            .all(|(field, kind, _)| matches!((field, kind), (1 | 2 | 4 | 5, 2) | (3, 0)))
}

/// True for bytes that look like a SavedModel message: schema version 1, then a meta graph.
pub(super) fn recognises_saved_model(payload: &Payload) -> bool {
    let mut fields = top_fields(payload.clone());
    matches!(fields.next(), Some((1, 0, head)) if head.first() == Some(&1))
        && matches!(fields.next(), Some((2, 2, head)) if head.first() == Some(&0x0a))
        && fields.all(|(field, kind, _)| (field, kind) == (2, 2))
}

/// Refuses a message that ends in the middle of a field, before anything is built of it.
pub(super) fn check_whole(payload: &Payload) -> Result<(), LoadError> {
    let len = payload.len();
    let mut fields = top_fields(payload.clone());
    let read: usize = fields.by_ref().map(|_| 1).sum();
    if fields.broken {
        return Err(malformed(format!("saved_model.pb of {len} bytes is cut off after field {read}")));
    }
    Ok(())
}

/// The fields at the top of a message: number, wire type and the first byte of the content.
fn top_fields(payload: Payload) -> Fields {
    Fields { payload, broken: false }
}

struct Fields {
    payload: Payload,
    broken: bool,
}

impl Iterator for Fields {
    type Item = (u64, u64, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || !self.payload.has_remaining() {
            return None;
        }
        let field = self.field();
        self.broken = field.is_none();
        field
    }
}

impl Fields {
    fn field(&mut self) -> Option<(u64, u64, Vec<u8>)> {
        let key = self.varint()?;
        let (field, kind) = (key >> 3, key & 7);
        let mut head = self.payload.peek(1);
        let skip = match kind {
            0 => {
                self.varint()?;
                0
            }
            1 => 8,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                head = self.payload.peek(1);
                len
            }
            5 => 4,
            _ => return None,
        };
        if skip > self.payload.remaining() || field == 0 {
            return None;
        }
        self.payload.advance(skip);
        Some((field, kind, head))
    }

    fn varint(&mut self) -> Option<u64> {
        let head = self.payload.peek(10);
        let mut rest = head.as_slice();
        let value = super::table::varint(&mut rest)?;
        self.payload.advance(head.len() - rest.len());
        Some(value)
    }
}

fn is_placeholder(node: &NodeDef) -> bool {
    node.op == "Placeholder" && !node.name.ends_with("keras_learning_phase")
}

fn placeholder_names(nodes: &[NodeDef]) -> String {
    nodes.iter().filter(|n| is_placeholder(n)).map(|n| n.name.clone()).collect::<Vec<_>>().join(", ")
}

/// The placeholders that a signature had; without one those that the outputs need, or all, where they
/// need none.
fn placeholders(nodes: &[NodeDef], outputs: &[String]) -> Vec<String> {
    let marked = nodes.iter().filter(|n| n.attr.contains_key(SIGNATURE_INPUT));
    let marked: Vec<String> = marked.map(|n| n.name.clone()).collect();
    if !marked.is_empty() {
        return marked;
    }
    let by_name: HashMap<&str, &NodeDef> = nodes.iter().map(|n| (n.name.as_str(), n)).collect();
    let base = |reference: &str| reference.split(':').next().unwrap_or_default().to_owned();
    let mut open: Vec<String> = outputs.iter().map(|o| base(o)).collect();
    let mut seen: HashSet<String> = HashSet::new();
    while let Some(name) = open.pop() {
        if let Some(node) = by_name.get(name.as_str())
            && seen.insert(name)
        {
            open.extend(node.input.iter().filter(|i| !i.starts_with('^')).map(|i| base(i)));
        }
    }
    let all = || nodes.iter().filter(|n| is_placeholder(n));
    let needed: Vec<String> = all().filter(|n| seen.contains(&n.name)).map(|n| n.name.clone()).collect();
    if needed.is_empty() { all().map(|n| n.name.clone()).collect() } else { needed }
}

/// The results that nothing in the graph consumes, in the order of the file. What only stands there
/// to save, to check or to group is no result.
fn results(nodes: &[NodeDef]) -> Vec<String> {
    let consumed: BTreeSet<&str> = nodes
        .iter()
        .flat_map(|n| &n.input)
        .filter(|i| !i.starts_with('^'))
        .filter_map(|i| i.split(':').next())
        .collect();
    let is_result = |node: &&NodeDef| {
        !consumed.contains(node.name.as_str())
            && !is_placeholder(node)
            && !matches!(
                node.op.as_str(),
                "NoOp"
                    | "Assert"
                    | "Const"
                    | "Placeholder"
                    | "PlaceholderWithDefault"
                    | "SaveV2"
                    | "RestoreV2"
                    | "ShardedFilename"
                    | "MergeV2Checkpoints"
                    | "Assign"
                    | "AssignVariableOp"
                    | "VarHandleOp"
                    | "VariableV2"
                    | "VarIsInitializedOp"
                    | "IsVariableInitialized"
                    | "Print"
                    | "PrintV2"
                    | "ScalarSummary"
                    | "HistogramSummary"
                    | "MergeSummary"
                    | "ImageSummary"
                    | "DestroyResourceOp"
                    | "HashTableV2"
                    | "LookupTableImportV2"
                    | "InitializeTableV2"
                    | "InitializeTableFromTextFileV2"
                    | "LookupTableExportV2"
            )
    };
    nodes.iter().filter(is_result).map(|n| n.name.clone()).collect()
}

/// Type and shape as the node of an input declares them; a node that is no placeholder has only a
/// type.
fn declared_input(name: &str, node: &NodeDef, knows_scalars: bool) -> Result<GraphInput, LoadError> {
    let attributes = Attributes::new(node.attr.clone());
    let datum = ["dtype", "T", "DstT", "output_type"].iter().find_map(|a| attributes.datum(a));
    let datum = datum.ok_or_else(|| {
        malformed(format!("the input `{name}` does not say its type, or one that is not supported"))
    })?;
    let dims = attributes.shape("shape").filter(|dims| knows_scalars || !dims.is_empty());
    Ok(GraphInput { name: name.to_owned(), datum, dims, parsed: false })
}
