//! `CityHash64` as `CatBoost` has it (version 1.0 of the hash, with its four constants), by which a
//! model knows its categories.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;
const K3: u64 = 0xc949_d7c7_509e_6557;
const MUL: u64 = 0x9ddf_ea08_eb38_2d69;

/// The hash that `CatBoost` gives a category: the lower half of its text's.
#[expect(clippy::cast_possible_truncation, reason = "CatBoost keeps the lower half")]
pub(super) fn text_hash(text: &[u8]) -> u32 {
    city_hash(text) as u32
}

/// The hash of a category that is a whole number: that of its decimal digits.
pub(super) fn number_hash(category: i64) -> u32 {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut left = category.unsigned_abs();
    while let Some(digit) = start.checked_sub(1).and_then(|at| digits.get_mut(at)) {
        start -= 1;
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if category < 0
        && let Some(sign) = start.checked_sub(1).and_then(|at| digits.get_mut(at))
    {
        start -= 1;
        *sign = b'-';
    }
    text_hash(digits.get(start..).unwrap_or(&[]))
}

fn city_hash(text: &[u8]) -> u64 {
    match text.len() {
        0..=16 => up_to_16(text),
        17..=32 => up_to_32(text),
        33..=64 => up_to_64(text),
        _ => long(text),
    }
}

/// Eight bytes from `at` on; the callers stay inside of the text.
fn word(text: &[u8], at: usize) -> u64 {
    text.get(at..).and_then(|rest| rest.first_chunk::<8>()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The last eight bytes but `before`.
fn word_from_end(text: &[u8], before: usize) -> u64 {
    word(text, text.len().saturating_sub(before))
}

fn up_to_16(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    if text.len() > 8 {
        let (a, b) = (word(text, 0), word_from_end(text, 8));
        return mix(a, b.wrapping_add(len).rotate_right(u32::try_from(text.len()).unwrap_or(0))) ^ b;
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
    shift_mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K3)).wrapping_mul(K2)
}

fn up_to_32(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    let a = word(text, 0).wrapping_mul(K1);
    let b = word(text, 8);
    let c = word_from_end(text, 8).wrapping_mul(K2);
    let d = word_from_end(text, 16).wrapping_mul(K0);
    let low = a.wrapping_sub(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let high = a.wrapping_add((b ^ K3).rotate_right(20)).wrapping_sub(c).wrapping_add(len);
    mix(low, high)
}

fn up_to_64(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    let half = |mut a: u64, next: [u64; 3]| {
        let [one, two, z] = next;
        let b = a.wrapping_add(z).rotate_right(52);
        let mut c = a.rotate_right(37);
        a = a.wrapping_add(one);
        c = c.wrapping_add(a.rotate_right(7));
        a = a.wrapping_add(two);
        (a.wrapping_add(z), b.wrapping_add(a.rotate_right(31)).wrapping_add(c))
    };
    let start = word_from_end(text, 16).wrapping_add(len).wrapping_mul(K0).wrapping_add(word(text, 0));
    let (vf, vs) = half(start, [word(text, 8), word(text, 16), word(text, 24)]);
    let start = word(text, 16).wrapping_add(word_from_end(text, 32));
    let (wf, ws) = half(start, [24, 16, 8].map(|before| word_from_end(text, before)));
    let both = vf.wrapping_add(ws).wrapping_mul(K2).wrapping_add(wf.wrapping_add(vs).wrapping_mul(K0));
    shift_mix(shift_mix(both).wrapping_mul(K0).wrapping_add(vs)).wrapping_mul(K2)
}

fn long(text: &[u8]) -> u64 {
    let len = text.len() as u64;
    let mut x = word(text, 0);
    let mut y = word_from_end(text, 16) ^ K1;
    let mut z = word_from_end(text, 56) ^ K0;
    let mut v = weak(text, text.len().saturating_sub(64), len, y);
    let mut w = weak(text, text.len().saturating_sub(32), len.wrapping_mul(K1), K0);
    z = z.wrapping_add(shift_mix(v.1).wrapping_mul(K1));
    x = z.wrapping_add(x).rotate_right(39).wrapping_mul(K1);
    y = y.rotate_right(33).wrapping_mul(K1);
    // All whole blocks; the last bytes are in what was taken from the end.
    for at in (0..(text.len() - 1) / 64).map(|block| block * 64) {
        x = x.wrapping_add(y).wrapping_add(v.0).wrapping_add(word(text, at + 16));
        x = x.rotate_right(37).wrapping_mul(K1);
        y = y.wrapping_add(v.1).wrapping_add(word(text, at + 48)).rotate_right(42).wrapping_mul(K1);
        x ^= w.1;
        y ^= v.0;
        z = (z ^ w.0).rotate_right(33);
        v = weak(text, at, v.1.wrapping_mul(K1), x.wrapping_add(w.0));
        w = weak(text, at + 32, z.wrapping_add(w.1), y);
        std::mem::swap(&mut z, &mut x);
    }
    let low = mix(v.0, w.0).wrapping_add(shift_mix(y).wrapping_mul(K1)).wrapping_add(z);
    mix(low, mix(v.1, w.1).wrapping_add(x))
}

/// A quick hash of 32 bytes from `at` on, with two seeds.
fn weak(text: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    let [first, second, third, fourth] = [0, 8, 16, 24].map(|offset| word(text, at + offset));
    let a = a.wrapping_add(first);
    let b = b.wrapping_add(a).wrapping_add(fourth).rotate_right(21);
    let sum = a.wrapping_add(second).wrapping_add(third);
    (sum.wrapping_add(fourth), b.wrapping_add(sum.rotate_right(44)).wrapping_add(a))
}

const fn shift_mix(value: u64) -> u64 {
    value ^ value >> 47
}

const fn mix(low: u64, high: u64) -> u64 {
    let a = shift_mix((low ^ high).wrapping_mul(MUL));
    shift_mix((high ^ a).wrapping_mul(MUL)).wrapping_mul(MUL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_in_catboost_files() {
        // What CatBoost 1.2.10 writes as `cat_features_hash`, for a text of each class of length.
        let alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_".repeat(4);
        for (length, hash) in [
            (0, 797_982_799),
            (3, 978_243_121),
            (4, 345_588_365),
            (8, 4_270_775_063),
            (9, 3_019_552_977),
            (16, 2_150_978_241),
            (17, 322_581_478),
            (32, 3_173_515_590),
            (33, 3_079_869_390),
            (64, 506_297_090),
            (65, 1_842_203_129),
            (128, 2_843_785_082),
            (129, 2_026_101_176),
            (200, 1_581_270_047),
        ] {
            assert_eq!(text_hash(&alphabet.as_bytes()[..length]), hash, "{length} bytes");
        }
        assert_eq!(text_hash("東京".as_bytes()), 991_853_845);
    }

    #[test]
    fn a_whole_number_is_hashed_as_its_digits() {
        for number in [0, 7, -12, 123_456, -1_234_567_890] {
            assert_eq!(number_hash(number), text_hash(number.to_string().as_bytes()), "{number}");
        }
    }
}
