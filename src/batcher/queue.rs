//! Rows that wait: the batch that is being filled, and those that wait for a thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batch::{Answer, Batch, Row};
use crate::scorer::PredictError;

/// A bounded queue of batches.
///
/// Every batch that is opened and every one that is filled wakes one thread, and a thread looks at
/// all there is before it waits: so no batch is left while a thread is idle.
pub(super) struct Queue {
    max_batch_size: usize,
    batch_timeout: Duration,
    max_enqueued_batches: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Takes more rows.
    open: Option<Batch>,
    /// Take no more rows; oldest first.
    ready: VecDeque<Batch>,
    /// Batches that were run, for their memory.
    spare: Vec<Batch>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(max_batch_size: usize, batch_timeout: Duration, max_enqueued_batches: usize) -> Self {
        let (state, changed) = Default::default();
        Self { max_batch_size, batch_timeout, max_enqueued_batches, state, changed }
    }

    /// Puts a row into the batch that is being filled.
    pub(super) fn push(&self, row: &Row<'_>) -> Result<oneshot::Receiver<Answer>, PredictError> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            return Err(PredictError::Closed);
        }
        let mut batch = match state.open.take() {
            Some(open) if open.fits(row) => open,
            other_layout => {
                if let Some(batch) = other_layout {
                    self.enqueue(&mut state, batch);
                }
                if state.ready.len() >= self.max_enqueued_batches {
                    return Err(PredictError::Overloaded { limit: self.max_enqueued_batches });
                }
                self.changed.notify_one();
                let mut batch = state.spare.pop().unwrap_or_default();
                batch.open(row, Instant::now());
                batch
            }
        };
        batch.push(row, reply);
        if batch.len() >= self.max_batch_size {
            self.enqueue(&mut state, batch);
        } else {
            state.open = Some(batch);
        }
        Ok(answer)
    }

    /// Waits for the next batch to run; `None` once the queue is closed and empty. `done` is a batch
    /// that was run, whose memory is used again.
    pub(super) fn next(&self, done: Option<Batch>) -> Option<Batch> {
        let mut state = self.lock();
        state.spare.extend(done);
        loop {
            if let Some(batch) = state.ready.pop_front() {
                return Some(batch);
            }
            let left = state.open.as_ref().map(|open| self.batch_timeout.saturating_sub(open.age()));
            state = match left {
                None if state.closed => return None,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() || state.closed => return state.open.take(),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes no more rows; those that wait are still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn enqueue(&self, state: &mut State, batch: Batch) {
        state.ready.push_back(batch);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, so the state is whole even where a thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Queue")
            .field("open", &state.open.as_ref().map_or(0, Batch::len))
            .field("ready", &state.ready.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}
