//! Operators that are several in a row: a product with its activation, a sum with its normalisation.

use super::rewrite::Rewrite;
use crate::kernel::{Attribute, BuildError};
use crate::tensor::Tensor;

pub(super) const OPERATORS: &[&str] = &[
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "TransposeMatMul",
    "BiasGelu",
    "FastGelu",
    "Gelu",
    "QuickGelu",
    "BiasSplitGelu",
    "BiasAdd",
    "GemmFastGelu",
    "LayerNormalization",
    "SkipLayerNormalization",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "EmbedLayerNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
    "Trilu",
    "GridSample",
    "Pad",
    "GatherND",
    "Range",
];

pub(super) fn lower(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    match to.node.operator.as_str() {
        "FusedConv" => conv(to),
        "FusedGemm" => gemm(to),
        "FusedMatMul" | "TransposeMatMul" => matmul(to),
        "BiasGelu" | "Gelu" => {
            gelu(to, "none");
            Ok(())
        }
        "FastGelu" => {
            gelu(to, "tanh");
            Ok(())
        }
        "GemmFastGelu" => {
            let product = to.add("MatMul", 13, &[to.input(0), to.input(1)], &[]);
            let sum = biased(to, product, 2);
            let result = to.add("Gelu", 20, &[&sum], &[("approximate", Attribute::String("tanh".into()))]);
            to.answer(0, &result);
            Ok(())
        }
        "QuickGelu" => {
            let alpha = to.attributes().float("alpha")?.unwrap_or(1.702);
            let result = to.add("Swish", 24, &[to.input(0)], &[("alpha", Attribute::Float(alpha))]);
            to.answer(0, &result);
            Ok(())
        }
        "BiasSplitGelu" => {
            let sum = to.add("Add", 14, &[to.input(0), to.input(1)], &[]);
            let halves = [("axis", Attribute::Int(-1)), ("num_outputs", Attribute::Int(2))];
            let [left, right] = to.add_many("Split", 18, &[&sum], &halves);
            let gate = to.add("Gelu", 20, &[&right], &[]);
            let result = to.add("Mul", 14, &[&left, &gate], &[]);
            to.answer(0, &result);
            Ok(())
        }
        "BiasAdd" => {
            let sum = to.add("Add", 14, &[to.input(0), to.input(1)], &[]);
            let result = to.add("Add", 14, &[&sum, to.input(2)], &[]);
            to.answer(0, &result);
            Ok(())
        }
        "LayerNormalization" => same_as_standard(to, 17),
        "SimplifiedLayerNormalization" => {
            if to.wants(1) {
                return Err(BuildError::Unsupported);
            }
            let result = to.add_like("RMSNormalization", 23, &[to.input(0), to.input(1)], &["stash_type"]);
            to.answer(0, &result);
            Ok(())
        }
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip_normalization(to),
        "EmbedLayerNormalization" => embed(to),
        "QuantizeLinear" | "DequantizeLinear" => same_as_standard(to, 21),
        "Trilu" => same_as_standard(to, 14),
        "GridSample" => same_as_standard(to, 16),
        "Pad" => same_as_standard(to, 11),
        "GatherND" => same_as_standard(to, 13),
        "Range" => same_as_standard(to, 11),
        _ => Err(BuildError::Unsupported),
    }
}

/// An operator that has come into the standard meanwhile.
fn same_as_standard(to: &mut Rewrite<'_>, version: i64) -> Result<(), BuildError> {
    if to.wants(1) {
        return Err(BuildError::Unsupported);
    }
    let inputs: Vec<&str> = to.node.inputs.iter().map(String::as_str).collect();
    let result = to.add_like(&to.node.operator, version, &inputs, &[]);
    to.answer(0, &result);
    Ok(())
}

/// The value plus an input, where that is there.
fn biased(to: &mut Rewrite<'_>, value: String, bias: usize) -> String {
    match to.maybe(bias) {
        Some(bias) => to.add("Add", 14, &[&value, bias], &[]),
        None => value,
    }
}

/// A convolution, plus a fourth input, through an activation.
fn conv(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    let inputs: Vec<&str> = (0..3).filter_map(|i| to.maybe(i)).collect();
    let product = to.add_like("Conv", 11, &inputs, &["activation", "activation_params"]);
    let sum = biased(to, product, 3);
    let result = activated(to, sum, to.attributes().floats("activation_params")?)?;
    to.answer(0, &result);
    Ok(())
}

fn gemm(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    const OWN: [&str; 4] = ["activation", "activation_alpha", "activation_beta", "activation_gamma"];
    let inputs: Vec<&str> = (0..3).filter_map(|i| to.maybe(i)).collect();
    let product = to.add_like("Gemm", 13, &inputs, &OWN);
    let named = [
        to.attributes().float("activation_alpha")?,
        to.attributes().float("activation_beta")?,
        to.attributes().float("activation_gamma")?,
    ];
    // An activation that has only a gamma beside its alpha is given that in second place.
    let parameters: Vec<f32> = named.into_iter().flatten().collect();
    let result = activated(to, product, &parameters)?;
    to.answer(0, &result);
    Ok(())
}

