//! A model of one of the tree libraries, ready to answer.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::kernel::transform::{logistic, softmax};
use crate::kernel::tree::ensemble::{Ensemble, Features};
use crate::kernel::tree::forest::Forest;
use crate::kernel::tree::leaves::{Fold, Score};
use crate::load::{Model, RunError};
use crate::signature::{Dim, Labels, Signature, TensorSpec};
use crate::tensor::{ElementType, Shape, Tensor, TensorView};

/// How raw scores become what the library's `predict` answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Link {
    Identity,
    /// `1 / (1 + e^(-scale x))` of each score.
    Logistic {
        scale: f64,
    },
    /// The two probabilities of a binary classifier from its one score.
    BothClasses,
    Softmax,
    Exp,
    /// The square, with the sign of the score.
    SignedSquare,
    /// `ln(1 + e^x)`.
    Softplus,
    /// 1 above zero, else 0.
    Step,
    /// The position of the highest score.
    Top,
    /// A mean, and a variance from the logarithm of its root.
    MeanAndVariance,
}

impl Link {
    const fn columns(self, targets: usize) -> usize {
        match self {
            Self::BothClasses => 2,
            Self::Top => 1,
            _ => targets,
        }
    }

    fn apply(self, row: &mut SmallVec<[f64; 8]>) {
        match self {
            Self::Identity => {}
            Self::Logistic { scale } => row.iter_mut().for_each(|x| *x = logistic(scale * *x)),
            Self::BothClasses => {
                let score = row.first().copied().unwrap_or_default();
                *row = smallvec![logistic(-score), logistic(score)];
            }
            Self::Softmax => softmax(row),
            Self::Exp => row.iter_mut().for_each(|x| *x = x.exp()),
            Self::SignedSquare => row.iter_mut().for_each(|x| *x *= x.abs()),
            Self::Softplus => row.iter_mut().for_each(|x| *x = x.exp().ln_1p()),
            Self::Step => row.iter_mut().for_each(|x| *x = f64::from(u8::from(*x > 0.0))),
            Self::MeanAndVariance => row.iter_mut().skip(1).for_each(|x| *x = (2.0 * *x).exp()),
            Self::Top => {
                let mut top = (0_u32, f64::NEG_INFINITY);
                for (at, score) in (0..).zip(row.iter()) {
                    if *score > top.1 {
                        top = (at, *score);
                    }
                }
                *row = smallvec![f64::from(top.0)];
            }
        }
    }
}

/// What a loader makes of a file.
pub(super) struct Parts {
    pub(super) library: &'static str,
    /// How many features a row has.
    pub(super) features: usize,
    pub(super) scorer: Scorer,
    /// Every raw score is multiplied by it, after that the bias is added.
    pub(super) scale: f64,
    /// Empty, or one for each target.
    pub(super) bias: Vec<f64>,
    pub(super) link: Link,
    pub(super) labels: Option<Labels>,
}

/// Where raw scores come from.
#[derive(Debug)]
pub(super) enum Scorer {
    /// Sums in `f32`, as in `XGBoost`.
    Single(Ensemble<f32>),
    /// Sums in `f64`, as in `LightGBM` and `CatBoost`.
    Double(Ensemble<f64>),
    /// `LightGBM`'s trees with a linear model in each leaf. The weight of a leaf is the position of
    /// its linear model.
    LinearLeaves(Ensemble<f64>, Vec<LinearLeaf>),
    /// `XGBoost`'s linear booster: for each feature, and last for the bias, a weight a target.
    Linear { weights: Vec<f32>, start: Vec<f32> },
}

/// A linear model of some features.
#[derive(Debug)]
pub(super) struct LinearLeaf {
    pub(super) constant: f64,
    pub(super) terms: Vec<(usize, f64)>,
    /// The answer where a feature is missing.
    pub(super) fallback: f64,
}

