//! What the topic says: the announcements of each watched model, and where the chunks lie.
//!
//! Pure bookkeeping over records in the order in which they are read. It keeps no payload, so a
//! topic full of stale versions costs a few bytes a record.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::release::{ModelName, Position, Release, Sha256Digest};
use crate::wire::{Announcement, Key, Record, announcement};

/// How many announcements of a model are remembered in each partition, to fall back to.
const HISTORY: usize = 16;

/// Which models a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Every model on the topic.
    All,
    /// These.
    Only(BTreeSet<ModelName>),
}

impl Watch {
    pub(crate) fn wants(&self, model: &ModelName) -> bool {
        match self {
            Self::All => true,
            Self::Only(models) => models.contains(model),
        }
    }
}

/// The index of a topic.
#[derive(Debug)]
pub(crate) struct TopicIndex {
    watch: Watch,
    models: BTreeMap<ModelName, ModelIndex>,
}

/// What a record changed in the index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that anybody here wants.
    None,
    /// The model has another newest announcement.
    Announced(ModelName),
    /// A chunk of an artifact is there.
    Chunk { model: ModelName, sha256: Sha256Digest, index: u32 },
}

impl TopicIndex {
    pub(crate) const fn new(watch: Watch) -> Self {
        Self { watch, models: BTreeMap::new() }
    }

    /// Takes a record in. Reading the same records again changes nothing.
    pub(crate) fn observe(&mut self, record: &Record) -> Change {
        let Some(key) = Key::parse(&record.key) else { return Change::None };
        if !self.watch.wants(key.model()) {
            return Change::None;
        }
        let model = self.models.entry(key.model().clone()).or_default();
        match key {
            Key::Model(name) => {
                let said = announcement(&name, record).map_err(|refusal| refusal.to_string());
                model.announce(Entry { position: record.position, timestamp_ms: record.timestamp_ms, said });
                Change::Announced(name)
            }
            Key::Chunk { model: name, sha256, index } => match &record.value {
                Some(_) => {
                    model.chunks.entry(sha256).or_default().insert(index, record.position);
                    Change::Chunk { model: name, sha256, index }
                }
                None => {
                    model.prune(sha256, index, record.position);
                    Change::None
                }
            },
        }
    }

    /// Forgets everything: the topic was created anew.
    pub(crate) fn clear(&mut self) {
        self.models.clear();
    }

    pub(crate) fn model(&self, name: &ModelName) -> Option<&ModelIndex> {
        self.models.get(name)
    }

    pub(crate) fn models(&self) -> impl Iterator<Item = (&ModelName, &ModelIndex)> {
        self.models.iter()
    }
}

/// The index of one model.
#[derive(Debug, Default)]
pub(crate) struct ModelIndex {
    /// By partition, oldest first.
    announced: BTreeMap<i32, VecDeque<Entry>>,
    chunks: HashMap<Sha256Digest, BTreeMap<u32, Position>>,
}

/// An announcement and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) timestamp_ms: i64,
    /// What it says, or why it cannot be read.
    pub(crate) said: Result<Announcement, String>,
}

impl ModelIndex {
    fn announce(&mut self, entry: Entry) {
        let history = self.announced.entry(entry.position.partition).or_default();
        if history.back().is_some_and(|last| last.position.offset >= entry.position.offset) {
            return;
        }
        if matches!(entry.said, Ok(Announcement::Withdrawn)) {
            // What was withdrawn is nothing to fall back to.
            history.clear();
        }
        history.push_back(entry);
        if history.len() > HISTORY {
            history.pop_front();
        }
    }

    fn prune(&mut self, sha256: Sha256Digest, index: u32, at: Position) {
        let Some(chunks) = self.chunks.get_mut(&sha256) else { return };
        // A tombstone in another partition has no say about this one's record.
        let covers = |chunk: &Position| chunk.partition == at.partition && chunk.offset < at.offset;
        if chunks.get(&index).is_some_and(covers) {
            chunks.remove(&index);
        }
        if chunks.is_empty() {
            self.chunks.remove(&sha256);
        }
    }

