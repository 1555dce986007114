//! The topic in memory.

use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;

use super::{RecordFetcher, Topic, TopicError, TopicReader, TopicWriter};
use crate::release::Position;
use crate::wire::{Header, Record, partition_of};

mod clients;
mod state;

use clients::{Fetcher, Reader, Writer};
use state::{Draft, Partition, Shared, State};

/// A topic that lives in this process: what a broker does for a [`Topic`], without one.
///
/// Every clone is a handle of the same topic. Its readers wake at once. Compaction runs when it is
/// asked for, and what can go wrong with a broker can be made to happen.
///
/// ```
/// use std::time::Duration;
/// use modelswap::topic::{MemoryTopic, Topic, TopicEvent};
///
/// let topic = MemoryTopic::new("models", 1);
/// topic.append(b"fraud", Some("v1".into()), &[]);
/// topic.append(b"fraud", Some("v2".into()), &[]);
/// topic.compact();
///
/// let mut reader = topic.reader()?;
/// let TopicEvent::Record(record) = reader.next(Duration::ZERO) else { panic!() };
/// assert_eq!((record.position.offset, record.value), (1, Some("v2".into())));
/// assert_eq!(reader.next(Duration::ZERO), TopicEvent::CaughtUp);
/// # Ok::<(), modelswap::topic::TopicError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryTopic {
    shared: Arc<Shared>,
}

impl MemoryTopic {
    /// An empty topic of so many partitions.
    #[must_use]
    pub fn new(name: impl Into<String>, partitions: usize) -> Self {
        let state = State { partitions: vec![Partition::default(); partitions], ..State::default() };
        Self {
            shared: Arc::new(Shared { name: name.into(), state: Mutex::new(state), changed: Condvar::new() }),
        }
    }

    /// Writes a record outside any transaction to the partition that Kafka's default partitioner
    /// chooses for the key; `None` is a tombstone.
    pub fn append(&self, key: &[u8], value: Option<Bytes>, headers: &[Header]) -> Position {
        let count = i32::try_from(self.shared.lock().partitions.len()).unwrap_or(i32::MAX);
        self.append_to(partition_of(key, count), key, value, headers)
    }

    /// Like [`MemoryTopic::append`], to a partition of the caller's choice, which is created where
    /// it does not exist.
    pub fn append_to(
        &self,
        partition: i32,
        key: &[u8],
        value: Option<Bytes>,
        headers: &[Header],
    ) -> Position {
        self.shared.change(|state| {
            let draft =
                Draft { partition, key: Bytes::copy_from_slice(key), value, headers: headers.to_vec() };
            state.append(draft)
        })
    }

    /// Keeps the newest record of each key in each partition, and no tombstone.
    pub fn compact(&self) {
        self.shared.change(|state| {
            for partition in &mut state.partitions {
                partition.compact();
            }
        });
    }

    /// Adds empty partitions up to this number.
    pub fn grow(&self, partitions: usize) {
        self.shared.change(|state| {
            let count = partitions.max(state.partitions.len());
            state.partitions.resize_with(count, Partition::default);
        });
    }

    /// Deletes the topic and creates it anew, empty, with so many partitions.
    pub fn recreate(&self, partitions: usize) {
        self.shared.change(|state| {
            state.partitions = vec![Partition::default(); partitions];
            state.generation += 1;
        });
    }

    /// Makes everything fail with this error until it is called with `None`.
    pub fn set_fault(&self, fault: Option<TopicError>) {
        self.shared.change(|state| state.fault = fault);
    }

    /// Makes records whose value is larger than this unreadable; those behind them are read.
    pub fn set_max_record_bytes(&self, limit: u64) {
        self.shared.change(|state| state.max_record_bytes = Some(limit));
    }

    /// Everything that lies on the topic now, partition by partition.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.shared.lock().partitions.iter().flat_map(|p| p.records.values().cloned()).collect()
    }
}

impl Topic for MemoryTopic {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn reader(&self) -> Result<Box<dyn TopicReader>, TopicError> {
        let generation = self.shared.lock().generation;
        Ok(Box::new(Reader {
            shared: self.shared.clone(),
            generation,
            next: Vec::new(),
            turn: 0,
            caught_up: false,
            fault: None,
            omitted: |_| false,
        }))
    }

    fn fetcher(&self) -> Result<Box<dyn RecordFetcher>, TopicError> {
        Ok(Box::new(Fetcher { shared: self.shared.clone() }))
    }

    fn writer(&self, transactional_id: &str) -> Result<Box<dyn TopicWriter>, TopicError> {
        let epoch = self.shared.change(|state| {
            state.check()?;
            let epoch = state.epochs.entry(transactional_id.to_owned()).or_default();
            *epoch += 1;
            Ok(*epoch)
        })?;
        Ok(Box::new(Writer {
            shared: self.shared.clone(),
            transactional_id: transactional_id.to_owned(),
            epoch,
            transaction: None,
        }))
    }
}
