//! Memory for the large pieces that a model comes in and consists of.
//!
//! An allocator keeps what is freed for the next allocation: after a few swaps that is as much again
//! as the model, for as long as the process lives. These pieces come from the system and go back to
//! it one by one.

use std::fs::File;
use std::io::{self, Read as _};

use bytes::{Bytes, BytesMut};
use memmap2::{MmapMut, MmapOptions};

/// Smaller pieces are no burden to an allocator.
const LARGE: usize = 128 << 10;

/// A copy of `bytes` whose memory goes back to the system when it is dropped, where it is large.
#[cfg(feature = "kafka")]
pub(crate) fn copied(bytes: &[u8]) -> Bytes {
    match mapped(bytes.len()) {
        Some(mut memory) => {
            memory.copy_from_slice(bytes);
            Bytes::from_owner(memory)
        }
        None => Bytes::copy_from_slice(bytes),
    }
}

/// As many bytes as `fill` has written into a piece of at most `len`.
pub(crate) fn filled<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Bytes, E> {
    Ok(match mapped(len) {
        Some(mut memory) => {
            let written = fill(&mut memory)?;
            Bytes::from_owner(memory).slice(..written.min(len))
        }
        None => {
            let mut memory = BytesMut::zeroed(len);
            let written = fill(&mut memory)?;
            memory.truncate(written);
            memory.freeze()
        }
    })
}

/// The next bytes of a file, fewer than `len` only at its end.
pub(crate) fn read(file: &mut File, len: usize) -> io::Result<Bytes> {
    filled(len, |piece| {
        let mut filled = 0;
        while let Some(free) = piece.get_mut(filled..).filter(|free| !free.is_empty()) {
            match file.read(free) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    })
}

/// A vector of zeros, untouched.
pub(crate) fn zeroed<T: Clone>(zero: T, len: usize) -> Vec<T> {
    reserved(len, |capacity| vec![zero; capacity])
}

/// From so many bytes on, what is read again and again lies in large pages: with small ones the
/// processor's list of pages is too short for it, and reading takes a third longer.
pub(crate) const HUGE: usize = 4 << 20;

/// Zeroed bytes of the system's, untouched, in large pages where it has them; `None` where they are
/// few or there are none.
pub(crate) fn in_large_pages(len: usize) -> Option<MmapMut> {
    let map = if len < HUGE { None } else { MmapOptions::new().len(len).map_anon().ok() };
    #[cfg(target_os = "linux")]
    if let Some(map) = &map {
        // They work with small pages as well.
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    map
}

/// The bytes of the cache lines that processors fetch together.
const LINES: usize = 128;

/// Makes a vector so long. Where it has to grow it gets room to spare behind its elements, so that the
/// next allocation does not begin on their cache lines: it may be another thread's, and two that write
/// to one line wait for each other.
#[inline]
pub(crate) fn resize_apart<T: Clone>(vector: &mut Vec<T>, len: usize, value: T) {
    if len > vector.capacity() {
        vector.reserve(len - vector.len() + LINES.div_ceil(size_of::<T>().max(1)));
    }
    vector.resize(len, value);
}

/// A vector with room for so many elements, to be filled.
pub(crate) fn with_capacity<T>(len: usize) -> Vec<T> {
    reserved(len, Vec::with_capacity)
}

/// glibc takes what is smaller than this from the heap as soon as something as large has been freed;
/// anything larger it always asks of the system.
const ALWAYS_MAPPED: usize = 33 << 20;

/// A large vector is made larger than anything that lies in a heap and cut to its length: the rest
/// was never touched, and goes back to the system.
fn reserved<T>(len: usize, make: impl FnOnce(usize) -> Vec<T>) -> Vec<T> {
    let each = size_of::<T>().max(1);
    if !(LARGE..ALWAYS_MAPPED).contains(&len.saturating_mul(each)) {
        return make(len);
    }
    let mut vector = make(ALWAYS_MAPPED.div_ceil(each));
    vector.truncate(len);
    vector.shrink_to(len);
    vector
}

/// Zeroed memory of the system's; `None` where the piece is small or the system has none.
fn mapped(len: usize) -> Option<MmapMut> {
    if len < LARGE { None } else { MmapOptions::new().len(len).populate().map_anon().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_holds_what_was_written_whatever_its_size() {
        for len in [0, 1, LARGE - 1, LARGE, 3 * LARGE + 1] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            let written = filled(len + 7, |to| {
                to[..len].copy_from_slice(&bytes);
                Ok::<_, ()>(len)
            });
            assert_eq!(written.unwrap(), bytes);
            #[cfg(feature = "kafka")]
            assert_eq!(copied(&bytes), bytes);
        }
        assert_eq!(filled(LARGE, |_| Err("no")), Err("no"));
    }

    #[test]
    fn a_vector_has_the_length_that_was_asked_for_and_no_more_room() {
        for len in [0, 1, LARGE / 8, LARGE, ALWAYS_MAPPED] {
            let zeros = zeroed(0_u64, len);
            assert_eq!((zeros.len(), zeros.capacity()), (len, len));
            assert!(zeros.iter().all(|zero| *zero == 0));
            assert!((len..len + 8).contains(&with_capacity::<u64>(len).capacity()));
        }
    }
}
