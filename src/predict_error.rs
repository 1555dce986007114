//! Why a call to a scorer has no score.

use std::sync::Arc;

use crate::load::RunError;
use crate::signature::TensorSpec;
use crate::tensor::{ElementType, Shape};

/// Why there is no score. Small, and made without an allocation but for what a model's engine says.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// No version of the model is live: none has been loaded yet, or it was withdrawn.
    #[error("no version of the model is live")]
    NoModel,
    /// The model has several inputs, and the features came without names.
    #[error("the model has {inputs} inputs: expected named tensors, found rows")]
    NamesNeeded {
        /// How many inputs the model has.
        inputs: usize,
    },
    /// An input of the model is not among the features.
    #[error("input `{}` is missing: expected {expected}", expected.name())]
    MissingInput {
        /// What the model wants.
        expected: TensorSpec,
    },
    /// A feature has a name that the model does not know.
    #[error("the tensor at position {position} has a name that is no input of the model")]
    UnknownInput {
        /// Its position among the features, from 0.
        position: usize,
    },
    /// An input has elements of another type than the model's.
    #[error("input `{}`: expected {expected}, found elements of {found}", expected.name())]
    WrongType {
        /// What the model wants.
        expected: TensorSpec,
        /// What it was given.
        found: ElementType,
    },
    /// A row has more or fewer values than the model's.
    #[error("input `{input}`: expected {expected} values a row, found {found}")]
    WrongWidth {
        /// The input.
        input: Arc<str>,
        /// How many values a row has.
        expected: usize,
        /// How many it was given.
        found: usize,
    },
    /// An input has another shape than the model's.
    #[error("input `{}`: expected {expected}, found shape {found}", expected.name())]
    WrongShape {
        /// What the model wants.
        expected: TensorSpec,
        /// What it was given.
        found: Shape,
    },
    /// Two inputs have different numbers of rows.
    #[error("input `{input}`: expected {expected} rows as in the inputs before it, found {found}")]
    WrongRows {
        /// The input.
        input: Arc<str>,
        /// The number of rows of the inputs before it.
        expected: usize,
        /// Its own.
        found: usize,
    },
    /// The model failed on these values.
    #[error("{0}")]
    Run(RunError),
    /// The model panicked on these values.
    #[error("the model panicked")]
    Panicked,
    /// The micro-batcher takes one row a call.
    #[error("expected one row, found {found}")]
    NotOneRow {
        /// How many rows there were.
        found: usize,
    },
    /// The queue of the micro-batcher is full.
    #[error("the batching queue is full: {limit} batches are waiting")]
    Overloaded {
        /// How many may wait.
        limit: usize,
    },
    /// The micro-batcher was shut down.
    #[error("the batching queue is closed")]
    Closed,
}
