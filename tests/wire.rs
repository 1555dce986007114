//! The crate against the test vectors of the wire format, which it has not made.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use modelswap::load::{LoadError, LoadOptions, Loader, Model, Payload, RunError};
use modelswap::topic::MemoryTopic;
use modelswap::wire::{
    Announcement, CHUNK_BYTES, Header, Key, Record, Refusal, announcement, chunk_key, decode_release,
    encode_release, partition_of,
};
use modelswap::{
    Artifact, Dim, ElementType, ModelName, Models, Position, Release, Scorer, Sha256Digest, Shape, Signature,
    Tensor, TensorSpec, TensorView,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    artifact: Stated,
    partitions: usize,
    partition: i32,
    records: Vec<Vector>,
    plain_version: PlainVersion,
    smallest_release: String,
    with_unknown_fields: String,
    ignored_keys: Vec<String>,
    rejected: Vec<Rejected>,
    partition_of: Vec<PartitionOf>,
}

#[derive(Deserialize)]
struct Stated {
    bytes: u64,
    sha256: Sha256Digest,
    chunks: u32,
}

#[derive(Deserialize)]
struct Vector {
    what: String,
    key: String,
    headers: Vec<(String, String)>,
    value: Option<Value>,
    value_sha256: Option<Sha256Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Value {
    Text(String),
    File(String),
    Artifact(usize, usize),
}

#[derive(Deserialize)]
struct PlainVersion {
    headers: Vec<(String, String)>,
    value: String,
    version: String,
}

#[derive(Deserialize)]
struct Rejected {
    what: String,
    headers: Vec<(String, String)>,
    value: String,
    names: String,
}

#[derive(Deserialize)]
struct PartitionOf {
    name: String,
    of: BTreeMap<String, i32>,
}

#[test]
fn a_release_document_is_written_byte_for_byte() {
    let text = file("release.json");
    let release = decode_release(&model("fraud"), &text, AT).unwrap();
    assert_eq!(release.version, "2026-11-23 größer");
    assert_eq!((release.sequence, release.time_ms), (1, 1_795_392_000_000));
    assert_eq!(release.interface.signature.as_deref(), Some("serving_default"));
    assert_eq!(release.labels["ticket"], "RISK-7");
    let previous = release.previous.as_ref().unwrap();
    assert_eq!((previous.version.as_str(), previous.artifact.chunks), ("v1", 0));
    assert_eq!(String::from_utf8(encode_release(&release)).unwrap(), String::from_utf8(text).unwrap());

    let smallest = vectors().smallest_release;
    let release = decode_release(&model("a"), smallest.as_bytes(), AT).unwrap();
    assert_eq!(encode_release(&release), smallest.as_bytes());
}

#[test]
fn an_artifact_is_cut_into_the_chunks_and_keys_of_the_vectors() {
    let (vectors, artifact) = (vectors(), artifact());
    let stated = &vectors.artifact;
    let cut = Artifact::of(&artifact, None);
    assert_eq!((cut.sha256, cut.bytes, cut.chunks), (stated.sha256, stated.bytes, stated.chunks));
    let records: Vec<_> = vectors.records.iter().filter(|r| r.value_sha256.is_some()).collect();
    assert_eq!(u32::try_from(records.len()), Ok(stated.chunks));
    for (i, (chunk, record)) in (0..).zip(artifact.chunks(CHUNK_BYTES).zip(records)) {
        assert_eq!(chunk_key(&model("fraud"), cut.sha256, i), record.key);
        assert_eq!(record.bytes().unwrap(), chunk, "{}", record.what);
        assert_eq!(Some(Sha256Digest::of([chunk])), record.value_sha256);
    }
}

#[test]
fn keys_say_what_the_vectors_say_and_others_are_ignored() {
    let vectors = vectors();
    for record in &vectors.records {
        let key = Key::parse(record.key.as_bytes()).unwrap();
        assert_eq!((key.to_string(), key.model().as_str()), (record.key.clone(), "fraud"));
        assert_eq!(matches!(key, Key::Chunk { .. }), record.what.contains("chunk "), "{}", record.what);
    }
    for key in &vectors.ignored_keys {
        assert_eq!(Key::parse(key.as_bytes()), None, "{key}");
    }
}

#[test]
fn what_the_vectors_take_is_taken_and_what_they_reject_is_rejected() {
    let vectors = vectors();
    let plain = &vectors.plain_version;
    assert_eq!(announce(&plain.headers, &plain.value).unwrap().version, plain.version);
    announce(&[], &vectors.with_unknown_fields).unwrap();
    assert!(vectors.rejected.len() > 5);
    for rejected in &vectors.rejected {
        let reason = announce(&rejected.headers, &rejected.value).unwrap_err().to_string();
        assert!(reason.contains(&rejected.names), "{}: {reason}", rejected.what);
    }
}

#[test]
fn names_go_to_the_partitions_of_the_vectors() {
    for vector in vectors().partition_of {
        for (partitions, expected) in vector.of {
            let partitions = partitions.parse().unwrap();
            assert_eq!(partition_of(vector.name.as_bytes(), partitions), expected, "{}", vector.name);
        }
    }
}

/// The records one after the other on a topic: the plain publish is live, then the chunked one once
/// its document is there, then none.
#[tokio::test]
async fn a_subscriber_follows_the_records_of_the_vectors() {
    let vectors = vectors();
    let topic = MemoryTopic::new("models", vectors.partitions);
    let loader = Arc::new(SumLoader::default());
    let subscription = Models::subscribe_to(Arc::new(topic.clone())).model("fraud");
    let models = subscription.loader(loader.clone()).start().unwrap();
    let mut status = models.watch_status();
    let scorer = models.scorer("fraud").unwrap();
    for record in &vectors.records {
        let headers: Vec<_> = headers(&record.headers);
        let value = record.bytes().map(Bytes::from);
        // A writer sends all records of a model where the model's name goes.
        let position = topic.append_to(vectors.partition, record.key.as_bytes(), value, &headers);
        let live_as = match record.what.as_str() {
            "a plain publish" => Some("v1"),
            "the release document that commits the chunks" => Some("2026-11-23 größer"),
            "the model is withdrawn" => None,
            _ => continue,
        };
        status
            .wait_for(|status| {
                let live = status.model("fraud").and_then(|m| m.live.as_ref());
                live.map(|live| live.provenance.version()) == live_as
            })
            .await
            .unwrap();
        if live_as.is_some() {
            let score = scorer.predict(&[1.0_f32, 2.0]).unwrap();
            assert_eq!((score.values(), score.provenance().position()), (&[3.0_f32][..], position));
        }
    }
    let loaded = loader.loaded.lock().unwrap();
    assert_eq!(*loaded, [b"sum of a row\n".to_vec(), artifact()]);
}

const AT: Position = Position { partition: 1, offset: 2 };

fn announce(headers_of: &[(String, String)], value: &str) -> Result<Release, Refusal> {
    let record = Record {
        position: AT,
        timestamp_ms: 0,
        key: "a".into(),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: headers(headers_of),
    };
    match announcement(&model("a"), &record)? {
        Announcement::Release(release) => Ok(*release),
        other => panic!("{other:?}"),
    }
}

fn headers(headers: &[(String, String)]) -> Vec<Header> {
    headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone().into() }).collect()
}

