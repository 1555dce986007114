//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor`, versions 1 to 5 of `ai.onnx.ml`, from
//! their attributes.

use std::collections::HashMap;

use super::builder::{Builder, Name, Test};
use super::ensemble::{Ensemble, Features};
use super::forest::Forest;
use super::leaves::Fold;
use super::numbers::{Numbers, same_length};
use super::operator::{Columns, Finish, TreeOperator, Trees};
use crate::kernel::transform::PostTransform;
use crate::kernel::{Attributes, BuildError};
use crate::signature::Labels;

/// A `TreeEnsembleClassifier`.
pub(super) fn classifier(attributes: &Attributes) -> Result<TreeOperator, BuildError> {
    let ints = attributes.ints("classlabels_int64s")?;
    let strings = attributes.strings("classlabels_strings")?;
    let labels = match (ints, strings) {
        ([], []) => return Err(BuildError::invalid("neither classlabels_int64s nor classlabels_strings")),
        (ints, []) => Labels::Ints(ints.to_vec()),
        ([], strings) => Labels::Strings(strings.to_vec()),
        _ => return Err(BuildError::invalid("both classlabels_int64s and classlabels_strings")),
    };
    let classes = ints.len() + strings.len();
    let mut votes = Votes::read(attributes, "class")?;
    let base_values = Numbers::read(attributes, "base_values")?;
    let mut targets = classes;
    let mut columns = if classes == 2 { Columns::TwoClasses } else { Columns::AsTargets };
    if let Some(class) = votes.only_target()
        && classes == 2
        && base_values.values.len() < 2
    {
        columns = Columns::Pair { class, positive: votes.weights.values.iter().all(|w| *w >= 0.0) };
        targets = 1;
        votes.targets.fill(0);
    }
    let base_values = match columns {
        Columns::Pair { class: 1, .. } => Numbers::default(),
        _ => base_values,
    };
    let fold = Aggregate { fold: Fold::Sum, average: false };
    let transform = PostTransform::from_attributes(attributes)?;
    operator("TreeEnsembleClassifier", attributes, &votes, &base_values, targets, fold, transform, columns)
        .map(|operator| TreeOperator { labels: Some(labels), ..operator })
}

/// A `TreeEnsembleRegressor`.
pub(super) fn regressor(attributes: &Attributes) -> Result<TreeOperator, BuildError> {
    let votes = Votes::read(attributes, "target")?;
    let targets = attributes.int("n_targets")?.unwrap_or(1);
    let targets = usize::try_from(targets)
        .map_err(|_| BuildError::invalid(format!("n_targets: expected at least 1, found {targets}")))?;
    let aggregate = match attributes.string("aggregate_function")?.unwrap_or("SUM") {
        "SUM" => Aggregate { fold: Fold::Sum, average: false },
        "AVERAGE" => Aggregate { fold: Fold::Sum, average: true },
        "MIN" => Aggregate { fold: Fold::Min, average: false },
        "MAX" => Aggregate { fold: Fold::Max, average: false },
        other => {
            return Err(BuildError::invalid(format!(
                "aggregate_function: expected SUM, AVERAGE, MIN or MAX, found `{other}`"
            )));
        }
    };
    let base_values = Numbers::read(attributes, "base_values")?;
    let transform = PostTransform::from_attributes(attributes)?;
    let columns = Columns::AsTargets;
    operator(
        "TreeEnsembleRegressor",
        attributes,
        &votes,
        &base_values,
        targets,
        aggregate,
        transform,
        columns,
    )
}

/// How trees are put together.
#[derive(Clone, Copy)]
pub(super) struct Aggregate {
    pub(super) fold: Fold,
    pub(super) average: bool,
}

#[expect(clippy::too_many_arguments, reason = "two callers, right above")]
fn operator(
    name: &'static str,
    attributes: &Attributes,
    votes: &Votes,
    base_values: &Numbers,
    targets: usize,
    aggregate: Aggregate,
    transform: PostTransform,
    columns: Columns,
) -> Result<TreeOperator, BuildError> {
    let base = match base_values.values.as_slice() {
        // onnxruntime adds the only base value of two classes to the first; the specification
        // does not allow it.
        [one] if targets == 2 => vec![*one, 0.0],
        values if values.is_empty() || values.len() == targets => values.to_vec(),
        values => {
            return Err(BuildError::invalid(format!(
                "base_values: expected none or {targets}, found {}",
                values.len()
            )));
        }
    };
    let nodes = Nodes::read(attributes)?;
    let double = nodes.thresholds.double || votes.weights.double || base_values.double;
    let forest = nodes.forest(votes, targets)?;
    finish(name, forest, aggregate, double, base, transform, columns)
}

