//! What becomes of each element at the end of a layer or a convolution.

use pulp::{Arch, Simd, WithSimd};

use super::tile::Sums;
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
    /// True where [`Activation::of_sums`] is all that there is to do.
    pub(super) const fn is_short(self) -> bool {
        matches!(self, Self::None | Self::Relu | Self::Clip(..))
    }

    /// The function of all sums; those that are not short are left for [`Activation::finish`].
    ///
    /// A loop of products has no registers to spare for the constants of the others.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds")]
    #[expect(clippy::needless_range_loop, reason = "one index for several arrays; constant, so they unroll")]
    pub(super) fn of_sums<S: Simd, const R: usize, const P: usize, const V: usize>(
        self,
        simd: S,
        mut sums: Sums<S, R, P, V>,
    ) -> Sums<S, R, P, V> {
        // A comparison with NaN is false, so that NaN goes through.
        if let Self::Relu | Self::Clip(..) = self {
            let low = simd.splat_f32s(if let Self::Clip(low, _) = self { low } else { 0.0 });
            for r in 0..R {
                for p in 0..P {
                    for v in 0..V {
                        let sum = sums[r][p][v];
                        sums[r][p][v] = simd.select_f32s(simd.less_than_f32s(sum, low), low, sum);
                    }
                }
            }
        }
        if let Self::Clip(_, high) = self {
            let high = simd.splat_f32s(high);
            for r in 0..R {
                for p in 0..P {
                    for v in 0..V {
                        let sum = sums[r][p][v];
                        sums[r][p][v] = simd.select_f32s(simd.less_than_f32s(high, sum), high, sum);
                    }
                }
            }
        }
        sums
    }

    /// The function of each element, in its place, where it is not short.
    pub(super) fn finish(self, arch: Arch, values: &mut [f32]) {
        if !self.is_short() {
            self.apply(arch, values);
        }
    }

    /// The function of each element, in its place.
    pub(super) fn apply(self, arch: Arch, values: &mut [f32]) {
        if self != Self::None {
            arch.dispatch(Each { activation: self, values });
        }
    }
}

/// A function of its own, so that no other loop has its constants in registers.
struct Each<'a> {
    activation: Activation,
    values: &'a mut [f32],
}

impl WithSimd for Each<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let values = self.values;
        match self.activation {
            Activation::None => {}
            Activation::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }),
            Activation::LeakyRelu(slope) => each(values, |x| if x < 0.0 { x * slope } else { x }),
            Activation::Clip(low, high) => each(values, |x| clip(x, low, high)),
            Activation::HardSwish => each(values, |x| x * clip(x.mul_add(1.0 / 6.0, 0.5), 0.0, 1.0)),
            Activation::Sigmoid => each(values, vector::sigmoid_one),
            Activation::Tanh => each(values, vector::tanh_one),
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
