//! What has to hold of an ONNX file before anything is built from it. Nothing that the file says
//! is believed: neither an engine nor a kernel sees a model that has not been through here.

use std::collections::HashSet;
use std::path::{Component, Path};

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use super::sparse;
use crate::kernel::program::NodeParts;
use crate::load::LoadError;
use crate::load::tensor_proto::{BFLOAT16, EXTERNAL, FLOAT16, element_type};
use crate::tensor::{ElementType, MAX_RANK};

/// The most nodes that a file may have, those in the bodies of loops included: what engines do
/// with a graph takes more than linear time.
const MAX_NODES: usize = 20_000;
/// How deep graphs may be nested in attributes.
const MAX_DEPTH: usize = 8;
/// The most factors of a product over named axes: the ways to compute one grow without bound.
const MAX_FACTORS: usize = 4;
/// The largest dimension that a file may fix for an input.
const MAX_DIMENSION: i64 = 1 << 31;

/// Checks everything that can be told without running the model. Its functions are inlined already.
pub(super) fn check(model: &ModelProto) -> Result<(), LoadError> {
    let graph = model.graph.as_ref().ok_or_else(|| malformed("there is no graph"))?;
    if model.opset_import.is_empty() {
        return Err(malformed("no operator set is imported"));
    }
    for set in &model.opset_import {
        if !(1..=10_000).contains(&set.version) {
            return Err(malformed(format!("version {} of operator set `{}`", set.version, set.domain)));
        }
    }
    if graph.output.is_empty() {
        return Err(malformed("the graph has no output"));
    }
    check_graph(graph, &HashSet::new(), 1, &mut 0)
}

fn check_graph(
    graph: &GraphProto,
    outer: &HashSet<&str>,
    depth: usize,
    nodes: &mut usize,
) -> Result<(), LoadError> {
    if depth > MAX_DEPTH {
        return Err(malformed(format!("graphs are nested more than {MAX_DEPTH} deep")));
    }
    *nodes = nodes.saturating_add(graph.node.len());
    if *nodes > MAX_NODES {
        return Err(malformed(format!("more than {MAX_NODES} nodes")));
    }
    let mut names: HashSet<&str> = HashSet::new();
    let dense = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    for name in dense.chain(graph.sparse_initializer.iter().map(sparse::name)) {
        if name.is_empty() {
            return Err(malformed("an initializer has no name"));
        }
        if !names.insert(name) {
            return Err(malformed(format!("two initializers of the name `{name}`")));
        }
    }
    graph.initializer.iter().try_for_each(check_tensor)?;
    graph.sparse_initializer.iter().try_for_each(check_sparse)?;
    let mut inputs = HashSet::new();
    for input in &graph.input {
        if !inputs.insert(input.name.as_str()) {
            return Err(malformed(format!("two inputs of the name `{}`", input.name)));
        }
        check_dimensions(input)?;
    }
    // An input that is an initializer too is one with a default value.
    names.extend(inputs);
    for node in &graph.node {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if !names.insert(output) {
                return Err(malformed(format!("two tensors of the name `{output}`")));
            }
        }
    }
    let visible: HashSet<&str> = names.union(outer).copied().collect();
    for node in &graph.node {
        let missing = node.input.iter().find(|name| !name.is_empty() && !visible.contains(name.as_str()));
        if let Some(name) = missing {
            return Err(malformed(format!("{} reads `{name}`, which nothing makes", describe(node))));
        }
        check_node(node, &visible, depth, nodes)?;
    }
    let mut outputs = HashSet::new();
    for output in &graph.output {
        if !visible.contains(output.name.as_str()) {
            return Err(malformed(format!("nothing makes the output `{}`", output.name)));
        }
        if !outputs.insert(output.name.as_str()) && depth == 1 {
            return Err(malformed(format!("two outputs of the name `{}`", output.name)));
        }
    }
    Ok(())
}

fn check_node(
    node: &NodeProto,
    visible: &HashSet<&str>,
    depth: usize,
    nodes: &mut usize,
) -> Result<(), LoadError> {
    if node.op_type.is_empty() {
        return Err(malformed(format!("{} has no operator", describe(node))));
    }
    if node.op_type == "Einsum" && node.input.len() > MAX_FACTORS {
        return Err(malformed(format!(
            "{} has {} factors, at most {MAX_FACTORS} are taken",
            describe(node),
            node.input.len()
        )));
    }
    let mut names = HashSet::new();
    for attribute in &node.attribute {
        if !names.insert(attribute.name.as_str()) {
            return Err(malformed(format!("{}: two attributes `{}`", describe(node), attribute.name)));
        }
        check_attribute(attribute, visible, depth, nodes)?;
    }
    Ok(())
}

