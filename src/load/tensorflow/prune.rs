//! Keeps of a graph what its outputs need.

use super::graph::{Graph, Port};

/// Drops the nodes that no output needs and that are no inputs of the model.
pub(super) fn prune(graph: &mut Graph) {
    let needed = graph.needed(graph.outputs.iter().map(|o| o.port), |_| true);
    let mut position = 0;
    let mut moved = vec![None; graph.nodes.len()];
    for ((node, needed), moved) in graph.nodes.iter().zip(&needed).zip(&mut moved) {
        if *needed || matches!(node.content, super::graph::Content::Input(_)) {
            *moved = Some(position);
            position += 1;
        }
    }
    let mut keep = moved.iter().map(Option::is_some);
    graph.nodes.retain(|_| keep.next().unwrap_or(false));
    let place = |port: &mut Port| port.node = moved.get(port.node).copied().flatten().unwrap_or(0);
    for node in &mut graph.nodes {
        node.inputs.iter_mut().for_each(place);
    }
    graph.outputs.iter_mut().for_each(|o| place(&mut o.port));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tensorflow::graph::{Attributes, Content, GraphOutput, Node};

    fn node(name: &str, inputs: &[usize]) -> Node {
        Node {
            name: name.into(),
            op: "Op".into(),
            attributes: Attributes::default(),
            inputs: inputs.iter().map(|i| Port::first(*i)).collect(),
            content: Content::None,
        }
    }

    #[test]
    fn only_what_an_output_needs_stays() {
        let mut graph = Graph {
            nodes: vec![node("save", &[]), node("x", &[]), node("train", &[1]), node("y", &[1])],
            inputs: Vec::new(),
            outputs: vec![GraphOutput { name: "y".into(), port: Port::first(3), datum: None }],
        };
        prune(&mut graph);
        assert_eq!(graph.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(graph.nodes[1].inputs, [Port::first(0)]);
        assert_eq!(graph.outputs[0].port, Port::first(1));
    }
}
