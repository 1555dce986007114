//! `TfIdfVectorizer`: counts the n-grams of a pool in each row of tokens.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use smallvec::{SmallVec, smallvec};

use crate::kernel::ml::common::{first_fact, input, rows_and_width, same_dims};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Tensor, TensorView};

const OPERATOR: &str = "TfIdfVectorizer";

/// A token that no n-gram has.
const UNKNOWN: u32 = u32::MAX;

/// The result is f32, `[columns]` of `[c]` and `[n, columns]` of `[n, c]`.
#[derive(Debug)]
pub(super) struct TfIdfVectorizer {
    mode: Mode,
    /// Each token of the pool as a small number.
    vocabulary: Vocabulary,
    /// The n-grams as a tree of tokens: from a node and a token to the next node; 0 is the root.
    children: HashMap<(u32, u32), u32>,
    /// The n-gram that ends at a node, if one does.
    grams: Vec<Option<Gram>>,
    longest: usize,
    skips: usize,
    columns: usize,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// How often.
    Tf,
    /// The weight, where at all.
    Idf,
    /// How often, times the weight.
    TfIdf,
}

#[derive(Debug)]
enum Vocabulary {
    Ints(HashMap<i64, u32>),
    Strings(HashMap<String, u32>),
}

#[derive(Clone, Copy, Debug)]
struct Gram {
    column: usize,
    weight: f32,
}

impl TfIdfVectorizer {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let mode = match attributes.string("mode")? {
            Some("TF") => Mode::Tf,
            Some("IDF") => Mode::Idf,
            Some("TFIDF") => Mode::TfIdf,
            other => {
                return Err(BuildError::invalid(format!(
                    "attribute `mode`: expected TF, IDF or TFIDF, found {other:?}"
                )));
            }
        };
        let shortest = length(attributes, "min_gram_length", 1)?;
        let longest = length(attributes, "max_gram_length", shortest)?;
        let mut this = Self {
            mode,
            vocabulary: Vocabulary::Ints(HashMap::new()),
            children: HashMap::new(),
            grams: vec![None],
            longest,
            skips: length(attributes, "max_skip_count", 0)?,
            columns: 0,
        };
        let tokens = match (attributes.ints("pool_int64s")?, attributes.strings("pool_strings")?) {
            (ints, []) if !ints.is_empty() => {
                let (vocabulary, tokens) = numbered(ints.iter().copied())?;
                this.vocabulary = Vocabulary::Ints(vocabulary);
                tokens
            }
            ([], strings) if !strings.is_empty() => {
                let (vocabulary, tokens) = numbered(strings.iter().cloned())?;
                this.vocabulary = Vocabulary::Strings(vocabulary);
                tokens
            }
            (ints, _) => {
                let found = if ints.is_empty() { "neither" } else { "both" };
                return Err(BuildError::invalid(format!(
                    "expected `pool_int64s` or `pool_strings`, found {found}"
                )));
            }
        };
        this.add_pool(attributes, &tokens, shortest)?;
        Ok(this)
    }

    /// Adds the n-grams of the pool: first those of one token, then those of two, and so on.
    fn add_pool(&mut self, attributes: &Attributes, pool: &[u32], shortest: usize) -> Result<(), BuildError> {
        let indexes = attributes.ints("ngram_indexes")?;
        let weights = attributes.floats("weights")?;
        if !weights.is_empty() && weights.len() != indexes.len() {
            return Err(BuildError::invalid(format!(
                "attribute `weights`: expected {} values, found {}",
                indexes.len(),
                weights.len()
            )));
        }
        let starts = attributes.ints("ngram_counts")?;
        if starts.len() < self.longest {
            return Err(BuildError::invalid(format!(
                "attribute `ngram_counts`: expected {} values or more, found {}",
                self.longest,
                starts.len()
            )));
        }
        let starts: Vec<usize> = starts.iter().map(|s| usize::try_from(*s).unwrap_or(usize::MAX)).collect();
        let ends = starts.iter().copied().skip(1).chain([pool.len()]);
        let mut id = 0;
        for ((size, start), end) in (1_usize..).zip(starts.iter().copied()).zip(ends) {
            let Some(tokens) = pool.get(start..end).filter(|tokens| tokens.len() % size == 0) else {
                return Err(BuildError::invalid(format!(
                    "attribute `ngram_counts`: expected whole {size}-grams within the {} tokens of the pool",
                    pool.len()
                )));
            };
            for gram in tokens.chunks_exact(size) {
                let column = indexes.get(id).copied();
                let Some(column) = column.and_then(|c| usize::try_from(c).ok()).filter(|c| *c < usize::MAX)
                else {
                    return Err(BuildError::invalid(format!(
                        "attribute `ngram_indexes`: expected a column of n-gram {id}, found {column:?}"
                    )));
                };
                self.columns = self.columns.max(column + 1);
                if (shortest..=self.longest).contains(&size) {
                    self.add(gram, Gram { column, weight: weights.get(id).copied().unwrap_or(1.0) })?;
                }
                id += 1;
            }
        }
        // Columns of n-grams that are not in the pool are there too, and always zero.
        let last = indexes.iter().copied().max().and_then(|last| usize::try_from(last).ok());
        self.columns = self.columns.max(last.map_or(0, |last| last.saturating_add(1)));
        Ok(())
    }

    fn add(&mut self, tokens: &[u32], gram: Gram) -> Result<(), BuildError> {
        let mut node = 0;
        for token in tokens {
            let fresh = u32::try_from(self.grams.len())
                .map_err(|_| BuildError::invalid("expected fewer than 2^32 n-grams"))?;
            node = match self.children.entry((node, *token)) {
                Entry::Occupied(child) => *child.get(),
                Entry::Vacant(child) => {
                    self.grams.push(None);
                    *child.insert(fresh)
                }
            };
        }
        match self.grams.get_mut(node as usize) {
            Some(end @ None) => {
                *end = Some(gram);
                Ok(())
            }
            _ => Err(BuildError::invalid("expected n-grams that differ, found one twice in the pool")),
        }
    }

    fn vectorize(&self, tokens: &[u32], out: &mut [f32]) {
        out.fill(0.0);
        for start in 0..tokens.len() {
            for skip in 0..=self.skips {
                let step = skip.saturating_add(1);
                if skip > 0 && start.saturating_add(step) >= tokens.len() {
                    break;
                }
                let places = tokens.get(start..).unwrap_or(&[]).iter().step_by(step).take(self.longest);
                let mut node = 0;
                for (depth, token) in places.enumerate() {
                    let Some(child) = self.children.get(&(node, *token)) else { break };
                    node = *child;
                    // A single token skips nothing, and counts once.
                    if depth > 0 || skip == 0 {
                        self.count(node, out);
                    }
                }
            }
        }
    }

    fn count(&self, node: u32, out: &mut [f32]) {
        let Some(Some(gram)) = self.grams.get(node as usize) else { return };
        let Some(out) = out.get_mut(gram.column) else { return };
        match self.mode {
            Mode::Tf => *out += 1.0,
            Mode::Idf => *out = gram.weight,
            Mode::TfIdf => *out += gram.weight,
        }
    }

    fn run_rows<T>(&self, values: &[T], width: usize, out: &mut [f32], token: impl Fn(&T) -> Option<u32>) {
        let mut tokens = Vec::with_capacity(width);
        for (row, out) in out.chunks_exact_mut(self.columns).enumerate() {
            let values = values.get(row * width..).and_then(|rest| rest.get(..width)).unwrap_or(&[]);
            tokens.clear();
            tokens.extend(values.iter().map(|value| token(value).unwrap_or(UNKNOWN)));
            self.vectorize(&tokens, out);
        }
    }
}

