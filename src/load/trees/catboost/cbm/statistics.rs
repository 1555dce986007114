//! The target statistics of a `cbm` file: which a model has, and their tables.

use std::collections::HashMap;

use super::super::super::document::{Room, Value, Wrong};
use super::super::ctr::{Base, Combination, Counts, Kind, Table as CountTable, Tables};
use super::super::flatbuffer::{Message, Table};
use super::{STATISTIC_VALUES, VALUES, float, int, list, number, object, sized, text};

pub(super) fn statistic(feature: &Table<'_, '_>, room: &Room) -> Result<Value, Wrong> {
    let missing = || Wrong::new("not a CatBoost file: a statistic is not whole");
    let ctr = feature.table(0)?.ok_or_else(missing)?;
    let base = base(&ctr.table(0)?.ok_or_else(missing)?)?;
    let index = |index: &usize| Value::Number(f64::from(u32::try_from(*index).unwrap_or(u32::MAX)));
    let element = |kind, members: Vec<(&'static str, Value)>| {
        object(members.into_iter().chain([("combination_element", text(kind))]).collect())
    };
    let combined = &base.combination;
    let elements = combined.categories.len() + combined.above.len() + combined.is.len();
    room.take(STATISTIC_VALUES + elements.saturating_mul(VALUES), 0)?;
    let categories = combined
        .categories
        .iter()
        .map(|c| element("cat_feature_value", vec![("cat_feature_index", index(c))]));
    let above = combined.above.iter().map(|(feature, border)| {
        let border = float(f32::from_bits(*border));
        element("float_feature", vec![("float_feature_index", index(feature)), ("border", border)])
    });
    let is = combined.is.iter().map(|(feature, hash)| {
        let hash = Value::Number(f64::from(*hash));
        element("cat_feature_exact_value", vec![("cat_feature_index", index(feature)), ("value", hash)])
    });
    Ok(object(vec![
        ("ctr_type", text(&base.name)),
        ("elements", Value::List(categories.chain(above).chain(is).collect())),
        ("target_border_idx", int(ctr.int(1, 0)?)),
        ("prior_numerator", float(ctr.float(2, 0.0)?)),
        ("prior_denomerator", float(ctr.float(3, 1.0)?)),
        ("shift", float(ctr.float(4, 0.0)?)),
        ("scale", float(ctr.float(5, 1.0)?)),
        ("borders", list(feature.floats(1)?)),
    ]))
}

fn base(table: &Table<'_, '_>) -> Result<Base, Wrong> {
    let (kind, name) = match table.byte(1)? {
        0 => (Kind::Borders, "Borders"),
        1 => (Kind::Buckets, "Buckets"),
        2 => (Kind::Mean, "BinarizedTargetMeanValue"),
        3 => (Kind::Mean, "FloatTargetMeanValue"),
        4 => (Kind::Total, "Counter"),
        5 => (Kind::Total, "FeatureFreq"),
        other => {
            return Err(Wrong::new(format!("expected a type of target statistics, found number {other}")));
        }
    };
    let mut combination = Combination::default();
    if let Some(combined) = table.table(0)? {
        let index = |bytes| {
            let index = i32::from_le_bytes(bytes);
            usize::try_from(index)
                .map_err(|_| Wrong::new(format!("expected a feature from 0, found {index}")))
        };
        // Pairs of a feature and a value.
        let pair =
            |&[a, b, c, d, value @ ..]: &[u8; 8]| Ok((index([a, b, c, d])?, u32::from_le_bytes(value)));
        combination.categories =
            combined.elements(0)?.iter().copied().map(index).collect::<Result<_, _>>()?;
        combination.above = combined.elements(1)?.iter().map(pair).collect::<Result<_, Wrong>>()?;
        combination.is = combined.elements(2)?.iter().map(pair).collect::<Result<_, Wrong>>()?;
    }
    Ok(Base { kind, name: name.to_owned(), combination })
}

/// The tables, each a message of its own.
pub(super) fn statistics(rest: &mut &[u8]) -> Result<Tables, Wrong> {
    let mut tables = Tables::new();
    for _ in 0..number(rest)? {
        let message = Message::new(sized(rest)?);
        let table = message.root()?;
        let base = table.table(0)?.ok_or_else(|| Wrong::new("not a CatBoost file: a table is not whole"))?;
        let base = self::base(&base)?;
        let mut buckets = HashMap::new();
        for &[a, b, c, d, e, f, g, h, bucket @ ..] in
            table.elements::<1>(1)?.as_flattened().as_chunks::<12>().0
        {
            let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            if hash != u64::MAX {
                buckets.insert(hash, u32::from_le_bytes(bucket));
            }
        }
        let ints = || -> Result<Vec<i32>, Wrong> {
            Ok(table
                .elements::<1>(2)?
                .as_flattened()
                .as_chunks()
                .0
                .iter()
                .copied()
                .map(i32::from_le_bytes)
                .collect())
        };
        let counts = match base.kind {
            Kind::Mean => {
                let pairs = table.elements::<1>(2)?.as_flattened().as_chunks::<8>().0;
                #[expect(clippy::cast_precision_loss, reason = "CatBoost computes in f32")]
                let pair = |&[a, b, c, d, count @ ..]: &[u8; 8]| {
                    (f32::from_le_bytes([a, b, c, d]), i32::from_le_bytes(count) as f32)
                };
                Counts::Mean(pairs.iter().map(pair).collect())
            }
            Kind::Total => Counts::Total(ints()?, table.int(3, 0)?),
            Kind::Borders | Kind::Buckets => {
                let classes = table.int(4, 0)?;
                let classes = usize::try_from(classes).ok().filter(|classes| *classes > 0);
                Counts::Classes(
                    ints()?,
                    classes.ok_or_else(|| Wrong::new("expected at least one class of targets"))?,
                )
            }
        };
        tables.insert(base, CountTable::new(buckets, counts)?);
    }
    Ok(tables)
}
