//! Where tract's own ONNX operators are not to be used: it computes a finite score from a NaN in
//! several of them, and others are wrong or missing.

use tract_onnx::Onnx;

use crate::kernel::program::NodeParts;

/// Operators of the default domain that tract computes otherwise than the specification, mostly by
/// losing a NaN, and that have a kernel of ours.
const KERNEL_FIRST: [&str; 29] = [
    "Relu",
    "Clip",
    "Max",
    "Min",
    "LeakyRelu",
    "PRelu",
    "ThresholdedRelu",
    "HardSigmoid",
    "HardSwish",
    "Elu",
    "Selu",
    "Celu",
    "Softmax",
    "LogSoftmax",
    "Hardmax",
    "ReduceMax",
    "ReduceMin",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "ArgMax",
    "ArgMin",
    "TopK",
    "Erf",
    "LSTM",
    "GRU",
    "RNN",
    "Scan",
    "Einsum",
];

/// True where a kernel is to be tried before tract's operator.
pub(super) fn prefers_kernel(node: &NodeParts) -> bool {
    node.domain == "ai.onnx.ml" || (node.domain.is_empty() && KERNEL_FIRST.contains(&node.operator.as_str()))
}

/// tract's ONNX front end, for the nodes that it builds and for the bodies of loops.
pub(super) fn front_end() -> Onnx {
    tract_onnx::onnx()
}
