//! The loader's thread: it reads an artifact's records, verifies, loads and proves, one release at
//! a time, and frees what is no longer used.

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::Settings;
use super::assembling::{Assembly, Begun};
use crate::background;
use crate::load::panic_text;
use crate::release::{ModelName, Position};
use crate::scorer::{InUse, LiveModel};
use crate::signature::Signature;
use crate::topic::{RecordFetcher, Topic, TopicError};
use crate::verify::{Loaded, Proven, Rejection, Sized, Stage};

/// How long a fetcher is kept for the next release.
const KEEP_FETCHER: Duration = Duration::from_secs(10);

/// What the thread is given to do.
pub(super) enum Work {
    Load(Box<Job>),
    /// The chunk of this index has come, of an artifact that is probably loaded next: hash it already.
    Hash {
        index: u32,
        position: Position,
        chunk: Bytes,
    },
    /// Drop this version here, where no scoring thread pays for it.
    Free(ModelName, Box<LiveModel>),
    /// Forget the connection: what it knows is of a topic that is gone.
    Reconnect,
}

/// What it has done.
pub(super) enum Report {
    Loaded(Outcome),
    Freed(ModelName),
}

/// A release to be loaded.
pub(super) struct Job {
    pub(super) release: Sized,
    /// The records that hold its artifact, in order.
    pub(super) positions: Vec<Position>,
    /// The payloads among them that are at hand.
    pub(super) held: Vec<(Position, Bytes)>,
    pub(super) expected: Option<Signature>,
    /// The live versions whose calls a fast load would slow down.
    pub(super) live: InUse,
}

/// What became of a [`Job`].
pub(super) type Outcome = Result<Box<Proven>, Failure>;

/// Why a release was not loaded.
pub(super) enum Failure {
    /// It never will be.
    Rejected(Rejection),
    /// The topic could not be read; it can be tried again.
    Unavailable(String),
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Starts the thread. It ends when the sender is gone.
pub(super) fn spawn(
    topic: Arc<dyn Topic>,
    settings: Settings,
) -> io::Result<(Sender<Work>, Receiver<Report>, JoinHandle<()>)> {
    let (work_sender, work) = unbounded();
    let (report_sender, reports) = unbounded();
    let thread = std::thread::Builder::new().name("modelswap-loader".into()).spawn(move || {
        background::lower_priority();
        let mut loading = Loading { topic, settings, fetcher: None, begun: Begun::default() };
        loop {
            let report = match work.recv_timeout(KEEP_FETCHER) {
                Ok(Work::Load(job)) => {
                    // A panic in here is the release's fault, or at least not the next one's.
                    let outcome =
                        catch_unwind(AssertUnwindSafe(|| loading.load(*job))).unwrap_or_else(|panic| {
                            let reason = format!("panicked: {}", panic_text(&*panic));
                            Err(Rejection::new(Stage::Load, reason).into())
                        });
                    Report::Loaded(outcome.map(Box::new))
                }
                Ok(Work::Free(name, version)) => {
                    // A user's model may panic when it is dropped.
                    if catch_unwind(AssertUnwindSafe(|| drop(version))).is_err() {
                        tracing::error!("a retired model panicked while it was freed");
                    }
                    Report::Freed(name)
                }
                Ok(Work::Hash { index, position, chunk }) => {
                    loading.begun.add(index, position, chunk, loading.settings.max_model_bytes);
                    continue;
                }
                Ok(Work::Reconnect) | Err(RecvTimeoutError::Timeout) => {
                    loading.fetcher = None;
                    loading.begun = Begun::default();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if report_sender.send(report).is_err() {
                return;
            }
        }
    })?;
    Ok((work_sender, reports, thread))
}

struct Loading {
    topic: Arc<dyn Topic>,
    settings: Settings,
    fetcher: Option<Box<dyn RecordFetcher>>,
    begun: Begun,
}

impl Loading {
    fn load(&mut self, job: Job) -> Result<Proven, Failure> {
        let Job { release, positions, held, expected, live } = job;
        let begun = std::mem::take(&mut self.begun).of(&positions);
        let mut artifact = Assembly::new(&positions, begun, held);
        self.fetch(&mut artifact, release.release().artifact.bytes)
            .map_err(|error| Failure::Unavailable(error.to_string()))?;
        let verified = release.verify(artifact.finish()?)?;
        background::gently(
            move |now| live.score(now),
            || {
                let loaded = Loaded::load(verified, &self.settings.formats, self.settings.memory_budget)?;
                Ok(loaded.prove(expected.as_ref())?)
            },
        )
    }

    /// Reads what is missing from the topic.
    fn fetch(&mut self, artifact: &mut Assembly<'_>, limit: u64) -> Result<(), TopicError> {
        let missing = artifact.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let fetcher = match &mut self.fetcher {
            Some(fetcher) => fetcher,
            none => none.insert(self.topic.fetcher()?),
        };
        let mut total = artifact.bytes();
        let fetched = fetcher.fetch(&missing, &mut |record| {
            let Some(value) = record.value else { return ControlFlow::Continue(()) };
            total = total.saturating_add(value.len() as u64);
            artifact.add(record.position, value);
            // The records hold more than the release says: that is seen when they are verified, and
            // no more of them is taken into memory.
            if total > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if fetched.is_err() {
            // Whatever is wrong with the connection, the next try begins with a new one.
            self.fetcher = None;
        }
        fetched
    }
}
