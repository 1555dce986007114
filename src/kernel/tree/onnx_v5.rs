//! `TreeEnsemble`, since version 5 of `ai.onnx.ml`, from its attributes.

use super::builder::{Builder, MAX_TARGETS, Name, Test};
use super::leaves::Fold;
use super::numbers::numbers;
use super::onnx::{Aggregate, finish};
use super::operator::{Columns, TreeOperator};
use super::sets::Set;
use crate::kernel::transform::PostTransform;
use crate::kernel::{Attributes, BuildError};

const MEMBER: u8 = 6;

/// A `TreeEnsemble`.
pub(super) fn ensemble(attributes: &Attributes) -> Result<TreeOperator, BuildError> {
    let nodes = Nodes::read(attributes)?;
    let targets = attributes.int("n_targets")?.unwrap_or(1);
    let targets = usize::try_from(targets)
        .ok()
        .filter(|t| *t > 0 && *t <= MAX_TARGETS)
        .ok_or_else(|| BuildError::invalid(format!("n_targets: {targets} is out of range")))?;
    let aggregate = match attributes.int("aggregate_function")?.unwrap_or(1) {
        0 => Aggregate { fold: Fold::Sum, average: true },
        1 => Aggregate { fold: Fold::Sum, average: false },
        2 => Aggregate { fold: Fold::Min, average: false },
        3 => Aggregate { fold: Fold::Max, average: false },
        other => {
            return Err(BuildError::invalid(format!("aggregate_function: expected 0 to 3, found {other}")));
        }
    };
    let transform = PostTransform::from_number(attributes.int("post_transform")?.unwrap_or(0))?;
    let invalid = |error: super::builder::TreeError| BuildError::invalid(error.to_string());
    let forest = nodes.build()?.finish(targets).map_err(invalid)?;
    let name = "TreeEnsemble";
    let operator = finish(name, forest, aggregate, nodes.double, Vec::new(), transform, Columns::AsTargets)?;
    Ok(TreeOperator { scores_as_input: true, ..operator })
}

/// The attributes: inner nodes and leaves have lists of their own.
struct Nodes<'a> {
    roots: &'a [i64],
    features: &'a [i64],
    yes: &'a [i64],
    no: &'a [i64],
    yes_is_leaf: &'a [i64],
    no_is_leaf: &'a [i64],
    missing: &'a [i64],
    modes: Vec<u8>,
    thresholds: Vec<f64>,
    members: Vec<Vec<f64>>,
    targets: &'a [i64],
    weights: Vec<f64>,
    double: bool,
}

impl<'a> Nodes<'a> {
    fn read(attributes: &'a Attributes) -> Result<Self, BuildError> {
        let tensor = |name: &str| {
            attributes.tensor(name)?.ok_or_else(|| BuildError::invalid(format!("no attribute `{name}`")))
        };
        let modes = tensor("nodes_modes")?;
        let modes = modes.values::<u8>().ok_or_else(|| {
            BuildError::invalid(format!("nodes_modes: expected u8, found {}", modes.element_type()))
        })?;
        let (thresholds, double_thresholds) = numbers("nodes_splits", tensor("nodes_splits")?)?;
        let (weights, double_weights) = numbers("leaf_weights", tensor("leaf_weights")?)?;
        let members = match attributes.tensor("membership_values")? {
            Some(values) => numbers("membership_values", values)?.0,
            None => Vec::new(),
        };
        let nodes = Self {
            roots: attributes.ints("tree_roots")?,
            features: attributes.ints("nodes_featureids")?,
            yes: attributes.ints("nodes_truenodeids")?,
            no: attributes.ints("nodes_falsenodeids")?,
            yes_is_leaf: attributes.ints("nodes_trueleafs")?,
            no_is_leaf: attributes.ints("nodes_falseleafs")?,
            missing: attributes.ints("nodes_missing_value_tracks_true")?,
            modes: modes.to_vec(),
            thresholds,
            members: split_members(&members),
            targets: attributes.ints("leaf_targetids")?,
            weights,
            double: double_thresholds || double_weights,
        };
        nodes.check()?;
        Ok(nodes)
    }

