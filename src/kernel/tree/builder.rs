//! Trees as a file states them, and the checks that they pass before they are a [`Forest`].

use std::fmt;

pub(crate) use super::forest::Test;
use super::forest::{Forest, ForestNode, ForestTree};
use super::sets::Set;

/// The most features that a tree may name: far above any real model, far below what would make
/// an index overflow.
pub(crate) const MAX_FEATURES: usize = 1 << 24;

/// The most targets that an ensemble may have.
pub(crate) const MAX_TARGETS: usize = 1 << 16;

/// A node, before it is checked. Children are positions in the builder's list of nodes.
#[derive(Clone, Debug)]
enum Draft {
    Split { feature: u32, test: Test, missing_yes: bool, yes: usize, no: usize },
    Leaf { first: usize, end: usize },
}

/// Collects the trees of an ensemble. Nodes may come in any order.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    nodes: Vec<Draft>,
    /// Of each node, the tree and the node as the file numbers them.
    names: Vec<Name>,
    roots: Vec<usize>,
    weights: Vec<(u32, f64)>,
    sets: Vec<Set>,
    unreached_allowed: bool,
}

impl Builder {
    pub(crate) fn with_capacity(nodes: usize) -> Self {
        Self { nodes: Vec::with_capacity(nodes), names: Vec::with_capacity(nodes), ..Self::default() }
    }

    /// Lets nodes be that no tree reaches: deleted ones, which some files keep.
    pub(crate) const fn allow_unreached(&mut self) {
        self.unreached_allowed = true;
    }

    /// How many nodes there are: the position of the next one.
    pub(crate) const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a set for [`Test::Member`].
    pub(crate) fn set(&mut self, set: Set) -> usize {
        self.sets.push(set);
        self.sets.len() - 1
    }

    /// Adds an inner node. Where the value is NaN, `missing_yes` says whether it goes to `yes`.
    pub(crate) fn split(
        &mut self,
        name: Name,
        feature: usize,
        test: Test,
        missing_yes: bool,
        [yes, no]: [usize; 2],
    ) -> Result<usize, TreeError> {
        if feature >= MAX_FEATURES {
            return Err(TreeError::Feature { name, feature });
        }
        if let Test::Member(set) = test
            && set >= self.sets.len()
        {
            return Err(TreeError::Child { name, child: set });
        }
        #[expect(clippy::cast_possible_truncation, reason = "below MAX_FEATURES")]
        let feature = feature as u32;
        Ok(self.push(name, Draft::Split { feature, test, missing_yes, yes, no }))
    }

    /// Adds a leaf of these (target, weight) pairs.
    pub(crate) fn leaf(&mut self, name: Name, weights: impl IntoIterator<Item = (u32, f64)>) -> usize {
        let first = self.weights.len();
        self.weights.extend(weights);
        self.push(name, Draft::Leaf { first, end: self.weights.len() })
    }

    /// Declares a node to be the root of a tree.
    pub(crate) fn root(&mut self, node: usize) {
        self.roots.push(node);
    }

    /// Makes the weight of each leaf the number of that leaf, in the order in which they were
    /// added, for leaves that mean more than a weight.
    #[expect(clippy::cast_precision_loss, reason = "there are fewer leaves than 2^53")]
    pub(crate) fn number_leaves(&mut self) {
        for (number, (_, weight)) in self.weights.iter_mut().enumerate() {
            *weight = number as f64;
        }
    }

    fn push(&mut self, name: Name, draft: Draft) -> usize {
        self.nodes.push(draft);
        self.names.push(name);
        self.nodes.len() - 1
    }

