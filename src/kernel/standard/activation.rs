//! What becomes of each element at the end of a layer or a convolution.

use pulp::Simd;

use super::vector;

/// A function of each element. NaN stays NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Activation {
    None,
    Relu,
    LeakyRelu(f32),
    /// Not below the first, not above the second.
    Clip(f32, f32),
    HardSwish,
    Sigmoid,
    Tanh,
}

impl Activation {
    /// True where [`Activation::of_register`] is all that there is to do.
    pub(super) const fn is_short(self) -> bool {
        !matches!(self, Self::Sigmoid | Self::Tanh)
    }

    /// The function of one register; those that are not short are left for [`Activation::apply`].
    #[inline(always)]
    pub(super) fn of_register<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        // A comparison with NaN is false, so that NaN goes through.
        let below = |x, bound| simd.select_f32s(simd.less_than_f32s(x, bound), bound, x);
        let above = |x, bound| simd.select_f32s(simd.less_than_f32s(bound, x), bound, x);
        match self {
            Self::None | Self::Sigmoid | Self::Tanh => x,
            Self::Relu => below(x, simd.splat_f32s(0.0)),
            Self::LeakyRelu(slope) => {
                let is_negative = simd.less_than_f32s(x, simd.splat_f32s(0.0));
                simd.select_f32s(is_negative, simd.mul_f32s(x, simd.splat_f32s(slope)), x)
            }
            Self::Clip(low, high) => above(below(x, simd.splat_f32s(low)), simd.splat_f32s(high)),
            Self::HardSwish => {
                let gate = simd.mul_add_e_f32s(x, simd.splat_f32s(1.0 / 6.0), simd.splat_f32s(0.5));
                let gate = above(below(gate, simd.splat_f32s(0.0)), simd.splat_f32s(1.0));
                simd.mul_f32s(x, gate)
            }
        }
    }

    /// The function of each element, in its place.
    #[inline(always)]
    pub(super) fn apply(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }),
            Self::LeakyRelu(slope) => each(values, |x| if x < 0.0 { x * slope } else { x }),
            Self::Clip(low, high) => each(values, |x| clip(x, low, high)),
            Self::HardSwish => each(values, |x| x * clip(x.mul_add(1.0 / 6.0, 0.5), 0.0, 1.0)),
            Self::Sigmoid => each(values, vector::sigmoid_one),
            Self::Tanh => each(values, vector::tanh_one),
        }
    }
}

#[inline(always)]
fn clip(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[inline(always)]
fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in values {
        *x = f(*x);
    }
}
