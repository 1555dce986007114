//! TensorFlow's files: frozen graphs, SavedModels, and their text form.
//!
//! Whatever the file, it becomes a [`graph::Graph`] first: functions inlined, variables constants,
//! names resolved, nothing in it but what the outputs need. [`network`] then states that graph to
//! tract, operator by operator (`ops/`), for the input shapes that are asked for.
//!
//! | file | what reads it |
//! |---|---|
//! | SavedModel directory or tar | [`files`], [`saved_model`], [`bundle`] (over [`table`], [`shard`], [`slices`]), [`variables`] |
//! | GraphDef | [`frozen`], [`pieces`] |
//! | `.pbtxt` of either | [`text_format`], by the names in [`schema`] |
//!
//! This module and its sister for ONNX are the only ones that name tract.

use std::path::Path;
use std::sync::Arc;

use prost::Message;

use self::pieces::Contents;
use crate::load::{LoadError, LoadOptions, Loader, Model, Payload, caught, protobuf};

mod arrays;
mod branches;
mod builder;
mod bundle;
mod circles;
mod constants;
mod examples;
mod files;
mod frame;
mod frozen;
mod graph;
mod guards;
mod layers;
mod loops;
mod network;
mod nodes;
mod op_outputs;
mod ops;
mod pieces;
mod prune;
mod saved_model;
mod schema;
mod shard;
mod slices;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod text_format;
mod variables;
mod weight;
mod write;

/// The types of tract that this module uses, and TensorFlow's messages.
mod api {
    pub(super) use crate::load::tract::api::*;
    pub(super) use crate::load::tract::convert::EngineTensor;

    pub(super) use tract_tensorflow::tfpb::tensorflow as tfpb;
}

/// The loaders for TensorFlow's formats.
pub(crate) fn loaders() -> Vec<Arc<dyn Loader>> {
    vec![Arc::new(Frozen), Arc::new(Text), Arc::new(Packed)]
}

/// Freezes the SavedModel in a directory: the signature that `options` names, as one GraphDef whose
/// variables are constants. It can be published as format `tensorflow`.
///
/// The placeholders of the GraphDef are named after the signature's inputs, and the only results
/// that nothing consumes are identities named after its outputs, both sorted by name; so the frozen
/// graph has the signature's names without anything beside it.
///
/// A lookup table becomes two constants, keys and values, that its look-ups take in place of the
/// table: a form that only this crate reads, because a GraphDef has no place for a table's content.
///
/// # Errors
/// Where the directory is no SavedModel, the signature is not there, or a variable has no value.
pub fn freeze_saved_model(directory: &Path, options: &LoadOptions) -> Result<Vec<u8>, LoadError> {
    caught(|| {
        let graph = saved_model::read(&files::Directory::new(directory), options)?;
        Ok(write::graph_def(graph)?.encode_to_vec())
    })
}

/// Packs the SavedModel in a directory into a tar that a subscriber loads as format `saved-model`.
/// The same directory always gives the same bytes.
///
/// # Errors
/// Where a file cannot be read.
pub fn pack_saved_model(directory: &Path) -> Result<Vec<u8>, LoadError> {
    files::pack(directory)
}

/// GraphDef in binary form.
struct Frozen;

impl Loader for Frozen {
    fn format(&self) -> &'static str {
        "tensorflow"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        frozen::recognises(payload) || frozen::recognises_saved_model(payload)
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        caught(|| {
            let graph = if frozen::recognises_saved_model(&payload) {
                // The graph of a SavedModel on its own: all there is of a model without variables.
                protobuf::check(&payload, &weight::SAVED_MODEL, options.memory_budget)?;
                let (saved, contents) = pieces::saved_model(payload)?;
                saved_model::build(saved, contents, &NoFiles, options)?
            } else {
                frozen::read(payload, options)?
            };
            network::load(graph, options)
        })
    }
}

/// GraphDef or SavedModel in text form.
struct Text;

impl Loader for Text {
    fn format(&self) -> &'static str {
        "tensorflow-text"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        text_format::kind(&payload.peek(4096)).is_some()
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        caught(|| {
            let bytes = payload.into_bytes();
            let graph = match text_format::kind(&bytes) {
                Some(text_format::Kind::SavedModel) => saved_model::build(
                    text_format::saved_model(&bytes, options.memory_budget)?,
                    Vec::new(),
                    &NoFiles,
                    options,
                )?,
                _ => frozen::build(
                    text_format::graph_def(&bytes, options.memory_budget)?,
                    Contents::new(),
                    options,
                )?,
            };
            network::load(graph, options)
        })
    }
}

/// SavedModel directory in a tar.
struct Packed;

impl Loader for Packed {
    fn format(&self) -> &'static str {
        "saved-model"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        // The magic of a tar's first header, and the graph somewhere among the files.
        payload.peek(262).ends_with(b"ustar")
            && files::Archive::open(payload.clone()).is_ok_and(|a| a.has_saved_model())
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        caught(|| {
            let archive = files::Archive::open(payload)?;
            let graph = saved_model::read(&archive, options)?;
            drop(archive);
            network::load(graph, options)
        })
    }
}

/// A SavedModel message without the files beside it.
struct NoFiles;

impl files::Files for NoFiles {
    fn read(&self, _path: &str) -> Result<Option<Payload>, LoadError> {
        Ok(None)
    }
}

fn malformed(reason: impl Into<String>) -> LoadError {
    LoadError::Malformed { format: "tensorflow", reason: reason.into() }
}

fn unknown_name(what: &'static str, name: &str, known: &str) -> LoadError {
    LoadError::UnknownName { what, name: name.to_owned(), known: known.to_owned() }
}

/// The error for an operator that is not run here. Loops are what recurrent layers become.
fn unsupported(operator: &str, node: &str) -> LoadError {
    let is_loop = matches!(
        operator,
        "While" | "StatelessWhile" | "Enter" | "Exit" | "NextIteration" | "LoopCond" | "Merge" | "Switch"
    ) || operator.starts_with("TensorList")
        || operator.starts_with("TensorArray");
    let hint = if is_loop {
        "; it belongs to a loop of a kind that is not run here: export the model as ONNX instead \
         (`python -m tf2onnx.convert --saved-model DIR --output model.onnx`)"
    } else if operator.contains("Random") || operator.contains("Multinomial") {
        "; it draws random numbers: export the model with what it samples as an input, or without sampling"
    } else if operator.starts_with("Decode") || operator.starts_with("ParseExample") {
        "; it takes serialised bytes apart: export a signature whose inputs are the values themselves"
    } else if operator == "PyFunc" || operator == "EagerPyFunc" {
        "; it calls back into Python: write that part with TensorFlow's own operators"
    } else {
        ""
    };
    LoadError::UnsupportedOperator {
        operator: operator.to_owned(),
        node: node.to_owned(),
        hint: hint.to_owned(),
    }
}
