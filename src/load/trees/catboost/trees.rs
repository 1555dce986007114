//! The trees of a `CatBoost` file.

use super::super::document::{Field, Value, Wrong};
use super::features::{Features, Split};
use crate::kernel::tree::builder::{Builder, MAX_TARGETS, Name};

/// `CatBoost` itself goes to 16.
const MAX_DEPTH: usize = 24;

/// Adds symmetric trees, which ask one question a level: the answers are the bits of the leaf's
/// number, the first question's the lowest. Answers how many targets they have, if there are any.
pub(super) fn oblivious(
    trees: &Field<'_>,
    features: &mut Features,
    builder: &mut Builder,
) -> Result<Option<usize>, Wrong> {
    let mut targets = None;
    for (number, tree) in trees.items()?.enumerate() {
        let list = tree.find("splits");
        let splits = match &list {
            Some(list) => list.items()?.map(|split| features.split(&split)).collect::<Result<Vec<_>, _>>()?,
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
    splits: &[Split],
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
            builder.split(name, *feature, test.clone(), *missing, [below + 1, below])?;
        }
    }
    for (leaf, values) in values.chunks_exact(width).enumerate() {
        builder.leaf(name(number, (1 << depth) - 1 + leaf), (0..).zip(values.iter().copied()))?;
    }
    builder.root(first);
    Ok(())
}

/// Adds trees of `left` and `right`. Answers how many targets they have, if there are any.
pub(super) fn asymmetric(
    trees: &Field<'_>,
    features: &mut Features,
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
    features: &mut Features,
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
        return Ok(builder.leaf(name, (0..).zip(values.iter().copied()))?);
    };
    let left = branch(&node.get("left")?, number, first, features, builder, targets)?;
    let right = branch(&node.get("right")?, number, first, features, builder, targets)?;
    let (feature, test, missing) = features.split(&split)?;
    let name = name(number, builder.len() - first);
    Ok(builder.split(name, feature, test, missing, [right, left])?)
}

#[expect(clippy::cast_possible_wrap, reason = "both count what is in memory")]
const fn name(tree: usize, node: usize) -> Name {
    Name { tree: tree as i64, node: node as i64 }
}
