//! A tract network as a [`Model`]: which plan answers which input shapes.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use smallvec::SmallVec;

use super::api::{Symbol, SymbolScope, SymbolValues, TDim, TValue, TVec, ToDim, TypedModel};
use super::convert::{from_engine, to_engine};
use super::plan::{Plan, Watch};
use super::trial;
use super::trials::{Trials, concrete_plan, observed_signature};
use crate::load::{LoadError, Model, RunError, copy_scores};
use crate::signature::{Labels, Signature, TensorSpec};
use crate::tensor::{Shape, Tensor, TensorView};

/// The most plans for concrete shapes that a model keeps.
const MAX_CONCRETE_PLANS: usize = 8;

/// Up to this many bytes of weights a model gets plans for concrete shapes beside the symbolic one;
/// each of them costs the weights once more.
pub(super) const SMALL_WEIGHTS: usize = 8 << 20;

/// How many shapes are remembered that a run has room for.
const MAX_FITTING: usize = 64;

/// How often a shape is seen before it gets a plan of its own.
const SIGHTINGS: u32 = 64;

/// A network that can be stated for any input shapes.
pub(in crate::load) trait Blueprint: Send + Sync {
    /// The typed network for these extents of its inputs, in the signature's order. Its inputs and
    /// outputs are in the signature's order too. Symbols are to be made in the model's own scope,
    /// see [`Extent::to_dim`].
    fn typed(&self, inputs: &[Vec<Extent>]) -> Result<TypedModel, LoadError>;

    /// The bytes of what all plans share.
    fn shared_bytes(&self) -> usize {
        0
    }
}

/// One dimension of an input, as a [`Blueprint`] is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::load) enum Extent {
    Fixed(usize),
    /// An open dimension; the batch of every input is `N`.
    Symbol(String),
}

impl Extent {
    /// The dimension in tract's terms.
    pub(in crate::load) fn to_dim(&self, scope: &SymbolScope) -> TDim {
        match self {
            Self::Fixed(n) => n.to_dim(),
            Self::Symbol(name) => scope.sym(name).to_dim(),
        }
    }
}

/// What a loader knows of an output before the network has run; type and shape are then observed.
#[derive(Clone, Debug)]
pub(in crate::load) struct Output {
    pub(in crate::load) name: Arc<str>,
    pub(in crate::load) labels: Option<Labels>,
}

/// A network that runs on tract.
pub(in crate::load) struct TractModel {
    signature: Signature,
    symbolic: Option<Symbolic>,
    /// Gone where the symbolic plan answers everything and the weights are large.
    blueprint: Option<Box<dyn Blueprint>>,
    concrete: RwLock<Vec<(Shapes, Arc<Plan>)>>,
    sightings: Mutex<Vec<(Shapes, u32)>>,
    budget: u64,
    const_bytes: usize,
    shared_bytes: usize,
}

pub(super) type Shapes = SmallVec<[Shape; 2]>;

/// The plan for any batch.
pub(super) struct Symbolic {
    plan: Plan,
    /// For each dimension of each input, the symbol that stands for it where it is open.
    symbols: Vec<Vec<Option<Symbol>>>,
    /// Shapes that a run has room for.
    fitting: RwLock<Vec<Shapes>>,
}

impl Symbolic {
    pub(super) fn new(plan: Plan, symbols: Vec<Vec<Option<Symbol>>>) -> Self {
        Self { plan, symbols, fitting: RwLock::new(Vec::new()) }
    }

    /// Refuses shapes for which a run would hold more than the budget.
    fn check(&self, shapes: &Shapes, budget: u64) -> Result<(), RunError> {
        if self.fitting.try_read().is_ok_and(|fitting| fitting.contains(shapes)) {
            return Ok(());
        }
        let mut values = SymbolValues::default();
        for (symbols, shape) in self.symbols.iter().zip(shapes) {
            for (symbol, size) in symbols.iter().zip(shape.dims()) {
                if let (Some(symbol), Ok(size)) = (symbol, i64::try_from(*size)) {
                    values.set(symbol, size);
                }
            }
        }
        let needed = self.plan.peak_bytes(&values);
        if needed > budget {
            return Err(RunError::OverBudget { needed });
        }
        if let Ok(mut fitting) = self.fitting.try_write() {
            if fitting.len() >= MAX_FITTING {
                fitting.clear();
            }
            fitting.push(shapes.clone());
        }
        Ok(())
    }
}

