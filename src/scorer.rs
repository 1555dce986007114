//! The hot path: from features to a prediction that knows which model made it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::features::Features;
use crate::load::{Model, RunError};
use crate::release::{ModelName, Position, Release, Sha256Digest};
use crate::signature::{Signature, TensorSpec};
use crate::tensor::{ElementType, Shape, Tensor};

/// Scores events with the newest verified version of one model.
///
/// Synchronous, and needs no runtime. Object-safe: a consumer that takes `&dyn Scorer` can be
/// tested with `testing::FixedScorer`, without Kafka and without a model file.
///
/// # NaN
/// A NaN among the features is not an error: it is a missing value to a model that knows missing
/// values (trees with a default branch, imputers), and in every other model the scores that depend
/// on it are NaN. It never turns into an ordinary score in silence.
pub trait Scorer: Send + Sync {
    /// Pins the version that is live now, for as long as the snapshot is held: every prediction of
    /// one poll batch by one version.
    ///
    /// # Errors
    /// [`PredictError::NoModel`] where no version is live.
    fn snapshot(&self) -> Result<Snapshot, PredictError>;

    /// Scores one event or a batch with the version that is live now.
    ///
    /// # Errors
    /// Where there is no model, the features do not fit it, or it fails; the next call is not
    /// affected.
    fn predict(&self, features: &dyn Features) -> Result<Prediction, PredictError> {
        self.snapshot()?.predict(features)
    }

    /// Writes the scores (what [`Prediction::values`] gives) into the caller's buffer, which has to
    /// be exactly as long, and answers where the release that made them stands on the topic.
    /// Allocates nothing of its own.
    ///
    /// # Errors
    /// As [`Scorer::predict`]; what the buffer then holds is unspecified.
    fn predict_into(&self, features: &dyn Features, scores: &mut [f32]) -> Result<Position, PredictError> {
        self.snapshot()?.predict_into(features, scores)
    }
}

impl<S: Scorer + ?Sized> Scorer for Arc<S> {
    fn snapshot(&self) -> Result<Snapshot, PredictError> {
        (**self).snapshot()
    }
    fn predict(&self, features: &dyn Features) -> Result<Prediction, PredictError> {
        (**self).predict(features)
    }
    fn predict_into(&self, features: &dyn Features, scores: &mut [f32]) -> Result<Position, PredictError> {
        (**self).predict_into(features, scores)
    }
}

/// One version of a model, pinned.
///
/// Cheap to clone. While it is held, the version stays in memory even when a newer one is live; so
/// hold it for a poll batch, not for ever.
#[derive(Clone)]
pub struct Snapshot {
    version: Arc<LiveModel>,
}

/// A model that may score, and what is known of it.
pub(crate) struct LiveModel {
    pub(crate) model: Arc<dyn Model>,
    identity: Arc<Identity>,
}

/// What a prediction remembers of the model that made it; it does not keep the model alive.
struct Identity {
    provenance: Provenance,
    signature: Signature,
}

impl LiveModel {
    pub(crate) fn new(model: Arc<dyn Model>, provenance: Provenance) -> Self {
        let signature = model.signature().clone();
        Self { model, identity: Arc::new(Identity { provenance, signature }) }
    }

    pub(crate) fn provenance(&self) -> &Provenance {
        &self.identity.provenance
    }

    pub(crate) fn predict(&self, features: &dyn Features) -> Result<Prediction, PredictError> {
        let signature = &self.identity.signature;
        let inputs = features.inputs().bind(signature)?;
        let mut outputs = vec![Tensor::default(); signature.outputs().len()];
        contain(|| self.model.run(&inputs, &mut outputs))?;
        Ok(Prediction::new(outputs, Arc::clone(&self.identity)))
    }

    pub(crate) fn predict_into(
        &self,
        features: &dyn Features,
        scores: &mut [f32],
    ) -> Result<Position, PredictError> {
        let inputs = features.inputs().bind(&self.identity.signature)?;
        contain(|| self.model.run_into(&inputs, scores))?;
        Ok(self.identity.provenance.position())
    }
}

/// Runs the model, a panic inside it turned into an error.
fn contain(run: impl FnOnce() -> Result<(), RunError>) -> Result<(), PredictError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(PredictError::Run),
        Err(_) => Err(PredictError::Panicked),
    }
}

