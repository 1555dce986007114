//! Tensors of which only some entries are there: where they are, what they are, and the whole shape.

use super::super::api::tract_ndarray::Dimension;
use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, TDim, TVec, ToDim, TractResult, TypedFact, bail,
    dispatch_datum, f16, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::{Computed, room_for, widest};
use super::ragged::{integers, size};
use super::wiring::{Wired, Wiring, first, input, invalid, two};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Where" => where_true,
        "Unique" | "UniqueV2" | "UniqueWithCounts" => unique,
        "SparseToDense" => to_dense,
        "SparseFillEmptyRows" => fill_empty_rows,
        "SparseReshape" => reshape,
        "SparseTensorDenseMatMul" => mat_mul,
        _ => return None,
    })
}

/// The places of all entries that are not zero.
fn where_true(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let x = w.cast(x, bool::datum_type())?;
    let rank = w.rank(x)?;
    let count = w.open_size();
    let fact = TypedFact::dt_shape(i64::datum_type(), &[count, rank.to_dim()][..]);
    let op = Computed::giving("Where", tvec!(fact), |values| {
        let [x] = values else { bail!("one input expected") };
        let mut places: Vec<i64> = Vec::new();
        let view = x.to_plain_array_view::<bool>()?;
        for (place, value) in view.indexed_iter() {
            if *value {
                places.extend(place.as_array_view().iter().map(|p| i64::try_from(*p).unwrap_or(i64::MAX)));
            }
        }
        let count = view.iter().filter(|v| **v).count();
        let places = tract_ndarray::ArrayD::from_shape_vec(vec![count, x.rank()], places)?;
        Ok(tvec!(EngineTensor::from(places).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

/// Each value once, in the order of appearance, and which of them each value is.
fn unique(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let datum = w.datum(x)?;
    if w.rank(x)? != 1 || matches!(datum, DatumType::F16 | DatumType::Bool) {
        return Err(WiringError::Unsupported);
    }
    let places = node.attributes.datum("out_idx").unwrap_or(DatumType::I32);
    let count = w.open_size();
    let facts = tvec!(
        TypedFact::dt_shape(datum, std::slice::from_ref(&count)),
        TypedFact::dt_shape(places, &*w.dims(x)?),
        TypedFact::dt_shape(places, std::slice::from_ref(&count)),
    );
    let op = Computed::giving("Unique", facts, move |values| {
        let [x] = values else { bail!("one input expected") };
        let found = match x.datum_type() {
            DatumType::String => unique_of::<String, String>(x, String::clone)?,
            DatumType::F32 => unique_of::<f32, u32>(x, |v| (v + 0.0).to_bits())?,
            DatumType::F64 => unique_of::<f64, u64>(x, |v| (v + 0.0).to_bits())?,
            datum => {
                let (values, which, counts) = unique_of::<i64, i64>(&*x.cast_to::<i64>()?, |v| *v)?;
                (values.cast_to_dt(datum)?.into_owned(), which, counts)
            }
        };
        let whole = |list: &[i64]| -> TractResult<EngineTensor> {
            let list = EngineTensor::from(tract_ndarray::arr1(list).into_dyn());
            Ok(list.cast_to_dt(places)?.into_owned())
        };
        let (values, which, counts) = found;
        Ok(tvec!(values.into_tvalue(), whole(&which)?.into_tvalue(), whole(&counts)?.into_tvalue()))
    });
    w.all(op, &[x])
}

/// The values, which of them each is, and how often each is there.
type Found = (EngineTensor, Vec<i64>, Vec<i64>);

fn unique_of<T: Datum, K: std::hash::Hash + Eq>(x: &EngineTensor, key: fn(&T) -> K) -> TractResult<Found> {
    let plain = x.try_as_plain_ram()?;
    let mut places = std::collections::HashMap::new();
    let (mut values, mut which, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for value in plain.as_slice::<T>()? {
        let place = *places.entry(key(value)).or_insert_with(|| {
            values.push(value.clone());
            counts.push(0);
            values.len() - 1
        });
        which.push(i64::try_from(place)?);
        counts.get_mut(place).into_iter().for_each(|n| *n += 1);
    }
    Ok((EngineTensor::from(tract_ndarray::arr1(&values).into_dyn()), which, counts))
}

/// A dense tensor with these values at these places.
fn to_dense(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (places, shape) = two(inputs)?;
    let (values, default) = (input(inputs, 2)?, input(inputs, 3)?);
    let dims = w.sizes(shape)?;
    let (places, shape) = (w.plain(places)?, w.plain(shape)?);
    let (datum, budget) = (w.datum(values)?, w.budget());
    let op = Computed::giving("SparseToDense", tvec!(TypedFact::dt_shape(datum, &*dims)), move |inputs| {
        let [places, shape, values, default] = inputs else { bail!("four inputs expected") };
        let shape = integers(shape)?.into_iter().map(size).collect::<TractResult<Vec<_>>>()?;
        let places = integers(places)?;
        Ok(tvec!(
            dispatch_datum!(dense(values.datum_type())(&places, &shape, values, default, budget))?
                .into_tvalue()
        ))
    });
    Ok(tvec!(w.one(op, &[places, shape, values, default])?))
}

fn dense<T: Datum>(
    places: &[i64],
    shape: &[usize],
    values: &EngineTensor,
    default: &EngineTensor,
    budget: u64,
) -> TractResult<EngineTensor> {
    let cells = room_for(shape, widest::<T>(default)?, budget)?;
    let plain = values.try_as_plain_ram()?;
    let values = plain.as_slice::<T>()?;
    let plain_default = default.try_as_plain_ram()?;
    let default = plain_default.as_slice::<T>()?.first().cloned().unwrap_or_default();
    let mut out = vec![default; cells];
    for (entry, place) in places.chunks(shape.len().max(1)).enumerate() {
        let at = flat(place, shape)?;
        let value = values.get(entry).or_else(|| values.first());
        if let (Some(slot), Some(value)) = (out.get_mut(at), value) {
            *slot = value.clone();
        }
    }
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(shape, out)?))
}

/// How many elements a shape has.
pub(super) fn elements(shape: &[usize]) -> TractResult<usize> {
    let elements = shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
    match elements {
        Some(elements) => Ok(elements),
        None => bail!("there is no tensor of the shape {shape:?}"),
    }
}

/// A place as the position among all elements.
pub(super) fn flat(place: &[i64], shape: &[usize]) -> TractResult<usize> {
    let mut at = 0_usize;
    for (index, size) in place.iter().zip(shape) {
        match usize::try_from(*index).ok().filter(|index| index < size) {
            Some(index) => at = at * size + index,
            None => bail!("index {index} is not in [0, {size})"),
        }
    }
    Ok(at)
}

/// Rows without an entry get one with the default.
fn fill_empty_rows(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (places, values) = two(inputs)?;
    let (shape, default) = (input(inputs, 2)?, input(inputs, 3)?);
    let rows = w.sizes(shape)?.first().cloned().ok_or_else(|| invalid("the shape is empty"))?;
    let (places, shape) = (w.plain(places)?, w.plain(shape)?);
    let rank = w.dim(places, 1)?;
    let (datum, count) = (w.datum(values)?, w.open_size());
    let before = w.dim(values, 0)?;
    let facts = tvec!(
        TypedFact::dt_shape(i64::datum_type(), &[count.clone(), rank][..]),
        TypedFact::dt_shape(datum, std::slice::from_ref(&count)),
        TypedFact::dt_shape(bool::datum_type(), std::slice::from_ref(&rows)),
        TypedFact::dt_shape(i64::datum_type(), std::slice::from_ref(&before)),
    );
    let budget = w.budget();
    let op = Computed::giving("SparseFillEmptyRows", facts, move |inputs| {
        let [places, values, shape, default] = inputs else { bail!("four inputs expected") };
        let rank = places.shape().get(1).copied().unwrap_or(0).max(1);
        let rows = size(integers(shape)?.first().copied().unwrap_or(0))?;
        let places = integers(places)?;
        let filled = rank * size_of::<i64>() + dispatch_datum!(widest(values.datum_type())(default))?;
        let listed = size_of::<Vec<usize>>() + 2 * size_of::<(usize, Option<usize>)>();
        let mut of_row: Vec<Vec<usize>> = vec![Vec::new(); room_for(&[rows], filled + listed, budget)?];
        for (entry, place) in places.chunks(rank).enumerate() {
            let row = flat(place.get(..1).unwrap_or_default(), &[rows])?;
            of_row.get_mut(row).into_iter().for_each(|entries| entries.push(entry));
        }
        let empty: Vec<bool> = of_row.iter().map(Vec::is_empty).collect();
        // The entries in the order of their rows; none where the default is.
        let mut order: Vec<(usize, Option<usize>)> = Vec::new();
        for (row, entries) in of_row.iter().enumerate() {
            if entries.is_empty() {
                order.push((row, None));
            }
            order.extend(entries.iter().map(|entry| (row, Some(*entry))));
        }
        let (mut out, mut back) = (Vec::new(), vec![0_i64; places.len() / rank]);
        for (at, (row, entry)) in (0_i64..).zip(&order) {
            match entry.and_then(|e| places.get(e * rank..(e + 1) * rank)) {
                Some(place) => out.extend_from_slice(place),
                None => {
                    out.push(i64::try_from(*row)?);
                    out.extend(std::iter::repeat_n(0, rank - 1));
                }
            }
            if let Some(slot) = entry.and_then(|e| back.get_mut(e)) {
                *slot = at;
            }
        }
        let out = tract_ndarray::ArrayD::from_shape_vec(vec![order.len(), rank], out)?;
        let entries: Vec<Option<usize>> = order.into_iter().map(|(_, entry)| entry).collect();
        let values = dispatch_datum!(picked(values.datum_type())(values, default, &entries))?;
        Ok(tvec!(
            EngineTensor::from(out).into_tvalue(),
            values.into_tvalue(),
            EngineTensor::from(tract_ndarray::arr1(&empty).into_dyn()).into_tvalue(),
            EngineTensor::from(tract_ndarray::arr1(&back).into_dyn()).into_tvalue(),
        ))
    });
    w.all(op, &[places, values, shape, default])
}

fn picked<T: Datum>(
    values: &EngineTensor,
    default: &EngineTensor,
    entries: &[Option<usize>],
) -> TractResult<EngineTensor> {
    let plain_default = default.try_as_plain_ram()?;
    let default = plain_default.as_slice::<T>()?.first().cloned().unwrap_or_default();
    let plain = values.try_as_plain_ram()?;
    let values = plain.as_slice::<T>()?;
    let pick = |e: &Option<usize>| e.and_then(|e| values.get(e).cloned()).unwrap_or_else(|| default.clone());
    let out: Vec<T> = entries.iter().map(pick).collect();
    Ok(EngineTensor::from(tract_ndarray::arr1(&out).into_dyn()))
}

/// The same entries in another shape.
fn reshape(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (places, before) = two(inputs)?;
    let after = input(inputs, 2)?;
    let (old, mut new) = (w.sizes(before)?, w.sizes(after)?);
    let rest = w.rest(&old, &new);
    new.iter_mut().filter(|d| **d == TDim::from(-1)).for_each(|d| *d = rest.clone());
    // Where the rest is not known before the run, its witness is an output.
    let told = w.rank(places).map(|_| rest)?;
    let count = w.dim(places, 0)?;
    let (places, before, after) = (w.plain(places)?, w.plain(before)?, w.plain(after)?);
    let facts = tvec!(
        TypedFact::dt_shape(i64::datum_type(), &[count, new.len().to_dim()][..]),
        Wiring::witness_fact(std::slice::from_ref(&told)),
    );
    let op = Computed::giving("SparseReshape", facts, |inputs| {
        let [places, before, after] = inputs else { bail!("three inputs expected") };
        let old = integers(before)?.into_iter().map(size).collect::<TractResult<Vec<_>>>()?;
        let wanted = integers(after)?;
        let known = wanted.iter().filter(|d| **d >= 0).map(|d| size(*d)).product::<TractResult<usize>>()?;
        let rest = elements(&old)? / known.max(1);
        let new: Vec<usize> = wanted.iter().map(|d| usize::try_from(*d).unwrap_or(rest)).collect();
        let mut out = Vec::new();
        let entries = integers(places)?;
        for place in entries.chunks(old.len().max(1)) {
            let mut at = flat(place, &old)?;
            let start = out.len();
            for size in new.iter().rev() {
                out.push(i64::try_from(at % size.max(&1))?);
                at /= size.max(&1);
            }
            out.get_mut(start..).into_iter().for_each(<[i64]>::reverse);
        }
        let count = entries.len() / old.len().max(1);
        let out = tract_ndarray::ArrayD::from_shape_vec(vec![count, new.len()], out)?;
        Ok(tvec!(EngineTensor::from(out).into_tvalue(), Wiring::witness(&[rest])?.into_tvalue()))
    });
    let out = w.all(op, &[places, before, after])?;
    let shape = w.dims_tensor(&new)?;
    Ok(tvec!(first(&out)?, shape))
}

/// A sparse matrix times a dense one.
fn mat_mul(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (places, values) = two(inputs)?;
    let (shape, dense) = (input(inputs, 2)?, input(inputs, 3)?);
    let adjoint = |name: &str| node.attributes.bool(name).unwrap_or(false);
    if adjoint("adjoint_a") || adjoint("adjoint_b") || w.datum(values)? != DatumType::F32 {
        return Err(WiringError::Unsupported);
    }
    let rows = w.sizes(shape)?.first().cloned().ok_or_else(|| invalid("the shape is empty"))?;
    let fact = TypedFact::dt_shape(f32::datum_type(), &[rows, w.dim(dense, 1)?][..]);
    let (places, shape) = (w.plain(places)?, w.plain(shape)?);
    let budget = w.budget();
    let op = Computed::giving("SparseTensorDenseMatMul", tvec!(fact), move |inputs| {
        let [places, values, shape, dense] = inputs else { bail!("four inputs expected") };
        let shape = integers(shape)?.into_iter().map(size).collect::<TractResult<Vec<_>>>()?;
        let ([rows, _], [inner, columns]) = (shape.as_slice(), dense.shape()) else {
            bail!("matrices expected")
        };
        let (plain, plain_dense) = (values.try_as_plain_ram()?, dense.try_as_plain_ram()?);
        let (values, dense) = (plain.as_slice::<f32>()?, plain_dense.as_slice::<f32>()?);
        let mut out = vec![0.0_f32; room_for(&[*rows, *columns], size_of::<f32>(), budget)?];
        for (place, value) in integers(places)?.chunks(2).zip(values) {
            let (row, column) = (flat(place.get(..1).unwrap_or_default(), &[*rows])?, place.get(1));
            let column = flat(&[column.copied().unwrap_or(-1)], &[*inner])?;
            let from = dense.get(column * columns..(column + 1) * columns).unwrap_or_default();
            let to = out.get_mut(row * columns..(row + 1) * columns).unwrap_or_default();
            to.iter_mut().zip(from).for_each(|(sum, factor)| *sum += value * factor);
        }
        Ok(tvec!(
            EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(vec![*rows, *columns], out)?)
                .into_tvalue()
        ))
    });
    let out: TVec<OutletId> = tvec!(w.one(op, &[places, values, shape, dense])?);
    Ok(out)
}
