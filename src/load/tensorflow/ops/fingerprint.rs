//! `FarmHash`'s `Fingerprint64`: how `TensorFlow` sorts strings into buckets. Fixed for all time, because
//! models depend on it.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;

/// The fingerprint of these bytes.
pub(super) fn fingerprint64(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0..=16 => up_to_16(bytes),
        17..=32 => up_to_32(bytes),
        33..=64 => up_to_64(bytes),
        _ => longer(bytes),
    }
}

/// The little-endian number at a place; callers stay inside.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn half_word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from(u32::from_le_bytes(*b)))
}

fn mul_of(bytes: &[u8]) -> u64 {
    K2.wrapping_add((bytes.len() as u64).wrapping_mul(2))
}

const fn mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

const fn join(u: u64, v: u64, mul: u64) -> u64 {
    let a = mix((u ^ v).wrapping_mul(mul));
    mix((v ^ a).wrapping_mul(mul)).wrapping_mul(mul)
}

/// A sum that wraps.
fn sum(terms: &[u64]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.wrapping_add(*term))
}

fn up_to_16(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let mul = mul_of(bytes);
    if len >= 8 {
        let a = word(bytes, 0).wrapping_add(K2);
        let b = word(bytes, len - 8);
        let c = b.rotate_right(37).wrapping_mul(mul).wrapping_add(a);
        let d = a.rotate_right(25).wrapping_add(b).wrapping_mul(mul);
        return join(c, d, mul);
    }
    if len >= 4 {
        let a = half_word(bytes, 0);
        return join((len as u64).wrapping_add(a << 3), half_word(bytes, len - 4), mul);
    }
    let (Some(first), Some(middle), Some(last)) = (bytes.first(), bytes.get(len / 2), bytes.last()) else {
        return K2;
    };
    let y = u64::from(*first) + (u64::from(*middle) << 8);
    let z = len as u64 + (u64::from(*last) << 2);
    mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
}

fn up_to_32(bytes: &[u8]) -> u64 {
    let (len, mul) = (bytes.len(), mul_of(bytes));
    let a = word(bytes, 0).wrapping_mul(K1);
    let b = word(bytes, 8);
    let c = word(bytes, len - 8).wrapping_mul(mul);
    let d = word(bytes, len - 16).wrapping_mul(K2);
    join(
        sum(&[a.wrapping_add(b).rotate_right(43), c.rotate_right(30), d]),
        sum(&[a, b.wrapping_add(K2).rotate_right(18), c]),
        mul,
    )
}

fn up_to_64(bytes: &[u8]) -> u64 {
    let (len, mul) = (bytes.len(), mul_of(bytes));
    let a = word(bytes, 0).wrapping_mul(K2);
    let b = word(bytes, 8);
    let c = word(bytes, len - 8).wrapping_mul(mul);
    let d = word(bytes, len - 16).wrapping_mul(K2);
    let y = sum(&[a.wrapping_add(b).rotate_right(43), c.rotate_right(30), d]);
    let z = join(y, sum(&[a, b.wrapping_add(K2).rotate_right(18), c]), mul);
    let e = word(bytes, 16).wrapping_mul(mul);
    let f = word(bytes, 24);
    let g = y.wrapping_add(word(bytes, len - 32)).wrapping_mul(mul);
    let h = z.wrapping_add(word(bytes, len - 24)).wrapping_mul(mul);
    join(
        sum(&[e.wrapping_add(f).rotate_right(43), g.rotate_right(30), h]),
        sum(&[e, f.wrapping_add(a).rotate_right(18), g]),
        mul,
    )
}

/// Fifty-six bytes of state for each sixty-four of input.
struct State {
    x: u64,
    y: u64,
    z: u64,
    v: (u64, u64),
    w: (u64, u64),
}

impl State {
    /// Takes in sixty-four bytes; the last ones weigh in by another factor.
    fn take(&mut self, s: &[u8], mul: u64, weight: u64) {
        self.x = sum(&[self.x, self.y, self.v.0, word(s, 8)]).rotate_right(37).wrapping_mul(mul);
        self.y = sum(&[self.y, self.v.1, word(s, 48)]).rotate_right(42).wrapping_mul(mul);
        self.x ^= self.w.1.wrapping_mul(weight);
        self.y = sum(&[self.y, self.v.0.wrapping_mul(weight), word(s, 40)]);
        self.z = self.z.wrapping_add(self.w.0).rotate_right(33).wrapping_mul(mul);
        self.v = weak(s, 0, self.v.1.wrapping_mul(mul), self.x.wrapping_add(self.w.0));
        self.w = weak(s, 32, self.z.wrapping_add(self.w.1), self.y.wrapping_add(word(s, 16)));
        std::mem::swap(&mut self.z, &mut self.x);
    }
}

fn longer(bytes: &[u8]) -> u64 {
    const SEED: u64 = 81;
    let y = SEED.wrapping_mul(K1).wrapping_add(113);
    let mut state = State {
        x: SEED.wrapping_mul(K2).wrapping_add(word(bytes, 0)),
        y,
        z: mix(y.wrapping_mul(K2).wrapping_add(113)).wrapping_mul(K2),
        v: (0, 0),
        w: (0, 0),
    };
    let rest = (bytes.len() - 1) % 64;
    let whole = bytes.len() - 1 - rest;
    for block in bytes.get(..whole).unwrap_or(&[]).chunks_exact(64) {
        state.take(block, K1, 1);
    }
    let mul = K1.wrapping_add((state.z & 0xff) << 1);
    state.w.0 = state.w.0.wrapping_add(rest as u64);
    state.v.0 = state.v.0.wrapping_add(state.w.0);
    state.w.0 = state.w.0.wrapping_add(state.v.0);
    state.take(bytes.get(bytes.len() - 64..).unwrap_or(&[]), mul, 9);
    let State { x, y, z, v, w } = state;
    join(sum(&[join(v.0, w.0, mul), mix(y).wrapping_mul(K0), z]), sum(&[join(v.1, w.1, mul), x]), mul)
}

fn weak(s: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    let (w, x, y, z) = (word(s, at), word(s, at + 8), word(s, at + 16), word(s, at + 24));
    let a = a.wrapping_add(w);
    let b = sum(&[b, a, z]).rotate_right(21);
    let c = a;
    let a = sum(&[a, x, y]);
    (a.wrapping_add(z), sum(&[b, a.rotate_right(44), c]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `tf.strings.to_hash_bucket_fast(word, 2**63 - 1)`.
    #[test]
    fn buckets_are_those_of_tensorflow() {
        for (length, bucket) in BUCKETS {
            let word: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
            assert_eq!(fingerprint64(&word) % (i64::MAX as u64), bucket, "{length} bytes");
        }
    }

    const BUCKETS: [(usize, u64); 12] = [
        (0, 1_936_946_117_179_621_456),
        (1, 3_694_432_073_954_588_132),
        (3, 2_640_714_258_260_161_385),
        (4, 1_897_425_971_756_105_985),
        (7, 4_341_691_227_789_030_229),
        (8, 9_145_071_594_317_031_690),
        (16, 6_080_716_761_534_418_621),
        (17, 2_171_023_947_900_359_593),
        (32, 9_193_738_709_215_163_803),
        (33, 2_004_761_416_539_416_594),
        (64, 2_038_540_033_609_931_771),
        (65, 2_608_948_203_458_330_154),
    ];
}
