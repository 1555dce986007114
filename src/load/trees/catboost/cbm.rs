//! `CatBoost`'s binary files, which `save_model` writes unless it is told otherwise: the four letters
//! `CBM1`, the size of a `FlatBuffers` message, the message, and behind it the tables of target
//! statistics. The schemas are `model.fbs`, `features.fbs` and `ctr_data.fbs` in `CatBoost`'s
//! `libs/model/flatbuffers`.
//!
//! The message becomes the document that the JSON form of the model would have been, so that there
//! is one reader of what a model means.

use std::collections::HashMap;

use super::super::document::{Room, Value, Wrong};
use super::ctr::Tables;
use super::flatbuffer::{Message, Table};

mod statistics;
use statistics::{statistic, statistics};

pub(super) const MAGIC: &[u8; 4] = b"CBM1";

/// The depth to which trees may grow; `CatBoost` itself goes to 16.
const MAX_DEPTH: usize = 100;

/// How many values, names and numbers among them, a feature, a tree, a split or a node is at most.
const VALUES: usize = 12;

/// The same of a statistic.
const STATISTIC_VALUES: usize = 24;

/// The document and the tables of a file; the document takes no more than `budget` bytes.
pub(super) fn read(bytes: &[u8], budget: u64) -> Result<(Value, Tables), Wrong> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| Wrong::new("not a CatBoost file"))?;
    let message = Message::new(sized(&mut rest)?);
    let core = message.root()?;
    let room = Room::new(budget);
    let trees = core.table(1)?.ok_or_else(|| Wrong::new("not a CatBoost file: there are no trees"))?;
    let parts = core.elements::<4>(3)?.len();
    let mut document = vec![
        ("model_info".to_owned(), info(&core, &room)?),
        ("features_info".to_owned(), features(&trees, &room)?),
        ("scale_and_bias".to_owned(), scale_and_bias(&trees)?),
    ];
    let splits = splits(&trees, &room)?;
    if trees.elements::<4>(10)?.is_empty() {
        document.push(("oblivious_trees".to_owned(), oblivious(&trees, &splits, &room)?));
    } else {
        document.push(("trees".to_owned(), Branches::new(&trees, &splits, &room)?.all(&trees)?));
    }
    // The statistics are the only part that a model without text features has.
    let tables = if parts > 0 { statistics(&mut rest)? } else { Tables::new() };
    Ok((Value::Object(document), tables))
}

/// A size of 32 bits, and as many bytes.
fn sized<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Wrong> {
    let size = number(rest)?;
    let (taken, left) = rest.split_at_checked(size).ok_or_else(short)?;
    *rest = left;
    Ok(taken)
}

fn number(rest: &mut &[u8]) -> Result<usize, Wrong> {
    let (size, left) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    *rest = left;
    Ok(u32::from_le_bytes(*size) as usize)
}

fn short() -> Wrong {
    Wrong::new("not a CatBoost file: expected more bytes at its end")
}

