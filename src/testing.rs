//! For the tests of an application: no broker, no model file, no waiting.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use modelswap::testing::{TestModels, fixed_model};
//! use modelswap::{PredictError, Scorer};
//!
//! /// The consumer under test: it blocks what scores high, and lets pass what it cannot score.
//! fn decide(fraud: &dyn Scorer, amount: f32) -> &'static str {
//!     match fraud.predict(&[amount]) {
//!         Ok(score) if score.values()[0] > 0.5 => "block",
//!         Ok(_) | Err(PredictError::NoModel) => "pass",
//!         Err(_) => "review",
//!     }
//! }
//!
//! let models = TestModels::start(&["fraud"])?;
//! let fraud = models.scorer("fraud")?;
//! assert_eq!(decide(&fraud, 10.0), "pass");
//!
//! // One call publishes, swaps and waits.
//! models.publish("fraud", "v1", fixed_model(1, &[0.9])).await?;
//! assert_eq!(decide(&fraud, 10.0), "block");
//!
//! // A model that is rejected changes nothing.
//! let rejected = models.publish("fraud", "v2", "not a model").await.unwrap_err();
//! assert_eq!(rejected.stage(), Some(modelswap::Stage::Load));
//! assert_eq!(decide(&fraud, 10.0), "block");
//!
//! models.withdraw("fraud").await?;
//! assert_eq!(decide(&fraud, 10.0), "pass");
//! # Ok(()) }
//! ```

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::load::{LoadError, LoadOptions, Loader, Model, Payload, RunError};
use crate::models::{ModelScorer, Models, Subscription};
use crate::release::{ModelName, Position, Sha256Digest};
use crate::scorer::{PredictError, Provenance, Scorer, Snapshot};
use crate::signature::{Dim, Signature, TensorSpec};
use crate::status::{Rejected, Status, TopicState};
use crate::tensor::{ElementType, Shape, Tensor, TensorView};
use crate::topic::{MemoryTopic, Topic, TopicError};
use crate::verify::Stage;
use crate::wire::{self, Header};

/// A subscription to a topic in memory, and what publishes to it.
#[derive(Debug)]
pub struct TestModels {
    topic: MemoryTopic,
    models: Models,
}

impl TestModels {
    /// A subscription to these models, with every format of this build and [`fixed_model`].
    ///
    /// # Errors
    /// As [`Subscription::start`].
    pub fn start(models: &[&str]) -> Result<Self, Error> {
        Self::start_with(|subscription| models.iter().fold(subscription, |s, model| s.model(*model)))
    }

    /// The same for a subscription that is configured as the application does it.
    ///
    /// # Errors
    /// As [`Subscription::start`].
    pub fn start_with(configure: impl FnOnce(Subscription) -> Subscription) -> Result<Self, Error> {
        let topic = MemoryTopic::new("models", 1);
        let subscription = Models::subscribe_to(Arc::new(topic.clone())).loader(Arc::new(FixedLoader));
        Ok(Self { models: configure(subscription).start()?, topic })
    }

    /// A scorer of this model.
    ///
    /// # Errors
    /// As [`Models::scorer`].
    pub fn scorer(&self, model: &str) -> Result<ModelScorer, Error> {
        self.models.scorer(model)
    }

    /// The subscription.
    #[must_use]
    pub const fn models(&self) -> &Models {
        &self.models
    }

    /// The topic, to write other records to it.
    #[must_use]
    pub const fn topic(&self) -> &MemoryTopic {
        &self.topic
    }

