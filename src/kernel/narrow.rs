//! Numbers of less than eight bits, and floats of eight and four: what quantised weights are stored
//! as. They are widened when they are read, as half floats are, and a cast to them rounds.

use crate::tensor::{ElementType, Shape, Tensor};

/// A type of ONNX's that no tensor here has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Narrow {
    /// Whole numbers of this many bits.
    Unsigned(usize),
    Signed(usize),
    /// Floats with these many bits for the exponent and the mantissa, and this bias of the exponent.
    Float {
        exponent: u32,
        mantissa: u32,
        bias: i32,
        special: Special,
    },
    /// A power of two.
    Power,
}

/// Which patterns are no numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    /// As in IEEE 754: the highest exponent is infinity and NaN.
    Ieee,
    /// All bits set is NaN, whatever the sign.
    AllOnes,
    /// The sign alone is NaN.
    NegativeZero,
    None,
}

impl Narrow {
    /// The type of a `TensorProto.DataType`.
    pub(crate) fn of(data_type: i32) -> Option<Self> {
        let float = |exponent, mantissa, bias, special| Self::Float { exponent, mantissa, bias, special };
        Some(match data_type {
            17 => float(4, 3, 7, Special::AllOnes),
            18 => float(4, 3, 8, Special::NegativeZero),
            19 => float(5, 2, 15, Special::Ieee),
            20 => float(5, 2, 16, Special::NegativeZero),
            21 => Self::Unsigned(4),
            22 => Self::Signed(4),
            23 => float(2, 1, 1, Special::None),
            24 => Self::Power,
            25 => Self::Unsigned(2),
            26 => Self::Signed(2),
            _ => return None,
        })
    }

    /// What it is widened to.
    pub(crate) const fn element_type(self) -> ElementType {
        match self {
            Self::Unsigned(_) => ElementType::U8,
            Self::Signed(_) => ElementType::I8,
            Self::Float { .. } | Self::Power => ElementType::F32,
        }
    }

    const fn bits(self) -> usize {
        match self {
            Self::Unsigned(bits) | Self::Signed(bits) => bits,
            Self::Float { exponent, mantissa, .. } => 1 + (exponent + mantissa) as usize,
            Self::Power => 8,
        }
    }

    /// The smallest and the largest whole number of the type.
    pub(crate) fn range(self) -> Option<(f64, f64)> {
        match self {
            Self::Unsigned(bits) => Some((0.0, f64::from((1_u32 << bits) - 1))),
            Self::Signed(bits) => {
                let half = f64::from(1_u32 << (bits - 1));
                Some((-half, half - 1.0))
            }
            Self::Float { .. } | Self::Power => None,
        }
    }

    /// The tensor of elements that lie packed in these bytes, the first in the lowest bits.
    pub(crate) fn widen(self, shape: Shape, bytes: &[u8]) -> Result<Tensor, String> {
        let (bits, count) = (self.bits(), shape.elements());
        if bytes.len() != (count * bits).div_ceil(8) {
            return Err(format!("{count} elements of {bits} bits expected, found {} bytes", bytes.len()));
        }
        let each = 8 / bits;
        let mask = u8::MAX >> (8 - bits);
        let patterns = bytes.iter().flat_map(|byte| (0..each).map(move |at| byte >> (at * bits) & mask));
        let patterns = patterns.take(count);
        match self {
            Self::Unsigned(_) => Tensor::new(shape.dims(), patterns.collect::<Vec<u8>>()),
            Self::Signed(_) => {
                let signed = |pattern: u8| (pattern << (8 - bits)).cast_signed() >> (8 - bits);
                Tensor::new(shape.dims(), patterns.map(signed).collect::<Vec<i8>>())
            }
            Self::Float { .. } | Self::Power => {
                Tensor::new(shape.dims(), patterns.map(|pattern| self.float(pattern)).collect::<Vec<f32>>())
            }
        }
        .map_err(|e| e.to_string())
    }

