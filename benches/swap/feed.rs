//! A topic whose chunks come from a file every time anew, as they would from a network: what a
//! subscriber receives is its own memory, and nothing else in this process holds it.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use modelswap::topic::{RecordFetcher, Topic, TopicError, TopicEvent, TopicReader, TopicWriter};
use modelswap::wire::{CHUNK_BYTES, Record, chunk_key};
use modelswap::{Artifact, ModelName, Position, Sha256Digest};

use crate::support::{Work, folder};

/// One of the two versions that take turns: the model with another comment at its end.
pub(crate) struct Variant {
    file: File,
    artifact: Artifact,
}

impl Variant {
    pub(crate) fn pair(work: &Work) -> [Self; 2] {
        ["a", "b"].map(|comment| {
            // Field 6 of ONNX's ModelProto, a text; the last one counts.
            let tail = [0x32, 1, comment.as_bytes()[0]];
            let path = folder().join(format!("{}-{comment}.onnx", work.name));
            std::fs::write(&path, [work.file(), &tail].concat()).unwrap();
            let mut artifact = Artifact::of(&[], Some("onnx".to_owned()));
            artifact.sha256 = Sha256Digest::of([work.file(), &tail[..]]);
            artifact.bytes = (work.file().len() + tail.len()) as u64;
            artifact.chunks = u32::try_from(work.file().len().div_ceil(CHUNK_BYTES)).unwrap();
            assert!(work.file().len() % CHUNK_BYTES + tail.len() <= CHUNK_BYTES);
            Self { file: File::open(path).unwrap(), artifact }
        })
    }
}

/// A topic of one partition: for every release its chunks, then its document.
#[derive(Clone)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    model: ModelName,
    variants: [Variant; 2],
    /// How many releases there are.
    releases: Mutex<i64>,
    changed: Condvar,
}

impl Feed {
    pub(crate) fn new(model: &str, variants: [Variant; 2]) -> Self {
        let model = model.parse().unwrap();
        let shared = Shared { model, variants, releases: Mutex::new(0), changed: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Lets the next release appear, and answers its version.
    pub(crate) fn publish(&self) -> String {
        let mut releases = self.shared.releases.lock().unwrap();
        *releases += 1;
        self.shared.changed.notify_all();
        (*releases - 1).to_string()
    }
}

impl Shared {
    /// The record at an offset, its value fresh from the file.
    fn record(&self, offset: i64) -> Record {
        let per_release = i64::from(self.variants[0].artifact.chunks) + 1;
        let (release, index) = (offset / per_release, offset % per_release);
        let variant = &self.variants[usize::try_from(release % 2).unwrap()];
        let artifact = &variant.artifact;
        let (key, value) = if index + 1 == per_release {
            let document = format!(
                r#"{{"schema":1,"model":"{}","version":"{release}","sequence":{},"time_ms":1,"artifact":{}}}"#,
                self.model,
                release + 1,
                serde_json::to_string(artifact).unwrap()
            );
            (self.model.as_str().as_bytes().to_vec(), document.into_bytes())
        } else {
            let start = u64::try_from(index).unwrap() * CHUNK_BYTES as u64;
            let length = (artifact.bytes - start).min(CHUNK_BYTES as u64);
            let mut value = vec![0; usize::try_from(length).unwrap()];
            variant.file.read_exact_at(&mut value, start).unwrap();
            (chunk_key(&self.model, artifact.sha256, u32::try_from(index).unwrap()).into_bytes(), value)
        };
        Record {
            position: Position { partition: 0, offset },
            timestamp_ms: 0,
            key: Bytes::from(key),
            value: Some(Bytes::from(value)),
            headers: Vec::new(),
        }
    }

    fn end(&self, releases: i64) -> i64 {
        releases * (i64::from(self.variants[0].artifact.chunks) + 1)
    }
}

impl Topic for Feed {
    fn name(&self) -> &'static str {
        "feed"
    }

    fn reader(&self) -> Result<Box<dyn TopicReader>, TopicError> {
        Ok(Box::new(Reader { shared: Arc::clone(&self.shared), next: 0, caught_up: false }))
    }

    fn fetcher(&self) -> Result<Box<dyn RecordFetcher>, TopicError> {
        Ok(Box::new(Fetcher { shared: Arc::clone(&self.shared) }))
    }

    fn writer(&self, _: &str) -> Result<Box<dyn TopicWriter>, TopicError> {
        Err(TopicError::Other { reason: "it can only be read".into() })
    }
}

struct Reader {
    shared: Arc<Shared>,
    next: i64,
    caught_up: bool,
}

impl TopicReader for Reader {
    fn next(&mut self, timeout: Duration) -> TopicEvent {
        let deadline = Instant::now() + timeout;
        let mut releases = self.shared.releases.lock().unwrap();
        while self.next >= self.shared.end(*releases) {
            if !self.caught_up {
                self.caught_up = true;
                return TopicEvent::CaughtUp;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return TopicEvent::Idle;
            }
            releases = self.shared.changed.wait_timeout(releases, left).unwrap().0;
        }
        drop(releases);
        self.next += 1;
        TopicEvent::Record(self.shared.record(self.next - 1))
    }
}

struct Fetcher {
    shared: Arc<Shared>,
}

impl RecordFetcher for Fetcher {
    fn fetch(
        &mut self,
        positions: &[Position],
        deliver: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), TopicError> {
        for position in positions.iter().collect::<BTreeSet<_>>() {
            if deliver(self.shared.record(position.offset)).is_break() {
                break;
            }
        }
        Ok(())
    }
}
