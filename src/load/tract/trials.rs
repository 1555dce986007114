//! What a network is asked before it becomes a model, and what its answers tell.

use super::api::{DatumType, SymbolValues, TValue, TVec};
use super::convert::element_type;
use super::model::{Blueprint, Extent, Output, SMALL_WEIGHTS, Shapes, Symbolic};
use super::plan::{Plan, Watch, peak_bytes, work};
use super::trial::{self, Trial};
use crate::load::{LoadError, RunError};
use crate::signature::{Dim, Signature, TensorSpec};
use crate::tensor::Shape;

/// The most multiplications of one run of a few rows: some ten seconds of them.
const MAX_WORK: u64 = 250_000_000_000;

/// Tries a blueprint before it becomes a model.
pub(super) struct Trials<'a> {
    pub(super) blueprint: &'a dyn Blueprint,
    pub(super) inputs: &'a [TensorSpec],
    pub(super) budget: u64,
}

/// A plan for concrete shapes that has answered, and what it answered.
pub(super) struct Answered {
    pub(super) trial: Trial,
    /// Gone again where the weights are large.
    pub(super) plan: Option<Plan>,
    pub(super) const_bytes: usize,
    outputs: TVec<TValue>,
}

impl Answered {
    pub(super) fn shapes(&self) -> Shapes {
        self.trial.shapes.iter().copied().collect()
    }
}

impl Trials<'_> {
    /// The answer for one row; open dimensions other than the batch get the first size that works.
    pub(super) fn first(&self) -> Result<Answered, LoadError> {
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
    pub(super) fn others(&self, first: &Answered) -> Vec<Answered> {
        let batch = self.inputs.iter().any(trial::has_open_batch);
        let sizes: Vec<_> = trial::trials(self.inputs, if batch { trial::OTHER_BATCH } else { 1 }).collect();
        let (differing, same): (Vec<_>, Vec<_>) = sizes
            .into_iter()
            .filter(|t| t.shapes != first.trial.shapes)
            .partition(|t| t.open != first.trial.open);
        let order = if trial::has_open_inner(self.inputs) { [differing, same] } else { [same, Vec::new()] };
        order
            .into_iter()
            .flatten()
            .find_map(|t| {
                let outcome = self.attempt(t);
                // What fixes the batch of a model that leaves it open.
                outcome.inspect_err(|error| tracing::debug!(%error, "another batch is not answered")).ok()
            })
            .into_iter()
            .collect()
    }

    fn attempt(&self, trial: Trial) -> Result<Answered, LoadError> {
        let plan = concrete_plan(self.blueprint, &trial.shapes, self.budget)?;
        let values = trial.values(self.inputs)?;
        let outputs =
            plan.run(values, Watch::Trial { budget: self.budget }).map_err(|error| match error {
                RunError::OverBudget { needed } => {
                    LoadError::OverBudget { what: "the first run".to_owned(), needed, budget: self.budget }
                }
                other => LoadError::Engine(format!("the first run failed: {other}")),
            })?;
        let const_bytes = plan.const_bytes();
        // Each plan has the weights once more: of a large model only one is there at a time.
        let plan = (const_bytes <= SMALL_WEIGHTS).then_some(plan);
        Ok(Answered { trial, plan, const_bytes, outputs })
    }

    /// The symbolic plan, where it gives the same answers as the concrete ones.
    pub(super) fn symbolic(&self, first: &Answered, others: &[Answered]) -> Option<Symbolic> {
        let symbolic = self.attempt_symbolic(first, others);
        symbolic.inspect_err(|error| tracing::debug!(%error, "there is no plan for any batch")).ok()
    }

    fn attempt_symbolic(&self, first: &Answered, others: &[Answered]) -> Result<Symbolic, LoadError> {
        let refused = |reason: &dyn std::fmt::Display| LoadError::Engine(reason.to_string());
        let extents = self.inputs.iter().enumerate().map(|(i, s)| symbolic_extents(i, s));
        let extents: Option<Vec<Vec<Extent>>> = extents.collect();
        let extents = extents.ok_or_else(|| refused(&"the rank of an input is open"))?;
        let typed = self.blueprint.typed(&extents)?;
        let scope = typed.symbols.clone();
        let plan = Plan::new(typed)?;
        let watch = Watch::Trial { budget: self.budget };
        for answered in others.iter().chain([first]) {
            let outputs = plan.run(answered.trial.values(self.inputs)?, watch).map_err(|e| refused(&e))?;
            let agrees = outputs.len() == answered.outputs.len()
                && outputs.iter().zip(&answered.outputs).all(|(a, b)| trial::agrees(a, b));
            if !agrees {
                return Err(refused(&"it answers otherwise than a plan for one batch"));
            }
        }
        let open = |extent: &Extent| match extent {
            Extent::Fixed(_) => None,
            Extent::Symbol(name) => Some(scope.sym(name)),
        };
        let symbols = extents.iter().map(|dims| dims.iter().map(open).collect()).collect();
        Ok(Symbolic::new(plan, symbols))
    }
}

pub(super) fn concrete_plan(
    blueprint: &dyn Blueprint,
    shapes: &[Shape],
    budget: u64,
) -> Result<Plan, LoadError> {
    let extents: Vec<Vec<Extent>> =
        shapes.iter().map(|s| s.dims().iter().map(|d| Extent::Fixed(*d)).collect()).collect();
    let typed = blueprint.typed(&extents)?;
    let needed = peak_bytes(&typed, &SymbolValues::default());
    if needed > budget {
        return Err(LoadError::OverBudget { what: "one run".to_owned(), needed, budget });
    }
    let steps = work(&typed);
    if steps > MAX_WORK {
        return Err(LoadError::Engine(format!(
            "one run takes {steps} multiplications, more than {MAX_WORK}"
        )));
    }
    Plan::new(typed)
}

/// The extents of an input with a symbol for each dimension that it leaves open.
fn symbolic_extents(input: usize, spec: &TensorSpec) -> Option<Vec<Extent>> {
    let extent = |(axis, dim): (usize, &Dim)| match dim.fixed() {
        Some(n) => Extent::Fixed(n),
        None if axis == 0 => Extent::Symbol("N".to_owned()),
        None => Extent::Symbol(format!("I{input}D{axis}")),
    };
    Some(spec.dims()?.iter().enumerate().map(extent).collect())
}

/// The signature as the trials saw it: a dimension of an output that was not the same in all of
/// them is open.
pub(super) fn observed_signature(
    inputs: &[TensorSpec],
    outputs: &[Output],
    first: &Answered,
    others: &[Answered],
) -> Result<Signature, LoadError> {
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
