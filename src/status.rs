//! What an operator sees: the state of the topic and of every model.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::release::{ModelName, Position, Release};
use crate::scorer::Provenance;
use crate::signature::Signature;
use crate::verify::Rejection;

/// The state of a subscription at one moment.
///
/// Its `Display` is one line for the topic and one for each model, for a log or a health page.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// The topic.
    pub topic: TopicState,
    /// The models that are subscribed to, or were found.
    pub models: BTreeMap<ModelName, ModelStatus>,
}

/// The state of the topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicState {
    /// It is being read from the beginning; nothing is loaded until its end is reached.
    #[default]
    Reading,
    /// Its end has been reached, and it is being followed.
    CaughtUp,
    /// It cannot be read now. What is live goes on scoring, and the subscriber goes on trying.
    Unavailable {
        /// Why, in the words of the client library or the broker.
        reason: String,
    },
    /// The subscription was shut down, or its updater died. What was live goes on scoring.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// The state of one model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ModelStatus {
    /// What is live.
    pub live: Option<LiveStatus>,
    /// What is being done.
    pub activity: Activity,
    /// The newest announcement that stands on the topic.
    pub newest: Option<Announced>,
    /// The last release that was not made live.
    pub last_rejected: Option<Rejected>,
    /// How often a version was made live.
    pub swaps: u64,
    /// How many releases were rejected.
    pub rejections: u64,
    /// How often a load was put off because the topic could not be read.
    pub retries: u64,
    /// Versions that are no longer live and whose memory is not free yet, mostly because somebody
    /// still holds them.
    pub retired: usize,
}

/// The live version of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LiveStatus {
    /// Which version it is.
    pub provenance: Provenance,
    /// What it takes and gives.
    pub signature: Signature,
    /// The engine that runs it.
    pub engine: &'static str,
    /// An estimate of the memory that it holds, in bytes; 0 where it is not known.
    pub memory: usize,
    /// How long it took to load.
    pub load_time: Duration,
    /// How long its golden samples or first runs took.
    pub warm_up_time: Duration,
}

/// What is being done for a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activity {
    /// Nothing.
    #[default]
    Idle,
    /// A release is being read, verified and loaded.
    Loading {
        /// Its version.
        version: String,
    },
    /// A load was put off, and is tried again by itself.
    Retrying {
        /// Its version.
        version: String,
        /// Why it was put off.
        reason: String,
    },
}

/// An announcement on the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announced {
    /// Where it stands.
    pub position: Position,
    /// The version, where it is a release that can be read; `None` for a tombstone and for what
    /// cannot be read.
    pub version: Option<String>,
}

/// A release that was not made live.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The version, where the record could be read.
    pub version: Option<String>,
    /// Where its record stands.
    pub position: Position,
    /// Why.
    pub rejection: Rejection,
}

impl Rejected {
    pub(crate) fn new(release: &Release, rejection: Rejection) -> Self {
        Self { version: Some(release.version.clone()), position: release.position, rejection }
    }
}

impl Status {
    /// The state of a model.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&ModelStatus> {
        self.models.iter().find(|(model, _)| model.as_str() == name).map(|(_, status)| status)
    }

    /// The version of a model that is live.
    #[must_use]
    pub fn live_version(&self, name: &str) -> Option<&str> {
        self.model(name)?.live.as_ref().map(|live| live.provenance.version())
    }

    /// Why a model has no live version, in one line.
    pub(crate) fn why_not_live(&self, name: &ModelName) -> String {
        let model = self.models.get(name);
        let topic = match &self.topic {
            TopicState::CaughtUp => None,
            other => Some(other.to_string()),
        };
        let release = model.and_then(|model| match (&model.activity, &model.last_rejected, &model.newest) {
            (Activity::Idle, Some(rejected), _) => Some(rejected.to_string()),
            (Activity::Idle, None, Some(Announced { version: None, .. })) => {
                Some("the model was withdrawn".to_owned())
            }
            (Activity::Idle, None, None) => None,
            (Activity::Idle, None, Some(_)) => Some("its newest release waits to be loaded".to_owned()),
            (activity, _, _) => Some(activity.to_string()),
        });
        match (topic, release) {
            (Some(topic), None) => topic,
            (None, Some(release)) => release,
            (Some(topic), Some(release)) => format!("{release}; {topic}"),
            (None, None) => "the topic has no release of it".to_owned(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.topic)?;
        for (name, model) in &self.models {
            write!(f, "\n{name}: {model}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TopicState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reading => f.write_str("the topic is still being read"),
            Self::CaughtUp => f.write_str("the topic is read to its end"),
            Self::Unavailable { reason } => write!(f, "the topic cannot be read: {reason}"),
            Self::Stopped { reason } => write!(f, "the subscription has stopped: {reason}"),
        }
    }
}

impl fmt::Display for ModelStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.live {
            Some(live) => write!(f, "{} is live", live.provenance)?,
            None => f.write_str("no live version")?,
        }
        if self.activity != Activity::Idle {
            write!(f, "; {}", self.activity)?;
        }
        if let Some(rejected) = &self.last_rejected {
            write!(f, "; {rejected}")?;
        }
        write!(f, " ({} swaps, {} rejections, {} retries)", self.swaps, self.rejections, self.retries)
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Loading { version } => write!(f, "version {version} is being loaded"),
            Self::Retrying { version, reason } => {
                write!(f, "version {version} could not be read and is tried again: {reason}")
            }
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "version {version} at {} was rejected: ", self.position)?,
            None => write!(f, "the record at {} was rejected: ", self.position)?,
        }
        self.rejection.fmt(f)
    }
}
