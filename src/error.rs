//! The error of the control plane: everything but a prediction.

use std::error::Error as StdError;
use std::fmt;

use crate::topic::TopicError;

/// Why something other than a prediction did not work.
///
/// [`Error::kind`] tells what the caller can do about it, the message what happened.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Change the call or the configuration: it can never work as it is.
    Config,
    /// Try again later: the topic or its brokers do not answer.
    Unavailable,
    /// Ask for the permission that is missing.
    Denied,
    /// Publish another model: this one was refused.
    Rejected,
    /// Look which other publisher of the same model is at work.
    Fenced,
    /// Look what there is: no such model, version or topic.
    NotFound,
    /// Wait longer, or read in the message why there is nothing yet.
    Timeout,
    /// Nothing: the handle was shut down.
    Closed,
    /// Nothing: it was asked to stop, see
    /// [`Publisher::stop_when`](crate::publish::Publisher::stop_when).
    Cancelled,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<TopicError> for Error {
    fn from(error: TopicError) -> Self {
        let kind = match &error {
            TopicError::Unavailable { .. } => ErrorKind::Unavailable,
            TopicError::Denied { .. } => ErrorKind::Denied,
            TopicError::Missing { .. } => ErrorKind::NotFound,
            TopicError::Fenced { .. } => ErrorKind::Fenced,
            TopicError::TooLarge { .. } | TopicError::Config { .. } | TopicError::Other { .. } => {
                ErrorKind::Config
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}
