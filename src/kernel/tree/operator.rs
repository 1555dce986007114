//! The three tree operators of ONNX at run time.

use smallvec::{SmallVec, smallvec};

use super::LANES;
use super::ensemble::{Ensemble, Feature};
use super::leaves::Score;
use crate::kernel::transform::{PostTransform, logistic, probit};
use crate::kernel::{BuildError, Fact, FactDim, Kernel, RunContext, longest_text};
use crate::load::RunError;
use crate::signature::Labels;
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

/// An ensemble of the precision that its attributes have.
#[derive(Debug)]
pub(super) enum Trees {
    Single(Ensemble<f32>),
    Double(Ensemble<f64>),
}

/// `TreeEnsembleClassifier`, `TreeEnsembleRegressor` or `TreeEnsemble`.
#[derive(Debug)]
pub(super) struct TreeOperator {
    pub(super) name: &'static str,
    pub(super) trees: Trees,
    pub(super) finish: Finish,
    /// Set for a classifier, which answers a label before the scores.
    pub(super) labels: Option<Labels>,
    /// `TreeEnsemble` answers in the type of its input, the others in `f32`.
    pub(super) scores_as_input: bool,
}

/// How the raw sums of a row become its scores.
#[derive(Debug)]
pub(super) struct Finish {
    pub(super) transform: PostTransform,
    /// As many as targets; empty for none.
    pub(super) base_values: Vec<f64>,
    /// What the sums are divided by, for an average.
    pub(super) divisor: f64,
    pub(super) columns: Columns,
}

/// How many columns of scores the targets become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// One for each target.
    AsTargets,
    /// The same for the two targets of a binary classifier with votes for both classes. The label is
    /// the second one where its score is above 0, whatever the first one's; that too is
    /// onnxruntime's rule.
    TwoClasses,
    /// Two for the one target of a binary classifier all of whose votes are for the class of
    /// position `class`; `positive` where no vote is negative.
    ///
    /// The rules are onnxruntime's (`tree_ensemble_aggregator.h` in its `core/providers/cpu/ml`,
    /// checked against the answers of its version 1.32); the specification is silent.
    /// - The label is the second one where the score is above 0.5 for votes of one sign, above 0
    ///   for others.
    /// - Votes for class 0, as all exporters have it: LOGISTIC gives the logistic function of minus
    ///   the score and of the score; PROBIT its probit and the score; else the columns are 1 minus
    ///   the score and the score for votes of one sign, minus the score and the score for others.
    /// - Votes for class 1: 0 and the score, both transformed; `base_values` are not used.
    Pair { class: u32, positive: bool },
}

impl Finish {
    fn columns(&self, targets: usize) -> usize {
        if matches!(self.columns, Columns::Pair { .. }) { 2 } else { targets }
    }

    /// Turns raw sums into scores and answers the position of the top class. Goes through `f64`,
    /// so that an `f32` sum is rounded only once more.
    fn row<S: Score, O: Score>(
        &self,
        sums: &[S],
        scores: &mut [O],
        scratch: &mut SmallVec<[f64; 16]>,
    ) -> usize {
        scratch.clear();
        scratch.extend(sums.iter().map(|s| s.to_f64() / self.divisor));
        for (score, base) in scratch.iter_mut().zip(&self.base_values) {
            *score += base;
        }
        let top = match self.columns {
            Columns::AsTargets => {
                let top = top(scratch);
                self.transform.apply_row(scratch);
                top
            }
            Columns::TwoClasses => {
                let second = scratch.get(1).is_some_and(|score| *score > 0.0);
                self.transform.apply_row(scratch);
                usize::from(second)
            }
            Columns::Pair { class, positive } => {
                let score = scratch.first().copied().unwrap_or(0.0);
                let pair = self.pair(class, positive, score);
                scratch.clear();
                scratch.extend_from_slice(&pair);
                usize::from(score > if positive { 0.5 } else { 0.0 })
            }
        };
        for (score, value) in scores.iter_mut().zip(scratch.iter()) {
            *score = O::from_weight(*value);
        }
        top
    }

    fn pair(&self, class: u32, positive: bool, score: f64) -> [f64; 2] {
        if class == 1 {
            let mut pair = [0.0, score];
            self.transform.apply_row(&mut pair);
            return pair;
        }
        match self.transform {
            PostTransform::Logistic => [logistic(-score), logistic(score)],
            PostTransform::Probit => [probit(score), score],
            _ if positive => [1.0 - score, score],
            _ => [-score, score],
        }
    }
}

/// The position of the highest score, the first of equal ones.
fn top(scores: &[f64]) -> usize {
    let mut top = (0, f64::NEG_INFINITY);
    for (at, score) in scores.iter().enumerate() {
        if *score > top.1 {
            top = (at, *score);
        }
    }
    top.0
}

impl Trees {
    pub(super) const fn targets(&self) -> usize {
        match self {
            Self::Single(trees) => trees.targets(),
            Self::Double(trees) => trees.targets(),
        }
    }
}

impl TreeOperator {
    fn score_type(&self, input: Option<ElementType>) -> ElementType {
        if self.scores_as_input && input == Some(ElementType::F64) {
            ElementType::F64
        } else {
            ElementType::F32
        }
    }

    fn evaluate<X: Feature>(
        &self,
        rows: &[X],
        [count, width]: [usize; 2],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        match &self.trees {
            Trees::Single(trees) => self.answer(trees, rows, [count, width], outputs, cx),
            Trees::Double(trees) => self.answer(trees, rows, [count, width], outputs, cx),
        }
    }

