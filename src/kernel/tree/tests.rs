//! Tests of whole ensembles: the fast walks against a naive one.
#![allow(
    clippy::cast_possible_truncation,
    clippy::filter_map_bool_then,
    clippy::type_complexity,
    reason = "small numbers of a test"
)]

use super::LANES;
use super::builder::{Builder, Name, Test};
use super::ensemble::{Ensemble, Features};
use super::forest::{Forest, ForestNode};
use super::leaves::Fold;
use super::sets::Set;

mod operators;

/// A small generator of random numbers, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// A multiple of a quarter in -2 to 2, so that values and thresholds are often equal.
    fn quarter(&mut self) -> f64 {
        self.below(17) as f64 / 4.0 - 2.0
    }
}

type MakeTest = fn(&mut Random, &mut Builder) -> Test;

fn grow(
    random: &mut Random,
    builder: &mut Builder,
    tests: &[MakeTest],
    depth: usize,
    targets: usize,
    features: usize,
) -> usize {
    let name = Name::default();
    if depth == 0 || random.below(5) == 0 {
        let weights: Vec<_> = if targets == 1 {
            vec![(0, random.quarter())]
        } else {
            (0..targets as u32).map(|t| (t, random.quarter())).filter(|(_, w)| *w != 0.25).collect()
        };
        return builder.leaf(name, weights).unwrap();
    }
    let yes = grow(random, builder, tests, depth - 1, targets, features);
    let no = grow(random, builder, tests, depth - 1, targets, features);
    let make = tests[random.below(tests.len())];
    let test = make(random, builder);
    let feature = random.below(features);
    let missing = random.below(2) == 0;
    builder.split(name, feature, test, missing, [yes, no]).unwrap()
}

fn forest(
    random: &mut Random,
    tests: &[MakeTest],
    trees: usize,
    [depth, targets, features]: [usize; 3],
) -> Forest {
    let mut builder = Builder::new(u64::MAX);
    for _ in 0..trees {
        let root = grow(random, &mut builder, tests, depth, targets, features);
        builder.root(root);
    }
    builder.finish(targets).unwrap()
}

fn naive(forest: &Forest, fold: Fold, row: &[f64]) -> Vec<f64> {
    fn leaf(forest: &Forest, at: usize, row: &[f64]) -> usize {
        match &forest.nodes[at] {
            ForestNode::Leaf(leaf) => *leaf,
            ForestNode::Split { feature, test, missing_yes, child } => {
                let x = row[*feature as usize];
                let (yes, missing) = match test {
                    Test::Leq(t) => (x <= *t, x.is_nan()),
                    Test::Lt(t) => (x < *t, x.is_nan()),
                    Test::Gte(t) => (x >= *t, x.is_nan()),
                    Test::Gt(t) => (x > *t, x.is_nan()),
                    Test::Eq(t) => (x == *t, x.is_nan()),
                    Test::Neq(t) => (x != *t, false),
                    Test::LeqZeroMissing(t) => (x <= *t, x.is_nan() || x == 0.0),
                    Test::Member(set) => (forest.sets[*set].contains(x), x.is_nan()),
                };
                let yes = if missing { *missing_yes } else { yes };
                leaf(forest, if yes { *child } else { child + 1 }, row)
            }
        }
    }
    let mut scores = vec![None::<f64>; forest.targets];
    for tree in &forest.trees {
        for (target, weight) in forest.leaf(leaf(forest, tree.root as usize, row)) {
            let score = &mut scores[*target as usize];
            *score = Some(match (*score, fold) {
                (None, _) => *weight,
                (Some(s), Fold::Sum) => s + weight,
                (Some(s), Fold::Min) => s.min(*weight),
                (Some(s), Fold::Max) => s.max(*weight),
            });
        }
    }
    scores.into_iter().map(Option::unwrap_or_default).collect()
}

/// Values with NaN, infinities and both zeros among them.
fn values(random: &mut Random, count: usize) -> Vec<f64> {
    (0..count)
        .map(|_| match random.below(12) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            _ => random.quarter(),
        })
        .collect()
}

fn compare(random: &mut Random, forest: &Forest, fold: Fold, features: Features, single: bool) {
    let width = forest.features.max(1);
    let ensemble = Ensemble::<f64>::new("Trees", forest.clone(), fold, features).unwrap();
    for count in [1, 7, LANES, 3 * LANES + 5] {
        let values = values(random, count * width);
        let expected: Vec<f64> = values.chunks(width).flat_map(|row| naive(forest, fold, row)).collect();
        let mut found = vec![f64::NAN; expected.len()];
        if single {
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            ensemble.evaluate(&values, width, &mut found).unwrap();
        } else {
            ensemble.evaluate(&values, width, &mut found).unwrap();
        }
        assert_eq!(found, expected, "{count} rows");
    }
}

