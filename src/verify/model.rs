//! The checks on the model: that it loads, fits, and answers what it should.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Rejection, Stage, Verified};
use crate::load::{Formats, LoadOptions, Model, Samples, compare, panic_text};
use crate::release::Release;
use crate::scorer::{LiveModel, Provenance};
use crate::signature::{Dim, Signature, TensorSpec};
use crate::tensor::{ElementType, Tensor, TensorView};

/// How often a model is run on the loading thread before it goes live, at most, and for how long it is
/// run again: a large one reads all its weights each time, at the cost of the threads that score.
const WARM_UP_RUNS: usize = 3;
const WARM_UP_TIME: Duration = Duration::from_millis(2);

/// The tolerances of golden samples that do not state their own.
pub(crate) const RTOL: f64 = 1e-4;
pub(crate) const ATOL: f64 = 1e-5;

/// A release whose bytes became a model.
pub(crate) struct Loaded {
    release: Release,
    model: Arc<dyn Model>,
    load_time: Duration,
}

impl Loaded {
    /// Loads the model. A panic of the loader is a rejection.
    pub(crate) fn load(verified: Verified, formats: &Formats, memory_budget: u64) -> Result<Self, Rejection> {
        let (release, payload) = verified.into_parts();
        let options = LoadOptions {
            inputs: release.interface.inputs.clone(),
            outputs: release.interface.outputs.clone(),
            signature: release.interface.signature.clone(),
            memory_budget,
        };
        let begin = Instant::now();
        let stated = release.artifact.format.as_deref();
        let model =
            formats.load(stated, payload, &options).map_err(|error| Rejection::new(Stage::Load, error))?;
        Ok(Self { release, model, load_time: begin.elapsed() })
    }

    /// Checks the signature, the golden samples and the first runs.
    pub(crate) fn prove(self, expected: Option<&Signature>) -> Result<Proven, Rejection> {
        if let Some(expected) = expected {
            let fits = self.model.signature().satisfies(expected);
            fits.map_err(|mismatch| Rejection::new(Stage::Signature, mismatch))?;
        }
        let begin = Instant::now();
        match &self.release.samples {
            Some(document) => check_samples(&*self.model, document)?,
            None => warm_up(&*self.model)?,
        }
        Ok(Proven {
            release: self.release,
            model: self.model,
            load_time: self.load_time,
            warm_up_time: begin.elapsed(),
        })
    }
}

/// A release whose model fits, answers and is warm: what may go live.
pub(crate) struct Proven {
    release: Release,
    model: Arc<dyn Model>,
    load_time: Duration,
    warm_up_time: Duration,
}

impl Proven {
    pub(crate) const fn release(&self) -> &Release {
        &self.release
    }

    pub(crate) const fn times(&self) -> (Duration, Duration) {
        (self.load_time, self.warm_up_time)
    }

    pub(crate) fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    /// The model as the slot takes it.
    pub(crate) fn into_live(self) -> LiveModel {
        LiveModel::new(self.model, Provenance::from(&self.release))
    }
}

/// Runs the golden samples, which warm the model up as well, and compares.
fn check_samples(model: &dyn Model, document: &serde_json::Value) -> Result<(), Rejection> {
    let reject = |reason: String| Rejection::new(Stage::Samples, reason);
    let tolerance = |name: &str, default| match document.get(name) {
        None => Ok(default),
        Some(value) => value
            .as_f64()
            .filter(|t| *t >= 0.0)
            .ok_or_else(|| reject(format!("`{name}`: expected a number from 0, found {value}"))),
    };
    let (rtol, atol) = (tolerance("rtol", RTOL)?, tolerance("atol", ATOL)?);
    let signature = model.signature();
    let samples =
        Samples::from_json(document.to_string().as_bytes(), signature).map_err(|e| reject(e.to_string()))?;
    let inputs: Vec<TensorView<'_>> = samples.inputs().iter().map(|(_, tensor)| tensor.view()).collect();
    let outputs = run_warm(model, &inputs).map_err(reject)?;
    for (name, expected) in samples.outputs() {
        let found = signature.outputs().iter().zip(&outputs).find(|(spec, _)| **spec.name() == **name);
        let Some((_, found)) = found else {
            return Err(reject(format!("the model gave no output `{name}`")));
        };
        compare(expected.view(), found.view(), rtol, atol)
            .map_err(|difference| reject(format!("output `{name}`: {difference}")))?;
    }
    Ok(())
}

