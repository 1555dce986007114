//! Watch a model change under a running consumer: `cargo run --release --example quickstart`.
//!
//! Nothing to install or start: the broker is librdkafka's mock cluster in this process. The events
//! are 49,097 rows of telemetry of a space shuttle (UCI Statlog Shuttle, CC BY 4.0, see
//! `fixtures/shuttle/README.md`), some 7 % of them anomalies. Model v1 is live when they begin, v2
//! is published in mid-stream, then a v3 that must not go live. At the end everything is counted;
//! the exit status is 0 only if every event was scored exactly once, by a version that is known,
//! and v3 by nobody.

mod audit;
mod consumer;
mod stream;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelswap::publish::{PublishOptions, Publisher};
use modelswap::{Dim, ElementType, Models, Scorer, Signature, StatusWatch, TensorSpec};
use rdkafka::mocking::MockCluster;

use crate::consumer::Consumer;
use crate::stream::{Milestone, Stream};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The mock cluster keeps 5 MiB a partition, so what flows is spread.
const PARTITIONS: i32 = 8;

#[tokio::main]
async fn main() -> Result<()> {
    let begin = Instant::now();
    let say = move |text: &str| println!("{:7.3} s  {text}", begin.elapsed().as_secs_f64());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/shuttle");

    let cluster = MockCluster::new(1)?;
    cluster.create_topic("models", 1, 1)?;
    cluster.create_topic("telemetry", PARTITIONS, 1)?;
    cluster.create_topic("scores", PARTITIONS, 1)?;
    let brokers = cluster.bootstrap_servers();
    say(&format!("a Kafka cluster in this process, at {brokers}"));

    // What this application needs the model to be; anything else is rejected.
    let reading = TensorSpec::new("features", ElementType::F32, &[Dim::Any, Dim::Fixed(9)]);
    let score = TensorSpec::new("probabilities", ElementType::F32, &[Dim::Any, Dim::Fixed(2)]);
    let models = Models::subscribe("models")
        .config("bootstrap.servers", &brokers)
        .expect("anomaly", Signature::new(vec![reading], vec![score]))
        .start()?;
    let scorer = models.scorer("anomaly")?;

    let publisher = Arc::new(Publisher::connect("models").config("bootstrap.servers", &brokers).open()?);
    let publish = |version: &'static str, file: &str, samples: Option<&str>| {
        let (publisher, file) = (Arc::clone(&publisher), folder.join(file));
        let samples = samples.map(|name| folder.join(name));
        tokio::task::spawn_blocking(move || -> Result<Instant> {
            let mut options = PublishOptions::default().version(version);
            if let Some(samples) = samples {
                options = options.samples(serde_json::from_slice(&std::fs::read(samples)?)?);
            }
            publisher.publish("anomaly", file, options)?;
            Ok(Instant::now())
        })
    };

    publish("v1", "v1.onnx", Some("samples_v1.json")).await??;
    scorer.ready(Duration::from_secs(30)).await?;
    say(&format!("published and live: {}", scorer.snapshot()?.provenance()));

    let mut consumer = Consumer::start(&brokers, scorer.clone()).await?;
    say("the consumer has joined its group");
    let mut stream = Stream::start(&brokers, &folder.join("shuttle.csv.gz"))?;
    let total = stream.total();
    say(&format!("{total} readings of a space shuttle begin to flow"));

    let mut status = models.watch_status();
    stream.reached(Milestone::Third).await?;
    say(&format!("{} scored; publishing v2, gradient boosting", consumer.scored()));
    let published = publish("v2", "v2.onnx", Some("samples_v2.json")).await??;
    let live = live_since(&mut status, "v2").await?;
    let to_live = live.saturating_duration_since(published);
    say(&format!("v2 is live {to_live:.1?} after its publish was acknowledged"));

    stream.reached(Milestone::TwoThirds).await?;
    say(&format!(
        "{} scored; publishing v3, which was trained on seven of the nine readings",
        consumer.scored()
    ));
    publish("v3", "bad.onnx", None).await??;
    let rejected = status
        .wait_for(|s| s.model("anomaly").is_some_and(|m| m.last_rejected.is_some()))
        .await
        .and_then(|s| s.model("anomaly")?.last_rejected.clone())
        .ok_or("the subscription ended")?;
    say(&format!("rejected: {rejected}"));
    say(&format!("still live: {}", scorer.snapshot()?.provenance()));

    stream.reached(Milestone::End).await?;
    consumer.has_scored(total, Duration::from_mins(1)).await?;
    let latency = consumer.stop().await?;
    models.shutdown().await;
    say("all events are through; now every score is read back");
    let audit = tokio::task::spawn_blocking(move || audit::read(&brokers, total)).await??;

    println!();
    let checks = audit.report(&["v1", "v2"]);
    println!("   publish to live     v2 {to_live:.1?} after the acknowledgement");
    println!(
        "   predict             p50 {:.1} us, p99 {:.1} us, of {} calls",
        latency.value_at_quantile(0.5) as f64 / 1e3,
        latency.value_at_quantile(0.99) as f64 / 1e3,
        latency.len()
    );
    println!();
    if !checks {
        println!("   something above does not hold");
        std::process::exit(1);
    }
    println!("   all of it holds");
    Ok(())
}

/// When the version was seen to be live.
async fn live_since(status: &mut StatusWatch, version: &str) -> Result<Instant> {
    let live = |status: &modelswap::Status| status.live_version("anomaly") == Some(version);
    tokio::time::timeout(Duration::from_secs(30), status.wait_for(live))
        .await?
        .ok_or("the subscription ended")?;
    Ok(Instant::now())
}
