//! The operators of `ai.onnx.ml` but trees, and the operators on text.

use super::{BuildError, Kernel, Node};

mod affine;
mod binarizer;
mod category_mapper;
mod common;
mod extractor;
mod imputer;
mod label_encoder;
mod linear;
mod normalizer;
mod one_hot;
mod scaler;
mod svm;
mod text;
mod unique;
mod vectorizer;
mod zip_map;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(crate) fn build(node: &Node<'_>) -> Result<Box<dyn Kernel>, BuildError> {
    let attributes = node.attributes;
    Ok(match (node.domain, node.operator) {
        ("ai.onnx.ml", "ArrayFeatureExtractor") => Box::new(extractor::ArrayFeatureExtractor),
        ("ai.onnx.ml", "Binarizer") => Box::new(binarizer::Binarizer::new(attributes)?),
        ("ai.onnx.ml", "CategoryMapper") => Box::new(category_mapper::CategoryMapper::new(attributes)?),
        ("ai.onnx.ml", "FeatureVectorizer") => Box::new(vectorizer::FeatureVectorizer::new(attributes)?),
        ("ai.onnx.ml", "Imputer") => Box::new(imputer::Imputer::new(attributes)?),
        ("ai.onnx.ml", "LabelEncoder") => label_encoder::build(node)?,
        ("ai.onnx.ml", "LinearClassifier") => Box::new(linear::LinearClassifier::new(attributes)?),
        ("ai.onnx.ml", "LinearRegressor") => Box::new(linear::LinearRegressor::new(attributes)?),
        ("ai.onnx.ml", "Normalizer") => Box::new(normalizer::Normalizer::new(attributes)?),
        ("ai.onnx.ml", "OneHotEncoder") => Box::new(one_hot::OneHotEncoder::new(attributes)?),
        ("ai.onnx.ml", "Scaler") => Box::new(scaler::Scaler::new(attributes)?),
        ("ai.onnx.ml", "SVMClassifier") => Box::new(svm::SvmClassifier::new(attributes)?),
        ("ai.onnx.ml", "SVMRegressor") => Box::new(svm::SvmRegressor::new(attributes)?),
        ("ai.onnx.ml", "ZipMap") => Box::new(zip_map::ZipMap::new(attributes)?),
        ("ai.onnx.ml", "CastMap" | "DictVectorizer") => {
            return Err(BuildError::invalid(format!(
                "{} is a map-typed operator: its input is a map, and a model that runs here takes tensors; \
                 export it with tensor inputs instead",
                node.operator
            )));
        }
        ("" | "ai.onnx", "Unique") => Box::new(unique::Unique::new(attributes)?),
        _ => return text::build(node),
    })
}

#[cfg(test)]
mod tests {
    use super::common::testing;

    #[test]
    fn map_typed_operators_are_refused_by_name() {
        for operator in ["CastMap", "DictVectorizer"] {
            let error = testing::build(operator, vec![]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{operator} is a map-typed operator")), "{error}");
        }
    }
}
