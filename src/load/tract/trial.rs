//! Inputs to try a model with before it is trusted.

use super::api::{TValue, TVec};
use super::convert::{EngineTensor, from_engine, strings_to_engine, to_engine};
use crate::load::{LoadError, RunError};
use crate::signature::{Dim, TensorSpec};
use crate::tensor::{ElementType, Shape, Tensor};

/// The batch size beside 1 at which a model has to answer.
pub(super) const OTHER_BATCH: usize = 3;

/// Sizes to try for a dimension other than the batch that the model leaves open: a sequence or an
/// image. The first is tried for an input of unknown rank as the width of a row.
const OPEN_SIZES: [usize; 6] = [16, 5, 1, 64, 32, 224];

/// One set of input shapes to try.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trial {
    pub(super) shapes: Vec<Shape>,
    /// The size that open dimensions other than the batch have.
    pub(super) open: usize,
}

impl Trial {
    /// An input of each shape, with small values that differ from row to row.
    pub(super) fn values(&self, inputs: &[TensorSpec]) -> Result<TVec<TValue>, LoadError> {
        let values = inputs.iter().zip(&self.shapes).map(|(spec, shape)| {
            let value = input(spec.element_type(), *shape).map_err(|e| LoadError::Engine(e.to_string()))?;
            Ok(TValue::from(value))
        });
        values.collect()
    }
}

/// What to try at this batch size, the likeliest first.
pub(super) fn trials(inputs: &[TensorSpec], batch: usize) -> impl Iterator<Item = Trial> {
    let sizes = if has_open_inner(inputs) { OPEN_SIZES.len() } else { 1 };
    OPEN_SIZES.iter().take(sizes).filter_map(move |open| {
        let shapes = inputs.iter().map(|spec| shape(spec, batch, *open)).collect::<Option<_>>()?;
        Some(Trial { shapes, open: *open })
    })
}

/// True where the batch of an input is open.
pub(super) fn has_open_batch(spec: &TensorSpec) -> bool {
    spec.dims().is_none_or(|dims| dims.first().is_some_and(|d| d.fixed().is_none()))
}

/// True where an input has an open dimension that is not the batch.
pub(super) fn has_open_inner(inputs: &[TensorSpec]) -> bool {
    inputs.iter().any(|spec| spec.dims().is_none_or(|dims| dims.iter().skip(1).any(|d| d.fixed().is_none())))
}

/// The input with its batch fixed to what was tried.
pub(super) fn pinned(spec: &TensorSpec, shape: Shape) -> TensorSpec {
    let dims: Vec<Dim> = shape.dims().iter().map(|d| Dim::Fixed(*d)).collect();
    TensorSpec::new(spec.name(), spec.element_type(), &dims)
}

/// True where two answers are the same but for rounding.
pub(super) fn agrees(a: &TValue, b: &TValue) -> bool {
    let (mut left, mut right) = (Tensor::default(), Tensor::default());
    if from_engine(a, &mut left).is_err()
        || from_engine(b, &mut right).is_err()
        || left.shape() != right.shape()
    {
        return false;
    }
    let close =
        |a: f64, b: f64| (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-4 + 1e-3 * b.abs();
    if let (Some(a), Some(b)) = (left.values::<f32>(), right.values::<f32>()) {
        a.iter().zip(b).all(|(a, b)| close(f64::from(*a), f64::from(*b)))
    } else if let (Some(a), Some(b)) = (left.values::<f64>(), right.values::<f64>()) {
        a.iter().zip(b).all(|(a, b)| close(*a, *b))
    } else {
        left == right
    }
}

fn shape(spec: &TensorSpec, batch: usize, open: usize) -> Option<Shape> {
    let Some(dims) = spec.dims() else { return Some(Shape::matrix(batch, open)) };
    let dims = dims.iter().enumerate();
    let dims: Vec<usize> =
        dims.map(|(axis, dim)| dim.fixed().unwrap_or(if axis == 0 { batch } else { open })).collect();
    Shape::new(&dims)
}

/// Whole numbers are 0 and 1, which every table of categories has.
fn input(element: ElementType, shape: Shape) -> Result<EngineTensor, RunError> {
    let elements = shape.elements();
    let wave = || (0..elements).map(|i| f64::from(u32::try_from(i * 37 % 101).unwrap_or(0)) / 101.0);
    let bits = || (0..elements).map(|i| u8::from(i * 5 % 3 == 1));
    #[allow(clippy::cast_possible_truncation, reason = "any small value serves")]
    let tensor = match element {
        ElementType::F32 => Tensor::vector(wave().map(|v| v as f32).collect()),
        ElementType::F64 => Tensor::vector(wave().collect()),
        ElementType::I8 => Tensor::vector(bits().map(|b| i8::from(b == 1)).collect()),
        ElementType::I16 => Tensor::vector(bits().map(i16::from).collect()),
        ElementType::I32 => Tensor::vector(bits().map(i32::from).collect()),
        ElementType::I64 => Tensor::vector(bits().map(i64::from).collect()),
        ElementType::U8 => Tensor::vector(bits().collect()),
        ElementType::U16 => Tensor::vector(bits().map(u16::from).collect()),
        ElementType::U32 => Tensor::vector(bits().map(u32::from).collect()),
        ElementType::U64 => Tensor::vector(bits().map(u64::from).collect()),
        ElementType::Bool => Tensor::vector(bits().map(|b| b == 1).collect()),
        ElementType::String => return strings_to_engine(shape.dims(), vec!["1".to_owned(); elements]),
    };
    let view = tensor.view().reshaped(shape).ok_or_else(|| RunError::Engine("trial shape".into()))?;
    to_engine(view)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_tried_alone_and_an_open_length_at_several_sizes() {
        let rows = TensorSpec::new("x", ElementType::F32, &[Dim::Any, Dim::Fixed(4)]);
        let shapes: Vec<_> = trials(std::slice::from_ref(&rows), 3).map(|t| t.shapes).collect();
        assert_eq!(shapes, [vec![Shape::matrix(3, 4)]]);

        let words = TensorSpec::new("x", ElementType::I32, &[Dim::Any, Dim::Any]);
        assert!(trials(&[words], 1).count() > 1);
    }

    #[test]
    fn answers_agree_up_to_rounding_and_in_their_nans() {
        let value = |v: &[f32]| TValue::from(EngineTensor::from_shape(&[v.len()], v).unwrap());
        assert!(agrees(&value(&[1.0, f32::NAN]), &value(&[1.000_01, f32::NAN])));
        assert!(!agrees(&value(&[1.0]), &value(&[1.1])));
        assert!(!agrees(&value(&[f32::NAN]), &value(&[0.0])));
        assert!(!agrees(&value(&[1.0]), &value(&[1.0, 1.0])));
    }
}
