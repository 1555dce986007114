//! Shapes: reading them, changing them, putting tensors together and apart.

use super::super::api::{AxisOp, DatumType, OutletId, TDim, TVec, ToDim, tensor0, tensor1, tract_core, tvec};
use super::super::graph::Node;
use super::wiring::{One, Wired, Wiring, axis_of, first, input, invalid, two};
use super::{Handler, WiringError};
use tract_core::ops::array;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Shape" => |w, n, i| shape(w, n, i),
        "ShapeN" => |w, n, i| {
            let mut out = TVec::new();
            for x in i {
                out.extend(shape(w, n, &[*x])?);
            }
            Ok(out)
        },
        "Rank" => |w, _, i| {
            let rank = i32::try_from(w.rank(first(i)?)?).map_err(|_| invalid("the rank is too large"))?;
            Ok(tvec!(w.tensor(tensor0(rank))?))
        },
        "Size" => |w, _, i| {
            let size: TDim = w.dims(first(i)?)?.iter().product();
            Ok(tvec!(w.number(size)?))
        },
        "Reshape" => |w, _, i| {
            let spec = w.konst_dims(input(i, 1)?)?;
            Ok(tvec!(w.reshape(first(i)?, &spec)?))
        },
        "ExpandDims" => |w, _, i| {
            let axis = w.konst_scalar::<i64>(input(i, 1)?)?;
            let axis = axis_of(axis, w.rank(first(i)?)? + 1)?;
            Ok(tvec!(w.one(AxisOp::Add(axis), &[first(i)?])?))
        },
        "Squeeze" => squeeze,
        "Transpose" => |w, _, i| {
            let rank = w.rank(first(i)?)?;
            let axes = w.konst_ints(input(i, 1)?)?;
            let axes = axes.into_iter().map(|a| axis_of(a, rank)).collect::<Result<Vec<_>, _>>()?;
            let mut sorted = axes.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..rank) {
                return Err(invalid("the permutation does not name each axis once"));
            }
            Ok(tvec!(w.transpose(first(i)?, &axes)?))
        },
        "ConcatV2" => |w, _, i| {
            let (axis, parts) = i.split_last().ok_or(WiringError::Unsupported)?;
            let axis = w.konst_scalar::<i64>(*axis)?;
            concat(w, parts, axis)
        },
        "Concat" => |w, _, i| {
            let (axis, parts) = i.split_first().ok_or(WiringError::Unsupported)?;
            let axis = w.konst_scalar::<i64>(*axis)?;
            concat(w, parts, axis)
        },
        "Pack" => pack,
        "Unpack" => unpack,
        "Split" => split,
        "SplitV" => split_sizes,
        "Slice" => slice,
        "StridedSlice" => strided_slice,
        "Tile" => |w, _, i| {
            let multipliers = w.konst_dims(input(i, 1)?)?;
            Ok(tvec!(w.one(array::Tile { multipliers }, &[first(i)?])?))
        },
        "BroadcastTo" => |w, _, i| {
            let dims = w.konst_dims(input(i, 1)?)?;
            Ok(tvec!(w.broadcast_to(first(i)?, &dims)?))
        },
        "Fill" => |w, _, i| {
            let dims = w.konst_dims(first(i)?)?;
            let value = w.plain(input(i, 1)?)?;
            Ok(tvec!(w.broadcast_to(value, &dims)?))
        },
        "ZerosLike" => |w, _, i| filled_like(w, first(i)?, 0),
        "OnesLike" => |w, _, i| filled_like(w, first(i)?, 1),
        "Range" => range,
        "LinSpace" => lin_space,
        "BroadcastArgs" => |w, _, i| {
            let (a, b) = two(i)?;
            let (a, b) = (w.konst_dims(a)?, w.konst_dims(b)?);
            let dims: TVec<TDim> = tract_core::broadcast::multi_broadcast(&[&*a, &*b])?;
            Ok(tvec!(w.dims_tensor(&dims)?))
        },
        "ReverseV2" | "Reverse" => reverse,
        "Roll" => roll,
        "InvertPermutation" => |w, _, i| {
            let permutation = w.konst_ints(first(i)?)?;
            let mut inverse = vec![0_i32; permutation.len()];
            for (to, from) in permutation.iter().enumerate() {
                let place = usize::try_from(*from).ok().and_then(|f| inverse.get_mut(f));
                *place.ok_or_else(|| invalid("not a permutation"))? =
                    i32::try_from(to).map_err(|_| invalid("not a permutation"))?;
            }
            Ok(tvec!(w.tensor(tensor1(&inverse))?))
        },
        _ => return None,
    })
}