impl Snapshot {
    pub(crate) const fn new(version: Arc<LiveModel>) -> Self {
        Self { version }
    }

    /// A snapshot of a model that did not come over a topic: one of your own, or a file that
    /// [`Formats`](crate::load::Formats) loaded.
    #[must_use]
    pub fn of(model: Arc<dyn Model>, provenance: Provenance) -> Self {
        Self::new(Arc::new(LiveModel::new(model, provenance)))
    }

    /// Which version this is.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        self.version.provenance()
    }

    /// What the model takes and gives.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.version.identity.signature
    }

    /// As [`Scorer::predict`], by this version.
    ///
    /// # Errors
    /// As there.
    pub fn predict(&self, features: &dyn Features) -> Result<Prediction, PredictError> {
        self.version.predict(features)
    }

    /// As [`Scorer::predict_into`], by this version.
    ///
    /// # Errors
    /// As there.
    pub fn predict_into(
        &self,
        features: &dyn Features,
        scores: &mut [f32],
    ) -> Result<Position, PredictError> {
        self.version.predict_into(features, scores)
    }
}

/// A snapshot scores too: with the version that it pins.
impl Scorer for Snapshot {
    fn snapshot(&self) -> Result<Snapshot, PredictError> {
        Ok(self.clone())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(self.provenance()).finish()
    }
}

/// What a model answered.
pub struct Prediction {
    outputs: Vec<Tensor>,
    /// The scores, where the model gives them as `f64`.
    narrowed: Option<Vec<f32>>,
    identity: Arc<Identity>,
}

impl Prediction {
    fn new(outputs: Vec<Tensor>, identity: Arc<Identity>) -> Self {
        let score = identity.signature.score_output().and_then(|i| outputs.get(i));
        #[allow(clippy::cast_possible_truncation, reason = "`values` is documented to narrow")]
        let narrowed = score
            .and_then(|tensor| tensor.values::<f64>())
            .map(|values| values.iter().map(|v| *v as f32).collect());
        Self { outputs, narrowed, identity }
    }

    /// The scores: the elements of the first output of a floating-point type, row by row; `f64` is
    /// narrowed. Empty where the model has no such output.
    ///
    /// For a classifier of `k` classes these are `k` probabilities a row, for a regression one value.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        if let Some(narrowed) = &self.narrowed {
            return narrowed;
        }
        let score = self.identity.signature.score_output().and_then(|i| self.outputs.get(i));
        score.and_then(Tensor::values::<f32>).unwrap_or(&[])
    }

    /// The output of this name, at full precision.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs().find(|(spec, _)| &**spec.name() == name).map(|(_, tensor)| tensor)
    }

    /// All outputs in the model's order.
    pub fn outputs(&self) -> impl Iterator<Item = (&TensorSpec, &Tensor)> {
        self.identity.signature.outputs().iter().zip(&self.outputs)
    }

    /// Which version of which model made this.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.identity.provenance
    }
}

impl fmt::Debug for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prediction")
            .field("outputs", &self.outputs().map(|(s, t)| (s.name(), t)).collect::<Vec<_>>())
            .field("provenance", self.provenance())
            .finish()
    }
}

/// Which version of a model made a score: the model, the version, the digest of its file, and
/// where its release stands on the topic.
///
/// ```
/// use modelswap::{Position, Provenance, Sha256Digest};
///
/// let made_by = Provenance::new(
///     "fraud".parse()?,
///     "2026-11-23",
///     Sha256Digest::of([&b"model"[..]]),
///     Position { partition: 0, offset: 41 },
/// );
/// let headers: Vec<_> = made_by.headers().collect();
/// assert_eq!(headers[1], ("modelswap-version", "2026-11-23"));
/// assert_eq!(headers[4], ("modelswap-offset", "41"));
/// # Ok::<(), modelswap::NameError>(())
/// ```
#[derive(Clone)]
pub struct Provenance {
    inner: Arc<ProvenanceInner>,
}

struct ProvenanceInner {
    model: ModelName,
    version: String,
    sha256: Sha256Digest,
    position: Position,
    /// The digest, the partition and the offset as text, so that headers cost nothing.
    texts: [String; 3],
}

