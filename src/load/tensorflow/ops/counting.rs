//! How many turns a loop takes, and what it goes through and collects by the number of the turn.

use std::collections::HashMap;

use super::super::api::{DatumType, OutletId, TDim, TVec, ToDim};
use super::super::graph::{Content, Graph, Loop, Node, Port};
use super::WiringError;
use super::lists::stacked;
use super::wiring::{Wiring, input, invalid};

/// How many turns a loop takes, or may take before it ends by what it computes.
pub(super) struct Turns {
    pub(super) count: TDim,
    pub(super) is_exact: bool,
}

/// How many turns a loop takes, where that is a matter of counting.
pub(super) struct Counting<'l> {
    pub(super) repeat: &'l Loop,
    pub(super) inputs: &'l [OutletId],
    pub(super) states: usize,
}

impl Counting<'_> {
    pub(super) fn turns(&self, w: &Wiring<'_>) -> Result<Option<Turns>, WiringError> {
        let condition = &self.repeat.condition;
        let mut open: Vec<Port> = condition.outputs.iter().map(|o| o.port).collect();
        let mut counts: Vec<TDim> = Vec::new();
        let mut is_exact = true;
        while let Some(port) = open.pop() {
            let Some(node) = condition.nodes.get(port.node) else { return Ok(None) };
            match (node.op.as_str(), node.inputs.as_slice()) {
                ("LogicalAnd", both) => open.extend(both),
                ("Less", [counter, limit]) | ("Greater", [limit, counter]) => {
                    let from = input_of(condition, *counter).and_then(|state| self.counter(w, state));
                    let Some(from) = from else { return Ok(None) };
                    match self.constant(w, condition, *limit)? {
                        Some(limit) => counts.push(limit - from),
                        // One that is the same in every turn only ends the loop sooner.
                        None if input_of(condition, *limit).is_some_and(|l| l >= self.states) => {
                            is_exact = false;
                        }
                        None => return Ok(None),
                    }
                }
                _ => return Ok(None),
            }
        }
        if !is_exact {
            // A list that the loop fills has room for so many turns.
            let lists = self.inputs.iter().take(self.states).filter_map(|i| w.lists.reserved.get(i).cloned());
            counts.extend(lists.flatten());
        }
        let known: Option<Vec<i64>> = counts.iter().map(TDim::as_i64).collect();
        let count = match (known, counts.first()) {
            (Some(known), _) => known.into_iter().min().map(|n| n.max(0).to_dim()),
            (None, Some(one)) if counts.iter().all(|c| c == one) => Some(one.clone()),
            _ => None,
        };
        Ok(count.map(|count| Turns { count, is_exact }))
    }

    /// What a state begins with that grows by one in each turn.
    pub(super) fn counter(&self, w: &Wiring<'_>, state: usize) -> Option<i64> {
        let body = &self.repeat.body;
        let next = body.nodes.get(body.outputs.get(state)?.port.node)?;
        let ("Add" | "AddV2", [a, b]) = (next.op.as_str(), next.inputs.as_slice()) else { return None };
        let is_one = |port: &Port| match &body.nodes.get(port.node)?.content {
            Content::Constant(one) if one.len() == 1 && one.datum_type().is_integer() => {
                (one.cast_to_scalar::<i64>().ok()? == 1).then_some(())
            }
            _ => None,
        };
        let is_state = |port: &Port| (input_of(body, *port) == Some(state)).then_some(());
        is_state(a).and_then(|()| is_one(b)).or_else(|| is_state(b).and_then(|()| is_one(a)))?;
        let from = w.konst(*self.inputs.get(state)?).ok()?;
        from.datum_type().is_integer().then(|| from.cast_to_scalar::<i64>().ok()).flatten()
    }

    /// True for a state that is the number of the turn.
    fn is_number(&self, w: &Wiring<'_>, graph: &Graph, port: Port) -> bool {
        input_of(graph, port).is_some_and(|s| s < self.states && self.counter(w, s) == Some(0))
    }

    /// The dimension that something in a graph of the loop is known to be.
    fn constant(&self, w: &Wiring<'_>, graph: &Graph, port: Port) -> Result<Option<TDim>, WiringError> {
        let value = match graph.nodes.get(port.node).map(|n| &n.content) {
            Some(Content::Constant(value)) => std::sync::Arc::clone(value),
            Some(Content::Input(position)) if *position >= self.states => {
                let outlet = self.inputs.get(*position).ok_or(WiringError::Unsupported)?;
                match &w.fact(*outlet)?.konst {
                    Some(value) => std::sync::Arc::clone(value),
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let is_count =
            value.len() == 1 && (value.datum_type().is_integer() || value.datum_type() == DatumType::TDim);
        if !is_count {
            return Ok(None);
        }
        let value = value.cast_to::<TDim>()?;
        Ok(value.try_as_plain_ram()?.as_slice::<TDim>()?.first().cloned())
    }

    /// Takes the lists that the loop fills out of its states: each then is what a turn puts in.
    pub(super) fn take_collected(
        &self,
        w: &Wiring<'_>,
        body: &mut Graph,
        count: &TDim,
    ) -> Result<HashMap<usize, Collected>, WiringError> {
        let mut found = HashMap::new();
        for position in 0..self.states {
            let outlet = input(self.inputs, position)?;
            let Some(size) = w.lists.reserved.get(&outlet) else {
                // The tensor that a list was made of is that list, but a state of its own all the same.
                let next = body.outputs.get(position).and_then(|output| body.nodes.get(output.port.node));
                let is_list = next.is_some_and(|n| n.op.starts_with("TensorList"));
                if is_list && w.lists.stacked.contains(&outlet) {
                    return Err(invalid("changes a list that holds something before the loop"));
                }
                continue;
            };
            let unknown = || invalid("fills a list in a way that is not supported");
            let output = body.outputs.get(position).ok_or_else(unknown)?.port;
            let set = body.nodes.get(output.node).ok_or_else(unknown)?;
            let (value, place) = match (set.op.as_str(), set.inputs.as_slice()) {
                ("TensorListSetItem", [_, place, value, ..]) => (*value, Some(*place)),
                ("TensorListPushBack", [_, value]) => (*value, None),
                _ => return Err(unknown()),
            };
            let readers = body.nodes.iter().flat_map(|n| &n.inputs);
            let readers = readers.filter(|p| input_of(body, **p) == Some(position)).count();
            if readers != 1 || set.inputs.first().and_then(|p| input_of(body, *p)) != Some(position) {
                return Err(unknown());
            }
            let kind = match place {
                None if size.is_none() => Collected::All,
                Some(place) if self.is_number(w, body, place) && size.as_ref() == Some(count) => {
                    Collected::All
                }
                Some(place)
                    if self.constant(w, body, place)?.and_then(|p| p.as_i64()) == Some(0)
                        && size.as_ref().and_then(TDim::as_i64) == Some(1) =>
                {
                    Collected::Last
                }
                _ => return Err(unknown()),
            };
            if let Some(output) = body.outputs.get_mut(position) {
                output.port = value;
            }
            found.insert(position, kind);
        }
        Ok(found)
    }

    /// Takes what the loop reads by the number of the turn: an input of the body for each.
    pub(super) fn take_scanned(
        &self,
        w: &mut Wiring<'_>,
        body: &mut Graph,
        count: &TDim,
    ) -> Result<TVec<OutletId>, WiringError> {
        let mut scanned: TVec<OutletId> = TVec::new();
        for index in 0..body.nodes.len() {
            let Some(Node { op, inputs, .. }) = body.nodes.get(index) else { continue };
            let ("TensorListGetItem", [list, place, ..]) = (op.as_str(), inputs.as_slice()) else { continue };
            let Some(list) = input_of(body, *list).filter(|l| *l >= self.states) else { continue };
            if !self.is_number(w, body, *place) {
                continue;
            }
            let list = stacked(w, input(self.inputs, list)?)?;
            let size = w.dim(list, 0)?;
            let fits = match (size.as_i64(), count.as_i64()) {
                (Some(size), Some(count)) => count <= size,
                _ => size == *count,
            };
            if !fits || w.datum(list)? == DatumType::String {
                continue;
            }
            let list = w.cut(list, 0, 0, count.clone())?;
            let at = scanned.iter().position(|s| *s == list).unwrap_or_else(|| {
                scanned.push(list);
                scanned.len() - 1
            });
            if let Some(node) = body.nodes.get_mut(index) {
                node.content = Content::Input(self.inputs.len() + at);
                node.inputs.clear();
            }
        }
        Ok(scanned)
    }
}

/// What becomes of a list that a loop fills.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Collected {
    /// An element a turn.
    All,
    /// One element, written again in each turn.
    Last,
}

/// The input of a loop's graph that something in it is.
pub(super) fn input_of(graph: &Graph, port: Port) -> Option<usize> {
    match graph.nodes.get(port.node)?.content {
        Content::Input(position) => Some(position),
        _ => None,
    }
}
