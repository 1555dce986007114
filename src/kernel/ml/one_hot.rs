//! `OneHotEncoder`: a category becomes a row of zeros with a one at its position.

use std::collections::HashMap;

use smallvec::{SmallVec, smallvec};

use super::common::{first_fact, input, same_dims};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Tensor, TensorView};

const OPERATOR: &str = "OneHotEncoder";

/// The result is f32 and has one dimension more than the input. A float is cut to its whole part
/// first. NaN belongs to no category and is not unknown either: its row is all NaN.
#[derive(Debug)]
pub(super) struct OneHotEncoder {
    categories: Categories,
    width: usize,
    /// An unknown category gives a row of zeros; else it is an error.
    zeros: bool,
}

#[derive(Debug)]
enum Categories {
    Ints(HashMap<i64, usize>),
    Strings(HashMap<String, usize>),
}

/// The position of an element's one.
enum Place {
    At(Option<usize>),
    NotANumber,
}

impl OneHotEncoder {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let (ints, strings) = (attributes.ints("cats_int64s")?, attributes.strings("cats_strings")?);
        let categories = match (ints, strings) {
            ([], []) => {
                return Err(BuildError::invalid("expected `cats_int64s` or `cats_strings`, found neither"));
            }
            (ints, []) => Categories::Ints(positions(ints.iter().copied())),
            ([], strings) => Categories::Strings(positions(strings.iter().cloned())),
            _ => return Err(BuildError::invalid("expected `cats_int64s` or `cats_strings`, found both")),
        };
        let zeros = attributes.int("zeros")?.is_none_or(|zeros| zeros != 0);
        Ok(Self { categories, width: ints.len().max(strings.len()), zeros })
    }

    fn encode<T>(&self, values: &[T], out: &mut [f32], place: impl Fn(&T) -> Place) -> Result<(), RunError> {
        for (row, value) in out.chunks_exact_mut(self.width).zip(values) {
            match place(value) {
                Place::NotANumber => row.fill(f32::NAN),
                Place::At(position) => {
                    row.fill(0.0);
                    match position.and_then(|p| row.get_mut(p)) {
                        Some(one) => *one = 1.0,
                        None if self.zeros => {}
                        None => {
                            return Err(RunError::Operator {
                                operator: OPERATOR,
                                expected: "one of its categories (zeros = 0), found another",
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Kernel for OneHotEncoder {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let dims: SmallVec<[usize; 8]> = x.dims().iter().copied().chain([self.width]).collect();
        let out = cx.reset(out, &dims)?;
        match (&self.categories, x.data()) {
            (Categories::Ints(map), DataView::I64(v)) => self.encode(v, out, |x| at(map, *x)),
            (Categories::Ints(map), DataView::I32(v)) => self.encode(v, out, |x| at(map, i64::from(*x))),
            (Categories::Ints(map), DataView::F32(v)) => self.encode(v, out, |x| at_float(map, (*x).into())),
            (Categories::Ints(map), DataView::F64(v)) => self.encode(v, out, |x| at_float(map, *x)),
            (Categories::Strings(map), DataView::String(v)) => {
                self.encode(v, out, |x| Place::At(map.get(x).copied()))
            }
            (categories, other) => Err(RunError::InputType {
                operator: OPERATOR,
                expected: match categories {
                    Categories::Ints(_) => "i64, i32, f32 or f64",
                    Categories::Strings(_) => "string",
                },
                found: other.element_type(),
            }),
        }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        let dims = same_dims(inputs, 0).map(|mut dims| {
            dims.push(FactDim::Fixed(self.width));
            dims
        });
        Ok(smallvec![Fact { element: ElementType::F32, dims }])
    }

    fn memory(&self) -> usize {
        match &self.categories {
            Categories::Ints(map) => map.capacity() * 2 * size_of::<usize>(),
            Categories::Strings(map) => {
                map.keys().map(String::len).sum::<usize>() + map.capacity() * 4 * size_of::<usize>()
            }
        }
    }
}

/// Of a category that is listed twice, the last position counts, as in onnxruntime.
fn positions<K: Eq + std::hash::Hash>(categories: impl Iterator<Item = K>) -> HashMap<K, usize> {
    categories.enumerate().map(|(position, category)| (category, position)).collect()
}

fn at(map: &HashMap<i64, usize>, value: i64) -> Place {
    Place::At(map.get(&value).copied())
}

fn at_float(map: &HashMap<i64, usize>, value: f64) -> Place {
    /// The first float above every i64.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if value.is_nan() {
        Place::NotANumber
    } else if (-LIMIT..LIMIT).contains(&value) {
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked; the fraction is cut")]
        let whole = value as i64;
        at(map, whole)
    } else {
        Place::At(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, close, ints, one, strings, words};
    use super::*;
    use crate::kernel::Attribute;

    fn whole() -> Vec<(&'static str, Attribute)> {
        vec![("cats_int64s", ints(&[3, -1, 7]))]
    }

    #[test]
    fn each_element_becomes_a_row_of_its_own() {
        let x = Tensor::new(&[2, 1], vec![7_i64, 3]).unwrap();
        let y = one("OneHotEncoder", whole(), x).unwrap();
        close(&y, &[2, 1, 3], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn floats_are_cut_to_whole_numbers_and_nan_stays_nan() {
        let x = Tensor::vector(vec![7.9_f32, -1.5, f32::NAN, 1e30]);
        let y = one("OneHotEncoder", whole(), x).unwrap();
        let nan = f32::NAN;
        close(&y, &[4, 3], &[0.0, 0.0, 1.0, 0.0, 1.0, 0.0, nan, nan, nan, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn strings_are_looked_up_and_unknown_ones_are_zeros() {
        let attributes = vec![("cats_strings", strings(&["b", "a"]))];
        let y = one("OneHotEncoder", attributes, words(&[2], &["a", "c"])).unwrap();
        close(&y, &[2, 2], &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn an_unknown_category_is_an_error_where_zeros_is_off() {
        let mut attributes = whole();
        attributes.push(("zeros", Attribute::Int(0)));
        let error = one("OneHotEncoder", attributes, Tensor::vector(vec![4_i32])).unwrap_err().to_string();
        assert_eq!(error, "OneHotEncoder expected one of its categories (zeros = 0), found another");
    }

    #[test]
    fn no_rows_give_no_rows() {
        let x = Tensor::new(&[0, 1], Vec::<i64>::new()).unwrap();
        close(&one("OneHotEncoder", whole(), x).unwrap(), &[0, 1, 3], &[]);
    }

    #[test]
    fn text_among_numbers_and_the_reverse_are_refused() {
        let error = one("OneHotEncoder", whole(), words(&[1], &["a"])).unwrap_err().to_string();
        assert_eq!(error, "OneHotEncoder expected i64, i32, f32 or f64, found string");
        let strings = vec![("cats_strings", strings(&["b"]))];
        let error = one("OneHotEncoder", strings, Tensor::vector(vec![1_i64])).unwrap_err().to_string();
        assert_eq!(error, "OneHotEncoder expected string, found i64");
        assert!(build("OneHotEncoder", vec![]).is_err());
    }
}
