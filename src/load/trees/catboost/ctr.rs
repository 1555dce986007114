//! `CatBoost`'s target statistics (CTRs): numbers that stand for a category, or for a combination
//! of categories and other splits, made from counts that were taken in training.
//!
//! A combination of a row has a hash, the hash a bucket in a table of counts; a formula with a
//! prior makes a number of the counts, and trees split on that number.

use std::collections::HashMap;

use super::super::document::{Field, Value, Wrong};
use super::super::xgboost::single;

/// The multiplier of `CatBoost`'s hash of a combination.
const MAGIC: u64 = 0x4906_ba49_4954_cb65;

/// The most classes of a target that counts are kept for.
const MAX_CLASSES: usize = 1 << 16;

/// Adds a part to the hash of a combination.
pub(super) const fn combine(hash: u64, part: u64) -> u64 {
    MAGIC.wrapping_mul(hash.wrapping_add(MAGIC.wrapping_mul(part)))
}

/// The hash of a category as a part of a combination: its sign is extended.
pub(super) fn part(category: u32) -> u64 {
    i64::from(category.cast_signed()).cast_unsigned()
}

/// The category whose combination with nothing else has this hash, where there is one.
pub(super) fn alone(hash: u64) -> Option<u32> {
    // The inverse of MAGIC modulo 2^64, by Newton's method: each step doubles the bits that agree.
    let inverse = (0..6).fold(MAGIC, |x, _| x.wrapping_mul(2_u64.wrapping_sub(MAGIC.wrapping_mul(x))));
    let value = hash.wrapping_mul(inverse).wrapping_mul(inverse);
    let category = u32::try_from(value & u64::from(u32::MAX)).ok()?;
    (part(category) == value).then_some(category)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Borders,
    Buckets,
    Mean,
    Total,
}

impl Kind {
    fn read(field: &Field<'_>) -> Result<Self, Wrong> {
        Ok(match field.text()? {
            "Borders" => Self::Borders,
            "Buckets" => Self::Buckets,
            "BinarizedTargetMeanValue" | "FloatTargetMeanValue" => Self::Mean,
            "Counter" | "FeatureFreq" => Self::Total,
            _ => return Err(field.expected("a type of target statistics")),
        })
    }
}

/// What of a row is combined, and what is counted for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Base {
    pub(super) kind: Kind,
    /// The name of the kind in the file: two kinds may have tables of one form.
    pub(super) name: String,
    pub(super) combination: Combination,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Combination {
    /// Numbers of categorical features.
    pub(super) categories: Vec<usize>,
    /// A feature of numbers, and the bits of the border that it is above.
    pub(super) above: Vec<(usize, u32)>,
    /// A categorical feature, and the hash of the category that it is.
    pub(super) is: Vec<(usize, u32)>,
}

