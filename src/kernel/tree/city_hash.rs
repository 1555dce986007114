//! `CityHash64` of short texts, by which `CatBoost` knows its categories.

const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;
const MUL: u64 = 0x9ddf_ea08_eb38_2d69;

/// The hash that `CatBoost` gives a category that is a whole number: that of its decimal digits.
pub(super) fn category_hash(category: i64) -> u32 {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut left = category.unsigned_abs();
    let minus = category < 0;
    while let Some(digit) = start.checked_sub(1).and_then(|at| digits.get_mut(at)) {
        start -= 1;
        let value = (left % 10) as u8;
        *digit = b'0' + value;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if minus && let Some(sign) = start.checked_sub(1).and_then(|at| digits.get_mut(at)) {
        start -= 1;
        *sign = b'-';
    }
    #[expect(clippy::cast_possible_truncation, reason = "CatBoost keeps the lower half")]
    let hash = hash_up_to_16(digits.get(start..).unwrap_or(&[])) as u32;
    hash
}

/// Version 1.0 of the hash, of at most 16 bytes; whole numbers that an `f32` holds exactly and
/// that are anyone's category have no more.
fn hash_up_to_16(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>())
        && text.len() > 8
    {
        let (a, b) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        let turned = b.wrapping_add(len).rotate_right(u32::try_from(text.len()).unwrap_or(0));
        return mix(a, turned) ^ b;
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let a = u64::from(u32::from_le_bytes(*first));
        return mix(len.wrapping_add(a << 3), u64::from(u32::from_le_bytes(*last)));
    }
    if text.is_empty() {
        return K2;
    }
    let y = u64::from(byte(0)) + (u64::from(byte(text.len() >> 1)) << 8);
    let z = len + (u64::from(byte(text.len() - 1)) << 2);
    let mixed = y.wrapping_mul(K2) ^ z.wrapping_mul(K3);
    (mixed ^ mixed >> 47).wrapping_mul(K2)
}

const fn mix(low: u64, high: u64) -> u64 {
    let a = (low ^ high).wrapping_mul(MUL);
    let a = a ^ a >> 47;
    let b = (high ^ a).wrapping_mul(MUL);
    (b ^ b >> 47).wrapping_mul(MUL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_in_catboost_files() {
        // A model of CatBoost 1.2.10 with string categories has these for "u"; numbers below.
        #[expect(clippy::cast_possible_truncation, reason = "CatBoost keeps the lower half")]
        let of = |text: &[u8]| hash_up_to_16(text) as u32;
        assert_eq!(of(b"u"), 1_981_898_051);
    }

    #[test]
    fn a_whole_number_is_hashed_as_its_digits() {
        for (number, text) in
            [(0, "0"), (7, "7"), (-12, "-12"), (123_456, "123456"), (-1_234_567_890, "-1234567890")]
        {
            #[expect(clippy::cast_possible_truncation, reason = "CatBoost keeps the lower half")]
            let hash = hash_up_to_16(text.as_bytes()) as u32;
            assert_eq!(category_hash(number), hash, "{text}");
        }
    }
}
