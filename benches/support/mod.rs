//! What the benches share: the models that `benches/models.py` makes, and ways to serve them.
#![allow(dead_code, reason = "no bench needs all of it")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use modelswap::load::{Formats, LoadOptions, Model, Payload};
use modelswap::topic::{MemoryTopic, Topic};
use modelswap::wire::{Header, SHA256_HEADER, VERSION_HEADER};
use modelswap::{ModelScorer, Models, Position, Provenance, Rows, Sha256Digest, Snapshot};

/// A model of the benches, with rows to score.
pub(crate) struct Work {
    pub name: String,
    file: Vec<u8>,
    values: Vec<f32>,
    /// Of one row, without the batch.
    pub dims: Vec<usize>,
}

impl Work {
    pub(crate) fn read(name: &str) -> Self {
        let read = |extension: &str| {
            let path = folder().join(format!("models/{name}.{extension}"));
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; run benches/run first", path.display()))
        };
        let values = read("f32").as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let mut work = Self { name: name.to_owned(), file: read("onnx"), values, dims: Vec::new() };
        let signature = work.load().signature().clone();
        let dims = signature.inputs()[0].dims().expect("a known rank");
        work.dims = dims.iter().skip(1).map(|d| d.fixed().expect("a fixed dimension")).collect();
        work
    }

    pub(crate) fn file(&self) -> &[u8] {
        &self.file
    }

    /// The model, loaded as a subscriber loads it.
    pub(crate) fn load(&self) -> Arc<dyn Model> {
        load(&self.file)
    }

    /// The model as a version that was not published.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let provenance = Provenance::new(
            self.name.parse().unwrap(),
            "bench",
            Sha256Digest::of([&self.file[..]]),
            Position { partition: 0, offset: 0 },
        );
        Snapshot::of(self.load(), provenance)
    }

    /// The number of values of a row.
    pub(crate) fn width(&self) -> usize {
        self.dims.iter().product()
    }

    /// The shape of a batch.
    pub(crate) fn shape(&self, batch: usize) -> Vec<usize> {
        std::iter::once(batch).chain(self.dims.iter().copied()).collect()
    }

    /// Several batches of different rows, so that no contender scores what it has just seen.
    pub(crate) fn batches(&self, batch: usize) -> Vec<&[f32]> {
        self.values.chunks_exact(self.width() * batch).take(64).collect()
    }

    /// A batch as features.
    pub(crate) fn rows<'a>(&self, batch: &'a [f32]) -> Rows<'a> {
        Rows::new(batch, self.width()).unwrap()
    }

    /// The number of scores of one row, and the name of the output that gives them.
    pub(crate) fn scores(&self) -> (usize, String) {
        let model = self.load();
        let signature = model.signature();
        let output = signature.score_output().expect("a floating-point output");
        let scores = self.snapshot().predict(&self.rows(self.batches(1)[0])).unwrap().values().len();
        (scores, signature.outputs()[output].name().to_string())
    }
}

pub(crate) fn load(file: &[u8]) -> Arc<dyn Model> {
    let payload = Payload::from(file.to_vec());
    let formats = Formats::default();
    let loader = formats.choose(None, &payload).unwrap();
    loader.load(payload, &LoadOptions::default()).unwrap()
}

/// A subscription to a topic in memory, with one model that is live.
pub(crate) struct Served {
    pub topic: MemoryTopic,
    pub models: Models,
    pub scorer: ModelScorer,
    name: String,
}

impl Served {
    pub(crate) fn start(work: &Work) -> Self {
        let topic = MemoryTopic::new("models", 1);
        let models = Models::subscribe_to(Arc::new(topic.clone())).model(&work.name).start().unwrap();
        let scorer = models.scorer(&work.name).unwrap();
        let served = Self { topic, models, scorer, name: work.name.clone() };
        served.publish("1", work.file());
        wait(served.scorer.ready(Duration::from_mins(1))).unwrap();
        served
    }

    /// Writes a release in one record, and removes what it replaces.
    pub(crate) fn publish(&self, version: &str, file: &[u8]) {
        let header = |name: &str, value: &str| Header { name: name.into(), value: value.to_owned().into() };
        let sha256 = Sha256Digest::of([file]).to_string();
        let headers = [header(SHA256_HEADER, &sha256), header(VERSION_HEADER, version)];
        let mut writer = self.topic.writer("bench").unwrap();
        writer.begin().unwrap();
        writer.send(0, self.name.as_bytes(), Some(file.to_vec().into()), &headers).unwrap();
        writer.commit().unwrap();
        self.topic.compact();
    }
}

/// So many steps of arithmetic, each of which needs the one before, and no look at any memory.
pub(crate) fn compute(steps: u64) {
    black_box((0..steps).fold(black_box(1_u64), |x, i| x.rotate_left(7) ^ i));
}

/// Runs a future to its end.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Where the models are and the figures go: `target/bench`.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}
