//! The handle: subscribe, take scorers, watch the status, shut down.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tokio::sync::{oneshot, watch};

use crate::error::{Error, ErrorKind};
use crate::features::Features;
use crate::index::Watch;
use crate::load::{Formats, Loader};
use crate::release::{ModelName, Position};
use crate::scorer::{PredictError, Prediction, Scorer, Snapshot};
use crate::signature::Signature;
use crate::slot::Slot;
use crate::status::Status;
#[cfg(feature = "kafka")]
use crate::topic::KafkaTopic;
use crate::topic::Topic;
use crate::updater::{self, Request, Settings, Slots};

/// The models of one topic, kept up to date for as long as this is held.
///
/// Dropping it stops its threads; [`Models::shutdown`] also waits until they are gone. Scorers may
/// outlive it: they go on with the version that was live last.
pub struct Models {
    slots: Arc<Slots>,
    watch: Watch,
    requests: Sender<Request>,
    status: watch::Receiver<Arc<Status>>,
}

impl Models {
    /// Prepares a subscription to the compacted Kafka topic `topic`.
    #[cfg(feature = "kafka")]
    pub fn subscribe(topic: impl Into<String>) -> Subscription {
        Subscription::new(Source::Kafka(KafkaTopic::new(topic)))
    }

    /// Prepares a subscription to a topic of your own, or the in-memory one.
    pub fn subscribe_to(topic: Arc<dyn Topic>) -> Subscription {
        Subscription::new(Source::Topic(topic))
    }

    /// A scorer of this model. It can be had before any version of the model is live; until then it
    /// answers [`PredictError::NoModel`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the subscription does not include the model.
    pub fn scorer(&self, model: &str) -> Result<ModelScorer, Error> {
        let name = model_name(model)?;
        if !self.watch.wants(&name) {
            let text = format!("the subscription does not include model `{name}`");
            return Err(Error::new(ErrorKind::Config, text));
        }
        Ok(ModelScorer { slot: self.slots.slot(&name), model: name, requests: self.requests.clone() })
    }

    /// The state of the topic and of every model.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// Follows the status as it changes.
    #[must_use]
    pub fn watch_status(&self) -> StatusWatch {
        StatusWatch { receiver: self.status.clone() }
    }

    /// Stops reading, and waits until every thread of the subscription has ended; a load that is
    /// under way is finished first. Safe to cancel: the threads stop all the same.
    pub async fn shutdown(self) {
        let (done, ended) = oneshot::channel();
        if self.requests.send(Request::Shutdown { done: Some(done) }).is_ok() {
            // The sender is dropped, not used, when the updater ends.
            drop(ended.await);
        }
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        // Where the updater is gone already there is nothing to stop.
        drop(self.requests.send(Request::Shutdown { done: None }));
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models")
            .field("watch", &self.watch)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

/// What a subscription is to do, before it starts.
///
/// ```
/// use std::sync::Arc;
/// use modelswap::topic::MemoryTopic;
/// use modelswap::Models;
///
/// let models = Models::subscribe_to(Arc::new(MemoryTopic::new("models", 1)))
///     .model("fraud")
///     .max_model_bytes(64 << 20)
///     .start()?;
/// assert!(models.scorer("fraud").is_ok());
/// assert!(models.scorer("other").is_err());
/// # Ok::<(), modelswap::Error>(())
/// ```
#[must_use]
pub struct Subscription {
    source: Source,
    models: Vec<String>,
    all: bool,
    expected: Vec<(String, Signature)>,
    max_model_bytes: u64,
    memory_budget: u64,
    formats: Formats,
}

enum Source {
    #[cfg(feature = "kafka")]
    Kafka(KafkaTopic),
    Topic(Arc<dyn Topic>),
}

impl Subscription {
    fn new(source: Source) -> Self {
        Self {
            source,
            models: Vec::new(),
            all: false,
            expected: Vec::new(),
            max_model_bytes: 1 << 30,
            memory_budget: 4 << 30,
            formats: Formats::default(),
        }
    }

    /// Sets a property of the Kafka client, by its librdkafka name: `bootstrap.servers`,
    /// `security.protocol`, `sasl.username`, .. Those that the subscription needs to have its own
    /// way (reading from the beginning, without commits, only what is committed, with checksums)
    /// cannot be set; [`Subscription::start`] names them.
    #[cfg(feature = "kafka")]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        if let Source::Kafka(topic) = self.source {
            self.source = Source::Kafka(topic.config(key, value));
        }
        self
    }