/// Lays out checked trees for an operator of ONNX, as yet without labels.
pub(super) fn finish(
    name: &'static str,
    forest: Forest,
    aggregate: Aggregate,
    double: bool,
    base_values: Vec<f64>,
    transform: PostTransform,
    columns: Columns,
) -> Result<TreeOperator, BuildError> {
    let invalid = |error: super::builder::TreeError| BuildError::invalid(error.to_string());
    #[expect(clippy::cast_precision_loss, reason = "there are fewer trees than 2^53")]
    let divisor = if aggregate.average { forest.trees.len().max(1) as f64 } else { 1.0 };
    let (fold, features) = (aggregate.fold, Features::Any);
    let trees = if double {
        Ensemble::new(name, forest, fold, features).map(Trees::Double)
    } else {
        Ensemble::new(name, forest, fold, features).map(Trees::Single)
    };
    let trees = trees.map_err(invalid)?;
    let finish = Finish { transform, base_values, divisor, columns };
    Ok(TreeOperator { name, trees, finish, labels: None, scores_as_input: false })
}

/// The weights of leaves: `class_*` or `target_*`.
struct Votes {
    prefix: &'static str,
    trees: Vec<i64>,
    nodes: Vec<i64>,
    targets: Vec<i64>,
    weights: Numbers,
}

impl Votes {
    fn read(attributes: &Attributes, prefix: &'static str) -> Result<Self, BuildError> {
        let ints = |name: &str| attributes.ints(&format!("{prefix}_{name}")).map(<[i64]>::to_vec);
        let votes = Self {
            prefix,
            trees: ints("treeids")?,
            nodes: ints("nodeids")?,
            targets: ints("ids")?,
            weights: Numbers::read(attributes, &format!("{prefix}_weights"))?,
        };
        let expected = votes.targets.len();
        for (name, found) in [
            ("treeids", votes.trees.len()),
            ("nodeids", votes.nodes.len()),
            ("weights", votes.weights.values.len()),
        ] {
            same_length(&format!("{prefix}_{name}"), expected, found)?;
        }
        Ok(votes)
    }

    /// The target that all votes are for.
    fn only_target(&self) -> Option<u32> {
        let (first, rest) = self.targets.split_first()?;
        rest.iter().all(|t| t == first).then(|| u32::try_from(*first).ok())?.filter(|t| *t < 2)
    }
}

/// The nodes, as the attributes `nodes_*` list them.
struct Nodes<'a> {
    trees: &'a [i64],
    ids: &'a [i64],
    features: &'a [i64],
    yes: &'a [i64],
    no: &'a [i64],
    missing: &'a [i64],
    modes: &'a [String],
    thresholds: Numbers,
}

impl<'a> Nodes<'a> {
    fn read(attributes: &'a Attributes) -> Result<Self, BuildError> {
        let nodes = Self {
            trees: attributes.ints("nodes_treeids")?,
            ids: attributes.ints("nodes_nodeids")?,
            features: attributes.ints("nodes_featureids")?,
            yes: attributes.ints("nodes_truenodeids")?,
            no: attributes.ints("nodes_falsenodeids")?,
            missing: attributes.ints("nodes_missing_value_tracks_true")?,
            modes: attributes.strings("nodes_modes")?,
            thresholds: Numbers::read(attributes, "nodes_values")?,
        };
        let expected = nodes.trees.len();
        if expected == 0 {
            return Err(BuildError::invalid("nodes_treeids: expected at least one node, found none"));
        }
        for (name, found) in [
            ("nodes_nodeids", nodes.ids.len()),
            ("nodes_featureids", nodes.features.len()),
            ("nodes_truenodeids", nodes.yes.len()),
            ("nodes_falsenodeids", nodes.no.len()),
            ("nodes_modes", nodes.modes.len()),
            ("nodes_values", nodes.thresholds.values.len()),
        ] {
            same_length(name, expected, found)?;
        }
        if !nodes.missing.is_empty() {
            same_length("nodes_missing_value_tracks_true", expected, nodes.missing.len())?;
        }
        Ok(nodes)
    }

