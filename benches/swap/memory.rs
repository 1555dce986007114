//! The memory of this process, as Linux tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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

/// Resident memory now.
pub(crate) fn resident() -> u64 {
    field("VmRSS:")
}

/// The most resident memory since [`reset_peak`].
pub(crate) fn peak() -> u64 {
    field("VmHWM:")
}

/// Begins to look for the peak anew.
pub(crate) fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}
