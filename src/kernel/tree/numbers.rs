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
        let as_tensor = format!("{name}_as_tensor");
        if let Some(tensor) = attributes.tensor(&as_tensor)? {
            return Self::of_tensor(&as_tensor, tensor);
        }
        // skl2onnx before 1.15 put doubles under the name of the floats.
        if let Ok(Some(tensor)) = attributes.tensor(name) {
            return Self::of_tensor(name, tensor);
        }
        let values = attributes.floats(name)?.iter().copied().map(f64::from).collect();
        Ok(Self { values, double: false })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Attribute;

    #[test]
    fn doubles_may_stand_under_the_name_of_the_floats() {
        let mut attributes = Attributes::default();
        attributes.insert("nodes_values", Attribute::Tensor(Tensor::vector(vec![0.1_f64])));
        attributes.insert("class_weights", Attribute::Floats(vec![0.5]));
        let values = Numbers::read(&attributes, "nodes_values").unwrap();
        assert_eq!((values.values, values.double), (vec![0.1], true));
        assert_eq!(Numbers::read(&attributes, "class_weights").unwrap().values, [0.5]);
        assert_eq!(Numbers::read(&attributes, "base_values").unwrap().values, [0.0; 0]);
    }
}
