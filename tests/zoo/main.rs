//! Every model of `fixtures/zoo` through the path that a subscriber uses, against the answers of the
//! framework that made it: at the batch of its samples, and in pieces of 1 and of 7 rows.
//!
//! The same run writes `docs/what-loads.md`; `UPDATE_DOCS=1 cargo test --test zoo` rewrites it.
#![cfg(all(feature = "onnx", feature = "tensorflow"))]

mod catalogue;
mod page;
mod score;

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use catalogue::Entry;
use score::Outcome;

/// Recurrent models that load all the same would be welcome; those that do not have to say so well.
#[test]
fn every_model_answers_as_its_framework_does() {
    let failures: Vec<String> = outcomes()
        .iter()
        .filter_map(|(entry, outcome)| match outcome {
            Outcome::Agrees { .. } => None,
            Outcome::Refused(reason) => Some(format!("{}: refused: {reason}", entry.name)),
            Outcome::Differs(difference) => Some(format!("{}: {difference}", entry.name)),
        })
        .collect();
    let all = outcomes().len();
    assert!(all > 300, "the zoo has {all} models");
    assert!(failures.is_empty(), "{} of {all} models fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_page_of_what_loads_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/what-loads.md");
    let current = page::page(outcomes());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == current, "docs/what-loads.md is not current: UPDATE_DOCS=1 cargo test --test zoo");
}

/// What became of every model; they are scored once for all tests.
fn outcomes() -> &'static [(Entry, Outcome)] {
    static OUTCOMES: OnceLock<Vec<(Entry, Outcome)>> = OnceLock::new();
    OUTCOMES.get_or_init(|| {
        let entries = catalogue::read();
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let work = || {
            let mut done = Vec::new();
            while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.push((entry.clone(), score::score(entry)));
            }
            done
        };
        let mut outcomes: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        outcomes.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        outcomes
    })
}
