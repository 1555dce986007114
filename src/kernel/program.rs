//! A graph that has nothing but kernels, run in one pass.

/// A sequence of kernels over numbered tensors.
#[derive(Debug)]
pub(crate) struct Program;
