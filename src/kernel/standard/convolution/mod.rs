//! `Conv` and pooling over one to three axes.
//!
//! Inside, the channels of a place lie beside each other ([`Order::Last`]): every stretch of a
//! window is then contiguous, and the vector registers run over channels. A graph's own tensors
//! have a plane for each channel; an operator reads and writes both, and
//! [`fuse`](crate::kernel::fuse) keeps what lies between two of them as it is.

mod batch;
mod conv;
mod depthwise;
mod image;
mod plain;
mod pool;
mod product;
mod reduce;
mod taps;
#[cfg(test)]
mod tests;
mod tiles;
mod transposed;
mod turn;
mod unpacked;
mod weights;
mod window;

pub(crate) use conv::Conv;
pub(crate) use image::Order;
pub(crate) use pool::Pool;
pub(crate) use turn::Turn;

use super::support::Built;
use crate::kernel::{BuildError, Node};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "Conv" => conv::build(node),
        transposed::OPERATOR => transposed::build(node),
        "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" => pool::build(name, node),
        _ => Err(BuildError::Unsupported),
    }
}
