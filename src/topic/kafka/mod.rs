//! The topic on Kafka: the only place that names rdkafka.

use super::{RecordFetcher, Topic, TopicError, TopicReader, TopicWriter};

mod admin;
mod client;
mod config;
mod error;
mod fetcher;
mod message;
mod reader;
mod writer;

pub use admin::{TopicDescription, TopicSettings};
use config::Config;

/// A topic of a Kafka cluster.
///
/// [`KafkaTopic::config`] takes the configuration properties of librdkafka. Those that the reading
/// and writing of models depends on cannot be changed: `acks`, `auto.offset.reset`, `check.crcs`,
/// `enable.auto.commit`, `enable.auto.offset.store`, `enable.idempotence`, `enable.partition.eof`,
/// `isolation.level`, `transactional.id`. A `group.id` is taken as the beginning of the consumer
/// groups' names, which are unique to each client: give one where ACLs ask for it.
///
/// How often it looks for new partitions is `topic.metadata.refresh.interval.ms`, 30 s unless set.
///
/// ```no_run
/// use modelswap::topic::{KafkaTopic, TopicSettings};
///
/// let topic = KafkaTopic::new("models").config("bootstrap.servers", "localhost:9092");
/// topic.create(&TopicSettings::default())?;
/// # Ok::<(), modelswap::topic::TopicError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KafkaTopic {
    name: String,
    config: Config,
}

impl KafkaTopic {
    /// The topic of this name; nothing is connected yet.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), config: Config::default() }
    }

    /// Sets a configuration property of librdkafka. A property that is unknown, has a bad value or
    /// is not to be changed is an error when the topic is used, and of [`KafkaTopic::check`].
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.set(key.into(), value.into());
        self
    }

    /// Checks the configuration, without a connection.
    ///
    /// # Errors
    /// [`TopicError::Config`] for the first property that is wrong.
    pub fn check(&self) -> Result<(), TopicError> {
        self.config.check()
    }
}

impl Topic for KafkaTopic {
    fn name(&self) -> &str {
        &self.name
    }

    fn reader(&self) -> Result<Box<dyn TopicReader>, TopicError> {
        Ok(Box::new(reader::Reader::new(&self.name, &self.config)?))
    }

    fn fetcher(&self) -> Result<Box<dyn RecordFetcher>, TopicError> {
        Ok(Box::new(fetcher::Fetcher::new(&self.name, &self.config)?))
    }

    fn writer(&self, transactional_id: &str) -> Result<Box<dyn TopicWriter>, TopicError> {
        Ok(Box::new(writer::Writer::new(&self.name, &self.config, transactional_id)?))
    }
}
