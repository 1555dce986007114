//! What a swap of a 100 MB model every second does to predictions that are made meanwhile, and to
//! memory.
//!
//! `benches/run swap` prints the figures, writes `target/bench/swap.json` and plots
//! `target/bench/swap.svg`. `BENCH_SECONDS` is the length of each of the nine phases, 10 unless set:
//! five without swaps, four with, in turns. How far the phases without swaps are apart tells what a
//! ratio is worth. Beside two scorers two threads are timed that score nothing: one that touches no
//! memory, and one that only reads some.

#[path = "../../tests/memory/feed.rs"]
mod feed;
mod machine;
mod memory;
mod plot;
#[path = "../../tests/memory/resident.rs"]
#[allow(dead_code, reason = "the test needs more of it")]
mod resident;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use feed::{Feed, Variant};
use hdrhistogram::Histogram;
use machine::Link;
use memory::{MemorySample, Sampler};
use modelswap::{ModelScorer, Models, Rows, Scorer};
use serde::Serialize;
use support::{Served, Work, compute, folder, wait};

const PHASES: [Phase; 9] = {
    use Phase::{Quiet, Swapping};
    [Quiet, Swapping, Quiet, Swapping, Quiet, Swapping, Quiet, Swapping, Quiet]
};
const BUCKET: Duration = Duration::from_millis(100);
const SMALL_SWAPS: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Quiet,
    Swapping,
}

impl Phase {
    const KINDS: [Self; 2] = [Self::Quiet, Self::Swapping];
}

/// Everything that `swap.json` holds.
#[derive(Serialize)]
struct Results {
    latency: Vec<Latency>,
    ratios: Vec<Ratio>,
    /// Before each of the runs.
    links: Vec<Link>,
    memory: MemoryResults,
}

/// The latencies of one scorer in all phases of one kind.
#[derive(Serialize)]
struct Latency {
    scored: String,
    phase: Phase,
    predictions: u64,
    swaps: u64,
    p50_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
}

/// With swaps over without.
#[derive(Serialize)]
struct Ratio {
    scored: String,
    p50: f64,
    p99: f64,
    p999: f64,
    /// The median of the phases with swaps over that of those without.
    median_p999: f64,
    /// Of each phase without swaps and of each with, from the lowest to the highest.
    phases_p999_ns: [Vec<u64>; 2],
}

#[derive(Serialize)]
struct MemoryResults {
    file_bytes: u64,
    before_bytes: u64,
    peak_bytes: u64,
    /// What the peak is above the memory before, in times of the file.
    peak_over_file: f64,
    small_swaps: usize,
    after_10_bytes: u64,
    after_all_bytes: u64,
}

fn main() {
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10.0);
    let phase = Duration::from_secs_f64(seconds);
    let large = Work::read("mlp_100mb");
    let small = Work::read("mlp");
    let memory = memory_results(&large, &small);
    println!("{}", serde_json::to_string_pretty(&memory).unwrap());

    let beside = Run::of(&large, phase, Scored::Other(&small));
    let itself = Run::of(&large, phase, Scored::Itself);
    let registers = Run::of(&large, phase, Scored::Registers);
    let reading = Run::of(&large, phase, Scored::Memory);
    plot::write(&folder().join("swap.svg"), &beside, phase);

    println!("| scored meanwhile | phase | predictions | swaps | p50 us | p99 us | p99.9 us | max us |");
    println!("|---|---|---|---|---|---|---|---|");
    let runs = [
        ("another model, 17 kB", &beside),
        ("no model: a loop over registers", &registers),
        ("the 100 MB model itself", &itself),
        ("no model: a sum of 100 MB", &reading),
    ];
    let latency: Vec<Latency> = runs.iter().flat_map(|(name, run)| run.latencies(name)).collect();
    for l in &latency {
        let us = |ns: u64| ns as f64 / 1e3;
        println!(
            "| {} | {:?} | {} | {} | {:.2} | {:.2} | {:.2} | {:.0} |",
            l.scored,
            l.phase,
            l.predictions,
            l.swaps,
            us(l.p50_ns),
            us(l.p99_ns),
            us(l.p999_ns),
            us(l.max_ns)
        );
    }
    let ratios: Vec<Ratio> = runs.iter().map(|(name, run)| run.ratio(name)).collect();
    for r in &ratios {
        println!(
            "{}: with swaps over without: p50 {:.2}, p99 {:.2}, p99.9 {:.2} (target of a model: 1.1), of the median \
             phases {:.2}; p99.9 of the phases without and with, ns: {:?}",
            r.scored, r.p50, r.p99, r.p999, r.median_p999, r.phases_p999_ns
        );
    }
    let links = [beside, registers, itself, reading].map(|run| run.link).into();
    let results = Results { latency, ratios, links, memory };
    std::fs::write(folder().join("swap.json"), serde_json::to_vec_pretty(&results).unwrap()).unwrap();
}

