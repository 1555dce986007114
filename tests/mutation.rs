//! Several thousand damaged model files, of every format: none may abort the process, kill it,
//! hang, or make it grow without bound.
//!
//! The files are made from `fixtures/zoo` by a seeded generator, so that a failure can be repeated.
//! They are loaded, and run where they load, in child processes of this test: a crash is then a
//! failure of the test that names the file, and the limit on memory is the kernel's.
//! `MUTANTS=20000 cargo test --test mutation` tries more.
#![cfg(all(unix, feature = "onnx", feature = "tensorflow"))]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use modelswap::load::{Formats, LoadOptions, Model, Payload, pack_saved_model};
use modelswap::{Dim, ElementType, Tensor, TensorView};
use serde::Deserialize;

/// How many files are tried where the environment does not say.
const MUTANTS: u64 = 4_000;
/// The longest that one file may take; what is slow on a busy machine is not what hangs.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// The address space of a child: far more than any of these files needs, far less than some ask for.
const ADDRESS_SPACE: u64 = 6 << 30;
const MEMORY_BUDGET: u64 = 256 << 20;
/// Larger files only make the same mistakes more slowly.
const MAX_FILE: usize = 100_000;
/// Set in a child: the numbers of the files that it is to try, `from..to`, or [`HOSTILE`].
const RANGE: &str = "MODELSWAP_MUTANTS";
/// Has a child try the files that were made by hand.
const HOSTILE: &str = "hostile";

#[test]
fn damaged_files_are_refused_and_nothing_else_happens() {
    let all: u64 = std::env::var("MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(MUTANTS);
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get() as u64).min(4);
    let each = all.div_ceil(workers);
    let tallies: Vec<Result<Tally, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || watch(format!("{}..{}", worker * each, ((worker + 1) * each).min(all))))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let failures: Vec<_> = tallies.iter().filter_map(|t| t.as_ref().err()).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    let (refused, loaded) = tallies.iter().flatten().fold((0, 0), |(r, l), t| (r + t.refused, l + t.loaded));
    assert_eq!(refused + loaded, all, "every file was tried");
    assert!(refused > all / 4, "only {refused} of {all} were refused: are the files damaged at all?");
    assert!(loaded > all / 100, "only {loaded} of {all} loaded: nothing behind the first check was tried");
}

/// Each of them asks for something without end: a tensor of 2^36 elements, a sum of itself, a tree that
/// comes back to its root.
#[test]
fn hostile_files_are_refused_and_nothing_else_happens() {
    let all = hostile().len() as u64;
    assert!(all > 80, "{all} files");
    let tally = watch(HOSTILE.to_owned()).unwrap();
    assert_eq!((tally.refused, tally.loaded), (all, 0));
}

