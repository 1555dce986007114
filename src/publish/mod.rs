//! Publishes models: check, chunk, commit, prune; rolls back and withdraws.
//!
//! A publish goes through these steps; where one fails, nothing that a reader would act on has
//! changed.
//!
//! 1. The model is loaded and its samples are run, as a subscriber would.
//! 2. A writer is opened, which fences every other publisher of the same model. From here on what
//!    lies on the topic of this model changes by nobody else's hand.
//! 3. The chunks are written, in transactions small enough to hold no reader up.
//! 4. Beside all of this the topic is read up to where the others were fenced: the releases that there
//!    are, and every chunk.
//! 5. The release document is written. This is the moment of the publish.
//! 6. Chunks that neither this release nor those it names still need are removed, those of
//!    publishers that were killed halfway among them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::index::{TopicIndex, Watch};
use crate::load::{Formats, Loader};
use crate::release::{Artifact, ModelName, Position, Release};
use crate::topic::Topic;
use crate::wire::{Announcement, MAX_VERSION};

mod history;
mod model_file;
mod options;
mod preflight;
mod scan;
mod session;

pub use model_file::ModelFile;
use model_file::artifact_of;
pub use options::{Progress, PublishOptions, Step};
use session::Session;

/// Publishes models to a topic.
///
/// Everything here blocks; on an async worker, call it in `spawn_blocking`.
///
/// ```no_run
/// use modelswap::publish::{PublishOptions, Publisher};
///
/// let publisher = Publisher::connect("models")
///     .config("bootstrap.servers", "localhost:9092")
///     .open()?;
/// let model = std::path::Path::new("model.onnx");
/// let release = publisher.publish("fraud", model, PublishOptions::default().version("7"))?;
/// println!("{release}");
///
/// // It was not as good as it seemed:
/// publisher.rollback("fraud", None)?;
/// # Ok::<(), modelswap::Error>(())
/// ```
pub struct Publisher {
    topic: Arc<dyn Topic>,
    formats: Formats,
    memory_budget: u64,
    progress: Option<Box<dyn Fn(Progress) + Send + Sync>>,
    stop: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Publisher {
    /// A publisher to a topic on Kafka; goes on with [`Connect::config`] and [`Connect::open`].
    #[cfg(feature = "kafka")]
    pub fn connect(topic: impl Into<String>) -> Connect {
        Connect { topic: crate::topic::KafkaTopic::new(topic) }
    }

    /// A publisher to any topic.
    #[must_use]
    pub fn new(topic: Arc<dyn Topic>) -> Self {
        Self { topic, formats: Formats::default(), memory_budget: 4 << 30, progress: None, stop: None }
    }

    /// Adds a format of your own, to check models with.
    #[must_use]
    pub fn loader(mut self, loader: Arc<dyn Loader>) -> Self {
        self.formats.add(loader);
        self
    }

    /// The most memory that a model may take while it is checked, in bytes; 4 GiB unless set.
    #[must_use]
    pub const fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Calls this as a publish proceeds; for a progress bar.
    #[must_use]
    pub fn on_progress(mut self, call: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(call));
        self
    }

    /// Stops a publish, rollback or withdrawal when this becomes true: for a signal handler.
    ///
    /// It is asked at every step and chunk up to the release document, and the open transaction is
    /// then aborted, so that no reader has to wait for the broker to give it up. The error is
    /// [`ErrorKind::Cancelled`], and nothing that a reader would act on has changed. Once the release
    /// is out, it only keeps old chunks from being removed; the next publisher of the model does that.
    #[must_use]
    pub fn stop_when(mut self, call: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Some(Box::new(call));
        self
    }

