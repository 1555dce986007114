//! The first run of a program, before anybody relies on it; it also shows what the outputs are.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check::malformed;
use super::graph::{Declared, DeclaredDim};
use crate::kernel::program::{Program, Scratch};
use crate::kernel::{FactDim, RunContext};
use crate::load::panic_text;
use crate::load::{LoadError, RunError};
use crate::signature::{Dim, TensorSpec};
use crate::tensor::{ElementType, Shape, Tensor, TensorView};

/// The batch sizes at which a model has to answer.
const BATCHES: [usize; 2] = [1, 3];
/// Sizes to try for a dimension that is not the batch and that the file leaves open.
const OPEN_SIZES: [usize; 5] = [16, 4, 1, 32, 64];

/// Runs the program at two batch sizes and tells what its outputs are. `strict` is false for
/// models that may refuse values of the right shape: of those, a refusal proves nothing.
pub(super) fn outputs(
    program: &Program,
    inputs: &[TensorSpec],
    declared: &[Declared],
    strict: bool,
    memory_budget: u64,
) -> Result<Vec<TensorSpec>, LoadError> {
    // A few rows need a small part of what a batch may have.
    let context = RunContext::of_trial(memory_budget / 16);
    let mut seen = Vec::new();
    for batch in BATCHES {
        match answer(program, inputs, batch, &context)? {
            Ok(outputs) => seen.push(outputs),
            Err(RunError::OverBudget { needed }) => {
                return Err(LoadError::OverBudget {
                    what: format!("a run of {batch} rows"),
                    needed,
                    budget: context.max_tensor_bytes,
                });
            }
            Err(error @ RunError::TooSlow { .. }) => {
                return Err(LoadError::Engine(format!("the first run failed: {error}")));
            }
            // Where the file leaves a width open, no trial need have hit it.
            Err(_) if !strict || has_open_inner(inputs) => {}
            Err(error) => return Err(LoadError::Engine(format!("the first run failed: {error}"))),
        }
    }
    declared.iter().enumerate().map(|(index, output)| spec(program, index, output, &seen)).collect()
}

/// The outputs for one batch size: of the first trial that the program does not refuse.
fn answer(
    program: &Program,
    inputs: &[TensorSpec],
    batch: usize,
    context: &RunContext,
) -> Result<Result<Vec<Tensor>, RunError>, LoadError> {
    let sizes = if has_open_inner(inputs) { &OPEN_SIZES[..] } else { OPEN_SIZES.get(..1).unwrap_or(&[]) };
    let mut refused = None;
    for open in sizes {
        for ones in [false, true] {
            let shapes = inputs.iter().map(|spec| shape(spec, batch, *open));
            let Some(shapes) = shapes.collect::<Option<Vec<_>>>() else { continue };
            // What is tried must not be what breaks the budget.
            if shapes.iter().any(|s| s.elements() as u64 > context.max_tensor_bytes / 8) {
                return Err(LoadError::OverBudget {
                    what: "one row of the inputs".to_owned(),
                    needed: shapes.iter().map(|s| s.elements() as u64 * 8).sum(),
                    budget: context.max_tensor_bytes,
                });
            }
            let values: Vec<Tensor> = inputs
                .iter()
                .zip(shapes)
                .map(|(spec, shape)| value(spec.element_type(), shape, ones))
                .collect();
            let views: Vec<TensorView<'_>> = values.iter().map(Tensor::view).collect();
            let mut outputs = vec![Tensor::default(); program.outputs()];
            let run = || program.run_to(&mut Scratch::default(), &views, &mut outputs, context);
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(())) => return Ok(Ok(outputs)),
                Ok(Err(error @ RunError::TooSlow { .. })) => return Ok(Err(error)),
                Ok(Err(error)) => refused = refused.or(Some(error)),
                Err(panic) => return Err(LoadError::Panicked(panic_text(&*panic))),
            }
        }
    }
    Ok(Err(refused.unwrap_or(RunError::NoScores)))
}

