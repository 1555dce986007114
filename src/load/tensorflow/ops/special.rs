//! Functions of one or two numbers that are written out here: products of logarithms, gamma and error
//! functions, roundings of quantisation.

use super::super::api::{
    DatumType, EngineTensor, IntoTValue, OutletId, TValue, TypedFact, bail, tract_core, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, axis_of, first, input, two};
use super::{Handler, WiringError};
use crate::load::tract::nan;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Xlogy" | "Xlog1py" => |w, n, i| {
            let (a, b) = two(i)?;
            let inputs = w.same(&[a, b])?;
            let out = if n.op == "Xlogy" {
                w.function(
                    "Xlogy",
                    &inputs,
                    |a, b| times(a, b.ln()),
                    |a, b| if a == 0.0 { 0.0 } else { a * b.ln() },
                )
            } else {
                w.function(
                    "Xlog1py",
                    &inputs,
                    |a, b| times(a, b.ln_1p()),
                    |a, b| if a == 0.0 { 0.0 } else { a * b.ln_1p() },
                )
            };
            Ok(tvec!(out?))
        },
        "Lgamma" => |w, _, i| each(w, first(i)?, ln_gamma),
        "Digamma" => |w, _, i| each(w, first(i)?, digamma),
        "Erfinv" => |w, _, i| each(w, first(i)?, inverse_erf),
        "Ndtri" => |w, _, i| each(w, first(i)?, |p| std::f64::consts::SQRT_2 * inverse_erf(2.0 * p - 1.0)),
        "BesselI0e" => |w, _, i| each(w, first(i)?, |x| scaled_bessel(0.0, x)),
        "BesselI1e" => |w, _, i| each(w, first(i)?, |x| scaled_bessel(1.0, x)),
        "NextAfter" => |w, _, i| {
            let (a, b) = two(i)?;
            let inputs = w.same(&[a, b])?;
            let out = w.function(
                "NextAfter",
                &inputs,
                |a, b| match a.partial_cmp(&b) {
                    Some(std::cmp::Ordering::Less) => a.next_up(),
                    Some(std::cmp::Ordering::Greater) => a.next_down(),
                    Some(std::cmp::Ordering::Equal) => b,
                    None => f32::NAN,
                },
                |a, b| match a.partial_cmp(&b) {
                    Some(std::cmp::Ordering::Less) => a.next_up(),
                    Some(std::cmp::Ordering::Greater) => a.next_down(),
                    Some(std::cmp::Ordering::Equal) => b,
                    None => f64::NAN,
                },
            );
            Ok(tvec!(out?))
        },
        "FakeQuantWithMinMaxArgs" => |w, n, i| {
            let (low, high) =
                (n.attributes.float("min").unwrap_or(-6.0), n.attributes.float("max").unwrap_or(6.0));
            fake_quant(w, n, first(i)?, &[low], &[high])
        },
        "FakeQuantWithMinMaxVars" | "FakeQuantWithMinMaxVarsPerChannel" => |w, n, i| {
            let bounds = |outlet| -> Result<Vec<f32>, WiringError> {
                let value = w.konst(outlet)?;
                let value = value.cast_to::<f32>()?;
                Ok(value.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
            };
            let (low, high) = (bounds(input(i, 1)?)?, bounds(input(i, 2)?)?);
            fake_quant(w, n, first(i)?, &low, &high)
        },
        "Cumprod" => |w, n, i| running(w, n, i, |sum, value| sum * value, 1.0),
        "CumulativeLogsumexp" => |w, n, i| running(w, n, i, log_sum_exp, f64::NEG_INFINITY),
        "ApproximateEqual" => |w, n, i| {
            let (a, b) = two(i)?;
            let tolerance = w.scalar_like(f64::from(n.attributes.float("tolerance").unwrap_or(1e-5)), a)?;
            let difference = w.binary(tract_core::ops::math::sub(), a, b)?;
            let distance = w.one(tract_core::ops::math::abs(), &[difference])?;
            let less = super::logic::comparison(tract_core::ops::logic::comp_lt());
            Ok(tvec!(w.binary(less, distance, tolerance)?))
        },
        _ => return None,
    })
}

fn times(a: f32, b: f32) -> f32 {
    if a == 0.0 { 0.0 } else { a * b }
}

