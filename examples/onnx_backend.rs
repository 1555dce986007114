//! Runs the ONNX project's own node tests and writes a page of how many pass, and why the others
//! don't: `onnx_backend TESTS.json DIRECTORY PAGE.md`. `tests/backend/run` prepares and calls it.
//!
//! Exit status 1 where a test of the `ai.onnx.ml` domain that has no map among its types fails.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use modelswap::load::{Formats, LoadOptions, Payload, Samples, compare};
use modelswap::{Tensor, TensorView};
use serde::Deserialize;

const TIME_LIMIT: Duration = Duration::from_secs(20);
/// The precision of the elements, where the test is of half floats; these are computed as `f32`.
const HALF_TOLERANCE: f64 = 2e-3;
const BFLOAT_TOLERANCE: f64 = 1e-2;

#[derive(Deserialize)]
struct Catalogue {
    onnx: String,
    tests: Vec<Case>,
}

#[derive(Clone, Deserialize)]
struct Case {
    name: String,
    domains: Vec<String>,
    ops: Vec<String>,
    has_map: bool,
    has_sequence: bool,
    has_optional: bool,
    inputs: BTreeMap<String, Option<String>>,
    outputs: BTreeMap<String, Option<String>>,
    rtol: f64,
    atol: f64,
}

impl Case {
    fn is_ml(&self) -> bool {
        self.domains.iter().any(|d| d == "ai.onnx.ml")
    }

    fn has_type(&self, wanted: &[&str]) -> bool {
        let mut types = self.inputs.values().chain(self.outputs.values()).flatten();
        types.any(|t| wanted.contains(&t.as_str()))
    }
}

/// What became of a test; the reason is short enough to count by.
enum Outcome {
    Passed,
    Failed { class: &'static str, reason: String },
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [catalogue, folder, page] = arguments.as_slice() else {
        eprintln!("usage: onnx_backend TESTS.json DIRECTORY PAGE.md");
        return ExitCode::from(2);
    };
    // Panics of an engine are caught by the crate and end up in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let text = std::fs::read(catalogue).expect("the catalogue of tests is readable");
    let catalogue: Catalogue = serde_json::from_slice(&text).expect("the catalogue is JSON");
    let outcomes: Vec<(Case, Outcome)> = catalogue
        .tests
        .iter()
        .map(|case| (case.clone(), run_limited(case.clone(), folder.join(&case.name))))
        .collect();
    std::fs::write(page, describe(&catalogue.onnx, &outcomes)).expect("the page can be written");
    let ml_failures: Vec<&str> = outcomes
        .iter()
        .filter(|(case, outcome)| case.is_ml() && !case.has_map && matches!(outcome, Outcome::Failed { .. }))
        .map(|(case, _)| case.name.as_str())
        .collect();
    for domain in [true, false] {
        let of_domain = outcomes.iter().filter(|(case, _)| case.is_ml() == domain);
        let (all, passed) = of_domain.fold((0, 0), |(all, passed), (_, outcome)| {
            (all + 1, passed + usize::from(matches!(outcome, Outcome::Passed)))
        });
        println!("{}: {passed} of {all} pass", if domain { "ai.onnx.ml" } else { "ai.onnx" });
    }
    if ml_failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("ai.onnx.ml tests without a map that fail: {}", ml_failures.join(", "));
    ExitCode::from(1)
}

fn run_limited(case: Case, folder: PathBuf) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || drop(sender.send(run(&case, &folder))));
    receiver.recv_timeout(TIME_LIMIT).unwrap_or_else(|_| failed("does not end", String::new()))
}

