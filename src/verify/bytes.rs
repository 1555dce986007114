//! The checks on the bytes: size, then digest.

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
    pub(crate) fn verify(self, payload: Payload) -> Result<Verified, Rejection> {
        let artifact = &self.release.artifact;
        if payload.len() as u64 != artifact.bytes {
            let reason = format!("expected {} bytes in all, found {}", artifact.bytes, payload.len());
            return Err(Rejection::new(Stage::Chunks, reason));
        }
        self.verify_hashed(Hashed::of(payload))
    }

    /// The same of bytes that were hashed before.
    pub(crate) fn verify_hashed(self, hashed: Hashed) -> Result<Verified, Rejection> {
        let (expected, found) = (self.release.artifact.sha256, hashed.sha256);
        if found != expected {
            let reason = format!("expected sha256 {expected}, found {found}");
            return Err(Rejection::new(Stage::Digest, reason));
        }
        Ok(Verified { release: self.release, payload: hashed.payload })
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

    #[test]
    fn the_size_is_checked_before_anything_is_read() {
        let error = Sized::new(release(b"123456"), 5).unwrap_err();
        assert_eq!(error.to_string(), "size: expected at most 5 bytes (max_model_bytes), found 6");
    }

    #[test]
    fn other_bytes_of_the_same_length_are_refused_by_their_digest() {
        let sized = Sized::new(release(b"model"), 100).unwrap();
        let error = sized.verify(Payload::from(b"MODEL".to_vec())).unwrap_err();
        assert_eq!(error.stage, Stage::Digest);
        assert!(error.reason.contains(&Artifact::of(b"model", None).sha256.to_string()));
    }

    #[test]
    fn a_truncated_artifact_is_refused_with_both_lengths() {
        let sized = Sized::new(release(b"model"), 100).unwrap();
        let error = sized.verify(Payload::from(b"mode".to_vec())).unwrap_err();
        assert_eq!(error.to_string(), "chunks: expected 5 bytes in all, found 4");
    }
}
