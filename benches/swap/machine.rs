//! What the machine gives a thread while another one works, whatever it scores.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

/// So many bytes, not zero.
pub(crate) fn memory(bytes: usize) -> Vec<u64> {
    vec![1; bytes / size_of::<u64>()]
}

/// Reads all of it.
pub(crate) fn sum(memory: &[u64]) {
    black_box(black_box(memory).iter().fold(0_u64, |sum, x| sum.wrapping_add(*x)));
}

/// How fast threads read memory. Two that get half of what one gets share a link to it, which the
/// host of a virtual machine may change at any time.
#[derive(Serialize)]
pub(crate) struct Link {
    alone_gb_s: f64,
    beside_another_gb_s: f64,
}

impl Link {
    pub(crate) fn measure(bytes: usize) -> Self {
        const TURN: Duration = Duration::from_millis(200);
        let (ours, others) = (memory(bytes), memory(bytes));
        let rate = || {
            let (begin, mut sums) = (Instant::now(), 0.0);
            while begin.elapsed() < TURN {
                sum(&ours);
                sums += 1.0;
            }
            sums * bytes as f64 / begin.elapsed().as_nanos() as f64
        };
        let alone_gb_s = rate();
        let done = AtomicBool::new(false);
        let beside_another_gb_s = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    sum(&others);
                }
            });
            let rate = rate();
            done.store(true, Ordering::Relaxed);
            rate
        });
        println!("one thread reads {alone_gb_s:.1} GB/s, beside another one {beside_another_gb_s:.1}");
        Self { alone_gb_s, beside_another_gb_s }
    }
}
