//! `.pbtxt`: a GraphDef or a SavedModel as text.

use super::api::tfpb::{GraphDef, SavedModel};
use super::malformed;
use crate::load::LoadError;

/// What a text describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    GraphDef,
    SavedModel,
}

/// What the text that begins so describes, where it is one of the two.
pub(super) fn kind(head: &[u8]) -> Option<Kind> {
    let text = std::str::from_utf8(head).or_else(|e| std::str::from_utf8(head.get(..e.valid_up_to()).unwrap_or(&[])));
    let text = text.ok()?;
    let first = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'))?;
    let name: String = first.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let after = first.get(name.len()..)?.trim_start();
    match name.as_str() {
        "node" | "library" | "versions" if after.starts_with(['{', '<', ':']) => Some(Kind::GraphDef),
        "meta_graphs" if after.starts_with(['{', '<', ':']) => Some(Kind::SavedModel),
        "saved_model_schema_version" if after.starts_with(':') => Some(Kind::SavedModel),
        _ => None,
    }
}

/// Reads a GraphDef.
pub(super) fn graph_def(_text: &[u8]) -> Result<GraphDef, LoadError> {
    Err(malformed("text form is not read yet"))
}

/// Reads a SavedModel.
pub(super) fn saved_model(_text: &[u8]) -> Result<SavedModel, LoadError> {
    Err(malformed("text form is not read yet"))
}
