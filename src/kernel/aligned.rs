//! Numbers that begin at a cache line.
//!
//! A vector register is as wide as a cache line. One that is read from the middle of a line takes
//! two reads, and one that was just written there takes as long as a miss to be read again.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::memory;

/// The bytes of a cache line, and of the widest register.
const LINE: usize = 64;
/// The numbers in it.
const LANES: usize = LINE / size_of::<f32>();

/// So many `f32`, of which the first is at the beginning of a cache line.
#[derive(Debug)]
pub(crate) struct Aligned(Values);

#[derive(Debug)]
enum Values {
    /// What is wanted, and before it what fills up to the beginning of a line. A vector may be
    /// moved: its elements stay where they are.
    Few { values: Vec<f32>, start: usize },
    /// Pages of their own.
    Many(MmapMut),
}

impl Aligned {
    /// Zeros, in memory that is not touched before it is written.
    pub(crate) fn zeroed(len: usize) -> Self {
        match memory::in_large_pages(len.saturating_mul(size_of::<f32>())) {
            Some(pages) => Self(Values::Many(pages)),
            None => Self::of(memory::zeroed(0.0, len + LANES - 1), len),
        }
    }

    /// So many registers, as `values` gives them.
    pub(crate) fn filled(count: usize, values: impl IntoIterator<Item = [f32; LANES]>) -> Self {
        let mut aligned = Self::zeroed(count * LANES);
        aligned.registers_mut().iter_mut().zip(values).for_each(|(to, values)| *to = values);
        aligned
    }

    /// Makes it so many zeros, in the memory that it has where that is enough.
    pub(crate) fn reset(&mut self, len: usize) {
        let mut kept = match &mut self.0 {
            Values::Few { values, .. } => std::mem::take(values),
            Values::Many(_) => Vec::new(),
        };
        kept.clear();
        memory::resize_apart(&mut kept, len + LANES - 1, 0.0);
        *self = Self::of(kept, len);
    }

    /// Register by register; what is left at the end is not among them.
    pub(crate) fn registers(&self) -> &[[f32; LANES]] {
        self.as_chunks().0
    }

    /// Register by register, to be written.
    pub(crate) fn registers_mut(&mut self) -> &mut [[f32; LANES]] {
        self.as_chunks_mut().0
    }

    fn of(mut values: Vec<f32>, len: usize) -> Self {
        // Where a line begins is only a matter of speed, should an address not tell.
        let start = values.as_ptr().align_offset(LINE).min(LANES - 1);
        values.truncate(start + len);
        Self(Values::Few { values, start })
    }
}

impl Default for Aligned {
    fn default() -> Self {
        Self(Values::Few { values: Vec::new(), start: 0 })
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Values::Few { values, start } => values.get(*start..).unwrap_or(&[]),
            Values::Many(pages) => bytemuck::try_cast_slice(pages).unwrap_or(&[]),
        }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Values::Few { values, start } => values.get_mut(*start..).unwrap_or(&mut []),
            Values::Many(pages) => bytemuck::try_cast_slice_mut(pages).unwrap_or(&mut []),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_aligned(values: &[f32]) -> bool {
        values.as_ptr().addr().is_multiple_of(LINE)
    }

    #[test]
    fn numbers_begin_at_a_cache_line_wherever_the_vector_goes() {
        let moved: Vec<Aligned> = (0..40).chain([2 << 20]).map(Aligned::zeroed).collect();
        for (len, aligned) in (0..40).chain([2 << 20]).zip(&moved) {
            assert!(is_aligned(aligned) && aligned.iter().all(|x| *x == 0.0));
            assert_eq!((aligned.len(), aligned.registers().len()), (len, len / LANES));
        }
        let mut again = Aligned::zeroed(100);
        again.fill(1.0);
        for len in [7, 1000, 0] {
            again.reset(len);
            assert!(is_aligned(&again) && again.len() == len && again.iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn registers_are_filled_in_their_order() {
        let rows = || (0..100_u8).map(|i| [f32::from(i); LANES]);
        let mut aligned = Aligned::filled(100, rows());
        assert!(is_aligned(&aligned) && aligned.registers().iter().copied().eq(rows()));
        aligned.registers_mut()[1][0] = -1.0;
        assert_eq!(aligned[LANES], -1.0);
    }
}
