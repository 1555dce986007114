//! Tensors: what goes into a model and what comes out.
//!
//! A [`Tensor`] owns its elements, a [`TensorView`] borrows them; both are dense and in row-major
//! order. The first dimension is the batch: one row an event.

use std::fmt;

use crate::load::Payload;
use crate::memory;

mod element;
mod shape;
mod undecoded;
mod view;

use element::Data;
pub use element::{DataView, Element, ElementType};
pub use shape::{MAX_RANK, Shape, ShapeError};
pub use view::TensorView;
pub(crate) use view::with_memory_of;

/// Dense elements of one type with their shape.
///
/// ```
/// use modelswap::{ElementType, Tensor};
///
/// let ages = Tensor::new(&[2, 1], vec![31.0_f32, 47.0])?;
/// assert_eq!(ages.element_type(), ElementType::F32);
/// assert_eq!(ages.dims(), [2, 1]);
/// assert_eq!(ages.values::<f32>(), Some(&[31.0, 47.0][..]));
/// assert!(ages.values::<f64>().is_none());
/// # Ok::<(), modelswap::ShapeError>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Tensor {
    shape: Shape,
    data: Data,
}

impl Tensor {
    /// A tensor of this shape.
    ///
    /// # Errors
    /// Where the shape does not have exactly as many elements as there are values.
    pub fn new<T: Element>(dims: &[usize], values: Vec<T>) -> Result<Self, ShapeError> {
        match Shape::new(dims) {
            Some(shape) if shape.elements() == values.len() => Ok(Self { shape, data: T::wrap(values) }),
            _ => Err(ShapeError { dims: dims.to_vec(), found: values.len() }),
        }
    }

    /// A tensor without dimensions, of one value.
    #[must_use]
    pub fn scalar<T: Element>(value: T) -> Self {
        Self { shape: Shape::SCALAR, data: T::wrap(vec![value]) }
    }

    /// A tensor of shape `[n]`.
    #[must_use]
    pub fn vector<T: Element>(values: Vec<T>) -> Self {
        Self { shape: Shape::vector(values.len()), data: T::wrap(values) }
    }

    /// A tensor of shape `[n, 1]`: one value a row, as exporters of tabular models want a column.
    #[must_use]
    pub fn column<T: Element>(values: Vec<T>) -> Self {
        Self { shape: Shape::matrix(values.len(), 1), data: T::wrap(values) }
    }

    /// A tensor of `f32` that are decoded from their bytes in a file when they are first needed. `None`
    /// where the bytes are not those of as many numbers.
    #[cfg(any(test, feature = "onnx", feature = "tensorflow"))]
    pub(crate) fn undecoded(shape: Shape, bytes: Payload) -> Option<Self> {
        let fits = shape.elements().checked_mul(size_of::<f32>()) == Some(bytes.len());
        fits.then(|| Self { shape, data: Data::Undecoded(Box::new(undecoded::Undecoded::new(bytes))) })
    }

    /// The bytes of a tensor that was not decoded yet, or else the tensor.
    pub(crate) fn into_undecoded(self) -> Result<Payload, Self> {
        match self.data {
            Data::Undecoded(data) => {
                data.into_bytes().map_err(|values| Self { shape: self.shape, data: Data::F32(values) })
            }
            _ => Err(self),
        }
    }

    /// Decodes the elements where they are not yet, so that nobody waits for it later.
    pub(crate) fn decode(&mut self) {
        self.data.decode();
    }

    /// The type of the elements.
    #[must_use]
    pub fn element_type(&self) -> ElementType {
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
    pub fn values<T: Element>(&self) -> Option<&[T]> {
        T::peek(&self.data).map(Vec::as_slice)
    }

    /// The elements to be changed, or `None` where they are of another type.
    pub(crate) fn values_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        T::peek_mut(&mut self.data).map(Vec::as_mut_slice)
    }

    /// The elements, taken out, or `None` where they are of another type.
    #[must_use]
    pub fn into_values<T: Element>(mut self) -> Option<Vec<T>> {
        T::peek_mut(&mut self.data).map(std::mem::take)
    }

    /// A borrowed form of this tensor.
    #[must_use]
    pub fn view(&self) -> TensorView<'_> {
        TensorView { shape: self.shape, data: self.data.as_view() }
    }

    /// Makes this a tensor of this type and shape, and hands out its elements to be written.
    ///
    /// The memory is kept where the type was the same, so a tensor that is used again and again
    /// does not allocate. What the elements were before is unspecified; every one of them has to
    /// be written.
    pub fn reset<T: Element>(&mut self, shape: Shape) -> &mut [T] {
        if T::peek(&self.data).is_none() {
            self.data = T::wrap(Vec::new());
        }
        self.shape = shape;
        match T::peek_mut(&mut self.data) {
            Some(values) => {
                memory::resize_apart(values, shape.elements(), T::default());
                values
            }
            None => &mut [],
        }
    }

    /// Adds rows of the same type and width behind those that are there; a scalar has no rows, and
    /// stays as it is.
    pub(crate) fn append_rows(&mut self, more: TensorView<'_>) {
        if self.shape.rank > 0
            && let Some(rows) = self.shape.dims.first_mut()
        {
            *rows = rows.saturating_add(more.shape().rows());
            self.data.extend(more.data());
        }
    }

    /// Takes all rows out, and keeps their memory; a scalar has no rows, and stays as it is.
    pub(crate) fn clear_rows(&mut self) {
        if self.shape.rank > 0
            && let Some(rows) = self.shape.dims.first_mut()
        {
            *rows = 0;
            self.data.clear();
        }
    }
}

impl Default for Tensor {
    /// An empty vector of `f32`, without memory of its own.
    fn default() -> Self {
        Self { shape: Shape::vector(0), data: Data::F32(Vec::new()) }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_that_is_reset_keeps_its_memory() {
        let mut tensor = Tensor::vector(vec![1.0_f32; 64]);
        let before = tensor.values::<f32>().unwrap().as_ptr();
        tensor.reset::<f32>(Shape::matrix(2, 8)).fill(3.0);
        assert_eq!(tensor.dims(), [2, 8]);
        assert_eq!(tensor.values::<f32>().unwrap().as_ptr(), before);
        tensor.reset::<i64>(Shape::vector(2)).fill(7);
        assert_eq!(tensor.values::<i64>(), Some(&[7, 7][..]));
    }

    #[test]
    fn rows_are_added_and_taken_out_in_the_same_memory() {
        let mut tensor = Tensor::new(&[1, 2], vec![1, 2_i64]).unwrap();
        let more = Tensor::new(&[2, 2], vec![3, 4, 5, 6_i64]).unwrap();
        tensor.append_rows(more.view());
        assert_eq!(tensor, Tensor::new(&[3, 2], vec![1, 2, 3, 4, 5, 6_i64]).unwrap());
        let before = tensor.values::<i64>().unwrap().as_ptr();
        tensor.clear_rows();
        assert_eq!(tensor.dims(), [0, 2]);
        tensor.append_rows(more.view());
        assert_eq!(tensor, more);
        assert_eq!(tensor.values::<i64>().unwrap().as_ptr(), before);
    }
}
