//! What lies on the topic of one model: which releases there were, and which can be kept.

use std::collections::{BTreeSet, HashMap};

use crate::error::{Error, ErrorKind};
use crate::index::{ModelIndex, TopicIndex, Watch};
use crate::release::{ModelName, Position, Release, Sha256Digest};
use crate::wire::{Announcement, Key, Record, chunk_key};

/// The most releases that one release names: beyond them its document would only grow.
const MOST_NAMED: usize = 16;

/// The history of one model.
pub(super) struct History {
    model: ModelName,
    index: TopicIndex,
    /// Every chunk of the model, in each partition that has it.
    chunks: BTreeSet<(i32, Sha256Digest, u32)>,
    /// The partitions that have an announcement other than a tombstone.
    announced: BTreeSet<i32>,
}

impl History {
    pub(super) fn new(model: &ModelName) -> Self {
        Self {
            model: model.clone(),
            index: TopicIndex::new(Watch::Only([model.clone()].into())),
            chunks: BTreeSet::new(),
            announced: BTreeSet::new(),
        }
    }

    pub(super) fn observe(&mut self, record: &Record) {
        self.index.observe(record);
        let partition = record.position.partition;
        match Key::parse(&record.key) {
            Some(key) if *key.model() != self.model => {}
            Some(Key::Chunk { sha256, index, .. }) => {
                let chunk = (partition, sha256, index);
                let _ = if record.value.is_some() {
                    self.chunks.insert(chunk)
                } else {
                    self.chunks.remove(&chunk)
                };
            }
            Some(Key::Model(_)) => {
                let _ = match record.value {
                    Some(_) => self.announced.insert(partition),
                    None => self.announced.remove(&partition),
                };
            }
            None => {}
        }
    }

    /// The partitions that announce the model.
    pub(super) fn announced(&self) -> impl Iterator<Item = i32> {
        self.announced.iter().copied()
    }

    /// True where nothing of the model is on the topic.
    pub(super) fn is_empty(&self) -> bool {
        self.announced.is_empty() && self.chunks.is_empty()
    }

    /// The releases that are known, newest first.
    pub(super) fn releases(&self) -> Vec<Release> {
        self.index.model(&self.model).map(releases).unwrap_or_default()
    }

