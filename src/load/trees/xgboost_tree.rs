//! One tree of an `XGBoost` file.

use super::document::{Field, Wrong, count};
use super::xgboost::single;
use crate::kernel::tree::builder::{Builder, Name, Test};
use crate::kernel::tree::sets::{MAX_CATEGORY, Set};

/// The sizes that all trees of a file share.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) features: usize,
    pub(super) targets: usize,
}

/// Adds the tree to the builder; its leaves are for target `group`, or for all targets where the
/// tree has vectors as leaves. `factor` is the tree's weight under dart.
pub(super) fn read(
    tree: &Field<'_>,
    number: usize,
    layout: Layout,
    group: usize,
    factor: f32,
    builder: &mut Builder,
) -> Result<(), Wrong> {
    let left_field = tree.get("left_children")?;
    let left = left_field.numbers()?;
    let nodes = left.len();
    if nodes == 0 {
        return Err(left_field.expected("at least one node"));
    }
    let numbers = |name| tree.get(name).and_then(|field| field.exactly(nodes));
    let right = numbers("right_children")?;
    let conditions = numbers("split_conditions")?;
    let features = numbers("split_indices")?;
    let default_left = numbers("default_left")?;
    let categories = Categories::read(tree, nodes)?;
    let vectors = Vectors::read(tree, layout)?;
    let first = builder.len();
    let rows = left.iter().zip(right).zip(conditions).zip(features).zip(default_left);
    for (node, ((((left, right), condition), feature), default_left)) in rows.enumerate() {
        #[expect(clippy::cast_possible_wrap, reason = "both count what is in memory")]
        let name = Name { tree: number as i64, node: node as i64 };
        if *left < 0.0 {
            match &vectors {
                None => {
                    #[expect(clippy::cast_possible_truncation, reason = "below MAX_TARGETS")]
                    let target = group as u32;
                    builder.leaf(name, [(target, f64::from(single(*condition) * factor))])?;
                }
                Some(vectors) => {
                    let weights = vectors.leaf(node, *right);
                    builder.leaf(name, weights.ok_or_else(|| missing(name, "leaf vector"))?)?;
                }
            }
            continue;
        }
        let child = |child: f64| {
            let child = count(child, nodes - 1).ok_or_else(|| missing(name, &format!("child {child}")))?;
            Ok::<_, Wrong>(first + child)
        };
        let feature = count(*feature, layout.features - 1)
            .ok_or_else(|| missing(name, &format!("feature {feature}")))?;
        let (left, right) = (child(*left)?, child(*right)?);
        let default_left = *default_left != 0.0;
        match categories.of(node) {
            // Categories of the set go right.
            Some(set) => {
                let test = Test::Member(builder.set(set)?);
                builder.split(name, feature, test, !default_left, [right, left])?;
            }
            None => {
                let test = Test::Lt(f64::from(single(*condition)));
                builder.split(name, feature, test, default_left, [left, right])?;
            }
        }
    }
    builder.root(first);
    Ok(())
}

fn missing(name: Name, what: &str) -> Wrong {
    Wrong::new(format!("{name}: {what} is not there"))
}

/// The sets of the categorical splits of a tree, by node.
struct Categories<'a> {
    values: &'a [f64],
    /// Of each node its place in `spans`, where it is a categorical split.
    by_node: Vec<Option<usize>>,
    spans: Vec<(usize, usize)>,
}

impl<'a> Categories<'a> {
    fn read(tree: &'a Field<'a>, nodes: usize) -> Result<Self, Wrong> {
        let none = Self { values: &[], by_node: Vec::new(), spans: Vec::new() };
        // Files before version 1.3 have none of this.
        let Some(of) = tree.find("categories_nodes") else { return Ok(none) };
        let of_field = of;
        let of = of_field.numbers()?;
        if of.is_empty() {
            return Ok(none);
        }
        let starts = tree.get("categories_segments").and_then(|f| f.exactly(of.len()))?;
        let sizes = tree.get("categories_sizes").and_then(|f| f.exactly(of.len()))?;
        let values = tree.get("categories").and_then(|f| f.numbers())?;
        let mut by_node = vec![None; nodes];
        let mut spans = Vec::with_capacity(of.len());
        for ((node, start), size) in of.iter().zip(starts).zip(sizes) {
            let span = count(*start, values.len()).zip(count(*size, values.len()));
            let span = span.filter(|(start, size)| start + size <= values.len());
            let slot = count(*node, nodes - 1).and_then(|node| by_node.get_mut(node));
            let (Some(span), Some(slot)) = (span, slot) else {
                return Err(Wrong::new(format!(
                    "`{of_field}`: expected {size} categories from {start} on for one of {nodes} nodes, \
                     found node {node} and {} categories",
                    values.len()
                )));
            };
            *slot = Some(spans.len());
            spans.push(span);
        }
        Ok(Self { values, by_node, spans })
    }

    fn of(&self, node: usize) -> Option<Set> {
        let (start, size) = *self.spans.get((*self.by_node.get(node)?)?)?;
        let values = self.values.get(start..start + size)?;
        let categories = values.iter().filter_map(|c| u32::try_from(count(*c, MAX_CATEGORY as usize)?).ok());
        Some(Set::from_categories(categories))
    }
}

/// The leaf vectors of a tree for several targets.
struct Vectors<'a> {
    values: &'a [f64],
    targets: usize,
    /// True where the leaves have a list of their own, and `right_children` says which vector is
    /// a leaf's (since version 3.2); else each node has a vector.
    by_leaf: bool,
}

impl<'a> Vectors<'a> {
    fn read(tree: &'a Field<'a>, layout: Layout) -> Result<Option<Self>, Wrong> {
        let params = tree.get("tree_param")?;
        let size = match params.find("size_leaf_vector") {
            Some(size) => size.count(layout.targets)?,
            None => 0,
        };
        if size <= 1 {
            return Ok(None);
        }
        if size != layout.targets {
            return Err(Wrong::new(format!(
                "`{tree}.tree_param.size_leaf_vector`: expected {}, found {size}",
                layout.targets
            )));
        }
        let own = tree.find("leaf_weights");
        let by_leaf = own.is_some();
        let field = match own {
            Some(own) => own,
            None => tree.get("base_weights")?,
        };
        Ok(Some(Self { values: field.numbers()?, targets: size, by_leaf }))
    }

    fn leaf(&self, node: usize, right: f64) -> Option<Vec<(u32, f64)>> {
        let vector = if self.by_leaf { count(right, self.values.len())? } else { node };
        let start = vector.checked_mul(self.targets)?;
        let values = self.values.get(start..start.checked_add(self.targets)?)?;
        Some((0..).zip(values.iter().map(|v| f64::from(single(*v)))).collect())
    }
}
