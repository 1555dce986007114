//! Tests of the checks that trees pass.

use super::*;

fn at(node: i64) -> Name {
    Name { tree: 3, node }
}

#[test]
fn a_tree_with_a_cycle_is_refused() {
    let mut builder = Builder::new(u64::MAX);
    builder.split(at(0), 0, Test::Leq(0.5), false, [1, 2]).unwrap();
    builder.split(at(1), 0, Test::Leq(0.5), false, [0, 2]).unwrap();
    builder.leaf(at(2), [(0, 1.0)]).unwrap();
    builder.root(0);
    assert_eq!(builder.finish(1).unwrap_err().to_string(), "tree 3, node 0: a cycle leads back to it");
}

#[test]
fn a_node_of_two_parents_is_copied_and_a_flood_of_copies_is_refused() {
    let shared = |levels: usize| {
        let mut builder = Builder::new(u64::MAX);
        for node in 0..levels {
            let next = [node + 1, node + 1];
            builder.split(at(0), 0, Test::Leq(0.5), false, next).unwrap();
        }
        builder.leaf(at(1), [(0, 1.0)]).unwrap();
        builder.root(0);
        builder.finish(1)
    };
    assert_eq!(shared(3).unwrap().nodes.len(), 15);
    assert!(matches!(shared(40), Err(TreeError::Shared { .. })));
}

#[test]
fn a_long_leaf_of_many_parents_is_not_copied_without_end() {
    let mut builder = Builder::new(u64::MAX);
    for node in 0..15 {
        builder.split(at(0), 0, Test::Leq(0.5), false, [node + 1, node + 1]).unwrap();
    }
    builder.leaf(at(1), (0..60_000).map(|target| (target, 1.0))).unwrap();
    builder.root(0);
    assert!(matches!(builder.finish(60_000), Err(TreeError::Shared { .. })));
}

#[test]
fn trees_over_their_budget_are_refused_as_they_come() {
    let over = Err(TreeError::OverBudget { budget: 1 << 20 });
    let mut builder = Builder::new(1 << 20);
    let set = Set::from_categories([1 << 22]);
    assert_eq!((0..100).try_for_each(|_| builder.set(set.clone()).map(drop)), over);
    let mut builder = Builder::new(1 << 20);
    let leaf = |builder: &mut Builder| builder.leaf(at(0), (0..1000).map(|target| (target, 1.0)));
    assert_eq!((0..100).try_for_each(|_| leaf(&mut builder).map(drop)), over);
}

#[test]
fn a_node_that_is_its_own_child_is_refused() {
    let mut builder = Builder::new(u64::MAX);
    builder.split(at(0), 0, Test::Leq(0.5), false, [0, 0]).unwrap();
    builder.root(0);
    assert_eq!(builder.finish(1).unwrap_err(), TreeError::Cycle { name: at(0) });
}

#[test]
fn a_child_or_a_root_that_is_not_there_is_refused() {
    let mut builder = Builder::new(u64::MAX);
    builder.split(at(0), 0, Test::Leq(0.5), false, [1, 7]).unwrap();
    builder.leaf(at(1), [(0, 1.0)]).unwrap();
    builder.root(0);
    assert_eq!(builder.finish(1).unwrap_err().to_string(), "tree 3, node 0: child 7 is not there");
    let mut builder = Builder::new(u64::MAX);
    builder.root(2);
    assert!(builder.finish(1).is_err());
}

#[test]
fn a_target_or_a_feature_out_of_range_is_refused() {
    let mut builder = Builder::new(u64::MAX);
    let leaf = builder.leaf(at(0), [(2, 1.0)]).unwrap();
    builder.root(leaf);
    assert_eq!(
        builder.finish(2).unwrap_err().to_string(),
        "tree 3, node 0: target 2 is out of range, there are 2"
    );
    let mut builder = Builder::new(u64::MAX);
    assert!(builder.split(at(0), MAX_FEATURES, Test::Leq(0.5), false, [1, 2]).is_err());
}

#[test]
fn a_node_outside_every_tree_is_refused() {
    let mut builder = Builder::new(u64::MAX);
    let leaf = builder.leaf(at(0), [(0, 1.0)]).unwrap();
    builder.leaf(at(1), [(0, 1.0)]).unwrap();
    builder.root(leaf);
    assert_eq!(builder.finish(1).unwrap_err(), TreeError::Orphan { name: at(1) });
}

#[test]
fn children_lie_side_by_side_behind_their_parent() {
    let mut builder = Builder::new(u64::MAX);
    let leaves: Vec<_> = (1..4).map(|n| builder.leaf(at(n), [(0, 1.0)]).unwrap()).collect();
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
