//! Graphs whose large constants stay in the pieces that the file came in: `prost` would copy each of
//! them twice.

use std::collections::HashMap;

use bytes::Buf;
use prost::Message;
use prost::encoding::{self, DecodeContext, WireType};

use super::api::tfpb::attr_value::Value;
use super::api::tfpb::{AttrValue, GraphDef, MetaGraphDef, NodeDef, SavedModel, TensorProto};
use super::malformed;
use crate::load::{LoadError, Payload};

/// The raw content of large constants, by the names of their nodes, outside functions.
pub(super) type Contents = HashMap<String, Payload>;

/// Nodes up to this many bytes are decoded as any message.
const SMALL: usize = 16 << 10;

/// Reads a GraphDef.
pub(super) fn graph(payload: Payload) -> Result<(GraphDef, Contents), LoadError> {
    let (mut graph, mut contents) = (GraphDef::default(), Contents::new());
    each_field(payload, |field| match field {
        Field::Message(1, node) => {
            graph.node.push(self::node(node, &mut contents)?);
            Ok(())
        }
        field => field.merge_into(&mut graph),
    })?;
    Ok((graph, contents))
}

/// Reads a SavedModel; its graphs have their contents beside them.
pub(super) fn saved_model(payload: Payload) -> Result<(SavedModel, Vec<Contents>), LoadError> {
    let (mut saved, mut contents) = (SavedModel::default(), Vec::new());
    each_field(payload, |field| match field {
        Field::Message(2, meta) => {
            let (meta, content) = meta_graph(meta)?;
            saved.meta_graphs.push(meta);
            contents.push(content);
            Ok(())
        }
        field => field.merge_into(&mut saved),
    })?;
    Ok((saved, contents))
}

fn meta_graph(payload: Payload) -> Result<(MetaGraphDef, Contents), LoadError> {
    let (mut meta, mut contents) = (MetaGraphDef::default(), Contents::new());
    each_field(payload, |field| match field {
        Field::Message(2, graph) => {
            let (graph, content) = self::graph(graph)?;
            meta.graph_def = Some(graph);
            contents = content;
            Ok(())
        }
        field => field.merge_into(&mut meta),
    })?;
    Ok((meta, contents))
}

fn node(payload: Payload, contents: &mut Contents) -> Result<NodeDef, LoadError> {
    if payload.len() <= SMALL {
        return NodeDef::decode(payload).map_err(undecoded);
    }
    let (mut node, mut content) = (NodeDef::default(), None);
    each_field(payload, |field| match field {
        Field::Message(5, entry) => {
            let (name, value) = attribute(entry, &mut content)?;
            node.attr.insert(name, value);
            Ok(())
        }
        field => field.merge_into(&mut node),
    })?;
    if let Some(content) = content {
        contents.insert(node.name.clone(), content);
    }
    Ok(node)
}

/// An entry of the map of attributes.
fn attribute(payload: Payload, content: &mut Option<Payload>) -> Result<(String, AttrValue), LoadError> {
    let (mut name, mut value) = (String::new(), AttrValue::default());
    each_field(payload, |field| match field {
        Field::Message(1, text) => {
            let text = String::from_utf8(text.into_bytes().into());
            name = text.map_err(|e| malformed(format!("the name of an attribute: {e}")))?;
            Ok(())
        }
        Field::Message(2, inner) => each_field(inner, |field| match field {
            Field::Message(8, tensor) => {
                value.value = Some(Value::Tensor(self::tensor(tensor, content)?));
                Ok(())
            }
            field => field.merge_into(&mut value),
        }),
        _ => Ok(()),
    })?;
    Ok((name, value))
}

fn tensor(payload: Payload, content: &mut Option<Payload>) -> Result<TensorProto, LoadError> {
    let mut tensor = TensorProto::default();
    each_field(payload, |field| match field {
        Field::Message(4, bytes) if bytes.len() > SMALL / 2 => {
            *content = Some(bytes);
            Ok(())
        }
        field => field.merge_into(&mut tensor),
    })?;
    Ok(tensor)
}

