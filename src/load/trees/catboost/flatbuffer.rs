//! A reader of `FlatBuffers` messages without a schema compiler: what is in which slot is the caller's
//! knowledge, that every offset stays inside of the bytes is checked here.

use std::cell::Cell;

use super::super::document::Wrong;

/// How many bytes may be read in all, as a multiple of those that are there: parts may be shared,
/// but not so often that the copies get out of hand.
const SHARING: usize = 8;

/// A message.
#[derive(Debug)]
pub(super) struct Message<'a> {
    bytes: &'a [u8],
    left: Cell<usize>,
}

/// A table of a message, by its position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'m, 'a> {
    message: &'m Message<'a>,
    at: usize,
}

impl<'a> Message<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, left: Cell::new(bytes.len().saturating_mul(SHARING)) }
    }

    pub(super) fn root(&self) -> Result<Table<'_, 'a>, Wrong> {
        Ok(Table { message: self, at: self.follow(0)? })
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Wrong> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
        bytes.copied().ok_or_else(|| outside(at))
    }

    fn short(&self, at: usize) -> Result<usize, Wrong> {
        self.array(at).map(|bytes| usize::from(u16::from_le_bytes(bytes)))
    }

    fn long(&self, at: usize) -> Result<usize, Wrong> {
        self.array(at).map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    /// The position that the offset at this one leads to.
    fn follow(&self, at: usize) -> Result<usize, Wrong> {
        at.checked_add(self.long(at)?).filter(|to| *to < self.bytes.len()).ok_or_else(|| outside(at))
    }

    /// The bytes of a vector whose elements are `width` wide.
    fn vector(&self, at: usize, width: usize) -> Result<&'a [u8], Wrong> {
        let start = at.checked_add(4).ok_or_else(|| outside(at))?;
        let length = self.long(at)?.checked_mul(width).ok_or_else(|| outside(at))?;
        let left = self.left.get().checked_sub(length.saturating_add(4)).ok_or_else(|| {
            Wrong::new("not a CatBoost file: its parts are shared more often than they could be")
        })?;
        self.left.set(left);
        let end = start.checked_add(length).ok_or_else(|| outside(at))?;
        self.bytes.get(start..end).ok_or_else(|| outside(at))
    }
}

fn outside(at: usize) -> Wrong {
    Wrong::new(format!("not a CatBoost file: the offset at byte {at} leads out of the message"))
}

impl<'m, 'a> Table<'m, 'a> {
    /// Where the value of a slot is, `None` where it was left out.
    fn slot(&self, slot: usize) -> Result<Option<usize>, Wrong> {
        let back = i64::from(i32::from_le_bytes(self.message.array(self.at)?));
        let layout = i64::try_from(self.at).ok().and_then(|at| usize::try_from(at - back).ok());
        let layout = layout.ok_or_else(|| outside(self.at))?;
        let entry = 4 + 2 * slot;
        if entry + 2 > self.message.short(layout)? {
            return Ok(None);
        }
        Ok(match self.message.short(layout + entry)? {
            0 => None,
            offset => Some(self.at + offset),
        })
    }

    fn scalar<const N: usize, T>(&self, slot: usize, default: T, read: fn([u8; N]) -> T) -> Result<T, Wrong> {
        match self.slot(slot)? {
            Some(at) => self.message.array(at).map(read),
            None => Ok(default),
        }
    }

    pub(super) fn byte(&self, slot: usize) -> Result<u8, Wrong> {
        self.scalar(slot, 0, |[byte]| byte)
    }

    pub(super) fn int(&self, slot: usize, default: i32) -> Result<i32, Wrong> {
        self.scalar(slot, default, i32::from_le_bytes)
    }

    pub(super) fn float(&self, slot: usize, default: f32) -> Result<f32, Wrong> {
        self.scalar(slot, default, f32::from_le_bytes)
    }

    pub(super) fn double(&self, slot: usize, default: f64) -> Result<f64, Wrong> {
        self.scalar(slot, default, f64::from_le_bytes)
    }

    pub(super) fn table(&self, slot: usize) -> Result<Option<Self>, Wrong> {
        let at = self.slot(slot)?.map(|at| self.message.follow(at)).transpose()?;
        Ok(at.map(|at| Self { at, ..*self }))
    }

    /// The bytes of a vector of elements of `N` bytes, one array each; none where it was left out.
    pub(super) fn elements<const N: usize>(&self, slot: usize) -> Result<&'a [[u8; N]], Wrong> {
        let Some(at) = self.slot(slot)? else { return Ok(&[]) };
        let bytes = self.message.vector(self.message.follow(at)?, N)?;
        Ok(bytes.as_chunks::<N>().0)
    }

    pub(super) fn tables(&self, slot: usize) -> Result<Vec<Self>, Wrong> {
        let Some(at) = self.slot(slot)? else { return Ok(Vec::new()) };
        let start = self.message.follow(at)?;
        let count = self.message.vector(start, 4)?.len() / 4;
        let table = |number: usize| Ok(Self { at: self.message.follow(start + 4 + 4 * number)?, ..*self });
        (0..count).map(table).collect()
    }

    pub(super) fn text(&self, slot: usize) -> Result<&'a str, Wrong> {
        std::str::from_utf8(self.elements::<1>(slot)?.as_flattened())
            .map_err(|_| Wrong::new("not a CatBoost file: expected text in UTF-8"))
    }

    pub(super) fn ints(&self, slot: usize) -> Result<impl Iterator<Item = i32> + use<'a>, Wrong> {
        Ok(self.elements(slot)?.iter().copied().map(i32::from_le_bytes))
    }

    pub(super) fn floats(&self, slot: usize) -> Result<impl Iterator<Item = f32> + use<'a>, Wrong> {
        Ok(self.elements(slot)?.iter().copied().map(f32::from_le_bytes))
    }

    pub(super) fn doubles(&self, slot: usize) -> Result<impl Iterator<Item = f64> + use<'a>, Wrong> {
        Ok(self.elements(slot)?.iter().copied().map(f64::from_le_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of an int and a vector of two ints; its layout stands in front of it.
    const MESSAGE: [u8; 36] = [
        12, 0, 0, 0, // root
        8, 0, 12, 0, 4, 0, 8, 0, // layout: two slots
        8, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, // table: back to the layout, 7, offset of the vector
        2, 0, 0, 0, 1, 0, 0, 0, 254, 255, 255, 255,
    ];

    #[test]
    fn slots_are_found_and_missing_ones_have_defaults() {
        let message = Message::new(&MESSAGE);
        let root = message.root().unwrap();
        assert_eq!(root.int(0, 0).unwrap(), 7);
        assert_eq!(root.ints(1).unwrap().collect::<Vec<_>>(), [1, -2]);
        assert_eq!(root.int(2, 5).unwrap(), 5);
        assert_eq!(root.ints(2).unwrap().count(), 0);
    }

    #[test]
    fn no_offset_leads_out_of_the_bytes() {
        for at in 0..MESSAGE.len() {
            for value in [0, 1, 4, 127, 255] {
                let mut bytes = MESSAGE;
                bytes[at] = value;
                let message = Message::new(&bytes);
                let read = |table: Table<'_, '_>| {
                    table.int(0, 0)?;
                    table.tables(1)?;
                    table.ints(1).map(Iterator::count)
                };
                drop(message.root().and_then(read));
            }
        }
    }

    #[test]
    fn what_is_shared_without_end_is_refused() {
        let message = Message::new(&MESSAGE);
        let root = message.root().unwrap();
        assert!((0..1000).any(|_| root.ints(1).is_err()));
    }
}
