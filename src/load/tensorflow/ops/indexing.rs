//! Picking elements by their place.

use super::super::api::{
    AxisOp, Datum, DatumType, EngineTensor, IntoTValue, OutletId, TDim, TVec, TypedFact, bail,
    dispatch_datum, f16, tensor0, tract_core, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::{Computed, room_for};
use super::wiring::{Wired, Wiring, axis_of, first, input, invalid, two};
use super::{Handler, WiringError};
use tract_core::ops::{array, logic};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Gather" | "ResourceGather" => |w, n, i| {
            let (x, places) = two(i)?;
            gather(w, x, places, 0, n.attributes.int("batch_dims").unwrap_or(0))
        },
        "GatherV2" => |w, n, i| {
            let axis = w.konst_scalar::<i64>(input(i, 2)?)?;
            gather(w, first(i)?, input(i, 1)?, axis, n.attributes.int("batch_dims").unwrap_or(0))
        },
        "GatherNd" | "ResourceGatherNd" => gather_nd,
        "OneHot" => one_hot,
        "TopKV2" | "TopK" => top_k,
        "InTopK" | "InTopKV2" => super::ranks::in_top_k,
        "Bucketize" => bucketize,
        "LowerBound" | "UpperBound" => bound,
        "MatrixBandPart" => matrix_band_part,
        "DenseBincount" => dense_bincount,
        _ => return None,
    })
}

/// A place outside the table is an error of the run, as on TensorFlow's CPU.
fn checked(size: Option<i64>) -> Computed {
    Computed::new(
        "CheckedIndices",
        |facts| Ok(facts.iter().map(|f| TypedFact::dt_shape(i64::datum_type(), f.shape.clone())).collect()),
        move |values| {
            let [places] = values else { bail!("one input expected") };
            let places = places.cast_to::<i64>()?.into_owned();
            if let Some(size) = size
                && let Some(bad) =
                    places.try_as_plain_ram()?.as_slice::<i64>()?.iter().find(|p| !(0..size).contains(*p))
            {
                bail!("index {bad} is not in [0, {size})");
            }
            Ok(tvec!(places.into_tvalue()))
        },
    )
}

fn gather(w: &mut Wiring<'_>, x: OutletId, places: OutletId, axis: i64, batch: i64) -> Wired {
    let rank = w.rank(x)?;
    let axis = axis_of(axis, rank)?;
    let places_rank = w.rank(places)?;
    let batch = if batch < 0 { batch + i64::try_from(places_rank).unwrap_or(0) } else { batch };
    let size = w.dim(x, axis)?;
    if w.datum(x)? == DatumType::TDim {
        // A shape is known where its place is: what is picked stays a constant.
        let places = w.plain(places)?;
        let places = w.cast(places, DatumType::I64)?;
        if w.konst(places).is_ok() {
            return Ok(tvec!(w.one(array::Gather { axis, output_type: None }, &[x, places])?));
        }
        let x = w.plain(x)?;
        return Ok(tvec!(w.one(array::Gather { axis, output_type: None }, &[x, places])?));
    }
    if batch > 0 {
        return gather_batched(w, x, places, axis, usize::try_from(batch).unwrap_or(0));
    }
    let places = w.plain(places)?;
    let places = w.one(checked(size.as_i64()), &[places])?;
    Ok(tvec!(w.one(array::Gather { axis, output_type: None }, &[x, places])?))
}

