//! The check: reads every score back from the topic and counts.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Deserialize;

use crate::{PARTITIONS, Result};

#[derive(Deserialize)]
struct Score {
    score: f32,
    anomaly: u8,
}

/// What one version did.
#[derive(Default)]
struct Version {
    first: usize,
    last: usize,
    scored: usize,
    anomalies: usize,
    found: usize,
}

/// What was found on the topic of scores.
pub(crate) struct Findings {
    total: usize,
    /// How often each event has a score.
    seen: Vec<u32>,
    versions: BTreeMap<String, Version>,
    nameless: usize,
}

/// Reads the topic of scores from its beginning to its end; nobody produces to it any more.
pub(crate) fn read(brokers: &str, total: usize) -> Result<Findings> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "quickstart-audit")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset("scores", partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let mut findings = Findings { total, seen: vec![0; total], versions: BTreeMap::new(), nameless: 0 };
    let mut open = PARTITIONS;
    while open > 0 {
        match consumer.poll(Duration::from_secs(30)).ok_or("the scores cannot be read")? {
            Ok(message) => findings.count(&message)?,
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(findings)
}

impl Findings {
    fn count(&mut self, message: &rdkafka::message::BorrowedMessage<'_>) -> Result<()> {
        let id: usize = std::str::from_utf8(message.key().ok_or("a score without a key")?)?.parse()?;
        let score: Score = serde_json::from_slice(message.payload().ok_or("a score without a value")?)?;
        *self.seen.get_mut(id).ok_or("a score of an event that never was")? += 1;
        let version = message
            .headers()
            .and_then(|headers| headers.iter().find(|header| header.key == "modelswap-version"))
            .and_then(|header| Some(String::from_utf8_lossy(header.value?).into_owned()));
        let Some(version) = version else {
            self.nameless += 1;
            return Ok(());
        };
        let version =
            self.versions.entry(version).or_insert_with(|| Version { first: id, ..Version::default() });
        version.first = version.first.min(id);
        version.last = version.last.max(id);
        version.scored += 1;
        version.anomalies += usize::from(score.anomaly);
        version.found += usize::from(score.anomaly == 1 && score.score > 0.5);
        Ok(())
    }

    /// Prints what was found; true where it is as it has to be: every event scored exactly once, by
    /// one of these versions, and by each of them.
    pub(crate) fn report(&self, versions: &[&str]) -> bool {
        let lost = self.seen.iter().filter(|times| **times == 0).count();
        let twice = self.seen.iter().filter(|times| **times > 1).count();
        let out: u32 = self.seen.iter().sum();
        println!("   events              {} in, {out} out, {lost} lost, {twice} twice", self.total);
        for (name, version) in &self.versions {
            println!(
                "   {name:<19} events {} to {}: {} scored, {} of {} anomalies found",
                version.first, version.last, version.scored, version.found, version.anomalies
            );
        }
        let known: Vec<&str> = self.versions.keys().map(String::as_str).collect();
        let scored: usize = self.versions.values().map(|version| version.scored).sum();
        lost == 0 && twice == 0 && self.nameless == 0 && known == versions && scored == self.total
    }
}
