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
/// How often a response may be too large before it is said of one of several partitions.
const STRIKES: u32 = 5;
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
    /// How many responses were too large since one was not.
    strikes: u32,
}

/// How far a partition has been read.
#[derive(Default)]
struct Progress {
    /// The offset after the last record.
    next: i64,
    at_end: bool,
    /// Stuck at a record that is too large, which has been told.
    blocked: bool,
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
            strikes: 0,
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
                self.partitions.entry(partition).or_default().at_end = true;
                self.tell_caught_up();
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

    /// A response is larger than the client takes, and it asks for the same again and again.
    fn too_large(&mut self, reason: Option<&str>) {
        let limit = self.receive_limit;
        self.strikes += 1;
        // The error does not say which partition it is about, but the others go on being read: after
        // a while it is the only one that is not at its end.
        let candidates = self.partitions.values().filter(|p| !p.at_end && !p.blocked).count();
        if candidates > 1 && self.strikes < STRIKES {
            return;
        }
        let Some((partition, offset)) = self.stuck_partition() else { return };
        let progress = self.partitions.entry(partition).or_default();
        if std::mem::replace(&mut progress.blocked, true) {
            return;
        }
        self.pending.push_back(TopicEvent::Oversized(Oversized {
            position: Position { partition, offset },
            key: None,
            bytes: reason.and_then(response_size),
            limit,
            blocks_partition: true,
        }));
        self.tell_caught_up();
    }

    /// The partition, and the offset in it, whose next record cannot be received.
    fn stuck_partition(&self) -> Option<(i32, i64)> {
        let behind = |partition: i32, next: i64| {
            let watermarks = self.consumer.fetch_watermarks(&self.topic, partition, METADATA);
            watermarks.is_ok_and(|(_, high)| high > next)
        };
        let unread = self.partitions.iter().find(|(_, p)| !p.at_end && !p.blocked);
        let unread =
            unread.or_else(|| self.partitions.iter().find(|(id, p)| !p.blocked && behind(**id, p.next)));
        unread.map(|(id, p)| (*id, p.next))
    }

    fn tell_caught_up(&mut self) {
        if !self.caught_up && self.partitions.values().all(|p| p.at_end || p.blocked) {
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
        self.strikes = 0;
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
                    Ok(()) => self.tell_available(),
                    Err(failure) => self.tell(error::of(&failure, &self.topic), false),
                }
            }
            Err(failure) => {
                let now = Instant::now();
                self.next_check = now.checked_add(RETRY);
                let silent_since = *self.silent_since.get_or_insert(now);
                let explained = self.consumer.context().last_error.take();
                let certain = explained.is_some() || now.duration_since(silent_since) >= SILENCE;
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
            let until_check = self.next_check.map(|at| at.saturating_duration_since(Instant::now()));
            if until_check == Some(Duration::ZERO) {
                self.check(left);
            } else {
                self.poll(until_check.map_or(left, |check| check.min(left)));
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
