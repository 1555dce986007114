//! Loops.
//!
//! A loop that counts its turns becomes tract's `Scan`: an element read by the turn's number is what the scan goes through, a
//! list written by it what the scan collects. Any other loop is run by [`turns`](super::turns).

use std::collections::HashMap;

use super::super::api::{
    AxisOp, DatumType, EngineTensor, OutletId, TDim, TVec, ToDim, TypedFact, TypedModel, tensor0, tensor1,
    tract_core,
};
use super::super::graph::{Content, Graph, Loop, Node, Port};
use super::super::prune::prune;
use super::lists::stacked;
use super::wiring::{Wired, Wiring, first, input, invalid};
use super::{WiringError, state, turns};
use tract_core::ops::scan::{InputMapping, OutputMapping, Scan, ScanInfo};

/// How often the states of a loop may turn out to be larger than what they begin with.
const MAX_GROWTH: usize = 3;

/// States a loop; gives its states after the last turn.
pub(super) fn wire(w: &mut Wiring<'_>, repeat: &Loop, inputs: &[OutletId]) -> Wired {
    let counting = Counting { states: repeat.states, inputs, repeat };
    let Some(count) = counting.turns(w)? else {
        return turns::wire(w, repeat, inputs);
    };
    if count.as_i64() == Some(0) {
        return Ok(inputs.iter().take(repeat.states).copied().collect());
    }
    if let Some(count) = count.as_i64().filter(|count| *count > w.turns) {
        return Err(invalid(format!("takes {count} turns where {} are left", w.turns)));
    }
    let mut body = repeat.body.clone();
    let collected = counting.take_collected(w, &mut body, &count)?;
    let scanned = counting.take_scanned(w, &mut body, &count)?;
    if scanned.is_empty() && collected.is_empty() {
        // There is nothing to go through.
        return turns::wire(w, repeat, inputs);
    }
    prune(&mut body);
    let replaced = replaced(&body, repeat.states);
    let mut scan = Scanning { count, body, collected, replaced, scanned, states: TVec::new() };
    let (initial, captures) = inputs.split_at_checked(repeat.states).unwrap_or((inputs, &[]));
    for (position, outlet) in initial.iter().enumerate() {
        let is_list = scan.collected.contains_key(&position);
        scan.states.push(if is_list { *outlet } else { w.plain(*outlet)? });
    }
    for _ in 0..MAX_GROWTH {
        if let Some(results) = scan.attempt(w, captures)? {
            return Ok(results);
        }
    }
    Err(invalid("a state of the loop has another shape after each turn"))
}

/// How many turns a loop takes, where that is a matter of counting.
struct Counting<'l> {
    repeat: &'l Loop,
    inputs: &'l [OutletId],
    states: usize,
}

