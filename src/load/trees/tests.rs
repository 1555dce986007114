//! Tests of the loaders: small files written by hand with answers worked out by hand, and files of
//! the libraries changed at random. What the libraries answer is compared over the whole zoo in
//! the suite of the fixtures.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of the tests are small")]

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::load::{LoadError, LoadOptions, Model};
use crate::tensor::{ElementType, Tensor, TensorView};

fn load(bytes: &[u8]) -> Result<Arc<dyn Model>, LoadError> {
    let payload = Payload::from(bytes.to_vec());
    let all = loaders();
    let loader = all.iter().find(|loader| loader.recognises(&payload)).expect("a format");
    loader.load(payload, &LoadOptions::default())
}

fn scores(model: &dyn Model, width: usize, rows: &[f32]) -> Vec<f32> {
    let mut out = [Tensor::default()];
    model.run(&[TensorView::new(&[rows.len() / width, width], rows).unwrap()], &mut out).unwrap();
    let [out] = out;
    out.into_values().unwrap()
}

fn refusal(text: &str) -> String {
    load(text.as_bytes()).err().expect("an error").to_string()
}

/// Feature 0 below 0.5 goes left to 1, else right to 2; a missing value goes left.
fn xgboost(objective: &str, base_score: &str) -> String {
    format!(
        r#"{{"learner":{{"learner_model_param":{{"base_score":"{base_score}","num_class":"0","num_feature":"2"}},
        "objective":{{"name":"{objective}"}},"gradient_booster":{{"name":"gbtree","model":{{"tree_info":[0],
        "trees":[{{"left_children":[1,-1,-1],"right_children":[2,-1,-1],"split_conditions":[0.5,1,2],
        "split_indices":[0,0,0],"default_left":[1,0,0],"tree_param":{{"size_leaf_vector":"0"}}}}]}}}}}},
        "version":[1,7,6]}}"#
    )
}

#[test]
fn xgboost_compares_with_less_and_sends_missing_values_the_default_way() {
    let model = load(xgboost("reg:squarederror", "2.5E-1").as_bytes()).unwrap();
    let rows = [0.25, 0.0, 0.5, 0.0, f32::NAN, 0.0];
    assert_eq!(scores(&*model, 2, &rows), [1.25, 2.25, 1.25]);
    assert_eq!(model.signature().to_string(), "(features: f32[?,2]) -> (scores: f32[?,1])");
}

#[test]
fn xgboost_states_the_base_score_on_the_scale_of_its_objective() {
    // The logit of 0.5 is 0, the logarithm of 1 is 0; version 3 writes a list.
    for (objective, base, expected) in [
        ("binary:logistic", "5E-1", 0.731_058_6),
        ("count:poisson", "1E0", std::f32::consts::E),
        ("binary:logitraw", "[5E-1]", 1.5),
        ("binary:hinge", "[5E-1]", 1.0),
    ] {
        let model = load(xgboost(objective, base).as_bytes()).unwrap();
        let found = scores(&*model, 2, &[0.0, 0.0])[0];
        assert!((found - expected).abs() < 1e-6, "{objective} {found}");
    }
}

#[test]
fn xgboost_files_that_contradict_themselves_are_refused_by_field() {
    let file = xgboost("binary:logistic", "5E-1");
    for (from, to, expected) in [
        ("\"2\"}", "\"no\"}", "`learner.learner_model_param.num_feature`: expected a number, found `no`"),
        (
            "\"5E-1\"",
            "\"[1,2,3]\"",
            "`learner.learner_model_param.base_score`: expected 1 or 1 values, found 3",
        ),
        ("[1,-1,-1]", "[7,-1,-1]", "tree 0, node 0: child 7 is not there"),
        ("[1,-1,-1]", "[0,-1,-1]", "tree 0, node 0: a cycle leads back to it"),
        ("\"split_indices\":[0,", "\"split_indices\":[5,", "tree 0, node 0: feature 5 is not there"),
        (
            "[0.5,1,2]",
            "[0.5,1]",
            "`learner.gradient_booster.model.trees[0].split_conditions`: expected 3 values, found 2",
        ),
        (
            "binary:logistic",
            "reg:unheard",
            "`learner.objective.name`: expected an objective of XGBoost, found `reg:unheard`",
        ),
        ("\"learner\":", "\"version\":", "no field `learner`"),
    ] {
        let found = refusal(&file.replace(from, to));
        assert_eq!(found, format!("malformed xgboost-json file: {expected}"), "{from} -> {to}");
    }
}

