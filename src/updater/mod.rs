//! The one writer: it reads what the topic says, decides what to load, and swaps.
//!
//! Three threads, joined by channels. The reader blocks on the topic, the loader reads, verifies
//! and loads one release at a time at a low priority, and the updater between them holds all state;
//! it never blocks on I/O and never runs a model. Retired versions are freed on the loader's thread.

mod held;
mod loading;
mod reading;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select, unbounded};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, ErrorKind};
use crate::index::{Change, Entry, TopicIndex, Watch};
use crate::load::Formats;
use crate::plan::{Live, ReleaseId, Step, next_step};
use crate::release::{ModelName, Release};
use crate::signature::Signature;
use crate::slot::{Retired, Slot};
use crate::status::{Activity, Announced, LiveStatus, Rejected, Status, TopicState};
use crate::topic::{Topic, TopicEvent};
use crate::verify::{Proven, Rejection, Sized, Stage, panic_text};
use crate::wire::{Announcement, Key, Record};
use held::Held;
use loading::{Failure, Job, Outcome, Work};

/// How often retired versions are looked at while somebody still holds them.
const REAP_INTERVAL: Duration = Duration::from_millis(20);
/// How long the updater sleeps where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);
/// The first and the longest time after which a load that was put off is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// What a subscription was asked to do.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) watch: Watch,
    pub(crate) expected: HashMap<ModelName, Signature>,
    pub(crate) max_model_bytes: u64,
    pub(crate) memory_budget: u64,
    pub(crate) formats: Formats,
}

/// The live versions, by model; shared by the handle, the scorers and the updater.
#[derive(Default)]
pub(crate) struct Slots {
    slots: Mutex<BTreeMap<ModelName, Arc<Slot>>>,
}

impl Slots {
    /// The slot of a model, made where there is none yet.
    pub(crate) fn slot(&self, model: &ModelName) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(model.clone()).or_default())
    }
}

