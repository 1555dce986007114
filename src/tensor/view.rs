//! Borrowed tensors.

use std::fmt;

use super::{DataView, Element, ElementType, Shape, ShapeError, Tensor};

/// A borrowed [`Tensor`]: `Copy`, and what a model is given.
#[derive(Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    pub(super) shape: Shape,
    pub(super) data: DataView<'a>,
}

impl<'a> TensorView<'a> {
    /// A view of these values in this shape.
    ///
    /// # Errors
    /// Where the shape does not have exactly as many elements as there are values.
    pub fn new<T: Element>(dims: &[usize], values: &'a [T]) -> Result<Self, ShapeError> {
        match Shape::new(dims) {
            Some(shape) if shape.elements() == values.len() => Ok(Self { shape, data: T::view(values) }),
            _ => Err(ShapeError { dims: dims.to_vec(), found: values.len() }),
        }
    }

    /// One row: shape `[1, n]`.
    #[must_use]
    pub fn row<T: Element>(values: &'a [T]) -> Self {
        Self { shape: Shape::matrix(1, values.len()), data: T::view(values) }
    }

    /// The type of the elements.
    #[must_use]
    pub const fn element_type(&self) -> ElementType {
        self.data.element_type()
    }

    /// The shape.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// The dimensions, outermost first.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The elements in row-major order, or `None` where they are of another type.
    #[must_use]
    pub fn values<T: Element>(&self) -> Option<&'a [T]> {
        T::peek_view(&self.data)
    }

    /// The elements, to be matched by type.
    #[must_use]
    pub const fn data(&self) -> DataView<'a> {
        self.data
    }

    /// The same elements in another shape, or `None` where the number of elements differs.
    #[must_use]
    pub fn reshaped(self, shape: Shape) -> Option<Self> {
        (shape.elements() == self.data.len()).then_some(Self { shape, data: self.data })
    }

    /// Some of the rows, or `None` where they are not all there.
    #[must_use]
    pub fn rows(self, rows: std::ops::Range<usize>) -> Option<Self> {
        let width = self.shape.row_elements();
        let mut shape = self.shape;
        *shape.dims.first_mut()? = rows.len();
        let data = self.data.slice(rows.start.checked_mul(width)?..rows.end.checked_mul(width)?)?;
        Some(Self { shape, data })
    }

    /// An owned copy.
    #[must_use]
    pub fn to_tensor(&self) -> Tensor {
        Tensor { shape: self.shape, data: self.data.to_data() }
    }
}

/// An empty list in the memory of another one, whose views may have borrowed from elsewhere.
pub(crate) fn with_memory_of<'a>(mut list: Vec<TensorView<'_>>) -> Vec<TensorView<'a>> {
    list.clear();
    // Collecting what has the same layout keeps the memory; `tests/hot_path` holds it to that.
    list.into_iter().map(|_| TensorView::row::<f32>(&[])).collect()
}

impl fmt::Debug for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} ", self.element_type(), self.shape)?;
        if self.data.len() <= 16 { self.data.fmt(f) } else { f.write_str("..") }
    }
}

impl<'a> From<&'a Tensor> for TensorView<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        tensor.view()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_view_are_a_view() {
        let tensor = Tensor::new(&[3, 2], vec![1, 2, 3, 4, 5, 6_i64]).unwrap();
        let view = tensor.view().rows(1..3).unwrap();
        assert_eq!(view.dims(), [2, 2]);
        assert_eq!(view.values::<i64>(), Some(&[3, 4, 5, 6][..]));
        assert!(tensor.view().rows(2..4).is_none());
    }
}
