//! A list that a loop fills at its end, one tensor a turn: a stack of what the turns give, which is
//! what a loop can gather by itself.

use super::super::proto::{GraphProto, NodeProto, ValueInfoProto};
use super::{Sequence, Sequences};

/// Makes the lists of a loop outputs that it gathers; true where there was one. `known` are the
/// sequences that the loop may begin with, and gets those that it answers.
pub(super) fn gather(node: &mut NodeProto, known: &mut Sequences) -> bool {
    let is_empty = |name: &String| known.get(name) == Some(&Sequence::Tensors(Vec::new()));
    let lists: Vec<usize> =
        node.input.iter().enumerate().skip(2).filter(|(_, name)| is_empty(name)).map(|(at, _)| at).collect();
    let mut any = false;
    for at in lists.into_iter().rev() {
        let Some(body) = node.attribute.iter_mut().find(|a| a.name == "body").and_then(|a| a.g.as_mut())
        else {
            return any;
        };
        let Some(row) = appended(body, at) else { continue };
        let Some(list) = node.output.get(at - 2).cloned() else { continue };
        let gathered = format!("{list}.rows");
        let part = format!("{row}.row");
        body.node.retain(|n| {
            !(n.op_type == "SequenceInsert" && n.output.first() == body.output.get(at - 1).map(|o| &o.name))
        });
        body.node.push(NodeProto {
            name: format!("{part}/Identity"),
            op_type: "Identity".to_owned(),
            input: vec![row],
            output: vec![part.clone()],
            ..NodeProto::default()
        });
        body.input.remove(at);
        body.output.remove(at - 1);
        body.output.push(ValueInfoProto { name: part, r#type: None });
        node.input.remove(at);
        node.output.remove(at - 2);
        node.output.push(gathered.clone());
        known.insert(list, Sequence::Pieces { of: gathered, axis: 0, size: 1, keeps_axis: false });
        any = true;
    }
    any
}

/// The tensor that the body appends to the list that it is given at `at`, where that is all that it
/// does with it.
fn appended(body: &GraphProto, at: usize) -> Option<String> {
    let (list, filled) = (&body.input.get(at)?.name, &body.output.get(at - 1)?.name);
    let reads =
        body.node.iter().flat_map(|n| &n.input).filter(|name| *name == list || *name == filled).count();
    let answers = body.output.iter().filter(|o| o.name == *list || o.name == *filled).count();
    let inner = body
        .node
        .iter()
        .flat_map(|n| &n.attribute)
        .any(|a| a.g.iter().chain(&a.graphs).any(|graph| names(graph, list) || names(graph, filled)));
    let append =
        body.node.iter().find(|n| n.op_type == "SequenceInsert" && n.output.first() == Some(filled))?;
    let [from, row] = append.input.as_slice() else { return None };
    (from == list && reads == 1 && answers == 1 && !inner).then(|| row.clone())
}

/// True where a graph, or one in it, reads this name.
fn names(graph: &GraphProto, name: &str) -> bool {
    graph.output.iter().any(|output| output.name == name)
        || graph.node.iter().any(|node| {
            node.input.iter().any(|input| input == name)
                || node.attribute.iter().any(|a| a.g.iter().chain(&a.graphs).any(|graph| names(graph, name)))
        })
}
