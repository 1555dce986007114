//! A tensor in parts by a number for each row, and the parts together again.
//!
//! TensorFlow's parts have sizes that are known only at run time. Here every part keeps all rows:
//! a row that is not of the part holds zero, and is left out when the parts are put together by the
//! same numbers. What a partitioned embedding does between, a gather for each row, is the same.

use super::super::api::{AxisOp, DatumType, EngineTensor, OutletId, TVec, tensor0, tract_core, tvec};
use super::super::graph::Node;
use super::logic::comparison;
use super::wiring::{One, Wired, Wiring, invalid, two};
use super::{Handler, WiringError};
use tract_core::ops::logic;

/// The parts that can be put together again: by the outlet of a part, the numbers that it was made
/// by and its own.
pub(super) type Partitions = std::collections::HashMap<OutletId, (OutletId, i64)>;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "DynamicPartition" => partition,
        "DynamicStitch" | "ParallelDynamicStitch" => stitch,
        _ => return None,
    })
}

fn partition(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (x, numbers) = two(inputs)?;
    let parts = node.attributes.int("num_partitions").filter(|n| (1..=1 << 12).contains(n));
    let parts = parts.ok_or_else(|| invalid("does not say into how many parts"))?;
    let numbers = w.cast(numbers, DatumType::I32)?;
    let datum = w.datum(x)?;
    let zero = if datum == DatumType::String {
        EngineTensor::from(super::super::api::tract_ndarray::arr0(String::new()).into_dyn())
    } else {
        EngineTensor::zero_scalar_dt(datum)?
    };
    let zero = w.tensor(zero)?;
    let zero = w.with_rank(zero, w.rank(x)?)?;
    let mut out = TVec::new();
    for part in 0..parts {
        let inside = inside(w, numbers, part, w.rank(x)?)?;
        let rows = w.one(logic::Iff, &[inside, x, zero])?;
        w.partitions.insert(rows, (numbers, part));
        out.push(rows);
    }
    Ok(out)
}

fn stitch(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (places, parts) = inputs.split_at(inputs.len() / 2);
    let mut whole: Option<OutletId> = None;
    for (place, part) in places.iter().zip(parts) {
        // Only what `partition` took apart has its rows where they were.
        let (numbers, number) = w.partitions.get(place).copied().ok_or(WiringError::Unsupported)?;
        whole = Some(match whole {
            None => *part,
            Some(before) => {
                let inside = inside(w, numbers, number, w.rank(*part)?)?;
                w.one(logic::Iff, &[inside, *part, before])?
            }
        });
    }
    Ok(tvec!(whole.ok_or(WiringError::Unsupported)?))
}

/// True in the rows of a part, of a rank that the rows can be chosen by.
fn inside(w: &mut Wiring<'_>, numbers: OutletId, part: i64, rank: usize) -> One {
    let number = w.tensor(tensor0(part).cast_to_dt(DatumType::I32)?.into_owned())?;
    let number = w.with_rank(number, w.rank(numbers)?)?;
    let mut inside = w.one(comparison(logic::comp_eq()), &[numbers, number])?;
    while w.rank(inside)? < rank {
        let last = w.rank(inside)?;
        inside = w.one(AxisOp::Add(last), &[inside])?;
    }
    Ok(inside)
}
