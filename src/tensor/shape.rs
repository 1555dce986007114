//! The dimensions of a tensor.

use std::fmt;

/// The largest number of dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// The dimensions of a tensor, at most [`MAX_RANK`] of them, held inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    pub(super) rank: u8,
    pub(super) dims: [usize; MAX_RANK],
}

impl Shape {
    /// The shape of a single value: no dimensions, one element.
    pub const SCALAR: Self = Self { rank: 0, dims: [0; MAX_RANK] };

    /// A shape of these dimensions, or `None` where there are more than [`MAX_RANK`] or the
    /// product of those that are not 0 does not fit a `usize`.
    #[must_use]
    pub fn new(dims: &[usize]) -> Option<Self> {
        let mut shape = Self::SCALAR;
        shape.dims.get_mut(..dims.len())?.copy_from_slice(dims);
        shape.rank = u8::try_from(dims.len()).ok()?;
        // The product of any of the dimensions has to fit: of a row where there are no rows, too.
        dims.iter().try_fold(1_usize, |n, d| n.checked_mul((*d).max(1)))?;
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

/// The values do not fill the shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tensor of shape {dims:?} does not hold {found} elements")]
pub struct ShapeError {
    pub(super) dims: Vec<usize>,
    pub(super) found: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_overflows_is_refused() {
        assert!(Shape::new(&[usize::MAX, 2]).is_none());
        assert!(Shape::new(&[1; MAX_RANK + 1]).is_none());
        assert!(Shape::new(&[0, usize::MAX, 2]).is_none(), "a row of it overflows");
        assert_eq!(Shape::new(&[2, 3]).map(|s| s.elements()), Some(6));
    }
}
