//! The engine for what only tract runs: transposed convolutions, resizing and the like. Operators
//! that have a kernel and that tract lacks, or computes wrongly, are our kernels in its graph.
#![allow(clippy::wildcard_imports, reason = "tract is used by its prelude")]

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb;
use tract_onnx::tract_hir::internal::*;

use super::bounded::Bounded;
use super::check::title;
use super::contributed::hint;
use super::graph::Graph;
use super::translate::to_message;
use super::{layers, nan};
use crate::kernel::program::{GraphParts, NodeParts};
use crate::kernel::{self, BuildError, Kernel, Node, RunContext};
use crate::load::tract::convert::{datum_type, strings_to_engine, to_engine};
use crate::load::tract::operator::KernelOp;
use crate::load::tract::plan::guarded;
use crate::load::tract::{Blueprint, Extent, Output, TractModel};
use crate::load::{LoadError, LoadOptions, RunError};
use crate::signature::{Labels, TensorSpec};
use crate::tensor::{ElementType, Tensor as Ours};

/// Makes a model that tract runs.
pub(super) fn build(
    graph: Graph,
    inputs: &[TensorSpec],
    options: &LoadOptions,
) -> Result<TractModel, LoadError> {
    let names: Vec<String> = graph.outputs.iter().map(|o| o.name.clone()).collect();
    let (network, labels) = guarded_load(|| Network::new(graph.parts, inputs, options))?;
    let output = |name: &String| Output { name: name.as_str().into(), labels: labels.get(name).cloned() };
    let outputs: Vec<Output> = names.iter().map(output).collect();
    TractModel::build(Box::new(network), inputs, &outputs, options.memory_budget)
}

/// A network before its input shapes are known.
struct Network {
    model: InferenceModel,
    elements: Vec<ElementType>,
    /// The bytes of the kernels in it.
    kernel_bytes: usize,
}

impl Network {
    fn new(
        mut parts: GraphParts,
        inputs: &[TensorSpec],
        options: &LoadOptions,
    ) -> Result<(Self, HashMap<String, Labels>), LoadError> {
        if parts.nodes.len() > MAX_NODES {
            return Err(super::check::malformed(format!(
                "{} nodes, a graph that needs tract may have {MAX_NODES}",
                parts.nodes.len()
            )));
        }
        let template = InferenceModel::default();
        let mut wiring = Wiring {
            model: template.clone(),
            outlets: HashMap::new(),
            constants: HashMap::new(),
            layers: layers::take(&mut parts),
            labels: HashMap::new(),
            degrees: HashMap::new(),
            kernel_bytes: 0,
            budget: options.memory_budget,
        };
        for input in inputs {
            let id = wiring.model.add_source(&**input.name(), InferenceFact::default()).map_err(refused)?;
            wiring.outlets.insert(input.name().to_string(), id);
        }
        let outputs = parts.outputs.clone();
        wiring.constants(parts.constants)?;
        let framework = nan::front_end();
        let message = pb::ModelProto::default();
        let version = parts.nodes.iter().find(|n| n.domain.is_empty()).map_or(17, |n| n.version);
        let context = ParsingContext {
            onnx_operator_set_version: version,
            framework: &framework,
            model: &message,
            parent_graphs: Vec::new(),
            model_dir: None,
            template,
        };
        for (index, node) in parts.nodes.iter().enumerate() {
            match wiring.layers.remove(&index) {
                Some(layer) => wiring.layer(node, layer)?,
                None => wiring.node(node, &context)?,
            }
        }
        let outlets: Vec<OutletId> =
            outputs.iter().map(|name| wiring.outlet(name)).collect::<Result<_, _>>()?;
        wiring.model.select_output_outlets(&outlets).map_err(refused)?;
        let elements = inputs.iter().map(TensorSpec::element_type).collect();
        let kernel_bytes = wiring.kernel_bytes;
        Ok((Self { model: wiring.model, elements, kernel_bytes }, wiring.labels))
    }
}

impl Blueprint for Network {
    fn shared_bytes(&self) -> usize {
        self.kernel_bytes
    }

