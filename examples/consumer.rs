//! A consumer group that scores JSON events: `cargo run --release --example consumer -- --help`.
//!
//! Reads events like `{"features": [0.1, 2.0, null, ..]}` from `--topic`, scores each with the
//! newest verified version of `--model`, and writes `{"scores": [..]}` to `--output` under the
//! event's key, with the version in the headers. `null` is a missing value; other fields of an event
//! are ignored. An event that cannot be scored is written as `{"error": ".."}` with the reason in
//! the header `error` as well: nothing is lost, and nothing stops the stream. Offsets are committed
//! when the scores are acknowledged, so events are scored at least once. Run several with the same
//! `--group` to share the partitions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use clap::Parser;
use modelswap::{Models, PredictError, Prediction, Scorer};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// After how many events their offsets are committed; earlier where no more come.
const BATCH: usize = 1000;

/// Score the JSON events of a topic with a model that changes while this runs.
#[derive(Parser)]
struct Args {
    /// The Kafka brokers.
    #[arg(long, default_value = "localhost:9092")]
    brokers: String,
    /// The consumer group.
    #[arg(long, default_value = "modelswap-consumer")]
    group: String,
    /// The topic of events.
    #[arg(long, default_value = "events")]
    topic: String,
    /// The topic of scores.
    #[arg(long, default_value = "scores")]
    output: String,
    /// The topic of models.
    #[arg(long, default_value = "models")]
    models: String,
    /// The model to score with.
    #[arg(long)]
    model: String,
    /// How long to wait for a first version of the model, in seconds.
    #[arg(long, default_value_t = 60)]
    wait: u64,
    /// More properties of the Kafka clients, as `key=value`.
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

fn property(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let mut subscription =
        Models::subscribe(&args.models).config("bootstrap.servers", &args.brokers).model(&args.model);
    for (key, value) in &args.properties {
        subscription = subscription.config(key, value);
    }
    let models = subscription.start()?;
    let scorer = models.scorer(&args.model)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut signal = tokio::spawn(stop_on_signal(Arc::clone(&stop)));
    let scored = tokio::select! {
        ready = scorer.ready(Duration::from_secs(args.wait)) => {
            ready?;
            tokio::task::spawn_blocking(move || Group::join(args, stop)?.consume(&scorer)).await??
        }
        // Asked to stop before there was a model.
        _ = &mut signal => 0,
    };
    models.shutdown().await;
    eprintln!("scored {scored} events");
    Ok(())
}

async fn stop_on_signal(stop: Arc<AtomicBool>) {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("a handler for SIGTERM can be set");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.store(true, Ordering::Relaxed);
}

/// A member of the consumer group.
struct Group {
    consumer: BaseConsumer<Commits>,
    stop: Arc<AtomicBool>,
}

impl Group {
    fn join(args: Args, stop: Arc<AtomicBool>) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &args.brokers).extend(args.properties.clone());
        let producer = config
            .clone()
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .create_with_context(Delivered::default())?;
        config
            .set("group.id", &args.group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false");
        let topic = args.topic.clone();
        let commits = Commits { args, producer, next: Mutex::default() };
        let consumer: BaseConsumer<Commits> = config.create_with_context(commits)?;
        consumer.subscribe(&[&topic])?;
        Ok(Self { consumer, stop })
    }

