//! Reads the whole topic, then follows it, and recovers by itself from whatever happens to it.

use std::collections::{BTreeMap, VecDeque};
use std::mem::discriminant;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::Offset;

use super::client::Context;
use super::config::Config;
use super::{TopicError, TopicReader, error, message};
use crate::release::Position;
use crate::topic::{Oversized, TopicEvent};

/// How long to wait before the next attempt to reach the topic.
const RETRY: Duration = Duration::from_millis(250);
/// How long brokers may be silent before it is called an outage, where no connection has failed.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a partition is given to deliver something, where responses were too large.
const PROBE: Duration = Duration::from_secs(3);
/// How often a partition that is stuck at a record that is too large is tried again.
const RETRY_BLOCKED: Duration = Duration::from_mins(5);
/// The longest single wait for metadata.
const METADATA: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    topic: String,
    consumer: BaseConsumer<Context>,
    partitions: BTreeMap<i32, Progress>,
    pending: VecDeque<TopicEvent>,
    /// True once `CaughtUp` has been told for the partitions as they are.
    caught_up: bool,
    /// The topic went away under us: when it is there again it is another one.
    lost: bool,
    trouble: Option<Trouble>,
    /// Since when there is no answer to requests for metadata.
    silent_since: Option<Instant>,
    /// When to ask for metadata next; `None` for never.
    next_check: Option<Instant>,
    check_interval: Option<Duration>,
    receive_limit: u64,
    /// The partition that is being read alone to see whether it is the one whose record is too
    /// large, and since when it has delivered nothing.
    probe: Option<(i32, Instant)>,
    /// The size of the newest response that was too large.
    response_bytes: Option<u64>,
}

/// How far a partition has been read.
#[derive(Default)]
struct Progress {
    /// The offset after the last record.
    next: i64,
    at_end: bool,
    /// Since when it is stuck at a record that is too large, which has been told.
    blocked: Option<Instant>,
}

impl Progress {
    const fn is_unread(&self) -> bool {
        !self.at_end && self.blocked.is_none()
    }
}

/// What keeps the topic from being read.
struct Trouble {
    error: TopicError,
    /// It came with a fetch, so metadata says nothing about whether it is over.
    fetching: bool,
}

impl Reader {
    pub(super) fn new(topic: &str, config: &Config) -> Result<Self, TopicError> {
        let client = config.consumer()?;
        let consumer: BaseConsumer<Context> =
            client.create_with_context(Context::default()).map_err(|e| super::config::config_error(&e))?;
        Ok(Self {
            topic: topic.to_owned(),
            consumer,
            partitions: BTreeMap::new(),
            pending: VecDeque::new(),
            caught_up: false,
            lost: false,
            trouble: None,
            silent_since: None,
            next_check: Some(Instant::now()),
            check_interval: config.metadata_interval(),
            receive_limit: config.receive_limit(),
            probe: None,
            response_bytes: None,
        })
    }

    fn poll(&mut self, wait: Duration) {
        let polled = match self.consumer.poll(wait) {
            None => return,
            Some(Ok(message)) => Ok(message::record(&message)),
            Some(Err(error)) => Err(error),
        };
        match polled {
            Ok(record) => {
                let Position { partition, offset } = record.position;
                self.fetched();
                let progress = self.partitions.entry(partition).or_default();
                if let Some((_, since)) = self.probe.as_mut().filter(|(probed, _)| *probed == partition) {
                    *since = Instant::now();
                }
                if offset < progress.next {
                    // The log begins anew, and librdkafka followed: another topic of the same name.
                    self.lost = true;
                    self.check_now();
                    return;
                }
                *progress = Progress { next: offset.saturating_add(1), ..Progress::default() };
                self.pending.push_back(TopicEvent::Record(record));
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                self.fetched();
                let progress = self.partitions.entry(partition).or_default();
                (progress.at_end, progress.blocked) = (true, None);
                self.tell_caught_up();
                if self.probe.is_some_and(|(probed, _)| probed == partition) {
                    self.probe_next();
                }
            }
            Err(error) => {
                if let Some(code) = error.rdkafka_error_code() {
                    self.failed(code);
                }
            }
        }
    }

