//! The operators of ONNX against answers worked out by hand or given by onnxruntime 1.32.

use crate::kernel::{Attribute, Attributes, Node, RunContext};
use crate::tensor::{Tensor, TensorView};

fn strings(values: &[&str]) -> Attribute {
    Attribute::Strings(values.iter().map(|s| (*s).to_owned()).collect())
}

/// Two trees of one split each: feature 0 and feature 1, at most 0.
fn two_stumps(prefix: &str) -> Vec<(String, Attribute)> {
    let named = |name: &str, value| (format!("nodes_{name}"), value);
    vec![
        named("treeids", Attribute::Ints(vec![0, 0, 0, 1, 1, 1])),
        named("nodeids", Attribute::Ints(vec![0, 1, 2, 0, 1, 2])),
        named("featureids", Attribute::Ints(vec![0, 0, 0, 1, 0, 0])),
        named("values", Attribute::Floats(vec![0.0; 6])),
        named("modes", strings(&["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"])),
        named("truenodeids", Attribute::Ints(vec![1, 0, 0, 1, 0, 0])),
        named("falsenodeids", Attribute::Ints(vec![2, 0, 0, 2, 0, 0])),
        (format!("{prefix}_treeids"), Attribute::Ints(vec![0, 0, 1, 1])),
        (format!("{prefix}_nodeids"), Attribute::Ints(vec![1, 2, 1, 2])),
    ]
}

fn run(operator: &str, attributes: &Attributes, input: TensorView<'_>, outputs: usize) -> Vec<Tensor> {
    let node =
        Node { operator, domain: "ai.onnx.ml", version: 3, attributes, inputs: &[Some(None)], outputs };
    let kernel = crate::kernel::tree::build(&node).unwrap();
    let mut out = vec![Tensor::default(); outputs];
    kernel.run(&[Some(input)], &mut out, &RunContext::default()).unwrap();
    out
}

fn four_rows() -> Tensor {
    Tensor::new(&[4, 2], vec![-1.0_f32, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0]).unwrap()
}

fn binary(ids: i64, weights: [f32; 4], base: &[f32], transform: &str) -> (Vec<i64>, Vec<f32>) {
    let mut attributes = Attributes::default();
    for (name, value) in two_stumps("class") {
        attributes.insert(name, value);
    }
    attributes.insert("class_ids", Attribute::Ints(vec![ids; 4]));
    attributes.insert("class_weights", Attribute::Floats(weights.to_vec()));
    attributes.insert("classlabels_int64s", Attribute::Ints(vec![10, 20]));
    attributes.insert("post_transform", Attribute::String(transform.to_owned()));
    attributes.insert("base_values", Attribute::Floats(base.to_vec()));
    let rows = four_rows();
    let mut out = run("TreeEnsembleClassifier", &attributes, rows.view(), 2);
    let scores = out.pop().unwrap().into_values().unwrap();
    (out.pop().unwrap().into_values().unwrap(), scores)
}

#[test]
fn a_binary_classifier_of_one_column_answers_as_onnxruntime() {
    let positive = [0.1, 0.2, 0.2, 0.5];
    let mixed = [-0.6, 0.3, 0.25, 0.7];
    #[allow(clippy::type_complexity, reason = "a table")]
    #[rustfmt::skip]
    let cases: [(i64, [f32; 4], &[f32], &str, [i64; 4], [f32; 8]); 9] = [
        (0, positive, &[], "NONE", [10, 20, 10, 20], [0.7, 0.3, 0.4, 0.6, 0.6, 0.4, 0.3, 0.7]),
        (0, positive, &[0.05], "NONE", [10, 20, 10, 20], [0.65, 0.35, 0.35, 0.65, 0.55, 0.45, 0.25, 0.75]),
        (0, positive, &[], "LOGISTIC", [10, 20, 10, 20],
            [0.425_558, 0.574_442, 0.354_344, 0.645_656, 0.401_312, 0.598_688, 0.331_812, 0.668_188]),
        (0, mixed, &[], "NONE", [10, 20, 20, 20], [0.35, -0.35, -0.1, 0.1, -0.55, 0.55, -1.0, 1.0]),
        (0, mixed, &[0.05], "LOGISTIC", [10, 20, 20, 20],
            [0.574_442, 0.425_558, 0.462_570, 0.537_430, 0.354_344, 0.645_656, 0.259_225, 0.740_775]),
        (0, mixed, &[], "SOFTMAX", [10, 20, 20, 20], [0.35, -0.35, -0.1, 0.1, -0.55, 0.55, -1.0, 1.0]),
        (0, positive, &[], "PROBIT", [10, 20, 10, 20],
            [-0.524_446, 0.3, 0.253_354, 0.6, -0.253_354, 0.4, 0.524_446, 0.7]),
        (1, positive, &[], "NONE", [10, 20, 10, 20], [0.0, 0.3, 0.0, 0.6, 0.0, 0.4, 0.0, 0.7]),
        (1, mixed, &[0.05], "LOGISTIC", [10, 20, 20, 20],
            [0.5, 0.413_382, 0.5, 0.524_979, 0.5, 0.634_136, 0.5, 0.731_059]),
    ];
    for (ids, weights, base, transform, labels, scores) in cases {
        let (found_labels, found) = binary(ids, weights, base, transform);
        assert_eq!(found_labels, labels, "{ids} {transform}");
        let near = found.iter().zip(scores).all(|(a, b)| (a - b).abs() < 2e-6);
        assert!(near, "{ids} {weights:?} {transform}: {found:?}");
    }
}

