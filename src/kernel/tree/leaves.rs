//! What the leaves say, and how it is put together.

use std::fmt::Debug;

use super::forest::{Forest, ForestNode};
use super::threshold;

/// How the values of the trees for a target become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    Sum,
    Min,
    Max,
}

/// The number type of leaf weights and of what they are folded into.
pub(crate) trait Score:
    Copy + Debug + Default + PartialOrd + Send + Sync + std::ops::Add<Output = Self> + 'static
{
    const LOWEST: Self;
    const HIGHEST: Self;
    fn from_weight(weight: f64) -> Self;
    fn to_f64(self) -> f64;
    /// The number as the bits of an `f32`, where it is one.
    fn to_payload(self) -> Option<u32>;
    fn from_payload(payload: u32) -> Self;
}

impl Score for f32 {
    const LOWEST: Self = Self::NEG_INFINITY;
    const HIGHEST: Self = Self::INFINITY;
    #[expect(clippy::cast_possible_truncation, reason = "the weights of such an ensemble are f32")]
    fn from_weight(weight: f64) -> Self {
        weight as Self
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn to_payload(self) -> Option<u32> {
        Some(self.to_bits())
    }
    fn from_payload(payload: u32) -> Self {
        Self::from_bits(payload)
    }
}

impl Score for f64 {
    const LOWEST: Self = Self::NEG_INFINITY;
    const HIGHEST: Self = Self::INFINITY;
    fn from_weight(weight: f64) -> Self {
        weight
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn to_payload(self) -> Option<u32> {
        threshold::is_single(self).then(|| threshold::floor_single(self).to_bits())
    }
    fn from_payload(payload: u32) -> Self {
        Self::from(f32::from_bits(payload))
    }
}

/// The weights of all leaves, by the number of the leaf.
#[derive(Debug)]
pub(super) enum Leaves<S> {
    /// Each tree has one target: a value a leaf, and a target a tree.
    PerTree { values: Vec<S>, targets: Vec<u32> },
    /// Every leaf has a weight for every target: a row a leaf.
    Dense { values: Vec<S> },
    /// A leaf has weights for some targets.
    Sparse { ends: Vec<u32>, weights: Vec<(u32, S)> },
}

impl<S: Score> Leaves<S> {
    /// `None` where there are more leaves or weights than a `u32` counts.
    pub(super) fn new(forest: &Forest) -> Option<Self> {
        if let Some(targets) = one_target_each(forest) {
            let values = (0..forest.leaves.len())
                .map(|leaf| S::from_weight(forest.leaf(leaf).first().map_or(0.0, |(_, w)| *w)))
                .collect();
            return Some(Self::PerTree { values, targets });
        }
        let all = |leaf: &[(u32, f64)]| leaf.iter().map(|(t, _)| *t as usize).eq(0..forest.targets);
        if (0..forest.leaves.len()).all(|leaf| all(forest.leaf(leaf))) {
            let values = (0..forest.leaves.len())
                .flat_map(|leaf| forest.leaf(leaf).iter().map(|(_, w)| S::from_weight(*w)))
                .collect();
            return Some(Self::Dense { values });
        }
        let mut ends = Vec::with_capacity(forest.leaves.len());
        let mut weights = Vec::with_capacity(forest.weights.len());
        for leaf in 0..forest.leaves.len() {
            weights.extend(forest.leaf(leaf).iter().map(|(t, w)| (*t, S::from_weight(*w))));
            ends.push(u32::try_from(weights.len()).ok()?);
        }
        Some(Self::Sparse { ends, weights })
    }

    /// True where each leaf has just one weight, which is an `f32`.
    pub(super) fn are_inline(&self) -> bool {
        match self {
            Self::PerTree { values, .. } => values.iter().all(|value| value.to_payload().is_some()),
            Self::Dense { .. } | Self::Sparse { .. } => false,
        }
    }

    /// The bits of the only weight of a leaf, where [`Leaves::are_inline`].
    pub(super) fn payload(&self, leaf: usize) -> Option<u32> {
        match self {
            Self::PerTree { values, .. } => values.get(leaf)?.to_payload(),
            Self::Dense { .. } | Self::Sparse { .. } => None,
        }
    }

    /// The only target of a tree, where [`Leaves::are_inline`].
    #[inline]
    pub(super) fn target(&self, tree: usize) -> usize {
        match self {
            Self::PerTree { targets, .. } => targets.get(tree).map_or(0, |target| *target as usize),
            Self::Dense { .. } | Self::Sparse { .. } => 0,
        }
    }

