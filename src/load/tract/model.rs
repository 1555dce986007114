//! A tract network as a [`Model`]: which plan answers which input shapes.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use smallvec::SmallVec;

use super::api::{DatumType, SymbolScope, SymbolValues, TDim, TValue, TVec, ToDim, TypedModel};
use super::convert::{element_type, from_engine, to_engine};
use super::plan::{Plan, peak_bytes};
use super::trial::{self, Trial};
use crate::load::{LoadError, Model, RunError, copy_scores};
use crate::signature::{Labels, Signature, TensorSpec};
use crate::tensor::{Shape, Tensor, TensorView};

/// The most plans for concrete shapes that a model keeps.
const MAX_CONCRETE_PLANS: usize = 8;

/// Up to this many bytes of weights a model gets plans for concrete shapes beside the symbolic one;
/// each of them costs the weights once more.
const SMALL_WEIGHTS: usize = 8 << 20;

/// How often a shape is seen before it gets a plan of its own.
const SIGHTINGS: u32 = 64;

/// A network that can be stated for any input shapes.
pub(in crate::load) trait Blueprint: Send + Sync {
    /// The typed network for these extents of its inputs, in the signature's order. Its inputs and
    /// outputs are in the signature's order too. Symbols are to be made in the model's own scope,
    /// see [`Extent::to_dim`].
    fn typed(&self, inputs: &[Vec<Extent>]) -> Result<TypedModel, LoadError>;
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
}

type Shapes = SmallVec<[Shape; 2]>;

/// The plan for any batch, with the memory that a run needs as a line over the batch size.
struct Symbolic {
    plan: Plan,
    step_base: u64,
    step_per_row: u64,
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
        if let Some(plan) = self.known_plan(&shapes) {
            return plan.run(values);
        }
        let Some(symbolic) = &self.symbolic else {
            return self.make_plan(shapes)?.run(values);
        };
        if self.is_frequent(&shapes)
            && let Ok(plan) = self.make_plan(shapes.clone())
        {
            return plan.run(values);
        }
        let rows = inputs.iter().map(|i| i.shape().rows()).max().unwrap_or(1) as u64;
        let needed = symbolic.step_base.saturating_add(symbolic.step_per_row.saturating_mul(rows));
        if needed > self.budget {
            return Err(RunError::OverBudget { needed });
        }
        symbolic.plan.run(values)
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
        self.const_bytes.saturating_mul(plans)
    }

    fn engine(&self) -> &'static str {
        "tract"
    }
}

/// Tries a blueprint before it becomes a model.
struct Trials<'a> {
    blueprint: &'a dyn Blueprint,
    inputs: &'a [TensorSpec],
    budget: u64,
}

/// A plan for concrete shapes that has answered, and what it answered.
struct Answered {
    trial: Trial,
    /// Gone again where the weights are large.
    plan: Option<Plan>,
    const_bytes: usize,
    outputs: TVec<TValue>,
}

impl Answered {
    fn shapes(&self) -> Shapes {
        self.trial.shapes.iter().copied().collect()
    }
}

