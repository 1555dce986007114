//! Layers with large weights. Each becomes a kernel that lays its weights out once, for all plans; in
//! tract's own form every plan would hold them once more.

use std::sync::Arc;

use super::graph::{Content, Graph, Node};
use crate::kernel::Kernel;
use crate::kernel::standard::matmul::LayerForm;

/// Makes a layer of each product with weights that nothing else reads; answers the bytes that the layers take.
pub(super) fn take(graph: &mut Graph) -> usize {
    let reads = graph.reads();
    let mut bytes = 0;
    for index in 0..graph.nodes.len() {
        let Some(transposed) = graph.nodes.get(index).and_then(is_transposed) else { continue };
        let [x, weights] = graph.nodes.get(index).map(|n| n.inputs.clone()).unwrap_or_default()[..] else {
            continue;
        };
        if x == weights || reads.get(&weights) != Some(&1) {
            continue;
        }
        let Some(place) = graph.nodes.get_mut(weights.node) else { continue };
        let Content::Weights(values) = &place.content else { continue };
        let [rows, columns] = *values.dims() else { continue };
        let shape = if transposed { (columns, rows) } else { (rows, columns) };
        let Content::Weights(values) = std::mem::replace(&mut place.content, Content::None) else { continue };
        let Some(layer) = LayerForm::product(shape, transposed).layer(values, None) else { continue };
        bytes += layer.memory();
        if let Some(node) = graph.nodes.get_mut(index) {
            node.content = Content::Layer(Arc::new(layer));
            node.inputs = vec![x];
        }
    }
    super::prune::prune(graph);
    bytes
}

/// For a product of rows with a matrix, whether it is the matrix's transpose that they are multiplied with.
fn is_transposed(node: &Node) -> Option<bool> {
    let attribute = |name| node.attributes.bool(name).unwrap_or(false);
    let (left, right) = match node.op.as_str() {
        "MatMul" => ("transpose_a", "transpose_b"),
        "BatchMatMul" | "BatchMatMulV2" | "BatchMatMulV3" => ("adj_x", "adj_y"),
        _ => return None,
    };
    (!attribute(left)).then(|| attribute(right))
}
