//! `CategoryMapper`, and `LabelEncoder` 1: text to integers, or integers to text.

use std::collections::HashMap;

use smallvec::{SmallVec, smallvec};

use super::common::{first_fact, input, same_shape};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Tensor, TensorView};

const OPERATOR: &str = "CategoryMapper";

/// The type of the input says in which direction it maps.
#[derive(Debug)]
pub(super) struct CategoryMapper {
    ints: HashMap<String, i64>,
    strings: HashMap<i64, String>,
    default_int: i64,
    default_string: String,
    /// The bytes of the longest text that it can answer.
    longest: u64,
}

impl CategoryMapper {
    /// A mapper of two lists of one length.
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let (ints, strings) = (attributes.ints("cats_int64s")?, attributes.strings("cats_strings")?);
        if ints.len() != strings.len() || ints.is_empty() {
            return Err(BuildError::invalid(format!(
                "expected as many `cats_strings` as `cats_int64s`, found {} and {}",
                strings.len(),
                ints.len()
            )));
        }
        Self::of_pairs(attributes, ints.iter().copied().zip(strings))
    }

    /// A mapper of a list of classes, which its positions stand for.
    pub(super) fn of_classes(attributes: &Attributes) -> Result<Self, BuildError> {
        let classes = attributes.strings("classes_strings")?;
        if classes.is_empty() {
            return Err(BuildError::invalid("expected `classes_strings`, found none"));
        }
        Self::of_pairs(attributes, (0..).zip(classes))
    }

    fn of_pairs<'a>(
        attributes: &Attributes,
        pairs: impl Iterator<Item = (i64, &'a String)>,
    ) -> Result<Self, BuildError> {
        let (mut ints, mut strings) = (HashMap::new(), HashMap::new());
        for (int, string) in pairs {
            // Of one that is listed twice the last counts, as in onnxruntime.
            ints.insert(string.clone(), int);
            strings.insert(int, string.clone());
        }
        let default_string = attributes.string("default_string")?.unwrap_or("_Unused").to_owned();
        let longest = strings.values().chain([&default_string]).map(String::len).max().unwrap_or(0) as u64;
        let default_int = attributes.int("default_int64")?.unwrap_or(-1);
        Ok(Self { ints, strings, default_int, default_string, longest })
    }
}

impl Kernel for CategoryMapper {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        match x.data() {
            DataView::String(values) => {
                for (out, value) in cx.reset(out, x.dims())?.iter_mut().zip(values) {
                    *out = self.ints.get(value).copied().unwrap_or(self.default_int);
                }
            }
            DataView::I64(values) => {
                cx.room_for_text(self.longest.saturating_mul(values.len() as u64))?;
                for (out, value) in cx.reset::<String>(out, x.dims())?.iter_mut().zip(values) {
                    out.clone_from(self.strings.get(value).unwrap_or(&self.default_string));
                }
            }
            other => {
                return Err(RunError::InputType {
                    operator: OPERATOR,
                    expected: "string or i64",
                    found: other.element_type(),
                });
            }
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        match first_fact(inputs)?.element {
            ElementType::String => Ok(smallvec![same_shape(inputs, ElementType::I64)]),
            ElementType::I64 => Ok(smallvec![same_shape(inputs, ElementType::String)]),
            other => Err(BuildError::invalid(format!("expected an input of string or i64, found {other}"))),
        }
    }

    fn memory(&self) -> usize {
        self.ints.keys().map(|key| 2 * key.len() + 12 * size_of::<usize>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, ints, one, strings, text, words};
    use super::*;
    use crate::kernel::Attribute;

    fn mapper() -> Vec<(&'static str, Attribute)> {
        vec![
            ("cats_int64s", ints(&[10, 20])),
            ("cats_strings", strings(&["a", "b"])),
            ("default_string", text("other")),
        ]
    }

    #[test]
    fn the_type_of_the_input_says_the_direction() {
        let y = one("CategoryMapper", mapper(), words(&[3, 1], &["b", "a", "z"])).unwrap();
        assert_eq!((y.dims(), y.values::<i64>()), (&[3, 1][..], Some(&[20, 10, -1][..])));
        let y = one("CategoryMapper", mapper(), Tensor::vector(vec![20_i64, 7])).unwrap();
        assert_eq!(y, words(&[2], &["b", "other"]));
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        let attributes = vec![("cats_int64s", ints(&[1])), ("cats_strings", strings(&["a", "b"]))];
        let error = build("CategoryMapper", attributes).unwrap_err().to_string();
        assert_eq!(error, "expected as many `cats_strings` as `cats_int64s`, found 2 and 1");
    }

    #[test]
    fn floats_are_refused() {
        let error = one("CategoryMapper", mapper(), Tensor::vector(vec![1.0_f32])).unwrap_err().to_string();
        assert_eq!(error, "CategoryMapper expected string or i64, found f32");
    }
}
