//! The layout for small trees: all splits of a tree are tested for [`LANES`] rows at once.
//!
//! The leaves of a tree are the bits of a `u32`, those of a split's first child below those of its
//! second. A split that a row leaves by the second child clears the bits of the first; after all
//! splits the lowest bit that is left is the row's leaf (the idea of `QuickScorer`, Lucchese et al.,
//! SIGIR 2015). That is a compare and an `and` a split, without a branch, a dependent load or an
//! order, so the compiler makes vector instructions of it: for trees of up to 32 leaves that beats
//! walking by far. (Twice as many leaves in a `u64` do not: the comparisons have 32 bits a lane.)
//!
//! What a leaf says is then looked up row by row, which for the smallest trees takes longer than
//! their splits. So there it is chosen for all rows at once, leaf by leaf from the highest bit down.

use super::LANES;
use super::forest::{Forest, ForestNode};
use super::leaves::Score;
use super::less::Less;

/// Rows side by side: for each feature the values of [`LANES`] rows.
pub(super) type Block = [[f32; LANES]];

/// A number for each of the rows.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Lanes<S>(pub(super) [S; LANES]);

#[derive(Clone, Copy, Debug)]
struct Split {
    threshold: f32,
    /// The highest bit says whether the sign of the value is flipped.
    feature: u32,
    /// The leaves that stay where the comparison is true.
    keep: u32,
}

/// The splits of all trees, tree by tree.
#[derive(Debug)]
pub(super) struct Bits {
    splits: Vec<Split>,
    /// Of each tree where its splits end, and the number of its first leaf.
    trees: Vec<(u32, u32)>,
    flips: bool,
    width: usize,
}

const FLIP: u32 = 1 << 31;

/// Up to this many leaves are gone through for all rows rather than looked up row by row.
const CHOSEN: usize = 16;

impl Bits {
    /// `None` where a tree has more leaves than the word has bits, or a test is no comparison
    /// with `<`. The leaves of the forest get new numbers, in the order of the bits.
    pub(super) fn new(forest: &mut Forest) -> Option<Self> {
        let mut order = Vec::with_capacity(forest.leaves.len());
        let mut bits = Self {
            splits: Vec::with_capacity(forest.nodes.len() / 2),
            trees: Vec::with_capacity(forest.trees.len()),
            flips: false,
            width: forest.features,
        };
        for tree in &forest.trees {
            if tree.depth >= u32::BITS {
                return None;
            }
            let first = order.len();
            bits.add(forest, tree.root as usize, first, &mut order)?;
            bits.trees.push((u32::try_from(bits.splits.len()).ok()?, u32::try_from(first).ok()?));
        }
        forest.renumber_leaves(&order)?;
        Some(bits)
    }

    /// Adds a node and what is below it; the depth of the tree bounds the recursion.
    fn add(&mut self, forest: &Forest, node: usize, first: usize, order: &mut Vec<usize>) -> Option<()> {
        match forest.nodes.get(node)? {
            ForestNode::Leaf(leaf) => {
                order.push(*leaf);
                (order.len() - first <= u32::BITS as usize).then_some(())
            }
            ForestNode::Split { feature, test, missing_yes, child } => {
                let less = Less::of(test, *missing_yes)?;
                let (threshold, flip) = less.packed()?;
                self.flips |= flip;
                let [first_child, second_child] =
                    if less.second_is_yes() { [child + 1, *child] } else { [*child, child + 1] };
                let place = self.splits.len();
                let feature = feature | if flip { FLIP } else { 0 };
                self.splits.push(Split { threshold, feature, keep: 0 });
                let low = order.len() - first;
                self.add(forest, first_child, first, order)?;
                let high = order.len() - first;
                self.add(forest, second_child, first, order)?;
                // Fewer than all leaves are below the first child, so the shifts are in range.
                let below = |n: usize| Some((1_u32 << u32::try_from(n).ok()?) - 1);
                let (low, high) = (below(low)?, below(high)?);
                self.splits.get_mut(place)?.keep = !(high - low);
                Some(())
            }
        }
    }

    /// How many splits a tree has, on average.
    pub(super) const fn mean_splits(&self) -> usize {
        self.splits.len() / if self.trees.is_empty() { 1 } else { self.trees.len() }
    }

    pub(super) const fn width(&self) -> usize {
        self.width
    }

