//! Nodes in tract's own messages, and back.

use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;

use super::check::malformed;
use crate::kernel::Attribute;
use crate::kernel::program::{GraphParts, NodeParts};
use crate::load::LoadError;
use crate::load::tensor_proto::TensorProto;
use crate::tensor::{ElementType, Tensor};

/// A node as tract's ONNX front end reads it.
pub(super) fn to_message(node: &NodeParts) -> Result<pb::NodeProto, LoadError> {
    let attributes = node.attributes.iter().map(|(name, value)| attribute(name, value));
    Ok(pb::NodeProto {
        name: node.name.clone(),
        op_type: node.operator.clone(),
        domain: node.domain.clone(),
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        attribute: attributes.collect::<Result<_, _>>()?,
        ..pb::NodeProto::default()
    })
}

fn attribute(name: &str, value: &Attribute) -> Result<pb::AttributeProto, LoadError> {
    let mut message = pb::AttributeProto { name: name.to_owned(), ..pb::AttributeProto::default() };
    let kind = match value {
        Attribute::Int(value) => {
            message.i = *value;
            AttributeType::Int
        }
        Attribute::Float(value) => {
            message.f = *value;
            AttributeType::Float
        }
        Attribute::String(value) => {
            message.s = value.clone().into_bytes();
            AttributeType::String
        }
        Attribute::Tensor(value) => {
            message.t = Some(tensor("", value)?);
            AttributeType::Tensor
        }
        Attribute::Ints(values) => {
            message.ints.clone_from(values);
            AttributeType::Ints
        }
        Attribute::Floats(values) => {
            message.floats.clone_from(values);
            AttributeType::Floats
        }
        Attribute::Strings(values) => {
            message.strings = values.iter().map(|v| v.clone().into_bytes()).collect();
            AttributeType::Strings
        }
        Attribute::Graph(value) => {
            message.g = Some(graph(value)?);
            AttributeType::Graph
        }
    };
    message.r#type = kind.into();
    Ok(message)
}

/// The body of a loop. Its inputs carry types where the file has them; tract finds the rest.
fn graph(parts: &GraphParts) -> Result<pb::GraphProto, LoadError> {
    let initializer = parts.constants.iter().map(|(name, value)| tensor(name, value));
    Ok(pb::GraphProto {
        node: parts.nodes.iter().map(to_message).collect::<Result<_, _>>()?,
        initializer: initializer.collect::<Result<_, _>>()?,
        input: parts
            .inputs
            .iter()
            .map(|input| value(&input.name, input.fact.as_ref().map(|f| f.element)))
            .collect(),
        output: parts.outputs.iter().map(|name| value(name, None)).collect(),
        ..pb::GraphProto::default()
    })
}

fn value(name: &str, element: Option<ElementType>) -> pb::ValueInfoProto {
    let tensor = element.map(|element| pb::TypeProto {
        denotation: String::new(),
        value: Some(pb::type_proto::Value::TensorType(pb::type_proto::Tensor {
            elem_type: crate::load::tensor_proto::data_type(element),
            shape: None,
        })),
    });
    pb::ValueInfoProto { name: name.to_owned(), r#type: tensor, doc_string: String::new() }
}

fn tensor(name: &str, value: &Tensor) -> Result<pb::TensorProto, LoadError> {
    use prost::Message;
    // The two messages are the same on the wire.
    let bytes = TensorProto::from((name, value)).encode_to_vec();
    pb::TensorProto::decode(bytes.as_slice()).map_err(|e| malformed(e.to_string()))
}
