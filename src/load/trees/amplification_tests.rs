//! Files of some kilobytes that ask for far more: they refer to one large part again and again, or
//! have many parts that are looked for one by one.

use std::fmt::Write as _;

use super::*;
use crate::load::{LoadError, LoadOptions};

const BUDGET: u64 = 16 << 20;

/// Why a file does not load into little memory.
fn refusal(bytes: &[u8]) -> String {
    load(bytes).unwrap_err().to_string()
}

fn load(bytes: &[u8]) -> Result<(), LoadError> {
    let payload = Payload::from(bytes.to_vec());
    let all = loaders();
    let loader = all.iter().find(|loader| loader.recognises(&payload)).expect("a format");
    let options = LoadOptions { memory_budget: BUDGET, ..LoadOptions::default() };
    loader.load(payload, &options).map(drop)
}

fn repeated(value: &str, separator: &str, count: usize) -> String {
    vec![value; count].join(separator)
}

/// A chain of `splits` splits, each with a leaf to its left.
fn lightgbm(splits: usize, more: &str) -> String {
    let (mut left, mut right) = (String::new(), String::new());
    for split in 1..=splits {
        let _ = write!(left, "-{split} ");
        let behind = if split < splits { split.to_string() } else { format!("-{}", splits + 1) };
        let _ = write!(right, "{behind} ");
    }
    let many = |value| repeated(value, " ", splits);
    format!(
        "tree\nversion=v4\nnum_class=1\nmax_feature_idx=3\nobjective=regression\nTree=0\nnum_leaves={}\n\
         leaf_value={} 1\nsplit_feature={}\nthreshold={}\ndecision_type={}\nleft_child={left}\nright_child={right}\n\
         {more}\nend of trees\n",
        splits + 1,
        many("1"),
        many("0"),
        many("0"),
        many("1"),
    )
}

#[test]
fn lightgbm_splits_that_share_a_large_set_of_categories_are_over_the_budget() {
    let sets = format!("num_cat=1\ncat_boundaries=0 20000\ncat_threshold={}", repeated("1", " ", 20_000));
    assert_eq!(load(lightgbm(20, &sets).as_bytes()), Ok(()));
    let refused = refusal(lightgbm(1000, &sets).as_bytes());
    assert!(refused.ends_with("the trees take more memory than the budget of 16777216 bytes"), "{refused}");
}

#[test]
fn lightgbm_trees_of_endless_different_lines_are_refused() {
    let lines = (0..2000).fold(String::new(), |lines, number| lines + &format!("line{number}=\n"));
    assert!(refusal(lightgbm(2, &lines).as_bytes()).ends_with("tree 0: more than 1000 different lines"));
}

/// A chain of splits, and what else the tree has.
fn xgboost(splits: usize, targets: usize, more: &str) -> String {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for node in 0..=2 * splits {
        let inner = node % 2 == 0 && node < 2 * splits;
        left.push(if inner { (node + 1).to_string() } else { "-1".to_owned() });
        right.push(if inner { (node + 2).to_string() } else { "0".to_owned() });
    }
    let zeros = repeated("0", ",", 2 * splits + 1);
    format!(
        r#"{{"learner":{{"learner_model_param":{{"base_score":"0","num_target":"{targets}","num_feature":"2"}},
        "objective":{{"name":"reg:squarederror"}},"gradient_booster":{{"name":"gbtree","model":{{"tree_info":[0],
        "trees":[{{"left_children":[{}],"right_children":[{}],"split_conditions":[{zeros}],
        "split_indices":[{zeros}],"default_left":[{zeros}],{more}}}]}}}}}},"version":[3,0,0]}}"#,
        left.join(","),
        right.join(","),
    )
}

#[test]
fn xgboost_categories_far_up_are_over_the_budget() {
    let splits = 200;
    let nodes: Vec<String> = (0..splits).map(|split| (2 * split).to_string()).collect();
    let more = format!(
        r#""categories":[16777215],"categories_nodes":[{}],"categories_segments":[{}],"categories_sizes":[{}],
        "tree_param":{{"size_leaf_vector":"0"}}"#,
        nodes.join(","),
        repeated("0", ",", splits),
        repeated("1", ",", splits),
    );
    assert!(refusal(xgboost(splits, 1, &more).as_bytes()).contains("the trees take more memory"));
}

