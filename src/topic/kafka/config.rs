//! The client configuration: what the user sets, what is forced, what is a better default.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::TopicError;
use super::client::TOPIC_ID_LOG;

/// Configuration properties as the user set them.
#[derive(Clone, Default)]
pub(super) struct Config {
    user: BTreeMap<String, String>,
}

/// What no user can change, and why not.
const FORCED: &[Forced] = &[
    Forced { key: "acks", value: "all", why: "a model that was published must survive a broker" },
    Forced {
        key: "request.required.acks",
        value: "all",
        why: "a model that was published must survive a broker",
    },
    Forced { key: "auto.offset.reset", value: "earliest", why: "every instance reads the topic in full" },
    Forced { key: "check.crcs", value: "true", why: "a damaged record must not become a model" },
    Forced { key: "enable.auto.commit", value: "false", why: "readers of models commit no offsets" },
    Forced { key: "auto.commit.enable", value: "false", why: "readers of models commit no offsets" },
    Forced { key: "enable.auto.offset.store", value: "false", why: "readers of models commit no offsets" },
    Forced {
        key: "enable.idempotence",
        value: "true",
        why: "a chunk must be on the topic once and in order",
    },
    Forced { key: "enable.partition.eof", value: "true", why: "it tells when everything has been read" },
    Forced {
        key: "isolation.level",
        value: "read_committed",
        why: "a half-published model must not be seen",
    },
];

