//! The bytes of a model file as they came: a rope of chunks, never copied together unless asked.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::{background, memory};

/// How many bytes are decoded between two pauses of a load.
const PIECE: usize = 1 << 20;

/// The verified bytes of one artifact.
///
/// It is a [`Buf`]: a reader that consumes it gives each chunk's memory back as soon as it is past
/// it, so that decoding a large model never holds it twice.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Payload {
    /// A payload of these chunks, in their order.
    pub fn from_chunks(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        let chunks: VecDeque<_> = chunks.into_iter().filter(|c| !c.is_empty()).collect();
        let len = chunks.iter().map(Bytes::len).sum();
        Self { chunks, len }
    }

    /// The number of bytes left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True where no byte is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `n` bytes, fewer where there are not as many; copied, nothing is consumed.
    #[must_use]
    pub fn peek(&self, n: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(n.min(self.len));
        for chunk in &self.chunks {
            let want = n - out.len();
            if want == 0 {
                break;
            }
            out.extend_from_slice(chunk.get(..want.min(chunk.len())).unwrap_or(&[]));
        }
        out
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        self.chunks.iter()
    }

    /// The next `n` bytes, which are consumed; nothing is copied. Fewer where there are not as many.
    #[cfg(feature = "tensorflow")]
    pub(crate) fn split_to(&mut self, n: usize) -> Self {
        let mut pieces = Vec::new();
        let mut left = n.min(self.len);
        while left > 0 {
            let piece = self.copy_to_bytes(left.min(self.chunk().len().max(1)));
            left -= piece.len();
            pieces.push(piece);
        }
        Self::from_chunks(pieces)
    }

    /// The bytes from `at` on, which are taken out; nothing is copied.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        let mut tail = Self::default();
        while self.len > at
            && let Some(mut last) = self.chunks.pop_back()
        {
            let kept = last.len() - last.len().min(self.len - at);
            let piece = last.split_off(kept);
            (self.len, tail.len) = (self.len - piece.len(), tail.len + piece.len());
            tail.chunks.push_front(piece);
            if !last.is_empty() {
                self.chunks.push_back(last);
            }
        }
        tail
    }

    /// The elements that the bytes are, as [`decode_into`](Self::decode_into) reads them.
    pub(crate) fn decoded<T, const N: usize>(self, from_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
        let mut values = memory::with_capacity(self.len / N);
        self.decode_into(&mut values, from_bytes);
        values
    }

    /// Adds the elements that the bytes are to a list; each chunk is freed as it has been read. Bytes
    /// that are no whole element are left out.
    pub(crate) fn decode_into<T, const N: usize>(
        mut self,
        values: &mut Vec<T>,
        from_bytes: impl Fn([u8; N]) -> T,
    ) {
        while self.has_remaining() {
            let piece = self.chunk();
            let (whole, rest) = piece.get(..PIECE).unwrap_or(piece).as_chunks::<N>();
            values.extend(whole.iter().map(|bytes| from_bytes(*bytes)));
            let (read, is_split) = (whole.len() * N, !rest.is_empty());
            self.advance(read);
            // Read, and written to memory that the system has cleared before.
            background::moved(3 * read);
            if is_split {
                let mut bytes = [0; N];
                if self.try_copy_to_slice(&mut bytes).is_err() {
                    return;
                }
                values.push(from_bytes(bytes));
            }
        }
    }

    /// All bytes in one piece. A payload of a single chunk is not copied; of several, each is
    /// freed as it has been copied.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        if self.chunks.len() == 1 {
            return self.chunks.pop_front().unwrap_or_default();
        }
        let mut all = BytesMut::with_capacity(self.len);
        while let Some(chunk) = self.chunks.pop_front() {
            all.extend_from_slice(&chunk);
            background::moved(3 * chunk.len());
        }
        all.freeze()
    }
}

