//! From the parts of a graph to the steps of a program.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::order::{capture, order};
use super::slots::Layout;
use super::{Constants, GraphParts, NodeParts, Program, ProgramError};
use crate::kernel::standard::convolution::Conv;
use crate::kernel::standard::matmul::{Given, LayerForm};
use crate::kernel::{self, Fact, FactDim, Kernel, Node, ROUNDED_TO};
use crate::signature::Labels;
use crate::tensor::{ElementType, Tensor};

/// If in If in If: nobody exports more.
const MAX_DEPTH: usize = 8;

/// Makes a program of what the outputs need of a graph, or gives back what it holds.
pub(super) fn compile(mut parts: GraphParts) -> Result<Program, (ProgramError, Constants)> {
    let mut draft = Draft::default();
    let planned = plan(&mut draft, &mut parts);
    match planned {
        Ok(()) => draft.finish(&parts).map_err(|error| (error, Constants::new())),
        Err(error) => Err((error, draft.into_constants())),
    }
}

/// Finds the kernels of all nodes that are needed, in an order in which they can run.
fn plan(draft: &mut Draft, parts: &mut GraphParts) -> Result<(), ProgramError> {
    let depth = parts.depth();
    if depth > MAX_DEPTH {
        return Err(ProgramError::TooDeep { depth, max: MAX_DEPTH });
    }
    parts.nodes.iter_mut().for_each(capture);
    let order = order(parts)?;
    draft.take_in(parts)?;
    let mut nodes: Vec<Option<NodeParts>> = std::mem::take(&mut parts.nodes).into_iter().map(Some).collect();
    for index in order {
        if let Some(node) = nodes.get_mut(index).and_then(Option::take) {
            draft.add(node)?;
        }
    }
    Ok(())
}

/// A value of the graph.
#[derive(Debug, Default)]
pub(crate) struct Value {
    /// Position among the inputs of the graph.
    pub(crate) input: Option<usize>,
    pub(crate) constant: Option<Arc<Tensor>>,
    pub(crate) fact: Option<Fact>,
    pub(crate) labels: Option<Labels>,
}

/// A node with its kernel, its tensors known by their number.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) node: NodeParts,
    pub(crate) kernel: Box<dyn Kernel>,
    pub(crate) inputs: Vec<Option<usize>>,
    pub(crate) outputs: Vec<usize>,
}

/// A kernel, and what is known of its outputs as far as something is.
type Known = (Box<dyn Kernel>, Vec<Option<Fact>>);

/// A program in the making.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) values: Vec<Value>,
    pub(crate) steps: Vec<Planned>,
    /// The values that the graph is to answer.
    pub(crate) wanted: Vec<usize>,
    names: HashMap<String, usize>,
    /// The constants of the graph, by name and number.
    given: Vec<(String, usize)>,
    pub(super) folded: usize,
}

impl Draft {
    /// Gives the inputs and the constants of a graph their numbers.
    fn take_in(&mut self, parts: &mut GraphParts) -> Result<(), ProgramError> {
        for (index, input) in parts.inputs.iter().enumerate() {
            let open = |(axis, dim): (usize, &FactDim)| match dim {
                FactDim::Fixed(n) => FactDim::Fixed(*n),
                _ => FactDim::Like { input: index, axis },
            };
            let fact = input.fact.as_ref().map(|f| Fact {
                element: f.element,
                dims: f.dims.as_ref().map(|dims| dims.iter().enumerate().map(open).collect()),
            });
            self.name(&input.name, Value { input: Some(index), fact, ..Value::default() })?;
        }
        for (name, constant) in parts.constants.drain(..) {
            if !self.names.contains_key(&name) {
                let number = self.name(&name, Value::constant(constant))?;
                self.given.push((name, number));
            }
        }
        Ok(())
    }