impl TractModel {
    /// Makes a model that has been seen to answer. `inputs` are the inputs that the file declares,
    /// in order; a dimension that it leaves open is to be `Any`.
    ///
    /// # Errors
    /// Where no plan can be made or none answers; the error is that of the plan for one row.
    pub(in crate::load) fn build(
        blueprint: Box<dyn Blueprint>,
        inputs: &[TensorSpec],
        outputs: &[Output],
        budget: u64,
    ) -> Result<Self, LoadError> {
        let trials = Trials { blueprint: &*blueprint, inputs, budget };
        let first = trials.first()?;
        let others = trials.others(&first);
        let has_open = inputs.iter().any(|i| i.dims().is_none_or(|d| d.iter().any(|d| d.fixed().is_none())));
        if has_open && others.is_empty() {
            // It answers for one row and for no other batch: the file leaves open what it fixes.
            let pinned: Vec<_> =
                inputs.iter().zip(&first.trial.shapes).map(|(i, s)| trial::pinned(i, *s)).collect();
            return Self::build(blueprint, &pinned, outputs, budget);
        }
        let symbolic = if has_open { trials.symbolic(&first, &others) } else { None };
        let signature = observed_signature(inputs, outputs, &first, &others)?;
        let const_bytes = first.const_bytes;
        let small = const_bytes <= SMALL_WEIGHTS;
        let keeps_concrete = small || symbolic.is_none();
        let mut concrete = Vec::new();
        if keeps_concrete {
            let shapes = first.shapes();
            let plan = match first.plan {
                Some(plan) => plan,
                None => concrete_plan(&*blueprint, &shapes, budget)?,
            };
            concrete.push((shapes, Arc::new(plan)));
        }
        Ok(Self {
            signature,
            shared_bytes: blueprint.shared_bytes(),
            blueprint: keeps_concrete.then_some(blueprint),
            const_bytes: const_bytes.max(symbolic.as_ref().map_or(0, |s| s.plan.const_bytes())),
            symbolic,
            concrete: RwLock::new(concrete),
            sightings: Mutex::new(Vec::new()),
            budget,
        })
    }