/// What a handle asks of the updater.
pub(crate) enum Request {
    /// Answer when the model is live, or at the deadline.
    Ready {
        model: ModelName,
        deadline: Instant,
        timeout: Duration,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// Stop all threads, then drop the sender.
    Shutdown { done: Option<oneshot::Sender<()>> },
}

/// Starts the threads. The updater runs until [`Request::Shutdown`].
pub(crate) fn start(
    topic: Arc<dyn Topic>,
    settings: Settings,
    slots: Arc<Slots>,
) -> Result<(Sender<Request>, watch::Receiver<Arc<Status>>), Error> {
    let spawn_error = |error: std::io::Error| {
        Error::new(ErrorKind::Unavailable, "a thread could not be started").with_source(error)
    };
    let (request_sender, requests) = unbounded();
    let (status_sender, status_receiver) = watch::channel(Arc::default());
    let stop = Arc::new(AtomicBool::new(false));
    let (events, reader) = reading::spawn(&topic, Arc::clone(&stop)).map_err(spawn_error)?;
    let (work, outcomes, loader) = loading::spawn(topic, settings.clone()).map_err(spawn_error)?;
    let mut updater = Updater {
        index: TopicIndex::new(settings.watch.clone()),
        settings,
        slots,
        models: BTreeMap::new(),
        caught_up: false,
        replan: false,
        loading: None,
        work,
        retired: Vec::new(),
        waiters: Vec::new(),
        status: Status::default(),
        status_changed: true,
        status_sender,
    };
    let threads = Threads { reader, loader };
    let run = move || {
        let run = AssertUnwindSafe(|| updater.run(events, &outcomes, &requests, &stop, threads));
        if let Err(panic) = catch_unwind(run) {
            // A bug in here must not be silent: what is live goes on, but nothing will replace it.
            let reason = format!("its updater panicked: {}", panic_text(&*panic));
            tracing::error!(reason, "the subscription has stopped");
            stop.store(true, Ordering::Relaxed);
            updater.stopped(&reason);
            updater.tell_status();
        }
    };
    std::thread::Builder::new().name("modelswap-updater".into()).spawn(run).map_err(spawn_error)?;
    Ok((request_sender, status_receiver))
}

struct Threads {
    reader: JoinHandle<()>,
    loader: JoinHandle<()>,
}

struct Updater {
    settings: Settings,
    index: TopicIndex,
    slots: Arc<Slots>,
    models: BTreeMap<ModelName, ModelState>,
    caught_up: bool,
    /// Something has changed that may change what is to be loaded.
    replan: bool,
    /// What the loader is at.
    loading: Option<(ModelName, Release)>,
    work: Sender<Work>,
    retired: Vec<(ModelName, Retired)>,
    waiters: Vec<Waiter>,
    status: Status,
    status_changed: bool,
    status_sender: watch::Sender<Arc<Status>>,
}

#[derive(Default)]
struct ModelState {
    live: Option<Live>,
    rejected: HashMap<ReleaseId, Stage>,
    held: Held,
    deferred: Option<Deferred>,
}

/// A load that was put off.
#[derive(Clone, Copy)]
struct Deferred {
    id: ReleaseId,
    /// How often it was tried again.
    attempts: u32,
    /// When it is to be tried again.
    due: Instant,
}

struct Waiter {
    model: ModelName,
    deadline: Instant,
    timeout: Duration,
    reply: oneshot::Sender<Result<(), Error>>,
}

impl Updater {
    fn run(
        &mut self,
        mut events: Receiver<TopicEvent>,
        outcomes: &Receiver<Outcome>,
        requests: &Receiver<Request>,
        stop: &AtomicBool,
        threads: Threads,
    ) {
        if let Watch::Only(models) = &self.settings.watch {
            self.status.models.extend(models.iter().map(|model| (model.clone(), Default::default())));
        }
        let done = loop {
            select! {
                recv(requests) -> request => match request {
                    Ok(Request::Ready { model, deadline, timeout, reply }) => {
                        self.waiters.push(Waiter { model, deadline, timeout, reply });
                    }
                    Ok(Request::Shutdown { done }) => break done,
                    Err(_) => break None,
                },
                recv(outcomes) -> outcome => match outcome {
                    Ok(outcome) => self.finish(outcome),
                    Err(_) => {
                        self.stopped("its loader died");
                        break None;
                    }
                },
                recv(events) -> event => match event {
                    Ok(event) => self.observe(event),
                    Err(_) => {
                        self.stopped("its reader died");
                        events = never();
                    }
                },
                default(self.next_due()) => {}
            }
            self.plan();
            self.reap();
            self.answer_waiters();
            self.tell_status();
        };
        stop.store(true, Ordering::Relaxed);
        // The reader may be waiting for room in the channel.
        drop(events);
        self.work = crossbeam_channel::bounded(0).0;
        for thread in [threads.reader, threads.loader] {
            if thread.join().is_err() {
                tracing::error!("a thread of the subscription panicked");
            }
        }
        self.stopped("it was shut down");
        for waiter in self.waiters.drain(..) {
            drop(waiter.reply.send(Err(Error::new(ErrorKind::Closed, "the subscription was shut down"))));
        }
        self.tell_status();
        // Who awaits the shutdown can count on nothing being held here any more.
        self.retired.clear();
        self.slots = Arc::default();
        drop(done);
    }

    /// Takes in what the reader says.
    fn observe(&mut self, event: TopicEvent) {
        match event {
            TopicEvent::Record(record) => self.observe_record(&record),
            TopicEvent::CaughtUp => {
                self.caught_up = true;
                self.replan = true;
                self.set_topic(TopicState::CaughtUp);
            }
            TopicEvent::Unavailable(error) => {
                tracing::warn!(%error, "the model topic cannot be read");
                self.set_topic(TopicState::Unavailable { reason: error.to_string() });
            }
            TopicEvent::Available => {
                let state = if self.caught_up { TopicState::CaughtUp } else { TopicState::Reading };
                self.set_topic(state);
            }
            TopicEvent::Restarted => {
                tracing::warn!("the model topic was created anew; it is read from the beginning");
                self.index.clear();
                self.caught_up = false;
                for model in self.models.values_mut() {
                    // Positions mean nothing now, so what is live cannot be told from what comes.
                    *model = ModelState { live: None, ..ModelState::default() };
                }
                self.set_topic(TopicState::Reading);
            }
            TopicEvent::Oversized(oversized) => {
                let name = oversized.key.as_deref().and_then(Key::parse).map(|key| key.model().clone());
                let rejection = Rejection::new(Stage::Size, &oversized);
                tracing::error!(%oversized, "a record of the model topic cannot be read");
                let affected: Vec<ModelName> = match name {
                    Some(name) => vec![name],
                    None => self.status.models.keys().cloned().collect(),
                };
                for model in affected {
                    let rejected = Rejected {
                        version: None,
                        position: oversized.position,
                        rejection: rejection.clone(),
                    };
                    self.note_rejection(&model, rejected);
                }
            }
            TopicEvent::Idle => {}
        }
    }

