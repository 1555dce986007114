//! Golden samples: inputs with the outputs that a model is expected to give.
//!
//! They come as a JSON file in TensorFlow Serving's columnar form,
//! `{"inputs": {name: nested list}, "outputs": {name: nested list}}`, or as a directory in the
//! layout of ONNX's own test data (`input_0.pb`, `output_0.pb`, ..).

mod compare;
mod convert;
mod document;
mod json;
#[cfg(any(feature = "onnx", feature = "tensorflow"))]
mod onnx_dir;

pub use compare::{Difference, compare};
pub use document::read_value;

use crate::signature::{Signature, TensorSpec};
use crate::tensor::Tensor;

/// Inputs by name, and the outputs that a model should answer, by name.
///
/// ```
/// use modelswap::load::Samples;
/// use modelswap::{Dim, ElementType, Signature, TensorSpec};
///
/// let signature = Signature::new(
///     vec![TensorSpec::new("x", ElementType::F32, &[Dim::Any, Dim::Fixed(2)])],
///     vec![TensorSpec::new("y", ElementType::F32, &[Dim::Any, Dim::Fixed(1)])],
/// );
/// let text = br#"{"inputs": {"x": [[1, null]]}, "outputs": {"y": [[0.5]]}}"#;
/// let samples = Samples::from_json(text, &signature)?;
/// let (name, x) = &samples.inputs()[0];
/// assert_eq!((name.as_str(), x.dims()), ("x", &[1, 2][..]));
/// assert!(x.values::<f32>().is_some_and(|x| x[1].is_nan()));
/// # Ok::<(), modelswap::load::SamplesError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    inputs: Vec<(String, Tensor)>,
    outputs: Vec<(String, Tensor)>,
}

impl Samples {
    /// Samples of these inputs and outputs.
    #[must_use]
    pub const fn new(inputs: Vec<(String, Tensor)>, outputs: Vec<(String, Tensor)>) -> Self {
        Self { inputs, outputs }
    }

    /// The inputs, in the signature's order.
    #[must_use]
    pub fn inputs(&self) -> &[(String, Tensor)] {
        &self.inputs
    }

    /// The expected outputs, in the signature's order; outputs that are not among them are not
    /// compared.
    #[must_use]
    pub fn outputs(&self) -> &[(String, Tensor)] {
        &self.outputs
    }

    /// Reads the JSON form. The signature gives each list its element type, and its shape where
    /// the list leaves out dimensions of one.
    ///
    /// `null` is a missing value: NaN where the elements are floats. NaN, Infinity and -Infinity may
    /// stand there bare or as text. A whole number may stand for text, and a map of each class to its
    /// score for the row of scores of an output that has labels.
    ///
    /// # Errors
    /// Where it is not of this form, names a tensor that the signature has not, leaves out an
    /// input, or holds a value that is not of the tensor's type.
    pub fn from_json(text: &[u8], signature: &Signature) -> Result<Self, SamplesError> {
        json::read(text, signature)
    }

    /// The JSON form, as [`Samples::from_json`] reads it.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// Reads a directory in the layout of ONNX's own test data. A tensor is matched by the name
    /// in its file where that is one of the signature, else by the number in the file's name.
    ///
    /// # Errors
    /// Where there is no input, a file is no tensor, or one does not match the signature.
    #[cfg(any(feature = "onnx", feature = "tensorflow"))]
    pub fn from_onnx_dir(folder: &std::path::Path, signature: &Signature) -> Result<Self, SamplesError> {
        onnx_dir::read(folder, signature)
    }

    /// The samples with inputs and outputs put into the signature's order; every input has to be
    /// there.
    fn ordered(mut self, signature: &Signature) -> Result<Self, SamplesError> {
        let position =
            |specs: &[TensorSpec], name: &str| specs.iter().position(|spec| spec.name().as_ref() == name);
        for spec in signature.inputs() {
            if !self.inputs.iter().any(|(name, _)| *name == **spec.name()) {
                return Err(SamplesError::MissingInput { name: spec.name().to_string() });
            }
        }
        self.inputs.sort_by_key(|(name, _)| position(signature.inputs(), name));
        self.outputs.sort_by_key(|(name, _)| position(signature.outputs(), name));
        Ok(self)
    }
}

/// Why a file does not hold samples for a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplesError {
    /// The file could not be read, or is not of the form.
    #[error("malformed samples: {0}")]
    Malformed(String),
    /// A name that the model's signature does not have.
    #[error("the samples have an {side} `{name}`; the model has: {known}")]
    UnknownName {
        /// `input` or `output`.
        side: &'static str,
        /// The name.
        name: String,
        /// Those that the model has.
        known: String,
    },
    /// An input of the model is not among the samples.
    #[error("the samples have no input `{name}`")]
    MissingInput {
        /// The input.
        name: String,
    },
    /// A tensor is not what the signature says.
    #[error("`{name}`: expected {expected}, found {found}")]
    Mismatch {
        /// The tensor.
        name: String,
        /// Type and shape, or the kind of value, that should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// The specification of this name, or the error that lists those that there are.
fn find<'s>(side: &'static str, specs: &'s [TensorSpec], name: &str) -> Result<&'s TensorSpec, SamplesError> {
    specs.iter().find(|spec| spec.name().as_ref() == name).ok_or_else(|| SamplesError::UnknownName {
        side,
        name: name.to_owned(),
        known: specs.iter().map(|spec| spec.name().as_ref()).collect::<Vec<_>>().join(", "),
    })
}
