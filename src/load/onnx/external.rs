//! Takes tensors that an exporter wrote beside the model into the model file.
//!
//! The file is not decoded for it: what changes are the tensors that lie elsewhere, and the lengths of
//! the messages around them. Whatever else is in the file stays as it is, to the byte.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::encoding::encode_varint;

use super::check::{leaves_folder, malformed};
use super::recognise;
use crate::load::tensor_proto::EXTERNAL;
use crate::load::{LoadError, Payload};
use crate::memory;

/// The bytes of the ONNX file at `path`, with every tensor that lies in another file taken in.
///
/// `PyTorch`'s exporter writes the weights to `model.onnx.data` beside the model; a subscriber gets
/// one artifact and takes nothing from its own file system, so a publisher calls this first. A
/// model that holds all its tensors comes back as it is. The weights are held once, in pieces.
///
/// # Errors
/// [`LoadError::Malformed`] where the file is no ONNX model or cannot be read, and
/// [`LoadError::ExternalData`] where a tensor lies outside the model's folder, through a symbolic
/// link too, or is not where the model says, with what is wrong there.
pub fn inline_external_data(path: &Path) -> Result<Payload, LoadError> {
    let bytes = std::fs::read(path).map_err(|e| malformed(format!("{}: {e}", path.display())))?;
    let bytes = Bytes::from(bytes);
    if !recognise::is_model(std::iter::once(bytes.clone())) {
        return Err(malformed(format!("{}: no ONNX model", path.display())));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|e| malformed(format!("{}: {e}", folder.display())))?;
    let mut beside = Beside { folder, taken: HashMap::new() };
    let whole = message(&bytes, &MODEL, &mut beside, 0)?;
    Ok(whole.map_or_else(|| bytes.into(), |rope| Payload::from_chunks(rope.pieces)))
}

/// The messages in which tensors may lie, by the numbers of their fields.
enum Kind {
    Tensor,
    Around(&'static [(u64, &'static Kind)]),
}

static TENSOR: Kind = Kind::Tensor;
static MODEL: Kind = Kind::Around(&[(7, &GRAPH), (20, &TRAINING), (25, &FUNCTION)]);
static TRAINING: Kind = Kind::Around(&[(1, &GRAPH), (2, &GRAPH)]);
static GRAPH: Kind = Kind::Around(&[(1, &NODE), (5, &TENSOR), (15, &SPARSE)]);
static FUNCTION: Kind = Kind::Around(&[(7, &NODE), (11, &ATTRIBUTE)]);
static NODE: Kind = Kind::Around(&[(5, &ATTRIBUTE)]);
static ATTRIBUTE: Kind =
    Kind::Around(&[(5, &TENSOR), (6, &GRAPH), (10, &TENSOR), (11, &GRAPH), (22, &SPARSE), (23, &SPARSE)]);
static SPARSE: Kind = Kind::Around(&[(1, &TENSOR), (2, &TENSOR)]);

/// The fields of a tensor that say where its elements are.
const NAME: u64 = 8;
const RAW_DATA: u64 = 9;
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;

/// A field of bytes, and the wire type of one.
const BYTES: u64 = 2;
/// How deep messages may lie in each other; the decoder ends there too.
const MAX_DEPTH: usize = 100;
/// How much of a file is read at a time.
const PIECE: u64 = 1 << 20;
/// How often the tensors of a model may take in a whole file: exporters share a part of one at most
/// between a few tensors.
const SHARING: u64 = 16;

/// The files beside the model.
struct Beside {
    folder: PathBuf,
    /// How many bytes of each have been taken.
    taken: HashMap<PathBuf, u64>,
}

/// A message in pieces.
#[derive(Default)]
struct Rope {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Rope {
    fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        self.pieces.push(piece);
    }

    /// A field of bytes that are this rope.
    fn push_field(&mut self, number: u64, value: Self) {
        let mut header = Vec::with_capacity(12);
        encode_varint(number << 3 | BYTES, &mut header);
        encode_varint(value.len as u64, &mut header);
        self.push(header.into());
        self.len += value.len;
        self.pieces.extend(value.pieces);
    }
}

