//! The features of a `CatBoost` file, and the splits on them.

use std::collections::HashSet;

use super::super::document::{Field, Wrong};
use super::super::xgboost::single;
use super::MAX_FEATURES;
use super::city_hash::number_hash;
use super::ctr::{self, Statistic, Tables};
use super::encoder::{Encoder, Input};
use crate::kernel::tree::builder::Test;

/// A split of a tree: the column that it tests, the test, and whether a missing value passes it.
pub(super) type Split = (usize, Test, bool);

/// The features of a file. What splits ask of categories becomes columns of the [`Encoder`].
pub(super) struct Features {
    /// Of each feature of numbers its column, and whether a missing value is above every border.
    numbers: Vec<Option<Number>>,
    /// How many splits on numbers and on single categories there are: those on statistics are
    /// numbered from here on.
    plain_splits: usize,
    statistics: Vec<Statistic>,
    /// Of each statistic the split behind its last, counted from the first on statistics.
    ends: Vec<usize>,
    /// Of each statistic its column, where a split has asked for it.
    columns: Vec<Option<usize>>,
    encoder: Encoder,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) column: usize,
    pub(super) missing_is_high: bool,
}

impl Features {
    pub(super) fn read(root: &Field<'_>, tables: Tables) -> Result<Self, Wrong> {
        let info = root.get("features_info")?;
        refuse_text_and_embeddings(&info)?;
        let mut plain_splits = 0;
        let mut width = 0;
        let mut numbers = Vec::new();
        if let Some(features) = info.find("float_features") {
            for (ordinal, feature) in features.items()?.enumerate() {
                let (index, column) = position(&feature, &mut width)?;
                let missing_is_high = match feature.find("nan_value_treatment") {
                    Some(treatment) => match treatment.text()? {
                        "AsTrue" => true,
                        "AsFalse" | "AsIs" => false,
                        _ => return Err(treatment.expected("AsTrue, AsFalse or AsIs")),
                    },
                    None => false,
                };
                plain_splits += length(feature.find("borders").as_ref())?;
                put(&mut numbers, ordinal, index, Number { column, missing_is_high });
            }
        }
        let mut categories: Vec<Option<usize>> = Vec::new();
        let mut known = Vec::new();
        if let Some(features) = info.find("categorical_features") {
            for (ordinal, feature) in features.items()?.enumerate() {
                let (index, column) = position(&feature, &mut width)?;
                let values = feature.find("values");
                plain_splits += length(values.as_ref())?;
                if let Some(values) = &values {
                    for value in values.numbers()? {
                        #[expect(
                            clippy::cast_possible_truncation,
                            clippy::cast_sign_loss,
                            reason = "a hash of 32 bits; the sign is a bit"
                        )]
                        known.push(*value as i64 as u32);
                    }
                }
                put(&mut categories, ordinal, index, column);
            }
        }
        if width == 0 {
            return Err(Wrong::new("`features_info`: expected at least one feature, found none"));
        }
        let mut statistics = Vec::new();
        if let Some(list) = info.find("ctrs") {
            for statistic in list.items()? {
                statistics.push(Statistic::read(&statistic)?);
            }
        }
        for (base, table) in &tables {
            if base.combination.categories.len() == 1
                && base.combination.above.is_empty()
                && base.combination.is.is_empty()
            {
                known.extend(table.hashes().filter(|hash| *hash != u64::MAX).filter_map(ctr::alone));
            }
        }
        let input = if categories.is_empty() || are_whole_numbers(&known) {
            let columns = categories.iter().map(|column| column.unwrap_or(usize::MAX)).collect();
            Input::Coded { width, columns }
        } else {
            // CatBoost's own appliers take numbers and categories apart, each in their order.
            for (index, number) in numbers.iter_mut().enumerate() {
                if let Some(number) = number {
                    number.column = index;
                }
            }
            Input::Apart { numbers: numbers.len(), categories: categories.len() }
        };
        let encoder = Encoder::new(input, tables);
        let ends = statistics.iter().scan(0, |end, statistic: &Statistic| {
            *end += statistic.borders.len();
            Some(*end)
        });
        let (ends, columns) = (ends.collect(), vec![None; statistics.len()]);
        Ok(Self { numbers, plain_splits, statistics, ends, columns, encoder })
    }

    /// What makes the columns that the splits test.
    pub(super) fn into_encoder(self) -> Encoder {
        self.encoder
    }

    pub(super) fn split(&mut self, split: &Field<'_>) -> Result<Split, Wrong> {
        let kind = split.get("split_type")?;
        match kind.text()? {
            "FloatFeature" => {
                let index = split.get("float_feature_index")?;
                let feature = self.numbers.get(index.count(MAX_FEATURES)?).copied().flatten();
                let Number { column, missing_is_high } =
                    feature.ok_or_else(|| index.expected("one of `features_info.float_features`"))?;
                let border = single(split.get("border")?.number()?);
                Ok((column, Test::Gt(f64::from(border)), missing_is_high))
            }
            "OneHotFeature" => {
                let index = split.get("cat_feature_index")?;
                let hash = ctr::category(&split.get("value")?)?;
                let column = self
                    .encoder
                    .category(index.count(MAX_FEATURES)?, hash)
                    .ok_or_else(|| index.expected("one of `features_info.categorical_features`"))?;
                Ok((column, Test::Gt(0.5), false))
            }
            "OnlineCtr" => {
                let index = split.get("split_index")?;
                let (column, border) = self
                    .statistic(index.count(usize::MAX >> 12)?)?
                    .ok_or_else(|| index.expected("the number of a split on `features_info.ctrs`"))?;
                Ok((column, Test::Gt(f64::from(border)), false))
            }
            _ => Err(kind.expected("FloatFeature, OneHotFeature or OnlineCtr")),
        }
    }

    /// The column and the border of a split on a statistic, by its number among all splits of the file;
    /// `None` where there is no such split.
    fn statistic(&mut self, split: usize) -> Result<Option<(usize, f32)>, Wrong> {
        let Some(split) = split.checked_sub(self.plain_splits) else { return Ok(None) };
        let at = self.ends.partition_point(|end| *end <= split);
        let (Some(statistic), Some(column)) = (self.statistics.get(at), self.columns.get_mut(at)) else {
            return Ok(None);
        };
        let before = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let Some(border) = statistic.borders.get(split - before).copied() else { return Ok(None) };
        let known = match *column {
            Some(known) => known,
            None => *column.insert(self.encoder.statistic(statistic, &self.numbers)?),
        };
        Ok(Some((known, border)))
    }
}

