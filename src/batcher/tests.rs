use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::load::{Model, RunError};
use crate::release::{Position, Sha256Digest};
use crate::scorer::LiveModel;
use crate::scorer::{PredictError, Provenance, Snapshot};
use crate::signature::{Dim, Signature, TensorSpec};
use crate::slot::Slot;
use crate::tensor::{ElementType, Shape, Tensor, TensorView};
use crate::testing::FixedScorer;

const WAIT: Duration = Duration::from_secs(30);

/// Says when it begins a batch and of how many rows, and then waits for leave to end it; scores
/// each row with its sum times a factor. Fails on NaN.
struct GatedModel {
    signature: Signature,
    factor: f32,
    began: Sender<usize>,
    leave: Receiver<()>,
}

/// The test's side of a [`GatedModel`].
struct Gate {
    began: Receiver<usize>,
    leave: Sender<()>,
}

impl Gate {
    /// The size of the batch that runs next; it then waits in the model.
    fn running(&self) -> usize {
        self.began.recv_timeout(WAIT).unwrap()
    }

    fn leave(&self) {
        self.leave.send(()).unwrap();
    }

    /// Lets every batch run through from now on.
    fn open(self) -> Receiver<usize> {
        self.began
    }
}

fn gated(width: Dim, factor: f32) -> (Arc<dyn Model>, Gate) {
    let (began_sender, began) = unbounded();
    let (leave, leave_receiver) = unbounded();
    let spec = |name, dim| TensorSpec::new(name, ElementType::F32, &[Dim::Any, dim]);
    let signature = Signature::new(vec![spec("features", width)], vec![spec("score", Dim::Fixed(1))]);
    let model = GatedModel { signature, factor, began: began_sender, leave: leave_receiver };
    (Arc::new(model), Gate { began, leave })
}

impl Model for GatedModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let rows = inputs[0].shape().rows();
        let _ = self.began.send(rows);
        // An error means that the gate is open.
        let _ = self.leave.recv();
        let values = inputs[0].values::<f32>().unwrap();
        assert!(!values.contains(&f32::INFINITY), "a panic of the model");
        if values.iter().any(|v| v.is_nan()) {
            return Err(RunError::Engine("a bad row".into()));
        }
        let scores = outputs[0].reset::<f32>(Shape::matrix(rows, 1));
        for (score, row) in scores.iter_mut().zip(values.chunks_exact(values.len() / rows)) {
            *score = row.iter().sum::<f32>() * self.factor;
        }
        Ok(())
    }
}

/// A scorer whose version the test swaps.
#[derive(Clone, Default)]
struct Swapped(Arc<Slot>);

impl Swapped {
    fn to(self, version: &str, model: Arc<dyn Model>) -> Self {
        self.0.replace(Some(Arc::new(LiveModel::new(model, provenance(version)))));
        self
    }
}

impl Scorer for Swapped {
    fn snapshot(&self) -> Result<Snapshot, PredictError> {
        self.0.snapshot()
    }
}

fn provenance(version: &str) -> Provenance {
    let at = Position { partition: 0, offset: 0 };
    Provenance::new("fraud".parse().unwrap(), version, Sha256Digest::of([]), at)
}

/// A batcher with one thread, which is held in a first batch of one row.
fn busy(parameters: impl FnOnce(BatchingParameters) -> BatchingParameters) -> (Batcher, Gate, PendingScore) {
    let (model, gate) = gated(Dim::Any, 1.0);
    let scorer = Snapshot::of(model, provenance("v1"));
    let batcher = parameters(Batcher::over(scorer).num_batch_threads(1)).start().unwrap();
    let first = batcher.predict(&[0.5_f32]);
    assert_eq!(gate.running(), 1);
    (batcher, gate, first)
}

#[tokio::test]
async fn rows_that_come_while_the_threads_are_busy_are_the_next_batches() {
    let (batcher, gate, first) = busy(|p| p.max_batch_size(4));
    let pending: Vec<_> = (0_u8..10).map(|i| batcher.predict(&[f32::from(i), 1.0])).collect();
    let sizes = gate.open();
    assert_eq!(first.await.unwrap().values(), [0.5]);
    for (i, pending) in (0_u8..).zip(pending) {
        assert_eq!(pending.await.unwrap().values(), [f32::from(i) + 1.0]);
    }
    assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [4, 4, 2]);
}

#[tokio::test]
async fn a_row_beyond_the_queue_is_refused_and_the_others_are_scored() {
    let (batcher, gate, first) = busy(|p| p.max_batch_size(2).max_enqueued_batches(2));
    let waiting: Vec<_> = (0_u8..4).map(|i| batcher.predict(&[f32::from(i)])).collect();
    let refused = batcher.predict(&[9.0_f32]).await.unwrap_err();
    assert_eq!(refused, PredictError::Overloaded { limit: 2 });
    assert_eq!(refused.to_string(), "the batching queue is full: 2 batches are waiting");
    gate.open();
    first.await.unwrap();
    for (i, pending) in (0_u8..).zip(waiting) {
        assert_eq!(pending.await.unwrap().values(), [f32::from(i)]);
    }
    assert_eq!(batcher.predict(&[9.0_f32]).await.unwrap().values(), [9.0]);
}

