//! Element by element: arithmetic, activations, functions of one number.

use super::super::api::{Datum, DatumType, OutletId, TDim, TVec, TypedOp, tract_core, tvec};
use super::super::graph::Node;
use super::channelwise::Each;
use super::wiring::{One, Wired, Wiring, first, input, two};
use super::{Handler, WiringError};
use crate::load::tract::nan;
use tract_core::ops::{math, nn};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Add" | "AddV2" | "Sub" | "Mul" | "Div" | "RealDiv" | "Pow" | "Maximum" | "Minimum"
        | "SquaredDifference" | "FloorDiv" | "FloorMod" | "Mod" | "TruncateDiv" | "TruncateMod"
        | "DivNoNan" | "MulNoNan" | "Xdivy" | "Atan2" => |w, n, i| {
            let (a, b) = two(i)?;
            if w.datum(a)? == DatumType::String {
                // The sum of texts is both; there is no other operator on them.
                let summed = n.op.starts_with("Add").then_some([a, b]);
                return super::text::joined(w, "", &summed.ok_or(WiringError::Unsupported)?);
            }
            Ok(tvec!(pair(w, &n.op, a, b)?))
        },
        "AddN" | "AccumulateNV2" => |w, _, i| {
            let (head, rest) = i.split_first().ok_or(WiringError::Unsupported)?;
            let sum = rest.iter().try_fold(*head, |sum, next| w.binary(math::add(), sum, *next))?;
            Ok(tvec!(sum))
        },
        "LeftShift" => |w, _, i| shift(w, i, |a, b| if (0..64).contains(&b) { a << b } else { 0 }),
        "RightShift" => |w, _, i| shift(w, i, |a, b| if b < 0 { a } else { a >> b.min(63) }),
        "BiasAdd" | "BiasAddV1" => bias_add,
        "Cast" => cast,
        "ClipByValue" => |w, _, i| {
            let low = pair(w, "Maximum", first(i)?, input(i, 1)?)?;
            Ok(tvec!(pair(w, "Minimum", low, input(i, 2)?)?))
        },
        "LeakyRelu" => |w, n, i| {
            let alpha = n.attributes.float("alpha").unwrap_or(0.2);
            Ok(tvec!(w.one(nan::leaky_relu(alpha), &[first(i)?])?))
        },
        "L2Loss" => l2_loss,
        op if function(op).is_some() || guarded(op).is_some() => |w, n, i| {
            let x = w.plain_float(&n.op, first(i)?)?;
            let op = match function(&n.op) {
                None if w.datum(x)? == DatumType::F64 => exact(&n.op),
                op => op,
            };
            if let Some(op) = op {
                return Ok(tvec!(w.one(op, &[x])?));
            }
            let op = guarded(&n.op).ok_or(WiringError::Unsupported)?;
            let y = w.one(op, &[x])?;
            Ok(tvec!(w.one(nan::KeepNan { spread: None }, &[x, y])?))
        },
        _ => return None,
    })
}

/// Functions that keep NaN by themselves.
fn function(op: &str) -> Option<Box<dyn TypedOp>> {
    Some(Box::new(match op {
        "Abs" => math::abs(),
        "Neg" => math::neg(),
        "Sqrt" => math::sqrt(),
        "Rsqrt" => math::rsqrt(),
        "Square" => math::square(),
        "Reciprocal" | "Inv" => math::recip(),
        "Floor" => math::floor(),
        "Ceil" => math::ceil(),
        "Round" | "Rint" => math::round_half_to_even(),
        "Sin" => math::sin(),
        "Cos" => math::cos(),
        "Tan" => math::tan(),
        "Asin" => math::asin(),
        "Acos" => math::acos(),
        "Atan" => math::atan(),
        "Sinh" => math::sinh(),
        "Cosh" => math::cosh(),
        "Asinh" => math::asinh(),
        "Acosh" => math::acosh(),
        "Atanh" => math::atanh(),
        "Exp" => nan::exact_exp(),
        "Log" => nan::exact_ln(),
        "Expm1" => nan::exp_m1(),
        "Log1p" => nan::ln_1p(),
        "Sign" => nan::sign(),
        "Relu" => nan::relu(),
        "Relu6" => nan::relu6(),
        "Elu" => nan::elu(),
        "Selu" => nan::selu(),
        "Softplus" => nan::softplus(),
        "Softsign" => nan::softsign(),
        "Erfc" => nan::exact_erfc(),
        _ => return None,
    }))
}