    /// Checks all trees and lays them out breadth first, tree by tree, the two children of a node
    /// side by side.
    ///
    /// # Errors
    /// Where a child or target is out of range, there is a cycle, so many nodes are shared by several
    /// parents that the copies get out of hand, or a node is reached by no tree, unless that is
    /// allowed.
    pub(crate) fn finish(self, targets: usize) -> Result<Forest, TreeError> {
        let Self { nodes, names, roots, weights, sets, unreached_allowed } = self;
        if nodes.len() > (u32::MAX / 4) as usize || targets > MAX_TARGETS || targets == 0 {
            return Err(TreeError::Size { nodes: nodes.len(), targets });
        }
        let name = |node: usize| names.get(node).copied().unwrap_or_default();
        refuse_cycles(&nodes, &roots).map_err(|node| TreeError::Cycle { name: name(node) })?;
        // Exporters share a node between parents for a set of categories; each gets a copy.
        let most = nodes.len().saturating_mul(16).max(1 << 16);
        let mut forest = Forest {
            nodes: Vec::with_capacity(nodes.len()),
            trees: Vec::with_capacity(roots.len()),
            leaves: Vec::new(),
            weights,
            sets,
            targets,
            features: 0,
        };
        let mut reached = vec![false; nodes.len()];
        // (position in the draft, depth), in the order of the layout.
        let mut order: Vec<(usize, u32)> = Vec::new();
        for root in roots {
            let start = forest.nodes.len();
            order.clear();
            order.push((root, 0));
            let mut next = 0;
            let mut depth = 0;
            while let Some(&(at, level)) = order.get(next) {
                next += 1;
                depth = depth.max(level);
                let (Some(draft), Some(reached)) = (nodes.get(at), reached.get_mut(at)) else {
                    return Err(TreeError::Child { name: name(root), child: at });
                };
                *reached = true;
                if start + order.len() > most {
                    return Err(TreeError::Shared { name: name(at), most });
                }
                match draft {
                    Draft::Split { feature, test, missing_yes, yes, no } => {
                        if let Some(child) = [*yes, *no].into_iter().find(|c| *c >= nodes.len()) {
                            return Err(TreeError::Child { name: name(at), child });
                        }
                        forest.features = forest.features.max(*feature as usize + 1);
                        let child = start + order.len();
                        order.push((*yes, level + 1));
                        order.push((*no, level + 1));
                        forest.nodes.push(ForestNode::Split {
                            feature: *feature,
                            test: test.clone(),
                            missing_yes: *missing_yes,
                            child,
                        });
                    }
                    Draft::Leaf { first, end } => {
                        let span = forest.weights.get(*first..*end).unwrap_or(&[]);
                        if let Some((target, _)) = span.iter().find(|(t, _)| *t as usize >= targets) {
                            return Err(TreeError::Target { name: name(at), target: *target, targets });
                        }
                        forest.nodes.push(ForestNode::Leaf(forest.leaves.len()));
                        forest.leaves.push((*first, *end));
                    }
                }
            }
            #[expect(clippy::cast_possible_truncation, reason = "there are at most u32::MAX / 4 nodes")]
            forest.trees.push(ForestTree { root: start as u32, depth });
        }
        match reached.iter().position(|r| !r) {
            Some(node) if !unreached_allowed => Err(TreeError::Orphan { name: name(node) }),
            _ => Ok(forest),
        }
    }
}

/// Where a cycle can be reached from a root, a node of it.
fn refuse_cycles(nodes: &[Draft], roots: &[usize]) -> Result<(), usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Never,
        Above,
        Done,
    }
    let mut seen = vec![Seen::Never; nodes.len()];
    // (node, whether everything below it has been looked at)
    let mut stack: Vec<(usize, bool)> = Vec::new();
    for root in roots {
        stack.push((*root, false));
        while let Some((at, done)) = stack.pop() {
            let (Some(draft), Some(state)) = (nodes.get(at), seen.get_mut(at)) else { continue };
            if done {
                *state = Seen::Done;
                continue;
            }
            match *state {
                Seen::Done => continue,
                Seen::Above => return Err(at),
                Seen::Never => *state = Seen::Above,
            }
            stack.push((at, true));
            if let Draft::Split { yes, no, .. } = draft {
                stack.push((*yes, false));
                // The same child on both sides is shared, not a cycle.
                if yes != no {
                    stack.push((*no, false));
                }
            }
        }
    }
    Ok(())
}

/// A node as the file numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) tree: i64,
    pub(crate) node: i64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tree {}, node {}", self.tree, self.node)
    }
}