    /// Includes this model; call it once for each.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.models.push(name.into());
        self
    }

    /// Includes every model on the topic, also those that are published later.
    pub const fn all_models(mut self) -> Self {
        self.all = true;
        self
    }

    /// States what the application needs this model to take and give. A release that does not fit
    /// is rejected before it can fail a single prediction. Includes the model.
    pub fn expect(mut self, model: impl Into<String>, signature: Signature) -> Self {
        let model = model.into();
        self.models.push(model.clone());
        self.expected.push((model, signature));
        self
    }

    /// The largest artifact, in bytes; a larger one is rejected before it is read. 1 GiB unless set.
    pub const fn max_model_bytes(mut self, bytes: u64) -> Self {
        self.max_model_bytes = bytes;
        self
    }

    /// The most memory that a model may take while it loads and in one run, in bytes; 4 GiB unless
    /// set.
    pub const fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Adds a format of your own.
    pub fn loader(mut self, loader: Arc<dyn Loader>) -> Self {
        self.formats.add(loader);
        self
    }

    /// Starts reading. It does not wait for the topic: see [`ModelScorer::ready`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where no model or a wrong name is given, or the client's configuration
    /// cannot be used; [`ErrorKind::Unavailable`] where the system gives no more threads.
    pub fn start(self) -> Result<Models, Error> {
        let names = self.models.iter().map(|name| model_name(name)).collect::<Result<BTreeSet<_>, _>>()?;
        let watch = match (self.all, names.is_empty()) {
            (true, _) => Watch::All,
            (false, false) => Watch::Only(names),
            (false, true) => {
                let text = "the subscription includes no model: call `model` or `all_models`";
                return Err(Error::new(ErrorKind::Config, text));
            }
        };
        let expected = self
            .expected
            .into_iter()
            .map(|(name, signature)| Ok((model_name(&name)?, signature)))
            .collect::<Result<HashMap<_, _>, Error>>()?;
        #[allow(clippy::infallible_destructuring_match, reason = "there are two sources with Kafka")]
        let topic: Arc<dyn Topic> = match self.source {
            #[cfg(feature = "kafka")]
            Source::Kafka(topic) => {
                topic.check()?;
                Arc::new(topic)
            }
            Source::Topic(topic) => topic,
        };
        let settings = Settings {
            watch: watch.clone(),
            expected,
            max_model_bytes: self.max_model_bytes,
            memory_budget: self.memory_budget,
            formats: self.formats,
        };
        let slots = Arc::new(Slots::default());
        let (requests, status) = updater::start(topic, settings, Arc::clone(&slots))?;
        Ok(Models { slots, watch, requests, status })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Subscription");
        match &self.source {
            // The configuration may hold a password.
            #[cfg(feature = "kafka")]
            Source::Kafka(topic) => debug.field("topic", &topic.name()),
            Source::Topic(topic) => debug.field("topic", &topic.name()),
        };
        debug
            .field("models", &self.models)
            .field("all", &self.all)
            .field("expected", &self.expected)
            .field("max_model_bytes", &self.max_model_bytes)
            .field("memory_budget", &self.memory_budget)
            .field("formats", &self.formats)
            .finish()
    }
}

/// Scores with the newest verified version of one model; see [`Scorer`].
///
/// Cheap to clone, one for each thread or one for all.
#[derive(Clone)]
pub struct ModelScorer {
    model: ModelName,
    slot: Arc<Slot>,
    requests: Sender<Request>,
}

impl ModelScorer {
    /// The model.
    #[must_use]
    pub const fn model(&self) -> &ModelName {
        &self.model
    }

    /// Waits until a version of the model is live. Needs no particular runtime, and can be
    /// cancelled.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], with the precise reason for which there is none yet: the topic cannot
    /// be read, has no such model, its newest release was rejected because .. ; or
    /// [`ErrorKind::Closed`].
    pub async fn ready(&self, timeout: Duration) -> Result<(), Error> {
        let closed = || Error::new(ErrorKind::Closed, "the subscription was shut down");
        // A deadline beyond what the clock can say is one that never comes.
        let deadline = Instant::now()
            .checked_add(timeout)
            .unwrap_or_else(|| Instant::now() + Duration::from_hours(24 * 365));
        let (reply, answer) = oneshot::channel();
        let request = Request::Ready { model: self.model.clone(), deadline, timeout, reply };
        self.requests.send(request).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl Scorer for ModelScorer {
    fn snapshot(&self) -> Result<Snapshot, PredictError> {
        self.slot.snapshot()
    }

    fn predict(&self, features: &dyn Features) -> Result<Prediction, PredictError> {
        self.slot.with(|live| live.predict(features))
    }

    fn predict_into(&self, features: &dyn Features, scores: &mut [f32]) -> Result<Position, PredictError> {
        self.slot.with(|live| live.predict_into(features, scores))
    }
}

impl fmt::Debug for ModelScorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ModelScorer").field(&self.model).finish()
    }
}

/// Follows a [`Status`].
#[derive(Clone, Debug)]
pub struct StatusWatch {
    receiver: watch::Receiver<Arc<Status>>,
}

impl StatusWatch {
    /// The status now.
    #[must_use]
    pub fn current(&self) -> Arc<Status> {
        Arc::clone(&self.receiver.borrow())
    }

    /// The status after its next change; `None` once the subscription has ended. Can be cancelled.
    pub async fn changed(&mut self) -> Option<Arc<Status>> {
        self.receiver.changed().await.ok()?;
        Some(Arc::clone(&self.receiver.borrow_and_update()))
    }

    /// Waits until the status is as wanted, and answers it; `None` once the subscription has ended
    /// without that. Can be cancelled.
    pub async fn wait_for(&mut self, wanted: impl Fn(&Status) -> bool) -> Option<Arc<Status>> {
        self.receiver.wait_for(|status| wanted(status)).await.ok().map(|status| Arc::clone(&status))
    }
}

fn model_name(name: &str) -> Result<ModelName, Error> {
    name.parse().map_err(|error: crate::release::NameError| Error::new(ErrorKind::Config, error.to_string()))
}
