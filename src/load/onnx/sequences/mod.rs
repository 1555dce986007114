//! Sequences of tensors, and optional tensors, taken apart before there is a graph: each becomes
//! the tensors that it consists of, as far as the file tells which these are. No engine here has
//! sequences.

mod loops;
mod outputs;
mod values;

use std::collections::HashMap;

use self::values::Values;
use super::proto::{GraphProto, ModelProto, NodeProto};

/// What a sequence consists of.
#[derive(Clone, Debug, PartialEq)]
enum Sequence {
    /// These tensors.
    Tensors(Vec<String>),
    /// The pieces of a tensor along an axis; without that axis where it is not to be kept.
    Pieces { of: String, axis: i64, size: i64, keeps_axis: bool },
}

/// How many passes over the nodes there are: as many as nodes stand in the wrong order.
const PASSES: usize = 4;
/// The most tensors that all sequences of a graph may name, taken together.
const MAX_TENSORS: usize = 100_000;

/// Takes the sequences of a model apart. What this cannot do stays, for an error that names it.
pub(super) fn take_apart(model: &mut ModelProto) {
    let version = model.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    let version = version.map_or(1, |set| set.version);
    if let Some(graph) = &mut model.graph {
        in_graph(graph, version);
        outputs::take_apart(graph);
    }
}

fn in_graph(graph: &mut GraphProto, version: i64) {
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(|body| in_graph(body, version));
        }
    }
    if !graph.node.iter().any(is_of_sequences) {
        return;
    }
    let mut values = Values::new(graph, version);
    for _ in 0..PASSES {
        let mut is_done = true;
        let nodes = std::mem::take(&mut graph.node);
        for node in nodes {
            match values.replace(node, &mut graph.node) {
                None => is_done = false,
                Some(node) => graph.node.push(node),
            }
        }
        graph.initializer.append(&mut values.made);
        if is_done {
            break;
        }
    }
    // A graph that answers a sequence answers its tensors.
    outputs::construct(graph, values.sequences);
}

/// True for operators that make sequences or optional tensors, or read them.
fn is_of_sequences(node: &NodeProto) -> bool {
    matches!(node.domain.as_str(), "" | "ai.onnx")
        && (node.op_type.contains("Sequence") || node.op_type.starts_with("Optional"))
}

/// Sequences by their names.
type Sequences = HashMap<String, Sequence>;

#[cfg(test)]
mod tests {
    use super::super::proto::{AttributeProto, OperatorSetId, ValueInfoProto, node};
    use super::*;
    use crate::load::tensor_proto::TensorProto;
    use crate::tensor::Tensor;

    fn with(mut node: NodeProto, name: &str, value: i64) -> NodeProto {
        node.attribute.push(AttributeProto { name: name.into(), i: value, r#type: 2, ..Default::default() });
        node
    }

    /// The nodes that are left, as `operator inputs->outputs`.
    fn taken_apart(nodes: Vec<NodeProto>, constants: &[(&str, Tensor)], outputs: &[&str]) -> Vec<String> {
        let output = |name: &&str| ValueInfoProto { name: (*name).into(), r#type: None };
        let graph = GraphProto {
            node: nodes,
            initializer: constants.iter().map(|(name, value)| TensorProto::from((*name, value))).collect(),
            output: outputs.iter().map(output).collect(),
            ..GraphProto::default()
        };
        let mut model = ModelProto {
            graph: Some(graph),
            opset_import: vec![OperatorSetId { domain: String::new(), version: 17 }],
            ..ModelProto::default()
        };
        take_apart(&mut model);
        let graph = model.graph.unwrap();
        graph
            .node
            .iter()
            .map(|n| format!("{} {}->{}", n.op_type, n.input.join(","), n.output.join(",")))
            .chain(std::iter::once(graph.output.iter().map(|o| o.name.clone()).collect::<Vec<_>>().join(",")))
            .collect()
    }

    #[test]
    fn a_list_that_is_joined_is_a_concat() {
        let nodes = vec![
            node("SequenceEmpty", &[], &["e"]),
            node("SequenceInsert", &["e", "x"], &["s"]),
            node("SequenceInsert", &["s", "z", "first"], &["t"]),
            node("SequenceLength", &["t"], &["n"]),
            with(node("ConcatFromSequence", &["t"], &["y"]), "axis", 1),
        ];
        let first = [("first", Tensor::scalar(0_i64))];
        assert_eq!(taken_apart(nodes, &first, &["y", "n"]), ["Concat z,x->y", "y,n"]);
    }

    #[test]
    fn a_piece_of_a_tensor_is_a_slice() {
        let nodes = vec![
            with(node("SplitToSequence", &["x", "two"], &["s"]), "axis", 1),
            node("SequenceAt", &["s", "one"], &["y"]),
            with(with(node("SplitToSequence", &["x"], &["t"]), "axis", 1), "keepdims", 0),
            node("SequenceAt", &["t", "one"], &["z"]),
        ];
        let constants = [("two", Tensor::scalar(2_i64)), ("one", Tensor::scalar(1_i64))];
        assert_eq!(
            taken_apart(nodes, &constants, &["y", "z"]),
            ["Slice x,y.start,y.end,y.axis->y", "Gather x,z.place->z", "y,z"]
        );
    }

    #[test]
    fn each_tensor_of_a_sequence_becomes_an_output() {
        let nodes =
            vec![node("Neg", &["x"], &["label"]), node("SequenceConstruct", &["x", "label"], &["scores"])];
        assert_eq!(
            taken_apart(nodes, &[], &["label", "scores"]),
            ["Neg x->label", "Identity x->scores_0", "Identity label->scores_1", "label,scores_0,scores_1"]
        );
    }

    #[test]
    fn a_list_that_a_loop_fills_is_what_it_gathers() {
        let body = GraphProto {
            node: vec![node("Neg", &["v"], &["r"]), node("SequenceInsert", &["q", "r"], &["q2"])],
            input: ["i", "c", "q", "v"].map(|n| ValueInfoProto { name: n.into(), r#type: None }).into(),
            output: ["c", "q2", "r"].map(|n| ValueInfoProto { name: n.into(), r#type: None }).into(),
            ..GraphProto::default()
        };
        let mut looped = node("Loop", &["n", "", "e", "x"], &["s", "last"]);
        looped.attribute.push(AttributeProto {
            name: "body".into(),
            g: Some(body),
            r#type: 5,
            ..Default::default()
        });
        let nodes = vec![
            node("SequenceEmpty", &[], &["e"]),
            looped,
            with(with(node("ConcatFromSequence", &["s"], &["y"]), "axis", 0), "new_axis", 1),
        ];
        assert_eq!(
            taken_apart(nodes, &[], &["y", "last"]),
            ["Loop n,,x->last,s.rows", "Identity s.rows->y", "y,last"]
        );
    }

    #[test]
    fn what_is_not_known_stays() {
        let nodes =
            vec![node("SplitToSequence", &["x", "sizes"], &["s"]), node("SequenceAt", &["s", "i"], &["y"])];
        assert_eq!(taken_apart(nodes, &[], &["y"]), ["SplitToSequence x,sizes->s", "SequenceAt s,i->y", "y"]);
    }
}
