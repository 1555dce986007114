//! When work has to be over.

use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

/// A limit on the time that a thread computes. The time that it waits for a core does not count: a
/// loader runs at a low priority beside threads that score, and a good model must not be refused
/// because the machine is busy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    limit: Duration,
    /// Before this the limit cannot be reached, whatever the thread does; asking costs little.
    earliest: Instant,
    /// What the thread had computed at the start; `None` where the system does not tell.
    computed: Option<Duration>,
}

impl Deadline {
    /// This much from now, for the thread that calls.
    pub(crate) fn after(limit: Duration) -> Self {
        let now = Instant::now();
        Self { limit, earliest: now.checked_add(limit).unwrap_or(now), computed: computed() }
    }

    /// The limit that it was made with.
    pub(crate) const fn limit(&self) -> Duration {
        self.limit
    }

    /// True once the thread has computed for that long.
    pub(crate) fn has_passed(&self) -> bool {
        Instant::now() > self.earliest
            && self
                .computed
                .zip(computed())
                .is_none_or(|(at_start, now)| now.saturating_sub(at_start) > self.limit)
    }
}

/// What this thread has computed so far.
fn computed() -> Option<Duration> {
    ThreadTime::try_now().ok().map(|time| time.as_duration())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_does_not_count_and_computing_does() {
        let deadline = Deadline::after(Duration::from_millis(30));
        // Nothing to await: that time goes by is what is tried.
        while Instant::now() <= deadline.earliest {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!deadline.has_passed(), "the thread slept");
        while !deadline.has_passed() {
            std::hint::spin_loop();
        }
        let worked = computed().zip(deadline.computed).map(|(now, at_start)| now.saturating_sub(at_start));
        assert!(worked.is_none_or(|worked| worked > deadline.limit()), "{worked:?}");
    }
}
