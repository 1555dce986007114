//! Layers with large weights in a graph that tract runs. Each becomes a kernel that lays its weights
//! out once, for all plans; in tract's own form every plan would hold them once more.

use std::collections::HashMap;

use crate::kernel::Kernel;
use crate::kernel::program::{GraphParts, NodeParts};
use crate::kernel::standard::matmul::{Given, LayerForm};

/// Takes the weights of large layers out of the constants; answers the layers by the positions of
/// their nodes.
pub(super) fn take(parts: &mut GraphParts) -> HashMap<usize, Box<dyn Kernel>> {
    let mut reads: HashMap<String, usize> = HashMap::new();
    count(parts, &mut reads);
    let mut at: HashMap<String, usize> =
        parts.constants.iter().enumerate().map(|(index, (name, _))| (name.clone(), index)).collect();
    let mut layers: HashMap<usize, Box<dyn Kernel>> = HashMap::new();
    for (index, node) in parts.nodes.iter().enumerate() {
        if !(node.is("MatMul") || node.is("Gemm")) || node.outputs.len() != 1 {
            continue;
        }
        let constant = |name: &String| Some(&parts.constants.get(*at.get(name)?)?.1);
        let given: Vec<Given<'_>> =
            node.inputs.iter().map(|n| (!n.is_empty()).then(|| constant(n).map(AsRef::as_ref))).collect();
        let is_computed = matches!(given.first(), Some(Some(None)));
        let (true, Ok(Some(form)), Some(name)) =
            (is_computed, LayerForm::of(node, &given), node.inputs.get(1))
        else {
            continue;
        };
        let is_large = constant(name).is_some_and(|weights| weights.shape().elements() >= LayerForm::LARGE);
        if !is_large || reads.get(name) != Some(&1) {
            continue;
        }
        let bias = node.inputs.get(2).and_then(constant).cloned();
        let Some(weights) =
            at.remove(name).and_then(|i| parts.constants.get_mut(i)).map(|(_, w)| std::mem::take(w))
        else {
            continue;
        };
        if let Some(layer) = form.layer(weights, bias.as_deref()) {
            layers.insert(index, Box::new(layer));
        }
    }
    parts.constants.retain(|(name, _)| at.contains_key(name));
    layers
}

/// How often each name is read, in the bodies of loops too.
fn count(parts: &GraphParts, reads: &mut HashMap<String, usize>) {
    let mut read = |name: &String| *reads.entry(name.clone()).or_default() += 1;
    parts.nodes.iter().flat_map(|node| &node.inputs).for_each(&mut read);
    parts.outputs.iter().for_each(&mut read);
    parts
        .nodes
        .iter()
        .flat_map(|node: &NodeParts| node.attributes.graphs())
        .for_each(|body| count(body, reads));
}
