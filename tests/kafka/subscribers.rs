//! Subscribers on real Kafka: what they make of what lies on the topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use modelswap::load::{LoadError, LoadOptions, Loader, Model, Payload};
use modelswap::publish::PublishOptions;
use modelswap::topic::{KafkaTopic, Topic, TopicWriter};
use modelswap::wire::{CHUNK_BYTES, Header, chunk_key};
use modelswap::{
    Artifact, ErrorKind, ModelScorer, Models, Scorer as _, Sha256Digest, Stage, Status, TopicState,
};

use crate::broker::{self, Broker};
use crate::children::Process;
use crate::foreign;
use crate::numbers::{NumberLoader, number, publisher};
use crate::twins::{Kafka, PATIENCE, Twin as _, client, unique_name};

pub(crate) fn subscribe(topic: &KafkaTopic) -> (Models, ModelScorer) {
    let subscription = Models::subscribe_to(Arc::new(topic.clone())).model("fraud");
    let models = subscription.loader(Arc::new(NumberLoader)).start().unwrap();
    let scorer = models.scorer("fraud").unwrap();
    (models, scorer)
}

/// Waits until the status is as wanted.
async fn wait(models: &Models, what: &str, wanted: impl Fn(&Status) -> bool) -> Arc<Status> {
    let mut watch = models.watch_status();
    let waited = tokio::time::timeout(PATIENCE, watch.wait_for(wanted)).await;
    waited.unwrap_or_else(|_| panic!("{what} did not happen: {}", models.status())).unwrap()
}

pub(crate) async fn live(models: &Models, version: &str) {
    wait(models, &format!("{version} live"), |s| s.live_version("fraud") == Some(version)).await;
}

/// Waits for the rejection of a version, and answers the check that it failed and why.
async fn rejection(models: &Models, version: &str) -> (Stage, String) {
    let rejected = |s: &Status| {
        let rejected = s.model("fraud").and_then(|m| m.last_rejected.clone());
        rejected.filter(|r| r.version.as_deref() == Some(version))
    };
    let status = wait(models, "rejection", |s| rejected(s).is_some()).await;
    let rejection = rejected(&status).unwrap().rejection;
    (rejection.stage, rejection.reason)
}

pub(crate) fn publish(topic: &KafkaTopic, file: Bytes, version: &str) -> modelswap::Release {
    let options = PublishOptions::default().version(version);
    publisher(Arc::new(topic.clone())).publish("fraud", file, options).unwrap()
}

pub(crate) fn score(scorer: &ModelScorer) -> f32 {
    scorer.predict(&[0.0_f32]).unwrap().values()[0]
}

/// Writes raw records to partition 0 in one transaction.
fn write(topic: &KafkaTopic, records: &[(String, Option<Bytes>, Vec<Header>)]) {
    let mut writer = topic.writer(&format!("{}-raw", topic.name())).unwrap();
    write_with(&mut *writer, records);
}

fn write_with(writer: &mut dyn TopicWriter, records: &[(String, Option<Bytes>, Vec<Header>)]) {
    writer.begin().unwrap();
    for (key, value, headers) in records {
        writer.send(0, key.as_bytes(), value.clone(), headers).unwrap();
    }
    writer.commit().unwrap();
}

/// A release document as another language might write it.
fn document(version: &str, artifact: &Artifact) -> (String, Option<Bytes>, Vec<Header>) {
    let artifact = serde_json::to_string(artifact).unwrap();
    let text = format!(
        r#"{{"schema":1,"model":"fraud","version":"{version}","sequence":1,"time_ms":1,"artifact":{artifact}}}"#
    );
    ("fraud".into(), Some(text.into()), vec![])
}

fn chunk(artifact: &Artifact, index: u32, bytes: Bytes) -> (String, Option<Bytes>, Vec<Header>) {
    (chunk_key(&"fraud".parse().unwrap(), artifact.sha256, index), Some(bytes), vec![])
}

