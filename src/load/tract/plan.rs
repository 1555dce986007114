//! One optimised network, ready to run on any thread.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use thread_local::ThreadLocal;

use super::api::Cost;
use super::api::tract_core::ops::scan::Scan;
use super::api::{
    DatumType, IntoRunnable, SymbolValues, TValue, TVec, TractResult, TypedModel, TypedSimplePlan,
    TypedSimpleState, tract_core,
};
use super::convert::{engine_error, engine_text};
use super::meter::{Meter, Reads};
use super::windows;
use crate::kernel::Apart;
use crate::load::{LoadError, RunError, panic_text};

/// A network in the form that runs, with one state for each thread that has run it.
///
/// The states are inside, not in the threads' own storage: they go when the plan goes, and never
/// keep an old model alive.
pub(in crate::load) struct Plan {
    plan: Arc<TypedSimplePlan>,
    states: ThreadLocal<Apart<RefCell<Option<TypedSimpleState>>>>,
    const_bytes: usize,
    reads: Reads,
    /// True where the shapes of the inputs tell those of all tensors of a run.
    told: bool,
}

/// How closely a run is watched. The caller has compared the budget with [`Plan::peak_bytes`], which
/// is all there is to do where shapes tell sizes.
#[derive(Clone, Copy, Debug)]
pub(in crate::load) enum Watch {
    Usual {
        budget: u64,
    },
    /// The first run, which also has to end in time.
    Trial {
        budget: u64,
    },
}

impl Plan {
    /// Optimises a typed model. The caller has bounded the sizes that it declares.
    pub(in crate::load) fn new(model: TypedModel) -> Result<Self, LoadError> {
        windows::check(&model)?;
        guarded(|| {
            // Before the weights are packed into forms that tell nothing of their size.
            let const_bytes = constant_bytes(&model);
            let optimised = model.into_decluttered()?.into_optimized()?;
            let (reads, told) = (Reads::new(&optimised), is_told(&optimised));
            let plan = optimised.into_runnable()?;
            Ok(Self { plan, states: ThreadLocal::new(), const_bytes, reads, told })
        })
    }

    /// Runs once. After an error or a panic of the engine this thread gets a fresh state, because
    /// one that has seen a bad input stays poisoned.
    pub(in crate::load) fn run(&self, inputs: TVec<TValue>, watch: Watch) -> Result<TVec<TValue>, RunError> {
        let Apart(cell) = self.states.get_or_default();
        // A state that is in use further up this thread's stack stays there; this call makes its own.
        let mut kept = cell.try_borrow_mut().ok().and_then(|mut slot| slot.take());
        let current = Cell::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut state = match kept.take() {
                Some(state) => state,
                None => self.plan.spawn()?,
            };
            let mut meter = match watch {
                Watch::Usual { .. } if self.told => None,
                Watch::Usual { budget } => Some(Meter::new(&self.reads, budget)),
                Watch::Trial { budget } => Some(Meter::of_trial(&self.reads, budget)),
            };
            let outputs = state.run_plan_with_eval(inputs, |cx, state, node, inputs| {
                current.set(node.id);
                match &mut meter {
                    None => tract_core::plan::eval(cx, state, node, inputs),
                    Some(meter) => meter.eval(cx, state, node, inputs),
                }
            })?;
            Ok::<_, super::api::TractError>((outputs, state))
        }));
        match outcome {
            Ok(Ok((outputs, state))) => {
                if let Ok(mut slot) = cell.try_borrow_mut() {
                    *slot = Some(state);
                }
                Ok(outputs)
            }
            Ok(Err(error)) => Err(engine_error(&error)),
            Err(panic) => Err(RunError::Engine(self.refusal(current.get(), &panic_text(&*panic)).into())),
        }
    }

    /// What is said of a node that could not work on what it was given: tract panics on many a value
    /// that fits the shapes, an index out of range or a divisor of zero.
    fn refusal(&self, node: usize, why: &str) -> String {
        let model = self.plan.model();
        let Some(node) = model.nodes().get(node) else { return format!("the engine failed: {why}") };
        let facts = node.inputs.iter().filter_map(|input| model.outlet_fact(*input).ok());
        let given: Vec<_> = facts.map(|f| format!("{:?} [{:?}]", f.datum_type, f.shape)).collect();
        format!(
            "{} (node `{}`) cannot work on its inputs, {}: {why}",
            node.op.name(),
            node.name,
            given.join(" and ")
        )
    }

    /// The bytes of the constants that the plan holds.
    pub(in crate::load) const fn const_bytes(&self) -> usize {
        self.const_bytes
    }

    /// The most bytes that a run holds at once, with these symbol values.
    pub(in crate::load) fn peak_bytes(&self, symbols: &SymbolValues) -> u64 {
        peak_bytes(self.plan.model(), symbols)
    }
}

