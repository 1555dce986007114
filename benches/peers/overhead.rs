//! What the scorer costs beside the engine, and what a second thread brings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use modelswap::load::Model;
use modelswap::{Scorer, TensorView};

use crate::engines::{BareTract, Ours};
use crate::support::{Served, Work, compute};
use crate::table;
use crate::turns::{Contender, Figure, Turns, quantile};

/// The MLP at batch 1: the live scorer, its engine without the scorer, and bare tract.
pub(crate) fn overhead(turns: Turns) -> Vec<Figure> {
    println!("\n{}", table::heading("bare engine"));
    let work = Work::read("mlp");
    let bare_tract = |prepared| Box::new(BareTract::new(&work, 1, prepared).expect("an MLP"));
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(Ours::new(&work, 1)),
        Box::new(BareEngine { model: work.load(), work: &work, rows: work.batches(1), out: [0.0] }),
        bare_tract(false),
        bare_tract(true),
    ];
    // A call is hardly longer than a look at the clock.
    let figures = turns.calls(64).run("scorer's overhead, mlp", 1, &mut contenders);
    table::print(&figures, "bare engine", None);
    if let [ours, engine, tract, prepared] = &figures[..] {
        let percent = |base: &Figure| format!("{:+.1} %", 100.0 * (ours.p50_ns / base.p50_ns - 1.0));
        table::line("overhead over the bare engine", percent(engine), "1 %");
        table::line("overhead over a bare reused tract state", percent(tract), "1 %");
        table::line("the same, its input made beforehand", percent(prepared), "1 %");
    }
    figures
}

/// The engine of this crate without the scorer around it.
struct BareEngine<'a> {
    model: Arc<dyn Model>,
    work: &'a Work,
    rows: Vec<&'a [f32]>,
    out: [f32; 1],
}

impl Contender for BareEngine<'_> {
    fn name(&self) -> &'static str {
        "bare engine"
    }

    fn call(&mut self, index: usize) {
        let row = self.rows[index % self.rows.len()];
        let view = TensorView::new(&[1, self.work.width()], row).unwrap();
        self.model.run_into(&[view], &mut self.out).unwrap();
    }

    fn scores(&mut self) -> Option<Vec<f32>> {
        Some(self.out.to_vec())
    }
}

/// What two threads score over what one does, with one scorer for both; and what two threads do over
/// one that touch no memory at all, which is what the machine has to give.
pub(crate) fn threads(seconds: f64) -> Vec<Figure> {
    println!();
    let turn = Duration::from_secs_f64(seconds / 10.0);
    let mut figures = Vec::new();
    figures.extend(on_threads("a loop over registers", turn, &|| {
        for _ in 0..1000 {
            compute(64);
        }
        1000
    }));
    for name in ["iris", "boosting", "mlp"] {
        let work = Work::read(name);
        let served = Served::start(&work);
        let scores = work.scores().0;
        let rows = work.batches(1);
        figures.extend(on_threads(name, turn, &|| {
            // On cache lines that no other thread writes to.
            let mut memory = vec![0.0; scores + 64];
            let out = &mut memory[32..32 + scores];
            for row in rows.iter().cycle().take(1024) {
                served.scorer.predict_into(row, out).unwrap();
            }
            1024
        }));
    }
    figures
}

/// `work` answers how many calls it has made.
fn on_threads(name: &str, turn: Duration, work: &(dyn Fn() -> u32 + Sync)) -> [Figure; 2] {
    let mut rates = [Vec::new(), Vec::new()];
    let (begin, taken) = (Instant::now(), stolen());
    for _ in 0..10 {
        for (threads, rates) in [1, 2].into_iter().zip(&mut rates) {
            rates.push(rate(threads, turn, work));
        }
    }
    rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
    let [one, two] = [&rates[0], &rates[1]].map(|rates| quantile(rates, 0.5));
    let taken = 100.0 * (stolen() - taken) / begin.elapsed().as_secs_f64();
    table::line(
        &format!("{name}: calls a second by two threads over one"),
        format!("{two:.0} / {one:.0} = {:.2}, the host took {taken:.0} % of a processor", two / one),
        "1.9",
    );
    [1, 2].map(|threads| {
        let rates = &rates[threads - 1];
        Figure {
            work: format!("threads, {name}"),
            batch: 1,
            contender: format!("{threads} threads"),
            p50_ns: 1e9 / quantile(rates, 0.5),
            p99_ns: 1e9 / quantile(rates, 0.01),
            rows_per_s: quantile(rates, 0.5),
        }
    })
}

/// For how many seconds so far processors had something to do, and the host gave them to somebody else.
fn stolen() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.split_whitespace().nth(8).and_then(|ticks| ticks.parse::<f64>().ok());
    ticks.unwrap_or(0.0) / TICKS_PER_SECOND
}

/// The calls a second that so many threads make together.
fn rate(threads: usize, turn: Duration, work: &(dyn Fn() -> u32 + Sync)) -> f64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let count = || {
            let start = Instant::now();
            let mut calls = 0.0;
            while !done.load(Ordering::Relaxed) {
                calls += f64::from(work());
            }
            calls / start.elapsed().as_secs_f64()
        };
        let counting: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        std::thread::sleep(turn);
        done.store(true, Ordering::Relaxed);
        counting.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}
