//! What every client has in common: logs go to `tracing`, errors are kept for whoever asks.

use std::sync::{Mutex, PoisonError};

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

/// The context of consumers and admin clients.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) last_error: LastError,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
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
