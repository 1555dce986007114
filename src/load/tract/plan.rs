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
            let optimised = model.into_decluttered()?.into_optimized()?;
            let const_bytes = constant_bytes(&optimised);
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

    /// The most bytes that one operator of the plan takes for its inputs and outputs, with these
    /// symbol values; `None` where a size is not known before the run.
    pub(in crate::load) fn widest_step(&self, symbols: &SymbolValues) -> Option<u64> {
        widest_step(self.plan.model(), symbols)
    }

    /// The model that is run.
    pub(in crate::load) fn model(&self) -> &TypedModel {
        self.plan.model()
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

/// The most bytes that one operator takes for its inputs and outputs together.
pub(in crate::load) fn widest_step(model: &TypedModel, symbols: &SymbolValues) -> Option<u64> {
    let bytes = |fact: &super::api::TypedFact| {
        let each = fact.datum_type.size_of() as u64;
        fact.shape.iter().try_fold(each, |bytes, dim| {
            let size = u64::try_from(dim.eval_to_i64(symbols).ok()?).ok()?;
            Some(bytes.saturating_mul(size))
        })
    };
    let mut widest = 0_u64;
    for node in model.nodes() {
        let inputs = node.inputs.iter().filter_map(|inlet| model.outlet_fact(*inlet).ok());
        let outputs = node.outputs.iter().map(|outlet| &outlet.fact);
        let step = inputs.chain(outputs).try_fold(0_u64, |sum, f| Some(sum.saturating_add(bytes(f)?)))?;
        widest = widest.max(step);
    }
    Some(widest)
}

fn constant_bytes(model: &TypedModel) -> usize {
    let konst =
        |fact: &super::api::TypedFact| fact.konst.as_ref().map_or(0, |k| k.len() * k.datum_type().size_of());
    model.nodes().iter().flat_map(|n| &n.outputs).map(|o| konst(&o.fact)).sum()
}
