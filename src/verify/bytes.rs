//! The checks on the bytes: size, then digest.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Rejection, Stage};
use crate::load::Payload;
use crate::release::{Release, Sha256Digest};

/// A release whose artifact is not too large to be read.
#[derive(Debug)]
pub(crate) struct Sized {
    release: Release,
}

impl Sized {
    /// Checks the length that the release states, before anything is read.
    pub(crate) fn new(release: Release, max_model_bytes: u64) -> Result<Self, Rejection> {
        let found = release.artifact.bytes;
        if found > max_model_bytes {
            let reason = format!("expected at most {max_model_bytes} bytes (max_model_bytes), found {found}");
            return Err(Rejection::new(Stage::Size, reason));
        }
        Ok(Self { release })
    }

    pub(crate) const fn release(&self) -> &Release {
        &self.release
    }

    /// Checks the bytes that were read against the length and the digest.
    pub(crate) fn verify(self, hashed: Hashed) -> Result<Verified, Rejection> {
        let artifact = &self.release.artifact;
        if hashed.len() as u64 != artifact.bytes {
            let reason = format!("expected {} bytes in all, found {}", artifact.bytes, hashed.len());
            return Err(Rejection::new(Stage::Chunks, reason));
        }
        let (expected, found) = (artifact.sha256, hashed.sha256);
        if found != expected {
            let reason = format!("expected sha256 {expected}, found {found}");
            return Err(Rejection::new(Stage::Digest, reason));
        }
        Ok(Verified { release: self.release, payload: hashed.payload })
    }
}

/// Bytes that are hashed chunk by chunk, as they come.
#[derive(Debug, Default)]
pub(crate) struct Hashing {
    chunks: Vec<Bytes>,
    bytes: u64,
    hasher: Sha256,
}

impl Hashing {
    /// Adds the next chunk.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.hasher.update(&chunk);
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        self.chunks.push(chunk);
    }

    /// How many chunks there are.
    pub(crate) const fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// How many bytes there are.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn finish(self) -> Hashed {
        let sha256 = Sha256Digest::from_hasher(self.hasher);
        Hashed { payload: Payload::from_chunks(self.chunks), sha256 }
    }
}

/// Bytes together with their digest. It can only be made by hashing them.
#[derive(Clone, Debug)]
pub(crate) struct Hashed {
    payload: Payload,
    sha256: Sha256Digest,
}

impl Hashed {
    pub(crate) fn of(payload: Payload) -> Self {
        let sha256 = Sha256Digest::of(payload.chunks().map(|chunk| &**chunk));
        Self { payload, sha256 }
    }

    pub(crate) const fn sha256(&self) -> Sha256Digest {
        self.sha256
    }

    pub(crate) const fn len(&self) -> usize {
        self.payload.len()
    }
}

/// A release with its bytes, whose length and digest are right.
#[derive(Debug)]
pub(crate) struct Verified {
    release: Release,
    payload: Payload,
}

impl Verified {
    pub(super) fn into_parts(self) -> (Release, Payload) {
        (self.release, self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Artifact, Position};
    use crate::wire::{Announcement, Header, Record, announcement};

    fn release(bytes: &'static [u8]) -> Release {
        let sha256 = Sha256Digest::of([bytes]).to_string();
        let record = Record {
            position: Position { partition: 0, offset: 0 },
            timestamp_ms: 0,
            key: "fraud".into(),
            value: Some(bytes.into()),
            headers: vec![Header { name: "sha256".into(), value: sha256.into() }],
        };
        match announcement(&"fraud".parse().unwrap(), &record) {
            Ok(Announcement::Release(release)) => *release,
            other => panic!("{other:?}"),
        }
    }

    fn hashed(chunks: &[&'static str]) -> Hashed {
        let mut hashing = Hashing::default();
        chunks.iter().for_each(|chunk| hashing.push(Bytes::from(*chunk)));
        assert_eq!(hashing.chunks(), chunks.len());
        hashing.finish()
    }

    #[test]
    fn bytes_that_come_one_after_the_other_have_the_digest_of_all() {
        let verified = Sized::new(release(b"model"), 5).unwrap().verify(hashed(&["m", "ode", "l"])).unwrap();
        assert_eq!(verified.into_parts().1.into_bytes(), "model");
    }

    #[test]
    fn the_size_is_checked_before_anything_is_read() {
        let error = Sized::new(release(b"123456"), 5).unwrap_err();
        assert_eq!(error.to_string(), "size: expected at most 5 bytes (max_model_bytes), found 6");
    }

    #[test]
    fn other_bytes_of_the_same_length_are_refused_by_their_digest() {
        let sized = Sized::new(release(b"model"), 100).unwrap();
        let error = sized.verify(hashed(&["MO", "DEL"])).unwrap_err();
        assert_eq!(error.stage, Stage::Digest);
        assert!(error.reason.contains(&Artifact::of(b"model", None).sha256.to_string()));
    }

    #[test]
    fn a_truncated_artifact_is_refused_with_both_lengths() {
        let sized = Sized::new(release(b"model"), 100).unwrap();
        let error = sized.verify(hashed(&["mode"])).unwrap_err();
        assert_eq!(error.to_string(), "chunks: expected 5 bytes in all, found 4");
    }
}
