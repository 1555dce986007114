//! The weights of a layer as the model's file gives them, while they are laid out in another way.

use crate::load::Payload;
use crate::tensor::Tensor;

/// How many bytes of weights are given back at a time.
pub(super) const GIVE_BACK: usize = 2 << 20;

/// Numbers that are read from their end. What has been read is given back, so that not even the largest
/// layer of a model is there twice.
pub(crate) enum GivenWeights {
    Decoded {
        values: Vec<f32>,
        /// Those from here on have been read.
        end: usize,
    },
    /// Still in the bytes of the file.
    Stored {
        bytes: Payload,
        /// Those that were decoded last.
        piece: Vec<f32>,
    },
}

impl GivenWeights {
    /// The elements of a tensor of `f32`; `None` of any other.
    pub(super) fn of(tensor: Tensor) -> Option<Self> {
        match tensor.into_undecoded() {
            Ok(bytes) => Some(Self::Stored { bytes, piece: Vec::new() }),
            Err(tensor) => tensor.into_values::<f32>().map(Self::from),
        }
    }

    /// Those from `from` on that were not read yet.
    pub(super) fn rest(&mut self, from: usize) -> &[f32] {
        match self {
            Self::Decoded { values, end } => {
                values.truncate(*end);
                if (values.capacity() - values.len()) * size_of::<f32>() >= GIVE_BACK {
                    values.shrink_to_fit();
                }
                *end = from;
                values.get(from..).unwrap_or(&[])
            }
            Self::Stored { bytes, piece } => {
                piece.clear();
                let rest = bytes.split_off(from.saturating_mul(size_of::<f32>()));
                rest.decode_into(piece, f32::from_le_bytes);
                piece
            }
        }
    }
}

impl From<Vec<f32>> for GivenWeights {
    fn from(values: Vec<f32>) -> Self {
        let end = values.len();
        Self::Decoded { values, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    #[test]
    fn weights_are_read_from_their_end_whether_they_are_decoded_or_not() {
        let values = [1.0_f32, 2.0, 3.0, 4.0, 5.0];
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let pieces = bytes.chunks(3).map(|piece| piece.to_vec().into());
        let stored = Tensor::undecoded(Shape::vector(5), Payload::from_chunks(pieces)).unwrap();
        for tensor in [Tensor::vector(values.to_vec()), stored] {
            let mut weights = GivenWeights::of(tensor).unwrap();
            assert!(weights.rest(5).is_empty());
            assert_eq!(weights.rest(2), [3.0, 4.0, 5.0]);
            assert_eq!(weights.rest(1), [2.0]);
            assert_eq!(weights.rest(0), [1.0]);
            assert!(weights.rest(0).is_empty());
        }
        assert!(GivenWeights::of(Tensor::vector(vec![1_i64])).is_none());
    }
}
