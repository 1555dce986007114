//! Loops.
//!
//! A loop that counts its turns becomes tract's `Scan`: an element read by the turn's number is what the scan goes through, a
//! list written by it what the scan collects. Any other loop is run by [`turns`](super::turns).

use std::collections::HashMap;

use super::super::api::{
    AxisOp, DatumType, EngineTensor, OutletId, TDim, TVec, ToDim, TypedFact, TypedModel, tensor0, tensor1,
    tract_core,
};
use super::super::graph::{Graph, Loop};
use super::super::prune::prune;
use super::counting::{Collected, Counting, Turns, input_of};
use super::wiring::{Wired, Wiring, first, input, invalid};
use super::{WiringError, gated, state, turns};
use tract_core::ops::scan::{InputMapping, OutputMapping, Scan, ScanInfo};

/// How often the states of a loop may turn out to be larger than what they begin with.
const MAX_GROWTH: usize = 3;

/// States a loop; gives its states after the last turn.
pub(super) fn wire(w: &mut Wiring<'_>, repeat: &Loop, inputs: &[OutletId]) -> Wired {
    let counting = Counting { states: repeat.states, inputs, repeat };
    let Some(Turns { count, is_exact }) = counting.turns(w)? else {
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
    if !is_exact {
        let kept: Vec<bool> = (0..repeat.states).map(|s| counting.counter(w, s).is_some()).collect();
        gated::gate(&mut body, &repeat.condition, &kept, |state| collected.contains_key(&state))?;
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
        inner.has_turns = true;
        inner.turns = w.turns / self.count.as_i64().unwrap_or(1).max(1);
        let (mut sources, mut given): (Vec<OutletId>, Vec<OutletId>) = (Vec::new(), Vec::new());
        let (mut mapping, mut inside) = (Vec::new(), Vec::new());
        for (position, outlet) in self.states.iter().enumerate() {
            if self.collected.contains_key(&position) || self.replaced.get(position) == Some(&true) {
                inside.push(inner.tensor(tensor0(false))?);
                continue;
            }
            let fact = TypedFact::dt_shape(w.datum(*outlet)?, &*w.dims(*outlet)?);
            let source = inner.source(format!("state.{position}"), fact)?;
            inside.push(source);
            sources.push(source);
            given.push(*outlet);
            mapping.push(InputMapping::State);
        }
        let mut slices = Vec::new();
        let through_nothing = self.scanned.is_empty();
        let mut scanned = self.scanned.clone();
        if through_nothing {
            scanned.push(self.nothing(w)?);
        }
        for (position, outlet) in scanned.iter().enumerate() {
            let mut dims = w.dims(*outlet)?;
            dims.first_mut().into_iter().for_each(|d| *d = 1.to_dim());
            let fact = TypedFact::dt_shape(w.datum(*outlet)?, &*dims);
            let source = inner.source(format!("slice.{position}"), fact)?;
            slices.push(inner.one(AxisOp::Rm(0), &[source])?);
            sources.push(source);
            given.push(*outlet);
            mapping.push(InputMapping::Scan(ScanInfo { axis: 0, chunk: 1 }));
        }
        for (position, outlet) in captures.iter().enumerate() {
            let (there, is_source) = captured(w, &mut inner, *outlet, position)?;
            if is_source {
                sources.push(there);
                given.push(*outlet);
                mapping.push(InputMapping::Full);
            }
            inside.push(there);
        }
        inside.extend(&slices);
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
        if let (true, Some(result)) = (through_nothing, results.first_mut()) {
            // The engine drops an input that nothing reads, and cannot count the turns without it.
            *result = inner.after(*result, &slices)?;
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

/// What a loop takes from outside, inside it; true where it is an input there, not a constant.
fn captured(
    w: &Wiring<'_>,
    inner: &mut Wiring<'_>,
    outlet: OutletId,
    position: usize,
) -> Result<(OutletId, bool), WiringError> {
    let fact = w.fact(outlet)?;
    let there = match &fact.konst {
        Some(value) => first(&inner.constant(std::sync::Arc::clone(value))?)?,
        None => {
            let fact = TypedFact::dt_shape(fact.datum_type, &*fact.shape.to_tvec());
            inner.source(format!("outside.{position}"), fact)?
        }
    };
    if w.lists.stacked.contains(&outlet) {
        inner.lists.stacked.insert(there);
    }
    Ok((there, fact.konst.is_none()))
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
