//! Reads single records again, by their position.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

use super::client::Context;
use super::config::Config;
use super::{RecordFetcher, TopicError, error, message};
use crate::release::Position;
use crate::wire::Record;

/// How long to wait for a broker that is down.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for the next record where nothing is known to be wrong: as long as a chunk takes
/// over a line of 20 kB/s.
const SLOWEST: Duration = Duration::from_mins(1);
/// How long a partition may end before a record that it once had: a broker that was killed offers
/// less than it has until it knows what is committed.
const RECOVERY: Duration = Duration::from_secs(3);
/// Records that are nobody's are read over, up to this many offsets: cheaper than to ask anew.
const READ_OVER: i64 = 16;

pub(super) struct Fetcher {
    topic: String,
    consumer: BaseConsumer<Context>,
    /// The topic's metadata is known to the client, without which a first fetch takes half a second.
    warm: bool,
}

impl Fetcher {
    pub(super) fn new(topic: &str, config: &Config) -> Result<Self, TopicError> {
        let client = config.consumer()?;
        let consumer =
            client.create_with_context(Context::of(&client)).map_err(|e| super::config::config_error(&e))?;
        Ok(Self { topic: topic.to_owned(), consumer, warm: false })
    }

    fn warm_up(&mut self) -> Result<(), TopicError> {
        let start = Instant::now();
        while !self.warm {
            // With OAUTHBEARER the token is fetched in here.
            drop(self.consumer.poll(Duration::ZERO));
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.consumer.fetch_metadata(Some(&self.topic), left) {
                Ok(_) => self.warm = true,
                Err(failure) => match error::of(&failure, &self.topic) {
                    TopicError::Unavailable { .. } if start.elapsed() < PATIENCE => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Reads one run of neighbouring offsets of a partition.
    fn fetch_run(
        &self,
        partition: i32,
        run: &BTreeSet<i64>,
        deliver: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TopicError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&self.topic, partition, Offset::Offset(*first))
            .and_then(|()| self.consumer.assign(&assignment))
            .map_err(|e| error::of(&e, &self.topic))?;
        let mut progress = Instant::now();
        let mut ended: Option<Instant> = None;
        let mut patience = SLOWEST;
        loop {
            let mut left = patience.saturating_sub(progress.elapsed());
            if let Some(since) = ended {
                left = left.min(RECOVERY.saturating_sub(since.elapsed()));
                if left.is_zero() {
                    let reason = format!("partition {partition} ends before offset {last}");
                    return Err(TopicError::Unavailable { reason });
                }
            }
            match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    progress = Instant::now();
                    (ended, patience) = (None, SLOWEST);
                    let offset = message.offset();
                    // Before the run, where the log ends before the run begins: another log.
                    if offset > *last || offset < *first {
                        return Ok(ControlFlow::Continue(()));
                    }
                    if run.contains(&offset) && deliver(message::record(&message, |_| false)).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    if offset == *last {
                        return Ok(ControlFlow::Continue(()));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(at))) if at == partition => {
                    let end = self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE);
                    if end.is_ok_and(|(_, end)| end > *last) {
                        return Ok(ControlFlow::Continue(()));
                    }
                    ended.get_or_insert_with(Instant::now);
                }
                Some(Err(failure)) => {
                    self.failed(&failure)?;
                    patience = PATIENCE;
                }
                None => {}
            }
            if progress.elapsed() >= patience {
                return Err(self.silence(patience));
            }
        }
    }

    /// An error that waiting may cure is none yet.
    fn failed(&self, failure: &KafkaError) -> Result<(), TopicError> {
        let Some(code) = failure.rdkafka_error_code() else { return Ok(()) };
        let reason = self.consumer.context().last_error.reason_of(code);
        if code == Code::BadMessage {
            return Err(TopicError::TooLarge { reason: reason.unwrap_or_else(|| code.to_string()) });
        }
        match error::by_code(code, reason, &self.topic) {
            TopicError::Unavailable { .. } => Ok(()),
            error => Err(error),
        }
    }

    fn silence(&self, patience: Duration) -> TopicError {
        match self.consumer.context().last_error.take() {
            Some((code, reason)) => error::by_code(code, Some(reason), &self.topic),
            None => TopicError::unavailable(format!("no record for {} s", patience.as_secs())),
        }
    }
}

impl RecordFetcher for Fetcher {
    fn fetch(
        &mut self,
        positions: &[Position],
        deliver: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), TopicError> {
        self.warm_up()?;
        let mut result = Ok(());
        for (partition, run) in runs(positions) {
            match self.fetch_run(partition, &run, deliver) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        // Or the client would go on reading behind the last run.
        let unassigned = self.consumer.unassign().map_err(|e| error::of(&e, &self.topic));
        result.and(unassigned)
    }
}

/// The positions in runs, each of one partition and without wide gaps.
fn runs(positions: &[Position]) -> Vec<(i32, BTreeSet<i64>)> {
    let mut partitions: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for position in positions {
        partitions.entry(position.partition).or_default().insert(position.offset);
    }
    let mut runs: Vec<(i32, BTreeSet<i64>)> = Vec::new();
    for (partition, offsets) in partitions {
        let mut run = BTreeSet::new();
        for offset in offsets {
            let wide = run.last().is_some_and(|last: &i64| offset.saturating_sub(*last) > READ_OVER);
            if wide {
                runs.push((partition, std::mem::take(&mut run)));
            }
            run.insert(offset);
        }
        runs.push((partition, run));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_in_runs_without_wide_gaps() {
        let at = |partition, offset| Position { partition, offset };
        let runs = runs(&[at(1, 5), at(0, 300), at(0, 2), at(0, 1), at(0, 10), at(0, 2)]);
        let expected = [(0, vec![1, 2, 10]), (0, vec![300]), (1, vec![5])];
        assert_eq!(runs, expected.map(|(p, offsets)| (p, offsets.into_iter().collect())));
    }
}
