//! Rows gathered by the number of the group that each belongs to: sums, means, extremes.

use super::super::api::{
    DatumType, EngineTensor, IntoTValue, OutletId, TDim, TVec, TractResult, TypedFact, bail, tract_ndarray,
    tvec,
};
use super::super::graph::Node;
use super::computed::{Computed, room_for};
use super::ragged::integers;
use super::wiring::{Wired, Wiring, first};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Kind::of(op).map(|_| segments as Handler)
}

/// What becomes of the rows of a group.
#[derive(Clone, Copy, PartialEq)]
enum Gather {
    Sum,
    Mean,
    OverRoot,
    Product,
    Max,
    Min,
}

#[derive(Clone, Copy)]
struct Kind {
    gather: Gather,
    /// The rows are picked from a table first.
    picked: bool,
    /// The number of groups is an input.
    counted: bool,
}

impl Kind {
    fn of(op: &str) -> Option<Self> {
        let (rest, counted) = match (op.strip_suffix("WithNumSegments"), op.strip_prefix("Unsorted")) {
            (Some(rest), _) => (rest, true),
            (None, Some(rest)) => (rest, true),
            (None, None) => (op, false),
        };
        let (rest, picked) = match rest.strip_prefix("Sparse") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let gather = match rest.strip_prefix("Segment")? {
            "Sum" => Gather::Sum,
            "Mean" => Gather::Mean,
            "SqrtN" => Gather::OverRoot,
            "Prod" => Gather::Product,
            "Max" => Gather::Max,
            "Min" => Gather::Min,
            _ => return None,
        };
        Some(Self { gather, picked, counted })
    }
}

fn segments(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let kind = Kind::of(&node.op).ok_or(WiringError::Unsupported)?;
    let (data, mut rest) = (first(inputs)?, inputs.iter().skip(1).copied());
    let data = w.plain(data)?;
    let places = if kind.picked { rest.next() } else { None };
    let groups = rest.next().ok_or(WiringError::Unsupported)?;
    let count = if kind.counted { rest.next() } else { None };
    let datum = w.datum(data)?;
    if !matches!(datum, DatumType::F32 | DatumType::F64 | DatumType::I32 | DatumType::I64) {
        return Err(WiringError::Unsupported);
    }
    let outer = w.rank(groups)?;
    let rows = match count {
        Some(count) => w.sizes(count)?.first().cloned().ok_or(WiringError::Unsupported)?,
        None => w.open_size(),
    };
    let mut dims: TVec<TDim> = tvec!(rows.clone());
    dims.extend(w.dims(data)?.iter().skip(outer).cloned());
    let mut given: TVec<OutletId> = tvec!(data, w.plain(groups)?);
    // What there is of the rest, in this order.
    for outlet in [places, count].into_iter().flatten() {
        given.push(w.plain(outlet)?);
    }
    let budget = w.budget();
    let op = Computed::giving("Segments", tvec!(TypedFact::dt_shape(datum, &*dims)), move |values| {
        let (data, groups) = match values {
            [data, groups, ..] => (data, integers(groups)?),
            _ => bail!("two inputs expected"),
        };
        let places = if kind.picked { values.get(2).map(integers).transpose()? } else { None };
        let rows = match (kind.counted, values.last()) {
            (true, Some(count)) => integers(count)?.first().copied().unwrap_or(0),
            _ => groups.iter().max().map_or(0, |last| last.saturating_add(1)),
        };
        let Ok(rows) = usize::try_from(rows) else { bail!("{rows} groups") };
        let inner: Vec<usize> = data.shape().iter().skip(outer).copied().collect();
        let numbers = data.cast_to::<f64>()?;
        let plain = numbers.try_as_plain_ram()?;
        let table = Table { values: plain.as_slice::<f64>()?, width: inner.iter().product() };
        let out = kind.gathered(&table, &groups, places.as_deref(), rows, lowest(datum), budget)?;
        let mut shape = vec![rows];
        shape.extend(inner);
        let out = EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(shape, out)?);
        Ok(tvec!(out.cast_to_dt(datum)?.into_owned().into_tvalue()))
    });
    Ok(tvec!(w.one(op, &given)?))
}

/// The number that the maximum of nothing is, in this type.
fn lowest(datum: DatumType) -> f64 {
    match datum {
        DatumType::F32 => f64::from(f32::MIN),
        DatumType::I32 => f64::from(i32::MIN),
        DatumType::I64 => i64::MIN as f64,
        _ => f64::MIN,
    }
}

