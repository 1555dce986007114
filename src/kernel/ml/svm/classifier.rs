//! `SVMClassifier`, libsvm's one-against-one machine, or a linear one where there are no vectors.

use smallvec::SmallVec;

use super::coupling::Coupling;
use super::function::{Function, SupportVectors};
use crate::kernel::ml::affine::Affine;
use crate::kernel::ml::common::{
    Number, class_labels, classifier_facts, first_fact, input, label_count, room_for_labels, rows_of_width,
    two, with_numbers, write_labels,
};
use crate::kernel::transform::{PostTransform, SecondClass, arg_max};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, PerThread, RunContext};
use crate::load::RunError;
use crate::signature::Labels;
use crate::tensor::{Tensor, TensorView};

const OPERATOR: &str = "SVMClassifier";

/// A label a row, and f32 scores: `[n, classes]` with probabilities, of two classes, or of a linear
/// machine, else one score for each pair of classes. NaN features make all scores of their row NaN;
/// the label beside them is that of the comparisons, in which NaN is never above zero.
#[derive(Debug)]
pub(in crate::kernel::ml) struct SvmClassifier {
    machine: Machine,
    labels: Labels,
    transform: PostTransform,
}

#[derive(Debug)]
enum Machine {
    Linear {
        affine: Affine,
        /// Decides between two labels where there are no probabilities, see [`linear_label`].
        all_positive: bool,
        probabilities: bool,
    },
    Vectors(Box<Pairs>),
}

/// One decision for each pair of classes.
#[derive(Debug)]
struct Pairs {
    vectors: SupportVectors,
    decisions: Vec<Pair>,
    /// `[classes - 1, vectors]`: the weights of each vector against each other class.
    coefficients: Vec<f32>,
    classes: usize,
    probabilities: bool,
    scratch: PerThread<Scratch>,
}

/// The decision between the classes `first` and `second`: above zero for the first.
#[derive(Debug)]
struct Pair {
    first: usize,
    second: usize,
    /// The vectors of each class, and where the weights of each against the other begin.
    first_vectors: std::ops::Range<usize>,
    second_vectors: std::ops::Range<usize>,
    first_row: usize,
    second_row: usize,
    rho: f64,
    /// The sigmoid that makes a probability of the decision; zeros where there is none.
    prob_a: f64,
    prob_b: f64,
}

impl SvmClassifier {
    pub(in crate::kernel::ml) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let labels = class_labels(attributes, "classlabels_strings", "classlabels_ints")?;
        let classes = label_count(&labels);
        let coefficients = attributes.floats("coefficients")?;
        let rho = attributes.floats("rho")?;
        let (prob_a, prob_b) = (attributes.floats("prob_a")?, attributes.floats("prob_b")?);
        if prob_a.len() != prob_b.len() {
            return Err(BuildError::invalid(format!(
                "attribute `prob_b`: expected {} values as in `prob_a`, found {}",
                prob_a.len(),
                prob_b.len()
            )));
        }
        let counts = vector_counts(attributes)?;
        let machine = if counts.iter().all(|count| *count == 0) {
            let Some(rho) = rho.first() else {
                return Err(BuildError::invalid("attribute `rho`: expected a value, found none"));
            };
            Machine::Linear {
                affine: Affine::new(coefficients, classes, &vec![*rho; classes])?,
                all_positive: coefficients.iter().all(|c| *c >= 0.0),
                probabilities: !prob_a.is_empty(),
            }
        } else {
            Machine::Vectors(Box::new(Pairs::new(attributes, &counts, classes)?))
        };
        Ok(Self { machine, labels, transform: PostTransform::from_attributes(attributes)? })
    }

    fn features(&self) -> usize {
        match &self.machine {
            Machine::Linear { affine, .. } => affine.features(),
            Machine::Vectors(pairs) => pairs.vectors.features(),
        }
    }

    /// How many scores a row has.
    fn width(&self) -> usize {
        match &self.machine {
            Machine::Vectors(pairs) if !pairs.probabilities => pairs.decisions.len().max(2),
            _ => label_count(&self.labels),
        }
    }

    fn linear<T: Number>(
        &self,
        (affine, all_positive, probabilities): (&Affine, bool, bool),
        values: &[T],
        scores: &mut [f32],
        labels: Option<&mut Tensor>,
    ) {
        match T::view(values) {
            crate::tensor::DataView::F32(values) => affine.apply_f32(values, scores),
            _ => affine.apply(values, scores),
        }
        let width = affine.targets();
        let rows = scores.len() / width;
        let picks = scores.chunks_exact(width).map(|row| {
            if width == 2 && !probabilities {
                linear_label(row, all_positive)
            } else {
                arg_max(row).unwrap_or(0)
            }
        });
        write_labels(&self.labels, labels, rows, picks);
        self.transform.apply(scores, width);
    }

    fn vectors<T: Number>(
        &self,
        pairs: &Pairs,
        values: &[T],
        scores: &mut [f32],
        labels: Option<&mut Tensor>,
    ) {
        pairs
            .scratch
            .with(|| Scratch::new(pairs), |scratch| self.rows(pairs, values, scores, labels, scratch));
    }

    fn rows<T: Number>(
        &self,
        pairs: &Pairs,
        values: &[T],
        scores: &mut [f32],
        labels: Option<&mut Tensor>,
        scratch: &mut Scratch,
    ) {
        let (features, width) = (pairs.vectors.features(), self.width());
        let rows = scores.len() / width;
        let rows_of = values.chunks_exact(features).zip(scores.chunks_exact_mut(width));
        let picks = rows_of.map(|(row, scores)| {
            match T::view(row) {
                crate::tensor::DataView::F32(row) => pairs.vectors.compare(row, &mut scratch.kernels),
                _ => pairs.vectors.compare_wide(row, &mut scratch.kernels),
            }
            pairs.decide(scratch);
            if pairs.probabilities {
                scratch.couple(pairs, scores);
                self.transform.apply(scores, width);
            } else if let [decision] = *scratch.decisions.as_slice() {
                let second = match self.transform {
                    PostTransform::None => SecondClass::Negation,
                    _ => SecondClass::Complement,
                };
                scores.copy_from_slice(&self.transform.pair(decision.to_f32(), second));
            } else {
                scores.iter_mut().zip(&scratch.decisions).for_each(|(out, d)| *out = d.to_f32());
                self.transform.apply(scores, width);
            }
            scratch.winner()
        });
        match labels {
            Some(labels) => write_labels(&self.labels, Some(labels), rows, picks),
            // The picks compute the scores, wanted or not.
            None => picks.for_each(drop),
        }
    }
}