    fn answer<X: Feature, S: Score>(
        &self,
        trees: &Ensemble<S>,
        rows: &[X],
        shape: [usize; 2],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let shape_error = RunError::Operator { operator: self.name, expected: "as many outputs as it has" };
        let columns = self.finish.columns(trees.targets());
        let (label, score) = match (&self.labels, outputs) {
            (None, [score, ..]) => (None, score),
            (Some(_), [label, score, ..]) => (Some(label), score),
            // The scores of a classifier are optional.
            (Some(_), [label]) => (Some(label), &mut Tensor::default()),
            _ => return Err(shape_error),
        };
        let mut labels = match (&self.labels, label) {
            (Some(Labels::Ints(labels)), Some(out)) => LabelSink::Ints(labels, cx.reset(out, &[shape[0]])?),
            (Some(Labels::Strings(labels)), Some(out)) => {
                cx.room_for_text(longest_text(labels).saturating_mul(shape[0] as u64))?;
                LabelSink::Strings(labels, cx.reset(out, &[shape[0]])?)
            }
            _ => LabelSink::None,
        };
        if self.scores_as_input && S::from_weight(0.1).to_f64() == 0.1 && X::as_single(rows).is_none() {
            self.rows::<X, S, f64>(trees, rows, shape, cx.reset(score, &[shape[0], columns])?, &mut labels)
        } else {
            self.rows::<X, S, f32>(trees, rows, shape, cx.reset(score, &[shape[0], columns])?, &mut labels)
        }
    }

    /// Evaluates a few rows at a time, so that their sums stay in a buffer on the stack.
    fn rows<X: Feature, S: Score, O: Score>(
        &self,
        trees: &Ensemble<S>,
        rows: &[X],
        [_, width]: [usize; 2],
        scores: &mut [O],
        labels: &mut LabelSink<'_>,
    ) -> Result<(), RunError> {
        let targets = trees.targets();
        let columns = self.finish.columns(targets);
        let chunk = (256 / targets / LANES).max(1) * LANES;
        let count = chunk.min(scores.len() / columns);
        let mut sums: SmallVec<[S; 256]> = smallvec![S::default(); count * targets];
        let mut scratch = SmallVec::new();
        let mut at = 0;
        for (rows, scores) in rows.chunks(chunk * width.max(1)).zip(scores.chunks_mut(chunk * columns)) {
            let count = scores.len() / columns;
            let sums = sums.get_mut(..count * targets).unwrap_or(&mut []);
            trees.evaluate(rows, width, sums)?;
            for (sums, scores) in sums.chunks_exact(targets).zip(scores.chunks_exact_mut(columns)) {
                labels.set(at, self.finish.row(sums, scores, &mut scratch));
                at += 1;
            }
        }
        Ok(())
    }
}

impl Kernel for TreeOperator {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let wrong = RunError::Operator { operator: self.name, expected: "one input of rows of numbers" };
        let Some(Some(input)) = inputs.first() else { return Err(wrong) };
        let shape = match *input.dims() {
            [rows, width] => [rows, width],
            [width] => [1, width],
            _ => return Err(wrong),
        };
        match input.data() {
            DataView::F32(rows) => self.evaluate(rows, shape, outputs, cx),
            DataView::F64(rows) => self.evaluate(rows, shape, outputs, cx),
            // Whole numbers meet `f32` thresholds as `f32`, as in onnxruntime.
            #[expect(clippy::cast_precision_loss, reason = "this is the conversion that is wanted")]
            DataView::I64(rows) => {
                let rows: SmallVec<[f32; 64]> = rows.iter().map(|v| *v as f32).collect();
                self.evaluate(&rows[..], shape, outputs, cx)
            }
            #[expect(clippy::cast_precision_loss, reason = "this is the conversion that is wanted")]
            DataView::I32(rows) => {
                let rows: SmallVec<[f32; 64]> = rows.iter().map(|v| *v as f32).collect();
                self.evaluate(&rows[..], shape, outputs, cx)
            }
            _ => Err(wrong),
        }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let input = inputs.first().and_then(Option::as_ref);
        let rows = match input.and_then(|f| f.dims.as_ref()).map(SmallVec::len) {
            Some(1) => FactDim::Fixed(1),
            Some(2) => FactDim::Like { input: 0, axis: 0 },
            None => FactDim::Unknown,
            Some(rank) => {
                return Err(BuildError::invalid(format!(
                    "{}: expected an input of rank 2, found {rank}",
                    self.name
                )));
            }
        };
        let mut facts = SmallVec::new();
        if let Some(labels) = &self.labels {
            let element = match labels {
                Labels::Ints(_) => ElementType::I64,
                Labels::Strings(_) => ElementType::String,
            };
            facts.push(Fact { element, dims: Some(smallvec![rows]) });
        }
        let columns = self.finish.columns(self.trees.targets());
        facts.push(Fact {
            element: self.score_type(input.map(|f| f.element)),
            dims: Some(smallvec![rows, FactDim::Fixed(columns)]),
        });
        Ok(facts)
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        self.labels.clone().filter(|_| index == 1)
    }

    fn memory(&self) -> usize {
        match &self.trees {
            Trees::Single(trees) => trees.memory(),
            Trees::Double(trees) => trees.memory(),
        }
    }
}

/// Where the labels of a classifier go.
enum LabelSink<'a> {
    None,
    Ints(&'a [i64], &'a mut [i64]),
    Strings(&'a [String], &'a mut [String]),
}

impl LabelSink<'_> {
    fn set(&mut self, row: usize, class: usize) {
        fn copy<T: Element>(labels: &[T], out: &mut [T], row: usize, class: usize) {
            if let (Some(out), Some(label)) = (out.get_mut(row), labels.get(class)) {
                out.clone_from(label);
            }
        }
        match self {
            Self::None => {}
            Self::Ints(labels, out) => copy(labels, out, row, class),
            Self::Strings(labels, out) => copy(labels, out, row, class),
        }
    }
}
