//! Checked trees, from which the layouts are made.

use super::sets::Set;
use super::threshold;

/// Checked trees, in the order of the layout.
///
/// Of every split the children lie at `child` (yes) and `child + 1` (no), both behind the split
/// itself: whoever goes from a node to a child of it ends at a leaf.
#[derive(Clone, Debug)]
pub(crate) struct Forest {
    pub(crate) nodes: Vec<ForestNode>,
    pub(crate) trees: Vec<ForestTree>,
    /// Of each leaf, where its weights are.
    pub(crate) leaves: Vec<(usize, usize)>,
    pub(crate) weights: Vec<(u32, f64)>,
    pub(crate) sets: Vec<Set>,
    pub(crate) targets: usize,
    /// One more than the highest feature that is tested.
    pub(crate) features: usize,
}

impl Forest {
    /// The (target, weight) pairs of a leaf.
    pub(crate) fn leaf(&self, leaf: usize) -> &[(u32, f64)] {
        self.leaves.get(leaf).and_then(|(first, end)| self.weights.get(*first..*end)).unwrap_or(&[])
    }

    /// Gives the leaves new numbers: `order` has the old ones in the new order.
    pub(super) fn renumber_leaves(&mut self, order: &[usize]) -> Option<()> {
        let mut number = vec![0; self.leaves.len()];
        for (new, old) in order.iter().enumerate() {
            *number.get_mut(*old)? = new;
        }
        for node in &mut self.nodes {
            if let ForestNode::Leaf(leaf) = node {
                *leaf = *number.get(*leaf)?;
            }
        }
        self.leaves = order.iter().map(|old| self.leaves.get(*old).copied()).collect::<Option<_>>()?;
        Some(())
    }

    /// True where every threshold is an `f32`.
    pub(crate) fn is_single_precision(&self) -> bool {
        self.nodes.iter().all(|node| match node {
            ForestNode::Leaf(_) => true,
            ForestNode::Split { test, .. } => test.threshold().is_none_or(threshold::is_single),
        })
    }
}

/// The test of an inner node; true leads to the `yes` child.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Leq(f64),
    Lt(f64),
    Gte(f64),
    Gt(f64),
    Eq(f64),
    Neq(f64),
    /// As `Leq`, but a value within 1e-35 of zero counts as missing, too (`zero_as_missing` of
    /// LightGBM).
    LeqZeroMissing(f64),
    /// The value is one of this set, by its position in [`Builder::sets`].
    Member(usize),
}

impl Test {
    /// What the value is compared with, unless it is a set.
    pub(crate) const fn threshold(&self) -> Option<f64> {
        match self {
            Self::Leq(t)
            | Self::Lt(t)
            | Self::Gte(t)
            | Self::Gt(t)
            | Self::Eq(t)
            | Self::Neq(t)
            | Self::LeqZeroMissing(t) => Some(*t),
            Self::Member(_) => None,
        }
    }
}

/// A node of a [`Forest`].
#[derive(Clone, Debug)]
pub(crate) enum ForestNode {
    Split { feature: u32, test: Test, missing_yes: bool, child: usize },
    Leaf(usize),
}

/// A tree of a [`Forest`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForestTree {
    pub(crate) root: u32,
    /// The number of splits on the longest way to a leaf.
    pub(crate) depth: u32,
}