/// A split on a number, with the bits of `decision_type`, and one on categories 1 and 33.
fn lightgbm(kind: u8, objective: &str) -> String {
    format!(
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=1\nobjective={objective}\n\n\
         Tree=0\nnum_leaves=3\nnum_cat=1\nsplit_feature=0 1\nthreshold=0.5 0\ndecision_type={kind} 1\n\
         left_child=-1 -2\nright_child=1 -3\nleaf_value=1 2 4\ncat_boundaries=0 2\ncat_threshold=2 2\n\nend of trees\n"
    )
}

#[test]
fn lightgbm_treats_missing_values_as_the_split_says() {
    // Values: at the threshold, above it, missing, zero; the second feature is in no category.
    let rows = [0.5, 9.0, 0.75, 9.0, f32::NAN, 9.0, 0.0, 9.0];
    for (kind, expected) in [
        (0, [1.0, 4.0, 1.0, 1.0]),  // none is missing: NaN counts as zero
        (8, [1.0, 4.0, 4.0, 1.0]),  // NaN to the right
        (10, [1.0, 4.0, 1.0, 1.0]), // NaN to the left
        (4, [1.0, 4.0, 4.0, 4.0]),  // zero and NaN to the right
        (6, [1.0, 4.0, 1.0, 1.0]),  // zero and NaN to the left
    ] {
        let model = load(lightgbm(kind, "regression").as_bytes()).unwrap();
        assert_eq!(scores(&*model, 2, &rows), expected, "decision type {kind}");
    }
}

#[test]
fn lightgbm_categories_are_bits_and_all_others_go_right() {
    let model = load(lightgbm(0, "regression").as_bytes()).unwrap();
    let rows = [9.0, 1.0, 9.0, 33.9, 9.0, 2.0, 9.0, -1.0, 9.0, f32::NAN, 9.0, 1e9];
    assert_eq!(scores(&*model, 2, &rows), [2.0, 2.0, 4.0, 4.0, 4.0, 4.0]);
}

#[test]
fn lightgbm_objectives_have_their_links() {
    for (objective, expected) in [
        ("binary sigmoid:2", 1.0 / (1.0 + (-2.0_f32).exp())),
        ("poisson", 1.0_f32.exp()),
        ("cross_entropy_lambda", 1.0_f32.exp().ln_1p()),
        ("regression sqrt", 1.0),
        ("lambdarank", 1.0),
    ] {
        let model = load(lightgbm(0, objective).as_bytes()).unwrap();
        let found = scores(&*model, 2, &[0.0, 0.0])[0];
        assert!((found - expected).abs() < 1e-6, "{objective} {found}");
    }
}

#[test]
fn lightgbm_files_that_contradict_themselves_are_refused_by_line() {
    let file = lightgbm(0, "regression");
    for (from, to, expected) in [
        ("left_child=-1", "left_child=-9", "tree 0, node 0: child 10 is not there"),
        ("right_child=1", "right_child=0", "tree 0, node 0: a cycle leads back to it"),
        ("split_feature=0", "split_feature=7", "tree 0: `split_feature`: expected features below 2, found 7"),
        ("threshold=0.5 0", "threshold=0.5", "tree 0: `threshold`: expected 2 values, found 1"),
        ("threshold=0.5 0", "threshold=0.5 3", "tree 0, node 1: categories 3 are not there"),
        (
            "num_leaves=3",
            "num_leaves=99999999999",
            "tree 0: `num_leaves`: expected a whole number up to 3, found `99999999999`",
        ),
        ("end of trees", "", "tree 0: expected `end of trees` behind it, found the end of the file"),
        ("regression", "unheard", "`objective`: expected one of LightGBM's, found `unheard`"),
    ] {
        let found = refusal(&file.replace(from, to));
        assert_eq!(found, format!("malformed lightgbm file: {expected}"), "{from} -> {to}");
    }
}

/// One symmetric tree of two questions: above 0.5 is bit 0, above 1.5 is bit 1.
fn catboost(treatment: &str) -> String {
    format!(
        r#"{{"features_info":{{"float_features":[{{"feature_index":0,"flat_feature_index":0,
        "nan_value_treatment":"{treatment}"}}]}},
        "oblivious_trees":[{{"leaf_values":[1,2,4,8],"splits":[
        {{"split_type":"FloatFeature","float_feature_index":0,"border":0.5}},
        {{"split_type":"FloatFeature","float_feature_index":0,"border":1.5}}]}}],"scale_and_bias":[2,[0.5]]}}"#
    )
}

