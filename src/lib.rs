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
mod signature;
mod tensor;

pub use signature::{Dim, Labels, Signature, SignatureMismatch, TensorSpec};
pub use tensor::{DataView, Element, ElementType, MAX_RANK, Shape, ShapeError, Tensor, TensorView};
