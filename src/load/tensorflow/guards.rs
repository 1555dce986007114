//! Which side of which conditions a value lies on, in graphs whose conditions are nodes among others.
//!
//! A `Switch` lets its input out on one of its sides, a `Merge` gives the one that came. What lies
//! between is told by following the inputs back, those too that only order the nodes: a branch that gives a
//! constant has no other connection with its condition.

use std::collections::HashSet;
use std::rc::Rc;

use super::api::tfpb::NodeDef;
use super::frame::Frame;

/// The most conditions that a value may lie inside.
const MAX_GUARDS: usize = 64;

/// A condition that a value lies inside, by the reference to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard<'a> {
    condition: &'a str,
    side: usize,
    /// The condition is a number, not a truth.
    by_number: bool,
}

/// The conditions that a value lies inside.
pub(super) type Guards<'a> = Rc<Vec<Guard<'a>>>;

/// What the inputs of a `Merge` differ in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sides<'a> {
    pub(super) condition: &'a str,
    pub(super) by_number: bool,
    /// The side that each input is of.
    pub(super) of_input: Vec<usize>,
}

impl<'a> Frame<'a> {
    /// The condition that the inputs of a `Merge` differ in.
    pub(super) fn sides(&mut self, merge: &'a NodeDef) -> Option<Sides<'a>> {
        let inputs: Vec<&'a str> = data(merge).collect();
        for input in &inputs {
            self.follow(base(input));
        }
        let guards: Vec<Vec<Guard<'a>>> = inputs.iter().map(|input| self.through(input)).collect();
        differing(&guards)
    }

    /// The guards of what a reference leads to.
    fn through(&self, reference: &'a str) -> Vec<Guard<'a>> {
        let mut guards = self.guards.get(base(reference)).map(|g| g.to_vec()).unwrap_or_default();
        if let Some(guard) = self.guard(reference)
            && !guards.contains(&guard)
            && guards.len() < MAX_GUARDS
        {
            guards.push(guard);
        }
        guards
    }

    /// The guard that a reference to an output of a switch is.
    fn guard(&self, reference: &'a str) -> Option<Guard<'a>> {
        let node = self.nodes.get(base(reference)).filter(|n| is_switch(n) && !reference.starts_with('^'))?;
        let condition = data(node).nth(1)?;
        let decides_loop = self.nodes.get(base(condition)).is_some_and(|n| n.op == "LoopCond");
        let side = reference.split_once(':').map_or(Some(0), |(_, slot)| slot.parse().ok())?;
        (!decides_loop).then_some(Guard { condition, side, by_number: node.op == "_SwitchN" })
    }

    /// Finds the guards of a node and of all that it needs. No recursion, however long the chain.
    fn follow(&mut self, name: &'a str) {
        let mut stack: Vec<(&'a str, usize)> = vec![(name, 0)];
        // What is on its way, as in the circle of a loop, guards nothing yet.
        let mut open: HashSet<&'a str> = HashSet::new();
        while let Some((name, next)) = stack.last_mut() {
            let name: &'a str = name;
            let Some(node) = self.nodes.get(name).copied().filter(|_| !self.guards.contains_key(name)) else {
                stack.pop();
                continue;
            };
            open.insert(name);
            if let Some(input) = node.input.get(*next) {
                *next += 1;
                let input = base(input);
                if !self.guards.contains_key(input) && !open.contains(input) {
                    stack.push((input, 0));
                }
                continue;
            }
            let mut guards: Vec<Guard<'a>> = Vec::new();
            for guard in node.input.iter().flat_map(|input| self.through(input)) {
                if !guards.contains(&guard) && guards.len() < MAX_GUARDS {
                    guards.push(guard);
                }
            }
            if matches!(node.op.as_str(), "Merge" | "RefMerge") {
                let inputs: Vec<_> = data(node).map(|input| self.through(input)).collect();
                if let Some(sides) = differing(&inputs) {
                    guards.retain(|guard| guard.condition != sides.condition);
                }
            }
            self.guards.insert(name, Rc::new(guards));
            stack.pop();
        }
    }
}

/// The condition that values differ in, and the side of each.
fn differing<'a>(guards: &[Vec<Guard<'a>>]) -> Option<Sides<'a>> {
    let mut best = None;
    for Guard { condition, by_number, .. } in guards.iter().flatten() {
        let of = |guards: &Vec<Guard<'a>>| {
            guards.iter().rev().find(|guard| guard.condition == *condition).map(|guard| guard.side)
        };
        let mut sides: Vec<Option<usize>> = guards.iter().map(of).collect();
        let missing = sides.iter().filter(|s| s.is_none()).count();
        if missing == 1 {
            let free = (0..guards.len()).find(|side| !sides.contains(&Some(*side)));
            sides.iter_mut().filter(|s| s.is_none()).for_each(|s| *s = free);
        }
        let Some(of_input) = sides.into_iter().collect::<Option<Vec<usize>>>() else { continue };
        let mut sorted = of_input.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() == guards.len() {
            let found = Sides { condition, by_number: *by_number, of_input };
            if missing == 0 {
                return Some(found);
            }
            best = best.or(Some(found));
        }
    }
    best
}

fn is_switch(node: &NodeDef) -> bool {
    matches!(node.op.as_str(), "Switch" | "RefSwitch" | "_SwitchN")
}

/// The inputs that hold values.
fn data(node: &NodeDef) -> impl Iterator<Item = &str> {
    node.input.iter().map(String::as_str).filter(|i| !i.starts_with('^'))
}

fn base(reference: &str) -> &str {
    let reference = reference.strip_prefix('^').unwrap_or(reference);
    reference.split(':').next().unwrap_or(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, op: &str, inputs: &[&str]) -> NodeDef {
        let input = inputs.iter().map(|i| (*i).to_owned()).collect();
        NodeDef { name: name.into(), op: op.into(), input, ..NodeDef::default() }
    }

    #[test]
    fn a_condition_inside_another_is_not_taken_for_it() {
        // cond(p, lambda: cond(q, lambda: x, lambda: 1.0), lambda: x)
        let nodes = [
            node("outer", "Switch", &["x", "p"]),
            node("inner", "Switch", &["outer:1", "q"]),
            node("pivot", "Switch", &["q", "q"]),
            node("one_side", "Identity", &["pivot:0"]),
            node("one", "Const", &["^one_side"]),
            node("both", "Merge", &["one", "inner:1"]),
            node("all", "Merge", &["outer:0", "both"]),
        ];
        let mut frame = Frame::top(&nodes);
        let sides = |condition| Some(Sides { condition, by_number: false, of_input: vec![0, 1] });
        assert_eq!(frame.sides(&nodes[5]), sides("q"));
        assert_eq!(frame.sides(&nodes[6]), sides("p"));
    }
}