fn run(case: &Case, folder: &Path) -> Outcome {
    let bytes = match std::fs::read(folder.join("model.onnx")) {
        Ok(bytes) => bytes,
        Err(error) => return failed("the test is not readable", error.to_string()),
    };
    let payload = Payload::from(bytes);
    let formats = Formats::default();
    let loader = match formats.choose(Some("onnx"), &payload) {
        Ok(loader) => loader,
        Err(error) => return failed("not recognised", error.to_string()),
    };
    let model = match loader.load(payload, &LoadOptions::default()) {
        Ok(model) => model,
        Err(error) => return refused(case, error.to_string()),
    };
    let set = folder.join("test_data_set_0");
    let samples = match Samples::from_onnx_dir(&set, model.signature()) {
        Ok(samples) => samples,
        Err(error) => return refused(case, error.to_string()),
    };
    let inputs: Vec<TensorView<'_>> = samples.inputs().iter().map(|(_, tensor)| tensor.view()).collect();
    let mut outputs = vec![Tensor::default(); model.signature().outputs().len()];
    if let Err(error) = model.run(&inputs, &mut outputs) {
        return refused(case, error.to_string());
    }
    let least = if case.has_type(&["BFLOAT16"]) {
        BFLOAT_TOLERANCE
    } else if case.has_type(&["FLOAT16"]) {
        HALF_TOLERANCE
    } else {
        0.0
    };
    let tolerance = |stated: f64| stated.max(least);
    for (name, expected) in samples.outputs() {
        let index = model.signature().outputs().iter().position(|spec| **spec.name() == **name);
        let Some(found) = index.and_then(|i| outputs.get(i)) else {
            return failed("an output is missing", name.clone());
        };
        if let Err(difference) =
            compare(expected.view(), found.view(), tolerance(case.rtol), tolerance(case.atol))
        {
            return failed("another answer", format!("`{name}`: {difference}"));
        }
    }
    Outcome::Passed
}

/// A refusal, by the kind of the test where that explains it.
fn refused(case: &Case, reason: String) -> Outcome {
    let class = if case.has_map {
        "map-typed"
    } else if case.has_sequence || case.has_optional {
        "sequences and optionals"
    } else if case.has_type(&[
        "FLOAT8E4M3FN",
        "FLOAT8E4M3FNUZ",
        "FLOAT8E5M2",
        "FLOAT8E5M2FNUZ",
        "FLOAT8E8M0",
        "FLOAT4E2M1",
        "INT4",
        "UINT4",
        "INT2",
        "UINT2",
        "COMPLEX64",
        "COMPLEX128",
    ]) {
        "8-bit floats, 4-bit integers, complex numbers"
    } else if case
        .ops
        .iter()
        .any(|op| op.starts_with("Gradient") || op == "Adam" || op == "Adagrad" || op == "Momentum")
    {
        "training"
    } else if reason.contains("unsupported operator") {
        "operator not supported"
    } else if reason.contains("panicked") {
        "the engine panicked (caught)"
    } else {
        "refused"
    };
    failed(class, reason)
}

fn failed(class: &'static str, reason: String) -> Outcome {
    Outcome::Failed { class, reason }
}

fn describe(version: &str, outcomes: &[(Case, Outcome)]) -> String {
    let mut page = format!(
        "# The ONNX project's own node tests\n\n\
         Generated by `tests/backend/run`: the backend node tests of `onnx` {version}, each loaded and run as a\n\
         subscriber does. Half floats are computed as `f32`, and compared at {HALF_TOLERANCE:e} (float16) and\n\
         {BFLOAT_TOLERANCE:e} (bfloat16).\n\n\
         | domain | tests | pass |\n|---|---|---|\n"
    );
    for ml in [true, false] {
        let cases: Vec<_> = outcomes.iter().filter(|(case, _)| case.is_ml() == ml).collect();
        let passed = cases.iter().filter(|(_, o)| matches!(o, Outcome::Passed)).count();
        let _ = writeln!(page, "| {} | {} | {passed} |", domain(ml), cases.len());
    }
    for ml in [true, false] {
        let mut classes: BTreeMap<&str, Vec<(&Case, &str)>> = BTreeMap::new();
        for (case, outcome) in outcomes.iter().filter(|(case, _)| case.is_ml() == ml) {
            if let Outcome::Failed { class, reason } = outcome {
                classes.entry(class).or_default().push((case, reason));
            }
        }
        let _ = write!(page, "\n## Those of {} that don't pass\n", domain(ml));
        if classes.is_empty() {
            page.push_str("\nNone.\n");
        }
        for (class, cases) in classes {
            let _ = write!(page, "\n### {class}: {}\n\n| test | why |\n|---|---|\n", cases.len());
            for (case, reason) in cases {
                let _ = writeln!(page, "| `{}` | {} |", case.name, cell(reason));
            }
        }
    }
    page
}

const fn domain(ml: bool) -> &'static str {
    if ml { "`ai.onnx.ml`" } else { "the default domain" }
}

fn cell(reason: &str) -> String {
    let line = reason.replace('|', "\\|").replace('\n', " ");
    match line.char_indices().nth(160) {
        Some((end, _)) => format!("{}..", line.get(..end).unwrap_or(&line)),
        None => line,
    }
}
