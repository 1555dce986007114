//! `com.microsoft.Tokenizer`: the tokens of each string, which scikit-learn's text pipelines export.

use regex::Regex;
use smallvec::{SmallVec, smallvec};

use crate::kernel::ml::common::{first_fact, input, same_dims, values};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

const OPERATOR: &str = "Tokenizer";

/// What onnxruntime puts before and behind the tokens of a string where `mark` is set.
const START: &str = "\u{2}";
const END: &str = "\u{3}";

/// Of `[c]` or `[n, c]` it makes one dimension more, as long as the string of most tokens; behind the
/// others stands the pad value.
#[derive(Debug)]
pub(super) struct Tokenizer {
    rule: Rule,
    mark: bool,
    pad: String,
    /// Shorter tokens are dropped; in characters.
    shortest: usize,
}

#[derive(Debug)]
enum Rule {
    Characters,
    /// What matches is a token. Where several lengths match, the first alternative counts, as in the
    /// Python that the expression was written for.
    Tokens(Regex),
    /// What stands between matches is a token; an earlier separator cuts before a later one.
    Separators(Vec<Regex>),
}

impl Tokenizer {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let shortest = attributes.int("mincharnum")?.unwrap_or(1);
        let shortest = usize::try_from(shortest).map_err(|_| {
            BuildError::invalid(format!("attribute `mincharnum`: expected a length, found {shortest}"))
        })?;
        let rule = match (attributes.string("tokenexp")?, attributes.strings("separators")?) {
            (Some(expression), []) => Rule::Tokens(regex("tokenexp", expression)?),
            (None, [only]) if only.is_empty() => Rule::Characters,
            (None, separators @ [_, ..]) => {
                if separators.iter().any(String::is_empty) {
                    return Err(BuildError::invalid("attribute `separators`: expected none that is empty"));
                }
                Rule::Separators(separators.iter().map(|s| regex("separators", s)).collect::<Result<_, _>>()?)
            }
            (Some(_), _) => {
                return Err(BuildError::invalid("expected `tokenexp` or `separators`, found both"));
            }
            (None, []) => {
                return Err(BuildError::invalid("expected `tokenexp` or `separators`, found neither"));
            }
        };
        Ok(Self {
            rule,
            mark: attributes.int("mark")?.unwrap_or(0) != 0,
            pad: attributes.string("pad_value")?.unwrap_or_default().to_owned(),
            shortest,
        })
    }

    fn tokens<'t>(&self, text: &'t str, tokens: &mut Vec<&'t str>) {
        tokens.clear();
        match &self.rule {
            Rule::Characters => tokens.extend(text.split("").filter(|c| !c.is_empty())),
            Rule::Tokens(token) => tokens.extend(token.find_iter(text).map(|found| found.as_str())),
            Rule::Separators(separators) => {
                tokens.push(text);
                for separator in separators {
                    let pieces = std::mem::take(tokens);
                    tokens.extend(pieces.into_iter().flat_map(|piece| cut(separator, piece)));
                }
            }
        }
        tokens.retain(|token| !token.is_empty() && token.chars().count() >= self.shortest);
    }
}

/// What stands between the matches; an empty match cuts nothing.
fn cut<'t>(separator: &Regex, text: &'t str) -> Vec<&'t str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for found in separator.find_iter(text).filter(|found| !found.is_empty()) {
        pieces.extend(text.get(start..found.start()));
        start = found.end();
    }
    pieces.extend(text.get(start..));
    pieces
}

fn regex(attribute: &str, expression: &str) -> Result<Regex, BuildError> {
    Regex::new(expression).map_err(|e| BuildError::invalid(format!("attribute `{attribute}`: {e}")))
}

