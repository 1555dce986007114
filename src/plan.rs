//! Policy: given what the topic says and what is live, what to do next.

use crate::index::{Entry, ModelIndex};
use crate::release::{Position, Release, Sha256Digest};
use crate::wire::Announcement;

/// What tells one release from another.
///
/// Not the position alone: a release that another one names as its `previous` stands where its own
/// record was, and after the topic was made anew the same position holds something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReleaseId {
    pub(crate) position: Position,
    pub(crate) sha256: Sha256Digest,
}

impl From<&Release> for ReleaseId {
    fn from(release: &Release) -> Self {
        Self { position: release.position, sha256: release.artifact.sha256 }
    }
}

/// What is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) id: ReleaseId,
    pub(crate) time_ms: i64,
}

/// What to do next for one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Nothing: what should be live is live, or there is nothing that could be.
    Keep,
    /// Take the live version away, where there is one.
    Withdraw,
    /// Load this release and make it live.
    Load(Box<Release>),
}

/// The next step for a model.
///
/// The newest release that was not rejected should be live; while one is live, nothing older than
/// it ever takes its place. A model without a live version falls back: to the release that a
/// rejected one names as its previous, then to older announcements that are still on the topic.
pub(crate) fn next_step(
    model: &ModelIndex,
    live: Option<Live>,
    rejected: impl Fn(&ReleaseId) -> bool,
) -> Step {
    let Some(newest) = model.newest() else { return Step::Keep };
    if matches!(newest.said, Ok(Announcement::Withdrawn)) {
        return Step::Withdraw;
    }
    for candidate in candidates(model) {
        let id = ReleaseId::from(&candidate);
        match live {
            Some(live) if live.id == id => return Step::Keep,
            Some(live) if is_older(&candidate, live) => return Step::Keep,
            _ if rejected(&id) => {}
            _ => return Step::Load(Box::new(candidate)),
        }
    }
    Step::Keep
}

/// The releases that could be live, best first.
fn candidates(model: &ModelIndex) -> impl Iterator<Item = Release> {
    model.newest_first().filter_map(release_of).flat_map(|release| {
        let previous = release.to_previous();
        std::iter::once(release.clone()).chain(previous)
    })
}

fn release_of(entry: &Entry) -> Option<&Release> {
    match &entry.said {
        Ok(Announcement::Release(release)) => Some(release),
        _ => None,
    }
}

/// In one partition the offset decides; across partitions there is only the time.
fn is_older(candidate: &Release, live: Live) -> bool {
    if candidate.position.partition == live.id.position.partition {
        candidate.position.offset < live.id.position.offset
    } else {
        candidate.time_ms < live.time_ms
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use bytes::Bytes;

    use super::*;
    use crate::index::{TopicIndex, Watch};
    use crate::release::{Artifact, ModelName};
    use crate::wire::{Record, encode_release};

    fn name() -> ModelName {
        "fraud".parse().unwrap()
    }

    struct Topic {
        index: TopicIndex,
        rejected: HashSet<ReleaseId>,
        live: Option<Live>,
        last: Option<Release>,
    }

    impl Topic {
        fn new() -> Self {
            let index = TopicIndex::new(Watch::Only(BTreeSet::from([name()])));
            Self { index, rejected: HashSet::new(), live: None, last: None }
        }

        fn put(&mut self, offset: i64, value: Option<Vec<u8>>) {
            self.index.observe(&Record {
                position: Position { partition: 0, offset },
                timestamp_ms: offset,
                key: "fraud".into(),
                value: value.map(Bytes::from),
                headers: vec![],
            });
        }

        fn release(&mut self, offset: i64) -> Release {
            let release = Release {
                model: name(),
                version: format!("v{offset}"),
                sequence: 1,
                time_ms: offset,
                artifact: Artifact::of(format!("model {offset}").as_bytes(), None),
                interface: crate::release::Interface::default(),
                labels: std::collections::BTreeMap::default(),
                samples: None,
                earlier: Vec::new(),
                previous: self.last.as_ref().map(Release::as_previous),
                position: Position { partition: 0, offset },
            };
            self.put(offset, Some(encode_release(&release)));
            self.last = Some(release.clone());
            release
        }

        fn step(&self) -> Step {
            next_step(self.index.model(&name()).unwrap(), self.live, |id| self.rejected.contains(id))
        }

        fn loads(&self) -> Option<String> {
            match self.step() {
                Step::Load(release) => Some(release.version),
                _ => None,
            }
        }

        fn reject(&mut self, release: &Release) {
            self.rejected.insert(release.into());
        }

        fn live(&mut self, release: &Release) {
            self.live = Some(Live { id: release.into(), time_ms: release.time_ms });
        }
    }

    #[test]
    fn of_many_versions_only_the_newest_is_loaded() {
        let mut topic = Topic::new();
        let last = (1..200).map(|offset| topic.release(offset)).last().unwrap();
        assert_eq!(topic.loads().as_deref(), Some("v199"));
        topic.live(&last);
        assert_eq!(topic.step(), Step::Keep);
    }

    #[test]
    fn a_rejected_release_leaves_the_live_one_alone() {
        let mut topic = Topic::new();
        let first = topic.release(1);
        topic.live(&first);
        let second = topic.release(2);
        topic.reject(&second);
        assert_eq!(topic.step(), Step::Keep);
        topic.release(3);
        assert_eq!(topic.loads().as_deref(), Some("v3"));
    }

    #[test]
    fn a_fresh_instance_falls_back_to_the_previous_release_even_when_its_record_is_compacted_away() {
        let mut topic = Topic::new();
        let first = topic.release(1);
        let mut fresh = Topic::new();
        fresh.last = Some(first.clone());
        let second = fresh.release(2);
        fresh.reject(&second);
        assert_eq!(fresh.loads().as_deref(), Some("v1"));
        fresh.live(&first);
        assert_eq!(fresh.step(), Step::Keep);
        fresh.live = None;
        fresh.reject(&first);
        assert_eq!(fresh.step(), Step::Keep);
    }

    #[test]
    fn a_live_fallback_is_not_replaced_by_anything_older() {
        let mut topic = Topic::new();
        topic.release(1);
        let second = topic.release(2);
        let third = topic.release(3);
        topic.reject(&third);
        topic.live(&second);
        assert_eq!(topic.step(), Step::Keep);
        topic.reject(&second);
        assert_eq!(topic.step(), Step::Keep);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_passed_over() {
        let mut topic = Topic::new();
        topic.release(1);
        topic.put(2, Some(b"{".to_vec()));
        assert_eq!(topic.loads().as_deref(), Some("v1"));
    }

    #[test]
    fn a_tombstone_withdraws_and_a_later_release_comes_back() {
        let mut topic = Topic::new();
        let first = topic.release(1);
        topic.live(&first);
        topic.put(2, None);
        assert_eq!(topic.step(), Step::Withdraw);
        topic.live = None;
        assert_eq!(topic.step(), Step::Withdraw);
        topic.last = None;
        topic.release(3);
        assert_eq!(topic.loads().as_deref(), Some("v3"));
    }
}