/// Fast approximations that clamp their argument, and so lose NaN.
fn guarded(op: &str) -> Option<Box<dyn TypedOp>> {
    Some(Box::new(match op {
        "Sigmoid" => nn::sigmoid(),
        "Tanh" => math::tanh(),
        "Erf" => math::erf(),
        _ => return None,
    }))
}

/// The same in double precision, for which there is no approximation.
fn exact(op: &str) -> Option<Box<dyn TypedOp>> {
    Some(Box::new(match op {
        "Sigmoid" => nan::exact_sigmoid(),
        "Tanh" => nan::exact_tanh(),
        "Erf" => nan::exact_erf(),
        _ => return None,
    }))
}

/// An operator of two inputs by its name.
pub(super) fn pair(w: &mut Wiring<'_>, op: &str, a: OutletId, b: OutletId) -> One {
    let float = w.datum(a)?.is_float();
    let shapes = w.datum(a)? == DatumType::TDim || w.datum(b)? == DatumType::TDim;
    match op {
        "Add" | "AddV2" => add(w, a, b),
        "Sub" => w.binary(math::sub(), a, b),
        "Mul" => multiply(w, a, b),
        "Div" | "RealDiv" | "TruncateDiv" if float || shapes => w.binary(math::div(), a, b),
        "Div" | "TruncateDiv" => w.whole(a, b, i64::wrapping_div),
        "Pow" if float => w.binary(math::pow(), a, b),
        "Pow" => w.whole_of(a, b, |a, b| a.wrapping_pow(u32::try_from(b).unwrap_or(0))),
        "Atan2" => {
            let inputs = w.same(&[a, b])?;
            w.function("Atan2", &inputs, |a: f32, b| a.atan2(b), |a: f64, b| a.atan2(b))
        }
        "Maximum" | "Minimum" if shapes => {
            let inputs = w.same(&[a, b])?;
            let op = if op == "Maximum" { math::max() } else { math::min() };
            w.one(op, &inputs)
        }
        "Maximum" => {
            let out = w.binary(nan::Extreme::Max, a, b)?;
            if let Some(least) = whole_constant(w, a).or_else(|| whole_constant(w, b)) {
                w.at_least.insert(out, least);
            }
            Ok(out)
        }
        "Minimum" => {
            // `min(max(x, 5), 5)` is how TensorFlow writes a size that is always 5.
            for (bounded, limit) in [(a, b), (b, a)] {
                if let (Some(least), Some(most)) = (w.at_least.get(&bounded), whole_constant(w, limit))
                    && *least >= most
                {
                    return Ok(limit);
                }
            }
            w.binary(nan::Extreme::Min, a, b)
        }
        "SquaredDifference" => {
            let difference = w.binary(math::sub(), a, b)?;
            w.binary(math::mul(), difference, difference)
        }
        "FloorDiv" if float => {
            let quotient = w.binary(math::div(), a, b)?;
            w.one(math::floor(), &[quotient])
        }
        "FloorDiv" | "FloorMod" | "Mod" | "TruncateMod" if shapes => {
            let inputs = w.same(&[a, b])?;
            w.one(if op == "FloorDiv" { math::div() } else { math::rem() }, &inputs)
        }
        "FloorMod" | "Mod" if float => {
            let inputs = w.same(&[a, b])?;
            w.function(
                "FloorMod",
                &inputs,
                |a: f32, b| a - (a / b).floor() * b,
                |a: f64, b| a - (a / b).floor() * b,
            )
        }
        "FloorDiv" => {
            w.whole(a, b, |a, b| a.wrapping_div(b) - i64::from(a.wrapping_rem(b) != 0 && (a < 0) != (b < 0)))
        }
        "FloorMod" | "Mod" => w.whole(a, b, |a, b| {
            let rest = a.wrapping_rem(b);
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        }),
        "TruncateMod" if float => w.binary(math::rem(), a, b),
        "TruncateMod" => w.whole(a, b, i64::wrapping_rem),
        "DivNoNan" | "Xdivy" => {
            let inputs = w.same(&[a, b])?;
            #[allow(clippy::type_complexity, reason = "the same function in two precisions")]
            let (f, g): (fn(f32, f32) -> f32, fn(f64, f64) -> f64) = if op == "DivNoNan" {
                (|a, b| if b == 0.0 { 0.0 } else { a / b }, |a, b| if b == 0.0 { 0.0 } else { a / b })
            } else {
                (|a, b| if a == 0.0 { 0.0 } else { a / b }, |a, b| if a == 0.0 { 0.0 } else { a / b })
            };
            w.function("DivNoNan", &inputs, f, g)
        }
        "MulNoNan" => {
            let inputs = w.same(&[a, b])?;
            w.function(
                "MulNoNan",
                &inputs,
                |a: f32, b| if b == 0.0 { 0.0 } else { a * b },
                |a: f64, b| if b == 0.0 { 0.0 } else { a * b },
            )
        }
        _ => Err(WiringError::Unsupported),
    }
}

