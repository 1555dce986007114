//! The two twins of a topic, for tests that both must pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use modelswap::Position;
use modelswap::topic::{KafkaTopic, MemoryTopic, Topic, TopicError, TopicEvent, TopicReader, TopicSettings};
use modelswap::wire::Record;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::broker;

/// How long any single event may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A topic that a test can also do things to which only an administrator can.
pub(crate) trait Twin {
    fn topic(&self) -> Arc<dyn Topic>;
    fn grow(&self, partitions: usize);
    fn recreate(&self, partitions: usize);
    /// Compacts until every record at these positions is gone.
    fn compact_away(&self, stale: &[Position]);
}

pub(crate) struct Memory(pub(crate) MemoryTopic);

impl Memory {
    pub(crate) fn new(partitions: usize) -> Self {
        Self(MemoryTopic::new("models", partitions))
    }
}

impl Twin for Memory {
    fn topic(&self) -> Arc<dyn Topic> {
        Arc::new(self.0.clone())
    }

    fn grow(&self, partitions: usize) {
        self.0.grow(partitions);
    }

    fn recreate(&self, partitions: usize) {
        self.0.recreate(partitions);
    }

    fn compact_away(&self, stale: &[Position]) {
        self.0.compact();
        assert!(fetch(&*self.topic(), stale).is_empty());
    }
}

pub(crate) struct Kafka {
    pub(crate) topic: KafkaTopic,
    bootstrap: String,
}

impl Kafka {
    /// A new topic on the shared broker.
    pub(crate) fn new(partitions: usize) -> Self {
        Self::on(broker::shared(), partitions)
    }

    pub(crate) fn on(bootstrap: &str, partitions: usize) -> Self {
        let twin = Self { topic: client(bootstrap, &unique_name()), bootstrap: bootstrap.to_owned() };
        twin.create(partitions);
        twin
    }

    fn create(&self, partitions: usize) {
        let mut settings = TopicSettings::default();
        settings.partitions = i32::try_from(partitions).unwrap();
        self.topic.create(&settings).unwrap();
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().unwrap()
    }
}

impl Twin for Kafka {
    fn topic(&self) -> Arc<dyn Topic> {
        Arc::new(self.topic.clone())
    }

    fn grow(&self, partitions: usize) {
        let growth = NewPartitions::new(self.topic.name(), partitions);
        let results = pollster::block_on(self.admin().create_partitions(&[growth], &AdminOptions::new()));
        results.unwrap().pop().unwrap().unwrap();
    }

    fn recreate(&self, partitions: usize) {
        let results =
            pollster::block_on(self.admin().delete_topics(&[self.topic.name()], &AdminOptions::new()));
        results.unwrap().pop().unwrap().unwrap();
        self.create(partitions);
    }

    fn compact_away(&self, stale: &[Position]) {
        let eager = AlterConfig::new(ResourceSpecifier::Topic(self.topic.name()))
            .set("cleanup.policy", "compact")
            .set("segment.ms", "1000")
            .set("min.cleanable.dirty.ratio", "0.01")
            .set("max.compaction.lag.ms", "1000")
            .set("delete.retention.ms", "100");
        let altered = pollster::block_on(self.admin().alter_configs(&[eager], &AdminOptions::new()));
        altered.unwrap().pop().unwrap().unwrap();
        let topic = self.topic();
        let start = Instant::now();
        let partitions = topic.writer("compact").unwrap().partitions().unwrap();
        while !fetch(&*topic, stale).is_empty() {
            assert!(start.elapsed() < PATIENCE, "not compacted");
            // The newest segment is never compacted; a record that comes later closes it.
            commit(&*topic, &(0..partitions).map(|p| (p, "compact", Some("!"))).collect::<Vec<_>>());
        }
    }
}

/// A client of a topic on a broker, quick to notice new partitions.
pub(crate) fn client(bootstrap: &str, topic: &str) -> KafkaTopic {
    KafkaTopic::new(topic)
        .config("bootstrap.servers", bootstrap)
        .config("topic.metadata.refresh.interval.ms", "200")
}

pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("models-{}-{}-{}", std::process::id(), now.as_millis(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Writes records in one transaction; answers where they stand.
pub(crate) fn commit(topic: &dyn Topic, records: &[(i32, &str, Option<&str>)]) -> Vec<Position> {
    let mut writer = topic.writer(&format!("{}-test", topic.name())).unwrap();
    writer.begin().unwrap();
    for (partition, key, value) in records {
        let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
        writer.send(*partition, key.as_bytes(), value, &[]).unwrap();
    }
    writer.commit().unwrap()
}

/// The next event that is not `Idle`.
pub(crate) fn next(reader: &mut dyn TopicReader) -> TopicEvent {
    let start = Instant::now();
    loop {
        match reader.next(PATIENCE) {
            TopicEvent::Idle => assert!(start.elapsed() < PATIENCE, "nothing happens"),
            event => return event,
        }
    }
}

/// The next event that is no outage which passes by itself: on a machine with too much to do the
/// broker may be silent for longer than a reader takes for granted.
pub(crate) fn next_but_outages(reader: &mut dyn TopicReader) -> TopicEvent {
    loop {
        match next(reader) {
            TopicEvent::Unavailable(TopicError::Unavailable { .. }) | TopicEvent::Available => {}
            event => return event,
        }
    }
}

/// All records up to the next `CaughtUp`; any other event but a passing outage fails the test.
pub(crate) fn read_to_end(reader: &mut dyn TopicReader) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        match next_but_outages(reader) {
            TopicEvent::Record(record) => records.push(record),
            TopicEvent::CaughtUp => return records,
            event => panic!("unexpected {event:?}"),
        }
    }
}

/// The next record; any other event but a passing outage fails the test.
pub(crate) fn next_record(reader: &mut dyn TopicReader) -> Record {
    match next_but_outages(reader) {
        TopicEvent::Record(record) => record,
        event => panic!("expected a record, found {event:?}"),
    }
}

pub(crate) fn fetch(topic: &dyn Topic, positions: &[Position]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut deliver = |record| {
        records.push(record);
        std::ops::ControlFlow::Continue(())
    };
    topic.fetcher().unwrap().fetch(positions, &mut deliver).unwrap();
    records
}

pub(crate) fn value(record: &Record) -> &str {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap()
}
