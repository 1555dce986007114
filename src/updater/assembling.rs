//! Putting the bytes of an artifact together from its records, and hashing them as they come.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::release::Position;
use crate::verify::{Hashed, Hashing, Rejection, Stage};

/// The first chunks of an artifact whose release has not come yet, hashed as they came. They are the
/// same memory as those that the updater holds.
#[derive(Default)]
pub(super) struct Begun {
    positions: Vec<Position>,
    hashing: Hashing,
}

impl Begun {
    pub(super) fn add(&mut self, index: u32, position: Position, chunk: Bytes, limit: u64) {
        if index as usize != self.positions.len() || self.hashing.bytes() > limit {
            *self = Self::default();
        }
        if index as usize == self.positions.len() {
            self.positions.push(position);
            self.hashing.push(chunk);
        }
    }

    /// What was hashed, where these positions begin with it.
    pub(super) fn of(self, positions: &[Position]) -> Hashing {
        if positions.starts_with(&self.positions) { self.hashing } else { Hashing::default() }
    }
}

/// The chunks of an artifact, which may come in any order, hashed in theirs.
pub(super) struct Assembly<'a> {
    positions: &'a [Position],
    /// Those that are not hashed yet.
    found: HashMap<Position, Bytes>,
    hashing: Hashing,
}

impl<'a> Assembly<'a> {
    /// An artifact of which the first chunks are hashed, and others at hand.
    pub(super) fn new(positions: &'a [Position], hashing: Hashing, held: Vec<(Position, Bytes)>) -> Self {
        let hashed: HashSet<&Position> = positions.iter().take(hashing.chunks()).collect();
        let found = held.into_iter().filter(|(position, _)| !hashed.contains(position)).collect();
        let mut assembly = Self { positions, found, hashing };
        assembly.hash();
        assembly
    }

    pub(super) fn add(&mut self, position: Position, chunk: Bytes) {
        self.found.insert(position, chunk);
        self.hash();
    }

    /// Hashes what is there of what comes next.
    fn hash(&mut self) {
        while let Some(next) = self.next().and_then(|next| self.found.remove(&next)) {
            self.hashing.push(next);
        }
    }

    /// The first position that is missing.
    fn next(&self) -> Option<Position> {
        self.positions.get(self.hashing.chunks()).copied()
    }

    /// All positions that are missing, in the order in which they can be read.
    pub(super) fn missing(&self) -> Vec<Position> {
        let rest = self.positions.iter().skip(self.hashing.chunks());
        let mut missing: Vec<Position> = rest.filter(|at| !self.found.contains_key(at)).copied().collect();
        missing.sort_unstable();
        missing
    }

    pub(super) fn bytes(&self) -> u64 {
        let found = self.found.values().map(|chunk| chunk.len() as u64);
        found.fold(self.hashing.bytes(), u64::saturating_add)
    }

    pub(super) fn finish(self) -> Result<Hashed, Rejection> {
        match self.next() {
            None => Ok(self.hashing.finish()),
            Some(at) => {
                let reason = format!("the record at {at} is no longer on the topic");
                Err(Rejection::new(Stage::Chunks, reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Sha256Digest;

    fn at(offset: i64) -> Position {
        Position { partition: 0, offset }
    }

    fn digest(assembly: Assembly<'_>) -> Option<Sha256Digest> {
        assembly.finish().ok().map(|hashed| hashed.sha256())
    }

    #[test]
    fn chunks_are_hashed_in_the_order_of_the_artifact_however_they_come() {
        let positions = [at(3), at(5), at(1)];
        let held = vec![(at(1), "c".into())];
        let mut assembly = Assembly::new(&positions, Hashing::default(), held);
        assert_eq!((assembly.missing(), assembly.bytes()), (vec![at(3), at(5)], 1));
        assembly.add(at(5), "b".into());
        assert_eq!(assembly.hashing.chunks(), 0);
        assembly.add(at(3), "a".into());
        assert!(assembly.missing().is_empty());
        assert_eq!(digest(assembly), Some(Sha256Digest::of([&b"abc"[..]])));
        assert_eq!(digest(Assembly::new(&positions, Hashing::default(), vec![])), None);
    }

    #[test]
    fn what_was_hashed_as_it_came_is_not_hashed_again_and_of_another_artifact_never_used() {
        let begin = |chunks: &[(u32, i64)]| {
            let mut begun = Begun::default();
            chunks.iter().for_each(|(index, offset)| begun.add(*index, at(*offset), "x".into(), 100));
            begun
        };
        let positions = [at(1), at(2), at(4)];
        let hashing = begin(&[(0, 1), (1, 2)]).of(&positions);
        assert_eq!(hashing.chunks(), 2);
        let held = vec![(at(1), "x".into()), (at(2), "x".into()), (at(4), "y".into())];
        let assembly = Assembly::new(&positions, hashing, held);
        assert_eq!((assembly.bytes(), digest(assembly)), (3, Some(Sha256Digest::of([&b"xxy"[..]]))));
        // Another publisher's chunks in between, a gap, a longer artifact, one that was begun anew.
        for chunks in [&[(0, 1), (0, 7), (1, 2)][..], &[(0, 1), (2, 4)], &[(0, 1), (1, 2), (2, 4), (3, 5)]] {
            assert_eq!(begin(chunks).of(&positions).chunks(), 0, "{chunks:?}");
        }
        assert_eq!(begin(&[(0, 9), (0, 1), (1, 2), (2, 4)]).of(&positions).chunks(), 3);
    }

    #[test]
    fn no_more_is_hashed_ahead_than_a_model_may_have() {
        let mut begun = Begun::default();
        for index in 0..10 {
            begun.add(index, at(index.into()), "1234".into(), 9);
        }
        assert!(begun.hashing.bytes() <= 12);
    }
}
