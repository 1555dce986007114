//! Creates and describes topics.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::client::Context;
use super::{KafkaTopic, TopicError, error};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for a first answer.
const METADATA: Duration = Duration::from_secs(15);

/// How a topic of models is to be created.
///
/// ```
/// use modelswap::topic::TopicSettings;
///
/// let settings = TopicSettings::default();
/// assert_eq!(settings.config["cleanup.policy"], "compact");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSettings {
    /// The number of partitions. One is enough for most: all records of a model go to one partition,
    /// and every instance reads all of them.
    pub partitions: i32,
    /// The number of replicas; -1 for the default of the cluster.
    pub replication: i32,
    /// The topic's configuration.
    pub config: BTreeMap<String, String>,
}

impl Default for TopicSettings {
    /// One partition, the cluster's number of replicas, and:
    ///
    /// | property | value | because |
    /// |---|---|---|
    /// | `cleanup.policy` | `compact` | the newest record of each key stays for ever |
    /// | `segment.ms` | 1 hour | only closed segments are compacted |
    /// | `segment.bytes` | 256 MiB | as above, for large models |
    /// | `min.cleanable.dirty.ratio` | 0.1 | superseded chunks are large, and go early |
    /// | `max.compaction.lag.ms` | 1 day | they go at the latest then |
    /// | `delete.retention.ms` | 7 days | a reader that is slow or away still sees what was withdrawn |
    /// | `max.message.bytes` | 1,048,588 | Kafka's default, which every chunk fits |
    fn default() -> Self {
        let config = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "3600000"),
            ("segment.bytes", "268435456"),
            ("min.cleanable.dirty.ratio", "0.1"),
            ("max.compaction.lag.ms", "86400000"),
            ("delete.retention.ms", "604800000"),
            ("max.message.bytes", "1048588"),
        ];
        let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { partitions: 1, replication: -1, config }
    }
}

/// What a topic is like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The number of partitions.
    pub partitions: usize,
    /// The number of replicas of each.
    pub replication: usize,
    /// The topic's configuration, defaults included.
    pub config: BTreeMap<String, String>,
}

impl TopicDescription {
    /// What makes the topic unfit for models, in words; empty where nothing does.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let policy = self.config.get("cleanup.policy").map_or("delete", String::as_str);
        if policy != "compact" {
            problems.push(format!(
                "cleanup.policy is `{policy}`, expected `compact`: models will be deleted by age, or \
                 superseded ones never"
            ));
        }
        let limit = self.config.get("max.message.bytes").and_then(|v| v.parse::<u64>().ok());
        if let Some(limit) = limit.filter(|l| *l < 1_000_000) {
            problems
                .push(format!("max.message.bytes is {limit}, expected 1000000 or more: chunks do not fit"));
        }
        problems
    }
}

impl KafkaTopic {
    /// Creates the topic.
    ///
    /// # Errors
    /// Any [`TopicError`]; [`TopicError::Other`] where it exists.
    pub fn create(&self, settings: &TopicSettings) -> Result<(), TopicError> {
        let replication = TopicReplication::Fixed(settings.replication);
        let mut topic = NewTopic::new(&self.name, settings.partitions, replication);
        for (key, value) in &settings.config {
            topic = topic.set(key, value);
        }
        let results = pollster::block_on(self.admin()?.create_topics([&topic], &options()));
        for result in results.map_err(|e| error::of(&e, &self.name))? {
            result.map_err(|(_, code)| match code {
                Code::TopicAlreadyExists => {
                    TopicError::Other { reason: format!("topic `{}` exists already", self.name) }
                }
                code => error::by_code(code, None, &self.name),
            })?;
        }
        Ok(())
    }

    /// Describes the topic.
    ///
    /// # Errors
    /// Any [`TopicError`].
    pub fn describe(&self) -> Result<TopicDescription, TopicError> {
        let admin = self.admin()?;
        let last_error = &admin.inner().context().last_error;
        let of = |e| error::explained(error::of(&e, &self.name), last_error, &self.name);
        let metadata = admin.inner().fetch_metadata(Some(&self.name), METADATA).map_err(of)?;
        let topic = metadata.topics().first();
        if let Some(code) = topic.and_then(rdkafka::metadata::MetadataTopic::error) {
            return Err(error::by_code(code.into(), None, &self.name));
        }
        let partitions = topic.map_or(&[][..], |t| t.partitions());
        let specifier = ResourceSpecifier::Topic(&self.name);
        let mut config = BTreeMap::new();
        for resource in pollster::block_on(admin.describe_configs([&specifier], &options())).map_err(of)? {
            let resource = resource.map_err(|code| error::by_code(code, None, &self.name))?;
            config.extend(resource.entries.into_iter().filter_map(|e| Some((e.name, e.value?))));
        }
        Ok(TopicDescription {
            partitions: partitions.len(),
            replication: partitions.first().map_or(0, |p| p.replicas().len()),
            config,
        })
    }

    fn admin(&self) -> Result<AdminClient<Context>, TopicError> {
        let config = self.config.admin()?;
        config.create_with_context(Context::of(&config)).map_err(|e| super::config::config_error(&e))
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_deletes_by_age_or_refuses_chunks_is_found_unfit() {
        let mut description =
            TopicDescription { partitions: 1, replication: 1, config: TopicSettings::default().config };
        assert!(description.problems().is_empty());
        description.config.insert("cleanup.policy".into(), "compact,delete".into());
        description.config.insert("max.message.bytes".into(), "100000".into());
        assert_eq!(description.problems().len(), 2);
    }
}
