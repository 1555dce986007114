//! `LinearClassifier` and `LinearRegressor`.

use smallvec::{SmallVec, smallvec};

use super::affine::Affine;
use super::common::{
    check_length, class_labels, classifier_facts, first_fact, input, label_count, matrix_fact,
    room_for_labels, rows_of_width, two, with_numbers, write_labels,
};
use crate::kernel::transform::{PostTransform, SecondClass, arg_max};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::signature::Labels;
use crate::tensor::{ElementType, Tensor, TensorView};

const CLASSIFIER: &str = "LinearClassifier";
const REGRESSOR: &str = "LinearRegressor";

/// A label a row, and f32 scores `[n, classes]`. A NaN feature makes all scores of its row NaN; the
/// label beside them is that of the first class, for want of an unknown one.
#[derive(Debug)]
pub(super) struct LinearClassifier {
    affine: Affine,
    labels: Labels,
    transform: PostTransform,
    /// Two labels and coefficients for one score: that of the second class.
    binary: bool,
}

impl LinearClassifier {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let labels = class_labels(attributes, "classlabels_strings", "classlabels_ints")?;
        let intercepts = attributes.floats("intercepts")?;
        let classes = label_count(&labels);
        // Without intercepts the labels alone say how many scores there are.
        let targets = if intercepts.is_empty() { classes } else { intercepts.len() };
        let binary = targets == 1 && classes == 2;
        if targets != classes && !binary {
            return Err(BuildError::invalid(format!(
                "attribute `intercepts`: expected one for each of {classes} labels, found {targets}"
            )));
        }
        Ok(Self {
            affine: Affine::new(attributes.floats("coefficients")?, targets, intercepts)?,
            labels,
            transform: PostTransform::from_attributes(attributes)?,
            binary,
        })
    }

    /// The raw scores of the rows, and with them the labels, before the scores are transformed.
    fn finish(&self, scores: &mut [f32], labels: Option<&mut Tensor>, rows: usize) {
        let width = label_count(&self.labels);
        if self.binary {
            // The raw scores fill the first half; each becomes two, so begin with the last.
            let picks = scores.iter().take(rows).map(|score| usize::from(*score > 0.0));
            write_labels(&self.labels, labels, rows, picks);
            for row in (0..rows).rev() {
                let Some(score) = scores.get(row).copied() else { return };
                let pair = self.transform.pair(score, SecondClass::Complement);
                if let Some(out) = scores.get_mut(2 * row..2 * row + 2) {
                    out.copy_from_slice(&pair);
                }
            }
        } else {
            let picks = scores.chunks_exact(width).map(|row| arg_max(row).unwrap_or(0));
            write_labels(&self.labels, labels, rows, picks);
            self.transform.apply(scores, width);
        }
    }
}

impl Kernel for LinearClassifier {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, CLASSIFIER)?;
        let rows = rows_of_width(x.shape(), self.affine.features(), CLASSIFIER)?;
        room_for_labels(&self.labels, rows, cx)?;
        let (labels, scores) = two(outputs);
        let mut unused = Tensor::default();
        let scores = scores.unwrap_or(&mut unused);
        let scores = cx.reset::<f32>(scores, &[rows, label_count(&self.labels)])?;
        let raw = scores.get_mut(..rows * self.affine.targets()).unwrap_or_default();
        affine(&self.affine, x, raw, CLASSIFIER)?;
        self.finish(scores, labels, rows);
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        Ok(classifier_facts(inputs, &self.labels, label_count(&self.labels)))
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        (index == 1).then(|| self.labels.clone())
    }

    fn memory(&self) -> usize {
        self.affine.memory()
    }
}

/// f32 values `[n, targets]`. A NaN feature makes all values of its row NaN.
#[derive(Debug)]
pub(super) struct LinearRegressor {
    affine: Affine,
    transform: PostTransform,
}

impl LinearRegressor {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let targets = attributes.int("targets")?.unwrap_or(1);
        let targets = usize::try_from(targets).map_err(|_| {
            BuildError::invalid(format!("attribute `targets`: expected 1 or more, found {targets}"))
        })?;
        let intercepts = attributes.floats("intercepts")?;
        check_length("intercepts", intercepts.len(), &[targets])?;
        Ok(Self {
            affine: Affine::new(attributes.floats("coefficients")?, targets, intercepts)?,
            transform: PostTransform::from_attributes(attributes)?,
        })
    }
}

