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

/// How often exporters may share a node between parents: each parent gets a copy.
const COPIES: usize = 16;

/// What a node takes while trees are checked and laid out.
const NODE_BYTES: usize = size_of::<Draft>() + size_of::<Name>() + size_of::<ForestNode>() + 16;

/// Collects the trees of an ensemble. Nodes may come in any order.
#[derive(Debug)]
pub(crate) struct Builder {
    nodes: Vec<Draft>,
    /// Of each node, the tree and the node as the file numbers them.
    names: Vec<Name>,
    roots: Vec<usize>,
    weights: Vec<(u32, f64)>,
    sets: Vec<Set>,
    unreached_allowed: bool,
    /// The bytes that nodes, weights and sets may take, and those that they take.
    budget: u64,
    taken: u64,
}

impl Builder {
    /// For trees that take no more than `budget` bytes. Files may refer to the same categories or
    /// the same vector of weights any number of times, and every reference is a copy here.
    pub(crate) const fn new(budget: u64) -> Self {
        Self {
            nodes: Vec::new(),
            names: Vec::new(),
            roots: Vec::new(),
            weights: Vec::new(),
            sets: Vec::new(),
            unreached_allowed: false,
            budget,
            taken: 0,
        }
    }

    /// For trees of a form in which nothing is referred to twice but nodes.
    pub(crate) fn with_capacity(nodes: usize) -> Self {
        Self { nodes: Vec::with_capacity(nodes), names: Vec::with_capacity(nodes), ..Self::new(u64::MAX) }
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
    pub(crate) fn set(&mut self, set: Set) -> Result<usize, TreeError> {
        self.take(size_of::<Set>() + set.memory())?;
        self.sets.push(set);
        Ok(self.sets.len() - 1)
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
        self.push(name, Draft::Split { feature, test, missing_yes, yes, no })
    }

    /// Adds a leaf of these (target, weight) pairs.
    pub(crate) fn leaf(
        &mut self,
        name: Name,
        weights: impl IntoIterator<Item = (u32, f64)>,
    ) -> Result<usize, TreeError> {
        let first = self.weights.len();
        self.weights.extend(weights);
        self.take((self.weights.len() - first) * size_of::<(u32, f64)>())?;
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

    fn push(&mut self, name: Name, draft: Draft) -> Result<usize, TreeError> {
        self.take(NODE_BYTES)?;
        self.nodes.push(draft);
        self.names.push(name);
        Ok(self.nodes.len() - 1)
    }

    fn take(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.taken = self.taken.saturating_add(bytes as u64);
        if self.taken > self.budget { Err(TreeError::OverBudget { budget: self.budget }) } else { Ok(()) }
    }

    /// Checks all trees and lays them out breadth first, tree by tree, the two children of a node
    /// side by side.
    ///
    /// # Errors
    /// Where a child or target is out of range, there is a cycle, so many nodes are shared by several
    /// parents that the copies get out of hand, a node is reached by no tree, unless that is
    /// allowed, or there is no room for the copies.
    pub(crate) fn finish(self, targets: usize) -> Result<Forest, TreeError> {
        let Self { nodes, names, roots, weights, sets, unreached_allowed, budget, taken } = self;
        if nodes.len() > (u32::MAX / 4) as usize || targets > MAX_TARGETS || targets == 0 {
            return Err(TreeError::Size { nodes: nodes.len(), targets });
        }
        let name = |node: usize| names.get(node).copied().unwrap_or_default();
        refuse_cycles(&nodes, &roots).map_err(|node| TreeError::Cycle { name: name(node) })?;
        // Exporters share a node between parents for a set of categories; each gets a copy.
        let most = nodes.len().saturating_mul(COPIES).max(1 << 16);
        let most_weights = weights.len().saturating_mul(COPIES).max(1 << 16);
        let mut copied_weights = 0_usize;
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
                let made = start + order.len();
                if made > most || copied_weights > most_weights {
                    return Err(TreeError::Shared { name: name(at), most });
                }
                let copies = made.saturating_sub(nodes.len()).saturating_mul(NODE_BYTES) as u64;
                if taken.saturating_add(copies) > budget {
                    return Err(TreeError::OverBudget { budget });
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
                        copied_weights = copied_weights.saturating_add(span.len());
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
    #[error("the trees take more memory than the budget of {budget} bytes")]
    OverBudget { budget: u64 },
}

#[cfg(test)]
#[path = "builder_tests.rs"]
mod tests;