#[tokio::test]
async fn a_fleet_follows_what_is_published_rolled_back_and_withdrawn() {
    let twin = Kafka::new(3);
    let (first, scorer) = subscribe(&twin.topic);
    let error = scorer.ready(std::time::Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    publish(&twin.topic, number(1.0, 3 * CHUNK_BYTES), "1");
    scorer.ready(PATIENCE).await.unwrap();
    assert_eq!(score(&scorer), 1.0);
    let (second, other) = subscribe(&twin.topic);
    live(&second, "1").await;
    let release = publish(&twin.topic, number(2.0, 10), "2");
    for models in [&first, &second] {
        live(models, "2").await;
    }
    let prediction = other.predict(&[0.0_f32]).unwrap();
    assert_eq!(prediction.provenance().position(), release.position);
    let publisher = publisher(twin.topic());
    publisher.rollback("fraud", None).unwrap();
    live(&first, "1").await;
    assert_eq!(score(&scorer), 1.0);
    publisher.withdraw("fraud").unwrap();
    wait(&first, "withdrawal", |s| s.live_version("fraud").is_none()).await;
    assert!(scorer.predict(&[0.0_f32]).is_err());
    first.shutdown().await;
}

#[tokio::test]
async fn a_fresh_instance_falls_back_where_the_newest_release_is_bad() {
    let twin = Kafka::new(1);
    let good = publish(&twin.topic, number(1.0, 10), "1");
    publish(&twin.topic, number(2.0, 2 * CHUNK_BYTES), "2");
    let bad = Artifact::of(&number(2.0, 2 * CHUNK_BYTES), None);
    write(&twin.topic, &[chunk(&bad, 1, Bytes::from_static(b"damaged"))]);
    // So that only the newest release has a record of its own.
    twin.compact_away(&[good.position]);
    let (models, scorer) = subscribe(&twin.topic);
    scorer.ready(PATIENCE).await.unwrap();
    assert_eq!(score(&scorer), 1.0);
    let (stage, reason) = rejection(&models, "2").await;
    assert!(matches!(stage, Stage::Chunks | Stage::Digest), "{stage}: {reason}");
    // To publish it again repairs it.
    publish(&twin.topic, number(2.0, 2 * CHUNK_BYTES), "2-again");
    live(&models, "2-again").await;
}

#[tokio::test]
async fn what_is_damaged_on_the_way_is_rejected_and_the_old_model_goes_on() {
    let twin = Kafka::new(1);
    publish(&twin.topic, number(1.0, 10), "good");
    let (models, scorer) = subscribe(&twin.topic);
    live(&models, "good").await;
    let file = number(2.0, 2 * CHUNK_BYTES + 5);
    let artifact = Artifact::of(&file, None);
    let pieces: Vec<Bytes> = file.chunks(CHUNK_BYTES).map(Bytes::copy_from_slice).collect();
    let mut flipped = pieces[1].to_vec();
    flipped[7] ^= 1;
    let whole: Vec<_> = (0..).zip(&pieces).map(|(i, piece)| chunk(&artifact, i, piece.clone())).collect();

    // The last chunk never came.
    write(&twin.topic, &[whole[0].clone(), whole[1].clone(), document("truncated", &artifact)]);
    assert_eq!(rejection(&models, "truncated").await.0, Stage::Chunks);
    // One bit of a chunk is wrong.
    let corrupted = chunk(&artifact, 1, flipped.into());
    write(&twin.topic, &[whole[0].clone(), corrupted, whole[2].clone(), document("corrupted", &artifact)]);
    let (stage, reason) = rejection(&models, "corrupted").await;
    assert_eq!(stage, Stage::Digest);
    assert!(reason.contains(&artifact.sha256.to_string()), "{reason}");
    // Two chunks changed places.
    let swapped = [chunk(&artifact, 0, pieces[1].clone()), chunk(&artifact, 1, pieces[0].clone())];
    write(&twin.topic, &[&swapped[..], &[whole[2].clone(), document("reordered", &artifact)]].concat());
    assert_eq!(rejection(&models, "reordered").await.0, Stage::Digest);
    // A plain publish with the digest of something else.
    let header = |name: &str, value: String| Header { name: name.into(), value: value.into() };
    let headers = vec![
        header("sha256", Sha256Digest::of([&b"other"[..]]).to_string()),
        header("version", "wrong-digest".into()),
    ];
    write(&twin.topic, &[("fraud".into(), Some(number(3.0, 10)), headers)]);
    assert_eq!(rejection(&models, "wrong-digest").await.0, Stage::Digest);
    assert_eq!((score(&scorer), models.status().live_version("fraud")), (1.0, Some("good")));
    // And at last all of it.
    write(&twin.topic, &[&whole[..], &[document("whole", &artifact)]].concat());
    live(&models, "whole").await;
    assert_eq!(score(&scorer), 2.0);
}

/// Counts what is loaded.
struct Counting(AtomicUsize);

impl Loader for Counting {
    fn format(&self) -> &'static str {
        "number"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        NumberLoader.recognises(payload)
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        NumberLoader.load(payload, options)
    }
}

