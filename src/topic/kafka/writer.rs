//! Writes in transactions, with a bounded queue.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::client::LastError;
use super::config::Config;
use super::{TopicError, TopicWriter, client, error, message};
use crate::release::Position;
use crate::wire::Header;

/// The most bytes that wait for their delivery; `send` blocks beyond. They have to be delivered within
/// the transaction's timeout, so there are few until it is known that the line is fast.
const FEWEST_BYTES: usize = 2 << 20;
const MOST_BYTES: usize = 8 << 20;
/// A transaction that is over so soon, and was as large as that: the line takes twice as much.
const SOON: Duration = Duration::from_secs(5);
/// How long a call may take. A record is given up by librdkafka after the transaction's timeout.
const PATIENCE: Duration = Duration::from_mins(1);
const METADATA: Duration = Duration::from_secs(15);
/// How long the client's thread may take to put a delivery report away, and how often it is asked.
const SETTLE: Duration = Duration::from_millis(100);
const GLANCE: Duration = Duration::from_micros(20);

pub(super) struct Writer {
    topic: String,
    transactional_id: String,
    producer: ThreadedProducer<Context>,
    /// Since when a transaction is open.
    open: Option<Instant>,
    /// What has been sent in it.
    sent_bytes: usize,
    /// How many bytes may wait for their delivery.
    queue_bytes: usize,
}

impl Writer {
    pub(super) fn new(topic: &str, config: &Config, transactional_id: &str) -> Result<Self, TopicError> {
        let producer = config
            .producer(transactional_id)?
            .create_with_context(Context::default())
            .map_err(|e| super::config::config_error(&e))?;
        let mut writer = Self {
            topic: topic.to_owned(),
            transactional_id: transactional_id.to_owned(),
            producer,
            open: None,
            sent_bytes: 0,
            queue_bytes: FEWEST_BYTES,
        };
        // A topic or brokers that are not there are told sooner, and better, than by a coordinator.
        writer.partitions()?;
        // The first answer names the brokers, and the client then leaves the address that it was given
        // for theirs. A second one comes from there; without a connection to look for the
        // coordinator over, the client would sleep for half a second.
        writer.partitions()?;
        writer.retry(Producer::init_transactions)?;
        Ok(writer)
    }

