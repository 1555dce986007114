//! A value that a file holds, in the form in which it is used last: a large one is held once.

use std::collections::HashMap;
use std::sync::Arc;

use super::api::tfpb::DataType;
use super::api::{Datum, DatumType, EngineTensor, f16, tract_ndarray};
use super::constants::datum_type;
use super::graph::{Content, Graph};
use super::malformed;
use crate::kernel::standard::matmul::LayerForm;
use crate::load::tract::convert::to_engine;
use crate::load::{LoadError, Payload};
use crate::tensor::{Shape, Tensor};

/// From this many elements on floats are weights that a layer may take over.
const LARGE: usize = LayerForm::LARGE;

/// A value, shared by what reads it.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Constant(Arc<EngineTensor>),
    /// Many `f32`, in memory that tract cannot take over.
    Weights(Arc<Tensor>),
    /// Complex numbers, by their real and their imaginary parts.
    Complex(Arc<[Arc<EngineTensor>; 2]>),
}

impl Stored {
    pub(super) fn into_content(self) -> Content {
        match self {
            Self::Constant(value) => Content::Constant(value),
            Self::Weights(value) => Content::Weights(value),
            Self::Complex(parts) => Content::Complex(parts),
        }
    }

    /// The value as tract takes it, copied where it is not in that form.
    pub(super) fn engine(&self) -> Result<Arc<EngineTensor>, LoadError> {
        match self {
            Self::Constant(value) => Ok(Arc::clone(value)),
            Self::Weights(value) => to_engine(value.view()).map(Arc::new).map_err(unconverted),
            Self::Complex(_) => Err(malformed("complex numbers are not supported here")),
        }
    }

    #[cfg(test)]
    pub(super) fn view(&self) -> Option<crate::tensor::TensorView<'_>> {
        match self {
            Self::Constant(value) => crate::load::tract::convert::view(value),
            Self::Weights(value) => Some(value.view()),
            Self::Complex(_) => None,
        }
    }
}

impl From<EngineTensor> for Stored {
    fn from(value: EngineTensor) -> Self {
        Self::Constant(Arc::new(value))
    }
}

/// A value whose elements are these bytes, in the byte order of the file; each piece of them is let
/// go of as it has been read. `None` where their number is not that of the shape.
pub(super) fn raw(data_type: DataType, dims: &[usize], bytes: Payload) -> Option<Stored> {
    match datum_type(data_type) {
        None if data_type == DataType::DtBfloat16 => {
            floats(dims, bytes, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))
        }
        Some(DatumType::F16) => floats(dims, bytes, |b| f16::from_bits(u16::from_le_bytes(b)).to_f32()),
        Some(DatumType::F32) => {
            let undecoded = Shape::new(dims).filter(|shape| shape.elements() >= LARGE);
            match undecoded.and_then(|shape| Tensor::undecoded(shape, bytes.clone())) {
                Some(weights) => Some(Stored::Weights(Arc::new(weights))),
                None => floats(dims, bytes, f32::from_le_bytes),
            }
        }
        Some(DatumType::F64) => engine(dims, elements(dims, bytes, f64::from_le_bytes)?),
        Some(DatumType::I8) => engine(dims, elements(dims, bytes, i8::from_le_bytes)?),
        Some(DatumType::I16) => engine(dims, elements(dims, bytes, i16::from_le_bytes)?),
        Some(DatumType::I32) => engine(dims, elements(dims, bytes, i32::from_le_bytes)?),
        Some(DatumType::I64) => engine(dims, elements(dims, bytes, i64::from_le_bytes)?),
        Some(DatumType::U8) => engine(dims, elements(dims, bytes, u8::from_le_bytes)?),
        Some(DatumType::U16) => engine(dims, elements(dims, bytes, u16::from_le_bytes)?),
        Some(DatumType::U32) => engine(dims, elements(dims, bytes, u32::from_le_bytes)?),
        Some(DatumType::U64) => engine(dims, elements(dims, bytes, u64::from_le_bytes)?),
        Some(DatumType::Bool) => engine(dims, elements(dims, bytes, |[b]: [u8; 1]| b != 0)?),
        _ => None,
    }
}