/// The same bytes, whatever the chunks.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.clone(), other.clone());
        if left.len != right.len {
            return false;
        }
        while left.len > 0 {
            let n = left.chunk().len().min(right.chunk().len());
            if left.chunk().get(..n) != right.chunk().get(..n) {
                return false;
            }
            left.advance(n);
            right.advance(n);
        }
        true
    }
}

impl Eq for Payload {}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_chunks([Bytes::from(bytes)])
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::from_chunks([bytes])
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |c| c)
    }

    fn advance(&mut self, mut count: usize) {
        // `Buf` asks for a panic past the end; a reader that counts on `remaining` never gets there.
        count = count.min(self.len);
        self.len -= count;
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
            if count == 0 {
                return;
            }
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let len = len.min(self.len);
        if let Some(front) = self.chunks.front_mut()
            && front.len() >= len
        {
            let out = front.split_to(len);
            self.len -= len;
            if front.is_empty() {
                self.chunks.pop_front();
            }
            return out;
        }
        let mut out = BytesMut::with_capacity(len);
        while out.len() < len {
            let part = (len - out.len()).min(self.chunk().len());
            out.extend_from_slice(self.chunk().get(..part).unwrap_or(&[]));
            self.advance(part);
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_across_its_chunks_and_frees_them() {
        let mut payload = Payload::from_chunks(["ab", "", "cde", "f"].map(Bytes::from));
        assert_eq!(payload.len(), 6);
        assert_eq!(payload.peek(4), b"abcd");
        assert_eq!(payload.get_u8(), b'a');
        assert_eq!(payload.copy_to_bytes(3), "bcd");
        assert_eq!(payload.chunks().count(), 2);
        assert_eq!(payload.into_bytes(), "ef");
    }

    #[cfg(feature = "tensorflow")]
    #[test]
    fn a_part_is_taken_out_without_a_copy() {
        let mut payload = Payload::from_chunks(["ab", "cde", "f"].map(Bytes::from));
        let part = payload.split_to(4);
        assert_eq!(part.chunks().map(Bytes::len).collect::<Vec<_>>(), [2, 2]);
        assert_eq!((part.into_bytes(), payload.len()), (Bytes::from("abcd"), 2));
        assert_eq!(payload.split_to(9).into_bytes(), "ef");
    }

    #[test]
    fn the_end_is_taken_off_across_chunks() {
        let mut payload = Payload::from_chunks(["ab", "cde", "f"].map(Bytes::from));
        assert_eq!(payload.split_off(6), Payload::default());
        assert_eq!(payload.split_off(3).into_bytes(), "def");
        assert_eq!(payload.split_off(2).into_bytes(), "c");
        assert_eq!((payload.len(), payload.chunks().count()), (2, 1));
        assert_eq!((payload.split_off(0).into_bytes(), payload.len()), (Bytes::from("ab"), 0));
        assert_eq!(payload.split_off(0), Payload::default());
    }

    #[test]
    fn elements_are_decoded_whatever_the_chunks() {
        let bytes: Vec<u8> = (0_u16..100).flat_map(u16::to_le_bytes).collect();
        for size in [1, 2, 3, 200] {
            let mut numbers = Vec::new();
            let payload = Payload::from_chunks(bytes.chunks(size).map(Bytes::copy_from_slice));
            payload.decode_into(&mut numbers, u16::from_le_bytes);
            assert!(numbers.into_iter().eq(0..100), "chunks of {size}");
        }
    }

    #[test]
    fn payloads_of_the_same_bytes_are_equal() {
        let payload = |chunks: &[&'static str]| Payload::from_chunks(chunks.iter().copied().map(Bytes::from));
        assert_eq!(payload(&["ab", "cde"]), payload(&["abc", "d", "e"]));
        assert_ne!(payload(&["ab", "cde"]), payload(&["abc", "d", "f"]));
        assert_ne!(payload(&["ab"]), payload(&["abc"]));
    }
}
