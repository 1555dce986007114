//! Shapes: reading them, changing them, putting tensors together and apart.

use super::super::api::{AxisOp, DatumType, OutletId, TDim, TVec, tensor0, tensor1, tract_core, tvec};
use super::super::graph::Node;
use super::wiring::{One, Wired, Wiring, axis_of, first, input, invalid, not_negative, two};
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
            let spec = w.sizes(input(i, 1)?)?;
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
        "Tile" => |w, _, i| {
            let multipliers = w.sizes(input(i, 1)?)?;
            not_negative(&multipliers)?;
            if w.datum(first(i)?)? == DatumType::String {
                return Ok(tvec!(w.repeated(first(i)?, &multipliers)?));
            }
            Ok(tvec!(w.one(array::Tile { multipliers }, &[first(i)?])?))
        },
        "BroadcastTo" => |w, _, i| {
            let dims = w.sizes(input(i, 1)?)?;
            Ok(tvec!(w.broadcast_to(first(i)?, &dims)?))
        },
        "Fill" => |w, _, i| {
            let dims = w.sizes(first(i)?)?;
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

    /// Strings repeated along each dimension, which the engine can only do with numbers.
    fn repeated(&mut self, x: OutletId, times: &[TDim]) -> One {
        let mut dims = self.dims(x)?;
        dims.iter_mut().zip(times).for_each(|(dim, times)| *dim = dim.clone() * times);
        // A dimension before each for the repetitions, then the two as one.
        let (mut x, mut wide) = (x, TVec::new());
        for (axis, (dim, times)) in self.dims(x)?.into_iter().zip(times).enumerate() {
            x = self.one(AxisOp::Add(2 * axis), &[x])?;
            wide.extend([times.clone(), dim]);
        }
        let x = self.broadcast_to(x, &wide)?;
        self.reshape(x, &dims)
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
    let parts = w.agreeing(&parts, Some(axis))?;
    Ok(tvec!(w.one(array::TypedConcat { axis }, &parts)?))
}

fn pack(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let rank = w.rank(first(inputs)?)? + 1;
    let axis = axis_of(node.attributes.int("axis").unwrap_or(0), rank)?;
    let parts = w.same_type(inputs)?;
    let parts = parts.iter().map(|p| w.one(AxisOp::Add(axis), &[*p])).collect::<Result<Vec<_>, _>>()?;
    let parts = w.agreeing(&parts, Some(axis))?;
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
    let start = dim(w.sizes(start)?)?;
    let limit = dim(w.sizes(limit)?)?;
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
