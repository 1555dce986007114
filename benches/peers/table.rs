//! Printing and writing the figures.

use std::fmt::Display;

use crate::support::folder;
use crate::turns::Figure;

/// What a ratio is to be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

pub(crate) fn heading(base: &str) -> String {
    format!(
        "| work | batch | contender | p50 us | p99 us | rows/s | p50 over {base}'s | target |\n\
         |---|---|---|---|---|---|---|---|"
    )
}

/// One line for each figure. The target is that of the ratio between this crate and the others.
pub(crate) fn print(figures: &[Figure], base: &str, target: Option<Target>) {
    let base = figures.iter().find(|f| f.contender == base).map_or(f64::NAN, |f| f.p50_ns);
    for figure in figures {
        let ratio = figure.p50_ns / base;
        let verdict = match target {
            Some(Target::AtMost(most)) if figure.contender == "modelswap" => {
                verdict("<=", most, ratio <= most)
            }
            Some(Target::AtLeast(least)) if figure.contender != "modelswap" => {
                verdict(">=", least, ratio >= least)
            }
            _ => String::new(),
        };
        println!(
            "| {} | {} | {} | {:.2} | {:.2} | {:.0} | {ratio:.3} | {verdict} |",
            figure.work,
            figure.batch,
            figure.contender,
            figure.p50_ns / 1e3,
            figure.p99_ns / 1e3,
            figure.rows_per_s,
        );
    }
}

fn verdict(sign: &str, bound: f64, reached: bool) -> String {
    format!("{sign} {bound}: {}", if reached { "reached" } else { "not reached" })
}

/// A line below a table.
pub(crate) fn line(what: &str, found: impl Display, target: &str) {
    println!("{what}: {found} (target: {target})");
}

/// Writes figures to `target/bench`; those of other pieces of work that are there stay.
pub(crate) fn write(name: &str, figures: &[Figure]) {
    let path = folder().join(name);
    let same = |value: &serde_json::Value| {
        figures.iter().any(|f| value["work"] == *f.work && value["batch"] == f.batch)
    };
    let mut all: Vec<serde_json::Value> =
        std::fs::read(&path).ok().and_then(|old| serde_json::from_slice(&old).ok()).unwrap_or_default();
    all.retain(|value| !same(value));
    all.extend(figures.iter().map(|f| serde_json::to_value(f).unwrap()));
    std::fs::write(&path, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
    println!("\n{}", path.display());
}
