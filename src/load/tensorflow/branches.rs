//! Conditions: a branch that is known is followed, of any other both sides are computed.

use std::collections::HashSet;
use std::sync::Arc;

use super::api::tensor0;
use super::api::tfpb::NodeDef;
use super::api::tfpb::attr_value::Value;
use super::builder::{Builder, Wire, cycle, function_attribute};
use super::frame::Frame;
use super::graph::{Attributes, Content, Node, Port};
use super::malformed;
use crate::load::LoadError;

impl<'a> Builder<'a> {
    /// A condition that is known is followed; of any other both branches are computed, and the
    /// outputs chosen from.
    pub(super) fn build_if(
        &mut self,
        frame: &Frame<'a>,
        node: &'a NodeDef,
        inputs: &[Wire],
    ) -> Result<Vec<Wire>, LoadError> {
        let (condition, arguments) = inputs
            .split_first()
            .ok_or_else(|| malformed(format!("the node `{}` has no condition", node.name)))?;
        let branch = |taken| function_attribute(node, if taken { "then_branch" } else { "else_branch" });
        if let Some(taken) = self.truth(*condition) {
            return self.call(frame, branch(taken)?, arguments, node);
        }
        let yes = self.call(frame, branch(true)?, arguments, node)?;
        let no = self.call(frame, branch(false)?, arguments, node)?;
        let choose = |(yes, no)| self.push_select(node, *condition, yes, no);
        yes.into_iter().zip(no).map(choose).collect()
    }

    /// One of several branches by number; the last is also for numbers out of range.
    pub(super) fn build_case(
        &mut self,
        frame: &Frame<'a>,
        node: &'a NodeDef,
        inputs: &[Wire],
    ) -> Result<Vec<Wire>, LoadError> {
        let bad = || malformed(format!("the node `{}` does not say which functions it calls", node.name));
        let (number, arguments) = inputs.split_first().ok_or_else(bad)?;
        let Wire::Live(number) = *number else { return Ok(vec![Wire::Dead; 8]) };
        let branches: Vec<&'a str> = match node.attr.get("branches").and_then(|a| a.value.as_ref()) {
            Some(Value::List(list)) => list.func.iter().map(|f| f.name.as_str()).collect(),
            _ => return Err(bad()),
        };
        let (last, others) = branches.split_last().ok_or_else(bad)?;
        if let Some(Content::Constant(known)) = self.graph.nodes.get(number.node).map(|n| &n.content) {
            let known = known.cast_to_scalar::<i64>().map_err(|_| bad())?;
            let taken = usize::try_from(known).ok().and_then(|n| branches.get(n)).unwrap_or(last);
            return self.call(frame, taken, arguments, node);
        }
        let mut chosen = self.call(frame, last, arguments, node)?;
        for (position, name) in others.iter().enumerate() {
            let branch = self.call(frame, name, arguments, node)?;
            let position = i32::try_from(position).map_err(|_| bad())?;
            let position = self.push_constant(&node.name, Arc::new(tensor0(position)))?;
            let is_taken = Port::first(self.push(Node {
                name: node.name.clone(),
                op: "Equal".to_owned(),
                attributes: Attributes::default(),
                inputs: vec![number, position],
                content: Content::None,
            })?);
            let choose = |(yes, no)| self.push_select(node, Wire::Live(is_taken), yes, no);
            chosen = branch.into_iter().zip(chosen).map(choose).collect::<Result<_, _>>()?;
        }
        Ok(chosen)
    }

    fn push_select(
        &mut self,
        node: &NodeDef,
        condition: Wire,
        yes: Wire,
        no: Wire,
    ) -> Result<Wire, LoadError> {
        let (Wire::Live(condition), Wire::Live(yes), Wire::Live(no)) = (condition, yes, no) else {
            return Ok(Wire::Dead);
        };
        if yes == no {
            return Ok(Wire::Live(yes));
        }
        let select = Node {
            name: node.name.clone(),
            op: "SelectV2".to_owned(),
            attributes: Attributes::default(),
            inputs: vec![condition, yes, no],
            content: Content::None,
        };
        Ok(Wire::Live(Port::first(self.push(select)?)))
    }

    /// The two branches of an old condition come together: both were computed, one is chosen.
    pub(super) fn build_merge(&mut self, node: &'a NodeDef, inputs: &[Wire]) -> Result<Port, LoadError> {
        let [Wire::Live(a), Wire::Live(b)] = inputs else { return Err(cycle(node)) };
        let (side_a, side_b) = (self.branch_of(*a), self.branch_of(*b));
        let (condition, yes, no) = match (side_a, side_b) {
            (Some((condition, false)), Some((_, true)) | None) | (None, Some((condition, true))) => {
                (condition, b, a)
            }
            (Some((condition, true)), Some((_, false)) | None) | (None, Some((condition, false))) => {
                (condition, a, b)
            }
            _ => return Err(cycle(node)),
        };
        match self.push_select(node, Wire::Live(condition), Wire::Live(*yes), Wire::Live(*no))? {
            Wire::Live(port) => Ok(port),
            Wire::Dead => Err(cycle(node)),
        }
    }

    /// The condition of the nearest switch that a value comes through, and its side.
    fn branch_of(&self, port: Port) -> Option<(Port, bool)> {
        let (mut seen, mut ways) = (HashSet::new(), vec![port]);
        while let Some(port) = ways.pop() {
            let node = self.graph.nodes.get(port.node)?;
            if node.op == "Switch" {
                return Some((*node.inputs.get(1)?, port.slot == 1));
            }
            if seen.insert(port.node) && seen.len() < 4096 {
                ways.extend(&node.inputs);
            }
        }
        None
    }

    /// The value of a condition that does not depend on the input.
    pub(super) fn truth(&self, wire: Wire) -> Option<bool> {
        let Wire::Live(mut port) = wire else { return None };
        let mut negated = false;
        loop {
            // A node only reads nodes before it, so this ends.
            let node = self.graph.nodes.get(port.node)?;
            match (&node.content, node.op.as_str()) {
                (Content::Constant(value), _) => {
                    return value.cast_to_scalar::<bool>().ok().map(|truth| truth != negated);
                }
                (_, "LogicalNot") => port = *node.inputs.first()?,
                _ => return None,
            }
            negated = !negated;
        }
    }
}
