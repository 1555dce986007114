//! What a model takes and gives: names, element types, shapes.

use std::fmt;
use std::sync::Arc;

use crate::tensor::{ElementType, Shape};

/// The inputs and outputs of a model, in the model's own order.
///
/// ```
/// use modelswap::{Dim, ElementType, Signature, TensorSpec};
///
/// let fraud = Signature::new(
///     vec![TensorSpec::new("features", ElementType::F32, &[Dim::Any, Dim::Fixed(30)])],
///     vec![TensorSpec::new("score", ElementType::F32, &[Dim::Any, Dim::Fixed(1)])],
/// );
/// assert_eq!(fraud.to_string(), "(features: f32[?,30]) -> (score: f32[?,1])");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Signature {
    /// A signature of these inputs and outputs.
    #[must_use]
    pub const fn new(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Self {
        Self { inputs, outputs }
    }

    /// The inputs, in the model's order.
    #[must_use]
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The outputs, in the model's order.
    #[must_use]
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// The position of the output that [`Prediction::values`](crate::Prediction::values) gives:
    /// the first of a floating-point type, so that a classifier that answers a label and then its
    /// probabilities gives the probabilities.
    #[must_use]
    pub fn score_output(&self) -> Option<usize> {
        self.outputs.iter().position(|o| o.element.is_float())
    }

    /// Checks that a model of this signature can stand where `expected` is needed.
    ///
    /// Every input that the model wants has to be among the expected ones, with the same type and
    /// a shape that agrees; every output that is expected has to be among the model's. Unknown
    /// dimensions on either side agree with everything.
    ///
    /// # Errors
    /// The first thing that does not fit, with what was expected and what was found.
    pub fn satisfies(&self, expected: &Self) -> Result<(), SignatureMismatch> {
        let mismatch = |side, name: &str, expected: Option<&TensorSpec>, found: Option<&TensorSpec>| {
            let show = |spec: Option<&TensorSpec>| spec.map_or_else(|| "none".into(), ToString::to_string);
            SignatureMismatch { side, name: name.into(), expected: show(expected), found: show(found) }
        };
        for input in &self.inputs {
            let wanted = expected.inputs.iter().find(|i| i.name == input.name);
            if !wanted.is_some_and(|w| w.agrees(input)) {
                return Err(mismatch("input", &input.name, wanted, Some(input)));
            }
        }
        for wanted in &expected.inputs {
            if !self.inputs.iter().any(|i| i.name == wanted.name) {
                return Err(mismatch("input", &wanted.name, Some(wanted), None));
            }
        }
        for wanted in &expected.outputs {
            let output = self.outputs.iter().find(|o| o.name == wanted.name);
            if !output.is_some_and(|o| wanted.agrees(o)) {
                return Err(mismatch("output", &wanted.name, Some(wanted), output));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, specs: &[TensorSpec]| {
            f.write_str("(")?;
            for (i, spec) in specs.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{}: {spec}", spec.name)?;
            }
            f.write_str(")")
        };
        list(f, &self.inputs)?;
        f.write_str(" -> ")?;
        list(f, &self.outputs)
    }
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    name: Arc<str>,
    element: ElementType,
    dims: Option<Arc<[Dim]>>,
    labels: Option<Arc<Labels>>,
}

impl TensorSpec {
    /// A tensor of this name, type and shape.
    #[must_use]
    pub fn new(name: &str, element: ElementType, dims: &[Dim]) -> Self {
        Self { name: name.into(), element, dims: Some(dims.into()), labels: None }
    }

    /// A tensor of which not even the number of dimensions is known; some TensorFlow files say no
    /// more.
    #[must_use]
    pub fn of_any_shape(name: &str, element: ElementType) -> Self {
        Self { name: name.into(), element, dims: None, labels: None }
    }

    /// The same with the class labels of its last dimension.
    #[must_use]
    pub fn with_labels(mut self, labels: Labels) -> Self {
        self.labels = Some(Arc::new(labels));
        self
    }

    /// The name by which the model knows it.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The type of its elements.
    #[must_use]
    pub const fn element_type(&self) -> ElementType {
        self.element
    }

    /// Its dimensions, the batch first; `None` where the model does not say how many there are.
    #[must_use]
    pub fn dims(&self) -> Option<&[Dim]> {
        self.dims.as_deref()
    }

    /// The class labels of an output, or the words that the columns of an input stand for, in the order of
    /// the last dimension, where the model names them.
    #[must_use]
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_deref()
    }

    /// True where a tensor of this shape can be this input.
    #[must_use]
    pub fn accepts(&self, shape: Shape) -> bool {
        self.dims.as_deref().is_none_or(|dims| {
            dims.len() == shape.dims().len()
                && dims.iter().zip(shape.dims()).all(|(want, found)| want.accepts(*found))
        })
    }

    /// The shape of `rows` rows that hold `elements` elements in all, where this input can have
    /// such a shape: the first dimension is the batch, and at most one other may be open.
    #[must_use]
    pub fn shape_of(&self, rows: usize, elements: usize) -> Option<Shape> {
        let width = elements.checked_div(rows.max(1))?;
        if width.checked_mul(rows)? != elements {
            return None;
        }
        let Some(dims) = self.dims.as_deref() else { return Some(Shape::matrix(rows, width)) };
        let (batch, rest) = dims.split_first()?;
        if !batch.accepts(rows) {
            return None;
        }
        let fixed: usize = rest.iter().filter_map(|d| d.fixed()).product();
        let open = rest.iter().filter(|d| d.fixed().is_none()).count();
        let fill = match open {
            0 if fixed == width => 1,
            1 if fixed > 0 && width % fixed == 0 => width / fixed,
            _ => return None,
        };
        let mut all: smallvec::SmallVec<[usize; 8]> = smallvec::smallvec![rows];
        all.extend(rest.iter().map(|d| d.fixed().unwrap_or(fill)));
        Shape::new(&all)
    }

    /// The number of values in one row, where the model fixes it.
    #[must_use]
    pub fn row_elements(&self) -> Option<usize> {
        self.dims.as_deref()?.get(1..)?.iter().map(|d| d.fixed()).product()
    }

    fn agrees(&self, other: &Self) -> bool {
        let dims_agree = match (&self.dims, &other.dims) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.agrees(*b)),
            _ => true,
        };
        self.element == other.element && dims_agree
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.element)?;
        match &self.dims {
            None => f.write_str("..")?,
            Some(dims) => {
                for (i, dim) in dims.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    match dim {
                        Dim::Fixed(n) => write!(f, "{n}")?,
                        Dim::Any => f.write_str("?")?,
                    }
                }
            }
        }
        f.write_str("]")
    }
}