    /// Tells `leaves` of each tree in turn where the rows of the block end. `block` has at least
    /// [`Bits::width`] features.
    #[inline(always)]
    pub(super) fn for_each_tree(&self, block: &Block, mut leaves: impl FnMut(usize, &[u32; LANES])) {
        for (tree, (splits, first)) in self.trees().enumerate() {
            let left = self.left(splits, block);
            leaves(tree, &left.map(|left| first + left.trailing_zeros()));
        }
    }

    /// Adds what the leaves say where the rows of the block end, tree by tree: `payloads` has that of
    /// every leaf, `target` the only one of each tree.
    #[inline(always)]
    pub(super) fn sum<S: Score>(
        &self,
        block: &Block,
        payloads: &[u32],
        target: impl Fn(usize) -> usize,
        sums: &mut [Lanes<S>],
    ) {
        if let [sums] = sums {
            // In registers until the end.
            let mut all = sums.0;
            for (splits, first) in self.trees() {
                all = plus(all, self.said(splits, payloads.get(first as usize..), block));
            }
            sums.0 = all;
            return;
        }
        for (tree, (splits, first)) in self.trees().enumerate() {
            if let Some(sums) = sums.get_mut(target(tree)) {
                sums.0 = plus(sums.0, self.said(splits, payloads.get(first as usize..), block));
            }
        }
    }

    /// The splits of each tree and the number of its first leaf.
    #[inline(always)]
    fn trees(&self) -> impl Iterator<Item = (&[Split], u32)> {
        let mut start = 0;
        self.trees.iter().map(move |(end, first_leaf)| {
            let splits = self.splits.get(start..*end as usize).unwrap_or(&[]);
            start = *end as usize;
            (splits, *first_leaf)
        })
    }

    /// What the leaves say where the rows end in a tree, of whose leaves `own` begins with the payloads.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds")]
    fn said(&self, splits: &[Split], own: Option<&[u32]>, block: &Block) -> [u32; LANES] {
        let (left, own) = (self.left(splits, block), own.unwrap_or(&[]));
        // A tree has a leaf more than splits.
        if let Some([lower @ .., last]) = own.get(..=splits.len())
            && lower.len() < CHOSEN
        {
            return chosen(&left, lower, *last);
        }
        let mut said = [0; LANES];
        for lane in 0..LANES {
            said[lane] = own.get(left[lane].trailing_zeros() as usize).copied().unwrap_or(0);
        }
        said
    }

    /// The bits that the splits of a tree leave of its leaves.
    #[inline(always)]
    fn left(&self, splits: &[Split], block: &Block) -> [u32; LANES] {
        if self.flips { tested::<true>(splits, block) } else { tested::<false>(splits, block) }
    }

    pub(super) fn memory(&self) -> usize {
        self.splits.len() * size_of::<Split>() + self.trees.len() * 8
    }
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "features are below the width, by construction")]
fn tested<const FLIPS: bool>(splits: &[Split], block: &Block) -> [u32; LANES] {
    let mut left = [u32::MAX; LANES];
    for Split { threshold, feature, keep } in splits {
        let values = &block[if FLIPS { feature & !FLIP } else { *feature } as usize];
        let flip = if FLIPS { feature & FLIP } else { 0 };
        for (left, value) in left.iter_mut().zip(values) {
            let value = f32::from_bits(value.to_bits() ^ flip);
            // All bits where the comparison is false, without a branch.
            *left &= *keep | u32::from(value < *threshold).wrapping_sub(1);
        }
    }
    left
}

/// Of each row the payload of the lowest bit that is left, where `lower` has those of all but the
/// highest.
#[inline(always)]
fn chosen(left: &[u32; LANES], lower: &[u32], highest: u32) -> [u32; LANES] {
    let mut said = [highest; LANES];
    let mut bit = 1 << lower.len();
    for payload in lower.iter().rev() {
        bit >>= 1;
        for (said, left) in said.iter_mut().zip(left) {
            // All bits where this one is left.
            let is_left = u32::from(left & bit == 0).wrapping_sub(1);
            *said = (*said & !is_left) | (payload & is_left);
        }
    }
    said
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds")]
fn plus<S: Score>(mut sums: [S; LANES], said: [u32; LANES]) -> [S; LANES] {
    for lane in 0..LANES {
        sums[lane] = sums[lane] + S::from_payload(said[lane]);
    }
    sums
}
