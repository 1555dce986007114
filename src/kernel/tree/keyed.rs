//! The layout for speed: a node takes 8 bytes, and a step is a comparison of two whole numbers.
//!
//! A walk is a chain of dependent loads, so several go side by side, of as many rows or of as many
//! trees, and nothing in them branches: a leaf is a node that leads back to itself, so all lanes
//! take the same number of steps, and only every few steps one looks whether any lane still moves.
//!
//! What a step costs is its instructions, not its loads. So values and thresholds are [`keys`], and
//! the indices are masked to arrays of a fixed size, which the compiler need not check: the checks
//! themselves are cheap, but what they keep from being reordered is not. The nodes are filled up to
//! the next of a few sizes, with memory that nothing touches.

use super::forest::{Forest, ForestNode, ForestTree};
use super::keys::{self, MAX_SLOTS, Slots};
use super::less::{self, Less};

/// How many rows are walked through a tree side by side, see [`Keyed::rows`].
pub(super) const ROWS: usize = 8;

/// How many trees a row is walked through side by side. As many as the registers hold; and the
/// numbers of trees that people choose are multiples of ten.
pub(super) const TREES: usize = 10;

/// How many steps are taken before one looks whether a lane still moves.
const STRIDE: u32 = 4;

/// The sizes that the nodes are filled up to; the place of a child has twenty bits.
const SIZES: [usize; 4] = [1 << 12, 1 << 15, 1 << 17, MAX_NODES];
const MAX_NODES: usize = 1 << 20;

/// The bits of a node: the key of the threshold or the payload of a leaf, the place of the first
/// child or that of the leaf itself, the slot of the feature or that which holds [`u32::MAX`].
const PLACE_BITS: u32 = 20;
const SLOT_BITS: u32 = 12;
const _: () = assert!(MAX_SLOTS == 1 << SLOT_BITS && MAX_NODES == 1 << PLACE_BITS);

/// The nodes of all trees, each tree breadth first.
#[derive(Debug)]
pub(super) struct Keyed {
    nodes: Vec<u64>,
    slots: Slots,
    /// The depth of the deepest of each [`TREES`] trees.
    depths: Vec<u32>,
}

impl Keyed {
    /// `payload` says for each leaf, by its number, what [`Keyed::rows`] and [`Keyed::row`] are to
    /// tell of it. `None` where a test cannot be said as `x < t`, or something does not fit.
    pub(super) fn new(forest: &Forest, payload: impl Fn(usize) -> Option<u32>) -> Option<Self> {
        let slots = Slots::new(forest)?;
        let size = SIZES.into_iter().find(|size| *size >= forest.nodes.len())?;
        // Memory that comes zeroed, and is not touched for that.
        let mut nodes = vec![0_u64; size];
        for (node, place) in forest.nodes.iter().zip(less::places(forest)?) {
            *nodes.get_mut(place)? = match node {
                ForestNode::Leaf(leaf) => packed(payload(*leaf)?, place, 0)?,
                ForestNode::Split { feature, test, missing_yes, child } => {
                    let (threshold, flip) = Less::of(test, *missing_yes)?.packed()?;
                    packed(keys::key(threshold), *child, slots.of(*feature, flip)?)?
                }
            };
        }
        let deepest = |trees: &[ForestTree]| trees.iter().map(|tree| tree.depth).max().unwrap_or(0);
        let depths = forest.trees.chunks(TREES).map(deepest).collect();
        Some(Self { nodes, slots, depths })
    }

    /// True where [`Keyed::rows`] pays: for features beyond this the keys of several rows do not fit
    /// in a first-level cache.
    pub(super) const fn takes_rows(&self) -> bool {
        self.slots.count() <= 256
    }

    /// Tells `leaves` for every [`ROWS`] rows and every tree the first of the rows, the tree and the
    /// payloads of the leaves at which the rows end. There are a multiple of [`ROWS`] rows, `width`
    /// values each, and `width` is above every feature.
    pub(super) fn rows(
        &self,
        trees: &[ForestTree],
        rows: &[f32],
        width: usize,
        leaves: impl FnMut(usize, usize, &[u32; ROWS]),
    ) {
        // Many rows at a time, so that a tree is in the cache for all of them, and as few as make
        // half of a first-level cache.
        if self.slots.count() <= 64 {
            self.rows_of::<64, 64>(trees, rows, width, leaves);
        } else {
            self.rows_of::<256, 16>(trees, rows, width, leaves);
        }
    }