    /// Publishes a model file as the new release of `model`.
    ///
    /// An ONNX file whose weights lie in another file beside it is published with them in it; the
    /// directory of a TensorFlow `SavedModel` as one frozen graph, see
    /// [`freeze_saved_model`](crate::load::freeze_saved_model).
    ///
    /// An artifact is written even where it lies on the topic already: to publish again repairs
    /// whatever is wrong with it there.
    ///
    /// # Errors
    /// * [`ErrorKind::Rejected`]: the model is refused, with the reason that a subscriber would give.
    /// * [`ErrorKind::Config`]: a name, version or file that cannot be published.
    /// * [`ErrorKind::Fenced`]: another publisher of this model took over in the meantime.
    /// * [`ErrorKind::Cancelled`]: see [`Publisher::stop_when`].
    /// * the kinds of a topic that cannot be reached or written.
    pub fn publish(
        &self,
        model: &str,
        file: impl Into<ModelFile>,
        options: PublishOptions,
    ) -> Result<Release, Error> {
        let model: ModelName = model.parse().map_err(config)?;
        let mut file = file.into().frozen(&options.interface, self.memory_budget)?;
        let keep = options.keep;
        let (mut session, release) = Session::beside_reading(self, &model, |barriers| {
            let release = self.checked(model.clone(), &mut file, options)?;
            let mut session = Session::fence(self, &model, barriers)?;
            session.upload(&release, &file)?;
            Ok((session, release))
        })?;
        session.commit(release, keep)
    }

    /// The release of a model file that a subscriber would take. The file is another one after, where
    /// its weights had to be put in.
    fn checked(
        &self,
        model: ModelName,
        file: &mut ModelFile,
        options: PublishOptions,
    ) -> Result<Release, Error> {
        let read = file.read()?;
        let artifact = artifact_of(&read, options.format.clone())?;
        let mut release = draft(model, artifact, options.version.as_deref())?;
        release.interface = options.interface;
        release.labels = options.labels;
        release.samples = options.samples;
        session::encode(&release)?;
        self.step(Step::Check, 0, release.artifact.bytes)?;
        let check =
            |release: &Release, read| preflight::check(release, read, &self.formats, self.memory_budget);
        let Err(refused) = check(&release, read) else { return Ok(release) };
        // An ONNX file with its weights beside it is the one thing that can be helped.
        let Some(whole) = file.with_external_data(&release.artifact)? else { return Err(refused) };
        *file = whole;
        let read = file.read()?;
        release.artifact = artifact_of(&read, options.format)?;
        if options.version.is_none() {
            release.version = release.artifact.sha256.short();
        }
        check(&release, read)?;
        Ok(release)
    }

    /// Makes an earlier release of `model` the newest one again: the one of this version, or else
    /// the one that the newest release names as the one before it.
    ///
    /// The answer is a new release, of the earlier one's artifact and version, and it names the
    /// release that was rolled back from as the one before it: to roll back twice is to undo it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such release, or its artifact is no longer
    /// completely on the topic; else as [`Publisher::publish`].
    pub fn rollback(&self, model: &str, version: Option<&str>) -> Result<Release, Error> {
        let model: ModelName = model.parse().map_err(config)?;
        let mut session = Session::open(self, &model)?;
        let history = session.history()?;
        let target = history.rollback_target(version)?;
        // As many artifacts as are kept now: a rollback is no reason to remove any but orphans.
        let keep = history.kept_now();
        if target.artifact.chunks == 0 {
            // A plain publish: its record is overwritten by this very release, so it is chunked.
            let file = ModelFile::from(session.plain_payload(&target)?);
            let mut release = next(&target);
            release.artifact = artifact_of(&file.read()?, target.artifact.format)?;
            session.upload(&release, &file)?;
            return session.commit(release, keep);
        }
        session.verify(&target)?;
        session.commit(next(&target), keep)
    }

    /// Withdraws `model`: subscribers have no such model then, and its artifacts are removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where nothing of it is published; else as [`Publisher::publish`].
    pub fn withdraw(&self, model: &str) -> Result<(), Error> {
        let model: ModelName = model.parse().map_err(config)?;
        Session::open(self, &model)?.withdraw()
    }