/// Sane defaults of every client.
const COMMON: &[(&str, &str)] = &[
    // A broker that is back is noticed within a second, not within ten.
    ("reconnect.backoff.max.ms", "1000"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    // A topic that was deleted is noticed at once, not after 30 s.
    ("topic.metadata.propagation.max.ms", "1000"),
];

const CONSUMER: &[(&str, &str)] = &[
    ("auto.offset.reset", "earliest"),
    ("check.crcs", "true"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("isolation.level", "read_committed"),
    // Brokers that do not wake a long poll (the mock cluster is one) still deliver quickly.
    ("fetch.wait.max.ms", "100"),
    // Full speed at 15 MB of memory; the defaults take 74 MB.
    ("queued.max.messages.kbytes", "4096"),
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.error.backoff.ms", "100"),
];

const PRODUCER: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // Chunks come as fast as they can be read: waiting for more to batch is of no use.
    ("linger.ms", "0"),
    // The first connection to the broker that the bootstrap server names waits for this, too. (A reader
    // that began before its broker was seen to come back 45 s later with it.)
    ("reconnect.backoff.ms", "10"),
    ("queue.buffering.max.kbytes", "65536"),
    // To publish to a topic that is not there is an error, not the creation of one.
    ("allow.auto.create.topics", "false"),
];

impl Config {
    pub(super) fn set(&mut self, key: String, value: String) {
        self.user.insert(key, value);
    }

    pub(super) fn check(&self) -> Result<(), TopicError> {
        for client in [self.consumer()?, self.producer("check")?] {
            client.create_native_config().map_err(|e| config_error(&e))?;
        }
        Ok(())
    }

    /// For a consumer, in a group of its own.
    pub(super) fn consumer(&self) -> Result<ClientConfig, TopicError> {
        let prefix = self.user.get("group.id").map_or("modelswap", String::as_str);
        // There is nobody to share a group with, so its name has to be unique; ACLs go by prefix.
        let group = format!("{prefix}-{:016x}", RandomState::new().hash_one(std::process::id()));
        self.client(CONSUMER, &[("group.id", &group)])
    }

    /// For a reader: a consumer that is told the topic's id, which librdkafka only does in its log.
    pub(super) fn reader(&self) -> Result<ClientConfig, TopicError> {
        let mut client = self.consumer()?;
        let user = self.user.get("debug").map_or_else(String::new, |user| format!("{user},"));
        client.set("debug", format!("{user}{TOPIC_ID_LOG}")).set_log_level(RDKafkaLogLevel::Debug);
        Ok(client)
    }

    /// For a transactional producer.
    pub(super) fn producer(&self, transactional_id: &str) -> Result<ClientConfig, TopicError> {
        self.client(PRODUCER, &[("transactional.id", transactional_id)])
    }

    /// For an admin client.
    pub(super) fn admin(&self) -> Result<ClientConfig, TopicError> {
        self.client(&[], &[])
    }

    /// How often to look for new partitions; `None` for never.
    pub(super) fn metadata_interval(&self) -> Option<Duration> {
        let set = self.user.get("topic.metadata.refresh.interval.ms").and_then(|v| v.parse::<i64>().ok());
        u64::try_from(set.unwrap_or(30_000)).ok().filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// The largest response that can be read, in bytes.
    pub(super) fn receive_limit(&self) -> u64 {
        self.user.get("receive.message.max.bytes").and_then(|v| v.parse().ok()).unwrap_or(100_000_000)
    }

    fn client(&self, own: &[(&str, &str)], last: &[(&str, &str)]) -> Result<ClientConfig, TopicError> {
        self.check_user()?;
        let mut config = ClientConfig::new();
        for (key, value) in COMMON.iter().chain(own) {
            config.set(*key, *value);
        }
        for (key, value) in &self.user {
            // Of a consumer's properties a producer only complains, and the other way round.
            let foreign = matches!(key.as_str(), "group.id") || FORCED.iter().any(|forced| forced.key == key);
            if !foreign {
                config.set(key, value);
            }
        }
        for (key, value) in last {
            config.set(*key, *value);
        }
        Ok(config)
    }

    fn check_user(&self) -> Result<(), TopicError> {
        for (key, value) in &self.user {
            if let Some(forced) = FORCED.iter().find(|f| f.key == key)
                && forced.value != value
                // `-1` is another way to say it.
                && !(forced.value == "all" && value == "-1")
            {
                return Err(TopicError::Config {
                    key: key.clone(),
                    reason: format!(
                        "has to be `{}` and cannot be set to `{value}`: {}",
                        forced.value, forced.why
                    ),
                });
            }
            if key == "transactional.id" {
                return Err(TopicError::Config {
                    key: key.clone(),
                    reason: "cannot be set: it is made of topic and model, so that a later publisher fences \
                             an earlier one"
                        .into(),
                });
            }
        }
        let servers = ["bootstrap.servers", "metadata.broker.list", "test.mock.num.brokers"];
        if !servers.iter().any(|key| self.user.contains_key(*key)) {
            return Err(TopicError::Config {
                key: "bootstrap.servers".into(),
                reason: "has to be set: host:port of at least one broker".into(),
            });
        }
        Ok(())
    }
}

struct Forced {
    key: &'static str,
    value: &'static str,
    why: &'static str,
}

impl fmt::Debug for Config {
    /// Without the values, of which some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.user.keys()).finish()
    }
}

/// The error of a client that could not be made.
pub(super) fn config_error(error: &KafkaError) -> TopicError {
    match error {
        KafkaError::ClientConfig(_, reason, key, _) => {
            TopicError::Config { key: key.clone(), reason: reason.clone() }
        }
        KafkaError::ClientCreation(reason) => {
            // librdkafka names the property in the text, in backquotes or not at all.
            let key = reason.split('`').nth(1).unwrap_or("?").to_owned();
            TopicError::Config { key, reason: reason.clone() }
        }
        other => TopicError::Other { reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(properties: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        config.set("bootstrap.servers".into(), "localhost:9".into());
        for (key, value) in properties {
            config.set((*key).into(), (*value).into());
        }
        config
    }

    #[test]
    fn a_forced_property_cannot_be_changed_and_the_error_says_why() {
        for forced in FORCED {
            let error = config(&[(forced.key, "nonsense")]).check().unwrap_err().to_string();
            assert!(error.contains(forced.key) && error.contains(forced.why), "{error}");
            assert_eq!(config(&[(forced.key, forced.value)]).check(), Ok(()), "{}", forced.key);
        }
        assert!(config(&[("transactional.id", "x")]).check().is_err());
    }

    #[test]
    fn what_the_user_sets_overrides_a_default() {
        let config = config(&[("fetch.wait.max.ms", "7"), ("socket.keepalive.enable", "true")]);
        let consumer = config.consumer().unwrap();
        assert_eq!(consumer.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(consumer.get("socket.keepalive.enable"), Some("true"));
        assert_eq!(consumer.get("queued.max.messages.kbytes"), Some("4096"));
    }

    #[test]
    fn every_consumer_has_a_group_of_its_own_under_the_users_prefix() {
        let config = config(&[("group.id", "team-risk")]);
        let groups: Vec<_> =
            [(); 2].map(|()| config.consumer().unwrap().get("group.id").unwrap().to_owned()).into();
        assert!(groups.iter().all(|g| g.starts_with("team-risk-")));
        assert_ne!(groups.first(), groups.last());
    }

    #[test]
    fn an_unknown_property_and_a_bad_value_are_named() {
        for (key, value) in [("no.such.property", "1"), ("socket.timeout.ms", "soon")] {
            let Err(TopicError::Config { key: named, .. }) = config(&[(key, value)]).check() else {
                panic!("{key} is accepted")
            };
            assert_eq!(named, key);
        }
        assert!(
            matches!(Config::default().check(), Err(TopicError::Config { key, .. }) if key == "bootstrap.servers")
        );
    }
}
