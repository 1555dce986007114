//! Normalisations with fixed statistics.

use super::super::api::{AxisOp, DatumType, OutletId, TVec, tract_core, tvec};
use super::super::graph::Node;
use super::wiring::{One, Wired, Wiring, first, input, invalid};
use super::{Handler, WiringError};
use tract_core::ops::math;
use tract_core::ops::nn::Reducer;

/// TensorFlow's default for a batch normalisation that does not state its epsilon.
const EPSILON: f32 = 1e-4;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "FusedBatchNorm" | "FusedBatchNormV2" | "FusedBatchNormV3" => fused_batch_norm,
        "_FusedBatchNormEx" => |w, n, i| {
            let mut out = fused_batch_norm(w, n, i)?;
            if n.attributes.text("activation_mode") == Some("Relu")
                && let Some(y) = out.first_mut()
            {
                *y = w.one(crate::load::tract::nan::relu(), &[*y])?;
            }
            Ok(out)
        },
        "BatchNormWithGlobalNormalization" => batch_norm_global,
        "LRN" => lrn,
        _ => return None,
    })
}

/// `(x - mean) / sqrt(variance + epsilon) * scale + offset`, as one product and one sum.
fn fused_batch_norm(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let (scale, offset) = (input(inputs, 1)?, input(inputs, 2)?);
    let (mean, variance) = (input(inputs, 3)?, input(inputs, 4)?);
    let epsilon = node.attributes.float("epsilon").unwrap_or(EPSILON);
    if node.attributes.bool("is_training").unwrap_or(true) {
        return train_batch_norm(w, node, inputs, epsilon);
    }
    let y = affine(w, node, x, [scale, offset, mean, variance], epsilon)?;
    Ok(outputs(y, mean, variance))
}

/// A layer that was exported in training mode normalises by its own batch.
fn train_batch_norm(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId], epsilon: f32) -> Wired {
    let x = first(inputs)?;
    let rank = w.rank(x)?;
    let channel = if is_channels_first(node) { 1 } else { rank.saturating_sub(1) };
    let axes: Vec<usize> = (0..rank).filter(|a| *a != channel).collect();
    let dims = w.concrete_dims(x)?;
    let count: usize = axes.iter().filter_map(|a| dims.get(*a)).product();
    let factor = w.scalar_like(1.0 / count.max(1) as f64, x)?;
    let sum = w.reduced(x, &axes, Reducer::Sum)?;
    let mean = w.binary(math::mul(), sum, factor)?;
    let centred = w.binary(math::sub(), x, mean)?;
    let square = w.binary(math::mul(), centred, centred)?;
    let sum = w.reduced(square, &axes, Reducer::Sum)?;
    let variance = w.binary(math::mul(), sum, factor)?;
    let flat = |w: &mut Wiring<'_>, x: OutletId| -> One {
        let mut x = x;
        for axis in axes.iter().rev() {
            x = w.one(AxisOp::Rm(*axis), &[x])?;
        }
        Ok(x)
    };
    let (mean, variance) = (flat(w, mean)?, flat(w, variance)?);
    let y = affine(w, node, x, [input(inputs, 1)?, input(inputs, 2)?, mean, variance], epsilon)?;
    Ok(outputs(y, mean, variance))
}

fn affine(
    w: &mut Wiring<'_>,
    node: &Node,
    x: OutletId,
    [scale, offset, mean, variance]: [OutletId; 4],
    epsilon: f32,
) -> One {
    let datum = w.datum(x)?;
    let epsilon = w.scalar_like(f64::from(epsilon), variance)?;
    let shifted = w.binary(math::add(), variance, epsilon)?;
    let inverse = w.one(math::rsqrt(), &[shifted])?;
    let factor = w.binary(math::mul(), inverse, scale)?;
    let moved = w.binary(math::mul(), mean, factor)?;
    let summand = w.binary(math::sub(), offset, moved)?;
    let (mut factor, mut summand) = (w.cast(factor, datum)?, w.cast(summand, datum)?);
    if is_channels_first(node) {
        for axis in 1..w.rank(x)?.saturating_sub(1) {
            factor = w.one(AxisOp::Add(axis), &[factor])?;
            summand = w.one(AxisOp::Add(axis), &[summand])?;
        }
    }
    let scaled = super::arithmetic::multiply(w, x, factor)?;
    super::arithmetic::add(w, scaled, summand)
}

fn outputs(y: OutletId, mean: OutletId, variance: OutletId) -> TVec<OutletId> {
    tvec!(y, mean, variance, mean, variance, mean)
}

fn is_channels_first(node: &Node) -> bool {
    node.attributes.text("data_format").is_some_and(|f| f.starts_with("NC"))
}

fn batch_norm_global(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (x, mean, variance) = (first(inputs)?, input(inputs, 1)?, input(inputs, 2)?);
    let (beta, gamma) = (input(inputs, 3)?, input(inputs, 4)?);
    let epsilon = node.attributes.float("variance_epsilon").unwrap_or(1e-3);
    let scale = if node.attributes.bool("scale_after_normalization").unwrap_or(true) {
        gamma
    } else {
        w.scalar_like(1.0, gamma)?
    };
    Ok(tvec!(affine(w, node, x, [scale, beta, mean, variance], epsilon)?))
}

/// Local response normalisation over neighbouring channels, the last dimension.
fn lrn(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    if w.datum(x)? != DatumType::F32 {
        return Err(WiringError::Unsupported);
    }
    let number = |name: &str, default: f32| f64::from(node.attributes.float(name).unwrap_or(default));
    let radius = usize::try_from(node.attributes.int("depth_radius").unwrap_or(5))
        .map_err(|_| invalid("the radius is negative"))?;
    let axis = w.rank(x)?.checked_sub(1).ok_or(WiringError::Unsupported)?;
    let size = w.dim(x, axis)?;
    let square = w.binary(math::mul(), x, x)?;
    let mut pads = vec![(0, 0); axis];
    pads.push((radius, radius));
    let zero = std::sync::Arc::new(super::super::api::EngineTensor::zero_scalar_dt(DatumType::F32)?);
    let padded = w.one(
        tract_core::ops::array::Pad { pads, mode: tract_core::ops::array::PadMode::Constant(zero) },
        &[square],
    )?;
    let mut sum = w.cut(padded, axis, 0, size.clone())?;
    for at in 1..=2 * radius {
        let part = w.cut(padded, axis, at, size.clone() + at)?;
        sum = w.binary(math::add(), sum, part)?;
    }
    let (alpha, bias) = (w.scalar_like(number("alpha", 1.0), x)?, w.scalar_like(number("bias", 1.0), x)?);
    let beta = w.scalar_like(number("beta", 0.5), x)?;
    let scaled = w.binary(math::mul(), sum, alpha)?;
    let shifted = w.binary(math::add(), scaled, bias)?;
    let power = w.binary(math::pow(), shifted, beta)?;
    Ok(tvec!(w.binary(math::div(), x, power)?))
}