    fn float(self, pattern: u8) -> f32 {
        let pattern = u32::from(pattern);
        let Self::Float { exponent, mantissa, bias, special } = self else {
            return if pattern == 255 { f32::NAN } else { power(pattern.cast_signed() - 127) };
        };
        let sign = pattern >> (exponent + mantissa) & 1;
        let (highest, all) = ((1 << exponent) - 1, (1 << (exponent + mantissa)) - 1);
        let (e, m) = (pattern >> mantissa & highest, pattern & ((1 << mantissa) - 1));
        #[allow(clippy::cast_precision_loss, reason = "a few bits")]
        let fraction = m as f32 / (1_u32 << mantissa) as f32;
        let size = match special {
            Special::NegativeZero if sign == 1 && e == 0 && m == 0 => return f32::NAN,
            Special::AllOnes if pattern & all == all => return f32::NAN,
            Special::Ieee if e == highest && m > 0 => return f32::NAN,
            Special::Ieee if e == highest => f32::INFINITY,
            _ if e == 0 => fraction * power(1 - bias),
            _ => (1.0 + fraction) * power(e.cast_signed() - bias),
        };
        if sign == 1 { -size } else { size }
    }

    /// The whole number of the type that has these lowest bits.
    pub(crate) const fn wrap(self, x: i64) -> i64 {
        let (rest, unsigned) = match self {
            Self::Unsigned(bits) => (64 - bits, true),
            Self::Signed(bits) => (64 - bits, false),
            Self::Float { .. } | Self::Power => return x,
        };
        if unsigned { (x.cast_unsigned() << rest >> rest).cast_signed() } else { x << rest >> rest }
    }

    /// The float of the type for this one, by the rules of ONNX's `Cast`: the nearest, and for what is
    /// too large the largest where the cast saturates, else an infinity or NaN.
    pub(crate) fn nearest(self, x: f32, saturate: bool, direction: Direction) -> f32 {
        let Self::Float { exponent, mantissa, bias, special } = self else {
            return power_of_two(x, saturate, direction);
        };
        if x.is_nan() {
            // The type without a NaN has this in its place, as its reference implementation does.
            return if special == Special::None { -0.0 } else { x };
        }
        let (highest, all) = (1_u32 << exponent, 1_u32 << mantissa);
        let (top, lost) = match special {
            Special::Ieee => (highest - 2, 1),
            Special::AllOnes => (highest - 1, 2),
            Special::NegativeZero | Special::None => (highest - 1, 1),
        };
        #[allow(clippy::cast_precision_loss, reason = "a few bits")]
        let last = (2 * all - lost) as f32 / all as f32;
        let most = last * power(top.cast_signed() - bias);
        let size = x.abs();
        let place = (size.to_bits() >> 23).cast_signed() - 127;
        let step = power(place.max(1 - bias) - mantissa.cast_signed());
        let rounded = if size.is_finite() { (size / step).round_ties_even() * step } else { size };
        let size = match special {
            _ if rounded <= most => rounded,
            _ if saturate => most,
            Special::None => most,
            Special::Ieee => f32::INFINITY,
            Special::AllOnes | Special::NegativeZero => f32::NAN,
        };
        if special == Special::NegativeZero && size == 0.0 { 0.0 } else { size.copysign(x) }
    }
}

/// Where a number between two powers of two goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
    Nearest,
}

/// The power of two for the size of a number.
fn power_of_two(x: f32, saturate: bool, direction: Direction) -> f32 {
    let bits = x.to_bits();
    let (exponent, fraction) = (bits >> 23 & 0xff, bits & 0x007f_ffff);
    if exponent == 0xff {
        return f32::NAN;
    }
    let half = 0x0040_0000;
    let up = match direction {
        Direction::Up => fraction > 0,
        Direction::Down => false,
        Direction::Nearest => fraction > half || (fraction == half && exponent > 0),
    };
    match exponent + u32::from(up) {
        0xff if saturate => power(127),
        0xff => f32::NAN,
        exponent => power(exponent.cast_signed() - 127),
    }
}

