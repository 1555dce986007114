//! From verified bytes to a model that answers.
//!
//! A [`Loader`] makes a [`Model`] of one format; [`Formats`] is the set of loaders that a
//! subscriber has, each known by the name of its format. Loading runs off the scoring threads,
//! and a panic in here is a rejection of the model, not the end of the process.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::signature::Signature;
use crate::tensor::{ElementType, Tensor, TensorView};

mod foreign;
mod json;
#[cfg(feature = "onnx")]
mod onnx;
pub mod payload;
#[cfg(any(feature = "onnx", feature = "tensorflow"))]
mod protobuf;
pub mod samples;
#[cfg(any(feature = "onnx", feature = "tensorflow"))]
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "the samples need a part of it"))]
pub(crate) mod tensor_proto;
#[cfg(feature = "tensorflow")]
mod tensorflow;
#[cfg(any(feature = "onnx", feature = "tensorflow"))]
#[cfg_attr(
    not(all(feature = "onnx", feature = "tensorflow")),
    allow(dead_code, unused_imports, reason = "each of the two formats uses a part of it")
)]
mod tract;
pub(crate) mod trees;

#[cfg(feature = "onnx")]
pub use onnx::inline_external_data;
pub use payload::Payload;
pub use samples::{Difference, Samples, SamplesError, compare};
#[cfg(feature = "tensorflow")]
pub use tensorflow::{freeze_saved_model, pack_saved_model};

pub use crate::verify::warm_up;

/// Makes models of one format.
///
/// Register one with `Subscription::loader` to let a subscriber take a format of your own;
/// `examples/custom_format.rs` does it with a lookup table.
pub trait Loader: Send + Sync {
    /// The name of the format, as a release document or the header `format` states it: `onnx`.
    fn format(&self) -> &str;

    /// True where the bytes look like this format. It is asked only where the record does not say
    /// the format, with the whole payload at hand, and has to be quick.
    fn recognises(&self, payload: &Payload) -> bool;

    /// Reads the model.
    ///
    /// # Errors
    /// Where the bytes are not a model that can be run; the error says what is wrong and where.
    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError>;
}

/// A loaded model.
///
/// The caller has checked the inputs against [`Model::signature`] before it calls: there is one
/// for each input of the signature, in its order, with the right type and a shape that agrees.
pub trait Model: Send + Sync {
    /// What it takes and gives.
    fn signature(&self) -> &Signature;

    /// Runs the model: one tensor for each output of the signature, in its order. `outputs` comes
    /// with as many tensors; what they hold is to be replaced, their memory can be used again.
    ///
    /// # Errors
    /// Where the model cannot answer for these inputs. The next call is not affected.
    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError>;

    /// Runs the model and writes only its score output (see [`Signature::score_output`]) to `out`,
    /// which is as long as that output has elements. Models that can do it without allocating
    /// override this; it answers how many elements were written.
    ///
    /// # Errors
    /// As [`Model::run`]; [`RunError::OutputSize`] where `out` has another length.
    fn run_into(&self, inputs: &[TensorView<'_>], out: &mut [f32]) -> Result<(), RunError> {
        let mut outputs = vec![Tensor::default(); self.signature().outputs().len()];
        self.run(inputs, &mut outputs)?;
        let score = self.signature().score_output().and_then(|i| outputs.get(i));
        copy_scores(score.map(Tensor::view), out)
    }

    /// An estimate of the memory that the model holds, in bytes; 0 where it is not known.
    fn memory(&self) -> usize {
        0
    }

    /// Which engine runs it, for the operator's eyes: `direct`, `tract`, ..
    fn engine(&self) -> &'static str {
        "custom"
    }
}

