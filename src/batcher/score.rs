//! What a caller of the batcher gets: the promise of a score, and the score.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::scorer::{PredictError, Prediction, Provenance};
use crate::tensor::TensorView;

/// A score that is being made; await it.
///
/// It borrows nothing. It can be dropped at any time: the score is then made for nobody.
#[must_use = "the score is in what it resolves to"]
pub struct PendingScore {
    state: State,
}

enum State {
    Enqueued(oneshot::Receiver<Result<RowScore, PredictError>>),
    Refused(PredictError),
}

impl PendingScore {
    pub(super) fn new(
        enqueued: Result<oneshot::Receiver<Result<RowScore, PredictError>>, PredictError>,
    ) -> Self {
        Self { state: enqueued.map_or_else(State::Refused, State::Enqueued) }
    }
}

impl Future for PendingScore {
    type Output = Result<RowScore, PredictError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.state {
            State::Refused(error) => return Poll::Ready(Err(error.clone())),
            State::Enqueued(answer) => std::task::ready!(Pin::new(answer).poll(cx)),
        };
        // A receiver must not be polled again after its answer.
        self.state = State::Refused(PredictError::Closed);
        // Only a thread that is gone leaves a row without an answer.
        Poll::Ready(outcome.unwrap_or(Err(PredictError::Closed)))
    }
}

impl fmt::Debug for PendingScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Enqueued(_) => f.write_str("PendingScore"),
            State::Refused(error) => f.debug_tuple("PendingScore").field(error).finish(),
        }
    }
}

/// What a model answered for one row of a batch.
///
/// Cheap to clone. It shares the answer of its whole batch, which stays in memory for as long as one
/// row of it is held.
#[derive(Clone)]
pub struct RowScore {
    batch: Arc<Prediction>,
    row: usize,
    rows: usize,
}

impl RowScore {
    /// The answer for the `row`th of `rows` rows.
    pub(super) const fn new(batch: Arc<Prediction>, row: usize, rows: usize) -> Self {
        Self { batch, row, rows }
    }

    /// The scores of the row; what [`Prediction::values`] is for a batch of one.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        let values = self.batch.values();
        let width = values.len() / self.rows.max(1);
        values.chunks_exact(width.max(1)).nth(self.row).unwrap_or(&[])
    }

    /// The row's part of the output of this name, at full precision, with a first dimension of 1.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<TensorView<'_>> {
        let view = self.batch.output(name)?.view();
        // The only row has all there is, be it by rows or not.
        if self.rows == 1 { Some(view) } else { view.rows(self.row..self.row + 1) }
    }

    /// Which version of which model made this.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        self.batch.provenance()
    }
}

impl fmt::Debug for RowScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowScore")
            .field("values", &self.values())
            .field("provenance", self.provenance())
            .finish_non_exhaustive()
    }
}