impl Base {
    fn read(kind: &Field<'_>, elements: &Field<'_>) -> Result<Self, Wrong> {
        let mut combination = Combination::default();
        for element in elements.items()? {
            let index = |name| element.get(name).and_then(|f: Field<'_>| f.count(super::MAX_FEATURES));
            let what = element.get("combination_element")?;
            match what.text()? {
                "cat_feature_value" => combination.categories.push(index("cat_feature_index")?),
                "float_feature" => {
                    let border = single(element.get("border")?.number()?);
                    combination.above.push((index("float_feature_index")?, border.to_bits()));
                }
                "cat_feature_exact_value" => {
                    let hash = category(&element.get("value")?)?;
                    combination.is.push((index("cat_feature_index")?, hash));
                }
                _ => return Err(what.expected("an element of a combination")),
            }
        }
        Ok(Self { kind: Kind::read(kind)?, name: kind.text()?.to_owned(), combination })
    }
}

/// The hash of a category, 32 bits written with or without a sign.
pub(super) fn category(field: &Field<'_>) -> Result<u32, Wrong> {
    let number = field.number()?;
    if number.fract() != 0.0 || !(-2_147_483_648.0..=4_294_967_295.0).contains(&number) {
        return Err(field.expected("a hash of 32 bits"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked; the sign is a bit")]
    let hash = number as i64 as u32;
    Ok(hash)
}

/// A number that trees split on: the formula behind it, and where it splits.
#[derive(Clone, Debug)]
pub(super) struct Statistic {
    pub(super) base: Base,
    pub(super) formula: Formula,
    pub(super) borders: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Formula {
    target_border: usize,
    prior: f32,
    prior_count: f32,
    shift: f32,
    scale: f32,
}

impl Formula {
    /// Tells formulas apart.
    pub(super) fn bits(&self) -> [u32; 5] {
        let [prior, count, shift, scale] =
            [self.prior, self.prior_count, self.shift, self.scale].map(f32::to_bits);
        [u32::try_from(self.target_border).unwrap_or(u32::MAX), prior, count, shift, scale]
    }
}

impl Statistic {
    /// The members of `features_info.ctrs`.
    pub(super) fn read(field: &Field<'_>) -> Result<Self, Wrong> {
        let number = |name| field.get(name).and_then(|f: Field<'_>| f.number()).map(single);
        let kind = field.get("ctr_type")?;
        let elements = field.get("elements")?;
        let formula = Formula {
            target_border: field.get("target_border_idx")?.count(MAX_CLASSES)?,
            prior: number("prior_numerator")?,
            prior_count: number("prior_denomerator")?,
            shift: number("shift")?,
            scale: number("scale")?,
        };
        let borders = field.get("borders")?.numbers()?.iter().copied().map(single).collect();
        Ok(Self { base: Base::read(&kind, &elements)?, formula, borders })
    }
}

/// The counts of one [`Base`], by the hash of the combination.
#[derive(Debug)]
pub(super) struct Table {
    buckets: HashMap<u64, u32>,
    counts: Counts,
}

#[derive(Debug)]
pub(super) enum Counts {
    /// A sum of targets and how many there were.
    Mean(Vec<(f32, f32)>),
    /// How many rows there were, and the number that this is a share of.
    Total(Vec<i32>, i32),
    /// How many rows of each class of the target.
    Classes(Vec<i32>, usize),
}

impl Counts {
    fn buckets(&self) -> usize {
        match self {
            Self::Mean(all) => all.len(),
            Self::Total(all, _) => all.len(),
            Self::Classes(all, classes) => all.len() / classes.max(&1),
        }
    }
}

impl Table {
    /// A table of these counts; the hashes have the number of their bucket beside them.
    pub(super) fn new(buckets: HashMap<u64, u32>, counts: Counts) -> Result<Self, Wrong> {
        let there = counts.buckets();
        if let Some(bucket) = buckets.values().find(|bucket| **bucket as usize >= there) {
            return Err(Wrong::new(format!("`ctr_data`: expected {there} buckets, found number {bucket}")));
        }
        Ok(Self { buckets, counts })
    }

    /// The hashes that it knows.
    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.buckets.keys().copied()
    }

    pub(super) fn memory(&self) -> usize {
        let counts = match &self.counts {
            Counts::Mean(all) => all.len() * 8,
            Counts::Total(all, _) | Counts::Classes(all, _) => all.len() * 4,
        };
        counts + self.buckets.capacity() * (size_of::<(u64, u32)>() + 1)
    }

    /// The bucket of a combination, `None` for one that training never saw.
    pub(super) fn bucket(&self, hash: u64) -> Option<usize> {
        self.buckets.get(&hash).map(|bucket| *bucket as usize)
    }

    /// The statistic of a bucket; see `TModelCtr::Calc` and `TStaticCtrProvider::CalcCtrs` in
    /// `CatBoost`'s `libs/model`.
    #[expect(clippy::cast_precision_loss, reason = "CatBoost computes in f32")]
    pub(super) fn value(&self, kind: Kind, formula: &Formula, bucket: Option<usize>) -> f32 {
        let (good, all) = match &self.counts {
            Counts::Mean(means) => bucket.and_then(|at| means.get(at)).copied().unwrap_or_default(),
            Counts::Total(totals, denominator) => {
                let total = bucket.and_then(|at| totals.get(at)).copied().unwrap_or_default();
                (total as f32, *denominator as f32)
            }
            Counts::Classes(counts, classes) => {
                let of_row =
                    bucket.and_then(|at| counts.get(at * classes..(at + 1) * classes)).unwrap_or(&[]);
                let all: i64 = of_row.iter().copied().map(i64::from).sum();
                let good: i64 = if kind == Kind::Buckets {
                    of_row.get(formula.target_border).copied().map_or(0, i64::from)
                } else if *classes > 2 {
                    of_row.iter().skip(formula.target_border + 1).copied().map(i64::from).sum()
                } else {
                    of_row.get(1).copied().map_or(0, i64::from)
                };
                (good as f32, all as f32)
            }
        };
        ((good + formula.prior) / (all + formula.prior_count) + formula.shift) * formula.scale
    }
}

/// The tables of a file, by what they count.
pub(super) type Tables = HashMap<Base, Table>;

/// Reads `ctr_data`: of each table a text of JSON that says what is counted, and a flat list of
/// hashes (as text: they have 64 bits), each with its counts behind it.
pub(super) fn tables(root: &Field<'_>, budget: u64) -> Result<Tables, Wrong> {
    let mut tables = Tables::new();
    let Some(data) = root.find("ctr_data") else { return Ok(tables) };
    for (name, table) in data.members() {
        let key = Value::from_json(name.as_bytes(), budget)?;
        let key = Field::root(&key);
        let base = Base::read(&key.get("type")?, &key.get("identifier")?)?;
        let read = read_table(base.kind, &table)?;
        tables.entry(base).or_insert(read);
    }
    Ok(tables)
}

fn read_table(kind: Kind, table: &Field<'_>) -> Result<Table, Wrong> {
    let list = table.get("hash_map")?;
    let stride_field = table.get("hash_stride")?;
    let stride = stride_field.count(MAX_CLASSES)?;
    let values: &[Value] = match list.value {
        Value::List(values) => values,
        _ => &[],
    };
    let wanted = match kind {
        Kind::Mean => 3,
        Kind::Total => 2,
        Kind::Borders | Kind::Buckets => stride.max(3),
    };
    if stride != wanted || !values.len().is_multiple_of(stride) {
        return Err(stride_field.expected(&format!("{wanted}, a divisor of {} values", values.len())));
    }
    let mut buckets = HashMap::with_capacity(values.len() / stride);
    let mut numbers = Vec::with_capacity(values.len());
    for (bucket, entry) in (0..).zip(values.chunks_exact(stride)) {
        let [Value::Text(hash), counts @ ..] = entry else { return Err(list.expected("hashes as text")) };
        let hash: u64 = hash.parse().map_err(|_| list.expected("hashes of 64 bits as text"))?;
        for count in counts {
            match count {
                Value::Number(number) => numbers.push(*number),
                _ => return Err(list.expected("counts behind each hash")),
            }
        }
        buckets.entry(hash).or_insert(bucket);
    }
    #[expect(clippy::cast_possible_truncation, reason = "counts are of 32 bits; others saturate")]
    let ints = |numbers: Vec<f64>| numbers.into_iter().map(|n| n as i32).collect();
    let counts = match kind {
        Kind::Mean => Counts::Mean(
            numbers
                .chunks_exact(2)
                .filter_map(|pair| Some((single(*pair.first()?), single(*pair.get(1)?))))
                .collect(),
        ),
        Kind::Total => {
            let denominator = table.get("counter_denominator")?.count(i32::MAX as usize)?;
            Counts::Total(ints(numbers), i32::try_from(denominator).unwrap_or(i32::MAX))
        }
        Kind::Borders | Kind::Buckets => Counts::Classes(ints(numbers), stride - 1),
    };
    Table::new(buckets, counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_category_comes_back_from_its_combination() {
        for category in [0, 1, 797_982_799, 4_270_775_063, u32::MAX] {
            assert_eq!(alone(combine(0, part(category))), Some(category));
        }
        assert_eq!(alone(combine(combine(0, part(7)), 1)), None);
    }

    #[test]
    fn statistics_follow_their_formulas() {
        let formula = Formula { target_border: 1, prior: 0.5, prior_count: 1.0, shift: 0.25, scale: 4.0 };
        let buckets = HashMap::from([(7, 0)]);
        let classes = Table::new(buckets.clone(), Counts::Classes(vec![1, 2, 4], 3)).unwrap();
        let value = |table: &Table, kind, bucket| table.value(kind, &formula, bucket);
        assert_eq!(classes.bucket(7), Some(0));
        assert_eq!(classes.bucket(8), None);
        assert_eq!(value(&classes, Kind::Borders, Some(0)), (4.5_f32 / 8.0 + 0.25) * 4.0);
        assert_eq!(value(&classes, Kind::Buckets, Some(0)), (2.5_f32 / 8.0 + 0.25) * 4.0);
        assert_eq!(value(&classes, Kind::Borders, None), 3.0);
        let total = Table::new(buckets.clone(), Counts::Total(vec![3], 6)).unwrap();
        assert_eq!(value(&total, Kind::Total, Some(0)), 3.0);
        assert_eq!(value(&total, Kind::Total, None), (0.5_f32 / 7.0 + 0.25) * 4.0);
        let mean = Table::new(buckets, Counts::Mean(vec![(1.5, 3.0)])).unwrap();
        assert_eq!(value(&mean, Kind::Mean, Some(0)), 3.0);
        assert!(Table::new(HashMap::from([(7, 1)]), Counts::Total(vec![3], 6)).is_err());
    }
}