/// A sum; one with a bias goes into the convolution before it.
pub(super) fn add(w: &mut Wiring<'_>, a: OutletId, b: OutletId) -> One {
    for (x, bias) in [(a, b), (b, a)] {
        if let Some(out) = w.absorbed(x, bias, Each::Summand)? {
            return Ok(out);
        }
    }
    w.binary(math::add(), a, b)
}

/// A product; one with a factor for each channel goes into the convolution before it.
pub(super) fn multiply(w: &mut Wiring<'_>, a: OutletId, b: OutletId) -> One {
    for (x, factor) in [(a, b), (b, a)] {
        if let Some(out) = w.absorbed(x, factor, Each::Factor)? {
            return Ok(out);
        }
    }
    // The engine makes a square of it, which it has for floats only.
    if a == b && w.datum(a)?.is_integer() {
        return w.whole_of(a, b, i64::wrapping_mul);
    }
    w.binary(math::mul(), a, b)
}

/// The value of a constant that is one whole number.
fn whole_constant(w: &Wiring<'_>, x: OutletId) -> Option<i64> {
    let value = w.konst(x).ok().filter(|v| v.len() == 1 && v.rank() == 0 && v.datum_type().is_integer())?;
    value.cast_to_scalar::<i64>().ok()
}

impl Wiring<'_> {
    /// Whole numbers of tract's own type become ordinary ones before they are computed with.
    fn plain_float(&mut self, op: &str, x: OutletId) -> One {
        if self.datum(x)? == DatumType::TDim && op != "Neg" { self.plain(x) } else { Ok(x) }
    }

    /// A function of two floating-point tensors of one rank.
    pub(super) fn function(
        &mut self,
        name: &'static str,
        inputs: &[OutletId],
        single: fn(f32, f32) -> f32,
        double: fn(f64, f64) -> f64,
    ) -> One {
        let op = super::computed::Computed::new(
            name,
            |facts| {
                let shapes: TVec<_> = facts.iter().map(|f| &f.shape).collect();
                let shape = tract_core::broadcast::multi_broadcast(&shapes)?;
                Ok(facts
                    .first()
                    .map(|f| super::super::api::TypedFact::dt_shape(f.datum_type, shape))
                    .into_iter()
                    .collect())
            },
            move |values| {
                let [a, b] = values else { super::super::api::bail!("two inputs expected") };
                let out = match a.datum_type() {
                    DatumType::F32 => nan::zip_broadcast::<f32, f32>(a, b, |a, b| single(*a, *b)),
                    DatumType::F64 => nan::zip_broadcast::<f64, f64>(a, b, |a, b| double(*a, *b)),
                    other => super::super::api::bail!("{other:?} is not supported"),
                };
                Ok(tvec!(super::super::api::IntoTValue::into_tvalue(out?)))
            },
        );
        self.one(op, inputs)
    }

    /// A function of two whole numbers, the second of which may not be zero.
    fn whole(&mut self, a: OutletId, b: OutletId, f: fn(i64, i64) -> i64) -> One {
        let datum = self.datum(a)?;
        if !matches!(
            datum,
            DatumType::I8
                | DatumType::I16
                | DatumType::I32
                | DatumType::I64
                | DatumType::U8
                | DatumType::U16
                | DatumType::U32
        ) {
            return Err(WiringError::Unsupported);
        }
        let (a, b) = (self.cast(a, i64::datum_type())?, self.cast(b, i64::datum_type())?);
        let inputs = self.same(&[a, b])?;
        let op = super::computed::Computed::new(
            "IntegerDivision",
            |facts| whole_fact(facts),
            move |values| {
                let [a, b] = values else { super::super::api::bail!("two inputs expected") };
                if b.try_as_plain_ram()?.as_slice::<i64>()?.contains(&0) {
                    super::super::api::bail!("division by zero");
                }
                let out = nan::zip_broadcast::<i64, i64>(a, b, |a, b| f(*a, *b))?;
                Ok(tvec!(super::super::api::IntoTValue::into_tvalue(out)))
            },
        );
        let out = self.one(op, &inputs)?;
        self.cast(out, datum)
    }

    /// A function of two whole numbers, which the result is like.
    fn whole_of(&mut self, a: OutletId, b: OutletId, f: fn(i64, i64) -> i64) -> One {
        let (a, b) = (self.plain(a)?, self.plain(b)?);
        let datum = self.datum(a)?;
        let (a, b) = (self.cast(a, i64::datum_type())?, self.cast(b, i64::datum_type())?);
        let inputs = self.same(&[a, b])?;
        let out = self.whole_pair("Whole", &inputs, f)?;
        self.cast(out, datum)
    }

    /// A function of two whole numbers of 64 bits.
    pub(super) fn whole_pair(
        &mut self,
        name: &'static str,
        inputs: &[OutletId],
        f: fn(i64, i64) -> i64,
    ) -> One {
        let op = super::computed::Computed::new(
            name,
            |facts| whole_fact(facts),
            move |values| {
                let [a, b] = values else { super::super::api::bail!("two inputs expected") };
                let out = nan::zip_broadcast::<i64, i64>(a, b, |a, b| f(*a, *b))?;
                Ok(tvec!(super::super::api::IntoTValue::into_tvalue(out)))
            },
        );
        self.one(op, inputs)
    }
}