/// What the children run; does nothing where it is not one.
#[test]
fn try_the_files_of_a_child() {
    let Some(range) = std::env::var(RANGE).ok() else { return };
    let limit = rustix::process::Rlimit { current: Some(ADDRESS_SPACE), maximum: Some(ADDRESS_SPACE) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    // Caught panics are allowed; their backtraces would drown the rest.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout();
    if range == HOSTILE {
        for path in hostile() {
            writeln!(out, "try {}", path.display()).unwrap();
            out.flush().unwrap();
            let outcome = attempt(std::fs::read(&path).unwrap(), None);
            writeln!(out, "{} {}", if outcome { "loaded" } else { "refused" }, path.display()).unwrap();
        }
        writeln!(out, "end").unwrap();
        return;
    }
    let sources = sources();
    let (from, to) = range.split_once("..").unwrap();
    for number in from.parse().unwrap()..to.parse().unwrap() {
        let source = &sources[usize::try_from(number % sources.len() as u64).unwrap()];
        let (bytes, what) = mutant(number, source, &sources);
        writeln!(out, "try {number} {} {what}", source.name).unwrap();
        out.flush().unwrap();
        let outcome = attempt(bytes, Some(source.format));
        writeln!(out, "{} {number}", if outcome { "loaded" } else { "refused" }).unwrap();
    }
    writeln!(out, "end").unwrap();
    out.flush().unwrap();
}

#[derive(Default)]
struct Tally {
    refused: u64,
    loaded: u64,
}

/// Runs a child over these files, and says what ended it.
fn watch(range: String) -> Result<Tally, String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "try_the_files_of_a_child", "--nocapture", "--test-threads", "1"])
        .env(RANGE, range)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let output = child.stdout.take().unwrap();
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut tally = Tally::default();
    let mut current = "nothing".to_owned();
    let mut started = Instant::now();
    let ended = loop {
        match lines.recv_timeout(TIME_LIMIT) {
            Ok(line) => {
                // The harness puts a name before the first line.
                if let Some(at) = line.find("try ") {
                    line.get(at..).unwrap_or_default().clone_into(&mut current);
                    started = Instant::now();
                } else if line.starts_with("loaded ") {
                    tally.loaded += 1;
                } else if line.starts_with("refused ") {
                    tally.refused += 1;
                } else if line == "end" {
                    break Ok(());
                }
                if started.elapsed() > TIME_LIMIT {
                    break Err(format!("took {:?}: {current}", started.elapsed()));
                }
            }
            Err(RecvTimeoutError::Timeout) => break Err(format!("hangs: {current}")),
            Err(RecvTimeoutError::Disconnected) => break Err(format!("the process died: {current}")),
        }
    };
    if ended.is_err() {
        // It may be gone already.
        drop(child.kill());
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    drop(lines);
    drop(reader.join());
    ended.map_err(|e| format!("{e} ({status})"))?;
    Ok(tally)
}

/// Loads the bytes as a subscriber would, and scores two rows with what loads.
fn attempt(bytes: Vec<u8>, format: Option<&str>) -> bool {
    let mut options = LoadOptions::default();
    options.memory_budget = MEMORY_BUDGET;
    let payload = Payload::from(bytes);
    let formats = Formats::default();
    let loader = formats.choose(None, &payload).or_else(|error| match format {
        Some(format) => formats.choose(Some(format), &payload),
        None => Err(error),
    });
    let Ok(loader) = loader else { return false };
    let Ok(model) = loader.load(payload, &options) else { return false };
    for rows in [1, 2] {
        run(&*model, rows);
    }
    true
}

/// An error is as good as an answer here; a panic would end the child.
fn run(model: &dyn Model, rows: usize) {
    let inputs: Option<Vec<Tensor>> = model
        .signature()
        .inputs()
        .iter()
        .map(|spec| {
            let fixed = |(axis, dim): (usize, &Dim)| dim.fixed().unwrap_or(if axis == 0 { rows } else { 3 });
            let dims: Vec<usize> = spec.dims()?.iter().enumerate().map(fixed).collect();
            let elements = dims.iter().product();
            // Values, not shapes, are what is tried here.
            if elements > 1 << 24 {
                return None;
            }
            match spec.element_type() {
                ElementType::F32 => Tensor::new(&dims, vec![0.5_f32; elements]),
                ElementType::F64 => Tensor::new(&dims, vec![0.5_f64; elements]),
                ElementType::I32 => Tensor::new(&dims, vec![1_i32; elements]),
                ElementType::I64 => Tensor::new(&dims, vec![1_i64; elements]),
                ElementType::Bool => Tensor::new(&dims, vec![true; elements]),
                ElementType::String => Tensor::new(&dims, vec!["a".to_owned(); elements]),
                _ => return None,
            }
            .ok()
        })
        .collect();
    let Some(inputs) = inputs else { return };
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let mut outputs = vec![Tensor::default(); model.signature().outputs().len()];
    drop(model.run(&views, &mut outputs));
}

/// The files that were made by hand to do harm.
fn hostile() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/hostile");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A file that is to be damaged.
struct Source {
    name: String,
    format: &'static str,
    bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    file: String,
    format: String,
}

/// The small files of the zoo, of all formats in turn.
fn sources() -> Vec<Source> {
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
    let mut turn = 0;
    for source in onnx {
        mixed.push(source);
        let count = others.len();
        mixed.extend((0..count).find_map(|i| others[(turn + i) % count].next()));
        turn += 1;
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
fn mutant(number: u64, source: &Source, sources: &[Source]) -> (Vec<u8>, String) {
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
