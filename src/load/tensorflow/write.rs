//! A [`Graph`] as a GraphDef: what `freeze` ships.

use std::collections::HashSet;

use super::api::tfpb::attr_value::Value;
use super::api::tfpb::op_def::ArgDef;
use super::api::tfpb::tensor_shape_proto::Dim;
use super::api::tfpb::{
    DataType, FunctionDef, FunctionDefLibrary, GraphDef, NameAttrList, NodeDef, OpDef, TensorShapeProto,
    VersionDef,
};
use super::frozen::{OUTPUT_NAME, SIGNATURE_INPUT};
use super::graph::{Attributes, Content, Graph, GraphInput, Loop, Node, Port};
use super::{constants, malformed};
use crate::load::LoadError;

/// The version of the format that is written: any from 24 on knows unknown ranks.
const PRODUCER: i32 = 1395;

/// The frozen graph, with a placeholder for each input and an identity for each output.
pub(super) fn graph_def(graph: Graph) -> Result<GraphDef, LoadError> {
    let Graph { nodes, inputs, outputs } = graph;
    let reserved: HashSet<&str> =
        inputs.iter().map(|i| i.name.as_str()).chain(outputs.iter().map(|o| o.name.as_str())).collect();
    let mut names: Vec<String> = Vec::with_capacity(nodes.len());
    let mut taken: HashSet<String> = HashSet::new();
    for node in &nodes {
        let name = match &node.content {
            Content::Input(position) => inputs.get(*position).map(|i| i.name.clone()).unwrap_or_default(),
            _ => unique(&node.name, &reserved, &mut taken),
        };
        names.push(name);
    }
    let reference = |port: &Port| {
        let name = names.get(port.node).map_or("", String::as_str);
        if port.slot == 0 { name.to_owned() } else { format!("{name}:{}", port.slot) }
    };
    let mut library = Library::default();
    let mut written = Vec::with_capacity(nodes.len() + outputs.len());
    let output_nodes: Vec<NodeDef> = outputs
        .iter()
        .map(|output| {
            let mut attributes = Attributes::default();
            let mut name = output.name.clone();
            if inputs.iter().any(|i| i.name == name) {
                attributes.set(OUTPUT_NAME, Value::S(name.clone().into_bytes()));
                name = unique(&name, &reserved, &mut taken);
            }
            if let Some(data_type) = output.datum.and_then(constants::data_type) {
                attributes.set("T", Value::Type(data_type as i32));
            }
            let input = vec![reference(&output.port)];
            NodeDef {
                name,
                op: "Identity".to_owned(),
                input,
                attr: attributes.into_inner(),
                ..NodeDef::default()
            }
        })
        .collect();
    for (node, name) in nodes.into_iter().zip(&names) {
        let input = node.inputs.iter().map(&reference).collect();
        written.push(library.node_def(node, name, input, &inputs)?);
    }
    written.extend(output_nodes);
    Ok(GraphDef {
        node: written,
        library: Some(FunctionDefLibrary { function: library.functions, ..FunctionDefLibrary::default() }),
        versions: Some(VersionDef { producer: PRODUCER, ..VersionDef::default() }),
        ..GraphDef::default()
    })
}

/// The functions of a graph: the conditions and the turns of its loops.
#[derive(Default)]
struct Library {
    functions: Vec<FunctionDef>,
}

