//! What a graph's outputs need, in an order in which it can be computed.

use std::collections::HashMap;

use super::{GraphParts, InputParts, NodeParts, ProgramError};

/// Adds what the graphs in a node's attributes need of the graph around them to the node's inputs,
/// and to theirs.
pub(super) fn capture(node: &mut NodeParts) {
    let mut free: Vec<String> = Vec::new();
    for name in node.attributes.graphs().flat_map(GraphParts::free_names) {
        if !free.contains(&name) {
            free.push(name);
        }
    }
    for graph in node.attributes.graphs_mut() {
        graph.captures = free.len();
        graph.inputs.extend(free.iter().map(|n| InputParts { name: n.clone(), fact: None }));
    }
    node.inputs.extend(free);
}

/// The nodes that the outputs need, each after those that it reads.
pub(super) fn order(parts: &GraphParts) -> Result<Vec<usize>, ProgramError> {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in parts.nodes.iter().enumerate() {
        for name in node.outputs.iter().filter(|n| !n.is_empty()) {
            if makers.insert(name, index).is_some() {
                return Err(ProgramError::Duplicate { name: name.clone() });
            }
        }
    }
    let mut order = Vec::new();
    let mut state = vec![Mark::New; parts.nodes.len()];
    for output in &parts.outputs {
        // A walk with a stack of its own: a chain of nodes can be longer than the thread's stack.
        let mut stack: Vec<(usize, usize)> =
            makers.get(output.as_str()).map(|n| (*n, 0)).into_iter().collect();
        while let Some((index, next)) = stack.pop() {
            let (Some(node), Some(mark)) = (parts.nodes.get(index), state.get_mut(index)) else { continue };
            if *mark == Mark::Done || (*mark == Mark::Open && next == 0) {
                if *mark == Mark::Open {
                    return Err(ProgramError::Cycle {
                        operator: node.full_operator(),
                        node: node.name.clone(),
                    });
                }
                continue;
            }
            *mark = Mark::Open;
            match node.inputs.get(next) {
                None => {
                    *mark = Mark::Done;
                    order.push(index);
                }
                Some(input) => {
                    stack.push((index, next + 1));
                    stack.extend(makers.get(input.as_str()).map(|n| (*n, 0)));
                }
            }
        }
    }
    Ok(order)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    Open,
    Done,
}