fn power(exponent: i32) -> f32 {
    2.0_f32.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widened(data_type: i32, count: usize, bytes: &[u8]) -> Tensor {
        Narrow::of(data_type).unwrap().widen(Shape::vector(count), bytes).unwrap()
    }

    /// The values are those that the `ml_dtypes` package gives these patterns.
    #[test]
    fn each_type_is_widened_to_what_it_means() {
        assert_eq!(widened(21, 3, &[0xf1, 0x08]).values::<u8>().unwrap(), [1, 15, 8]);
        assert_eq!(widened(22, 3, &[0xf1, 0x08]).values::<i8>().unwrap(), [1, -1, -8]);
        assert_eq!(widened(25, 5, &[0b11_10_01_00, 2]).values::<u8>().unwrap(), [0, 1, 2, 3, 2]);
        assert_eq!(widened(26, 4, &[0b11_10_01_00]).values::<i8>().unwrap(), [0, 1, -2, -1]);
        let floats = |data_type, bytes: &[u8]| {
            widened(data_type, bytes.len(), bytes).values::<f32>().unwrap().to_vec()
        };
        let e4m3fn = floats(17, &[0x00, 0x01, 0x38, 0x7e, 0xfe, 0xb8, 0x7f]);
        assert_eq!(e4m3fn[..6], [0.0, 0.001_953_125, 1.0, 448.0, -448.0, -1.0]);
        assert!(e4m3fn[6].is_nan());
        let e4m3fnuz = floats(18, &[0x01, 0x40, 0x7f, 0x80]);
        assert_eq!(e4m3fnuz[..3], [0.000_976_562_5, 1.0, 240.0]);
        assert!(e4m3fnuz[3].is_nan());
        let e5m2 = floats(19, &[0x01, 0x3c, 0x7b, 0x7c, 0xfc, 0x7d]);
        assert_eq!(e5m2[..5], [1.525_878_9e-5, 1.0, 57_344.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert!(e5m2[5].is_nan());
        let e5m2fnuz = floats(20, &[0x40, 0x7f]);
        assert_eq!(e5m2fnuz, [1.0, 57_344.0]);
        let e2m1 = widened(23, 16, &[0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
        let sizes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0_f32];
        let both: Vec<f32> = sizes.iter().copied().chain(sizes.iter().map(|size| -size)).collect();
        assert_eq!(e2m1.values::<f32>().unwrap(), both);
        assert_eq!(floats(24, &[127, 128, 126]), [1.0, 2.0, 0.5]);
    }

    /// The values are those that the node tests of onnx 1.23 expect of `Cast`.
    #[test]
    fn each_float_goes_to_the_nearest_of_the_type() {
        let rounded = |data_type, saturate, values: [f32; 5]| {
            values.map(|x| Narrow::of(data_type).unwrap().nearest(x, saturate, Direction::Up))
        };
        let cases = [0.478_162_97, -0.0, 1_000_000.0, -1e-7, f32::NEG_INFINITY];
        assert_eq!(rounded(17, true, cases), [0.468_75, -0.0, 448.0, -0.0, -448.0]);
        assert_eq!(rounded(19, true, cases), [0.5, -0.0, 57_344.0, -0.0, -57_344.0]);
        assert_eq!(rounded(23, true, cases), [0.5, -0.0, 6.0, -0.0, -6.0]);
        let lost = rounded(18, false, cases);
        assert_eq!((lost[0], lost[1].is_sign_positive()), (0.468_75, true));
        assert!(lost[2].is_nan() && lost[4].is_nan());
        assert_eq!(rounded(19, false, cases)[2..], [f32::INFINITY, -0.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn a_power_of_two_goes_in_the_direction_that_is_stated() {
        let of = |x, direction| Narrow::Power.nearest(x, true, direction);
        assert_eq!([Direction::Up, Direction::Down, Direction::Nearest].map(|d| of(2.5, d)), [4.0, 2.0, 2.0]);
        assert_eq!(of(3.0, Direction::Nearest), 4.0);
        assert_eq!(of(f32::MAX, Direction::Up), power(127));
        assert!(Narrow::Power.nearest(f32::MAX, false, Direction::Up).is_nan());
    }

    #[test]
    fn whole_numbers_wrap() {
        assert_eq!([-9, 7, 8, 17].map(|x| Narrow::Signed(4).wrap(x)), [7, 7, -8, 1]);
        assert_eq!([-9, 7, 15, 17].map(|x| Narrow::Unsigned(4).wrap(x)), [7, 7, 15, 1]);
        assert_eq!([-3, 2].map(|x| Narrow::Signed(2).wrap(x)), [1, -2]);
    }

    #[test]
    fn elements_have_to_be_there() {
        let refused = Narrow::Signed(4).widen(Shape::vector(5), &[0, 0]);
        assert!(refused.unwrap_err().contains("5 elements of 4 bits"));
    }
}