/// Runs a part of the loading; a panic in it is an error like any other.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(LoadError::Panicked(panic_text(&*panic))))
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Copies a score output into the caller's buffer, `f64` narrowed.
pub(crate) fn copy_scores(score: Option<TensorView<'_>>, out: &mut [f32]) -> Result<(), RunError> {
    let score = score.ok_or(RunError::NoScores)?;
    let found = score.shape().elements();
    if found != out.len() {
        return Err(RunError::OutputSize { expected: found, found: out.len() });
    }
    if let Some(values) = score.values::<f32>() {
        out.copy_from_slice(values);
    } else if let Some(values) = score.values::<f64>() {
        for (out, value) in out.iter_mut().zip(values) {
            #[allow(clippy::cast_possible_truncation, reason = "the caller asked for f32")]
            let narrow = *value as f32;
            *out = narrow;
        }
    } else {
        return Err(RunError::NoScores);
    }
    Ok(())
}

/// What a loader is told beside the bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadOptions {
    /// The inputs that the model is to have, by name; empty for all that the file declares.
    pub inputs: Vec<String>,
    /// The outputs to compute, by name and in this order; empty for all that the file declares.
    pub outputs: Vec<String>,
    /// The signature of a SavedModel to use; `None` for `serving_default`, or the only one.
    pub signature: Option<String>,
    /// The most memory that the model may take while it loads and in one run, in bytes.
    pub memory_budget: u64,
}

impl Default for LoadOptions {
    /// All inputs and outputs that the file declares, and 4 GiB.
    fn default() -> Self {
        Self { inputs: Vec::new(), outputs: Vec::new(), signature: None, memory_budget: 4 << 30 }
    }
}

/// The loaders that a subscriber has.
#[derive(Clone)]
pub struct Formats {
    loaders: Vec<Arc<dyn Loader>>,
}

impl Formats {
    /// No format at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { loaders: Vec::new() }
    }

    /// Adds a loader; it is asked before those that are there, and replaces one of the same name.
    pub fn add(&mut self, loader: Arc<dyn Loader>) {
        self.loaders.retain(|l| l.format() != loader.format());
        self.loaders.insert(0, loader);
    }

    /// The names of the formats.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.loaders.iter().map(|l| l.format())
    }

    /// The loader of the format that is stated, or else of the one that the bytes look like.
    ///
    /// # Errors
    /// [`LoadError::UnknownFormat`] where there is none; [`LoadError::Foreign`] where the bytes are
    /// a well-known form of file that cannot be loaded.
    pub fn choose(&self, stated: Option<&str>, payload: &Payload) -> Result<&Arc<dyn Loader>, LoadError> {
        let found = match stated {
            Some(name) => self.loaders.iter().find(|l| l.format() == name),
            None => self.loaders.iter().find(|l| l.recognises(payload)),
        };
        found.ok_or_else(|| {
            let foreign = if stated.is_none() { foreign::refusal(payload) } else { None };
            foreign.unwrap_or_else(|| LoadError::UnknownFormat {
                stated: stated.map(str::to_owned),
                known: self.names().collect::<Vec<_>>().join(", "),
            })
        })
    }

    /// Loads a model as a subscriber does: with the loader that [`Formats::choose`] gives.
    ///
    /// # Errors
    /// Any [`LoadError`]; a panic of the loader is [`LoadError::Panicked`].
    pub fn load(
        &self,
        stated: Option<&str>,
        payload: Payload,
        options: &LoadOptions,
    ) -> Result<Arc<dyn Model>, LoadError> {
        caught(|| Arc::clone(self.choose(stated, &payload)?).load(payload, options))
    }
}

impl Default for Formats {
    /// Every format that this build of the crate has.
    fn default() -> Self {
        let mut formats = Self::none();
        for loader in trees::loaders() {
            formats.add(loader);
        }
        #[cfg(feature = "tensorflow")]
        for loader in tensorflow::loaders() {
            formats.add(loader);
        }
        #[cfg(feature = "onnx")]
        formats.add(onnx::loader());
        formats
    }
}

