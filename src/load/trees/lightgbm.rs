//! `LightGBM`'s own files, the text that `Booster.save_model` writes.

use std::collections::HashMap;
use std::sync::Arc;

use super::document::Wrong;
use super::lightgbm_tree;
use super::model::{Link, Parts, Scorer, TreeModel};
use crate::kernel::tree::builder::{Builder, MAX_FEATURES, MAX_TARGETS};
use crate::load::{LoadError, LoadOptions, Loader, Model, Payload};

/// The most lines of the header or of a tree; `LightGBM` writes some twenty.
const MAX_FIELDS: usize = 1000;

/// Loads `model.txt`.
#[derive(Debug)]
pub(super) struct Lightgbm;

impl Loader for Lightgbm {
    fn format(&self) -> &'static str {
        "lightgbm"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        let start = payload.peek(64);
        let mut lines = start.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        lines.next() == Some(b"tree") && lines.next().is_some_and(|line| line.contains(&b'='))
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        let bytes = payload.into_bytes();
        std::str::from_utf8(&bytes)
            .map_err(|error| Wrong::new(format!("not text in UTF-8: {error}")))
            .and_then(|text| read(text, options.memory_budget))
            .map_err(|Wrong(reason)| LoadError::Malformed { format: "lightgbm", reason })
            .map(TreeModel::build)
    }
}

fn read(text: &str, budget: u64) -> Result<Parts, Wrong> {
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("tree") {
        return Err(Wrong::new("expected `tree` as the first line"));
    }
    let mut sections = Sections { lines, next: Some(String::from("the header")) };
    let Some(header) = sections.next() else { return Err(Wrong::new("no header")) };
    let header = header?;
    let features = header.count("max_feature_idx", MAX_FEATURES - 1)? + 1;
    let targets = match header.find("num_tree_per_iteration") {
        Some(_) => header.count("num_tree_per_iteration", MAX_TARGETS)?,
        None => header.count("num_class", MAX_TARGETS)?,
    };
    if targets == 0 {
        return Err(Wrong::new("`num_tree_per_iteration`: expected at least 1, found 0"));
    }
    let link = link(header.find("objective").unwrap_or(""))?;
    let average = header.find("average_output").is_some();

    let mut builder = Builder::new(budget);
    let mut linear = Vec::new();
    let mut any_linear = false;
    let mut trees = 0;
    for section in sections {
        let tree = lightgbm_tree::Tree::read(&section?, trees, features)?;
        any_linear |= tree.is_linear();
        tree.add(trees % targets, &mut builder, &mut linear)?;
        trees += 1;
    }
    if trees % targets != 0 {
        return Err(Wrong::new(format!("expected a multiple of {targets} trees, found {trees}")));
    }
    if any_linear {
        builder.number_leaves();
    }
    let forest = builder.finish(targets)?;
    let ensemble = Scorer::double("LightGBM", forest).map_err(Wrong)?;
    #[expect(clippy::cast_precision_loss, reason = "there are fewer trees than 2^53")]
    let scale = if average { 1.0 / (trees / targets).max(1) as f64 } else { 1.0 };
    let scorer = if any_linear { Scorer::LinearLeaves(ensemble, linear) } else { Scorer::Double(ensemble) };
    Ok(Parts { library: "LightGBM", features, scorer, scale, bias: Vec::new(), link, labels: None })
}

