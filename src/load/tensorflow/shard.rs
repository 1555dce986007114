//! A file of a checkpoint's values, let go of piece by piece as its entries are read.

use bytes::Bytes;

use crate::load::Payload;

/// The pieces of the file, each kept as long as an entry in it is to be read.
#[derive(Default)]
pub(super) struct Shard {
    pieces: Vec<Piece>,
    len: usize,
}

struct Piece {
    start: usize,
    bytes: Bytes,
    /// How many entries that are to be read lie in it.
    wanted: usize,
}

impl Shard {
    /// The file, and from where to where its entries lie.
    pub(super) fn new(file: Payload, entries: impl Iterator<Item = (usize, usize)>) -> Self {
        let len = file.len();
        let mut pieces = Vec::new();
        let mut start = 0;
        for bytes in file.chunks() {
            pieces.push(Piece { start, bytes: bytes.clone(), wanted: 0 });
            start += bytes.len();
        }
        drop(file);
        let mut shard = Self { pieces, len };
        // How many begin in each piece, and how many have ended before it.
        let mut changes = vec![(0_usize, 0_usize); shard.pieces.len() + 1];
        for (start, end) in entries.filter(|(start, end)| start < end && *end <= len) {
            changes.get_mut(shard.piece_at(start)).into_iter().for_each(|c| c.0 += 1);
            changes.get_mut(shard.piece_at(end - 1) + 1).into_iter().for_each(|c| c.1 += 1);
        }
        let mut open = 0_usize;
        for (piece, (begun, ended)) in shard.pieces.iter_mut().zip(changes) {
            open = (open + begun).saturating_sub(ended);
            piece.wanted = open;
            if open == 0 {
                piece.bytes = Bytes::new();
            }
        }
        shard
    }

    /// The bytes of an entry, which is not read again; `None` where it lies outside the file or was none.
    pub(super) fn take(&mut self, start: usize, end: usize) -> Option<Payload> {
        if start > end || end > self.len {
            return None;
        }
        let pieces = if start == end { 0..0 } else { self.piece_at(start)..self.piece_at(end - 1) + 1 };
        let pieces = self.pieces.get_mut(pieces)?;
        if pieces.iter().any(|piece| piece.wanted == 0) {
            return None;
        }
        let mut parts = Vec::new();
        for piece in pieces {
            let from = start.saturating_sub(piece.start);
            let to = (end - piece.start).min(piece.bytes.len());
            parts.push(piece.bytes.slice(from..to));
            piece.wanted = piece.wanted.saturating_sub(1);
            if piece.wanted == 0 {
                piece.bytes = Bytes::new();
            }
        }
        Some(Payload::from_chunks(parts))
    }

    /// The piece in which a byte lies.
    fn piece_at(&self, at: usize) -> usize {
        self.pieces.partition_point(|piece| piece.start <= at).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_goes_when_the_last_entry_in_it_has_been_read() {
        let file = Payload::from_chunks(["abcd", "efgh", "ij"].map(Bytes::from));
        let entries = [(0, 6), (6, 8), (3, 5), (8, 20)];
        let mut shard = Shard::new(file, entries.into_iter());
        let held = |shard: &Shard| shard.pieces.iter().map(|p| p.bytes.len()).collect::<Vec<_>>();
        assert_eq!(held(&shard), [4, 4, 0], "nothing to be read lies in the last one");
        assert_eq!(shard.take(0, 6).unwrap().into_bytes(), "abcdef");
        assert_eq!(shard.take(3, 5).unwrap().into_bytes(), "de");
        assert_eq!(held(&shard), [0, 4, 0]);
        assert!(shard.take(0, 6).is_none(), "it is not read again");
        assert_eq!(shard.take(6, 8).unwrap().into_bytes(), "gh");
        assert!(shard.take(8, 20).is_none());
        assert!(shard.take(5, 5).unwrap().is_empty());
    }
}