const LEQ: MakeTest = |r, _| Test::Leq(r.quarter());
const LT: MakeTest = |r, _| Test::Lt(r.quarter());
const GTE: MakeTest = |r, _| Test::Gte(r.quarter());
const GT: MakeTest = |r, _| Test::Gt(r.quarter());
const EQ: MakeTest = |r, _| Test::Eq(r.quarter());
const NEQ: MakeTest = |r, _| Test::Neq(r.quarter());
const ZERO: MakeTest = |r, _| Test::LeqZeroMissing(r.quarter());
const MEMBER: MakeTest = |r, b| {
    let values = [r.quarter(), r.quarter(), r.quarter()];
    Test::Member(b.set(Set::from_values(values)).unwrap())
};
const ENDS: MakeTest = |r, _| {
    let end = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN][r.below(3)];
    [Test::Leq(end), Test::Lt(end), Test::Gte(end), Test::Gt(end)][r.below(4)].clone()
};

#[test]
fn every_mix_of_modes_answers_as_a_naive_walk() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mixes: [&[MakeTest]; 12] = [
        &[LEQ],
        &[LT],
        &[GTE],
        &[GT],
        &[EQ],
        &[NEQ],
        &[ZERO],
        &[MEMBER],
        &[LEQ, GT],
        &[LT, GTE],
        &[LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, ZERO],
        &[LEQ, LT, ENDS],
    ];
    for mix in mixes {
        for (depth, targets) in [(1, 1), (4, 1), (9, 1), (6, 3)] {
            for fold in [Fold::Sum, Fold::Min, Fold::Max] {
                let forest = forest(&mut random, mix, 2 * LANES + 3, [depth, targets, 5]);
                compare(&mut random, &forest, fold, Features::F32, true);
                compare(&mut random, &forest, fold, Features::Any, true);
                compare(&mut random, &forest, fold, Features::Any, false);
            }
        }
    }
}

#[test]
fn forests_of_any_number_of_features_and_nodes_answer_as_a_naive_walk() {
    let mut random = Random(0x5851_f42d_4c95_7f2d);
    for (trees, depth, features) in [(3, 12, 20), (40, 12, 100), (40, 8, 200), (60, 13, 5000)] {
        for targets in [1, 2] {
            let forest = forest(&mut random, &[LEQ], trees, [depth, targets, features]);
            compare(&mut random, &forest, Fold::Sum, Features::F32, true);
        }
    }
}

#[test]
fn an_f64_feature_between_two_f32_is_compared_as_it_is() {
    let threshold = f64::from(0.1_f32);
    for (test, inside) in [
        (Test::Leq(threshold), [true, true, false]),
        (Test::Lt(threshold), [true, false, false]),
        (Test::Gte(threshold), [false, true, true]),
        (Test::Gt(threshold), [false, false, true]),
    ] {
        let mut builder = Builder::new(u64::MAX);
        let leaves = [0, 1].map(|l| builder.leaf(Name::default(), [(0, f64::from(1 - l))]).unwrap());
        let root = builder.split(Name::default(), 0, test, false, leaves).unwrap();
        builder.root(root);
        let ensemble =
            Ensemble::<f32>::new("Trees", builder.finish(1).unwrap(), Fold::Sum, Features::Any).unwrap();
        let mut found = [f32::NAN; 3];
        let near = [threshold - 1e-12, threshold, threshold + 1e-12];
        ensemble.evaluate(&near, 1, &mut found).unwrap();
        assert_eq!(found.map(|f| f > 0.5), inside);
    }
}

#[test]
fn a_feature_far_behind_the_others_is_found() {
    let mut builder = Builder::new(u64::MAX);
    let leaves = [2.0, 3.0].map(|w| builder.leaf(Name::default(), [(0, w)]).unwrap());
    let root = builder.split(Name::default(), 40_000, Test::Leq(0.5), false, leaves).unwrap();
    builder.root(root);
    let ensemble =
        Ensemble::<f32>::new("Trees", builder.finish(1).unwrap(), Fold::Sum, Features::F32).unwrap();
    let mut row = vec![1.0_f32; 40_001];
    row[40_000] = 0.25;
    let mut found = [0.0];
    ensemble.evaluate(&row, row.len(), &mut found).unwrap();
    assert_eq!(found, [2.0]);
    assert!(ensemble.evaluate(&row, 40_000, &mut found).is_err());
}
