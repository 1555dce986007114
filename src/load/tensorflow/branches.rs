//! Conditions: a branch that is known is followed, of any other both sides are computed.

use super::api::tensor0;
use super::api::tfpb::NodeDef;
use super::api::tfpb::attr_value::Value;
use super::builder::{Builder, Wire, cycle, function_attribute};
use super::frame::Frame;
use super::graph::{Content, Port};
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
            let is_taken = self.equals(node, number, position)?;
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
        Ok(Wire::Live(self.step(node, "SelectV2", vec![condition, yes, no])?))
    }

    /// The branches of an old condition come together: all were computed, one is chosen.
    pub(super) fn build_merge(
        &mut self,
        frame: &mut Frame<'a>,
        node: &'a NodeDef,
        inputs: &[Wire],
    ) -> Result<Wire, LoadError> {
        let sides = frame.sides(node).ok_or_else(|| cycle(node))?;
        let condition = self.need(frame, sides.condition)?;
        let Wire::Live(port) = condition else { return Ok(Wire::Dead) };
        let at = |side: usize| {
            let place = sides.of_input.iter().position(|s| *s == side);
            place.and_then(|place| inputs.get(place)).copied().ok_or_else(|| cycle(node))
        };
        if inputs.len() == 2 && !sides.by_number {
            return self.push_select(node, condition, at(1)?, at(0)?);
        }
        // The last branch is also for numbers out of range.
        let last = inputs.len().saturating_sub(1);
        let mut chosen = at(last)?;
        for side in 0..last {
            let is_taken = self.equals(node, port, side)?;
            chosen = self.push_select(node, Wire::Live(is_taken), at(side)?, chosen)?;
        }
        Ok(chosen)
    }

    /// Whether a number is this one.
    fn equals(&mut self, node: &NodeDef, number: Port, value: usize) -> Result<Port, LoadError> {
        let value =
            i32::try_from(value).map_err(|_| malformed(format!("`{}` has too many sides", node.name)))?;
        let value = self.push_constant(&node.name, tensor0(value))?;
        self.step(node, "Equal", vec![number, value])
    }

    /// The value of a number that does not depend on the input.
    pub(super) fn number(&self, wire: Wire) -> Option<i64> {
        let Wire::Live(port) = wire else { return None };
        match &self.graph.nodes.get(port.node)?.content {
            Content::Constant(value) => value.cast_to_scalar::<i64>().ok(),
            _ => None,
        }
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
