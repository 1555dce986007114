//! Score Kafka events in process with a model that changes while the consumer runs.
//!
//! New models arrive over a compacted Kafka topic. Each is verified (size, digest, structure,
//! signature, golden samples), loaded and warmed up off the scoring threads, and swapped in
//! atomically; every score carries the version that made it.
//!
#![cfg_attr(feature = "kafka", doc = "```no_run")]
#![cfg_attr(not(feature = "kafka"), doc = "```ignore")]
//! use std::time::Duration;
//! use modelswap::{Models, Scorer};
//!
//! # fn produce<'a>(_: &[f32], _: impl Iterator<Item = (&'static str, &'a str)>) {}
//! # async fn consumer(features: [f32; 30]) -> Result<(), Box<dyn std::error::Error>> {
//! let models = Models::subscribe("models")
//!     .config("bootstrap.servers", "localhost:9092")
//!     .model("fraud")
//!     .start()?;
//! let fraud = models.scorer("fraud")?;
//! fraud.ready(Duration::from_secs(30)).await?;
//! // .. for each event:
//! let score = fraud.predict(&features)?;
//! produce(score.values(), score.provenance().headers());
//! # Ok(()) }
//! ```
//!
//! # The map
//!
//! * Score: [`Models`], [`ModelScorer`], the trait [`Scorer`], [`Features`], [`Prediction`],
//!   [`Provenance`]; [`Snapshot`] pins a version, [`Batcher`] gathers rows of many tasks.
//! * Publish: [`publish::Publisher`]; the topic's format for other languages is in [`wire`].
//! * Operate: [`Status`], [`Error`]; what bad releases get is [`Rejection`].
//! * Extend: [`load::Loader`] for a format of your own, [`topic::Topic`] for another transport.
#![cfg_attr(feature = "testing", doc = "* Test an application without a broker: [`testing`].")]
#![cfg_attr(not(feature = "testing"), doc = "* Test an application without a broker: feature `testing`.")]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::print_stdout,
        clippy::print_stderr,
    )
)]

mod background;
mod batcher;
mod error;
mod features;
mod index;
#[cfg_attr(
    not(feature = "onnx"),
    allow(dead_code, unused_imports, reason = "most operators are reached by the ONNX loader only")
)]
mod kernel;
pub mod load;
mod memory;
mod models;
mod plan;
mod predict_error;
mod prediction;
mod provenance;
pub mod publish;
mod release;
mod scorer;
mod signature;
mod slot;
mod status;
mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
pub mod topic;
mod updater;
mod usage;
mod verify;
pub mod wire;

pub use batcher::{Batcher, BatchingParameters, PendingScore, RowScore};
pub use error::{Error, ErrorKind};
pub use features::{Bound, Features, Inputs, NamedTensors, Rows};
pub use models::{ModelScorer, Models, StatusWatch, Subscription};
pub use release::{
    Artifact, DigestError, Interface, MAX_NAME, ModelName, NameError, Position, Previous, Release,
    Sha256Digest,
};
pub use scorer::{PredictError, Prediction, Provenance, Scorer, Snapshot};
pub use signature::{Dim, Labels, Signature, SignatureMismatch, TensorSpec};
pub use status::{Activity, Announced, LiveStatus, ModelStatus, Rejected, Status, TopicState};
pub use tensor::{DataView, Element, ElementType, MAX_RANK, Shape, ShapeError, Tensor, TensorView};
pub use verify::{Rejection, Stage};

/// The snippets of the README are tests.
#[cfg(all(doctest, feature = "kafka", feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;
