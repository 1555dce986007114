//! Score Kafka events in process with a model that changes while the consumer runs.
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations, unreachable_pub)]
#![warn(clippy::pedantic)]
#![deny(clippy::await_holding_lock)]
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

mod kernel;
pub mod load;
mod release;
mod signature;
mod tensor;
pub mod topic;
pub mod wire;

pub use release::{
    Artifact, DigestError, Interface, MAX_NAME, ModelName, NameError, Position, Previous, Release,
    Sha256Digest,
};
pub use signature::{Dim, Labels, Signature, SignatureMismatch, TensorSpec};
pub use tensor::{DataView, Element, ElementType, MAX_RANK, Shape, ShapeError, Tensor, TensorView};
