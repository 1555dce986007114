//! Samples in the layout of ONNX's own test data: a directory of `TensorProto` files.

use std::path::Path;

use prost::Message;

use super::{Samples, SamplesError};
use crate::load::tensor_proto::TensorProto;
use crate::signature::{Signature, TensorSpec};
use crate::tensor::Tensor;

pub(super) fn read(folder: &Path, signature: &Signature) -> Result<Samples, SamplesError> {
    let inputs = side(folder, "input", signature.inputs())?;
    if inputs.is_empty() && !signature.inputs().is_empty() {
        return Err(SamplesError::Malformed(format!("there is no input_0.pb in {}", folder.display())));
    }
    let outputs = side(folder, "output", signature.outputs())?;
    Samples::new(inputs, outputs).ordered(signature)
}

/// The tensors of `input_0.pb`, `input_1.pb`, .. with the names that they have in the signature.
fn side(
    folder: &Path,
    side: &'static str,
    specs: &[TensorSpec],
) -> Result<Vec<(String, Tensor)>, SamplesError> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|e| unreadable(folder, &e))?;
    for entry in entries {
        let path = entry.map_err(|e| unreadable(folder, &e))?.path();
        let number = path.file_name().and_then(|name| {
            name.to_str()?.strip_prefix(side)?.strip_prefix('_')?.strip_suffix(".pb")?.parse::<usize>().ok()
        });
        files.extend(number.map(|number| (number, path)));
    }
    files.sort();
    let mut tensors: Vec<(String, Tensor)> = Vec::with_capacity(files.len());
    for (number, path) in files {
        let bytes = std::fs::read(&path).map_err(|e| unreadable(&path, &e))?;
        let malformed = |reason: String| SamplesError::Malformed(format!("{}: {reason}", path.display()));
        let proto = TensorProto::decode(bytes.as_slice()).map_err(|e| malformed(e.to_string()))?;
        let spec = specs.iter().find(|spec| **spec.name() == *proto.name).or_else(|| specs.get(number));
        let spec = spec.ok_or_else(|| SamplesError::UnknownName {
            side,
            name: if proto.name.is_empty() { format!("{side}_{number}") } else { proto.name.clone() },
            known: specs.iter().map(|spec| spec.name().as_ref()).collect::<Vec<_>>().join(", "),
        })?;
        let name = spec.name().to_string();
        if tensors.iter().any(|(known, _)| *known == name) {
            return Err(malformed(format!("a second tensor for {side} `{name}`")));
        }
        tensors.push((name, proto.into_tensor().map_err(malformed)?));
    }
    Ok(tensors)
}

fn unreadable(path: &Path, error: &std::io::Error) -> SamplesError {
    SamplesError::Malformed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Dim;
    use crate::tensor::ElementType;

    #[test]
    fn tensors_are_matched_by_name_and_else_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, name: &str, values: Vec<f32>| {
            let proto = TensorProto::from((name, &Tensor::vector(values)));
            std::fs::write(folder.path().join(file), proto.encode_to_vec()).unwrap();
        };
        write("input_0.pb", "b", vec![2.0]);
        write("input_1.pb", "a", vec![1.0]);
        write("output_0.pb", "", vec![3.0]);
        let vector = |name| TensorSpec::new(name, ElementType::F32, &[Dim::Any]);
        let signature = Signature::new(vec![vector("a"), vector("b")], vec![vector("y")]);
        let samples = Samples::from_onnx_dir(folder.path(), &signature).unwrap();
        assert_eq!(samples.inputs()[0], ("a".to_owned(), Tensor::vector(vec![1.0_f32])));
        assert_eq!(samples.outputs()[0], ("y".to_owned(), Tensor::vector(vec![3.0_f32])));
        write("input_1.pb", "b", vec![1.0]);
        assert!(Samples::from_onnx_dir(folder.path(), &signature).is_err());
    }
}
