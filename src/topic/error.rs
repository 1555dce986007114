//! What can go wrong with a topic.

/// Why a topic could not be read or written; each kind asks something else of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The brokers cannot be reached or do not answer: it may pass by itself.
    #[error("the topic is unavailable: {reason}")]
    Unavailable {
        /// What the client reports.
        reason: String,
    },
    /// The brokers refuse: wrong credentials, or an ACL is missing.
    #[error("access denied: {reason}")]
    Denied {
        /// What the broker reports, with the operation where it is known.
        reason: String,
    },
    /// There is no such topic, or nobody may see it.
    #[error("there is no topic `{topic}`, or this client may not describe it")]
    Missing {
        /// The name of the topic.
        topic: String,
    },
    /// A later writer of the same transactional id took over.
    #[error("fenced: another publisher of this model took over (transactional id `{transactional_id}`)")]
    Fenced {
        /// The id that both use.
        transactional_id: String,
    },
    /// A record is larger than the topic, the broker or the client allows.
    #[error("the record is too large: {reason}")]
    TooLarge {
        /// Which limit, where it is known.
        reason: String,
    },
    /// A configuration property is unknown, has a bad value, or is not the user's to set.
    #[error("configuration property `{key}`: {reason}")]
    Config {
        /// The property.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Anything else; trying again does not help.
    #[error("{reason}")]
    Other {
        /// What the client reports.
        reason: String,
    },
}

impl TopicError {
    /// True where the same call can succeed later without anybody doing anything to this program.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Denied { .. } | Self::Missing { .. })
    }

    /// A topic that is unavailable for this reason.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }
}
