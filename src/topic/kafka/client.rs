//! What every client has in common: logs go to `tracing`, errors are kept for whoever asks.

use std::sync::{Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The newest error that a client told by callback, with librdkafka's own words.
#[derive(Debug, Default)]
pub(super) struct LastError(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl LastError {
    fn set(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down says less than why the last of them is.
        if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }

    /// The words that came with this code, if it was the newest.
    pub(super) fn reason_of(&self, code: RDKafkaErrorCode) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(c, _)| *c == code).map(|(_, reason)| reason.clone())
    }

    /// The newest error, which is then forgotten.
    pub(super) fn take(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The part of librdkafka's debugging log that tells the ids of topics.
pub(super) const TOPIC_ID_LOG: &str = "metadata";

/// What a broker calls a topic besides its name; another one of the same name has another id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicId(String);

/// The newest id of the only topic that a client has to do with.
///
/// librdkafka tells it nowhere but in its log, at the level of debugging. Where it does not (another
/// version of librdkafka, a broker older than 2.8) there is none, and a topic that was made anew is
/// only noticed by what is missing in it.
#[derive(Debug, Default)]
pub(super) struct NewestTopicId(Mutex<Option<TopicId>>);

impl NewestTopicId {
    pub(super) fn get(&self) -> Option<TopicId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(&self, message: &str) {
        if let Some(id) = new_topic_id(message) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        }
    }
}

/// The id in librdkafka's `Topic models changed id from AAAAAAAAAAAAAAAAAAAAAA to 5fPLnzcQTAiS8Z_Yop21xA`.
fn new_topic_id(message: &str) -> Option<TopicId> {
    let (_, ids) = message.rsplit_once(" changed id from ")?;
    let (_, id) = ids.split_once(" to ")?;
    // Sixteen bytes; all of them zero is what there is before there is any.
    let real = id.len() == 22 && id.bytes().any(|b| b != b'A');
    real.then(|| TopicId(id.to_owned()))
}

/// The context of consumers and admin clients.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) last_error: LastError,
    pub(super) topic_id: NewestTopicId,
    /// The user asked for librdkafka's debugging log.
    debugged: bool,
}

impl Context {
    pub(super) fn of(client: &ClientConfig) -> Self {
        let debugged = client.get("debug").is_some_and(|contexts| contexts != TOPIC_ID_LOG);
        Self { debugged, ..Self::default() }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            self.topic_id.read(message);
            if !self.debugged {
                return;
            }
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note(&self.last_error, &error, reason);
    }
}

impl ConsumerContext for Context {}

/// Keeps an error that came by callback, unless it is none.
pub(super) fn note(last: &LastError, error: &KafkaError, reason: &str) {
    // The end of a partition is an event of the consumer, and comes here too.
    if let Some(code) = error.rdkafka_error_code()
        && code != RDKafkaErrorCode::PartitionEOF
    {
        tracing::debug!(target: "modelswap::kafka", ?code, reason, "client error");
        last.set(code, reason);
    }
}

/// librdkafka's log. What matters of it reaches the status in another way, so its errors, which it
/// repeats with every attempt to connect, are only warnings here.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "modelswap::kafka", facility, "{message}");
        }
        // A property of producers in the configuration of a consumer, which is no mistake here.
        _ if facility == "CONFWARN" => tracing::debug!(target: "modelswap::kafka", facility, "{message}"),
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "modelswap::kafka", facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "modelswap::kafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "modelswap::kafka", facility, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_topic_is_read_from_librdkafkas_words() {
        let (none, some) = ("AAAAAAAAAAAAAAAAAAAAAA", "5fPLnzcQTAiS8Z_Yop21xA");
        let read = |from, to| {
            new_topic_id(&format!("[thrd:main]: Topic changed id from x changed id from {from} to {to}"))
        };
        assert_eq!(read(none, some), Some(TopicId(some.into())));
        assert_eq!(read(some, none), None);
        assert_eq!(new_topic_id("[thrd:main]: Topic a [0] Leader 1 Epoch 0"), None);
    }
}