impl Pairs {
    fn new(attributes: &Attributes, counts: &[usize], classes: usize) -> Result<Self, BuildError> {
        let expect = |name: &str, expected: usize, found: usize| {
            if expected == found {
                return Ok(());
            }
            Err(BuildError::invalid(format!("attribute `{name}`: expected {expected} values, found {found}")))
        };
        expect("vectors_per_class", classes, counts.len())?;
        if classes < 2 {
            return Err(BuildError::invalid(
                "expected support vectors of two classes or more, found one class",
            ));
        }
        let total = counts.iter().try_fold(0_usize, |n, count| n.checked_add(*count)).unwrap_or(usize::MAX);
        let function = Function::from_attributes(attributes)?;
        let vectors = SupportVectors::new(function, attributes.floats("support_vectors")?, total)?;
        let coefficients = attributes.floats("coefficients")?;
        expect("coefficients", (classes - 1).saturating_mul(total), coefficients.len())?;
        let pair_count = classes.saturating_mul(classes - 1) / 2;
        let rho = attributes.floats("rho")?;
        expect("rho", pair_count, rho.len())?;
        let (prob_a, prob_b) = (attributes.floats("prob_a")?, attributes.floats("prob_b")?);
        if !prob_a.is_empty() {
            expect("prob_a", pair_count, prob_a.len())?;
        }
        let mut ranges = Vec::with_capacity(classes);
        let mut start = 0;
        for count in counts {
            ranges.push(start..start + count);
            start += count;
        }
        let value = |values: &[f32], i: usize| f64::from(values.get(i).copied().unwrap_or(0.0));
        let mut pairs = Vec::with_capacity(rho.len());
        for (first, first_vectors) in ranges.iter().enumerate() {
            for (second, second_vectors) in ranges.iter().enumerate().skip(first + 1) {
                let i = pairs.len();
                pairs.push(Pair {
                    first,
                    second,
                    first_vectors: first_vectors.clone(),
                    second_vectors: second_vectors.clone(),
                    first_row: (second - 1) * total,
                    second_row: first * total,
                    rho: value(rho, i),
                    prob_a: value(prob_a, i),
                    prob_b: value(prob_b, i),
                });
            }
        }
        let coefficients = coefficients.to_vec();
        let probabilities = !prob_a.is_empty();
        let scratch = PerThread::default();
        Ok(Self { vectors, decisions: pairs, coefficients, classes, probabilities, scratch })
    }

