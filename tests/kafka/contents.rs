//! What a publisher has left on a topic.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use modelswap::topic::Topic;
use modelswap::wire::{Announcement, Key, Record, announcement};
use modelswap::{Artifact, Release, Sha256Digest};

use crate::twins::read_to_end;

/// What lies on the topic, by key; of each key the newest record of each partition.
pub(crate) struct Contents {
    pub(crate) chunks: BTreeMap<Sha256Digest, BTreeSet<u32>>,
    pub(crate) newest: Option<Announcement>,
    pub(crate) records: Vec<Record>,
}

pub(crate) fn contents(topic: &dyn Topic, model: &str) -> Contents {
    let records = read_to_end(&mut *topic.reader().unwrap());
    let mut chunks: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
    let mut newest = None;
    for record in &records {
        match Key::parse(&record.key) {
            Some(Key::Chunk { model: of, sha256, index }) if of.as_str() == model => {
                let chunks = chunks.entry(sha256).or_default();
                let _ = if record.value.is_some() { chunks.insert(index) } else { chunks.remove(&index) };
            }
            Some(Key::Model(of)) if of.as_str() == model => newest = Some(announcement(&of, record).unwrap()),
            _ => {}
        }
    }
    chunks.retain(|_, indexes| !indexes.is_empty());
    Contents { chunks, newest, records }
}

impl Contents {
    pub(crate) fn release(&self) -> &Release {
        match &self.newest {
            Some(Announcement::Release(release)) => release,
            other => panic!("no release: {other:?}"),
        }
    }

    pub(crate) fn has_whole(&self, file: &Bytes) -> bool {
        let artifact = Artifact::of(file, None);
        self.chunks.get(&artifact.sha256).is_some_and(|c| c.iter().copied().eq(0..artifact.chunks))
    }
}
