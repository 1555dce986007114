//! `RegexFullMatch`: whether a regular expression matches the whole of each string.

use regex::Regex;
use smallvec::{SmallVec, smallvec};

use crate::kernel::ml::common::{first_fact, input, same_shape, values};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

const OPERATOR: &str = "RegexFullMatch";

/// The syntax is that of the crate `regex`, which like RE2 matches in linear time.
#[derive(Debug)]
pub(super) struct RegexFullMatch {
    pattern: Regex,
}

impl RegexFullMatch {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let Some(pattern) = attributes.string("pattern")? else {
            return Err(BuildError::invalid("expected `pattern`, found none"));
        };
        let pattern = Regex::new(&format!(r"\A(?:{pattern})\z"))
            .map_err(|e| BuildError::invalid(format!("attribute `pattern`: {e}")))?;
        Ok(Self { pattern })
    }
}

impl Kernel for RegexFullMatch {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let texts = values::<String>(x, OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        for (out, text) in cx.reset(out, x.dims())?.iter_mut().zip(texts) {
            *out = self.pattern.is_match(text);
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        Ok(smallvec![same_shape(inputs, ElementType::Bool)])
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::ml::common::testing::{build, one, text, words};

    #[test]
    fn only_a_match_of_the_whole_string_counts() {
        let y = one(":RegexFullMatch", vec![("pattern", text("a|abc"))], {
            words(&[3, 1], &["abc", "abcd", "a\n"])
        });
        assert_eq!(y.unwrap().values::<bool>(), Some(&[true, false, false][..]));
    }

    #[test]
    fn a_malformed_or_absent_pattern_is_refused() {
        assert!(build(":RegexFullMatch", vec![("pattern", text("(a"))]).is_err());
        assert!(build(":RegexFullMatch", vec![]).is_err());
    }
}
