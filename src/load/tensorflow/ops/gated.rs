//! Loops that end before their lists are full, as those over sequences of given lengths do.
//!
//! Such a loop takes all turns that its lists have room for. In the turns after its end the states stay as
//! they are, and zeros go into the lists, which is what TensorFlow leaves there.

use super::super::graph::{Attributes, Content, Graph, Node, Port};
use super::super::malformed;
use super::WiringError;

/// Makes what a turn gives depend on the condition of the loop. States that only count are not held:
/// the condition is true up to a number of turns, and never again.
pub(super) fn gate(
    body: &mut Graph,
    condition: &Graph,
    counts: &[bool],
    is_list: impl Fn(usize) -> bool,
) -> Result<(), WiringError> {
    let due = inlined(body, condition)?;
    for (state, _) in counts.iter().enumerate().filter(|(_, counts)| !**counts) {
        let Some(next) = body.outputs.get(state).map(|o| o.port) else { continue };
        let otherwise = if is_list(state) {
            push(body, "ZerosLike", vec![next], Content::None)
        } else {
            push(body, "Placeholder", Vec::new(), Content::Input(state))
        };
        let chosen = push(body, "SelectV2", vec![due, next, otherwise], Content::None);
        body.outputs.get_mut(state).into_iter().for_each(|output| output.port = chosen);
    }
    Ok(())
}

/// Adds the condition to the nodes of a turn, whose inputs are the same.
fn inlined(body: &mut Graph, condition: &Graph) -> Result<Port, WiringError> {
    let first = body.nodes.len();
    let moved = |port: &Port| Port { node: port.node + first, slot: port.slot };
    for node in &condition.nodes {
        let inputs = node.inputs.iter().map(moved).collect();
        body.nodes.push(Node { inputs, ..node.clone() });
    }
    let output = condition.outputs.first().map(|o| moved(&o.port));
    output.ok_or_else(|| WiringError::At(Box::new(malformed("a loop has no condition"))))
}

fn push(body: &mut Graph, op: &str, inputs: Vec<Port>, content: Content) -> Port {
    body.nodes.push(Node {
        name: String::new(),
        op: op.to_owned(),
        attributes: Attributes::default(),
        inputs,
        content,
    });
    Port::first(body.nodes.len() - 1)
}
