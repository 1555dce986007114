//! The topic in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Oversized, RecordFetcher, Topic, TopicError, TopicEvent, TopicReader, TopicWriter};
use crate::release::Position;
use crate::wire::{Header, Record, partition_of};

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

#[derive(Debug)]
struct Shared {
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }
}

#[derive(Debug, Default)]
struct State {
    partitions: Vec<Partition>,
    /// The newest epoch of each transactional id.
    epochs: HashMap<String, u64>,
    fault: Option<TopicError>,
    max_record_bytes: Option<u64>,
    /// Counts how often the topic was created anew.
    generation: u64,
}

impl State {
    fn check(&self) -> Result<(), TopicError> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn append(&mut self, draft: Draft) -> Position {
        let index = usize::try_from(draft.partition).unwrap_or(0);
        if index >= self.partitions.len() {
            self.partitions.resize_with(index + 1, Partition::default);
        }
        let mut position = Position { partition: draft.partition.max(0), offset: 0 };
        if let Some(partition) = self.partitions.get_mut(index) {
            position.offset = partition.end;
            let record = Record {
                position,
                timestamp_ms: now_ms(),
                key: draft.key,
                value: draft.value,
                headers: draft.headers,
            };
            partition.records.insert(partition.end, record);
            partition.end += 1;
        }
        position
    }
}

#[derive(Clone, Debug, Default)]
struct Partition {
    records: BTreeMap<i64, Record>,
    end: i64,
}

impl Partition {
    fn compact(&mut self) {
        let newest: HashMap<Bytes, i64> =
            self.records.values().map(|r| (r.key.clone(), r.position.offset)).collect();
        self.records.retain(|offset, r| r.value.is_some() && newest.get(&r.key) == Some(offset));
    }
}

/// A record that is not on the topic yet.
struct Draft {
    partition: i32,
    key: Bytes,
    value: Option<Bytes>,
    headers: Vec<Header>,
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

struct Reader {
    shared: Arc<Shared>,
    generation: u64,
    /// The offset to read next, of each partition that is known.
    next: Vec<i64>,
    /// The partition to look at first, so that none starves.
    turn: usize,
    caught_up: bool,
    fault: Option<TopicError>,
}

impl TopicReader for Reader {
    fn next(&mut self, timeout: Duration) -> TopicEvent {
        let deadline = Instant::now().checked_add(timeout);
        let shared = self.shared.clone();
        let mut state = shared.lock();
        loop {
            if let Some(event) = self.look(&state) {
                return event;
            }
            let left = deadline.map_or(timeout, |d| d.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return TopicEvent::Idle;
            }
            state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Reader {
    fn look(&mut self, state: &State) -> Option<TopicEvent> {
        if self.fault != state.fault {
            self.fault.clone_from(&state.fault);
            return Some(self.fault.clone().map_or(TopicEvent::Available, TopicEvent::Unavailable));
        }
        if self.fault.is_some() {
            return None;
        }
        if self.generation != state.generation {
            self.generation = state.generation;
            self.next.clear();
            self.caught_up = false;
            return Some(TopicEvent::Restarted);
        }
        if self.next.len() < state.partitions.len() {
            self.next.resize(state.partitions.len(), 0);
            self.caught_up = false;
        }
        let count = self.next.len();
        for index in (self.turn..count).chain(0..self.turn.min(count)) {
            let (Some(next), Some(partition)) = (self.next.get_mut(index), state.partitions.get(index))
            else {
                continue;
            };
            if let Some((offset, record)) = partition.records.range(*next..).next() {
                *next = offset + 1;
                self.turn = index + 1;
                return Some(deliver(record, state.max_record_bytes));
            }
        }
        if self.caught_up {
            return None;
        }
        self.caught_up = true;
        Some(TopicEvent::CaughtUp)
    }
}

fn deliver(record: &Record, limit: Option<u64>) -> TopicEvent {
    let bytes = record.value.as_ref().map_or(0, |v| v.len() as u64);
    match limit {
        Some(limit) if bytes > limit => TopicEvent::Oversized(Oversized {
            position: record.position,
            key: Some(record.key.clone()),
            bytes: Some(bytes),
            limit,
            blocks_partition: false,
        }),
        _ => TopicEvent::Record(record.clone()),
    }
}

struct Fetcher {
    shared: Arc<Shared>,
}

impl RecordFetcher for Fetcher {
    fn fetch(
        &mut self,
        positions: &[Position],
        deliver: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), TopicError> {
        for position in positions.iter().copied().collect::<BTreeSet<_>>() {
            // The lock is not held while `deliver` runs: it may write to the topic.
            let record = {
                let state = self.shared.lock();
                state.check()?;
                let partition = usize::try_from(position.partition).ok();
                let partition = partition.and_then(|p| state.partitions.get(p));
                partition.and_then(|p| p.records.get(&position.offset)).cloned()
            };
            if let Some(record) = record
                && deliver(record).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

struct Writer {
    shared: Arc<Shared>,
    transactional_id: String,
    epoch: u64,
    transaction: Option<Vec<Draft>>,
}

impl Writer {
    /// The state, where it can be reached and no later writer has fenced this one.
    fn state(&self) -> Result<MutexGuard<'_, State>, TopicError> {
        let state = self.shared.lock();
        state.check()?;
        if state.epochs.get(&self.transactional_id) != Some(&self.epoch) {
            return Err(TopicError::Fenced { transactional_id: self.transactional_id.clone() });
        }
        Ok(state)
    }

    fn no_transaction() -> TopicError {
        TopicError::Other { reason: "no transaction was begun".into() }
    }
}

impl TopicWriter for Writer {
    fn partitions(&mut self) -> Result<i32, TopicError> {
        Ok(i32::try_from(self.state()?.partitions.len()).unwrap_or(i32::MAX))
    }

    fn begin(&mut self) -> Result<(), TopicError> {
        drop(self.state()?);
        if self.transaction.is_some() {
            return Err(TopicError::Other { reason: "a transaction is open already".into() });
        }
        self.transaction = Some(Vec::new());
        Ok(())
    }

    fn send(
        &mut self,
        partition: i32,
        key: &[u8],
        value: Option<Bytes>,
        headers: &[Header],
    ) -> Result<(), TopicError> {
        let partitions = self.state()?.partitions.len();
        if !usize::try_from(partition).is_ok_and(|p| p < partitions) {
            return Err(TopicError::Other { reason: format!("there is no partition {partition}") });
        }
        let draft = Draft { partition, key: Bytes::copy_from_slice(key), value, headers: headers.to_vec() };
        self.transaction.as_mut().ok_or_else(Self::no_transaction)?.push(draft);
        Ok(())
    }

    fn commit(&mut self) -> Result<Vec<Position>, TopicError> {
        drop(self.state()?);
        let drafts = self.transaction.take().ok_or_else(Self::no_transaction)?;
        let mut state = self.state()?;
        let positions: Vec<_> = drafts.into_iter().map(|draft| state.append(draft)).collect();
        // As in Kafka, the commit itself takes an offset, which no reader ever sees.
        for partition in positions.iter().map(|p| p.partition).collect::<BTreeSet<_>>() {
            let partition = usize::try_from(partition).ok().and_then(|p| state.partitions.get_mut(p));
            if let Some(partition) = partition {
                partition.end += 1;
            }
        }
        drop(state);
        self.shared.changed.notify_all();
        Ok(positions)
    }

    fn abort(&mut self) -> Result<(), TopicError> {
        drop(self.state()?);
        self.transaction = None;
        Ok(())
    }
}
