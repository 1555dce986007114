//! The loader's thread: it reads an artifact's records, verifies, loads and proves, one release at
//! a time, and frees what is no longer used.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::Settings;
use crate::load::{Payload, panic_text};
use crate::release::{ModelName, Position, Release};
use crate::scorer::LiveModel;
use crate::signature::Signature;
use crate::topic::{RecordFetcher, Topic, TopicError};
use crate::verify::{Loaded, Proven, Rejection, Sized, Stage};

/// How long a fetcher is kept for the next release.
const KEEP_FETCHER: Duration = Duration::from_secs(10);

/// What the thread is given to do.
pub(super) enum Work {
    Load(Box<Job>),
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
        lower_priority();
        let mut loading = Loading { topic, settings, fetcher: None };
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
                Ok(Work::Reconnect) | Err(RecvTimeoutError::Timeout) => {
                    loading.fetcher = None;
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
}

impl Loading {
    fn load(&mut self, job: Job) -> Result<Proven, Failure> {
        let payload = self.payload(job.release.release(), &job.positions, job.held)?;
        let verified = job.release.verify(payload)?;
        let loaded = Loaded::load(verified, &self.settings.formats, self.settings.memory_budget)?;
        Ok(loaded.prove(job.expected.as_ref())?)
    }

    /// The artifact's bytes: what is at hand, and the rest from the topic.
    fn payload(
        &mut self,
        release: &Release,
        positions: &[Position],
        held: Vec<(Position, Bytes)>,
    ) -> Result<Payload, Failure> {
        let mut found: HashMap<Position, Bytes> = held.into_iter().collect();
        let mut missing: Vec<Position> =
            positions.iter().filter(|at| !found.contains_key(at)).copied().collect();
        if !missing.is_empty() {
            missing.sort_unstable();
            self.fetch(&missing, release.artifact.bytes, &mut found)
                .map_err(|error| Failure::Unavailable(error.to_string()))?;
        }
        let chunks: Result<Vec<Bytes>, Rejection> = positions
            .iter()
            .map(|at| {
                found.remove(at).ok_or_else(|| {
                    let reason = format!("the record at {at} is no longer on the topic");
                    Rejection::new(Stage::Chunks, reason)
                })
            })
            .collect();
        Ok(Payload::from_chunks(chunks?))
    }

    fn fetch(
        &mut self,
        positions: &[Position],
        limit: u64,
        found: &mut HashMap<Position, Bytes>,
    ) -> Result<(), TopicError> {
        let fetcher = match &mut self.fetcher {
            Some(fetcher) => fetcher,
            none => none.insert(self.topic.fetcher()?),
        };
        let mut total: u64 = found.values().map(|bytes| bytes.len() as u64).sum();
        let fetched = fetcher.fetch(positions, &mut |record| {
            let Some(value) = record.value else { return ControlFlow::Continue(()) };
            total = total.saturating_add(value.len() as u64);
            found.insert(record.position, value);
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

/// Loading must not take time from the threads that score.
#[cfg(unix)]
fn lower_priority() {
    const NICE: i32 = 10;
    let lowered = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    if let Err(error) = lowered {
        tracing::debug!(%error, "the loader runs at normal priority");
    }
}

/// Loading must not take time from the threads that score, where the system can tell them apart.
#[cfg(not(unix))]
fn lower_priority() {}
