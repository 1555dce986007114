//! Tests of all kinds as `x < t` on an `f32`.
//!
//! - `x <= t` is `x < t'`, with `t'` the next `f32` above; `>` and `>=` have their children swapped.
//! - The children of a node lie side by side, and a true comparison goes to the second one. NaN
//!   compares false, so it goes to the first. Where NaN has to go with the smaller values, these
//!   come first, and the test is turned over: `x >= t` is `-x < t''`, with the sign of `x` flipped.

use super::forest::{Forest, ForestNode, Test};
use super::threshold;

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

/// Where each node of the forest lies once a true comparison leads to the second child, or `None`
/// where a test cannot be said as `x < t`.
pub(super) fn places(forest: &Forest) -> Option<Vec<usize>> {
    let mut places: Vec<usize> = (0..forest.nodes.len()).collect();
    for node in &forest.nodes {
        // `yes` comes first in the forest; here it depends on the test.
        if let ForestNode::Split { test, missing_yes, child, .. } = node
            && Less::of(test, *missing_yes)?.second_is_yes()
            && let Some([first, second]) = places.get_mut(*child..*child + 2)
        {
            std::mem::swap(first, second);
        }
    }
    Some(places)
}
