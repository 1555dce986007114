//! Loads a model file exactly as a subscriber would, says what it is, and compares what it answers
//! with samples.
//!
//! Exit status: 0 all samples agree, 1 a value differs, 2 the model is refused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use modelswap::load::{Formats, LoadError, LoadOptions, Model, Payload, Samples, compare, warm_up};
use modelswap::{Dim, ElementType, Signature, Tensor, TensorView};
use serde_json::{Value, json};

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

struct Sample {
    path: PathBuf,
    /// Differences, by output; a sample that could not be run has one without a name.
    differences: Vec<(String, String)>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match check(&arguments) {
        Ok(report) => {
            let agrees = report.samples.iter().all(|s| s.differences.is_empty());
            if arguments.json {
                print_json(&report);
            } else {
                print_text(&report);
            }
            if agrees { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(reason) => {
            if arguments.json {
                println!("{}", json!({"status": "refused", "reason": reason}));
            } else {
                println!("refused: {reason}");
            }
            ExitCode::from(2)
        }
    }
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
    let mut samples = Vec::new();
    let mut first_row = None;
    for path in &arguments.samples {
        for path in expand(path) {
            let read =
                read_samples(&path, model.signature()).map_err(|e| format!("{}: {e}", path.display()))?;
            first_row = first_row.or_else(|| one_row(read.inputs().iter().map(|(_, t)| t)));
            let tolerance = tolerance(&path, arguments)?;
            samples.push(Sample { differences: differences(&*model, &read, tolerance), path });
        }
    }
    let row = first_row.or_else(|| neutral_row(model.signature()));
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

/// A directory of several test data sets stands for all of them.
fn expand(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() || path.join("input_0.pb").exists() {
        return vec![path.to_owned()];
    }
    let mut sets: Vec<PathBuf> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|set| set.join("input_0.pb").exists())
        .collect();
    sets.sort();
    if sets.is_empty() { vec![path.to_owned()] } else { sets }
}

fn read_samples(path: &Path, signature: &Signature) -> Result<Samples, String> {
    if path.is_dir() {
        return Samples::from_onnx_dir(path, signature).map_err(|e| e.to_string());
    }
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    Samples::from_json(&text, signature).map_err(|e| e.to_string())
}

/// How far a value may be off, relatively and absolutely: as the arguments say, or the samples, whose
/// `rtol` and `atol` a subscriber goes by.
fn tolerance(path: &Path, arguments: &Arguments) -> Result<(f64, f64), String> {
    let text = if path.is_dir() { Vec::new() } else { std::fs::read(path).map_err(|e| e.to_string())? };
    // Samples with a bare NaN are no JSON: they have no tolerance of their own.
    let samples: Value = serde_json::from_slice(&text).unwrap_or_default();
    let stated = |name: &str, default: f64| match samples.get(name) {
        None => Ok(default),
        Some(value) => value
            .as_f64()
            .filter(|t| *t >= 0.0)
            .ok_or_else(|| format!("{}: `{name}`: expected a number from 0, found {value}", path.display())),
    };
    let or_stated = |given: Option<f64>, name, default| given.map_or_else(|| stated(name, default), Ok);
    Ok((or_stated(arguments.rtol, "rtol", 1e-4)?, or_stated(arguments.atol, "atol", 1e-5)?))
}

fn differences(model: &dyn Model, samples: &Samples, (rtol, atol): (f64, f64)) -> Vec<(String, String)> {
    let signature = model.signature();
    for ((name, tensor), spec) in samples.inputs().iter().zip(signature.inputs()) {
        if tensor.element_type() != spec.element_type() || !spec.accepts(tensor.shape()) {
            let found = format!("{}{}", tensor.element_type(), tensor.shape());
            return vec![(name.clone(), format!("expected an input {spec}, found {found}"))];
        }
    }
    let inputs: Vec<TensorView<'_>> = samples.inputs().iter().map(|(_, tensor)| tensor.view()).collect();
    let mut outputs = vec![Tensor::default(); signature.outputs().len()];
    if let Err(reason) = run(model, &inputs, &mut outputs) {
        return vec![(String::new(), reason)];
    }
    let found = |name: &str| {
        let index = signature.outputs().iter().position(|spec| **spec.name() == *name)?;
        outputs.get(index)
    };
    samples
        .outputs()
        .iter()
        .filter_map(|(name, expected)| {
            let difference = match found(name) {
                Some(found) => compare(expected.view(), found.view(), rtol, atol).err()?.to_string(),
                None => "the model has no such output".to_owned(),
            };
            Some((name.clone(), difference))
        })
        .collect()
}

/// The first row of a sample.
fn one_row<'a>(inputs: impl Iterator<Item = &'a Tensor>) -> Option<Vec<Tensor>> {
    inputs.map(|tensor| tensor.view().rows(0..1).map(|row| row.to_tensor())).collect()
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

/// Runs the model; a panic in it is an error, as it is to a subscriber.
fn run(model: &dyn Model, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| model.run(inputs, outputs))) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the model panicked".to_owned()),
    }
}

fn print_text(report: &Report) {
    println!("format     {}", report.format);
    println!("engine     {}", report.engine);
    println!("signature  {}", report.signature);
    println!("load       {:.3} ms", report.load.as_secs_f64() * 1e3);
    let peak =
        report.peak.map_or_else(String::new, |bytes| format!(", {} kB at the peak of loading", bytes / 1024));
    println!("memory     {} kB{peak}", report.memory / 1024);
    match &report.latency {
        Ok(latency) => println!("one row    {:.2} us", latency.as_secs_f64() * 1e6),
        Err(reason) => println!("one row    not measured: {reason}"),
    }
    for sample in &report.samples {
        if sample.differences.is_empty() {
            println!("{}: agrees", sample.path.display());
        }
        for (output, difference) in &sample.differences {
            let output = if output.is_empty() { String::new() } else { format!("`{output}`: ") };
            println!("{}: DIFFERS: {output}{difference}", sample.path.display());
        }
    }
}

fn print_json(report: &Report) {
    let specs = |specs: &[modelswap::TensorSpec]| -> Vec<Value> {
        let dim = |d: &Dim| d.fixed().map_or(Value::Null, Value::from);
        let spec = |spec: &modelswap::TensorSpec| {
            json!({
                "name": spec.name().as_ref(),
                "type": spec.element_type().name(),
                "shape": spec.dims().map(|dims| dims.iter().map(dim).collect::<Vec<_>>()),
            })
        };
        specs.iter().map(spec).collect()
    };
    let samples = report.samples.iter().map(|sample| {
        let differences = sample.differences.iter();
        json!({
            "path": sample.path.display().to_string(),
            "agrees": sample.differences.is_empty(),
            "differences": differences
                .map(|(output, text)| json!({"output": output, "difference": text}))
                .collect::<Vec<_>>(),
        })
    });
    let agrees = report.samples.iter().all(|s| s.differences.is_empty());
    let document = json!({
        "status": if agrees { "agrees" } else { "differs" },
        "format": report.format,
        "engine": report.engine,
        "inputs": specs(report.signature.inputs()),
        "outputs": specs(report.signature.outputs()),
        "load_ms": report.load.as_secs_f64() * 1e3,
        "memory_bytes": report.memory,
        "load_peak_bytes": report.peak,
        "one_row_us": report.latency.as_ref().ok().map(|l| l.as_secs_f64() * 1e6),
        "samples": samples.collect::<Vec<_>>(),
    });
    println!("{document}");
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
