//! Processes of their own: this test program started again, with one of the tasks below.
//!
//! The tasks are tests that `cargo test` leaves out; a parent names one of them, passes what it
//! needs in the environment, and reads the lines that it prints.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use modelswap::publish::{PublishOptions, Step};
use modelswap::wire::CHUNK_BYTES;
use modelswap::{Models, Scorer as _};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::Offset;

use crate::numbers::{NumberLoader, number, publisher};
use crate::twins::{PATIENCE, client};

/// What every line for the parent begins with; the test harness prints lines too.
const MARK: &str = "child: ";

/// A process that does one task. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(task: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("children::{task}"), "--ignored", "--nocapture"])
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads until the process has said this.
    pub(crate) fn wait_for(&mut self, wanted: &str) {
        while self.next_line() != wanted {}
    }

    /// Reads until the process has said something that begins with this; answers the rest of it.
    pub(crate) fn answer(&mut self, beginning: &str) -> String {
        loop {
            if let Some(answer) = self.next_line().strip_prefix(beginning) {
                return answer.to_owned();
            }
        }
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the process has ended");
            // The harness may have left its own words on the same line.
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets the process finish, and waits for it.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: &str) {
    println!("{MARK}{line}");
}

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: a parent starts this"))
}

/// Waits until the parent closes our input, or dies.
fn wait_for_parent() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Publishes a model of `BYTES`, and stops for good in the middle of the upload.
#[test]
#[ignore = "a task for a process of its own"]
fn publishes_half_a_model() {
    let topic = client(&environment("BOOTSTRAP"), &environment("TOPIC"));
    let bytes: usize = environment("BYTES").parse().unwrap();
    let half = (bytes / 2) as u64;
    let publisher = publisher(std::sync::Arc::new(topic)).on_progress(move |progress| {
        if progress.step == Step::Upload && progress.done >= half {
            say("halfway");
            wait_for_parent();
            panic!("nobody killed this process");
        }
    });
    assert!(bytes > 4 * CHUNK_BYTES);
    publisher.publish("fraud", number(1.0, bytes), PublishOptions::default()).unwrap();
}

/// Publishes the file `FILE`, and says the most memory that the process ever had.
#[test]
#[ignore = "a task for a process of its own"]
fn publishes_a_file() {
    let topic = client(&environment("BOOTSTRAP"), &environment("TOPIC"));
    let file = std::path::PathBuf::from(environment("FILE"));
    publisher(std::sync::Arc::new(topic)).publish("fraud", file, PublishOptions::default()).unwrap();
    say(&format!("peak {}", peak_bytes()));
}

/// Subscribes, and says the most memory that the process ever had when a version is live.
#[test]
#[ignore = "a task for a process of its own"]
fn subscribes_until_live() {
    let topic = client(&environment("BOOTSTRAP"), &environment("TOPIC"));
    let subscription = Models::subscribe_to(std::sync::Arc::new(topic)).model("fraud");
    let models = subscription.loader(std::sync::Arc::new(NumberLoader)).start().unwrap();
    let mut watch = models.watch_status();
    let caught_up = watch.wait_for(|status| status.topic == modelswap::TopicState::CaughtUp);
    pollster::block_on(caught_up).unwrap();
    say("caught up");
    pollster::block_on(models.scorer("fraud").unwrap().ready(10 * PATIENCE)).unwrap();
    say(&format!("peak {}", peak_bytes()));
}

/// The largest resident size that this process ever had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
}

/// A consumer in the group `GROUP`: scores the events of `INPUT` and writes them, with the version
/// in the headers, to `OUTPUT`, in transactions with the offsets.
#[test]
#[ignore = "a task for a process of its own"]
fn consumes_and_scores() {
    let bootstrap = environment("BOOTSTRAP");
    let (input, output) = (environment("INPUT"), environment("OUTPUT"));
    let models = Models::subscribe_to(std::sync::Arc::new(client(&bootstrap, &environment("TOPIC"))))
        .model("fraud")
        .loader(std::sync::Arc::new(NumberLoader))
        .start()
        .unwrap();
    let fraud = models.scorer("fraud").unwrap();
    pollster::block_on(fraud.ready(PATIENCE)).unwrap();

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("group.id", environment("GROUP"))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("transactional.id", format!("{output}-{}", std::process::id()))
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    consumer.subscribe(&[&input]).unwrap();

    let (sender, stop) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        wait_for_parent();
        drop(sender);
    });
    let (mut assigned, mut version) = (0, String::new());
    while stop.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
        // A version that is live is told even while there is nothing to score.
        let snapshot = fraud.snapshot().unwrap();
        if snapshot.provenance().version() != version {
            snapshot.provenance().version().clone_into(&mut version);
            say(&format!("live {version}"));
        }
        let message = consumer.poll(Duration::from_millis(20));
        let now = consumer.assignment().unwrap().count();
        if now != assigned {
            assigned = now;
            say(&format!("assigned {assigned}"));
        }
        let Some(message) = message else { continue };
        // A batch: what has come by now, scored by one version and committed together.
        let batch = std::iter::once(message).chain(std::iter::from_fn(|| consumer.poll(Duration::ZERO)));
        let mut offsets = rdkafka::TopicPartitionList::new();
        producer.begin_transaction().unwrap();
        for message in batch.take(50) {
            let message = message.unwrap();
            let event = std::str::from_utf8(message.payload().unwrap()).unwrap();
            let score = snapshot.predict(&[event.parse::<f32>().unwrap()]).unwrap();
            let headers = score.provenance().headers().fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header { key, value: Some(value) })
            });
            let value = score.values()[0].to_string();
            let record = BaseRecord::to(&output).key(event).payload(&value).headers(headers);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            let next = Offset::Offset(message.offset() + 1);
            if offsets.set_partition_offset(&input, message.partition(), next).is_err() {
                offsets.add_partition_offset(&input, message.partition(), next).unwrap();
            }
        }
        let group = consumer.group_metadata().unwrap();
        producer.send_offsets_to_transaction(&offsets, &group, PATIENCE).unwrap();
        producer.commit_transaction(PATIENCE).unwrap();
    }
    pollster::block_on(models.shutdown());
}
