//! Inputs that are maps, where `DictVectorizer` alone reads them: each becomes a matrix with a column
//! for each word of its vocabulary, which the labels of the input name.

use std::collections::HashMap;

use super::proto::{
    AttributeProto, Dimension, DimensionValue, ElementOf, GraphProto, ModelProto, NodeProto, TensorShape,
    TensorType, TypeProto, TypeValue,
};
use crate::signature::Labels;

/// Makes matrices of the maps that can be; answers the labels of these inputs.
pub(super) fn take_apart(model: &mut ModelProto) -> HashMap<String, Labels> {
    let mut all = HashMap::new();
    let Some(graph) = &mut model.graph else { return all };
    let maps = graph
        .input
        .iter()
        .filter_map(|input| Some((input.name.clone(), map_values(input.r#type.as_ref()?)?)));
    for (name, elem_type) in maps.collect::<Vec<_>>() {
        let Some(labels) = vocabulary(graph, &name) else { continue };
        let width = match &labels {
            Labels::Ints(labels) => labels.len(),
            Labels::Strings(labels) => labels.len(),
        };
        let dim = |value| Dimension { value };
        let columns = DimensionValue::Size(i64::try_from(width).unwrap_or(i64::MAX));
        let shape = TensorShape { dim: vec![dim(None), dim(Some(columns))] };
        let tensor = TypeValue::Tensor(TensorType { elem_type, shape: Some(shape) });
        for input in graph.input.iter_mut().filter(|input| input.name == name) {
            input.r#type = Some(TypeProto { value: Some(tensor.clone()) });
        }
        for node in graph.node.iter_mut().filter(|node| node.input.contains(&name)) {
            "Identity".clone_into(&mut node.op_type);
            node.domain.clear();
            node.attribute.clear();
        }
        all.insert(name, labels);
    }
    all
}

/// The type of the values of a map, or of a sequence of maps.
fn map_values(of: &TypeProto) -> Option<i32> {
    let map = match of.value.as_ref()? {
        TypeValue::Map(map) => map,
        TypeValue::Sequence(sequence) => match element(sequence)? {
            TypeValue::Map(map) => map,
            _ => return None,
        },
        _ => return None,
    };
    match map.value_type.as_ref()?.value.as_ref()? {
        TypeValue::Tensor(tensor) => Some(tensor.elem_type),
        _ => None,
    }
}

fn element(sequence: &ElementOf) -> Option<&TypeValue> {
    sequence.elem_type.as_ref()?.value.as_ref()
}

/// The vocabulary of all nodes that read a map, where they are of one.
fn vocabulary(graph: &GraphProto, name: &str) -> Option<Labels> {
    let in_body = |a: &AttributeProto| a.g.iter().chain(&a.graphs).next().is_some();
    if graph.output.iter().any(|output| output.name == name)
        || graph.node.iter().any(|node| node.attribute.iter().any(in_body))
    {
        return None;
    }
    let mut readers = graph.node.iter().filter(|node| node.input.iter().any(|input| input == name));
    let first = labels(readers.next()?)?;
    readers.all(|node| labels(node).as_ref() == Some(&first)).then_some(first)
}

fn labels(node: &NodeProto) -> Option<Labels> {
    if (node.domain.as_str(), node.op_type.as_str()) != ("ai.onnx.ml", "DictVectorizer") {
        return None;
    }
    let [attribute] = node.attribute.as_slice() else { return None };
    match attribute.name.as_str() {
        "int64_vocabulary" => Some(Labels::Ints(attribute.ints.clone())),
        "string_vocabulary" => {
            let text = |word: &bytes::Bytes| String::from_utf8(word.to_vec()).ok();
            Some(Labels::Strings(attribute.strings.iter().map(text).collect::<Option<_>>()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::ValueInfoProto;
    use super::*;

    fn model(operator: &str) -> ModelProto {
        let floats = TypeValue::Tensor(TensorType { elem_type: 1, shape: None });
        let map = TypeValue::Map(Box::new(super::super::proto::MapType {
            key_type: 8,
            value_type: Some(Box::new(TypeProto { value: Some(floats) })),
        }));
        let vocabulary = AttributeProto {
            name: "string_vocabulary".into(),
            strings: ["age", "amount"].map(|word| word.as_bytes().to_vec().into()).into(),
            ..AttributeProto::default()
        };
        let node = NodeProto {
            op_type: operator.into(),
            domain: "ai.onnx.ml".into(),
            input: vec!["d".into()],
            output: vec!["y".into()],
            attribute: vec![vocabulary],
            ..NodeProto::default()
        };
        let input = ValueInfoProto { name: "d".into(), r#type: Some(TypeProto { value: Some(map) }) };
        let graph = GraphProto { node: vec![node], input: vec![input], ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    #[test]
    fn a_map_of_a_vocabulary_is_a_matrix_with_a_column_for_each_word() {
        let mut model = model("DictVectorizer");
        let labels = take_apart(&mut model);
        assert_eq!(labels["d"], Labels::Strings(vec!["age".into(), "amount".into()]));
        let graph = model.graph.unwrap();
        assert_eq!((graph.node[0].op_type.as_str(), graph.node[0].attribute.len()), ("Identity", 0));
        let Some(TypeValue::Tensor(tensor)) = graph.input[0].r#type.clone().unwrap().value else {
            panic!("{:?}", graph.input[0])
        };
        let dims = tensor.shape.unwrap().dim;
        assert_eq!((tensor.elem_type, dims[1].value.clone()), (1, Some(DimensionValue::Size(2))));
    }

    #[test]
    fn a_map_that_anything_else_reads_stays_one() {
        let mut model = model("CastMap");
        let before = model.clone();
        assert!(take_apart(&mut model).is_empty());
        assert_eq!(model, before);
    }
}
