//! Functions over slices of `f32`, in vector registers where the processor has them.
//!
//! The loops are written so that the compiler vectorises them; `pulp` compiles each once for every
//! instruction set and picks the widest one that is there. A NaN comes out as NaN.

use pulp::{Arch, Simd, WithSimd};

/// `e^x`, within 2 units in the last place; infinite over 88.73, 0 under -103.97.
pub(crate) fn exp(from: &[f32], to: &mut [f32]) {
    Arch::new().dispatch(Map { from, to, f: exp_one });
}

/// [`exp`] of each element, in its place.
pub(crate) fn exp_in_place(values: &mut [f32]) {
    Arch::new().dispatch(MapInPlace { values, f: exp_one });
}

/// `tanh x`, within 4 units in the last place.
pub(crate) fn tanh(from: &[f32], to: &mut [f32]) {
    Arch::new().dispatch(Map { from, to, f: tanh_one });
}

/// `1 / (1 + e^-x)`, within 4 units in the last place.
pub(crate) fn sigmoid(from: &[f32], to: &mut [f32]) {
    Arch::new().dispatch(Map { from, to, f: sigmoid_one });
}

/// A function of each element.
struct Map<'a, F> {
    from: &'a [f32],
    to: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32) -> f32> WithSimd for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        for (to, x) in self.to.iter_mut().zip(self.from) {
            *to = (self.f)(*x);
        }
    }
}

struct MapInPlace<'a, F> {
    values: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32) -> f32> WithSimd for MapInPlace<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        for x in self.values {
            *x = (self.f)(*x);
        }
    }
}

/// `e^x = 2^n e^r` with `|r| <= ln(2) / 2` and a polynomial for `e^r`; `2^n` in two factors, as `n`
/// alone can be past the exponents that there are.
#[inline(always)]
pub(crate) fn exp_one(x: f32) -> f32 {
    // A comparison with NaN is false, so that NaN goes through.
    let bounded = if x > 89.0 { 89.0 } else { x };
    let bounded = if bounded < -104.0 { -104.0 } else { bounded };
    let (n, rest) = split(bounded);
    let half = n >> 1;
    (rest + 1.0) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `e^x - 1`, exact to a few units near 0 too, where the 1 would swallow all; for `x` within 20, at
/// which it stops.
#[inline(always)]
fn exp_less_one(x: f32) -> f32 {
    let bounded = if x > 20.0 { 20.0 } else { x };
    let bounded = if bounded < -20.0 { -20.0 } else { bounded };
    let (n, rest) = split(bounded);
    let scale = power_of_two(n);
    rest.mul_add(scale, scale - 1.0)
}

/// `n` and `e^r - 1`, where `x = n ln(2) + r`. Of a NaN, `n` is anything and the other NaN.
#[inline(always)]
fn split(x: f32) -> (i32, f32) {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to a whole number, which is then in the last bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_HIGH, x);
    let r = n.mul_add(-LN_2_LOW, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5.000_000_3e-1);
    let whole = shifted.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    (whole, p.mul_add(r * r, r))
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23).cast_unsigned())
}

#[inline(always)]
pub(crate) fn sigmoid_one(x: f32) -> f32 {
    1.0 / (1.0 + exp_one(-x))
}

/// `(e^2x - 1) / (e^2x + 1)`.
#[inline(always)]
pub(crate) fn tanh_one(x: f32) -> f32 {
    let e = exp_less_one(2.0 * x);
    e / (e + 2.0)
}

/// `tanh(x) / (1 + e^-gate)`: a tanh behind a gate, with one division.
#[inline(always)]
pub(crate) fn gated_tanh_one(x: f32, gate: f32) -> f32 {
    let e = exp_less_one(2.0 * x);
    e / ((e + 2.0) * (1.0 + exp_one(-gate)))
}

/// The error function, within 1.5e-7 of `f32` precision and better: a continued series near 0, a
/// rational form of the complement elsewhere.
pub(crate) fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let z = x.abs();
    if z > 6.0 {
        return 1.0_f64.copysign(x);
    }
    if z < 2.5 {
        // The Taylor series of erf: terms fall quickly here.
        let (mut term, mut sum, square) = (z, z, z * z);
        for n in 1..60 {
            let n = f64::from(n);
            term *= -square / n;
            let next = term / (2.0 * n + 1.0);
            sum += next;
            if next.abs() < 1e-17 * sum.abs() {
                break;
            }
        }
        return (sum * std::f64::consts::FRAC_2_SQRT_PI).copysign(x);
    }
    // The continued fraction of the complement, from the inside out.
    let mut fraction = 0.0;
    for n in (1..=60).rev() {
        fraction = f64::from(n) / 2.0 / (z + fraction);
    }
    let complement = (-z * z).exp() / ((z + fraction) * std::f64::consts::PI.sqrt());
    (1.0 - complement).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, from: f32, to: f32) -> f64 {
        (0..=100_000)
            .map(|i| from + (to - from) * i as f32 / 100_000.0)
            .map(|x| {
                let want = exact(f64::from(x));
                if want == 0.0 { f64::from(f(x)).abs() } else { ((f64::from(f(x)) - want) / want).abs() }
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn fast_functions_are_exact_to_a_few_units_in_the_last_place() {
        assert!(worst(exp_one, f64::exp, -87.0, 88.7) < 2.5e-7);
        assert!(worst(tanh_one, f64::tanh, -10.0, 10.0) < 5e-7);
        assert!(worst(sigmoid_one, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 30.0) < 5e-7);
    }

    #[test]
    fn fast_functions_have_the_right_limits() {
        for f in [exp_one, tanh_one, sigmoid_one] {
            assert!(f(f32::NAN).is_nan());
        }
        assert_eq!(exp_one(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_one(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_one(0.0), 1.0);
        assert_eq!((tanh_one(50.0), tanh_one(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((sigmoid_one(200.0), sigmoid_one(f32::NEG_INFINITY)), (1.0, 0.0));
    }

    #[test]
    fn erf_agrees_with_tabulated_values() {
        for (x, want) in [
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (2.5, 0.999_593_047_982_555),
            (3.0, 0.999_977_909_503_001_4),
        ] {
            assert!((erf(x) - want).abs() < 1e-14, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(erf(f64::NAN).is_nan());
    }
}
