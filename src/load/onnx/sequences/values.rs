//! The operators of sequences and optional tensors, in terms of those of tensors.

use std::collections::HashMap;

use super::super::proto::{AttributeProto, GraphProto, NodeProto, attribute_type};
use super::{MAX_TENSORS, Sequence, Sequences, is_of_sequences, loops};
use crate::load::tensor_proto::TensorProto;
use crate::tensor::Tensor;

/// The most bytes of a constant that may be a position or a list of sizes.
const MAX_BYTES: usize = 4096;

/// What is known of the values of a graph.
pub(super) struct Values {
    version: i64,
    /// Whole numbers that are constants, with their ranks.
    constants: HashMap<String, (Vec<i64>, usize)>,
    pub(super) sequences: Sequences,
    /// Optional tensors: what they hold, or nothing.
    optionals: HashMap<String, Option<String>>,
    /// Constants that replaced nodes need.
    pub(super) made: Vec<TensorProto>,
    tensors: usize,
}

impl Values {
    pub(super) fn new(graph: &GraphProto, version: i64) -> Self {
        let mut constants = HashMap::new();
        for tensor in &graph.initializer {
            constants.extend(numbers(tensor).map(|numbers| (tensor.name.clone(), numbers)));
        }
        for node in graph.node.iter().filter(|node| node.op_type == "Constant") {
            let numbers = node.attribute.first().and_then(|attribute| match attribute.name.as_str() {
                "value" => numbers(attribute.t.as_ref()?),
                "value_int" => Some((vec![attribute.i], 0)),
                "value_ints" => Some((attribute.ints.clone(), 1)),
                _ => None,
            });
            constants.extend(node.output.first().cloned().zip(numbers));
        }
        let (sequences, optionals) = (HashMap::new(), HashMap::new());
        Self { version, constants, sequences, optionals, made: Vec::new(), tensors: 0 }
    }

    /// Adds to `nodes` what takes the place of a node, or gives the node back.
    pub(super) fn replace(&mut self, mut node: NodeProto, nodes: &mut Vec<NodeProto>) -> Option<NodeProto> {
        if node.op_type == "Loop" && loops::gather(&mut node, &mut self.sequences) {
            // What comes behind it may be replaced now.
            nodes.push(node);
            return None;
        }
        if node.op_type == "Identity" {
            return self.renamed(&node).is_none().then_some(node);
        }
        if !is_of_sequences(&node) {
            return Some(node);
        }
        self.replaced(&node, nodes).is_none().then_some(node)
    }

    fn renamed(&mut self, node: &NodeProto) -> Option<()> {
        let (from, to) = (node.input.first()?, node.output.first()?.clone());
        if let Some(sequence) = self.sequences.get(from).cloned() {
            return self.define(to, sequence);
        }
        let optional = self.optionals.get(from).cloned()?;
        self.optionals.insert(to, optional);
        Some(())
    }

    fn define(&mut self, name: String, sequence: Sequence) -> Option<()> {
        if let Sequence::Tensors(tensors) = &sequence {
            self.tensors = self.tensors.saturating_add(tensors.len());
        }
        if self.tensors > MAX_TENSORS {
            return None;
        }
        self.sequences.insert(name, sequence);
        Some(())
    }

