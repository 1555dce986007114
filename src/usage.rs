//! Whether a version is being called, told without cost to those who call it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a version that was seen to be called is taken to be in use: longer than a call takes, and
/// than an application is busy with something else between two.
const LINGER: Duration = Duration::from_millis(250);

/// The calls of one version.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// That there was a call since the last look.
    called: AtomicBool,
    looks: Mutex<Looks>,
}

#[derive(Debug, Default)]
struct Looks {
    last: Option<Instant>,
    /// The last one that saw a call.
    seen: Option<Instant>,
}

impl Usage {
    /// Notes a call. Written only where it has to be: threads that score would wait for each other's
    /// writes.
    #[inline]
    pub(crate) fn note(&self) {
        if !self.called.load(Ordering::Relaxed) {
            self.called.store(true, Ordering::Relaxed);
        }
    }

    /// Looks whether it is being called. A call that was noted since a look of long ago may itself be of
    /// long ago, and tells nothing; the next look will.
    pub(crate) fn is_current(&self, now: Instant) -> bool {
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < LINGER);
        let called = self.called.swap(false, Ordering::Relaxed);
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if called && is_recent(looks.last) {
            looks.seen = Some(now);
        }
        looks.last = Some(now);
        is_recent(looks.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_in_use_from_its_first_call_that_is_seen_until_long_after_the_last() {
        let (usage, begin) = (Usage::default(), Instant::now());
        let at = |part: u32| usage.is_current(begin + LINGER * part / 4);
        assert_eq!([at(0), at(1)], [false, false]);
        usage.note();
        usage.note();
        assert_eq!([2, 3, 4, 5, 6, 7].map(at), [true, true, true, true, false, false]);
    }

    #[test]
    fn a_call_of_long_ago_is_none() {
        let (usage, begin) = (Usage::default(), Instant::now());
        usage.note();
        assert!(!usage.is_current(begin), "nobody has looked before");
        usage.note();
        assert!(!usage.is_current(begin + LINGER), "it may have been just after the last look");
        usage.note();
        assert!(usage.is_current(begin + LINGER + LINGER / 2));
    }
}
