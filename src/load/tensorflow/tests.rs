//! TensorFlow's models of the zoo, in every form that they can be published in.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{freeze_saved_model, pack_saved_model};
use crate::load::{Formats, LoadOptions, Model, Payload, Samples, compare};
use crate::tensor::{Tensor, TensorView};

#[derive(Debug, Deserialize)]
struct Entry {
    name: String,
    file: String,
    format: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    signature: Option<String>,
    rtol: f64,
    atol: f64,
    batches: Vec<usize>,
}

fn zoo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo")
}

fn entries(format: &str) -> Vec<Entry> {
    let text = std::fs::read(zoo().join("zoo.json")).unwrap();
    let all: Vec<Entry> = serde_json::from_slice(&text).unwrap();
    let only = std::env::var("ZOO").ok();
    all.into_iter()
        .filter(|e| e.format == format && only.as_ref().is_none_or(|only| e.name.contains(only)))
        .collect()
}

impl Entry {
    fn path(&self) -> PathBuf {
        zoo().join(&self.name).join(&self.file)
    }

    fn options(&self) -> LoadOptions {
        LoadOptions {
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            signature: self.signature.clone(),
            ..LoadOptions::default()
        }
    }

    fn check(&self, bytes: Vec<u8>, options: &LoadOptions) -> Result<(), String> {
        let payload = Payload::from(bytes);
        let formats = Formats::default();
        let loader = formats.choose(None, &payload).map_err(|e| e.to_string())?;
        let model = loader.load(payload, options).map_err(|e| e.to_string())?;
        for batch in &self.batches {
            let folder = zoo().join(&self.name).join(format!("batch_{batch}"));
            let samples = Samples::from_onnx_dir(&folder, model.signature()).map_err(|e| e.to_string())?;
            self.agree(&*model, &samples).map_err(|e| format!("batch {batch}: {e}"))?;
        }
        Ok(())
    }

    fn agree(&self, model: &dyn Model, samples: &Samples) -> Result<(), String> {
        let inputs: Vec<TensorView<'_>> = samples.inputs().iter().map(|(_, t)| t.view()).collect();
        let mut outputs = vec![Tensor::default(); model.signature().outputs().len()];
        model.run(&inputs, &mut outputs).map_err(|e| e.to_string())?;
        let specs = model.signature().outputs();
        for (name, expected) in samples.outputs() {
            let found = specs.iter().zip(&outputs).find(|(spec, _)| **spec.name() == **name);
            let (spec, found) = found.ok_or_else(|| format!("no output `{name}`"))?;
            compare(expected.view(), found.view(), self.rtol, self.atol)
                .map_err(|e| format!("`{name}`: {e}"))?;
            if found.element_type() != spec.element_type() || !spec.accepts(found.shape()) {
                return Err(format!("the output `{name}` is {spec}, found {found:?}"));
            }
        }
        Ok(())
    }
}

fn report(failures: &mut Vec<String>, entry: &Entry, form: &str, outcome: Result<(), String>) {
    if let Err(reason) = outcome {
        failures.push(format!("{} ({form}): {reason}", entry.name));
    }
}

#[test]
fn every_frozen_graph_of_the_zoo_answers_as_tensorflow_does() {
    let mut failures = Vec::new();
    for entry in entries("graphdef") {
        let bytes = std::fs::read(entry.path()).unwrap();
        report(&mut failures, &entry, "file", entry.check(bytes, &entry.options()));
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_saved_model_of_the_zoo_answers_as_tensorflow_does() {
    let mut failures = Vec::new();
    for entry in entries("saved_model") {
        let packed = pack_saved_model(&entry.path()).unwrap();
        report(&mut failures, &entry, "tar", entry.check(packed, &entry.options()));
        let frozen = match freeze_saved_model(&entry.path(), &entry.options()) {
            Ok(frozen) => entry.check(frozen, &LoadOptions::default()),
            Err(error) => Err(error.to_string()),
        };
        report(&mut failures, &entry, "frozen", frozen);
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}