fn whole_fact(
    facts: &[&super::super::api::TypedFact],
) -> super::super::api::TractResult<TVec<super::super::api::TypedFact>> {
    let shapes: TVec<_> = facts.iter().map(|f| &f.shape).collect();
    let shape: TVec<TDim> = tract_core::broadcast::multi_broadcast(&shapes)?;
    Ok(tvec!(super::super::api::TypedFact::dt_shape(i64::datum_type(), shape)))
}

fn shift(w: &mut Wiring<'_>, inputs: &[OutletId], f: fn(i64, i64) -> i64) -> Wired {
    let (a, b) = two(inputs)?;
    let (a, b) = (w.plain(a)?, w.plain(b)?);
    let datum = w.datum(a)?;
    if !datum.is_integer() || datum == DatumType::U64 {
        return Err(WiringError::Unsupported);
    }
    let (a, b) = (w.cast(a, DatumType::I64)?, w.cast(b, DatumType::I64)?);
    let inputs = w.same(&[a, b])?;
    let out = w.whole_pair("Shift", &inputs, f)?;
    Ok(tvec!(w.cast(out, datum)?))
}

fn bias_add(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (x, mut bias) = two(inputs)?;
    if node.attributes.text("data_format").is_some_and(|f| f.starts_with("NC")) {
        for _ in 2..w.rank(x)? {
            let last = w.rank(bias)?;
            bias = w.one(super::super::api::AxisOp::Add(last), &[bias])?;
        }
    }
    Ok(tvec!(add(w, x, bias)?))
}

fn cast(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let to = node.attributes.datum("DstT").ok_or(WiringError::Unsupported)?;
    let from = w.datum(x)?;
    if from == DatumType::TDim && (to == DatumType::I32 || to == DatumType::I64) {
        return Ok(tvec!(x));
    }
    if from == DatumType::String || to == DatumType::String {
        return Err(WiringError::Unsupported);
    }
    let x = w.plain(x)?;
    Ok(tvec!(w.cast(x, to)?))
}

fn l2_loss(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let half = w.scalar_like(0.5, x)?;
    let square = w.binary(math::mul(), x, x)?;
    let halved = w.binary(math::mul(), square, half)?;
    let axes = (0..w.rank(x)?).collect();
    let mut sum = w.one(nn::Reduce { axes, reducer: nn::Reducer::Sum }, &[halved])?;
    while w.rank(sum)? > 0 {
        sum = w.one(super::super::api::AxisOp::Rm(0), &[sum])?;
    }
    Ok(tvec!(sum))
}
