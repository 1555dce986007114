//! What a record under a model's name announces.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{DocumentError, FORMAT_HEADER, MAX_VERSION, SHA256_HEADER, VERSION_HEADER, decode_release};
use crate::release::{Artifact, DigestError, Interface, ModelName, Position, Release, Sha256Digest};

/// A record of the topic, as it was read or is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "topics outside this crate make them")]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// The timestamp that the record carries, in milliseconds since 1970 in UTC; 0 where it has none.
    pub timestamp_ms: i64,
    /// The key; empty where it has none.
    pub key: Bytes,
    /// The value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Vec<Header>,
}

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "topics outside this crate make them")]
pub struct Header {
    /// The name.
    pub name: String,
    /// The value.
    pub value: Bytes,
}

/// What a record under a model's name says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Announcement {
    /// A release: a plain publish, whose artifact has no chunks, or the commit of a chunked one.
    Release(Box<Release>),
    /// The model is withdrawn.
    Withdrawn,
}

/// Reads the announcement in a record whose key is `model`.
///
/// # Errors
/// Where the record is none; what a subscriber then rejects.
pub fn announcement(model: &ModelName, record: &Record) -> Result<Announcement, Refusal> {
    let Some(value) = &record.value else { return Ok(Announcement::Withdrawn) };
    let Some(digest) = header(record, SHA256_HEADER) else {
        // A release document is a JSON object. Anything else is a plain publish that forgot its digest.
        if value.trim_ascii_start().starts_with(b"{") {
            let release = decode_release(model, value, record.position)?;
            return Ok(Announcement::Release(Box::new(release)));
        }
        return Err(Refusal::NoDigest);
    };
    let sha256: Sha256Digest = text(SHA256_HEADER, digest)?.parse()?;
    let version = match header(record, VERSION_HEADER) {
        None => sha256.short(),
        Some(version) => text(VERSION_HEADER, version)?.to_owned(),
    };
    if !(1..=MAX_VERSION).contains(&version.len()) {
        return Err(Refusal::Version { found: version.len() });
    }
    let format = header(record, FORMAT_HEADER).map(|f| text(FORMAT_HEADER, f)).transpose()?;
    Ok(Announcement::Release(Box::new(Release {
        model: model.clone(),
        version,
        sequence: 0,
        time_ms: record.timestamp_ms,
        artifact: Artifact {
            sha256,
            bytes: value.len() as u64,
            chunks: 0,
            format: format.map(str::to_owned),
        },
        interface: Interface::default(),
        labels: BTreeMap::new(),
        samples: None,
        previous: None,
        earlier: Vec::new(),
        position: record.position,
    })))
}

/// The last header of this name: Kafka's clients let a later one override.
fn header<'a>(record: &'a Record, name: &str) -> Option<&'a [u8]> {
    record.headers.iter().rev().find(|h| h.name == name).map(|h| &*h.value)
}

fn text<'a>(name: &'static str, value: &'a [u8]) -> Result<&'a str, Refusal> {
    std::str::from_utf8(value).map_err(|_| Refusal::HeaderText { name })
}

/// Why a record under a model's name announces nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The value is a file without a digest to check it by.
    #[error("expected a header `sha256` or a release document, found neither")]
    NoDigest,
    /// The header `sha256` is no digest.
    #[error("header `sha256`: {0}")]
    Digest(DigestError),
    /// A header is not UTF-8.
    #[error("header `{name}`: expected UTF-8 text")]
    HeaderText {
        /// The header.
        name: &'static str,
    },
    /// The header `version` is empty or too long.
    #[error("header `version`: expected 1 to {MAX_VERSION} bytes, found {found}")]
    Version {
        /// Its length in bytes.
        found: usize,
    },
    /// The release document cannot be read.
    #[error("{0}")]
    Document(DocumentError),
}

impl From<DigestError> for Refusal {
    fn from(error: DigestError) -> Self {
        Self::Digest(error)
    }
}

impl From<DocumentError> for Refusal {
    fn from(error: DocumentError) -> Self {
        Self::Document(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &[u8], headers: &[(&str, &str)]) -> Record {
        Record {
            position: Position { partition: 1, offset: 2 },
            timestamp_ms: 3,
            key: "fraud".into(),
            value: Some(Bytes::copy_from_slice(value)),
            headers: headers
                .iter()
                .map(|(n, v)| Header { name: (*n).into(), value: Bytes::copy_from_slice(v.as_bytes()) })
                .collect(),
        }
    }

    fn announce(value: &[u8], headers: &[(&str, &str)]) -> Result<Announcement, Refusal> {
        announcement(&"fraud".parse().unwrap(), &record(value, headers))
    }

    #[test]
    fn a_plain_publish_is_a_release_of_its_own_bytes() {
        let digest = Sha256Digest::of([&b"model"[..]]);
        let Ok(Announcement::Release(release)) = announce(b"model", &[("sha256", &digest.to_string())])
        else {
            panic!("no release")
        };
        assert_eq!(release.version, digest.short());
        assert_eq!((release.artifact.bytes, release.artifact.chunks, release.time_ms), (5, 0, 3));
    }

    #[test]
    fn a_file_without_a_digest_is_refused() {
        assert_eq!(announce(b"\x08\x07", &[]), Err(Refusal::NoDigest));
        assert!(matches!(announce(b"x", &[("sha256", "12")]), Err(Refusal::Digest(_))));
        for document in [&b"{\"schema\":9}"[..], b"\r\n {}"] {
            assert!(matches!(announce(document, &[]), Err(Refusal::Document(_))));
        }
    }

    #[test]
    fn a_tombstone_withdraws() {
        let mut tombstone = record(b"", &[]);
        tombstone.value = None;
        assert_eq!(announcement(&"fraud".parse().unwrap(), &tombstone), Ok(Announcement::Withdrawn));
    }
}
