//! The attributes of a node, out of their messages, and the constants that nodes hold.

use super::check::{describe, malformed};
use super::graph::GraphPartsBuilder;
use super::proto::{AttributeProto, NodeProto, SparseTensorProto, attribute_type};
use crate::kernel::{Attribute, Attributes, Narrow, ROUNDED_TO};
use crate::load::LoadError;
use crate::load::tensor_proto::{BFLOAT16, FLOAT16};
use crate::tensor::{ElementType, Tensor};

/// The attributes of one node.
pub(super) fn convert(
    graphs: &GraphPartsBuilder<'_>,
    attributes: Vec<AttributeProto>,
    node: &str,
) -> Result<Attributes, LoadError> {
    let mut converted = Attributes::default();
    for mut attribute in attributes {
        let name = std::mem::take(&mut attribute.name);
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| malformed(format!("{node}: attribute `{name}` is no UTF-8 text")))
        };
        let absent = || malformed(format!("{node}: attribute `{name}` is empty"));
        let value = match kind(&attribute) {
            attribute_type::FLOAT => Attribute::Float(attribute.f),
            attribute_type::INT => {
                let held = held(&name, attribute.i);
                if held.is_some() {
                    converted.insert(ROUNDED_TO, Attribute::Int(attribute.i));
                }
                Attribute::Int(held.unwrap_or(attribute.i))
            }
            attribute_type::STRING => Attribute::String(text(&attribute.s)?),
            attribute_type::TENSOR => {
                let tensor = attribute.t.take().ok_or_else(absent)?;
                Attribute::Tensor(tensor.into_tensor().map_err(|e| malformed(format!("{node}: {e}")))?)
            }
            attribute_type::GRAPH => {
                Attribute::Graph(Box::new(graphs.body(attribute.g.take().ok_or_else(absent)?)?))
            }
            attribute_type::FLOATS => Attribute::Floats(attribute.floats),
            attribute_type::INTS => Attribute::Ints(attribute.ints),
            attribute_type::STRINGS => {
                Attribute::Strings(attribute.strings.iter().map(|s| text(s)).collect::<Result<_, _>>()?)
            }
            other => return Err(malformed(format!("{node}: attribute `{name}` is of unknown type {other}"))),
        };
        converted.insert(name, value);
    }
    Ok(converted)
}

/// The value of a `Constant` node, `None` for any other; `dense` makes a sparse one dense.
pub(super) fn constant(
    node: &NodeProto,
    dense: impl FnOnce(SparseTensorProto) -> Result<Tensor, LoadError>,
) -> Result<Option<Tensor>, LoadError> {
    if node.op_type != "Constant" || !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return Ok(None);
    }
    let refuse = |reason: &str| malformed(format!("{}: {reason}", describe(node)));
    let text = |bytes: &bytes::Bytes| {
        String::from_utf8(bytes.to_vec()).map_err(|_| refuse("the value is no UTF-8 text"))
    };
    let attribute = node.attribute.first().ok_or_else(|| refuse("there is no value"))?;
    let tensor = match attribute.name.as_str() {
        "value" => {
            let tensor = attribute.t.clone().ok_or_else(|| refuse("there is no value"))?;
            tensor.into_tensor().map_err(|e| refuse(&e))?
        }
        "sparse_value" => dense(attribute.sparse_tensor.clone().ok_or_else(|| refuse("there is no value"))?)?,
        "value_float" => Tensor::scalar(attribute.f),
        "value_floats" => Tensor::vector(attribute.floats.clone()),
        "value_int" => Tensor::scalar(attribute.i),
        "value_ints" => Tensor::vector(attribute.ints.clone()),
        "value_string" => Tensor::scalar(text(&attribute.s)?),
        "value_strings" => Tensor::vector(attribute.strings.iter().map(text).collect::<Result<Vec<_>, _>>()?),
        other => return Err(refuse(&format!("a value of the kind `{other}` is not supported"))),
    };
    Ok(Some(tensor))
}

/// Files of the first versions leave the type out.
fn kind(attribute: &AttributeProto) -> i32 {
    match attribute.r#type {
        0 if attribute.t.is_some() => attribute_type::TENSOR,
        0 if attribute.g.is_some() => attribute_type::GRAPH,
        0 if !attribute.floats.is_empty() => attribute_type::FLOATS,
        0 if !attribute.ints.is_empty() => attribute_type::INTS,
        0 if !attribute.strings.is_empty() => attribute_type::STRINGS,
        0 if !attribute.s.is_empty() => attribute_type::STRING,
        0 if attribute.f != 0.0 => attribute_type::FLOAT,
        0 => attribute_type::INT,
        stated => stated,
    }
}

/// Half floats are held as f32 and narrower types as the next one, so a cast to one of them is a
/// cast to the type of this number, and a rounding.
fn held(name: &str, value: i64) -> Option<i64> {
    let code = i32::try_from(value).ok().filter(|_| matches!(name, "to" | "dtype"))?;
    if matches!(code, FLOAT16 | BFLOAT16) {
        return Some(1);
    }
    Narrow::of(code).map(|narrow| match narrow.element_type() {
        ElementType::U8 => 2,
        ElementType::I8 => 3,
        _ => 1,
    })
}