    /// The announcements from the newest on: those of the partition whose last one is the latest,
    /// then those of the others.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        let mut partitions: Vec<&VecDeque<Entry>> = self.announced.values().collect();
        partitions.sort_by_key(|history| {
            std::cmp::Reverse(history.back().map(|last| (last.timestamp_ms, last.position)))
        });
        partitions.into_iter().flat_map(|history| history.iter().rev())
    }

    /// The newest announcement.
    pub(crate) fn newest(&self) -> Option<&Entry> {
        self.newest_first().next()
    }

    /// Where the chunks of a release lie, in order; or the first one that is not there.
    pub(crate) fn chunks_of(&self, release: &Release) -> Result<Vec<Position>, u32> {
        let chunks = self.chunks.get(&release.artifact.sha256);
        (0..release.artifact.chunks)
            .map(|index| chunks.and_then(|c| c.get(&index)).copied().ok_or(index))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::{Header, chunk_key};

    fn index() -> TopicIndex {
        TopicIndex::new(Watch::Only(BTreeSet::from([name()])))
    }

    fn name() -> ModelName {
        "fraud".parse().unwrap()
    }

    fn record(partition: i32, offset: i64, key: &str, value: Option<&[u8]>) -> Record {
        let headers = value
            .map(|v| Header { name: "sha256".into(), value: Sha256Digest::of([v]).to_string().into() })
            .into_iter()
            .collect();
        Record {
            position: Position { partition, offset },
            timestamp_ms: 100 * offset + i64::from(partition),
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.map(Bytes::copy_from_slice),
            headers,
        }
    }

    fn offsets(index: &TopicIndex) -> Vec<(i32, i64)> {
        let model = index.model(&name()).unwrap();
        model.newest_first().map(|e| (e.position.partition, e.position.offset)).collect()
    }

    #[test]
    fn the_newest_announcement_is_told_by_offset_and_across_partitions_by_time() {
        let mut index = index();
        for (partition, offset) in [(0, 1), (1, 2), (0, 5), (1, 3)] {
            index.observe(&record(partition, offset, "fraud", Some(b"m")));
        }
        assert_eq!(offsets(&index), [(0, 5), (0, 1), (1, 3), (1, 2)]);
    }

    #[test]
    fn records_that_are_read_again_change_nothing() {
        let mut index = index();
        for offset in [1, 2, 1, 2] {
            index.observe(&record(0, offset, "fraud", Some(b"m")));
        }
        assert_eq!(offsets(&index), [(0, 2), (0, 1)]);
    }

    #[test]
    fn a_tombstone_takes_away_what_could_be_fallen_back_to() {
        let mut index = index();
        index.observe(&record(0, 1, "fraud", Some(b"m")));
        index.observe(&record(0, 2, "fraud", None));
        assert_eq!(offsets(&index), [(0, 2)]);
    }

    #[test]
    fn models_that_nobody_watches_and_foreign_keys_take_no_memory() {
        let mut index = index();
        assert_eq!(index.observe(&record(0, 1, "other", Some(b"m"))), Change::None);
        assert_eq!(index.observe(&record(0, 2, "no model!", Some(b"m"))), Change::None);
        assert_eq!(index.models().count(), 0);
    }

    #[test]
    fn chunks_are_found_by_key_and_pruned_by_later_tombstones_only() {
        let mut index = index();
        let sha256 = Sha256Digest::of([&b"m"[..]]);
        let key = |i| chunk_key(&name(), sha256, i);
        index.observe(&record(0, 1, &key(0), Some(b"a")));
        index.observe(&record(1, 9, &key(1), Some(b"b")));
        index.observe(&record(0, 10, &key(1), None));
        let announced = record(0, 11, "fraud", Some(b"m"));
        let Ok(Announcement::Release(mut release)) = announcement(&name(), &announced) else { panic!() };
        release.artifact.chunks = 2;
        let at = |partition, offset| Position { partition, offset };
        let model = |index: &TopicIndex| index.model(&name()).unwrap().chunks_of(&release);
        assert_eq!(model(&index), Ok(vec![at(0, 1), at(1, 9)]));
        index.observe(&record(0, 12, &key(0), None));
        assert_eq!(model(&index), Err(0));
    }
}