fn object(members: Vec<(&str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn int(value: i32) -> Value {
    Value::Number(f64::from(value))
}

fn float(value: f32) -> Value {
    Value::Number(f64::from(value))
}

fn list<T: Into<f64>>(values: impl Iterator<Item = T>) -> Value {
    Value::Numbers(values.map(Into::into).collect())
}

/// What is JSON inside of a text becomes a part of the document.
fn info(core: &Table<'_, '_>, room: &Room) -> Result<Value, Wrong> {
    let mut members = Vec::new();
    for entry in core.tables(2)? {
        let (key, value) = (entry.text(0)?, entry.text(1)?);
        if key.ends_with("params") && !value.is_empty() {
            members.push((key.to_owned(), Value::from_json_in(value.as_bytes(), room)?));
        }
    }
    Ok(Value::Object(members))
}

fn scale_and_bias(trees: &Table<'_, '_>) -> Result<Value, Wrong> {
    let many: Vec<f64> = trees.doubles(16)?.collect();
    let bias = if many.is_empty() { vec![trees.double(15, 0.0)?] } else { many };
    Ok(Value::List(vec![Value::Number(trees.double(14, 1.0)?), Value::Numbers(bias)]))
}

fn features(trees: &Table<'_, '_>, room: &Room) -> Result<Value, Wrong> {
    let place = |feature: &Table<'_, '_>, slot: usize| -> Result<Vec<(&str, Value)>, Wrong> {
        // Any number of features may be one and the same table.
        room.take(VALUES, 0)?;
        let (index, column) = (feature.int(slot, -1)?, feature.int(slot + 1, -1)?);
        Ok(vec![("feature_index", int(index)), ("flat_feature_index", int(column))])
    };
    let mut numbers = Vec::new();
    for feature in trees.tables(5)? {
        let mut members = place(&feature, 1)?;
        members.push(("borders", list(feature.floats(3)?)));
        let treatment = match feature.byte(5)? {
            1 => "AsFalse",
            2 => "AsTrue",
            _ => "AsIs",
        };
        members.push(("nan_value_treatment", text(treatment)));
        numbers.push(object(members));
    }
    let values: HashMap<i32, Table<'_, '_>> = trees
        .tables(6)?
        .into_iter()
        .map(|feature| Ok((feature.int(0, -1)?, feature)))
        .collect::<Result<_, Wrong>>()?;
    let mut categories = Vec::new();
    for feature in trees.tables(4)? {
        let mut members = place(&feature, 0)?;
        if let Some(values) = values.get(&feature.int(0, -1)?) {
            members.push(("values", list(values.ints(1)?)));
        }
        categories.push(object(members));
    }
    let mut statistics = Vec::new();
    for feature in trees.tables(7)? {
        statistics.push(statistic(&feature, room)?);
    }
    for (slot, kind) in [(12, "text"), (18, "embedding")] {
        if !trees.tables(slot)?.is_empty() {
            return Err(Wrong::new(format!("a model of {kind} features is not supported")));
        }
    }
    Ok(object(vec![
        ("float_features", Value::List(numbers)),
        ("categorical_features", Value::List(categories)),
        ("ctrs", Value::List(statistics)),
    ]))
}

/// Every split that a tree may have, in the order in which trees number them.
fn splits(trees: &Table<'_, '_>, room: &Room) -> Result<Vec<Value>, Wrong> {
    let mut splits = Vec::new();
    for feature in trees.tables(5)? {
        let index = feature.int(1, -1)?;
        room.take(VALUES * feature.floats(3)?.count(), 0)?;
        splits.extend(feature.floats(3)?.map(|border| {
            object(vec![
                ("split_type", text("FloatFeature")),
                ("float_feature_index", int(index)),
                ("border", float(border)),
            ])
        }));
    }
    for feature in trees.tables(6)? {
        let index = feature.int(0, -1)?;
        room.take(VALUES * feature.ints(1)?.count(), 0)?;
        splits.extend(feature.ints(1)?.map(|value| {
            object(vec![
                ("split_type", text("OneHotFeature")),
                ("cat_feature_index", int(index)),
                ("value", int(value)),
            ])
        }));
    }
    for feature in trees.tables(7)? {
        for _ in feature.floats(1)? {
            room.take(VALUES, 0)?;
            let number = f64::from(u32::try_from(splits.len()).unwrap_or(u32::MAX));
            splits.push(object(vec![
                ("split_type", text("OnlineCtr")),
                ("split_index", Value::Number(number)),
            ]));
        }
    }
    Ok(splits)
}

fn split(splits: &[Value], number: i32) -> Result<Value, Wrong> {
    let split = usize::try_from(number).ok().and_then(|number| splits.get(number));
    split
        .cloned()
        .ok_or_else(|| Wrong::new(format!("expected one of {} splits, found {number}", splits.len())))
}

fn dimension(trees: &Table<'_, '_>) -> Result<usize, Wrong> {
    let dimension = trees.int(0, 0)?;
    usize::try_from(dimension)
        .ok()
        .filter(|d| *d > 0)
        .ok_or_else(|| Wrong::new(format!("expected at least one score, found {dimension}")))
}

fn oblivious(trees: &Table<'_, '_>, splits: &[Value], room: &Room) -> Result<Value, Wrong> {
    let dimension = dimension(trees)?;
    let mut numbers = trees.ints(1)?;
    let mut leaves = trees.doubles(8)?;
    let mut all = Vec::new();
    for size in trees.ints(2)? {
        let depth = usize::try_from(size).ok().filter(|depth| *depth <= MAX_DEPTH);
        let depth =
            depth.ok_or_else(|| Wrong::new(format!("expected a depth to {MAX_DEPTH}, found {size}")))?;
        room.take(VALUES, 0)?;
        let mut of_tree = Vec::new();
        for number in numbers.by_ref().take(depth) {
            room.take(VALUES, 0)?;
            of_tree.push(split(splits, number)?);
        }
        let count = 1_usize.checked_shl(size.unsigned_abs()).and_then(|leaves| leaves.checked_mul(dimension));
        let values: Vec<f64> = leaves.by_ref().take(count.unwrap_or(usize::MAX)).collect();
        all.push(object(vec![("splits", Value::List(of_tree)), ("leaf_values", Value::Numbers(values))]));
    }
    Ok(Value::List(all))
}

/// The nodes of trees that are not symmetric.
struct Branches<'s> {
    splits: &'s [Value],
    numbers: Vec<i32>,
    /// Of each node how far behind it its children are, 0 for a leaf.
    steps: Vec<(usize, usize)>,
    leaf_of: Vec<usize>,
    values: Vec<f64>,
    dimension: usize,
    /// How many nodes may still be made: each is reached once.
    left: usize,
    room: &'s Room,
}

impl<'s> Branches<'s> {
    fn new(trees: &Table<'_, '_>, splits: &'s [Value], room: &'s Room) -> Result<Self, Wrong> {
        let step = |&[a, b, c, d]: &[u8; 4]| {
            (usize::from(u16::from_le_bytes([a, b])), usize::from(u16::from_le_bytes([c, d])))
        };
        let steps: Vec<_> = trees.elements(10)?.iter().map(step).collect();
        Ok(Self {
            splits,
            numbers: trees.ints(1)?.collect(),
            left: 2 * steps.len(),
            steps,
            leaf_of: trees.elements(11)?.iter().map(|bytes| u32::from_le_bytes(*bytes) as usize).collect(),
            values: trees.doubles(8)?.collect(),
            dimension: dimension(trees)?,
            room,
        })
    }

    fn all(mut self, trees: &Table<'_, '_>) -> Result<Value, Wrong> {
        let mut start = 0_usize;
        let mut all = Vec::new();
        for size in trees.ints(2)? {
            all.push(self.branch(start, 0)?);
            start = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        }
        Ok(Value::List(all))
    }

    fn branch(&mut self, node: usize, depth: usize) -> Result<Value, Wrong> {
        let missing = || Wrong::new(format!("not a CatBoost file: node {node} is not there"));
        self.left = self.left.checked_sub(1).ok_or_else(missing)?;
        self.room.take(2 * VALUES, 0)?;
        if depth > MAX_DEPTH {
            return Err(Wrong::new(format!("expected trees of a depth to {MAX_DEPTH}, found a deeper one")));
        }
        let (left, right) = *self.steps.get(node).ok_or_else(missing)?;
        if (left, right) == (0, 0) {
            return self.leaf(node);
        }
        let number = *self.numbers.get(node).ok_or_else(missing)?;
        let split = split(self.splits, number)?;
        let mut side = |step| if step == 0 { self.leaf(node) } else { self.branch(node + step, depth + 1) };
        let (left, right) = (side(left)?, side(right)?);
        Ok(object(vec![("split", split), ("left", left), ("right", right)]))
    }

    fn leaf(&self, node: usize) -> Result<Value, Wrong> {
        let missing = || Wrong::new(format!("not a CatBoost file: the leaf of node {node} is not there"));
        let first = *self.leaf_of.get(node).ok_or_else(missing)?;
        let end = first.checked_add(self.dimension).ok_or_else(missing)?;
        let values = self.values.get(first..end).ok_or_else(missing)?;
        self.room.take(VALUES, size_of_val(values))?;
        Ok(object(vec![("value", Value::Numbers(values.to_vec()))]))
    }
}