    fn forest(&self, votes: &Votes, targets: usize) -> Result<Forest, BuildError> {
        let positions = self.positions()?;
        let leaves = self.votes_by_node(votes, &positions)?;
        let mut builder = Builder::with_capacity(self.trees.len());
        let mut is_child = vec![false; self.trees.len()];
        let ids = self.trees.iter().zip(self.ids).map(|(tree, node)| Name { tree: *tree, node: *node });
        let children = self.yes.iter().zip(self.no);
        let tests = self.modes.iter().zip(&self.thresholds.values).zip(self.features);
        for (at, ((name, (yes, no)), ((mode, threshold), feature))) in
            ids.zip(children).zip(tests).enumerate()
        {
            let t = *threshold;
            let test = match mode.as_str() {
                "LEAF" => {
                    // skl2onnx's `decision_leaf` lists the one target of a leaf once for each class, and
                    // means it once; onnxruntime takes the first.
                    let most = if targets == 1 && votes.prefix == "target" { 1 } else { usize::MAX };
                    builder
                        .leaf(name, leaves.of(at).iter().copied().take(most))
                        .map_err(|e| BuildError::invalid(e.to_string()))?;
                    continue;
                }
                "BRANCH_LEQ" => Test::Leq(t),
                "BRANCH_LT" => Test::Lt(t),
                "BRANCH_GTE" => Test::Gte(t),
                "BRANCH_GT" => Test::Gt(t),
                "BRANCH_EQ" => Test::Eq(t),
                "BRANCH_NEQ" => Test::Neq(t),
                other => return Err(BuildError::invalid(format!("{name}: unknown mode `{other}`"))),
            };
            if !leaves.of(at).is_empty() {
                return Err(BuildError::invalid(format!(
                    "{name}: {}_nodeids names it, but it is no leaf",
                    votes.prefix
                )));
            }
            let mut child = |node: i64| {
                let child = *positions
                    .get(&(name.tree, node))
                    .ok_or_else(|| BuildError::invalid(format!("{name}: child {node} is not there")))?;
                if let Some(is_child) = is_child.get_mut(child) {
                    *is_child = true;
                }
                Ok::<_, BuildError>(child)
            };
            let children = [child(*yes)?, child(*no)?];
            let feature = usize::try_from(*feature)
                .map_err(|_| BuildError::invalid(format!("{name}: feature {feature} is out of range")))?;
            let missing_yes = self.missing.get(at).is_some_and(|m| *m != 0);
            builder
                .split(name, feature, test, missing_yes, children)
                .map_err(|e| BuildError::invalid(e.to_string()))?;
        }
        self.declare_roots(&mut builder, &is_child)?;
        builder.finish(targets).map_err(|e| BuildError::invalid(e.to_string()))
    }

    /// Where each (tree, node) is in the lists.
    fn positions(&self) -> Result<HashMap<(i64, i64), usize>, BuildError> {
        let mut positions = HashMap::with_capacity(self.trees.len());
        for (at, (tree, node)) in self.trees.iter().zip(self.ids).enumerate() {
            if positions.insert((*tree, *node), at).is_some() {
                return Err(BuildError::invalid(format!("tree {tree}, node {node}: listed twice")));
            }
        }
        Ok(positions)
    }

    /// Sorts the votes by the node they are for, in their order.
    fn votes_by_node(
        &self,
        votes: &Votes,
        positions: &HashMap<(i64, i64), usize>,
    ) -> Result<VotesByNode, BuildError> {
        let mut places = Vec::with_capacity(votes.targets.len());
        let mut ends = vec![0; self.trees.len() + 1];
        for (tree, node) in votes.trees.iter().zip(&votes.nodes) {
            let at = *positions.get(&(*tree, *node)).ok_or_else(|| {
                BuildError::invalid(format!(
                    "{}_nodeids: tree {tree}, node {node} is not there",
                    votes.prefix
                ))
            })?;
            places.push(at);
            if let Some(count) = ends.get_mut(at + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        let mut next = ends.clone();
        let mut pairs = vec![(0, 0.0); votes.targets.len()];
        for ((at, target), weight) in places.into_iter().zip(&votes.targets).zip(&votes.weights.values) {
            let target = u32::try_from(*target).map_err(|_| {
                BuildError::invalid(format!("{}_ids: {target} is out of range", votes.prefix))
            })?;
            if let Some(next) = next.get_mut(at) {
                if let Some(pair) = pairs.get_mut(*next) {
                    *pair = (target, *weight);
                }
                *next += 1;
            }
        }
        Ok(VotesByNode { ends, pairs })
    }

    /// The root of each tree is the one node that is no child.
    fn declare_roots(&self, builder: &mut Builder, is_child: &[bool]) -> Result<(), BuildError> {
        let mut roots = HashMap::new();
        let mut order = Vec::new();
        for (at, (tree, is_child)) in self.trees.iter().zip(is_child).enumerate() {
            let root = roots.entry(*tree).or_insert_with(|| {
                order.push(*tree);
                None
            });
            if *is_child {
                continue;
            }
            if let Some(other) = root.replace(at) {
                let id = |at: usize| self.ids.get(at).copied().unwrap_or_default();
                return Err(BuildError::invalid(format!(
                    "tree {tree}: expected one root, found nodes {} and {}",
                    id(other),
                    id(at)
                )));
            }
        }
        for tree in order {
            let root = roots.get(&tree).copied().flatten();
            builder.root(root.ok_or_else(|| {
                BuildError::invalid(format!("tree {tree}: expected one root, found none (a cycle)"))
            })?);
        }
        Ok(())
    }
}

/// The (target, weight) pairs of each node; in `ends` is where they begin, node by node.
struct VotesByNode {
    ends: Vec<usize>,
    pairs: Vec<(u32, f64)>,
}

impl VotesByNode {
    fn of(&self, node: usize) -> &[(u32, f64)] {
        match self.ends.get(node..node + 2) {
            Some([first, end]) => self.pairs.get(*first..*end).unwrap_or(&[]),
            _ => &[],
        }
    }
}
