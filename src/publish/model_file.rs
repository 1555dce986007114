//! The bytes to publish: those at hand, or those of a file, which is read once to be checked and once to
//! be uploaded, so that it need not be held for as long.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use super::config;
use crate::error::{Error, ErrorKind};
use crate::load::Payload;
use crate::memory;
use crate::release::{Artifact, Interface};
use crate::verify::Hashed;
use crate::wire::CHUNK_BYTES;

/// A model file to publish: a path, or bytes at hand.
#[derive(Clone)]
pub struct ModelFile {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Path(PathBuf),
    Payload(Payload),
}

impl From<&Path> for ModelFile {
    fn from(path: &Path) -> Self {
        Self { source: Source::Path(path.to_owned()) }
    }
}

impl From<PathBuf> for ModelFile {
    fn from(path: PathBuf) -> Self {
        Self { source: Source::Path(path) }
    }
}

impl From<Payload> for ModelFile {
    fn from(payload: Payload) -> Self {
        Self { source: Source::Payload(payload) }
    }
}

impl From<Bytes> for ModelFile {
    fn from(bytes: Bytes) -> Self {
        Payload::from(bytes).into()
    }
}

impl From<Vec<u8>> for ModelFile {
    fn from(bytes: Vec<u8>) -> Self {
        Payload::from(bytes).into()
    }
}

impl ModelFile {
    /// Its bytes, read and hashed once; in chunks that are freed as they are consumed.
    pub(super) fn read(&self) -> Result<Hashed, Error> {
        let payload = match &self.source {
            Source::Payload(payload) => payload.clone(),
            Source::Path(_) => Payload::from_chunks(self.chunks()?.collect::<Result<Vec<_>, _>>()?),
        };
        if payload.is_empty() {
            return Err(config(format!("{self} is empty")));
        }
        Ok(Hashed::of(payload))
    }

    /// True where the bytes may be others when they are read again.
    pub(super) const fn may_change(&self) -> bool {
        matches!(self.source, Source::Path(_))
    }

    /// A TensorFlow `SavedModel` directory as the one artifact that it is frozen to; a file as it is.
    #[cfg(feature = "tensorflow")]
    pub(super) fn frozen(self, interface: &Interface, memory_budget: u64) -> Result<Self, Error> {
        use crate::load::{LoadOptions, freeze_saved_model};
        let Source::Path(path) = &self.source else { return Ok(self) };
        if !path.is_dir() {
            return Ok(self);
        }
        let options = LoadOptions {
            inputs: interface.inputs.clone(),
            outputs: interface.outputs.clone(),
            signature: interface.signature.clone(),
            memory_budget,
        };
        match freeze_saved_model(path, &options) {
            Ok(frozen) => Ok(frozen.into()),
            Err(error) => Err(Error::new(ErrorKind::Rejected, format!("{self}: {error}"))),
        }
    }

    #[cfg(not(feature = "tensorflow"))]
    #[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
    pub(super) fn frozen(self, _: &Interface, _: u64) -> Result<Self, Error> {
        Ok(self)
    }

    /// The file with the tensors in it that an ONNX exporter wrote beside it; `None` where there are
    /// none.
    #[cfg(feature = "onnx")]
    pub(super) fn with_external_data(&self, artifact: &Artifact) -> Result<Option<Self>, Error> {
        use crate::load::{LoadError, inline_external_data};
        use crate::release::Sha256Digest;
        let Source::Path(path) = &self.source else { return Ok(None) };
        match inline_external_data(path) {
            Ok(whole) if Sha256Digest::of(whole.chunks().map(|chunk| &**chunk)) == artifact.sha256 => {
                Ok(None)
            }
            Ok(whole) => Ok(Some(whole.into())),
            Err(error @ LoadError::ExternalData { .. }) => {
                Err(Error::new(ErrorKind::Rejected, format!("{self}: {error}")))
            }
            // Not ONNX: what was wrong with it has been said.
            Err(_) => Ok(None),
        }
    }