/// The message with all tensors in it; `None` where they are in it already.
fn message(bytes: &Bytes, kind: &Kind, beside: &mut Beside, depth: usize) -> Result<Option<Rope>, LoadError> {
    let Kind::Around(inner) = kind else { return tensor(bytes, beside) };
    if depth > MAX_DEPTH {
        return Err(malformed(format!("messages are nested more than {MAX_DEPTH} deep")));
    }
    let mut rope = Rope::default();
    let mut kept = 0;
    let mut fields = Fields { bytes, at: 0 };
    while let Some(field) = fields.next()? {
        let Some((_, kind)) = inner.iter().find(|(number, _)| *number == field.number) else { continue };
        let Some(changed) = message(&field.value, kind, beside, depth + 1)? else { continue };
        rope.push(bytes.slice(kept..field.start));
        rope.push_field(field.number, changed);
        kept = fields.at;
    }
    if rope.pieces.is_empty() {
        return Ok(None);
    }
    rope.push(bytes.slice(kept..));
    Ok(Some(rope))
}

/// A tensor with its elements; `None` where it has them.
fn tensor(bytes: &Bytes, beside: &mut Beside) -> Result<Option<Rope>, LoadError> {
    let mut place = Place::default();
    let mut name = Bytes::new();
    let mut rope = Rope::default();
    let mut is_external = false;
    let mut fields = Fields { bytes, at: 0 };
    while let Some(field) = fields.next()? {
        match field.number {
            NAME => name = field.value.clone(),
            EXTERNAL_DATA => place.state(&field.value)?,
            DATA_LOCATION => is_external = field.varint == u64::from(EXTERNAL.unsigned_abs()),
            _ => {}
        }
        if !matches!(field.number, RAW_DATA | EXTERNAL_DATA | DATA_LOCATION) {
            rope.push(bytes.slice(field.start..fields.at));
        }
    }
    if !is_external {
        return Ok(None);
    }
    let elements = place.read(&String::from_utf8_lossy(&name), beside)?;
    rope.push_field(RAW_DATA, elements);
    Ok(Some(rope))
}

/// Where a tensor's elements are.
#[derive(Default)]
struct Place {
    location: String,
    offset: Option<String>,
    length: Option<String>,
}

impl Place {
    /// Takes in a pair of a key and a value.
    fn state(&mut self, pair: &Bytes) -> Result<(), LoadError> {
        let (mut key, mut value) = (Bytes::new(), Bytes::new());
        let mut fields = Fields { bytes: pair, at: 0 };
        while let Some(field) = fields.next()? {
            match field.number {
                1 => key = field.value,
                2 => value = field.value,
                _ => {}
            }
        }
        let value = String::from_utf8_lossy(&value).into_owned();
        match &*key {
            b"location" => self.location = value,
            b"offset" => self.offset = Some(value),
            b"length" => self.length = Some(value),
            _ => {}
        }
        Ok(())
    }

    fn read(&self, tensor: &str, beside: &mut Beside) -> Result<Rope, LoadError> {
        let outside = |escapes, problem| LoadError::ExternalData {
            tensor: tensor.to_owned(),
            location: self.location.clone(),
            escapes,
            problem,
        };
        if self.location.is_empty() || leaves_folder(&self.location) {
            return Err(outside(!self.location.is_empty(), None));
        }
        let failed = |error: std::io::Error| outside(false, Some(error.to_string()));
        let path = beside.folder.join(&self.location).canonicalize().map_err(failed)?;
        if !path.starts_with(&beside.folder) {
            return Err(outside(true, None));
        }
        let number = |key: &str, value: &Option<String>| match value {
            None => Ok(None),
            Some(value) => value
                .parse::<u64>()
                .map(Some)
                .map_err(|_| outside(false, Some(format!("{key} `{value}` is no number of bytes")))),
        };
        let (offset, length) = (number("offset", &self.offset)?, number("length", &self.length)?);
        // A pipe has no size, and opening one may take for ever.
        let size = std::fs::metadata(&path)
            .and_then(|found| {
                if found.is_file() { Ok(found.len()) } else { Err(std::io::Error::other("not a file")) }
            })
            .map_err(failed)?;
        let rope = read(&path, size, offset.unwrap_or(0), length).map_err(failed)?;
        let taken = beside.taken.entry(path).or_default();
        *taken = taken.saturating_add(rope.len as u64);
        if *taken > size.saturating_mul(SHARING) {
            let text = format!("the model refers to more than {SHARING} times all of it");
            return Err(outside(false, Some(text)));
        }
        Ok(rope)
    }
}

/// The part of a file of this size, which has to be there.
fn read(path: &PathBuf, size: u64, offset: u64, length: Option<u64>) -> std::io::Result<Rope> {
    let mut file = File::open(path)?;
    let available = size.saturating_sub(offset);
    let length = length.unwrap_or(available);
    if length > available {
        let text = format!("{length} bytes at {offset} are not in a file of {size}");
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut rope = Rope::default();
    let mut left = length;
    while left > 0 {
        let piece = usize::try_from(left.min(PIECE)).unwrap_or(usize::MAX);
        rope.push(memory::filled(piece, |to| file.read_exact(to).map(|()| piece))?);
        left -= piece as u64;
    }
    Ok(rope)
}

/// The fields of a message, one after the other.
struct Fields<'b> {
    bytes: &'b Bytes,
    /// Behind the last field.
    at: usize,
}

