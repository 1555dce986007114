//! Looks after the topic: is it there, is it still the same, has it grown.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::Offset;

use super::{Doubt, METADATA, Progress, Reader, connect};
use crate::topic::kafka::error;
use crate::topic::{TopicError, TopicEvent};

/// The longest wait before the next attempt to reach the topic.
const RETRY: Duration = Duration::from_millis(250);
/// The shortest time that an answer is given.
const SHORTEST: Duration = Duration::from_millis(20);
/// How long brokers may be silent before it is called an outage, where no connection has failed.
const SILENCE: Duration = Duration::from_secs(5);

impl Reader {
    /// Asks for the topic's partitions, and assigns what is not assigned yet.
    pub(super) fn check(&mut self, patience: Duration) {
        // With OAUTHBEARER the token is fetched in here; without it there is no metadata.
        self.poll(Duration::ZERO);
        let asked = Instant::now();
        // An answer that comes too late is lost, and so would every one be of brokers that are farther
        // away than that; so the next one is given twice the time that there was none.
        let patience =
            self.silent_since.map_or(patience, |since| patience.max(2 * asked.duration_since(since)));
        match self.find_partitions(patience.clamp(SHORTEST, METADATA)) {
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
                let silent_since = *self.silent_since.get_or_insert(asked);
                // A client that has just been made may only not have been connected yet.
                self.next_check = now.checked_add(RETRY.min(now.duration_since(silent_since)));
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

    /// The partitions of the topic, from a client that can be trusted with it: what librdkafka knew
    /// of a topic that was deleted (leaders, their epochs, where to go on) it applies to the new one.
    fn find_partitions(&mut self, patience: Duration) -> Result<Vec<i32>, TopicError> {
        let partitions = self.fetch_partitions(patience)?;
        self.look_at_id();
        if self.doubt.is_none() || self.fresh {
            return Ok(partitions);
        }
        self.consumer = connect(&self.client)?;
        (self.fresh, self.probe) = (true, None);
        self.fetch_partitions(patience)
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

    /// The topic is gone: what comes next under its name is probably another one.
    fn forget(&mut self) {
        self.suspect(Doubt::Gone);
        self.next_check = Instant::now().checked_add(RETRY);
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(topic = self.topic, %error, "unassign");
        }
    }

    fn assign(&mut self, partitions: &[i32]) -> KafkaResult<()> {
        let id = self.consumer.context().topic_id.get();
        let same = id.is_some() && id == self.topic_id;
        if partitions.len() < self.partitions.len() && self.doubt.is_none() {
            if !same {
                self.suspect(Doubt::Replaced);
            }
            // Else it is the answer of a broker that is behind.
            return Ok(());
        }
        if let Some(doubt) = self.doubt.take()
            && !(same && doubt == Doubt::Gone)
        {
            self.partitions.clear();
            self.pending.push_back(TopicEvent::Restarted);
        }
        self.topic_id = id;
        let again = self.fresh || self.trouble.as_ref().is_some_and(|t| t.fetching);
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
        match (list.count(), again) {
            (0, _) => {}
            (_, true) => {
                self.consumer.assign(&list)?;
                self.fresh = false;
                let blocked = self.partitions.iter().filter(|(_, p)| p.blocked.is_some());
                self.set_paused(&blocked.map(|(id, _)| *id).collect::<Vec<_>>(), true);
            }
            (_, false) => self.consumer.incremental_assign(&list)?,
        }
        Ok(())
    }
}
