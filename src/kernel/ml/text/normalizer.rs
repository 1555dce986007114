//! `StringNormalizer`: changes case and drops stop words.

use std::collections::HashSet;

use smallvec::{SmallVec, smallvec};

use crate::kernel::ml::common::{first_fact, input, values};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

const OPERATOR: &str = "StringNormalizer";

/// Takes `[c]` or `[1, c]`. Where every string is dropped, one empty string is left. Case is that of
/// Unicode; the languages with a case of their own are refused.
#[derive(Debug)]
pub(super) struct StringNormalizer {
    case: Case,
    sensitive: bool,
    /// In the case in which they are compared.
    stopwords: HashSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Keep,
    Lower,
    Upper,
}

impl StringNormalizer {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let case = match attributes.string("case_change_action")? {
            None | Some("NONE") => Case::Keep,
            Some("LOWER") => Case::Lower,
            Some("UPPER") => Case::Upper,
            Some(other) => {
                return Err(BuildError::invalid(format!(
                    "attribute `case_change_action`: expected NONE, LOWER or UPPER, found `{other}`"
                )));
            }
        };
        if let Some(locale) = attributes.string("locale")?
            && case != Case::Keep
            && ["tr", "az", "lt"].contains(&locale.split(['_', '-', '.']).next().unwrap_or_default())
        {
            return Err(BuildError::invalid(format!(
                "attribute `locale`: expected a language with the case rules of Unicode, found `{locale}`"
            )));
        }
        let sensitive = attributes.int("is_case_sensitive")?.unwrap_or(0) != 0;
        let fold = |word: &String| if sensitive { word.clone() } else { case.or_lower().apply(word) };
        let stopwords = attributes.strings("stopwords")?.iter().map(fold).collect();
        Ok(Self { case, sensitive, stopwords })
    }

    fn keeps(&self, word: &str) -> bool {
        self.stopwords.is_empty()
            || if self.sensitive {
                !self.stopwords.contains(word)
            } else {
                !self.stopwords.contains(&self.case.or_lower().apply(word))
            }
    }
}

impl Case {
    fn apply(self, text: &str) -> String {
        match self {
            Self::Keep => text.to_owned(),
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
        }
    }

    /// The case in which words are compared that may differ in case.
    const fn or_lower(self) -> Self {
        match self {
            Self::Upper => Self::Upper,
            Self::Keep | Self::Lower => Self::Lower,
        }
    }
}

impl Kernel for StringNormalizer {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let words = values::<String>(x, OPERATOR)?;
        let one_row = match x.dims() {
            [_] => false,
            [1, _] => true,
            _ => {
                return Err(RunError::Operator {
                    operator: OPERATOR,
                    expected: "an input of shape [c] or [1,c]",
                });
            }
        };
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let kept = words.iter().filter(|word| self.keeps(word)).count();
        let length = kept.max(1);
        let out = if one_row { cx.reset::<String>(out, &[1, length]) } else { cx.reset(out, &[length]) }?;
        if kept == 0 {
            out.iter_mut().for_each(String::clear);
        }
        for (out, word) in out.iter_mut().zip(words.iter().filter(|word| self.keeps(word))) {
            if self.case == Case::Keep {
                out.clone_from(word);
            } else {
                *out = self.case.apply(word);
            }
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let dims = first_fact(inputs)?.dims.as_deref().map(|dims| {
            let drops = !self.stopwords.is_empty();
            let last = dims.len().saturating_sub(1);
            let dim = |(axis, dim): (usize, &FactDim)| match dim {
                _ if axis < last => FactDim::Fixed(1),
                FactDim::Fixed(n) if !drops && *n > 0 => FactDim::Fixed(*n),
                _ => FactDim::Unknown,
            };
            dims.iter().enumerate().map(dim).collect()
        });
        Ok(smallvec![Fact { element: ElementType::String, dims }])
    }

    fn memory(&self) -> usize {
        self.stopwords.iter().map(|word| word.len() + 4 * size_of::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::Attribute;
    use crate::kernel::ml::common::testing::{build, one, strings, text, words};
    use crate::tensor::Tensor;

    fn normalized(case: &str, sensitive: i64, stopwords: &[&str], x: Tensor) -> Tensor {
        let attributes = vec![
            ("case_change_action", text(case)),
            ("is_case_sensitive", Attribute::Int(sensitive)),
            ("stopwords", strings(stopwords)),
            ("locale", text("en_US")),
        ];
        one(":StringNormalizer", attributes, x).unwrap()
    }

    #[test]
    fn case_changes_in_every_script() {
        assert_eq!(normalized("LOWER", 0, &[], words(&[2], &["ÉA", "Ж"])), words(&[2], &["éa", "ж"]));
        assert_eq!(normalized("UPPER", 1, &[], words(&[1, 1], &["straße"])), words(&[1, 1], &["STRASSE"]));
        assert_eq!(normalized("NONE", 0, &[], words(&[1], &["aB"])), words(&[1], &["aB"]));
    }

    #[test]
    fn stop_words_are_compared_before_the_case_changes() {
        let days = || words(&[3], &["Monday", "tuesday", "monday"]);
        assert_eq!(normalized("UPPER", 1, &["monday"], days()), words(&[2], &["MONDAY", "TUESDAY"]));
        assert_eq!(normalized("UPPER", 0, &["monday"], days()), words(&[1], &["TUESDAY"]));
        assert_eq!(normalized("NONE", 0, &["MONDAY"], days()), words(&[1], &["tuesday"]));
    }

    #[test]
    fn where_nothing_is_left_there_is_one_empty_string() {
        assert_eq!(normalized("LOWER", 0, &["a"], words(&[1, 2], &["a", "A"])), words(&[1, 1], &[""]));
        assert_eq!(normalized("LOWER", 0, &[], words(&[0], &[])), words(&[1], &[""]));
    }

    #[test]
    fn several_rows_and_numbers_are_refused() {
        let error = one(":StringNormalizer", vec![], words(&[2, 1], &["a", "b"])).unwrap_err().to_string();
        assert_eq!(error, "StringNormalizer expected an input of shape [c] or [1,c]");
        let error = one(":StringNormalizer", vec![], Tensor::vector(vec![1.0_f32])).unwrap_err().to_string();
        assert_eq!(error, "StringNormalizer expected string, found f32");
    }

    #[test]
    fn a_language_with_a_case_of_its_own_is_refused() {
        let attributes = vec![("case_change_action", text("LOWER")), ("locale", text("tr_TR"))];
        assert!(build(":StringNormalizer", attributes).is_err());
        assert!(build(":StringNormalizer", vec![("case_change_action", text("TITLE"))]).is_err());
    }
}
