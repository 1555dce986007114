//! Score Kafka events in process with a model that changes while the consumer runs.
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

mod batcher;
mod error;
mod features;
mod index;
mod kernel;
pub mod load;
mod models;
mod plan;
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
