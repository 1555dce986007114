//! Parts of tensors by their places.

use super::super::api::{AxisOp, DatumType, OutletId, TDim, ToDim, tensor1, tract_core, tvec};
use super::super::graph::Node;
use super::wiring::{One, Wired, Wiring, axis_of, first, input, invalid};
use super::{Handler, WiringError};
use tract_core::ops::array;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Slice" => slice,
        "StridedSlice" => strided_slice,
        "ReverseV2" | "Reverse" => reverse,
        _ => return None,
    })
}

impl Wiring<'_> {
    /// Part of a dimension.
    #[allow(clippy::needless_pass_by_value, reason = "sizes are handed over as they are")]
    pub(super) fn cut(&mut self, x: OutletId, axis: usize, start: impl ToDim, end: impl ToDim) -> One {
        let (start, end) = (start.to_dim(), end.to_dim());
        if start == TDim::from(0) && end == self.dim(x, axis)? {
            return Ok(x);
        }
        let x = self.once_known(x, &[&start, &end])?;
        self.one(array::Slice { axis, start, end }, &[x])
    }
}

fn slice(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let mut x = first(inputs)?;
    let (starts, sizes) = (w.sizes(input(inputs, 1)?)?, w.sizes(input(inputs, 2)?)?);
    for (axis, (start, size)) in starts.into_iter().zip(sizes).enumerate() {
        let end = if size == TDim::from(-1) { w.dim(x, axis)? } else { start.clone() + size };
        x = w.cut(x, axis, start, end)?;
    }
    Ok(tvec!(x))
}

fn strided_slice(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let mut x = first(inputs)?;
    if w.konst(input(inputs, 1)?).is_err()
        && let Some(picked) = picked(w, node, inputs)?
    {
        return Ok(tvec!(picked));
    }
    let begin = w.sizes(input(inputs, 1)?)?;
    let end = w.sizes(input(inputs, 2)?)?;
    let strides = w.konst_ints(input(inputs, 3)?)?;
    let mask = |name: &str| node.attributes.int(name).unwrap_or(0);
    let (begin_mask, end_mask, ellipsis) = (mask("begin_mask"), mask("end_mask"), mask("ellipsis_mask"));
    let (new_axis, shrink) = (mask("new_axis_mask"), mask("shrink_axis_mask"));
    let bit = |mask: i64, at: usize| at < 63 && mask >> at & 1 == 1;
    let specs = strides.len();
    let consuming = (0..specs).filter(|at| !bit(new_axis, *at) && !bit(ellipsis, *at)).count();
    let mut skipped =
        w.rank(x)?.checked_sub(consuming).ok_or_else(|| invalid("slices more dimensions than there are"))?;
    let (mut axis, mut shrunk) = (0, Vec::new());
    for at in 0..specs {
        if bit(ellipsis, at) {
            axis += std::mem::take(&mut skipped);
            continue;
        }
        if bit(new_axis, at) {
            x = w.one(AxisOp::Add(axis), &[x])?;
            axis += 1;
            continue;
        }
        let stride = *strides.get(at).ok_or(WiringError::Unsupported)?;
        let size = w.dim(x, axis)?;
        let place = |value: Option<&TDim>| {
            let value = value.cloned().ok_or_else(|| invalid("begin and end differ in length"))?;
            // A negative place counts from the end; an open one is known not to be negative.
            Ok::<_, WiringError>(if value.as_i64().is_some_and(|v| v < 0) { value + &size } else { value })
        };
        if bit(shrink, at) {
            let start = place(begin.get(at))?;
            x = w.cut(x, axis, start.clone(), start + 1)?;
            shrunk.push(axis);
            axis += 1;
            continue;
        }
        let is_open = w.is_open(&size);
        let clamp = |value: TDim, low: i64| match (value.as_i64(), size.as_i64()) {
            (Some(value), None) if is_open && value >= 0 => {
                TDim::Min(vec![value.into(), size.clone()]).simplify()
            }
            (Some(value), Some(size)) => TDim::from(value.clamp(low, size)),
            (Some(value), None) if value > i64::from(i32::MAX) - 1 => size.clone(),
            _ => value,
        };
        if stride > 0 {
            let start = if bit(begin_mask, at) { TDim::from(0) } else { clamp(place(begin.get(at))?, 0) };
            let end = if bit(end_mask, at) { size.clone() } else { clamp(place(end.get(at))?, 0) };
            let end = match (start.as_i64(), end.as_i64()) {
                (Some(start), Some(end)) => TDim::from(end.max(start)),
                _ => end,
            };
            x = w.cut(x, axis, start, end)?;
            if stride > 1 {
                x = w.one(
                    tract_core::ops::downsample::Downsample {
                        axis,
                        stride: isize::try_from(stride).unwrap_or(isize::MAX),
                        modulo: 0,
                    },
                    &[x],
                )?;
            }
        } else {
            x = backwards(
                w,
                x,
                axis,
                stride,
                (!bit(begin_mask, at)).then(|| place(begin.get(at))).transpose()?,
                (!bit(end_mask, at)).then(|| place(end.get(at))).transpose()?,
            )?;
        }
        axis += 1;
    }
    for axis in shrunk.into_iter().rev() {
        x = w.one(AxisOp::Rm(axis), &[x])?;
    }
    Ok(tvec!(x))
}

