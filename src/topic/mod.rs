//! The topic of models, as the rest of the crate sees it.
//!
//! [`Topic`] opens what reads and writes one topic. It has two twins: [`MemoryTopic`], and with the
//! feature `kafka` [`KafkaTopic`]; both pass the same conformance tests.
//!
//! Everything in here blocks. Open, use and drop readers, fetchers and writers on a thread of their
//! own, never on an async worker: closing a Kafka consumer alone takes some 100 ms.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;

use crate::release::Position;
use crate::wire::{Header, Record};

mod error;
#[cfg(feature = "kafka")]
mod kafka;
mod memory;

pub use error::TopicError;
#[cfg(feature = "kafka")]
pub use kafka::{KafkaTopic, TopicDescription, TopicSettings};
pub use memory::MemoryTopic;

/// A topic of models: opens what reads and writes it.
pub trait Topic: Send + Sync {
    /// The name of the topic.
    fn name(&self) -> &str;

    /// A reader of all partitions, from the beginning and then on.
    ///
    /// # Errors
    /// [`TopicError::Config`], [`TopicError::Other`]. A topic or broker that is not there is no
    /// error here: the reader tells it, and goes on trying.
    fn reader(&self) -> Result<Box<dyn TopicReader>, TopicError>;

    /// What reads single records again, by their position.
    ///
    /// # Errors
    /// [`TopicError::Config`], [`TopicError::Other`].
    fn fetcher(&self) -> Result<Box<dyn RecordFetcher>, TopicError>;

    /// A writer that fences every earlier writer of the same `transactional_id`: their open
    /// transactions are aborted, and whatever they do next fails with [`TopicError::Fenced`].
    ///
    /// # Errors
    /// Any [`TopicError`].
    fn writer(&self, transactional_id: &str) -> Result<Box<dyn TopicWriter>, TopicError>;
}

/// Reads a topic in full, then follows it. Records of one partition come in the order of their
/// offsets; of a transaction, only once it is committed.
pub trait TopicReader: Send {
    /// What happens next, or [`TopicEvent::Idle`] after `timeout`.
    ///
    /// It never fails for good: what goes wrong is [`TopicEvent::Unavailable`], the reader goes on
    /// trying by itself, and [`TopicEvent::Available`] tells that it succeeded.
    fn next(&mut self, timeout: Duration) -> TopicEvent;

    /// Leaves out the values of records by their keys, from the next record on: they come with an empty
    /// value, a tombstone still with none. For who only wants to know that large values are there; a
    /// reader that cannot spare itself any work by it delivers them all the same.
    fn omit_values(&mut self, of: fn(key: &[u8]) -> bool) {
        let _ = of;
    }
}

/// What a [`TopicReader`] comes back with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TopicEvent {
    /// Nothing happened in the time given.
    Idle,
    /// A record.
    Record(Record),
    /// Every partition has been read to its end. Told once at the start, and again after
    /// [`TopicEvent::Restarted`] and after new partitions were found and read.
    CaughtUp,
    /// The topic cannot be read now, for this reason. Told again when the reason changes.
    Unavailable(TopicError),
    /// The topic can be read again.
    Available,
    /// The topic was deleted and created anew: it is read from the beginning again, and positions
    /// told before mean nothing now.
    Restarted,
    /// A record is larger than can be read; it is not delivered.
    Oversized(Oversized),
}

/// A record that is larger than a reader can take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Oversized {
    /// Where the record stands, or the first one of the batch that holds it.
    pub position: Position,
    /// The key, where the reader could tell it.
    pub key: Option<Bytes>,
    /// How large it is in bytes, where the reader could tell it.
    pub bytes: Option<u64>,
    /// The largest that can be read, in bytes.
    pub limit: u64,
    /// True where the reader cannot get past it, and the partition is stuck until the record is
    /// compacted away; false where it goes on behind it.
    pub blocks_partition: bool,
}

impl fmt::Display for Oversized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record at {} ", self.position)?;
        match self.bytes {
            Some(bytes) => write!(f, "has {bytes} bytes, ")?,
            None => f.write_str("is too large, ")?,
        }
        write!(f, "at most {} can be read", self.limit)?;
        if self.blocks_partition {
            f.write_str("; nothing behind it in its partition can be read either")?;
        }
        Ok(())
    }
}

/// Reads single records again.
pub trait RecordFetcher: Send {
    /// Delivers the records at these positions, each at most once, those of one partition in
    /// ascending order. A record that is no longer on the topic (compacted away) is not delivered.
    /// Ends early, with `Ok`, when `deliver` breaks.
    ///
    /// # Errors
    /// Where the topic cannot be read. It waits a bounded time without any progress, no longer.
    fn fetch(
        &mut self,
        positions: &[Position],
        deliver: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), TopicError>;
}

/// Writes to a topic in transactions.
///
/// After an error the transaction is to be aborted; after [`TopicError::Fenced`] the writer is of
/// no use any more. A writer that is dropped leaves nothing of an open transaction behind.
pub trait TopicWriter: Send {
    /// The number of partitions that the topic has now.
    ///
    /// # Errors
    /// Any [`TopicError`].
    fn partitions(&mut self) -> Result<i32, TopicError>;

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`TopicError::Fenced`], [`TopicError::Other`].
    fn begin(&mut self) -> Result<(), TopicError>;

    /// Adds a record to the transaction; `None` is a tombstone. Blocks while too much waits to be
    /// delivered, so that the memory for it is bounded.
    ///
    /// # Errors
    /// Any [`TopicError`].
    fn send(
        &mut self,
        partition: i32,
        key: &[u8],
        value: Option<Bytes>,
        headers: &[Header],
    ) -> Result<(), TopicError>;

    /// Waits until everything that was sent is delivered, and commits it. The answer has the
    /// positions of the records in the order in which they were sent.
    ///
    /// # Errors
    /// Any [`TopicError`]. The transaction is then to be aborted.
    fn commit(&mut self) -> Result<Vec<Position>, TopicError>;

    /// Aborts the transaction; none of its records is ever read.
    ///
    /// # Errors
    /// Any [`TopicError`].
    fn abort(&mut self) -> Result<(), TopicError>;
}