    /// Where the chunks of a release lie, in order.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], with the first chunk that is missing.
    pub(super) fn chunks_of(&self, release: &Release) -> Result<Vec<Position>, Error> {
        let found = self.index.model(&self.model).map_or(Err(0), |model| model.chunks_of(release));
        found.map_err(|missing| {
            let message = format!(
                "version `{}` of `{}` is no longer on the topic: chunk {missing} of {} of artifact {} is gone; \
                 publish it again",
                release.version, self.model, release.artifact.chunks, release.artifact.sha256
            );
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// The sequence number of the next release.
    pub(super) fn next_sequence(&self) -> u64 {
        self.releases().iter().map(|r| r.sequence).max().unwrap_or(0).saturating_add(1)
    }

    /// The releases that a new one is to name: the newest ones that can still be loaded, as far as
    /// no more than `keep` artifacts are needed for it and them.
    pub(super) fn fallbacks(&self, new: &Release, keep: usize) -> Vec<Release> {
        let mut artifacts = BTreeSet::from([new.artifact.sha256]);
        let mut named: Vec<Release> = Vec::new();
        for (age, release) in self.releases().into_iter().enumerate() {
            let same = |r: &Release| {
                r.artifact.sha256 == release.artifact.sha256 && r.interface == release.interface
            };
            // A plain publish holds its artifact in the record that is overwritten now: it can be
            // fallen back to until the topic is compacted, but only the newest one is worth a name.
            let there =
                if release.artifact.chunks == 0 { age == 0 } else { self.chunks_of(&release).is_ok() };
            let room = artifacts.contains(&release.artifact.sha256) || artifacts.len() < keep.max(1);
            if there && room && !same(new) && !named.iter().any(same) {
                artifacts.insert(release.artifact.sha256);
                named.push(release);
            }
            if named.len() == MOST_NAMED {
                break;
            }
        }
        named
    }

    /// How many artifacts the newest release keeps, itself included.
    pub(super) fn kept_now(&self) -> usize {
        let newest = self.releases().into_iter().next();
        let named = newest.map(|r| 1 + r.previous.iter().count() + r.earlier.len());
        named.unwrap_or(0).max(2)
    }

    /// What to roll back to.
    pub(super) fn rollback_target(&self, version: Option<&str>) -> Result<Release, Error> {
        let not_found = |message: String| Error::new(ErrorKind::NotFound, message);
        let mut releases = self.releases().into_iter();
        let model = &self.model;
        let Some(newest) = releases.next() else {
            return Err(not_found(format!("there is no release of `{model}` on the topic")));
        };
        let Some(version) = version else {
            return match &newest.previous {
                // In full, where its own record is still there.
                Some(previous) => Ok(releases
                    .find(|r| r.position == previous.position)
                    .or_else(|| newest.to_previous())
                    .unwrap_or(newest)),
                None => releases.next().ok_or_else(|| {
                    not_found(format!("version `{}` of `{model}` is the only one", newest.version))
                }),
            };
        };
        let known: Vec<Release> = releases.collect();
        let complete = |r: &&Release| self.chunks_of(r).is_ok();
        let mut of_version = known.iter().filter(|r| r.version == version);
        let candidate = of_version.clone().find(complete).or_else(|| of_version.next());
        candidate.cloned().ok_or_else(|| {
            if newest.version == version {
                return not_found(format!("version `{version}` of `{model}` is the newest already"));
            }
            let versions: BTreeSet<_> =
                known.iter().filter(complete).map(|r| format!("`{}`", r.version)).collect();
            let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
            let versions = if versions.is_empty() { "none".to_owned() } else { versions };
            not_found(format!(
                "there is no version `{version}` of `{model}` to roll back to; there is: {versions}"
            ))
        })
    }

    /// The chunks that none of these releases needs, with their partitions. The first release's
    /// have just been written to `home`, where that is given: copies elsewhere are of no use.
    pub(super) fn unneeded(&self, kept: &[&Release], home: Option<i32>) -> Vec<(i32, String)> {
        let counts: HashMap<_, _> = kept.iter().map(|r| (r.artifact.sha256, r.artifact.chunks)).collect();
        let first = kept.first().map(|r| r.artifact.sha256);
        let unneeded = self.chunks.iter().filter(|(partition, sha256, index)| {
            let needed = counts.get(sha256).is_some_and(|count| index < count);
            let elsewhere = first == Some(*sha256) && home.is_some_and(|home| home != *partition);
            !needed || elsewhere
        });
        unneeded
            .map(|(partition, sha256, index)| (*partition, chunk_key(&self.model, *sha256, *index)))
            .collect()
    }
}

/// The releases of a model that are known from its announcements, newest first: those that are
/// still on the topic, and those that others name.
pub(super) fn releases(model: &ModelIndex) -> Vec<Release> {
    let mut releases: Vec<Release> = Vec::new();
    let mut add = |release: &Release| {
        if !releases.iter().any(|r| r.position == release.position) {
            releases.push(release.clone());
        }
    };
    let announced = || {
        model.newest_first().filter_map(|entry| match &entry.said {
            Ok(Announcement::Release(release)) => Some(release),
            _ => None,
        })
    };
    // What was withdrawn is no release any more, whatever still names it.
    if !matches!(model.newest().map(|e| &e.said), Some(Ok(Announcement::Withdrawn))) {
        // A release's own record says more of it than those that name it.
        announced().for_each(|release| add(release));
        for release in announced() {
            let mut named = release.to_previous();
            while let Some(release) = named {
                add(&release);
                named = release.to_previous();
            }
        }
    }
    if let Some(others) = releases.get_mut(1..) {
        others.sort_by_key(|r| std::cmp::Reverse((r.time_ms, r.position.offset)));
    }
    releases
}
