//! The damaged files: small files of the zoo, and a seeded generator of what happens to them.

use std::path::{Path, PathBuf};

use modelswap::load::pack_saved_model;
use serde::Deserialize;

/// Larger files only make the same mistakes more slowly.
const MAX_FILE: usize = 100_000;

/// A file that is to be damaged.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) format: &'static str,
    bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    file: String,
    format: String,
}

/// The small files of the zoo, of all formats in turn.
pub(crate) fn sources() -> Vec<Source> {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo");
    let entries: Vec<Entry> = serde_json::from_slice(&std::fs::read(zoo.join("zoo.json")).unwrap()).unwrap();
    let mut by_format: Vec<(String, Vec<Source>)> = Vec::new();
    for entry in entries {
        let path = zoo.join(&entry.name).join(&entry.file);
        let Some((format, bytes)) = artifact(&entry.format, &path) else { continue };
        let source = Source { name: entry.name, format, bytes };
        match by_format.iter_mut().find(|(known, _)| *known == entry.format) {
            Some((_, sources)) => sources.push(source),
            None => by_format.push((entry.format, vec![source])),
        }
    }
    assert!(by_format.len() >= 6, "files of {} formats", by_format.len());
    // Half of all are ONNX, the other half is shared by the other formats.
    let (mut onnx, others): (Vec<_>, Vec<_>) =
        by_format.into_iter().partition(|(format, _)| format == "onnx");
    let onnx = onnx.remove(0).1.into_iter();
    let mut others: Vec<_> = others.into_iter().map(|(_, sources)| sources.into_iter()).collect();
    let mut mixed = Vec::new();
    for (turn, source) in onnx.enumerate() {
        mixed.push(source);
        let count = others.len();
        mixed.extend((0..count).find_map(|i| others[(turn + i) % count].next()));
    }
    mixed
}

/// The bytes of a fixture as they would be published, where they are few.
fn artifact(format: &str, path: &PathBuf) -> Option<(&'static str, Vec<u8>)> {
    let format = match format {
        "onnx" => "onnx",
        "graphdef" if path.extension().is_some_and(|e| e == "pbtxt") => "tensorflow-text",
        "graphdef" => "tensorflow",
        "saved_model" => "saved-model",
        "xgboost" if path.extension().is_some_and(|e| e == "ubj") => "xgboost-ubj",
        "xgboost" => "xgboost-json",
        "lightgbm" => "lightgbm",
        "catboost" => "catboost",
        _ => return None,
    };
    let bytes = if path.is_dir() { pack_saved_model(path).ok()? } else { std::fs::read(path).ok()? };
    (bytes.len() <= MAX_FILE).then_some((format, bytes))
}

/// A damaged copy, always the same one for a number, and what was done to it.
pub(crate) fn mutant(number: u64, source: &Source, sources: &[Source]) -> (Vec<u8>, String) {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
    let mut bytes = source.bytes.clone();
    let mut done = Vec::new();
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(9) {
            0 | 1 => {
                for _ in 0..=random.below(8) {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
                done.push("flips".to_owned());
            }
            2 => {
                let value = [0x00, 0x01, 0x7f, 0x80, 0xff][random.below(5)];
                bytes[at] = value;
                done.push(format!("{value:#x} at {at}"));
            }
            3 => {
                bytes.truncate(at);
                done.push(format!("cut at {at}"));
            }
            4 => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
                done.push(format!("{at}..{end} left out"));
            }
            5 => {
                let other = &sources[random.below(sources.len())].bytes;
                let from = random.below(other.len());
                let part = &other[from..(from + 1 + random.below(256)).min(other.len())];
                let end = if random.below(2) == 0 { at } else { (at + part.len()).min(bytes.len()) };
                bytes.splice(at..end, part.iter().copied());
                done.push(format!("a piece of another file at {at}"));
            }
            6 => {
                // Where a length or a dimension stands, a huge one; elsewhere only noise.
                let huge: [&[u8]; 4] = [
                    &[0xff, 0xff, 0xff, 0xff, 0x0f],
                    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
                    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
                    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                ];
                bytes.splice(at..=at, huge[random.below(4)].iter().copied());
                done.push(format!("a huge length at {at}"));
            }
            7 => {
                let end = (at + 1 + random.below(128)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, part);
                done.push(format!("{at}..{end} again at {to}"));
            }
            _ => {
                // A number in a text, or what looks like one, becomes another.
                let digit = bytes.iter().skip(at).position(u8::is_ascii_digit).map(|i| at + i);
                if let Some(digit) = digit {
                    let value: &[u8] =
                        [&b"-1"[..], b"99999999999", b"1e400", b"0", b"4294967296"][random.below(5)];
                    bytes.splice(digit..=digit, value.iter().copied());
                    done.push(format!("another number at {digit}"));
                }
            }
        }
    }
    (bytes, done.join(", "))
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
