//! The features of a row as whole numbers in the order of the floats: a test on them is one
//! comparison of two registers, and NaN is a number like any other, above all thresholds.

use super::forest::{Forest, ForestNode};
use super::less::Less;

/// The most slots that there may be: a node has twelve bits for them.
pub(super) const MAX_SLOTS: usize = 1 << 12;

/// As many slots can be filled in one pass over the row, whether or not each is used.
const DENSE_SLOTS: usize = 256;

/// Which key stands in which slot. Slot 0 holds what nothing is above, for the leaves.
#[derive(Debug, PartialEq)]
pub(super) enum Slots {
    /// Those of all features, and then of all with their signs flipped.
    Dense { features: usize, flips: bool },
    /// Features and whether their signs are flipped, ascending.
    Listed(Vec<(u32, bool)>),
}

impl Slots {
    /// The slots that a forest needs, or `None` where they are too many.
    pub(super) fn new(forest: &Forest) -> Option<Self> {
        let mut used = Vec::new();
        for node in &forest.nodes {
            if let ForestNode::Split { feature, test, missing_yes, .. } = node {
                used.push((*feature, Less::of(test, *missing_yes)?.packed()?.1));
            }
        }
        used.sort_unstable();
        used.dedup();
        let flips = used.iter().any(|(_, flip)| *flip);
        let dense = forest.features * if flips { 2 } else { 1 };
        if dense < DENSE_SLOTS {
            return Some(Self::Dense { features: forest.features, flips });
        }
        (used.len() < MAX_SLOTS).then_some(Self::Listed(used))
    }

    /// How many there are, slot 0 among them.
    pub(super) const fn count(&self) -> usize {
        match self {
            Self::Dense { features, flips } => 1 + *features * if *flips { 2 } else { 1 },
            Self::Listed(used) => 1 + used.len(),
        }
    }

    /// The slot of a feature.
    pub(super) fn of(&self, feature: u32, flip: bool) -> Option<usize> {
        match self {
            Self::Dense { features, .. } => Some(1 + feature as usize + if flip { *features } else { 0 }),
            Self::Listed(used) => used.binary_search(&(feature, flip)).ok().map(|slot| 1 + slot),
        }
    }

    /// Writes the keys of a row, which has all features, into as many slots as there are.
    #[inline]
    pub(super) fn fill(&self, row: &[f32], slots: &mut [u32]) {
        let Some((leaves, slots)) = slots.split_first_mut() else { return };
        *leaves = u32::MAX;
        match self {
            Self::Dense { features, flips } => {
                let row = row.get(..*features).unwrap_or(row);
                for (slot, value) in slots.iter_mut().zip(row) {
                    *slot = key(*value);
                }
                if *flips {
                    for (slot, value) in slots.iter_mut().skip(*features).zip(row) {
                        *slot = key(-*value);
                    }
                }
            }
            Self::Listed(used) => {
                for (slot, (feature, flip)) in slots.iter_mut().zip(used) {
                    let value = row.get(*feature as usize).copied().unwrap_or(f32::NAN);
                    *slot = key(if *flip { -value } else { value });
                }
            }
        }
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Dense { .. } => 0,
            Self::Listed(used) => used.len() * size_of::<(u32, bool)>(),
        }
    }
}

/// A number that is below another where the value is below the other's; the largest of all for NaN.
#[inline(always)]
pub(super) fn key(value: f32) -> u32 {
    // Both zeros are one value.
    let bits = (value + 0.0).to_bits();
    let negative = if bits >> 31 == 1 { u32::MAX } else { 1 << 31 };
    if value.is_nan() { u32::MAX } else { bits ^ negative }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_the_values() {
        let ascending = [f32::NEG_INFINITY, f32::MIN, -1.0, -1e-45, 0.0, 1e-45, 1.0, f32::MAX, f32::INFINITY];
        assert!(ascending.is_sorted_by(|a, b| key(*a) < key(*b)));
        assert_eq!(key(-0.0), key(0.0));
    }

    #[test]
    fn nan_of_any_sign_is_above_all() {
        assert_eq!([key(f32::NAN), key(-f32::NAN)], [u32::MAX; 2]);
        assert!(key(f32::INFINITY) < u32::MAX);
    }

    #[test]
    fn flipped_features_stand_behind_the_others() {
        let slots = Slots::Dense { features: 2, flips: true };
        let mut filled = [0; 5];
        slots.fill(&[1.0, f32::NAN, 7.0], &mut filled);
        assert_eq!(filled, [u32::MAX, key(1.0), u32::MAX, key(-1.0), u32::MAX]);
        assert_eq!((slots.of(1, false), slots.of(0, true), slots.count()), (Some(2), Some(3), 5));
        let listed = Slots::Listed(vec![(1, false), (2, true)]);
        listed.fill(&[1.0, f32::NAN, 7.0], &mut filled);
        assert_eq!(filled[..3], [u32::MAX, u32::MAX, key(-7.0)]);
        assert_eq!((listed.of(2, true), listed.of(0, false), listed.count()), (Some(2), None, 3));
    }
}
