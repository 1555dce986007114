//! What a run of a network holds in memory, told before each operator from the shapes that it is
//! given. A plan says it of all operators at once where its shapes are known before the run; this is
//! for those whose shapes only the run tells, and for the first run of any.

use std::time::Duration;

use super::api::tract_core::ops::array::{DynTile, Range};
use super::api::{
    DatumType, EvalContext, OpState, SymbolValues, TValue, TVec, TractResult, TypedFact, TypedModel,
    TypedNode, bail, tract_core,
};
use crate::kernel::RUN_LIMIT;
use crate::kernel::deadline::Deadline;
use crate::load::RunError;

/// The longest that the first run of a network may compute.
const TIME_LIMIT: Duration = Duration::from_secs(8);

/// Which outputs of which node are read how often.
#[derive(Debug)]
pub(super) struct Reads(Vec<u32>);

impl Reads {
    pub(super) fn new(model: &TypedModel) -> Self {
        let mut reads = vec![0_u32; model.nodes().len()];
        let inputs = model.nodes().iter().flat_map(|node| &node.inputs).map(|input| input.node);
        for node in inputs.chain(model.outputs.iter().map(|output| output.node)) {
            reads.get_mut(node).into_iter().for_each(|n| *n = n.saturating_add(1));
        }
        Self(reads)
    }
}

/// Watches one run.
pub(super) struct Meter {
    reads: Vec<u32>,
    /// What each node has made that is still to be read.
    made: Vec<u64>,
    held: u64,
    budget: u64,
    deadline: Deadline,
}

impl Meter {
    /// For a run whose length values may tell, because they tell its shapes.
    pub(super) fn new(reads: &Reads, budget: u64) -> Self {
        Self::until(Deadline::after(RUN_LIMIT), reads, budget)
    }

    /// For the first run.
    pub(super) fn of_trial(reads: &Reads, budget: u64) -> Self {
        Self::until(Deadline::after(TIME_LIMIT), reads, budget)
    }

    fn until(deadline: Deadline, reads: &Reads, budget: u64) -> Self {
        Self { reads: reads.0.clone(), made: vec![0; reads.0.len()], held: 0, budget, deadline }
    }

    /// Runs an operator as tract does, where there is room and time.
    pub(super) fn eval(
        &mut self,
        context: &EvalContext<'_>,
        state: Option<&mut (dyn OpState + 'static)>,
        node: &TypedNode,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        if self.deadline.has_passed() {
            bail!(RunError::TooSlow { limit: self.deadline.limit() });
        }
        let needed = needed(context.symbols, node, &inputs).unwrap_or(0);
        self.room(needed.saturating_add(text(node, &inputs, needed)))?;
        let outputs = tract_core::plan::eval(context, state, node, inputs)?;
        let made = outputs.iter().map(|output| bytes(output)).fold(0, u64::saturating_add);
        self.room(made)?;
        self.held = self.held.saturating_add(made);
        if let Some(slot) = self.made.get_mut(node.id) {
            *slot = made;
        }
        for input in &node.inputs {
            if let (Some(reads), Some(made)) = (self.reads.get_mut(input.node), self.made.get_mut(input.node))
            {
                *reads = reads.saturating_sub(1);
                if *reads == 0 {
                    self.held = self.held.saturating_sub(std::mem::take(made));
                }
            }
        }
        Ok(outputs)
    }

    fn room(&self, needed: u64) -> TractResult<()> {
        let needed = self.held.saturating_add(needed);
        if needed > self.budget {
            bail!(RunError::OverBudget { needed });
        }
        Ok(())
    }
}

fn bytes(value: &TValue) -> u64 {
    let texts = value.as_plain_ram().and_then(|plain| plain.as_slice::<String>().ok());
    let text = texts.map_or(0, |texts| texts.iter().map(|text| text.len() as u64).sum());
    (value.len() as u64).saturating_mul(value.datum_type().size_of() as u64).saturating_add(text)
}

/// The bytes that an operator is about to make; `None` where that cannot be told. Of tract's
/// operators only two make more than they are given without their shapes saying so.
fn needed(symbols: &SymbolValues, node: &TypedNode, inputs: &[TValue]) -> Option<u64> {
    if node.op_as::<Range>().is_some() {
        let [start, end, step] = inputs else { return None };
        let number = |value: &TValue| number(symbols, value);
        let count = ((number(end)? - number(start)?) / number(step)?).abs().ceil();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; NaN is 0")]
        return Some((count as u64).saturating_mul(start.datum_type().size_of() as u64));
    }
    if node.op_as::<DynTile>().is_some() {
        let times = inputs.get(1)?.cast_to::<super::api::TDim>().ok()?;
        let times = times.as_plain_ram()?.as_slice::<super::api::TDim>().ok()?;
        return times.iter().try_fold(bytes(inputs.first()?), |bytes, times| {
            Some(bytes.saturating_mul(u64::try_from(times.eval_to_i64(symbols).ok()?).unwrap_or(0)))
        });
    }
    let stated = |fact: &TypedFact| {
        fact.shape.iter().try_fold(fact.datum_type.size_of() as u64, |bytes, dim| {
            Some(bytes.saturating_mul(u64::try_from(dim.eval_to_i64(symbols).ok()?).ok()?))
        })
    };
    let all: Option<u64> = node.outputs.iter().map(|output| stated(&output.fact)).sum();
    all.or_else(|| {
        // The file's shapes don't tell; those of what is there do.
        let facts: TVec<TypedFact> =
            inputs.iter().map(|i| TypedFact::dt_shape(i.datum_type(), i.shape())).collect();
        let facts = node.op.output_facts(&facts.iter().collect::<TVec<_>>()).ok()?;
        facts.iter().map(stated).sum()
    })
}

/// The most bytes of text that an operator can make beside the `shallow` ones of its shapes, where
/// each text that it makes is one that it is given, or one of each input in a row.
fn text(node: &TypedNode, inputs: &[TValue], shallow: u64) -> u64 {
    if !node.outputs.iter().any(|output| output.fact.datum_type == DatumType::String) {
        return 0;
    }
    let longest = |value: &TValue| {
        let texts = value.as_plain_ram()?.as_slice::<String>().ok()?;
        texts.iter().map(|text| text.len() as u64).max()
    };
    let longest = inputs.iter().filter_map(longest).fold(0, u64::saturating_add);
    (shallow / size_of::<String>() as u64).saturating_mul(longest)
}

fn number(symbols: &SymbolValues, value: &TValue) -> Option<f64> {
    if value.datum_type() == DatumType::TDim {
        let plain = value.as_plain_ram()?;
        let dim = plain.to_scalar::<super::api::TDim>().ok()?;
        #[expect(clippy::cast_precision_loss, reason = "a bound is wanted, not the number")]
        return Some(dim.eval_to_i64(symbols).ok()? as f64);
    }
    value.cast_to_scalar::<f64>().ok()
}
