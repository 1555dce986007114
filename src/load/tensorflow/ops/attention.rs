//! Products of matrices, sums of products, and the softmax between them.

use super::super::api::{AxesMapping, DatumType, OutletId, TDim, TVec, tract_core, tvec};
use super::super::graph::Node;
use super::wiring::{One, Wired, Wiring, first, two};
use super::{Handler, WiringError, wiring::invalid};
use crate::load::tract::nan::KeepNan;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::math;
use tract_core::ops::nn::{Reduce, Reducer, Softmax, SoftmaxKind};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "MatMul" => {
            |w, n, i| mat_mul(w, i, [n.attributes.bool("transpose_a"), n.attributes.bool("transpose_b")])
        }
        "BatchMatMul" | "BatchMatMulV2" | "BatchMatMulV3" => {
            |w, n, i| mat_mul(w, i, [n.attributes.bool("adj_x"), n.attributes.bool("adj_y")])
        }
        "_FusedMatMul" => fused_mat_mul,
        "Einsum" => einsum,
        "Softmax" => |w, _, i| softmax(w, first(i)?, SoftmaxKind::Softmax),
        "SoftmaxCrossEntropyWithLogits" => cross_entropy,
        "LogSoftmax" => |w, _, i| softmax(w, first(i)?, SoftmaxKind::LogSoftmax),
        _ => return None,
    })
}

fn mat_mul(w: &mut Wiring<'_>, inputs: &[OutletId], transposed: [Option<bool>; 2]) -> Wired {
    let (a, b) = two(inputs)?;
    if w.rank(a)? < 2 || w.rank(b)? < 2 {
        return Err(invalid("a factor is no matrix"));
    }
    let both = w.same_rank(&[a, b])?;
    let (a, b) = two(&both)?;
    let datum = w.datum(a)?;
    let [left, right] = transposed.map(|t| t.unwrap_or(false));
    fit(&w.dims(a)?, &w.dims(b)?, left, right)?;
    let axes = AxesMapping::for_numpy_matmul(w.rank(a)?, left, right, false)?;
    Ok(tvec!(w.one(EinSum::new(axes, datum), &[a, b])?))
}

/// An error where two factors that are known have no product; tract finds out when it runs, and panics.
fn fit(a: &[TDim], b: &[TDim], left: bool, right: bool) -> Result<(), WiringError> {
    let (Some((a_outer, [a_rows, a_columns])), Some((b_outer, [b_rows, b_columns]))) =
        (a.split_last_chunk::<2>(), b.split_last_chunk::<2>())
    else {
        return Err(invalid("a factor is no matrix"));
    };
    let deep = (if left { a_rows } else { a_columns }, if right { b_columns } else { b_rows });
    if let (Some(a), Some(b)) = (deep.0.as_i64(), deep.1.as_i64())
        && a != b
    {
        return Err(invalid(format!(
            "expected factors that share a dimension, found {a} columns and {b} rows"
        )));
    }
    for (a, b) in a_outer.iter().rev().zip(b_outer.iter().rev()) {
        if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64())
            && a != b
            && a != 1
            && b != 1
        {
            return Err(invalid(format!("expected as many matrices on both sides, found {a} and {b}")));
        }
    }
    Ok(())
}

/// What TensorFlow's own optimiser makes of a dense layer.
fn fused_mat_mul(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (a, b) = two(inputs)?;
    let attributes = &node.attributes;
    let mut out = mat_mul(w, &[a, b], [attributes.bool("transpose_a"), attributes.bool("transpose_b")])?;
    fused_rest(w, node, inputs, &mut out)?;
    Ok(out)
}

