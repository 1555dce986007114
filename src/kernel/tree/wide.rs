//! The layout for what does not fit in [`super::keyed`]: `x < t` on an `f32`, 16 bytes a node.
//!
//! A leaf is a node that leads back to itself: its threshold is a NaN, which nothing is less than.

use super::LANES;
use super::forest::{Forest, ForestNode, ForestTree};
use super::less::{self, Less};

/// How many steps are taken before one looks whether a lane still moves.
const STRIDE: u32 = 4;

/// How many lanes go at once: what they keep in flight fits in the registers.
const HALF: usize = LANES / 2;

const FLIP: u32 = 1 << 31;

/// A split or a leaf.
#[derive(Clone, Copy, Debug)]
struct Node {
    threshold: f32,
    /// The highest bit says whether the sign of the value is flipped.
    feature: u32,
    /// How many nodes further the first child lies; 0 for a leaf.
    step: u32,
    leaf: u32,
}

/// The nodes of all trees, each tree breadth first.
#[derive(Debug)]
pub(super) struct Wide {
    nodes: Vec<Node>,
}

impl Wide {
    /// `None` where a test cannot be said as `x < t`, or there are more nodes than a `u32` counts.
    pub(super) fn new(forest: &Forest) -> Option<Self> {
        let empty = Node { threshold: f32::NAN, feature: 0, step: 0, leaf: 0 };
        let mut nodes = vec![empty; forest.nodes.len()];
        for (node, place) in forest.nodes.iter().zip(less::places(forest)?) {
            *nodes.get_mut(place)? = match node {
                ForestNode::Leaf(leaf) => Node { leaf: u32::try_from(*leaf).ok()?, ..empty },
                ForestNode::Split { feature, test, missing_yes, child } => {
                    let (threshold, flip) = Less::of(test, *missing_yes)?.packed()?;
                    let feature = feature | if flip { FLIP } else { 0 };
                    Node { threshold, feature, step: u32::try_from(child.checked_sub(place)?).ok()?, leaf: 0 }
                }
            };
        }
        Some(Self { nodes })
    }

    /// The leaves at which [`LANES`] rows end in one tree. `rows` holds them all, `width` values
    /// each, and `width` is above every feature.
    #[inline]
    pub(super) fn rows(&self, tree: ForestTree, rows: &[f32], width: usize, leaves: &mut [u32; LANES]) {
        let offsets = std::array::from_fn(|lane| lane * width);
        self.walk([tree.root; LANES], tree.depth, rows, offsets, leaves);
    }

    /// The leaves at which one row ends in each of up to [`LANES`] trees.
    #[inline]
    pub(super) fn trees(&self, trees: &[ForestTree], row: &[f32], leaves: &mut [u32; LANES]) {
        let mut roots = [trees.first().map_or(0, |t| t.root); LANES];
        for (root, tree) in roots.iter_mut().zip(trees) {
            *root = tree.root;
        }
        let depth = trees.iter().map(|t| t.depth).max().unwrap_or(0);
        self.walk(roots, depth, row, [0; LANES], leaves);
    }

    #[inline(always)]
    fn walk(
        &self,
        at: [u32; LANES],
        depth: u32,
        values: &[f32],
        offsets: [usize; LANES],
        leaves: &mut [u32; LANES],
    ) {
        let halves = at.as_chunks::<HALF>().0.iter().zip(offsets.as_chunks::<HALF>().0);
        for ((at, offsets), leaves) in halves.zip(leaves.as_chunks_mut::<HALF>().0) {
            self.half(*at, depth, values, *offsets, leaves);
        }
    }

    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "`step` leads to a child in `nodes`, features are below the width: both checked when built"
    )]
    fn half(
        &self,
        mut at: [u32; HALF],
        depth: u32,
        values: &[f32],
        offsets: [usize; HALF],
        leaves: &mut [u32; HALF],
    ) {
        let nodes = self.nodes.as_slice();
        let mut steps = depth;
        while steps > 0 {
            let stride = steps.min(STRIDE);
            let mut moved = 0;
            for _ in 0..stride {
                moved = 0;
                for lane in 0..HALF {
                    let node = nodes[at[lane] as usize];
                    let value = values[offsets[lane] + (node.feature & !FLIP) as usize];
                    let value = f32::from_bits(value.to_bits() ^ (node.feature & FLIP));
                    let step = node.step + u32::from(value < node.threshold);
                    moved |= step;
                    at[lane] += step;
                }
            }
            if moved == 0 {
                break;
            }
            steps -= stride;
        }
        for (leaf, at) in leaves.iter_mut().zip(at) {
            *leaf = nodes[at as usize].leaf;
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.nodes.len() * size_of::<Node>()
    }
}
