//! Rows of different lengths, padded to one or counted.

use super::super::api::{
    Datum, EngineTensor, IntoTValue, OutletId, TDim, TValue, TVec, ToDim, TractResult, TypedFact, bail,
    dispatch_datum, f16, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::{Computed, room_for, widest};
use super::wiring::{Wired, Wiring, first, input, invalid};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "RaggedTensorToTensor" => to_tensor,
        "RaggedBincount" => bincount,
        _ => return None,
    })
}

/// A list of whole numbers, whatever their type.
pub(super) fn integers(x: &TValue) -> TractResult<Vec<i64>> {
    Ok(x.cast_to::<i64>()?.try_as_plain_ram()?.as_slice::<i64>()?.to_vec())
}

/// A place or length that has to be a size.
pub(super) fn size(value: i64) -> TractResult<usize> {
    match usize::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => bail!("{value} is no size"),
    }
}

/// How the rows of one level are told.
#[derive(Clone, Copy)]
enum Partition {
    Rows,
    RowOfEach,
    Splits,
}

/// Rows of different lengths as one tensor, padded.
fn to_tensor(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (shape, values, default) = (first(inputs)?, input(inputs, 1)?, input(inputs, 2)?);
    let kinds = node.attributes.list("row_partition_types").map(|l| l.s.clone()).unwrap_or_default();
    let kinds: Option<Vec<Partition>> = { kinds.iter() }
        .map(|kind| match kind.as_slice() {
            b"FIRST_DIM_SIZE" => Some(Partition::Rows),
            b"VALUE_ROWIDS" => Some(Partition::RowOfEach),
            b"ROW_SPLITS" => Some(Partition::Splits),
            _ => None,
        })
        .collect();
    let kinds = kinds.filter(|k| !k.is_empty()).ok_or(WiringError::Unsupported)?;
    let levels = kinds.iter().filter(|k| !matches!(k, Partition::Rows)).count();
    let wanted = w.konst_ints(shape)?;
    let inner: TVec<TDim> = w.dims(values)?.iter().skip(1).cloned().collect();
    let rank = 1 + levels + inner.len();
    let partition = input(inputs, 3)?;
    let rows = match kinds.first() {
        Some(Partition::Rows) => w.sizes(partition)?.first().cloned().ok_or(WiringError::Unsupported)?,
        Some(Partition::Splits) => w.dim(partition, 0)? - 1,
        _ => return Err(WiringError::Unsupported),
    };
    let stated = |axis: usize| wanted.get(axis).copied().filter(|size| *size >= 0 && wanted.len() == rank);
    let mut dims: TVec<TDim> = tvec!(stated(0).map_or(rows, TDim::from));
    for level in 1..=levels {
        dims.push(stated(level).map_or_else(|| w.open_size(), TDim::from));
    }
    dims.extend(inner);
    let datum = w.datum(values)?;
    let limits: Vec<Option<usize>> =
        (0..=levels).map(|axis| stated(axis).and_then(|size| usize::try_from(size).ok())).collect();
    let mut given = vec![values, default];
    for partition in inputs.iter().skip(3) {
        given.push(w.plain(*partition)?);
    }
    let budget = w.budget();
    let op = Computed::giving("RaggedTensorToTensor", tvec!(TypedFact::dt_shape(datum, &*dims)), move |v| {
        let [values, default, partitions @ ..] = v else { bail!("more inputs expected") };
        let rows = Rows::new(&kinds, partitions, budget)?;
        Ok(tvec!(
            dispatch_datum!(padded(values.datum_type())(values, default, &rows, &limits, budget))?
                .into_tvalue()
        ))
    });
    Ok(tvec!(w.one(op, &given)?))
}

/// Where the rows of each level begin and end.
struct Rows(Vec<Vec<usize>>);