/// The activation that the node names, with its parameters in the order of its specification.
fn activated(to: &mut Rewrite<'_>, value: String, parameters: &[f32]) -> Result<String, BuildError> {
    let activation = to.attributes().string("activation")?.unwrap_or("");
    let (version, names): (i64, &[&str]) = match activation {
        "" => return Ok(value),
        "Relu" => (14, &[]),
        "Sigmoid" | "Tanh" => (13, &[]),
        "Softplus" | "Softsign" => (1, &[]),
        "HardSwish" => (14, &[]),
        "LeakyRelu" => (6, &["alpha"]),
        "Elu" => (6, &["alpha"]),
        "ThresholdedRelu" => (10, &["alpha"]),
        "Clip" => (6, &["min", "max"]),
        "HardSigmoid" => (6, &["alpha", "beta"]),
        "Selu" => (6, &["alpha", "gamma"]),
        other => return Err(BuildError::invalid(format!("unknown activation `{other}`"))),
    };
    let attributes: Vec<(&str, Attribute)> =
        names.iter().copied().zip(parameters.iter().map(|p| Attribute::Float(*p))).collect();
    Ok(to.add(activation, version, &[&value], &attributes))
}

/// A product of matrices that may lie transposed, times a factor.
fn matmul(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    if to.flag("transBatchA")? || to.flag("transBatchB")? {
        return Err(BuildError::Unsupported);
    }
    let side = |to: &mut Rewrite<'_>, index: usize, flag: &str| -> Result<String, BuildError> {
        let value = to.input(index);
        // A vector stays one.
        if !to.flag(flag)? || to.rank(index).is_some_and(|rank| rank < 2) {
            return Ok(value.to_owned());
        }
        let swap = Attribute::String("...ij->...ji".into());
        Ok(to.add("Einsum", 12, &[value], &[("equation", swap)]))
    };
    let (a, b) = (side(to, 0, "transA")?, side(to, 1, "transB")?);
    let product = to.add("MatMul", 13, &[&a, &b], &[]);
    let alpha = to.attributes().float("alpha")?.unwrap_or(1.0);
    let result = if alpha.to_bits() == 1.0_f32.to_bits() {
        product
    } else {
        let factor = to.constant(Tensor::scalar(alpha));
        to.add("Mul", 14, &[&product, &factor], &[])
    };
    to.answer(0, &result);
    Ok(())
}

/// The activation of a sum.
fn gelu(to: &mut Rewrite<'_>, approximate: &str) {
    let sum = biased(to, to.input(0).to_owned(), 1);
    let how = [("approximate", Attribute::String(approximate.into()))];
    let result = to.add("Gelu", 20, &[&sum], &how);
    to.answer(0, &result);
}

/// A sum through a normalisation; the fourth output is the sum.
fn skip_normalization(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    let simplified = to.node.operator == "SkipSimplifiedLayerNormalization";
    if to.wants(1) || to.wants(2) {
        return Err(BuildError::Unsupported);
    }
    let sum = to.add("Add", 14, &[to.input(0), to.input(1)], &[]);
    let sum = biased(to, sum, if simplified { 3 } else { 4 });
    let epsilon = [("epsilon", Attribute::Float(to.attributes().float("epsilon")?.unwrap_or(1e-12)))];
    let result = if simplified {
        to.add("RMSNormalization", 23, &[&sum, to.input(2)], &epsilon)
    } else {
        normalized(to, &sum, [2, 3], &epsilon)
    };
    to.answer(0, &result);
    to.answer(3, &sum);
    Ok(())
}

fn normalized(
    to: &mut Rewrite<'_>,
    value: &str,
    [gamma, beta]: [usize; 2],
    epsilon: &[(&str, Attribute)],
) -> String {
    let inputs: Vec<&str> = [Some(value), to.maybe(gamma), to.maybe(beta)].into_iter().flatten().collect();
    to.add("LayerNormalization", 17, &inputs, epsilon)
}

/// The sum of the embeddings of words, positions and segments, through a normalisation.
fn embed(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    let ids = to.input(0);
    let words = to.add("Gather", 13, &[to.input(2), ids], &[]);
    let positions = match to.maybe(8) {
        Some(positions) => to.add("Gather", 13, &[to.input(3), positions], &[]),
        None => {
            let shape = to.add("Shape", 13, &[ids], &[]);
            let (zero, one, two) = (to.ints(&[0]), to.ints(&[1]), to.ints(&[2]));
            let length = to.add("Slice", 13, &[&shape, &one, &two], &[]);
            to.add("Slice", 13, &[to.input(3), &zero, &length, &zero], &[])
        }
    };
    let mut sum = to.add("Add", 14, &[&words, &positions], &[]);
    if let (Some(segments), Some(table)) = (to.maybe(1), to.maybe(4)) {
        let segments = to.add("Gather", 13, &[table, segments], &[]);
        sum = to.add("Add", 14, &[&sum, &segments], &[]);
    }
    let epsilon = [("epsilon", Attribute::Float(to.attributes().float("epsilon")?.unwrap_or(1e-12)))];
    let result = normalized(to, &sum, [5, 6], &epsilon);
    to.answer(0, &result);
    if to.wants(1) {
        // How many tokens of each sequence are there.
        let Some(mask) = to.maybe(7) else { return Err(BuildError::Unsupported) };
        let axis = to.ints(&[1]);
        let count = to.add("ReduceSum", 13, &[mask, &axis], &[("keepdims", Attribute::Int(0))]);
        to.answer(1, &count);
    }
    to.answer(2, &sum);
    Ok(())
}