    fn observe_record(&mut self, record: &Record) {
        match self.index.observe(record) {
            Change::None => {}
            Change::Announced(name) => self.announced(name, record),
            Change::Chunk { model: name, sha256, index } => {
                let model = self.models.entry(name.clone()).or_default();
                if self.caught_up {
                    model.held.chunk(sha256, record, self.settings.max_model_bytes);
                }
                // A release whose chunks were missing gets another chance when they are all there.
                let Some(known) = self.index.model(&name) else { return };
                tracing::trace!(%name, %sha256, index, "chunk");
                let before = model.rejected.len();
                model.rejected.retain(|id, stage| {
                    let complete = || {
                        known.newest_first().any(|entry| match &entry.said {
                            Ok(Announcement::Release(r)) => {
                                ReleaseId::from(&**r) == *id && known.chunks_of(r).is_ok()
                            }
                            _ => false,
                        })
                    };
                    !(*stage == Stage::Chunks && id.sha256 == sha256 && complete())
                });
                self.replan |= model.rejected.len() < before;
            }
        }
    }

    fn announced(&mut self, name: ModelName, record: &Record) {
        self.replan = true;
        let Some(known) = self.index.model(&name) else { return };
        let Some(newest) = known.newest() else { return };
        let status = self.status.models.entry(name.clone()).or_default();
        status.newest = Some(announced(newest));
        self.status_changed = true;
        let model = self.models.entry(name.clone()).or_default();
        let ids: Vec<ReleaseId> = known.newest_first().filter_map(entry_id).collect();
        // Rejections are kept for what can still be met, so that they do not grow for ever.
        if model.rejected.len() > 64 {
            model.rejected.retain(|id, _| ids.contains(id));
        }
        if self.caught_up {
            model.held.plain(record, self.settings.max_model_bytes);
        }
        let refused = match &newest.said {
            Err(reason) if newest.position == record.position => Some(Rejected {
                version: None,
                position: newest.position,
                rejection: Rejection::new(Stage::Announcement, reason),
            }),
            _ => None,
        };
        if let Some(rejected) = refused {
            self.note_rejection(&name, rejected);
        }
    }

    /// Gives the loader its next job where something has changed or a retry is due.
    fn plan(&mut self) {
        let now = Instant::now();
        let due = self.models.values().any(|m| m.deferred.is_some_and(|d| d.due <= now));
        if !self.caught_up || self.loading.is_some() || !(self.replan || due) {
            return;
        }
        // A rejection on the way makes another release the next one.
        while !self.plan_once(now) {}
        self.replan = false;
    }

    /// Looks at the models once, the one with the latest announcement first; false where a release
    /// was rejected, and it has to be looked again.
    fn plan_once(&mut self, now: Instant) -> bool {
        let mut names: Vec<(i64, ModelName)> = self
            .index
            .models()
            .map(|(name, model)| (model.newest().map_or(0, |e| e.timestamp_ms), name.clone()))
            .collect();
        names.sort_by(|a, b| b.0.cmp(&a.0));
        for (_, name) in names {
            let Some(known) = self.index.model(&name) else { continue };
            let model = self.models.entry(name.clone()).or_default();
            match next_step(known, model.live, |id| model.rejected.contains_key(id)) {
                Step::Keep => model.deferred = None,
                Step::Withdraw => self.withdraw(&name),
                Step::Load(release) => {
                    match model.deferred {
                        Some(deferred) if deferred.id != (&*release).into() => model.deferred = None,
                        Some(deferred) if deferred.due > now => continue,
                        _ => {}
                    }
                    let sized = match Sized::new(*release.clone(), self.settings.max_model_bytes) {
                        Ok(sized) => sized,
                        Err(rejection) => {
                            self.reject(&name, &release, rejection);
                            return false;
                        }
                    };
                    let positions = match release.artifact.chunks {
                        0 => Ok(vec![release.position]),
                        _ => known.chunks_of(&release),
                    };
                    match positions {
                        Ok(positions) => {
                            let held = model.held.take(&positions);
                            let expected = self.settings.expected.get(&name).cloned();
                            self.begin(name, *release, Job { release: sized, positions, held, expected });
                            return true;
                        }
                        Err(missing) => {
                            let total = release.artifact.chunks;
                            let reason = format!("chunk {missing} of {total} is not on the topic");
                            self.reject(&name, &release, Rejection::new(Stage::Chunks, reason));
                            return false;
                        }
                    }
                }
            }
        }
        true
    }

