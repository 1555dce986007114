//! Loads a model file exactly as a subscriber would, says what it is, and compares what it answers
//! with samples.
//!
//! Exit status: 0 all samples agree; 1 a value differs, or samples have no outputs to compare with;
//! 2 the model is refused, or samples are, which cannot be read or do not fit the model.

mod report;
mod samples;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use modelswap::load::{Formats, LoadError, LoadOptions, Model, Payload, warm_up};
use modelswap::{Dim, ElementType, Signature, Tensor, TensorView};
use samples::{Sample, Tolerance, Verdict, expand, run};

#[derive(Parser)]
#[command(about = "Load a model as a subscriber would, and compare it with samples")]
struct Arguments {
    /// A model file, or a TensorFlow SavedModel directory.
    model: PathBuf,
    /// A JSON file `{"inputs": {..}, "outputs": {..}}`, or a directory of `input_0.pb`, `output_0.pb`, ..
    #[arg(long, value_name = "PATH")]
    samples: Vec<PathBuf>,
    /// The inputs that the model is to have, by name.
    #[arg(long, value_delimiter = ',')]
    inputs: Vec<String>,
    /// The outputs to compute, by name.
    #[arg(long, value_delimiter = ',')]
    outputs: Vec<String>,
    /// The signature of a SavedModel.
    #[arg(long)]
    signature: Option<String>,
    /// The format, where the content should not decide.
    #[arg(long)]
    format: Option<String>,
    /// Tolerance relative to the expected value [default: what the samples say, or 1e-4].
    #[arg(long)]
    rtol: Option<f64>,
    /// Absolute tolerance [default: what the samples say, or 1e-5].
    #[arg(long)]
    atol: Option<f64>,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// What a run found out.
struct Report {
    format: String,
    engine: &'static str,
    signature: Signature,
    load: Duration,
    /// Bytes that the model holds, by its own estimate.
    memory: usize,
    /// By how many bytes the process grew while it loaded, at its peak.
    peak: Option<u64>,
    /// The median of one-row calls.
    latency: Result<Duration, String>,
    samples: Vec<Sample>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let checked = check(&arguments);
    if arguments.json {
        report::print_json(&checked);
    } else {
        report::print_text(&checked);
    }
    let status = |verdict: &Verdict| match verdict {
        Verdict::Agrees => 0,
        Verdict::NothingToCompare | Verdict::Differs(_) => 1,
        Verdict::Refused(_) => 2,
    };
    let worst = |report: Report| report.samples.iter().map(|s| status(&s.verdict)).max();
    ExitCode::from(checked.map_or(2, |report| worst(report).unwrap_or(0)))
}

fn check(arguments: &Arguments) -> Result<Report, String> {
    let mut options = LoadOptions::default();
    options.inputs.clone_from(&arguments.inputs);
    options.outputs.clone_from(&arguments.outputs);
    options.signature.clone_from(&arguments.signature);

    let before = resident_bytes();
    reset_peak();
    let payload = read(&arguments.model, &options)?;
    let mut started = Instant::now();
    let formats = Formats::default();
    let stated = arguments.format.as_deref();
    let format = formats.choose(stated, &payload).map_err(|e| e.to_string())?.format().to_owned();
    let model = match formats.load(stated, payload, &options) {
        Err(LoadError::ExternalData { .. }) if arguments.model.is_file() => {
            let whole = with_external_data(&arguments.model)?;
            started = Instant::now();
            formats.load(stated, whole, &options)
        }
        loaded => loaded,
    };
    let model = model.map_err(|e| e.to_string())?;
    let load = started.elapsed();
    let peak = peak_bytes().zip(before).map(|(peak, before)| peak.saturating_sub(before));

    if arguments.samples.is_empty() {
        warm_up(&*model).map_err(|e| e.to_string())?;
    }
    let tolerance = Tolerance { relative: arguments.rtol, absolute: arguments.atol };
    let paths = arguments.samples.iter().flat_map(|path| expand(path));
    let samples: Vec<Sample> = paths.map(|path| Sample::of(&*model, path, tolerance)).collect();
    let row = samples.iter().find_map(|sample| sample.first_row.clone());
    let row = row.or_else(|| neutral_row(model.signature()));
    Ok(Report {
        format,
        engine: model.engine(),
        signature: model.signature().clone(),
        load,
        memory: model.memory(),
        peak,
        latency: row.map_or_else(|| Err("no row to try".to_owned()), |row| latency(&*model, &row)),
        samples,
    })
}

/// The artifact as it would come off the topic: the file in pieces, a SavedModel frozen.
fn read(path: &Path, options: &LoadOptions) -> Result<Payload, String> {
    if path.is_dir() {
        return freeze(path, options);
    }
    let mut file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut chunks = Vec::new();
    loop {
        let mut chunk = Vec::with_capacity(900_000);
        std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, 900_000), &mut chunk)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        if chunk.is_empty() {
            return Ok(Payload::from_chunks(chunks));
        }
        chunks.push(Bytes::from(chunk));
    }
}

