//! tract computes an operator ahead whose inputs are all constant, and looks at the size of the
//! result only afterwards. A file of a hundred bytes can ask for a terabyte that way.
#![allow(clippy::wildcard_imports, reason = "tract is used by its prelude")]

use tract_onnx::tract_hir::internal::*;

use crate::load::RunError;
use crate::load::tract::nan::KeepNan;

/// The largest result that is computed ahead. tract keeps none that is larger anyway.
const MAX_AHEAD: u64 = 16 << 20;

/// An operator of tract that is computed ahead only where its result is known to be small.
#[derive(Clone, Debug)]
pub(super) struct Bounded {
    inner: Box<dyn InferenceOp>,
    max_bytes: u64,
    /// tract's operator takes a maximum by comparison, which loses NaN.
    loses_nan: bool,
}

impl Bounded {
    pub(super) fn new(inner: Box<dyn InferenceOp>, max_bytes: u64, loses_nan: bool) -> Self {
        Self { inner, max_bytes, loses_nan }
    }
}

impl PartialEq for Bounded {
    fn eq(&self, _other: &Self) -> bool {
        false
    }
}

impl Eq for Bounded {}

impl Op for Bounded {
    fn name(&self) -> StaticName {
        self.inner.name()
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        self.inner.as_typed()
    }
}

impl EvalOp for Bounded {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        self.inner.eval_out_of_plan(inputs)
    }
}

impl InferenceOp for Bounded {
    fn infer(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        let ahead = inputs.iter().all(|fact| fact.value.is_concrete());
        if !ahead {
            return self.inner.infer(inputs, outputs, observed);
        }
        let inferred = self.inner.infer_facts(inputs.clone(), outputs.clone(), observed.clone())?;
        match inferred.1.iter().map(bytes).sum::<Option<u64>>() {
            Some(needed) if needed > self.max_bytes => bail!(RunError::OverBudget { needed }),
            Some(needed) if needed > MAX_AHEAD => Ok(inferred),
            // A size that not even the values tell is that of a selection, not of an expansion:
            // those have kernels, which have been tried before.
            _ => self.inner.infer(inputs, outputs, observed),
        }
    }

    fn observe_outlets(&self, model: &InferenceModel, node: &InferenceNode) -> TractResult<Vec<OutletId>> {
        self.inner.observe_outlets(model, node)
    }

    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        self.inner.infer_facts(inputs, outputs, observed)
    }

    fn incorporate(
        &self,
        model: &InferenceModel,
        node: &InferenceNode,
    ) -> TractResult<Option<InferenceModelPatch>> {
        self.inner.incorporate(model, node)
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.inner.nboutputs()
    }

    /// The operator itself: tract looks for some by their type.
    fn as_op(&self) -> &dyn Op {
        self.inner.as_op()
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self.inner.as_op_mut()
    }

    fn to_typed(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        let mut outputs = self.inner.to_typed(source, node, target, mapping)?;
        if self.loses_nan
            && let Some(input) = node.inputs.first().and_then(|input| mapping.get(input)).copied()
            && let Some(output) = outputs.first_mut()
        {
            let keep = KeepNan { spread: Some(Box::new(Spread(self.inner.clone()))) };
            let kept = target.wire_node(format!("{}.nan", node.name), keep, &[input, *output])?;
            *output = kept.first().copied().unwrap_or(*output);
        }
        Ok(outputs)
    }
}

/// An operator of one input, by which [`KeepNan`] finds where a NaN reaches.
#[derive(Clone, Debug)]
struct Spread(Box<dyn InferenceOp>);

impl PartialEq for Spread {
    fn eq(&self, _other: &Self) -> bool {
        false
    }
}

impl Eq for Spread {}

impl Op for Spread {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    op_as_typed_op!();
}

impl EvalOp for Spread {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        self.0.eval_out_of_plan(inputs)
    }
}

impl TypedOp for Spread {
    as_op!();

    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        bail!("not an operator of a graph")
    }
}

/// The bytes of a tensor, where its type and shape are known.
fn bytes(fact: &InferenceFact) -> Option<u64> {
    let datum = fact.datum_type.concretize()?;
    let dims = fact.shape.concretize()?;
    dims.iter().try_fold(datum.size_of() as u64, |bytes, dim| {
        Some(bytes.saturating_mul(u64::try_from(dim.to_i64().ok()?).ok()?))
    })
}
