//! ONNX's `TensorProto`: constants in ONNX files, and the sample files of any format.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::kernel::Narrow;
use crate::load::Payload;
use crate::load::protobuf::{Field, Schema};
use crate::tensor::{ElementType, Shape, Tensor};

mod elements;
use elements::{bfloat_to_f32, floats, half_to_f32, halves, narrow, numbers};

/// A tensor as ONNX writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TensorProto {
    pub(crate) dims: Vec<i64>,
    pub(crate) data_type: i32,
    pub(crate) float_data: Vec<f32>,
    pub(crate) int32_data: Vec<i32>,
    pub(crate) string_data: Vec<Bytes>,
    pub(crate) int64_data: Vec<i64>,
    pub(crate) name: String,
    /// Pieces of the chunks that the file came in: not copied, and freed as they are read.
    pub(crate) raw_data: Payload,
    pub(crate) double_data: Vec<f64>,
    pub(crate) uint64_data: Vec<u64>,
    pub(crate) external_data: Vec<StringPair>,
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

/// What `prost` derives, but for the raw data, which it would copy together.
impl Message for TensorProto {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::int64::encode_packed(1, &self.dims, buf);
        if self.data_type != 0 {
            encoding::int32::encode(2, &self.data_type, buf);
        }
        encoding::float::encode_packed(4, &self.float_data, buf);
        encoding::int32::encode_packed(5, &self.int32_data, buf);
        encoding::bytes::encode_repeated(6, &self.string_data, buf);
        encoding::int64::encode_packed(7, &self.int64_data, buf);
        if !self.name.is_empty() {
            encoding::string::encode(8, &self.name, buf);
        }
        if !self.raw_data.is_empty() {
            encoding::encode_key(9, WireType::LengthDelimited, buf);
            encoding::encode_varint(self.raw_data.len() as u64, buf);
            self.raw_data.chunks().for_each(|chunk| buf.put_slice(chunk));
        }
        encoding::double::encode_packed(10, &self.double_data, buf);
        encoding::uint64::encode_packed(11, &self.uint64_data, buf);
        encoding::message::encode_repeated(13, &self.external_data, buf);
        if self.data_location != 0 {
            encoding::int32::encode(14, &self.data_location, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::int64::merge_repeated(wire_type, &mut self.dims, buf, ctx),
            2 => encoding::int32::merge(wire_type, &mut self.data_type, buf, ctx),
            4 => encoding::float::merge_repeated(wire_type, &mut self.float_data, buf, ctx),
            5 => encoding::int32::merge_repeated(wire_type, &mut self.int32_data, buf, ctx),
            6 => encoding::bytes::merge_repeated(wire_type, &mut self.string_data, buf, ctx),
            7 => encoding::int64::merge_repeated(wire_type, &mut self.int64_data, buf, ctx),
            8 => encoding::string::merge(wire_type, &mut self.name, buf, ctx),
            9 => merge_pieces(wire_type, &mut self.raw_data, buf, ctx),
            10 => encoding::double::merge_repeated(wire_type, &mut self.double_data, buf, ctx),
            11 => encoding::uint64::merge_repeated(wire_type, &mut self.uint64_data, buf, ctx),
            13 => encoding::message::merge_repeated(wire_type, &mut self.external_data, buf, ctx),
            14 => encoding::int32::merge(wire_type, &mut self.data_location, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let raw = match self.raw_data.len() {
            0 => 0,
            len => encoding::key_len(9) + encoding::encoded_len_varint(len as u64) + len,
        };
        let number =
            |tag, value: &i32| if *value == 0 { 0 } else { encoding::int32::encoded_len(tag, value) };
        let name = if self.name.is_empty() { 0 } else { encoding::string::encoded_len(8, &self.name) };
        encoding::int64::encoded_len_packed(1, &self.dims)
            + number(2, &self.data_type)
            + encoding::float::encoded_len_packed(4, &self.float_data)
            + encoding::int32::encoded_len_packed(5, &self.int32_data)
            + encoding::bytes::encoded_len_repeated(6, &self.string_data)
            + encoding::int64::encoded_len_packed(7, &self.int64_data)
            + name
            + raw
            + encoding::double::encoded_len_packed(10, &self.double_data)
            + encoding::uint64::encoded_len_packed(11, &self.uint64_data)
            + encoding::message::encoded_len_repeated(13, &self.external_data)
            + number(14, &self.data_location)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Takes a field of bytes in the pieces in which it lies in the buffer.
fn merge_pieces(
    wire_type: WireType,
    to: &mut Payload,
    buf: &mut impl Buf,
    ctx: DecodeContext,
) -> Result<(), DecodeError> {
    if wire_type != WireType::LengthDelimited {
        // It says what is wrong as it does of any other field.
        return encoding::bytes::merge(wire_type, &mut Bytes::new(), buf, ctx);
    }
    let len = encoding::decode_varint(buf)?;
    let whole = usize::try_from(len).ok().filter(|len| *len <= buf.remaining());
    let Some(mut left) = whole else {
        // One byte and none there: cut off, as this one is.
        return encoding::bytes::merge(wire_type, &mut Bytes::new(), &mut &[1_u8][..], ctx);
    };
    let mut pieces = Vec::new();
    while left > 0 {
        let piece = buf.copy_to_bytes(left.min(buf.chunk().len().max(1)));
        left -= piece.len();
        pieces.push(piece);
    }
    *to = Payload::from_chunks(pieces);
    Ok(())
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
        let Self { name, data_type, raw_data: raw, .. } = self;
        if let Some(narrow) = Narrow::of(data_type) {
            let bytes: Vec<u8> = if raw.is_empty() {
                self.int32_data.iter().map(|number| number.to_le_bytes()[0]).collect()
            } else {
                raw.chunks().flatten().copied().collect()
            };
            let widened = narrow.widen(shape, &bytes);
            return widened.map_err(|e| format!("tensor `{name}`: {e}"));
        }
        let tensor = match data_type {
            FLOAT16 => halves(shape, raw, &self.int32_data, half_to_f32),
            BFLOAT16 => halves(shape, raw, &self.int32_data, bfloat_to_f32),
            other => match element_type(other) {
                Some(ElementType::F32) => floats(shape, raw, || self.float_data),
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
            },
        };
        tensor.map_err(|e| format!("tensor `{name}`: {e}"))
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
                    proto.raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into();
                })*
            };
        }
        raw!(f32, u8, i8, u16, i16, i32, i64, f64, u32, u64);
        if let Some(values) = tensor.values::<bool>() {
            proto.raw_data = values.iter().map(|v| u8::from(*v)).collect::<Vec<_>>().into();
        }
        if let Some(values) = tensor.values::<String>() {
            proto.string_data = values.iter().map(|v| Bytes::copy_from_slice(v.as_bytes())).collect();
        }
        proto
    }
}
