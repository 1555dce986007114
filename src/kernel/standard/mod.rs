//! The standard operators: those that stand around the others in exported tabular models, and those
//! of small networks.

use super::{BuildError, Kernel, Node, OWN_DOMAIN};

pub(crate) mod activation;
mod algebra;
mod attention;
mod binary;
mod bits;
mod blocks;
mod body;
mod cast;
pub(crate) mod chain;
mod channels;
mod control;
pub(crate) mod convolution;
mod create;
mod deform;
pub(crate) mod dense;
mod distance;
mod einsum;
mod gather;
mod given_weights;
mod integer;
mod key_mask;
mod layout;
mod losses;
pub(crate) mod matmul;
mod normal;
mod number;
mod pad;
mod panels;
pub(crate) mod quantize;
mod reduce;
mod repeat;
mod resize;
mod rotary;
mod sampling;
mod scan;
mod select;
mod slice;
#[cfg(feature = "onnx")]
mod spectral;
mod strided;
mod support;
pub(crate) use support::{axis_of, ints};
pub(crate) mod tile;
mod unary;
mod unpool;
pub(crate) mod vector;
mod window;

/// The operators of the default domain that are computed here.
const OPERATORS: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Div",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Sum",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Where",
    "Xor",
    "BitwiseNot",
    "Cast",
    "CastLike",
    "Identity",
    "Dropout",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Expand",
    "Tile",
    "Shape",
    "Size",
    "Slice",
    "Split",
    "Concat",
    "Trilu",
    "Pad",
    "Gather",
    "GatherElements",
    "GatherND",
    "ScatterElements",
    "Scatter",
    "ScatterND",
    "Compress",
    "OneHot",
    "Constant",
    "ConstantOfShape",
    "Range",
    "EyeLike",
    "ReduceSum",
    "ReduceMean",
    "ReduceProd",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ArgMax",
    "ArgMin",
    "TopK",
    "NonZero",
    "CumSum",
    "Softmax",
    "LogSoftmax",
    "Hardmax",
    "LayerNormalization",
    "BatchNormalization",
    "MatMul",
    "Gemm",
    "If",
    "Loop",
    "Scan",
    "Einsum",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "BitCast",
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearMatMul",
    "ConvInteger",
    "QLinearConv",
    "Resize",
    "Upsample",
    "NegativeLogLikelihoodLoss",
    "SoftmaxCrossEntropyLoss",
    "InstanceNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "LRN",
    "DepthToSpace",
    "SpaceToDepth",
    "Col2Im",
    "CenterCropPad",
    "ReverseSequence",
    "Attention",
    "RotaryEmbedding",
    "LpPool",
    "GlobalLpPool",
    "MaxUnpool",
    "GridSample",
    "AffineGrid",
    "RoiAlign",
    "CumProd",
    "Det",
    "Swish",
    "SwiGLU",
    "TensorScatter",
    "DeformConv",
    "ConvTranspose",
    "HannWindow",
    "HammingWindow",
    "BlackmanWindow",
    "MelWeightMatrix",
    "DFT",
    "STFT",
    "Conv",
    "MaxPool",
    "AveragePool",
    "GlobalMaxPool",
    "GlobalAveragePool",
];

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(crate) fn build(node: &Node<'_>) -> Result<Box<dyn Kernel>, BuildError> {
    if node.domain == "com.microsoft" && node.operator == "CDist" {
        return distance::build("CDist", node);
    }
    if node.domain == OWN_DOMAIN && node.operator == "KeyMask" {
        return key_mask::build("KeyMask", node);
    }
    if !node.domain.is_empty() {
        return Err(BuildError::Unsupported);
    }
    let Some(name) = OPERATORS.iter().find(|n| **n == node.operator) else {
        return Err(BuildError::Unsupported);
    };
    for family in [
        unary::build,
        binary::build,
        cast::build,
        layout::build,
        slice::build,
        pad::build,
        repeat::build,
        gather::build,
        create::build,
        reduce::build,
        select::build,
        normal::build,
        matmul::build,
        control::build,
        scan::build,
        einsum::build,
        bits::build,
        quantize::build,
        integer::build,
        resize::build,
        losses::build,
        channels::build,
        blocks::build,
        attention::build,
        rotary::build,
        unpool::build,
        sampling::build,
        algebra::build,
        deform::build,
        #[cfg(feature = "onnx")]
        spectral::build,
        convolution::build,
    ] {
        match family(name, node) {
            Err(BuildError::Unsupported) => {}
            built => return built,
        }
    }
    Err(BuildError::Unsupported)
}