    fn typed(&self, inputs: &[Vec<Extent>]) -> Result<TypedModel, LoadError> {
        guarded(|| {
            let mut model = self.model.clone();
            for (index, (extents, element)) in inputs.iter().zip(&self.elements).enumerate() {
                let dims: TVec<TDim> = extents.iter().map(|e| e.to_dim(&model.symbols)).collect();
                model.set_input_fact(index, InferenceFact::dt_shape(datum_type(*element), dims))?;
            }
            model.into_typed()
        })
    }
}

/// A tract graph in the making.
struct Wiring {
    model: InferenceModel,
    outlets: HashMap<String, OutletId>,
    /// The small constants of the file, for kernels that are built from them.
    constants: HashMap<String, Arc<Ours>>,
    /// The layers among the nodes that hold large weights, by position.
    layers: HashMap<usize, Box<dyn Kernel>>,
    labels: HashMap<String, Labels>,
    /// Of the tensors that are computed from sizes, the highest power of one.
    degrees: HashMap<String, u32>,
    kernel_bytes: usize,
    budget: u64,
}

/// The largest tensor that is computed before there is a graph.
const MAX_AHEAD: u64 = 16 << 20;
/// The most nodes of a graph for tract: what it does with one takes more than linear time.
const MAX_NODES: usize = 6_000;
/// The most inputs of a node for tract.
const MAX_INPUTS: usize = 1_000;
/// The highest power of a size that a graph may compute: tract multiplies such sums out.
const MAX_DEGREE: u32 = 16;
/// Up to this many elements a constant is kept for the kernels beside tract's copy.
const KEPT_ELEMENTS: usize = 4096;

impl Wiring {
    fn constants(&mut self, constants: Vec<(String, Arc<Ours>)>) -> Result<(), LoadError> {
        for (name, value) in constants {
            let tensor = if value.element_type() == ElementType::String {
                strings_to_engine(value.dims(), value.values::<String>().unwrap_or(&[]).to_vec())
            } else {
                to_engine(value.view())
            };
            let tensor = tensor.map_err(|e| LoadError::Engine(e.to_string()))?;
            if value.shape().elements() <= KEPT_ELEMENTS {
                self.constants.insert(name.clone(), value);
            }
            let outlet = self.model.add_const(name.clone(), tensor).map_err(refused)?;
            self.outlets.insert(name, outlet);
        }
        Ok(())
    }

    fn node(&mut self, node: &NodeParts, context: &ParsingContext<'_>) -> Result<(), LoadError> {
        if node.inputs.len() > MAX_INPUTS {
            return Err(super::check::malformed(format!(
                "{} has {} inputs, in a graph that needs tract at most {MAX_INPUTS} are taken",
                title(node),
                node.inputs.len()
            )));
        }
        self.check_degree(node)?;
        if self.computed_ahead(node)? {
            return Ok(());
        }
        let (operator, captures) = self.operator(node, context)?;
        self.wire(node, operator, node.inputs.iter().filter(|name| !name.is_empty()).chain(&captures))
    }

    /// A layer reads its first input only: the others are in it.
    fn layer(&mut self, node: &NodeParts, layer: Box<dyn Kernel>) -> Result<(), LoadError> {
        let inputs = node.inputs.get(..1).unwrap_or(&[]);
        let operator = self.kernel(node, layer, inputs);
        self.wire(node, operator, inputs.iter())
    }

