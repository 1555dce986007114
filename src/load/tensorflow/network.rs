//! A graph, stated to tract for given input shapes.

use std::sync::Arc;

use super::api::{DatumType, OutletId, TVec, TractResult, TypedFact, TypedModel, bail, format_err};
use super::graph::{Content, Graph, Node};
use super::ops::{self, Wiring};
use super::{layers, malformed, stored, unsupported};
use crate::load::tract::plan::guarded;
use crate::load::tract::{Blueprint, Extent, Output, TractModel, convert};
use crate::load::{LoadError, LoadOptions, Model};
use crate::signature::{Dim, TensorSpec};

/// The most operators that are stated to tract, whose own work grows faster than their number.
const MAX_OPERATORS: usize = 8_000;

/// The model of a graph.
pub(super) fn load(mut graph: Graph, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
    let nodes = graph.all_nodes();
    if nodes.len() > MAX_OPERATORS {
        return Err(malformed(format!("the outputs need {} nodes, more than {MAX_OPERATORS}", nodes.len())));
    }
    let unknown =
        || nodes.iter().copied().filter(|n| matches!(n.content, Content::None) && !ops::is_known(&n.op));
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
    let layer_bytes = layers::take(&mut graph);
    stored::give_to_engine(&mut graph)?;
    let blueprint = Network { graph, layer_bytes, budget: options.memory_budget };
    Ok(Arc::new(TractModel::build(Box::new(blueprint), &inputs, &outputs, options.memory_budget)?))
}

struct Network {
    graph: Graph,
    /// What the layers in it take, which all plans share.
    layer_bytes: usize,
    budget: u64,
}

impl Network {
    /// The outputs in the types that the file declares: a shape is a number there.
    fn declared(&self, wiring: &mut Wiring<'_>, outputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let outputs = outputs.iter().zip(&self.graph.outputs).map(|(outlet, declared)| {
            let found = wiring.model.outlet_fact(*outlet)?.datum_type;
            let whole = |t: DatumType| t.is_integer() || t == DatumType::TDim;
            match declared.datum {
                Some(datum) if whole(found) && whole(datum) => {
                    wiring.typed(*outlet, datum).map_err(|e| format_err!("{}", e.load_error("output", "")))
                }
                _ => Ok(*outlet),
            }
        });
        outputs.collect()
    }
}

impl Blueprint for Network {
    fn shared_bytes(&self) -> usize {
        self.layer_bytes
    }

    fn typed(&self, extents: &[Vec<Extent>]) -> Result<TypedModel, LoadError> {
        let mut refused = None;
        let model = guarded(|| {
            let mut model = TypedModel::default();
            let mut wiring = Wiring::new(&mut model, self.budget);
            let mut sources = Vec::with_capacity(self.graph.inputs.len());
            for (position, input) in self.graph.inputs.iter().enumerate() {
                let Some(extents) = extents.get(position) else { bail!("an input has no shape") };
                let dims: TVec<_> = extents.iter().map(|e| e.to_dim(&wiring.model.symbols)).collect();
                let fact = TypedFact::dt_shape(input.datum, &*dims);
                sources.push(wiring.source(format!("input.{position}"), fact)?);
            }
            let outputs = match ops::state(&mut wiring, &self.graph, &sources) {
                Ok(outputs) => self.declared(&mut wiring, &outputs)?,
                Err(error) => {
                    let error = error.load_error("the graph", "");
                    let text = error.to_string();
                    refused = Some(error);
                    bail!("{text}");
                }
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