/// Complex numbers whose parts follow each other.
pub(super) fn complex<T: Datum + Copy>(dims: &[usize], values: &[T]) -> Option<Stored> {
    let (pairs, []) = values.as_chunks::<2>() else { return None };
    let part = |which: fn(&[T; 2]) -> T| {
        let array = tract_ndarray::ArrayD::from_shape_vec(dims, pairs.iter().map(which).collect());
        array.ok().map(|array| Arc::new(EngineTensor::from(array)))
    };
    Some(Stored::Complex(Arc::new([part(|[real, _]| *real)?, part(|[_, imaginary]| *imaginary)?])))
}

fn floats<const N: usize>(dims: &[usize], bytes: Payload, read: impl Fn([u8; N]) -> f32) -> Option<Stored> {
    let values = elements(dims, bytes, read)?;
    if values.len() < LARGE {
        return engine(dims, values);
    }
    Tensor::new(dims, values).ok().map(|tensor| Stored::Weights(Arc::new(tensor)))
}

fn engine<T: Datum>(dims: &[usize], values: Vec<T>) -> Option<Stored> {
    tract_ndarray::ArrayD::from_shape_vec(dims, values).ok().map(|array| EngineTensor::from(array).into())
}

fn elements<T, const N: usize>(
    dims: &[usize],
    bytes: Payload,
    read: impl Fn([u8; N]) -> T,
) -> Option<Vec<T>> {
    let count = dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))?;
    if count.checked_mul(N) != Some(bytes.len()) {
        return None;
    }
    Some(bytes.decoded(read))
}

/// Brings all weights that are left in a graph into the form that tract takes, one by one.
pub(super) fn give_to_engine(graph: &mut Graph) -> Result<(), LoadError> {
    // What several nodes share stays shared; it is kept so long that no other can lie in its place.
    let mut shared: HashMap<*const Tensor, (Arc<Tensor>, Arc<EngineTensor>)> = HashMap::new();
    let mut open = vec![graph];
    while let Some(graph) = open.pop() {
        for node in &mut graph.nodes {
            match std::mem::replace(&mut node.content, Content::None) {
                Content::Weights(weights) => {
                    let identity = Arc::as_ptr(&weights);
                    let value = if let Some((_, known)) = shared.get(&identity) {
                        Arc::clone(known)
                    } else {
                        let value = to_engine(weights.view()).map(Arc::new).map_err(unconverted)?;
                        if Arc::strong_count(&weights) > 1 {
                            shared.insert(identity, (weights, Arc::clone(&value)));
                        }
                        value
                    };
                    node.content = Content::Constant(value);
                }
                other => node.content = other,
            }
            if let Content::Loop(repeat) = &mut node.content {
                open.extend([&mut repeat.condition, &mut repeat.body]);
            }
        }
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unconverted(error: crate::load::RunError) -> LoadError {
    malformed(format!("a constant: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn values_are_read_across_the_pieces_of_a_file() {
        let bytes: Vec<u8> = (0..LARGE).flat_map(|i| (i as f32).to_le_bytes()).collect();
        for size in [1001, bytes.len()] {
            let pieces = Payload::from_chunks(bytes.chunks(size).map(Bytes::copy_from_slice));
            let Some(Stored::Weights(weights)) = raw(DataType::DtFloat, &[16, LARGE / 16], pieces) else {
                panic!("no weights")
            };
            assert_eq!(weights.dims(), [16, LARGE / 16]);
            assert!(weights.values::<f32>().unwrap().iter().enumerate().all(|(i, x)| *x == i as f32));
        }
        let halves = raw(DataType::DtHalf, &[2], vec![0, 0x3c, 0, 0xc0].into()).unwrap();
        assert_eq!(halves.view().and_then(|v| v.values::<f32>().map(<[f32]>::to_vec)), Some(vec![1.0, -2.0]));
        assert!(raw(DataType::DtFloat, &[2], vec![0; 7].into()).is_none());
        assert!(raw(DataType::DtFloat, &[usize::MAX, 8], vec![0; 32].into()).is_none());
    }
}