impl Kernel for TfIdfVectorizer {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let (rows, width) = rows_and_width(x.shape(), OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let out = if x.dims().len() == 1 {
            cx.reset(out, &[self.columns])?
        } else {
            cx.reset(out, &[rows, self.columns])?
        };
        match (&self.vocabulary, x.data()) {
            (Vocabulary::Strings(map), DataView::String(v)) => {
                self.run_rows(v, width, out, |token| map.get(token).copied());
            }
            (Vocabulary::Ints(map), DataView::I64(v)) => {
                self.run_rows(v, width, out, |token| map.get(token).copied());
            }
            (Vocabulary::Ints(map), DataView::I32(v)) => {
                self.run_rows(v, width, out, |token| map.get(&i64::from(*token)).copied());
            }
            (vocabulary, other) => {
                return Err(RunError::InputType {
                    operator: OPERATOR,
                    expected: match vocabulary {
                        Vocabulary::Ints(_) => "i64 or i32",
                        Vocabulary::Strings(_) => "string",
                    },
                    found: other.element_type(),
                });
            }
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        let dims = same_dims(inputs, 0).map(|mut dims| {
            dims.pop();
            dims.push(FactDim::Fixed(self.columns));
            dims
        });
        Ok(smallvec![Fact { element: ElementType::F32, dims }])
    }

    fn memory(&self) -> usize {
        let words: usize = match &self.vocabulary {
            Vocabulary::Ints(map) => map.capacity() * 2 * size_of::<i64>(),
            Vocabulary::Strings(map) => map.keys().map(|word| word.len() + 4 * size_of::<usize>()).sum(),
        };
        words + self.children.capacity() * 16 + size_of_val(self.grams.as_slice())
    }
}

/// A required whole number that is at least `least`.
fn length(attributes: &Attributes, name: &str, least: usize) -> Result<usize, BuildError> {
    let found = attributes.int(name)?;
    found.and_then(|n| usize::try_from(n).ok()).filter(|n| *n >= least).ok_or_else(|| {
        BuildError::invalid(format!("attribute `{name}`: expected {least} or more, found {found:?}"))
    })
}

/// Numbers the tokens, and gives the pool in those numbers.
fn numbered<T: Eq + std::hash::Hash>(
    pool: impl Iterator<Item = T>,
) -> Result<(HashMap<T, u32>, Vec<u32>), BuildError> {
    let mut vocabulary = HashMap::new();
    let mut numbers = Vec::new();
    for token in pool {
        let next = u32::try_from(vocabulary.len()).ok().filter(|n| *n != UNKNOWN);
        let next = next.ok_or_else(|| BuildError::invalid("expected fewer than 2^32 tokens"))?;
        numbers.push(*vocabulary.entry(token).or_insert(next));
    }
    Ok((vocabulary, numbers))
}

#[cfg(test)]
#[path = "tfidf_tests.rs"]
mod tests;
