//! Tensors of this crate to tensors of tract, and back.

use super::api::{Datum, DatumType, TValue, tract_ndarray};
use crate::load::RunError;
use crate::tensor::{DataView, Element, ElementType, Shape, Tensor, TensorView};

/// tract's own tensor; the short name is this crate's.
pub(in crate::load) type EngineTensor = super::api::Tensor;

/// The tract type of an element type.
pub(in crate::load) fn datum_type(element: ElementType) -> DatumType {
    match element {
        ElementType::F32 => DatumType::F32,
        ElementType::F64 => DatumType::F64,
        ElementType::I8 => DatumType::I8,
        ElementType::I16 => DatumType::I16,
        ElementType::I32 => DatumType::I32,
        ElementType::I64 => DatumType::I64,
        ElementType::U8 => DatumType::U8,
        ElementType::U16 => DatumType::U16,
        ElementType::U32 => DatumType::U32,
        ElementType::U64 => DatumType::U64,
        ElementType::Bool => DatumType::Bool,
        ElementType::String => DatumType::String,
    }
}

/// The element type in which a tensor of this tract type leaves the model, where there is one: a
/// `TDim` as `i64`, half precision as `f32`.
pub(in crate::load) fn element_type(datum: DatumType) -> Option<ElementType> {
    Some(match datum {
        DatumType::F16 | DatumType::F32 => ElementType::F32,
        DatumType::F64 => ElementType::F64,
        DatumType::I8 => ElementType::I8,
        DatumType::I16 => ElementType::I16,
        DatumType::I32 => ElementType::I32,
        DatumType::I64 | DatumType::TDim => ElementType::I64,
        DatumType::U8 => ElementType::U8,
        DatumType::U16 => ElementType::U16,
        DatumType::U32 => ElementType::U32,
        DatumType::U64 => ElementType::U64,
        DatumType::Bool => ElementType::Bool,
        DatumType::String => ElementType::String,
        _ => return None,
    })
}

/// A copy as tract takes it.
pub(in crate::load) fn to_engine(tensor: TensorView<'_>) -> Result<EngineTensor, RunError> {
    let dims = tensor.dims();
    let made = match tensor.data() {
        DataView::F32(values) => EngineTensor::from_shape(dims, values),
        DataView::F64(values) => EngineTensor::from_shape(dims, values),
        DataView::I8(values) => EngineTensor::from_shape(dims, values),
        DataView::I16(values) => EngineTensor::from_shape(dims, values),
        DataView::I32(values) => EngineTensor::from_shape(dims, values),
        DataView::I64(values) => EngineTensor::from_shape(dims, values),
        DataView::U8(values) => EngineTensor::from_shape(dims, values),
        DataView::U16(values) => EngineTensor::from_shape(dims, values),
        DataView::U32(values) => EngineTensor::from_shape(dims, values),
        DataView::U64(values) => EngineTensor::from_shape(dims, values),
        DataView::Bool(values) => EngineTensor::from_shape(dims, values),
        DataView::String(values) => return strings_to_engine(dims, values.to_vec()),
    };
    made.map_err(|e| engine_error(&e))
}

/// A tensor of strings as tract takes it.
pub(in crate::load) fn strings_to_engine(
    dims: &[usize],
    values: Vec<String>,
) -> Result<EngineTensor, RunError> {
    tract_ndarray::ArrayD::from_shape_vec(dims, values)
        .map(EngineTensor::from)
        .map_err(|e| RunError::Engine(e.to_string().into()))
}

/// The same elements without a copy, or `None` where they are of a type that has to be converted.
pub(in crate::load) fn view(value: &EngineTensor) -> Option<TensorView<'_>> {
    let plain = value.as_plain_ram()?;
    macro_rules! view {
        ($($datum:ident $type:ty),*) => {
            match value.datum_type() {
                $(DatumType::$datum => {
                    TensorView::new(value.shape(), plain.as_slice::<$type>().ok()?).ok()
                })*
                _ => None,
            }
        };
    }
    view!(F32 f32, F64 f64, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64, Bool bool,
        String String)
}

/// Copies what tract computed into a tensor of ours, whose memory is used again.
pub(in crate::load) fn from_engine(value: &TValue, out: &mut Tensor) -> Result<(), RunError> {
    from_engine_tensor(value, out)
}

/// As [`from_engine`], for a tensor that is not wrapped.
pub(in crate::load) fn from_engine_tensor(value: &EngineTensor, out: &mut Tensor) -> Result<(), RunError> {
    let shape = Shape::new(value.shape()).ok_or_else(|| {
        RunError::Engine(format!("an output of rank {} is not supported", value.shape().len()).into())
    })?;
    match value.datum_type() {
        DatumType::F32 => copy::<f32>(value, shape, out),
        DatumType::F64 => copy::<f64>(value, shape, out),
        DatumType::I8 => copy::<i8>(value, shape, out),
        DatumType::I16 => copy::<i16>(value, shape, out),
        DatumType::I32 => copy::<i32>(value, shape, out),
        DatumType::I64 => copy::<i64>(value, shape, out),
        DatumType::U8 => copy::<u8>(value, shape, out),
        DatumType::U16 => copy::<u16>(value, shape, out),
        DatumType::U32 => copy::<u32>(value, shape, out),
        DatumType::U64 => copy::<u64>(value, shape, out),
        DatumType::Bool => copy::<bool>(value, shape, out),
        DatumType::String => copy::<String>(value, shape, out),
        DatumType::F16 => copy_cast::<f32>(value, shape, out),
        DatumType::TDim => copy_cast::<i64>(value, shape, out),
        other => Err(RunError::Engine(format!("an output of type {other:?} is not supported").into())),
    }
}

/// What tract says went wrong, its chain of causes in one line.
pub(in crate::load) fn engine_text(error: &super::api::TractError) -> String {
    format!("{error:#}").replace('\n', " ")
}

pub(in crate::load) fn engine_error(error: &super::api::TractError) -> RunError {
    let own = error.chain().find_map(|cause| cause.downcast_ref::<RunError>());
    own.cloned().unwrap_or_else(|| RunError::Engine(engine_text(error).into()))
}

fn copy<T: Datum + Element>(value: &EngineTensor, shape: Shape, out: &mut Tensor) -> Result<(), RunError> {
    let plain = value.try_as_plain_ram().map_err(|e| engine_error(&e))?;
    let values = plain.as_slice::<T>().map_err(|e| engine_error(&e))?;
    out.reset::<T>(shape).clone_from_slice(values);
    Ok(())
}

fn copy_cast<T: Datum + Element>(
    value: &EngineTensor,
    shape: Shape,
    out: &mut Tensor,
) -> Result<(), RunError> {
    let cast = value.cast_to::<T>().map_err(|e| engine_error(&e))?;
    copy::<T>(&cast, shape, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tract::api::{TDim, tensor1};

    #[test]
    fn a_shape_value_of_tract_comes_back_as_an_integer() {
        let dims = tensor1(&[TDim::from(3), TDim::from(7)]);
        let mut out = Tensor::default();
        from_engine_tensor(&dims, &mut out).unwrap();
        assert_eq!(out.values::<i64>(), Some(&[3, 7][..]));
    }

    #[test]
    fn strings_survive_the_way_there_and_back() {
        let words = Tensor::new(&[2, 1], vec!["a".to_owned(), "böse".to_owned()]).unwrap();
        let mut out = Tensor::default();
        from_engine_tensor(&to_engine(words.view()).unwrap(), &mut out).unwrap();
        assert_eq!(out, words);
    }
}
