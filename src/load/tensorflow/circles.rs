//! The loops of TensorFlow 1, and of every graph that is frozen: nodes that run in circles.
//!
//! A value goes in through `Enter` and `Merge`, is let into a turn or out of the loop by `Switch`
//! and `Exit`, and comes round through `NextIteration`. The nodes of one loop name its frame.

use std::collections::HashMap;

use super::api::tfpb::NodeDef;
use super::api::tfpb::attr_value::Value;
use super::builder::{Builder, Wire, cycle};
use super::frame::Frame;
use super::graph::Port;
use super::loops::never_ends;
use crate::load::LoadError;

/// The most states of a loop, and the most values that come into it beside them: what is done for
/// each grows with their number.
const MAX_STATES: usize = 1 << 10;
const MAX_CONSTANTS: usize = 1 << 12;

/// The loops of a graph by the names of their frames, and the frame of each `Exit`.
#[derive(Default)]
pub(super) struct LoopFrames<'a> {
    frames: HashMap<&'a str, LoopFrame<'a>>,
    /// Frame and position of the state that comes out.
    exits: HashMap<&'a str, (&'a str, usize)>,
}

#[derive(Default)]
struct LoopFrame<'a> {
    states: Vec<State<'a>>,
    /// What is the same in every turn.
    constants: Vec<&'a NodeDef>,
    condition: Option<&'a str>,
}

struct State<'a> {
    enter: &'a NodeDef,
    merge: &'a NodeDef,
    next: &'a NodeDef,
    switch: Option<&'a NodeDef>,
}

impl<'a> LoopFrames<'a> {
    pub(super) fn find(nodes: &HashMap<&'a str, &'a NodeDef>) -> Self {
        let mut found = Self::default();
        let source = |reference: &'a String| nodes.get(base(reference)).copied();
        let mut order: Vec<&'a NodeDef> = nodes.values().copied().collect();
        order.sort_by_key(|n| n.name.as_str());
        let mut merges: HashMap<&'a str, (&'a str, usize)> = HashMap::new();
        for merge in order.iter().copied().filter(|n| matches!(n.op.as_str(), "Merge" | "RefMerge")) {
            let inputs: Vec<&'a NodeDef> = merge.input.iter().filter_map(source).collect();
            let by_op = |op: &str| inputs.iter().copied().find(|n| n.op.trim_start_matches("Ref") == op);
            let (Some(enter), Some(next)) = (by_op("Enter"), by_op("NextIteration")) else { continue };
            let Some(name) = frame_name(enter) else { continue };
            let frame = found.frames.entry(name).or_default();
            if frame.states.len() >= MAX_STATES {
                continue;
            }
            merges.insert(&merge.name, (name, frame.states.len()));
            frame.states.push(State { enter, merge, next, switch: None });
        }
        let mut switches: HashMap<&'a str, (&'a str, usize)> = HashMap::new();
        for switch in order.iter().copied().filter(|n| matches!(n.op.as_str(), "Switch" | "RefSwitch")) {
            let Some((name, position)) = switch.input.first().and_then(|i| merges.get(base(i))) else {
                continue;
            };
            let Some(condition) = switch.input.get(1).and_then(source) else { continue };
            if condition.op != "LoopCond" {
                continue;
            }
            if let Some(frame) = found.frames.get_mut(name) {
                frame.condition = condition.input.first().map(String::as_str);
                frame.states.get_mut(*position).into_iter().for_each(|s| s.switch = Some(switch));
                switches.insert(&switch.name, (name, *position));
            }
        }
        for node in order {
            match node.op.as_str() {
                "Exit" | "RefExit" => {
                    if let Some(place) = node.input.first().and_then(|i| switches.get(base(i))) {
                        found.exits.insert(&node.name, *place);
                    }
                }
                "Enter" | "RefEnter" => {
                    if let Some(frame) = frame_name(node).and_then(|name| found.frames.get_mut(name))
                        && frame.constants.len() < MAX_CONSTANTS
                        && !frame.states.iter().any(|s| std::ptr::eq(s.enter, node))
                    {
                        frame.constants.push(node);
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// What an `Exit` needs from outside the loop, in place of its own input; nothing once the loop
    /// is built.
    pub(super) fn need(
        &self,
        built: &HashMap<&'a str, Vec<Wire>>,
        exit: &NodeDef,
        at: usize,
    ) -> Option<&'a str> {
        let (name, _) = self.exits.get(exit.name.as_str())?;
        let frame = self.frames.get(name).filter(|_| !built.contains_key(name))?;
        let enters = frame.states.iter().map(|s| s.enter).chain(frame.constants.iter().copied());
        enters.filter_map(|enter| enter.input.first()).map(String::as_str).nth(at)
    }
}

impl<'a> Builder<'a> {
    /// What comes out of a loop at this `Exit`. The loop is built at its first one.
    pub(super) fn build_exit(&mut self, frame: &mut Frame<'a>, exit: &'a NodeDef) -> Result<Wire, LoadError> {
        let frames = std::rc::Rc::clone(frame.loop_frames());
        let (name, position) = *frames.exits.get(exit.name.as_str()).ok_or_else(|| cycle(exit))?;
        if !frame.loops.contains_key(name) {
            let found = frames.frames.get(name).ok_or_else(|| cycle(exit))?;
            let results = self.build_frame(frame, exit, found)?;
            frame.loops.insert(name, results);
        }
        let results = frame.loops.get(name);
        results.and_then(|r| r.get(position).copied()).ok_or_else(|| cycle(exit))
    }

    fn build_frame(
        &mut self,
        frame: &mut Frame<'a>,
        exit: &'a NodeDef,
        found: &LoopFrame<'a>,
    ) -> Result<Vec<Wire>, LoadError> {
        let condition = found.condition.ok_or_else(|| cycle(exit))?;
        let mut inner = frame.inside(exit)?;
        for enter in &found.constants {
            let wire = self.entered(frame, enter)?;
            inner.give(&enter.name, 0, wire);
        }
        let mut initial: Vec<Port> = Vec::new();
        for state in &found.states {
            match self.entered(frame, state.enter)? {
                Wire::Live(port) => initial.push(port),
                Wire::Dead => return Ok(vec![Wire::Dead; found.states.len()]),
            }
        }
        let opened = self.open_loop(exit, &initial, |_| false)?;
        for (state, port) in found.states.iter().zip(&opened.inside) {
            inner.give(&state.merge.name, 0, Wire::Live(*port));
            if let Some(switch) = state.switch {
                inner.give(&switch.name, 1, Wire::Live(*port));
            }
        }
        let condition = self.need_live(&mut inner, condition)?;
        let mut next = Vec::with_capacity(found.states.len());
        for state in &found.states {
            let came = state.next.input.first().ok_or_else(|| never_ends(exit))?;
            next.push(self.need_live(&mut inner, came)?);
        }
        self.close_loop(exit, opened, condition, &next)
    }

    fn entered(&mut self, frame: &mut Frame<'a>, enter: &'a NodeDef) -> Result<Wire, LoadError> {
        let from = enter.input.first().ok_or_else(|| cycle(enter))?;
        self.need(frame, from)
    }
}

fn frame_name(enter: &NodeDef) -> Option<&str> {
    match enter.attr.get("frame_name")?.value.as_ref()? {
        Value::S(name) => std::str::from_utf8(name).ok(),
        _ => None,
    }
}

fn base(reference: &str) -> &str {
    reference.split(':').next().unwrap_or(reference)
}