    /// Publishes a model file in one record, and waits until it is live or rejected.
    ///
    /// # Errors
    /// Where it was rejected, why.
    pub async fn publish(
        &self,
        model: &str,
        version: &str,
        file: impl Into<Bytes>,
    ) -> Result<Provenance, TestError> {
        let file = file.into();
        let header = |name: &str, value: String| Header { name: name.into(), value: value.into() };
        let headers = [
            header(wire::SHA256_HEADER, Sha256Digest::of([&*file]).to_string()),
            header(wire::VERSION_HEADER, version.to_owned()),
        ];
        let position = self.write(model, Some(file), &headers)?;
        let decided =
            |status: &Status| live_at(status, model, position) || rejected_at(status, model, position);
        let status = self.wait_for(decided).await?;
        let status = status.model(model).ok_or(TestError::Stopped)?;
        match (&status.live, &status.last_rejected) {
            (Some(live), _) if live.provenance.position() == position => Ok(live.provenance.clone()),
            (_, Some(rejected)) => Err(TestError::Rejected(rejected.clone())),
            _ => Err(TestError::Stopped),
        }
    }

    /// Withdraws a model, and waits until it is no longer live.
    ///
    /// # Errors
    /// Where the subscription has ended.
    pub async fn withdraw(&self, model: &str) -> Result<(), TestError> {
        let position = self.write(model, None, &[])?;
        let gone = |status: &Status| {
            status.model(model).is_some_and(|m| {
                m.live.is_none() && m.newest.as_ref().is_some_and(|newest| newest.position >= position)
            })
        };
        self.wait_for(gone).await.map(|_| ())
    }

    fn write(&self, model: &str, value: Option<Bytes>, headers: &[Header]) -> Result<Position, TestError> {
        let mut writer = self.topic.writer("modelswap-testing")?;
        writer.begin()?;
        writer.send(0, model.as_bytes(), value, headers)?;
        writer.commit()?.first().copied().ok_or(TestError::Stopped)
    }

    async fn wait_for(&self, wanted: impl Fn(&Status) -> bool) -> Result<Arc<Status>, TestError> {
        let mut watch = self.models.watch_status();
        let stopped = |status: &Status| matches!(status.topic, TopicState::Stopped { .. });
        let status =
            watch.wait_for(|status| wanted(status) || stopped(status)).await.ok_or(TestError::Stopped)?;
        if wanted(&status) { Ok(status) } else { Err(TestError::Stopped) }
    }
}

fn live_at(status: &Status, model: &str, position: Position) -> bool {
    let live = status.model(model).and_then(|m| m.live.as_ref());
    live.is_some_and(|live| live.provenance.position() == position)
}

fn rejected_at(status: &Status, model: &str, position: Position) -> bool {
    let rejected = status.model(model).and_then(|m| m.last_rejected.as_ref());
    rejected.is_some_and(|rejected| rejected.position == position)
}

/// Why a model that a test published is not live.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    /// It was rejected.
    #[error("{0}")]
    Rejected(Rejected),
    /// It could not be written to the topic.
    #[error("{0}")]
    Topic(TopicError),
    /// The subscription has ended.
    #[error("the subscription has ended")]
    Stopped,
}

impl TestError {
    /// The check that a rejected model failed.
    #[must_use]
    pub const fn stage(&self) -> Option<Stage> {
        match self {
            Self::Rejected(rejected) => Some(rejected.rejection.stage),
            _ => None,
        }
    }
}

impl From<TopicError> for TestError {
    fn from(error: TopicError) -> Self {
        Self::Topic(error)
    }
}

/// The file of a model that takes rows of `width` values of `f32` and answers these scores for each
/// of them; [`TestModels`] loads it, and so does a [`Subscription`] that was given [`FixedLoader`].
#[must_use]
pub fn fixed_model(width: usize, scores: &[f32]) -> Bytes {
    let file = FixedFile { fixed_width: width, scores: scores.to_vec() };
    serde_json::to_vec(&file).unwrap_or_default().into()
}

#[derive(Serialize, Deserialize)]
struct FixedFile {
    fixed_width: usize,
    scores: Vec<f32>,
}

/// Loads what [`fixed_model`] makes. The format is named `fixed`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FixedLoader;

