//! Finds the record that is larger than the client takes, and reads on around it.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;

use super::{METADATA, Progress, Reader};
use crate::release::Position;
use crate::topic::{Oversized, TopicEvent};

/// How often a partition that is stuck at a record that is too large is tried again.
const RETRY_BLOCKED: Duration = Duration::from_mins(5);

impl Reader {
    /// A response is larger than the client takes. It asks for the same again and again, gets
    /// nothing of any other partition meanwhile, and does not say which one it is about: so each that
    /// has something to read is read alone.
    pub(super) fn too_large(&mut self, reason: Option<&str>) {
        self.response_bytes = reason.and_then(response_size).or(self.response_bytes);
        if self.probe.is_some() {
            return;
        }
        if !self.partitions.values().any(Progress::is_unread) {
            // It came after all had been read.
            for (id, progress) in &mut self.partitions {
                let watermarks = self.consumer.fetch_watermarks(&self.topic, *id, METADATA);
                progress.at_end = !watermarks.is_ok_and(|(_, high)| high > progress.next);
            }
        }
        let unread = self.partitions.iter().filter(|(_, p)| p.is_unread());
        let unread: Vec<i32> = unread.map(|(id, _)| *id).collect();
        self.set_paused(&unread, true);
        self.probe_next();
    }

    pub(super) fn probe_next(&mut self) {
        let next = self.partitions.iter().find(|(_, p)| p.is_unread()).map(|(id, _)| *id);
        self.probe = next.map(|id| (id, Instant::now()));
        self.set_paused(next.as_slice(), false);
    }

    /// Gives up on a partition that has delivered nothing although it was read alone.
    pub(super) fn end_probe(&mut self, partition: i32) {
        let progress = self.partitions.entry(partition).or_default();
        let told = progress.blocked.replace(Instant::now()).is_some();
        let position = Position { partition, offset: progress.next };
        self.set_paused(&[partition], true);
        if !told {
            self.pending.push_back(TopicEvent::Oversized(Oversized {
                position,
                key: None,
                bytes: self.response_bytes,
                limit: self.receive_limit,
                blocks_partition: true,
            }));
            self.tell_caught_up();
        }
        self.probe_next();
    }

    /// Tries a partition again that was given up on some time ago: compaction may have helped.
    pub(super) fn retry_blocked(&mut self) {
        let due = |p: &Progress| p.blocked.is_some_and(|since| since.elapsed() >= RETRY_BLOCKED);
        if self.probe.is_none()
            && let Some((id, _)) = self.partitions.iter().find(|(_, p)| due(p))
        {
            let id = *id;
            self.probe = Some((id, Instant::now()));
            self.set_paused(&[id], false);
        }
    }

    pub(super) fn set_paused(&self, partitions: &[i32], paused: bool) {
        let mut list = TopicPartitionList::new();
        for id in partitions {
            list.add_partition(&self.topic, *id);
        }
        let result = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = result {
            tracing::debug!(topic = self.topic, %error, paused, "pause or resume");
        }
    }
}

/// The size in librdkafka's "Invalid response size 123 (0..456): ..".
fn response_size(reason: &str) -> Option<u64> {
    let (_, rest) = reason.split_once("response size ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_response_is_read_from_librdkafkas_words() {
        let reason = "Receive failed: Invalid response size 150000107 (0..100000000): increase receive.message.max.bytes";
        assert_eq!(response_size(reason), Some(150_000_107));
        assert_eq!(response_size("Receive failed: Disconnected"), None);
    }
}