    /// Polls, scores and produces until it is told to stop; answers how many events it scored.
    fn consume(&self, scorer: &dyn Scorer) -> Result<u64> {
        let commits = self.consumer.context();
        let (mut scored, mut uncommitted) = (0, 0);
        while !self.stop.load(Ordering::Relaxed) {
            let message = match self.consumer.poll(Duration::from_millis(100)).transpose() {
                Ok(message) => message,
                // What is passing, librdkafka gets over by itself: a broker away, a topic not there yet.
                Err(error) if self.consumer.client().fatal_error().is_none() => {
                    tracing::warn!(%error, "events cannot be read now");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(message) = &message {
                let Some(result) = self.score(scorer, message) else { break };
                commits.send(message, &result)?;
                scored += 1;
                uncommitted += 1;
            }
            if uncommitted >= BATCH || (message.is_none() && uncommitted > 0) {
                commits.commit(&self.consumer)?;
                uncommitted = 0;
            }
        }
        commits.commit(&self.consumer)?;
        Ok(scored)
    }

    /// The prediction for an event, or why there is none; `None` where it is to stop instead.
    fn score(
        &self,
        scorer: &dyn Scorer,
        message: &BorrowedMessage<'_>,
    ) -> Option<std::result::Result<Prediction, String>> {
        let features = match features(message.payload()) {
            Ok(features) => features,
            Err(reason) => return Some(Err(reason)),
        };
        loop {
            match scorer.predict(&features) {
                // The model was withdrawn: nothing can be said of any event until there is another.
                Err(PredictError::NoModel) if self.stop.load(Ordering::Relaxed) => return None,
                Err(PredictError::NoModel) => std::thread::sleep(Duration::from_millis(50)),
                other => return Some(other.map_err(|error| error.to_string())),
            }
        }
    }
}

/// The features of an event, or what is wrong with it.
fn features(event: Option<&[u8]>) -> std::result::Result<Vec<f32>, String> {
    #[derive(Deserialize)]
    struct Event {
        features: Vec<Option<f64>>,
    }
    let event: Event = serde_json::from_slice(event.ok_or("expected an event, found a null value")?)
        .map_err(|error| error.to_string())?;
    let feature = |(index, value): (usize, &Option<f64>)| {
        let Some(value) = *value else { return Ok(f32::NAN) };
        #[allow(clippy::cast_possible_truncation, reason = "checked right behind")]
        let feature = value as f32;
        if feature.is_finite() {
            return Ok(feature);
        }
        Err(format!("features[{index}]: expected a number that fits f32, found {value}"))
    };
    event.features.iter().enumerate().map(feature).collect()
}

/// What was scored, on its way to being committed.
struct Commits {
    args: Args,
    producer: ThreadedProducer<Delivered>,
    /// The next offset of each partition, of the events since the last commit.
    next: Mutex<BTreeMap<i32, i64>>,
}

impl Commits {
    fn send(
        &self,
        message: &BorrowedMessage<'_>,
        result: &std::result::Result<Prediction, String>,
    ) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "lowercase")]
        enum Output<'a> {
            Scores(&'a [f32]),
            Error(&'a str),
        }
        let mut headers = OwnedHeaders::new_with_capacity(5);
        let output = match result {
            Ok(prediction) => {
                for (key, value) in prediction.provenance().headers() {
                    headers = headers.insert(Header { key, value: Some(value) });
                }
                Output::Scores(prediction.values())
            }
            Err(reason) => {
                headers = headers.insert(Header { key: "error", value: Some(reason) });
                Output::Error(reason)
            }
        };
        let value = serde_json::to_vec(&output)?;
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.args.output).payload(&value).headers(headers);
        record.key = message.key();
        // A full queue empties by itself.
        while let Err((error, refused)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(Code::QueueFull) {
                return Err(error.into());
            }
            self.producer.flush(Duration::from_millis(100)).ok();
            record = refused;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.insert(message.partition(), message.offset() + 1);
        Ok(())
    }

    /// Waits until all scores are acknowledged, then commits their events.
    fn commit<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) -> Result<()> {
        // librdkafka gives a record up after `delivery.timeout.ms`, so this ends.
        while let Err(error) = self.producer.flush(Duration::from_secs(1)) {
            if error.rdkafka_error_code() != Some(Code::OperationTimedOut) {
                return Err(error.into());
            }
        }
        if let Some(error) = self.producer.context().failed.get() {
            return Err(
                format!("scores could not be written, and their events are not committed: {error}").into()
            );
        }
        let next = std::mem::take(&mut *self.next.lock().unwrap_or_else(PoisonError::into_inner));
        if next.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            offsets.add_partition_offset(&self.args.topic, partition, Offset::Offset(offset))?;
        }
        if let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
            // Another member has the partitions now, or the broker is away: whoever reads on there
            // scores these events once more.
            tracing::warn!(%error, "offsets could not be committed");
        }
        Ok(())
    }
}

impl ClientContext for Commits {}

impl ConsumerContext for Commits {
    /// What this member has scored is committed before another one goes on there.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Revoke(_))
            && let Err(error) = self.commit(consumer)
        {
            tracing::warn!(%error, "partitions are given up");
        }
    }
}

/// Remembers why a score could not be delivered.
#[derive(Default)]
struct Delivered {
    failed: OnceLock<KafkaError>,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.get_or_init(|| error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_with_missing_values_and_fields_of_others() {
        let event = br#"{"id": 7, "features": [1, -2.5e3, null], "more": {"features": 1}}"#;
        let features = features(Some(event)).unwrap();
        assert_eq!(features[..2], [1.0, -2500.0]);
        assert!(features[2].is_nan());
    }

    #[test]
    fn what_is_wrong_with_an_event_is_said() {
        for (event, part) in [
            ("{}", "missing field `features`"),
            (r#"{"features": null}"#, "invalid type: null, expected a sequence"),
            (r#"{"features": ["1"]}"#, "invalid type: string \"1\""),
            (r#"{"features": [1e39]}"#, "features[0]: expected a number that fits f32"),
            (r#"{"features": [1e999]}"#, "number out of range"),
            (r#"{"features": [1]"#, "EOF"),
            ("not json", "expected ident"),
            ("\"text\"", "expected struct Event"),
            ("", "EOF"),
        ] {
            let error = features(Some(event.as_bytes())).unwrap_err();
            assert!(error.contains(part), "{event}: {error}");
        }
        assert_eq!(features(None).unwrap_err(), "expected an event, found a null value");
    }
}