/// What an output is: by what the operators say, by what was seen, and last by what is declared.
fn spec(
    program: &Program,
    index: usize,
    declared: &Declared,
    seen: &[Vec<Tensor>],
) -> Result<TensorSpec, LoadError> {
    let observed: Vec<&Tensor> = seen.iter().filter_map(|outputs| outputs.get(index)).collect();
    let fact = program.fact(index);
    let element = observed.first().map(|t| t.element_type()).or_else(|| fact.map(|f| f.element));
    let element = element
        .or(declared.element)
        .ok_or_else(|| malformed(format!("nothing tells the type of output `{}`", declared.name)))?;
    let stated = fact.and_then(|f| f.dims.as_ref());
    let dims: Option<Vec<Dim>> = match observed.split_first() {
        Some((first, others)) => {
            let stated = stated.filter(|s| s.len() == first.dims().len());
            let dims = first.dims().iter().enumerate().map(|(axis, size)| {
                let same = others.iter().all(|o| o.dims().get(axis) == Some(size));
                let in_file = declared.dims.as_ref().and_then(|dims| dims.get(axis));
                match stated.and_then(|s| s.get(axis)) {
                    Some(FactDim::Fixed(n)) => Dim::Fixed(*n),
                    Some(FactDim::Like { .. }) => Dim::Any,
                    // A size that depends on the values: what was seen proves nothing by itself.
                    Some(FactDim::Unknown) if same && in_file.and_then(DeclaredDim::fixed) == Some(*size) => {
                        Dim::Fixed(*size)
                    }
                    // No operator says anything: what never differed is what it was seen to be.
                    None if axis > 0 && same && !others.is_empty() => match in_file {
                        Some(DeclaredDim::Named(_)) => Dim::Any,
                        _ => Dim::Fixed(*size),
                    },
                    _ => Dim::Any,
                }
            });
            others.iter().all(|o| o.dims().len() == first.dims().len()).then(|| dims.collect())
        }
        None => stated.map(|dims| {
            let dim = |d: &FactDim| if let FactDim::Fixed(n) = d { Dim::Fixed(*n) } else { Dim::Any };
            dims.iter().map(dim).collect()
        }),
    };
    let spec = match dims {
        Some(dims) => TensorSpec::new(&declared.name, element, &dims),
        None => TensorSpec::of_any_shape(&declared.name, element),
    };
    Ok(match program.labels(index) {
        Some(labels) => spec.with_labels(labels.clone()),
        None => spec,
    })
}

fn has_open_inner(inputs: &[TensorSpec]) -> bool {
    inputs.iter().any(|spec| spec.dims().is_none_or(|d| d.iter().skip(1).any(|d| d.fixed().is_none())))
}

fn shape(spec: &TensorSpec, batch: usize, open: usize) -> Option<Shape> {
    let Some(dims) = spec.dims() else { return Some(Shape::matrix(batch, open)) };
    let size = |(axis, dim): (usize, &Dim)| dim.fixed().unwrap_or(if axis == 0 { batch } else { open });
    Shape::new(&dims.iter().enumerate().map(size).collect::<Vec<_>>())
}

fn value(element: ElementType, shape: Shape, ones: bool) -> Tensor {
    let mut tensor = Tensor::default();
    let one = u8::from(ones);
    match element {
        ElementType::F32 => tensor.reset::<f32>(shape).fill(f32::from(one)),
        ElementType::F64 => tensor.reset::<f64>(shape).fill(f64::from(one)),
        ElementType::I8 => tensor.reset::<i8>(shape).fill(i8::from(ones)),
        ElementType::I16 => tensor.reset::<i16>(shape).fill(i16::from(one)),
        ElementType::I32 => tensor.reset::<i32>(shape).fill(i32::from(one)),
        ElementType::I64 => tensor.reset::<i64>(shape).fill(i64::from(one)),
        ElementType::U8 => tensor.reset::<u8>(shape).fill(one),
        ElementType::U16 => tensor.reset::<u16>(shape).fill(u16::from(one)),
        ElementType::U32 => tensor.reset::<u32>(shape).fill(u32::from(one)),
        ElementType::U64 => tensor.reset::<u64>(shape).fill(u64::from(one)),
        ElementType::Bool => tensor.reset::<bool>(shape).fill(ones),
        ElementType::String => {
            tensor.reset::<String>(shape).fill(if ones { "1".to_owned() } else { String::new() });
        }
    }
    tensor
}
