//! What reads and writes the topic: the twins of consumer and producer.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::state::{Draft, Shared, State};
use crate::release::Position;
use crate::topic::{Oversized, RecordFetcher, TopicError, TopicEvent, TopicReader, TopicWriter};
use crate::wire::{Header, Record};

pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) generation: u64,
    /// The offset to read next, of each partition that is known.
    pub(super) next: Vec<i64>,
    /// The partition to look at first, so that none starves.
    pub(super) turn: usize,
    pub(super) caught_up: bool,
    pub(super) fault: Option<TopicError>,
    /// The keys whose values are left out.
    pub(super) omitted: fn(&[u8]) -> bool,
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

    fn omit_values(&mut self, of: fn(&[u8]) -> bool) {
        self.omitted = of;
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
                return Some(deliver(record, state.max_record_bytes, self.omitted));
            }
        }
        if self.caught_up {
            return None;
        }
        self.caught_up = true;
        Some(TopicEvent::CaughtUp)
    }
}

fn deliver(record: &Record, limit: Option<u64>, omitted: fn(&[u8]) -> bool) -> TopicEvent {
    let bytes = record.value.as_ref().map_or(0, |v| v.len() as u64);
    match limit {
        Some(limit) if bytes > limit => TopicEvent::Oversized(Oversized {
            position: record.position,
            key: Some(record.key.clone()),
            bytes: Some(bytes),
            limit,
            blocks_partition: false,
        }),
        _ => {
            let mut record = record.clone();
            if omitted(&record.key) {
                record.value = record.value.map(|_| Bytes::new());
            }
            TopicEvent::Record(record)
        }
    }
}

pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
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

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) transactional_id: String,
    pub(super) epoch: u64,
    pub(super) transaction: Option<Vec<Draft>>,
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
