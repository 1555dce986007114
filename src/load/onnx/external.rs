//! Takes tensors that an exporter wrote beside the model into the model file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use prost::Message;
use tract_onnx::pb;

use super::check::{leaves_folder, malformed};
use crate::load::LoadError;
use crate::load::tensor_proto::EXTERNAL;

/// The bytes of the ONNX file at `path`, with every tensor that lies in another file taken in.
///
/// `PyTorch`'s exporter writes the weights to `model.onnx.data` beside the model; a subscriber gets
/// one artifact and takes nothing from its own file system, so a publisher calls this first. A
/// model that holds all its tensors comes back as it is.
///
/// # Errors
/// [`LoadError::Malformed`] where the file is no ONNX model or cannot be read, and
/// [`LoadError::ExternalData`] where a tensor lies outside the model's folder, through a symbolic
/// link too, or is not where the model says, with what is wrong there.
pub fn inline_external_data(path: &Path) -> Result<Vec<u8>, LoadError> {
    let bytes = std::fs::read(path).map_err(|e| malformed(format!("{}: {e}", path.display())))?;
    let mut model = pb::ModelProto::decode(bytes.as_slice()).map_err(|e| malformed(e.to_string()))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|e| malformed(format!("{}: {e}", folder.display())))?;
    let mut any = false;
    if let Some(graph) = &mut model.graph {
        take_in_graph(graph, &folder, &mut any)?;
    }
    for function in &mut model.functions {
        take_in_nodes(&mut function.node, &folder, &mut any)?;
    }
    Ok(if any { model.encode_to_vec() } else { bytes })
}

fn take_in_graph(graph: &mut pb::GraphProto, folder: &Path, any: &mut bool) -> Result<(), LoadError> {
    let sparse = graph.sparse_initializer.iter_mut().flat_map(parts);
    for tensor in graph.initializer.iter_mut().chain(sparse) {
        take_in(tensor, folder, any)?;
    }
    take_in_nodes(&mut graph.node, folder, any)
}

fn parts(sparse: &mut pb::SparseTensorProto) -> impl Iterator<Item = &mut pb::TensorProto> {
    sparse.values.iter_mut().chain(&mut sparse.indices)
}

fn take_in_nodes(nodes: &mut [pb::NodeProto], folder: &Path, any: &mut bool) -> Result<(), LoadError> {
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        let sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
        let tensors = attribute.t.iter_mut().chain(&mut attribute.tensors).chain(sparse.flat_map(parts));
        for tensor in tensors {
            take_in(tensor, folder, any)?;
        }
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            take_in_graph(graph, folder, any)?;
        }
    }
    Ok(())
}

fn take_in(tensor: &mut pb::TensorProto, folder: &Path, any: &mut bool) -> Result<(), LoadError> {
    if tensor.data_location != Some(EXTERNAL) {
        return Ok(());
    }
    let text = |key: &str| tensor.external_data.iter().find(|p| p.key == key).map(|p| p.value.clone());
    let location = text("location").unwrap_or_default();
    let outside = |escapes, problem| LoadError::ExternalData {
        tensor: tensor.name.clone(),
        location: location.clone(),
        escapes,
        problem,
    };
    if location.is_empty() || leaves_folder(&location) {
        return Err(outside(!location.is_empty(), None));
    }
    let failed = |error: std::io::Error| outside(false, Some(error.to_string()));
    let path = folder.join(&location).canonicalize().map_err(failed)?;
    if !path.starts_with(folder) {
        return Err(outside(true, None));
    }
    let number = |key: &str| match text(key) {
        None => Ok(None),
        Some(value) => value
            .parse::<u64>()
            .map(Some)
            .map_err(|_| outside(false, Some(format!("{key} `{value}` is no number of bytes")))),
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    let bytes = read(&path, offset, length).map_err(failed)?;
    tensor.raw_data = bytes;
    tensor.external_data.clear();
    tensor.data_location = None;
    *any = true;
    Ok(())
}

/// The part of a file, which has to be there.
fn read(path: &PathBuf, offset: u64, length: Option<u64>) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let available = size.saturating_sub(offset);
    let length = length.unwrap_or(available);
    if length > available {
        let text = format!("{length} bytes at {offset} are not in a file of {size}");
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