    fn check(&self) -> Result<(), BuildError> {
        let expected = self.modes.len();
        for (name, found) in [
            ("nodes_splits", self.thresholds.len()),
            ("nodes_featureids", self.features.len()),
            ("nodes_truenodeids", self.yes.len()),
            ("nodes_falsenodeids", self.no.len()),
            ("nodes_trueleafs", self.yes_is_leaf.len()),
            ("nodes_falseleafs", self.no_is_leaf.len()),
            (
                "nodes_missing_value_tracks_true",
                if self.missing.is_empty() { expected } else { self.missing.len() },
            ),
        ] {
            if expected != found {
                return Err(BuildError::invalid(format!(
                    "{name}: expected {expected} values, found {found}"
                )));
            }
        }
        if self.targets.len() != self.weights.len() {
            return Err(BuildError::invalid(format!(
                "leaf_weights: expected {} values, found {}",
                self.targets.len(),
                self.weights.len()
            )));
        }
        let sets: usize = self.modes.iter().map(|mode| usize::from(*mode == MEMBER)).sum();
        // A last delimiter is usual, and makes no further set.
        if self.members.len() != sets {
            return Err(BuildError::invalid(format!(
                "membership_values: expected {sets} sets, found {}",
                self.members.len()
            )));
        }
        if self.roots.is_empty() {
            return Err(BuildError::invalid("tree_roots: expected at least one, found none"));
        }
        Ok(())
    }

    /// Inner nodes first, then a leaf of its own for each reference: two nodes may name the same
    /// leaf, and a tree that is one leaf is a node with twice the same.
    fn build(&self) -> Result<Builder, BuildError> {
        let inner = self.modes.len();
        let mut builder = Builder::with_capacity(inner * 2);
        let mut leaves = Vec::new();
        let mut sets = self.members.iter();
        let tests = self.modes.iter().zip(&self.thresholds).zip(self.features);
        let yes = self.yes.iter().zip(self.yes_is_leaf);
        let no = self.no.iter().zip(self.no_is_leaf);
        let names = self.names();
        for (at, (((mode, threshold), feature), (yes, no))) in tests.zip(yes.zip(no)).enumerate() {
            let name = names.get(at).copied().unwrap_or_default();
            let t = *threshold;
            let test = match *mode {
                0 => Test::Leq(t),
                1 => Test::Lt(t),
                2 => Test::Gte(t),
                3 => Test::Gt(t),
                4 => Test::Eq(t),
                5 => Test::Neq(t),
                MEMBER => {
                    let values = sets.next().map(Vec::as_slice).unwrap_or_default();
                    let set = Set::from_values(values.iter().copied());
                    Test::Member(builder.set(set).map_err(|e| BuildError::invalid(e.to_string()))?)
                }
                other => return Err(BuildError::invalid(format!("{name}: unknown mode {other}"))),
            };
            let mut child = |(child, is_leaf): (&i64, &i64)| {
                let missing = || BuildError::invalid(format!("{name}: child {child} is not there"));
                let limit = if *is_leaf == 0 { inner } else { self.targets.len() };
                let child = usize::try_from(*child).ok().filter(|c| *c < limit).ok_or_else(missing)?;
                if *is_leaf == 0 {
                    return Ok::<_, BuildError>(child);
                }
                leaves.push((name, child));
                Ok::<_, BuildError>(inner + leaves.len() - 1)
            };
            let children = [child(yes)?, child(no)?];
            let feature = usize::try_from(*feature)
                .map_err(|_| BuildError::invalid(format!("{name}: feature {feature} is out of range")))?;
            let missing_yes = self.missing.get(at).is_some_and(|m| *m != 0);
            builder
                .split(name, feature, test, missing_yes, children)
                .map_err(|e| BuildError::invalid(e.to_string()))?;
        }
        for (name, leaf) in leaves {
            let target = self.targets.get(leaf).copied().unwrap_or(-1);
            let weight = self.weights.get(leaf).copied().unwrap_or(0.0);
            let target = u32::try_from(target)
                .map_err(|_| BuildError::invalid(format!("{name}: target {target} is out of range")))?;
            builder.leaf(name, [(target, weight)]).map_err(|e| BuildError::invalid(e.to_string()))?;
        }
        for root in self.roots {
            let missing = || BuildError::invalid(format!("tree_roots: node {root} is not there"));
            builder.root(usize::try_from(*root).ok().filter(|r| *r < inner).ok_or_else(missing)?);
        }
        Ok(builder)
    }

    /// For errors: a node belongs to the last tree whose root does not lie behind it.
    fn names(&self) -> Vec<Name> {
        let mut roots: Vec<(i64, i64)> = (0..).zip(self.roots).map(|(tree, root)| (*root, tree)).collect();
        roots.sort_unstable();
        let mut tree = 0;
        let mut next = roots.into_iter().peekable();
        let mut names = Vec::with_capacity(self.modes.len());
        for (node, _) in (0_i64..).zip(&self.modes) {
            while let Some((_, number)) = next.next_if(|(root, _)| *root <= node) {
                tree = number;
            }
            names.push(Name { tree, node });
        }
        names
    }
}

/// Sets are delimited by NaN.
fn split_members(values: &[f64]) -> Vec<Vec<f64>> {
    let mut sets: Vec<Vec<f64>> = values.split(|v| v.is_nan()).map(<[f64]>::to_vec).collect();
    if sets.last().is_some_and(Vec::is_empty) {
        sets.pop();
    }
    sets
}