/// Why trees are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeError {
    #[error("{name}: child {child} is not there")]
    Child { name: Name, child: usize },
    #[error("{name}: a cycle leads back to it")]
    Cycle { name: Name },
    #[error("{name}: shared by so many parents that there are over {most} nodes")]
    Shared { name: Name, most: usize },
    #[error("{name}: not reached from the root of a tree")]
    Orphan { name: Name },
    #[error("{name}: feature {feature} is over the limit of {MAX_FEATURES}")]
    Feature { name: Name, feature: usize },
    #[error("{name}: target {target} is out of range, there are {targets}")]
    Target { name: Name, target: u32, targets: usize },
    #[error("an ensemble of {nodes} nodes and {targets} targets is out of range")]
    Size { nodes: usize, targets: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: i64) -> Name {
        Name { tree: 3, node }
    }

    #[test]
    fn a_tree_with_a_cycle_is_refused() {
        let mut builder = Builder::default();
        builder.split(at(0), 0, Test::Leq(0.5), false, [1, 2]).unwrap();
        builder.split(at(1), 0, Test::Leq(0.5), false, [0, 2]).unwrap();
        builder.leaf(at(2), [(0, 1.0)]);
        builder.root(0);
        assert_eq!(builder.finish(1).unwrap_err().to_string(), "tree 3, node 0: a cycle leads back to it");
    }

    #[test]
    fn a_node_of_two_parents_is_copied_and_a_flood_of_copies_is_refused() {
        let shared = |levels: usize| {
            let mut builder = Builder::default();
            for node in 0..levels {
                let next = [node + 1, node + 1];
                builder.split(at(0), 0, Test::Leq(0.5), false, next).unwrap();
            }
            builder.leaf(at(1), [(0, 1.0)]);
            builder.root(0);
            builder.finish(1)
        };
        assert_eq!(shared(3).unwrap().nodes.len(), 15);
        assert!(matches!(shared(40), Err(TreeError::Shared { .. })));
    }

    #[test]
    fn a_node_that_is_its_own_child_is_refused() {
        let mut builder = Builder::default();
        builder.split(at(0), 0, Test::Leq(0.5), false, [0, 0]).unwrap();
        builder.root(0);
        assert_eq!(builder.finish(1).unwrap_err(), TreeError::Cycle { name: at(0) });
    }

    #[test]
    fn a_child_or_a_root_that_is_not_there_is_refused() {
        let mut builder = Builder::default();
        builder.split(at(0), 0, Test::Leq(0.5), false, [1, 7]).unwrap();
        builder.leaf(at(1), [(0, 1.0)]);
        builder.root(0);
        assert_eq!(builder.finish(1).unwrap_err().to_string(), "tree 3, node 0: child 7 is not there");
        let mut builder = Builder::default();
        builder.root(2);
        assert!(builder.finish(1).is_err());
    }

    #[test]
    fn a_target_or_a_feature_out_of_range_is_refused() {
        let mut builder = Builder::default();
        let leaf = builder.leaf(at(0), [(2, 1.0)]);
        builder.root(leaf);
        assert_eq!(
            builder.finish(2).unwrap_err().to_string(),
            "tree 3, node 0: target 2 is out of range, there are 2"
        );
        let mut builder = Builder::default();
        assert!(builder.split(at(0), MAX_FEATURES, Test::Leq(0.5), false, [1, 2]).is_err());
    }

    #[test]
    fn a_node_outside_every_tree_is_refused() {
        let mut builder = Builder::default();
        let leaf = builder.leaf(at(0), [(0, 1.0)]);
        builder.leaf(at(1), [(0, 1.0)]);
        builder.root(leaf);
        assert_eq!(builder.finish(1).unwrap_err(), TreeError::Orphan { name: at(1) });
    }

    #[test]
    fn children_lie_side_by_side_behind_their_parent() {
        let mut builder = Builder::default();
        let leaves: Vec<_> = (1..4).map(|n| builder.leaf(at(n), [(0, 1.0)])).collect();
        let inner = builder.split(at(4), 1, Test::Lt(2.0), true, [leaves[0], leaves[1]]).unwrap();
        let root = builder.split(at(0), 4, Test::Leq(0.5), false, [inner, leaves[2]]).unwrap();
        builder.root(root);
        let forest = builder.finish(1).unwrap();
        assert_eq!((forest.features, forest.trees[0].depth), (5, 2));
        let children: Vec<_> = forest
            .nodes
            .iter()
            .map(|n| if let ForestNode::Split { child, .. } = n { *child } else { 0 })
            .collect();
        assert_eq!(children, [1, 3, 0, 0, 0]);
    }
}