/// The bias and the activation that TensorFlow's optimiser puts into one operator with what is
/// before them.
pub(super) fn fused_rest(
    w: &mut Wiring<'_>,
    node: &Node,
    inputs: &[OutletId],
    out: &mut TVec<OutletId>,
) -> Result<(), WiringError> {
    let fused = node.attributes.list("fused_ops").map(|l| l.s.as_slice()).unwrap_or_default();
    let mut arguments = inputs.iter().skip(2);
    for op in fused {
        let x = first(out)?;
        let next = match op.as_slice() {
            b"BiasAdd" => {
                let bias = *arguments.next().ok_or(WiringError::Unsupported)?;
                super::arithmetic::add(w, x, bias)?
            }
            name => {
                let name = std::str::from_utf8(name).map_err(|_| WiringError::Unsupported)?;
                if !matches!(name, "Relu" | "Relu6" | "Elu" | "Tanh" | "Sigmoid" | "LeakyRelu") {
                    return Err(WiringError::Unsupported);
                }
                let node = Node {
                    name: node.name.clone(),
                    op: name.to_owned(),
                    attributes: node.attributes.clone(),
                    inputs: Vec::new(),
                    content: node.content.clone(),
                };
                first(&super::operator(w, &node, &[x])?)?
            }
        };
        *out = tvec!(next);
    }
    Ok(())
}

fn einsum(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let equation = node.attributes.text("equation").ok_or_else(|| invalid("has no equation"))?;
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = equation.split_once("->").ok_or_else(|| invalid("the equation has no result"))?;
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != inputs.len() {
        return Err(invalid("the equation has another number of factors"));
    }
    // The dots stand for as many dimensions as each factor has beside those that are named.
    let unused: Vec<char> = ('A'..='Z').chain('a'..='z').filter(|c| !equation.contains(*c)).collect();
    let mut dots = Vec::new();
    for (term, outlet) in terms.iter().zip(inputs) {
        let named = term.chars().filter(|c| c.is_alphabetic()).count();
        let rank = w.rank(*outlet)?;
        dots.push(if term.contains("...") { rank.saturating_sub(named) } else { 0 });
        if named > rank || (!term.contains("...") && named != rank) {
            return Err(invalid(format!("the factor `{term}` has {rank} dimensions")));
        }
    }
    let widest = dots.iter().copied().max().unwrap_or(0);
    let letters = |n: usize| -> String { unused.iter().take(widest).skip(widest - n).collect() };
    let expanded: Vec<String> =
        terms.iter().zip(&dots).map(|(t, n)| t.replace("...", &letters(*n))).collect();
    for term in &expanded {
        let mut seen: Vec<char> = term.chars().collect();
        seen.sort_unstable();
        if seen.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(WiringError::Unsupported);
        }
    }
    let right = right.replace("...", &letters(widest));
    let datum = w.datum(first(inputs)?)?;
    let axes: AxesMapping = format!("{}->{right}", expanded.join(",")).parse()?;
    Ok(tvec!(w.one(EinSum::new(axes, datum), inputs)?))
}

fn softmax(w: &mut Wiring<'_>, x: OutletId, kind: SoftmaxKind) -> Wired {
    let rank = w.rank(x)?;
    let axis = rank.checked_sub(1).ok_or_else(|| invalid("needs at least one dimension"))?;
    if !matches!(w.datum(x)?, DatumType::F32 | DatumType::F64 | DatumType::F16) {
        return Err(WiringError::Unsupported);
    }
    let y = softmax_of(w, x, axis, kind)?;
    let spread = Reduce { axes: tvec!(axis), reducer: Reducer::Max };
    Ok(tvec!(w.one(KeepNan { spread: Some(Box::new(spread)) }, &[x, y])?))
}

/// The loss of each row, and how it changes with the logits.
fn cross_entropy(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let both = w.same(inputs)?;
    let (logits, labels) = two(&both)?;
    let log = first(&softmax(w, logits, SoftmaxKind::LogSoftmax)?)?;
    let share = first(&softmax(w, logits, SoftmaxKind::Softmax)?)?;
    let product = w.binary(math::mul(), labels, log)?;
    let sum = w.reduced(product, &[1], Reducer::Sum)?;
    let sum = w.one(super::super::api::AxisOp::Rm(1), &[sum])?;
    Ok(tvec!(w.one(math::neg(), &[sum])?, w.binary(math::sub(), share, labels)?))
}

fn softmax_of(w: &mut Wiring<'_>, x: OutletId, axis: usize, kind: SoftmaxKind) -> One {
    w.one(Softmax { axes: tvec!(axis), quant_output_dt: None, kind }, &[x])
}
