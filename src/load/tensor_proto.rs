//! ONNX's `TensorProto`: constants in ONNX files, and the sample files of any format.

use bytes::Bytes;

use crate::load::protobuf::{Field, Schema};
use crate::tensor::{Element, ElementType, Shape, Tensor};

/// A tensor as ONNX writes it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(crate) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32_data: Vec<i32>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub(crate) string_data: Vec<Bytes>,
    #[prost(int64, repeated, tag = "7")]
    pub(crate) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "bytes", tag = "9")]
    pub(crate) raw_data: Bytes,
    #[prost(double, repeated, tag = "10")]
    pub(crate) double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    pub(crate) uint64_data: Vec<u64>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<StringPair>,
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

/// A sequence, as far as sample files have them.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SequenceProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) elem_type: i32,
    #[prost(message, repeated, tag = "3")]
    pub(crate) tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) maps: Vec<MapProto>,
}

/// A map of labels to values.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MapProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) key_type: i32,
    #[prost(int64, repeated, tag = "3")]
    pub(crate) keys: Vec<i64>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(crate) string_keys: Vec<Bytes>,
    #[prost(message, optional, tag = "5")]
    pub(crate) values: Option<SequenceProto>,
}

/// A key and a value, both text.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StringPair {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// What a [`TensorProto`] takes in memory.
pub(in crate::load) static SCHEMA: Schema = Schema {
    bytes: size_of::<TensorProto>(),
    fields: &[
        (1, Field::Numbers(8)),
        (4, Field::Numbers(1)),
        (5, Field::Numbers(4)),
        (6, Field::Text),
        (7, Field::Numbers(8)),
        (10, Field::Numbers(1)),
        (11, Field::Numbers(8)),
        (13, Field::Message(&STRING_PAIR)),
    ],
};

static STRING_PAIR: Schema = Schema { bytes: size_of::<StringPair>(), fields: &[] };

/// The `data_type` of 16-bit floats, which have no [`ElementType`].
pub(crate) const FLOAT16: i32 = 10;
/// The `data_type` of bfloat16.
pub(crate) const BFLOAT16: i32 = 16;
/// The `data_location` of tensors that lie in another file.
pub(crate) const EXTERNAL: i32 = 1;

/// The element type that a `TensorProto.DataType` states, where it is one that tensors can have.
pub(crate) const fn element_type(data_type: i32) -> Option<ElementType> {
    Some(match data_type {
        1 => ElementType::F32,
        2 => ElementType::U8,
        3 => ElementType::I8,
        4 => ElementType::U16,
        5 => ElementType::I16,
        6 => ElementType::I32,
        7 => ElementType::I64,
        8 => ElementType::String,
        9 => ElementType::Bool,
        11 => ElementType::F64,
        12 => ElementType::U32,
        13 => ElementType::U64,
        _ => return None,
    })
}

/// The `TensorProto.DataType` of an element type.
pub(crate) const fn data_type(element: ElementType) -> i32 {
    match element {
        ElementType::F32 => 1,
        ElementType::U8 => 2,
        ElementType::I8 => 3,
        ElementType::U16 => 4,
        ElementType::I16 => 5,
        ElementType::I32 => 6,
        ElementType::I64 => 7,
        ElementType::String => 8,
        ElementType::Bool => 9,
        ElementType::F64 => 11,
        ElementType::U32 => 12,
        ElementType::U64 => 13,
    }
}

/// The name of a `TensorProto.DataType`, for error messages.
pub(crate) fn type_name(data_type: i32) -> String {
    match (element_type(data_type), data_type) {
        (Some(element), _) => element.name().to_owned(),
        (None, FLOAT16) => "float16".to_owned(),
        (None, 14) => "complex64".to_owned(),
        (None, 15) => "complex128".to_owned(),
        (None, BFLOAT16) => "bfloat16".to_owned(),
        (None, 17..=20) => "float8".to_owned(),
        (None, 21) => "uint4".to_owned(),
        (None, 22) => "int4".to_owned(),
        (None, other) => format!("data type {other}"),
    }
}