/// What one thread does while the large model is swapped. Two of them show what the machine itself
/// gives a thread while another one loads.
#[derive(Clone, Copy)]
enum Scored<'a> {
    /// One row by another model.
    Other(&'a Work),
    /// One row by the model that is swapped.
    Itself,
    /// Nothing but arithmetic, as long as a call of a small model.
    Registers,
    /// Looking at as much memory as the large model has.
    Memory,
}

/// One thread that scores without a pause, through all phases.
pub(crate) struct Run {
    /// Of each phase.
    histograms: Vec<Histogram<u64>>,
    link: Link,
    swaps: u64,
    pub buckets: Vec<Bucket>,
    pub memory: Vec<MemorySample>,
}

/// The latencies of a tenth of a second.
pub(crate) struct Bucket {
    pub at: Duration,
    pub p50_ns: u64,
    pub p999_ns: u64,
}

impl Run {
    /// Swaps `large`, and does something else meanwhile.
    fn of(large: &Work, phase: Duration, scored: Scored<'_>) -> Self {
        let variants = variants(large);
        let feed = Feed::new(&large.name, variants);
        let models = Models::subscribe_to(Arc::new(feed.clone())).model(&large.name).start().unwrap();
        feed.publish();
        let scorer = models.scorer(&large.name).unwrap();
        wait(scorer.ready(Duration::from_mins(1))).unwrap();
        let mut call: Box<dyn FnMut() + Send> = match scored {
            Scored::Other(work) => {
                let served = Served::start(work);
                let mut score = scoring(work, served.scorer.clone());
                Box::new(move || {
                    let _live = &served;
                    score();
                })
            }
            Scored::Itself => Box::new(scoring(large, scorer)),
            Scored::Registers => Box::new(|| compute(250)),
            Scored::Memory => {
                let memory = machine::memory(large.file().len());
                Box::new(move || machine::sum(&memory))
            }
        };

        let link = Link::measure(large.file().len());
        let begun = Instant::now();
        let sampler = Sampler::start(begun);
        let mut releases = 0;
        let (histograms, buckets) = std::thread::scope(|scope| {
            let scoring = scope.spawn(|| time(&mut call, begun, phase));
            for (kind, index) in PHASES.into_iter().zip(0_u32..) {
                let end = phase * (index + 1);
                if kind == Phase::Swapping {
                    releases += publish_every_second(&feed, begun, end);
                }
                std::thread::sleep(end.saturating_sub(begun.elapsed()));
            }
            scoring.join().unwrap()
        });
        // On a machine that is busy otherwise, a newer release may overtake one that is still loading.
        let status = models.status();
        let swaps = status.model(&large.name).map_or(0, |m| m.swaps.saturating_sub(1));
        println!("{releases} releases, {swaps} swaps");
        let memory = sampler.stop();
        wait(models.shutdown());
        Self { histograms, link, swaps, buckets, memory }
    }

    fn latencies(&self, scored: &str) -> Vec<Latency> {
        let latency = |phase: Phase| {
            let histogram = self.all(phase);
            Latency {
                scored: scored.to_owned(),
                phase,
                predictions: histogram.len(),
                swaps: if phase == Phase::Swapping { self.swaps } else { 0 },
                p50_ns: histogram.value_at_quantile(0.5),
                p99_ns: histogram.value_at_quantile(0.99),
                p999_ns: histogram.value_at_quantile(0.999),
                max_ns: histogram.max(),
            }
        };
        Phase::KINDS.map(latency).into()
    }