#[tokio::test]
async fn all_rows_of_a_batch_are_scored_by_the_version_that_is_live_when_it_runs() {
    let (v1, gate1) = gated(Dim::Any, 1.0);
    let (v2, gate2) = gated(Dim::Any, 10.0);
    let scorer = Swapped::default().to("v1", v1);
    let batcher = Batcher::over(scorer.clone()).num_batch_threads(1).start().unwrap();
    let first = batcher.predict(&[1.0_f32]);
    assert_eq!(gate1.running(), 1);
    let before = batcher.predict(&[2.0_f32]);
    let scorer = scorer.to("v2", v2);
    let after = batcher.predict(&[3.0_f32]);
    gate1.open();
    let first = first.await.unwrap();
    assert_eq!((first.values(), first.provenance().version()), (&[1.0_f32][..], "v1"));
    assert_eq!(gate2.running(), 2);
    // A swap while the batch runs changes nothing of it.
    scorer.to("v3", gated(Dim::Any, 0.0).0);
    gate2.leave();
    for (pending, score) in [(before, 20.0), (after, 30.0)] {
        let answer = pending.await.unwrap();
        assert_eq!((answer.values(), answer.provenance().version()), (&[score][..], "v2"));
    }
}

#[tokio::test]
async fn a_row_that_does_not_fit_is_refused_before_it_is_enqueued() {
    let (model, gate) = gated(Dim::Fixed(2), 1.0);
    let batcher = Batcher::over(Snapshot::of(model, provenance("v1"))).start().unwrap();
    let narrow = batcher.predict(&[1.0_f32]).await.unwrap_err();
    assert_eq!(narrow.to_string(), "input `features`: expected 2 values a row, found 1");
    let two = batcher.predict(&[[1.0_f32, 2.0]; 2]).await.unwrap_err();
    assert_eq!(two, PredictError::NotOneRow { found: 2 });
    assert!(gate.began.is_empty());
    let none = Batcher::over(Swapped::default()).start().unwrap();
    assert_eq!(none.predict(&[1.0_f32]).await.unwrap_err(), PredictError::NoModel);
}

#[tokio::test]
async fn a_row_that_the_model_fails_on_fails_alone() {
    for (bad, error) in [
        (f32::NAN, PredictError::Run(RunError::Engine("a bad row".into()))),
        (f32::INFINITY, PredictError::Panicked),
    ] {
        let (batcher, gate, first) = busy(|p| p);
        let pending: Vec<_> = [1.0, bad, 3.0].map(|v| batcher.predict(&[v])).into_iter().collect();
        let sizes = gate.open();
        first.await.unwrap();
        let mut answers = Vec::new();
        for pending in pending {
            answers.push(pending.await.map(|score| score.values().to_vec()));
        }
        assert_eq!(answers, [Ok(vec![1.0]), Err(error), Ok(vec![3.0])]);
        assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [3, 1, 1, 1]);
        assert!(batcher.predict(&[bad]).await.is_err());
        assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [1], "a single row is not tried twice");
    }
}

#[tokio::test]
async fn rows_that_no_longer_fit_when_their_batch_runs_fail_alone() {
    let (v1, gate1) = gated(Dim::Any, 1.0);
    let scorer = Swapped::default().to("v1", v1);
    let batcher = Batcher::over(scorer.clone()).num_batch_threads(1).start().unwrap();
    let first = batcher.predict(&[1.0_f32]);
    assert_eq!(gate1.running(), 1);
    let (two, three) = (batcher.predict(&[2.0_f32; 2]), batcher.predict(&[2.0_f32; 3]));
    let (v2, gate2) = gated(Dim::Fixed(3), 1.0);
    let _ = scorer.to("v2", v2);
    gate1.open();
    gate2.open();
    first.await.unwrap();
    assert!(matches!(two.await, Err(PredictError::WrongWidth { expected: 3, found: 2, .. })));
    assert_eq!(three.await.unwrap().values(), [6.0]);
}