    #[cfg(not(feature = "onnx"))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as with the feature")]
    pub(super) const fn with_external_data(&self, _: &Artifact) -> Result<Option<Self>, Error> {
        Ok(None)
    }

    /// Its bytes from the beginning, in pieces of [`CHUNK_BYTES`] but the last one.
    pub(super) fn chunks(&self) -> Result<Chunks<'_>, Error> {
        let reader = match &self.source {
            Source::Path(path) => Reader::File(File::open(path).map_err(|e| self.error(e))?),
            Source::Payload(payload) => Reader::Payload(payload.clone()),
        };
        Ok(Chunks { file: self, reader })
    }

    fn error(&self, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Config,
        };
        Error::new(kind, format!("{self} cannot be read")).with_source(error)
    }
}

/// What is to be known of a file's bytes.
pub(super) fn artifact_of(file: &Hashed, format: Option<String>) -> Result<Artifact, Error> {
    let chunks = u32::try_from(file.len().div_ceil(CHUNK_BYTES))
        .map_err(|_| config("the model file has too many chunks"))?;
    Ok(Artifact { sha256: file.sha256(), bytes: file.len() as u64, chunks, format })
}

impl fmt::Display for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Path(path) => write!(f, "file `{}`", path.display()),
            Source::Payload(_) => f.write_str("the model file"),
        }
    }
}

impl fmt::Debug for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelFile({self})")
    }
}

pub(super) struct Chunks<'a> {
    file: &'a ModelFile,
    reader: Reader,
}

enum Reader {
    File(File),
    Payload(Payload),
}

impl Iterator for Chunks<'_> {
    type Item = Result<Bytes, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = match &mut self.reader {
            Reader::Payload(payload) => payload.copy_to_bytes(payload.len().min(CHUNK_BYTES)),
            Reader::File(file) => match memory::read(file, CHUNK_BYTES) {
                Ok(chunk) => chunk,
                Err(error) => return Some(Err(self.file.error(error))),
            },
        };
        (!chunk.is_empty()).then_some(Ok(chunk))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_and_a_rope_are_cut_into_the_same_chunks() {
        let bytes: Vec<u8> = (0..=250).cycle().take(2 * CHUNK_BYTES + 5).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let (head, tail) = bytes.split_at(CHUNK_BYTES - 7);
        let rope = Payload::from_chunks([head, tail].map(Bytes::copy_from_slice));
        for file in [ModelFile::from(file.path()), ModelFile::from(rope)] {
            let read = file.read().unwrap();
            assert_eq!(artifact_of(&read, None).unwrap(), Artifact::of(&bytes, None));
            let lengths: Vec<_> = file.chunks().unwrap().map(|c| c.unwrap().len()).collect();
            assert_eq!(lengths, [CHUNK_BYTES, CHUNK_BYTES, 5]);
            assert_eq!(bytes, file.chunks().unwrap().flat_map(Result::unwrap).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn an_empty_or_missing_file_is_named() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = ModelFile::from(empty.path()).read().unwrap_err();
        assert!(error.to_string().ends_with("is empty"), "{error}");
        let error = ModelFile::from(Path::new("/nowhere/m.onnx")).read().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("/nowhere/m.onnx"));
    }

    #[cfg(feature = "tensorflow")]
    #[test]
    fn a_saved_model_directory_becomes_one_frozen_graph() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo/tf1_half_plus_two/saved_model");
        let file = ModelFile::from(folder).frozen(&Interface::default(), 1 << 30).unwrap();
        let Source::Payload(payload) = file.source else { panic!("it is a path still") };
        assert_eq!(crate::load::Formats::default().choose(None, &payload).unwrap().format(), "tensorflow");
    }

    #[cfg(feature = "tensorflow")]
    #[test]
    fn a_directory_that_is_no_saved_model_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let refused = ModelFile::from(folder).frozen(&Interface::default(), 1 << 30).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Rejected);
    }
}
