//! Files that people have at hand instead of the one that can be loaded, and what to do about it.

use super::{LoadError, Payload};

/// A form of file: how it begins, what it is, and what to do instead.
struct Foreign {
    begins: fn(&[u8]) -> bool,
    what: &'static str,
    advice: &'static str,
}

const FOREIGN: [Foreign; 14] = [
    Foreign { begins: <[u8]>::is_empty, what: "empty", advice: "what was to write it did not finish" },
    Foreign {
        begins: |start| start.starts_with(b"version https://git-lfs.github.com/spec/"),
        what: "a Git LFS pointer",
        advice: "fetch the file that it stands for with git lfs pull",
    },
    Foreign {
        begins: |start| begins_with_tag(start, b"<!doctype html") || begins_with_tag(start, b"<html"),
        what: "a web page",
        advice: "download the model that it is about",
    },
    Foreign {
        begins: |start| {
            start.starts_with(b"GGUF") || start.get(8..10) == Some(b"{\"") && contains(start, "\"dtype\"")
        },
        what: "a file of weights without a graph",
        advice: "export the model as ONNX",
    },
    Foreign {
        begins: |start| start.starts_with(b"binf") || start.starts_with(b"CONFIG-offset:"),
        what: "XGBoost's old binary format",
        advice: "save it with save_model(\"model.json\") or save_model(\"model.ubj\")",
    },
    Foreign {
        begins: |start| start.starts_with(b"booster[") || is_json_of(start, b"[", "nodeid"),
        what: "a dump of XGBoost's trees, which lacks the objective and the base score",
        advice: "save the model with save_model(\"model.json\") or save_model(\"model.ubj\")",
    },
    Foreign {
        begins: |start| is_json_of(start, b"", "name") && contains(start, "num_tree_per_iteration"),
        what: "what LightGBM's dump_model gives",
        advice: "save the model with Booster.save_model(\"model.txt\")",
    },
    Foreign {
        begins: |start| matches!(start, [0x80, 2..=5, ..]),
        what: "a Python pickle",
        advice: "export the model as ONNX, or save it in its library's own format",
    },
    Foreign {
        begins: |start| start.starts_with(b"\x89HDF"),
        what: "HDF5, as Keras and H2O write it",
        advice: "export a SavedModel with model.export(..), or ONNX",
    },
    Foreign {
        begins: |start| start.starts_with(b"PK\x03\x04"),
        what: "a zip archive, as Keras, PyTorch and MLeap write it",
        advice: "export the model as ONNX, or a SavedModel with model.export(..)",
    },
    Foreign {
        begins: |start| start.get(4..8) == Some(b"TFL3"),
        what: "a TensorFlow Lite model",
        advice: "export a SavedModel or ONNX",
    },
    Foreign {
        begins: |start| start.get(4..8) == Some(b"ORTM"),
        what: "onnxruntime's own format",
        advice: "publish the ONNX file that it was made from",
    },
    Foreign {
        begins: |start| start.trim_ascii_start().starts_with(b"<") && contains(start, "PMML"),
        what: "PMML",
        advice: "export the model as ONNX, or save it in its library's own format",
    },
    Foreign {
        begins: |start| {
            matches!(
                start,
                [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] | [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..]
            )
        },
        what: "a compressed file",
        advice: "publish it uncompressed; a compressed pickle (joblib) has to be exported as ONNX first",
    },
];

/// The error for bytes that no loader knows, where they are a well-known form of file.
pub(super) fn refusal(payload: &Payload) -> Option<LoadError> {
    let start = payload.peek(512);
    let found = FOREIGN.iter().find(|foreign| (foreign.begins)(&start))?;
    Some(LoadError::Foreign { what: found.what, advice: found.advice })
}

/// True where the text is JSON, behind `opening`, an object whose first member has this name.
fn is_json_of(start: &[u8], opening: &[u8], name: &str) -> bool {
    let text = start.trim_ascii_start().strip_prefix(opening).map(<[u8]>::trim_ascii_start);
    let text = text.and_then(|text| text.strip_prefix(b"{")).map(<[u8]>::trim_ascii_start);
    text.and_then(|text| text.strip_prefix(b"\"")?.strip_prefix(name.as_bytes()))
        .is_some_and(|rest| rest.first() == Some(&b'"'))
}

fn begins_with_tag(start: &[u8], tag: &[u8]) -> bool {
    start.trim_ascii_start().get(..tag.len()).is_some_and(|found| found.eq_ignore_ascii_case(tag))
}

fn contains(start: &[u8], word: &str) -> bool {
    start.windows(word.len()).any(|window| window == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Formats;

    #[test]
    fn a_file_of_the_wrong_kind_is_refused_with_what_to_do() {
        for (bytes, expected) in [
            (
                &b"binf\0\0\0\x3f\x0c"[..],
                "XGBoost's old binary format; save it with save_model(\"model.json\")",
            ),
            (b"[\n  { \"nodeid\": 0, \"depth\": 0", "a dump of XGBoost's trees"),
            (b"booster[0]:\n0:[f7<0.25] yes=1,no=2", "a dump of XGBoost's trees"),
            (b"{\"name\": \"tree\", \"num_tree_per_iteration\": 1}", "what LightGBM's dump_model gives"),
            (b"\x80\x04\x954'\0\0", "a Python pickle"),
            (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
            (b"<?xml version=\"1.0\"?>\n<PMML version=\"4.3\"", "PMML"),
            (b"x\x9c\xed\xbd", "a compressed file"),
            (b"", "empty; "),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "a Git LFS pointer"),
            (b"\n<!DOCTYPE html><html>", "a web page"),
            (b"\x40\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"F32\"", "a file of weights without a graph"),
        ] {
            let error =
                Formats::default().choose(None, &Payload::from(bytes.to_vec())).err().expect("an error");
            assert!(error.to_string().starts_with(&format!("the file is {expected}")), "{error}");
        }
    }
}
