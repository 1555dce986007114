//! This crate beside onnxruntime, bare tract and a model server, in one run.
//!
//! `benches/run peers` prints the tables and writes `target/bench/peers.json`. Arguments choose parts:
//! `models`, `overhead`, `threads`, `server`, `consumer`, `publish`; none means all. `BENCH_SECONDS` is
//! how long each contender works at each piece of work, 1 unless set; `BENCH_WORK` the models to take,
//! separated by commas.

mod consumer;
mod engines;
mod overhead;
mod publish;
mod server;
mod table;
mod turns;

#[path = "../../tests/kafka/broker/mod.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod broker;
#[path = "../support/mod.rs"]
mod support;

use engines::{BareTract, OnnxRuntime, Ours};
use server::{MlServer, OverGrpc, OverRest};
use support::Work;
use table::Target;
use turns::{Contender, Figure, Turns};

const BATCHES: [usize; 3] = [1, 32, 256];

/// What is scored, and the most that it may take of onnxruntime's time at each of [`BATCHES`].
const WORKS: [(&str, [f64; 3]); 10] = [
    ("forest", [0.25, 0.35, 0.35]),
    ("forest_depth_8", [0.25, 0.35, 0.35]),
    ("boosting", [0.15, 0.15, 0.15]),
    ("iris", [0.2, 0.5, 0.8]),
    ("pipeline", [0.2, 0.5, 0.8]),
    ("regression", [0.2, 0.5, 0.8]),
    ("mlp", [0.7, 0.9, 1.0]),
    ("cnn", [1.0, 1.0, 1.0]),
    ("lstm", [1.0, 1.0, 1.0]),
    ("mlp_100mb", [0.7, 0.9, 1.0]),
];

fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    let seconds = std::env::var("BENCH_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1.0);
    let turns = Turns::of(seconds);
    let mut figures = Vec::new();
    if wants("models") {
        println!("{}", table::heading("onnxruntime"));
        for (name, targets) in WORKS.into_iter().filter(|(name, _)| chosen(name)) {
            models(turns, name, targets, &mut figures);
        }
    }
    if wants("overhead") {
        figures.extend(overhead::overhead(turns));
    }
    if wants("threads") {
        figures.extend(overhead::threads(seconds));
    }
    if wants("server") {
        model_server(turns, &mut figures);
    }
    if wants("consumer") {
        figures.extend(consumer::consumer());
    }
    if wants("publish") {
        figures.extend(publish::publish());
    }
    table::write("peers.json", &figures);
}

fn chosen(name: &str) -> bool {
    std::env::var("BENCH_WORK").map_or(true, |names| names.split(',').any(|n| n == name))
}

fn models(turns: Turns, name: &str, targets: [f64; 3], figures: &mut Vec<Figure>) {
    let work = Work::read(name);
    for (batch, target) in BATCHES.into_iter().zip(targets) {
        let mut contenders: Vec<Box<dyn Contender>> =
            vec![Box::new(Ours::new(&work, batch)), Box::new(OnnxRuntime::new(&work, batch))];
        if let Some(tract) = BareTract::new(&work, batch, false) {
            contenders.push(Box::new(tract));
        }
        let found = turns.run(name, batch, &mut contenders);
        table::print(&found, "onnxruntime", Some(Target::AtMost(target)));
        figures.extend(found);
    }
}

fn model_server(turns: Turns, figures: &mut Vec<Figure>) {
    let Some(server) = MlServer::start() else {
        println!("\nMLServer is not installed: benches/run does it");
        return;
    };
    println!("\n{}", table::heading("modelswap"));
    let work = Work::read("pipeline");
    for batch in BATCHES {
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(Ours::new(&work, batch)),
            Box::new(OverGrpc::new(&server, &work, batch)),
            Box::new(OverRest::new(&server, &work, batch)),
        ];
        let mut found = turns.run("pipeline, over a network", batch, &mut contenders);
        let target = (batch == 1).then_some(Target::AtLeast(100.0));
        table::print(&found, "modelswap", target);
        figures.append(&mut found);
    }
}
