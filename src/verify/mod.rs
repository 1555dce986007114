//! From an announced release to a model that may go live, step by step:
//!
//! ```text
//! Release -> Sized -> Verified -> Loaded -> Proven
//!        size    digest     format,    signature,
//!                           structure  samples, warm-up
//! ```
//!
//! Each of these types can only be made from the one before it, by the check between them; so no
//! bytes are hashed that are too long, none are parsed whose digest is wrong, and nothing is made
//! live that was not run.

mod bytes;
mod model;

use std::fmt;

pub(crate) use self::bytes::{Hashed, Hashing, Sized, Verified};
pub use self::model::warm_up;
pub(crate) use self::model::{Loaded, Proven};

/// Why a release was not made live.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {reason}")]
#[non_exhaustive]
pub struct Rejection {
    /// The check that it failed.
    pub stage: Stage,
    /// What was expected and what was found.
    pub reason: String,
}

impl Rejection {
    pub(crate) fn new(stage: Stage, reason: impl fmt::Display) -> Self {
        Self { stage, reason: reason.to_string() }
    }
}

/// The checks that a release goes through, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// The record itself: its document, its headers.
    Announcement,
    /// The length of the artifact.
    Size,
    /// The chunks: that all are there, and as long as the release says.
    Chunks,
    /// The SHA-256 digest of the artifact.
    Digest,
    /// Its format and structure: that it loads.
    Load,
    /// Its signature: that it is what the application expects.
    Signature,
    /// Its golden samples: that it answers what the publisher said.
    Samples,
    /// Its first run.
    WarmUp,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Announcement => "announcement",
            Self::Size => "size",
            Self::Chunks => "chunks",
            Self::Digest => "digest",
            Self::Load => "load",
            Self::Signature => "signature",
            Self::Samples => "samples",
            Self::WarmUp => "warm-up",
        })
    }
}