impl TensorProto {
    /// The dimensions, as a shape that can be; the error says what is wrong with them.
    pub(crate) fn shape(&self) -> Result<Shape, String> {
        let dims: Option<Vec<usize>> = self.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
        dims.as_deref()
            .and_then(Shape::new)
            .ok_or_else(|| format!("tensor `{}` has impossible dimensions {:?}", self.name, self.dims))
    }

    /// The bytes that the elements take in the message, without those of text.
    pub(crate) fn stored_elements(&self) -> usize {
        [
            self.float_data.len(),
            self.int32_data.len(),
            self.string_data.len(),
            self.int64_data.len(),
            self.double_data.len(),
            self.uint64_data.len(),
        ]
        .into_iter()
        .sum()
    }

    /// The tensor, its memory taken from the message where it can be. 16-bit floats are widened.
    ///
    /// The elements have to be there: what a shape claims is never allocated on its word alone.
    pub(crate) fn into_tensor(self) -> Result<Tensor, String> {
        let shape = self.shape()?;
        let name = self.name.clone();
        let raw = &self.raw_data;
        let tensor = match self.data_type {
            FLOAT16 => self.halves(shape, half_to_f32)?,
            BFLOAT16 => self.halves(shape, |bits| f32::from_bits(u32::from(bits) << 16))?,
            other => match element_type(other) {
                Some(ElementType::F32) => numbers(shape, raw, f32::from_le_bytes, || self.float_data),
                Some(ElementType::F64) => numbers(shape, raw, f64::from_le_bytes, || self.double_data),
                Some(ElementType::I64) => numbers(shape, raw, i64::from_le_bytes, || self.int64_data),
                Some(ElementType::U64) => numbers(shape, raw, u64::from_le_bytes, || self.uint64_data),
                Some(ElementType::I32) => numbers(shape, raw, i32::from_le_bytes, || self.int32_data),
                Some(ElementType::I8) => numbers(shape, raw, i8::from_le_bytes, || narrow(&self.int32_data)),
                Some(ElementType::I16) => {
                    numbers(shape, raw, i16::from_le_bytes, || narrow(&self.int32_data))
                }
                Some(ElementType::U8) => numbers(shape, raw, u8::from_le_bytes, || narrow(&self.int32_data)),
                Some(ElementType::U16) => {
                    numbers(shape, raw, u16::from_le_bytes, || narrow(&self.int32_data))
                }
                Some(ElementType::U32) => {
                    numbers(shape, raw, u32::from_le_bytes, || narrow(&self.uint64_data))
                }
                Some(ElementType::Bool) => numbers(
                    shape,
                    raw,
                    |[byte]: [u8; 1]| byte != 0,
                    || self.int32_data.iter().map(|v| *v != 0).collect(),
                ),
                Some(ElementType::String) => {
                    let texts = self.string_data.iter().map(|text| String::from_utf8(text.to_vec()));
                    let texts: Vec<String> =
                        texts.collect::<Result<_, _>>().map_err(|e| format!("tensor `{name}`: {e}"))?;
                    Tensor::new(shape.dims(), texts).map_err(|e| e.to_string())
                }
                None => return Err(format!("tensor `{name}` has elements of type {}", type_name(other))),
            }
            .map_err(|e| format!("tensor `{name}`: {e}"))?,
        };
        Ok(tensor)
    }

    fn halves(&self, shape: Shape, widen: impl Fn(u16) -> f32) -> Result<Tensor, String> {
        let bits: Vec<u16> = if self.raw_data.is_empty() {
            narrow(&self.int32_data)
        } else {
            self.raw_data.chunks_exact(2).filter_map(|b| b.try_into().ok()).map(u16::from_le_bytes).collect()
        };
        Tensor::new(shape.dims(), bits.into_iter().map(widen).collect())
            .map_err(|e| format!("tensor `{}`: {e}", self.name))
    }
}

