//! Trees, linear models, MLP, CNN and LSTM at batch 1, 32 and 256.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[path = "support/mod.rs"]
mod support;
use support::Work;

criterion_group!(benches, models);
criterion_main!(benches);

fn models(criterion: &mut Criterion) {
    let names =
        ["iris", "pipeline", "regression", "boosting", "forest_depth_8", "forest", "mlp", "cnn", "lstm"];
    for name in names {
        let work = Work::read(name);
        let snapshot = work.snapshot();
        let (scores, _) = work.scores();
        let mut group = criterion.benchmark_group(format!("models/{name}"));
        for batch in [1, 32, 256] {
            let mut out = vec![0.0_f32; scores * batch];
            let mut batches = work.batches(batch).into_iter().cycle();
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::from_parameter(batch), |b| {
                b.iter(|| {
                    let rows = work.rows(batches.next().unwrap());
                    snapshot.predict_into(&rows, black_box(&mut out)).unwrap();
                });
            });
        }
    }
}
