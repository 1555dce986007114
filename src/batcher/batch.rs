//! A batch: rows that are scored together, and who waits for each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::score::RowScore;
use crate::features::{Bound, Features, Inputs};
use crate::scorer::{PredictError, Prediction, Scorer, Snapshot};
use crate::signature::Signature;
use crate::tensor::{Tensor, TensorView};

/// What a row gets.
pub(super) type Answer = Result<RowScore, PredictError>;

/// Rows of one layout. Its memory is used again for the next rows.
pub(super) struct Batch {
    form: Form,
    inputs: SmallVec<[Input; 2]>,
    replies: Vec<oneshot::Sender<Answer>>,
    opened: Instant,
}

/// One input of all rows, one after the other.
struct Input {
    name: Arc<str>,
    rows: Tensor,
}

/// How the features came: a new version may give its only input another name or shape, which
/// matters to named tensors only.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Rows,
    Whole,
    Named,
}

impl Batch {
    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.replies.len()
    }

    /// How long ago it was opened.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Prepares for rows of the layout of this one.
    pub(super) fn open(&mut self, row: &Row<'_>, now: Instant) {
        self.opened = now;
        if !self.fits(row) {
            self.form = row.form;
            self.inputs = row.inputs().map(|(name, view)| Input::like(name, view)).collect();
        }
    }

    /// True where the row has the layout of those that are there.
    pub(super) fn fits(&self, row: &Row<'_>) -> bool {
        self.form == row.form
            && self.inputs.len() == row.views.len()
            && self.inputs.iter().zip(row.inputs()).all(|(input, (name, view))| input.fits(name, view))
    }

    /// Takes a row that fits.
    pub(super) fn push(&mut self, row: &Row<'_>, reply: oneshot::Sender<Answer>) {
        for (input, view) in self.inputs.iter_mut().zip(&row.views) {
            input.rows.append_rows(*view);
        }
        self.replies.push(reply);
    }

    /// Scores all rows with the version that is live now, filled up to `padded` rows where that is
    /// given, and answers each. Then it is empty.
    pub(super) fn run(&mut self, scorer: &dyn Scorer, padded: Option<usize>) {
        let mut replies = std::mem::take(&mut self.replies);
        // Where nobody waits any more the model need not run.
        if !replies.iter().all(oneshot::Sender::is_closed) {
            let pinned = catch_unwind(AssertUnwindSafe(|| scorer.snapshot()));
            match pinned.unwrap_or(Err(PredictError::Panicked)) {
                Ok(snapshot) => self.answer(&snapshot, padded, &mut replies),
                Err(error) => replies.drain(..).for_each(|reply| send(reply, Err(error.clone()))),
            }
        }
        replies.clear();
        self.replies = replies;
        self.inputs.iter_mut().for_each(|input| input.rows.clear_rows());
    }

    fn answer(
        &mut self,
        snapshot: &Snapshot,
        padded: Option<usize>,
        replies: &mut Vec<oneshot::Sender<Answer>>,
    ) {
        let rows = replies.len();
        let ran = padded.unwrap_or(rows).max(rows);
        self.pad(rows, ran);
        match self.predict(snapshot, None) {
            Ok(prediction) if by_rows(&prediction, ran) => {
                let prediction = Arc::new(prediction);
                for (row, reply) in replies.drain(..).enumerate() {
                    send(reply, Ok(RowScore::new(Arc::clone(&prediction), row, ran)));
                }
            }
            Err(error) if ran == 1 => replies.drain(..).for_each(|reply| send(reply, Err(error.clone()))),
            // Whose row it was shows when each runs by itself; and what an output that is not by
            // rows is for one of them.
            _ => {
                for (row, reply) in replies.drain(..).enumerate() {
                    let alone = self.predict(snapshot, Some(row));
                    send(reply, alone.map(|prediction| RowScore::new(Arc::new(prediction), 0, 1)));
                }
            }
        }
    }

    /// Adds copies of the last row, which is one that the model can take if it can take the batch.
    fn pad(&mut self, rows: usize, padded: usize) {
        for input in self.inputs.iter_mut().filter(|_| padded > rows) {
            let last = input.rows.view().rows(rows.saturating_sub(1)..rows).map(|row| row.to_tensor());
            for last in last.iter().cycle().take(padded - rows) {
                input.rows.append_rows(last.view());
            }
        }
    }

    /// Scores one of the rows, or all.
    fn predict(&self, snapshot: &Snapshot, only: Option<usize>) -> Result<Prediction, PredictError> {
        let views: Option<SmallVec<[(&str, TensorView<'_>); 2]>> =
            self.inputs.iter().map(|input| Some((&*input.name, input.view(only)?))).collect();
        let views = views.unwrap_or_default();
        let inputs = match (self.form, views.first()) {
            (Form::Rows, Some((_, view))) => Inputs::Rows(*view),
            (Form::Whole, Some((_, view))) => Inputs::Whole(*view),
            _ => Inputs::NamedViews(&views),
        };
        snapshot.predict(&Chosen(inputs))
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { form: Form::Named, inputs: SmallVec::new(), replies: Vec::new(), opened: Instant::now() }
    }
}

impl Input {
    /// The input of such a row, without rows.
    fn like(name: &Arc<str>, view: TensorView<'_>) -> Self {
        let mut rows = view.to_tensor();
        rows.clear_rows();
        Self { name: Arc::clone(name), rows }
    }

    /// One of the rows, or all.
    fn view(&self, only: Option<usize>) -> Option<TensorView<'_>> {
        let all = self.rows.view();
        only.map_or(Some(all), |row| all.rows(row..row + 1))
    }

    /// An input without a batch dimension fits nothing: each such row is a batch of its own.
    fn fits(&self, name: &Arc<str>, view: TensorView<'_>) -> bool {
        let (mine, other) = (self.rows.dims().split_first(), view.dims().split_first());
        let same_width = mine.zip(other).is_some_and(|((_, mine), (_, other))| mine == other);
        same_width && self.rows.element_type() == view.element_type() && self.name == *name
    }
}

