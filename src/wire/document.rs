//! The release document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MAX_VERSION;
use crate::load::samples::read_value;
use crate::release::{Artifact, Interface, ModelName, Position, Previous, Release, null_is_none};

/// The schema of release documents that this crate writes, and the newest that it reads.
pub const SCHEMA: u64 = 1;

/// A release document as it stands in JSON; field order is that of the test vectors.
#[derive(Serialize, Deserialize)]
struct Document {
    schema: u64,
    model: ModelName,
    version: String,
    sequence: u64,
    time_ms: i64,
    artifact: Artifact,
    #[serde(flatten)]
    interface: Interface,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_none")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    samples: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Previous>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_none")]
    earlier: Vec<Previous>,
}

/// The bytes of a release document. The release's own position is not part of it.
///
/// # Panics
/// Never: there is no value in a release that JSON does not have.
#[must_use]
pub fn encode_release(release: &Release) -> Vec<u8> {
    let document = Document {
        schema: SCHEMA,
        model: release.model.clone(),
        version: release.version.clone(),
        sequence: release.sequence,
        time_ms: release.time_ms,
        artifact: release.artifact.clone(),
        interface: release.interface.clone(),
        labels: release.labels.clone(),
        samples: release.samples.clone(),
        previous: release.previous.clone(),
        earlier: release.earlier.clone(),
    };
    serde_json::to_vec(&document).unwrap_or_default()
}

/// Reads a release document that stands at `position` under the key `model`.
///
/// # Errors
/// Where it is not one, contradicts itself, or is of a newer schema; the error names the field.
pub fn decode_release(model: &ModelName, value: &[u8], position: Position) -> Result<Release, DocumentError> {
    // The schema is read by itself: in a newer one any other field may have changed.
    let schema = serde_json::from_slice::<Schema>(value).map_err(DocumentError::malformed)?.schema;
    if schema != SCHEMA {
        return Err(DocumentError::Schema { expected: SCHEMA, found: schema });
    }
    let mut document: Document = serde_json::from_slice(value).map_err(DocumentError::malformed)?;
    if document.samples.is_some() {
        // `serde_json` may miss the last bit of a number; a score has to be read as it was written.
        let exact = read_value(value).ok().and_then(|mut exact| Some(exact.get_mut("samples")?.take()));
        document.samples = exact.or(document.samples);
    }
    if document.model != *model {
        return Err(DocumentError::field("model", format!("`{model}`, as in the key"), &document.model));
    }
    check_version("version", &document.version)?;
    check_artifact("artifact", &document.artifact)?;
    let named = document.previous.iter().map(|p| ("previous.version", "previous.artifact", p));
    let kept = document.earlier.iter().map(|p| ("earlier.version", "earlier.artifact", p));
    for (version, artifact, release) in named.chain(kept) {
        check_version(version, &release.version)?;
        // It may have been a plain publish, which has no chunks.
        if release.artifact.chunks > 0 {
            check_artifact(artifact, &release.artifact)?;
        }
    }
    Ok(Release {
        model: document.model,
        version: document.version,
        sequence: document.sequence,
        time_ms: document.time_ms,
        artifact: document.artifact,
        interface: document.interface,
        labels: document.labels,
        samples: document.samples,
        previous: document.previous,
        earlier: document.earlier,
        position,
    })
}

#[derive(Deserialize)]
struct Schema {
    schema: u64,
}

fn check_version(field: &'static str, version: &str) -> Result<(), DocumentError> {
    if (1..=MAX_VERSION).contains(&version.len()) {
        return Ok(());
    }
    Err(DocumentError::field(field, format!("1 to {MAX_VERSION} bytes"), &format!("{} bytes", version.len())))
}

fn check_artifact(field: &'static str, artifact: &Artifact) -> Result<(), DocumentError> {
    let (bytes, chunks) = (artifact.bytes, u64::from(artifact.chunks));
    // Fewer bytes than chunks would need an empty chunk, which is no chunk.
    if bytes == 0 || chunks == 0 || chunks > bytes {
        return Err(DocumentError::field(
            field,
            "at least one byte and one chunk, and no more chunks than bytes".into(),
            &format!("{bytes} bytes in {chunks} chunks"),
        ));
    }
    Ok(())
}