    /// What is published, by model.
    ///
    /// # Errors
    /// The kinds of a topic that cannot be read.
    pub fn list(&self) -> Result<Vec<Listing>, Error> {
        let mut index = TopicIndex::new(Watch::All);
        scan::read_to_end(&*self.topic, &mut |record| {
            index.observe(record);
        })?;
        let listings = index.models().filter_map(|(model, entries)| {
            let newest = entries.newest()?;
            let state = match &newest.said {
                Ok(Announcement::Release(_)) => PublishedState::Released,
                Ok(Announcement::Withdrawn) => PublishedState::Withdrawn,
                Err(reason) => PublishedState::Refused(reason.clone()),
            };
            let releases = history::releases(entries)
                .into_iter()
                .map(|release| ListedRelease { complete: entries.chunks_of(&release).is_ok(), release });
            Some(Listing {
                model: model.clone(),
                state,
                position: newest.position,
                releases: releases.collect(),
            })
        });
        Ok(listings.collect())
    }

    /// Tells how far it is, where it is to go on at all.
    fn step(&self, step: Step, done: u64, total: u64) -> Result<(), Error> {
        if let Some(call) = &self.progress {
            call(Progress { step, done, total });
        }
        match &self.stop {
            Some(stop) if stop() => Err(Error::new(ErrorKind::Cancelled, "stopped as asked")),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("topic", &self.topic.name())
            .field("formats", &self.formats)
            .field("memory_budget", &self.memory_budget)
            .finish_non_exhaustive()
    }
}

/// A publisher to Kafka that is being configured.
#[cfg(feature = "kafka")]
#[derive(Clone, Debug)]
pub struct Connect {
    topic: crate::topic::KafkaTopic,
}

#[cfg(feature = "kafka")]
impl Connect {
    /// Sets a configuration property of librdkafka; see [`KafkaTopic`](crate::topic::KafkaTopic).
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.topic = self.topic.config(key, value);
        self
    }

    /// The publisher. It connects when it is used.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the configuration cannot be used.
    pub fn open(self) -> Result<Publisher, Error> {
        self.topic.check()?;
        Ok(Publisher::new(Arc::new(self.topic)))
    }
}

/// What is published of one model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Listing {
    /// The model.
    pub model: ModelName,
    /// What its newest record says.
    pub state: PublishedState,
    /// Where that record stands.
    pub position: Position,
    /// The releases that are still known, newest first.
    pub releases: Vec<ListedRelease>,
}

/// What the newest record of a model says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishedState {
    /// It is released.
    Released,
    /// It was withdrawn.
    Withdrawn,
    /// Nothing that a subscriber takes, for this reason.
    Refused(String),
}

/// A release that is known.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ListedRelease {
    /// The release.
    pub release: Release,
    /// True where its artifact is on the topic, so that it can be rolled back to.
    pub complete: bool,
}

fn config(error: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Config, error.to_string())
}

/// A release that is not written yet.
fn draft(model: ModelName, artifact: Artifact, version: Option<&str>) -> Result<Release, Error> {
    let version = version.map_or_else(|| artifact.sha256.short(), str::to_owned);
    if !(1..=MAX_VERSION).contains(&version.len()) {
        return Err(config(format!("version: expected 1 to {MAX_VERSION} bytes, found {}", version.len())));
    }
    Ok(Release {
        model,
        version,
        sequence: 0,
        time_ms: 0,
        artifact,
        interface: crate::release::Interface::default(),
        labels: BTreeMap::new(),
        samples: None,
        previous: None,
        earlier: Vec::new(),
        position: Position { partition: 0, offset: 0 },
    })
}

/// This release once more; the session numbers and places it.
fn next(release: &Release) -> Release {
    Release { previous: None, earlier: Vec::new(), ..release.clone() }
}
