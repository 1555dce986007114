//! The layout for speed: every split is `x < t` on an `f32`, a node takes 8 bytes.
//!
//! A walk is a chain of dependent loads, so [`LANES`] walks go side by side, of as many rows or of
//! as many trees, and nothing in them branches: a leaf is a node that leads back to itself, so all
//! lanes take the same number of steps, and only every few steps one looks whether any lane still
//! moves.
//!
//! How the modes become `x < t`:
//! - `x <= t` is `x < t'`, with `t'` the next `f32` above; `>` and `>=` have their children swapped.
//! - The children lie side by side, and a true comparison goes to the second one. NaN compares
//!   false, so it goes to the first. Where NaN has to go with the smaller values, these come
//!   first, and the test is turned over: `x >= t` is `-x < t''`, with the sign of `x` flipped.
//! - A leaf is compared with a NaN, which nothing is less than; its payload is the leaf's number.

use super::LANES;
use super::builder::{Forest, ForestNode, ForestTree, Test};
use super::threshold;

/// How many steps are taken before one looks whether a lane still moves.
const STRIDE: u32 = 4;

/// How many lanes go at once.
const HALF: usize = LANES / 2;

/// A split or a leaf, packed.
pub(super) trait Packed: Copy + std::fmt::Debug + Send + Sync {
    /// A split whose first child lies `step` nodes further, or `None` where it does not fit.
    fn split(threshold: f32, flip: bool, feature: u32, step: usize) -> Option<Self>;
    /// A leaf, or `None` where there are too many.
    fn leaf(leaf: usize) -> Option<Self>;
    fn threshold(self) -> f32;
    fn feature(self) -> usize;
    /// The bits of the feature's value to turn over: none, or the sign.
    fn flip(self) -> u32;
    fn step(self) -> u32;
    fn leaf_index(self) -> u32;
}

/// 8 bytes: up to 2^15 features, 2^22 leaves, and 2^16 nodes between a node and its children.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow {
    threshold: f32,
    /// The highest bit says whether the sign is flipped.
    feature: u16,
    step: u16,
}

const QUIET_NAN: u32 = 0x7fc0_0000;
const NARROW_LEAVES: u32 = 1 << 22;

impl Packed for Narrow {
    fn split(threshold: f32, flip: bool, feature: u32, step: usize) -> Option<Self> {
        let feature = u16::try_from(feature).ok().filter(|f| *f < 1 << 15)?;
        Some(Self { threshold, feature: feature | u16::from(flip) << 15, step: u16::try_from(step).ok()? })
    }

    fn leaf(leaf: usize) -> Option<Self> {
        let leaf = u32::try_from(leaf).ok().filter(|l| *l < NARROW_LEAVES)?;
        Some(Self { threshold: f32::from_bits(QUIET_NAN | leaf), feature: 0, step: 0 })
    }

    fn threshold(self) -> f32 {
        self.threshold
    }

    fn feature(self) -> usize {
        usize::from(self.feature & 0x7fff)
    }

    fn flip(self) -> u32 {
        u32::from(self.feature & 0x8000) << 16
    }

    fn step(self) -> u32 {
        u32::from(self.step)
    }

    fn leaf_index(self) -> u32 {
        self.threshold.to_bits() & (NARROW_LEAVES - 1)
    }
}

/// 16 bytes, for what does not fit in [`Narrow`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide {
    threshold: f32,
    /// The highest bit says whether the sign is flipped.
    feature: u32,
    step: u32,
    leaf: u32,
}

impl Packed for Wide {
    fn split(threshold: f32, flip: bool, feature: u32, step: usize) -> Option<Self> {
        let feature = feature | u32::from(flip) << 31;
        Some(Self { threshold, feature, step: u32::try_from(step).ok()?, leaf: 0 })
    }

    fn leaf(leaf: usize) -> Option<Self> {
        Some(Self { threshold: f32::NAN, feature: 0, step: 0, leaf: u32::try_from(leaf).ok()? })
    }

    fn threshold(self) -> f32 {
        self.threshold
    }

    fn feature(self) -> usize {
        (self.feature & 0x7fff_ffff) as usize
    }

    fn flip(self) -> u32 {
        self.feature & 0x8000_0000
    }

    fn step(self) -> u32 {
        self.step
    }

    fn leaf_index(self) -> u32 {
        self.leaf
    }
}

/// The nodes of all trees, each tree breadth first.
#[derive(Debug)]
pub(super) struct Compact<N> {
    nodes: Vec<N>,
    /// True where some test flips the sign of the feature.
    flips: bool,
}