/// The message of a tensor, for sample files.
impl From<(&str, &Tensor)> for TensorProto {
    fn from((name, tensor): (&str, &Tensor)) -> Self {
        let dims = tensor.dims().iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect();
        let data_type = data_type(tensor.element_type());
        let mut proto = Self { name: name.to_owned(), dims, data_type, ..Self::default() };
        macro_rules! raw {
            ($($type:ty),*) => {
                $(if let Some(values) = tensor.values::<$type>() {
                    proto.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                })*
            };
        }
        raw!(f32, u8, i8, u16, i16, i32, i64, f64, u32, u64);
        if let Some(values) = tensor.values::<bool>() {
            proto.raw_data = values.iter().map(|v| u8::from(*v)).collect();
        }
        if let Some(values) = tensor.values::<String>() {
            proto.string_data = values.iter().map(|v| Bytes::copy_from_slice(v.as_bytes())).collect();
        }
        proto
    }
}

/// A tensor from raw little-endian bytes, or where there are none from a typed field.
fn numbers<T: Element, const N: usize>(
    shape: Shape,
    raw: &[u8],
    from_bytes: impl Fn([u8; N]) -> T,
    typed: impl FnOnce() -> Vec<T>,
) -> Result<Tensor, String> {
    let values = if raw.is_empty() {
        typed()
    } else {
        let (whole, rest) = raw.as_chunks::<N>();
        if !rest.is_empty() {
            return Err(format!("{} bytes are no whole number of elements", raw.len()));
        }
        if whole.len() != shape.elements() {
            return Err(format!("shape {shape} does not fit {} elements", whole.len()));
        }
        whole.iter().map(|bytes| from_bytes(*bytes)).collect()
    };
    Tensor::new(shape.dims(), values).map_err(|e| e.to_string())
}

/// The low bits of wider integers, as the typed fields of the format hold narrow ones.
fn narrow<W: Copy + Into<i128>, T: TryFrom<i128> + Default>(values: &[W]) -> Vec<T> {
    values.iter().map(|v| T::try_from((*v).into()).unwrap_or_default()).collect()
}

fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = (bits >> 10) & 0x1f;
    let fraction = f32::from(bits & 0x3ff);
    match exponent {
        0 => sign * fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2.0_f32.powi(i32::from(exponent) - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_survives_the_way_through_its_message() {
        for tensor in [
            Tensor::new(&[2, 2], vec![1.5_f32, f32::NAN, -0.0, f32::INFINITY]).unwrap(),
            Tensor::vector(vec![i64::MIN, 7]),
            Tensor::column(vec!["a".to_owned(), String::new()]),
            Tensor::vector(vec![true, false]),
        ] {
            let back = TensorProto::from(("t", &tensor)).into_tensor().unwrap();
            assert_eq!(format!("{back:?}"), format!("{tensor:?}"));
        }
    }

    #[test]
    fn a_shape_that_claims_more_than_is_there_is_refused_without_allocating() {
        let proto = TensorProto { dims: vec![1 << 36], data_type: 1, ..Default::default() };
        assert!(proto.into_tensor().is_err());
        let proto = TensorProto { dims: vec![-1], data_type: 1, ..Default::default() };
        assert!(proto.into_tensor().unwrap_err().contains("impossible dimensions"));
    }

    #[test]
    fn halves_are_widened() {
        let raw = [0x3c00_u16, 0xc000, 0x0001, 0x7c00].iter().flat_map(|h| h.to_le_bytes()).collect();
        let proto = TensorProto { dims: vec![4], data_type: FLOAT16, raw_data: raw, ..Default::default() };
        let values = proto.into_tensor().unwrap().into_values::<f32>().unwrap();
        assert_eq!(values, [1.0, -2.0, 2.0_f32.powi(-24), f32::INFINITY]);
    }
}