impl Rows {
    fn new(kinds: &[Partition], partitions: &[TValue], budget: u64) -> TractResult<Self> {
        let mut levels: Vec<Vec<usize>> = Vec::new();
        let mut rows = 0;
        for (kind, partition) in kinds.iter().zip(partitions) {
            let numbers = integers(partition)?.into_iter().map(size).collect::<TractResult<Vec<_>>>()?;
            if let Some(above) = levels.last() {
                rows = above.last().copied().unwrap_or(0);
            }
            match kind {
                Partition::Rows => rows = numbers.first().copied().unwrap_or(0),
                Partition::Splits => {
                    if numbers.windows(2).any(|pair| matches!(pair, [a, b] if a > b)) {
                        bail!("the rows end before they begin");
                    }
                    levels.push(numbers);
                }
                Partition::RowOfEach => {
                    let ends = rows.saturating_add(1);
                    let mut splits = vec![0; room_for(&[ends], size_of::<usize>(), budget)?];
                    for row in &numbers {
                        let Some(count) = splits.get_mut(row + 1) else { bail!("row {row} of {rows}") };
                        *count += 1;
                    }
                    let mut sum = 0;
                    for split in &mut splits {
                        sum += *split;
                        *split = sum;
                    }
                    levels.push(splits);
                }
            }
        }
        Ok(Self(levels))
    }

    fn row(&self, level: usize, at: usize) -> std::ops::Range<usize> {
        let splits = self.0.get(level);
        match splits.and_then(|s| Some((*s.get(at)?, *s.get(at + 1)?))) {
            Some((start, end)) => start..end,
            None => 0..0,
        }
    }

    /// The sizes of the padded tensor, where they are not stated.
    fn sizes(&self, limits: &[Option<usize>]) -> Vec<usize> {
        let longest = |splits: &Vec<usize>| {
            splits.windows(2).filter_map(|p| p.last()?.checked_sub(*p.first()?)).max().unwrap_or(0)
        };
        let rows = self.0.first().map_or(0, |s| s.len().saturating_sub(1));
        let found = std::iter::once(rows).chain(self.0.iter().map(longest));
        found.zip(limits).map(|(found, stated)| stated.unwrap_or(found)).collect()
    }
}

fn padded<T: Datum>(
    values: &EngineTensor,
    default: &EngineTensor,
    rows: &Rows,
    limits: &[Option<usize>],
    budget: u64,
) -> TractResult<EngineTensor> {
    let sizes = rows.sizes(limits);
    let inner: Vec<usize> = values.shape().iter().skip(1).copied().collect();
    let width: usize = inner.iter().product();
    let shape: Vec<usize> = sizes.iter().copied().chain(inner).collect();
    let cells = room_for(&shape, widest::<T>(default)?, budget)?;
    if cells == 0 {
        // However many rows are stated, there is nothing to lay out.
        return Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(shape, Vec::<T>::new())?));
    }
    let plain_default = default.try_as_plain_ram()?;
    let default = plain_default.as_slice::<T>()?;
    let plain = values.try_as_plain_ram()?;
    let values = plain.as_slice::<T>()?;
    let mut out: Vec<T> = default.iter().cycle().take(cells).cloned().collect();
    if out.len() != cells {
        bail!("there is nothing to pad with");
    }
    // The rows that are still to be laid out: level, number, and where they go.
    let top = sizes.first().copied().unwrap_or(0);
    let mut open: Vec<(usize, usize, usize)> = (0..top).map(|row| (0, row, row)).collect();
    while let Some((level, row, place)) = open.pop() {
        let length = sizes.get(level + 1).copied().unwrap_or(0);
        for (at, part) in rows.row(level, row).take(length).enumerate() {
            let place = place * length + at;
            if level + 1 < rows.0.len() {
                open.push((level + 1, part, place));
                continue;
            }
            let start = part.checked_mul(width);
            let from = start.and_then(|start| values.get(start..start.checked_add(width)?));
            let to = place * width..(place + 1) * width;
            if let (Some(from), Some(to)) = (from, out.get_mut(to)) {
                to.clone_from_slice(from);
            }
        }
    }
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(shape, out)?))
}