#[test]
fn xgboost_leaves_that_share_a_long_vector_are_over_the_budget() {
    let weights = repeated("1", ",", 20_000);
    let more = format!(r#""leaf_weights":[{weights}],"tree_param":{{"size_leaf_vector":"20000"}}"#);
    assert_eq!(load(xgboost(2, 20_000, &more).as_bytes()), Ok(()));
    assert!(refusal(xgboost(100, 20_000, &more).as_bytes()).contains("the trees take more memory"));
}

/// A file with one categorical feature and trees of one split.
fn catboost(splits: impl Iterator<Item = String>, ctrs: &str, data: &str) -> String {
    let trees: Vec<String> =
        splits.map(|split| format!(r#"{{"splits":[{split}],"leaf_values":[0,1]}}"#)).collect();
    format!(
        r#"{{"features_info":{{"categorical_features":[{{"feature_index":0}}],"ctrs":[{ctrs}]}},
        "oblivious_trees":[{}],"ctr_data":{{{data}}}}}"#,
        trees.join(","),
    )
}

/// What they took was time, which no test asserts: the square of their number, when they were looked for
/// one by one.
#[test]
fn catboost_parts_are_found_however_many_there_are() {
    let many = 20_000;
    let split = |value| format!(r#"{{"split_type":"OneHotFeature","cat_feature_index":0,"value":{value}}}"#);
    let options = LoadOptions::default();
    let load = |file: String| catboost::Catboost.load(Payload::from(file.into_bytes()), &options).map(drop);
    assert_eq!(load(catboost((0..many).map(split), "", "")), Ok(()));

    let element = r#"{"combination_element":"cat_feature_value","cat_feature_index":0}"#;
    let statistic = format!(
        r#"{{"ctr_type":"Borders","elements":[{element}],"target_border_idx":0,"prior_numerator":0,
        "prior_denomerator":1,"shift":0,"scale":1,"borders":[0.5]}}"#
    );
    let table = r#"{"hash_map":["1",1,2],"hash_stride":3}"#;
    let data: Vec<String> = (0..many)
        .map(|number| {
            let key = format!(r#"{{"identifier":[{element}],"type":"Borders","number":{number}}}"#);
            format!("{}:{table}", serde_json::Value::String(key))
        })
        .collect();
    let last = format!(r#"{{"split_type":"OnlineCtr","split_index":{}}}"#, many - 1);
    let splits = (0..many).map(|_| last.clone());
    let statistics = vec![statistic.as_str(); many].join(",");
    assert_eq!(load(catboost(splits, &statistics, &data.join(","))), Ok(()));
    let behind = format!(r#"{{"split_type":"OnlineCtr","split_index":{many}}}"#);
    let refused = load(catboost(std::iter::once(behind), &statistics, &data[0])).unwrap_err().to_string();
    assert!(refused.contains("expected the number of a split on `features_info.ctrs`"), "{refused}");
}

/// A message whose vectors of tables lead to one and the same table over and over.
#[test]
fn catboost_binary_parts_that_are_shared_are_over_the_budget() {
    let features = 300_000_u32;
    let mut message = Vec::new();
    let mut put = |numbers: &[u32]| message.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    // The root, in front of it its layout: slot 1 has the trees.
    put(&[12, 0x0008_0008, 0x0004_0000, 8, 16 + 4]);
    // The trees, in front of them their layout: slot 5 has the features of numbers.
    put(&[0x0008_0010, 0, 0, 0x0004_0000, 16, 4]);
    let last = 4 + 4 * features;
    put(&[features]);
    (0..features).for_each(|number| put(&[last - 4 - 4 * number + 8]));
    // The feature, in front of it its layout, which has no slot.
    put(&[0x0004_0004, 0, 8]);
    let mut file = b"CBM1".to_vec();
    file.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
    file.extend(message);
    assert!(refusal(&file).contains("its values take more memory than the budget"), "{}", refusal(&file));
}
