//! Loads a model as a subscriber would, and compares what it answers with its samples.

use std::path::Path;
use std::sync::Arc;

use modelswap::load::{
    Formats, LoadOptions, Model, Payload, Samples, compare, freeze_saved_model, pack_saved_model,
};
use modelswap::{Tensor, TensorView};

use crate::catalogue::Entry;

/// The sizes of the pieces in which a batch is scored beside the whole.
const PIECES: [usize; 2] = [1, 7];

/// What became of a model.
#[derive(Debug)]
pub(crate) enum Outcome {
    Agrees { engine: &'static str },
    Refused(String),
    Differs(String),
}

pub(crate) fn score(entry: &Entry) -> Outcome {
    let model = match load(entry) {
        Ok(model) => model,
        Err(reason) => return Outcome::Refused(reason),
    };
    for (rows, folder) in entry.samples() {
        if let Err(difference) = score_batch(&*model, entry, rows, &folder) {
            return Outcome::Differs(format!("batch of {rows}: {difference}"));
        }
    }
    Outcome::Agrees { engine: model.engine() }
}

fn load(entry: &Entry) -> Result<Arc<dyn Model>, String> {
    let mut options = LoadOptions::default();
    options.signature.clone_from(&entry.signature);
    let path = entry.model();
    if path.is_dir() {
        // A tar of the directory is a format of its own; what a publisher ships is the frozen graph.
        let packed = pack_saved_model(&path).map_err(|e| e.to_string())?;
        load_bytes(packed, &options)?;
        let frozen = freeze_saved_model(&path, &options).map_err(|e| e.to_string())?;
        return load_bytes(frozen, &options);
    }
    options.inputs.clone_from(&entry.inputs);
    options.outputs.clone_from(&entry.outputs);
    load_bytes(std::fs::read(&path).map_err(|e| e.to_string())?, &options)
}

fn load_bytes(bytes: Vec<u8>, options: &LoadOptions) -> Result<Arc<dyn Model>, String> {
    let payload = Payload::from(bytes);
    let formats = Formats::default();
    let loader = formats.choose(None, &payload).map_err(|e| e.to_string())?;
    loader.load(payload, options).map_err(|e| e.to_string())
}

fn score_batch(model: &dyn Model, entry: &Entry, rows: usize, folder: &Path) -> Result<(), String> {
    let samples = Samples::from_onnx_dir(folder, model.signature()).map_err(|e| e.to_string())?;
    let inputs: Vec<TensorView<'_>> = samples.inputs().iter().map(|(_, tensor)| tensor.view()).collect();
    check_inputs(model, &inputs)?;
    let expected: Vec<TensorView<'_>> = samples.outputs().iter().map(|(_, tensor)| tensor.view()).collect();
    if expected.len() != model.signature().outputs().len() {
        return Err(format!("there are samples of {} outputs", expected.len()));
    }
    run(model, entry, &inputs, &expected)?;
    let is_batch = |tensor: &TensorView<'_>| tensor.dims().first() == Some(&rows);
    let open = |size: usize| {
        model.signature().inputs().iter().all(|spec| {
            spec.dims().is_none_or(|dims| dims.first().is_some_and(|d| d.fixed().is_none_or(|n| n == size)))
        })
    };
    if rows < 64 || !inputs.iter().chain(&expected).all(is_batch) {
        return Ok(());
    }
    for size in PIECES.into_iter().filter(|size| open(*size)) {
        for start in (0..rows).step_by(size) {
            let range = start..(start + size).min(rows);
            let inputs: Vec<_> = inputs.iter().filter_map(|t| t.rows(range.clone())).collect();
            let expected: Vec<_> = expected.iter().filter_map(|t| t.rows(range.clone())).collect();
            run(model, entry, &inputs, &expected).map_err(|e| format!("rows {range:?}: {e}"))?;
        }
    }
    Ok(())
}

fn check_inputs(model: &dyn Model, inputs: &[TensorView<'_>]) -> Result<(), String> {
    for (spec, input) in model.signature().inputs().iter().zip(inputs) {
        if spec.element_type() != input.element_type() || !spec.accepts(input.shape()) {
            return Err(format!("input `{}` is {spec}, the sample is {input:?}", spec.name()));
        }
    }
    Ok(())
}

fn run(
    model: &dyn Model,
    entry: &Entry,
    inputs: &[TensorView<'_>],
    expected: &[TensorView<'_>],
) -> Result<(), String> {
    let mut outputs = vec![Tensor::default(); expected.len()];
    model.run(inputs, &mut outputs).map_err(|e| e.to_string())?;
    for ((spec, found), expected) in model.signature().outputs().iter().zip(&outputs).zip(expected) {
        compare(*expected, found.view(), entry.rtol, entry.atol)
            .map_err(|e| format!("output `{}`: {e}", spec.name()))?;
        if found.element_type() != spec.element_type() || !spec.accepts(found.shape()) {
            return Err(format!("output `{}` is {spec}, found {found:?}", spec.name()));
        }
    }
    Ok(())
}
