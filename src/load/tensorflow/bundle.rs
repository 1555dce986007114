//! The variables of a SavedModel: an index of names and the shards that hold the values.

use std::collections::{HashMap, hash_map};

use bytes::Bytes;
use prost::Message;

use super::api::EngineTensor;
use super::api::tfpb::{DataType, TensorShapeProto};
use super::constants::{computed_type, proto_dims, text};
use super::files::Files;
use super::malformed;
use super::shard::Shard;
use super::slices::latin1;
use super::stored::{Stored, raw};
use super::table::{self, mask, varint};
use crate::load::{LoadError, Payload};

/// The checkpoint in a SavedModel's `variables` folder.
pub(super) struct Bundle<'a> {
    files: &'a dyn Files,
    prefix: String,
    entries: HashMap<String, Entry>,
    shards: u32,
    open: HashMap<u32, Shard>,
    /// What was read before: variables may share an entry, as parts of a graph share a variable.
    known: HashMap<String, Stored>,
    /// How many bytes of values were read; entries may claim the same bytes again and again.
    read: u64,
    budget: u64,
}

/// Where a tensor lies; field numbers as in TensorFlow's `tensor_bundle.proto`.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
    #[prost(int32, tag = "3")]
    shard: i32,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    size: i64,
    #[prost(fixed32, tag = "6")]
    crc32c: u32,
    /// The parts of a partitioned variable, each under a key of its own.
    #[prost(message, repeated, tag = "7")]
    slices: Vec<Slice>,
}

/// The part of a variable that is stored together.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Slice {
    #[prost(message, repeated, tag = "1")]
    extent: Vec<Extent>,
}

#[derive(Clone, PartialEq, Message)]
struct Extent {
    #[prost(int64, tag = "1")]
    start: i64,
    /// The whole dimension where it is not set.
    #[prost(int64, optional, tag = "2")]
    length: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(int32, tag = "1")]
    shards: i32,
    /// 0 little, 1 big.
    #[prost(int32, tag = "2")]
    endianness: i32,
}

