//! Loading, by format and size: from verified bytes to a model that has answered once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use modelswap::load::{Formats, LoadOptions, Payload};

#[path = "support/mod.rs"]
mod support;

criterion_group!(benches, onnx, zoo);
criterion_main!(benches);

/// The models of the benches, 500 bytes to 100 MB.
fn onnx(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load/onnx");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    for name in ["iris", "mlp", "cnn", "lstm", "boosting", "forest", "mlp_1mb", "mlp_100mb"] {
        bench(&mut group, name, &support::folder().join(format!("models/{name}.onnx")));
    }
}

/// The largest model of each other format among the fixtures.
fn zoo(criterion: &mut Criterion) {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo");
    let catalogue = std::fs::read(zoo.join("zoo.json")).unwrap();
    let catalogue: Vec<serde_json::Value> = serde_json::from_slice(&catalogue).unwrap();
    for format in ["graphdef", "saved_model", "xgboost", "lightgbm", "catboost"] {
        let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let path = |entry: &serde_json::Value| zoo.join(text(entry, "name")).join(text(entry, "file"));
        let known: Vec<PathBuf> =
            catalogue.iter().filter(|e| text(e, "format") == format).map(path).collect();
        let loads: Vec<PathBuf> = known.into_iter().filter(|path| load(path).is_ok()).collect();
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
        let Some(largest) = loads.into_iter().max_by_key(size) else { continue };
        let mut group = criterion.benchmark_group(format!("load/{format}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(500));
        let name = largest.parent().and_then(Path::file_name).unwrap_or_default();
        bench(&mut group, &name.to_string_lossy(), &largest);
    }
}

fn bench(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    path: &Path,
) {
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function(BenchmarkId::new(name, bytes.len()), |b| {
        b.iter_batched(
            || Payload::from(Bytes::copy_from_slice(&bytes)),
            |payload| load_payload(payload).unwrap(),
            criterion::BatchSize::PerIteration,
        );
    });
}

fn load(path: &Path) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    load_payload(Payload::from(bytes)).map(drop)
}

fn load_payload(payload: Payload) -> Result<std::sync::Arc<dyn modelswap::load::Model>, String> {
    let formats = Formats::default();
    let loader = formats.choose(None, &payload).map_err(|e| e.to_string())?;
    loader.load(payload, &LoadOptions::default()).map_err(|e| e.to_string())
}
