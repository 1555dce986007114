//! What a broker keeps of a topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::release::Position;
use crate::topic::TopicError;
use crate::wire::{Header, Record};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) partitions: Vec<Partition>,
    /// The newest epoch of each transactional id.
    pub(super) epochs: HashMap<String, u64>,
    pub(super) fault: Option<TopicError>,
    pub(super) max_record_bytes: Option<u64>,
    /// Counts how often the topic was created anew.
    pub(super) generation: u64,
}

impl State {
    pub(super) fn check(&self) -> Result<(), TopicError> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    pub(super) fn append(&mut self, draft: Draft) -> Position {
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
pub(super) struct Partition {
    pub(super) records: BTreeMap<i64, Record>,
    pub(super) end: i64,
}

impl Partition {
    pub(super) fn compact(&mut self) {
        let newest: HashMap<Bytes, i64> =
            self.records.values().map(|r| (r.key.clone(), r.position.offset)).collect();
        self.records.retain(|offset, r| r.value.is_some() && newest.get(&r.key) == Some(offset));
    }
}

/// A record that is not on the topic yet.
pub(super) struct Draft {
    pub(super) partition: i32,
    pub(super) key: Bytes,
    pub(super) value: Option<Bytes>,
    pub(super) headers: Vec<Header>,
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
