//! What the call costs beside the model: `predict` and `predict_into` over the bare engine.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use modelswap::{Scorer, TensorView};

#[path = "support/mod.rs"]
mod support;
use support::{Served, Work};

criterion_group!(benches, call);
criterion_main!(benches);

fn call(criterion: &mut Criterion) {
    for name in ["iris", "boosting", "mlp"] {
        let work = Work::read(name);
        let row = work.batches(1)[0];
        let (scores, _) = work.scores();
        let mut out = vec![0.0_f32; scores];
        let mut group = criterion.benchmark_group(format!("call/{name}"));

        let model = work.load();
        group.bench_function("bare engine", |b| {
            b.iter(|| {
                let view = TensorView::new(&[1, row.len()], black_box(row)).unwrap();
                model.run_into(&[view], black_box(&mut out)).unwrap();
            });
        });
        let snapshot = work.snapshot();
        group.bench_function("snapshot, predict_into", |b| {
            b.iter(|| snapshot.predict_into(black_box(&row), black_box(&mut out)).unwrap());
        });
        let served = Served::start(&work);
        group.bench_function("live, predict_into", |b| {
            b.iter(|| served.scorer.predict_into(black_box(&row), black_box(&mut out)).unwrap());
        });
        group.bench_function("live, predict", |b| {
            b.iter(|| served.scorer.predict(black_box(&row)).unwrap());
        });
        let dynamic: &dyn Scorer = &served.scorer;
        group.bench_function("live, predict_into, as dyn Scorer", |b| {
            b.iter(|| dynamic.predict_into(black_box(&row), black_box(&mut out)).unwrap());
        });
    }
}