impl Vector {
    fn bytes(&self) -> Option<Vec<u8>> {
        Some(match self.value.as_ref()? {
            Value::Text(text) => text.clone().into_bytes(),
            Value::File(name) => file(name),
            Value::Artifact(from, to) => artifact()[*from..*to].to_vec(),
        })
    }
}

fn vectors() -> Vectors {
    serde_json::from_slice(&file("vectors.json")).unwrap()
}

/// Byte `i` is `i` modulo 251.
fn artifact() -> Vec<u8> {
    (0..=250).cycle().take(usize::try_from(vectors().artifact.bytes).unwrap()).collect()
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire").join(name)).unwrap()
}

fn model(name: &str) -> ModelName {
    name.parse().unwrap()
}

/// Takes whatever file for a model that sums each row, and remembers it.
#[derive(Default)]
struct SumLoader {
    loaded: Mutex<Vec<Vec<u8>>>,
}

impl Loader for SumLoader {
    fn format(&self) -> &'static str {
        "sum"
    }

    fn recognises(&self, _payload: &Payload) -> bool {
        false
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        // The plain publish states none; the release states them all.
        assert!(options.outputs.is_empty() || options.outputs == ["score"]);
        self.loaded.lock().unwrap().push(payload.into_bytes().to_vec());
        let spec = |name, width| TensorSpec::new(name, ElementType::F32, &[Dim::Any, Dim::Fixed(width)]);
        Ok(Arc::new(Sum { signature: Signature::new(vec![spec("features", 2)], vec![spec("score", 1)]) }))
    }
}

struct Sum {
    signature: Signature,
}

impl Model for Sum {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let rows = inputs[0].values::<f32>().unwrap().chunks_exact(2);
        let scores = outputs[0].reset::<f32>(Shape::matrix(rows.len(), 1));
        for (score, row) in scores.iter_mut().zip(rows) {
            *score = row.iter().sum();
        }
        Ok(())
    }
}