/// A release document that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is no JSON object with the fields that it must have; the text names the field.
    #[error("malformed release document: {reason}")]
    Malformed {
        /// What is wrong, with line and column.
        reason: String,
    },
    /// It is of a schema that this reader does not know.
    #[error("release document of schema {found}, expected {expected}; update modelswap")]
    Schema {
        /// The schema that is read.
        expected: u64,
        /// The schema of the document.
        found: u64,
    },
    /// A field has a value that makes no sense.
    #[error("malformed release document: field `{field}`: expected {expected}, found {found}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl DocumentError {
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    fn malformed(error: serde_json::Error) -> Self {
        Self::Malformed { reason: error.to_string() }
    }

    fn field(field: &'static str, expected: String, found: &impl ToString) -> Self {
        Self::Field { field, expected, found: found.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { partition: 0, offset: 7 };

    fn decode(text: &str) -> Result<Release, DocumentError> {
        decode_release(&"fraud".parse().unwrap(), text.as_bytes(), AT)
    }

    fn document(artifact: &str) -> String {
        format!(
            r#"{{"schema":1,"model":"fraud","version":"1","sequence":1,"time_ms":5,"artifact":{artifact}}}"#
        )
    }

    fn digest() -> String {
        "0".repeat(64)
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let artifact = format!(r#"{{"sha256":"{}","bytes":5,"chunks":1,"colour":"red"}}"#, digest());
        let release = decode(&document(&artifact).replace("\"sequence\"", "\"x\":[],\"sequence\"")).unwrap();
        assert_eq!((release.version.as_str(), release.position), ("1", AT));
    }

    #[test]
    fn optional_fields_may_be_null_and_the_order_is_free() {
        let text = format!(
            r#"
            {{ "earlier": null, "previous": null, "samples": null, "labels": null, "inputs": null,
               "outputs": null, "signature": null, "time_ms": 5, "sequence": 1, "version": "1",
               "artifact": {{ "format": null, "chunks": 1, "bytes": 5, "sha256": "{}" }},
               "model": "fraud", "schema": 1 }}"#,
            digest().to_uppercase()
        );
        let plain = decode(&document(&format!(r#"{{"sha256":"{}","bytes":5,"chunks":1}}"#, digest())));
        assert_eq!(decode(&text), plain);
    }

    #[test]
    fn a_newer_schema_is_named_before_anything_else() {
        assert_eq!(
            decode(r#"{"schema":2,"model":[]}"#).unwrap_err().to_string(),
            "release document of schema 2, expected 1; update modelswap"
        );
    }

    #[test]
    fn what_is_malformed_is_named_by_its_field() {
        let good = format!(r#"{{"sha256":"{}","bytes":5,"chunks":1}}"#, digest());
        for (text, part) in [
            ("{}".to_owned(), "missing field `schema`"),
            ("[".to_owned(), "malformed"),
            (document(&good.replace("\"bytes\":5,", "")), "missing field `bytes`"),
            (document(&good.replace(&digest(), "12")), "64 hexadecimal digits"),
            (document(&good.replace("\"chunks\":1", "\"chunks\":6")), "field `artifact`"),
            (document(&good.replace("\"bytes\":5", "\"bytes\":-5")), "-5"),
            (document(&good).replace("\"fraud\"", "\"other\""), "field `model`"),
            (document(&good).replace("\"version\":\"1\"", "\"version\":\"\""), "field `version`"),
        ] {
            let error = decode(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_numbers_of_samples_are_read_to_the_nearest() {
        let artifact = format!(r#"{{"sha256":"{}","bytes":5,"chunks":1}}"#, digest());
        for number in [122.416_294_033_786_59, 0.1 + 0.2, f64::MIN_POSITIVE, 8_999_999.999_999_999] {
            let samples = format!(r#""samples":{{"inputs":[[{number:e}]]}},"sequence""#);
            let release = decode(&document(&artifact).replace("\"sequence\"", &samples)).unwrap();
            let read = release.samples.unwrap()["inputs"][0][0].as_f64().unwrap();
            assert_eq!(read.to_bits(), number.to_bits(), "{number}");
        }
    }

    #[test]
    fn a_release_reads_what_it_writes() {
        let artifact = Artifact::of(b"bytes", Some("onnx".into()));
        let first = decode(&document(&serde_json::to_string(&artifact).unwrap())).unwrap();
        let mut second = first.clone();
        second.previous = Some(first.as_previous());
        second.interface.outputs = vec!["score".into()];
        second.labels.insert("team".into(), "risk".into());
        let read = decode_release(&second.model, &encode_release(&second), AT).unwrap();
        assert_eq!(read, second);
    }
}
