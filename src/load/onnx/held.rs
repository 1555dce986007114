//! Types that a file tells apart and tensors here do not: half floats and narrower numbers are held as
//! wider ones. What a node takes from the type of an input is stated in its attributes instead.

use std::cell::RefCell;
use std::collections::HashMap;

use super::proto::{AttributeProto, GraphProto, NodeProto, TypeValue, attribute_type};
use crate::kernel::Narrow;
use crate::load::tensor_proto::{BFLOAT16, FLOAT16};

/// The tensors of such a type, with ONNX's number of it. Those of a body may be of its surroundings.
#[derive(Debug, Default)]
pub(super) struct HeldTypes(RefCell<HashMap<String, i32>>);

impl HeldTypes {
    /// Learns the types of what a graph starts with.
    pub(super) fn learn(&self, graph: &GraphProto) {
        let inputs = graph.input.iter().filter_map(|input| match input.r#type.as_ref()?.value.as_ref()? {
            TypeValue::Tensor(tensor) => Some((&input.name, tensor.elem_type)),
            _ => None,
        });
        let initializers = graph.initializer.iter().map(|tensor| (&tensor.name, tensor.data_type));
        for (name, data_type) in inputs.chain(initializers) {
            self.set(name, Some(data_type));
        }
    }

    /// Learns the types of what a node makes, and states in the node what it takes from a type. Nodes
    /// come in the order in which they run.
    pub(super) fn settle(&self, node: &mut NodeProto) {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return;
        }
        let of = |index: usize| self.0.borrow().get(node.input.get(index)?).copied();
        let made = match node.op_type.as_str() {
            "CastLike" => {
                let like = of(1);
                if let Some(data_type) = like {
                    "Cast".clone_into(&mut node.op_type);
                    node.input.truncate(1);
                    node.attribute.push(int("to", data_type));
                }
                like
            }
            "Cast" => stated(node, "to"),
            "QuantizeLinear" => {
                let zero = of(2);
                if let Some(data_type) = zero {
                    node.attribute.retain(|attribute| attribute.name != "output_dtype");
                    node.attribute.push(int("output_dtype", data_type));
                }
                zero.or_else(|| stated(node, "output_dtype"))
            }
            "Constant" => node.attribute.iter().find_map(|a| Some(a.t.as_ref()?.data_type)),
            "Identity" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" | "Flatten" => of(0),
            _ => None,
        };
        if let Some(name) = node.output.first() {
            self.set(name, made);
        }
    }

    fn set(&self, name: &str, data_type: Option<i32>) {
        let held = |code: &i32| matches!(*code, FLOAT16 | BFLOAT16) || Narrow::of(*code).is_some();
        let mut types = self.0.borrow_mut();
        match data_type.filter(held) {
            Some(data_type) => types.insert(name.to_owned(), data_type),
            // A body may have a name of its own that is one of its surroundings.
            None => types.remove(name),
        };
    }
}

fn stated(node: &NodeProto, name: &str) -> Option<i32> {
    let value = node.attribute.iter().find(|attribute| attribute.name == name)?.i;
    i32::try_from(value).ok()
}

fn int(name: &str, value: i32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i: value.into(),
        r#type: attribute_type::INT,
        ..AttributeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::node;
    use super::*;
    use crate::load::tensor_proto::TensorProto;

    #[test]
    fn what_follows_from_the_type_of_an_input_is_stated() {
        let types = HeldTypes::default();
        let tensor =
            |name: &str, data_type| TensorProto { name: name.into(), data_type, ..Default::default() };
        types.learn(&GraphProto {
            initializer: vec![tensor("zero", 22), tensor("wide", 1)],
            ..GraphProto::default()
        });
        let mut levels = node("QuantizeLinear", &["x", "scale", "zero"], &["q"]);
        types.settle(&mut levels);
        assert_eq!(stated(&levels, "output_dtype"), Some(22));
        let mut like = node("CastLike", &["x", "q"], &["y"]);
        types.settle(&mut like);
        assert_eq!((like.op_type.as_str(), like.input.len(), stated(&like, "to")), ("Cast", 1, Some(22)));
        // A type that tensors have is seen when the node runs.
        let mut wide = node("CastLike", &["x", "wide"], &["z"]);
        types.settle(&mut wide);
        assert_eq!(wide.op_type, "CastLike");
    }
}
