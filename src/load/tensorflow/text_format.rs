//! `.pbtxt`: a GraphDef or a SavedModel as text.

use prost::Message;
use prost_reflect::DynamicMessage;

use super::api::tfpb::{GraphDef, SavedModel};
use super::{malformed, schema};
use crate::load::LoadError;

/// The deepest nesting of messages; TensorFlow's own are some twenty deep.
const MAX_DEPTH: usize = 100;

/// About what a message with a few fields takes while it is read: once as the text describes it, and
/// once as what it is.
const MESSAGE_BYTES: u64 = 1024;

/// What a text describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    GraphDef,
    SavedModel,
}

/// What the text that begins so describes, where it is one of the two.
pub(super) fn kind(head: &[u8]) -> Option<Kind> {
    let text = std::str::from_utf8(head)
        .or_else(|e| std::str::from_utf8(head.get(..e.valid_up_to()).unwrap_or(&[])));
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
pub(super) fn graph_def(text: &[u8], budget: u64) -> Result<GraphDef, LoadError> {
    read(text, "GraphDef", budget)
}

/// Reads a SavedModel.
pub(super) fn saved_model(text: &[u8], budget: u64) -> Result<SavedModel, LoadError> {
    read(text, "SavedModel", budget)
}

fn read<M: Message + Default>(text: &[u8], name: &str, budget: u64) -> Result<M, LoadError> {
    let text = std::str::from_utf8(text).map_err(|e| malformed(format!("the text is not UTF-8: {e}")))?;
    let text = without_ignored(text, budget)?;
    let message = DynamicMessage::parse_text_format(schema::message(name)?, &text)
        .map_err(|e| malformed(format!("{name} in text form: {e}")))?;
    drop(text);
    message.transcode_to().map_err(|e| malformed(format!("{name} in text form: {e}")))
}

/// The text without the fields of [`schema::IGNORED`], and checked for its nesting before a parser
/// that recurses sees it, and for the messages in it before they are made.
fn without_ignored(text: &str, budget: u64) -> Result<String, LoadError> {
    let mut kept = String::with_capacity(text.len());
    let mut needed = text.len() as u64;
    let mut depth = 0_usize;
    // The depth at which what is left out began.
    let mut skipped: Option<usize> = None;
    for token in (Tokens { rest: text }) {
        match token {
            "{" | "<" | "[" => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(malformed(format!("the text is nested more than {MAX_DEPTH} deep")));
                }
                if skipped.is_none() && token != "[" {
                    needed = needed.saturating_add(MESSAGE_BYTES);
                }
                if needed > budget {
                    return Err(LoadError::OverBudget { what: "the text".to_owned(), needed, budget });
                }
            }
            "}" | ">" | "]" => {
                depth = depth.checked_sub(1).ok_or_else(|| malformed("the text has a bracket too many"))?;
                if skipped == Some(depth) {
                    skipped = None;
                    continue;
                }
            }
            name if skipped.is_none() && schema::IGNORED.contains(&name) => skipped = Some(depth),
            _ => {}
        }
        if skipped.is_none() {
            kept.push_str(token);
        }
    }
    if depth != 0 {
        return Err(malformed("the text ends inside a message"));
    }
    Ok(kept)
}

/// Words, strings, brackets, and what is between them.
struct Tokens<'t> {
    rest: &'t str,
}

impl<'t> Iterator for Tokens<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let first = self.rest.chars().next()?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let len = match first {
            '"' | '\'' => {
                let mut escaped = false;
                let end = self.rest.char_indices().skip(1).find(|(_, c)| {
                    let ends = *c == first && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                });
                end.map_or(self.rest.len(), |(at, _)| at + 1)
            }
            '#' => self.rest.find('\n').unwrap_or(self.rest.len()),
            c if is_word(c) => self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len()),
            c => c.len_utf8(),
        };
        let (token, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_in_text_form_is_told_from_other_text() {
        assert_eq!(kind(b"# a comment\n\nnode {\n name: \"x\" }"), Some(Kind::GraphDef));
        assert_eq!(kind(b"saved_model_schema_version: 1"), Some(Kind::SavedModel));
        assert_eq!(kind(b"node of a tree"), None);
        assert_eq!(kind(b"tree\nversion=v4\n"), None);
    }

    #[test]
    fn fields_that_say_nothing_of_the_model_are_left_out() {
        let text = r#"node { name: "a } \" {" op: "NoOp" experimental_debug_info { original_node_names: "}" }
            attr { key: "T" value { type: DT_FLOAT } } attr { key: "k" value { list { i: 1 i: -2 } } } }
            versions { producer: 27 }"#;
        let graph = graph_def(text.as_bytes(), 1 << 20).unwrap();
        assert_eq!(graph.node.len(), 1);
        assert_eq!(graph.node[0].name, "a } \" {");
        assert_eq!(graph.node[0].attr.len(), 2);
        assert_eq!(graph.versions.unwrap().producer, 27);
    }

    #[test]
    fn text_that_is_nested_without_end_is_refused() {
        let text = "node { attr { ".repeat(10_000);
        assert!(graph_def(text.as_bytes(), 1 << 30).is_err());
        assert!(graph_def(b"node { nonsense: 3 }", 1 << 20).is_err());
        assert!(graph_def(b"node { } }", 1 << 20).is_err());
    }

    #[test]
    fn a_text_of_more_messages_than_the_budget_holds_is_not_read() {
        let text = "node { name: 'n' op: 'NoOp' }\n".repeat(1000);
        assert_eq!(graph_def(text.as_bytes(), 2 << 20).unwrap().node.len(), 1000);
        let refused = graph_def(text.as_bytes(), 1 << 20);
        assert!(matches!(refused, Err(LoadError::OverBudget { budget: 0x10_0000, .. })), "{refused:?}");
    }
}