/// Each row of the leading dimensions has its own table and its own places.
fn gather_batched(w: &mut Wiring<'_>, x: OutletId, places: OutletId, axis: usize, batch: usize) -> Wired {
    if batch > axis {
        return Err(invalid("more batch dimensions than there are before the axis"));
    }
    let (dims, place_dims) = (w.dims(x)?, w.dims(places)?);
    let mut out: TVec<_> = dims.iter().take(axis).cloned().collect();
    out.extend(place_dims.iter().skip(batch).cloned());
    out.extend(dims.iter().skip(axis + 1).cloned());
    let datum = w.datum(x)?;
    let op = Computed::new(
        "GatherBatched",
        {
            let out = out.clone();
            move |_| Ok(tvec!(TypedFact::dt_shape(datum, &*out)))
        },
        move |values| {
            let [x, places] = values else { bail!("two inputs expected") };
            let places = places.cast_to::<i64>()?.into_owned();
            Ok(tvec!(dispatch_datum!(picked(x.datum_type())(x, &places, axis, batch))?.into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &[x, places])?))
}

fn picked<T: Datum>(
    x: &EngineTensor,
    places: &EngineTensor,
    axis: usize,
    batch: usize,
) -> super::super::api::TractResult<EngineTensor> {
    let (plain, plain_places) = (x.try_as_plain_ram()?, places.try_as_plain_ram()?);
    let (values, picks) = (plain.as_slice::<T>()?, plain_places.as_slice::<i64>()?);
    let product = |dims: Option<&[usize]>| dims.unwrap_or(&[]).iter().product::<usize>();
    let shape = x.shape();
    let (outer, middle) = (product(shape.get(..batch)), product(shape.get(batch..axis)));
    let (size, inner) = (shape.get(axis).copied().unwrap_or(1), product(shape.get(axis + 1..)));
    let each = product(places.shape().get(batch..));
    let mut out: Vec<T> = Vec::with_capacity(outer * middle * each * inner);
    for row in 0..outer {
        let picks = picks.get(row * each..(row + 1) * each).unwrap_or(&[]);
        for part in 0..middle {
            for pick in picks {
                let at = usize::try_from(*pick).ok().filter(|p| *p < size);
                let start = at.map(|at| ((row * middle + part) * size + at) * inner);
                let found = start.and_then(|s| values.get(s..s + inner));
                match found {
                    Some(found) => out.extend_from_slice(found),
                    None => bail!("index {pick} is not in [0, {size})"),
                }
            }
        }
    }
    let mut dims: Vec<usize> = shape.iter().take(axis).copied().collect();
    dims.extend(places.shape().iter().skip(batch));
    dims.extend(shape.iter().skip(axis + 1));
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(dims, out)?))
}

fn gather_nd(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (x, places) = two(inputs)?;
    let batch = node.attributes.int("batch_dims").unwrap_or(0);
    let batch_dims = usize::try_from(batch).map_err(|_| invalid("batch_dims is negative"))?;
    let places = w.plain(places)?;
    let (axes, rank) = (w.dims(x)?, w.rank(places)?);
    let depth = w.dims(places)?.last().and_then(|d| d.as_i64()).and_then(|d| usize::try_from(d).ok());
    let depth = depth.ok_or(WiringError::Unsupported)?;
    if batch_dims >= rank || batch_dims.saturating_add(depth) > axes.len() {
        return Err(invalid(format!(
            "expected indices into {} dimensions behind {batch_dims} of the batch, found {depth} an index",
            axes.len()
        )));
    }
    let sizes = axes.iter().skip(batch_dims).take(depth).map(|d| d.as_i64()).collect();
    let places = w.one(checked_nd(sizes), &[places])?;
    let places = w.cast(places, DatumType::I32)?;
    Ok(tvec!(w.one(array::GatherNd { batch_dims }, &[x, places])?))
}

/// As [`checked`], for places of a coordinate for each of several axes.
fn checked_nd(sizes: Vec<Option<i64>>) -> Computed {
    Computed::new(
        "CheckedIndices",
        |facts| Ok(facts.iter().map(|f| TypedFact::dt_shape(i64::datum_type(), f.shape.clone())).collect()),
        move |values| {
            let [places] = values else { bail!("one input expected") };
            let places = places.cast_to::<i64>()?.into_owned();
            let plain = places.try_as_plain_ram()?;
            for (place, size) in plain.as_slice::<i64>()?.iter().zip(sizes.iter().cycle()) {
                // What is not known before the run cannot be below zero all the same.
                let size = size.unwrap_or(i64::MAX);
                if !(0..size).contains(place) {
                    bail!("index {place} is not in [0, {size})");
                }
            }
            Ok(tvec!(places.into_tvalue()))
        },
    )
}