/// How often each number is in each row, or the sum of its weights.
fn bincount(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (splits, values, weights) = (first(inputs)?, input(inputs, 1)?, input(inputs, 3)?);
    let bins = w.konst_scalar::<i64>(input(inputs, 2)?)?;
    let binary = node.attributes.bool("binary_output").unwrap_or(false);
    let budget = w.budget();
    let bins = usize::try_from(bins).ok().filter(|b| *b as u64 <= budget / size_of::<f64>() as u64);
    let bins = bins.ok_or_else(|| invalid("the number of bins is out of range"))?;
    let datum = w.datum(weights)?;
    let rows = w.dim(splits, 0)? - 1;
    let fact = TypedFact::dt_shape(datum, &[rows, bins.to_dim()][..]);
    let op = Computed::giving("RaggedBincount", tvec!(fact), move |v| {
        let [splits, values, weights] = v else { bail!("three inputs expected") };
        let (splits, values) = (integers(splits)?, integers(values)?);
        let weights = weights.cast_to::<f64>()?;
        let weights = weights.try_as_plain_ram()?.as_slice::<f64>()?.to_vec();
        let rows = splits.len().saturating_sub(1);
        let mut counts = vec![0.0_f64; room_for(&[rows, bins], size_of::<f64>(), budget)?];
        for (row, ends) in splits.windows(2).enumerate() {
            let [start, end] = ends else { continue };
            for at in size(*start)?..size(*end)? {
                let Some(value) = values.get(at) else { bail!("the rows are longer than their values") };
                let Some(bin) = usize::try_from(*value).ok().filter(|b| *b < bins) else { continue };
                if let Some(count) = counts.get_mut(row * bins + bin) {
                    *count = if binary { 1.0 } else { *count + weights.get(at).copied().unwrap_or(1.0) };
                }
            }
        }
        let counts = EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(vec![rows, bins], counts)?);
        Ok(tvec!(counts.cast_to_dt(datum)?.into_owned().into_tvalue()))
    });
    let (splits, values) = (w.plain(splits)?, w.plain(values)?);
    Ok(tvec!(w.one(op, &[splits, values, weights])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_rows_are_padded_at_each_level() {
        // tf.ragged.constant([[[1], [2, 3]], [], [[4]]]).to_tensor()
        let splits = |v: &[i64]| EngineTensor::from(tract_ndarray::arr1(v).into_dyn()).into_tvalue();
        let rows = Rows::new(
            &[Partition::Splits, Partition::RowOfEach],
            &[splits(&[0, 2, 2, 3]), splits(&[0, 1, 1, 2])],
            1 << 10,
        )
        .unwrap();
        let values = EngineTensor::from(tract_ndarray::arr1(&[1_i32, 2, 3, 4]).into_dyn());
        let zero = EngineTensor::from(tract_ndarray::arr0(0_i32).into_dyn());
        let out = padded::<i32>(&values, &zero, &rows, &[None, None, None], 48).unwrap();
        assert_eq!(out.shape(), [3, 2, 2]);
        let expected = [1, 0, 2, 3, 0, 0, 0, 0, 4, 0, 0, 0];
        assert_eq!(out.try_as_plain_ram().unwrap().as_slice::<i32>().unwrap(), expected);
        assert!(padded::<i32>(&values, &zero, &rows, &[None, None, None], 47).is_err());
    }

    #[test]
    fn what_rows_are_padded_with_counts_with_its_text() {
        let vector = |v: &[i64]| EngineTensor::from(tract_ndarray::arr1(v).into_dyn()).into_tvalue();
        let rows =
            Rows::new(&[Partition::Rows, Partition::RowOfEach], &[vector(&[1]), vector(&[0])], 64).unwrap();
        assert!(
            Rows::new(&[Partition::Rows, Partition::RowOfEach], &[vector(&[8]), vector(&[0])], 64).is_err()
        );
        let text = |text: String| EngineTensor::from(tract_ndarray::arr1(&[text]).into_dyn());
        let values = text("a".to_owned());
        let padded =
            |default: &EngineTensor| padded::<String>(&values, default, &rows, &[None, Some(30)], 900);
        assert!(padded(&text("short".to_owned())).is_ok());
        assert!(padded(&text("x".repeat(100))).is_err());
    }
}