fn check_attribute(
    attribute: &AttributeProto,
    visible: &HashSet<&str>,
    depth: usize,
    nodes: &mut usize,
) -> Result<(), LoadError> {
    attribute.t.iter().try_for_each(check_tensor)?;
    attribute.sparse_tensor.iter().try_for_each(check_sparse)?;
    attribute
        .g
        .iter()
        .chain(&attribute.graphs)
        .try_for_each(|graph| check_graph(graph, visible, depth + 1, nodes))
}

/// What a sparse tensor stands for is checked when it is made dense.
fn check_sparse(sparse: &SparseTensorProto) -> Result<(), LoadError> {
    sparse.values.iter().chain(&sparse.indices).try_for_each(check_tensor)
}

/// The elements that a tensor claims have to be in the file.
fn check_tensor(tensor: &TensorProto) -> Result<(), LoadError> {
    if tensor.data_location == EXTERNAL {
        let location = tensor.external_data.iter().find(|pair| pair.key == "location");
        let location = location.map_or("", |pair| pair.value.as_str());
        return Err(LoadError::ExternalData {
            tensor: tensor.name.clone(),
            location: location.to_owned(),
            escapes: leaves_folder(location),
            problem: None,
        });
    }
    let shape = tensor.shape().map_err(malformed)?;
    let elements = shape.elements();
    let width = match (element_type(tensor.data_type), tensor.data_type) {
        (Some(ElementType::String), _) => None,
        (Some(ElementType::Bool | ElementType::I8 | ElementType::U8), _) => Some(1),
        (Some(ElementType::I16 | ElementType::U16), _) | (None, FLOAT16 | BFLOAT16) => Some(2),
        (Some(ElementType::F32 | ElementType::I32 | ElementType::U32), _) => Some(4),
        (Some(ElementType::F64 | ElementType::I64 | ElementType::U64), _) => Some(8),
        // A type that no tensor here can have is named when the tensor is needed.
        (None, _) => return Ok(()),
    };
    let stored = match (width, tensor.raw_data.len()) {
        (Some(width), bytes) if bytes > 0 => bytes.checked_div(width).filter(|_| bytes % width == 0),
        _ => Some(tensor.stored_elements()),
    };
    if stored != Some(elements) {
        return Err(malformed(format!(
            "tensor `{}` claims {elements} elements of shape {shape}, the file holds {}",
            tensor.name,
            stored.map_or_else(|| format!("{} bytes", tensor.raw_data.len()), |n| n.to_string()),
        )));
    }
    Ok(())
}

fn check_dimensions(input: &super::proto::ValueInfoProto) -> Result<(), LoadError> {
    use super::proto::{DimensionValue, TypeValue};
    let Some(TypeValue::Tensor(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Ok(());
    };
    let dims = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    if dims.len() > MAX_RANK {
        return Err(malformed(format!(
            "input `{}` has {} dimensions, at most {MAX_RANK} are taken",
            input.name,
            dims.len()
        )));
    }
    for dim in dims {
        if let Some(DimensionValue::Size(size)) = dim.value
            && size > MAX_DIMENSION
        {
            return Err(malformed(format!("input `{}` has a dimension of {size}", input.name)));
        }
    }
    Ok(())
}

/// True for a path that is absolute or climbs out of the folder that it starts in.
pub(super) fn leaves_folder(location: &str) -> bool {
    let windows = location.contains('\\') || location.as_bytes().get(1) == Some(&b':');
    windows
        || Path::new(location).components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir))
}

/// `node ``name`` (Scaler)`, as far as the node says.
pub(super) fn describe(node: &NodeProto) -> String {
    match (node.name.as_str(), node.output.first()) {
        ("", Some(output)) => format!("the {} node that makes `{output}`", node.op_type),
        ("", None) => format!("a {} node", node.op_type),
        (name, _) => format!("node `{name}` ({})", node.op_type),
    }
}

/// The node as an error names it: by its name, or by what it makes.
pub(super) fn title(node: &NodeParts) -> String {
    let name = [Some(&node.name), node.outputs.first()].into_iter().flatten().find(|name| !name.is_empty());
    name.map_or_else(|| node.full_operator(), |name| format!("{} (node `{name}`)", node.full_operator()))
}

