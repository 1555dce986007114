//! Borders, and the blocks that they make whole.

use super::super::api::{EngineTensor, OutletId, TDim, TVec, tensor1, tract_core, tvec};
use super::super::graph::Node;
use super::wiring::{Wired, Wiring, first, input, invalid};
use super::{Handler, WiringError};
use tract_core::ops::array;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Pad" | "PadV2" => pad,
        "MirrorPad" => mirror_pad,
        "SpaceToBatchND" => |w, _, i| space_to_batch(w, i, true),
        "BatchToSpaceND" => |w, _, i| space_to_batch(w, i, false),
        _ => return None,
    })
}

fn paddings(w: &Wiring<'_>, outlet: OutletId) -> Result<Vec<(usize, usize)>, WiringError> {
    let flat = w.konst_ints(outlet)?;
    let (pairs, rest) = flat.as_chunks::<2>();
    let pair = |[a, b]: &[i64; 2]| Some((usize::try_from(*a).ok()?, usize::try_from(*b).ok()?));
    let pads: Option<Vec<_>> = pairs.iter().map(pair).collect();
    pads.filter(|_| rest.is_empty()).ok_or_else(|| invalid("the paddings are malformed"))
}

fn pad(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let pads = paddings(w, input(inputs, 1)?)?;
    let datum = w.datum(x)?;
    let value = match inputs.get(2).filter(|_| node.op == "PadV2") {
        Some(value) => (*w.konst(*value)?).clone().into_shape(&[])?,
        None => EngineTensor::zero_scalar_dt(datum)?,
    };
    let mode = array::PadMode::Constant(std::sync::Arc::new(value));
    Ok(tvec!(w.one(array::Pad { pads, mode }, &[x])?))
}

fn mirror_pad(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let mut x = first(inputs)?;
    let pads = paddings(w, input(inputs, 1)?)?;
    let symmetric = i64::from(node.attributes.text("mode") == Some("SYMMETRIC"));
    for (axis, (before, after)) in pads.into_iter().enumerate().filter(|(_, p)| *p != (0, 0)) {
        let size = w.dim(x, axis)?.as_i64().ok_or_else(|| invalid("mirrors an open dimension"))?;
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (before, after) = (signed(before), signed(after));
        if before.max(after) > size - 1 + symmetric {
            return Err(invalid("mirrors more than there is"));
        }
        let left = (1 - symmetric..=before - symmetric).rev();
        let right = (0..after).map(|i| size - 2 + symmetric - i);
        let places: Vec<i64> = left.chain(0..size).chain(right).collect();
        let places = w.tensor(tensor1(&places))?;
        x = w.one(array::Gather { axis, output_type: None }, &[x, places])?;
    }
    Ok(tvec!(x))
}

/// Blocks of space into the batch, and back: what dilated convolutions of TensorFlow 1 are made of.
fn space_to_batch(w: &mut Wiring<'_>, inputs: &[OutletId], to_batch: bool) -> Wired {
    let x = first(inputs)?;
    let block = w.konst_ints(input(inputs, 1)?)?;
    let borders = paddings(w, input(inputs, 2)?)?;
    let spatial = block.len();
    let product: i64 = block.iter().product();
    if product < 1 || borders.len() != spatial || w.rank(x)? <= spatial {
        return Err(invalid("the blocks are malformed"));
    }
    if to_batch {
        let mut pads = vec![(0, 0)];
        pads.extend(borders);
        pads.resize(w.rank(x)?, (0, 0));
        let zero = EngineTensor::zero_scalar_dt(w.datum(x)?)?;
        let x =
            w.one(array::Pad { pads, mode: array::PadMode::Constant(std::sync::Arc::new(zero)) }, &[x])?;
        let dims = w.dims(x)?;
        let (batch, rest) = dims.split_first().ok_or(WiringError::Unsupported)?;
        let mut split: TVec<TDim> = tvec!(batch.clone());
        for (dim, block) in rest.iter().zip(&block) {
            split.extend([dim.clone() / *block, TDim::from(*block)]);
        }
        split.extend(rest.iter().skip(spatial).cloned());
        let split = w.reshape(x, &split)?;
        let mut permutation: Vec<usize> = (0..spatial).map(|i| 2 + 2 * i).collect();
        permutation.push(0);
        permutation.extend((0..spatial).map(|i| 1 + 2 * i));
        permutation.extend(2 * spatial + 1..w.rank(split)?);
        let moved = w.transpose(split, &permutation)?;
        let mut merged: TVec<TDim> = tvec!(batch.clone() * product);
        merged.extend(rest.iter().zip(&block).map(|(d, b)| d.clone() / *b));
        merged.extend(rest.iter().skip(spatial).cloned());
        return Ok(tvec!(w.reshape(moved, &merged)?));
    }
    let dims = w.dims(x)?;
    let (batch, rest) = dims.split_first().ok_or(WiringError::Unsupported)?;
    let mut split: TVec<TDim> = block.iter().map(|b| TDim::from(*b)).collect();
    split.push(batch.clone() / product);
    split.extend(rest.iter().cloned());
    let split = w.reshape(x, &split)?;
    let mut permutation = vec![spatial];
    for i in 0..spatial {
        permutation.extend([spatial + 1 + i, i]);
    }
    permutation.extend(2 * spatial + 1..w.rank(split)?);
    let moved = w.transpose(split, &permutation)?;
    let mut merged: TVec<TDim> = tvec!(batch.clone() / product);
    merged.extend(rest.iter().zip(&block).map(|(d, b)| d.clone() * *b));
    merged.extend(rest.iter().skip(spatial).cloned());
    let mut out = w.reshape(moved, &merged)?;
    for (i, (before, after)) in borders.into_iter().enumerate() {
        let size = w.dim(out, i + 1)?;
        out = w.cut(out, i + 1, before, size - after)?;
    }
    Ok(tvec!(out))
}