impl fmt::Debug for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Why bytes did not become a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No loader knows the format.
    #[error("{}; known formats: {known}", match stated {
        Some(name) => format!("unknown format `{name}`"),
        None => "the bytes are of no known format".to_owned(),
    })]
    UnknownFormat {
        /// The format that the record states, if it does.
        stated: Option<String>,
        /// The formats that there are loaders for.
        known: String,
    },
    /// The bytes are a well-known form of file, but none that can be loaded.
    #[error("the file is {what}; {advice}")]
    Foreign {
        /// The form.
        what: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// The bytes are not what the format says they are.
    #[error("malformed {format} file: {reason}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// The model uses an operator that this crate does not run.
    #[error("unsupported operator {operator}{}{hint}", match node.as_str() {
        "" => String::new(),
        node => format!(" (node `{node}`)"),
    })]
    UnsupportedOperator {
        /// The operator, with its domain where it is not the default one.
        operator: String,
        /// The node that has it; empty where it has no name.
        node: String,
        /// What to do instead; empty or a sentence part that begins with `; `.
        hint: String,
    },
    /// A name that was asked for is not in the model.
    #[error("no {what} `{name}`; the model has: {known}")]
    UnknownName {
        /// `input`, `output` or `signature`.
        what: &'static str,
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The model needs more memory than it may have.
    #[error("{what} needs {needed} bytes, the memory budget is {budget}")]
    OverBudget {
        /// What needs it.
        what: String,
        /// How many bytes.
        needed: u64,
        /// How many it may have.
        budget: u64,
    },
    /// The file refers to tensors outside itself.
    #[error("tensor `{tensor}` lies outside the file, in `{location}`{}{}{}",
        if *escapes { ", a path outside the model's folder" } else { "" },
        if problem.is_some() { ": " } else { "" }, problem.as_deref().unwrap_or_default())]
    ExternalData {
        /// The tensor.
        tensor: String,
        /// The path that the file states.
        location: String,
        /// True where that path leads out of the model's folder.
        escapes: bool,
        /// Why it could not be taken in from there, where that was tried.
        problem: Option<String>,
    },
    /// The engine refused the model.
    #[error("{0}")]
    Engine(String),
    /// The loader panicked; the text is the panic's.
    #[error("the loader panicked: {0}")]
    Panicked(String),
}

/// Why a model did not answer. Small; only [`RunError::Engine`] holds text of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// An operator was given something it cannot work on.
    #[error("{operator} expected {expected}")]
    Operator {
        /// The operator.
        operator: &'static str,
        /// What it wants.
        expected: &'static str,
    },
    /// An operator was given elements of a type that it does not take.
    #[error("{operator} expected {expected}, found {found}")]
    InputType {
        /// The operator.
        operator: &'static str,
        /// The types that it takes.
        expected: &'static str,
        /// The type that it was given.
        found: ElementType,
    },
    /// An operator was given too few or too many values a row.
    #[error("{operator} expected {expected} values a row, found {found}")]
    Width {
        /// The operator.
        operator: &'static str,
        /// How many it wants.
        expected: usize,
        /// How many there were.
        found: usize,
    },
    /// The buffer for the scores has another length than the scores.
    #[error("the model gives {expected} scores, the buffer holds {found}")]
    OutputSize {
        /// How many scores there are.
        expected: usize,
        /// How long the buffer is.
        found: usize,
    },
    /// The model has no floating-point output.
    #[error("the model has no floating-point output")]
    NoScores,
    /// A tensor would be larger than the memory budget.
    #[error("a tensor of {needed} bytes is over the memory budget")]
    OverBudget {
        /// How many bytes it would take.
        needed: u64,
    },
    /// A loop of the model does not end, or its first run does not.
    #[error("the model did not end within {} s", limit.as_secs())]
    TooSlow {
        /// How long it may take.
        limit: Duration,
    },
    /// The engine failed, in its own words.
    #[error("{0}")]
    Engine(Box<str>),
}