/// An ONNX file with the tensors in it that its exporter wrote beside it, as `publish` ships it.
#[cfg(feature = "onnx")]
fn with_external_data(path: &Path) -> Result<Payload, String> {
    modelswap::load::inline_external_data(path).map_err(|e| e.to_string())
}

#[cfg(not(feature = "onnx"))]
fn with_external_data(_path: &Path) -> Result<Payload, String> {
    Err("ONNX files need the feature `onnx`".to_owned())
}

#[cfg(feature = "tensorflow")]
fn freeze(directory: &Path, options: &LoadOptions) -> Result<Payload, String> {
    let frozen = modelswap::load::freeze_saved_model(directory, options).map_err(|e| e.to_string())?;
    Ok(Payload::from(frozen))
}

#[cfg(not(feature = "tensorflow"))]
fn freeze(directory: &Path, _options: &LoadOptions) -> Result<Payload, String> {
    Err(format!("{} is a directory; SavedModels need the feature `tensorflow`", directory.display()))
}

/// A row of zeros, where the shapes say how long it is.
fn neutral_row(signature: &Signature) -> Option<Vec<Tensor>> {
    signature
        .inputs()
        .iter()
        .map(|spec| {
            let dims: Vec<usize> =
                spec.dims()?.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 }).collect();
            let elements = dims.iter().product();
            match spec.element_type() {
                ElementType::F32 => Tensor::new(&dims, vec![0.0_f32; elements]),
                ElementType::F64 => Tensor::new(&dims, vec![0.0_f64; elements]),
                ElementType::I32 => Tensor::new(&dims, vec![0_i32; elements]),
                ElementType::I64 => Tensor::new(&dims, vec![0_i64; elements]),
                ElementType::Bool => Tensor::new(&dims, vec![false; elements]),
                ElementType::String => Tensor::new(&dims, vec![String::new(); elements]),
                _ => return None,
            }
            .ok()
        })
        .collect()
}

/// The median of as many calls as fit into a fifth of a second.
fn latency(model: &dyn Model, row: &[Tensor]) -> Result<Duration, String> {
    let inputs: Vec<TensorView<'_>> = row.iter().map(Tensor::view).collect();
    let mut outputs = vec![Tensor::default(); model.signature().outputs().len()];
    let mut times = Vec::new();
    let started = Instant::now();
    while times.is_empty() || (started.elapsed() < Duration::from_millis(200) && times.len() < 10_000) {
        let call = Instant::now();
        run(model, &inputs, &mut outputs)?;
        times.push(call.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

/// Lets the kernel count the peak anew, so that it is that of loading.
fn reset_peak() {
    // Refused outside Linux and in some containers; the figure is then an upper bound.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

fn peak_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

fn resident_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

fn status_bytes(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kb| kb * 1024)
}
