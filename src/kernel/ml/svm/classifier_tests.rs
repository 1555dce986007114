//! The expected numbers are onnxruntime 1.32's for the same models and rows, but where NaN or an
//! unwritten second score is concerned.

use super::*;
use crate::kernel::Attribute;
use crate::kernel::ml::common::testing::{build, close, floats, ints, run, strings, text, words};

const NAN: f32 = f32::NAN;

type Settings = Vec<(&'static str, Attribute)>;

fn x() -> Tensor {
    Tensor::new(&[4, 2], vec![1.0_f32, 2.0, -1.0, 0.5, 0.2, 0.1, NAN, 1.0]).unwrap()
}

fn two_classes(kernel: &str, transform: &str) -> Settings {
    vec![
        ("kernel_type", text(kernel)),
        ("kernel_params", floats(&[0.5, 0.3, 2.0])),
        ("coefficients", floats(&[0.5, -1.0, 0.7, -0.2])),
        ("support_vectors", floats(&[1.0, 0.0, 0.0, 1.0, -1.0, 1.0, 0.5, 0.5])),
        ("vectors_per_class", ints(&[2, 2])),
        ("rho", floats(&[0.1])),
        ("classlabels_ints", ints(&[5, 6])),
        ("post_transform", text(transform)),
    ]
}

fn three_classes(transform: &str) -> Settings {
    vec![
        ("kernel_type", text("RBF")),
        ("kernel_params", floats(&[0.5, 0.3, 2.0])),
        ("coefficients", floats(&[0.5, -1.0, 0.7, -0.2, 0.3, 0.4, -0.6, 0.9])),
        ("support_vectors", floats(&[1.0, 0.0, 0.0, 1.0, -1.0, 1.0, 0.5, 0.5])),
        ("vectors_per_class", ints(&[1, 2, 1])),
        ("rho", floats(&[0.1, -0.2, 0.05])),
        ("classlabels_ints", ints(&[5, 6, 7])),
        ("post_transform", text(transform)),
    ]
}

fn with(mut settings: Settings, more: Settings) -> Settings {
    settings.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
    settings.extend(more);
    settings
}

fn ran(settings: Settings) -> (Vec<i64>, Tensor) {
    let kernel = build("SVMClassifier", settings).unwrap();
    let mut out = run(&*kernel, &[x()], 2).unwrap();
    let scores = out.remove(1);
    (out.remove(0).into_values().unwrap(), scores)
}

#[test]
fn every_kernel_function_decides_between_two_classes() {
    let cases = [
        ("LINEAR", [6, 5, 6], [-1.0, 0.2, 0.0]),
        ("POLY", [6, 5, 5], [-1.042_499_8, 0.583_124_8, 0.073_124_99]),
        ("RBF", [6, 5, 6], [-0.200_053_27, 0.177_272_38, -0.141_748_79]),
        ("SIGMOID", [6, 5, 5], [-0.121_240_21, 0.013_409_55, 0.053_370_55]),
    ];
    for (kernel, labels, decisions) in cases {
        let (found, scores) = ran(two_classes(kernel, "NONE"));
        // The decision of LINEAR's third row is a rounding error away from zero.
        assert!(found.iter().zip(labels).take(if kernel == "LINEAR" { 2 } else { 3 }).all(|(f, l)| *f == l));
        let scores: Vec<f32> = scores.into_values().unwrap();
        for (pair, decision) in scores.chunks(2).zip(decisions) {
            assert!(
                (pair[0] + decision).abs() < 2e-6 && (pair[1] - decision).abs() < 2e-6,
                "{kernel}: {pair:?}"
            );
        }
        assert!(scores[6].is_nan() && scores[7].is_nan(), "{kernel}");
    }
}

#[test]
fn the_scores_of_two_classes_are_transformed() {
    let (_, scores) = ran(two_classes("RBF", "LOGISTIC"));
    let expected = [0.549_847_2, 0.450_152_8, 0.455_797_6, 0.544_202_4, 0.535_378, 0.464_622, NAN, NAN];
    close(&scores, &[4, 2], &expected.map(|s: f32| s));
    for transform in ["SOFTMAX", "SOFTMAX_ZERO"] {
        let (_, scores) = ran(two_classes("RBF", transform));
        let expected =
            [1.200_053_2, -0.200_053_27, 0.822_727_6, 0.177_272_38, 1.141_748_8, -0.141_748_79, NAN, NAN];
        close(&scores, &[4, 2], &expected);
    }
    let (_, scores) = ran(two_classes("RBF", "PROBIT"));
    close(&scores, &[4, 2], &[NAN, NAN, 0.925_967_7, -0.925_967_7, NAN, NAN, NAN, NAN]);
}

#[test]
fn two_classes_with_probabilities_are_coupled() {
    let probabilities = || vec![("prob_a", floats(&[-1.5])), ("prob_b", floats(&[0.2]))];
    let (labels, scores) = ran(with(two_classes("RBF", "NONE"), probabilities()));
    assert_eq!(labels, [6, 5, 6, 6]);
    let expected =
        [0.375_515_55, 0.624_484_5, 0.516_470_6, 0.483_529_48, 0.397_328_88, 0.602_671_1, NAN, NAN];
    close(&scores, &[4, 2], &expected);
    let (_, scores) = ran(with(two_classes("RBF", "SOFTMAX"), probabilities()));
    let expected = [0.438_077_3, 0.561_922_7, 0.508_234_5, 0.491_765_44, 0.448_844_08, 0.551_155_9, NAN, NAN];
    close(&scores, &[4, 2], &expected);
}

#[test]
fn three_classes_vote_and_show_a_score_for_each_pair() {
    let (labels, scores) = ran(three_classes("NONE"));
    assert_eq!(labels, [6, 5, 5, 7]);
    let expected = [
        -0.142_752_3,
        -0.216_700_38,
        0.405_755_1,
        0.242_202_88,
        -0.229_100_6,
        0.026_793_63,
        0.034_750_59,
        -0.159_741_18,
        0.910_963_65,
        NAN,
        NAN,
        NAN,
    ];
    close(&scores, &[4, 3], &expected);
    let (_, scores) = ran(three_classes("SOFTMAX"));
    let first: Vec<f32> = scores.into_values::<f32>().unwrap();
    close(&Tensor::vector(first[..3].to_vec()), &[3], &[0.273_269_77, 0.253_791_06, 0.472_939_22]);
}

#[test]
fn three_classes_with_probabilities_are_coupled() {
    let probabilities = vec![("prob_a", floats(&[-1.5, -2.0, -0.7])), ("prob_b", floats(&[0.2, -0.1, 0.3]))];
    let (labels, scores) = ran(with(three_classes("NONE"), probabilities));
    assert_eq!(labels, [6, 5, 5, 7]);
    let expected = [
        0.255_511_02,
        0.373_984_87,
        0.370_504_08,
        0.303_955_44,
        0.287_727_27,
        0.408_317_42,
        0.296_727_4,
        0.389_067_4,
        0.314_205_2,
        NAN,
        NAN,
        NAN,
    ];
    close(&scores, &[4, 3], &expected);
}

fn linear(coefficients: &[f32], labels: &[&str], transform: &str) -> Settings {
    vec![
        ("coefficients", floats(coefficients)),
        ("rho", floats(&[0.1])),
        ("classlabels_strings", strings(labels)),
        ("post_transform", text(transform)),
    ]
}

fn linear_labels(settings: Settings) -> Tensor {
    run(&*build("SVMClassifier", settings).unwrap(), &[x()], 2).unwrap().remove(0)
}

#[test]
fn without_vectors_the_machine_is_linear_with_onnxruntimes_labels() {
    let mixed = linear(&[0.5, -0.3, 0.2, 0.4], &["a", "b"], "NONE");
    assert_eq!(linear_labels(mixed.clone()), words(&[4], &["b", "b", "b", "a"]));
    let out = run(&*build("SVMClassifier", mixed).unwrap(), &[x()], 2).unwrap();
    close(&out[1], &[4, 2], &[0.0, 1.1, -0.55, 0.1, 0.17, 0.18, NAN, NAN]);
    let positive = linear(&[0.5, 0.3, 0.2, 0.1], &["a", "b"], "NONE");
    assert_eq!(linear_labels(positive), words(&[4], &["b", "b", "a", "a"]));
    let probabilities = vec![("prob_a", floats(&[1.0])), ("prob_b", floats(&[2.0]))];
    let mixed = linear(&[0.5, -0.3, 0.2, 0.1], &["a", "b"], "NONE");
    assert_eq!(linear_labels(with(mixed, probabilities)), words(&[4], &["b", "b", "a", "a"]));
    let three = linear(&[0.5, -0.3, 0.2, 0.4, 1.0, 2.0], &["a", "b", "c"], "NONE");
    assert_eq!(linear_labels(three), words(&[4], &["c", "b", "c", "a"]));
}

#[test]
fn the_scores_of_a_linear_machine_are_transformed() {
    let kernel = build("SVMClassifier", linear(&[0.5, -0.3, 0.2, 0.4], &["a", "b"], "SOFTMAX")).unwrap();
    let out = run(&*kernel, &[Tensor::new(&[1, 2], vec![-1.0_f64, 0.5]).unwrap()], 2).unwrap();
    close(&out[1], &[1, 2], &[0.342_989_53, 0.657_010_44]);
}

#[test]
fn labels_are_in_the_signature_only_where_scores_are_of_classes() {
    assert_eq!(build("SVMClassifier", three_classes("NONE")).unwrap().labels(1), None);
    let two = build("SVMClassifier", two_classes("RBF", "NONE")).unwrap();
    assert_eq!(two.labels(1), Some(Labels::Ints(vec![5, 6])));
}

#[test]
fn no_rows_give_no_labels_and_no_scores() {
    let kernel = build("SVMClassifier", two_classes("RBF", "NONE")).unwrap();
    let out = run(&*kernel, &[Tensor::new(&[0, 2], Vec::<f32>::new()).unwrap()], 2).unwrap();
    assert_eq!((out[0].dims(), out[1].dims()), (&[0][..], &[0, 2][..]));
}

#[test]
fn lengths_that_contradict_are_refused() {
    let cases = [
        (("rho", floats(&[0.1, 0.2])), "attribute `rho`: expected 1 values, found 2"),
        (("coefficients", floats(&[0.1])), "attribute `coefficients`: expected 4 values, found 1"),
        (("prob_a", floats(&[0.1])), "attribute `prob_b`: expected 1 values as in `prob_a`, found 0"),
        (("vectors_per_class", ints(&[4])), "attribute `vectors_per_class`: expected 2 values, found 1"),
        (
            ("vectors_per_class", ints(&[-1, 5])),
            "attribute `vectors_per_class`: expected counts, found [-1, 5]",
        ),
        (("kernel_params", floats(&[0.1])), "attribute `kernel_params`: expected 3 values, found 1"),
        (
            ("kernel_type", text("COSINE")),
            "attribute `kernel_type`: expected LINEAR, POLY, RBF or SIGMOID, found `COSINE`",
        ),
    ];
    for (change, expected) in cases {
        let error = build("SVMClassifier", with(two_classes("RBF", "NONE"), vec![change])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn rows_of_another_width_or_type_are_refused() {
    let kernel = build("SVMClassifier", two_classes("RBF", "NONE")).unwrap();
    let error = run(&*kernel, &[Tensor::column(vec![1.0_f32])], 2).unwrap_err().to_string();
    assert_eq!(error, "SVMClassifier expected 2 values a row, found 1");
    let error = run(&*kernel, &[words(&[1, 2], &["a", "b"])], 2).unwrap_err().to_string();
    assert_eq!(error, "SVMClassifier expected f32, f64, i32 or i64, found string");
}
