//! Does the micro-batcher pay? Single rows from 64 tasks: each task calls the scorer itself, or awaits
//! the batcher.
//!
//! `cargo bench --bench batcher [MODEL..]` prints rows a second of both, in short turns so that a noisy
//! machine hits both, with the added delay and the sizes of the batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use modelswap::load::{Model, RunError};
use modelswap::{Batcher, Signature, Snapshot, Tensor, TensorView};
use serde::Serialize;

#[path = "support/mod.rs"]
mod support;
use support::{Work, folder};

/// Single rows.
type Rows = Arc<Vec<Vec<f32>>>;

const TASKS: usize = 64;
const TURNS: usize = 7;
const TURN: Duration = Duration::from_millis(700);

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let names = if asked.is_empty() { vec!["forest".into(), "mlp".into(), "cnn".into()] } else { asked };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut figures = Vec::new();
    for name in names {
        figures.extend(runtime.block_on(compare(&Work::read(&name))));
    }
    std::fs::write(folder().join("batcher.json"), serde_json::to_vec_pretty(&figures).unwrap()).unwrap();
}

/// As the figures of `benches/peers`.
#[derive(Serialize)]
struct Figure {
    work: String,
    batch: usize,
    contender: &'static str,
    p50_ns: u64,
    p99_ns: u64,
    rows_per_s: f64,
}

/// Prints what the batcher with each setting gains over single calls.
async fn compare(work: &Work) -> Vec<Figure> {
    let mut figures = Vec::new();
    println!("{}: single rows from {TASKS} tasks", work.name);
    let rows: Rows = Arc::new(work.batches(1).into_iter().map(<[f32]>::to_vec).collect());
    let single = work.snapshot();
    for (threads, timeout) in [(1, 0), (2, 0), (1, 200), (2, 200), (1, 1000)] {
        let runs = Arc::new(AtomicU64::new(0));
        let counted = Counted { model: work.load(), runs: Arc::clone(&runs) };
        let batcher = Batcher::over(Snapshot::of(Arc::new(counted), single.provenance().clone()))
            .max_batch_size(32)
            .num_batch_threads(threads)
            .batch_timeout(Duration::from_micros(timeout))
            .start()
            .unwrap();
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        let mut delays = [(); 2].map(|()| Histogram::<u64>::new(3).unwrap());
        let mut scored = 0;
        for _ in 0..TURNS {
            let model = single.clone();
            let calls = turn(&rows, move |rows, i| {
                let model = model.clone();
                async move {
                    let score = model.predict(&rows[i]).unwrap().values()[0];
                    // As the batcher does, a call gives way to the other tasks.
                    tokio::task::yield_now().await;
                    score
                }
            });
            let calls = calls.await;
            alone.push(calls.rate());
            delays[0].add(&calls.latency).unwrap();
            let batcher = batcher.clone();
            let calls = turn(&rows, move |rows, i| {
                let pending = batcher.predict(&rows[i]);
                async move { pending.await.unwrap().values()[0] }
            });
            let turn = calls.await;
            scored += turn.rows;
            together.push(turn.rate());
            delays[1].add(&turn.latency).unwrap();
        }
        let (alone, together) = (median(alone), median(together));
        let mean = scored as f64 / runs.load(Ordering::Relaxed) as f64;
        println!(
            "  {threads} threads, batch_timeout {timeout:>4} us: {:>7.0} rows/s alone, {:>7.0} batched, {:.2} times; \
             {mean:.1} rows a batch; await p50 {} us, p99 {} us",
            alone,
            together,
            together / alone,
            delays[1].value_at_quantile(0.5) / 1000,
            delays[1].value_at_quantile(0.99) / 1000,
        );
        let contenders = ["single calls", "batcher"].into_iter().zip([alone, together]).zip(&delays);
        figures.extend(contenders.map(|((contender, rows_per_s), delays)| Figure {
            work: format!("batcher, {}, {threads} threads, batch_timeout {timeout} us", work.name),
            batch: 1,
            contender,
            p50_ns: delays.value_at_quantile(0.5),
            p99_ns: delays.value_at_quantile(0.99),
            rows_per_s,
        }));
    }
    figures
}

struct Turn {
    rows: u64,
    took: Duration,
    latency: Histogram<u64>,
}

impl Turn {
    fn rate(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }
}

/// Lets all tasks score one row after the other for a while.
async fn turn<F>(rows: &Rows, score: impl Fn(Rows, usize) -> F + Clone + Send + 'static) -> Turn
where
    F: Future<Output = f32> + Send,
{
    let begin = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (score, rows) = (score.clone(), Arc::clone(rows));
            tokio::spawn(async move {
                let mut latency = Histogram::<u64>::new(3).unwrap();
                let mut next = task;
                while begin.elapsed() < TURN {
                    let start = Instant::now();
                    std::hint::black_box(score(Arc::clone(&rows), next % rows.len()).await);
                    latency.record(u64::try_from(start.elapsed().as_nanos()).unwrap()).unwrap();
                    next += 1;
                }
                latency
            })
        })
        .collect();
    let mut latency = Histogram::new(3).unwrap();
    for task in tasks {
        latency.add(task.await.unwrap()).unwrap();
    }
    Turn { rows: latency.len(), took: begin.elapsed(), latency }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A model that counts its runs.
struct Counted {
    model: Arc<dyn Model>,
    runs: Arc<AtomicU64>,
}

impl Model for Counted {
    fn signature(&self) -> &Signature {
        self.model.signature()
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.model.run(inputs, outputs)
    }
}
