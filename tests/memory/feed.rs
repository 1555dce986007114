//! A topic whose chunks come from a file every time anew, as they would from a network: what a
//! subscriber receives is its own memory, and nothing else in this process holds it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use memmap2::MmapMut;
use modelswap::topic::{RecordFetcher, Topic, TopicError, TopicEvent, TopicReader, TopicWriter};
use modelswap::wire::{CHUNK_BYTES, Record, chunk_key};
use modelswap::{Artifact, ModelName, Position};

/// One of the two versions that take turns.
pub(crate) struct Variant {
    file: File,
    artifact: Artifact,
}

impl Variant {
    pub(crate) fn new(bytes: &[u8], format: &str) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Self { file, artifact: Artifact::of(bytes, Some(format.to_owned())) }
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
    /// `variants` have the same number of chunks.
    pub(crate) fn new(model: &str, variants: [Variant; 2]) -> Self {
        assert_eq!(variants[0].artifact.chunks, variants[1].artifact.chunks);
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
            (self.model.as_str().as_bytes().to_vec(), Bytes::from(document))
        } else {
            let start = u64::try_from(index).unwrap() * CHUNK_BYTES as u64;
            let length = (artifact.bytes - start).min(CHUNK_BYTES as u64);
            // As the Kafka client's: what is freed goes back to the system.
            let mut value = MmapMut::map_anon(usize::try_from(length).unwrap()).unwrap();
            variant.file.read_exact_at(&mut value, start).unwrap();
            let key = chunk_key(&self.model, artifact.sha256, u32::try_from(index).unwrap());
            (key.into_bytes(), Bytes::from_owner(value))
        };
        Record {
            position: Position { partition: 0, offset },
            timestamp_ms: 0,
            key: Bytes::from(key),
            value: Some(value),
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