    /// The constants that it was given.
    fn into_constants(mut self) -> Constants {
        let mut constant = |value: usize| self.values.get_mut(value)?.constant.take();
        self.given.into_iter().filter_map(|(name, value)| Some((name, constant(value)?))).collect()
    }

    /// Adds a value; it answers its number.
    pub(crate) fn push(&mut self, value: Value) -> usize {
        self.values.push(value);
        self.values.len() - 1
    }

    /// The constant that a value is.
    pub(crate) fn constant(&self, value: Option<usize>) -> Option<&Arc<Tensor>> {
        self.values.get(value?)?.constant.as_ref()
    }

    /// The type of a value, where it is known.
    pub(crate) fn element(&self, value: usize) -> Option<ElementType> {
        Some(self.values.get(value)?.fact.as_ref()?.element)
    }

    /// The rank of a value, where it is known.
    pub(crate) fn rank(&self, value: usize) -> Option<usize> {
        Some(self.values.get(value)?.fact.as_ref()?.dims.as_ref()?.len())
    }

    /// The last dimension of a value, where it is known.
    pub(crate) fn width(&self, value: usize) -> Option<usize> {
        match self.values.get(value)?.fact.as_ref()?.dims.as_ref()?.last()? {
            FactDim::Fixed(n) => Some(*n),
            _ => None,
        }
    }

    /// The second dimension of a value, where it is known.
    pub(crate) fn channels(&self, value: usize) -> Option<usize> {
        match self.values.get(value)?.fact.as_ref()?.dims.as_ref()?.get(1)? {
            FactDim::Fixed(n) => Some(*n),
            _ => None,
        }
    }

    /// The kernel of a node that reads these values, and what is known of its outputs.
    pub(crate) fn kernel(&self, node: &NodeParts, inputs: &[Option<usize>]) -> Result<Known, ProgramError> {
        let given = self.given(inputs);
        let kernel = kernel::build(&Node {
            operator: &node.operator,
            domain: if node.domain == "ai.onnx" { "" } else { &node.domain },
            version: node.version,
            attributes: &node.attributes,
            inputs: &given,
            outputs: node.outputs.len(),
        })
        .map_err(|e| ProgramError::of(node, e))?;
        let facts = self.facts(node, kernel.as_ref(), inputs)?;
        Ok((kernel, facts))
    }

    /// A layer whose weights wait until [`kernel::fuse`] has seen what follows it.
    fn planned_layer(
        &self,
        node: &NodeParts,
        inputs: &[Option<usize>],
    ) -> Result<Option<Known>, ProgramError> {
        let is_computed = |v: usize| self.constant(Some(v)).is_none();
        let Some(input) = inputs.first().copied().flatten().filter(|v| is_computed(*v)) else {
            return Ok(None);
        };
        let given = self.given(inputs);
        let planned: Option<Box<dyn Kernel>> = if node.outputs.len() != 1 {
            None
        } else if node.is("Gemm") || node.is("MatMul") {
            let form = LayerForm::of(node, &given).map_err(|e| ProgramError::of(node, e))?;
            form.map(|form| Box::new(form.planned()) as _)
        } else if node.is("Conv") && self.element(input) == Some(ElementType::F32) {
            Conv::planned(node, &given).map_err(|e| ProgramError::of(node, e))?.map(|c| Box::new(c) as _)
        } else {
            None
        };
        let Some(planned) = planned else { return Ok(None) };
        let facts = self.facts(node, planned.as_ref(), inputs)?;
        Ok(Some((planned, facts)))
    }

