//! The constants of a file: `TensorProto` to tensors and back.
//!
//! TensorFlow leaves off repeated values at the end: no value means all zero, fewer values than
//! elements mean that the last one goes on. What such a constant claims is bounded by a budget for
//! the whole file; the file's own bytes bound the others.

use std::sync::Arc;

use super::api::tfpb::tensor_shape_proto::Dim;
use super::api::tfpb::{DataType, TensorProto, TensorShapeProto};
use super::api::{Datum, DatumType, EngineTensor, f16, tract_ndarray};
use super::malformed;
use super::stored::{self, Stored, raw};
use crate::load::{LoadError, Payload};
use crate::tensor::Tensor;

/// How many bytes the constants in compressed form may have together.
#[derive(Debug)]
pub(super) struct Expansion {
    left: u64,
    budget: u64,
}

impl Expansion {
    /// Up to 256 MiB, or the whole memory budget where that is less.
    pub(super) fn new(memory_budget: u64) -> Self {
        let budget = memory_budget.min(256 << 20);
        Self { left: budget, budget }
    }

    fn take(&mut self, name: &str, bytes: u64) -> Result<(), LoadError> {
        let over = || LoadError::OverBudget {
            what: format!("the constant `{name}`, stored in compressed form,"),
            needed: bytes,
            budget: self.budget,
        };
        self.left = self.left.checked_sub(bytes).ok_or_else(over)?;
        Ok(())
    }
}

/// tract's type for a TensorFlow type, where there is one. Strings become UTF-8 text.
pub(super) fn datum_type(data_type: DataType) -> Option<DatumType> {
    Some(match data_type {
        DataType::DtFloat => DatumType::F32,
        DataType::DtDouble => DatumType::F64,
        DataType::DtHalf => DatumType::F16,
        DataType::DtInt8 => DatumType::I8,
        DataType::DtInt16 => DatumType::I16,
        DataType::DtInt32 => DatumType::I32,
        DataType::DtInt64 => DatumType::I64,
        DataType::DtUint8 => DatumType::U8,
        DataType::DtUint16 => DatumType::U16,
        DataType::DtUint32 => DatumType::U32,
        DataType::DtUint64 => DatumType::U64,
        DataType::DtBool => DatumType::Bool,
        DataType::DtString => DatumType::String,
        _ => return None,
    })
}

/// The type that values of this type are computed with. Half the precision is enough to hold weights;
/// sums of many are better in single, which only makes the answer more exact.
pub(super) fn computed_type(data_type: DataType) -> Option<DatumType> {
    match data_type {
        DataType::DtHalf | DataType::DtBfloat16 => Some(DatumType::F32),
        other => datum_type(other),
    }
}

/// The TensorFlow type of a tract type, where there is one.
pub(super) fn data_type(datum: DatumType) -> Option<DataType> {
    Some(match datum {
        DatumType::F32 => DataType::DtFloat,
        DatumType::F64 => DataType::DtDouble,
        DatumType::F16 => DataType::DtHalf,
        DatumType::I8 => DataType::DtInt8,
        DatumType::I16 => DataType::DtInt16,
        DatumType::I32 => DataType::DtInt32,
        DatumType::I64 => DataType::DtInt64,
        DatumType::U8 => DataType::DtUint8,
        DatumType::U16 => DataType::DtUint16,
        DatumType::U32 => DataType::DtUint32,
        DatumType::U64 => DataType::DtUint64,
        DatumType::Bool => DataType::DtBool,
        DatumType::String => DataType::DtString,
        _ => return None,
    })
}