/// One row that fits the signature that it was checked against.
pub(super) struct Row<'a> {
    form: Form,
    signature: &'a Signature,
    /// In the signature's order.
    views: Bound<'a>,
}

impl<'a> Row<'a> {
    /// Checks that the features are one row for a model of this signature.
    pub(super) fn check(features: &'a dyn Features, signature: &'a Signature) -> Result<Self, PredictError> {
        let inputs = features.inputs();
        let bound = inputs.bind(signature)?;
        let (form, views) = match inputs {
            Inputs::Rows(view) => (Form::Rows, smallvec::smallvec![view]),
            Inputs::Whole(_) => (Form::Whole, bound),
            _ => (Form::Named, bound),
        };
        match views.iter().map(|view| view.shape().rows()).find(|rows| *rows != 1) {
            Some(found) => Err(PredictError::NotOneRow { found }),
            None => Ok(Self { form, signature, views }),
        }
    }

    fn inputs(&self) -> impl Iterator<Item = (&'a Arc<str>, TensorView<'a>)> {
        let names = self.signature.inputs().iter().map(|spec| spec.name());
        names.zip(self.views.iter().copied())
    }
}

/// Features in a form that is already known.
struct Chosen<'a>(Inputs<'a>);

impl Features for Chosen<'_> {
    fn inputs(&self) -> Inputs<'_> {
        self.0
    }
}

/// True where every output has one row for each of `rows`.
fn by_rows(prediction: &Prediction, rows: usize) -> bool {
    rows == 1 || prediction.outputs().all(|(_, output)| output.dims().first() == Some(&rows))
}

/// Answers a caller, who may have gone.
fn send(reply: oneshot::Sender<Answer>, answer: Answer) {
    drop(reply.send(answer));
}