    fn outputs_for(&self, inputs: &[TensorView<'_>]) -> Result<TVec<TValue>, RunError> {
        let shapes: Shapes = inputs.iter().map(TensorView::shape).collect();
        let values =
            inputs.iter().map(|i| Ok(to_engine(*i)?.into())).collect::<Result<TVec<TValue>, RunError>>()?;
        let watch = Watch::Usual { budget: self.budget };
        if let Some(plan) = self.known_plan(&shapes) {
            return plan.run(values, watch);
        }
        let Some(symbolic) = &self.symbolic else {
            return self.make_plan(shapes)?.run(values, watch);
        };
        if self.is_frequent(&shapes)
            && let Ok(plan) = self.make_plan(shapes.clone())
        {
            return plan.run(values, watch);
        }
        symbolic.check(&shapes, self.budget)?;
        symbolic.plan.run(values, watch)
    }

    fn known_plan(&self, shapes: &Shapes) -> Option<Arc<Plan>> {
        let plans = self.concrete.read().unwrap_or_else(PoisonError::into_inner);
        plans.iter().find(|(known, _)| known == shapes).map(|(_, plan)| Arc::clone(plan))
    }

    /// True once for a shape that was seen often and can have a plan of its own.
    fn is_frequent(&self, shapes: &Shapes) -> bool {
        if self.blueprint.is_none() {
            return false;
        }
        let Ok(mut seen) = self.sightings.try_lock() else { return false };
        if let Some((_, count)) = seen.iter_mut().find(|(known, _)| known == shapes) {
            *count = count.saturating_add(1);
            return *count == SIGHTINGS;
        }
        if seen.len() >= 4 * MAX_CONCRETE_PLANS {
            seen.clear();
        }
        seen.push((shapes.clone(), 1));
        false
    }

    fn make_plan(&self, shapes: Shapes) -> Result<Arc<Plan>, RunError> {
        let blueprint = self.blueprint.as_deref().ok_or_else(|| RunError::Engine("no plan".into()))?;
        let plan = concrete_plan(blueprint, &shapes, self.budget).map_err(|error| match error {
            LoadError::OverBudget { needed, .. } => RunError::OverBudget { needed },
            other => RunError::Engine(other.to_string().into()),
        })?;
        let plan = Arc::new(plan);
        let mut plans = self.concrete.write().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= MAX_CONCRETE_PLANS {
            // The first is the plan for a single row, which is always wanted again.
            plans.remove(1);
        }
        plans.push((shapes, Arc::clone(&plan)));
        Ok(plan)
    }
}

impl Model for TractModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let values = self.outputs_for(inputs)?;
        values.iter().zip(outputs).try_for_each(|(value, out)| from_engine(value, out))
    }

    fn run_into(&self, inputs: &[TensorView<'_>], out: &mut [f32]) -> Result<(), RunError> {
        let values = self.outputs_for(inputs)?;
        let score = self.signature.score_output().and_then(|i| values.get(i)).ok_or(RunError::NoScores)?;
        if let Some(plain) = score.as_plain_ram()
            && let Ok(scores) = plain.as_slice::<f32>()
        {
            if scores.len() != out.len() {
                return Err(RunError::OutputSize { expected: scores.len(), found: out.len() });
            }
            out.copy_from_slice(scores);
            return Ok(());
        }
        let mut converted = Tensor::default();
        from_engine(score, &mut converted)?;
        copy_scores(Some(converted.view()), out)
    }

    fn memory(&self) -> usize {
        let plans =
            self.concrete.read().map_or(0, |plans| plans.len()) + usize::from(self.symbolic.is_some());
        self.const_bytes.saturating_mul(plans).saturating_add(self.shared_bytes)
    }

    fn engine(&self) -> &'static str {
        "tract"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tract::api::{DatumType, SpecialOps, TypedFact, tensor1, tract_core::ops::math};
    use crate::load::tract::plan::guarded;
    use crate::signature::Dim;
    use crate::tensor::ElementType;

    /// `x + 1` for inputs of these extents; `one_row` makes it fail for any other batch.
    struct PlusOne {
        one_row: bool,
        panics: bool,
    }

    impl Blueprint for PlusOne {
        fn typed(&self, inputs: &[Vec<Extent>]) -> Result<TypedModel, LoadError> {
            if self.one_row && inputs[0][0] != Extent::Fixed(1) {
                return Err(LoadError::Engine("one row only".to_owned()));
            }
            guarded(|| {
                assert!(!self.panics, "broken blueprint");
                let mut model = TypedModel::default();
                let dims: TVec<TDim> = inputs[0].iter().map(|e| e.to_dim(&model.symbols)).collect();
                let x = model.add_source("x", TypedFact::dt_shape(DatumType::F32, &*dims))?;
                let one = model.add_const("one", tensor1(&[1.0_f32]).broadcast_into_rank(dims.len())?)?;
                let y = model.wire_node("y", math::add(), &[x, one])?;
                model.select_output_outlets(&y)?;
                Ok(model)
            })
        }
    }

    fn build(blueprint: PlusOne, dims: &[Dim]) -> Result<TractModel, LoadError> {
        let inputs = [TensorSpec::new("x", ElementType::F32, dims)];
        TractModel::build(Box::new(blueprint), &inputs, &[Output { name: "y".into(), labels: None }], 1 << 20)
    }

    #[test]
    fn any_batch_is_answered_and_the_signature_says_so() {
        let model = build(PlusOne { one_row: false, panics: false }, &[Dim::Any, Dim::Fixed(2)]).unwrap();
        assert_eq!(model.signature().to_string(), "(x: f32[?,2]) -> (y: f32[?,2])");
        for rows in [1, 2, 7] {
            let x = Tensor::new(&[rows, 2], vec![0.5_f32; rows * 2]).unwrap();
            let mut out = [Tensor::default()];
            for _ in 0..2 * SIGHTINGS {
                model.run(&[x.view()], &mut out).unwrap();
                assert_eq!(out[0].values::<f32>(), Some(&vec![1.5_f32; rows * 2][..]));
            }
        }
        assert_eq!(model.concrete.read().unwrap().len(), 3, "frequent shapes have plans of their own");
    }

    #[test]
    fn a_model_that_answers_one_row_only_says_so() {
        let model = build(PlusOne { one_row: true, panics: false }, &[Dim::Any, Dim::Fixed(2)]).unwrap();
        assert_eq!(model.signature().to_string(), "(x: f32[1,2]) -> (y: f32[1,2])");
    }

    #[test]
    fn a_batch_over_the_budget_is_refused() {
        let model = build(PlusOne { one_row: false, panics: false }, &[Dim::Any, Dim::Fixed(2)]).unwrap();
        let x = Tensor::new(&[1 << 17, 2], vec![0.0_f32; 1 << 18]).unwrap();
        let refused = model.run(&[x.view()], &mut [Tensor::default()]);
        assert!(matches!(refused, Err(RunError::OverBudget { .. })), "{refused:?}");
    }

    #[test]
    fn a_panic_is_a_refusal() {
        let refused = build(PlusOne { one_row: false, panics: true }, &[Dim::Fixed(1)]).err();
        assert_eq!(refused, Some(LoadError::Panicked("broken blueprint".to_owned())));
    }
}