fn refuse_text_and_embeddings(info: &Field<'_>) -> Result<(), Wrong> {
    for kind in ["text_features", "embedding_features"] {
        if let Some(features) = info.find(kind)
            && features.items()?.next().is_some()
        {
            return Err(Wrong::new(format!(
                "`features_info.{kind}`: a model of {} is not supported",
                kind.replace('_', " ")
            )));
        }
    }
    Ok(())
}

/// The number of a feature among those of its kind, and its column among all.
fn position(feature: &Field<'_>, width: &mut usize) -> Result<(usize, usize), Wrong> {
    let index = feature.get("feature_index")?.count(MAX_FEATURES - 1)?;
    let column = match feature.find("flat_feature_index") {
        Some(column) => column.count(MAX_FEATURES - 1)?,
        None => index,
    };
    *width = (*width).max(column + 1);
    Ok((index, column))
}

fn length(list: Option<&Field<'_>>) -> Result<usize, Wrong> {
    list.map_or(Ok(0), |list| list.numbers().map(<[f64]>::len))
}

fn put<T: Clone>(list: &mut Vec<Option<T>>, ordinal: usize, index: usize, value: T) {
    // Features are listed in order; a gap is a file that is not whole, and stays a gap.
    if index <= ordinal.saturating_mul(2) + 1024 {
        if list.len() <= index {
            list.resize(index + 1, None);
        }
        if let Some(slot) = list.get_mut(index) {
            *slot = Some(value);
        }
    }
}

/// True where every category that the file knows is the hash of a whole number's digits: the model
/// was trained on codes, not on text. The file has only hashes, so numbers are tried one by one.
fn are_whole_numbers(known: &[u32]) -> bool {
    const NEAR: i64 = 1 << 12;
    const FAR: i64 = 1 << 20;
    let mut left: HashSet<u32> = known.iter().copied().collect();
    let all = left.len();
    for number in -NEAR..FAR {
        if left.is_empty() || number == NEAR && left.len() == all {
            break;
        }
        left.remove(&number_hash(number));
    }
    all > 0 && left.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_from_text_by_their_hashes() {
        let hashes = |codes: &[i64]| codes.iter().map(|code| number_hash(*code)).collect::<Vec<_>>();
        assert!(are_whole_numbers(&hashes(&[-1, 0, 5, 40_000])));
        assert!(!are_whole_numbers(&hashes(&[1 << 40, 3])));
        assert!(!are_whole_numbers(&[super::super::city_hash::text_hash(b"Oslo"), number_hash(1)]));
        assert!(!are_whole_numbers(&[]));
    }
}