    /// Inputs as a [`Node`] states them.
    pub(crate) fn given(&self, inputs: &[Option<usize>]) -> Vec<Given<'_>> {
        inputs.iter().map(|i| i.map(|i| self.constant(Some(i)).map(Arc::as_ref))).collect()
    }

    /// Plans a node whose inputs are all there, or computes it now, or finds that it does nothing.
    fn add(&mut self, mut node: NodeParts) -> Result<(), ProgramError> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            inputs.push(if name.is_empty() { None } else { Some(self.find(name, &node.operator)?) });
        }
        self.tell_captures(&mut node);
        let (kernel, facts) = match self.planned_layer(&node, &inputs)? {
            Some(planned) => planned,
            None => self.kernel(&node, &inputs)?,
        };
        if let Some(same) = self.unchanged(&node, &inputs, &facts) {
            if let (Some(labels), Some(value)) = (kernel.labels(0), self.values.get_mut(same)) {
                value.labels = Some(labels);
            }
            return self.alias(&node, same);
        }
        if let Some(results) = self.fold(&node, kernel.as_ref(), &inputs) {
            for (name, tensor) in node.outputs.iter().zip(results) {
                if !name.is_empty() {
                    self.name(name, Value::constant(Arc::new(tensor)))?;
                }
            }
            return Ok(());
        }
        let mut outputs = Vec::with_capacity(node.outputs.len());
        let mut facts = facts.into_iter();
        for (index, name) in node.outputs.iter().enumerate() {
            let inherited =
                || self.values.get((*inputs.first()?)?).filter(|_| keeps_labels(&node))?.labels.clone();
            let labels = kernel.labels(index).or_else(inherited);
            let value = Value { fact: facts.next().flatten(), labels, ..Value::default() };
            outputs.push(if name.is_empty() { self.push(value) } else { self.name(name, value)? });
        }
        self.steps.push(Planned { node, kernel, inputs, outputs });
        Ok(())
    }

    /// Removes what is superfluous, numbers the tensors, and lets go of all names.
    fn finish(mut self, parts: &GraphParts) -> Result<Program, ProgramError> {
        for name in &parts.outputs {
            let value = self.find(name, "")?;
            self.wanted.push(value);
        }
        kernel::fuse::fuse(&mut self)?;
        Ok(Layout::new(&self).program(self, parts.inputs.len()))
    }

    fn find(&self, name: &str, operator: &str) -> Result<usize, ProgramError> {
        let unknown = || ProgramError::UnknownTensor { name: name.into(), operator: operator.into() };
        self.names.get(name).copied().ok_or_else(unknown)
    }

    fn name(&mut self, name: &str, value: Value) -> Result<usize, ProgramError> {
        let number = self.push(value);
        match self.names.insert(name.to_owned(), number) {
            None => Ok(number),
            Some(_) => Err(ProgramError::Duplicate { name: name.into() }),
        }
    }

    /// Makes the first output of a node another name of a value.
    fn alias(&mut self, node: &NodeParts, value: usize) -> Result<(), ProgramError> {
        match node.outputs.first() {
            Some(name) if self.names.insert(name.clone(), value).is_some() => {
                Err(ProgramError::Duplicate { name: name.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Tells the graphs in a node's attributes what is known of the values that they capture, and
    /// the types of what they are given where they do not say it themselves.
    fn tell_captures(&self, node: &mut NodeParts) {
        let fact = |name: &str| self.names.get(name).and_then(|v| self.values.get(*v)?.fact.clone());
        let is_loop = node.is("Loop");
        let shift = usize::from(node.is("Scan") && node.version < 9);
        let NodeParts { attributes, inputs: given, .. } = node;
        for graph in attributes.graphs_mut() {
            let own = graph.inputs.len().saturating_sub(graph.captures);
            for (index, input) in graph.inputs.iter_mut().enumerate() {
                if index >= own {
                    input.fact = fact(&input.name);
                } else if input.fact.is_none() {
                    let element = match index {
                        0 if is_loop => Some(ElementType::I64),
                        1 if is_loop => Some(ElementType::Bool),
                        _ => given.get(index + shift).and_then(|name| fact(name)).map(|f| f.element),
                    };
                    input.fact = element.map(|element| Fact { element, dims: None });
                }
            }
        }
    }

    fn facts(
        &self,
        node: &NodeParts,
        kernel: &dyn Kernel,
        inputs: &[Option<usize>],
    ) -> Result<Vec<Option<Fact>>, ProgramError> {
        let unknown = |dim: &FactDim| match dim {
            FactDim::Fixed(n) => FactDim::Fixed(*n),
            _ => FactDim::Unknown,
        };
        let mut known = Vec::with_capacity(inputs.len());
        for input in inputs {
            known.push(match input.map(|i| self.values.get(i).and_then(|v| v.fact.as_ref())) {
                None => None,
                Some(Some(fact)) => Some(Fact {
                    element: fact.element,
                    dims: fact.dims.as_ref().map(|dims| dims.iter().map(unknown).collect()),
                }),
                // Of an input of an unknown type nothing follows.
                Some(None) => return Ok(Vec::new()),
            });
        }
        let facts = kernel.facts(&known).map_err(|e| ProgramError::of(node, e))?;
        let resolve = |dim: FactDim| match dim {
            FactDim::Like { input, axis } => self.dim(inputs.get(input).copied().flatten(), axis),
            dim => dim,
        };
        let resolved = facts.into_iter().map(|fact| {
            Some(Fact {
                element: fact.element,
                dims: fact.dims.map(|d| d.into_iter().map(resolve).collect()),
            })
        });
        Ok(resolved.collect())
    }

    fn dim(&self, value: Option<usize>, axis: usize) -> FactDim {
        let fact = value.and_then(|v| self.values.get(v)).and_then(|v| v.fact.as_ref());
        fact.and_then(|f| f.dims.as_ref()?.get(axis).copied()).unwrap_or(FactDim::Unknown)
    }

    /// The input that a node's only output is the same as.
    fn unchanged(&self, node: &NodeParts, inputs: &[Option<usize>], facts: &[Option<Fact>]) -> Option<usize> {
        let first = (*inputs.first()?)?;
        let before = self.values.get(first)?.fact.as_ref();
        let after = facts.first().and_then(Option::as_ref);
        let fixed = |f: &Fact| f.dims.as_ref().is_some_and(|d| !d.contains(&FactDim::Unknown));
        let same = match node.operator.as_str() {
            "Identity" if node.is("Identity") => true,
            "Dropout" if node.is("Dropout") => {
                node.outputs.get(1).is_none_or(String::is_empty) && inputs.len() < 3
            }
            "Cast" if node.is("Cast") => {
                before?.element == after?.element && !node.attributes.contains(ROUNDED_TO)
            }
            // Where the facts say that the width is right there is nothing left to check.
            "ZipMap" if node.domain == "ai.onnx.ml" => before == after && fixed(before?),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand" if node.domain.is_empty() => {
                before == after && fixed(before?)
            }
            _ => false,
        };
        same.then_some(first)
    }
}

impl Value {
    /// A value that is computed.
    pub(crate) fn of(element: ElementType, dims: Option<SmallVec<[FactDim; 4]>>) -> Self {
        Self { fact: Some(Fact { element, dims }), ..Self::default() }
    }

    pub(crate) fn constant(tensor: Arc<Tensor>) -> Self {
        let dims = tensor.dims().iter().map(|n| FactDim::Fixed(*n)).collect();
        let fact = Some(Fact { element: tensor.element_type(), dims: Some(dims) });
        Self { constant: Some(tensor), fact, ..Self::default() }
    }
}

/// True where the last dimension of the output is the last dimension of the first input.
fn keeps_labels(node: &NodeParts) -> bool {
    match node.domain.as_str() {
        "ai.onnx.ml" => matches!(node.operator.as_str(), "Normalizer" | "ZipMap"),
        "" | "ai.onnx" => {
            matches!(node.operator.as_str(), "Cast" | "Softmax" | "Identity" | "Clip" | "Sigmoid")
        }
        _ => false,
    }
}