/// Runs a model on one row of zeros, as a subscriber does before a release without samples goes live.
///
/// # Errors
/// Where it fails or panics, and the sizes of its inputs leave no doubt that it should not.
pub fn warm_up(model: &dyn Model) -> Result<(), Rejection> {
    let specs = model.signature().inputs();
    let Some(zeros) = specs.iter().map(zeros).collect::<Option<Vec<_>>>() else { return Ok(()) };
    let inputs: Vec<TensorView<'_>> = zeros.iter().map(Tensor::view).collect();
    match run_warm(model, &inputs) {
        // Where the file leaves a dimension open, 1 may be a size that the model cannot have.
        Err(reason) if specs.iter().any(has_open_row) => {
            tracing::debug!(reason, "the model does not run on one row of zeros");
            Ok(())
        }
        Err(reason) => Err(Rejection::new(Stage::WarmUp, reason)),
        Ok(_) => Ok(()),
    }
}

/// Runs the model until it is warm; what it gave the last time.
fn run_warm(model: &dyn Model, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, String> {
    let begin = Instant::now();
    let mut outputs = run(model, inputs)?;
    for _ in 1..WARM_UP_RUNS {
        if begin.elapsed() >= WARM_UP_TIME {
            break;
        }
        outputs = run(model, inputs)?;
    }
    Ok(outputs)
}

/// Runs the model, with a panic as an error.
fn run(model: &dyn Model, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, String> {
    let mut outputs = vec![Tensor::default(); model.signature().outputs().len()];
    match catch_unwind(AssertUnwindSafe(|| model.run(inputs, &mut outputs))) {
        Ok(result) => result.map(|()| outputs).map_err(|error| format!("the first run failed: {error}")),
        Err(panic) => Err(format!("the first run panicked: {}", panic_text(&*panic))),
    }
}

fn has_open_row(spec: &TensorSpec) -> bool {
    spec.dims().is_none_or(|dims| dims.iter().skip(1).any(|dim| *dim == Dim::Any))
}

/// One row of zeros, or empty texts; `None` where it would be absurdly large.
fn zeros(spec: &TensorSpec) -> Option<Tensor> {
    const MOST: usize = 1 << 24;
    let dims: Vec<usize> = match spec.dims() {
        Some(dims) => dims.iter().map(|dim| dim.fixed().unwrap_or(1)).collect(),
        None => vec![1, 1],
    };
    let n = dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST)?;
    match spec.element_type() {
        ElementType::F32 => Tensor::new(&dims, vec![0.0_f32; n]),
        ElementType::F64 => Tensor::new(&dims, vec![0.0_f64; n]),
        ElementType::I8 => Tensor::new(&dims, vec![0_i8; n]),
        ElementType::I16 => Tensor::new(&dims, vec![0_i16; n]),
        ElementType::I32 => Tensor::new(&dims, vec![0_i32; n]),
        ElementType::I64 => Tensor::new(&dims, vec![0_i64; n]),
        ElementType::U8 => Tensor::new(&dims, vec![0_u8; n]),
        ElementType::U16 => Tensor::new(&dims, vec![0_u16; n]),
        ElementType::U32 => Tensor::new(&dims, vec![0_u32; n]),
        ElementType::U64 => Tensor::new(&dims, vec![0_u64; n]),
        ElementType::Bool => Tensor::new(&dims, vec![false; n]),
        ElementType::String => Tensor::new(&dims, vec![String::new(); n]),
    }
    .ok()
}