    fn ratio(&self, scored: &str) -> Ratio {
        let [quiet, swapping] = Phase::KINDS.map(|phase| self.all(phase));
        let at = |q: f64| swapping.value_at_quantile(q) as f64 / quiet.value_at_quantile(q) as f64;
        let phases_p999_ns = Phase::KINDS.map(|kind| {
            let mut phases: Vec<u64> = self.phases(kind).map(|h| h.value_at_quantile(0.999)).collect();
            phases.sort_unstable();
            phases
        });
        let [quiet, swapping] = phases_p999_ns.each_ref().map(|sorted| median(sorted));
        Ratio {
            scored: scored.to_owned(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            median_p999: swapping / quiet,
            phases_p999_ns,
        }
    }

    /// Those of all phases of one kind together.
    fn all(&self, kind: Phase) -> Histogram<u64> {
        let mut phases = self.phases(kind);
        let mut all = phases.next().expect("a phase of each kind").clone();
        phases.for_each(|histogram| all.add(histogram).expect("the same bounds"));
        all
    }

    fn phases(&self, kind: Phase) -> impl Iterator<Item = &Histogram<u64>> {
        PHASES.into_iter().zip(&self.histograms).filter(move |(phase, _)| *phase == kind).map(|(_, h)| h)
    }
}

fn median(sorted: &[u64]) -> f64 {
    let middle = |at: usize| sorted[at] as f64;
    f64::midpoint(middle((sorted.len() - 1) / 2), middle(sorted.len() / 2))
}

/// Releases one second apart, none so late that it would not be live before the phase ends; answers
/// how many.
fn publish_every_second(feed: &Feed, begun: Instant, end: Duration) -> u64 {
    let mut releases = 0;
    let mut next = begun.elapsed();
    while next + Duration::from_secs(1) <= end {
        std::thread::sleep(next.saturating_sub(begun.elapsed()));
        feed.publish();
        releases += 1;
        next += Duration::from_secs(1);
    }
    releases
}

/// Scores one row after the other.
fn scoring(work: &Work, scorer: ModelScorer) -> impl FnMut() + Send {
    let rows: Vec<Vec<f32>> = work.batches(1).into_iter().map(<[f32]>::to_vec).collect();
    let (width, mut out, mut next) = (work.width(), vec![0.0_f32; work.scores().0], 0);
    move || {
        let features = Rows::new(&rows[next % rows.len()], width).unwrap();
        scorer.predict_into(&features, &mut out).unwrap();
        next += 1;
    }
}

/// Makes one call after the other until all phases are over.
fn time(call: &mut dyn FnMut(), begun: Instant, phase: Duration) -> (Vec<Histogram<u64>>, Vec<Bucket>) {
    let histogram = || Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
    let mut histograms = PHASES.map(|_| histogram()).to_vec();
    let mut bucket = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
    let mut buckets = Vec::new();
    let mut next_bucket = BUCKET;
    loop {
        let start = Instant::now();
        call();
        let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let at = start - begun;
        let index = at.as_nanos() / phase.as_nanos();
        let Some(histogram) = usize::try_from(index).ok().and_then(|i| histograms.get_mut(i)) else { break };
        histogram.saturating_record(ns);
        bucket.saturating_record(ns);
        if at >= next_bucket {
            let (p50_ns, p999_ns) = (bucket.value_at_quantile(0.5), bucket.value_at_quantile(0.999));
            buckets.push(Bucket { at: next_bucket, p50_ns, p999_ns });
            bucket.reset();
            next_bucket += BUCKET;
        }
    }
    (histograms, buckets)
}

/// The model in two versions: with another comment at its end.
fn variants(work: &Work) -> [Variant; 2] {
    // Field 6 of ONNX's ModelProto, a text; the last one counts.
    [b'a', b'b'].map(|comment| Variant::new(&[work.file(), &[0x32, 1, comment]].concat(), "onnx"))
}

/// Memory at the peak of one swap, and after many.
fn memory_results(large: &Work, small: &Work) -> MemoryResults {
    let served = Served::start(small);
    let mut after_10 = 0;
    for swap in 1..=SMALL_SWAPS {
        let version = swap.to_string();
        let mut watch = served.models.watch_status();
        served.publish(&version, small.file());
        wait(watch.wait_for(|s| s.live_version(&small.name) == Some(&*version))).unwrap();
        if swap == 10 {
            after_10 = resident::resident();
        }
    }
    let after_all = resident::resident();
    drop(served);

    let feed = Feed::new(&large.name, variants(large));
    let models = Models::subscribe_to(Arc::new(feed.clone())).model(&large.name).start().unwrap();
    let scorer = models.scorer(&large.name).unwrap();
    feed.publish();
    wait(scorer.ready(Duration::from_mins(1))).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let before = resident::resident();
    resident::reset_peak();
    let mut watch = models.watch_status();
    let version = feed.publish();
    wait(watch.wait_for(|s| s.live_version(&large.name) == Some(&*version))).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let peak = resident::peak();
    let file = large.file().len() as u64;
    MemoryResults {
        file_bytes: file,
        before_bytes: before,
        peak_bytes: peak,
        peak_over_file: peak.saturating_sub(before) as f64 / file as f64,
        small_swaps: SMALL_SWAPS,
        after_10_bytes: after_10,
        after_all_bytes: after_all,
    }
}
