//! The telemetry: rows of a file, sent as JSON events at an even pace.

use std::path::Path;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tokio::sync::watch;

use crate::Result;

/// How long the whole stream takes.
const DURATION: Duration = Duration::from_secs(6);

/// How far the stream is.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Milestone {
    /// A third of the events are sent.
    Third,
    /// Two thirds are.
    TwoThirds,
    /// All are, and the broker has acknowledged them.
    End,
}

/// A thread that sends the events.
pub(crate) struct Stream {
    total: usize,
    progress: watch::Receiver<Option<Milestone>>,
}

impl Stream {
    pub(crate) fn start(brokers: &str, file: &Path) -> Result<Self> {
        let events = read(file)?;
        let total = events.len();
        let producer: ThreadedProducer<_> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", "200000")
            .create()?;
        let (sender, progress) = watch::channel(None);
        std::thread::spawn(move || {
            let begin = Instant::now();
            for (id, event) in events.iter().enumerate() {
                // Every hundred events it waits until they are due.
                if id % 100 == 0 {
                    let due = begin + DURATION.mul_f64(id as f64 / total as f64);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                let key = id.to_string();
                let record = BaseRecord::to("telemetry").key(&key).payload(event);
                producer.send(record).map_err(|(error, _)| error).expect("the queue holds the whole stream");
                if id == total / 3 {
                    sender.send_replace(Some(Milestone::Third));
                } else if id == total * 2 / 3 {
                    sender.send_replace(Some(Milestone::TwoThirds));
                }
            }
            producer.flush(Duration::from_secs(30)).expect("the mock cluster takes everything");
            sender.send_replace(Some(Milestone::End));
        });
        Ok(Self { total, progress })
    }

    /// How many events there are.
    pub(crate) const fn total(&self) -> usize {
        self.total
    }

    /// Waits until the stream is so far.
    pub(crate) async fn reached(&mut self, milestone: Milestone) -> Result<()> {
        self.progress.wait_for(|reached| *reached >= Some(milestone)).await?;
        Ok(())
    }
}

/// The events as JSON: `{"readings": [..nine..], "anomaly": 0 or 1}`.
fn read(file: &Path) -> Result<Vec<String>> {
    let mut rows = csv::Reader::from_reader(GzDecoder::new(std::fs::File::open(file)?));
    rows.records()
        .map(|row| {
            let row = row?;
            let cells: Vec<&str> = row.iter().collect();
            let (anomaly, readings) = cells.split_last().ok_or("an empty row")?;
            Ok(format!(r#"{{"readings":[{}],"anomaly":{anomaly}}}"#, readings.join(",")))
        })
        .collect()
}
