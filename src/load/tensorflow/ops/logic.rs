//! Truth values: comparisons, connectives, and the choice between two tensors.

use super::super::api::{Datum, DatumType, OutletId, tract_core, tvec};
use super::wiring::{Wired, Wiring, first, input, two};
use super::{Handler, WiringError};
use crate::load::tract::nan;
use tract_core::ops::logic;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Equal" => |w, _, i| compare(w, i, |w, a, b| w.one(comparison(logic::comp_eq()), &[a, b])),
        "NotEqual" => |w, _, i| compare(w, i, |w, a, b| w.one(comparison(logic::comp_ne()), &[a, b])),
        "Less" => |w, _, i| compare(w, i, |w, a, b| w.one(comparison(logic::comp_lt()), &[a, b])),
        "LessEqual" => |w, _, i| compare(w, i, |w, a, b| w.one(comparison(logic::comp_lte()), &[a, b])),
        "Greater" => |w, _, i| compare(w, i, |w, a, b| w.one(comparison(logic::comp_gt()), &[a, b])),
        "GreaterEqual" => |w, _, i| compare(w, i, |w, a, b| w.one(comparison(logic::comp_gte()), &[a, b])),
        "LogicalAnd" => |w, _, i| {
            let (a, b) = two(i)?;
            Ok(tvec!(w.binary(logic::and(), a, b)?))
        },
        "LogicalOr" => |w, _, i| {
            let (a, b) = two(i)?;
            Ok(tvec!(w.binary(logic::or(), a, b)?))
        },
        "LogicalXor" => |w, _, i| {
            let (a, b) = two(i)?;
            Ok(tvec!(w.binary(logic::xor(), a, b)?))
        },
        "LogicalNot" => |w, _, i| Ok(tvec!(w.one(logic::not(), &[first(i)?])?)),
        "Select" => |w, _, i| select(w, i, true),
        "SelectV2" => |w, _, i| select(w, i, false),
        "IsNan" => |w, _, i| float_test(w, first(i)?, f32::is_nan, f64::is_nan),
        "IsInf" => |w, _, i| float_test(w, first(i)?, f32::is_infinite, f64::is_infinite),
        "IsFinite" => |w, _, i| float_test(w, first(i)?, f32::is_finite, f64::is_finite),
        "BitwiseAnd" => |w, _, i| bitwise(w, i, |a, b| a & b),
        "BitwiseOr" => |w, _, i| bitwise(w, i, |a, b| a | b),
        "BitwiseXor" => |w, _, i| bitwise(w, i, |a, b| a ^ b),
        "Invert" => |w, _, i| bitwise(w, &[first(i)?, first(i)?], |a, _| !a),
        "Bitcast" => |w, n, i| bit_cast(w, first(i)?, n.attributes.datum("type")),
        // A condition that could not be decided before: both its sides are computed.
        "Switch" => |_, _, i| Ok(tvec!(first(i)?, first(i)?)),
        _ => return None,
    })
}

/// A comparison as an operator of the network.
pub(super) fn comparison(
    op: Box<dyn tract_core::ops::binary::BinMiniOp>,
) -> tract_core::ops::binary::TypedBinOp {
    tract_core::ops::binary::TypedBinOp(op, None)
}

