//! The memory of this process over time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::resident::resident;

const EVERY: Duration = Duration::from_millis(20);

/// Resident memory at one moment.
pub(crate) struct MemorySample {
    pub at: Duration,
    pub bytes: u64,
}

/// A thread that looks at the memory again and again.
pub(crate) struct Sampler {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<MemorySample>>,
}

impl Sampler {
    pub(crate) fn start(begun: Instant) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::with_capacity(1 << 14);
            while !stop.load(Ordering::Relaxed) {
                samples.push(MemorySample { at: begun.elapsed(), bytes: resident() });
                std::thread::sleep(EVERY);
            }
            samples
        });
        Self { done, thread }
    }

    pub(crate) fn stop(self) -> Vec<MemorySample> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