impl Library {
    fn node_def(
        &mut self,
        node: Node,
        name: &str,
        input: Vec<String>,
        inputs: &[GraphInput],
    ) -> Result<NodeDef, LoadError> {
        let mut attributes: Attributes = node.attributes;
        match node.content {
            Content::None | Content::State | Content::Layer(_) => {}
            Content::Complex(parts) => {
                let value = constants::complex_proto(&parts);
                let value =
                    value.ok_or_else(|| malformed(format!("the constant `{name}` cannot be written")))?;
                attributes.set("dtype", Value::Type(value.dtype));
                attributes.set("value", Value::Tensor(value));
            }
            Content::Weights(weights) => {
                let bad = || malformed(format!("the constant `{name}` cannot be written"));
                attributes.set("dtype", Value::Type(DataType::DtFloat as i32));
                attributes.set("value", Value::Tensor(constants::weights_proto(&weights).ok_or_else(bad)?));
            }
            Content::Constant(value) => {
                let bad = || malformed(format!("the constant `{name}` cannot be written"));
                let data_type = constants::data_type(value.datum_type()).ok_or_else(bad)?;
                attributes.set("dtype", Value::Type(data_type as i32));
                attributes.set("value", Value::Tensor(constants::proto(&value).ok_or_else(bad)?));
            }
            Content::Input(position) => {
                let declared = inputs.get(position).ok_or_else(|| malformed("an input is missing"))?;
                let data_type = constants::data_type(declared.datum);
                let data_type =
                    data_type.ok_or_else(|| malformed(format!("the input `{name}` has no type")))?;
                attributes.set("dtype", Value::Type(data_type as i32));
                attributes.set("shape", Value::Shape(shape_proto(declared.dims.as_deref())));
                attributes.set(SIGNATURE_INPUT, Value::B(true));
            }
            Content::Loop(repeat) => {
                let Loop { condition, body, states } = *repeat;
                let condition = self.function(condition, input.len(), None)?;
                let body = self.function(body, input.len(), Some(states))?;
                attributes.set("cond", function_name(condition));
                attributes.set("body", function_name(body));
            }
        }
        let op = if node.op == "VariableV2" { "Const".to_owned() } else { node.op };
        Ok(NodeDef { name: name.to_owned(), op, input, attr: attributes.into_inner(), ..NodeDef::default() })
    }

    /// Adds a graph of a loop with so many inputs. A turn gives back what comes after its states.
    fn function(&mut self, graph: Graph, inputs: usize, states: Option<usize>) -> Result<String, LoadError> {
        let arguments: Vec<String> = (0..inputs).map(|position| format!("argument_{position}")).collect();
        let reserved: HashSet<&str> = arguments.iter().map(String::as_str).collect();
        let mut taken = HashSet::new();
        let names: Vec<String> = graph
            .nodes
            .iter()
            .map(|node| match &node.content {
                Content::Input(position) => arguments.get(*position).cloned().unwrap_or_default(),
                _ => unique(&node.name, &reserved, &mut taken),
            })
            .collect();
        let reference = |port: &Port| {
            let name = names.get(port.node).map_or("", String::as_str);
            if reserved.contains(name) { name.to_owned() } else { format!("{name}:{}", port.slot) }
        };
        let mut results: Vec<String> = graph.outputs.iter().map(|o| reference(&o.port)).collect();
        results.extend(arguments.iter().skip(states.unwrap_or(inputs)).cloned());
        let mut written = Vec::with_capacity(names.len());
        for (node, name) in graph.nodes.into_iter().zip(&names) {
            if !matches!(node.content, Content::Input(_)) {
                let input = node.inputs.iter().map(&reference).collect();
                written.push(self.node_def(node, name, input, &[])?);
            }
        }
        let name = format!("loop_{}", self.functions.len());
        let argument = |name: String| ArgDef { name, ..ArgDef::default() };
        let given: Vec<String> = (0..results.len()).map(|position| format!("result_{position}")).collect();
        self.functions.push(FunctionDef {
            signature: Some(OpDef {
                name: name.clone(),
                output_arg: given.iter().cloned().map(argument).collect(),
                input_arg: arguments.into_iter().map(argument).collect(),
                ..OpDef::default()
            }),
            node_def: written,
            ret: given.into_iter().zip(results).collect(),
            ..FunctionDef::default()
        });
        Ok(name)
    }
}

fn function_name(name: String) -> Value {
    Value::Func(NameAttrList { name, ..NameAttrList::default() })
}

fn shape_proto(dims: Option<&[Option<usize>]>) -> TensorShapeProto {
    let dim = |size: &Option<usize>| Dim {
        size: size.and_then(|s| i64::try_from(s).ok()).unwrap_or(-1),
        name: String::new(),
    };
    TensorShapeProto { dim: dims.unwrap_or_default().iter().map(dim).collect(), unknown_rank: dims.is_none() }
}

/// A name that neither the signature nor another node has.
fn unique(name: &str, reserved: &HashSet<&str>, taken: &mut HashSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 0;
    while reserved.contains(candidate.as_str()) || !taken.insert(candidate.clone()) {
        number += 1;
        candidate = format!("{name}_{number}");
    }
    candidate
}
