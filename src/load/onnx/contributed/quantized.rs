//! Operators on small whole numbers, as onnxruntime's quantiser writes them.

use super::rewrite::Rewrite;
use crate::kernel::recurrent::ROUNDS_STATE;
use crate::kernel::{Attribute, BuildError};
use crate::tensor::Tensor;

pub(super) const OPERATORS: &[&str] = &[
    "QLinearAdd",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearLeakyRelu",
    "QLinearSoftmax",
    "QLinearAveragePool",
    "QLinearGlobalAveragePool",
    "QLinearConcat",
    "QLinearWhere",
    "QGemm",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "DynamicQuantizeLSTM",
];

const FLOAT: Attribute = Attribute::Int(1);

pub(super) fn lower(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    let result = match to.node.operator.as_str() {
        "QLinearAdd" => binary(to, "Add"),
        "QLinearMul" => binary(to, "Mul"),
        "QLinearSigmoid" => {
            let x = float(to, 0);
            let y = to.add("Sigmoid", 13, &[&x], &[]);
            levels(to, &y, 3)
        }
        "QLinearLeakyRelu" => {
            let x = float(to, 0);
            let y = to.add_like("LeakyRelu", 16, &[&x], &[]);
            levels(to, &y, 3)
        }
        "QLinearSoftmax" => {
            let x = float(to, 0);
            let version = to.attributes().int("opset")?.unwrap_or(13);
            let y = to.add_like("Softmax", version, &[&x], &["opset"]);
            levels(to, &y, 3)
        }
        "QLinearAveragePool" => {
            let rank = to.attributes().ints("kernel_shape")?.len() + 2;
            pooled(to, "AveragePool", Some(rank))?
        }
        "QLinearGlobalAveragePool" => pooled(to, "GlobalAveragePool", None)?,
        "QLinearConcat" => {
            let parts: Vec<String> = (2..to.node.inputs.len()).step_by(3).map(|at| float(to, at)).collect();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let y = to.add_like("Concat", 13, &parts, &[]);
            levels(to, &y, 0)
        }
        "QLinearWhere" => {
            let (x, y) = (float(to, 1), float(to, 4));
            let z = to.add("Where", 16, &[to.input(0), &x, &y], &[]);
            levels(to, &z, 7)
        }
        "QGemm" => gemm(to)?,
        "DynamicQuantizeMatMul" => {
            let [a, scale, zero] = to.add_many("DynamicQuantizeLinear", 11, &[to.input(0)], &[]);
            let sums = to.add("MatMulInteger", 10, &[&a, to.input(1), &zero, to.input(3)], &[]);
            scaled(to, &sums, [&scale, to.input(2)], 4)
        }
        "MatMulIntegerToFloat" => {
            let factors = [to.input(0), to.input(1), to.input(4), to.input(5)];
            let sums = to.add("MatMulInteger", 10, &factors, &[]);
            scaled(to, &sums, [to.input(2), to.input(3)], 6)
        }
        "DynamicQuantizeLSTM" => return lstm(to),
        _ => return Err(BuildError::Unsupported),
    };
    to.answer(0, &result);
    Ok(())
}

/// The floats of an input with its scale and zero point behind it.
fn float(to: &mut Rewrite<'_>, at: usize) -> String {
    to.add("DequantizeLinear", 13, &[to.input(at), to.input(at + 1), to.input(at + 2)], &[])
}

/// The levels of the scale and zero point at an input and behind it.
fn levels(to: &mut Rewrite<'_>, value: &str, at: usize) -> String {
    to.add("QuantizeLinear", 13, &[value, to.input(at), to.input(at + 1)], &[])
}

fn binary(to: &mut Rewrite<'_>, operator: &str) -> String {
    let (a, b) = (float(to, 0), float(to, 3));
    let sum = to.add(operator, 14, &[&a, &b], &[]);
    levels(to, &sum, 6)
}

fn pooled(to: &mut Rewrite<'_>, operator: &str, rank: Option<usize>) -> Result<String, BuildError> {
    let mut x = float(to, 0);
    let last = to.flag("channels_last")?;
    let order = |from: &[i64], rank: usize| -> Attribute {
        let rank = i64::try_from(rank).unwrap_or(0);
        let mut order = vec![0];
        order.extend(from.iter().map(|at| if *at < 0 { at + rank } else { *at }));
        Attribute::Ints(order)
    };
    if last {
        let rank = rank.ok_or(BuildError::Unsupported)?;
        let inner: Vec<i64> = std::iter::once(-1).chain(1..i64::try_from(rank).unwrap_or(0) - 1).collect();
        x = to.add("Transpose", 13, &[&x], &[("perm", order(&inner, rank))]);
    }
    let mut y = to.add_like(operator, 11, &[&x], &["channels_last"]);
    if last {
        let rank = rank.ok_or(BuildError::Unsupported)?;
        let inner: Vec<i64> = (2..i64::try_from(rank).unwrap_or(0)).chain(std::iter::once(1)).collect();
        y = to.add("Transpose", 13, &[&y], &[("perm", order(&inner, rank))]);
    }
    Ok(levels(to, &y, 3))
}