#[test]
fn catboost_answers_are_the_bits_of_the_leaf() {
    let model = load(catboost("AsFalse").as_bytes()).unwrap();
    assert_eq!(scores(&*model, 1, &[0.5, 0.75, 2.0, f32::NAN]), [2.5, 4.5, 16.5, 2.5]);
    let model = load(catboost("AsTrue").as_bytes()).unwrap();
    assert_eq!(scores(&*model, 1, &[f32::NAN]), [16.5]);
}

#[test]
fn catboost_files_that_ask_for_more_are_refused_by_field() {
    let file = catboost("AsFalse");
    for (from, to, expected) in [
        (
            "[1,2,4,8]",
            "[1,2,4]",
            "`oblivious_trees[0].leaf_values`: expected 4 values a target for 2 splits (at most 24), found 3 in all",
        ),
        (
            "AsFalse",
            "AsIf",
            "`features_info.float_features[0].nan_value_treatment`: expected AsTrue, AsFalse or AsIs, found `AsIf`",
        ),
        (
            "\"float_feature_index\":0",
            "\"float_feature_index\":3",
            "`oblivious_trees[0].splits[0].float_feature_index`: expected one of `features_info.float_features`, found 3",
        ),
    ] {
        let found = refusal(&file.replace(from, to));
        assert_eq!(found, format!("malformed catboost file: {expected}"), "{from} -> {to}");
    }
    let found = refusal(&file.replacen("FloatFeature", "OnlineCtr", 1));
    assert!(found.contains("no field `oblivious_trees[0].splits[0].split_index`"), "{found}");
}

#[test]
fn a_row_of_another_width_is_an_error() {
    let model = load(catboost("AsFalse").as_bytes()).unwrap();
    let row = TensorView::row(&[1.0_f32, 2.0]);
    assert_eq!(
        model.run_into(&[row], &mut [0.0]).unwrap_err().to_string(),
        "CatBoost expected 1 values a row, found 2"
    );
}

/// Files of the libraries with a few bytes changed, cut, doubled or swapped: an error or a model
/// that answers, never a panic, and never out of proportion to the file.
#[test]
fn changed_files_are_refused_or_answer() {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n.max(1) as u64) as usize
    };
    let (mut files, mut refused, mut loaded) = (0, 0, 0);
    let mut folders: Vec<_> = std::fs::read_dir(zoo).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders {
        for name in ["model.json", "model.ubj", "model.txt", "model.cbm"] {
            let Ok(whole) = std::fs::read(folder.join(name)) else { continue };
            files += 1;
            let stated = ["xgboost-json", "xgboost-ubj", "lightgbm", "catboost"];
            let payload = Payload::from(whole.clone());
            let all = loaders();
            let loader = all.iter().find(|l| l.recognises(&payload)).expect("a format");
            assert!(stated.contains(&loader.format()));
            loader.load(payload, &LoadOptions::default()).expect("a file of the zoo");
            for _ in 0..12 {
                let mut bytes = whole.clone();
                for _ in 0..=random(3) {
                    let (at, other) = (random(bytes.len()), random(bytes.len()));
                    match random(6) {
                        0 => bytes.truncate(at),
                        1 if !bytes.is_empty() => bytes[at] = b"0123456789-[]{},\"="[random(18)],
                        2 if !bytes.is_empty() => bytes[at] = random(256) as u8,
                        3 => bytes.drain(at..(at + random(20)).min(bytes.len())).for_each(drop),
                        4 => bytes.extend_from_within(at..(at + random(40)).min(bytes.len())),
                        _ if !bytes.is_empty() => bytes.swap(at, other),
                        _ => {}
                    }
                }
                match loader.load(Payload::from(bytes), &LoadOptions::default()) {
                    Err(_) => refused += 1,
                    Ok(model) => {
                        loaded += 1;
                        let specs = model.signature().inputs();
                        let widths: Vec<usize> = specs.iter().map(|s| s.row_elements().unwrap()).collect();
                        if widths.iter().sum::<usize>() < 1 << 16 {
                            let rows =
                                specs.iter().zip(&widths).map(|(spec, width)| match spec.element_type() {
                                    ElementType::String => {
                                        Tensor::new(&[3, *width], vec!["a".to_owned(); width * 3])
                                    }
                                    _ => Tensor::new(&[3, *width], vec![0.5_f32; width * 3]),
                                });
                            let rows: Vec<Tensor> = rows.collect::<Result<_, _>>().unwrap();
                            let views: Vec<TensorView<'_>> = rows.iter().map(Tensor::view).collect();
                            model.run(&views, &mut [Tensor::default()]).unwrap();
                        }
                    }
                }
            }
        }
    }
    assert!(
        files > 20 && refused > files && loaded > files,
        "{files} files, {refused} refused, {loaded} loaded"
    );
}