impl Kernel for Tokenizer {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let texts = values::<String>(x, OPERATOR)?;
        if !(1..=2).contains(&x.dims().len()) {
            return Err(RunError::Operator {
                operator: OPERATOR,
                expected: "an input of one or two dimensions",
            });
        }
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let mut tokens = Vec::new();
        let most = texts.iter().map(|text| {
            self.tokens(text, &mut tokens);
            tokens.len()
        });
        // Without a single token there is nothing to mark either.
        let width = match most.max().unwrap_or(0) {
            0 => 0,
            most => most + if self.mark { 2 } else { 0 },
        };
        let dims: SmallVec<[usize; 8]> = x.dims().iter().copied().chain([width]).collect();
        let out = cx.reset::<String>(out, &dims)?;
        // What the tokens hold stands in the texts; what fills the rows up is the file's.
        cx.room_for_text((self.pad.len() as u64).saturating_mul(out.len() as u64))?;
        if width == 0 {
            return Ok(());
        }
        for (row, text) in out.chunks_exact_mut(width).zip(texts) {
            self.tokens(text, &mut tokens);
            let (start, end) = if self.mark { (Some(START), Some(END)) } else { (None, None) };
            let mut filled = start.into_iter().chain(tokens.iter().copied()).chain(end);
            for out in row {
                out.clear();
                out.push_str(filled.next().unwrap_or(&self.pad));
            }
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        let dims = same_dims(inputs, 0).map(|mut dims| {
            dims.push(FactDim::Unknown);
            dims
        });
        Ok(smallvec![Fact { element: ElementType::String, dims }])
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::Attribute;
    use crate::kernel::ml::common::testing::{build, one, strings, text, words};
    use crate::tensor::Tensor;

    fn tokens(mark: i64, shortest: i64, rule: (&'static str, Attribute), x: Tensor) -> Tensor {
        let attributes = vec![
            ("mark", Attribute::Int(mark)),
            ("mincharnum", Attribute::Int(shortest)),
            ("pad_value", text("#")),
            rule,
        ];
        one("com.microsoft:Tokenizer", attributes, x).unwrap()
    }

    fn texts() -> Tensor {
        words(&[4], &["hello world", "a b  c", "", "  "])
    }

    /// The expected tokens are onnxruntime 1.32's.
    #[test]
    fn separators_cut_and_short_rows_are_padded() {
        let y = tokens(0, 1, ("separators", strings(&[" "])), texts());
        let expected = ["hello", "world", "#", "a", "b", "c", "#", "#", "#", "#", "#", "#"];
        assert_eq!(y, words(&[4, 3], &expected));
    }

    #[test]
    fn earlier_separators_cut_before_later_ones_and_are_expressions() {
        let cut = |separators: &[&str]| {
            tokens(0, 1, ("separators", strings(separators)), words(&[2], &["abcd", "abab"]))
        };
        assert_eq!(cut(&["b", "bc"]), words(&[2, 2], &["a", "cd", "a", "a"]));
        assert_eq!(cut(&["bc", "b"]), words(&[2, 2], &["a", "d", "a", "a"]));
        let y = tokens(0, 1, ("separators", strings(&["[lo]+"])), words(&[1], &["hello world"]));
        assert_eq!(y, words(&[1, 4], &["he", " w", "r", "d"]));
    }

    #[test]
    fn marks_stand_around_the_tokens_before_the_padding() {
        let y = tokens(1, 2, ("tokenexp", text("[a-z]+")), words(&[2, 1], &["hello world", "a"]));
        let expected = ["\u{2}", "hello", "world", "\u{3}", "\u{2}", "\u{3}", "#", "#"];
        assert_eq!(y, words(&[2, 1, 4], &expected));
    }

    #[test]
    fn an_empty_separator_makes_characters_of_a_string() {
        let y = tokens(0, 1, ("separators", strings(&[""])), words(&[2], &["äb", "c"]));
        assert_eq!(y, words(&[2, 2], &["ä", "b", "c", "#"]));
    }

    #[test]
    fn without_any_token_the_last_dimension_is_empty() {
        for rule in [("tokenexp", text("x*")), ("separators", strings(&[" "]))] {
            assert_eq!(tokens(1, 1, rule, words(&[2], &["", " "])).dims().len(), 2);
        }
        assert_eq!(tokens(1, 1, ("tokenexp", text("x*")), texts()).dims(), [4, 0]);
        assert_eq!(tokens(0, 1, ("separators", strings(&[" "])), words(&[0], &[])).dims(), [0, 0]);
    }

    #[test]
    fn rules_that_contradict_are_refused() {
        let build = |attributes| build("com.microsoft:Tokenizer", attributes).unwrap_err().to_string();
        assert_eq!(build(vec![]), "expected `tokenexp` or `separators`, found neither");
        let both = vec![("tokenexp", text("a")), ("separators", strings(&["b"]))];
        assert_eq!(build(both), "expected `tokenexp` or `separators`, found both");
        assert!(build(vec![("tokenexp", text("(")),]).starts_with("attribute `tokenexp`: "));
    }
}
