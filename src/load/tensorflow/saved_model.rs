//! A SavedModel: which of its graphs and signatures is meant, and that one as a [`Graph`].

use std::collections::{BTreeMap, HashSet};

use super::api::tfpb::{DataType, MetaGraphDef, SavedModel, SignatureDef, TensorInfo, tensor_info};
use super::builder::{Builder, Wire};
use super::bundle::Bundle;
use super::constants::computed_type;
use super::files::Files;
use super::frame::Frame;
use super::graph::{Attributes, Content, Graph, GraphInput, GraphOutput, Node, Port};
use super::op_outputs::OpDefs;
use super::pieces::{self, Contents};
use super::{examples, frozen, malformed, prune::prune, text_format, unknown_name, weight};
use crate::load::{LoadError, LoadOptions, protobuf};

/// The tag of the graph that a server runs.
const SERVE: &str = "serve";
/// The signature that is used where the release names none.
const SERVING_DEFAULT: &str = "serving_default";
/// The signature under which TensorFlow keeps an initialiser; nothing to serve.
const INTERNAL_SIGNATURE: &str = "__saved_model_init_op";

/// Reads the model whose files these are.
pub(super) fn read(files: &dyn Files, options: &LoadOptions) -> Result<Graph, LoadError> {
    let (saved, contents) = if let Some(file) = files.take("saved_model.pb")? {
        frozen::check_whole(&file)?;
        protobuf::check(&file, &weight::SAVED_MODEL, options.memory_budget)?;
        pieces::saved_model(file)?
    } else if let Some(file) = files.take("saved_model.pbtxt")? {
        (text_format::saved_model(&file.into_bytes(), options.memory_budget)?, Vec::new())
    } else {
        let names = files.names().join(", ");
        let found = if names.is_empty() { names } else { format!("; there is: {names}") };
        return Err(malformed(format!("there is neither saved_model.pb nor saved_model.pbtxt{found}")));
    };
    build(saved, contents, files, options)
}

/// The graph of a decoded SavedModel: the large constants of each of its graphs are among `contents`, its
/// variables and assets among `files`.
pub(super) fn build(
    saved: SavedModel,
    contents: Vec<Contents>,
    files: &dyn Files,
    options: &LoadOptions,
) -> Result<Graph, LoadError> {
    let (mut meta, contents) = choose_graph(saved, contents)?;
    let signature = choose_signature(&mut meta, options.signature.as_deref())?;
    let ops = OpDefs::new(meta.meta_info_def.take().and_then(|m| m.stripped_op_list));
    let mut graph = meta.graph_def.take().ok_or_else(|| malformed("the meta graph has no graph"))?;
    let top_constants = frozen::take_constants(&mut graph.node);
    let functions = graph.library.take().map(|l| l.function).unwrap_or_default();
    let mut builder = Builder::new(&functions, ops, options.memory_budget);
    builder.top_constants = top_constants;
    builder.contents = contents;
    builder.bundle = Bundle::open(files, "variables/variables", options.memory_budget)?;
    builder.files = Some(files);
    let mut top = Frame::top(&graph.node);
    declare_inputs(&mut builder, &mut top, &signature, options)?;
    builder.collect_assignments(&mut top, &graph.node)?;
    for (name, info) in chosen(&signature.outputs, &options.outputs, "output")? {
        let port = builder.need_live(&mut top, reference(name, info)?)?;
        let datum = DataType::try_from(info.dtype).ok().and_then(computed_type);
        builder.graph.outputs.push(GraphOutput { name: name.clone(), port, datum });
    }
    let mut graph = builder.graph;
    prune(&mut graph);
    examples::keep_parsed(&mut graph);
    Ok(graph)
}

/// The signature with its maps in the order of their names: the file has none.
struct Signature {
    inputs: BTreeMap<String, TensorInfo>,
    outputs: BTreeMap<String, TensorInfo>,
}

fn choose_graph(
    saved: SavedModel,
    mut contents: Vec<Contents>,
) -> Result<(MetaGraphDef, Contents), LoadError> {
    let tags = |m: &MetaGraphDef| m.meta_info_def.as_ref().map(|i| i.tags.clone()).unwrap_or_default();
    let mut graphs = saved.meta_graphs;
    // Of several graphs for serving, the plain one: the others are for accelerators.
    let best = graphs
        .iter()
        .enumerate()
        .filter(|(_, m)| tags(m).iter().any(|t| t == SERVE))
        .min_by_key(|(_, m)| tags(m).len())
        .map(|(i, _)| i);
    match best.or((graphs.len() == 1).then_some(0)) {
        Some(index) => {
            let contents = contents.get_mut(index).map(std::mem::take).unwrap_or_default();
            Ok((graphs.swap_remove(index), contents))
        }
        None => Err(malformed(format!(
            "none of the {} graphs of the SavedModel is tagged `{SERVE}`; tags: {}",
            graphs.len(),
            graphs.iter().take(16).map(|m| tags(m).join("+")).collect::<Vec<_>>().join(", ")
        ))),
    }
}

