//! The wire format of the model topic, version 1.
//!
//! Everything that a program in another language needs in order to publish models to, or read them
//! from, a topic of this crate. The byte-exact examples are in `fixtures/wire/`.
//!
//! # The topic
//! A compacted topic (`cleanup.policy=compact`). Its records:
//!
//! | key | value | headers | meaning |
//! |---|---|---|---|
//! | `<model>` | the bytes of a model file | `sha256`, optional `version`, `format` | plain publish |
//! | `<model>/<sha256>/<index>` | 1 to 900,000 bytes | none | a chunk of an artifact |
//! | `<model>` | a release document | no `sha256` | commit of a chunked publish |
//! | `<model>` | null | any | the model is withdrawn |
//! | `<model>/<sha256>/<index>` | null | any | the chunk is pruned |
//!
//! `<model>` is 1 to 200 of `A-Z a-z 0-9 . _ -`. `<sha256>` is the SHA-256 digest of the whole
//! artifact in 64 lower-case hexadecimal digits. `<index>` is the number of the chunk from 0, in
//! decimal without leading zeros. A reader ignores records with any other key, and headers, and
//! fields of a release document that it does not know.
//!
//! # Partition
//! All records of a model go to one partition: Kafka's default partitioner (murmur2) over the
//! model's name, see [`partition_of`]. A reader does not rely on it: it knows an artifact's chunks
//! by their keys wherever they lie. Where a model's name occurs in several partitions, the newest
//! record of each partition counts (by offset), and of those the one with the latest record
//! timestamp; at equal timestamps, the one in the higher partition.
//!
//! # Plain publish
//! One record with the file as its value. The header `sha256` (the digest in hexadecimal) is
//! required: it is what tells a whole file from half of one. `version` is any UTF-8 text of up to
//! 200 bytes; without it the version is the first twelve digits of the digest. `format` is the name
//! of a format (`onnx`, `tensorflow`, ..); without it the format is told by content.
//! librdkafka and all that stands on it (kcat, confluent-kafka) use another partitioner unless told
//! `partitioner=murmur2_random`.
//!
//! # Chunked publish
//! 1. Every chunk of the artifact, each of 900,000 bytes but the last one.
//! 2. When all are acknowledged, the release document: a JSON object in UTF-8.
//!
//! | field | type | |
//! |---|---|---|
//! | `schema` | number | 1; a reader rejects a higher one, and says so |
//! | `model` | string | the model, as in the key |
//! | `version` | string | 1 to 200 bytes, free |
//! | `sequence` | number | counts the releases of the model from 1 |
//! | `time_ms` | number | milliseconds since 1970-01-01 in UTC |
//! | `artifact` | object | `sha256`, `bytes` (length), `chunks` (count), optional `format` |
//! | `inputs`, `outputs` | array of string | optional: the tensors to feed and to compute, by name |
//! | `signature` | string | optional: the signature of a SavedModel |
//! | `labels` | object of string | optional, free |
//! | `samples` | object | optional golden samples: `inputs` and `outputs` as in TensorFlow Serving's columnar form, optional `rtol` and `atol` |
//! | `previous` | object | the release before: `version`, `sequence`, `time_ms`, `artifact`, `inputs`, `outputs`, `signature`, and the `partition` and `offset` of its record |
//! | `earlier` | array of objects | optional: as `previous`, those before it whose artifacts are kept too, newest first |
//!
//! A publisher is idempotent with `acks=all`, and writes under the transactional id
//! `modelswap-<topic>-<model>`, so that a second publisher of the same model fences the first. It
//! writes the release in a transaction after those of the chunks. What is on the topic it reads up to
//! a record `<model>/barrier` of its own, which no reader of models cares about. Afterwards it prunes, with null
//! values, the chunks of every artifact that neither the release nor its `previous` (or as many
//! before as it keeps) name.

mod document;
mod key;
mod partition;
mod record;

pub use document::{DocumentError, SCHEMA, decode_release, encode_release};
pub use key::{Key, chunk_key};
pub use partition::partition_of;
pub use record::{Announcement, Header, Record, Refusal, announcement};

/// The length of every chunk but the last one: what fits Kafka's default limits with room for the
/// key and the framing.
pub const CHUNK_BYTES: usize = 900_000;

/// The header of a plain publish that holds the digest.
pub const SHA256_HEADER: &str = "sha256";
/// The header of a plain publish that holds the version.
pub const VERSION_HEADER: &str = "version";
/// The header of a plain publish that holds the format.
pub const FORMAT_HEADER: &str = "format";

/// The longest version, in bytes.
pub const MAX_VERSION: usize = 200;