/// How the objective, with its parameters behind it, makes raw scores what `predict` gives.
fn link(objective: &str) -> Result<Link, Wrong> {
    let mut words = objective.split_whitespace();
    let name = words.next().unwrap_or("");
    let mut sigmoid = 1.0;
    let mut sqrt = false;
    for word in words {
        if word == "sqrt" {
            sqrt = true;
        } else if let Some(value) = word.strip_prefix("sigmoid:") {
            sigmoid = value.parse().map_err(|_| {
                Wrong::new(format!("`objective`: expected a number after sigmoid, found `{value}`"))
            })?;
        }
    }
    Ok(match name {
        "binary" | "multiclassova" => Link::Logistic { scale: sigmoid },
        "cross_entropy" | "xentropy" => Link::Logistic { scale: 1.0 },
        "cross_entropy_lambda" | "xentlambda" => Link::Softplus,
        "multiclass" => Link::Softmax,
        "poisson" | "gamma" | "tweedie" => Link::Exp,
        "" | "none" | "custom" | "lambdarank" | "rank_xendcg" => Link::Identity,
        "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape" => {
            if sqrt {
                Link::SignedSquare
            } else {
                Link::Identity
            }
        }
        _ => return Err(Wrong::new(format!("`objective`: expected one of LightGBM's, found `{name}`"))),
    })
}

/// The header and then the trees, each as its lines of `name=value`.
struct Sections<'a> {
    lines: std::str::Lines<'a>,
    /// What the section that comes next is called; `None` at the end.
    next: Option<String>,
}

/// The fields of the header or of a tree.
pub(super) struct Section<'a> {
    name: String,
    fields: HashMap<&'a str, &'a str>,
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<Section<'a>, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.next.take()?;
        let mut fields = HashMap::new();
        for line in self.lines.by_ref() {
            let line = line.trim_end();
            if line == "end of trees" {
                return Some(Ok(Section { name, fields }));
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            if key == "Tree" {
                self.next = Some(format!("tree {value}"));
                return Some(Ok(Section { name, fields }));
            }
            if !key.is_empty() {
                fields.insert(key, value);
                if fields.len() > MAX_FIELDS {
                    return Some(Err(Wrong::new(format!("{name}: more than {MAX_FIELDS} different lines"))));
                }
            }
        }
        // Very old files have no such line, but then they end with the parameters.
        Some(Err(Wrong::new(format!("{name}: expected `end of trees` behind it, found the end of the file"))))
    }
}

impl<'a> Section<'a> {
    pub(super) fn find(&self, key: &str) -> Option<&'a str> {
        self.fields.get(key).copied()
    }

    pub(super) fn get(&self, key: &str) -> Result<&'a str, Wrong> {
        self.find(key).ok_or_else(|| Wrong::new(format!("{}: no line `{key}=`", self.name)))
    }

    /// A whole number from 0 to `limit`.
    pub(super) fn count(&self, key: &str, limit: usize) -> Result<usize, Wrong> {
        let value = self.get(key)?;
        value.trim().parse().ok().filter(|count| *count <= limit).ok_or_else(|| {
            Wrong::new(format!(
                "{}: `{key}`: expected a whole number up to {limit}, found `{}`",
                self.name,
                shortened(value)
            ))
        })
    }

    /// Numbers, exactly as many as expected.
    pub(super) fn numbers<T: std::str::FromStr>(&self, key: &str, expected: usize) -> Result<Vec<T>, Wrong> {
        let values = self.list(key)?;
        if values.len() == expected {
            return Ok(values);
        }
        let name = &self.name;
        Err(Wrong::new(format!("{name}: `{key}`: expected {expected} values, found {}", values.len())))
    }

    /// Numbers, as many as there are.
    pub(super) fn list<T: std::str::FromStr>(&self, key: &str) -> Result<Vec<T>, Wrong> {
        self.get(key)?
            .split_ascii_whitespace()
            .map(|value| {
                value.parse().map_err(|_| {
                    Wrong::new(format!(
                        "{}: `{key}`: expected numbers, found `{}`",
                        self.name,
                        shortened(value)
                    ))
                })
            })
            .collect()
    }

    pub(super) fn wrong(&self, what: &str) -> Wrong {
        Wrong::new(format!("{}: {what}", self.name))
    }
}

fn shortened(value: &str) -> &str {
    value.char_indices().nth(40).map_or(value, |(end, _)| value.get(..end).unwrap_or(value))
}
