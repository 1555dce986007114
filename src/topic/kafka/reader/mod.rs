//! Reads the whole topic, then follows it, and recovers by itself from whatever happens to it.

use std::collections::{BTreeMap, VecDeque};
use std::mem::discriminant;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::{Context, TopicId};
use super::config::Config;
use super::{TopicError, TopicReader, error, message};
use crate::release::Position;
use crate::topic::TopicEvent;

mod checking;
mod oversized;

/// How long a partition is given to deliver something, where responses were too large.
const PROBE: Duration = Duration::from_secs(3);
/// The longest single wait for metadata.
const METADATA: Duration = Duration::from_secs(2);
/// The shortest wait of the client.
const TICK: Duration = Duration::from_millis(1);

pub(super) struct Reader {
    topic: String,
    client: ClientConfig,
    consumer: BaseConsumer<Context>,
    /// The consumer has no partitions assigned yet.
    fresh: bool,
    partitions: BTreeMap<i32, Progress>,
    /// The topic that those are of, where the broker and the client tell topics of one name apart.
    topic_id: Option<TopicId>,
    pending: VecDeque<TopicEvent>,
    /// True once `CaughtUp` has been told for the partitions as they are.
    caught_up: bool,
    /// The topic may not be the one that was read; nothing is until that is known.
    doubt: Option<Doubt>,
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
    /// The keys whose values are left out.
    omitted: fn(&[u8]) -> bool,
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

/// Why the topic may be another one than before, of the same name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// It was not there for a moment; it is the same if it comes back with the same id.
    Gone,
    /// It has another id, fewer partitions, or begins anew.
    Replaced,
}

/// What keeps the topic from being read.
struct Trouble {
    error: TopicError,
    /// It came with a fetch, so metadata says nothing about whether it is over.
    fetching: bool,
}

impl Reader {
    pub(super) fn new(topic: &str, config: &Config) -> Result<Self, TopicError> {
        let client = config.reader()?;
        Ok(Self {
            topic: topic.to_owned(),
            consumer: connect(&client)?,
            client,
            fresh: true,
            partitions: BTreeMap::new(),
            topic_id: None,
            pending: VecDeque::new(),
            caught_up: false,
            doubt: None,
            trouble: None,
            silent_since: None,
            next_check: Some(Instant::now()),
            check_interval: config.metadata_interval(),
            receive_limit: config.receive_limit(),
            probe: None,
            response_bytes: None,
            omitted: |_| false,
        })
    }

    fn poll(&mut self, wait: Duration) {
        let polled = match self.consumer.poll(wait) {
            None => return,
            Some(Ok(message)) => Ok(message::record(&message, self.omitted)),
            Some(Err(error)) => Err(error),
        };
        self.look_at_id();
        match polled {
            Ok(_) | Err(KafkaError::PartitionEOF(_)) if self.doubt.is_some() => {}
            Ok(record) => {
                let Position { partition, offset } = record.position;
                self.fetched();
                let progress = self.partitions.entry(partition).or_default();
                if let Some((_, since)) = self.probe.as_mut().filter(|(probed, _)| *probed == partition) {
                    *since = Instant::now();
                }
                if offset < progress.next {
                    // The log begins anew, and librdkafka followed.
                    return self.suspect(Doubt::Replaced);
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
            TopicError::Missing { .. } => self.suspect(Doubt::Gone),
            error => self.tell(error, true),
        }
        self.check_now();
    }

    /// Where the topic was made anew between two looks, librdkafka goes on in the new one at the
    /// position it had in the old one, without a word but that the id has changed.
    fn look_at_id(&mut self) {
        let newest = self.consumer.context().topic_id.get();
        if self.topic_id.is_some() && newest.is_some() && newest != self.topic_id {
            self.suspect(Doubt::Replaced);
        }
    }

    fn suspect(&mut self, doubt: Doubt) {
        if self.doubt != Some(Doubt::Replaced) && !self.partitions.is_empty() {
            self.doubt = Some(doubt);
            self.check_now();
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
            self.pending.push_back(TopicEvent::Unavailable(error.clone()));
            self.trouble = Some(Trouble { error, fetching });
        }
    }

    fn tell_available(&mut self) {
        if self.trouble.take().is_some() {
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
            self.look_at_id();
            let until_check = self.next_check.map(|at| at.saturating_duration_since(Instant::now()));
            if until_check == Some(Duration::ZERO) {
                self.check(left);
            } else {
                // The client counts whole milliseconds: what is left of one would be spent in a loop.
                self.poll(until_check.map_or(wait, |check| check.min(wait)).max(TICK));
            }
            if self.pending.is_empty() && start.elapsed() >= timeout {
                return TopicEvent::Idle;
            }
        }
    }

    fn omit_values(&mut self, of: fn(&[u8]) -> bool) {
        self.omitted = of;
    }
}

fn connect(client: &ClientConfig) -> Result<BaseConsumer<Context>, TopicError> {
    client.create_with_context(Context::of(client)).map_err(|e| super::config::config_error(&e))
}