#[tokio::test]
async fn a_caller_that_gives_up_disturbs_nobody() {
    let (batcher, gate, first) = busy(|p| p.max_batch_size(2));
    let [gone, stays] = [1.0_f32, 2.0].map(|v| batcher.predict(&[v]));
    let all_gone = [3.0_f32, 4.0].map(|v| batcher.predict(&[v]));
    drop((gone, all_gone));
    let sizes = gate.open();
    first.await.unwrap();
    assert_eq!(stays.await.unwrap().values(), [2.0]);
    batcher.shutdown().await;
    // The batch that nobody waits for is not run at all.
    assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_batch_that_is_full_does_not_wait_for_the_timeout() {
    let (model, gate) = gated(Dim::Any, 1.0);
    let scorer = Snapshot::of(model, provenance("v1"));
    let day = Duration::from_hours(24);
    let batcher = Batcher::over(scorer).max_batch_size(3).batch_timeout(day).start().unwrap();
    let pending = [1.0_f32, 2.0, 3.0].map(|v| batcher.predict(&[v]));
    assert_eq!(gate.running(), 3);
    let late = batcher.predict(&[4.0_f32]);
    gate.open();
    for (pending, score) in pending.into_iter().zip([1.0, 2.0, 3.0]) {
        assert_eq!(pending.await.unwrap().values(), [score]);
    }
    // What waits for company is scored when the batcher goes.
    drop(batcher);
    assert_eq!(late.await.unwrap().values(), [4.0]);
}

#[tokio::test]
async fn a_batch_that_does_not_fill_runs_after_the_timeout() {
    let timeout = Duration::from_millis(20);
    let scorer = FixedScorer::answering(1, <[f32]>::to_vec);
    let batcher = Batcher::over(scorer).batch_timeout(timeout).start().unwrap();
    let begin = Instant::now();
    let pending = [1.0_f32, 2.0].map(|v| batcher.predict(&[v]));
    for (pending, score) in pending.into_iter().zip([1.0, 2.0]) {
        assert_eq!(pending.await.unwrap().values(), [score]);
    }
    assert!(begin.elapsed() >= timeout);
}

#[tokio::test]
async fn after_a_shutdown_rows_are_refused_and_the_scorer_is_let_go() {
    struct Watched(Snapshot, Arc<AtomicBool>);
    impl Scorer for Watched {
        fn snapshot(&self) -> Result<Snapshot, PredictError> {
            self.0.snapshot()
        }
    }
    impl Drop for Watched {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }
    let freed = Arc::new(AtomicBool::new(false));
    let (model, gate) = gated(Dim::Any, 1.0);
    let scorer = Watched(Snapshot::of(model, provenance("v1")), freed.clone());
    let batcher = Batcher::over(scorer).num_batch_threads(3).start().unwrap();
    let clone = batcher.clone();
    let pending = clone.predict(&[1.0_f32]);
    gate.open();
    batcher.shutdown().await;
    assert_eq!(clone.predict(&[1.0_f32]).await.unwrap_err(), PredictError::Closed);
    assert_eq!(pending.await.unwrap().values(), [1.0]);
    assert!(!freed.load(Ordering::SeqCst));
    drop(clone);
    assert!(freed.load(Ordering::SeqCst), "no thread holds the scorer any more");
}

#[tokio::test]
async fn rows_of_different_layouts_go_into_different_batches() {
    let (batcher, gate, first) = busy(|p| p);
    let pending = [&[1.0_f32][..], &[2.0], &[3.0, 4.0], &[5.0]].map(|row| batcher.predict(&row));
    let sizes = gate.open();
    first.await.unwrap();
    for (pending, score) in pending.into_iter().zip([1.0, 2.0, 7.0, 5.0]) {
        assert_eq!(pending.await.unwrap().values(), [score]);
    }
    assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [2, 1, 1]);
}

#[tokio::test]
async fn a_batch_is_filled_up_to_an_allowed_size() {
    let (batcher, gate, first) = busy(|p| p.max_batch_size(8).allowed_batch_sizes([1, 4, 8]));
    let pending = [1.0_f32, 2.0, 3.0].map(|v| batcher.predict(&[v]));
    let sizes = gate.open();
    first.await.unwrap();
    for (pending, score) in pending.into_iter().zip([1.0, 2.0, 3.0]) {
        let answer = pending.await.unwrap();
        assert_eq!(answer.values(), [score]);
        assert_eq!(answer.output("score").unwrap().values(), Some(&[score][..]));
    }
    assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [4]);
}

#[test]
fn parameters_that_make_no_sense_are_named() {
    let over = || Batcher::over(FixedScorer::failing(PredictError::NoModel));
    for (parameters, message) in [
        (over().max_batch_size(0), "`max_batch_size`: expected at least 1, found 0"),
        (over().max_enqueued_batches(0), "`max_enqueued_batches`: expected at least 1, found 0"),
        (over().num_batch_threads(0), "`num_batch_threads`: expected at least 1, found 0"),
        (
            over().allowed_batch_sizes([4, 2, 32]),
            "`allowed_batch_sizes`: expected numbers that ascend to 32, found [4, 2, 32]",
        ),
        (
            over().allowed_batch_sizes([4, 16]),
            "`allowed_batch_sizes`: expected numbers that ascend to 32, found [4, 16]",
        ),
    ] {
        let error = parameters.start().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Config, message));
    }
}

#[test]
fn a_batcher_goes_wherever_its_callers_are() {
    fn anywhere<T: Send + Sync + 'static>() {}
    anywhere::<Batcher>();
    anywhere::<PendingScore>();
    anywhere::<RowScore>();
}