/// Runs a part of tract that may fail or panic.
pub(in crate::load) fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, LoadError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(LoadError::Engine(engine_text(&error))),
        Err(panic) => Err(LoadError::Panicked(panic_text(&*panic))),
    }
}

/// True where no size has a symbol that is not one of the inputs'.
fn is_told(model: &TypedModel) -> bool {
    let symbols = |fact: &super::api::TypedFact| {
        let dims: Vec<_> = fact.shape.iter().flat_map(|dim| dim.symbols()).collect();
        dims
    };
    // The length of texts is in no shape.
    let texts =
        model.nodes().iter().flat_map(|node| &node.outputs).any(|o| o.fact.datum_type == DatumType::String);
    let given = model.inputs.iter().filter_map(|id| model.outlet_fact(*id).ok());
    let given: HashSet<_> = given.flat_map(symbols).collect();
    let mut all = model.nodes().iter().flat_map(|node| &node.outputs).flat_map(|o| symbols(&o.fact));
    !texts && all.all(|symbol| given.contains(&symbol))
}

/// How many multiplications a run takes, as far as the shapes tell.
pub(in crate::load) fn work(model: &TypedModel) -> u64 {
    let of_node = |node: &super::api::TypedNode| {
        let facts = model.node_input_facts(node.id).ok()?;
        let costs = node.op.cost(&facts).ok()?;
        let steps = costs.iter().filter(|(cost, _)| matches!(cost, Cost::FMA(_)));
        Some(steps.filter_map(|(_, n)| u64::try_from(n.to_i64().ok()?).ok()).fold(0, u64::saturating_add))
    };
    model.nodes().iter().filter_map(of_node).fold(0, u64::saturating_add)
}

/// The most bytes that a run holds at once: at each step, the outputs of this operator and those
/// before it that are yet to be read. A size that is not known before the run counts as nothing.
pub(in crate::load) fn peak_bytes(model: &TypedModel, symbols: &SymbolValues) -> u64 {
    let bytes = |fact: &super::api::TypedFact| {
        let each = fact.datum_type.size_of() as u64;
        let size = fact.shape.iter().try_fold(each, |bytes, dim| {
            let size = u64::try_from(dim.eval_to_i64(symbols).ok()?).ok()?;
            Some(bytes.saturating_mul(size))
        });
        size.unwrap_or(0)
    };
    let Ok(order) = model.eval_order() else { return u64::MAX };
    let nodes = model.nodes();
    let mut last_read = vec![0; nodes.len()];
    for (at, node) in order.iter().filter_map(|id| nodes.get(*id)).enumerate() {
        for input in &node.inputs {
            last_read.get_mut(input.node).into_iter().for_each(|last| *last = at);
        }
    }
    for output in &model.outputs {
        last_read.get_mut(output.node).into_iter().for_each(|last| *last = usize::MAX);
    }
    let (mut held, mut peak) = (0_u64, 0_u64);
    let mut made = vec![0_u64; nodes.len()];
    for (at, id) in order.iter().copied().enumerate() {
        let Some(node) = nodes.get(id) else { continue };
        let outputs = node.outputs.iter().fold(0_u64, |sum, o| sum.saturating_add(bytes(&o.fact)));
        // What a loop holds is there beside what is around it.
        let body = node.op_as::<Scan>().map_or(0, |scan| peak_bytes(&scan.body, symbols));
        made.get_mut(id).into_iter().for_each(|m| *m = outputs);
        held = held.saturating_add(outputs);
        peak = peak.max(held.saturating_add(body));
        for input in node.inputs.iter().map(|i| i.node).chain([id]) {
            if last_read.get(input).is_some_and(|last| *last <= at) {
                // What is read twice by one operator is let go of once.
                held = held.saturating_sub(made.get_mut(input).map_or(0, std::mem::take));
            }
        }
    }
    peak
}

fn constant_bytes(model: &TypedModel) -> usize {
    let konst =
        |fact: &super::api::TypedFact| fact.konst.as_ref().map_or(0, |k| k.len() * k.datum_type().size_of());
    model.nodes().iter().flat_map(|n| &n.outputs).map(|o| konst(&o.fact)).sum()
}
