//! A child process that tries files, and how it is watched.
//!
//! The limits are on what the child does, not on how long it waits for a core: it measures the time
//! that it computes and the memory that it has, and tells which file went over.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use cpu_time::ProcessTime;

/// Set in a child: what it is to try.
pub(crate) const RANGE: &str = "MODELSWAP_MUTANTS";

/// The longest that a child may compute for one file.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// The longest that a child may say nothing, computing or not.
const SILENCE: Duration = Duration::from_secs(200);
/// The address space of a child: far more than any of these files needs, far less than some ask for.
const ADDRESS_SPACE: u64 = 6 << 30;
/// The most memory that a child may have at a time: several times the budget of a model.
const PEAK: u64 = 1200 << 20;
/// The most that a child may keep, however many files it has tried.
const KEPT: u64 = 700 << 20;

/// What became of the files of a child.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) refused: u64,
    pub(crate) loaded: u64,
}

/// The child's side: its limits, and what it tells.
pub(crate) struct Child {
    began: Arc<AtomicU64>,
}

impl Child {
    /// Bounds this process.
    pub(crate) fn begin() -> Self {
        let limit = rustix::process::Rlimit { current: Some(ADDRESS_SPACE), maximum: Some(ADDRESS_SPACE) };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
        // Caught panics are allowed; their backtraces would drown the rest.
        std::panic::set_hook(Box::new(|_| {}));
        let began = Arc::new(AtomicU64::new(computed()));
        let of_file = Arc::clone(&began);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(100));
                if Duration::from_millis(computed() - of_file.load(Ordering::Relaxed)) > TIME_LIMIT {
                    say("over it computes for more than 10 s");
                    std::process::exit(1);
                }
            }
        });
        Self { began }
    }

    /// Tries one file; `work` tells whether it loaded.
    pub(crate) fn attempt(&self, name: &str, work: impl FnOnce() -> bool) {
        self.began.store(computed(), Ordering::Relaxed);
        say(&format!("try {name}"));
        say(if work() { "loaded" } else { "refused" });
        for (field, most, what) in [("VmHWM", PEAK, "had"), ("VmRSS", KEPT, "keeps")] {
            let found = memory(field);
            if found > most {
                say(&format!("over it {what} {} MB, and may have {} MB", found >> 20, most >> 20));
                std::process::exit(1);
            }
        }
    }

    /// Tells that all files were tried.
    pub(crate) fn end(self) {
        drop(self);
        say("end");
    }
}

/// Runs a child over these files, and says what ended it.
pub(crate) fn watch(range: &str) -> Result<Tally, String> {
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
    let ended = loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                // The harness puts a name before the first line.
                if let Some(at) = line.find("try ") {
                    line.get(at..).unwrap_or_default().clone_into(&mut current);
                } else if let Some(what) = line.strip_prefix("over ") {
                    break Err(format!("{what}: {current}"));
                }
                match line.as_str() {
                    "loaded" => tally.loaded += 1,
                    "refused" => tally.refused += 1,
                    "end" => break Ok(()),
                    _ => {}
                }
            }
            Err(RecvTimeoutError::Timeout) => break Err(format!("waits without end: {current}")),
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

/// One line to the parent, at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// The milliseconds that this process has computed.
fn computed() -> u64 {
    u64::try_from(ProcessTime::now().as_duration().as_millis()).unwrap()
}

/// A figure of this process's memory, in bytes; 0 where the system does not tell.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}
