//! Samples in the layout of ONNX's own test data: a directory of `TensorProto` files. What a model
//! answers as a sequence, of maps or of tensors, is a file of `SequenceProto`.

use std::path::Path;

use prost::Message;

use super::convert::convert;
use super::{Samples, SamplesError};
use crate::load::tensor_proto::{SequenceProto, TensorProto};
use crate::signature::{Labels, Signature, TensorSpec};
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
    let mut read = Vec::with_capacity(files.len());
    for (number, path) in files {
        let bytes = std::fs::read(&path).map_err(|e| unreadable(&path, &e))?;
        let content = Content::read(&bytes)
            .map_err(|reason| SamplesError::Malformed(format!("{}: {reason}", path.display())))?;
        read.push((number, path, content));
    }
    let by_name = |name: &str| specs.iter().find(|spec| **spec.name() == *name);
    // Where names are those of the signature, one that is not is no matter of the order.
    let named = side == "output" && read.iter().any(|(.., content)| by_name(content.name()).is_some());
    let mut tensors: Vec<(String, Tensor)> = Vec::with_capacity(read.len());
    for (number, path, content) in read {
        let malformed = |reason: String| SamplesError::Malformed(format!("{}: {reason}", path.display()));
        let content = match content {
            // The loader makes an output of each tensor of a sequence.
            Content::Tensors(sequence) => {
                for (at, tensor) in sequence.tensors.into_iter().enumerate() {
                    let name = format!("{}_{at}", sequence.name);
                    let spec = by_name(&name).ok_or_else(|| {
                        malformed(format!("a sequence whose tensor `{name}` the model does not give"))
                    })?;
                    tensors
                        .push((name, convert(tensor.into_tensor().map_err(malformed)?, spec.element_type())));
                }
                continue;
            }
            content => content,
        };
        let name = content.name().to_owned();
        let spec = match by_name(&name) {
            None if named && !name.is_empty() => None,
            None => specs.get(number),
            found => found,
        };
        let spec = spec.ok_or_else(|| SamplesError::UnknownName {
            side,
            name: if name.is_empty() { format!("{side}_{number}") } else { name },
            known: specs.iter().map(|spec| spec.name().as_ref()).collect::<Vec<_>>().join(", "),
        })?;
        let name = spec.name().to_string();
        if tensors.iter().any(|(known, _)| *known == name) {
            return Err(malformed(format!("a second tensor for {side} `{name}`")));
        }
        // A map for an input may leave out what is zero.
        let absent = (side == "input").then_some(0.0);
        let tensor = content.into_tensor(spec, absent).map_err(malformed)?;
        tensors.push((name, convert(tensor, spec.element_type())));
    }
    Ok(tensors)
}

/// What a file holds.
enum Content {
    Tensor(String, Tensor),
    Maps(SequenceProto),
    Tensors(SequenceProto),
}

impl Content {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Err("the file is empty".to_owned());
        }
        let tensor = TensorProto::decode(bytes).map_err(|e| e.to_string()).and_then(|proto| {
            let name = proto.name.clone();
            proto.into_tensor().map(|tensor| Self::Tensor(name, tensor))
        });
        // The two messages have fields of the same numbers, so that each may pass for the other; a
        // sequence of maps claims to be a `u16` without its value.
        tensor.or_else(|reason| match SequenceProto::decode(bytes) {
            Ok(sequence) if !sequence.maps.is_empty() => Ok(Self::Maps(sequence)),
            Ok(sequence) if sequence.elem_type == 1 && !sequence.tensors.is_empty() => {
                Ok(Self::Tensors(sequence))
            }
            _ => Err(reason),
        })
    }

    fn name(&self) -> &str {
        match self {
            Self::Tensor(name, _) => name,
            Self::Maps(sequence) | Self::Tensors(sequence) => &sequence.name,
        }
    }

    fn into_tensor(self, spec: &TensorSpec, absent: Option<f32>) -> Result<Tensor, String> {
        match self {
            Self::Tensor(_, tensor) => Ok(tensor),
            Self::Maps(sequence) => scores(&sequence, spec.labels(), absent),
            Self::Tensors(_) => Err("a sequence of tensors".to_owned()),
        }
    }
}