    fn begin(&mut self, name: ModelName, release: Release, job: Job) {
        self.set_activity(&name, Activity::Loading { version: release.version.clone() });
        self.loading = Some((name, release));
        // A loader that is gone is seen where its outcomes end.
        drop(self.work.send(Work::Load(Box::new(job))));
    }

    /// Takes in what the loader says.
    fn finish(&mut self, outcome: Outcome) {
        let Some((name, release)) = self.loading.take() else { return };
        self.replan = true;
        self.set_activity(&name, Activity::Idle);
        match outcome {
            Ok(proven) => {
                let model = self.models.entry(name.clone()).or_default();
                model.deferred = None;
                // The model may have been withdrawn, or the topic made anew, while it was loading.
                let wanted = self.index.model(&name).is_some_and(|known| {
                    matches!(
                        next_step(known, model.live, |id| model.rejected.contains_key(id)),
                        Step::Load(_)
                    )
                });
                if wanted {
                    self.swap(&name, *proven);
                } else {
                    drop(self.work.send(Work::Free(Box::new(proven.into_live()))));
                }
            }
            Err(Failure::Rejected(rejection)) => {
                self.models.entry(name.clone()).or_default().deferred = None;
                self.reject(&name, &release, rejection);
            }
            Err(Failure::Unavailable(reason)) => self.defer(&name, &release, reason),
        }
    }

    fn swap(&mut self, name: &ModelName, proven: Proven) {
        let (load_time, warm_up_time) = proven.times();
        let release = proven.release();
        let live = Live { id: release.into(), time_ms: release.time_ms };
        let (engine, memory) = (proven.model().engine(), proven.model().memory());
        let signature = proven.model().signature().clone();
        let version = proven.into_live();
        let provenance = version.provenance().clone();
        let old = self.slots.slot(name).replace(Some(Arc::new(version)));
        self.retire(name, old);
        self.models.entry(name.clone()).or_default().live = Some(live);
        tracing::info!(
            model = %name,
            version = provenance.version(),
            sha256 = %provenance.sha256(),
            partition = provenance.position().partition,
            offset = provenance.position().offset,
            ?load_time,
            ?warm_up_time,
            "a new version is live"
        );
        let status = self.status.models.entry(name.clone()).or_default();
        status.swaps += 1;
        status.live = Some(LiveStatus { provenance, signature, engine, memory, load_time, warm_up_time });
        self.status_changed = true;
    }

    fn withdraw(&mut self, name: &ModelName) {
        let old = self.slots.slot(name).replace(None);
        self.retire(name, old);
        self.models.entry(name.clone()).or_default().live = None;
        tracing::warn!(model = %name, "the model was withdrawn");
        self.status.models.entry(name.clone()).or_default().live = None;
        self.status_changed = true;
    }

    fn retire(&mut self, name: &ModelName, old: Option<Retired>) {
        if let Some(old) = old {
            self.retired.push((name.clone(), old));
        }
    }

    fn reject(&mut self, name: &ModelName, release: &Release, rejection: Rejection) {
        let model = self.models.entry(name.clone()).or_default();
        model.rejected.insert(release.into(), rejection.stage);
        self.note_rejection(name, Rejected::new(release, rejection));
    }

