//! A consumer group that scores JSON events: `cargo run --release --example consumer -- --help`.
//!
//! Reads events like `{"features": [0.1, 2.0, ..]}` from `--topic`, scores each with the newest
//! verified version of `--model`, and writes `{"scores": [..]}` to `--output` under the event's key,
//! with the version in the headers. An event that cannot be scored is written as
//! `{"error": "..."}`: nothing is lost. Offsets are committed when the scores are acknowledged, so
//! events are scored at least once. Run several with the same `--group` to share the partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use modelswap::{Models, PredictError, Prediction, Scorer};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

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

#[derive(Deserialize)]
struct Event {
    features: Vec<f32>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Output<'a> {
    Scores(&'a [f32]),
    Error(String),
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
    tokio::spawn(stop_on_signal(Arc::clone(&stop)));
    scorer.ready(Duration::from_secs(args.wait)).await?;

    let work = tokio::task::spawn_blocking(move || consume(&args, &scorer, &stop));
    let scored = work.await??;
    models.shutdown().await;
    eprintln!("scored {scored} events");
    Ok(())
}

/// Polls, scores and produces until it is told to stop; answers how many events it scored.
fn consume(args: &Args, scorer: &dyn Scorer, stop: &AtomicBool) -> Result<u64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.brokers).extend(args.properties.clone());
    let delivered = Delivered::default();
    let producer: ThreadedProducer<Delivered> = config
        .clone()
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .create_with_context(delivered)?;
    let consumer: BaseConsumer = config
        .set("group.id", &args.group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[&args.topic])?;

    let mut scored = 0;
    // The next offset of each partition, of the events since the last commit.
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut batch = 0;
    while !stop.load(Ordering::Relaxed) {
        let message = consumer.poll(Duration::from_millis(100)).transpose()?;
        if let Some(message) = &message {
            score(args, scorer, &producer, message)?;
            next.insert(message.partition(), message.offset() + 1);
            scored += 1;
            batch += 1;
        }
        if batch >= 1000 || (message.is_none() && batch > 0) {
            commit(args, &producer, &consumer, &next)?;
            next.clear();
            batch = 0;
        }
    }
    commit(args, &producer, &consumer, &next)?;
    Ok(scored)
}

fn score(
    args: &Args,
    scorer: &dyn Scorer,
    producer: &ThreadedProducer<Delivered>,
    message: &BorrowedMessage<'_>,
) -> Result<()> {
    let event: serde_json::Result<Event> = serde_json::from_slice(message.payload().unwrap_or_default());
    let prediction: std::result::Result<Prediction, String> = match event {
        Ok(event) => match scorer.predict(&event.features) {
            // Nothing can be said of any event now, so this one is not passed over.
            Err(PredictError::NoModel) => return Err("the model was withdrawn".into()),
            other => other.map_err(|error| error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    };
    let (output, mut headers) = match &prediction {
        Ok(prediction) => (Output::Scores(prediction.values()), OwnedHeaders::new_with_capacity(5)),
        Err(error) => (Output::Error(error.clone()), OwnedHeaders::new()),
    };
    if let Ok(prediction) = &prediction {
        for (key, value) in prediction.provenance().headers() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
    }
    let value = serde_json::to_vec(&output)?;
    let key = message.key().unwrap_or_default();
    let mut record = BaseRecord::to(&args.output).key(key).payload(&value).headers(headers);
    // A full queue empties by itself.
    while let Err((error, refused)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        producer.flush(Duration::from_millis(100)).ok();
        record = refused;
    }
    Ok(())
}

/// Commits the events whose scores are all acknowledged.
fn commit(
    args: &Args,
    producer: &ThreadedProducer<Delivered>,
    consumer: &BaseConsumer,
    next: &BTreeMap<i32, i64>,
) -> Result<()> {
    producer.flush(Duration::from_mins(1))?;
    if producer.context().failed.load(Ordering::Relaxed) {
        return Err("scores could not be produced; their events are not committed".into());
    }
    if next.is_empty() {
        return Ok(());
    }
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset(&args.topic, *partition, Offset::Offset(*offset))?;
    }
    match consumer.commit(&offsets, CommitMode::Sync) {
        // Another member of the group has these partitions now, and scores their events again.
        Err(error)
            if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::IllegalGeneration) =>
        {
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Remembers whether any score could not be delivered.
#[derive(Default)]
struct Delivered {
    failed: AtomicBool,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }
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
