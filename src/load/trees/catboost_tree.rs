//! The features and trees of a `CatBoost` file.

use super::document::{Field, Value, Wrong};
use super::xgboost::single;
use crate::kernel::tree::builder::{Builder, MAX_FEATURES, MAX_TARGETS, Name, Test};
use crate::kernel::tree::sets::Set;

/// `CatBoost` itself goes to 16.
const MAX_DEPTH: usize = 24;

/// Where the features of the file are among the columns.
pub(super) struct Features {
    /// How many columns there are.
    pub(super) width: usize,
    /// Of each feature of numbers its column, and whether a missing value is above every border.
    numbers: Vec<Option<(usize, bool)>>,
    /// Of each categorical feature its column.
    categories: Vec<Option<usize>>,
}

impl Features {
    pub(super) fn read(root: &Field<'_>) -> Result<Self, Wrong> {
        let mut all = Self { width: 0, numbers: Vec::new(), categories: Vec::new() };
        let info = root.get("features_info")?;
        if let Some(features) = info.find("float_features") {
            for feature in features.items()? {
                let column = all.column(&feature)?;
                let missing_is_high = match feature.find("nan_value_treatment") {
                    Some(treatment) => match treatment.text()? {
                        "AsTrue" => true,
                        "AsFalse" | "AsIs" => false,
                        _ => return Err(treatment.expected("AsTrue, AsFalse or AsIs")),
                    },
                    None => false,
                };
                let index = feature.get("feature_index")?.count(MAX_FEATURES)?;
                put(&mut all.numbers, index, (column, missing_is_high));
            }
        }
        if let Some(features) = info.find("categorical_features") {
            for feature in features.items()? {
                let column = all.column(&feature)?;
                let index = feature.get("feature_index")?.count(MAX_FEATURES)?;
                put(&mut all.categories, index, column);
            }
        }
        for kind in ["text_features", "embedding_features"] {
            if let Some(features) = info.find(kind)
                && features.items()?.next().is_some()
            {
                return Err(Wrong::new(format!(
                    "`features_info.{kind}`: a model of {} is not supported, export it as ONNX",
                    kind.replace('_', " ")
                )));
            }
        }
        if all.width == 0 {
            return Err(Wrong::new("`features_info`: expected at least one feature, found none"));
        }
        Ok(all)
    }

    /// The column of a feature.
    fn column(&mut self, feature: &Field<'_>) -> Result<usize, Wrong> {
        let index = match feature.find("flat_feature_index") {
            Some(index) => index.count(MAX_FEATURES - 1)?,
            None => feature.get("feature_index")?.count(MAX_FEATURES - 1)?,
        };
        self.width = self.width.max(index + 1);
        Ok(index)
    }

    /// The column and the test of a split, and whether a missing value passes it.
    fn split(&self, split: &Field<'_>, builder: &mut Builder) -> Result<(usize, Test, bool), Wrong> {
        let kind = split.get("split_type")?;
        match kind.text()? {
            "FloatFeature" => {
                let index = split.get("float_feature_index")?;
                let feature = self.numbers.get(index.count(MAX_FEATURES)?).copied().flatten();
                let (column, missing_is_high) =
                    feature.ok_or_else(|| index.expected("one of `features_info.float_features`"))?;
                let border = single(split.get("border")?.number()?);
                Ok((column, Test::Gt(f64::from(border)), missing_is_high))
            }
            "OneHotFeature" => {
                let index = split.get("cat_feature_index")?;
                let feature = self.categories.get(index.count(MAX_FEATURES)?).copied().flatten();
                let column =
                    feature.ok_or_else(|| index.expected("one of `features_info.categorical_features`"))?;
                let value = split.get("value")?;
                // A hash of 32 bits, written with or without a sign.
                let number = value.number()?;
                if number.fract() != 0.0 || !(-2_147_483_648.0..=4_294_967_295.0).contains(&number) {
                    return Err(value.expected("a hash of 32 bits"));
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked; the sign is a bit"
                )]
                let hash = number as i64 as u32;
                Ok((column, Test::Member(builder.set(Set::TextHash(hash))), false))
            }
            "OnlineCtr" => Err(Wrong::new(format!(
                "`{split}`: a split on target statistics of a categorical feature is not supported (the model needs \
                 its counters, `ctr_data`, at run time); train with one_hot_max_size at least the number of categories"
            ))),
            _ => Err(kind.expected("FloatFeature or OneHotFeature")),
        }
    }
}

