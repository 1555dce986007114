//! An operator that is a plain function over tensors.

use std::fmt;
use std::sync::Arc;

use super::super::api::{
    Datum, DatumType, EngineTensor, EvalContext, EvalOp, Op, StaticName, TValue, TVec, TractResult,
    TypedFact, TypedOp, as_op, bail, op_as_typed_op, op_out_of_plan,
};
use crate::load::RunError;

type Facts = dyn Fn(&[&TypedFact]) -> TractResult<TVec<TypedFact>> + Send + Sync;
type Eval = dyn Fn(&[TValue]) -> TractResult<TVec<TValue>> + Send + Sync;

/// An operator given by two functions: what comes out by type and shape, and what comes out.
#[derive(Clone)]
pub(super) struct Computed {
    name: &'static str,
    facts: Arc<Facts>,
    eval: Arc<Eval>,
}

impl Computed {
    pub(super) fn new(
        name: &'static str,
        facts: impl Fn(&[&TypedFact]) -> TractResult<TVec<TypedFact>> + Send + Sync + 'static,
        eval: impl Fn(&[TValue]) -> TractResult<TVec<TValue>> + Send + Sync + 'static,
    ) -> Self {
        Self { name, facts: Arc::new(facts), eval: Arc::new(eval) }
    }
}

impl Computed {
    /// An operator whose outputs have these types and shapes.
    pub(super) fn giving(
        name: &'static str,
        facts: TVec<TypedFact>,
        eval: impl Fn(&[TValue]) -> TractResult<TVec<TValue>> + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, move |_| Ok(facts.clone()), eval)
    }
}

/// An error where an operator is about to write more text than a tensor may take; shapes tell only how
/// many texts there are, and what doubles them grows without end in a few steps.
pub(super) fn room_for_text(bytes: u64, budget: u64) -> TractResult<()> {
    if bytes > budget {
        bail!(RunError::OverBudget { needed: bytes });
    }
    Ok(())
}

/// How many elements a tensor of this shape has; an error where they are more than there is room for, at so
/// many bytes each. For tensors whose sizes only the run tells: the engine learns of them too late.
pub(super) fn room_for(shape: &[usize], each: usize, budget: u64) -> TractResult<usize> {
    let elements = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
    let needed = (elements as u64).saturating_mul(each as u64);
    if needed > budget {
        bail!(RunError::OverBudget { needed });
    }
    Ok(elements)
}

/// The most bytes that one element takes, the text that it is included.
pub(super) fn widest<T: Datum>(x: &EngineTensor) -> TractResult<usize> {
    let plain = x.try_as_plain_ram()?;
    let longest = match x.datum_type() {
        DatumType::String => plain.as_slice::<String>()?.iter().map(String::len).max(),
        _ => None,
    };
    Ok(size_of::<T>() + longest.unwrap_or(0))
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Computed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.eval, &other.eval)
    }
}

impl Eq for Computed {}

impl Op for Computed {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Computed {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        (self.eval)(&inputs)
    }
}

impl TypedOp for Computed {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        (self.facts)(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_up_to_the_budget() {
        assert_eq!(room_for(&[3, 4], 8, 96).unwrap(), 12);
        for shape in [&[3, 5][..], &[usize::MAX, 2]] {
            let refused = room_for(shape, 8, 96).unwrap_err();
            assert!(matches!(refused.downcast_ref(), Some(RunError::OverBudget { .. })), "{refused}");
        }
    }
}