/// The value of a constant; `name` is the node's, for messages. Its content is where the message has it, or
/// else beside it.
pub(super) fn value(
    name: &str,
    mut proto: TensorProto,
    mut content: Payload,
    expansion: &mut Expansion,
) -> Result<Stored, LoadError> {
    let bad = |what: &str| malformed(format!("the constant `{name}` {what}"));
    let data_type =
        DataType::try_from(proto.dtype).map_err(|_| bad(&format!("has the unknown type {}", proto.dtype)))?;
    if matches!(data_type, DataType::DtComplex64 | DataType::DtComplex128) {
        return complex(name, &proto, data_type, content, expansion);
    }
    let datum = computed_type(data_type)
        .ok_or_else(|| bad(&format!("is of type {}, which is not supported", data_type.as_str_name())))?;
    let dims = proto_dims(proto.tensor_shape.as_ref()).ok_or_else(|| bad("has no definite shape"))?;
    let elements =
        dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).ok_or_else(|| bad("is too large"))?;
    if content.is_empty() {
        content = std::mem::take(&mut proto.tensor_content).into();
    }
    if !content.is_empty() && datum != DatumType::String {
        let held = content.len();
        return raw(data_type, &dims, content)
            .ok_or_else(|| bad(&format!("of {elements} {data_type:?} elements holds {held} bytes")));
    }
    typed(name, proto, data_type, datum, (&dims, elements), expansion).map(Stored::from)
}

/// A constant of complex numbers: the values of both parts in turn.
fn complex(
    name: &str,
    proto: &TensorProto,
    data_type: DataType,
    content: Payload,
    expansion: &mut Expansion,
) -> Result<Stored, LoadError> {
    let bad = |what: &str| malformed(format!("the constant `{name}` {what}"));
    let dims = proto_dims(proto.tensor_shape.as_ref()).ok_or_else(|| bad("has no definite shape"))?;
    let elements = dims.iter().try_fold(2_usize, |n, d| n.checked_mul(*d));
    let elements = elements.ok_or_else(|| bad("is too large"))?;
    let content = if content.is_empty() { proto.tensor_content.clone().into() } else { content };
    let bytes = content.into_bytes();
    let unfit = || bad("does not fill its shape");
    if data_type == DataType::DtComplex64 {
        let raw: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let values = if raw.is_empty() { &proto.scomplex_val } else { &raw };
        let whole = in_full(name, values, elements, expansion)?;
        return stored::complex(&dims, &whole).ok_or_else(unfit);
    }
    let raw: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    let values = if raw.is_empty() { &proto.dcomplex_val } else { &raw };
    let whole = in_full(name, values, elements, expansion)?;
    stored::complex(&dims, &whole).ok_or_else(unfit)
}

/// All values of complex numbers, the last pair as often as it was left off.
fn in_full<T: Copy + Default>(
    name: &str,
    values: &[T],
    elements: usize,
    expansion: &mut Expansion,
) -> Result<Vec<T>, LoadError> {
    let missing = elements.checked_sub(values.len());
    let missing = missing.ok_or_else(|| malformed(format!("the constant `{name}` holds too many values")))?;
    expansion.take(name, (missing as u64).saturating_mul(size_of::<T>() as u64))?;
    let last = values.last_chunk::<2>().copied().unwrap_or_default();
    Ok(values.iter().copied().chain(last.into_iter().cycle().take(missing)).collect())
}

/// The complex numbers' form in a file.
pub(super) fn complex_proto([real, imaginary]: &[Arc<EngineTensor>; 2]) -> Option<TensorProto> {
    fn in_turn<T: Datum + Copy>(real: &EngineTensor, imaginary: &EngineTensor) -> Option<Vec<T>> {
        let (a, b) = (real.as_plain_ram()?, imaginary.as_plain_ram()?);
        let pairs = a.as_slice::<T>().ok()?.iter().zip(b.as_slice::<T>().ok()?);
        Some(pairs.flat_map(|(a, b)| [*a, *b]).collect())
    }
    if real.datum_type() == DatumType::F64 {
        let proto = empty_proto(DataType::DtComplex128, real.shape())?;
        return Some(TensorProto { dcomplex_val: in_turn(real, imaginary)?, ..proto });
    }
    let proto = empty_proto(DataType::DtComplex64, real.shape())?;
    Some(TensorProto { scomplex_val: in_turn(real, imaginary)?, ..proto })
}

