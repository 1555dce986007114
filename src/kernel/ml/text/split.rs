//! `StringSplit`: the parts of each string, and how many they are.

use smallvec::{SmallVec, smallvec};

use crate::kernel::ml::common::{first_fact, input, same_dims, two, values};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

const OPERATOR: &str = "StringSplit";

/// Splits as Python's `str.split` does, which the specification refers to: at runs of white space
/// where there is no delimiter, else at each delimiter, of an empty string too (one empty part).
/// Strings of fewer parts than the longest are filled up with empty ones.
#[derive(Debug)]
pub(super) struct StringSplit {
    /// Not empty.
    delimiter: Option<String>,
    /// The most splits; `None` for as many as there are.
    most: Option<usize>,
}

impl StringSplit {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let delimiter = attributes.string("delimiter")?.filter(|d| !d.is_empty()).map(str::to_owned);
        // A negative count means no limit, as in Python.
        let most = attributes.int("maxsplit")?.and_then(|most| usize::try_from(most).ok());
        Ok(Self { delimiter, most })
    }

    fn parts<'t>(&'t self, text: &'t str) -> Box<dyn Iterator<Item = &'t str> + 't> {
        match (&self.delimiter, self.most) {
            (Some(delimiter), None) => Box::new(text.split(delimiter.as_str())),
            (Some(delimiter), Some(most)) => {
                Box::new(text.splitn(most.saturating_add(1), delimiter.as_str()))
            }
            (None, None) => Box::new(text.split_whitespace()),
            (None, Some(most)) => Box::new(Words { rest: text.trim_start(), left: most }),
        }
    }
}

/// Words, the last of which is all that is left after so many splits.
struct Words<'t> {
    rest: &'t str,
    left: usize,
}

impl<'t> Iterator for Words<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let split = if self.left == 0 { None } else { self.rest.split_once(char::is_whitespace) };
        self.left = self.left.saturating_sub(1);
        let (word, rest) = split.unwrap_or((self.rest, ""));
        self.rest = rest.trim_start();
        Some(word)
    }
}

impl Kernel for StringSplit {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let texts = values::<String>(x, OPERATOR)?;
        let width = texts.iter().map(|text| self.parts(text).count()).max().unwrap_or(0);
        let (parts, counts) = two(outputs);
        if let Some(counts) = counts {
            for (count, text) in cx.reset::<i64>(counts, x.dims())?.iter_mut().zip(texts) {
                *count = i64::try_from(self.parts(text).count()).unwrap_or(i64::MAX);
            }
        }
        let Some(out) = parts else { return Ok(()) };
        let dims: SmallVec<[usize; 8]> = x.dims().iter().copied().chain([width]).collect();
        let out = cx.reset::<String>(out, &dims)?;
        if width == 0 {
            return Ok(());
        }
        for (row, text) in out.chunks_exact_mut(width).zip(texts) {
            let mut parts = self.parts(text);
            for out in row {
                out.clear();
                out.push_str(parts.next().unwrap_or(""));
            }
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        let counts = same_dims(inputs, 0);
        let parts = counts.clone().map(|mut dims| {
            dims.push(FactDim::Unknown);
            dims
        });
        Ok(smallvec![
            Fact { element: ElementType::String, dims: parts },
            Fact { element: ElementType::I64, dims: counts },
        ])
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::Attribute;
    use crate::kernel::ml::common::testing::{build, run, text, words};
    use crate::tensor::Tensor;

    fn split(delimiter: Option<&str>, most: Option<i64>, x: Tensor) -> (Tensor, Vec<i64>) {
        let mut attributes = vec![];
        attributes.extend(delimiter.map(|d| ("delimiter", text(d))));
        attributes.extend(most.map(|m| ("maxsplit", Attribute::Int(m))));
        let mut out = run(&*build(":StringSplit", attributes).unwrap(), &[x], 2).unwrap();
        let counts = out.remove(1).into_values().unwrap();
        (out.remove(0), counts)
    }

    #[test]
    fn delimiters_split_and_short_rows_are_filled() {
        let (y, counts) = split(Some("."), None, words(&[2], &["abc.com", "a..b"]));
        assert_eq!(y, words(&[2, 3], &["abc", "com", "", "a", "", "b"]));
        assert_eq!(counts, [2, 3]);
    }

    #[test]
    fn white_space_splits_where_there_is_no_delimiter() {
        for delimiter in [None, Some("")] {
            let (y, counts) = split(delimiter, None, words(&[3], &["hello world", " a   b ", ""]));
            assert_eq!(y, words(&[3, 2], &["hello", "world", "a", "b", "", ""]));
            assert_eq!(counts, [2, 2, 0]);
        }
    }

    #[test]
    fn the_last_part_is_all_that_is_left_after_the_most_splits() {
        let (y, counts) = split(None, Some(1), words(&[2], &[" a b  c", "d"]));
        assert_eq!((y, counts), (words(&[2, 2], &["a", "b  c", "d", ""]), vec![2, 1]));
        let (y, _) = split(Some(".."), Some(2), words(&[1], &["a..b..c..d"]));
        assert_eq!(y, words(&[1, 3], &["a", "b", "c..d"]));
    }

    #[test]
    fn a_scalar_gives_a_row_and_nothing_gives_nothing() {
        let (y, counts) = split(None, None, words(&[], &["a b"]));
        assert_eq!((y, counts), (words(&[2], &["a", "b"]), vec![2]));
        let (y, _) = split(None, None, words(&[0, 3], &[]));
        assert_eq!(y.dims(), [0, 3, 0]);
    }

    #[test]
    fn numbers_are_refused() {
        let kernel = build(":StringSplit", vec![]).unwrap();
        let error = run(&*kernel, &[Tensor::vector(vec![1_i64])], 2).unwrap_err().to_string();
        assert_eq!(error, "StringSplit expected string, found i64");
    }
}
