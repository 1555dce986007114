//! Several thousand damaged model files, of every format: none may abort the process, kill it,
//! hang, or make it grow without bound.
//!
//! The files are made from `fixtures/zoo` by a seeded generator, so that a failure can be repeated.
//! They are loaded, and run where they load, in child processes of this test: a crash is then a
//! failure of the test that names the file, and the limit on memory is the kernel's.
//! `MUTANTS=20000 cargo test --test mutation` tries more.
#![cfg(all(unix, feature = "onnx", feature = "tensorflow"))]

use std::path::{Path, PathBuf};

mod attempt;
mod mutants;
mod watch;

use attempt::{VALUES, attempt};
use mutants::{mutant, sources};
use watch::{Child, RANGE, Tally, watch};

/// How many files are tried where the environment does not say.
const MUTANTS: u64 = 4_000;
/// Has a child try the files that were made by hand.
const HOSTILE: &str = "hostile";
/// Has a child score hostile rows with models that do with them what they say.
const ROWS: &str = "hostile_rows";

#[test]
fn damaged_files_are_refused_and_nothing_else_happens() {
    let all: u64 = std::env::var("MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(MUTANTS);
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get() as u64).min(4);
    let each = all.div_ceil(workers);
    let tallies: Vec<Result<Tally, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || watch(&format!("{}..{}", worker * each, ((worker + 1) * each).min(all))))
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
    let all = files(HOSTILE).len() as u64;
    assert!(all > 80, "{all} files");
    let tally = watch(HOSTILE).unwrap();
    assert_eq!((tally.refused, tally.loaded), (all, 0));
}

/// Models whose sizes, counts, indices, divisors and texts come from the row, and rows that have
/// zero, negative, huge and no numbers there.
#[test]
fn hostile_rows_are_answered_or_refused_and_nothing_else_happens() {
    let all = files(ROWS).len() as u64;
    assert!(all > 80, "{all} files");
    let tally = watch(ROWS).unwrap();
    assert_eq!((tally.refused, tally.loaded), (0, all * VALUES.len() as u64));
}

/// What the children run; does nothing where it is not one.
#[test]
fn try_the_files_of_a_child() {
    let Some(range) = std::env::var(RANGE).ok() else { return };
    let child = Child::begin();
    match range.as_str() {
        HOSTILE => {
            for path in files(HOSTILE) {
                child.attempt(&path.display().to_string(), || attempt(std::fs::read(&path).unwrap(), None));
            }
        }
        ROWS => {
            for path in files(ROWS) {
                let model = attempt::load(std::fs::read(&path).unwrap(), None, attempt::SMALL_BUDGET);
                for value in VALUES {
                    child.attempt(&format!("rows of {value} on {}", path.display()), || {
                        for rows in [1, 16] {
                            model.iter().for_each(|model| attempt::run(&**model, rows, value));
                        }
                        model.is_some()
                    });
                }
            }
        }
        range => {
            let sources = sources();
            let (from, to) = range.split_once("..").unwrap();
            for number in from.parse().unwrap()..to.parse().unwrap() {
                let source = &sources[usize::try_from(number % sources.len() as u64).unwrap()];
                let (bytes, what) = mutant(number, source, &sources);
                let name = format!("{number} {} {what}", source.name);
                child.attempt(&name, || attempt(bytes, Some(source.format)));
            }
        }
    }
    child.end();
}

/// The files that were made by hand to do harm.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
