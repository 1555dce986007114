//! Element by element comparison of what a model answered with what it should.

use std::fmt;

use crate::tensor::{DataView, ElementType, Shape, TensorView};

/// Compares two tensors element by element.
///
/// Floats agree where they differ by no more than `atol + rtol * |expected|`; NaN agrees with NaN,
/// an infinity with itself. Everything else has to be equal. Dimensions of one are not compared:
/// `[64]` agrees with `[64,1]`.
///
/// # Errors
/// The type, the shape, or the element that is furthest off.
///
/// ```
/// use modelswap::load::compare;
/// use modelswap::Tensor;
///
/// let expected = Tensor::vector(vec![0.25_f32, 0.5]);
/// let found = Tensor::vector(vec![0.25_f32, 0.75]);
/// let difference = compare(expected.view(), found.view(), 1e-4, 1e-5).unwrap_err();
/// assert_eq!(difference.to_string(), "element [1]: expected 0.5, found 0.75, off by 0.25; 1 of 2 differ");
/// ```
pub fn compare(
    expected: TensorView<'_>,
    found: TensorView<'_>,
    rtol: f64,
    atol: f64,
) -> Result<(), Difference> {
    let (wanted, given) = (expected.element_type(), found.element_type());
    if wanted != given && !(wanted.is_float() && given.is_float()) {
        return Err(Difference::Type { expected: wanted, found: given });
    }
    if squeezed(expected.dims()).ne(squeezed(found.dims())) {
        return Err(Difference::Shape { expected: expected.shape(), found: found.shape() });
    }
    if let (Some(a), Some(b)) = (floats(expected.data()), floats(found.data())) {
        return compare_floats(expected.shape(), a, b, rtol, atol);
    }
    match (expected.data(), found.data()) {
        (DataView::I8(a), DataView::I8(b)) => compare_exact(expected.shape(), a, b),
        (DataView::I16(a), DataView::I16(b)) => compare_exact(expected.shape(), a, b),
        (DataView::I32(a), DataView::I32(b)) => compare_exact(expected.shape(), a, b),
        (DataView::I64(a), DataView::I64(b)) => compare_exact(expected.shape(), a, b),
        (DataView::U8(a), DataView::U8(b)) => compare_exact(expected.shape(), a, b),
        (DataView::U16(a), DataView::U16(b)) => compare_exact(expected.shape(), a, b),
        (DataView::U32(a), DataView::U32(b)) => compare_exact(expected.shape(), a, b),
        (DataView::U64(a), DataView::U64(b)) => compare_exact(expected.shape(), a, b),
        (DataView::Bool(a), DataView::Bool(b)) => compare_exact(expected.shape(), a, b),
        (DataView::String(a), DataView::String(b)) => compare_exact(expected.shape(), a, b),
        _ => Err(Difference::Type { expected: wanted, found: given }),
    }
}

/// Where two tensors differ.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Difference {
    /// The elements are of different types.
    #[error("expected elements of type {expected}, found {found}")]
    Type {
        /// The type that was expected.
        expected: ElementType,
        /// The type that was found.
        found: ElementType,
    },
    /// The shapes differ.
    #[error("expected shape {expected}, found {found}")]
    Shape {
        /// The shape that was expected.
        expected: Shape,
        /// The shape that was found.
        found: Shape,
    },
    /// Values differ; this is the one that is furthest off.
    #[error("element {}: expected {expected}, found {found}{}; {differing} of {elements} differ",
        Position(position), off.map_or_else(String::new, |off| format!(", off by {off:?}")))]
    Value {
        /// Its index in each dimension.
        position: Vec<usize>,
        /// The value that was expected.
        expected: String,
        /// The value that was found.
        found: String,
        /// The distance between them, where they are numbers.
        off: Option<f64>,
        /// How many elements differ.
        differing: usize,
        /// How many elements there are.
        elements: usize,
    },
}

struct Position<'a>(&'a [usize]);

impl fmt::Display for Position<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(f, "[{}]", list.join(","))
    }
}

fn compare_floats(
    shape: Shape,
    expected: Vec<f64>,
    found: Vec<f64>,
    rtol: f64,
    atol: f64,
) -> Result<(), Difference> {
    let mut differing = 0;
    let mut worst: Option<(f64, usize, f64, f64)> = None;
    for (i, (a, b)) in expected.into_iter().zip(found).enumerate() {
        if agree(a, b, rtol, atol) {
            continue;
        }
        differing += 1;
        // How many times the tolerance it is off; a NaN or an infinity is off by any measure.
        let excess = ((a - b).abs() / (atol + rtol * a.abs()).max(f64::MIN_POSITIVE)).min(f64::MAX);
        let excess = if excess.is_nan() { f64::MAX } else { excess };
        if worst.is_none_or(|(most, ..)| excess > most) {
            worst = Some((excess, i, a, b));
        }
    }
    let Some((_, index, a, b)) = worst else { return Ok(()) };
    Err(Difference::Value {
        position: position(shape, index),
        expected: a.to_string(),
        found: b.to_string(),
        off: Some((a - b).abs()),
        differing,
        elements: shape.elements(),
    })
}

