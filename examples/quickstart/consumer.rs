//! The application: a consumer that scores each event and produces the score, with the version that
//! made it in the headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use modelswap::{ModelScorer, Scorer};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message};
use serde::Deserialize;
use tokio::sync::{oneshot, watch};

use crate::Result;

#[derive(Deserialize)]
struct Event {
    readings: [f32; 9],
    anomaly: u8,
}

/// A thread that consumes, scores and produces.
pub(crate) struct Consumer {
    stop: Arc<AtomicBool>,
    scored: watch::Receiver<usize>,
    thread: std::thread::JoinHandle<Result<Histogram<u64>>>,
}

impl Consumer {
    /// Starts it, and waits until its consumer group has given it partitions.
    pub(crate) async fn start(brokers: &str, scorer: ModelScorer) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "quickstart")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "10")
            .create()?;
        consumer.subscribe(&["telemetry"])?;
        let producer: ThreadedProducer<_> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", "200000")
            .create()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (count, scored) = watch::channel(0);
        let (assigned, joined) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut latency = Histogram::new(3)?;
            let mut assigned = Some(assigned);
            while !stopped.load(Ordering::Relaxed) {
                let polled = consumer.poll(Duration::from_millis(50));
                if assigned.is_some() && consumer.assignment()?.count() > 0 {
                    // Nobody minds where `start` has given up waiting.
                    let _ = assigned.take().map(|assigned| assigned.send(()));
                }
                let Some(message) = polled else { continue };
                let message = message?;
                let event: Event =
                    serde_json::from_slice(message.payload().ok_or("an event without a value")?)?;

                let begin = Instant::now();
                let score = scorer.predict(&event.readings)?;
                latency.record(u64::try_from(begin.elapsed().as_nanos())?)?;

                let mut headers = OwnedHeaders::new();
                for (key, value) in score.provenance().headers() {
                    headers = headers.insert(Header { key, value: Some(value) });
                }
                let value =
                    serde_json::json!({"score": score.values()[1], "anomaly": event.anomaly}).to_string();
                let key = message.key().ok_or("an event without a key")?;
                let record = BaseRecord::to("scores").key(key).payload(&value).headers(headers);
                producer.send(record).map_err(|(error, _)| error)?;
                count.send_modify(|scored| *scored += 1);
            }
            producer.flush(Duration::from_secs(30))?;
            Ok(latency)
        });
        tokio::time::timeout(Duration::from_secs(30), joined).await??;
        Ok(Self { stop, scored, thread })
    }

    /// How many events have been scored.
    pub(crate) fn scored(&self) -> usize {
        *self.scored.borrow()
    }

    /// Waits until so many events have been scored.
    pub(crate) async fn has_scored(&mut self, events: usize, timeout: Duration) -> Result<()> {
        tokio::time::timeout(timeout, self.scored.wait_for(|scored| *scored >= events)).await??;
        Ok(())
    }

    /// Stops the thread, and answers how long each call of `predict` took, in nanoseconds.
    pub(crate) async fn stop(self) -> Result<Histogram<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        tokio::task::spawn_blocking(|| self.thread.join()).await?.map_err(|_| "the consumer panicked")?
    }
}