#[tokio::test]
async fn of_two_hundred_stale_versions_only_the_newest_is_loaded() {
    let twin = Kafka::new(1);
    let mut writer = twin.topic.writer("stale").unwrap();
    for version in 0..200_u16 {
        let file = number(f32::from(version), 1000);
        let artifact = Artifact::of(&file, None);
        let release = document(&version.to_string(), &artifact);
        write_with(&mut *writer, &[chunk(&artifact, 0, file), release]);
    }
    let newest = publish(&twin.topic, number(200.0, 1000), "200");
    // Once with all of them on the topic, once when they have been compacted.
    for compacted in [false, true] {
        if compacted {
            let stale =
                (0..newest.position.offset - 50).map(|offset| modelswap::Position { partition: 0, offset });
            twin.compact_away(&stale.collect::<Vec<_>>());
        }
        let loader = Arc::new(Counting(AtomicUsize::new(0)));
        let subscription = Models::subscribe_to(twin.topic()).model("fraud").loader(loader.clone());
        let models = subscription.start().unwrap();
        let scorer = models.scorer("fraud").unwrap();
        scorer.ready(PATIENCE).await.unwrap();
        assert_eq!(score(&scorer), 200.0);
        assert_eq!(loader.0.load(Ordering::SeqCst), 1);
        assert_eq!(models.status().model("fraud").unwrap().rejections, 0);
        models.shutdown().await;
    }
}

/// 150 MB, or as many bytes as `MODEL_BYTES` says, from a publisher to a subscriber that follows the
/// topic and to one that starts later, each in a process of its own.
#[test]
fn a_large_model_goes_through_a_broker_with_its_default_limits_in_bounded_memory() {
    let bytes: usize = std::env::var("MODEL_BYTES").map_or(150_000_000, |text| text.parse().unwrap());
    let twin = Kafka::new(1);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("model");
    std::fs::write(&file, number(150.0, bytes)).unwrap();
    let environment =
        [("BOOTSTRAP", broker::shared()), ("TOPIC", twin.topic.name()), ("FILE", file.to_str().unwrap())];
    let mut following = Process::start("subscribes_until_live", &environment);
    following.wait_for("caught up");
    let mut publishing = Process::start("publishes_a_file", &environment);
    let mut peaks = vec![publishing.answer("peak "), following.answer("peak ")];
    let mut later = Process::start("subscribes_until_live", &environment);
    peaks.push(later.answer("peak "));
    println!("peaks of {bytes} bytes, publisher, follower, later subscriber: {peaks:?}");
    for peak in peaks {
        assert!(peak.parse::<usize>().unwrap() < 2 * bytes, "{peak} bytes of memory for a file of {bytes}");
    }
}

#[tokio::test]
async fn a_publisher_that_is_killed_halfway_changes_nothing_and_can_be_repeated() {
    const BYTES: usize = 100 * CHUNK_BYTES;
    let twin = Kafka::new(1);
    publish(&twin.topic, number(9.0, 10), "before");
    let (models, scorer) = subscribe(&twin.topic);
    live(&models, "before").await;
    for _ in 0..2 {
        let mut killed = Process::start(
            "publishes_half_a_model",
            &[("BOOTSTRAP", broker::shared()), ("TOPIC", twin.topic.name()), ("BYTES", &BYTES.to_string())],
        );
        killed.wait_for("halfway");
        killed.kill();
    }
    // Some chunks are committed by then; a fresh instance does not care either.
    let (fresh, other) = subscribe(&twin.topic);
    other.ready(PATIENCE).await.unwrap();
    for (models, scorer) in [(&models, &scorer), (&fresh, &other)] {
        assert_eq!((score(scorer), models.status().model("fraud").unwrap().rejections), (9.0, 0));
    }
    publish(&twin.topic, number(1.0, BYTES), "after");
    live(&models, "after").await;
    live(&fresh, "after").await;
    assert_eq!(score(&scorer), 1.0);
}

#[tokio::test]
async fn scoring_goes_on_while_the_broker_is_away() {
    let mut broker = Broker::start();
    let twin = Kafka::on(broker.bootstrap(), 1);
    publish(&twin.topic, number(1.0, 10), "1");
    let (models, scorer) = subscribe(&twin.topic);
    live(&models, "1").await;
    let stop = Arc::new(AtomicBool::new(false));
    let scoring = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let (mut scored, mut scores) = (0_u64, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let score = score(&scorer);
                if scores.last() != Some(&score) {
                    scores.push(score);
                }
                scored += 1;
            }
            (scored, scores)
        }
    });
    broker.kill();
    wait(&models, "an outage", |s| matches!(s.topic, TopicState::Unavailable { .. })).await;
    assert_eq!(models.status().live_version("fraud"), Some("1"));
    broker.resume();
    wait(&models, "its end", |s| s.topic == TopicState::CaughtUp).await;
    publish(&twin.topic, number(2.0, 10), "2");
    live(&models, "2").await;
    stop.store(true, Ordering::Relaxed);
    let (scored, scores) = scoring.join().unwrap();
    assert!(scored > 0);
    assert!(scores == [1.0] || scores == [1.0, 2.0], "{scores:?}");
}