fn compare(
    w: &mut Wiring<'_>,
    inputs: &[OutletId],
    op: fn(&mut Wiring<'_>, OutletId, OutletId) -> super::wiring::One,
) -> Wired {
    let (a, b) = two(inputs)?;
    // Shapes are compared as the numbers that they are at run time.
    let (a, b) = (w.plain(a)?, w.plain(b)?);
    let (a, b) = if w.datum(a)? == w.datum(b)? {
        (a, b)
    } else {
        (w.cast(a, DatumType::I64)?, w.cast(b, DatumType::I64)?)
    };
    let both = w.same(&[a, b])?;
    let (a, b) = two(&both)?;
    let (a, b) = if w.datum(a)? == bool::datum_type() {
        (w.cast(a, DatumType::U8)?, w.cast(b, DatumType::U8)?)
    } else {
        (a, b)
    };
    Ok(tvec!(op(w, a, b)?))
}

/// The old form lets a vector choose among rows.
fn select(w: &mut Wiring<'_>, inputs: &[OutletId], by_rows: bool) -> Wired {
    let (mut condition, yes, no) = (first(inputs)?, input(inputs, 1)?, input(inputs, 2)?);
    if by_rows && w.rank(condition)? == 1 {
        while w.rank(condition)? < w.rank(yes)? {
            let last = w.rank(condition)?;
            condition = w.one(super::super::api::AxisOp::Add(last), &[condition])?;
        }
    }
    let values = w.same(&[yes, no])?;
    let (yes, no) = two(&values)?;
    let rank = w.rank(condition)?.max(w.rank(yes)?);
    let condition = w.with_rank(condition, rank)?;
    let (yes, no) = (w.with_rank(yes, rank)?, w.with_rank(no, rank)?);
    Ok(tvec!(w.one(logic::Iff, &[condition, yes, no])?))
}

fn float_test(w: &mut Wiring<'_>, x: OutletId, single: fn(f32) -> bool, double: fn(f64) -> bool) -> Wired {
    let op = super::computed::Computed::new(
        "FloatTest",
        |facts| {
            Ok(facts
                .iter()
                .map(|f| super::super::api::TypedFact::dt_shape(bool::datum_type(), f.shape.clone()))
                .collect())
        },
        move |values| {
            let [x] = values else { super::super::api::bail!("one input expected") };
            let out = match x.datum_type() {
                DatumType::F32 => nan::zip_broadcast::<f32, bool>(x, x, |x, _| single(*x)),
                _ => nan::zip_broadcast::<f64, bool>(
                    &x.cast_to::<f64>()?.into_owned(),
                    &x.cast_to::<f64>()?.into_owned(),
                    |x, _| double(*x),
                ),
            };
            Ok(tvec!(super::super::api::IntoTValue::into_tvalue(out?)))
        },
    );
    Ok(tvec!(w.one(op, &[x])?))
}

/// The same bits as another type of the same width.
fn bit_cast(w: &mut Wiring<'_>, x: OutletId, to: Option<DatumType>) -> Wired {
    let from = w.datum(x)?;
    let to = to.filter(|to| to.size_of() == from.size_of() && (to.is_number() && from.is_number()));
    let to = to.ok_or(WiringError::Unsupported)?;
    let op = super::computed::Computed::new(
        "Bitcast",
        move |facts| {
            let same = |f: &&super::super::api::TypedFact| {
                super::super::api::TypedFact::dt_shape(to, f.shape.clone())
            };
            Ok(facts.iter().map(same).collect())
        },
        move |values| {
            let [x] = values else { super::super::api::bail!("one input expected") };
            let mut out = super::super::api::EngineTensor::zero_dt(to, x.shape())?;
            out.as_bytes_mut().copy_from_slice(x.as_bytes());
            Ok(tvec!(super::super::api::IntoTValue::into_tvalue(out)))
        },
    );
    Ok(tvec!(w.one(op, &[x])?))
}

/// What is done to each bit of two whole numbers.
fn bitwise(w: &mut Wiring<'_>, inputs: &[OutletId], each: fn(i64, i64) -> i64) -> Wired {
    let (a, b) = two(inputs)?;
    let (a, b) = (w.plain(a)?, w.plain(b)?);
    let datum = w.datum(a)?;
    if !datum.is_integer() || w.datum(b)? != datum {
        return Err(WiringError::Unsupported);
    }
    let (a, b) = (w.cast(a, DatumType::I64)?, w.cast(b, DatumType::I64)?);
    let both = w.same(&[a, b])?;
    let out = w.whole_pair("Bitwise", &both, each)?;
    Ok(tvec!(w.cast(out, datum)?))
}