struct Field {
    number: u64,
    /// Where its tag is.
    start: usize,
    /// Empty where the field is a number.
    value: Bytes,
    varint: u64,
}

impl Fields<'_> {
    fn next(&mut self) -> Result<Option<Field>, LoadError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        self.field().map(Some).ok_or_else(|| malformed("a message is cut off, or none of protobuf"))
    }

    fn field(&mut self) -> Option<Field> {
        let start = self.at;
        let tag = self.varint()?;
        let (mut value, mut varint) = (Bytes::new(), 0);
        let length = match tag & 7 {
            0 => {
                varint = self.varint()?;
                0
            }
            1 => 8,
            BYTES => usize::try_from(self.varint()?).ok()?,
            5 => 4,
            _ => return None,
        };
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        if tag & 7 == BYTES {
            value = self.bytes.slice(self.at..end);
        }
        self.at = end;
        Some(Field { number: tag >> 3, start, value, varint })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::proto::{
        AttributeProto, ElementOf, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto, TypeProto,
        TypeValue, ValueInfoProto,
    };
    use super::*;
    use crate::load::tensor_proto::StringPair;

    fn tensor(external: &[(&str, &str)]) -> TensorProto {
        let pair = |(key, value): &(&str, &str)| StringPair { key: (*key).into(), value: (*value).into() };
        TensorProto {
            name: "w".into(),
            dims: vec![2],
            data_type: 1,
            data_location: if external.is_empty() { 0 } else { EXTERNAL },
            external_data: external.iter().map(pair).collect(),
            raw_data: if external.is_empty() {
                vec![1, 2, 3, 4, 5, 6, 7, 8].into()
            } else {
                Payload::default()
            },
            ..TensorProto::default()
        }
    }

    /// A model with a sequence among its outputs and a tensor in a body.
    fn model(tensor: &TensorProto) -> Vec<u8> {
        let sequence = TypeValue::Sequence(Box::new(ElementOf { elem_type: Some(Box::default()) }));
        let output = ValueInfoProto { name: "y".into(), r#type: Some(TypeProto { value: Some(sequence) }) };
        let body = GraphProto { initializer: vec![tensor.clone()], ..GraphProto::default() };
        let attribute = AttributeProto { g: Some(body), r#type: 5, ..AttributeProto::default() };
        let node = NodeProto { op_type: "If".into(), attribute: vec![attribute], ..NodeProto::default() };
        let graph = GraphProto {
            node: vec![node],
            initializer: vec![tensor.clone()],
            output: vec![output],
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: 9,
            graph: Some(graph),
            opset_import: vec![OperatorSetId { domain: String::new(), version: 17 }],
            ..ModelProto::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn tensors_are_taken_in_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data"), [9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        let path = folder.path().join("model.onnx");
        let places = [("location", "data"), ("offset", "2"), ("length", "8"), ("checksum", "x")];
        // A field that is not read here: metadata.
        let described = [model(&tensor(&places)), vec![0x72, 2, 0x0a, 0]].concat();
        std::fs::write(&path, described).unwrap();
        let whole = inline_external_data(&path).unwrap().into_bytes();
        let expected = ModelProto::decode(model(&tensor(&[])).as_slice()).unwrap();
        assert_eq!(ModelProto::decode(whole.clone()).unwrap(), expected);
        assert!(whole.ends_with(&[0x72, 2, 0x0a, 0]));
        // What has its tensors is not touched.
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(inline_external_data(&path).unwrap().into_bytes(), whole);
    }

    #[test]
    fn a_file_is_not_taken_in_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data"), [7; 1000]).unwrap();
        let path = folder.path().join("model.onnx");
        let mut many = ModelProto::decode(model(&tensor(&[("location", "data")])).as_slice()).unwrap();
        let graph = many.graph.as_mut().unwrap();
        graph.initializer = vec![tensor(&[("location", "data")]); 1000];
        std::fs::write(&path, many.encode_to_vec()).unwrap();
        let refused = inline_external_data(&path).unwrap_err().to_string();
        assert!(refused.ends_with("the model refers to more than 16 times all of it"), "{refused}");
    }

    #[test]
    fn what_is_no_model_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        for bytes in [&b"{}"[..], &[0x3a, 2, 0x0a, 9], &[]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(inline_external_data(&path), Err(LoadError::Malformed { .. })));
        }
    }
}
