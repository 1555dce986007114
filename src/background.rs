//! Threads that load make room for those that score: in the processors, and in what lies between
//! them and the memory.
//!
//! Processors that share a link to the memory share what it carries. Where one thread that goes
//! through a model's weights has all of it (two cores of an AMD EPYC 9004 read 33 GB/s each where the
//! host lets them have a link each, and 18 where they share one), every byte that a load moves
//! meanwhile makes it wait, whatever the priorities are. So a load goes slowly where a large model is
//! live, at a small part of what a link carries.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What a gentle thread moves at most, in bytes per nanosecond.
const RATE: u64 = 6;
/// A shorter pause would last longer than it should.
const SHORTEST: Duration = Duration::from_micros(100);

thread_local! {
    /// As its priority: something that a thread is, and that nothing which it calls need be told.
    static PACE: Cell<Option<Pace>> = const { Cell::new(None) };
}

/// Does `work`, gently if asked to: with a pause wherever it has [`moved`] much memory.
pub(crate) fn gently<T>(is_gentle: bool, work: impl FnOnce() -> T) -> T {
    let _end = End;
    PACE.set(is_gentle.then(Pace::begin));
    work()
}

/// Says that this thread has just moved so many bytes from or to the memory. A thread that is not
/// gentle does not wait.
#[inline]
pub(crate) fn moved(bytes: usize) {
    if let Some(mut pace) = PACE.get() {
        if let Some(pause) = pace.pause(bytes as u64, pace.since.elapsed()) {
            std::thread::sleep(pause);
            pace = Pace::begin();
        }
        PACE.set(Some(pace));
    }
}

/// Gives this thread a low priority: a scheduler shares the processors among threads that want them
/// by their weight, and each nice level makes it a fifth less. Threads that this one starts from now
/// on, those of a topic's client among them, begin with the same.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn lower_priority() {
    const NICE: i32 = 10;
    let lowered = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    if let Err(error) = lowered {
        tracing::debug!(%error, "models are loaded at normal priority");
    }
}

/// Elsewhere the priority is that of the whole process, and stays what it is.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn lower_priority() {}

/// What was moved since when.
#[derive(Clone, Copy, Debug)]
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn begin() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    /// How long to wait after so many bytes more, all that were moved having taken `elapsed`. What was
    /// moved slowly is no reason to go on the faster.
    fn pause(&mut self, bytes: u64, elapsed: Duration) -> Option<Duration> {
        self.bytes += bytes;
        let due = Duration::from_nanos(self.bytes / RATE);
        if due < elapsed {
            *self = Self::begin();
        }
        due.checked_sub(elapsed).filter(|pause| *pause >= SHORTEST)
    }
}

/// Ends what [`gently`] began, however it ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        PACE.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_moved_fast_is_followed_by_a_pause_and_what_was_slow_by_none() {
        let mut pace = Pace::begin();
        assert_eq!(pace.pause(RATE * 3_000_000, MS), Some(2 * MS));
        let mut pace = Pace::begin();
        assert_eq!(pace.pause(RATE * 3_000_000, 4 * MS), None);
        // The time that was left over is not made up for.
        assert_eq!((pace.bytes, pace.pause(RATE * 3_000_000, MS)), (0, Some(2 * MS)));
    }

    #[test]
    fn small_moves_add_up_to_one_pause() {
        let mut pace = Pace::begin();
        let pauses: Vec<_> = (0..3).map(|_| pace.pause(RATE * 40_000, Duration::ZERO)).collect();
        assert_eq!(pauses, [None, None, Some(Duration::from_micros(120))]);
    }

    #[test]
    fn a_thread_is_gentle_as_long_as_its_work_lasts_and_never_longer() {
        let is_gentle = || PACE.get().is_some();
        assert!(!gently(false, is_gentle) && gently(true, is_gentle) && !is_gentle());
        assert!(std::panic::catch_unwind(|| gently(true, || panic!("expected"))).is_err());
        assert!(!is_gentle());
        moved(usize::MAX);
    }
}
