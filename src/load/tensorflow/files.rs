//! Where the files of a SavedModel come from: a directory, or a tar of one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use bytes::Buf;

use super::malformed;
use crate::load::{LoadError, Payload};
use crate::memory;

/// The most files that a tar of a SavedModel may have.
const MAX_FILES: usize = 10_000;

/// The files of one SavedModel, by their path inside it.
pub(super) trait Files {
    /// The bytes of a file; `None` where there is none of that path.
    fn read(&self, path: &str) -> Result<Option<Payload>, LoadError>;

    /// The bytes of a file that is not asked for again, so that nothing else keeps them.
    fn take(&self, path: &str) -> Result<Option<Payload>, LoadError> {
        self.read(path)
    }

    /// The names of some of the files at the top, for a message.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A file is read in pieces of this size, each of which is let go of by itself.
const PIECE: usize = 1 << 20;

/// A SavedModel in a directory.
pub(super) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Files for Directory {
    fn read(&self, path: &str) -> Result<Option<Payload>, LoadError> {
        let clean = inner_path(Path::new(path))
            .ok_or_else(|| malformed(format!("`{path}` is a path outside the model's folder")))?;
        let path_of_file = self.root.join(clean);
        // A device or a pipe has no end.
        if std::fs::metadata(&path_of_file).is_ok_and(|found| !found.is_file()) {
            return Err(malformed(format!("`{path}` is not a file")));
        }
        match File::open(path_of_file).and_then(pieces_of) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(malformed(format!("cannot read `{path}`: {e}"))),
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.take(8).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn pieces_of(mut file: File) -> io::Result<Payload> {
    let mut pieces = Vec::new();
    loop {
        let piece = memory::read(&mut file, PIECE)?;
        if piece.is_empty() {
            return Ok(Payload::from_chunks(pieces));
        }
        pieces.push(piece);
    }
}

/// A SavedModel in a tar, held in memory; the files are slices of it.
pub(super) struct Archive {
    files: RefCell<HashMap<String, Payload>>,
}

impl Archive {
    /// Reads the list of files. The model may lie in a folder of the archive.
    pub(super) fn open(payload: Payload) -> Result<Self, LoadError> {
        let bad = |e: std::io::Error| malformed(format!("not a tar of a SavedModel: {e}"));
        let mut files = HashMap::new();
        let mut archive = tar::Archive::new(Reader { payload: &payload, at: 0 });
        let mut places = Vec::new();
        for entry in archive.entries_with_seek().map_err(bad)? {
            let entry = entry.map_err(bad)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            if places.len() >= MAX_FILES {
                return Err(malformed(format!("the tar has more than {MAX_FILES} files")));
            }
            let path = entry.path().map_err(bad)?.into_owned();
            let clean = inner_path(&path).ok_or_else(|| {
                malformed(format!("the tar has the path `{}`, outside the model's folder", path.display()))
            })?;
            let start = usize::try_from(entry.raw_file_position()).ok();
            let end = start.and_then(|s| s.checked_add(usize::try_from(entry.size()).ok()?));
            match (start, end) {
                (Some(start), Some(end)) if end <= payload.len() => places.push((start, end, clean)),
                _ => return Err(malformed(format!("the tar ends inside `{clean}`"))),
            }
        }
        // In the order of the archive, so that what is before a file can be let go of.
        places.sort_unstable();
        let (mut rest, mut at) = (payload, 0);
        for (start, end, path) in places {
            let skipped = start.checked_sub(at);
            rest.advance(
                skipped.ok_or_else(|| malformed(format!("`{path}` lies in another file of the tar")))?,
            );
            files.insert(path, rest.split_to(end - start));
            at = end;
        }
        Ok(Self { files: RefCell::new(without_folder(files)) })
    }

    /// True where the graph of a SavedModel is among the files.
    pub(super) fn has_saved_model(&self) -> bool {
        ["saved_model.pb", "saved_model.pbtxt"].iter().any(|name| self.files.borrow().contains_key(*name))
    }
}

impl Files for Archive {
    fn read(&self, path: &str) -> Result<Option<Payload>, LoadError> {
        Ok(self.files.borrow().get(path).cloned())
    }

    fn take(&self, path: &str) -> Result<Option<Payload>, LoadError> {
        Ok(self.files.borrow_mut().remove(path))
    }
}

/// The pieces of an archive as one file.
struct Reader<'p> {
    payload: &'p Payload,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut skip = usize::try_from(self.at).unwrap_or(usize::MAX);
        for chunk in self.payload.chunks() {
            if let Some(bytes) = chunk.get(skip..).filter(|bytes| !bytes.is_empty()) {
                let length = bytes.len().min(to.len());
                to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
                self.at += length as u64;
                return Ok(length);
            }
            skip = skip.saturating_sub(chunk.len());
        }
        Ok(0)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => (self.payload.len() as u64).checked_add_signed(by),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Packs a SavedModel's directory as the format `saved-model` ships it: a plain tar of the graph,
/// the variables and the assets, without owners or times, so that the same model gives the same
/// bytes.
pub(super) fn pack(root: &Path) -> Result<Vec<u8>, LoadError> {
    let bad = |path: &Path, e: &std::io::Error| malformed(format!("cannot read `{}`: {e}", path.display()));
    let mut paths = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| bad(&folder, &e))? {
            let path = entry.map_err(|e| bad(&folder, &e))?.path();
            if path.is_dir() {
                if depth < 8 {
                    folders.push((path, depth + 1));
                }
            } else {
                paths.push(path);
            }
        }
    }
    let wanted = |path: &PathBuf| {
        let inner = path.strip_prefix(root).unwrap_or(path);
        let first = inner.components().next().map(|c| c.as_os_str().to_owned());
        first.is_some_and(|f| {
            f == "variables" || f == "assets" || f.to_string_lossy().starts_with("saved_model.pb")
        })
    };
    paths.retain(wanted);
    // A device or a pipe has no end.
    if let Some(path) = paths.iter().find(|path| !path.is_file()) {
        return Err(malformed(format!("`{}` is not a file", path.display())));
    }
    paths.sort();
    let mut builder = tar::Builder::new(Vec::new());
    for path in paths {
        let mut content = Vec::new();
        let mut file = std::fs::File::open(&path).map_err(|e| bad(&path, &e))?;
        file.read_to_end(&mut content).map_err(|e| bad(&path, &e))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        let inner = path.strip_prefix(root).unwrap_or(&path);
        builder.append_data(&mut header, inner, &*content).map_err(|e| bad(&path, &e))?;
    }
    builder.into_inner().map_err(|e| malformed(format!("cannot pack the model: {e}")))
}

/// The path in one spelling; `None` where it leads out of the folder that it is relative to.
fn inner_path(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?.to_owned()),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(parts.join("/"))
}

