//! Partitioned variables: each part lies in the checkpoint under a key that encodes its extents.

use super::api::{DatumType, EngineTensor};
use super::bundle::{Bundle, Slice};
use super::malformed;
use crate::load::LoadError;

/// The most dimensions of a partitioned variable.
const MAX_RANK: usize = 8;

/// The whole variable of its parts.
pub(super) fn assemble(
    bundle: &mut Bundle<'_>,
    name: &str,
    slices: &[Slice],
    dims: &[usize],
) -> Result<EngineTensor, LoadError> {
    let bad = |what: &str| malformed(format!("the partitioned checkpoint entry `{name}` {what}"));
    if dims.len() > MAX_RANK {
        return Err(bad("has too many dimensions"));
    }
    let mut parts = Vec::new();
    for slice in slices {
        let extents = slice.extents();
        let part = bundle.part(&latin1(&key(name, &extents)))?.engine()?;
        let starts =
            extents.iter().map(|(start, _)| usize::try_from(*start).ok()).collect::<Option<Vec<_>>>();
        let starts = starts.filter(|s| s.len() == dims.len()).ok_or_else(|| bad("has malformed extents"))?;
        parts.push((starts, part));
    }
    let (_, first) = parts.first().ok_or_else(|| bad("has no parts"))?;
    let datum = first.datum_type();
    let stored: usize = parts.iter().map(|(_, part)| part.len()).sum();
    // The parts have to be the whole, so the whole is no larger than the bytes really there.
    if dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)) != Some(stored) || datum == DatumType::String {
        return Err(bad("has parts that do not make the whole"));
    }
    let mut whole = EngineTensor::zero_dt(datum, dims).map_err(|_| bad("has an unsupported type"))?;
    let width = datum.size_of();
    for (starts, part) in &parts {
        let fits = part.datum_type() == datum
            && part.shape().len() == dims.len()
            && starts
                .iter()
                .zip(part.shape())
                .zip(dims)
                .all(|((s, n), d)| s.checked_add(*n).is_some_and(|e| e <= *d));
        if !fits {
            return Err(bad("has a part that lies outside it"));
        }
        copy_part(whole.as_bytes_mut(), dims, part.as_bytes(), part.shape(), starts, width)
            .ok_or_else(|| bad("has a part that lies outside it"))?;
    }
    Ok(whole)
}

/// The part of a variable that a restore operator asks for: `20 4 5,5:-` is five rows from the sixth
/// on of a variable of twenty rows, all four columns of them.
pub(super) fn part(whole: &EngineTensor, wanted: &str) -> Option<EngineTensor> {
    let ranges: Vec<&str> = wanted.rsplit(' ').next()?.split(':').collect();
    if ranges.len() != whole.shape().len() {
        return None;
    }
    let mut part = whole.clone();
    for (axis, range) in ranges.into_iter().enumerate() {
        if range != "-" {
            let (start, length) = range.split_once(',')?;
            let (start, length) = (start.parse::<usize>().ok()?, length.parse::<usize>().ok()?);
            let end = start.checked_add(length)?;
            if end > *part.shape().get(axis)? {
                return None;
            }
            part = part.slice(axis, start, end).ok()?;
        }
    }
    Some(part)
}

/// Every byte as the character of its number: how keys that are no text are kept.
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// Copies the rows of a part to where they lie in the whole.
fn copy_part(
    whole: &mut [u8],
    dims: &[usize],
    part: &[u8],
    shape: &[usize],
    starts: &[usize],
    width: usize,
) -> Option<()> {
    let row = shape.last().copied().unwrap_or(1).checked_mul(width)?;
    if row == 0 {
        return Some(());
    }
    for (index, bytes) in part.chunks_exact(row).enumerate() {
        // The position of the row in the part, as one number, to its position in the whole.
        let (mut rest, mut offset, mut stride) =
            (index, starts.last().copied().unwrap_or(0), dims.last().copied().unwrap_or(1));
        for ((size, dim), start) in shape.iter().zip(dims).zip(starts).rev().skip(1) {
            offset += (start + rest % size) * stride;
            stride *= dim;
            rest /= size;
        }
        let at = offset.checked_mul(width)?;
        whole.get_mut(at..at.checked_add(row)?)?.copy_from_slice(bytes);
    }
    Some(())
}

/// The key of a part, in TensorFlow's order-preserving code: zero, the name, the number of
/// dimensions, then start and length of each (-1 for a whole dimension).
fn key(name: &str, extents: &[(i64, Option<i64>)]) -> Vec<u8> {
    let mut key = vec![0];
    for byte in name.bytes() {
        match byte {
            0x00 => key.extend([0x00, 0xff]),
            0xff => key.extend([0xff, 0x00]),
            byte => key.push(byte),
        }
    }
    key.extend([0x00, 0x01]);
    let rank = u8::try_from(extents.len()).unwrap_or(u8::MAX);
    key.extend(if rank == 0 { vec![0] } else { vec![1, rank] });
    for (start, length) in extents {
        push_signed(&mut key, *start);
        push_signed(&mut key, length.unwrap_or(-1));
    }
    key
}

/// As many bytes as seven bits each need; the number of leading one bits says how many follow, all
/// inverted for a negative number.
fn push_signed(key: &mut Vec<u8>, value: i64) {
    let magnitude = if value < 0 { !value } else { value };
    let bits = 64 - magnitude.leading_zeros() as usize;
    let len = bits / 7 + 1;
    let mut wide = [if value < 0 { 0xff } else { 0 }; 10];
    for (to, from) in wide.iter_mut().skip(2).zip(value.to_be_bytes()) {
        *to = from;
    }
    let header = u16::MAX.checked_shl(16_u32.saturating_sub(u32::try_from(len).unwrap_or(16))).unwrap_or(0);
    let [high, low] = header.to_be_bytes();
    let from = key.len();
    key.extend(wide.iter().skip(10 - len));
    for (byte, mask) in key.iter_mut().skip(from).zip([high, low]) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_parts_are_those_that_tensorflow_writes() {
        // As found in a checkpoint of `tf.compat.v1.get_variable(.., partitioner=..)`.
        let written = key("emb", &[(0, Some(5)), (0, None)]);
        assert_eq!(written, b"\0emb\0\x01\x01\x02\x80\x85\x80\x7f");
        let mut number = Vec::new();
        push_signed(&mut number, 64);
        assert_eq!(number, [0xc0, 0x40]);
        number.clear();
        push_signed(&mut number, 1000);
        assert_eq!(number, [0xc3, 0xe8]);
    }

    #[test]
    fn rows_of_a_part_land_where_they_belong() {
        let mut whole = [0_u8; 6];
        copy_part(&mut whole, &[3, 2], &[7, 8], &[2, 1], &[1, 1], 1).unwrap();
        assert_eq!(whole, [0, 0, 0, 7, 0, 8]);
    }
}