/// The values of a sequence of maps, a row each, in the order of the labels.
fn scores(sequence: &SequenceProto, labels: Option<&Labels>, absent: Option<f32>) -> Result<Tensor, String> {
    let labels = labels.ok_or("a sequence of maps, for a tensor without labels")?;
    let mut all: Vec<f32> = Vec::new();
    let mut columns = 0;
    for (row, map) in sequence.maps.iter().enumerate() {
        let values = map.values.clone().unwrap_or_default().tensors;
        let values = values.into_iter().map(TensorProto::into_tensor).collect::<Result<Vec<_>, _>>()?;
        let values: Vec<f32> = values
            .into_iter()
            .filter_map(|tensor| convert(tensor, crate::tensor::ElementType::F32).into_values::<f32>())
            .flatten()
            .collect();
        let place: Vec<Option<usize>> = match labels {
            Labels::Ints(labels) => labels.iter().map(|l| map.keys.iter().position(|key| key == l)).collect(),
            Labels::Strings(labels) => {
                let of = |l: &String| map.string_keys.iter().position(|key| **key == *l.as_bytes());
                labels.iter().map(of).collect()
            }
        };
        columns = place.len();
        for at in place {
            let value = at.and_then(|at| values.get(at).copied()).or(absent);
            all.push(value.ok_or_else(|| format!("map {row} does not have the classes of the model"))?);
        }
    }
    Tensor::new(&[sequence.maps.len(), columns], all).map_err(|e| e.to_string())
}

fn unreadable(path: &Path, error: &std::io::Error) -> SamplesError {
    SamplesError::Malformed(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tensor_proto::MapProto;
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
        // A name of the signature is not matched by the number of another.
        let two = Signature::new(signature.inputs().to_vec(), vec![vector("y"), vector("z")]);
        write("output_0.pb", "z", vec![4.0]);
        write("output_1.pb", "unknown", vec![5.0]);
        let refused = Samples::from_onnx_dir(folder.path(), &two).unwrap_err();
        assert_eq!(refused.to_string(), "the samples have an output `unknown`; the model has: y, z");
        write("input_1.pb", "b", vec![1.0]);
        assert!(Samples::from_onnx_dir(folder.path(), &signature).is_err());
    }

    #[test]
    fn a_sequence_of_maps_is_put_in_the_order_of_the_labels() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(file), bytes).unwrap();
        let tensor = |values: Vec<f32>| TensorProto::from(("", &Tensor::vector(values)));
        write("input_0.pb", TensorProto::from(("x", &Tensor::vector(vec![1_i32, 2]))).encode_to_vec());
        let map = |keys: [&str; 2], values: Vec<f32>| MapProto {
            key_type: 8,
            string_keys: keys.map(|k| bytes::Bytes::copy_from_slice(k.as_bytes())).to_vec(),
            values: Some(SequenceProto { tensors: vec![tensor(values)], elem_type: 1, ..Default::default() }),
            ..Default::default()
        };
        let maps = vec![map(["b", "a"], vec![0.75, 0.25]), map(["a", "b"], vec![0.5, 0.125])];
        write("output_0.pb", SequenceProto { elem_type: 4, maps, ..Default::default() }.encode_to_vec());
        let labels = Labels::Strings(vec!["a".to_owned(), "b".to_owned()]);
        let signature = Signature::new(
            vec![TensorSpec::new("x", ElementType::F32, &[Dim::Any])],
            vec![TensorSpec::new("y", ElementType::F32, &[Dim::Any, Dim::Fixed(2)]).with_labels(labels)],
        );
        let samples = Samples::from_onnx_dir(folder.path(), &signature).unwrap();
        assert_eq!(samples.inputs()[0].1, Tensor::vector(vec![1.0_f32, 2.0]));
        let expected = Tensor::new(&[2, 2], vec![0.25_f32, 0.75, 0.5, 0.125]).unwrap();
        assert_eq!(samples.outputs()[0].1, expected);
    }
}