/// The files by their path below the folder that has the graph.
fn without_folder(files: HashMap<String, Payload>) -> HashMap<String, Payload> {
    let graph = |path: &&String| path.ends_with("saved_model.pb") || path.ends_with("saved_model.pbtxt");
    let Some(folder) = files
        .keys()
        .filter(graph)
        .min_by_key(|p| p.len())
        .and_then(|p| p.rsplit_once('/'))
        .map(|(f, _)| format!("{f}/"))
    else {
        return files;
    };
    files.into_iter().filter_map(|(p, b)| Some((p.strip_prefix(&folder)?.to_owned(), b))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn tar_of(entries: &[(&str, &[u8])]) -> Payload {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            // `set_path` refuses what an attacker would write.
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        Payload::from_chunks(bytes.chunks(700).map(Bytes::copy_from_slice))
    }

    #[test]
    fn a_model_in_a_folder_of_the_tar_is_found() {
        let tar = tar_of(&[("./m/1/saved_model.pb", b"graph"), ("./m/1/variables/variables.index", b"i")]);
        let files = Archive::open(tar).unwrap();
        assert_eq!(files.read("saved_model.pb").unwrap().unwrap().into_bytes(), "graph");
        assert_eq!(files.read("variables/variables.index").unwrap().unwrap().into_bytes(), "i");
        assert_eq!(files.read("variables/none").unwrap(), None);
    }

    #[test]
    fn a_path_that_leads_out_of_the_model_is_refused() {
        for path in ["../evil", "/etc/passwd", "m/../../evil"] {
            let refused = Archive::open(tar_of(&[(path, b"x")])).err().map(|e| e.to_string());
            assert!(refused.is_some_and(|e| e.contains("outside the model's folder")), "{path}");
        }
    }

    #[test]
    fn a_truncated_tar_is_refused() {
        let mut tar = tar_of(&[("saved_model.pb", &[7; 5000])]);
        assert!(Archive::open(tar.split_to(3000)).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_not_packed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("saved_model.pb")).unwrap();
        assert!(pack(folder.path()).unwrap_err().to_string().ends_with("is not a file"));
    }

    #[test]
    fn a_packed_directory_is_the_same_bytes_each_time() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("variables")).unwrap();
        std::fs::write(folder.path().join("saved_model.pb"), b"graph").unwrap();
        std::fs::write(folder.path().join("variables/variables.index"), b"index").unwrap();
        std::fs::write(folder.path().join("fingerprint.pb"), b"not needed").unwrap();
        let packed = pack(folder.path()).unwrap();
        assert_eq!(packed, pack(folder.path()).unwrap());
        let files = Archive::open(packed.into()).unwrap();
        assert_eq!(files.read("saved_model.pb").unwrap().unwrap().into_bytes(), "graph");
        assert_eq!(files.read("fingerprint.pb").unwrap(), None);
    }
}
