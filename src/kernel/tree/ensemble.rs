//! An ensemble ready to be evaluated: trees in the layout that serves them best, and their leaves.

use smallvec::SmallVec;

use super::LANES;
use super::bits::Bits;
use super::builder::TreeError;
use super::forest::{Forest, ForestNode, ForestTree, Test};
use super::general::General;
use super::keyed::{self, Keyed};
use super::leaves::{Fold, Leaves, Score};
use super::threshold;
use super::wide::Wide;
use crate::load::RunError;

/// The most features for which rows are laid out side by side, on the stack.
pub(super) const BLOCK_FEATURES: usize = 128;

/// The values of the rows that are walked together fit in half of a first-level cache.
const BLOCK_VALUES: usize = 4096;

/// Trees, and how what their leaves say becomes the raw scores.
#[derive(Debug)]
pub(crate) struct Ensemble<S> {
    operator: &'static str,
    walk: Walk,
    trees: Vec<ForestTree>,
    pub(super) leaves: Leaves<S>,
    /// True where a [`Keyed`] walk ends with the weight of the leaf, not with its number.
    pub(super) inline: bool,
    pub(super) fold: Fold,
    /// What the scores of a row are before the first tree, one for each target.
    pub(super) start: Vec<S>,
    pub(super) targets: usize,
    /// One more than the highest feature that is tested, at least 1.
    features: usize,
    /// How an `f64` feature is made an `f32` so that every comparison stays what it was.
    rounding: Rounding,
}

/// What each leaf says, where that is the bits of one `f32`; else empty.
type Payloads = Vec<u32>;

#[derive(Debug)]
enum Walk {
    /// Small trees: all splits at once for many rows, a walk for few.
    Small(Bits, Payloads, Keyed),
    Keyed(Keyed),
    Wide(Wide),
    General(General),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rounding {
    Up,
    Down,
}

/// Which features an ensemble is to be evaluated on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Features {
    /// Only `f32`, so that `f64` thresholds can be rounded to them.
    F32,
    /// `f32` or `f64`.
    Any,
}

/// A row's features as they come.
pub(crate) trait Feature: Copy + Into<f64> + Default {
    /// These rows as `f32`, where they are.
    fn as_single(rows: &[Self]) -> Option<&[f32]>;
}

impl Feature for f32 {
    fn as_single(rows: &[Self]) -> Option<&[f32]> {
        Some(rows)
    }
}

