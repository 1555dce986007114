//! Operators on strings: what text pipelines put in front of a model.

use super::super::{BuildError, Kernel, Node};

mod concat;
#[cfg(feature = "onnx")]
mod full_match;
mod murmur;
mod normalizer;
mod split;
mod tfidf;
#[cfg(feature = "onnx")]
mod tokenizer;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Kernel>, BuildError> {
    let attributes = node.attributes;
    Ok(match (node.domain, node.operator) {
        // The second domain is that of scikit-learn exports before opset 10.
        ("" | "ai.onnx" | "com.microsoft", "StringNormalizer") => {
            Box::new(normalizer::StringNormalizer::new(attributes)?)
        }
        ("" | "ai.onnx", "TfIdfVectorizer") => Box::new(tfidf::TfIdfVectorizer::new(attributes)?),
        ("" | "ai.onnx", "StringConcat") => Box::new(concat::StringConcat),
        ("" | "ai.onnx", "StringSplit") => Box::new(split::StringSplit::new(attributes)?),
        ("com.microsoft", "MurmurHash3") => Box::new(murmur::MurmurHash3::new(attributes)?),
        #[cfg(feature = "onnx")]
        ("" | "ai.onnx", "RegexFullMatch") => Box::new(full_match::RegexFullMatch::new(attributes)?),
        #[cfg(feature = "onnx")]
        ("com.microsoft", "Tokenizer") => Box::new(tokenizer::Tokenizer::new(attributes)?),
        _ => return Err(BuildError::Unsupported),
    })
}