    fn note_rejection(&mut self, name: &ModelName, rejected: Rejected) {
        tracing::error!(
            model = %name,
            version = rejected.version.as_deref(),
            partition = rejected.position.partition,
            offset = rejected.position.offset,
            stage = %rejected.rejection.stage,
            reason = rejected.rejection.reason,
            "a release was rejected; what was live stays live"
        );
        let status = self.status.models.entry(name.clone()).or_default();
        status.rejections += 1;
        status.last_rejected = Some(rejected);
        self.status_changed = true;
    }

    fn defer(&mut self, name: &ModelName, release: &Release, reason: String) {
        let id = ReleaseId::from(release);
        let model = self.models.entry(name.clone()).or_default();
        let attempts = model.deferred.filter(|d| d.id == id).map_or(0, |d| d.attempts + 1);
        let wait = RETRY.0.saturating_mul(1 << attempts.min(10)).min(RETRY.1);
        model.deferred = Some(Deferred { id, attempts, due: Instant::now() + wait });
        tracing::warn!(model = %name, version = release.version, reason, ?wait, "a load is put off");
        self.set_activity(name, Activity::Retrying { version: release.version.clone(), reason });
        self.status.models.entry(name.clone()).or_default().retries += 1;
    }

    /// Hands retired versions that nobody holds any more to the loader's thread to be freed.
    fn reap(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        for (name, retired) in std::mem::take(&mut self.retired) {
            match retired.take_if_unused() {
                Ok(version) => drop(self.work.send(Work::Free(Box::new(version)))),
                Err(held) => self.retired.push((name, held)),
            }
        }
        for (name, status) in &mut self.status.models {
            let retired = self.retired.iter().filter(|(held, _)| held == name).count();
            self.status_changed |= status.retired != retired;
            status.retired = retired;
        }
    }

    fn answer_waiters(&mut self) {
        let now = Instant::now();
        for waiter in std::mem::take(&mut self.waiters) {
            let live = self.status.models.get(&waiter.model).is_some_and(|model| model.live.is_some());
            if live {
                drop(waiter.reply.send(Ok(())));
            } else if waiter.deadline <= now {
                let why = self.status.why_not_live(&waiter.model);
                let text =
                    format!("no version of `{}` is live after {:?}: {why}", waiter.model, waiter.timeout);
                drop(waiter.reply.send(Err(Error::new(ErrorKind::Timeout, text))));
            } else if !waiter.reply.is_closed() {
                self.waiters.push(waiter);
            }
        }
    }

    /// How long there is nothing to do but to listen.
    fn next_due(&self) -> Duration {
        let now = Instant::now();
        let waiters = self.waiters.iter().map(|w| w.deadline);
        // While the loader is busy its outcome is what wakes the updater.
        let idle = self.caught_up && self.loading.is_none();
        let retries = self.models.values().filter_map(|m| m.deferred.filter(|_| idle).map(|d| d.due));
        let due = waiters.chain(retries).map(|at| at.saturating_duration_since(now)).min().unwrap_or(IDLE);
        if self.retired.is_empty() { due } else { due.min(REAP_INTERVAL) }
    }

    fn set_topic(&mut self, state: TopicState) {
        self.status_changed |= self.status.topic != state;
        self.status.topic = state;
    }

    fn set_activity(&mut self, name: &ModelName, activity: Activity) {
        self.status.models.entry(name.clone()).or_default().activity = activity;
        self.status_changed = true;
    }

    fn stopped(&mut self, reason: &str) {
        if !matches!(self.status.topic, TopicState::Stopped { .. }) {
            self.set_topic(TopicState::Stopped { reason: reason.to_owned() });
        }
    }

    fn tell_status(&mut self) {
        if std::mem::take(&mut self.status_changed) {
            self.status_sender.send_replace(Arc::new(self.status.clone()));
        }
    }
}

fn announced(entry: &Entry) -> Announced {
    let version = match &entry.said {
        Ok(Announcement::Release(release)) => Some(release.version.clone()),
        _ => None,
    };
    Announced { position: entry.position, version }
}

fn entry_id(entry: &Entry) -> Option<ReleaseId> {
    match &entry.said {
        Ok(Announcement::Release(release)) => Some(ReleaseId::from(&**release)),
        _ => None,
    }
}