fn choose_signature(meta: &mut MetaGraphDef, wanted: Option<&str>) -> Result<Signature, LoadError> {
    let mut signatures: BTreeMap<String, SignatureDef> = std::mem::take(&mut meta.signature_def)
        .into_iter()
        .filter(|(name, s)| name != INTERNAL_SIGNATURE && !s.outputs.is_empty())
        .collect();
    let names = signatures.keys().cloned().collect::<Vec<_>>().join(", ");
    let wanted = match wanted {
        Some(name) => name.to_owned(),
        None if signatures.len() == 1 => names.clone(),
        None => SERVING_DEFAULT.to_owned(),
    };
    match signatures.remove(&wanted) {
        Some(found) => Ok(Signature {
            inputs: found.inputs.into_iter().collect(),
            outputs: found.outputs.into_iter().collect(),
        }),
        None if names.is_empty() => Err(malformed("the SavedModel has no signature to serve")),
        None => Err(unknown_name("signature", &wanted, &names)),
    }
}

/// Those that were asked for, in that order; all where none was.
fn chosen<'s>(
    all: &'s BTreeMap<String, TensorInfo>,
    wanted: &[String],
    what: &'static str,
) -> Result<Vec<(&'s String, &'s TensorInfo)>, LoadError> {
    if wanted.is_empty() {
        return Ok(all.iter().collect());
    }
    let known = || all.keys().cloned().collect::<Vec<_>>().join(", ");
    wanted
        .iter()
        .map(|name| all.get_key_value(name).ok_or_else(|| unknown_name(what, name, &known())))
        .collect()
}

fn declare_inputs(
    builder: &mut Builder<'_>,
    top: &mut Frame<'_>,
    signature: &Signature,
    options: &LoadOptions,
) -> Result<(), LoadError> {
    let mut inputs = chosen(&signature.inputs, &options.inputs, "input")?;
    // Whatever is left out would be read without a value; it stays, after those that are named.
    let named: HashSet<&String> = inputs.iter().map(|(n, _)| *n).collect();
    inputs.extend(signature.inputs.iter().filter(|(n, _)| !named.contains(n)));
    for (position, (name, info)) in inputs.into_iter().enumerate() {
        let data_type = DataType::try_from(info.dtype).ok();
        let datum = data_type.and_then(computed_type).ok_or_else(|| {
            malformed(format!("the input `{name}` is of type {data_type:?}, which is not supported"))
        })?;
        let shape = info.tensor_shape.as_ref().filter(|s| !s.unknown_rank);
        let dims = shape.map(|s| s.dim.iter().map(|d| usize::try_from(d.size).ok()).collect());
        builder.graph.inputs.push(GraphInput { name: name.clone(), datum, dims, parsed: false });
        let node = builder.push(input_node(name, position))?;
        let (node_name, slot) = split_reference(reference(name, info)?)?;
        top.give(node_name, slot, Wire::Live(Port::first(node)));
    }
    Ok(())
}

/// The node of an input of the model.
pub(super) fn input_node(name: &str, position: usize) -> Node {
    Node {
        name: name.to_owned(),
        op: "Placeholder".to_owned(),
        attributes: Attributes::default(),
        inputs: Vec::new(),
        content: Content::Input(position),
    }
}

/// `node:1` in its parts.
pub(super) fn split_reference(reference: &str) -> Result<(&str, usize), LoadError> {
    let (node, slot) = reference.split_once(':').unwrap_or((reference, "0"));
    let slot = slot.parse().map_err(|_| malformed(format!("`{reference}` is no reference to a tensor")))?;
    Ok((node, slot))
}

fn reference<'i>(name: &str, info: &'i TensorInfo) -> Result<&'i str, LoadError> {
    match &info.encoding {
        Some(tensor_info::Encoding::Name(reference)) => Ok(reference),
        _ => Err(malformed(format!("`{name}` is a sparse or composite tensor, which is not supported"))),
    }
}