impl Wiring<'_> {
    /// A dimension as a scalar: an ordinary number where it is known.
    pub(super) fn number(&mut self, value: TDim) -> One {
        match value.as_i64().and_then(|v| i32::try_from(v).ok()) {
            Some(value) => self.tensor(tensor0(value)),
            None => self.tensor(tensor0(value)),
        }
    }

    /// Dimensions as a vector: ordinary numbers where all are known.
    pub(super) fn dims_tensor(&mut self, dims: &[TDim]) -> One {
        let known: Option<Vec<i32>> = dims.iter().map(|d| i32::try_from(d.as_i64()?).ok()).collect();
        match known {
            Some(known) => self.tensor(tensor1(&known)),
            None => self.tensor(tensor1(dims)),
        }
    }

    /// Part of a dimension.
    #[allow(clippy::needless_pass_by_value, reason = "sizes are handed over as they are")]
    pub(super) fn cut(&mut self, x: OutletId, axis: usize, start: impl ToDim, end: impl ToDim) -> One {
        let (start, end) = (start.to_dim(), end.to_dim());
        if start == TDim::from(0) && end == self.dim(x, axis)? {
            return Ok(x);
        }
        self.one(array::Slice { axis, start, end }, &[x])
    }
}

fn shape(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let dims = w.dims(first(inputs)?)?;
    let shape = w.dims_tensor(&dims)?;
    let wanted = node.attributes.datum("out_type").unwrap_or(DatumType::I32);
    if w.datum(shape)? == DatumType::TDim { Ok(tvec!(shape)) } else { Ok(tvec!(w.cast(shape, wanted)?)) }
}

fn squeeze(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let mut x = first(inputs)?;
    let dims = w.dims(x)?;
    let listed =
        node.attributes.ints("squeeze_dims").or_else(|| node.attributes.ints("axis")).unwrap_or_default();
    let mut axes = listed.iter().map(|a| axis_of(*a, dims.len())).collect::<Result<Vec<_>, _>>()?;
    if axes.is_empty() {
        axes = dims.iter().enumerate().filter(|(_, d)| **d == TDim::from(1)).map(|(a, _)| a).collect();
    }
    axes.sort_unstable();
    axes.dedup();
    for axis in axes.into_iter().rev() {
        x = w.one(AxisOp::Rm(axis), &[x])?;
    }
    Ok(tvec!(x))
}

fn concat(w: &mut Wiring<'_>, parts: &[OutletId], axis: i64) -> Wired {
    let parts = w.same_type(parts)?;
    let axis = axis_of(axis, w.rank(first(&parts)?)?)?;
    if parts.len() == 1 {
        return Ok(parts);
    }
    Ok(tvec!(w.one(array::TypedConcat { axis }, &parts)?))
}

fn pack(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let rank = w.rank(first(inputs)?)? + 1;
    let axis = axis_of(node.attributes.int("axis").unwrap_or(0), rank)?;
    let parts = w.same_type(inputs)?;
    let parts = parts.iter().map(|p| w.one(AxisOp::Add(axis), &[*p])).collect::<Result<Vec<_>, _>>()?;
    if let [one] = parts.as_slice() {
        return Ok(tvec!(*one));
    }
    Ok(tvec!(w.one(array::TypedConcat { axis }, &parts)?))
}

fn unpack(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let axis = axis_of(node.attributes.int("axis").unwrap_or(0), w.rank(x)?)?;
    let parts = w.dim(x, axis)?.as_i64().ok_or_else(|| invalid("the dimension to unpack is open"))?;
    if parts > 1 << 16 {
        return Err(invalid("more than 65536 parts"));
    }
    (0..parts)
        .map(|at| {
            let part = w.cut(x, axis, at, at + 1)?;
            w.one(AxisOp::Rm(axis), &[part])
        })
        .collect()
}

fn split(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (axis, x) = two(inputs)?;
    let axis = axis_of(w.konst_scalar::<i64>(axis)?, w.rank(x)?)?;
    let parts = node.attributes.int("num_split").filter(|n| (1..=1 << 16).contains(n));
    let parts = parts.ok_or_else(|| invalid("does not say into how many parts"))?;
    let size = w.dim(x, axis)?;
    let each = match size.as_i64() {
        Some(size) if size % parts == 0 => TDim::from(size / parts),
        Some(size) => return Err(invalid(format!("{size} does not split into {parts} parts"))),
        None => size / parts,
    };
    (0..parts).map(|at| w.cut(x, axis, each.clone() * at, each.clone() * (at + 1))).collect()
}

fn split_sizes(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let sizes = w.konst_ints(input(inputs, 1)?)?;
    let axis = axis_of(w.konst_scalar::<i64>(input(inputs, 2)?)?, w.rank(x)?)?;
    let known: i64 = sizes.iter().filter(|s| **s >= 0).sum();
    let rest = w.dim(x, axis)? - known;
    let mut start = TDim::from(0);
    let mut parts = TVec::new();
    for size in sizes {
        let end = start.clone() + if size < 0 { rest.clone() } else { TDim::from(size) };
        parts.push(w.cut(x, axis, start, end.clone())?);
        start = end;
    }
    Ok(parts)
}