    fn replaced(&mut self, node: &NodeProto, nodes: &mut Vec<NodeProto>) -> Option<()> {
        let output = node.output.first()?.clone();
        let input = |index: usize| node.input.get(index).filter(|name| !name.is_empty());
        match node.op_type.as_str() {
            "SequenceEmpty" => self.define(output, Sequence::Tensors(Vec::new())),
            "SequenceConstruct" => self.define(output, Sequence::Tensors(node.input.clone())),
            "SequenceInsert" => {
                let mut tensors = self.tensors_of(input(0)?)?;
                let at = match input(2) {
                    Some(at) => position(self.number(at)?, tensors.len() + 1)?,
                    None => tensors.len(),
                };
                tensors.insert(at, input(1)?.clone());
                self.define(output, Sequence::Tensors(tensors))
            }
            "SequenceErase" => {
                let mut tensors = self.tensors_of(input(0)?)?;
                let at = input(1).map_or(Some(-1), |at| self.number(at))?;
                tensors.remove(position(at, tensors.len())?);
                self.define(output, Sequence::Tensors(tensors))
            }
            "SequenceLength" => {
                let count = i64::try_from(self.tensors_of(input(0)?)?.len()).ok()?;
                self.made.push(TensorProto::from((output.as_str(), &Tensor::scalar(count))));
                Some(())
            }
            "SplitToSequence" => self.split(node, output, nodes),
            "SequenceAt" => self.at(input(0)?, input(1)?, &output, nodes),
            "ConcatFromSequence" => self.concat(node, &output, nodes),
            "Optional" => {
                self.optionals.insert(output, input(0).cloned());
                Some(())
            }
            "OptionalHasElement" => {
                let has = match input(0) {
                    Some(name) => self.optionals.get(name).is_none_or(Option::is_some),
                    None => false,
                };
                self.made.push(TensorProto::from((output.as_str(), &Tensor::scalar(has))));
                Some(())
            }
            "OptionalGetElement" => {
                let name = input(0)?;
                let held = self.optionals.get(name).cloned().unwrap_or_else(|| Some(name.clone()))?;
                if let Some(sequence) = self.sequences.get(&held).cloned() {
                    return self.define(output, sequence);
                }
                nodes.push(new("Identity", &[&held], &output, Vec::new()));
                Some(())
            }
            _ => None,
        }
    }

    /// Sizes that are a list give as many tensors; one size gives as many pieces as there are.
    fn split(&mut self, node: &NodeProto, output: String, nodes: &mut Vec<NodeProto>) -> Option<()> {
        let of = node.input.first()?.clone();
        let axis = int(node, "axis").unwrap_or(0);
        let Some(sizes) = node.input.get(1).filter(|name| !name.is_empty()) else {
            let keeps_axis = int(node, "keepdims").unwrap_or(1) != 0;
            return self.define(output, Sequence::Pieces { of, axis, size: 1, keeps_axis });
        };
        let (sizes, rank) = self.constants.get(sizes)?.clone();
        if rank == 0 {
            let size = *sizes.first().filter(|size| **size > 0)?;
            return self.define(output, Sequence::Pieces { of, axis, size, keeps_axis: true });
        }
        let mut start = 0_i64;
        let mut parts = Vec::with_capacity(sizes.len());
        for (number, size) in sizes.iter().enumerate() {
            let end = start.checked_add(*size).filter(|end| *end >= start)?;
            let name = format!("{output}.{number}");
            self.slice(&of, (start, end, axis), &name, nodes);
            parts.push(name);
            start = end;
        }
        self.define(output, Sequence::Tensors(parts))
    }

    fn at(&mut self, list: &str, at: &str, output: &str, nodes: &mut Vec<NodeProto>) -> Option<()> {
        let at = self.number(at)?;
        match self.sequences.get(list)?.clone() {
            Sequence::Tensors(tensors) => {
                let tensor = tensors.get(position(at, tensors.len())?)?;
                nodes.push(new("Identity", &[tensor], output, Vec::new()));
            }
            Sequence::Pieces { of, axis, keeps_axis: false, .. } => {
                let place = self.constant(format!("{output}.place"), &Tensor::scalar(at));
                nodes.push(new("Gather", &[&of, &place], output, vec![stated("axis", axis)]));
            }
            Sequence::Pieces { of, axis, size, .. } => {
                // How long the last of several pieces is depends on all of them.
                let start = if at >= 0 || size == 1 { at.checked_mul(size)? } else { return None };
                let end = if at == -1 { i64::MAX } else { start.checked_add(size)? };
                self.slice(&of, (start, end, axis), output, nodes);
            }
        }
        Some(())
    }

