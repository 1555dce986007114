//! Outputs that are sequences of tensors, as exporters give the scores of several classifiers
//! (`MultiOutputClassifier`): each tensor becomes an output of its own, `scores_0`, `scores_1`, ..

use std::collections::HashSet;

use super::super::proto::{GraphProto, NodeProto, TypeProto, TypeValue, ValueInfoProto};
use super::{Sequence, Sequences};

/// States the sequences that are still read as nodes again: those that the graph answers, and those
/// of which it is not known which tensor is wanted, for an error that names the operator.
pub(super) fn construct(graph: &mut GraphProto, sequences: Sequences) {
    let read: HashSet<String> = graph
        .output
        .iter()
        .map(|output| output.name.clone())
        .chain(graph.node.iter().flat_map(|node| node.input.iter().cloned()))
        .collect();
    for (name, sequence) in sequences {
        if !read.contains(&name) {
            continue;
        }
        let (operator, input) = match sequence {
            Sequence::Tensors(tensors) => ("SequenceConstruct", tensors),
            Sequence::Pieces { of, .. } => ("SplitToSequence", vec![of]),
        };
        graph.node.push(NodeProto {
            name: format!("{name}/{operator}"),
            op_type: operator.to_owned(),
            input,
            output: vec![name],
            ..NodeProto::default()
        });
    }
}

/// Takes the sequences apart that a `SequenceConstruct` makes for an output.
pub(super) fn take_apart(graph: &mut GraphProto) {
    let mut outputs = Vec::with_capacity(graph.output.len());
    for output in std::mem::take(&mut graph.output) {
        let is_maker = |node: &NodeProto| {
            node.op_type == "SequenceConstruct"
                && matches!(node.domain.as_str(), "" | "ai.onnx")
                && node.output.first() == Some(&output.name)
        };
        let Some(at) = graph.node.iter().position(is_maker) else {
            outputs.push(output);
            continue;
        };
        let parts = graph.node.remove(at).input;
        for (number, part) in parts.into_iter().enumerate() {
            let name = format!("{}_{number}", output.name);
            graph.node.push(NodeProto {
                name: format!("{name}/Identity"),
                op_type: "Identity".to_owned(),
                input: vec![part],
                output: vec![name.clone()],
                ..NodeProto::default()
            });
            outputs.push(ValueInfoProto { name, r#type: element(output.r#type.as_ref()) });
        }
    }
    graph.output = outputs;
}

/// What a sequence is declared to be a sequence of.
fn element(declared: Option<&TypeProto>) -> Option<TypeProto> {
    match declared?.value.as_ref()? {
        TypeValue::Sequence(of) => of.elem_type.as_deref().cloned(),
        _ => None,
    }
}
