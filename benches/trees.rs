//! Tree ensembles alone, at 1, 32 and 256 rows: a forest of 100 deep trees with 76 thousand nodes,
//! and gradient boosting of 100 trees, of depth 3 to 6. The trees are grown at random, written as a
//! model file, and loaded and scored as a subscriber does.
//!
//! `cargo bench --no-default-features --bench trees`

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use modelswap::TensorView;
use modelswap::load::{Formats, LoadOptions, Model, Payload};

const FEATURES: usize = 30;

fn trees(criterion: &mut Criterion) {
    let shapes = [
        ("forest of 76k nodes", 30, 381),
        ("boosting, depth 3", 3, usize::MAX),
        ("boosting, depth 4", 4, usize::MAX),
        ("boosting, depth 5", 5, usize::MAX),
        ("boosting, depth 6", 6, usize::MAX),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let rows: Vec<f32> = (0..4096 * FEATURES).map(|_| random.unit()).collect();
    for (name, depth, leaves) in shapes {
        let model = load(&file(&mut random, depth, leaves));
        let mut group = criterion.benchmark_group(name);
        for batch in [1, 32, 256] {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
                let mut scores = vec![0.0; batch];
                // Other rows each time, so that no branch predictor learns them.
                let mut batches = rows.chunks_exact(batch * FEATURES).cycle();
                bencher.iter(|| {
                    let values = batches.next().expect("rows without end");
                    let rows = TensorView::new(&[batch, FEATURES], values).expect("the shape of a batch");
                    model.run_into(&[black_box(rows)], &mut scores).expect("scores");
                });
            });
        }
        group.finish();
    }
}

fn load(file: &str) -> Arc<dyn Model> {
    let payload = Payload::from(file.as_bytes().to_vec());
    let formats = Formats::default();
    let loader = formats.choose(Some("xgboost-json"), &payload).expect("the loader");
    loader.load(payload, &LoadOptions::default()).expect("a model")
}

/// A file of 100 trees, each grown to a depth or to a number of leaves, whichever comes first.
fn file(random: &mut Random, depth: usize, leaves: usize) -> String {
    let trees: Vec<String> = (0..100).map(|_| tree(random, depth, leaves)).collect();
    format!(
        r#"{{"learner":{{"learner_model_param":{{"base_score":"0","num_feature":"{FEATURES}"}},
        "objective":{{"name":"reg:squarederror"}},"gradient_booster":{{"name":"gbtree","model":{{
        "tree_info":{:?},"trees":[{}]}}}}}}}}"#,
        [0; 100],
        trees.join(",")
    )
}

/// Leaves are split in random order, so a deep tree is as ragged as a real one.
fn tree(random: &mut Random, depth: usize, leaves: usize) -> String {
    let mut left = vec![-1_i64];
    let mut levels = vec![0];
    let mut open = vec![0];
    while !open.is_empty() && left.len().div_ceil(2) < leaves {
        let node = open.swap_remove(random.below(open.len()));
        if levels[node] == depth {
            continue;
        }
        left[node] = i64::try_from(left.len()).expect("few nodes");
        for _ in 0..2 {
            open.push(left.len());
            left.push(-1);
            levels.push(levels[node] + 1);
        }
    }
    let right: Vec<i64> = left.iter().map(|child| if *child < 0 { -1 } else { child + 1 }).collect();
    let features: Vec<usize> = left.iter().map(|_| random.below(FEATURES)).collect();
    let mut conditions = String::new();
    for _ in &left {
        let separator = if conditions.is_empty() { "" } else { "," };
        write!(conditions, "{separator}{}", random.unit()).expect("text grows");
    }
    format!(
        r#"{{"left_children":{left:?},"right_children":{right:?},"split_indices":{features:?},
        "split_conditions":[{conditions}],"default_left":{:?},"tree_param":{{}}}}"#,
        vec![0; left.len()]
    )
}

/// A small generator of random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).expect("below a usize")
    }

    #[allow(clippy::cast_precision_loss, reason = "any numbers will do")]
    fn unit(&mut self) -> f32 {
        self.below(1 << 20) as f32 / (1 << 20) as f32
    }
}

criterion_group!(benches, trees);
criterion_main!(benches);
