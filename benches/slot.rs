//! Reading the live model while it is swapped 0, 1 and 8 times a second, on one thread and on two.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use modelswap::Scorer;

#[path = "support/mod.rs"]
mod support;
use support::{Served, Work};

criterion_group!(benches, reading, scoring);
criterion_main!(benches);

/// Pins the live version, and lets go of it.
fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slot/snapshot");
    for_each_load(|label, served, threads| {
        group.bench_function(label, |b| {
            b.iter_custom(|rounds| {
                on_threads(threads, rounds, || drop(black_box(served.scorer.snapshot().unwrap())))
            });
        });
    });
}

/// Scores one row with the live version.
fn scoring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slot/predict_into");
    for_each_load(|label, served, threads| {
        group.bench_function(label, |b| {
            b.iter_custom(|rounds| {
                on_threads(threads, rounds, || {
                    let mut out = [0.0; 3];
                    served.scorer.predict_into(&black_box([5.1_f32, 3.5, 1.4, 0.2]), &mut out).unwrap();
                    black_box(out);
                })
            });
        });
    });
}

/// Calls `bench` for every number of swaps a second and of reading threads.
fn for_each_load(mut bench: impl FnMut(BenchmarkId, &Served, usize)) {
    let work = Work::read("iris");
    let served = Served::start(&work);
    for swaps in [0, 1, 8] {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| swap(&served, work.file(), swaps, &done));
            for threads in [1, 2] {
                let label = BenchmarkId::new(format!("{threads} threads"), format!("{swaps} swaps a second"));
                bench(label, &served, threads);
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

fn swap(served: &Served, file: &[u8], a_second: u32, done: &AtomicBool) {
    let mut version = 0_u64;
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1) / a_second.max(4));
        if a_second > 0 && (a_second >= 4 || version.is_multiple_of(4)) {
            served.publish(&version.to_string(), file);
        }
        version += 1;
    }
}

/// The time that `rounds` calls take on each of the threads.
fn on_threads(threads: usize, rounds: u64, call: impl Fn() + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..rounds).for_each(|_| call()));
        }
    });
    start.elapsed()
}
