//! The micro-batcher: callers that have one row each share the runs of the model.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::features::Features;
use crate::scorer::Scorer;

mod batch;
mod queue;
mod score;
#[cfg(all(test, feature = "testing"))]
mod tests;

use batch::Row;
use queue::Queue;
pub use score::{PendingScore, RowScore};

/// Scores the single rows of many tasks in batches.
///
/// A batch runs faster than its rows one by one where the model gains from company: networks, and
/// forests that do not fit a cache. Where it does not gain, call the [`Scorer`] itself: a call
/// through here costs the copy of its row and two changes of thread.
///
/// Rows that arrive while every thread is busy make up the next batch, so load alone fills batches;
/// see [`BatchingParameters::batch_timeout`]. All rows of a batch are scored by one version of the
/// model, and a model has to score each row without regard to the others.
///
/// Cheap to clone, one for each task. Needs no particular runtime. When the last clone is dropped
/// the threads score what was enqueued, and end.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use modelswap::testing::FixedScorer;
/// use modelswap::Batcher;
///
/// let fraud = FixedScorer::answering(1, |row| vec![row[0] * 2.0]);
/// let batcher = Batcher::over(fraud)
///     .max_batch_size(32)
///     .batch_timeout(Duration::from_millis(1))
///     .start()?;
///
/// let tasks: Vec<_> = (0_u8..64)
///     .map(|i| {
///         let batcher = batcher.clone();
///         tokio::spawn(async move { batcher.predict(&[f32::from(i)]).await })
///     })
///     .collect();
/// for (i, task) in (0_u8..64).zip(tasks) {
///     let score = task.await??;
///     assert_eq!(score.values(), [f32::from(i) * 2.0]);
///     assert_eq!(score.provenance().version(), "fixed");
/// }
/// # Ok(()) }
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct Batcher {
    scorer: Arc<dyn Scorer>,
    queue: Arc<CloseOnDrop>,
    /// Closed once the last thread has ended.
    ended: watch::Receiver<()>,
}

impl Batcher {
    /// Prepares a batcher over this scorer.
    pub fn over(scorer: impl Scorer + 'static) -> BatchingParameters {
        BatchingParameters {
            scorer: Arc::new(scorer),
            max_batch_size: 32,
            batch_timeout: Duration::ZERO,
            max_enqueued_batches: 100,
            num_batch_threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            allowed_batch_sizes: Vec::new(),
        }
    }

    /// Enqueues one row to be scored, in any form of [`Features`]. The row is copied before this
    /// returns, and scored whether or not the answer is awaited.
    ///
    /// The answer fails where the row does not fit the model, which is checked before it is enqueued;
    /// where the queue is full, with [`PredictError::Overloaded`](crate::PredictError::Overloaded);
    /// where the batcher was shut down, with [`PredictError::Closed`](crate::PredictError::Closed);
    /// and where the model fails on this very row: when a batch fails, its rows are scored one by
    /// one, so that the others do not notice.
    pub fn predict(&self, row: &dyn Features) -> PendingScore {
        // What a version needs is checked against the one that is live now; a batch whose version
        // needs something else by the time it runs answers each row for itself.
        let enqueue = || {
            let snapshot = self.scorer.snapshot()?;
            self.queue.0.push(&Row::check(row, snapshot.signature())?)
        };
        PendingScore::new(enqueue())
    }

    /// Takes no more rows from any clone, and waits until those that were enqueued are scored and
    /// the threads have ended. Safe to cancel: the threads end all the same.
    pub async fn shutdown(mut self) {
        self.queue.0.close();
        // Nothing is ever sent; the error is the end of the last thread.
        while self.ended.changed().await.is_ok() {}
    }
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("queue", &self.queue.0).finish_non_exhaustive()
    }
}

/// How a [`Batcher`] makes up its batches; named as TensorFlow Serving names these parameters.
#[must_use]
pub struct BatchingParameters {
    scorer: Arc<dyn Scorer>,
    max_batch_size: usize,
    batch_timeout: Duration,
    max_enqueued_batches: usize,
    num_batch_threads: usize,
    allowed_batch_sizes: Vec<usize>,
}

impl BatchingParameters {
    /// The most rows of a batch; 32 unless set.
    pub const fn max_batch_size(mut self, rows: usize) -> Self {
        self.max_batch_size = rows;
        self
    }

