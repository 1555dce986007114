//! The index of a checkpoint: a sorted table in LevelDB's file format.
//!
//! The file ends in a footer that locates the index block; its entries locate the data blocks. A
//! block is a run of entries whose keys share prefixes, then a type byte and a masked CRC32C.
//! TensorFlow writes blocks uncompressed.

#![allow(clippy::type_complexity, reason = "keys with their values")]

use super::malformed;
use crate::load::LoadError;

const FOOTER: usize = 48;
const MAGIC: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();
/// After each block: its type and its checksum.
const TRAILER: usize = 5;
const MAX_ENTRIES: usize = 1 << 20;
/// The most bytes that an index may take once its keys are whole.
const MAX_BYTES: usize = 256 << 20;
/// What an entry takes beside key and value.
const ENTRY: usize = 2 * size_of::<Vec<u8>>();

/// All keys and values of a table, in order.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, LoadError> {
    let footer = bytes.len().checked_sub(FOOTER).and_then(|at| bytes.get(at..));
    let footer = footer.ok_or_else(|| bad("is too short"))?;
    if !footer.ends_with(&MAGIC) {
        return Err(bad("does not end in the magic number of a table"));
    }
    let mut cursor = Cursor { bytes: footer };
    let (meta, index) = (cursor.handle()?, cursor.handle()?);
    // Nothing in it is needed, but a file that was damaged there is damaged.
    let mut room = MAX_BYTES;
    block(bytes, meta, &mut room)?;
    let mut entries = Vec::new();
    let mut read = 0_usize;
    for (_, handle) in block(bytes, index, &mut room)? {
        let handle = Cursor { bytes: &handle }.handle()?;
        // Blocks that overlap could otherwise say the same bytes again and again.
        read = read.saturating_add(handle.1);
        if read > bytes.len() || entries.len() > MAX_ENTRIES {
            return Err(bad("lists more blocks than it has"));
        }
        entries.extend(block(bytes, handle, &mut room)?);
    }
    Ok(entries)
}

/// The value of a base-128 number at the front of `bytes`, which is moved past it.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The checksum as LevelDB stores it: rotated and shifted, so that a checksum of data that holds
/// checksums stays good.
pub(super) const fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn number(&mut self) -> Result<usize, LoadError> {
        let value = varint(&mut self.bytes).ok_or_else(|| bad("ends inside a number"))?;
        usize::try_from(value).map_err(|_| bad("has a number that is too large"))
    }

    /// Offset and size of a block.
    fn handle(&mut self) -> Result<(usize, usize), LoadError> {
        Ok((self.number()?, self.number()?))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], LoadError> {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or_else(|| bad("ends inside an entry"))?;
        self.bytes = rest;
        Ok(taken)
    }
}

/// The entries of a block; `room` is what all keys and values may still take.
fn block(
    bytes: &[u8],
    (offset, size): (usize, usize),
    room: &mut usize,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>, LoadError> {
    let end = offset.checked_add(size).and_then(|e| e.checked_add(TRAILER));
    let whole = end.and_then(|end| bytes.get(offset..end)).ok_or_else(|| bad("is truncated"))?;
    let (checked, crc) = whole.split_at(whole.len().saturating_sub(4));
    if mask(crc32c::crc32c(checked)).to_le_bytes() != crc {
        return Err(bad(&format!("has a wrong checksum in the block at {offset}")));
    }
    let (content, kind) = checked.split_at(size);
    if kind != [0] {
        return Err(bad("has compressed blocks, which TensorFlow does not write"));
    }
    let restarts = content.last_chunk::<4>().map(|n| u32::from_le_bytes(*n) as usize);
    let end = restarts
        .and_then(|n| n.checked_mul(4)?.checked_add(4))
        .and_then(|tail| content.len().checked_sub(tail))
        .and_then(|end| content.get(..end))
        .ok_or_else(|| bad("has a malformed block"))?;
    let mut cursor = Cursor { bytes: end };
    let mut key: Vec<u8> = Vec::new();
    let mut entries = Vec::new();
    while !cursor.bytes.is_empty() {
        let (shared, own, value) = (cursor.number()?, cursor.number()?, cursor.number()?);
        if shared > key.len() {
            return Err(bad("has a key that shares more than there is"));
        }
        key.truncate(shared);
        key.extend_from_slice(cursor.take(own)?);
        if key.len() > 1 << 16 {
            return Err(bad("has a key of more than 64 KiB"));
        }
        // A key that shares all but a byte with the one before is there in full all the same.
        *room = room
            .checked_sub(key.len().saturating_add(value).saturating_add(ENTRY))
            .ok_or_else(|| bad(&format!("takes more than {MAX_BYTES} bytes when it is read")))?;
        entries.push((key.clone(), cursor.take(value)?.to_vec()));
    }
    Ok(entries)
}

fn bad(what: &str) -> LoadError {
    malformed(format!("the checkpoint index {what}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A table of these entries, `per_block` in each data block.
    pub(in crate::load::tensorflow) fn write(entries: &[(&[u8], Vec<u8>)], per_block: usize) -> Vec<u8> {
        let mut file = Vec::new();
        let mut index: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for chunk in entries.chunks(per_block) {
            let chunk: Vec<_> = chunk.iter().map(|(k, v)| (k.to_vec(), v.clone())).collect();
            let handle = push_block(&mut file, &chunk);
            index.push((chunk.last().unwrap().0.clone(), handle));
        }
        let meta = push_block(&mut file, &[]);
        let index = push_block(&mut file, &index);
        let mut footer: Vec<u8> = [meta, index].concat();
        footer.resize(FOOTER - 8, 0);
        file.extend(footer);
        file.extend(MAGIC);
        file
    }

    fn push_block(file: &mut Vec<u8>, entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let offset = file.len();
        let mut block = Vec::new();
        let mut last: &[u8] = &[];
        for (key, value) in entries {
            let shared = key.iter().zip(last).take_while(|(a, b)| a == b).count();
            for n in [shared, key.len() - shared, value.len()] {
                push_varint(&mut block, n as u64);
            }
            block.extend(&key[shared..]);
            block.extend(value);
            last = key;
        }
        block.extend([0; 4]);
        block.extend(1_u32.to_le_bytes());
        let size = block.len();
        block.push(0);
        let crc = mask(crc32c::crc32c(&block));
        file.extend(block);
        file.extend(crc.to_le_bytes());
        let mut handle = Vec::new();
        push_varint(&mut handle, offset as u64);
        push_varint(&mut handle, size as u64);
        handle
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low seven bits are meant")]
    fn push_varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn sample() -> Vec<(&'static [u8], Vec<u8>)> {
        vec![(b"", vec![1]), (b"layer/bias", vec![2; 200]), (b"layer/kernel", vec![3]), (b"z", vec![])]
    }

    #[test]
    fn keys_that_share_prefixes_across_several_blocks_are_read() {
        let entries = read(&write(&sample(), 3)).unwrap();
        let expected: Vec<_> = sample().into_iter().map(|(k, v)| (k.to_vec(), v)).collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn every_flipped_byte_of_a_block_is_noticed() {
        let good = write(&sample(), 2);
        for at in 0..good.len() - FOOTER {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            assert!(read(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_truncated_table_is_refused() {
        let good = write(&sample(), 2);
        assert!((0..good.len()).all(|n| read(&good[..n]).is_err()));
    }
}
