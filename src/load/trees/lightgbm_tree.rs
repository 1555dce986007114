//! One tree of a `LightGBM` file.

use super::document::Wrong;
use super::lightgbm::Section;
use super::model::LinearLeaf;
use crate::kernel::tree::builder::{Builder, Name, Test};
use crate::kernel::tree::sets::Set;

/// Values as near to zero as this are zero, under `zero_as_missing`.
const NEAR_ZERO: f64 = 1e-35_f32 as f64;

/// A tree as the file states it.
pub(super) struct Tree {
    number: usize,
    splits: Vec<Split>,
    leaves: Vec<f64>,
    /// The bits of all sets of categories.
    words: Vec<u32>,
    /// Where each set begins in `words`, and where the last one ends.
    boundaries: Vec<usize>,
    linear: Option<Vec<LinearLeaf>>,
}

struct Split {
    feature: usize,
    threshold: f64,
    kind: u8,
    /// Below 0 for a leaf: minus its number minus one.
    left: i64,
    right: i64,
}

impl Tree {
    pub(super) fn read(section: &Section<'_>, number: usize, features: usize) -> Result<Self, Wrong> {
        let leaves: Vec<f64> = section.list("leaf_value")?;
        let count = section.count("num_leaves", leaves.len())?;
        if count == 0 || count != leaves.len() {
            return Err(
                section.wrong(&format!("`leaf_value`: expected {count} values, found {}", leaves.len()))
            );
        }
        let is_linear = matches!(section.find("is_linear").map(str::trim), Some("1"));
        let linear = is_linear.then(|| linear_leaves(section, &leaves, features)).transpose()?;
        let inner = count - 1;
        let mut tree =
            Self { number, splits: Vec::new(), leaves, words: Vec::new(), boundaries: Vec::new(), linear };
        if inner == 0 {
            return Ok(tree);
        }
        let split_features: Vec<usize> = section.numbers("split_feature", inner)?;
        let thresholds: Vec<f64> = section.numbers("threshold", inner)?;
        let kinds: Vec<u8> = section.numbers("decision_type", inner)?;
        let left: Vec<i64> = section.numbers("left_child", inner)?;
        let right: Vec<i64> = section.numbers("right_child", inner)?;
        if section.find("num_cat").is_some_and(|n| n.trim() != "0") {
            tree.boundaries = section.list("cat_boundaries")?;
            tree.words = section.list("cat_threshold")?;
        }
        let rows = split_features.into_iter().zip(thresholds).zip(kinds).zip(left.into_iter().zip(right));
        for (((feature, threshold), kind), (left, right)) in rows {
            if feature >= features {
                return Err(section.wrong(&format!(
                    "`split_feature`: expected features below {features}, found {feature}"
                )));
            }
            tree.splits.push(Split { feature, threshold, kind, left, right });
        }
        Ok(tree)
    }

    pub(super) const fn is_linear(&self) -> bool {
        self.linear.is_some()
    }

    /// Adds the tree for class `target`, and its leaves to `linear`.
    pub(super) fn add(
        self,
        target: usize,
        builder: &mut Builder,
        linear: &mut Vec<LinearLeaf>,
    ) -> Result<(), Wrong> {
        let first = builder.len();
        let inner = self.splits.len();
        for (at, split) in self.splits.iter().enumerate() {
            let name = self.name(at);
            let child = |child: i64| {
                let place =
                    if child < 0 { inner as u64 + (-1 - child).unsigned_abs() } else { child.unsigned_abs() };
                usize::try_from(place)
                    .ok()
                    .and_then(|place| first.checked_add(place))
                    .ok_or_else(|| Wrong::new(format!("{name}: child {child} is not there")))
            };
            let children = [child(split.left)?, child(split.right)?];
            let (test, missing_left) = self.test(name, split, builder)?;
            builder.split(name, split.feature, test, missing_left, children)?;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below MAX_TARGETS")]
        let target = target as u32;
        for (at, value) in self.leaves.iter().enumerate() {
            builder.leaf(self.name(inner + at), [(target, *value)])?;
        }
        builder.root(first);
        match self.linear {
            Some(leaves) => linear.extend(leaves),
            None => linear.extend(self.leaves.iter().map(|v| LinearLeaf {
                constant: *v,
                terms: Vec::new(),
                fallback: *v,
            })),
        }
        Ok(())
    }

    #[expect(clippy::cast_possible_wrap, reason = "both count what is in memory")]
    const fn name(&self, node: usize) -> Name {
        Name { tree: self.number as i64, node: node as i64 }
    }

    /// The test of a split, and whether a missing value goes left. The bits of `kind`: 1 for a
    /// categorical split, 2 for missing values to the left, 4 where zero is missing, 8 where NaN
    /// is missing; where nothing is, NaN counts as zero.
    fn test(&self, name: Name, split: &Split, builder: &mut Builder) -> Result<(Test, bool), Wrong> {
        let t = split.threshold;
        if split.kind & 1 != 0 {
            let words = self.categories(t);
            let words = words.ok_or_else(|| Wrong::new(format!("{name}: categories {t} are not there")))?;
            return Ok((Test::Member(builder.set(Set::from_words(words.to_vec()))?), false));
        }
        let default_left = split.kind & 2 != 0;
        Ok(match split.kind >> 2 & 3 {
            0 => (Test::Leq(t), 0.0 <= t),
            // Where zeros go the default way by themselves, only NaN is left to be missing.
            1 if default_left && t >= NEAR_ZERO || !default_left && t < -NEAR_ZERO => {
                (Test::Leq(t), default_left)
            }
            1 => (Test::LeqZeroMissing(t), default_left),
            _ => (Test::Leq(t), default_left),
        })
    }

    /// The bits of a set of categories.
    fn categories(&self, number: f64) -> Option<&[u32]> {
        let at = super::document::count(number, self.boundaries.len())?;
        let (start, end) = (*self.boundaries.get(at)?, *self.boundaries.get(at + 1)?);
        self.words.get(start..end)
    }
}

/// The linear models of the leaves, in the order of the leaves.
fn linear_leaves(section: &Section<'_>, leaves: &[f64], features: usize) -> Result<Vec<LinearLeaf>, Wrong> {
    let constants: Vec<f64> = section.numbers("leaf_const", leaves.len())?;
    let counts: Vec<usize> = section.numbers("num_features", leaves.len())?;
    let all: Vec<usize> = section.list("leaf_features")?;
    let weights: Vec<f64> = section.numbers("leaf_coeff", all.len())?;
    if let Some(feature) = all.iter().find(|f| **f >= features) {
        return Err(
            section.wrong(&format!("`leaf_features`: expected features below {features}, found {feature}"))
        );
    }
    let mut terms = all.into_iter().zip(weights);
    let mut linear = Vec::with_capacity(leaves.len());
    for ((constant, count), fallback) in constants.into_iter().zip(counts).zip(leaves) {
        let terms: Vec<_> = terms.by_ref().take(count).collect();
        if terms.len() != count {
            return Err(section.wrong("`leaf_features`: expected more features, found the end of the line"));
        }
        linear.push(LinearLeaf { constant, terms, fallback: *fallback });
    }
    Ok(linear)
}