    fn failed(&mut self, code: Code) {
        let reason = self.consumer.context().last_error.reason_of(code);
        if code == Code::BadMessage {
            return self.too_large(reason.as_deref());
        }
        match error::by_code(code, reason, &self.topic) {
            // One broker's connection is not the topic: metadata tells.
            TopicError::Unavailable { .. } => {}
            TopicError::Missing { .. } => self.lost |= !self.partitions.is_empty(),
            error => self.tell(error, true),
        }
        self.check_now();
    }

    /// A response is larger than the client takes. It asks for the same again and again, gets
    /// nothing of any other partition meanwhile, and does not say which one it is about: so each that
    /// has something to read is read alone.
    fn too_large(&mut self, reason: Option<&str>) {
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

    fn probe_next(&mut self) {
        let next = self.partitions.iter().find(|(_, p)| p.is_unread()).map(|(id, _)| *id);
        self.probe = next.map(|id| (id, Instant::now()));
        self.set_paused(next.as_slice(), false);
    }

    /// Gives up on a partition that has delivered nothing although it was read alone.
    fn end_probe(&mut self, partition: i32) {
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
    fn retry_blocked(&mut self) {
        let due = |p: &Progress| p.blocked.is_some_and(|since| since.elapsed() >= RETRY_BLOCKED);
        if self.probe.is_none()
            && let Some((id, _)) = self.partitions.iter().find(|(_, p)| due(p))
        {
            let id = *id;
            self.probe = Some((id, Instant::now()));
            self.set_paused(&[id], false);
        }
    }

    fn set_paused(&self, partitions: &[i32], paused: bool) {
        let mut list = TopicPartitionList::new();
        for id in partitions {
            list.add_partition(&self.topic, *id);
        }
        let result = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = result {
            tracing::debug!(topic = self.topic, %error, paused, "pause or resume");
        }
    }

    fn tell_caught_up(&mut self) {
        if !self.caught_up && !self.partitions.values().any(Progress::is_unread) {
            self.caught_up = true;
            self.pending.push_back(TopicEvent::CaughtUp);
        }
    }

    fn tell(&mut self, error: TopicError, fetching: bool) {
        // The words differ from one attempt to the next, so the kind decides what is new.
        let known = self.trouble.as_ref().map(|t| discriminant(&t.error));
        if known != Some(discriminant(&error)) {
            tracing::warn!(topic = self.topic, %error, "the model topic cannot be read");
            self.pending.push_back(TopicEvent::Unavailable(error.clone()));
            self.trouble = Some(Trouble { error, fetching });
        }
    }

    fn tell_available(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(topic = self.topic, "the model topic can be read again");
            self.pending.push_back(TopicEvent::Available);
        }
    }

    /// A fetch succeeded.
    fn fetched(&mut self) {
        match &self.trouble {
            None => {}
            Some(trouble) if trouble.fetching => self.tell_available(),
            Some(_) => self.check_now(),
        }
    }

    fn check_now(&mut self) {
        self.next_check = Some(Instant::now());
    }

    /// Asks for the topic's partitions, and assigns what is not assigned yet.
    fn check(&mut self, patience: Duration) {
        // With OAUTHBEARER the token is fetched in here; without it there is no metadata.
        self.poll(Duration::ZERO);
        match self.fetch_partitions(patience.clamp(Duration::from_millis(20), METADATA)) {
            Ok(partitions) => {
                self.silent_since = None;
                let now = Instant::now();
                self.next_check = self.check_interval.and_then(|interval| now.checked_add(interval));
                match self.assign(&partitions) {
                    Ok(()) if self.trouble.as_ref().is_some_and(|t| t.fetching) => {
                        self.next_check = now.checked_add(RETRY);
                    }
                    Ok(()) => {
                        self.tell_available();
                        self.retry_blocked();
                    }
                    Err(failure) => self.tell(error::of(&failure, &self.topic), false),
                }
            }
            Err(failure) => {
                let now = Instant::now();
                self.next_check = now.checked_add(RETRY);
                let silent_since = *self.silent_since.get_or_insert(now);
                let explained = self.consumer.context().last_error.take();
                // That is about a fetch, and told in another way.
                let explained = explained.filter(|(code, _)| *code != Code::BadMessage);
                // A response that is too large ends the connection, and is no outage.
                let certain = (explained.is_some() && self.probe.is_none())
                    || now.duration_since(silent_since) >= SILENCE;
                let error = match (failure, explained) {
                    // Why there is no answer is known to whoever tried to connect.
                    (TopicError::Unavailable { .. }, Some((code, reason))) => {
                        error::by_code(code, Some(reason), &self.topic)
                    }
                    (failure, _) => failure,
                };
                match error {
                    TopicError::Unavailable { .. } if !certain => {}
                    error => {
                        if matches!(error, TopicError::Missing { .. }) {
                            self.forget();
                        }
                        self.tell(error, false);
                    }
                }
            }
        }
    }

    fn fetch_partitions(&self, patience: Duration) -> Result<Vec<i32>, TopicError> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), patience)
            .map_err(|e| error::of(&e, &self.topic))?;
        let topic = metadata.topics().first();
        if let Some(code) = topic.and_then(MetadataTopic::error) {
            return Err(error::by_code(code.into(), None, &self.topic));
        }
        let partitions: Vec<i32> =
            topic.map_or(&[][..], |t| t.partitions()).iter().map(MetadataPartition::id).collect();
        if partitions.is_empty() {
            return Err(TopicError::Missing { topic: self.topic.clone() });
        }
        Ok(partitions)
    }

    /// The topic is gone: what comes next under its name is another one.
    fn forget(&mut self) {
        self.lost |= !self.partitions.is_empty();
        self.partitions.clear();
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(topic = self.topic, %error, "unassign");
        }
    }

    fn assign(&mut self, partitions: &[i32]) -> KafkaResult<()> {
        if partitions.len() < self.partitions.len() || self.lost {
            self.partitions.clear();
            self.probe = None;
            self.lost = false;
            self.pending.push_back(TopicEvent::Restarted);
        }
        let first = self.partitions.is_empty();
        let again = self.trouble.as_ref().is_some_and(|t| t.fetching);
        let mut list = TopicPartitionList::new();
        for id in partitions {
            match self.partitions.get(id) {
                None => {
                    self.partitions.insert(*id, Progress::default());
                    list.add_partition_offset(&self.topic, *id, Offset::Beginning)?;
                    self.caught_up = false;
                }
                // What a broker refused is only asked for again if it is assigned again.
                Some(progress) if again => {
                    let offset =
                        if progress.next == 0 { Offset::Beginning } else { Offset::Offset(progress.next) };
                    list.add_partition_offset(&self.topic, *id, offset)?;
                }
                Some(_) => {}
            }
        }
        match (list.count(), first || again) {
            (0, _) => Ok(()),
            (_, true) => self.consumer.assign(&list),
            (_, false) => self.consumer.incremental_assign(&list),
        }
    }
}

impl TopicReader for Reader {
    fn next(&mut self, timeout: Duration) -> TopicEvent {
        let start = Instant::now();
        loop {
            if let Some(event) = self.pending.pop_front() {
                return event;
            }
            let left = timeout.saturating_sub(start.elapsed());
            let mut wait = left;
            if let Some((partition, since)) = self.probe {
                // An outage says nothing of it; that connections end is what is to be expected.
                if self.trouble.is_some() {
                    self.probe = Some((partition, Instant::now()));
                } else if since.elapsed() >= PROBE {
                    self.end_probe(partition);
                    continue;
                }
                wait = wait.min(PROBE.saturating_sub(since.elapsed()));
            }
            let until_check = self.next_check.map(|at| at.saturating_duration_since(Instant::now()));
            if until_check == Some(Duration::ZERO) {
                self.check(left);
            } else {
                self.poll(until_check.map_or(wait, |check| check.min(wait)));
            }
            if self.pending.is_empty() && start.elapsed() >= timeout {
                return TopicEvent::Idle;
            }
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
