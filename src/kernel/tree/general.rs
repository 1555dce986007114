//! The layout for everything else: any mix of tests, sets, `f64` thresholds, `f64` features.

use super::LANES;
use super::forest::{Forest, ForestNode, ForestTree, Test};
use super::sets::Set;

/// How near to zero a value counts as missing under [`Test::LeqZeroMissing`]; LightGBM states it
/// as an `f32`.
const NEAR_ZERO: f64 = 1e-35_f32 as f64;

#[derive(Clone, Copy, Debug)]
enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    LeqZeroMissing,
    Member,
    Leaf,
}

/// A node of 24 bytes; the children lie at `next` (yes) and the one behind it (no).
#[derive(Clone, Copy, Debug)]
struct Node {
    threshold: f64,
    feature: u32,
    /// The first child, the leaf's number for a leaf.
    next: u32,
    /// Which set a membership test looks in.
    set: u32,
    mode: Mode,
    missing_yes: bool,
}

/// The nodes of all trees, each tree breadth first.
#[derive(Debug)]
pub(super) struct General {
    nodes: Vec<Node>,
    sets: Vec<Set>,
}

impl General {
    /// `None` where there are more nodes than a `u32` counts.
    pub(super) fn new(forest: &Forest) -> Option<Self> {
        let nodes = forest.nodes.iter().map(|node| {
            Some(match node {
                ForestNode::Leaf(leaf) => Node {
                    threshold: 0.0,
                    feature: 0,
                    next: u32::try_from(*leaf).ok()?,
                    set: 0,
                    mode: Mode::Leaf,
                    missing_yes: false,
                },
                ForestNode::Split { feature, test, missing_yes, child } => Node {
                    threshold: test.threshold().unwrap_or(f64::NAN),
                    feature: *feature,
                    next: u32::try_from(*child).ok()?,
                    set: if let Test::Member(set) = test { u32::try_from(*set).ok()? } else { 0 },
                    mode: Mode::of(test),
                    missing_yes: *missing_yes,
                },
            })
        });
        Some(Self { nodes: nodes.collect::<Option<_>>()?, sets: forest.sets.clone() })
    }

    /// The leaves at which [`LANES`] rows end in one tree.
    pub(super) fn rows<X: Copy + Into<f64>>(
        &self,
        tree: ForestTree,
        rows: &[X],
        width: usize,
        leaves: &mut [u32; LANES],
    ) {
        for (row, leaf) in rows.chunks_exact(width).zip(leaves) {
            *leaf = self.walk(tree.root, row);
        }
    }

    /// The leaves at which one row ends in each of up to [`LANES`] trees.
    pub(super) fn trees<X: Copy + Into<f64>>(
        &self,
        trees: &[ForestTree],
        row: &[X],
        leaves: &mut [u32; LANES],
    ) {
        for (tree, leaf) in trees.iter().zip(leaves) {
            *leaf = self.walk(tree.root, row);
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "children and features are in range, and children behind their parent: checked when built"
    )]
    fn walk<X: Copy + Into<f64>>(&self, root: u32, row: &[X]) -> u32 {
        let mut node = self.nodes[root as usize];
        loop {
            let value = || -> f64 { row[node.feature as usize].into() };
            let t = node.threshold;
            let (yes, missing) = match node.mode {
                Mode::Leaf => return node.next,
                Mode::Leq => (value() <= t, value().is_nan()),
                Mode::Lt => (value() < t, value().is_nan()),
                Mode::Gte => (value() >= t, value().is_nan()),
                Mode::Gt => (value() > t, value().is_nan()),
                #[expect(clippy::float_cmp, reason = "the mode is exact equality")]
                Mode::Eq => (value() == t, value().is_nan()),
                // NaN differs from everything, with or without the flag.
                #[expect(clippy::float_cmp, reason = "the mode is exact inequality")]
                Mode::Neq => (value() != t, false),
                Mode::LeqZeroMissing => {
                    let value = value();
                    (value <= t, value.is_nan() || value.abs() <= NEAR_ZERO)
                }
                Mode::Member => (self.sets[node.set as usize].contains(value()), value().is_nan()),
            };
            let yes = if missing { node.missing_yes } else { yes };
            node = self.nodes[node.next as usize + usize::from(!yes)];
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.sets.iter().map(Set::memory).sum::<usize>()
    }
}

impl Mode {
    const fn of(test: &Test) -> Self {
        match test {
            Test::Leq(_) => Self::Leq,
            Test::Lt(_) => Self::Lt,
            Test::Gte(_) => Self::Gte,
            Test::Gt(_) => Self::Gt,
            Test::Eq(_) => Self::Eq,
            Test::Neq(_) => Self::Neq,
            Test::LeqZeroMissing(_) => Self::LeqZeroMissing,
            Test::Member(_) => Self::Member,
        }
    }
}