impl Scorer {
    /// Trees whose sums begin at `start`, one for each target.
    pub(super) fn single(library: &'static str, forest: Forest, start: Vec<f32>) -> Result<Self, String> {
        let ensemble = Ensemble::new(library, forest, Fold::Sum, Features::F32).map_err(|e| e.to_string())?;
        Ok(Self::Single(ensemble.starting_at(start)))
    }

    pub(super) fn double(library: &'static str, forest: Forest) -> Result<Ensemble<f64>, String> {
        Ensemble::new(library, forest, Fold::Sum, Features::F32).map_err(|e| e.to_string())
    }

    const fn targets(&self) -> usize {
        match self {
            Self::Single(trees) => trees.targets(),
            Self::Double(trees) | Self::LinearLeaves(trees, _) => trees.targets(),
            Self::Linear { start, .. } => start.len(),
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Single(trees) => trees.memory(),
            Self::Double(trees) => trees.memory(),
            Self::LinearLeaves(trees, leaves) => {
                let terms: usize = leaves.iter().map(|l| l.terms.len() * size_of::<(usize, f64)>()).sum();
                trees.memory() + leaves.len() * size_of::<LinearLeaf>() + terms
            }
            Self::Linear { weights, .. } => weights.len() * size_of::<f32>(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct TreeModel {
    library: &'static str,
    signature: Signature,
    features: usize,
    scorer: Scorer,
    scale: f64,
    bias: Vec<f64>,
    link: Link,
    columns: usize,
}

impl TreeModel {
    pub(super) fn build(parts: Parts) -> Arc<dyn Model> {
        Arc::new(Self::new(parts))
    }

    pub(super) fn new(parts: Parts) -> Self {
        let Parts { library, features, scorer, scale, bias, link, labels } = parts;
        let columns = link.columns(scorer.targets());
        let rows = [Dim::Any, Dim::Fixed(features)];
        let input = TensorSpec::new("features", ElementType::F32, &rows);
        let mut output = TensorSpec::new("scores", ElementType::F32, &[Dim::Any, Dim::Fixed(columns)]);
        if let Some(labels) = labels.filter(|labels| label_count(labels) == columns) {
            output = output.with_labels(labels);
        }
        let signature = Signature::new(vec![input], vec![output]);
        Self { library, signature, features, scorer, scale, bias, link, columns }
    }

    /// How many scores a row has.
    pub(super) const fn columns(&self) -> usize {
        self.columns
    }

    /// The scores of rows of as many values as there are features.
    pub(super) fn score(&self, rows: &[f32], scores: &mut [f32]) -> Result<(), RunError> {
        match &self.scorer {
            Scorer::Single(trees) => {
                self.chunked(rows, scores, |rows, sums| trees.evaluate(rows, self.features, sums))
            }
            Scorer::Double(trees) => {
                self.chunked(rows, scores, |rows, sums| trees.evaluate(rows, self.features, sums))
            }
            Scorer::LinearLeaves(trees, leaves) => {
                let targets = trees.targets();
                self.chunked(rows, scores, |rows, sums: &mut [f64]| {
                    sums.fill(0.0);
                    for (row, sums) in rows.chunks_exact(self.features).zip(sums.chunks_exact_mut(targets)) {
                        trees.visit(row, |target, leaf| {
                            if let (Some(sum), Some(leaf)) = (sums.get_mut(target), leaf_at(leaves, leaf)) {
                                *sum += leaf.value(row);
                            }
                        })?;
                    }
                    Ok(())
                })
            }
            Scorer::Linear { weights, start } => self.chunked(rows, scores, |rows, sums| {
                let targets = start.len();
                for (row, sums) in rows.chunks_exact(self.features).zip(sums.chunks_exact_mut(targets)) {
                    linear(weights, start, row, sums);
                }
                Ok(())
            }),
        }
    }

    /// Raw scores of a few rows at a time, in a buffer on the stack, then finished row by row.
    fn chunked<S: Score>(
        &self,
        rows: &[f32],
        scores: &mut [f32],
        raw: impl Fn(&[f32], &mut [S]) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        const VALUES: usize = 512;
        const ROWS: usize = 16;
        let targets = self.scorer.targets();
        let chunk = (VALUES / targets / ROWS).max(1) * ROWS;
        let count = scores.len() / self.columns;
        let mut sums: SmallVec<[S; VALUES]> = smallvec![S::default(); chunk.min(count) * targets];
        let mut finished: SmallVec<[f64; 8]> = SmallVec::new();
        for (rows, scores) in rows.chunks(chunk * self.features).zip(scores.chunks_mut(chunk * self.columns))
        {
            let sums = sums.get_mut(..scores.len() / self.columns * targets).unwrap_or(&mut []);
            raw(rows, sums)?;
            for (sums, scores) in sums.chunks_exact(targets).zip(scores.chunks_exact_mut(self.columns)) {
                finished.clear();
                finished.extend(sums.iter().map(|sum| sum.to_f64() * self.scale));
                for (score, bias) in finished.iter_mut().zip(&self.bias) {
                    *score += bias;
                }
                self.link.apply(&mut finished);
                for (score, value) in scores.iter_mut().zip(&finished) {
                    *score = f32::from_weight(*value);
                }
            }
        }
        Ok(())
    }

    fn rows<'a>(&self, inputs: &[TensorView<'a>]) -> Result<(usize, &'a [f32]), RunError> {
        let wrong = RunError::Operator {
            operator: self.library,
            expected: "one f32 input of shape [rows, features]",
        };
        let [input] = inputs else { return Err(wrong) };
        let (&[rows, width], Some(values)) = (input.dims(), input.values::<f32>()) else { return Err(wrong) };
        if width != self.features {
            return Err(RunError::Width { operator: self.library, expected: self.features, found: width });
        }
        Ok((rows, values))
    }
}

impl Model for TreeModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let (rows, values) = self.rows(inputs)?;
        let [output] = outputs else {
            return Err(RunError::Operator { operator: self.library, expected: "one output" });
        };
        self.score(values, output.reset(Shape::matrix(rows, self.columns)))
    }