/// A slice that takes whole dimensions, and of others one place each that only the run tells.
fn picked(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Result<Option<OutletId>, WiringError> {
    let (mut x, begin) = (first(inputs)?, w.plain(input(inputs, 1)?)?);
    let strides = w.konst_ints(input(inputs, 3)?)?;
    let bit = |name: &str, at: usize| at < 63 && node.attributes.int(name).unwrap_or(0) >> at & 1 == 1;
    let is_whole = |at: usize| bit("begin_mask", at) && bit("end_mask", at) && strides.get(at) == Some(&1);
    let is_plain = (0..strides.len()).all(|at| bit("shrink_axis_mask", at) || is_whole(at));
    let is_shaped = |at| bit("ellipsis_mask", at) || bit("new_axis_mask", at);
    if !is_plain || (0..strides.len()).any(is_shaped) {
        return Ok(None);
    }
    for at in (0..strides.len()).rev().filter(|at| bit("shrink_axis_mask", *at)) {
        let place = w.cut(begin, 0, at, at + 1)?;
        let place = w.one(AxisOp::Rm(0), &[place])?;
        let place = w.cast(place, DatumType::I64)?;
        x = w.one(array::Gather { axis: at, output_type: None }, &[x, place])?;
    }
    Ok(Some(x))
}

/// Every `-stride`-th element from `start` down to just after `end`.
fn backwards(
    w: &mut Wiring<'_>,
    x: OutletId,
    axis: usize,
    stride: i64,
    start: Option<TDim>,
    end: Option<TDim>,
) -> One {
    let size = w.dim(x, axis)?.as_i64().ok_or_else(|| invalid("goes backwards through an open dimension"))?;
    let known = |d: Option<TDim>| d.map(|d| d.as_i64().ok_or(WiringError::Unsupported)).transpose();
    let start = known(start)?.unwrap_or(size - 1).clamp(-1, size - 1);
    let end = known(end)?.unwrap_or(-1).clamp(-1, size);
    let step = usize::try_from(stride.unsigned_abs()).map_err(|_| invalid("the stride is too large"))?;
    if stride == 0 {
        return Err(invalid("the stride is zero"));
    }
    let places: Vec<i64> = (end + 1..=start).rev().step_by(step).collect();
    let places = w.tensor(tensor1(&places))?;
    w.one(array::Gather { axis, output_type: None }, &[x, places])
}

fn reverse(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let mut x = first(inputs)?;
    for axis in w.konst_ints(input(inputs, 1)?)? {
        let axis = axis_of(axis, w.rank(x)?)?;
        x = backwards(w, x, axis, -1, None, None)?;
    }
    Ok(tvec!(x))
}
