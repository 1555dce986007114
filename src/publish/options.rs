//! How to publish, and what is told meanwhile.

use std::collections::BTreeMap;

use crate::release::Interface;

/// How a model is to be published.
///
/// ```
/// use modelswap::publish::PublishOptions;
///
/// let options = PublishOptions::default()
///     .version("2026-11-23")
///     .outputs(["probabilities"])
///     .label("team", "risk");
/// assert_eq!(options.keep, 2);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PublishOptions {
    /// The version; the start of the file's digest unless set.
    pub version: Option<String>,
    /// The format (`onnx`, `tensorflow`, ..); told by content unless set.
    pub format: Option<String>,
    /// How to call the model.
    pub interface: Interface,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Golden samples, in TensorFlow Serving's columnar form: what the model must reproduce before
    /// it goes live anywhere.
    pub samples: Option<serde_json::Value>,
    /// How many artifacts to keep on the topic, this one included; 2 unless set, and at least 1.
    pub keep: usize,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            version: None,
            format: None,
            interface: Interface::default(),
            labels: BTreeMap::new(),
            samples: None,
            keep: 2,
        }
    }
}

impl PublishOptions {
    /// Sets the version.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Sets the format.
    #[must_use]
    pub fn format(mut self, format: impl Into<String>) -> Self {
        self.format = Some(format.into());
        self
    }

    /// Sets the inputs to feed, by name.
    #[must_use]
    pub fn inputs<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.interface.inputs = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the outputs to compute, by name and in this order.
    #[must_use]
    pub fn outputs<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.interface.outputs = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the signature of a `SavedModel`.
    #[must_use]
    pub fn signature(mut self, name: impl Into<String>) -> Self {
        self.interface.signature = Some(name.into());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Sets the golden samples; [`read_value`](crate::load::samples::read_value) reads them from a file.
    #[must_use]
    pub fn samples(mut self, samples: serde_json::Value) -> Self {
        self.samples = Some(samples);
        self
    }

    /// Sets how many artifacts to keep on the topic.
    #[must_use]
    pub const fn keep(mut self, artifacts: usize) -> Self {
        self.keep = artifacts;
        self
    }
}

/// How far a publish is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// How much of it is done: bytes, or records when it scans or prunes.
    pub done: u64,
    /// How much there is to do; 0 where that is not known.
    pub total: u64,
}

/// What a publisher is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// It loads the model and runs the samples.
    Check,
    /// It takes over from every other publisher of the model, and reads what lies on the topic; where
    /// that takes longer than the upload, once more behind it.
    Scan,
    /// It writes the chunks.
    Upload,
    /// It writes the release.
    Commit,
    /// It removes what nobody needs any more.
    Prune,
}