    /// Repeats a call for as long as its error says that this may help.
    fn retry(
        &self,
        mut call: impl FnMut(&ThreadedProducer<Context>, Duration) -> KafkaResult<()>,
    ) -> Result<(), TopicError> {
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match call(&self.producer, left) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && !error.txn_requires_abort() && start.elapsed() < PATIENCE => {}
                Err(error) => return Err(self.error(&error)),
            }
        }
    }

    fn error(&self, failure: &KafkaError) -> TopicError {
        // After a fatal error every call only says that there was one.
        let fatal = self.producer.client().fatal_error();
        if let Some((code, reason)) = fatal {
            return self.by_code(code, Some(reason));
        }
        match failure {
            KafkaError::Transaction(error) => self.by_code(error.code(), Some(error.string())),
            other => other.rdkafka_error_code().map_or_else(
                || error::of(other, &self.topic),
                |code| self.by_code(code, self.producer.context().last_error.reason_of(code)),
            ),
        }
    }

    fn by_code(&self, code: Code, reason: Option<String>) -> TopicError {
        if error::is_fencing(code) {
            return TopicError::Fenced { transactional_id: self.transactional_id.clone() };
        }
        error::by_code(code, reason, &self.topic)
    }

    /// Waits until the client's thread is done with the last delivery report. The report has told us
    /// before it is counted as done, and a commit that still counts it waits 100 ms for another.
    fn settle(&self) {
        let start = Instant::now();
        while self.producer.in_flight_count() > 0 && start.elapsed() < SETTLE {
            std::thread::sleep(GLANCE);
        }
    }

    /// The first record of the transaction that could not be delivered.
    fn undelivered(&self, deliveries: &Deliveries) -> Result<(), TopicError> {
        match deliveries.failed {
            Some(code) => Err(self.error(&KafkaError::MessageProduction(code))),
            None => Ok(()),
        }
    }

    /// Waits until `enough` is true of what is under way, or something failed.
    fn wait(&self, enough: impl Fn(&Deliveries) -> bool) -> Result<MutexGuard<'_, Deliveries>, TopicError> {
        let context = self.producer.context();
        let mut deliveries = context.lock();
        let mut progress = (deliveries.waiting_bytes, Instant::now());
        loop {
            self.undelivered(&deliveries)?;
            if enough(&deliveries) {
                return Ok(deliveries);
            }
            if deliveries.waiting_bytes != progress.0 {
                progress = (deliveries.waiting_bytes, Instant::now());
            }
            let left = PATIENCE.saturating_sub(progress.1.elapsed());
            if left.is_zero() {
                return Err(TopicError::unavailable(format!(
                    "no record was delivered for {} s",
                    PATIENCE.as_secs()
                )));
            }
            deliveries =
                context.delivered.wait_timeout(deliveries, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl TopicWriter for Writer {
    fn partitions(&mut self) -> Result<i32, TopicError> {
        let metadata = self.producer.client().fetch_metadata(Some(&self.topic), METADATA);
        let last_error = &self.producer.context().last_error;
        let metadata = metadata.map_err(|e| error::explained(self.error(&e), last_error, &self.topic))?;
        let topic = metadata.topics().first();
        if let Some(code) = topic.and_then(MetadataTopic::error) {
            return Err(error::by_code(code.into(), None, &self.topic));
        }
        match topic.map_or(0, |t| t.partitions().len()) {
            0 => Err(TopicError::Missing { topic: self.topic.clone() }),
            count => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
        }
    }

    fn begin(&mut self) -> Result<(), TopicError> {
        self.producer.begin_transaction().map_err(|e| self.error(&e))?;
        (self.open, self.sent_bytes) = (Some(Instant::now()), 0);
        *self.producer.context().lock() = Deliveries::default();
        Ok(())
    }

    fn send(
        &mut self,
        partition: i32,
        key: &[u8],
        value: Option<Bytes>,
        headers: &[Header],
    ) -> Result<(), TopicError> {
        let bytes = value.as_ref().map_or(0, Bytes::len).saturating_add(key.len());
        let index = {
            let mut deliveries =
                self.wait(|d| d.waiting == 0 || d.waiting_bytes.saturating_add(bytes) <= self.queue_bytes)?;
            deliveries.positions.push(None);
            deliveries.waiting += 1;
            deliveries.waiting_bytes = deliveries.waiting_bytes.saturating_add(bytes);
            deliveries.positions.len() - 1
        };
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        let ticket = Box::new(Ticket { index, bytes });
        let mut record = BaseRecord::<[u8], [u8], Box<Ticket>>::with_opaque_to(&self.topic, ticket)
            .partition(partition)
            .key(key);
        record.payload = value.as_deref();
        record.headers = message::headers(headers);
        match self.producer.send(record) {
            Ok(()) => Ok(()),
            Err((failure, record)) => {
                self.producer.context().settle(&record.delivery_opaque, Err(Code::Fail));
                Err(self.error(&failure))
            }
        }
    }

    fn commit(&mut self) -> Result<Vec<Position>, TopicError> {
        let positions = {
            let mut deliveries = self.wait(|d| d.waiting == 0)?;
            std::mem::take(&mut deliveries.positions)
        };
        self.settle();
        self.retry(Producer::commit_transaction)?;
        let is_soon = self.open.take().is_some_and(|begin| begin.elapsed() < SOON);
        if is_soon && self.sent_bytes >= self.queue_bytes {
            self.queue_bytes = (2 * self.queue_bytes).min(MOST_BYTES);
        }
        Ok(positions.into_iter().flatten().collect())
    }

    fn abort(&mut self) -> Result<(), TopicError> {
        if self.open.take().is_some() {
            self.retry(Producer::abort_transaction)?;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // An open transaction would keep readers from what is behind it until the broker gives it up.
        if self.open.is_some()
            && let Err(error) = self.producer.abort_transaction(Duration::from_secs(5))
        {
            tracing::debug!(topic = self.topic, %error, "abort of an open transaction");
        }
    }
}

/// Follows the records of a transaction to their delivery.
#[derive(Default)]
struct Context {
    last_error: LastError,
    deliveries: Mutex<Deliveries>,
    delivered: Condvar,
}

#[derive(Default)]
struct Deliveries {
    /// Of each record that was sent, where it came to stand.
    positions: Vec<Option<Position>>,
    waiting: usize,
    waiting_bytes: usize,
    failed: Option<Code>,
}

/// Which record of the transaction a delivery report is about.
struct Ticket {
    index: usize,
    bytes: usize,
}

impl Context {
    fn lock(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, ticket: &Ticket, result: Result<Position, Code>) {
        let mut deliveries = self.lock();
        deliveries.waiting = deliveries.waiting.saturating_sub(1);
        deliveries.waiting_bytes = deliveries.waiting_bytes.saturating_sub(ticket.bytes);
        match result {
            Ok(position) => {
                if let Some(slot) = deliveries.positions.get_mut(ticket.index) {
                    *slot = Some(position);
                }
            }
            Err(code) => deliveries.failed = deliveries.failed.or(Some(code)),
        }
        drop(deliveries);
        self.delivered.notify_all();
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::note(&self.last_error, &error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let result = match result {
            Ok(message) => Ok(Position { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        };
        self.settle(&ticket, result);
    }
}
