//! `com.microsoft.MurmurHash3`: a hash of each element, which the export of scikit-learn's
//! `FeatureHasher` is made of.

use smallvec::{SmallVec, smallvec};

use crate::kernel::ml::common::{first_fact, input, same_shape};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Tensor, TensorView};

const OPERATOR: &str = "MurmurHash3";

/// The 32-bit hash of text, or of the bytes of a number.
#[derive(Debug)]
pub(super) struct MurmurHash3 {
    seed: u32,
    /// Gives the hash as `u32`, else as `i32`.
    positive: bool,
}

impl MurmurHash3 {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let seed = attributes.int("seed")?.unwrap_or(0);
        let seed = u32::try_from(seed)
            .or_else(|_| i32::try_from(seed).map(i32::cast_unsigned))
            .map_err(|_| BuildError::invalid(format!("`seed`: expected 32 bits, found {seed}")))?;
        Ok(Self { seed, positive: attributes.int("positive")?.unwrap_or(1) != 0 })
    }

    fn hashes(&self, x: TensorView<'_>) -> Result<Vec<u32>, RunError> {
        let of = |bytes: &[u8]| murmur(bytes, self.seed);
        Ok(match x.data() {
            DataView::String(values) => values.iter().map(|text| of(text.as_bytes())).collect(),
            DataView::I32(values) => values.iter().map(|v| of(&v.to_le_bytes())).collect(),
            DataView::U32(values) => values.iter().map(|v| of(&v.to_le_bytes())).collect(),
            DataView::I64(values) => values.iter().map(|v| of(&v.to_le_bytes())).collect(),
            DataView::U64(values) => values.iter().map(|v| of(&v.to_le_bytes())).collect(),
            DataView::F32(values) => values.iter().map(|v| of(&v.to_le_bytes())).collect(),
            DataView::F64(values) => values.iter().map(|v| of(&v.to_le_bytes())).collect(),
            _ => {
                let expected = "text or numbers of 32 or 64 bits";
                return Err(RunError::InputType { operator: OPERATOR, expected, found: x.element_type() });
            }
        })
    }
}

impl Kernel for MurmurHash3 {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let hashes = self.hashes(x)?;
        if self.positive {
            cx.reset::<u32>(out, x.dims())?.copy_from_slice(&hashes);
        } else {
            for (out, hash) in cx.reset::<i32>(out, x.dims())?.iter_mut().zip(hashes) {
                *out = hash.cast_signed();
            }
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        let element = if self.positive { ElementType::U32 } else { ElementType::I32 };
        Ok(smallvec![same_shape(inputs, element)])
    }
}

/// `MurmurHash3_x86_32`, by Austin Appleby (public domain).
fn murmur(bytes: &[u8], seed: u32) -> u32 {
    let scramble = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = seed;
    for block in blocks {
        hash = (hash ^ scramble(u32::from_le_bytes(*block))).rotate_left(13);
        hash = hash.wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |last, byte| last << 8 | u32::from(*byte));
        hash ^= scramble(last);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the hash takes the length modulo 2^32")]
    let length = bytes.len() as u32;
    hash ^= length;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Attribute;
    use crate::kernel::ml::common::testing::{one, words};

    #[test]
    fn hashes_are_those_of_the_published_vectors() {
        for (text, seed, hash) in [
            ("", 0, 0),
            ("", 1, 0x514e_28b7),
            ("test", 0, 0xba6b_d213),
            ("Hello, world!", 0, 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0, 0x2e4f_f723),
        ] {
            assert_eq!(murmur(text.as_bytes(), seed), hash, "{text}");
        }
    }

    #[test]
    fn the_sign_is_as_asked_for() {
        let x = || words(&[1], &["test"]);
        let y = one("com.microsoft:MurmurHash3", vec![], x()).unwrap();
        assert_eq!(y.values::<u32>(), Some(&[0xba6b_d213][..]));
        let y = one("com.microsoft:MurmurHash3", vec![("positive", Attribute::Int(0))], x()).unwrap();
        assert_eq!(y.values::<i32>(), Some(&[0xba6b_d213_u32.cast_signed()][..]));
    }
}