pub(super) fn malformed(reason: impl Into<String>) -> LoadError {
    LoadError::Malformed { format: "ONNX", reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Dimension, DimensionValue, OperatorSetId, ValueInfoProto};
    use super::super::proto::{TensorShape, TensorType, TypeProto, TypeValue};
    use super::*;
    use crate::load::tensor_proto::StringPair;

    fn value(name: &str, size: i64) -> ValueInfoProto {
        let dim = Dimension { value: Some(DimensionValue::Size(size)) };
        let tensor = TensorType { elem_type: 1, shape: Some(TensorShape { dim: vec![dim] }) };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)) }),
        }
    }

    fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: operator.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            ..Default::default()
        }
    }

    fn model(nodes: Vec<NodeProto>) -> ModelProto {
        let graph = GraphProto {
            node: nodes,
            input: vec![value("x", 4)],
            output: vec![value("y", 4)],
            ..Default::default()
        };
        let set = OperatorSetId { domain: String::new(), version: 17 };
        ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![set], functions: vec![] }
    }

    fn refused(change: impl FnOnce(&mut ModelProto)) -> String {
        let mut model = model(vec![node("Relu", &["x"], "y")]);
        assert_eq!(check(&model), Ok(()));
        change(&mut model);
        check(&model).unwrap_err().to_string()
    }

    fn graph(model: &mut ModelProto) -> &mut GraphProto {
        model.graph.as_mut().unwrap()
    }

    #[test]
    fn what_makes_a_graph_useless_is_named() {
        assert!(refused(|m| m.graph = None).contains("there is no graph"));
        assert!(refused(|m| m.opset_import.clear()).contains("no operator set"));
        assert!(refused(|m| graph(m).output.clear()).contains("has no output"));
        assert!(refused(|m| graph(m).node.clear()).contains("nothing makes the output `y`"));
        assert!(
            refused(|m| graph(m).node[0].input[0] = "z".into()).contains("reads `z`, which nothing makes")
        );
        assert!(refused(|m| graph(m).node.push(node("Relu", &["x"], "y"))).contains("two tensors"));
        assert!(refused(|m| graph(m).input.push(value("x", 4))).contains("two inputs"));
        assert!(refused(|m| graph(m).node[0].op_type.clear()).contains("no operator"));
    }

    #[test]
    fn sizes_that_are_not_there_are_refused() {
        let tensor = |dims: Vec<i64>, bytes: usize| TensorProto {
            name: "w".into(),
            dims,
            data_type: 1,
            raw_data: vec![0; bytes].into(),
            ..Default::default()
        };
        let with = |t: TensorProto| refused(|m| graph(m).initializer.push(t));
        assert!(with(tensor(vec![1 << 36], 4)).contains("claims 68719476736 elements"));
        assert!(with(tensor(vec![2], 7)).contains("the file holds 7 bytes"));
        assert!(with(tensor(vec![i64::MAX, 8], 4)).contains("impossible dimensions"));
        assert!(refused(|m| graph(m).input[0] = value("x", 99_999_999_999)).contains("99999999999"));
        assert!(
            refused(|m| {
                graph(m).node = (0..=MAX_NODES).map(|i| node("Relu", &["x"], &format!("y{i}"))).collect();
            })
            .contains("more than 20000 nodes")
        );
    }

    #[test]
    fn graphs_inside_graphs_end_somewhere() {
        let nested = refused(|m| {
            let mut inner = graph(m).clone();
            for _ in 0..MAX_DEPTH {
                let attribute = AttributeProto { g: Some(inner.clone()), r#type: 5, ..Default::default() };
                inner = GraphProto {
                    node: vec![NodeProto { attribute: vec![attribute], ..node("If", &["x"], "y") }],
                    ..inner
                };
            }
            m.graph = Some(inner);
        });
        assert!(nested.contains("nested more than 8 deep"), "{nested}");
    }

    #[test]
    fn tensors_outside_the_file_are_refused_with_their_path() {
        let external = |location: &str| {
            refused(|m| {
                graph(m).initializer.push(TensorProto {
                    name: "w".into(),
                    dims: vec![4],
                    data_type: 1,
                    data_location: EXTERNAL,
                    external_data: vec![StringPair { key: "location".into(), value: location.into() }],
                    ..Default::default()
                });
            })
        };
        assert_eq!(external("model.onnx.data"), "tensor `w` lies outside the file, in `model.onnx.data`");
        for path in ["../secret", "/etc/passwd", "a/../../b", "C:\\secret", "..\\secret"] {
            assert!(external(path).ends_with("a path outside the model's folder"), "{path}");
        }
    }
}