#[tokio::test]
async fn a_subscriber_that_starts_before_topic_and_permission_needs_no_restart() {
    let topic = client(broker::shared(), &unique_name());
    let (models, scorer) = subscribe(&topic);
    let status = wait(&models, "an outage", |s| matches!(s.topic, TopicState::Unavailable { .. })).await;
    assert!(status.topic.to_string().contains("there is no topic"), "{}", status.topic);
    let error = scorer.ready(std::time::Duration::from_millis(1)).await.unwrap_err().to_string();
    assert!(error.contains("there is no topic"), "{error}");
    topic.create(&modelswap::topic::TopicSettings::default()).unwrap();
    publish(&topic, number(1.0, 10), "1");
    scorer.ready(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_model_that_moves_with_the_growth_of_the_topic_is_followed() {
    let twin = Kafka::new(1);
    publish(&twin.topic, number(1.0, 10), "1");
    let (models, scorer) = subscribe(&twin.topic);
    live(&models, "1").await;
    twin.grow(5);
    let release = publish(&twin.topic, number(2.0, 10), "2");
    assert_ne!(release.position.partition, 0);
    live(&models, "2").await;
    assert_eq!(score(&scorer), 2.0);
    let (_fresh, other) = subscribe(&twin.topic);
    other.ready(PATIENCE).await.unwrap();
    assert_eq!(score(&other), 2.0);
}

#[tokio::test]
async fn a_plain_publish_by_a_client_that_is_not_ours_goes_live() {
    let twin = Kafka::new(4);
    let (models, scorer) = subscribe(&twin.topic);
    foreign::publish(broker::shared(), twin.topic.name(), "fraud", "from-python", &number(1.0, 500_000));
    live(&models, "from-python").await;
    // In another partition than ours would be: librdkafka's partitioner is not Java's.
    publish(&twin.topic, number(2.0, 10), "2");
    live(&models, "2").await;
    foreign::publish(broker::shared(), twin.topic.name(), "fraud", "python-again", &number(3.0, 10));
    live(&models, "python-again").await;
    assert_eq!(score(&scorer), 3.0);
}

#[tokio::test]
async fn whatever_headers_compression_and_partition_a_plain_publish_has_it_is_taken_or_refused() {
    let twin = Kafka::new(4);
    let (models, scorer) = subscribe(&twin.topic);
    let produce = |partition, headers: &[(&str, &str)], config: &[(&str, &str)], file: &[u8]| {
        foreign::produce(broker::shared(), twin.topic.name(), partition, headers, config, file);
    };
    let file = |score: usize| [format!("number {score}\n").into_bytes(), vec![b' '; 100_000]].concat();
    let digest = |file: &[u8]| Sha256Digest::of([file]);
    let mut scores = 0;
    for codec in ["none", "gzip", "snappy", "lz4"] {
        scores += 1;
        let file = file(scores);
        let upper = digest(&file).to_string().to_uppercase();
        produce(-1, &[("sha256", &upper), ("version", codec)], &[("compression.type", codec)], &file);
        live(&models, codec).await;
        assert_eq!(score(&scorer), scores as f32);
    }
    // The newest one counts, wherever it lies; without a version it is called by its digest.
    for partition in [3, 0, 2, 1] {
        scores += 1;
        let file = file(scores);
        let sha256 = digest(&file);
        produce(partition, &[("sha256", &sha256.to_string()), ("other", "x")], &[], &file);
        live(&models, &sha256.short()).await;
        assert_eq!(score(&scorer), scores as f32);
    }
    let other = digest(b"other").to_string();
    produce(1, &[("sha256", &other), ("version", "wrong")], &[], &file(0));
    assert_eq!(rejection(&models, "wrong").await.0, Stage::Digest);
    for (headers, part) in [
        (&[("version", "x")][..], "expected a header `sha256` or a release document, found neither"),
        (&[("sha256", "12")], "header `sha256`"),
        (&[("sha256", &*other), ("version", "")], "header `version`"),
    ] {
        produce(1, headers, &[], &file(0));
        let told = |s: &Status| {
            let rejected = s.model("fraud").and_then(|m| m.last_rejected.as_ref());
            rejected.is_some_and(|r| r.rejection.reason.contains(part))
        };
        wait(&models, part, told).await;
        assert_eq!(score(&scorer), scores as f32);
    }
}