impl FixedLoader {
    /// The loader.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Default for FixedLoader {
    fn default() -> Self {
        Self::new()
    }
}

impl Loader for FixedLoader {
    fn format(&self) -> &'static str {
        "fixed"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        payload.peek(14) == b"{\"fixed_width\""
    }

    fn load(&self, payload: Payload, _options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        let file: FixedFile = serde_json::from_slice(&payload.into_bytes())
            .map_err(|error| LoadError::Malformed { format: "fixed", reason: error.to_string() })?;
        let scores = file.scores;
        Ok(Arc::new(FixedModel::new(Dim::Fixed(file.fixed_width), scores.len(), move |_| scores.clone())))
    }
}

/// A scorer with set answers, which needs no topic at all.
///
/// ```
/// use modelswap::testing::FixedScorer;
/// use modelswap::Scorer;
///
/// let fraud = FixedScorer::answering(1, |row| vec![row[0] * 2.0]);
/// assert_eq!(fraud.predict(&[[0.1_f32], [0.2]])?.values(), [0.2, 0.4]);
/// # Ok::<(), modelswap::PredictError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FixedScorer {
    answer: Result<Snapshot, PredictError>,
}

impl FixedScorer {
    /// Answers each row of `f32`, of any width, with the `scores` values that the function gives
    /// for it; a function that gives another number of them is an error of the call.
    pub fn answering(scores: usize, answer: impl Fn(&[f32]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        Self { answer: Ok(Snapshot::of(Arc::new(FixedModel::new(Dim::Any, scores, answer)), provenance())) }
    }

    /// Fails every call with this error.
    #[must_use]
    pub const fn failing(error: PredictError) -> Self {
        Self { answer: Err(error) }
    }
}

impl Scorer for FixedScorer {
    fn snapshot(&self) -> Result<Snapshot, PredictError> {
        self.answer.clone()
    }
}

/// The provenance of a [`FixedScorer`]'s answers: model `fixed`, version `fixed`.
fn provenance() -> Provenance {
    let name: Result<ModelName, _> = "fixed".parse();
    #[expect(clippy::expect_used, reason = "a constant that is a name")]
    let name = name.expect("`fixed` is a model name");
    Provenance::new(name, "fixed", Sha256Digest::of([]), Position { partition: 0, offset: 0 })
}

struct FixedModel<F> {
    signature: Signature,
    scores: usize,
    answer: F,
}

impl<F: Fn(&[f32]) -> Vec<f32>> FixedModel<F> {
    fn new(width: Dim, scores: usize, answer: F) -> Self {
        let input = TensorSpec::new("features", ElementType::F32, &[Dim::Any, width]);
        let output = TensorSpec::new("scores", ElementType::F32, &[Dim::Any, Dim::Fixed(scores)]);
        Self { signature: Signature::new(vec![input], vec![output]), scores, answer }
    }
}

impl<F: Fn(&[f32]) -> Vec<f32> + Send + Sync> Model for FixedModel<F> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let wrong = RunError::Operator { operator: "fixed", expected: "one input of f32 and one output" };
        let ([input], [output]) = (inputs, outputs) else { return Err(wrong) };
        let (rows, width) = (input.shape().rows(), input.shape().row_elements());
        let values = input.values::<f32>().ok_or(wrong)?;
        let out = output.reset::<f32>(Shape::matrix(rows, self.scores));
        let rows = values.chunks_exact(width.max(1));
        for (row, out) in rows.zip(out.chunks_exact_mut(self.scores.max(1))) {
            let scores = (self.answer)(row);
            if scores.len() != out.len() {
                return Err(RunError::Width { operator: "fixed", expected: out.len(), found: scores.len() });
            }
            out.copy_from_slice(&scores);
        }
        Ok(())
    }
}

impl<F> fmt::Debug for FixedModel<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedModel").field("signature", &self.signature).finish_non_exhaustive()
    }
}
