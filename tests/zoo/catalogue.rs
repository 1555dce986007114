//! `zoo.json`: which models there are, and how closely they have to agree.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One model of the zoo.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Entry {
    pub name: String,
    file: String,
    pub format: String,
    pub exporter: String,
    pub kind: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub signature: Option<String>,
    pub rtol: f64,
    pub atol: f64,
    pub note: String,
    batches: Vec<usize>,
}

impl Entry {
    pub(crate) fn model(&self) -> PathBuf {
        self.folder().join(&self.file)
    }

    /// The directories of samples, with the number of rows in each.
    pub(crate) fn samples(&self) -> impl Iterator<Item = (usize, PathBuf)> {
        self.batches.iter().map(|batch| (*batch, self.folder().join(format!("batch_{batch}"))))
    }

    fn folder(&self) -> PathBuf {
        zoo().join(&self.name)
    }
}

/// All models of the zoo.
pub(crate) fn read() -> Vec<Entry> {
    let text = std::fs::read(zoo().join("zoo.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn zoo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo")
}