fn one_hot(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let places = w.plain(first(inputs)?)?;
    let depth = w.konst_scalar::<i64>(input(inputs, 1)?)?;
    let (on, off) = (input(inputs, 2)?, input(inputs, 3)?);
    let rank = w.rank(places)?;
    let axis = axis_of(node.attributes.int("axis").unwrap_or(-1), rank + 1)?;
    if !(0..=1 << 28).contains(&depth) {
        return Err(invalid(format!("the depth {depth} is out of range")));
    }
    // Places out of range, negative ones too, give a row of `off`.
    let places = w.cast(places, DatumType::I64)?;
    let places = w.one(AxisOp::Add(axis), &[places])?;
    let mut shape = vec![1; rank + 1];
    if let Some(size) = shape.get_mut(axis) {
        *size = usize::try_from(depth).unwrap_or(0);
    }
    let all: Vec<i64> = (0..depth).collect();
    let all = tract_ndarray::ArrayD::from_shape_vec(shape, all).map_err(|e| invalid(e.to_string()))?;
    let all = w.tensor(EngineTensor::from(all))?;
    let hit = w.one(super::logic::comparison(logic::comp_eq()), &[places, all])?;
    let (on, off) = (w.with_rank(on, rank + 1)?, w.with_rank(off, rank + 1)?);
    Ok(tvec!(w.one(logic::Iff, &[hit, on, off])?))
}

fn top_k(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let axis = w.rank(x)?.checked_sub(1).ok_or_else(|| invalid("needs at least one dimension"))?;
    let k = match inputs.get(1) {
        Some(k) => w.konst_scalar::<i64>(*k)?,
        None => node.attributes.int("k").ok_or_else(|| invalid("does not say how many"))?,
    };
    if w.dim(x, axis)?.as_i64().is_some_and(|size| k > size) || k < 0 {
        return Err(invalid(format!("wants {k} of fewer")));
    }
    let amount = w.tensor(tensor0(k))?;
    let found = w.all(array::Topk { axis, largest: true, fallback_k: k.into() }, &[x, amount])?;
    let (values, places) = two(&found)?;
    let wanted = node.attributes.datum("index_type").unwrap_or(DatumType::I32);
    Ok(tvec!(values, w.cast(places, wanted)?))
}

/// How many boundaries lie at or below each value.
fn bucketize(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let boundaries = node.attributes.floats("boundaries").unwrap_or_default().to_vec();
    let op = Computed::new(
        "Bucketize",
        |facts| Ok(facts.iter().map(|f| TypedFact::dt_shape(i32::datum_type(), f.shape.clone())).collect()),
        move |values| {
            let [x] = values else { bail!("one input expected") };
            let numbers = x.cast_to::<f64>()?;
            let numbers = numbers.to_plain_array_view::<f64>()?;
            let place = |v: &f64| {
                // A NaN lies above all boundaries, as a binary search that compares has it.
                let below = boundaries.partition_point(|b| v.is_nan() || *v >= f64::from(*b));
                i32::try_from(below).unwrap_or(i32::MAX)
            };
            Ok(tvec!(EngineTensor::from(numbers.map(place)).into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &[x])?))
}

/// The place in a sorted row where each value would be put in.
fn bound(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let both = w.same_type(&[first(inputs)?, input(inputs, 1)?])?;
    let (sorted, values) = two(&both)?;
    let upper = node.op == "UpperBound";
    let wanted = node.attributes.datum("out_type").unwrap_or(DatumType::I32);
    let fact = TypedFact::dt_shape(wanted, &*w.dims(values)?);
    let op = Computed::giving("Bound", tvec!(fact), move |inputs| {
        let [sorted, values] = inputs else { bail!("two inputs expected") };
        let (length, each) = (sorted.shape().last().copied(), values.shape().last().copied());
        let (sorted, numbers) = (sorted.cast_to::<f64>()?, values.cast_to::<f64>()?);
        let (plain, plain_numbers) = (sorted.try_as_plain_ram()?, numbers.try_as_plain_ram()?);
        let rows = plain.as_slice::<f64>()?.chunks(length.unwrap_or(1).max(1));
        let mut places: Vec<i64> = Vec::new();
        for (row, values) in rows.zip(plain_numbers.as_slice::<f64>()?.chunks(each.unwrap_or(1).max(1))) {
            for value in values {
                let place = row.partition_point(|at| if upper { at <= value } else { at < value });
                places.push(i64::try_from(place)?);
            }
        }
        let places = EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(values.shape(), places)?);
        Ok(tvec!(places.cast_to_dt(wanted)?.into_owned().into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[sorted, values])?))
}

/// Keeps a band about the diagonal: attention's causal mask is one.
fn matrix_band_part(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let (lower, upper) =
        (w.konst_scalar::<i64>(input(inputs, 1)?)?, w.konst_scalar::<i64>(input(inputs, 2)?)?);
    let op = Computed::new(
        "MatrixBandPart",
        |facts| Ok(facts.iter().map(|f| f.without_value()).collect()),
        move |values| {
            let [x] = values else { bail!("one input expected") };
            Ok(tvec!(dispatch_datum!(banded(x.datum_type())(x, lower, upper))?.into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &[x])?))
}

fn banded<T: Datum + Default>(
    x: &EngineTensor,
    lower: i64,
    upper: i64,
) -> super::super::api::TractResult<EngineTensor> {
    let [.., rows, columns] = x.shape() else { bail!("a matrix expected") };
    let (rows, columns) = (*rows, *columns);
    let mut values = x.try_as_plain_ram()?.as_slice::<T>()?.to_vec();
    for (at, value) in values.iter_mut().enumerate() {
        let (row, column) = ((at / columns.max(1)) % rows.max(1), at % columns.max(1));
        let over = |distance: usize, limit: i64| usize::try_from(limit).is_ok_and(|limit| distance > limit);
        if over(row.saturating_sub(column), lower) || over(column.saturating_sub(row), upper) {
            *value = T::default();
        }
    }
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(x.shape(), values)?))
}