/// A function of one number, in double precision.
fn each(w: &mut Wiring<'_>, x: OutletId, f: fn(f64) -> f64) -> Wired {
    let datum = w.datum(x)?;
    if !matches!(datum, DatumType::F32 | DatumType::F64) {
        return Err(WiringError::Unsupported);
    }
    let fact = TypedFact::dt_shape(datum, &*w.dims(x)?);
    let op = Computed::giving("Function", tvec!(fact), move |values| {
        let [x] = values else { bail!("one input expected") };
        let out = x.cast_to::<f64>()?.to_plain_array_view::<f64>()?.map(|v| f(*v));
        Ok(tvec!(EngineTensor::from(out).cast_to_dt(datum)?.into_owned().into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

/// The logarithm of the gamma function, by Lanczos's approximation (g = 7, nine terms).
fn ln_gamma(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    if x < 0.5 {
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin().abs()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let mut sum = 0.999_999_999_999_809_9;
    for (at, term) in (1_u8..).zip(TERMS) {
        sum += term / (x + f64::from(at));
    }
    let t = x + 7.5;
    (2.0 * std::f64::consts::PI).ln() / 2.0 + (x + 0.5) * t.ln() - t + sum.ln()
}

/// The modified Bessel function of the first kind, of order 0 or 1, times `exp(-|x|)`: its series, or from
/// where that is exact its asymptotic one (Abramowitz and Stegun 9.6.10 and 9.7.1).
fn scaled_bessel(order: f64, x: f64) -> f64 {
    let a = x.abs();
    let sign = if order == 1.0 && x < 0.0 { -1.0 } else { 1.0 };
    if a.is_nan() || a == f64::INFINITY {
        return if a.is_nan() { x } else { 0.0 };
    }
    if a < 30.0 {
        let quarter = a * a / 4.0;
        let mut term = if order == 1.0 { a / 2.0 } else { 1.0 };
        let mut sum = term;
        for k in 1..200 {
            term *= quarter / (f64::from(k) * (f64::from(k) + order));
            sum += term;
        }
        return sign * sum * (-a).exp();
    }
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..20 {
        let odd = 2.0 * f64::from(k) - 1.0;
        term *= -(4.0 * order * order - odd * odd) / (f64::from(k) * 8.0 * a);
        sum += term;
    }
    sign * sum / (2.0 * std::f64::consts::PI * a).sqrt()
}

/// The derivative of [`ln_gamma`]: its asymptotic series where that is exact enough.
fn digamma(x: f64) -> f64 {
    if x <= 0.0 && x == x.floor() {
        return f64::NAN;
    }
    if x < 0.0 {
        let pi = std::f64::consts::PI;
        return digamma(1.0 - x) - pi / (pi * x).tan();
    }
    let (mut x, mut sum) = (x, 0.0);
    while x < 10.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = square * (1.0 / 12.0 - square * (1.0 / 120.0 - square * (1.0 / 252.0 - square / 240.0)));
    sum + x.ln() - 0.5 / x - series
}

/// The inverse of the error function: Giles's approximation, then two steps of Newton.
fn inverse_erf(y: f64) -> f64 {
    if y.is_nan() || y.abs() > 1.0 {
        return f64::NAN;
    }
    if y.abs() == 1.0 {
        return y * f64::INFINITY;
    }
    // Winitzki's formula begins well enough for three steps to be exact.
    let log = (-y * y).ln_1p();
    let half = 2.0 / (std::f64::consts::PI * 0.147) + log / 2.0;
    let mut x = ((half * half - log / 0.147).sqrt() - half).sqrt().copysign(y);
    for _ in 0..3 {
        let error = 1.0 - nan::complementary_error(x) - y;
        let slope = 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp();
        let step = error / slope;
        x -= step / (1.0 + x * step);
    }
    x
}

fn log_sum_exp(a: f64, b: f64) -> f64 {
    let high = a.max(b);
    if high == f64::NEG_INFINITY { high } else { high + ((a - high).exp() + (b - high).exp()).ln() }
}

/// What there is up to each place along an axis.
fn running(
    w: &mut Wiring<'_>,
    node: &Node,
    inputs: &[OutletId],
    join: fn(f64, f64) -> f64,
    begin: f64,
) -> Wired {
    let (x, axis) = two(inputs)?;
    let axis = axis_of(w.konst_scalar::<i64>(axis)?, w.rank(x)?)?;
    let x = w.plain(x)?;
    let flag = |name: &str| node.attributes.bool(name).unwrap_or(false);
    let (exclusive, reverse) = (flag("exclusive"), flag("reverse"));
    let datum = w.datum(x)?;
    let fact = TypedFact::dt_shape(datum, &*w.dims(x)?);
    let op = Computed::giving("Running", tvec!(fact), move |values: &[TValue]| {
        let [x] = values else { bail!("one input expected") };
        let mut out = x.cast_to::<f64>()?.to_plain_array_view::<f64>()?.into_owned();
        for mut lane in out.lanes_mut(super::super::api::tract_ndarray::Axis(axis)) {
            let mut so_far = begin;
            let step = |value: &mut f64| {
                let next = join(so_far, *value);
                *value = if exclusive { so_far } else { next };
                so_far = next;
            };
            if reverse { lane.iter_mut().rev().for_each(step) } else { lane.iter_mut().for_each(step) }
        }
        Ok(tvec!(EngineTensor::from(out).cast_to_dt(datum)?.into_owned().into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

/// Rounds to the values that a quantised number of so many bits has between two bounds, which are moved
/// so that zero is one of them.
fn fake_quant(w: &mut Wiring<'_>, node: &Node, x: OutletId, low: &[f32], high: &[f32]) -> Wired {
    let bits = node.attributes.int("num_bits").filter(|b| (2..=16).contains(b)).unwrap_or(8);
    let narrow = node.attributes.bool("narrow_range").unwrap_or(false);
    let first = f32::from(u8::from(narrow));
    let last = f32::from(u16::try_from((1_u32 << bits) - 1).unwrap_or(u16::MAX));
    let scales: Vec<Nudged> =
        low.iter().zip(high).map(|(low, high)| Nudged::new(*low, *high, first, last)).collect();
    let fact = TypedFact::dt_shape(DatumType::F32, &*w.dims(x)?);
    let x = w.cast(x, DatumType::F32)?;
    let op = Computed::giving("FakeQuant", tvec!(fact), move |values| {
        let [x] = values else { bail!("one input expected") };
        let mut out = x.to_plain_array_view::<f32>()?.into_owned();
        // Channels are last; one bound is for all.
        out.iter_mut().zip(scales.iter().cycle()).for_each(|(value, scale)| *value = scale.round(*value));
        Ok(tvec!(EngineTensor::from(out).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

#[derive(Clone, Copy, Debug)]
struct Nudged {
    low: f32,
    high: f32,
    scale: f32,
}

impl Nudged {
    fn new(low: f32, high: f32, first: f32, last: f32) -> Self {
        let scale = (high - low) / (last - first);
        let zero = first - low / scale;
        let zero = if zero < first {
            first
        } else if zero > last {
            last
        } else {
            zero.round()
        };
        Self { low: (first - zero) * scale, high: (last - zero) * scale, scale }
    }

    fn round(self, value: f32) -> f32 {
        if self.scale == 0.0 || value.is_nan() {
            return if value.is_nan() { value } else { 0.0 };
        }
        let value = value.max(self.low).min(self.high) - self.low;
        (value / self.scale + 0.5).floor() * self.scale + self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs().max(1.0)
    }

    #[test]
    fn gamma_and_error_functions_are_those_of_the_tables() {
        // ln(4!), ln(sqrt(pi)), and Euler's constant.
        assert!(close(ln_gamma(5.0), 24_f64.ln()));
        assert!(close(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln()));
        assert!(close(digamma(1.0), -0.577_215_664_901_532_9));
        assert!(close(digamma(-0.5), 0.036_489_973_978_576_52));
        assert!(close(inverse_erf(0.5), 0.476_936_276_204_469_9));
        assert!(close(inverse_erf(-0.999), -2.326_753_765_513_525));
    }

    #[test]
    fn bessel_functions_are_those_of_tensorflow() {
        // tf.math.bessel_i0e and bessel_i1e
        for (x, zero, one) in [
            (0.0, 1.0, 0.0),
            (0.5, 0.645_035_270_449_150_2, 0.156_420_803_184_871_6),
            (-2.0, 0.308_508_322_553_671, -0.215_269_289_248_937_7),
            (40.0, 0.063_278_279_875_235_34, 0.062_482_229_074_442_06),
            (-700.0, 0.015_081_295_651_531_355, -0.015_070_519_444_716_844),
        ] {
            assert!(close(scaled_bessel(0.0, x), zero) && close(scaled_bessel(1.0, x), one), "{x}");
        }
    }

    #[test]
    fn quantised_values_have_zero_among_them() {
        // tf.quantization.fake_quant_with_min_max_args([-3., 0.1, 0.33, 9.], -1., 3.)
        let nudged = Nudged::new(-1.0, 3.0, 0.0, 255.0);
        let rounded = [-3.0, 0.0, 0.1, 9.0].map(|v| nudged.round(v));
        assert!((rounded[0] + 1.003_921_6).abs() < 1e-6, "{rounded:?}");
        assert_eq!(rounded[1], 0.0);
        assert!((rounded[3] - 2.996_078_5).abs() < 1e-6, "{rounded:?}");
    }
}
