//! Tensors: what goes into a model and what comes out.
//!
//! A [`Tensor`] owns its elements, a [`TensorView`] borrows them; both are dense and in row-major
//! order. The first dimension is the batch: one row an event.

use std::fmt;

/// The largest number of dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 8-bit signed integer.
    I8,
    /// 16-bit signed integer.
    I16,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
    /// Truth value.
    Bool,
    /// UTF-8 text.
    String,
}

impl ElementType {
    /// The name that error messages and `check` print: `f32`, `i64`, `string`, ..
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::Bool => "bool",
            Self::String => "string",
        }
    }

    /// True for `f32` and `f64`.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The dimensions of a tensor, at most [`MAX_RANK`] of them, held inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    rank: u8,
    dims: [usize; MAX_RANK],
}

impl Shape {
    /// The shape of a single value: no dimensions, one element.
    pub const SCALAR: Self = Self { rank: 0, dims: [0; MAX_RANK] };

    /// A shape of these dimensions, or `None` where there are more than [`MAX_RANK`] or their
    /// product does not fit a `usize`.
    #[must_use]
    pub fn new(dims: &[usize]) -> Option<Self> {
        let mut shape = Self::SCALAR;
        shape.dims.get_mut(..dims.len())?.copy_from_slice(dims);
        shape.rank = u8::try_from(dims.len()).ok()?;
        dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))?;
        Some(shape)
    }

    /// `[n]`.
    #[must_use]
    pub const fn vector(n: usize) -> Self {
        Self { rank: 1, dims: [n, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// `[rows, width]`.
    #[must_use]
    pub const fn matrix(rows: usize, width: usize) -> Self {
        Self { rank: 2, dims: [rows, width, 0, 0, 0, 0, 0, 0] }
    }

    /// The dimensions, outermost first.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        self.dims.get(..usize::from(self.rank)).unwrap_or(&[])
    }

    /// The number of elements: the product of the dimensions, 1 for a scalar.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The first dimension, 1 for a scalar.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.dims().first().copied().unwrap_or(1)
    }

    /// The number of elements in one row: the product of all dimensions but the first.
    #[must_use]
    pub fn row_elements(&self) -> usize {
        self.dims().get(1..).unwrap_or(&[]).iter().product()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.dims().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// A type that a tensor can hold. Sealed: the twelve types of [`ElementType`].
pub trait Element: Clone + Default + fmt::Debug + PartialEq + Send + Sync + sealed::Sealed + 'static {
    /// The tag of this type.
    const TYPE: ElementType;
    #[doc(hidden)]
    fn wrap(values: Vec<Self>) -> Data;
    #[doc(hidden)]
    fn peek(data: &Data) -> Option<&Vec<Self>>;
    #[doc(hidden)]
    fn peek_mut(data: &mut Data) -> Option<&mut Vec<Self>>;
    #[doc(hidden)]
    fn view(values: &[Self]) -> DataView<'_>;
    #[doc(hidden)]
    fn peek_view<'a>(data: &DataView<'a>) -> Option<&'a [Self]>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($variant:ident $type:ty),* $(,)?) => {
        /// Owned elements. An implementation detail that [`Element`] has to name.
        #[doc(hidden)]
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, clippy::exhaustive_enums)]
        pub enum Data { $($variant(Vec<$type>)),* }

        /// Borrowed elements, by type.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum DataView<'a> {
            $(#[doc = concat!("Elements of type `", stringify!($type), "`.")] $variant(&'a [$type])),*
        }

        impl Data {
            fn element_type(&self) -> ElementType {
                match self { $(Self::$variant(_) => ElementType::$variant),* }
            }
            fn as_view(&self) -> DataView<'_> {
                match self { $(Self::$variant(v) => DataView::$variant(v)),* }
            }
            /// Adds elements, which have to be of the same type.
            fn extend(&mut self, more: DataView<'_>) {
                match (self, more) {
                    $((Self::$variant(v), DataView::$variant(more)) => v.extend_from_slice(more),)*
                    _ => debug_assert!(false, "elements of another type"),
                }
            }
            fn clear(&mut self) {
                match self { $(Self::$variant(v) => v.clear()),* }
            }
        }

        impl<'a> DataView<'a> {
            /// The type of the elements.
            #[must_use]
            pub const fn element_type(&self) -> ElementType {
                match self { $(Self::$variant(_) => ElementType::$variant),* }
            }
            /// The number of elements.
            #[must_use]
            pub const fn len(&self) -> usize {
                match self { $(Self::$variant(v) => v.len()),* }
            }
            /// True where there is no element.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.len() == 0
            }
            fn to_data(self) -> Data {
                match self { $(Self::$variant(v) => Data::$variant(v.to_vec())),* }
            }
            fn slice(self, range: std::ops::Range<usize>) -> Option<DataView<'a>> {
                Some(match self { $(Self::$variant(v) => DataView::$variant(v.get(range)?)),* })
            }
        }

        $(
            impl sealed::Sealed for $type {}
            impl Element for $type {
                const TYPE: ElementType = ElementType::$variant;
                fn wrap(values: Vec<Self>) -> Data { Data::$variant(values) }
                fn peek(data: &Data) -> Option<&Vec<Self>> {
                    match data { Data::$variant(v) => Some(v), _ => None }
                }
                fn peek_mut(data: &mut Data) -> Option<&mut Vec<Self>> {
                    match data { Data::$variant(v) => Some(v), _ => None }
                }
                fn view(values: &[Self]) -> DataView<'_> { DataView::$variant(values) }
                fn peek_view<'a>(data: &DataView<'a>) -> Option<&'a [Self]> {
                    match data { DataView::$variant(v) => Some(v), _ => None }
                }
            }
        )*
    };
}

elements! {
    F32 f32, F64 f64, I8 i8, I16 i16, I32 i32, I64 i64,
    U8 u8, U16 u16, U32 u32, U64 u64, Bool bool, String String,
}

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
                values.resize(shape.elements(), T::default());
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

/// A borrowed [`Tensor`]: `Copy`, and what a model is given.
#[derive(Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    shape: Shape,
    data: DataView<'a>,
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

/// The values do not fill the shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tensor of shape {dims:?} does not hold {found} elements")]
pub struct ShapeError {
    dims: Vec<usize>,
    found: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_overflows_is_refused() {
        assert!(Shape::new(&[usize::MAX, 2]).is_none());
        assert!(Shape::new(&[1; MAX_RANK + 1]).is_none());
        assert_eq!(Shape::new(&[2, 3]).map(|s| s.elements()), Some(6));
    }

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

    #[test]
    fn rows_of_a_view_are_a_view() {
        let tensor = Tensor::new(&[3, 2], vec![1, 2, 3, 4, 5, 6_i64]).unwrap();
        let view = tensor.view().rows(1..3).unwrap();
        assert_eq!(view.dims(), [2, 2]);
        assert_eq!(view.values::<i64>(), Some(&[3, 4, 5, 6][..]));
        assert!(tensor.view().rows(2..4).is_none());
    }
}