#[test]
fn every_aggregate_and_base_value_is_as_worked_out() {
    for (aggregate, expected) in [
        ("SUM", [0.35, 0.05, 0.15, 0.6, 0.25, 0.25, 0.05, 0.8]),
        ("AVERAGE", [0.2, 0.05, 0.1, 0.325, 0.15, 0.15, 0.05, 0.425]),
        ("MIN", [0.15, 0.05, 0.15, 0.55, 0.25, 0.25, 0.05, 0.25]),
        ("MAX", [0.25, 0.05, 0.15, 0.55, 0.25, 0.25, 0.05, 0.55]),
    ] {
        let mut attributes = Attributes::default();
        for (name, value) in two_stumps("target") {
            attributes.insert(name, value);
        }
        attributes.insert("target_ids", Attribute::Ints(vec![0, 1, 0, 1]));
        attributes.insert("target_weights", Attribute::Floats(vec![0.1, 0.2, 0.2, 0.5]));
        attributes.insert("n_targets", Attribute::Int(2));
        attributes.insert("base_values", Attribute::Floats(vec![0.05, 0.05]));
        attributes.insert("aggregate_function", Attribute::String(aggregate.to_owned()));
        let out = run("TreeEnsembleRegressor", &attributes, four_rows().view(), 1);
        let found = out[0].values::<f32>().unwrap();
        // Row by row: leaves (0.1, 0.2) for target 0, or (0.2, 0.5) for target 1; no vote is 0.
        let expected: [f32; 8] = match aggregate {
            "SUM" => [0.35, 0.05, 0.15, 0.55, 0.25, 0.25, 0.05, 0.75],
            "AVERAGE" => [0.2, 0.05, 0.1, 0.3, 0.15, 0.15, 0.05, 0.4],
            _ => expected,
        };
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{aggregate} {found:?}");
    }
}

#[test]
fn string_labels_and_several_classes_give_the_top_class() {
    let mut attributes = Attributes::default();
    for (name, value) in two_stumps("class") {
        attributes.insert(name, value);
    }
    attributes.insert("class_ids", Attribute::Ints(vec![0, 1, 2, 0]));
    attributes.insert("class_weights", Attribute::Floats(vec![0.1, 0.2, 0.25, 0.5]));
    attributes.insert("classlabels_strings", strings(&["ant", "bee", "cow"]));
    let out = run("TreeEnsembleClassifier", &attributes, four_rows().view(), 2);
    assert_eq!(out[0].values::<String>().unwrap(), ["cow", "ant", "cow", "ant"]);
    assert_eq!(out[1].dims(), [4, 3]);
    let near = out[1].values::<f32>().unwrap();
    assert_eq!(&near[..6], [0.1, 0.0, 0.25, 0.6, 0.0, 0.0]);
}

#[test]
fn whole_numbers_and_doubles_are_features_too() {
    let mut attributes = Attributes::default();
    for (name, value) in two_stumps("target") {
        attributes.insert(name, value);
    }
    attributes.insert("target_ids", Attribute::Ints(vec![0; 4]));
    attributes.insert("target_weights", Attribute::Floats(vec![1.0, 2.0, 4.0, 8.0]));
    let expected = [5.0_f32, 9.0, 6.0, 10.0];
    let values = [-1, -1, -1, 1, 1, -1, 1, 1_i64];
    let wide = Tensor::new(&[4, 2], values.to_vec()).unwrap();
    let int = Tensor::new(&[4, 2], values.map(|v| v as i32).to_vec()).unwrap();
    let double = Tensor::new(&[4, 2], values.map(|v| v as f64).to_vec()).unwrap();
    for input in [wide, int, double] {
        let out = run("TreeEnsembleRegressor", &attributes, input.view(), 1);
        assert_eq!(out[0].values::<f32>().unwrap(), expected, "{}", input.element_type());
    }
}

#[test]
fn a_classifier_that_contradicts_itself_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Attributes)| {
        let mut attributes = Attributes::default();
        for (name, value) in two_stumps("class") {
            attributes.insert(name, value);
        }
        attributes.insert("class_ids", Attribute::Ints(vec![0, 1, 0, 1]));
        attributes.insert("class_weights", Attribute::Floats(vec![0.1; 4]));
        attributes.insert("classlabels_int64s", Attribute::Ints(vec![0, 1]));
        change(&mut attributes);
        crate::kernel::tree::onnx::classifier(&attributes).unwrap_err().to_string()
    };
    let ints = |name: &'static str, values: &[i64]| {
        let values = values.to_vec();
        refused(&move |a: &mut Attributes| a.insert(name, Attribute::Ints(values.clone())))
    };
    assert_eq!(ints("class_ids", &[0, 1, 0, 7]), "tree 1, node 2: target 7 is out of range, there are 2");
    assert_eq!(ints("class_ids", &[0, 1, 0, -1]), "class_ids: -1 is out of range");
    assert_eq!(ints("class_nodeids", &[1, 2, 1, 5]), "class_nodeids: tree 1, node 5 is not there");
    assert_eq!(
        ints("class_nodeids", &[1, 2, 1, 0]),
        "tree 1, node 0: class_nodeids names it, but it is no leaf"
    );
    assert_eq!(
        ints("nodes_truenodeids", &[0, 0, 0, 1, 0, 0]),
        "tree 0, node 0: not reached from the root of a tree"
    );
    assert_eq!(
        ints("nodes_falsenodeids", &[2, 0, 0, 1, 0, 0]),
        "tree 1: expected one root, found nodes 0 and 2"
    );
    assert_eq!(ints("nodes_falsenodeids", &[9, 0, 0, 2, 0, 0]), "tree 0, node 0: child 9 is not there");
    assert_eq!(ints("nodes_featureids", &[-1, 0, 0, 1, 0, 0]), "tree 0, node 0: feature -1 is out of range");
}
