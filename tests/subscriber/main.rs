//! The subscriber over a topic in memory: what a release has to go through, and what a swap keeps.

mod bad_input;
#[cfg(feature = "onnx")]
mod external_data;
mod scoring;
mod support;
mod swaps;
