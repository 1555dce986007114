//! From a row as the caller has it to the columns that the trees of a `CatBoost` model test: numbers
//! as they are, a category as its hash, and of the hashes ones, zeros and target statistics.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::city_hash::{number_hash, text_hash};
use super::ctr::{self, Base, Formula, Kind, Statistic, Table, Tables};
use super::features::Number;
use crate::load::trees::document::Wrong;
use crate::signature::{Dim, TensorSpec};
use crate::tensor::{ElementType, TensorView};

/// How rows come.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// One `f32` matrix of all columns; of each categorical feature its column, whose values are
    /// whole numbers.
    Coded { width: usize, columns: Vec<usize> },
    /// A matrix of the numbers and one of the categories as text.
    Apart { numbers: usize, categories: usize },
}

/// A row in the caller's form.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) texts: &'a [String],
}

impl Input {
    /// The names, types and shapes of the inputs.
    pub(super) fn specs(&self) -> Vec<TensorSpec> {
        let spec = |name, element, width: usize| {
            (width > 0).then(|| TensorSpec::new(name, element, &[Dim::Any, Dim::Fixed(width)]))
        };
        match self {
            Self::Coded { width, .. } => spec("features", ElementType::F32, *width).into_iter().collect(),
            Self::Apart { numbers, categories } => [
                spec("float_features", ElementType::F32, *numbers),
                spec("cat_features", ElementType::String, *categories),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }

    const fn numbers(&self) -> usize {
        match self {
            Self::Coded { width, .. } => *width,
            Self::Apart { numbers, .. } => *numbers,
        }
    }

    const fn texts(&self) -> usize {
        match self {
            Self::Coded { .. } => 0,
            Self::Apart { categories, .. } => *categories,
        }
    }

    const fn categories(&self) -> usize {
        match self {
            Self::Coded { columns, .. } => columns.len(),
            Self::Apart { categories, .. } => *categories,
        }
    }

    /// The rows of the inputs, `None` where they are not as [`Input::specs`] says.
    pub(super) fn rows<'a>(
        &self,
        inputs: &[TensorView<'a>],
    ) -> Option<(usize, impl Iterator<Item = Row<'a>>)> {
        let (numbers, texts) = (self.numbers(), self.texts());
        let mut inputs = inputs.iter();
        let mut next = |width: usize| if width > 0 { inputs.next().map(Some) } else { Some(None) };
        let (number_input, text_input) = (next(numbers)?, next(texts)?);
        let rows = number_input.or(text_input)?.shape().rows();
        let number_values = number_input.map_or(Some(&[][..]), |input| input.values::<f32>())?;
        let text_values = text_input.map_or(Some(&[][..]), |input| input.values::<String>())?;
        if number_values.len() != rows * numbers || text_values.len() != rows * texts {
            return None;
        }
        let row = move |at: usize| Row {
            numbers: number_values.get(at * numbers..(at + 1) * numbers).unwrap_or(&[]),
            texts: text_values.get(at * texts..(at + 1) * texts).unwrap_or(&[]),
        };
        Some((rows, (0..rows).map(row)))
    }
}

/// Makes the columns that splits ask for.
#[derive(Debug)]
pub(super) struct Encoder {
    input: Input,
    /// The columns that come from categories, behind those of numbers.
    made: usize,
    /// 1 where a categorical feature is this category, else 0.
    single: Vec<(usize, u32, usize)>,
    combinations: Vec<Combination>,
    asked: Asked,
}

/// What splits have asked for so far, and the tables that none has asked for yet: needed until the
/// last split is read.
#[derive(Debug, Default)]
struct Asked {
    tables: Tables,
    /// The columns of single categories, by feature and hash.
    single: HashMap<(usize, u32), usize>,
    /// The positions of combinations.
    combinations: HashMap<Base, usize>,
    /// The columns of formulas, by the position of the combination and the bits of the formula.
    formulas: HashMap<(usize, [u32; 5]), usize>,
}

/// A combination with the statistics that are made of it.
#[derive(Debug)]
struct Combination {
    kind: Kind,
    categories: Vec<usize>,
    above: Vec<(Number, f32)>,
    is: Vec<(usize, u32)>,
    table: Table,
    /// Formulas and their columns.
    statistics: Vec<(Formula, usize)>,
}

impl Encoder {
    pub(super) fn new(input: Input, tables: Tables) -> Self {
        let asked = Asked { tables, ..Asked::default() };
        Self { input, made: 0, single: Vec::new(), combinations: Vec::new(), asked }
    }

    pub(super) const fn input(&self) -> &Input {
        &self.input
    }

    /// True where no split asks for a category.
    pub(super) const fn is_plain(&self) -> bool {
        self.made == 0 && matches!(self.input, Input::Coded { .. })
    }

    /// How many columns a row has.
    pub(super) const fn width(&self) -> usize {
        self.input.numbers() + self.made
    }

    pub(super) fn memory(&self) -> usize {
        self.combinations.iter().map(|c| size_of::<Combination>() + c.table.memory()).sum::<usize>()
            + self.single.len() * size_of::<(usize, u32, usize)>()
    }

    /// Lets go of what was read and is not used.
    pub(super) fn finish(mut self) -> Self {
        self.asked = Asked::default();
        self
    }

    fn column(&mut self) -> usize {
        self.made += 1;
        self.width() - 1
    }

    /// The column that tells whether a feature is this category; `None` where there is no such
    /// feature.
    pub(super) fn category(&mut self, feature: usize, hash: u32) -> Option<usize> {
        if feature >= self.input.categories() {
            return None;
        }
        if let Some(column) = self.asked.single.get(&(feature, hash)) {
            return Some(*column);
        }
        let column = self.column();
        self.asked.single.insert((feature, hash), column);
        self.single.push((feature, hash, column));
        Some(column)
    }

    /// The column of a statistic.
    pub(super) fn statistic(
        &mut self,
        statistic: &Statistic,
        numbers: &[Option<Number>],
    ) -> Result<usize, Wrong> {
        let at = match self.asked.combinations.get(&statistic.base) {
            Some(at) => *at,
            None => {
                let combination = self.combination(&statistic.base, numbers)?;
                self.combinations.push(combination);
                let at = self.combinations.len() - 1;
                self.asked.combinations.insert(statistic.base.clone(), at);
                at
            }
        };
        let bits = statistic.formula.bits();
        if let Some(column) = self.asked.formulas.get(&(at, bits)) {
            return Ok(*column);
        }
        let column = self.column();
        self.asked.formulas.insert((at, bits), column);
        if let Some(combination) = self.combinations.get_mut(at) {
            combination.statistics.push((statistic.formula, column));
        }
        Ok(column)
    }

    fn combination(&mut self, base: &Base, numbers: &[Option<Number>]) -> Result<Combination, Wrong> {
        let combined = &base.combination;
        let mut categories = combined.categories.iter().chain(combined.is.iter().map(|(feature, _)| feature));
        if let Some(feature) = categories.find(|feature| **feature >= self.input.categories()) {
            return Err(Wrong::new(format!(
                "`features_info.ctrs`: there is no categorical feature {feature}"
            )));
        }
        let number = |(feature, border): &(usize, u32)| {
            let number = numbers.get(*feature).copied().flatten();
            let number = number.map(|number| (number, f32::from_bits(*border)));
            number.ok_or_else(|| {
                Wrong::new(format!("`features_info.ctrs`: there is no float feature {feature}"))
            })
        };
        let above = combined.above.iter().map(number).collect::<Result<_, _>>()?;
        let (categories, is) = (combined.categories.clone(), combined.is.clone());
        let table =
            self.asked.tables.remove(base).ok_or_else(|| {
                Wrong::new(format!("`ctr_data`: no table of {} for {combined:?}", base.name))
            })?;
        Ok(Combination { kind: base.kind, categories, above, is, table, statistics: Vec::new() })
    }

    /// The columns of a row; `columns` is as long as [`Encoder::width`].
    pub(super) fn encode(&self, row: Row<'_>, columns: &mut [f32]) {
        for (column, number) in columns.iter_mut().zip(row.numbers) {
            *column = *number;
        }
        let hashes: SmallVec<[u32; 32]> = match &self.input {
            Input::Coded { columns, .. } => {
                columns.iter().map(|c| code_hash(row.numbers.get(*c).copied().unwrap_or(f32::NAN))).collect()
            }
            Input::Apart { .. } => row.texts.iter().map(|text| text_hash(text.as_bytes())).collect(),
        };
        let hash_of = |feature: usize| hashes.get(feature).copied().unwrap_or_default();
        for (feature, hash, column) in &self.single {
            if let Some(column) = columns.get_mut(*column) {
                *column = f32::from(u8::from(hash_of(*feature) == *hash));
            }
        }
        for combination in &self.combinations {
            let mut hash = 0;
            for feature in &combination.categories {
                hash = ctr::combine(hash, ctr::part(hash_of(*feature)));
            }
            for (number, border) in &combination.above {
                let value = row.numbers.get(number.column).copied().unwrap_or(f32::NAN);
                let above = value > *border || value.is_nan() && number.missing_is_high;
                hash = ctr::combine(hash, u64::from(above));
            }
            for (feature, category) in &combination.is {
                hash = ctr::combine(hash, u64::from(hash_of(*feature) == *category));
            }
            let bucket = combination.table.bucket(hash);
            for (formula, column) in &combination.statistics {
                if let Some(column) = columns.get_mut(*column) {
                    *column = combination.table.value(combination.kind, formula, bucket);
                }
            }
        }
    }
}

/// The hash of a category that comes as a number. One that is not whole is no category of the model;
/// its digits are as good as any text that training never saw.
fn code_hash(code: f32) -> u32 {
    // Below 2^53, where every whole number has digits of its own.
    #[expect(clippy::cast_possible_truncation, reason = "in range, or it is not used")]
    let whole = code as i64;
    if code.fract() == 0.0 && whole.unsigned_abs() < 1 << 53 {
        number_hash(whole)
    } else {
        text_hash(code.to_string().as_bytes())
    }
}
