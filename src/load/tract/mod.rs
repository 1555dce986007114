//! Running a tract model, whichever format it came from.
//!
//! A format's loader describes its network as a [`Blueprint`]: something that gives a typed tract
//! model for the input shapes that it is asked for. [`TractModel::build`] makes a
//! [`Model`](super::Model) of it:
//!
//! 1. one plan for a symbolic batch, which is trusted only after it has answered at batch 1 and at
//!    another one (a symbolic LSTM can answer at batch 1 and fail at 4);
//! 2. where that fails, plans per concrete shape, made on demand and bounded in number;
//! 3. a plan for the single row beside the symbolic one, where the weights are small, because a
//!    fixed batch is up to a third faster.
//!
//! Panics of the engine are caught, both in loading and in running. The states that tract runs in
//! are kept per thread and die with the model. What comes out is of the types of this crate: a
//! `TDim`, which is how tract computes with shapes, is an `i64` again.

pub(super) mod convert;
mod meter;
pub(super) mod model;
pub(super) mod nan;
pub(super) mod operator;
pub(super) mod plan;
pub(super) mod trial;
mod trials;
mod windows;

pub(super) use model::{Blueprint, Extent, Output, TractModel};

/// The one place that says which crate tract's own types come from: either of the two features can
/// be on without the other.
pub(super) mod api {
    #[cfg(feature = "onnx")]
    pub(in crate::load) use tract_onnx::tract_hir::{internal::*, tract_core};
    #[cfg(not(feature = "onnx"))]
    pub(in crate::load) use tract_tensorflow::tract_hir::{internal::*, tract_core};
}