    fn wire<'n>(
        &mut self,
        node: &NodeParts,
        operator: Box<dyn InferenceOp>,
        read: impl Iterator<Item = &'n String>,
    ) -> Result<(), LoadError> {
        let facts = node.outputs.iter().filter(|o| !o.is_empty()).map(|_| InferenceFact::default()).collect();
        let named = [Some(&node.name), node.outputs.first()].into_iter().flatten().find(|n| !n.is_empty());
        let unique = self.model.nodes().len();
        let name = named.map_or_else(|| format!("{unique}.{}", node.operator), |n| format!("{n}.{unique}"));
        let id = self.model.add_node(name, operator, facts).map_err(refused)?;
        for (slot, name) in read.enumerate() {
            let outlet = self.outlet(name)?;
            self.model.add_edge(outlet, InletId::new(id, slot)).map_err(refused)?;
        }
        for (slot, name) in node.outputs.iter().filter(|o| !o.is_empty()).enumerate() {
            let outlet = OutletId::new(id, slot);
            self.model.set_outlet_label(outlet, name.clone()).map_err(refused)?;
            self.outlets.insert(name.clone(), outlet);
        }
        Ok(())
    }

    /// Computes a node that has nothing but constants to work on, within bounds, before tract does
    /// so without them. False where it is not such a node, or has no kernel.
    fn computed_ahead(&mut self, node: &NodeParts) -> Result<bool, LoadError> {
        if node.attributes.graphs().next().is_some() {
            return Ok(false);
        }
        let inputs: Option<Vec<Option<Option<&Ours>>>> =
            node.inputs
                .iter()
                .map(|name| {
                    if name.is_empty() { Some(None) } else { Some(Some(Some(&**self.constants.get(name)?))) }
                })
                .collect();
        let Some(inputs) = inputs else { return Ok(false) };
        let Ok(kernel) = kernel_of(node, &inputs) else { return Ok(false) };
        let views: Vec<_> = inputs.iter().map(|i| i.flatten().map(Ours::view)).collect();
        let mut outputs = vec![Ours::default(); node.outputs.len()];
        match kernel.run(&views, &mut outputs, &RunContext::of_trial(MAX_AHEAD)) {
            Ok(()) => {}
            Err(RunError::OverBudget { needed }) if needed > self.budget => {
                return Err(LoadError::OverBudget { what: title(node), needed, budget: self.budget });
            }
            // It may be in a branch that is never taken: it fails when it runs.
            Err(_) => return Ok(false),
        }
        let named = node.outputs.iter().cloned().zip(outputs.into_iter().map(Arc::new));
        self.constants(named.filter(|(name, _)| !name.is_empty()).collect())?;
        Ok(true)
    }

    /// What computes a node: tract, or a kernel where tract cannot or is wrong.
    fn operator(
        &mut self,
        node: &NodeParts,
        context: &ParsingContext<'_>,
    ) -> Result<(Box<dyn InferenceOp>, Vec<String>), LoadError> {
        self.check_sizes(node)?;
        let builder = match node.domain.as_str() {
            "" => context.framework.op_register.0.get(&node.operator),
            // Of the same name as the standard operator, and another one.
            "com.microsoft" if node.operator == "Attention" => None,
            "com.microsoft" => context.framework.op_register.0.get(&node.operator),
            _ => None,
        };
        let budget = self.budget;
        let of_tract = |builder: &Builder| {
            let (operator, captures) = builder(context, &to_message(node)?)
                .map_err(|e| LoadError::Engine(format!("{}: {e:#}", node.full_operator())))?;
            let bounded = Bounded::new(operator, budget, nan::loses_nan(node));
            Ok((Box::new(bounded) as Box<dyn InferenceOp>, captures))
        };
        if let Some(operator) = nan::in_place(node) {
            return Ok((operator, Vec::new()));
        }
        if let Some(builder) = builder
            && !nan::prefers_kernel(node)
            && !self.resizes_by_constants(node)
        {
            match of_tract(builder) {
                Ok(operator) => return Ok(operator),
                // What tract does not have a form of, a kernel may.
                Err(refused) if kernel_of(node, &self.given(node)).is_err() => return Err(refused),
                Err(_) => {}
            }
        }
        match (kernel_of(node, &self.given(node)), builder) {
            (Ok(kernel), _) => {
                for (index, output) in node.outputs.iter().enumerate() {
                    if let Some(labels) = kernel.labels(index) {
                        self.labels.insert(output.clone(), labels);
                    }
                }
                Ok((self.kernel(node, kernel, &node.inputs), Vec::new()))
            }
            (Err(BuildError::Unsupported), Some(builder)) => of_tract(builder),
            (Err(BuildError::Unsupported), None) => Err(LoadError::UnsupportedOperator {
                operator: node.full_operator(),
                node: node.name.clone(),
                hint: hint(&node.full_operator()),
            }),
            (Err(BuildError::Invalid(reason)), _) => Err(super::check::malformed(format!(
                "{} (node `{}`): {reason}",
                node.full_operator(),
                node.name
            ))),
        }
    }

    /// The inputs of a node as a kernel is built from them.
    fn given(&self, node: &NodeParts) -> Vec<Option<Option<&Ours>>> {
        let value = |name: &String| (!name.is_empty()).then(|| self.constants.get(name).map(Arc::as_ref));
        node.inputs.iter().map(value).collect()
    }

    /// True where our kernel can tell the size of the result; where the size is computed from shapes,
    /// only tract can.
    fn resizes_by_constants(&self, node: &NodeParts) -> bool {
        let known = |index: usize| {
            node.inputs.get(index).is_none_or(|name| name.is_empty() || self.constants.contains_key(name))
        };
        matches!(node.operator.as_str(), "Resize" | "Upsample") && node.domain.is_empty() && (1..4).all(known)
    }

    /// Follows the sizes that the graph computes with, as polynomials of the sizes of its inputs.
    fn check_degree(&mut self, node: &NodeParts) -> Result<(), LoadError> {
        let of = |name: &String| self.degrees.get(name).copied().unwrap_or(0);
        let all = || node.inputs.iter().map(of);
        let degree = match node.operator.as_str() {
            "Shape" | "Size" => 1,
            "Mul" => all().fold(0, u32::saturating_add),
            "Add" | "Sub" | "Div" | "Concat" | "Max" | "Min" | "Mod" | "Where" => all().max().unwrap_or(0),
            "ReduceProd" => all().next().unwrap_or(0).saturating_mul(8),
            "Gather" | "Slice" | "Cast" | "Unsqueeze" | "Squeeze" | "Identity" | "Reshape" | "Transpose" => {
                all().next().unwrap_or(0)
            }
            _ => 0,
        };
        if degree > MAX_DEGREE {
            return Err(super::check::malformed(format!(
                "{} computes with a size to the power of {degree}, at most {MAX_DEGREE} is taken",
                title(node)
            )));
        }
        if degree > 0 {
            self.degrees.extend(node.outputs.iter().map(|name| (name.clone(), degree)));
        }
        Ok(())
    }

    fn kernel(
        &mut self,
        node: &NodeParts,
        kernel: Box<dyn Kernel>,
        inputs: &[String],
    ) -> Box<dyn InferenceOp> {
        self.kernel_bytes += kernel.memory();
        let name = if node.name.is_empty() { node.outputs.first() } else { Some(&node.name) };
        let name = name.map_or("", String::as_str);
        let scope = &self.model.symbols;
        expand(KernelOp::new(kernel.into(), name, inputs, &node.outputs, self.budget / 4, scope))
    }

    /// tract reads sizes as 32-bit integers in places, where a larger one would become a small one.
    fn check_sizes(&self, node: &NodeParts) -> Result<(), LoadError> {
        if !matches!(node.operator.as_str(), "Expand" | "Tile" | "ConstantOfShape" | "Reshape" | "Resize") {
            return Ok(());
        }
        let sizes = node.inputs.iter().filter_map(|name| self.constants.get(name)?.values::<i64>());
        match sizes.flatten().find(|size| **size > i64::from(i32::MAX)) {
            Some(size) => Err(LoadError::OverBudget {
                what: title(node),
                needed: size.unsigned_abs(),
                budget: self.budget,
            }),
            None => Ok(()),
        }
    }

    fn outlet(&self, name: &str) -> Result<OutletId, LoadError> {
        let unknown = || super::check::malformed(format!("nothing makes `{name}`"));
        self.outlets.get(name).copied().ok_or_else(unknown)
    }
}

type Builder = fn(&ParsingContext<'_>, &pb::NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

fn kernel_of(node: &NodeParts, inputs: &[Option<Option<&Ours>>]) -> Result<Box<dyn Kernel>, BuildError> {
    kernel::build(&Node {
        operator: &node.operator,
        domain: &node.domain,
        version: node.version,
        attributes: &node.attributes,
        inputs,
        outputs: node.outputs.len(),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: TractError) -> LoadError {
    LoadError::Engine(crate::load::tract::convert::engine_text(&error))
}

/// Runs a part of the loading that calls tract's front end, which can panic.
fn guarded_load<T>(work: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    guarded(|| Ok(work())).and_then(|done| done)
}
