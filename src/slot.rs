//! Where the live version of a model stands: many read, one writes.
//!
//! The only file that names arc-swap. A reader never waits and never sees half a swap; a prediction
//! finishes on the version it began with, because it holds that version until it is done.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::scorer::{LiveModel, PredictError, Snapshot};

/// The live version of one model, if there is one.
#[derive(Default)]
pub(crate) struct Slot {
    live: ArcSwapOption<LiveModel>,
}

impl Slot {
    /// The live version, pinned.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, PredictError> {
        self.live.load_full().map(Snapshot::new).ok_or(PredictError::NoModel)
    }

    /// Runs `read` on the live version without touching its reference count, which every scoring
    /// thread would otherwise fight for.
    pub(crate) fn with<R>(
        &self,
        read: impl FnOnce(&LiveModel) -> Result<R, PredictError>,
    ) -> Result<R, PredictError> {
        self.live.load().as_deref().ok_or(PredictError::NoModel).and_then(read)
    }

    /// Makes another version live, or none. What was live comes back, to be freed by the caller once
    /// [`Retired::take_if_unused`] says that nobody holds it.
    pub(crate) fn replace(&self, next: Option<Arc<LiveModel>>) -> Option<Retired> {
        self.live.swap(next).map(Retired)
    }
}

/// A version that is no longer live, and may still be held by predictions in flight.
pub(crate) struct Retired(Arc<LiveModel>);

impl Retired {
    /// The version, where nobody else holds it any more; else it comes back. Freeing it is then the
    /// caller's business: no scoring thread pays for it.
    pub(crate) fn take_if_unused(self) -> Result<LiveModel, Self> {
        Arc::try_unwrap(self.0).map_err(Self)
    }
}
