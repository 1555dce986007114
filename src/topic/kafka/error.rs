//! librdkafka's error codes, by what the caller can do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::TopicError;
use super::client::LastError;

/// The error of a code, with the client's own words where there are any.
pub(super) fn by_code(code: Code, reason: Option<String>, topic: &str) -> TopicError {
    let reason = match reason {
        Some(words) if !words.is_empty() => words,
        // `Display` of a code is "name (description)".
        _ => code.to_string(),
    };
    match code {
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicId => TopicError::Missing { topic: topic.to_owned() },
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::PolicyViolation => TopicError::Denied { reason },
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            TopicError::TooLarge { reason }
        }
        Code::InvalidTopic => TopicError::Other { reason: format!("`{topic}` cannot name a topic") },
        code if is_transient(code) => TopicError::Unavailable { reason },
        _ => TopicError::Other { reason },
    }
}

/// The error of any failed call.
pub(super) fn of(error: &KafkaError, topic: &str) -> TopicError {
    match error {
        KafkaError::Transaction(error) => by_code(error.code(), Some(error.string()), topic),
        // Of which `rdkafka_error_code` knows nothing.
        KafkaError::AdminOp(code) => by_code(*code, None, topic),
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => super::config::config_error(error),
        other => match other.rdkafka_error_code() {
            Some(code) => by_code(code, None, topic),
            None => TopicError::Other { reason: other.to_string() },
        },
    }
}

/// Why there is no answer, where whoever tried to connect knows it better than whoever waited.
pub(super) fn explained(error: TopicError, last: &LastError, topic: &str) -> TopicError {
    match error {
        TopicError::Unavailable { reason } => match last.take() {
            Some((code, words)) => by_code(code, Some(words), topic),
            None => TopicError::Unavailable { reason },
        },
        error => error,
    }
}

/// True for the codes with which a broker tells a producer that another took its place.
pub(super) const fn is_fencing(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

const fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::BrokerNotAvailable
            | Code::Resolve
            | Code::SSL
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::MessageTimedOut
            | Code::TimedOutQueue
            | Code::NetworkException
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::ReplicaNotAvailable
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::ISRInsufficient
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::WaitingForCoordinator
            | Code::ConcurrentTransactions
            | Code::KafkaStorageError
            | Code::NotController
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::ThrottlingQuotaExceeded
            | Code::Retry
            // A response too large for the client ends the connection, and with it other requests.
            | Code::BadMessage
    )
}