    /// Tells `leaves` for every [`TREES`] trees, the last time for those that are left, the first of
    /// them and the payloads of the leaves at which the row ends.
    pub(super) fn row(&self, trees: &[ForestTree], row: &[f32], leaves: impl FnMut(usize, &[u32])) {
        match self.slots.count() {
            ..=64 => self.row_of::<64>(trees, row, leaves),
            65..=256 => self.row_of::<256>(trees, row, leaves),
            _ => self.row_of::<MAX_SLOTS>(trees, row, leaves),
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.nodes.len() * size_of::<u64>() + self.slots.memory()
    }

    fn rows_of<const SLOTS: usize, const BLOCK: usize>(
        &self,
        trees: &[ForestTree],
        rows: &[f32],
        width: usize,
        leaves: impl FnMut(usize, usize, &[u32; ROWS]),
    ) {
        match self.nodes.len() {
            0x1000 => self.sized_rows::<0x1000, SLOTS, BLOCK>(trees, rows, width, leaves),
            0x8000 => self.sized_rows::<0x8000, SLOTS, BLOCK>(trees, rows, width, leaves),
            0x2_0000 => self.sized_rows::<0x2_0000, SLOTS, BLOCK>(trees, rows, width, leaves),
            _ => self.sized_rows::<MAX_NODES, SLOTS, BLOCK>(trees, rows, width, leaves),
        }
    }

    #[inline(never)]
    fn sized_rows<const SIZE: usize, const SLOTS: usize, const BLOCK: usize>(
        &self,
        trees: &[ForestTree],
        rows: &[f32],
        width: usize,
        mut leaves: impl FnMut(usize, usize, &[u32; ROWS]),
    ) {
        let Some(nodes) = self.nodes.first_chunk::<SIZE>() else { return };
        let mut block = [[0; SLOTS]; BLOCK];
        for (index, rows) in rows.chunks(BLOCK * width).enumerate() {
            let mut count = 0;
            for (row, slots) in rows.chunks_exact(width).zip(&mut block) {
                self.slots.fill(row, slots);
                count += 1;
            }
            let block = block.get(..count).unwrap_or(&block).as_chunks::<ROWS>().0;
            for (tree, ForestTree { root, depth }) in trees.iter().enumerate() {
                for (group, keys) in block.iter().enumerate() {
                    let ends = walk(nodes, [*root; ROWS], *depth, |lane, slot| key_of(keys, lane, slot));
                    leaves(index * BLOCK + group * ROWS, tree, &ends);
                }
            }
        }
    }

    fn row_of<const SLOTS: usize>(
        &self,
        trees: &[ForestTree],
        row: &[f32],
        leaves: impl FnMut(usize, &[u32]),
    ) {
        match self.nodes.len() {
            0x1000 => self.sized_row::<0x1000, SLOTS>(trees, row, leaves),
            0x8000 => self.sized_row::<0x8000, SLOTS>(trees, row, leaves),
            0x2_0000 => self.sized_row::<0x2_0000, SLOTS>(trees, row, leaves),
            _ => self.sized_row::<MAX_NODES, SLOTS>(trees, row, leaves),
        }
    }

    #[inline(never)]
    fn sized_row<const SIZE: usize, const SLOTS: usize>(
        &self,
        trees: &[ForestTree],
        row: &[f32],
        mut leaves: impl FnMut(usize, &[u32]),
    ) {
        let Some(nodes) = self.nodes.first_chunk::<SIZE>() else { return };
        let mut keys = [0; SLOTS];
        self.slots.fill(row, &mut keys);
        let keys = [keys];
        let (groups, rest) = trees.as_chunks::<TREES>();
        let mut depths = self.depths.iter().copied();
        for ((group, trees), depth) in groups.iter().enumerate().zip(&mut depths) {
            let roots = trees.map(|tree| tree.root);
            leaves(group * TREES, &walk(nodes, roots, depth, |_, slot| key_of(&keys, 0, slot)));
        }
        if let (Some(first), Some(depth)) = (rest.first(), depths.next()) {
            let mut roots = [first.root; TREES];
            roots.iter_mut().zip(rest).for_each(|(root, tree)| *root = tree.root);
            let ends = walk(nodes, roots, depth, |_, slot| key_of(&keys, 0, slot));
            leaves(groups.len() * TREES, ends.get(..rest.len()).unwrap_or(&ends));
        }
    }
}

/// The payloads of the leaves at which the walks from these nodes end, after at most `depth` steps.
/// `key` answers the key of a lane in a slot.
#[inline(always)]
#[expect(
    clippy::indexing_slicing,
    clippy::needless_range_loop,
    reason = "the lanes are those of arrays, the nodes are masked"
)]
fn walk<const SIZE: usize, const LANES: usize>(
    nodes: &[u64; SIZE],
    mut at: [u32; LANES],
    depth: u32,
    key: impl Fn(usize, usize) -> u32,
) -> [u32; LANES] {
    let node = |at: u32| nodes[at as usize & (SIZE - 1)];
    let step = |lane: usize, at: u32| {
        let node = node(at);
        let key = key(lane, slot(node));
        child(node) + u32::from(key < threshold(node))
    };
    let mut steps = depth;
    while steps > STRIDE {
        for _ in 1..STRIDE {
            for lane in 0..LANES {
                at[lane] = step(lane, at[lane]);
            }
        }
        let mut moved = 0;
        for lane in 0..LANES {
            let next = step(lane, at[lane]);
            moved |= next ^ at[lane];
            at[lane] = next;
        }
        steps = if moved == 0 { 0 } else { steps - STRIDE };
    }
    for _ in 0..steps {
        for lane in 0..LANES {
            at[lane] = step(lane, at[lane]);
        }
    }
    at.map(|at| threshold(node(at)))
}

/// The key of a row in a slot.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the rows are those of an array, the slots are masked")]
const fn key_of<const SLOTS: usize, const ROWS: usize>(
    keys: &[[u32; SLOTS]; ROWS],
    row: usize,
    slot: usize,
) -> u32 {
    keys[row][slot & (SLOTS - 1)]
}

/// A node, or `None` where something does not fit.
fn packed(threshold: u32, child: usize, slot: usize) -> Option<u64> {
    let fits = child < MAX_NODES && slot < MAX_SLOTS;
    fits.then(|| u64::from(threshold) << 32 | (child as u64) << SLOT_BITS | slot as u64)
}

#[inline(always)]
const fn threshold(node: u64) -> u32 {
    (node >> 32) as u32
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn child(node: u64) -> u32 {
    node as u32 >> SLOT_BITS
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lowest bits are meant")]
const fn slot(node: u64) -> usize {
    node as usize & (MAX_SLOTS - 1)
}