impl Kernel for LinearRegressor {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, REGRESSOR)?;
        let rows = rows_of_width(x.shape(), self.affine.features(), REGRESSOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let out = cx.reset(out, &[rows, self.affine.targets()])?;
        affine(&self.affine, x, out, REGRESSOR)?;
        self.transform.apply(out, self.affine.targets());
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        Ok(smallvec![matrix_fact(inputs, ElementType::F32, FactDim::Fixed(self.affine.targets()))])
    }

    fn memory(&self) -> usize {
        self.affine.memory()
    }
}

fn affine(
    affine: &Affine,
    x: TensorView<'_>,
    out: &mut [f32],
    operator: &'static str,
) -> Result<(), RunError> {
    if let Some(values) = x.values::<f32>() {
        affine.apply_f32(values, out);
        return Ok(());
    }
    with_numbers!(x, operator, values => {
        affine.apply(values, out);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, close, floats, ints, one, run, strings, text, words};
    use super::*;
    use crate::kernel::Attribute;

    fn classifier(coefficients: &[f32], labels: &[i64], transform: &str) -> Box<dyn Kernel> {
        let targets = if coefficients.len() == 1 { 1 } else { labels.len() };
        let attributes = vec![
            ("coefficients", floats(coefficients)),
            ("intercepts", floats(&vec![0.0; targets])),
            ("classlabels_ints", ints(labels)),
            ("post_transform", text(transform)),
        ];
        build("LinearClassifier", attributes).unwrap()
    }

    fn x() -> Tensor {
        Tensor::column(vec![0.3_f32, -0.2, 2.0, f32::NAN])
    }

    const NAN: f32 = f32::NAN;

    /// The expected numbers are onnxruntime 1.32's for the same model and rows.
    #[test]
    fn one_score_becomes_two_classes_as_in_onnxruntime() {
        for transform in ["NONE", "SOFTMAX", "SOFTMAX_ZERO"] {
            let out = run(&*classifier(&[1.0], &[5, 6], transform), &[x()], 2).unwrap();
            assert_eq!(out[0].values::<i64>(), Some(&[6, 5, 6, 5][..]));
            close(&out[1], &[4, 2], &[0.7, 0.3, 1.2, -0.2, -1.0, 2.0, NAN, NAN]);
        }
        let out = run(&*classifier(&[1.0], &[5, 6], "LOGISTIC"), &[x()], 2).unwrap();
        let expected = [0.425_557_5, 0.574_442_5, 0.549_834, 0.450_166, 0.119_202_95, 0.880_797, NAN, NAN];
        close(&out[1], &[4, 2], &expected);
    }

    #[test]
    fn the_class_with_the_largest_raw_score_wins_under_every_transform() {
        let scores = [
            ("NONE", [-0.3, 0.3, 0.075]),
            ("LOGISTIC", [0.425_557_5, 0.574_442_5, 0.518_741_2]),
            ("SOFTMAX", [0.233_802_7, 0.426_016_3, 0.340_180_93]),
            ("SOFTMAX_ZERO", [0.233_802_7, 0.426_016_3, 0.340_180_93]),
            ("PROBIT", [NAN, -0.524_445_9, -1.439_600_5]),
        ];
        for (transform, expected) in scores {
            let kernel = classifier(&[-1.0, 1.0, 0.25], &[5, 6, 7], transform);
            let out = run(&*kernel, &[Tensor::column(vec![0.3_f32])], 2).unwrap();
            assert_eq!(out[0].values::<i64>(), Some(&[6][..]), "{transform}");
            close(&out[1], &[1, 3], &expected);
        }
    }

    #[test]
    fn equal_scores_go_to_the_first_class() {
        let out =
            run(&*classifier(&[1.0, 1.0], &[5, 6], "NONE"), &[Tensor::column(vec![1.0_f32])], 2).unwrap();
        assert_eq!(out[0].values::<i64>(), Some(&[5][..]));
    }

    #[test]
    fn a_nan_feature_makes_all_scores_of_its_row_nan() {
        for transform in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"] {
            let kernel = classifier(&[-1.0, 1.0, 0.25], &[5, 6, 7], transform);
            let out = run(&*kernel, &[Tensor::column(vec![NAN])], 2).unwrap();
            close(&out[1], &[1, 3], &[NAN; 3]);
        }
    }

    #[test]
    fn labels_can_be_strings_and_stand_in_the_signature() {
        let attributes = vec![
            ("coefficients", floats(&[1.0, 0.0, 0.0, 1.0])),
            ("classlabels_strings", strings(&["left", "right"])),
        ];
        let kernel = build("LinearClassifier", attributes).unwrap();
        let x = Tensor::new(&[2, 2], vec![1_i64, 0, 2, 3]).unwrap();
        let out = run(&*kernel, &[x], 2).unwrap();
        assert_eq!(out[0], words(&[2], &["left", "right"]));
        close(&out[1], &[2, 2], &[1.0, 0.0, 2.0, 3.0]);
        assert_eq!(kernel.labels(1), Some(Labels::Strings(vec!["left".into(), "right".into()])));
        assert_eq!(kernel.labels(0), None);
    }

    #[test]
    fn labels_alone_can_be_asked_for() {
        let out = run(&*classifier(&[1.0], &[5, 6], "LOGISTIC"), &[x()], 1).unwrap();
        assert_eq!(out[0].values::<i64>(), Some(&[6, 5, 6, 5][..]));
    }

    #[test]
    fn no_rows_give_no_labels_and_no_scores() {
        let out =
            run(&*classifier(&[1.0], &[5, 6], "LOGISTIC"), &[Tensor::column(Vec::<f32>::new())], 2).unwrap();
        assert_eq!(out[0].dims(), [0]);
        assert_eq!(out[1].dims(), [0, 2]);
    }

    #[test]
    fn labels_that_contradict_the_intercepts_are_refused() {
        let attributes = vec![
            ("coefficients", floats(&[1.0, 2.0])),
            ("intercepts", floats(&[0.0, 0.0])),
            ("classlabels_ints", ints(&[1, 2, 3])),
        ];
        let error = build("LinearClassifier", attributes).unwrap_err().to_string();
        assert_eq!(error, "attribute `intercepts`: expected one for each of 3 labels, found 2");
    }

    #[test]
    fn a_row_of_another_width_or_type_is_refused() {
        let kernel = classifier(&[1.0, 2.0], &[1, 2], "NONE");
        let wide = Tensor::new(&[1, 3], vec![0.0_f32; 3]).unwrap();
        let error = run(&*kernel, &[wide], 2).unwrap_err().to_string();
        assert_eq!(error, "LinearClassifier expected 1 values a row, found 3");
        let error = run(&*kernel, &[words(&[1, 1], &["a"])], 2).unwrap_err().to_string();
        assert_eq!(error, "LinearClassifier expected f32, f64, i32 or i64, found string");
    }

    fn regression(transform: &str, targets: usize, x: Tensor) -> Tensor {
        let attributes = vec![
            ("coefficients", floats(&[1.0, 0.5][..targets])),
            ("intercepts", floats(&[0.0, 0.0][..targets])),
            ("targets", Attribute::Int(targets.try_into().unwrap())),
            ("post_transform", text(transform)),
        ];
        one("LinearRegressor", attributes, x).unwrap()
    }

    #[test]
    fn a_regressor_of_one_target_keeps_its_value_but_under_probit() {
        for transform in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"] {
            close(&regression(transform, 1, x()), &[4, 1], &[0.3, -0.2, 2.0, NAN]);
        }
        close(&regression("PROBIT", 1, x()), &[4, 1], &[-0.524_445_9, NAN, NAN, NAN]);
    }

    #[test]
    fn a_regressor_of_two_targets_transforms_them() {
        let x = || Tensor::column(vec![2.0_f64]);
        close(&regression("NONE", 2, x()), &[1, 2], &[2.0, 1.0]);
        close(&regression("LOGISTIC", 2, x()), &[1, 2], &[0.880_797_1, 0.731_058_6]);
        close(&regression("SOFTMAX", 2, x()), &[1, 2], &[0.731_058_6, 0.268_941_43]);
    }

    #[test]
    fn a_regressor_without_intercepts_starts_at_zero() {
        let y = one("LinearRegressor", vec![("coefficients", floats(&[2.0, 3.0]))], {
            Tensor::new(&[1, 2], vec![1_i32, 1]).unwrap()
        });
        close(&y.unwrap(), &[1, 1], &[5.0]);
    }

    #[test]
    fn intercepts_that_contradict_the_targets_are_refused() {
        let attributes = vec![("coefficients", floats(&[1.0])), ("intercepts", floats(&[1.0, 2.0]))];
        let error = build("LinearRegressor", attributes).unwrap_err().to_string();
        assert_eq!(error, "attribute `intercepts`: expected 1 values, found 2");
        let attributes = vec![("coefficients", floats(&[1.0])), ("targets", Attribute::Int(-1))];
        assert!(build("LinearRegressor", attributes).is_err());
    }
}
