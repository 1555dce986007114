//! The arithmetic that the standard operators want of a type of numbers.

use crate::tensor::Element;

/// A type of numbers. Whole numbers wrap around, as everywhere else.
pub(super) trait Number: Element + Copy + PartialOrd {
    const ZERO: Self;
    const ONE: Self;
    /// The smallest and the largest value, infinities included.
    const LOWEST: Self;
    const HIGHEST: Self;
    const IS_FLOAT: bool;

    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn from_i64(value: i64) -> Self;
    fn to_i64(self) -> i64;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// 0 for a whole number divided by 0: to be refused before it comes to that.
    fn over(self, other: Self) -> Self;
    /// The remainder with the sign of the dividend.
    fn remainder(self, other: Self) -> Self;
    /// The remainder with the sign of the divisor.
    fn modulo(self, other: Self) -> Self;
    fn magnitude(self) -> Self;
    fn negated(self) -> Self;
    fn signum(self) -> Self;
    fn is_nan(self) -> bool;

    /// The larger one; NaN where either is.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }

    /// The smaller one; NaN where either is.
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        if self.is_nan() || self < other { self } else { other }
    }
}

macro_rules! floats {
    ($($type:ty),*) => { $(
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_lossless,
            reason = "the conversions that Cast asks for")]
        impl Number for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = Self::NEG_INFINITY;
            const HIGHEST: Self = Self::INFINITY;
            const IS_FLOAT: bool = true;
            #[inline(always)]
            fn from_f64(value: f64) -> Self { value as Self }
            #[inline(always)]
            fn to_f64(self) -> f64 { self as f64 }
            #[inline(always)]
            fn from_i64(value: i64) -> Self { value as Self }
            #[inline(always)]
            fn to_i64(self) -> i64 { self as i64 }
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self + other }
            #[inline(always)]
            fn minus(self, other: Self) -> Self { self - other }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self * other }
            #[inline(always)]
            fn over(self, other: Self) -> Self { self / other }
            fn remainder(self, other: Self) -> Self { self % other }
            fn modulo(self, other: Self) -> Self {
                let rest = self % other;
                if rest != 0.0 && (rest < 0.0) != (other < 0.0) { rest + other } else { rest }
            }
            #[inline(always)]
            fn magnitude(self) -> Self { self.abs() }
            #[inline(always)]
            fn negated(self) -> Self { -self }
            fn signum(self) -> Self {
                if self > 0.0 { 1.0 } else if self < 0.0 { -1.0 } else { self }
            }
            #[inline(always)]
            fn is_nan(self) -> bool { Self::is_nan(self) }
        }
    )* };
}

macro_rules! wholes {
    ($($type:ty, $magnitude:ident, $signum:ident;)*) => { $(
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_lossless,
            clippy::cast_sign_loss, clippy::cast_possible_wrap, reason = "the conversions that Cast asks for")]
        impl Number for $type {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LOWEST: Self = Self::MIN;
            const HIGHEST: Self = Self::MAX;
            const IS_FLOAT: bool = false;
            #[inline(always)]
            fn from_f64(value: f64) -> Self { value as Self }
            #[inline(always)]
            fn to_f64(self) -> f64 { self as f64 }
            #[inline(always)]
            fn from_i64(value: i64) -> Self { value as Self }
            #[inline(always)]
            fn to_i64(self) -> i64 { self as i64 }
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn over(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_div(other) } }
            fn remainder(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_rem(other) } }
            #[allow(unused_comparisons, reason = "for the unsigned types")]
            fn modulo(self, other: Self) -> Self {
                let rest = self.remainder(other);
                if rest != 0 && (rest < 0) != (other < 0) { rest.wrapping_add(other) } else { rest }
            }
            #[inline(always)]
            fn magnitude(self) -> Self { $magnitude(self) }
            #[inline(always)]
            fn negated(self) -> Self { self.wrapping_neg() }
            fn signum(self) -> Self { $signum(self) }
            #[inline(always)]
            fn is_nan(self) -> bool { false }
        }
    )* };
}

floats!(f32, f64);
wholes! {
    i8, wrapping_abs, signum; i16, wrapping_abs, signum; i32, wrapping_abs, signum; i64, wrapping_abs, signum;
    u8, itself, sign_bit; u16, itself, sign_bit; u32, itself, sign_bit; u64, itself, sign_bit;
}

fn wrapping_abs<T: Number>(value: T) -> T {
    if value < T::ZERO { value.negated() } else { value }
}

fn signum<T: Number>(value: T) -> T {
    if value > T::ZERO {
        T::ONE
    } else if value < T::ZERO {
        T::ONE.negated()
    } else {
        T::ZERO
    }
}

fn itself<T>(value: T) -> T {
    value
}

fn sign_bit<T: Number>(value: T) -> T {
    if value > T::ZERO { T::ONE } else { T::ZERO }
}

/// The functions of a floating-point type.
pub(super) trait Float: Number {
    fn of(value: f32) -> Self;
    fn exp(self) -> Self;
    fn exp_m1(self) -> Self;
    fn ln(self) -> Self;
    fn ln_1p(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn round_ties_even(self) -> Self;
    fn is_infinite(self) -> bool;
    /// A function that is there for `f64` only.
    fn through_f64(self, f: fn(f64) -> f64) -> Self {
        Self::from_f64(f(self.to_f64()))
    }
}

macro_rules! float_functions {
    ($($type:ty),*) => { $(
        impl Float for $type {
            #[inline(always)]
            fn of(value: f32) -> Self { value.into() }
            fn exp(self) -> Self { self.exp() }
            fn exp_m1(self) -> Self { self.exp_m1() }
            fn ln(self) -> Self { self.ln() }
            fn ln_1p(self) -> Self { self.ln_1p() }
            #[inline(always)]
            fn sqrt(self) -> Self { self.sqrt() }
            fn tanh(self) -> Self { self.tanh() }
            fn floor(self) -> Self { self.floor() }
            fn ceil(self) -> Self { self.ceil() }
            fn round_ties_even(self) -> Self { self.round_ties_even() }
            fn is_infinite(self) -> bool { self.is_infinite() }
        }
    )* };
}

float_functions!(f32, f64);