fn put<T: Clone>(list: &mut Vec<Option<T>>, index: usize, value: T) {
    // Features are listed in order; a gap is a file that is not whole, and stays a gap.
    if index <= list.len() + 1024 {
        if list.len() <= index {
            list.resize(index + 1, None);
        }
        if let Some(slot) = list.get_mut(index) {
            *slot = Some(value);
        }
    }
}

/// Adds symmetric trees, which ask one question a level: the answers are the bits of the leaf's
/// number, the first question's the lowest. Answers how many targets they have, if there are any.
pub(super) fn oblivious(
    trees: &Field<'_>,
    features: &Features,
    builder: &mut Builder,
) -> Result<Option<usize>, Wrong> {
    let mut targets = None;
    for (number, tree) in trees.items()?.enumerate() {
        let list = tree.find("splits");
        let splits = match &list {
            Some(list) => {
                list.items()?.map(|split| features.split(&split, builder)).collect::<Result<Vec<_>, _>>()?
            }
            None => Vec::new(),
        };
        let values = tree.get("leaf_values")?;
        let numbers = values.numbers()?;
        let width = if splits.len() <= MAX_DEPTH { numbers.len() >> splits.len() } else { 0 };
        if width == 0 || width << splits.len() != numbers.len() || *targets.get_or_insert(width) != width {
            return Err(Wrong::new(format!(
                "`{values}`: expected {} values a target for {} splits (at most {MAX_DEPTH}), found {} in all",
                1_u64 << splits.len().min(63),
                splits.len(),
                numbers.len()
            )));
        }
        symmetric(number, &splits, numbers, width, builder)?;
    }
    Ok(targets)
}

fn symmetric(
    number: usize,
    splits: &[(usize, Test, bool)],
    values: &[f64],
    width: usize,
    builder: &mut Builder,
) -> Result<(), Wrong> {
    let first = builder.len();
    let depth = splits.len();
    // Breadth first, the last question on top; node `at` of a level stands for the answers so far.
    for (level, (feature, test, missing)) in splits.iter().rev().enumerate() {
        for at in 0..1 << level {
            let name = name(number, (1 << level) - 1 + at);
            let below = first + (2 << level) - 1 + 2 * at;
            builder
                .split(name, *feature, test.clone(), *missing, [below + 1, below])
                .map_err(|error| Wrong::new(error.to_string()))?;
        }
    }
    for (leaf, values) in values.chunks_exact(width).enumerate() {
        builder.leaf(name(number, (1 << depth) - 1 + leaf), (0..).zip(values.iter().copied()));
    }
    builder.root(first);
    Ok(())
}

/// Adds trees of `left` and `right`. Answers how many targets they have, if there are any.
pub(super) fn asymmetric(
    trees: &Field<'_>,
    features: &Features,
    builder: &mut Builder,
) -> Result<Option<usize>, Wrong> {
    let mut targets = None;
    for (number, tree) in trees.items()?.enumerate() {
        let first = builder.len();
        let root = branch(&tree, number, first, features, builder, &mut targets)?;
        builder.root(root);
    }
    Ok(targets)
}

/// Adds a node behind its children; the nesting is bounded by the reader of the document.
fn branch(
    node: &Field<'_>,
    number: usize,
    first: usize,
    features: &Features,
    builder: &mut Builder,
    targets: &mut Option<usize>,
) -> Result<usize, Wrong> {
    let Some(split) = node.find("split") else {
        let value = node.get("value")?;
        let one;
        let values = match value.value {
            Value::Number(number) => {
                one = [*number];
                &one[..]
            }
            _ => value.numbers()?,
        };
        let expected = *targets.get_or_insert(values.len());
        if values.is_empty() || values.len() > MAX_TARGETS || values.len() != expected {
            return Err(Wrong::new(format!("`{value}`: expected {expected} values, found {}", values.len())));
        }
        let name = name(number, builder.len() - first);
        return Ok(builder.leaf(name, (0..).zip(values.iter().copied())));
    };
    let left = branch(&node.get("left")?, number, first, features, builder, targets)?;
    let right = branch(&node.get("right")?, number, first, features, builder, targets)?;
    let (feature, test, missing) = features.split(&split, builder)?;
    let name = name(number, builder.len() - first);
    builder.split(name, feature, test, missing, [right, left]).map_err(|error| Wrong::new(error.to_string()))
}

#[expect(clippy::cast_possible_wrap, reason = "both count what is in memory")]
const fn name(tree: usize, node: usize) -> Name {
    Name { tree: tree as i64, node: node as i64 }
}