impl Trials<'_> {
    /// The answer for one row; open dimensions other than the batch get the first size that works.
    fn first(&self) -> Result<Answered, LoadError> {
        let mut refused = None;
        for trial in trial::trials(self.inputs, 1) {
            match self.attempt(trial) {
                Ok(answered) => return Ok(answered),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused
            .unwrap_or_else(|| LoadError::Engine("an input has more than eight dimensions".to_owned())))
    }

    /// The answers for another batch, and for another size of the other open dimensions.
    fn others(&self, first: &Answered) -> Vec<Answered> {
        let batch = self.inputs.iter().any(trial::has_open_batch);
        let sizes: Vec<_> = trial::trials(self.inputs, if batch { trial::OTHER_BATCH } else { 1 }).collect();
        let (differing, same): (Vec<_>, Vec<_>) = sizes
            .into_iter()
            .filter(|t| t.shapes != first.trial.shapes)
            .partition(|t| t.open != first.trial.open);
        let order = if trial::has_open_inner(self.inputs) { [differing, same] } else { [same, Vec::new()] };
        order.into_iter().flatten().find_map(|t| self.attempt(t).ok()).into_iter().collect()
    }

    fn attempt(&self, trial: Trial) -> Result<Answered, LoadError> {
        let plan = concrete_plan(self.blueprint, &trial.shapes, self.budget)?;
        let outputs = plan.run(trial.values(self.inputs)?).map_err(|e| LoadError::Engine(e.to_string()))?;
        let const_bytes = plan.const_bytes();
        // Each plan has the weights once more: of a large model only one is there at a time.
        let plan = (const_bytes <= SMALL_WEIGHTS).then_some(plan);
        Ok(Answered { trial, plan, const_bytes, outputs })
    }

    /// The symbolic plan, where it gives the same answers as the concrete ones.
    fn symbolic(&self, first: &Answered, others: &[Answered]) -> Option<Symbolic> {
        let extents: Option<Vec<_>> =
            self.inputs.iter().enumerate().map(|(i, s)| symbolic_extents(i, s)).collect();
        let typed = self.blueprint.typed(&extents?).ok()?;
        let scope = typed.symbols.clone();
        let plan = Plan::new(typed).ok()?;
        for answered in others.iter().chain([first]) {
            let outputs = plan.run(answered.trial.values(self.inputs).ok()?).ok()?;
            let agrees = outputs.len() == answered.outputs.len()
                && outputs.iter().zip(&answered.outputs).all(|(a, b)| trial::agrees(a, b));
            if !agrees {
                return None;
            }
        }
        let step = |batch: i64| {
            let mut symbols = SymbolValues::default();
            for symbol in scope.all_symbols() {
                let size = if symbol.to_string() == "N" { batch } else { 64 };
                symbols.set(&symbol, size);
            }
            plan.peak_bytes(&symbols)
        };
        let (small, large) = (step(1), step(1025));
        let step_per_row = large.saturating_sub(small) / 1024;
        Some(Symbolic { step_base: small.saturating_sub(step_per_row), step_per_row, plan })
    }
}

fn concrete_plan(blueprint: &dyn Blueprint, shapes: &[Shape], budget: u64) -> Result<Plan, LoadError> {
    let extents: Vec<Vec<Extent>> =
        shapes.iter().map(|s| s.dims().iter().map(|d| Extent::Fixed(*d)).collect()).collect();
    let typed = blueprint.typed(&extents)?;
    let needed = peak_bytes(&typed, &SymbolValues::default());
    if needed > budget {
        return Err(LoadError::OverBudget { what: "one run".to_owned(), needed, budget });
    }
    Plan::new(typed)
}

/// The extents of an input with a symbol for each dimension that it leaves open.
fn symbolic_extents(input: usize, spec: &TensorSpec) -> Option<Vec<Extent>> {
    let extent = |(axis, dim): (usize, &crate::signature::Dim)| match dim.fixed() {
        Some(n) => Extent::Fixed(n),
        None if axis == 0 => Extent::Symbol("N".to_owned()),
        None => Extent::Symbol(format!("I{input}D{axis}")),
    };
    Some(spec.dims()?.iter().enumerate().map(extent).collect())
}

/// The signature as the trials saw it: a dimension of an output that was not the same in all of
/// them is open.
fn observed_signature(
    inputs: &[TensorSpec],
    outputs: &[Output],
    first: &Answered,
    others: &[Answered],
) -> Result<Signature, LoadError> {
    use crate::signature::Dim;
    if outputs.len() != first.outputs.len() {
        return Err(LoadError::Engine("the engine gives another number of outputs".to_owned()));
    }
    let specs = outputs.iter().zip(&first.outputs).enumerate().map(|(i, (output, value))| {
        let datum: DatumType = value.datum_type();
        let element = element_type(datum).ok_or_else(|| {
            LoadError::Engine(format!(
                "output `{}` is of type {datum:?}, which is not supported",
                output.name
            ))
        })?;
        let seen: Vec<&[usize]> = others.iter().filter_map(|o| Some(o.outputs.get(i)?.shape())).collect();
        let mut spec = if seen.iter().any(|s| s.len() != value.shape().len()) {
            TensorSpec::of_any_shape(&output.name, element)
        } else {
            let dims = value.shape().iter().enumerate().map(|(axis, size)| {
                let same = seen.iter().all(|shape| shape.get(axis) == Some(size));
                if same { Dim::Fixed(*size) } else { Dim::Any }
            });
            TensorSpec::new(&output.name, element, &dims.collect::<Vec<_>>())
        };
        if let Some(labels) = &output.labels {
            spec = spec.with_labels(labels.clone());
        }
        Ok(spec)
    });
    Ok(Signature::new(inputs.to_vec(), specs.collect::<Result<_, LoadError>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tract::api::{SpecialOps, TypedFact, tensor1, tract_core::ops::math};
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
