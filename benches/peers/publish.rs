//! From a publish to the first prediction by the new version, over real Kafka on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use modelswap::publish::{PublishOptions, Publisher, Step};
use modelswap::topic::{KafkaTopic, Topic, TopicSettings};
use modelswap::wire::{Header, SHA256_HEADER, VERSION_HEADER};
use modelswap::{Models, Scorer, Sha256Digest};

use crate::support::{Work, wait};
use crate::turns::{Figure, quantile};
use crate::{broker, table};

const SMALL_PUBLISHES: usize = 50;
/// How often is looked whether the new version scores.
const GLANCE: Duration = Duration::from_micros(50);

pub(crate) fn publish() -> Vec<Figure> {
    println!();
    let plain = plain();
    let chunked = [("1 MB", "mlp_1mb", 20, None), ("100 MB", "mlp_100mb", 5, Some(600.0))];
    plain
        .into_iter()
        .chain(chunked.map(|(size, work, times, target)| by_publisher(size, work, times, target)))
        .collect()
}

/// 1 MB in one record, as any producer writes it. Timed from before the record is written to the first
/// prediction that names the new version, on a thread that does nothing but predict.
fn plain() -> [Figure; 2] {
    let work = Work::read("mlp_1mb");
    let topic = new_topic("bench-publish-small");
    let models = Models::subscribe_to(Arc::new(topic.clone())).model("small").start().unwrap();
    let scorer = models.scorer("small").unwrap();
    let mut writer = topic.writer("bench").unwrap();
    let sha256 = Sha256Digest::of([work.file()]).to_string();
    let (live, done) = (AtomicI64::new(-1), AtomicBool::new(false));
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (row, mut out) = (work.batches(1)[0], [0.0]);
            while !done.load(Ordering::Relaxed) {
                if let Ok(position) = scorer.predict_into(&row, &mut out) {
                    live.store(position.offset, Ordering::Release);
                }
                // The broker needs the cores too.
                std::thread::sleep(GLANCE);
            }
        });
        // A panic in here must not leave the other thread behind.
        let _stop = Stop(&done);
        for version in 0..SMALL_PUBLISHES {
            let header = |name: &str, value: String| Header { name: name.into(), value: value.into() };
            let headers =
                [header(SHA256_HEADER, sha256.clone()), header(VERSION_HEADER, version.to_string())];
            let file = Bytes::copy_from_slice(work.file());
            let start = Instant::now();
            writer.begin().unwrap();
            writer.send(0, b"small", Some(file), &headers).unwrap();
            let position = writer.commit().unwrap()[0];
            let committed = start.elapsed();
            while live.load(Ordering::Acquire) < position.offset {
                assert!(start.elapsed() < Duration::from_mins(1), "not live: {}", models.status());
                std::thread::sleep(GLANCE);
            }
            let status = models.status();
            let load =
                status.model("small").and_then(|m| m.live.as_ref()).map(|l| l.load_time + l.warm_up_time);
            samples.push((start.elapsed(), committed, load.unwrap_or_default()));
        }
    });
    wait(models.shutdown());
    let ms = |pick: fn(&(Duration, Duration, Duration)) -> Duration| {
        let mut values: Vec<f64> = samples.iter().map(|s| pick(s).as_secs_f64() * 1e3).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let total = ms(|s| s.0);
    let beside = ms(|s| s.0.saturating_sub(s.2));
    println!(
        "publish of 1 MB to the first prediction, p50: {:.2} ms; of which the broker's commit {:.2} ms, the load \
         {:.2} ms",
        quantile(&total, 0.5),
        quantile(&ms(|s| s.1), 0.5),
        quantile(&ms(|s| s.2), 0.5)
    );
    table::line("publish of 1 MB beside the load, p50", format!("{:.2} ms", quantile(&beside, 0.5)), "10 ms");
    [
        figure("publish to first prediction, 1 MB", &total),
        figure("publish to first prediction beside the load, 1 MB", &beside),
    ]
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// So many publishes by the publisher, in chunks. Timed from the call to the model being live.
fn by_publisher(size: &str, work: &str, publishes: u32, target_ms: Option<f64>) -> Figure {
    let topic = new_topic(&format!("bench-publish-{work}"));
    let work = Work::read(work);
    let models = Models::subscribe_to(Arc::new(topic.clone())).model(&work.name).start().unwrap();
    // When each step was first told of.
    let steps = Arc::new(std::sync::Mutex::new(Vec::<(Step, Instant)>::new()));
    let seen = Arc::clone(&steps);
    let publisher = Publisher::new(Arc::new(topic)).on_progress(move |progress| {
        let mut seen = seen.lock().unwrap();
        if seen.last().is_none_or(|(step, _)| *step != progress.step) {
            seen.push((progress.step, Instant::now()));
        }
    });
    let file = Bytes::copy_from_slice(work.file());
    let mut parts: [Vec<f64>; 7] = Default::default();
    let computed = computed();
    for version in 0..publishes {
        let mut watch = models.watch_status();
        let version = version.to_string();
        steps.lock().unwrap().clear();
        let start = Instant::now();
        let live = std::thread::scope(|scope| {
            let (publisher, work, file, wanted) = (&publisher, &work, file.clone(), version.clone());
            scope.spawn(move || {
                publisher.publish(&work.name, file, PublishOptions::default().version(wanted)).unwrap();
            });
            let status = wait(watch.wait_for(|s| s.live_version(&work.name) == Some(&*version))).unwrap();
            let end = Instant::now();
            let live = status.model(&work.name).and_then(|m| m.live.as_ref()).unwrap();
            (end, live.load_time + live.warm_up_time)
        });
        let steps = steps.lock().unwrap();
        let at = |wanted: Step| steps.iter().find(|(step, _)| *step == wanted).expect("a step").1;
        let [check, scan, upload, commit] = [Step::Check, Step::Scan, Step::Upload, Step::Commit].map(at);
        let spans = [
            live.0 - start,
            check - start,
            scan - check,
            upload - scan,
            commit - upload,
            live.0 - commit,
            live.1,
        ];
        parts.iter_mut().zip(spans).for_each(|(part, span)| part.push(span.as_secs_f64() * 1e3));
    }
    let computed = (self::computed() - computed) / f64::from(publishes);
    wait(models.shutdown());
    parts.iter_mut().for_each(|part| part.sort_by(f64::total_cmp));
    let [all, digest, check, scan, upload, rest, load] = parts.each_ref().map(|part| quantile(part, 0.5));
    println!(
        "publish of {size} to live, p50: {all:.0} ms; of which the digest {digest:.0} ms, the publisher's own check \
         {check:.0} ms, taking over {scan:.0} ms, the upload and the rest of what lies there {upload:.0} ms, \
         and from the release document on {rest:.0} ms, of which the subscriber's load {load:.0} ms; publisher, \
         broker and subscriber computed {computed:.0} ms for it, with what a publish does after that"
    );
    if let Some(target) = target_ms {
        table::line(&format!("publish of {size} to live"), format!("{all:.0} ms"), &format!("{target} ms"));
    }
    figure(&format!("publish to live, {size}"), &parts[0])
}

/// What this process and the broker, which is in its group, have computed so far, in milliseconds.
fn computed() -> f64 {
    const TICK_MS: f64 = 10.0;
    let fields = |process: &std::path::Path| -> Option<Vec<f64>> {
        let stat = std::fs::read_to_string(process.join("stat")).ok()?;
        // Behind the name, which may hold anything: the state, the parent, the group, ..
        Some(stat.rsplit_once(')')?.1.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect())
    };
    let group = fields("/proc/self".as_ref()).unwrap()[2];
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| fields(&entry.ok()?.path()));
    processes.filter(|f| f[2] == group).map(|f| (f[11] + f[12]) * TICK_MS).sum()
}

fn figure(work: &str, sorted_ms: &[f64]) -> Figure {
    let p50_ns = quantile(sorted_ms, 0.5) * 1e6;
    Figure {
        work: work.to_owned(),
        batch: 1,
        contender: "modelswap".to_owned(),
        p50_ns,
        p99_ns: quantile(sorted_ms, 0.99) * 1e6,
        rows_per_s: 1e9 / p50_ns,
    }
}

fn new_topic(name: &str) -> KafkaTopic {
    let name = format!("{name}-{}", std::process::id());
    let topic = KafkaTopic::new(name).config("bootstrap.servers", broker::shared());
    let mut settings = TopicSettings::default();
    settings.partitions = 1;
    topic.create(&settings).unwrap();
    topic
}