fn slice(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let mut x = first(inputs)?;
    let (starts, sizes) = (w.konst_dims(input(inputs, 1)?)?, w.konst_dims(input(inputs, 2)?)?);
    for (axis, (start, size)) in starts.into_iter().zip(sizes).enumerate() {
        let end = if size == TDim::from(-1) { w.dim(x, axis)? } else { start.clone() + size };
        x = w.cut(x, axis, start, end)?;
    }
    Ok(tvec!(x))
}

fn strided_slice(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let mut x = first(inputs)?;
    let begin = w.konst_dims(input(inputs, 1)?)?;
    let end = w.konst_dims(input(inputs, 2)?)?;
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
        let clamp = |value: TDim, low: i64| match (value.as_i64(), size.as_i64()) {
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

fn roll(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let mut x = first(inputs)?;
    let (shifts, axes) = (w.konst_ints(input(inputs, 1)?)?, w.konst_ints(input(inputs, 2)?)?);
    for (shift, axis) in shifts.into_iter().zip(axes) {
        let axis = axis_of(axis, w.rank(x)?)?;
        let size = w.dim(x, axis)?;
        let known = size.as_i64().ok_or_else(|| invalid("rolls an open dimension"))?;
        let shift = shift.rem_euclid(known.max(1));
        if shift != 0 {
            let head = w.cut(x, axis, known - shift, size.clone())?;
            let tail = w.cut(x, axis, 0, known - shift)?;
            x = w.one(array::TypedConcat { axis }, &[head, tail])?;
        }
    }
    Ok(tvec!(x))
}

fn filled_like(w: &mut Wiring<'_>, x: OutletId, value: i64) -> Wired {
    let (dims, datum) = (w.dims(x)?, w.datum(x)?);
    let datum = if datum == DatumType::TDim { DatumType::I64 } else { datum };
    let value = w.tensor(tensor0(value).cast_to_dt(datum)?.into_owned())?;
    Ok(tvec!(w.broadcast_to(value, &dims)?))
}

fn range(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (start, limit, delta) = (first(inputs)?, input(inputs, 1)?, input(inputs, 2)?);
    let datum = w.datum(start)?;
    if datum.is_float() {
        let (start, limit, delta) =
            (w.konst_scalar::<f64>(start)?, w.konst_scalar::<f64>(limit)?, w.konst_scalar::<f64>(delta)?);
        let steps = ((limit - start) / delta).ceil();
        if !(0.0..=1e7).contains(&steps) {
            return Err(invalid("the range is not finite, or too long"));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        let steps = steps as u32;
        let values: Vec<f64> = (0..steps).map(|i| start + delta * f64::from(i)).collect();
        let values = w.tensor(tensor1(&values))?;
        return Ok(tvec!(w.cast(values, datum)?));
    }
    let dim = |d: TVec<TDim>| d.first().cloned().ok_or(WiringError::Unsupported);
    let start = dim(w.konst_dims(start)?)?;
    let limit = dim(w.konst_dims(limit)?)?;
    let step = dim(w.konst_dims(delta)?)?.as_i64().ok_or(WiringError::Unsupported)?;
    if let (Some(start), Some(limit)) = (start.as_i64(), limit.as_i64()) {
        if step == 0 || (limit.saturating_sub(start) / step).abs() > 10_000_000 {
            return Err(invalid("the range does not end, or is too long"));
        }
        let steps = usize::try_from(step.unsigned_abs()).map_err(|_| invalid("the step is too large"))?;
        let values: Vec<i64> = if step > 0 {
            (start..limit).step_by(steps).collect()
        } else {
            (limit + 1..=start).rev().step_by(steps).collect()
        };
        let datum = if datum == DatumType::TDim { DatumType::I64 } else { datum };
        let values = w.tensor(tensor1(&values))?;
        return Ok(tvec!(w.cast(values, datum)?));
    }
    if step != 1 {
        return Err(WiringError::Unsupported);
    }
    let length = limit.clone() - &start;
    let (start, limit) = (w.tensor(tensor0(start))?, w.tensor(tensor0(limit))?);
    let step = w.tensor(tensor0(TDim::from(1)))?;
    let values = w.one(array::Range::new(length), &[start, limit, step])?;
    Ok(tvec!(w.cast(values, DatumType::I64)?))
}

fn lin_space(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (start, stop) = (w.konst_scalar::<f64>(first(inputs)?)?, w.konst_scalar::<f64>(input(inputs, 1)?)?);
    let steps = w.konst_scalar::<i64>(input(inputs, 2)?)?;
    if !(1..=10_000_000).contains(&steps) {
        return Err(invalid("the number of steps is out of range"));
    }
    let each = if steps > 1 { (stop - start) / (steps - 1) as f64 } else { 0.0 };
    let values: Vec<f64> = (0..steps).map(|i| start + each * i as f64).collect();
    let datum = w.datum(first(inputs)?)?;
    let values = w.tensor(tensor1(&values))?;
    Ok(tvec!(w.cast(values, datum)?))
}
