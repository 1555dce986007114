//! One file's way: loaded as a subscriber would, and run.

use modelswap::load::{Formats, LoadOptions, Model, Payload};
use modelswap::{Dim, ElementType, Tensor, TensorView};

/// What a model may take while it loads and in a run.
const MEMORY_BUDGET: u64 = 256 << 20;
/// What it may take that is to be refused for what it is asked.
pub(crate) const SMALL_BUDGET: u64 = 128 << 20;

/// What an input is filled with: sizes, counts and indices of models whose shapes values tell.
pub(crate) const VALUES: [f64; 16] = [
    0.0,
    1.0,
    -1.0,
    2.0,
    7.0,
    63.0,
    64.0,
    1e3,
    1e5,
    1e7,
    4e9,
    1e12,
    -1e12,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];

/// A model of the bytes, where they are one.
pub(crate) fn load(
    bytes: Vec<u8>,
    format: Option<&str>,
    memory_budget: u64,
) -> Option<std::sync::Arc<dyn Model>> {
    let mut options = LoadOptions::default();
    options.memory_budget = memory_budget;
    let payload = Payload::from(bytes);
    let formats = Formats::default();
    let loader = formats.choose(None, &payload).or_else(|error| match format {
        Some(format) => formats.choose(Some(format), &payload),
        None => Err(error),
    });
    loader.ok()?.load(payload, &options).ok()
}

/// Loads the bytes and scores two rows with what loads.
pub(crate) fn attempt(bytes: Vec<u8>, format: Option<&str>) -> bool {
    let Some(model) = load(bytes, format, MEMORY_BUDGET) else { return false };
    for rows in [1, 2] {
        run(&*model, rows, 0.5);
    }
    true
}

/// An error is as good as an answer here; a panic would end the child.
pub(crate) fn run(model: &dyn Model, rows: usize, value: f64) {
    let inputs: Option<Vec<Tensor>> = model
        .signature()
        .inputs()
        .iter()
        .map(|spec| {
            let fixed = |(axis, dim): (usize, &Dim)| dim.fixed().unwrap_or(if axis == 0 { rows } else { 3 });
            let dims: Vec<usize> = spec.dims()?.iter().enumerate().map(fixed).collect();
            // Values, not shapes, are what is tried here.
            input(spec.element_type(), &dims, value)
        })
        .collect();
    let Some(inputs) = inputs else { return };
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let mut outputs = vec![Tensor::default(); model.signature().outputs().len()];
    drop(model.run(&views, &mut outputs));
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the nearest is as good")]
fn input(element: ElementType, dims: &[usize], value: f64) -> Option<Tensor> {
    let elements: usize = dims.iter().product();
    if elements > 1 << 24 {
        return None;
    }
    match element {
        ElementType::F32 => Tensor::new(dims, vec![value as f32; elements]),
        ElementType::F64 => Tensor::new(dims, vec![value; elements]),
        ElementType::I32 => Tensor::new(dims, vec![value as i32; elements]),
        ElementType::I64 => Tensor::new(dims, vec![value as i64; elements]),
        ElementType::Bool => Tensor::new(dims, vec![value != 0.0; elements]),
        ElementType::String => Tensor::new(dims, vec![text(value); elements]),
        _ => return None,
    }
    .ok()
}

/// A text for a value: a long one for those that no size can be.
fn text(value: f64) -> String {
    if value.is_finite() { format!("{value}") } else { "ab,".repeat(10_000) }
}