    fn concat(&mut self, node: &NodeProto, output: &str, nodes: &mut Vec<NodeProto>) -> Option<()> {
        let axis = int(node, "axis")?;
        let is_new = int(node, "new_axis").unwrap_or(0) != 0;
        match self.sequences.get(node.input.first()?)?.clone() {
            Sequence::Tensors(tensors) if tensors.is_empty() => None,
            Sequence::Tensors(tensors) => {
                let mut parts = tensors;
                if is_new {
                    for (number, part) in parts.iter_mut().enumerate() {
                        let name = format!("{output}.{number}");
                        let from = std::mem::replace(part, name.clone());
                        self.unsqueeze(&from, axis, &name, nodes);
                    }
                }
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                nodes.push(new("Concat", &parts, output, vec![stated("axis", axis)]));
                Some(())
            }
            Sequence::Pieces { of, axis: own, keeps_axis, .. } if own == axis && keeps_axis != is_new => {
                nodes.push(new("Identity", &[&of], output, Vec::new()));
                Some(())
            }
            // Rows of a stack one behind the other.
            Sequence::Pieces { of, axis: 0, keeps_axis: false, .. } if axis == 0 => {
                let names = ["shape", "rest", "dims"].map(|part| format!("{output}.{part}"));
                let [shape, rest, dims] = &names;
                nodes.push(new("Shape", &[&of], shape, Vec::new()));
                self.slice(shape, (2, i64::MAX, 0), rest, nodes);
                let open = self.constant(format!("{output}.open"), &Tensor::vector(vec![-1_i64]));
                nodes.push(new("Concat", &[&open, rest], dims, vec![stated("axis", 0)]));
                nodes.push(new("Reshape", &[&of, dims], output, Vec::new()));
                Some(())
            }
            Sequence::Pieces { .. } => None,
        }
    }

    fn slice(
        &mut self,
        of: &str,
        (start, end, axis): (i64, i64, i64),
        output: &str,
        nodes: &mut Vec<NodeProto>,
    ) {
        let [start, end, axis] = [("start", start), ("end", end), ("axis", axis)]
            .map(|(name, value)| self.constant(format!("{output}.{name}"), &Tensor::vector(vec![value])));
        nodes.push(new("Slice", &[of, &start, &end, &axis], output, Vec::new()));
    }

    fn unsqueeze(&mut self, of: &str, axis: i64, output: &str, nodes: &mut Vec<NodeProto>) {
        if self.version >= 13 {
            let axes = self.constant(format!("{output}.axes"), &Tensor::vector(vec![axis]));
            nodes.push(new("Unsqueeze", &[of, &axes], output, Vec::new()));
        } else {
            let axes = AttributeProto {
                name: "axes".to_owned(),
                ints: vec![axis],
                r#type: attribute_type::INTS,
                ..AttributeProto::default()
            };
            nodes.push(new("Unsqueeze", &[of], output, vec![axes]));
        }
    }

    fn constant(&mut self, name: String, value: &Tensor) -> String {
        self.made.push(TensorProto::from((name.as_str(), value)));
        name
    }

    fn tensors_of(&self, name: &str) -> Option<Vec<String>> {
        match self.sequences.get(name)? {
            Sequence::Tensors(tensors) => Some(tensors.clone()),
            Sequence::Pieces { .. } => None,
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.constants.get(name)?.0.first().copied()
    }
}

/// A position in a list of this length, counted from its end where it is negative.
fn position(at: i64, length: usize) -> Option<usize> {
    crate::kernel::standard::axis_of(at, length)
}

/// The whole numbers of a small tensor, and its rank.
fn numbers(tensor: &TensorProto) -> Option<(Vec<i64>, usize)> {
    if tensor.raw_data.len() > MAX_BYTES || tensor.stored_elements() > MAX_BYTES {
        return None;
    }
    let tensor = tensor.clone().into_tensor().ok()?;
    let numbers = crate::kernel::standard::ints(tensor.view())?;
    Some((numbers.to_vec(), tensor.dims().len()))
}

fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

fn stated(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i: value,
        r#type: attribute_type::INT,
        ..AttributeProto::default()
    }
}

fn new(operator: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        name: format!("{output}/{operator}"),
        op_type: operator.to_owned(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}
