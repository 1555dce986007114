//! The hot path: from features to a prediction that knows which model made it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::features::{Features, Inputs, RowsOf};
use crate::kernel::PerThread;
use crate::load::{Model, RunError};
pub use crate::predict_error::PredictError;
use crate::prediction::Identity;
pub use crate::prediction::Prediction;
pub use crate::provenance::Provenance;
use crate::release::Position;
use crate::signature::Signature;
use crate::tensor::{Tensor, TensorView, with_memory_of};
use crate::usage::Usage;

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
    /// What most models take, so that most calls need no more than a look at it.
    rows: Option<RowsOf>,
    usage: Usage,
    /// The memory for the inputs of a call.
    arguments: PerThread<Vec<TensorView<'static>>>,
}

impl LiveModel {
    pub(crate) fn new(model: Arc<dyn Model>, provenance: Provenance) -> Self {
        let signature = model.signature().clone();
        let rows = RowsOf::only_input(&signature);
        let identity = Arc::new(Identity { provenance, signature });
        Self { model, identity, rows, usage: Usage::default(), arguments: PerThread::default() }
    }

    pub(crate) fn provenance(&self) -> &Provenance {
        &self.identity.provenance
    }

    pub(crate) fn predict(&self, features: &dyn Features) -> Result<Prediction, PredictError> {
        let mut outputs = vec![Tensor::default(); self.identity.signature.outputs().len()];
        self.bound(features, |inputs| self.model.run(inputs, &mut outputs))?;
        Ok(Prediction::new(outputs, Arc::clone(&self.identity)))
    }

    pub(crate) fn predict_into(
        &self,
        features: &dyn Features,
        scores: &mut [f32],
    ) -> Result<Position, PredictError> {
        self.bound(features, |inputs| self.model.run_into(inputs, scores))?;
        Ok(self.identity.provenance.position())
    }

    /// Runs the model on features that fit it, a panic inside it turned into an error.
    #[inline]
    fn bound(
        &self,
        features: &dyn Features,
        run: impl FnOnce(&[TensorView<'_>]) -> Result<(), RunError>,
    ) -> Result<(), PredictError> {
        self.usage.note();
        let inputs = features.inputs();
        match &inputs {
            Inputs::Rows(view) if self.rows.is_some_and(|rows| rows.accepts(*view)) => {
                contain(|| run(std::slice::from_ref(view)))
            }
            Inputs::Named(_) | Inputs::NamedViews(_) => self.arguments.with(Vec::new, |memory| {
                let mut arguments = with_memory_of(std::mem::take(memory));
                let done = inputs
                    .bind_named(&self.identity.signature, |view| arguments.push(view))
                    .and_then(|()| contain(|| run(&arguments)));
                *memory = with_memory_of(arguments);
                done
            }),
            _ => {
                let inputs = inputs.bind(&self.identity.signature)?;
                contain(|| run(&inputs))
            }
        }
    }
}

/// Versions of which it is asked whether they are in use. It keeps none of them in memory.
pub(crate) struct InUse(Vec<Weak<LiveModel>>);

impl InUse {
    /// True where one of them is being called, as far as looks before this one can tell.
    pub(crate) fn score(&self, now: Instant) -> bool {
        let mut versions = self.0.iter().filter_map(Weak::upgrade);
        versions.any(|version| version.usage.is_current(now))
    }
}

impl FromIterator<Snapshot> for InUse {
    fn from_iter<I: IntoIterator<Item = Snapshot>>(snapshots: I) -> Self {
        Self(snapshots.into_iter().map(|snapshot| Arc::downgrade(&snapshot.version)).collect())
    }
}

#[inline]
fn contain(run: impl FnOnce() -> Result<(), RunError>) -> Result<(), PredictError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(PredictError::Run(error)),
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

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::FixedScorer;

    #[test]
    fn versions_that_score_are_told_of_and_those_that_are_gone_never() {
        let now = Instant::now();
        for called in [0, 1] {
            let snapshots =
                [0.1, 0.2].map(|score| FixedScorer::answering(1, move |_| vec![score]).snapshot().unwrap());
            let in_use: InUse = snapshots.iter().cloned().collect();
            assert!(!in_use.score(now));
            snapshots[called].predict_into(&[1.0_f32], &mut [0.0]).unwrap();
            assert!(in_use.score(now));
            drop(snapshots);
            assert!(!in_use.score(now));
        }
    }
}
