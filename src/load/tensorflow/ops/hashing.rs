//! Strings and numbers into buckets, alone and crossed.

use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, TValue, TractResult, TypedFact, bail,
    tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::{Computed, room_for};
use super::fingerprint::fingerprint64;
use super::ragged::{integers, size};
use super::wiring::{Wired, Wiring, first, invalid};
use super::{Handler, WiringError};

/// The seed of the oldest of the hash functions.
const SEED: u64 = 0xde_cafc_affe;
/// The multiplier of `MurmurHash64A`.
const MURMUR: u64 = 0xc6a4_a793_5bd1_e995;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "StringToHashBucketFast" => |w, n, i| buckets(w, n, first(i)?, fingerprint64),
        "StringToHashBucket" => |w, n, i| buckets(w, n, first(i)?, murmur64),
        "StringToHashBucketStrong" => |w, n, i| {
            let key = n.attributes.ints("key").unwrap_or_default();
            let &[low, high] = key else { return Err(invalid("the key has to be two numbers")) };
            buckets(w, n, first(i)?, move |bytes| sip(low.cast_unsigned(), high.cast_unsigned(), bytes))
        },
        "SparseCross" => cross,
        _ => return None,
    })
}

fn buckets(
    w: &mut Wiring<'_>,
    node: &Node,
    x: OutletId,
    hash: impl Fn(&[u8]) -> u64 + Send + Sync + 'static,
) -> Wired {
    let buckets = node.attributes.int("num_buckets").and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let buckets = buckets.ok_or(WiringError::Unsupported)?;
    let fact = TypedFact::dt_shape(i64::datum_type(), &*w.dims(x)?);
    let op = Computed::giving("StringToHashBucket", tvec!(fact), move |values| {
        let [x] = values else { bail!("one input expected") };
        let words = x.to_plain_array_view::<String>()?;
        let buckets = words.map(|s| i64::try_from(hash(s.as_bytes()) % buckets).unwrap_or(0));
        Ok(tvec!(EngineTensor::from(buckets).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

/// `SipHash-2-4` under a key.
#[allow(deprecated, reason = "the one of the standard library that takes a key; it is not the default")]
fn sip(low: u64, high: u64, bytes: &[u8]) -> u64 {
    use std::hash::Hasher;
    let mut hasher = std::hash::SipHasher::new_with_keys(low, high);
    hasher.write(bytes);
    hasher.finish()
}

fn murmur64(bytes: &[u8]) -> u64 {
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MURMUR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word).wrapping_mul(MURMUR);
        hash = (hash ^ (word ^ (word >> 47)).wrapping_mul(MURMUR)).wrapping_mul(MURMUR);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ last).wrapping_mul(MURMUR);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(MURMUR);
    hash ^ (hash >> 47)
}

/// Two fingerprints as one.
const fn joined(first: u64, second: u64) -> u64 {
    const fn mix(value: u64) -> u64 {
        value ^ (value >> 47)
    }
    let mut out = first ^ MURMUR;
    out ^= mix(second.wrapping_mul(MURMUR)).wrapping_mul(MURMUR);
    out = out.wrapping_mul(MURMUR);
    mix(mix(out).wrapping_mul(MURMUR))
}

/// Each combination of the features of a row, as a bucket.
fn cross(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let attributes = &node.attributes;
    let sparse = attributes.int("N").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let buckets = attributes.int("num_buckets").and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let seed = attributes.int("hash_key").unwrap_or(0).cast_unsigned();
    if !attributes.bool("hashed_output").unwrap_or(false) || inputs.len() < 3 * sparse {
        return Err(WiringError::Unsupported);
    }
    let given = inputs.iter().map(|i| w.plain(*i)).collect::<Result<Vec<_>, _>>()?;
    // The number of rows is that of any of the dense features, or is stated of the first sparse one.
    let rows = match (inputs.get(3 * sparse), inputs.get(2 * sparse)) {
        (Some(dense), _) => w.dim(*dense, 0)?,
        (None, Some(shape)) => w.sizes(*shape)?.first().cloned().ok_or(WiringError::Unsupported)?,
        (None, None) => return Err(WiringError::Unsupported),
    };
    let (count, widest) = (w.open_size(), w.open_size());
    let facts = tvec!(
        TypedFact::dt_shape(i64::datum_type(), &[count.clone(), 2.into()][..]),
        TypedFact::dt_shape(i64::datum_type(), std::slice::from_ref(&count)),
        Wiring::witness_fact(std::slice::from_ref(&widest)),
    );
    let budget = w.budget();
    let op = Computed::giving("SparseCross", facts, move |values| {
        let columns = columns(values, sparse, budget)?;
        let rows = columns.iter().map(Vec::len).max().unwrap_or(0);
        let (mut places, mut found, mut widest) = (Vec::new(), Vec::new(), 0);
        for row in 0..rows {
            let features = |c: &Vec<Vec<u64>>| c.get(row).cloned().unwrap_or_default();
            let hashes = combined(&columns.iter().map(features).collect::<Vec<_>>(), seed, budget)?;
            // Two places and a bucket each.
            room_for(&[found.len() + hashes.len()], 3 * size_of::<i64>(), budget)?;
            widest = widest.max(hashes.len());
            for (at, hash) in (0_i64..).zip(hashes) {
                places.extend([i64::try_from(row)?, at]);
                let bucket = if buckets > 0 { hash % buckets } else { hash & (u64::MAX >> 1) };
                found.push(bucket.cast_signed());
            }
        }
        let places = tract_ndarray::ArrayD::from_shape_vec(vec![found.len(), 2], places)?;
        Ok(tvec!(
            EngineTensor::from(places).into_tvalue(),
            EngineTensor::from(tract_ndarray::arr1(&found).into_dyn()).into_tvalue(),
            Wiring::witness(&[widest])?.into_tvalue(),
        ))
    });
    let out = w.all(op, &given)?;
    let shape = w.dims_tensor(&[rows, widest])?;
    let mut out = out;
    out.truncate(2);
    out.push(shape);
    Ok(out)
}

/// The features of each column by row, as numbers: a string is its fingerprint.
fn columns(values: &[TValue], sparse: usize, budget: u64) -> TractResult<Vec<Vec<Vec<u64>>>> {
    let mut columns = Vec::new();
    for column in 0..sparse {
        let part = |kind: usize| values.get(kind * sparse + column);
        let (Some(places), Some(entries), Some(shape)) = (part(0), part(1), part(2)) else {
            bail!("a feature is missing")
        };
        let rows = size(integers(shape)?.first().copied().unwrap_or(0))?;
        let mut by_row = vec![Vec::new(); room_for(&[rows], size_of::<Vec<u64>>(), budget)?];
        let places = integers(places)?;
        for (place, entry) in places.chunks(2).zip(features(entries)?) {
            let row = super::sparse::flat(place.get(..1).unwrap_or_default(), &[rows])?;
            by_row.get_mut(row).into_iter().for_each(|row| row.push(entry));
        }
        columns.push(by_row);
    }
    for dense in values.iter().skip(3 * sparse) {
        let width = dense.shape().get(1).copied().unwrap_or(1).max(1);
        columns.push(features(dense)?.chunks(width).map(<[u64]>::to_vec).collect());
    }
    Ok(columns)
}

fn features(x: &TValue) -> TractResult<Vec<u64>> {
    if x.datum_type() == DatumType::String {
        let plain = x.try_as_plain_ram()?;
        return Ok(plain.as_slice::<String>()?.iter().map(|s| fingerprint64(s.as_bytes())).collect());
    }
    Ok(integers(x)?.into_iter().map(i64::cast_unsigned).collect())
}

/// The fingerprint of every combination of one feature of each column, the last changing fastest.
fn combined(columns: &[Vec<u64>], seed: u64, budget: u64) -> TractResult<Vec<u64>> {
    let mut hashes = vec![seed];
    for column in columns {
        room_for(&[hashes.len(), column.len()], size_of::<u64>(), budget)?;
        hashes = hashes.iter().flat_map(|hash| column.iter().map(|f| joined(*hash, *f))).collect();
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorFlow 2.21 says of these strings with 2^40 buckets.
    const WORDS: [&str; 3] = ["abc", "", "a longer text of more than sixteen bytes"];

    #[test]
    fn strings_fall_into_the_buckets_of_tensorflow() {
        // tf.strings.to_hash_bucket_strong(words, 2**40, [1, 2])
        let strong = WORDS.map(|word| sip(1, 2, word.as_bytes()) % (1 << 40));
        assert_eq!(strong, [391_520_530_845, 231_421_486_971, 1_046_645_524_618]);
        // tf.compat.v1.string_to_hash_bucket(words, 2**40)
        let oldest = WORDS.map(|word| murmur64(word.as_bytes()) % (1 << 40));
        assert_eq!(oldest, [559_149_780_406, 142_163_811_899, 805_759_986_613]);
    }

    #[test]
    fn a_crossed_pair_is_the_bucket_of_tensorflow() {
        // tf.sparse.cross_hashed([[["abc"]], [[7]]], 2**40)
        let crossed = combined(&[vec![fingerprint64(b"abc")], vec![7]], 0xde_cafc_affe, 1 << 10).unwrap();
        assert_eq!(crossed.iter().map(|hash| hash % (1 << 40)).collect::<Vec<_>>(), [803_095_263_880]);
    }
}
