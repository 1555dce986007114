//! Numbers of less than eight bits, and floats of eight and four: what quantised weights are stored
//! as. They are widened when they are read, as half floats are.

use crate::load::Payload;
#[cfg(feature = "onnx")]
use crate::tensor::ElementType;
use crate::tensor::{Shape, Tensor};

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
    #[cfg(feature = "onnx")]
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

    /// The tensor of elements that lie packed, the first in the lowest bits.
    pub(crate) fn widen(self, shape: Shape, raw: &Payload, numbers: &[i32]) -> Result<Tensor, String> {
        let bytes: Vec<u8> = if raw.is_empty() {
            numbers.iter().map(|number| number.to_le_bytes()[0]).collect()
        } else {
            raw.chunks().flatten().copied().collect()
        };
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
}

fn power(exponent: i32) -> f32 {
    2.0_f32.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widened(data_type: i32, count: usize, bytes: &[u8]) -> Tensor {
        Narrow::of(data_type).unwrap().widen(Shape::vector(count), &bytes.to_vec().into(), &[]).unwrap()
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

    #[test]
    fn elements_have_to_be_there() {
        let refused = Narrow::Signed(4).widen(Shape::vector(5), &vec![0, 0].into(), &[]);
        assert!(refused.unwrap_err().contains("5 elements of 4 bits"));
    }
}
