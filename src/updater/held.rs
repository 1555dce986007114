//! Payloads that came by while the topic is being followed, kept so that the release which names
//! them does not have to be read a second time.

use std::collections::HashMap;

use bytes::Bytes;

use crate::release::{Position, Sha256Digest};
use crate::wire::Record;

/// The payloads of one model that its next release will probably name: the chunks of the artifact
/// that is being written, or the last plain publish. Bounded by the largest model allowed; what is
/// not held is read again when it is needed.
#[derive(Debug, Default)]
pub(super) struct Held {
    artifact: Option<Sha256Digest>,
    payloads: HashMap<Position, Bytes>,
    bytes: u64,
}

impl Held {
    /// Keeps the chunk in `record`, and drops what belongs to another artifact.
    pub(super) fn chunk(&mut self, artifact: Sha256Digest, record: &Record, limit: u64) {
        if self.artifact != Some(artifact) {
            self.clear();
            self.artifact = Some(artifact);
        }
        self.keep(record, limit);
    }

    /// Keeps the plain publish in `record`. A release document drops nothing: it names the chunks
    /// that are held.
    pub(super) fn plain(&mut self, record: &Record, limit: u64) {
        if record.headers.iter().any(|header| header.name == crate::wire::SHA256_HEADER) {
            self.clear();
            self.keep(record, limit);
        }
    }

    /// Hands out what is held of these records, and keeps nothing.
    pub(super) fn take(&mut self, positions: &[Position]) -> Vec<(Position, Bytes)> {
        let found = positions.iter().filter_map(|at| Some((*at, self.payloads.remove(at)?))).collect();
        self.clear();
        found
    }

    fn keep(&mut self, record: &Record, limit: u64) {
        let Some(value) = &record.value else { return };
        self.bytes = self.bytes.saturating_add(value.len() as u64);
        if self.bytes > limit {
            // Too large to be loaded at all; its release will be rejected by the size it states.
            self.payloads.clear();
        } else {
            self.payloads.insert(record.position, value.clone());
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, value: &'static str) -> Record {
        Record {
            position: Position { partition: 0, offset },
            timestamp_ms: 0,
            key: Bytes::new(),
            value: Some(value.into()),
            headers: vec![],
        }
    }

    fn at(offset: i64) -> Position {
        Position { partition: 0, offset }
    }

    #[test]
    fn the_chunks_of_one_artifact_are_held_until_they_are_taken() {
        let mut held = Held::default();
        let (a, b) = (Sha256Digest::of([&b"a"[..]]), Sha256Digest::of([&b"b"[..]]));
        held.chunk(a, &record(1, "old"), 100);
        held.chunk(b, &record(2, "x"), 100);
        held.chunk(b, &record(3, "y"), 100);
        assert_eq!(held.take(&[at(1), at(2), at(3)]), [(at(2), "x".into()), (at(3), "y".into())]);
        assert_eq!(held.take(&[at(2)]), []);
    }

    #[test]
    fn more_than_the_largest_model_is_not_held() {
        let mut held = Held::default();
        let a = Sha256Digest::of([&b"a"[..]]);
        for offset in 0..10 {
            held.chunk(a, &record(offset, "1234"), 9);
        }
        assert_eq!(held.take(&[at(0), at(9)]), []);
    }
}