/// One dimension of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dim {
    /// Always this size.
    Fixed(usize),
    /// Any size: the batch, or a length that the file leaves open.
    Any,
}

impl Dim {
    /// The size, where it is fixed.
    #[must_use]
    pub const fn fixed(self) -> Option<usize> {
        match self {
            Self::Fixed(n) => Some(n),
            Self::Any => None,
        }
    }

    fn accepts(self, size: usize) -> bool {
        self.fixed().is_none_or(|n| n == size)
    }

    fn agrees(self, other: Self) -> bool {
        other.fixed().is_none_or(|n| self.accepts(n))
    }
}

/// The labels of a classifier's classes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Labels {
    /// Whole numbers.
    Ints(Vec<i64>),
    /// Text.
    Strings(Vec<String>),
}

/// A model's signature is not what the application needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{side} `{name}`: expected {expected}, found {found}")]
pub struct SignatureMismatch {
    side: &'static str,
    name: String,
    expected: String,
    found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dims: &[Dim]) -> TensorSpec {
        TensorSpec::new(name, ElementType::F32, dims)
    }

    #[test]
    fn a_model_of_another_width_is_named_with_both_widths() {
        let wanted = Signature::new(vec![spec("x", &[Dim::Any, Dim::Fixed(4)])], vec![]);
        let found = Signature::new(vec![spec("x", &[Dim::Any, Dim::Fixed(5)])], vec![]);
        assert_eq!(
            found.satisfies(&wanted).unwrap_err().to_string(),
            "input `x`: expected f32[?,4], found f32[?,5]"
        );
        assert!(wanted.satisfies(&wanted).is_ok());
    }

    #[test]
    fn an_output_that_the_model_lacks_is_named() {
        let wanted = Signature::new(vec![], vec![spec("score", &[Dim::Any])]);
        let found = Signature::new(vec![], vec![]);
        assert_eq!(
            found.satisfies(&wanted).unwrap_err().to_string(),
            "output `score`: expected f32[?], found none"
        );
    }

    #[test]
    fn rows_take_the_shape_that_the_input_has() {
        let image = spec("x", &[Dim::Any, Dim::Fixed(28), Dim::Fixed(28), Dim::Fixed(1)]);
        assert_eq!(image.shape_of(2, 2 * 784).unwrap().dims(), [2, 28, 28, 1]);
        assert!(image.shape_of(1, 783).is_none());
        let open = spec("x", &[Dim::Any, Dim::Any]);
        assert_eq!(open.shape_of(3, 12).unwrap().dims(), [3, 4]);
        let column = spec("x", &[Dim::Any]);
        assert_eq!(column.shape_of(3, 3).unwrap().dims(), [3]);
        assert!(column.shape_of(1, 3).is_none());
    }
}
