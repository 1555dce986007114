//! The one writer: it reads what the topic says, decides what to load, and swaps.
//!
//! Three threads, joined by channels. The reader blocks on the topic, the loader reads, verifies
//! and loads one release at a time at a low priority, and the updater between them holds all state;
//! it never blocks on I/O and never runs a model. Retired versions are freed on the loader's thread.

mod assembling;
mod deciding;
mod held;
mod loading;
mod observing;
mod reading;
mod telling;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select, unbounded};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, ErrorKind};
use crate::index::{TopicIndex, Watch};
use crate::load::{Formats, panic_text};
use crate::plan::{Live, ReleaseId};
use crate::release::{ModelName, Release};
use crate::signature::Signature;
use crate::slot::{Retired, Slot};
use crate::status::{ModelStatus, Status};
use crate::topic::{Topic, TopicEvent};
use crate::verify::Stage;
use held::Held;
use loading::{Report, Work};

/// How often retired versions are looked at while somebody still holds them.
const REAP_INTERVAL: Duration = Duration::from_millis(20);
/// How long the updater sleeps where nothing is due.
const IDLE: Duration = Duration::from_hours(1);

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
    let (work, reports, loader) = loading::spawn(topic, settings.clone()).map_err(spawn_error)?;
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
        freeing: Vec::new(),
        waiters: Vec::new(),
        status: Status::default(),
        status_changed: true,
        status_sender,
    };
    let threads = Threads { reader, loader };
    let run = move || {
        let run = AssertUnwindSafe(|| updater.run(events, &reports, &requests, &stop, threads));
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
    loading: Option<UnderWay>,
    work: Sender<Work>,
    retired: Vec<(ModelName, Retired)>,
    /// The models of the versions that the loader is yet to free.
    freeing: Vec<ModelName>,
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

/// A load that the loader was given and has not answered yet.
struct UnderWay {
    name: ModelName,
    release: Release,
    /// The topic was made anew meanwhile: whatever comes of it is about a topic that is gone.
    outdated: bool,
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
        reports: &Receiver<Report>,
        requests: &Receiver<Request>,
        stop: &AtomicBool,
        threads: Threads,
    ) {
        if let Watch::Only(models) = &self.settings.watch {
            self.status.models.extend(models.iter().map(|model| (model.clone(), ModelStatus::default())));
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
                recv(reports) -> report => match report {
                    Ok(Report::Loaded(outcome)) => self.finish(outcome),
                    Ok(Report::Freed(name)) => self.freed(&name),
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
            // Who hears that a model is ready finds it in the status.
            self.tell_status();
            self.answer_waiters();
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
        // Nor the model of a load that was under way.
        reports.try_iter().for_each(drop);
        drop(done);
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
}
