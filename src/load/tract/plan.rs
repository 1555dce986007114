//! One optimised network, ready to run on any thread.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use thread_local::ThreadLocal;

use super::api::{
    IntoRunnable, SymbolValues, TValue, TVec, TractResult, TypedModel, TypedSimplePlan, TypedSimpleState,
};
use super::convert::{engine_error, engine_text};
use crate::load::{LoadError, RunError};

/// A network in the form that runs, with one state for each thread that has run it.
///
/// The states are inside, not in the threads' own storage: they go when the plan goes, and never
/// keep an old model alive.
pub(in crate::load) struct Plan {
    plan: Arc<TypedSimplePlan>,
    states: ThreadLocal<RefCell<Option<TypedSimpleState>>>,
    const_bytes: usize,
}

impl Plan {
    /// Optimises a typed model. The caller has bounded the sizes that it declares.
    pub(in crate::load) fn new(model: TypedModel) -> Result<Self, LoadError> {
        guarded(|| {
            // Before the weights are packed into forms that tell nothing of their size.
            let const_bytes = constant_bytes(&model);
            let optimised = model.into_decluttered()?.into_optimized()?;
            Ok(Self { plan: optimised.into_runnable()?, states: ThreadLocal::new(), const_bytes })
        })
    }

    /// Runs once. After an error or a panic of the engine this thread gets a fresh state, because
    /// one that has seen a bad input stays poisoned.
    pub(in crate::load) fn run(&self, inputs: TVec<TValue>) -> Result<TVec<TValue>, RunError> {
        let cell = self.states.get_or_default();
        // A state that is in use further up this thread's stack stays there; this call makes its own.
        let mut kept = cell.try_borrow_mut().ok().and_then(|mut slot| slot.take());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut state = match kept.take() {
                Some(state) => state,
                None => self.plan.spawn()?,
            };
            let outputs = state.run(inputs)?;
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
            Err(panic) => {
                Err(RunError::Engine(format!("the engine panicked: {}", panic_text(&*panic)).into()))
            }
        }
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

/// The message of a panic.
pub(in crate::load) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
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
        made.get_mut(id).into_iter().for_each(|m| *m = outputs);
        held = held.saturating_add(outputs);
        peak = peak.max(held);
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