fn agree(expected: f64, found: f64, rtol: f64, atol: f64) -> bool {
    if expected.is_nan() || found.is_nan() {
        return expected.is_nan() && found.is_nan();
    }
    #[expect(clippy::float_cmp, reason = "infinities agree with themselves alone")]
    if expected.is_infinite() || found.is_infinite() {
        return expected == found;
    }
    (expected - found).abs() <= atol + rtol * expected.abs()
}

fn compare_exact<T: PartialEq + fmt::Debug>(
    shape: Shape,
    expected: &[T],
    found: &[T],
) -> Result<(), Difference> {
    let mut differing = expected.iter().zip(found).enumerate().filter(|(_, (a, b))| a != b);
    let Some((index, (a, b))) = differing.next() else { return Ok(()) };
    Err(Difference::Value {
        position: position(shape, index),
        expected: format!("{a:?}"),
        found: format!("{b:?}"),
        off: None,
        differing: 1 + differing.count(),
        elements: expected.len(),
    })
}

fn floats(data: DataView<'_>) -> Option<Vec<f64>> {
    match data {
        DataView::F32(values) => Some(values.iter().map(|v| f64::from(*v)).collect()),
        DataView::F64(values) => Some(values.to_vec()),
        _ => None,
    }
}

fn squeezed(dims: &[usize]) -> impl Iterator<Item = &usize> {
    dims.iter().filter(|d| **d != 1)
}

fn position(shape: Shape, mut index: usize) -> Vec<usize> {
    let mut position: Vec<usize> = shape
        .dims()
        .iter()
        .rev()
        .map(|dim| {
            let here = index.checked_rem(*dim).unwrap_or(0);
            index = index.checked_div(*dim).unwrap_or(0);
            here
        })
        .collect();
    position.reverse();
    position
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn nan_agrees_with_nan_and_with_nothing_else() {
        let nan = Tensor::vector(vec![f32::NAN, f32::INFINITY]);
        assert_eq!(compare(nan.view(), nan.view(), 0.0, 0.0), Ok(()));
        let finite = Tensor::vector(vec![1.0_f32, f32::INFINITY]);
        assert!(compare(nan.view(), finite.view(), 1.0, 1.0).is_err());
        assert!(compare(finite.view(), nan.view(), 1.0, 1.0).is_err());
        let other = Tensor::vector(vec![f32::NAN, f32::NEG_INFINITY]);
        assert!(compare(nan.view(), other.view(), f64::INFINITY, 1.0).is_err());
    }

    #[test]
    fn the_element_that_is_furthest_off_is_named() {
        let expected = Tensor::new(&[2, 2], vec![1.0_f64, 2.0, 3.0, 4.0]).unwrap();
        let found = Tensor::new(&[2, 2], vec![1.5_f64, 2.0, 5.0, 4.0]).unwrap();
        let difference = compare(expected.view(), found.view(), 1e-5, 1e-5).unwrap_err();
        assert_eq!(difference.to_string(), "element [1,0]: expected 3, found 5, off by 2.0; 2 of 4 differ");
    }

    #[test]
    fn labels_are_compared_exactly() {
        let expected = Tensor::vector(vec!["ham".to_owned(), "spam".to_owned()]);
        let found = Tensor::vector(vec!["ham".to_owned(), "ham".to_owned()]);
        let difference = compare(expected.view(), found.view(), 1.0, 1.0).unwrap_err();
        assert_eq!(difference.to_string(), r#"element [1]: expected "spam", found "ham"; 1 of 2 differ"#);
    }

    #[test]
    fn a_column_agrees_with_a_vector_but_not_with_a_longer_one() {
        let column = Tensor::column(vec![1.0_f32, 2.0]);
        assert!(compare(column.view(), Tensor::vector(vec![1.0_f32, 2.0]).view(), 0.0, 0.0).is_ok());
        let longer = Tensor::vector(vec![1.0_f32, 2.0, 3.0]);
        assert_eq!(
            compare(column.view(), longer.view(), 0.0, 0.0).unwrap_err().to_string(),
            "expected shape [2,1], found [3]"
        );
        let labels = Tensor::vector(vec![1_i64, 2]);
        assert_eq!(
            compare(column.view(), labels.view(), 0.0, 0.0).unwrap_err().to_string(),
            "expected elements of type f32, found i64"
        );
    }
}