    /// From the kernels of a row to its decisions and votes.
    fn decide(&self, scratch: &mut Scratch) {
        scratch.votes.fill(0);
        for (pair, decision) in self.decisions.iter().zip(&mut scratch.decisions) {
            let part = |row: usize, vectors: &std::ops::Range<usize>| {
                let weights = self.coefficients.get(row + vectors.start..row + vectors.end).unwrap_or(&[]);
                let kernels = scratch.kernels.get(vectors.clone()).unwrap_or(&[]);
                weights.iter().zip(kernels).map(|(w, k)| f64::from(*w) * f64::from(*k)).sum::<f64>()
            };
            *decision = part(pair.first_row, &pair.first_vectors)
                + part(pair.second_row, &pair.second_vectors)
                + pair.rho;
            let vote = if *decision > 0.0 { pair.first } else { pair.second };
            if let Some(votes) = scratch.votes.get_mut(vote) {
                *votes += 1;
            }
        }
    }
}

/// What a run needs for one row.
#[derive(Debug)]
struct Scratch {
    kernels: Vec<f32>,
    decisions: Vec<f64>,
    votes: Vec<u32>,
    coupling: Coupling,
}

impl Scratch {
    fn new(pairs: &Pairs) -> Self {
        Self {
            kernels: vec![0.0; pairs.vectors.count()],
            decisions: vec![0.0; pairs.decisions.len()],
            votes: vec![0; pairs.classes],
            coupling: if pairs.probabilities { Coupling::new(pairs.classes) } else { Coupling::default() },
        }
    }

    fn couple(&mut self, pairs: &Pairs, scores: &mut [f32]) {
        for (pair, decision) in pairs.decisions.iter().zip(&self.decisions) {
            // The decisions are f32 where the model was made, and the sigmoid is steep.
            let exponent = f64::from(decision.to_f32()) * pair.prob_a + pair.prob_b;
            self.coupling.set(pair.first, pair.second, 1.0 / (1.0 + exponent.exp()));
        }
        let probabilities = self.coupling.solve();
        scores.iter_mut().zip(probabilities).for_each(|(out, p)| *out = p.to_f32());
    }

    /// The class with most votes, the first of them where several have as many.
    fn winner(&self) -> usize {
        let most = self.votes.iter().copied().max();
        most.and_then(|most| self.votes.iter().position(|votes| *votes == most)).unwrap_or(0)
    }
}

impl Kernel for SvmClassifier {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let rows = rows_of_width(x.shape(), self.features(), OPERATOR)?;
        room_for_labels(&self.labels, rows, cx)?;
        let (labels, scores) = two(outputs);
        let mut unused = Tensor::default();
        let scores = cx.reset::<f32>(scores.unwrap_or(&mut unused), &[rows, self.width()])?;
        with_numbers!(x, OPERATOR, values => {
            match &self.machine {
                Machine::Linear { affine, all_positive, probabilities } => {
                    self.linear((affine, *all_positive, *probabilities), values, scores, labels);
                }
                Machine::Vectors(pairs) => self.vectors(pairs, values, scores, labels),
            }
            Ok(())
        })
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        Ok(classifier_facts(inputs, &self.labels, self.width()))
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        let of_pairs = matches!(&self.machine, Machine::Vectors(pairs)
            if !pairs.probabilities && pairs.classes > 2);
        (index == 1 && !of_pairs).then(|| self.labels.clone())
    }

    fn memory(&self) -> usize {
        match &self.machine {
            Machine::Linear { affine, .. } => affine.memory(),
            Machine::Vectors(pairs) => {
                pairs.vectors.memory()
                    + size_of_val(pairs.coefficients.as_slice())
                    + size_of_val(pairs.decisions.as_slice())
            }
        }
    }
}

/// Onnxruntime's rule for the label of a linear machine of two classes: the second class wins as soon
/// as one score is above the threshold, whichever it is; below it the larger score decides.
fn linear_label(scores: &[f32], all_positive: bool) -> usize {
    let best = arg_max(scores).unwrap_or(0);
    let score = scores.get(best).copied().unwrap_or(0.0);
    let above = if all_positive { score >= 0.5 } else { score > 0.0 };
    if above { 1 } else { best }
}

fn vector_counts(attributes: &Attributes) -> Result<Vec<usize>, BuildError> {
    let counts = attributes.ints("vectors_per_class")?;
    counts.iter().map(|count| usize::try_from(*count)).collect::<Result<_, _>>().map_err(|_| {
        BuildError::invalid(format!("attribute `vectors_per_class`: expected counts, found {counts:?}"))
    })
}

#[cfg(test)]
#[path = "classifier_tests.rs"]
mod tests;
