//! `ParseExample`: a model that reads its features out of serialised `tf.Example` messages.
//!
//! That is how estimators were exported. The features themselves become the inputs, under their own names:
//! a consumer has them as values, and a serialised message is no text.

use super::api::tfpb::attr_value::{ListValue, Value};
use super::api::tfpb::{DataType, NodeDef};
use super::api::{DatumType, EngineTensor, tensor0, tract_ndarray};
use super::builder::{Builder, Wire};
use super::constants::computed_type;
use super::graph::{Attributes, Content, Graph, GraphInput, Node, Port};
use super::saved_model::input_node;
use super::{malformed, unsupported};
use crate::load::LoadError;

/// The most features of one message.
const MAX_FEATURES: usize = 1 << 12;

impl Builder<'_> {
    /// The outputs of a `ParseExample`: an input of the model for each feature.
    pub(super) fn build_examples(&mut self, node: &NodeDef, inputs: &[Wire]) -> Result<Vec<Wire>, LoadError> {
        let attributes = Attributes::new(node.attr.clone());
        let bad = || malformed(format!("the node `{}` does not say which features it reads", node.name));
        if attributes.list("ragged_value_types").is_some_and(|l| !l.r#type.is_empty()) {
            return Err(unsupported(&node.op, &node.name));
        }
        let types = |name: &str| attributes.list(name).map(|l| l.r#type.clone()).unwrap_or_default();
        let (sparse_types, dense_types) = (types("sparse_types"), types("Tdense"));
        if sparse_types.len() + dense_types.len() > MAX_FEATURES {
            return Err(malformed(format!("`{}` reads more than {MAX_FEATURES} features", node.name)));
        }
        // The names: two lists in the newer operator, a constant for each in the older one.
        let names = inputs.get(2..).unwrap_or_default();
        let (sparse, dense) = if node.op == "ParseExampleV2" {
            (self.words(names.first()), self.words(names.get(1)))
        } else {
            let (sparse, rest) = names.split_at_checked(sparse_types.len()).ok_or_else(bad)?;
            let dense = rest.get(..dense_types.len()).ok_or_else(bad)?;
            let each = |wires: &[Wire]| wires.iter().flat_map(|w| self.words(Some(w))).collect::<Vec<_>>();
            (each(sparse), each(dense))
        };
        if sparse.len() != sparse_types.len() || dense.len() != dense_types.len() {
            return Err(bad());
        }
        let (mut places, mut values, mut shapes) = (Vec::new(), Vec::new(), Vec::new());
        for (name, data_type) in sparse.iter().zip(sparse_types) {
            let x = self.feature(node, name, data_type, Some(vec![None, None]))?;
            let entries = self.entries(node, x)?;
            let [place, value, shape] = entries.map(Wire::Live);
            places.push(place);
            values.push(value);
            shapes.push(shape);
        }
        let mut out: Vec<Wire> = places.into_iter().chain(values).chain(shapes).collect();
        let stated: &[_] = attributes.list("dense_shapes").map_or(&[], |l: &ListValue| l.shape.as_slice());
        for (at, (name, data_type)) in dense.iter().zip(dense_types).enumerate() {
            let size = |size: i64| usize::try_from(size).ok();
            let inner = stated.get(at).filter(|s| !s.unknown_rank);
            let dims =
                inner.map(|s| std::iter::once(None).chain(s.dim.iter().map(|d| size(d.size))).collect());
            out.push(Wire::Live(self.feature(node, name, data_type, dims)?));
        }
        Ok(out)
    }

    /// The words of a constant.
    fn words(&self, wire: Option<&Wire>) -> Vec<String> {
        let Some(Wire::Live(port)) = wire else { return Vec::new() };
        match self.graph.nodes.get(port.node).map(|n| &n.content) {
            Some(Content::Constant(words)) => {
                let words = words.as_plain_ram().and_then(|w| Some(w.as_slice::<String>().ok()?.to_vec()));
                words.unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// A new input of the model; the same for a feature that is read twice.
    fn feature(
        &mut self,
        node: &NodeDef,
        name: &str,
        data_type: i32,
        dims: Option<Vec<Option<usize>>>,
    ) -> Result<Port, LoadError> {
        if let Some(position) = self.graph.inputs.iter().position(|i| i.name == name && i.parsed)
            && let Some(at) = self.graph.nodes.iter().position(|n| is_input(n, position))
        {
            return Ok(Port::first(at));
        }
        let datum = DataType::try_from(data_type).ok().and_then(computed_type);
        let datum = datum.ok_or_else(|| {
            malformed(format!("the feature `{name}` of `{}` is of a type that is not supported", node.name))
        })?;
        let position = self.graph.inputs.len();
        self.graph.inputs.push(GraphInput { name: name.to_owned(), datum, dims, parsed: true });
        Ok(Port::first(self.push(input_node(name, position))?))
    }

    /// A feature of several values as a sparse tensor: empty strings and -1 are no values, as
    /// TensorFlow's own feature columns have it.
    fn entries(&mut self, node: &NodeDef, x: Port) -> Result<[Port; 3], LoadError> {
        let datum = self.graph.nodes.get(x.node).and_then(|n| match n.content {
            Content::Input(position) => self.graph.inputs.get(position).map(|i| i.datum),
            _ => None,
        });
        let nothing = match datum {
            Some(DatumType::String) => EngineTensor::from(tract_ndarray::arr0(String::new()).into_dyn()),
            Some(DatumType::I64) => tensor0(-1_i64),
            _ => tensor0(-1_f32),
        };
        let nothing = self.push_constant(&node.name, nothing)?;
        let there = self.step(node, "NotEqual", vec![x, nothing])?;
        let places = self.step(node, "Where", vec![there])?;
        let values = self.step(node, "GatherNd", vec![x, places])?;
        let shape = self.step(node, "Shape", vec![x])?;
        if let Some(shape) = self.graph.nodes.get_mut(shape.node) {
            shape.attributes.set("out_type", Value::Type(DataType::DtInt64 as i32));
        }
        Ok([places, values, shape])
    }
}

fn is_input(node: &Node, position: usize) -> bool {
    matches!(node.content, Content::Input(at) if at == position)
}

/// Where features were made inputs, the message that they came in is none, nor is a feature that no
/// output needs.
pub(super) fn keep_parsed(graph: &mut Graph) {
    if !graph.inputs.iter().any(|i| i.parsed) {
        return;
    }
    let needed = graph.needed(graph.outputs.iter().map(|o| o.port), |_| true);
    let read = |position: usize| {
        graph.nodes.iter().zip(&needed).any(|(node, needed)| *needed && is_input(node, position))
    };
    let kept: Vec<bool> = (0..graph.inputs.len()).map(read).collect();
    let mut next = 0;
    let places: Vec<Option<usize>> = { kept.iter() }
        .map(|kept| {
            next += usize::from(*kept);
            kept.then(|| next - 1)
        })
        .collect();
    let mut keep = kept.iter();
    graph.inputs.retain(|_| *keep.next().unwrap_or(&false));
    for node in &mut graph.nodes {
        if let Content::Input(position) = &mut node.content {
            match places.get(*position).copied().flatten() {
                Some(place) => *position = place,
                // Nothing reads it; its place is none that an input has.
                None => node.content = Content::State,
            }
        }
    }
    super::prune::prune(graph);
}
