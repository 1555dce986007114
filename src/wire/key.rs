//! The keys of records.

use crate::release::{ModelName, Sha256Digest};

/// What the key of a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key {
    /// A model's announcements: releases, plain publishes, tombstones.
    Model(ModelName),
    /// A chunk of an artifact.
    Chunk {
        /// The model.
        model: ModelName,
        /// The digest of the whole artifact.
        sha256: Sha256Digest,
        /// The number of the chunk, from 0.
        index: u32,
    },
}

impl Key {
    /// Reads a key; `None` where it is none of this format, and the record is to be ignored.
    #[must_use]
    pub fn parse(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let mut parts = text.split('/');
        let model = parts.next()?.parse().ok()?;
        let Some(sha256) = parts.next() else { return Some(Self::Model(model)) };
        let index_text = parts.next()?;
        let index: u32 = index_text.parse().ok()?;
        let key = Self::Chunk { model, sha256: sha256.parse().ok()?, index };
        // One chunk has one key, or compaction would keep it twice: `007` and upper case are none.
        (parts.next().is_none() && key.to_string() == text).then_some(key)
    }

    /// The model that the record belongs to.
    #[must_use]
    pub const fn model(&self) -> &ModelName {
        match self {
            Self::Model(model) | Self::Chunk { model, .. } => model,
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(model) => model.fmt(f),
            Self::Chunk { model, sha256, index } => write!(f, "{model}/{sha256}/{index}"),
        }
    }
}

/// The key of a chunk.
#[must_use]
pub fn chunk_key(model: &ModelName, sha256: Sha256Digest, index: u32) -> String {
    Key::Chunk { model: model.clone(), sha256, index }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_key_reads_what_it_writes() {
        let key = chunk_key(&"fraud".parse().unwrap(), Sha256Digest::of([&b"x"[..]]), 42);
        let Some(Key::Chunk { model, index, .. }) = Key::parse(key.as_bytes()) else { panic!("{key}") };
        assert_eq!((model.as_str(), index), ("fraud", 42));
    }

    #[test]
    fn keys_of_other_programs_are_ignored() {
        let digest = Sha256Digest::of([&b"x"[..]]).to_string();
        for key in [
            String::new(),
            "fraud/".into(),
            "fraud/1/2".into(),
            format!("fraud/{digest}"),
            format!("fraud/{digest}/01"),
            format!("fraud/{digest}/-1"),
            format!("fraud/{digest}/+1"),
            format!("fraud/{digest}/1/"),
            format!("fraud/{}/1", digest.to_uppercase()),
            format!("fraud/{digest}/4294967296"),
        ] {
            assert_eq!(Key::parse(key.as_bytes()), None, "{key}");
        }
        assert_eq!(Key::parse(b"\xff"), None);
    }
}