/// A field of a message.
enum Field {
    /// A message, text or bytes.
    Message(u32, Payload),
    Other(u32, WireType, Payload),
}

impl Field {
    fn merge_into(self, message: &mut impl Message) -> Result<(), LoadError> {
        let context = DecodeContext::default();
        let merged = match self {
            Self::Message(tag, content) => {
                let mut length = Vec::with_capacity(10);
                encoding::encode_varint(content.len() as u64, &mut length);
                let mut buf = Buf::chain(&*length, content);
                message.merge_field(tag, WireType::LengthDelimited, &mut buf, context)
            }
            Self::Other(tag, wire_type, mut content) => {
                message.merge_field(tag, wire_type, &mut content, context)
            }
        };
        merged.map_err(undecoded)
    }
}

/// Calls `take` with the fields of a message, one after the other.
fn each_field(
    mut payload: Payload,
    mut take: impl FnMut(Field) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    while payload.has_remaining() {
        let (tag, wire_type) = encoding::decode_key(&mut payload).map_err(undecoded)?;
        let ends = || malformed(format!("the file ends in field {tag} of a message"));
        let field = if wire_type == WireType::LengthDelimited {
            let length = encoding::decode_varint(&mut payload).map_err(undecoded)?;
            let length = usize::try_from(length).ok().filter(|n| *n <= payload.len()).ok_or_else(ends)?;
            Field::Message(tag, payload.split_to(length))
        } else {
            let length = match wire_type {
                WireType::Varint => payload.peek(10).iter().position(|byte| *byte < 0x80).map(|at| at + 1),
                WireType::ThirtyTwoBit => Some(4),
                WireType::SixtyFourBit => Some(8),
                _ => return Err(malformed(format!("field {tag} of a message is a group"))),
            };
            let length = length.filter(|n| *n <= payload.len()).ok_or_else(ends)?;
            Field::Other(tag, wire_type, payload.split_to(length))
        };
        take(field)?;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn undecoded(error: prost::DecodeError) -> LoadError {
    malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::api::tfpb::VersionDef;
    use super::*;
    use bytes::Bytes;

    fn constant(name: &str, len: usize) -> NodeDef {
        let tensor = TensorProto {
            dtype: 1,
            tensor_content: vec![7; len],
            int_val: vec![3],
            ..TensorProto::default()
        };
        let value = |value| AttrValue { value: Some(value) };
        let mut node = NodeDef { name: name.into(), op: "Const".into(), ..NodeDef::default() };
        node.attr.insert("value".into(), value(Value::Tensor(tensor)));
        node.attr.insert("dtype".into(), value(Value::Type(1)));
        node
    }

    #[test]
    fn a_graph_is_the_same_but_for_its_large_contents() {
        let node = vec![constant("small", 12), constant("large", 1 << 16)];
        let versions = Some(VersionDef { producer: 3, ..VersionDef::default() });
        let whole = GraphDef { node, versions, ..GraphDef::default() };
        let bytes = whole.encode_to_vec();
        for size in [1, 1000, bytes.len()] {
            let pieces = Payload::from_chunks(bytes.chunks(size).map(Bytes::copy_from_slice));
            let (graph, mut contents) = graph(pieces).unwrap();
            assert_eq!((&graph.node[0], &graph.versions), (&whole.node[0], &whole.versions));
            assert_eq!(graph.node[1].name, "large");
            assert_eq!(graph.node[1].attr.len(), 2);
            assert_eq!(contents.remove("large").unwrap().into_bytes(), vec![7; 1 << 16]);
            assert!(contents.is_empty());
        }
        for cut in [1, 20, 1000, bytes.len() - 1] {
            assert!(graph(bytes[..cut].to_vec().into()).is_err(), "{cut}");
        }
    }
}
