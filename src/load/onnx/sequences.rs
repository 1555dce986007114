//! Outputs that are sequences of tensors, as exporters give the scores of several classifiers
//! (`MultiOutputClassifier`): each tensor becomes an output of its own, `scores_0`, `scores_1`, ..

use super::proto::{GraphProto, NodeProto, TypeProto, TypeValue, ValueInfoProto};

/// Takes the sequences apart that a `SequenceConstruct` makes for an output.
pub(super) fn take_apart(graph: &mut GraphProto) {
    let mut outputs = Vec::with_capacity(graph.output.len());
    for output in std::mem::take(&mut graph.output) {
        let maker = |node: &&NodeProto| {
            node.op_type == "SequenceConstruct"
                && node.domain.is_empty()
                && node.output.first() == Some(&output.name)
        };
        let Some(parts) = graph.node.iter().find(maker).map(|node| node.input.clone()) else {
            outputs.push(output);
            continue;
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tensor_of_a_sequence_becomes_an_output() {
        let node = |operator: &str, inputs: &[&str], output: &str| NodeProto {
            op_type: operator.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        };
        let output = |name: &str| ValueInfoProto { name: name.into(), r#type: None };
        let mut graph = GraphProto {
            node: vec![node("Neg", &["x"], "label"), node("SequenceConstruct", &["x", "label"], "scores")],
            output: vec![output("label"), output("scores")],
            ..GraphProto::default()
        };
        take_apart(&mut graph);
        let names: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, ["label", "scores_0", "scores_1"]);
        let made: Vec<_> =
            graph.node.iter().skip(2).map(|n| (n.input[0].as_str(), n.output[0].as_str())).collect();
        assert_eq!(made, [("x", "scores_0"), ("label", "scores_1")]);
    }
}