    /// Folds the leaves at which as many rows ended in this tree into the rows of `scores`.
    #[inline(always)]
    pub(super) fn fold_rows(
        &self,
        fold: Fold,
        tree: usize,
        leaves: &[u32],
        scores: &mut [S],
        targets: usize,
    ) {
        if let (Self::PerTree { values, .. }, Fold::Sum, 1) = (self, fold, targets) {
            for (leaf, score) in leaves.iter().zip(scores) {
                *score = *score + values.get(*leaf as usize).copied().unwrap_or_default();
            }
            return;
        }
        for (leaf, scores) in leaves.iter().zip(scores.chunks_exact_mut(targets)) {
            self.fold_leaf(fold, tree, *leaf as usize, scores);
        }
    }

    /// Folds the leaves at which one row ended in the trees from `first` on into its scores.
    #[inline]
    pub(super) fn fold_trees(&self, fold: Fold, first: usize, leaves: &[u32], scores: &mut [S]) {
        if let (Self::PerTree { values, .. }, Fold::Sum, [score]) = (self, fold, &mut *scores) {
            for leaf in leaves {
                *score = *score + values.get(*leaf as usize).copied().unwrap_or_default();
            }
            return;
        }
        for (tree, leaf) in (first..).zip(leaves) {
            self.fold_leaf(fold, tree, *leaf as usize, scores);
        }
    }

    /// Folds one leaf of this tree into the scores of one row.
    #[inline]
    pub(super) fn fold_leaf(&self, fold: Fold, tree: usize, leaf: usize, scores: &mut [S]) {
        match self {
            Self::PerTree { values, targets } => {
                let target = targets.get(tree).map_or(0, |t| *t as usize);
                if let (Some(score), Some(value)) = (scores.get_mut(target), values.get(leaf)) {
                    fold.apply(score, *value);
                }
            }
            Self::Dense { values } => {
                let width = scores.len();
                let row = values.get(leaf * width..(leaf + 1) * width).unwrap_or(&[]);
                for (score, value) in scores.iter_mut().zip(row) {
                    fold.apply(score, *value);
                }
            }
            Self::Sparse { ends, weights } => {
                for (target, value) in weights.get(Self::span(ends, leaf)).unwrap_or(&[]) {
                    let target = *target as usize;
                    if let Some(score) = scores.get_mut(target) {
                        fold.apply(score, *value);
                    }
                }
            }
        }
    }

    /// Tells `weight` the target and the weight of each weight of a leaf of this tree.
    pub(super) fn visit(&self, tree: usize, leaf: usize, width: usize, mut weight: impl FnMut(usize, S)) {
        match self {
            Self::PerTree { values, targets } => {
                if let (Some(target), Some(value)) = (targets.get(tree), values.get(leaf)) {
                    weight(*target as usize, *value);
                }
            }
            Self::Dense { values } => {
                let row = values.get(leaf * width..(leaf + 1) * width).unwrap_or(&[]);
                row.iter().enumerate().for_each(|(target, value)| weight(target, *value));
            }
            Self::Sparse { ends, weights } => {
                let span = Self::span(ends, leaf);
                weights.get(span).unwrap_or(&[]).iter().for_each(|(t, value)| weight(*t as usize, *value));
            }
        }
    }

    /// Where the weights of a leaf are.
    fn span(ends: &[u32], leaf: usize) -> std::ops::Range<usize> {
        let end = |leaf: usize| ends.get(leaf).map_or(0, |e| *e as usize);
        leaf.checked_sub(1).map_or(0, end)..end(leaf)
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Self::PerTree { values, targets } => values.len() * size_of::<S>() + targets.len() * 4,
            Self::Dense { values } => values.len() * size_of::<S>(),
            Self::Sparse { ends, weights } => ends.len() * 4 + weights.len() * size_of::<(u32, S)>(),
        }
    }
}

impl Fold {
    /// What the scores are before the first tree.
    pub(super) const fn start<S: Score + Copy>(self, zero: S) -> S {
        match self {
            Self::Sum => zero,
            Self::Min => S::HIGHEST,
            Self::Max => S::LOWEST,
        }
    }

    #[inline]
    fn apply<S: Score>(self, score: &mut S, value: S) {
        match self {
            Self::Sum => *score = *score + value,
            Self::Min if value < *score => *score = value,
            Self::Max if value > *score => *score = value,
            Self::Min | Self::Max => {}
        }
    }
}

/// The target of each tree, where no tree has two and no leaf two weights; a tree whose leaves
/// are all empty counts for target 0 with weight 0, which only a sum can bear.
fn one_target_each(forest: &Forest) -> Option<Vec<u32>> {
    let mut targets = Vec::with_capacity(forest.trees.len());
    let starts = forest.trees.iter().map(|t| t.root as usize);
    let ends = starts.clone().skip(1).chain([forest.nodes.len()]);
    for (start, end) in starts.zip(ends) {
        let mut target = None;
        for node in forest.nodes.get(start..end)? {
            if let ForestNode::Leaf(leaf) = node {
                match forest.leaf(*leaf) {
                    [(t, _)] if target.is_none_or(|known| known == *t) => target = Some(*t),
                    _ => return None,
                }
            }
        }
        targets.push(target?);
    }
    Some(targets)
}