impl<'a> Bundle<'a> {
    /// Reads the index at `<prefix>.index`; `None` where there is none, as in a model without
    /// variables.
    pub(super) fn open(files: &'a dyn Files, prefix: &str, budget: u64) -> Result<Option<Self>, LoadError> {
        let Some(index) = files.take(&format!("{prefix}.index"))? else { return Ok(None) };
        let index = index.into_bytes();
        let mut entries = HashMap::new();
        let mut header = Header::default();
        for (key, value) in table::read(&index)? {
            let bad = |e| malformed(format!("the checkpoint entry `{}`: {e}", text(&key)));
            if key.is_empty() {
                header = Header::decode(&*value).map_err(bad)?;
            } else {
                let entry = Entry::decode(&*value).map_err(bad)?;
                // The key of a slice is not text; it is kept by its bytes as Latin-1.
                let key = String::from_utf8(key).unwrap_or_else(|e| latin1(e.as_bytes()));
                entries.insert(key, entry);
            }
        }
        if header.endianness != 0 {
            return Err(malformed("the checkpoint is of a big-endian machine, which is not supported"));
        }
        let shards = u32::try_from(header.shards).unwrap_or(1).max(1);
        Ok(Some(Self {
            files,
            prefix: prefix.to_owned(),
            entries,
            shards,
            open: HashMap::new(),
            known: HashMap::new(),
            read: 0,
            budget,
        }))
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The tensor that is stored under a key, whole.
    pub(super) fn tensor(&mut self, key: &str) -> Result<Stored, LoadError> {
        if let Some(known) = self.known.get(key) {
            return Ok(known.clone());
        }
        let entry = self.entry(key)?;
        let tensor = if entry.slices.is_empty() {
            self.part(key)?
        } else {
            let dims = entry_dims(&entry, key)?;
            super::slices::assemble(self, key, &entry.slices, &dims)?.into()
        };
        self.known.insert(key.to_owned(), tensor.clone());
        Ok(tensor)
    }

    fn entry(&self, key: &str) -> Result<Entry, LoadError> {
        let missing = || malformed(format!("the checkpoint entry `{key}` is missing"));
        self.entries.get(key).cloned().ok_or_else(missing)
    }

    /// A tensor that is stored in one piece.
    pub(super) fn part(&mut self, key: &str) -> Result<Stored, LoadError> {
        let bad = |what: &str| malformed(format!("the checkpoint entry `{key}` {what}"));
        let entry = self.entry(key)?;
        if !entry.slices.is_empty() {
            return Err(bad("is a part that has parts itself"));
        }
        let data_type = DataType::try_from(entry.dtype).ok().filter(|t| computed_type(*t).is_some());
        let data_type = data_type.ok_or_else(|| bad(&format!("has the unsupported type {}", entry.dtype)))?;
        let dims = entry_dims(&entry, key)?;
        let bytes = self.bytes(key, &entry)?;
        self.read = self.read.saturating_add(bytes.len() as u64);
        if self.read > self.budget {
            let what = "the variables".to_owned();
            return Err(LoadError::OverBudget { what, needed: self.read, budget: self.budget });
        }
        if data_type == DataType::DtString {
            let elements = dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
            let values = elements
                .and_then(|n| strings_of(&bytes.into_bytes(), n))
                .ok_or_else(|| bad("is malformed"))?;
            return super::api::tract_ndarray::ArrayD::from_shape_vec(dims, values)
                .map(|array| EngineTensor::from(array).into())
                .map_err(|_| bad("does not fill its shape"));
        }
        let checksum = bytes.chunks().fold(0, |sum, piece| crc32c::crc32c_append(sum, piece));
        if mask(checksum) != entry.crc32c {
            return Err(bad("has a wrong checksum"));
        }
        raw(data_type, &dims, bytes).ok_or_else(|| bad("does not fill its shape"))
    }

    /// The only string of a scalar entry, as the object graph is.
    pub(super) fn string(&mut self, key: &str) -> Result<Option<Bytes>, LoadError> {
        let Some(entry) = self.entries.get(key).cloned() else { return Ok(None) };
        let bytes = self.bytes(key, &entry)?.into_bytes();
        let mut rest: &[u8] = &bytes;
        let len = varint(&mut rest).and_then(|n| usize::try_from(n).ok());
        // After the lengths come four bytes that are their checksum.
        let content = len.and_then(|len| rest.get(4..)?.get(..len));
        let content =
            content.ok_or_else(|| malformed(format!("the checkpoint entry `{key}` is malformed")))?;
        Ok(Some(bytes.slice_ref(content)))
    }

    /// The bytes of an entry, which is not read again.
    fn bytes(&mut self, key: &str, entry: &Entry) -> Result<Payload, LoadError> {
        let bad = |what: &str| malformed(format!("the checkpoint entry `{key}` {what}"));
        let number = u32::try_from(entry.shard).map_err(|_| bad("has a negative shard"))?;
        if number >= self.shards {
            return Err(bad("lies in a shard that does not exist"));
        }
        let shard = match self.open.entry(number) {
            hash_map::Entry::Occupied(open) => open.into_mut(),
            hash_map::Entry::Vacant(place) => {
                let path = format!("{}.data-{number:05}-of-{:05}", self.prefix, self.shards);
                let file = self.files.take(&path)?;
                let file = file.ok_or_else(|| malformed(format!("the file `{path}` is missing")))?;
                let inside = self.entries.values().filter(|e| e.shard == entry.shard);
                place.insert(Shard::new(file, inside.filter_map(Entry::range)))
            }
        };
        let taken = entry.range().and_then(|(start, end)| shard.take(start, end));
        taken.ok_or_else(|| bad("lies outside its shard"))
    }
}

impl Entry {
    fn range(&self) -> Option<(usize, usize)> {
        let start = usize::try_from(self.offset).ok()?;
        Some((start, start.checked_add(usize::try_from(self.size).ok()?)?))
    }
}

impl Slice {
    /// For each dimension the start and the length; `None` for a whole dimension.
    pub(super) fn extents(&self) -> Vec<(i64, Option<i64>)> {
        self.extent.iter().map(|e| (e.start, e.length)).collect()
    }
}

fn entry_dims(entry: &Entry, key: &str) -> Result<Vec<usize>, LoadError> {
    proto_dims(entry.shape.as_ref())
        .ok_or_else(|| malformed(format!("the checkpoint entry `{key}` has no definite shape")))
}

/// Lengths as base-128 numbers, their checksum, then the strings one after the other.
fn strings_of(mut bytes: &[u8], elements: usize) -> Option<Vec<String>> {
    if elements > bytes.len() {
        return None;
    }
    let lengths: Vec<usize> =
        (0..elements).map(|_| usize::try_from(varint(&mut bytes)?).ok()).collect::<Option<_>>()?;
    let mut rest = bytes.get(4..)?;
    let values = lengths.into_iter().map(|len| {
        let (value, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(text(value))
    });
    values.collect()
}
