//! What a model answered.

use std::fmt;
use std::sync::Arc;

use crate::provenance::Provenance;
use crate::signature::{Signature, TensorSpec};
use crate::tensor::Tensor;

/// What a model answered.
pub struct Prediction {
    outputs: Vec<Tensor>,
    /// The scores, where the model gives them as `f64`.
    narrowed: Option<Vec<f32>>,
    identity: Arc<Identity>,
}

impl Prediction {
    pub(crate) fn new(outputs: Vec<Tensor>, identity: Arc<Identity>) -> Self {
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

/// What a prediction remembers of the model that made it; it does not keep the model alive.
pub(crate) struct Identity {
    pub(crate) provenance: Provenance,
    pub(crate) signature: Signature,
}
