//! What a check found, as text or as one JSON document.

use modelswap::{Dim, Labels, TensorSpec};
use serde_json::{Value, json};

use crate::Report;
use crate::samples::{Sample, Verdict};

pub(crate) fn print_text(checked: &Result<Report, String>) {
    let report = match checked {
        Ok(report) => report,
        Err(reason) => {
            println!("refused: {reason}");
            return;
        }
    };
    println!("format     {}", report.format);
    println!("engine     {}", report.engine);
    println!("signature  {}", report.signature);
    println!("load       {:.3} ms", report.load.as_secs_f64() * 1e3);
    let peak =
        report.peak.map_or_else(String::new, |bytes| format!(", {} kB at the peak of loading", bytes / 1024));
    println!("memory     {} kB{peak}", report.memory.div_ceil(1024));
    match &report.latency {
        Ok(latency) => println!("one row    {:.2} us", latency.as_secs_f64() * 1e6),
        Err(reason) => println!("one row    not measured: {reason}"),
    }
    for sample in &report.samples {
        let path = sample.path.display();
        match &sample.verdict {
            Verdict::Agrees if sample.not_compared.is_empty() => println!("{path}: agrees"),
            Verdict::Agrees => {
                println!("{path}: agrees; not in the samples: `{}`", sample.not_compared.join("`, `"));
            }
            Verdict::NothingToCompare => {
                println!("{path}: NOTHING TO COMPARE: the model ran, the samples have no outputs");
            }
            Verdict::Differs(differences) => {
                for (output, difference) in differences {
                    let output = if output.is_empty() { String::new() } else { format!("`{output}`: ") };
                    println!("{path}: DIFFERS: {output}{difference}");
                }
            }
            Verdict::Refused(reason) => println!("{path}: REFUSED: {reason}"),
        }
    }
}

pub(crate) fn print_json(checked: &Result<Report, String>) {
    let document = match checked {
        Ok(report) => document(report),
        Err(reason) => json!({"status": "refused", "reason": reason}),
    };
    println!("{document}");
}

fn document(report: &Report) -> Value {
    let specs = |specs: &[TensorSpec]| -> Vec<Value> {
        let dim = |d: &Dim| d.fixed().map_or(Value::Null, Value::from);
        let labels = |labels: &Labels| match labels {
            Labels::Ints(labels) => json!(labels),
            Labels::Strings(labels) => json!(labels),
            _ => Value::Null,
        };
        let spec = |spec: &TensorSpec| {
            json!({
                "labels": spec.labels().map(labels),
                "name": spec.name().as_ref(),
                "type": spec.element_type().name(),
                "shape": spec.dims().map(|dims| dims.iter().map(dim).collect::<Vec<_>>()),
            })
        };
        specs.iter().map(spec).collect()
    };
    let refused = report.samples.iter().find_map(|sample| match &sample.verdict {
        Verdict::Refused(reason) => Some(format!("{}: {reason}", sample.path.display())),
        Verdict::Agrees | Verdict::NothingToCompare | Verdict::Differs(_) => None,
    });
    let differs = report.samples.iter().any(|s| matches!(s.verdict, Verdict::Differs(_)));
    let nothing = report.samples.iter().any(|s| matches!(s.verdict, Verdict::NothingToCompare));
    let status = match (&refused, differs, nothing) {
        (Some(_), ..) => "refused",
        (None, true, _) => "differs",
        (None, false, true) => "nothing to compare",
        (None, false, false) => "agrees",
    };
    let mut document = json!({
        "status": status,
        "format": report.format,
        "engine": report.engine,
        "inputs": specs(report.signature.inputs()),
        "outputs": specs(report.signature.outputs()),
        "load_ms": report.load.as_secs_f64() * 1e3,
        "memory_bytes": report.memory,
        "load_peak_bytes": report.peak,
        "one_row_us": report.latency.as_ref().ok().map(|l| l.as_secs_f64() * 1e6),
        "samples": report.samples.iter().map(sample).collect::<Vec<_>>(),
    });
    if let (Some(reason), Value::Object(document)) = (refused, &mut document) {
        document.insert("reason".to_owned(), reason.into());
    }
    document
}

fn sample(sample: &Sample) -> Value {
    let differences = match &sample.verdict {
        Verdict::Differs(differences) => differences.as_slice(),
        Verdict::Agrees | Verdict::NothingToCompare | Verdict::Refused(_) => &[],
    };
    json!({
        "path": sample.path.display().to_string(),
        "agrees": matches!(sample.verdict, Verdict::Agrees),
        "refused": match &sample.verdict {
            Verdict::Refused(reason) => Some(reason),
            Verdict::Agrees | Verdict::NothingToCompare | Verdict::Differs(_) => None,
        },
        "not_compared": sample.not_compared,
        "differences": differences
            .iter()
            .map(|(output, text)| json!({"output": output, "difference": text}))
            .collect::<Vec<_>>(),
    })
}