impl Provenance {
    /// The provenance of a version.
    #[must_use]
    pub fn new(
        model: ModelName,
        version: impl Into<String>,
        sha256: Sha256Digest,
        position: Position,
    ) -> Self {
        let texts = [sha256.to_string(), position.partition.to_string(), position.offset.to_string()];
        Self { inner: Arc::new(ProvenanceInner { model, version: version.into(), sha256, position, texts }) }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.inner.model
    }

    /// The version, in the publisher's words.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.inner.version
    }

    /// The digest of the model's file.
    #[must_use]
    pub fn sha256(&self) -> Sha256Digest {
        self.inner.sha256
    }

    /// Where the record of the release stands on the topic.
    #[must_use]
    pub fn position(&self) -> Position {
        self.inner.position
    }

    /// Names and values of five headers for the record that the score goes into:
    /// `modelswap-model`, `-version`, `-sha256`, `-partition` and `-offset`. Allocates nothing.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let [sha256, partition, offset] = &self.inner.texts;
        [
            ("modelswap-model", self.inner.model.as_str()),
            ("modelswap-version", self.inner.version.as_str()),
            ("modelswap-sha256", sha256.as_str()),
            ("modelswap-partition", partition.as_str()),
            ("modelswap-offset", offset.as_str()),
        ]
        .into_iter()
    }
}

impl From<&Release> for Provenance {
    fn from(release: &Release) -> Self {
        Self::new(release.model.clone(), release.version.clone(), release.artifact.sha256, release.position)
    }
}

impl PartialEq for Provenance {
    fn eq(&self, other: &Self) -> bool {
        let key = |p: &Self| (p.inner.sha256, p.inner.position);
        key(self) == key(other) && self.model() == other.model() && self.version() == other.version()
    }
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        write!(f, "{} {} (sha256 {}, {})", inner.model, inner.version, inner.sha256.short(), inner.position)
    }
}

/// Why there is no score. Small, and made without an allocation but for what a model's engine says.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PredictError {
    /// No version of the model is live: none has been loaded yet, or it was withdrawn.
    #[error("no version of the model is live")]
    NoModel,
    /// The model has several inputs, and the features came without names.
    #[error("the model has {inputs} inputs: expected named tensors, found rows")]
    NamesNeeded {
        /// How many inputs the model has.
        inputs: usize,
    },
    /// An input of the model is not among the features.
    #[error("input `{}` is missing: expected {expected}", expected.name())]
    MissingInput {
        /// What the model wants.
        expected: TensorSpec,
    },
    /// A feature has a name that the model does not know.
    #[error("the tensor at position {position} has a name that is no input of the model")]
    UnknownInput {
        /// Its position among the features, from 0.
        position: usize,
    },
    /// An input has elements of another type than the model's.
    #[error("input `{}`: expected {expected}, found elements of {found}", expected.name())]
    WrongType {
        /// What the model wants.
        expected: TensorSpec,
        /// What it was given.
        found: ElementType,
    },
    /// A row has more or fewer values than the model's.
    #[error("input `{input}`: expected {expected} values a row, found {found}")]
    WrongWidth {
        /// The input.
        input: Arc<str>,
        /// How many values a row has.
        expected: usize,
        /// How many it was given.
        found: usize,
    },
    /// An input has another shape than the model's.
    #[error("input `{}`: expected {expected}, found shape {found}", expected.name())]
    WrongShape {
        /// What the model wants.
        expected: TensorSpec,
        /// What it was given.
        found: Shape,
    },
    /// Two inputs have different numbers of rows.
    #[error("input `{input}`: expected {expected} rows as in the inputs before it, found {found}")]
    WrongRows {
        /// The input.
        input: Arc<str>,
        /// The number of rows of the inputs before it.
        expected: usize,
        /// Its own.
        found: usize,
    },
    /// The model failed on these values.
    #[error("{0}")]
    Run(RunError),
    /// The model panicked on these values.
    #[error("the model panicked")]
    Panicked,
    /// The micro-batcher takes one row a call.
    #[error("expected one row, found {found}")]
    NotOneRow {
        /// How many rows there were.
        found: usize,
    },
    /// The queue of the micro-batcher is full.
    #[error("the batching queue is full: {limit} batches are waiting")]
    Overloaded {
        /// How many may wait.
        limit: usize,
    },
    /// The micro-batcher was shut down.
    #[error("the batching queue is closed")]
    Closed,
}