impl<N: Packed> Compact<N> {
    /// `None` where a test cannot be said as `x < t`, or something does not fit.
    pub(super) fn new(forest: &Forest) -> Option<Self> {
        // `yes` comes first in the forest; here it depends on the test.
        let mut places: Vec<usize> = (0..forest.nodes.len()).collect();
        for node in &forest.nodes {
            if let ForestNode::Split { test, missing_yes, child, .. } = node
                && Less::of(test, *missing_yes)?.second_is_yes()
                && let Some([first, second]) = places.get_mut(*child..*child + 2)
            {
                std::mem::swap(first, second);
            }
        }
        let mut flips = false;
        let mut nodes = vec![N::leaf(0)?; forest.nodes.len()];
        for (node, place) in forest.nodes.iter().zip(places) {
            *nodes.get_mut(place)? = match node {
                ForestNode::Leaf(leaf) => N::leaf(*leaf)?,
                ForestNode::Split { feature, test, missing_yes, child } => {
                    let (threshold, flip) = Less::of(test, *missing_yes)?.packed()?;
                    flips |= flip;
                    N::split(threshold, flip, *feature, child.checked_sub(place)?)?
                }
            };
        }
        Some(Self { nodes, flips })
    }

    /// The leaves at which [`LANES`] rows end in one tree. `rows` holds them all, `width` values
    /// each, and `width` is above every feature.
    #[inline]
    pub(super) fn rows(&self, tree: ForestTree, rows: &[f32], width: usize, leaves: &mut [u32; LANES]) {
        let offsets = std::array::from_fn(|lane| lane * width);
        if self.flips {
            self.walk::<true>([tree.root; LANES], tree.depth, rows, offsets, leaves);
        } else {
            self.walk::<false>([tree.root; LANES], tree.depth, rows, offsets, leaves);
        }
    }

    /// The leaves at which one row ends in each of up to [`LANES`] trees.
    #[inline]
    pub(super) fn trees(&self, trees: &[ForestTree], row: &[f32], leaves: &mut [u32; LANES]) {
        let mut roots = [trees.first().map_or(0, |t| t.root); LANES];
        for (root, tree) in roots.iter_mut().zip(trees) {
            *root = tree.root;
        }
        let depth = trees.iter().map(|t| t.depth).max().unwrap_or(0);
        if self.flips {
            self.walk::<true>(roots, depth, row, [0; LANES], leaves);
        } else {
            self.walk::<false>(roots, depth, row, [0; LANES], leaves);
        }
    }

    /// Walks in halves: what one half of the lanes keeps in flight fits in the registers.
    #[inline(always)]
    fn walk<const FLIPS: bool>(
        &self,
        at: [u32; LANES],
        depth: u32,
        values: &[f32],
        offsets: [usize; LANES],
        leaves: &mut [u32; LANES],
    ) {
        let halves = at.as_chunks::<HALF>().0.iter().zip(offsets.as_chunks::<HALF>().0);
        for ((at, offsets), leaves) in halves.zip(leaves.as_chunks_mut::<HALF>().0) {
            self.half::<FLIPS>(*at, depth, values, *offsets, leaves);
        }
    }

    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "`step` leads to a child in `nodes`, features are below the width: both checked when built"
    )]
    fn half<const FLIPS: bool>(
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
                    let mut value = values[offsets[lane] + node.feature()];
                    if FLIPS {
                        value = f32::from_bits(value.to_bits() ^ node.flip());
                    }
                    let step = node.step() + u32::from(value < node.threshold());
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
            *leaf = nodes[at as usize].leaf_index();
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.nodes.len() * size_of::<N>()
    }
}

/// A test as a comparison with `<`: which values go to `yes`, and with which NaN goes.
#[derive(Clone, Copy)]
pub(super) struct Less {
    /// Values below it are the smaller ones.
    threshold: f32,
    smaller_is_yes: bool,
    missing_is_smaller: bool,
}

impl Less {
    /// `None` for a test of another kind.
    pub(super) fn of(test: &Test, missing_yes: bool) -> Option<Self> {
        let (t, includes, smaller_is_yes) = match *test {
            Test::Leq(t) => (t, true, true),
            Test::Lt(t) => (t, false, true),
            Test::Gt(t) => (t, true, false),
            Test::Gte(t) => (t, false, false),
            _ => return None,
        };
        // Comparisons with NaN are false whichever way round they are; and `x <= inf` has no `<`.
        if t.is_nan() || (includes && t == f64::INFINITY) {
            return None;
        }
        let threshold =
            if includes { threshold::floor_single(t).next_up() } else { threshold::ceil_single(t) };
        Some(Self { threshold, smaller_is_yes, missing_is_smaller: missing_yes == smaller_is_yes })
    }

    /// The threshold to compare with, and whether the sign of the value is flipped before.
    pub(super) fn packed(self) -> Option<(f32, bool)> {
        if !self.missing_is_smaller {
            return Some((self.threshold, false));
        }
        // `x >= -inf` has no `-x < t`.
        (self.threshold > f32::NEG_INFINITY).then(|| ((-self.threshold).next_up(), true))
    }

    /// The second child is the one that a true comparison leads to.
    pub(super) const fn second_is_yes(self) -> bool {
        self.smaller_is_yes != self.missing_is_smaller
    }
}
