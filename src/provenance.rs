//! Which version of which model made a score.

use std::fmt;
use std::sync::Arc;

use crate::release::{ModelName, Position, Release, Sha256Digest};

/// Which version of a model made a score: the model, the version, the digest of its file, and
/// where its release stands on the topic.
///
/// ```
/// use modelswap::{Position, Provenance, Sha256Digest};
///
/// let made_by = Provenance::new(
///     "fraud".parse()?,
///     "2026-11-23",
///     Sha256Digest::of([&b"model"[..]]),
///     Position { partition: 0, offset: 41 },
/// );
/// let headers: Vec<_> = made_by.headers().collect();
/// assert_eq!(headers[1], ("modelswap-version", "2026-11-23"));
/// assert_eq!(headers[4], ("modelswap-offset", "41"));
/// # Ok::<(), modelswap::NameError>(())
/// ```
#[derive(Clone)]
pub struct Provenance {
    inner: Arc<ProvenanceInner>,
}

struct ProvenanceInner {
    model: ModelName,
    version: String,
    sha256: Sha256Digest,
    position: Position,
    /// The digest, the partition and the offset as text, so that headers cost nothing.
    texts: [String; 3],
}

impl Provenance {
    /// The provenance of a version.
    #[must_use]
    pub fn new(
        model: ModelName,
        version: impl Into<String>,
        sha256: Sha256Digest,
        position: Position,
    ) -> Self {
        let texts = [sha256.to_string(), position.partition.to_string(), position.offset.to_string()];
        Self { inner: Arc::new(ProvenanceInner { model, version: version.into(), sha256, position, texts }) }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.inner.model
    }

    /// The version, in the publisher's words.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.inner.version
    }

    /// The digest of the model's file.
    #[must_use]
    pub fn sha256(&self) -> Sha256Digest {
        self.inner.sha256
    }

    /// Where the record of the release stands on the topic.
    #[must_use]
    pub fn position(&self) -> Position {
        self.inner.position
    }

    /// Names and values of five headers for the record that the score goes into:
    /// `modelswap-model`, `-version`, `-sha256`, `-partition` and `-offset`. Allocates nothing.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let [sha256, partition, offset] = &self.inner.texts;
        [
            ("modelswap-model", self.inner.model.as_str()),
            ("modelswap-version", self.inner.version.as_str()),
            ("modelswap-sha256", sha256.as_str()),
            ("modelswap-partition", partition.as_str()),
            ("modelswap-offset", offset.as_str()),
        ]
        .into_iter()
    }
}

impl From<&Release> for Provenance {
    fn from(release: &Release) -> Self {
        Self::new(release.model.clone(), release.version.clone(), release.artifact.sha256, release.position)
    }
}

impl PartialEq for Provenance {
    fn eq(&self, other: &Self) -> bool {
        let key = |p: &Self| (p.inner.sha256, p.inner.position);
        key(self) == key(other) && self.model() == other.model() && self.version() == other.version()
    }
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        write!(f, "{} {} (sha256 {}, {})", inner.model, inner.version, inner.sha256.short(), inner.position)
    }
}