/// Rows of numbers.
struct Table<'a> {
    values: &'a [f64],
    width: usize,
}

impl Table<'_> {
    fn row(&self, row: usize) -> Option<&[f64]> {
        let start = row.checked_mul(self.width)?;
        self.values.get(start..start.checked_add(self.width)?)
    }
}

impl Kind {
    fn gathered(
        self,
        table: &Table<'_>,
        groups: &[i64],
        places: Option<&[i64]>,
        rows: usize,
        lowest: f64,
        budget: u64,
    ) -> TractResult<Vec<f64>> {
        let width = table.width;
        let begin = match self.gather {
            Gather::Product => 1.0,
            Gather::Max => f64::NEG_INFINITY,
            Gather::Min => f64::INFINITY,
            _ => 0.0,
        };
        let each = width.saturating_mul(size_of::<f64>()).saturating_add(size_of::<u32>());
        room_for(&[rows], each, budget)?;
        let mut out = vec![begin; rows * width];
        let mut counts = vec![0_u32; rows];
        for (at, group) in groups.iter().enumerate() {
            // A negative group is one that is left out.
            let Ok(group) = usize::try_from(*group) else { continue };
            let row = match places {
                Some(places) => places.get(at).and_then(|p| usize::try_from(*p).ok()),
                None => Some(at),
            };
            let from = row.and_then(|row| table.row(row));
            let to = if group < rows { out.get_mut(group * width..(group + 1) * width) } else { None };
            let (Some(from), Some(to), Some(count)) = (from, to, counts.get_mut(group)) else {
                bail!("group {group} of {rows}, or a row that is not there");
            };
            *count += 1;
            for (to, value) in to.iter_mut().zip(from) {
                *to = match self.gather {
                    Gather::Product => *to * value,
                    Gather::Max if value.is_nan() || *value > *to => *value,
                    Gather::Min if value.is_nan() || *value < *to => *value,
                    Gather::Max | Gather::Min => *to,
                    _ => *to + value,
                };
            }
        }
        for (row, count) in out.chunks_mut(width.max(1)).zip(counts) {
            let count = f64::from(count);
            row.iter_mut().for_each(|value| match self.gather {
                Gather::Mean if count > 0.0 => *value /= count,
                Gather::OverRoot if count > 0.0 => *value /= count.sqrt(),
                // Nothing has no extreme.
                Gather::Max if count == 0.0 => *value = if self.counted { lowest } else { 0.0 },
                Gather::Min if count == 0.0 => *value = if self.counted { -lowest } else { 0.0 },
                _ => {}
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(op: &str, groups: &[i64], rows: usize) -> Vec<f64> {
        let table = Table { values: &[1.0, -2.0, 3.0, 5.0], width: 1 };
        Kind::of(op).unwrap().gathered(&table, groups, None, rows, -9.0, 1 << 10).unwrap()
    }

    #[test]
    fn groups_are_gathered_as_tensorflow_does() {
        // tf.math.segment_* of [1, -2, 3, 5], TensorFlow 2.21.
        assert_eq!(gathered("SegmentSum", &[0, 0, 2, 2], 3), [-1.0, 0.0, 8.0]);
        assert_eq!(gathered("SegmentMean", &[0, 0, 2, 2], 3), [-0.5, 0.0, 4.0]);
        assert_eq!(gathered("SegmentMax", &[0, 0, 2, 2], 3), [1.0, 0.0, 5.0]);
        assert_eq!(gathered("UnsortedSegmentMax", &[2, 0, -1, 0], 3), [5.0, -9.0, 1.0]);
        assert_eq!(
            gathered("SparseSegmentSqrtN", &[0, 0, 1, 1], 2),
            [-1.0 / 2_f64.sqrt(), 8.0 / 2_f64.sqrt()]
        );
    }

    #[test]
    fn a_row_that_is_not_there_is_an_error() {
        let table = Table { values: &[1.0], width: 1 };
        let kind = Kind::of("SparseSegmentSum").unwrap();
        assert!(kind.gathered(&table, &[0], Some(&[7]), 1, 0.0, 1 << 10).is_err());
        assert!(kind.gathered(&table, &[3], Some(&[0]), 1, 0.0, 1 << 10).is_err());
        assert!(kind.gathered(&table, &[0], Some(&[0]), 1 << 40, 0.0, 1 << 10).is_err());
    }
}
