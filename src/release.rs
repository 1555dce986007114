//! What was published: releases, versions, artifacts, and where on the topic they stand.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

/// The longest name of a model, in bytes.
pub const MAX_NAME: usize = 200;

/// The name of a model: 1 to 200 of `A-Z a-z 0-9 . _ -`.
///
/// ```
/// use modelswap::ModelName;
///
/// assert_eq!("fraud-eu.v2".parse::<ModelName>()?.as_str(), "fraud-eu.v2");
/// assert!("fraud/eu".parse::<ModelName>().is_err());
/// # Ok::<(), modelswap::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(NameError { name: name.chars().take(MAX_NAME).collect() })
        }
    }
}

impl TryFrom<String> for ModelName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model's name has a character that it must not have, none at all or too many.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no model name: expected 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -")]
pub struct NameError {
    name: String,
}

/// A SHA-256 digest; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// The digest of these pieces, one after the other.
    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Sha256::new();
        for piece in pieces {
            hasher.update(piece);
        }
        Self::from_hasher(hasher)
    }

    /// The digest of everything that the hasher was given.
    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The first twelve digits: what a person compares.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl FromStr for Sha256Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let error = || DigestError { found: text.chars().take(80).collect() };
        if text.len() != 64 || !text.is_ascii() {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * i..2 * i + 2).ok_or_else(error)?;
            // `from_str_radix` takes a sign, which is no hexadecimal digit.
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Sha256Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Sha256Digest> for String {
    fn from(digest: Sha256Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not a SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a sha256 of 64 hexadecimal digits, found `{found}`")]
pub struct DigestError {
    found: String,
}

/// Where a record stands on the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs, reason = "a Kafka record has no other coordinates")]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset in that partition.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} offset {}", self.partition, self.offset)
    }
}

/// The file of a model as it lies on the topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Artifact {
    /// The digest of its bytes, which is also its name on the topic.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub bytes: u64,
    /// The number of chunk records; 0 where the record of the release holds the bytes itself.
    pub chunks: u32,
    /// The format, where the publisher states it; else it is told by content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

impl Artifact {
    /// The artifact of these bytes, in chunks of [`wire::CHUNK_BYTES`](crate::wire::CHUNK_BYTES).
    #[must_use]
    pub fn of(bytes: &[u8], format: Option<String>) -> Self {
        let chunks = bytes.len().div_ceil(crate::wire::CHUNK_BYTES);
        Self {
            sha256: Sha256Digest::of([bytes]),
            bytes: bytes.len() as u64,
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
            format,
        }
    }
}

/// How to call the model in an artifact: which of its inputs, outputs and signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Interface {
    /// The inputs by name; empty for those that the file declares.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_none")]
    pub inputs: Vec<String>,
    /// The outputs by name, in the order in which they are wanted; empty for those that the file
    /// declares.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_none")]
    pub outputs: Vec<String>,
    /// The signature of a SavedModel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// One version of a model, as its record on the topic announces it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Release {
    /// The model.
    pub model: ModelName,
    /// The version, in the publisher's words; the start of the digest where it gave none.
    pub version: String,
    /// Counts the chunked releases of the model; 0 after a plain publish.
    pub sequence: u64,
    /// When it was published, in milliseconds since 1970 in UTC.
    pub time_ms: i64,
    /// The file.
    pub artifact: Artifact,
    /// How to call it.
    pub interface: Interface,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Golden samples: the document that `Samples` reads.
    pub samples: Option<serde_json::Value>,
    /// The release before this one, to fall back to.
    pub previous: Option<Previous>,
    /// Releases before that one whose artifacts are kept too, newest first.
    pub earlier: Vec<Previous>,
    /// Where the record of this release stands.
    pub position: Position,
}

/// What a release says of the one before it: enough to load that one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Previous {
    /// Its version.
    pub version: String,
    /// Its sequence number.
    #[serde(default, deserialize_with = "null_is_none")]
    pub sequence: u64,
    /// When it was published, in milliseconds since 1970 in UTC.
    #[serde(default, deserialize_with = "null_is_none")]
    pub time_ms: i64,
    /// Its file.
    pub artifact: Artifact,
    /// How to call it.
    #[serde(flatten)]
    pub interface: Interface,
    /// Where its record stood.
    #[serde(flatten)]
    pub position: Position,
}

/// Many languages write an optional field that is not there as null.
pub(crate) fn null_is_none<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Release {
    /// This release as the next one names it.
    #[must_use]
    pub fn as_previous(&self) -> Previous {
        Previous {
            version: self.version.clone(),
            sequence: self.sequence,
            time_ms: self.time_ms,
            artifact: self.artifact.clone(),
            interface: self.interface.clone(),
            position: self.position,
        }
    }

    /// The release before this one, as far as this one names it.
    #[must_use]
    pub fn to_previous(&self) -> Option<Self> {
        let previous = self.previous.clone()?;
        let mut earlier = self.earlier.iter().cloned();
        Some(Self {
            model: self.model.clone(),
            version: previous.version,
            sequence: previous.sequence,
            time_ms: previous.time_ms,
            artifact: previous.artifact,
            interface: previous.interface,
            labels: BTreeMap::new(),
            samples: None,
            previous: earlier.next(),
            earlier: earlier.collect(),
            position: previous.position,
        })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.model, self.version, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_writes_and_nothing_else() {
        let digest = Sha256Digest::of([&b"ab"[..], b"c"]);
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.to_string().to_uppercase().parse(), Ok(digest));
        for bad in ["", "ba78", &"+1".repeat(32), &"zz".repeat(32), &"é".repeat(32)] {
            assert!(bad.parse::<Sha256Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_with_a_slash_is_no_model_name() {
        for bad in ["", "a/b", "a b", &"a".repeat(201), "ü"] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad}");
        }
        assert!("a".repeat(200).parse::<ModelName>().is_ok());
    }
}
