//! The subscriber over a topic in memory: what a release has to go through, and what a swap keeps.

mod bad_input;
mod scoring;
mod support;
mod swaps;
