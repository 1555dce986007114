//! What a model answers to samples, beside what they say it should.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use modelswap::load::{Model, Samples, compare};
use modelswap::{Signature, Tensor, TensorView};
use serde_json::Value;

/// One file or directory of samples, and what became of it.
pub(crate) struct Sample {
    pub(crate) path: PathBuf,
    pub(crate) verdict: Verdict,
    /// Outputs of the model that the samples do not have.
    pub(crate) not_compared: Vec<String>,
    /// The first row of its inputs.
    pub(crate) first_row: Option<Vec<Tensor>>,
}

pub(crate) enum Verdict {
    Agrees,
    /// The model ran, but the samples say nothing of what it should have answered.
    NothingToCompare,
    /// Differences, by output; a model that could not be run has one without a name.
    Differs(Vec<(String, String)>),
    /// The samples cannot be read, or are not of this model.
    Refused(String),
}

/// Tolerances that the samples do not decide.
#[derive(Clone, Copy)]
pub(crate) struct Tolerance {
    pub(crate) relative: Option<f64>,
    pub(crate) absolute: Option<f64>,
}

impl Sample {
    pub(crate) fn of(model: &dyn Model, path: PathBuf, tolerance: Tolerance) -> Self {
        let mut sample = Self { verdict: Verdict::Agrees, not_compared: Vec::new(), first_row: None, path };
        let read = read(&sample.path, model.signature()).and_then(|samples| {
            fits(&samples, model.signature())?;
            Ok((samples, tolerance.for_samples(&sample.path)?))
        });
        let (samples, tolerance) = match read {
            Ok(read) => read,
            Err(reason) => return Self { verdict: Verdict::Refused(reason), ..sample },
        };
        sample.first_row =
            samples.inputs().iter().map(|(_, t)| t.view().rows(0..1).map(|row| row.to_tensor())).collect();
        let given = |name: &str| samples.outputs().iter().any(|(known, _)| known == name);
        sample.not_compared =
            model.signature().outputs().iter().map(|spec| spec.name().to_string()).collect();
        sample.not_compared.retain(|name| !given(name));
        sample.verdict = match differences(model, &samples, tolerance) {
            found if !found.is_empty() => Verdict::Differs(found),
            _ if samples.outputs().is_empty() => Verdict::NothingToCompare,
            _ => Verdict::Agrees,
        };
        sample
    }
}

/// A directory of several test data sets stands for all of them.
pub(crate) fn expand(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() || is_set(path) {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).into_iter().flatten();
    let mut sets: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|set| is_set(set)).collect();
    // `test_data_set_10` comes after `test_data_set_9`.
    sets.sort_by_key(|set| (set.as_os_str().len(), set.clone()));
    if sets.is_empty() { vec![path.to_owned()] } else { sets }
}

/// Whether a directory holds tensors, or has the name of a data set that should.
fn is_set(path: &Path) -> bool {
    let has_tensors = |path: &Path| {
        fs::read_dir(path).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.ends_with(".pb") && (name.starts_with("input_") || name.starts_with("output_"))
        })
    };
    let named = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("test_data_set_"))
    };
    path.is_dir() && (named(path) || has_tensors(path))
}

fn read(path: &Path, signature: &Signature) -> Result<Samples, String> {
    if path.is_dir() {
        return Samples::from_onnx_dir(path, signature).map_err(|e| e.to_string());
    }
    if path.extension().is_some_and(|extension| extension == "pb") {
        return Err("one tensor; expected JSON, or the directory that the tensors are in".to_owned());
    }
    let text = fs::read(path).map_err(|e| e.to_string())?;
    Samples::from_json(&text, signature).map_err(|e| e.to_string())
}

/// The inputs have to be of the types and shapes that the model takes.
fn fits(samples: &Samples, signature: &Signature) -> Result<(), String> {
    for ((name, tensor), spec) in samples.inputs().iter().zip(signature.inputs()) {
        if tensor.element_type() != spec.element_type() || !spec.accepts(tensor.shape()) {
            let found = format!("{}{}", tensor.element_type(), tensor.shape());
            return Err(format!("input `{name}`: expected {spec}, found {found}"));
        }
    }
    Ok(())
}

impl Tolerance {
    /// How far a value may be off, relatively and absolutely: as the arguments say, or the samples,
    /// whose `rtol` and `atol` a subscriber goes by.
    fn for_samples(self, path: &Path) -> Result<(f64, f64), String> {
        let text = if path.is_dir() { Vec::new() } else { fs::read(path).map_err(|e| e.to_string())? };
        // Samples with a bare NaN are no JSON: they have no tolerance of their own.
        let samples: Value = serde_json::from_slice(&text).unwrap_or_default();
        let stated = |name: &str, default: f64| match samples.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|t| *t >= 0.0)
                .ok_or_else(|| format!("`{name}`: expected a number from 0, found {value}")),
        };
        let or_stated = |given: Option<f64>, name, default| given.map_or_else(|| stated(name, default), Ok);
        Ok((or_stated(self.relative, "rtol", 1e-4)?, or_stated(self.absolute, "atol", 1e-5)?))
    }
}