impl Feature for f64 {
    fn as_single(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl<S: Score> Ensemble<S> {
    /// Lays out checked trees. `operator` names the ensemble in errors.
    ///
    /// # Errors
    /// Where there are more nodes, leaves or weights than a `u32` counts.
    pub(crate) fn new(
        operator: &'static str,
        mut forest: Forest,
        fold: Fold,
        features: Features,
    ) -> Result<Self, TreeError> {
        let size = TreeError::Size { nodes: forest.nodes.len(), targets: forest.targets };
        let rounding = forest.rounding();
        let single = features == Features::F32 || (forest.is_single_precision() && rounding.is_some());
        let bits = if single && forest.features <= BLOCK_FEATURES { Bits::new(&mut forest) } else { None };
        let leaves = Leaves::new(&forest).ok_or(size.clone())?;
        let inline = fold == Fold::Sum && leaves.are_inline();
        let payload = |leaf| if inline { leaves.payload(leaf) } else { u32::try_from(leaf).ok() };
        let keyed = if single { Keyed::new(&forest, payload) } else { None };
        let payloads = (0..forest.leaves.len()).map_while(|leaf| leaves.payload(leaf).filter(|_| inline));
        let walk = match (bits, keyed) {
            (Some(bits), Some(keyed)) => Some(Walk::Small(bits, payloads.collect(), keyed)),
            (None, Some(keyed)) => Some(Walk::Keyed(keyed)),
            _ if single => Wide::new(&forest).map(Walk::Wide),
            _ => None,
        };
        let walk = walk.or_else(|| General::new(&forest).map(Walk::General)).ok_or(size)?;
        Ok(Self {
            operator,
            walk,
            trees: forest.trees,
            leaves,
            inline,
            fold,
            start: vec![fold.start(S::default()); forest.targets],
            targets: forest.targets,
            features: forest.features.max(1),
            rounding: rounding.unwrap_or(Rounding::Up),
        })
    }

    /// The same ensemble with sums that begin at these values, one for each target.
    pub(crate) fn starting_at(self, start: Vec<S>) -> Self {
        debug_assert_eq!(start.len(), self.targets);
        Self { start, ..self }
    }

    pub(crate) const fn targets(&self) -> usize {
        self.targets
    }

    pub(crate) fn memory(&self) -> usize {
        let walk = match &self.walk {
            Walk::Small(bits, payloads, walk) => bits.memory() + payloads.len() * 4 + walk.memory(),
            Walk::Keyed(walk) => walk.memory(),
            Walk::Wide(walk) => walk.memory(),
            Walk::General(walk) => walk.memory(),
        };
        walk + self.leaves.memory() + self.trees.len() * size_of::<ForestTree>()
    }

    /// The raw scores of rows of `width` values, `targets` a row. A target that no leaf has a
    /// weight for scores 0.
    ///
    /// # Errors
    /// Where a row has fewer values than the trees have features.
    pub(crate) fn evaluate<X: Feature>(
        &self,
        rows: &[X],
        width: usize,
        scores: &mut [S],
    ) -> Result<(), RunError> {
        if width < self.features {
            return Err(RunError::Width { operator: self.operator, expected: self.features, found: width });
        }
        for scores in scores.chunks_mut(self.targets) {
            scores.iter_mut().zip(&self.start).for_each(|(score, start)| *score = *start);
        }
        match (&self.walk, X::as_single(rows)) {
            (Walk::General(walk), _) => self.blocks(walk, rows, width, scores),
            (walk, Some(rows)) => self.single(walk, rows, width, scores),
            (walk, None) => {
                let narrowed: SmallVec<[f32; 512]> =
                    rows.iter().map(|value| self.rounding.narrow((*value).into())).collect();
                self.single(walk, &narrowed, width, scores);
            }
        }
        if self.fold != Fold::Sum {
            let start = self.fold.start(S::default());
            scores.iter_mut().filter(|s| **s == start).for_each(|s| *s = S::default());
        }
        Ok(())
    }

    /// Tells `leaf` the target and the weight of every leaf weight that a row reaches, in the order
    /// of the trees. Slower than [`Ensemble::evaluate`]; for leaves whose weight is not to be
    /// summed.
    ///
    /// # Errors
    /// Where the row has fewer values than the trees have features.
    pub(crate) fn visit(&self, row: &[f32], mut leaf: impl FnMut(usize, S)) -> Result<(), RunError> {
        if row.len() < self.features {
            let found = row.len();
            return Err(RunError::Width { operator: self.operator, expected: self.features, found });
        }
        let mut tell = |first: usize, ends: &[u32]| {
            for (tree, end) in (first..).zip(ends) {
                if self.inline {
                    leaf(self.leaves.target(tree), S::from_payload(*end));
                } else {
                    self.leaves.visit(tree, *end as usize, self.targets, &mut leaf);
                }
            }
        };
        let mut leaves = [0; LANES];
        match &self.walk {
            Walk::Small(.., walk) | Walk::Keyed(walk) => walk.row(&self.trees, row, tell),
            other => {
                for (group, trees) in self.trees.chunks(LANES).enumerate() {
                    match other {
                        Walk::Wide(walk) => walk.trees(trees, row, &mut leaves),
                        Walk::General(walk) => walk.trees(trees, row, &mut leaves),
                        Walk::Small(..) | Walk::Keyed(_) => {}
                    }
                    tell(group * LANES, leaves.get(..trees.len()).unwrap_or(&leaves));
                }
            }
        }
        Ok(())
    }

    fn single(&self, walk: &Walk, rows: &[f32], width: usize, scores: &mut [S]) {
        match walk {
            Walk::Small(bits, payloads, walk) => self.bits((bits, payloads, walk), rows, width, scores),
            Walk::Keyed(walk) => self.keyed(walk, rows, width, scores),
            Walk::Wide(walk) => self.blocks(walk, rows, width, scores),
            Walk::General(walk) => self.blocks(walk, rows, width, scores),
        }
    }

    /// Walks full groups of rows tree by tree, so that a tree is in the cache for all of them, and
    /// the rest row by row through several trees at once. Either way the leaves of a row are folded
    /// in the order of the trees, so that a row's score does not depend on the batch it is in.
    pub(super) fn keyed(&self, walk: &Keyed, rows: &[f32], width: usize, scores: &mut [S]) {
        let targets = self.targets;
        let full = if walk.takes_rows() { scores.len() / targets / keyed::ROWS * keyed::ROWS } else { 0 };
        let (grouped, rest) = rows.split_at_checked(full * width).unwrap_or((&[], rows));
        let (grouped_scores, rest_scores) = scores.split_at_mut_checked(full * targets).unwrap_or_default();
        if full > 0 {
            walk.rows(&self.trees, grouped, width, |row, tree, ends| {
                let scores = grouped_scores.get_mut(row * targets..).unwrap_or_default();
                if self.inline {
                    let target = if targets > 1 { self.leaves.target(tree) } else { 0 };
                    for (end, score) in ends.iter().zip(scores.iter_mut().skip(target).step_by(targets)) {
                        *score = *score + S::from_payload(*end);
                    }
                } else {
                    self.leaves.fold_rows(self.fold, tree, ends, scores, targets);
                }
            });
        }
        for (row, scores) in rest.chunks_exact(width).zip(rest_scores.chunks_exact_mut(targets)) {
            self.keyed_row(walk, row, scores);
        }
    }

    #[inline]
    fn keyed_row(&self, walk: &Keyed, row: &[f32], scores: &mut [S]) {
        match scores {
            [score] if self.inline => walk.row(&self.trees, row, |_, ends| {
                for end in ends {
                    *score = *score + S::from_payload(*end);
                }
            }),
            scores if self.inline => walk.row(&self.trees, row, |first, ends| {
                for (tree, end) in (first..).zip(ends) {
                    if let Some(score) = scores.get_mut(self.leaves.target(tree)) {
                        *score = *score + S::from_payload(*end);
                    }
                }
            }),
            scores => walk.row(&self.trees, row, |first, ends| {
                self.leaves.fold_trees(self.fold, first, ends, scores);
            }),
        }
    }

    /// As [`Ensemble::keyed`], for the other layouts.
    fn blocks<X, W: Walker<X>>(&self, walk: &W, rows: &[X], width: usize, scores: &mut [S]) {
        let block = (BLOCK_VALUES / width / LANES).max(1) * LANES;
        for (rows, scores) in rows.chunks(block * width).zip(scores.chunks_mut(block * self.targets)) {
            self.block(walk, rows, width, scores);
        }
    }

    fn block<X, W: Walker<X>>(&self, walk: &W, rows: &[X], width: usize, scores: &mut [S]) {
        let targets = self.targets;
        let mut leaves = [0; LANES];
        let full = rows.len() / (LANES * width);
        let (grouped, rest) = rows.split_at(full * LANES * width);
        let (grouped_scores, rest_scores) = scores.split_at_mut(full * LANES * targets);
        if full > 0 {
            for (index, tree) in self.trees.iter().enumerate() {
                let groups = grouped.chunks_exact(LANES * width);
                for (rows, scores) in groups.zip(grouped_scores.chunks_exact_mut(LANES * targets)) {
                    walk.rows(*tree, rows, width, &mut leaves);
                    self.leaves.fold_rows(self.fold, index, &leaves, scores, targets);
                }
            }
        }
        for (row, scores) in rest.chunks_exact(width).zip(rest_scores.chunks_exact_mut(targets)) {
            for (group, trees) in self.trees.chunks(LANES).enumerate() {
                walk.trees(trees, row, &mut leaves);
                let leaves = leaves.get(..trees.len()).unwrap_or(&leaves);
                self.leaves.fold_trees(self.fold, group * LANES, leaves, scores);
            }
        }
    }
}

/// One of the layouts.
trait Walker<X> {
    fn rows(&self, tree: ForestTree, rows: &[X], width: usize, leaves: &mut [u32; LANES]);
    fn trees(&self, trees: &[ForestTree], row: &[X], leaves: &mut [u32; LANES]);
}

impl Walker<f32> for Wide {
    fn rows(&self, tree: ForestTree, rows: &[f32], width: usize, leaves: &mut [u32; LANES]) {
        self.rows(tree, rows, width, leaves);
    }
    fn trees(&self, trees: &[ForestTree], row: &[f32], leaves: &mut [u32; LANES]) {
        self.trees(trees, row, leaves);
    }
}

impl<X: Copy + Into<f64>> Walker<X> for General {
    fn rows(&self, tree: ForestTree, rows: &[X], width: usize, leaves: &mut [u32; LANES]) {
        self.rows(tree, rows, width, leaves);
    }
    fn trees(&self, trees: &[ForestTree], row: &[X], leaves: &mut [u32; LANES]) {
        self.trees(trees, row, leaves);
    }
}

impl Rounding {
    fn narrow(self, value: f64) -> f32 {
        match self {
            Self::Up => threshold::ceil_single(value),
            Self::Down => threshold::floor_single(value),
        }
    }
}

impl Forest {
    /// `x <= t` holds for an `f32` threshold just where it holds for `x` rounded up, and `x < t`
    /// where it holds for `x` rounded down; `None` where there are both kinds, or others.
    fn rounding(&self) -> Option<Rounding> {
        let mut all = None;
        for node in &self.nodes {
            let ForestNode::Split { test, .. } = node else { continue };
            let one = match test {
                Test::Leq(_) | Test::Gt(_) => Rounding::Up,
                Test::Lt(_) | Test::Gte(_) => Rounding::Down,
                _ => return None,
            };
            if *all.get_or_insert(one) != one {
                return None;
            }
        }
        all.or(Some(Rounding::Up))
    }
}