    fn run_into(&self, inputs: &[TensorView<'_>], out: &mut [f32]) -> Result<(), RunError> {
        let (rows, values) = self.rows(inputs)?;
        let expected = rows.saturating_mul(self.columns);
        if out.len() != expected {
            return Err(RunError::OutputSize { expected, found: out.len() });
        }
        self.score(values, out)
    }

    fn memory(&self) -> usize {
        self.scorer.memory()
    }

    fn engine(&self) -> &'static str {
        "direct"
    }
}

impl LinearLeaf {
    fn value(&self, row: &[f32]) -> f64 {
        let mut sum = self.constant;
        for (feature, weight) in &self.terms {
            let value = row.get(*feature).copied().map_or(f64::NAN, f64::from);
            if value.is_nan() {
                return self.fallback;
            }
            sum += weight * value;
        }
        sum
    }
}

fn leaf_at(leaves: &[LinearLeaf], position: f64) -> Option<&LinearLeaf> {
    leaves.get(super::document::count(position, leaves.len())?)
}

/// A missing feature adds nothing.
fn linear(weights: &[f32], start: &[f32], row: &[f32], sums: &mut [f32]) {
    let targets = start.len();
    let bias = weights.chunks_exact(targets).nth(row.len()).unwrap_or(&[]);
    for ((sum, start), bias) in sums.iter_mut().zip(start).zip(bias) {
        *sum = start + bias;
    }
    for (value, weights) in row.iter().zip(weights.chunks_exact(targets)).filter(|(v, _)| !v.is_nan()) {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += value * weight;
        }
    }
}

const fn label_count(labels: &Labels) -> usize {
    match labels {
        Labels::Ints(labels) => labels.len(),
        Labels::Strings(labels) => labels.len(),
    }
}