/// Sums of products times the scales of both factors, plus a bias.
fn scaled(to: &mut Rewrite<'_>, sums: &str, [a, b]: [&str; 2], bias: usize) -> String {
    let sums = to.add("Cast", 13, &[sums], &[("to", FLOAT)]);
    let scale = to.add("Mul", 14, &[a, b], &[]);
    let product = to.add("Mul", 14, &[&sums, &scale], &[]);
    match to.maybe(bias) {
        Some(bias) => to.add("Add", 14, &[&product, bias], &[]),
        None => product,
    }
}

/// `alpha A B + C` in whole numbers; floats where no scale of the result is given.
fn gemm(to: &mut Rewrite<'_>) -> Result<String, BuildError> {
    let side = |to: &mut Rewrite<'_>, index: usize, flag: &str| -> Result<String, BuildError> {
        let value = to.input(index);
        let swap = Attribute::Ints(vec![1, 0]);
        Ok(if to.flag(flag)? {
            to.add("Transpose", 13, &[value], &[("perm", swap)])
        } else {
            value.to_owned()
        })
    };
    let (a, b) = (side(to, 0, "transA")?, side(to, 3, "transB")?);
    let mut sums = to.add("MatMulInteger", 10, &[&a, &b, to.input(2), to.input(5)], &[]);
    if let Some(addend) = to.maybe(6) {
        sums = to.add("Add", 14, &[&sums, addend], &[]);
    }
    let sums = to.add("Cast", 13, &[&sums], &[("to", FLOAT)]);
    let mut scale = to.add("Mul", 14, &[to.input(1), to.input(4)], &[]);
    let alpha = to.attributes().float("alpha")?.unwrap_or(1.0);
    if alpha.to_bits() != 1.0_f32.to_bits() {
        let alpha = to.constant(Tensor::scalar(alpha));
        scale = to.add("Mul", 14, &[&scale, &alpha], &[]);
    }
    let Some(result_scale) = to.maybe(7) else {
        return Ok(to.add("Mul", 14, &[&sums, &scale], &[]));
    };
    // One factor for both steps, as onnxruntime has it.
    let factor = to.add("Div", 14, &[&scale, result_scale], &[]);
    let result = to.add("Mul", 14, &[&sums, &factor], &[]);
    let one = to.constant(Tensor::scalar(1.0_f32));
    Ok(to.add("QuantizeLinear", 13, &[&result, &one, to.input(8)], &[]))
}

/// A layer whose input and state are rounded to 256 levels before they meet the weights.
fn lstm(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    let [levels, scale, zero] = to.add_many("DynamicQuantizeLinear", 11, &[to.input(0)], &[]);
    let x = to.add("DequantizeLinear", 13, &[&levels, &scale, &zero], &[]);
    let w = weights(to, 1, [8, 9])?;
    let r = weights(to, 2, [10, 11])?;
    let inputs = [&x, &w, &r, to.input(3), to.input(4), to.input(5), to.input(6), to.input(7)];
    let mut attributes: Vec<(&str, Attribute)> =
        to.attributes().iter().map(|(name, value)| (name, value.clone())).collect();
    attributes.push((ROUNDS_STATE, Attribute::Int(1)));
    let outputs: [String; 3] = to.add_many("LSTM", 14, &inputs, &attributes);
    for (index, output) in outputs.iter().enumerate() {
        to.answer(index, output);
    }
    Ok(())
}

/// Weights of `[directions, depth, gates]` as floats of `[directions, gates, depth]`. Their scales
/// and zero points are one a direction, or one a direction and gate.
fn weights(to: &mut Rewrite<'_>, at: usize, [scale, zero]: [usize; 2]) -> Result<String, BuildError> {
    let stretched = |to: &mut Rewrite<'_>, index: usize| -> Result<String, BuildError> {
        let axes: &[i64] = match to.rank(index) {
            Some(1) => &[1, 2],
            Some(2) => &[1],
            _ => return Err(BuildError::Unsupported),
        };
        let axes = to.ints(axes);
        Ok(to.add("Unsqueeze", 13, &[to.input(index), &axes], &[]))
    };
    let mut values = to.add("Cast", 13, &[to.input(at)], &[("to", FLOAT)]);
    if to.maybe(zero).is_some() {
        let point = stretched(to, zero)?;
        let point = to.add("Cast", 13, &[&point], &[("to", FLOAT)]);
        values = to.add("Sub", 14, &[&values, &point], &[]);
    }
    let scale = stretched(to, scale)?;
    let values = to.add("Mul", 14, &[&values, &scale], &[]);
    Ok(to.add("Transpose", 13, &[&values], &[("perm", Attribute::Ints(vec![0, 2, 1]))]))
}
