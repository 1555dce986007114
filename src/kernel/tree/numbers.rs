//! Numbers among the attributes of an operator, whichever way they are stated.

use crate::kernel::{Attributes, BuildError};
use crate::tensor::Tensor;

/// A list of numbers that may be stated as floats or, under another name, as a tensor.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) values: Vec<f64>,
    pub(super) double: bool,
}

impl Numbers {
    pub(super) fn read(attributes: &Attributes, name: &str) -> Result<Self, BuildError> {
        let tensor = format!("{name}_as_tensor");
        match attributes.tensor(&tensor)? {
            Some(tensor_value) => Self::of_tensor(&tensor, tensor_value),
            None => {
                let values = attributes.floats(name)?.iter().copied().map(f64::from).collect();
                Ok(Self { values, double: false })
            }
        }
    }

    fn of_tensor(name: &str, tensor: &Tensor) -> Result<Self, BuildError> {
        numbers(name, tensor).map(|(values, double)| Self { values, double })
    }
}

/// The elements of a tensor of floats, and whether they are doubles.
pub(super) fn numbers(name: &str, tensor: &Tensor) -> Result<(Vec<f64>, bool), BuildError> {
    if let Some(values) = tensor.values::<f64>() {
        Ok((values.to_vec(), true))
    } else if let Some(values) = tensor.values::<f32>() {
        Ok((values.iter().copied().map(f64::from).collect(), false))
    } else {
        Err(BuildError::invalid(format!("{name}: expected f32 or f64, found {}", tensor.element_type())))
    }
}

/// Attributes that are lists of one thing have to be of one length.
pub(super) fn same_length(name: &str, expected: usize, found: usize) -> Result<(), BuildError> {
    let wrong = || BuildError::invalid(format!("{name}: expected {expected} values, found {found}"));
    (expected == found).then_some(()).ok_or_else(wrong)
}
