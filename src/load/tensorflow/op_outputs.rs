//! What the file says of its operators: attributes' defaults, and how many tensors each output is.

use std::collections::HashMap;

use super::api::tfpb::attr_value::Value;
use super::api::tfpb::{AttrValue, NodeDef, OpDef, OpList};

/// The operator definitions that a SavedModel carries; empty for a frozen graph.
#[derive(Default)]
pub(super) struct OpDefs(HashMap<String, OpDef>);

impl OpDefs {
    pub(super) fn new(list: Option<OpList>) -> Self {
        let ops = list.map(|l| l.op).unwrap_or_default();
        Self(ops.into_iter().map(|op| (op.name.clone(), op)).collect())
    }

    /// The attributes that exporters strip because they have their default value.
    pub(super) fn defaults(&self, op: &str) -> impl Iterator<Item = (&str, &AttrValue)> {
        let attributes = self.0.get(op).map(|op| op.attr.as_slice()).unwrap_or_default();
        attributes.iter().filter_map(|a| Some((a.name.as_str(), a.default_value.as_ref()?)))
    }

    /// The position among all tensors that a node gives of number `index` of its output `argument`:
    /// inside a function, `split:output:1` and `norm:batch_mean:0` are references.
    pub(super) fn flat_index(&self, node: &NodeDef, argument: &str, index: usize) -> Option<usize> {
        let Some(op) = self.0.get(&node.op) else {
            return known_position(&node.op, argument)?.checked_add(index);
        };
        let mut flat = 0_usize;
        for output in &op.output_arg {
            if output.name == argument {
                return flat.checked_add(index);
            }
            flat = flat.checked_add(length(node, &output.number_attr, &output.type_list_attr)?)?;
        }
        None
    }
}

/// How many tensors an output is.
fn length(node: &NodeDef, number: &str, types: &str) -> Option<usize> {
    let value = |name: &str| node.attr.get(name)?.value.as_ref();
    if !number.is_empty() {
        return match value(number)? {
            Value::I(n) => usize::try_from(*n).ok(),
            _ => None,
        };
    }
    if !types.is_empty() {
        return match value(types)? {
            Value::List(list) => Some(list.r#type.len()),
            _ => None,
        };
    }
    Some(1)
}

/// Positions for the operators of several outputs that a frozen graph may have in its functions; any
/// other operator has one output, or one list.
fn known_position(op: &str, argument: &str) -> Option<usize> {
    let outputs: &[&str] = match op {
        "FusedBatchNorm" | "FusedBatchNormV2" => {
            &["y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2"]
        }
        "FusedBatchNormV3" => {
            &["y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "reserve_space_3"]
        }
        "TopK" | "TopKV2" => &["values", "indices"],
        "Unique" | "UniqueV2" => &["y", "idx"],
        "UniqueWithCounts" => &["y", "idx", "count"],
        "Switch" => &["output_false", "output_true"],
        "SoftmaxCrossEntropyWithLogits" | "SparseSoftmaxCrossEntropyWithLogits" => &["loss", "backprop"],
        "SparseFillEmptyRows" => {
            &["output_indices", "output_values", "empty_row_indicator", "reverse_index_map"]
        }
        "SparseReshape" => &["output_indices", "output_shape"],
        "StringSplit" | "StringSplitV2" => &["indices", "values", "shape"],
        "SparseCross" => &["output_indices", "output_values", "output_shape"],
        "NonMaxSuppressionV4" => &["selected_indices", "valid_outputs"],
        "NonMaxSuppressionV5" => &["selected_indices", "selected_scores", "valid_outputs"],
        "StringNGrams" => &["ngrams", "ngrams_splits"],
        "UnicodeDecode" => &["row_splits", "char_values"],
        _ => return Some(0),
    };
    outputs.iter().position(|name| *name == argument)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tensorflow::api::tfpb::op_def::ArgDef;

    #[test]
    fn outputs_after_a_list_are_counted_from_its_end() {
        let list = ArgDef { name: "parts".into(), number_attr: "n".into(), ..ArgDef::default() };
        let last = ArgDef { name: "rest".into(), ..ArgDef::default() };
        let op = OpDef { name: "Cut".into(), output_arg: vec![list, last], ..OpDef::default() };
        let defs = OpDefs::new(Some(OpList { op: vec![op] }));
        let mut node = NodeDef { op: "Cut".into(), ..NodeDef::default() };
        node.attr.insert("n".into(), AttrValue { value: Some(Value::I(3)) });
        assert_eq!(defs.flat_index(&node, "parts", 2), Some(2));
        assert_eq!(defs.flat_index(&node, "rest", 0), Some(3));
        assert_eq!(defs.flat_index(&node, "none", 0), None);
    }

    #[test]
    fn a_frozen_graph_needs_no_definitions_for_the_usual_operators() {
        let defs = OpDefs::default();
        let node = NodeDef { op: "FusedBatchNormV3".into(), ..NodeDef::default() };
        assert_eq!(defs.flat_index(&node, "batch_variance", 0), Some(2));
        let node = NodeDef { op: "Split".into(), ..NodeDef::default() };
        assert_eq!(defs.flat_index(&node, "output", 3), Some(3));
    }
}