    /// The longest that a thread which could run a batch at once waits for it to fill, counted from
    /// its first row. Zero unless set: an idle thread takes what is there, which adds no delay, and
    /// batches fill while the threads are busy. More pays where a run costs far more than its rows.
    ///
    /// A row waits longer only while all threads are busy; `max_enqueued_batches` bounds that.
    #[doc(alias = "batch_timeout_micros")]
    pub const fn batch_timeout(mut self, longest: Duration) -> Self {
        self.batch_timeout = longest;
        self
    }

    /// The most batches that wait for a thread, the one that is being filled included; 100 unless
    /// set. Rows beyond that are refused with
    /// [`PredictError::Overloaded`](crate::PredictError::Overloaded).
    pub const fn max_enqueued_batches(mut self, batches: usize) -> Self {
        self.max_enqueued_batches = batches;
        self
    }

    /// The number of threads that run batches; as many as the machine runs at once unless set.
    pub const fn num_batch_threads(mut self, threads: usize) -> Self {
        self.num_batch_threads = threads;
        self
    }

    /// The numbers of rows that the model is to see, ascending, the last one the largest batch: a
    /// batch is filled up to the next of them with copies of its last row. For models that have a
    /// plan for each batch size; none unless set, and a batch runs with the rows it has.
    pub fn allowed_batch_sizes(mut self, rows: impl IntoIterator<Item = usize>) -> Self {
        self.allowed_batch_sizes = rows.into_iter().collect();
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a parameter is zero that must not be, or the allowed batch sizes
    /// do not ascend to the largest batch; [`ErrorKind::Unavailable`] where the system gives no more
    /// threads.
    pub fn start(self) -> Result<Batcher, Error> {
        self.check()?;
        let (running, ended) = watch::channel(());
        let queue = Arc::new(Queue::new(self.max_batch_size, self.batch_timeout, self.max_enqueued_batches));
        let batcher = Batcher {
            scorer: Arc::clone(&self.scorer),
            queue: Arc::new(CloseOnDrop(Arc::clone(&queue))),
            ended,
        };
        let (running, allowed) = (Arc::new(running), Arc::new(self.allowed_batch_sizes));
        for i in 0..self.num_batch_threads {
            let (scorer, queue) = (Arc::clone(&self.scorer), Arc::clone(&queue));
            let (running, allowed) = (Arc::clone(&running), Arc::clone(&allowed));
            let run = move || {
                run_batches(&*scorer, &queue, &allowed);
                // Who waits for the end is to find the scorer let go.
                drop(scorer);
                drop(running);
            };
            // A thread's name is cut after 15 bytes on Linux. Where one cannot be had, dropping the
            // batcher ends those before it.
            let thread = std::thread::Builder::new().name(format!("batch-{i}")).spawn(run);
            thread.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "a thread could not be started").with_source(error)
            })?;
        }
        Ok(batcher)
    }

    fn check(&self) -> Result<(), Error> {
        for (name, value) in [
            ("max_batch_size", self.max_batch_size),
            ("max_enqueued_batches", self.max_enqueued_batches),
            ("num_batch_threads", self.num_batch_threads),
        ] {
            if value == 0 {
                return Err(Error::new(ErrorKind::Config, format!("`{name}`: expected at least 1, found 0")));
            }
        }
        let ascends = self.allowed_batch_sizes.is_sorted_by(|a, b| a < b);
        match self.allowed_batch_sizes.last() {
            Some(last) if *last != self.max_batch_size || !ascends => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "`allowed_batch_sizes`: expected numbers that ascend to {}, found {:?}",
                    self.max_batch_size, self.allowed_batch_sizes
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for BatchingParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchingParameters")
            .field("max_batch_size", &self.max_batch_size)
            .field("batch_timeout", &self.batch_timeout)
            .field("max_enqueued_batches", &self.max_enqueued_batches)
            .field("num_batch_threads", &self.num_batch_threads)
            .field("allowed_batch_sizes", &self.allowed_batch_sizes)
            .finish_non_exhaustive()
    }
}

/// Closes the queue with the last [`Batcher`]; the threads hold the queue too.
struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What a thread does until the queue is closed and empty.
fn run_batches(scorer: &dyn Scorer, queue: &Queue, allowed: &[usize]) {
    let mut done = None;
    while let Some(mut batch) = queue.next(done.take()) {
        let rows = allowed.iter().find(|size| **size >= batch.len()).copied();
        batch.run(scorer, rows);
        done = Some(batch);
    }
}