impl Counting<'_> {
    fn turns(&self, w: &Wiring<'_>) -> Result<Option<TDim>, WiringError> {
        let condition = &self.repeat.condition;
        let mut open: Vec<Port> = condition.outputs.iter().map(|o| o.port).collect();
        let mut counts: Vec<TDim> = Vec::new();
        while let Some(port) = open.pop() {
            let Some(node) = condition.nodes.get(port.node) else { return Ok(None) };
            match (node.op.as_str(), node.inputs.as_slice()) {
                ("LogicalAnd", both) => open.extend(both),
                ("Less", [counter, limit]) | ("Greater", [limit, counter]) => {
                    let from = input_of(condition, *counter).and_then(|state| self.counter(w, state));
                    let (Some(from), Some(limit)) = (from, self.constant(w, condition, *limit)?) else {
                        return Ok(None);
                    };
                    counts.push(limit - from);
                }
                _ => return Ok(None),
            }
        }
        let known: Option<Vec<i64>> = counts.iter().map(TDim::as_i64).collect();
        Ok(match (known, counts.first()) {
            (Some(known), _) => known.into_iter().min().map(|n| n.max(0).to_dim()),
            (None, Some(one)) if counts.iter().all(|c| c == one) => Some(one.clone()),
            _ => None,
        })
    }

    /// What a state begins with that grows by one in each turn.
    fn counter(&self, w: &Wiring<'_>, state: usize) -> Option<i64> {
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
    fn take_collected(
        &self,
        w: &Wiring<'_>,
        body: &mut Graph,
        count: &TDim,
    ) -> Result<HashMap<usize, Collected>, WiringError> {
        let mut found = HashMap::new();
        for position in 0..self.states {
            let outlet = input(self.inputs, position)?;
            let Some(size) = w.lists.reserved.get(&outlet) else {
                if w.lists.stacked.contains(&outlet) {
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
    fn take_scanned(
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
enum Collected {
    /// An element a turn.
    All,
    /// One element, written again in each turn.
    Last,
}

/// A loop that counts its turns.
struct Scanning {
    count: TDim,
    body: Graph,
    collected: HashMap<usize, Collected>,
    /// States that a turn makes anew, whatever they were.
    replaced: Vec<bool>,
    scanned: TVec<OutletId>,
    /// What the states begin with.
    states: TVec<OutletId>,
}

impl Scanning {
    /// States the loop. `None` where a state was smaller than what a turn made of it: it then is as
    /// large.
    fn attempt(
        &mut self,
        w: &mut Wiring<'_>,
        captures: &[OutletId],
    ) -> Result<Option<TVec<OutletId>>, WiringError> {
        let mut model = TypedModel { symbols: w.model.symbols.clone(), ..TypedModel::default() };
        let mut inner = Wiring::new(&mut model, w.budget());
        inner.turns = w.turns / self.count.as_i64().unwrap_or(1).max(1);
        let (mut sources, mut given): (Vec<OutletId>, Vec<OutletId>) = (Vec::new(), Vec::new());
        let (mut mapping, mut inside) = (Vec::new(), Vec::new());
        for (position, outlet) in self.states.iter().enumerate() {
            if self.collected.contains_key(&position) || self.replaced.get(position) == Some(&true) {
                inside.push(inner.tensor(tensor0(false))?);
                continue;
            }
            let fact = TypedFact::dt_shape(w.datum(*outlet)?, &*w.dims(*outlet)?);
            let source = inner.model.add_source(format!("state.{position}"), fact)?;
            inside.push(source);
            sources.push(source);
            given.push(*outlet);
            mapping.push(InputMapping::State);
        }
        let mut slices = Vec::new();
        if self.scanned.is_empty() {
            let nothing = self.nothing(w)?;
            self.scanned.push(nothing);
        }
        for (position, outlet) in self.scanned.iter().enumerate() {
            let mut dims = w.dims(*outlet)?;
            dims.first_mut().into_iter().for_each(|d| *d = 1.to_dim());
            let fact = TypedFact::dt_shape(w.datum(*outlet)?, &*dims);
            let source = inner.model.add_source(format!("slice.{position}"), fact)?;
            slices.push(inner.one(AxisOp::Rm(0), &[source])?);
            sources.push(source);
            given.push(*outlet);
            mapping.push(InputMapping::Scan(ScanInfo { axis: 0, chunk: 1 }));
        }
        for (position, outlet) in captures.iter().enumerate() {
            let fact = w.fact(*outlet)?;
            let there = if let Some(value) = &fact.konst {
                first(&inner.constant(std::sync::Arc::clone(value))?)?
            } else {
                let fact = TypedFact::dt_shape(fact.datum_type, &*fact.shape.to_tvec());
                let source = inner.model.add_source(format!("outside.{position}"), fact)?;
                sources.push(source);
                given.push(*outlet);
                mapping.push(InputMapping::Full);
                source
            };
            if w.lists.stacked.contains(outlet) {
                inner.lists.stacked.insert(there);
            }
            inside.push(there);
        }
        inside.extend(slices);
        let next = state(&mut inner, &self.body, &inside)?;
        let (mut results, mut outputs, mut grown) = (Vec::new(), Vec::new(), false);
        for (position, (outlet, begin)) in next.iter().zip(&mut self.states).enumerate() {
            let nothing =
                OutputMapping { scan: None, full_dim_hint: None, last_value_slot: None, state: false };
            let slot = Some(position);
            match self.collected.get(&position) {
                None if self.replaced.get(position) == Some(&true) => {
                    results.push(inner.plain(*outlet)?);
                    outputs.push(OutputMapping { last_value_slot: slot, ..nothing });
                }
                None => {
                    let outlet = inner.plain(*outlet)?;
                    let outlet = inner.cast(outlet, w.datum(*begin)?)?;
                    let (after, before) = (inner.dims(outlet)?, w.dims(*begin)?);
                    if after != before {
                        *begin = w.broadcast_to(*begin, &after)?;
                        grown = true;
                    }
                    results.push(outlet);
                    outputs.push(OutputMapping { state: true, last_value_slot: slot, ..nothing });
                }
                Some(kind) => {
                    let value = inner.plain(*outlet)?;
                    if inner.datum(value)? == DatumType::String {
                        return Err(WiringError::Unsupported);
                    }
                    results.push(inner.one(AxisOp::Add(0), &[value])?);
                    let scan = Some((position, ScanInfo { axis: 0, chunk: 1 }));
                    outputs.push(match kind {
                        Collected::All => OutputMapping { scan, ..nothing },
                        Collected::Last => OutputMapping { last_value_slot: slot, ..nothing },
                    });
                }
            }
        }
        if grown {
            return Ok(None);
        }
        model.set_input_outlets(&sources)?;
        model.select_output_outlets(&results)?;
        let mut scan = Scan::new(model, mapping, outputs, 0)?;
        // Each call of the model begins anew.
        scan.reset_every_turn = true;
        let results = w.all(scan, &given)?;
        for position in self.collected.keys() {
            let list = input(&results, *position)?;
            w.lists.stacked.insert(list);
        }
        Ok(Some(results))
    }

    /// Something to go through for a loop that goes through nothing.
    fn nothing(&self, w: &mut Wiring<'_>) -> Result<OutletId, WiringError> {
        let zero = w.tensor(tensor1(&[0_u8]))?;
        match self.count.as_i64() {
            Some(count) => {
                let count = usize::try_from(count).map_err(|_| invalid("counts backwards"))?;
                w.tensor(EngineTensor::zero::<u8>(&[count])?)
            }
            None => w.broadcast_to(zero, std::slice::from_ref(&self.count)),
        }
    }
}

/// Which of the states nothing in the body reads.
fn replaced(body: &Graph, states: usize) -> Vec<bool> {
    let mut replaced = vec![true; states];
    let read = body.nodes.iter().flat_map(|n| n.inputs.iter().copied());
    for port in read.chain(body.outputs.iter().map(|o| o.port)) {
        if let Some(state) = input_of(body, port).and_then(|p| replaced.get_mut(p)) {
            *state = false;
        }
    }
    replaced
}

/// The input of a loop's graph that something in it is.
fn input_of(graph: &Graph, port: Port) -> Option<usize> {
    match graph.nodes.get(port.node)?.content {
        Content::Input(position) => Some(position),
        _ => None,
    }
}