/// Counts, or sums of weights, by number: what category encoding of several values a row is.
fn dense_bincount(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let size = w.sizes(input(inputs, 1)?)?.first().cloned().ok_or(WiringError::Unsupported)?;
    let bins = w.plain(input(inputs, 1)?)?;
    let weights = input(inputs, 2)?;
    let binary = node.attributes.bool("binary_output").unwrap_or(false);
    if size.as_i64().is_some_and(|size| !(0..=1 << 28).contains(&size)) {
        return Err(invalid(format!("the size {size} is out of range")));
    }
    let rank = w.rank(x)?;
    if !(1..=2).contains(&rank) {
        return Err(WiringError::Unsupported);
    }
    let weighted = w.dims(weights)?.iter().all(|d| d.as_i64() != Some(0)) && !binary;
    let datum = w.datum(weights)?;
    let mut dims = w.dims(x)?;
    dims.pop();
    dims.push(size);
    let budget = w.budget();
    let op = Computed::new(
        "DenseBincount",
        move |_| Ok(tvec!(TypedFact::dt_shape(datum, &*dims))),
        move |values| {
            let [x, weights, size] = values else { bail!("three inputs expected") };
            let size = usize::try_from(size.cast_to_scalar::<i64>()?)?;
            let places = x.cast_to::<i64>()?;
            let places = places.try_as_plain_ram()?.as_slice::<i64>()?.to_vec();
            let weights = weights.cast_to::<f64>()?;
            let weights = weights.try_as_plain_ram()?.as_slice::<f64>()?.to_vec();
            let width = x.shape().last().copied().unwrap_or(1).max(1);
            let rows: usize = x.shape().iter().rev().skip(1).product();
            let mut counts = vec![0.0_f64; room_for(&[rows, size], size_of::<f64>(), budget)?];
            for (at, place) in places.iter().enumerate() {
                if *place < 0 {
                    bail!("a number to count is negative");
                }
                let Some(place) = usize::try_from(*place).ok().filter(|p| *p < size) else { continue };
                if let Some(count) = counts.get_mut(at / width * size + place) {
                    let weight = if weighted { weights.get(at).copied().unwrap_or(0.0) } else { 1.0 };
                    *count = if binary { 1.0 } else { *count + weight };
                }
            }
            let mut dims = x.shape().to_vec();
            dims.pop();
            dims.push(size);
            let out = EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(dims, counts)?);
            Ok(tvec!(out.cast_to_dt(datum)?.into_owned().into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &[x, weights, bins])?))
}
