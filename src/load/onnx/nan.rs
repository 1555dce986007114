//! Where tract's own ONNX operators are not to be used: it computes a finite score from a NaN in
//! several of them, and others are wrong or missing.
#![allow(clippy::wildcard_imports, reason = "tract is used by its prelude")]

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use crate::kernel::ROUNDED_TO;
use crate::kernel::program::NodeParts;
use crate::load::tract::nan::{leaky_relu, relu};

/// Operators of the default domain that tract computes otherwise than the specification, mostly by
/// losing a NaN, and that have a kernel of ours.
const KERNEL_FIRST: [&str; 50] = [
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
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearMatMul",
    "ConvInteger",
    "QLinearConv",
    "DFT",
    "STFT",
    "HannWindow",
    "HammingWindow",
    "BlackmanWindow",
    "MelWeightMatrix",
    "Attention",
    "BitShift",
    "Swish",
    "SpaceToDepth",
    "DepthToSpace",
    "LRN",
    "InstanceNormalization",
    "Det",
];

/// True where a kernel is to be tried before tract's operator.
pub(super) fn prefers_kernel(node: &NodeParts) -> bool {
    let rounds = node.operator == "Cast" && node.attributes.contains(ROUNDED_TO);
    let states_shape = node.operator == "ConvTranspose" && node.attributes.contains("output_shape");
    node.domain == "ai.onnx.ml"
        || (node.domain.is_empty()
            && (rounds || states_shape || KERNEL_FIRST.contains(&node.operator.as_str())))
}

/// True for operators that tract alone has, and that lose a NaN.
pub(super) fn loses_nan(node: &NodeParts) -> bool {
    node.domain.is_empty() && matches!(node.operator.as_str(), "MaxPool" | "GlobalMaxPool")
}

/// The operator in a form that tract runs in place, where there is one that keeps NaN.
pub(super) fn in_place(node: &NodeParts) -> Option<Box<dyn InferenceOp>> {
    if !node.domain.is_empty() {
        return None;
    }
    match node.operator.as_str() {
        "Relu" => Some(relu().into_hir()),
        "LeakyRelu" => Some(leaky_relu(node.attributes.float("alpha").ok()?.unwrap_or(0.01)).into_hir()),
        _ => None,
    }
}

type Builder = fn(&ParsingContext<'_>, &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// tract's ONNX front end, for the nodes that it builds and for the bodies of loops.
pub(super) fn front_end() -> Onnx {
    let mut front_end = tract_onnx::onnx();
    let replaced: [(&'static str, Builder); 2] = [
        ("Relu", |_, _| Ok((relu().into_hir(), vec![]))),
        ("LeakyRelu", |_, node| {
            Ok((leaky_relu(node.get_attr_opt("alpha")?.unwrap_or(0.01)).into_hir(), vec![]))
        }),
    ];
    for (name, builder) in replaced {
        front_end.op_register.insert(name, builder);
    }
    front_end
}
