//! ONNX files.
//!
//! A file is decoded ([`proto`]), checked ([`check`]) and taken apart into a graph in no format's
//! own terms ([`graph`]). Two engines run it: [`direct`] where every operator has a kernel,
//! [`network`] (tract) for the rest. A model is handed out only after it has been tried.

mod attributes;
mod bounded;
mod check;
mod contributed;
mod direct;
mod external;
mod functions;
mod graph;
mod held;
mod layers;
mod maps;
mod nan;
mod network;
mod proto;
mod recognise;
mod sequences;
mod sparse;
#[cfg(test)]
mod tests;
mod translate;
mod trial;

use std::sync::Arc;

use prost::Message;

pub use external::inline_external_data;

use self::check::malformed;
use self::direct::DirectModel;
use self::graph::{Declared, Graph};
use self::proto::ModelProto;
use crate::kernel::program::{GraphParts, NodeParts, Program, ProgramError};
use crate::load::{LoadError, LoadOptions, Loader, Model, Payload, caught, protobuf};
use crate::signature::{Dim, TensorSpec};
use crate::tensor::ElementType;

/// Up to this many bytes of constants both engines may be tried, one after the other: the graph is
/// then kept while the first is.
const SMALL_CONSTANTS: u64 = 16 << 20;

/// Operators that tract has fast code for and that are in no tabular model.
const NETWORK_OPERATORS: [&str; 2] = ["ConvTranspose", "Resize"];

/// The loader of ONNX files.
pub(crate) fn loader() -> Arc<dyn Loader> {
    Arc::new(OnnxLoader)
}

#[derive(Debug)]
struct OnnxLoader;

impl Loader for OnnxLoader {
    fn format(&self) -> &'static str {
        "onnx"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        recognise::is_model(payload.chunks().cloned())
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        caught(|| load(payload, options))
    }
}

fn load(payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
    if payload.is_empty() {
        return Err(malformed("the file is empty"));
    }
    protobuf::check(&payload, &proto::MODEL, options.memory_budget)?;
    // Each chunk of the payload is freed as it has been decoded.
    let mut model = ModelProto::decode(payload).map_err(|e| malformed(e.to_string()))?;
    functions::inline(&mut model, options.memory_budget)?;
    sequences::take_apart(&mut model);
    let mut columns = maps::take_apart(&mut model);
    check::check(&model)?;
    let graph = Graph::new(model, options)?;
    let labelled = |input: &Declared| {
        let spec = input_spec(input)?;
        Ok(match columns.remove(&input.name) {
            Some(labels) => spec.with_labels(labels),
            None => spec,
        })
    };
    let inputs = graph.inputs.iter().map(labelled).collect::<Result<Vec<_>, LoadError>>()?;
    if has_network_operators(&graph.parts) {
        return load_network(graph, &inputs, options);
    }
    if graph.constant_bytes() > SMALL_CONSTANTS {
        return load_large(graph, inputs, options);
    }
    match Program::build(graph.parts.clone()) {
        Ok(program) => {
            let strict = !may_refuse_values(&graph.parts) && !has_counts(&inputs);
            Ok(Arc::new(try_program(program, inputs, &graph.outputs, strict, options)?))
        }
        Err(ProgramError::Unsupported { .. }) => load_network(graph, &inputs, options),
        Err(error) => Err(program_error(error)),
    }
}

/// The constants go into the program one by one, and nothing else holds them; where it cannot be
/// made they come back.
fn load_large(
    graph: Graph,
    inputs: Vec<TensorSpec>,
    options: &LoadOptions,
) -> Result<Arc<dyn Model>, LoadError> {
    let Graph { mut parts, outputs, .. } = graph;
    let strict = !may_refuse_values(&parts) && !has_counts(&inputs);
    let constants = std::mem::take(&mut parts.constants);
    let rest = parts.clone();
    match Program::build_or_return(GraphParts { constants, ..parts }) {
        Ok(program) => Ok(Arc::new(try_program(program, inputs, &outputs, strict, options)?)),
        Err((ProgramError::Unsupported { .. }, constants)) => {
            let parts = GraphParts { constants, ..rest };
            load_network(Graph { parts, inputs: Vec::new(), outputs }, &inputs, options)
        }
        Err((error, _)) => Err(program_error(error)),
    }
}

fn load_network(
    graph: Graph,
    inputs: &[TensorSpec],
    options: &LoadOptions,
) -> Result<Arc<dyn Model>, LoadError> {
    let fallback = (graph.constant_bytes() <= SMALL_CONSTANTS).then(|| graph.parts.clone());
    let outputs = graph.outputs.clone();
    let refused = match network::build(graph, inputs, options) {
        Ok(model) => return Ok(Arc::new(model)),
        Err(error) => error,
    };
    // What tract cannot do may still be done by kernels alone.
    let strict = fallback.as_ref().is_some_and(|parts| !may_refuse_values(parts)) && !has_counts(inputs);
    if let Some(Ok(program)) = fallback.map(Program::build)
        && let Ok(model) = try_program(program, inputs.to_vec(), &outputs, strict, options)
    {
        return Ok(Arc::new(model));
    }
    Err(refused)
}

fn try_program(
    program: Program,
    inputs: Vec<TensorSpec>,
    outputs: &[Declared],
    strict: bool,
    options: &LoadOptions,
) -> Result<DirectModel, LoadError> {
    let outputs = trial::outputs(&program, &inputs, outputs, strict, options.memory_budget)?;
    let signature = crate::signature::Signature::new(inputs, outputs);
    Ok(DirectModel::new(program, signature, options.memory_budget))
}

fn input_spec(input: &Declared) -> Result<TensorSpec, LoadError> {
    let element = input.element.ok_or_else(|| malformed(format!("input `{}` has no type", input.name)))?;
    Ok(match &input.dims {
        Some(dims) => {
            let dims: Vec<Dim> = dims.iter().map(|d| d.fixed().map_or(Dim::Any, Dim::Fixed)).collect();
            TensorSpec::new(&input.name, element, &dims)
        }
        None => TensorSpec::of_any_shape(&input.name, element),
    })
}

/// True where a node, in a body or not, is one that tract is there for.
fn has_network_operators(parts: &GraphParts) -> bool {
    let is_network = |node: &NodeParts| {
        node.domain.is_empty() && NETWORK_OPERATORS.contains(&node.operator.as_str())
            || node.attributes.graphs().any(has_network_operators)
    };
    parts.nodes.iter().any(is_network)
}

/// True where an operator may refuse some values of the right shape, such as an unknown category,
/// so that a failed trial does not prove the model wrong.
fn may_refuse_values(parts: &GraphParts) -> bool {
    const CHOOSY: [&str; 12] = [
        "OneHotEncoder",
        "LabelEncoder",
        "CategoryMapper",
        "Gather",
        "GatherElements",
        "GatherND",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "ArrayFeatureExtractor",
        "Cast",
        "CastMap",
    ];
    parts.nodes.iter().any(|node| {
        CHOOSY.contains(&node.operator.as_str()) || node.attributes.graphs().any(may_refuse_values)
    })
}

/// True where an input may be a shape, a position or a number of things rather than a feature.
fn has_counts(inputs: &[TensorSpec]) -> bool {
    inputs.iter().any(|input| matches!(input.element_type(), ElementType::I32 | ElementType::I64))
}

fn program_error(error: ProgramError) -> LoadError {
    match error {
        ProgramError::Unsupported { operator, node } => {
            let hint = contributed::hint(&operator);
            LoadError::UnsupportedOperator { operator, node, hint }
        }
        other => malformed(other.to_string()),
    }
}