fn differences(model: &dyn Model, samples: &Samples, (rtol, atol): (f64, f64)) -> Vec<(String, String)> {
    let signature = model.signature();
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

/// Runs the model; a panic in it is an error, as it is to a subscriber.
pub(crate) fn run(
    model: &dyn Model,
    inputs: &[TensorView<'_>],
    outputs: &mut [Tensor],
) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| model.run(inputs, outputs))) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the model panicked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use modelswap::load::{Formats, LoadOptions, Payload};

    use super::*;

    /// Local outlier factor of the zoo: labels and scores.
    fn model() -> Arc<dyn Model> {
        let file = fs::read(zoo().join("model.onnx")).unwrap();
        Formats::default().load(None, Payload::from(file), &LoadOptions::default()).unwrap()
    }

    fn zoo() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo/sk_lof")
    }

    /// A data set with these of the zoo's files.
    fn set(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::copy(zoo().join("batch_64").join(file), folder.path().join(file)).unwrap();
        }
        folder
    }

    fn sample(path: &Path) -> Sample {
        Sample::of(&*model(), path.to_owned(), Tolerance { relative: None, absolute: None })
    }

    fn refusal(path: &Path) -> String {
        match sample(path).verdict {
            Verdict::Refused(reason) => reason,
            Verdict::Agrees | Verdict::NothingToCompare | Verdict::Differs(_) => String::new(),
        }
    }

    #[test]
    fn a_whole_set_agrees_and_a_part_of_one_says_what_it_lacks() {
        let whole = sample(set(&["input_0.pb", "output_0.pb", "output_1.pb"]).path());
        assert!(matches!(whole.verdict, Verdict::Agrees), "{:?}", whole.not_compared);
        assert!(whole.not_compared.is_empty());
        let part = sample(set(&["input_0.pb", "output_1.pb"]).path());
        assert!(matches!(part.verdict, Verdict::Agrees));
        assert_eq!(part.not_compared, ["label"]);
    }

    #[test]
    fn samples_without_outputs_agree_with_nothing() {
        let folder = set(&["input_0.pb"]);
        assert!(matches!(sample(folder.path()).verdict, Verdict::NothingToCompare));
        let samples = Samples::from_onnx_dir(folder.path(), model().signature()).unwrap();
        let file = folder.path().join("samples.json");
        fs::write(&file, samples.to_json()).unwrap();
        assert!(matches!(sample(&file).verdict, Verdict::NothingToCompare));
    }

    #[test]
    fn samples_that_cannot_be_read_are_refused_with_the_file() {
        let folder = set(&["input_0.pb", "output_0.pb"]);
        let file = folder.path().join("output_0.pb");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(refusal(folder.path()).contains("output_0.pb"), "{}", refusal(folder.path()));
        assert!(refusal(set(&["output_0.pb"]).path()).contains("no input_0.pb"));
        assert!(refusal(tempfile::tempdir().unwrap().path()).contains("no input_0.pb"));
    }

    #[test]
    fn inputs_that_the_model_does_not_take_are_refused_with_what_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("samples.json");
        fs::write(&file, r#"{"inputs": {"X": [[1.0, 2.0]]}, "outputs": {"label": [1]}}"#).unwrap();
        assert!(refusal(&file).contains("expected"), "{}", refusal(&file));
        let other = tempfile::tempdir().unwrap();
        let input = fs::read(zoo().join("batch_64/output_1.pb")).unwrap();
        fs::write(other.path().join("input_0.pb"), input).unwrap();
        assert!(refusal(other.path()).starts_with("input `X`: expected f32[?,"), "{}", refusal(other.path()));
        fs::write(&file, r#"{"inputs": {"Y": [[1.0]]}}"#).unwrap();
        assert!(refusal(&file).contains("the model has: X"), "{}", refusal(&file));
    }

    #[test]
    fn a_folder_of_sets_is_all_of_them_in_order_also_those_that_lack_their_inputs() {
        let folder = tempfile::tempdir().unwrap();
        for number in [10, 2, 0] {
            fs::create_dir(folder.path().join(format!("test_data_set_{number}"))).unwrap();
        }
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("output_0.pb"), []).unwrap();
        fs::create_dir(folder.path().join("variables")).unwrap();
        let names: Vec<_> = expand(folder.path())
            .iter()
            .map(|set| set.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["other", "test_data_set_0", "test_data_set_2", "test_data_set_10"]);
    }
}