/// The tensor of a constant whose values are in the field of their type.
fn typed(
    name: &str,
    proto: TensorProto,
    data_type: DataType,
    datum: DatumType,
    (dims, elements): (&[usize], usize),
    expansion: &mut Expansion,
) -> Result<EngineTensor, LoadError> {
    let mut fill = Fill { name, dims, elements, expansion };
    let half = |widen: fn(u16) -> f32| proto.half_val.iter().map(|bits| widen(low(*bits))).collect();
    match datum {
        DatumType::F32 if data_type == DataType::DtHalf => fill.tensor(half(from_half)),
        DatumType::F32 if data_type == DataType::DtBfloat16 => fill.tensor(half(from_bfloat)),
        DatumType::F32 => fill.tensor(proto.float_val),
        DatumType::F64 => fill.tensor(proto.double_val),
        DatumType::I8 => fill.tensor(narrow::<i8>(name, &proto.int_val)?),
        DatumType::I16 => fill.tensor(narrow::<i16>(name, &proto.int_val)?),
        DatumType::I32 => fill.tensor(proto.int_val),
        DatumType::I64 => fill.tensor(proto.int64_val),
        DatumType::U8 => fill.tensor(narrow::<u8>(name, &proto.int_val)?),
        DatumType::U16 => fill.tensor(narrow::<u16>(name, &proto.int_val)?),
        DatumType::U32 => fill.tensor(proto.uint32_val),
        DatumType::U64 => fill.tensor(proto.uint64_val),
        DatumType::Bool => fill.tensor(proto.bool_val),
        _ => fill.tensor(proto.string_val.iter().map(|s| text(s)).collect()),
    }
}

fn from_half(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// The upper half of a single.
fn from_bfloat(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The weights' form in a file.
pub(super) fn weights_proto(weights: &Tensor) -> Option<TensorProto> {
    let bytes = weights.values::<f32>()?.iter().flat_map(|value| value.to_le_bytes()).collect();
    Some(TensorProto { tensor_content: bytes, ..empty_proto(DataType::DtFloat, weights.dims())? })
}

fn empty_proto(data_type: DataType, dims: &[usize]) -> Option<TensorProto> {
    let dim = |size: &usize| Some(Dim { size: i64::try_from(*size).ok()?, name: String::new() });
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect::<Option<_>>()?, unknown_rank: false };
    Some(TensorProto { dtype: data_type as i32, tensor_shape: Some(shape), ..TensorProto::default() })
}

/// The constant's form in a file.
pub(super) fn proto(tensor: &EngineTensor) -> Option<TensorProto> {
    let data_type = data_type(tensor.datum_type())?;
    let mut proto = empty_proto(data_type, tensor.shape())?;
    if tensor.datum_type() == DatumType::String {
        let plain = tensor.as_plain_ram()?;
        proto.string_val = plain.as_slice::<String>().ok()?.iter().map(|s| s.as_bytes().to_vec()).collect();
    } else {
        proto.tensor_content = tensor.as_bytes().to_vec();
    }
    Some(proto)
}

/// The dimensions that a shape states; `None` where one is open.
pub(super) fn proto_dims(shape: Option<&TensorShapeProto>) -> Option<Vec<usize>> {
    match shape {
        None => Some(Vec::new()),
        Some(shape) if shape.unknown_rank => None,
        Some(shape) => shape.dim.iter().map(|d| usize::try_from(d.size).ok()).collect(),
    }
}

/// TensorFlow's strings are bytes; what is not UTF-8 is replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Fill<'a> {
    name: &'a str,
    dims: &'a [usize],
    elements: usize,
    expansion: &'a mut Expansion,
}

