//! Threads that load make room for those that score: in the processors, and in what lies between
//! them and the memory.
//!
//! Processors that share a link to the memory share what it carries. Where one thread that goes
//! through a model's weights has all of it (two cores of an AMD EPYC 9004 read 33 GB/s each where the
//! host lets them have a link each, and 18 where they share one), every byte that a load moves
//! meanwhile makes it wait, whatever the priorities are. So a load goes slowly while a large model is
//! scored with, at a small part of what a link carries.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// What a gentle thread moves at most, in bytes per nanosecond.
const RATE: u64 = 4;
/// A shorter pause would last longer than it should.
const SHORTEST: Duration = Duration::from_micros(100);

thread_local! {
    /// As its priority: something that a thread is, and that nothing which it calls need be told.
    static GENTLE: RefCell<Option<Gentle>> = const { RefCell::new(None) };
}

/// Does `work`, with a pause wherever it has [`moved`] much memory while `others_score`.
pub(crate) fn gently<T>(others_score: impl Fn(Instant) -> bool + 'static, work: impl FnOnce() -> T) -> T {
    let mut gentle = Gentle { others_score: Box::new(others_score), pace: Instant::now().into() };
    // The first look tells the next ones what is new.
    gentle.pause(0, Instant::now());
    GENTLE.set(Some(gentle));
    let _end = End;
    work()
}

/// Says that this thread has just moved so many bytes from or to the memory. A thread that is not
/// gentle does not wait.
pub(crate) fn moved(bytes: usize) {
    let pause =
        GENTLE.with_borrow_mut(|gentle| gentle.as_mut().and_then(|g| g.pause(bytes as u64, Instant::now())));
    if let Some(pause) = pause {
        std::thread::sleep(pause);
    }
}

/// Gives this thread a low priority: a scheduler shares the processors among threads that want them
/// by their weight, and each nice level makes it a fifth less. Threads that this one starts from now
/// on, those of a topic's client among them, begin with the same.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn lower_priority() {
    const LOWER_BY: i32 = 10;
    let thread = Some(rustix::thread::gettid());
    let lowered = rustix::process::getpriority_process(thread)
        .and_then(|nice| rustix::process::setpriority_process(thread, (nice + LOWER_BY).min(19)));
    if let Err(error) = lowered {
        tracing::debug!(%error, "models are loaded at normal priority");
    }
}

/// Elsewhere the priority is that of the whole process, and stays what it is.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn lower_priority() {}

struct Gentle {
    others_score: Box<dyn Fn(Instant) -> bool>,
    pace: Pace,
}

impl Gentle {
    fn pause(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        if (self.others_score)(now) {
            return self.pace.pause(bytes, now);
        }
        // What was moved while nobody scored is not made up for later.
        self.pace = now.into();
        None
    }
}

/// What was moved since when.
#[derive(Debug, PartialEq, Eq)]
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// How long to wait after so many bytes more. A pause that lasts too long shortens the next one; else
    /// what was moved slowly is no reason to go on the faster.
    fn pause(&mut self, bytes: u64, now: Instant) -> Option<Duration> {
        self.bytes = self.bytes.saturating_add(bytes);
        let due = self.since + Duration::from_nanos(self.bytes / RATE);
        let pause = due.saturating_duration_since(now);
        if pause.is_zero() {
            *self = now.into();
        } else if pause >= SHORTEST {
            *self = due.into();
            return Some(pause);
        }
        None
    }
}

impl From<Instant> for Pace {
    fn from(since: Instant) -> Self {
        Self { since, bytes: 0 }
    }
}

/// Ends what [`gently`] began, however it ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        GENTLE.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// What may be moved in 3 ms.
    const MOVED: u64 = RATE * 3_000_000;

    #[test]
    fn what_was_moved_fast_is_followed_by_a_pause_and_what_was_slow_by_none() {
        let begin = Instant::now();
        let mut pace = Pace::from(begin);
        assert_eq!(pace.pause(MOVED, begin + MS), Some(2 * MS));
        // It lasted a millisecond too long.
        assert_eq!(pace.pause(MOVED, begin + 5 * MS), Some(MS));
        let late = begin + 20 * MS;
        assert_eq!((pace.pause(MOVED, late), &pace), (None, &late.into()));
        assert_eq!(pace.pause(MOVED, late + MS), Some(2 * MS));
    }

    #[test]
    fn small_moves_add_up_to_one_pause() {
        let begin = Instant::now();
        let mut pace = Pace::from(begin);
        let pauses: Vec<_> = (0..3).map(|_| pace.pause(RATE * 40_000, begin)).collect();
        assert_eq!(pauses, [None, None, Some(Duration::from_micros(120))]);
    }

    #[test]
    fn what_is_moved_while_nobody_scores_costs_no_pause_then_or_later() {
        let begin = Instant::now();
        let scores = move |now| (begin + 3 * MS..begin + 9 * MS).contains(&now);
        let mut gentle = Gentle { others_score: Box::new(scores), pace: begin.into() };
        let pauses = [0, 2, 3, 6, 9].map(|at| gentle.pause(MOVED, begin + at * MS));
        assert_eq!(pauses, [None, None, Some(2 * MS), Some(2 * MS), None]);
    }

    #[test]
    fn a_thread_is_gentle_as_long_as_its_work_lasts_and_never_longer() {
        let is_gentle = || GENTLE.with_borrow(Option::is_some);
        assert!(gently(|_| false, is_gentle) && !is_gentle());
        assert!(std::panic::catch_unwind(|| gently(|_| false, || panic!("expected"))).is_err());
        assert!(!is_gentle());
    }
}
