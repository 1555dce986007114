//! A graph, stated to tract for given input shapes.

use std::collections::HashMap;
use std::sync::Arc;

use super::api::{Datum, OutletId, TVec, TypedFact, TypedModel};
use super::graph::{Content, Graph, Node};
use super::ops::{self, Wiring, WiringError};
use super::{malformed, unsupported};
use crate::load::tract::plan::guarded;
use crate::load::tract::{Blueprint, Extent, Output, TractModel, convert};
use crate::load::{LoadError, LoadOptions, Model};
use crate::signature::{Dim, TensorSpec};

/// The most operators that are stated to tract, whose own work grows faster than their number.
const MAX_OPERATORS: usize = 8_000;

/// The model of a graph.
pub(super) fn load(graph: Graph, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
    if graph.nodes.len() > MAX_OPERATORS {
        return Err(malformed(format!(
            "the outputs need {} nodes, more than {MAX_OPERATORS}",
            graph.nodes.len()
        )));
    }
    let unknown =
        || graph.nodes.iter().filter(|n| matches!(n.content, Content::None) && !ops::is_known(&n.op));
    // A loop over variables leaves them behind; the loop is what there is to say.
    let handle = |n: &&Node| matches!(n.op.as_str(), "VarHandleOp" | "RestoreV2" | "Placeholder");
    if let Some(node) = unknown().find(|n| !handle(n)).or_else(|| unknown().next()) {
        return Err(unsupported(&node.op, &node.name));
    }
    let mut inputs = Vec::with_capacity(graph.inputs.len());
    for input in &graph.inputs {
        let element = convert::element_type(input.datum).ok_or_else(|| {
            malformed(format!(
                "the input `{}` is of type {:?}, which is not supported",
                input.name, input.datum
            ))
        })?;
        inputs.push(match &input.dims {
            Some(dims) => {
                let dims: Vec<Dim> = dims.iter().map(|d| d.map_or(Dim::Any, Dim::Fixed)).collect();
                TensorSpec::new(&input.name, element, &dims)
            }
            None => TensorSpec::of_any_shape(&input.name, element),
        });
    }
    let outputs: Vec<Output> =
        graph.outputs.iter().map(|o| Output { name: o.name.as_str().into(), labels: None }).collect();
    let blueprint = Network { graph, budget: options.memory_budget };
    Ok(Arc::new(TractModel::build(Box::new(blueprint), &inputs, &outputs, options.memory_budget)?))
}

struct Network {
    graph: Graph,
    budget: u64,
}

impl Blueprint for Network {
    fn typed(&self, inputs: &[Vec<Extent>]) -> Result<TypedModel, LoadError> {
        let mut refused = None;
        let model = guarded(|| {
            let mut model = TypedModel::default();
            let mut outlets: HashMap<usize, TVec<OutletId>> = HashMap::new();
            let mut sources = vec![None; self.graph.inputs.len()];
            let mut wiring = Wiring::new(&mut model, self.budget);
            for (index, node) in self.graph.nodes.iter().enumerate() {
                let wired = self.wire(&mut wiring, node, inputs, &outlets);
                let wired = match wired {
                    Ok(wired) => wired,
                    Err(error) => {
                        let (error, text) = error.at(node);
                        refused = Some(error);
                        super::api::bail!("{text}");
                    }
                };
                if let Content::Input(position) = node.content
                    && let Some(source) = sources.get_mut(position)
                {
                    *source = wired.first().copied();
                }
                outlets.insert(index, wired);
            }
            let outputs =
                self.graph.outputs.iter().map(|o| Some(*outlets.get(&o.port.node)?.get(o.port.slot)?));
            let outputs = outputs.collect::<Option<Vec<_>>>();
            let (Some(outputs), Some(sources)) = (outputs, sources.into_iter().collect::<Option<Vec<_>>>())
            else {
                super::api::bail!("an input or output of the graph is not there");
            };
            model.set_input_outlets(&sources)?;
            model.select_output_outlets(&outputs)?;
            Ok(model)
        });
        match (model, refused) {
            (Ok(model), _) => Ok(model),
            (Err(_), Some(refused)) => Err(refused),
            (Err(error), None) => Err(error),
        }
    }
}

impl Network {
    fn wire(
        &self,
        wiring: &mut Wiring<'_>,
        node: &Node,
        extents: &[Vec<Extent>],
        outlets: &HashMap<usize, TVec<OutletId>>,
    ) -> Result<TVec<OutletId>, WiringError> {
        match &node.content {
            Content::Constant(value) => Ok(wiring.constant(Arc::clone(value))?),
            Content::Input(position) => {
                let extents =
                    extents.get(*position).ok_or(WiringError::Invalid("an input has no shape".into()))?;
                let input = self.graph.inputs.get(*position);
                let datum = input.map_or_else(f32::datum_type, |i| i.datum);
                let dims: TVec<_> = extents.iter().map(|e| e.to_dim(&wiring.model.symbols)).collect();
                let name = format!("input.{position}");
                Ok([wiring.model.add_source(name, TypedFact::dt_shape(datum, &*dims))?].into_iter().collect())
            }
            Content::None => {
                let mut inputs = TVec::new();
                for port in &node.inputs {
                    let outlet = outlets.get(&port.node).and_then(|o| o.get(port.slot));
                    let missing = || {
                        WiringError::Invalid(format!("reads output {} of a node that has fewer", port.slot))
                    };
                    inputs.push(*outlet.ok_or_else(missing)?);
                }
                ops::wire(wiring, node, &inputs)
            }
        }
    }
}