impl Fill<'_> {
    fn tensor<T: Datum + Default>(&mut self, mut values: Vec<T>) -> Result<EngineTensor, LoadError> {
        if values.len() > self.elements {
            return Err(malformed(format!(
                "the constant `{}` of {} elements holds {} values",
                self.name,
                self.elements,
                values.len()
            )));
        }
        if values.len() < self.elements {
            let bytes = (self.elements as u64).saturating_mul(size_of::<T>() as u64);
            self.expansion.take(self.name, bytes)?;
            let last = values.last().cloned().unwrap_or_default();
            values.resize(self.elements, last);
        }
        tract_ndarray::ArrayD::from_shape_vec(self.dims, values)
            .map(EngineTensor::from)
            .map_err(|e| malformed(format!("the constant `{}`: {e}", self.name)))
    }
}

fn narrow<T: TryFrom<i32>>(name: &str, values: &[i32]) -> Result<Vec<T>, LoadError> {
    values
        .iter()
        .map(|v| T::try_from(*v))
        .collect::<Result<_, _>>()
        .map_err(|_| malformed(format!("the constant `{name}` has a value out of its type's range")))
}

/// The sixteen bits of a half, which the file keeps in an `int32`.
fn low(bits: i32) -> u16 {
    let [a, b, ..] = bits.to_le_bytes();
    u16::from_le_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "as the messages hold it")]
    fn shape(dims: &[i64]) -> Option<TensorShapeProto> {
        let dim = dims.iter().map(|size| Dim { size: *size, name: String::new() }).collect();
        Some(TensorShapeProto { dim, unknown_rank: false })
    }

    fn floats(dims: &[i64], values: &[f32]) -> TensorProto {
        TensorProto {
            dtype: DataType::DtFloat as i32,
            tensor_shape: shape(dims),
            float_val: values.to_vec(),
            ..TensorProto::default()
        }
    }

    fn load(proto: TensorProto) -> Result<Vec<f32>, LoadError> {
        let value = value("c", proto, Payload::default(), &mut Expansion::new(1 << 30))?;
        Ok(value.view().unwrap().values::<f32>().unwrap().to_vec())
    }

    #[test]
    fn values_that_are_left_off_go_on_with_the_last_one() {
        assert_eq!(load(floats(&[2, 2], &[1.0, 2.0])).unwrap(), [1.0, 2.0, 2.0, 2.0]);
        assert_eq!(load(floats(&[3], &[])).unwrap(), [0.0; 3]);
        assert_eq!(load(floats(&[], &[5.0])).unwrap(), [5.0]);
    }

    #[test]
    fn a_constant_that_claims_more_than_memory_is_refused() {
        let refused = load(floats(&[1 << 36], &[1.0]));
        assert!(matches!(refused, Err(LoadError::OverBudget { .. })), "{refused:?}");
        assert!(load(floats(&[1 << 40, 1 << 40], &[1.0])).is_err());
        assert!(load(floats(&[-1], &[1.0])).is_err());
        assert!(load(floats(&[1], &[1.0, 2.0])).is_err());
    }

    #[test]
    fn raw_content_has_to_fill_the_shape() {
        let mut proto = floats(&[2], &[]);
        proto.tensor_content = [1.0_f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(load(proto.clone()).unwrap(), [1.0, -2.0]);
        proto.tensor_content.pop();
        assert!(load(proto).is_err());
    }

    #[test]
    fn strings_and_truth_values_survive_the_way_into_a_file() {
        let words = TensorProto {
            dtype: DataType::DtString as i32,
            tensor_shape: shape(&[2]),
            string_val: vec![b"a".to_vec(), b"bc".to_vec()],
            ..TensorProto::default()
        };
        let value = value("c", words.clone(), Payload::default(), &mut Expansion::new(1 << 20)).unwrap();
        assert_eq!(proto(&value.engine().unwrap()).unwrap(), words);
    }
}
