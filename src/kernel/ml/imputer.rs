//! `Imputer`: replaces one value, NaN most often, by another of each feature.

use smallvec::{SmallVec, smallvec};

use super::common::{NUMBERS, first_fact, input, last_dim, same_shape};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

const OPERATOR: &str = "Imputer";

/// The result has the type of the input. NaN stays NaN unless it is the value to replace.
#[derive(Debug)]
pub(super) struct Imputer {
    floats: Replacement<f32>,
    ints: Replacement<i64>,
    // The same in the other two types, so that no run converts them.
    doubles: Replacement<f64>,
    small_ints: Option<Replacement<i32>>,
}

/// What to replace, and by what: one value for all features or one for each; none where the
/// operator is not for inputs of this type.
#[derive(Debug)]
struct Replacement<T> {
    replaced: T,
    by: Vec<T>,
}

impl Imputer {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let floats = Replacement {
            replaced: attributes.float("replaced_value_float")?.unwrap_or_default(),
            by: attributes.floats("imputed_value_floats")?.to_vec(),
        };
        let ints = Replacement {
            replaced: attributes.int("replaced_value_int64")?.unwrap_or_default(),
            by: attributes.ints("imputed_value_int64s")?.to_vec(),
        };
        if floats.by.is_empty() && ints.by.is_empty() {
            return Err(BuildError::invalid(
                "expected `imputed_value_floats` or `imputed_value_int64s`, found neither",
            ));
        }
        let doubles = Replacement {
            replaced: f64::from(floats.replaced),
            by: floats.by.iter().copied().map(f64::from).collect(),
        };
        let by: Result<_, _> = ints.by.iter().map(|value| i32::try_from(*value)).collect();
        let small_ints = match (i32::try_from(ints.replaced), by) {
            (Ok(replaced), Ok(by)) => Some(Replacement { replaced, by }),
            _ => None,
        };
        Ok(Self { floats, ints, doubles, small_ints })
    }
}

impl<T: Element + Copy> Replacement<T> {
    fn run(
        &self,
        values: &[T],
        x: TensorView<'_>,
        out: &mut Tensor,
        cx: &RunContext,
        is_replaced: impl Fn(T) -> bool,
    ) -> Result<(), RunError> {
        let width = last_dim(x.shape());
        match *self.by.as_slice() {
            [] => Err(RunError::InputType { operator: OPERATOR, expected: Self::expected(), found: T::TYPE }),
            [by] => {
                for (out, x) in cx.reset(out, x.dims())?.iter_mut().zip(values) {
                    *out = if is_replaced(*x) { by } else { *x };
                }
                Ok(())
            }
            ref by if by.len() == width => {
                let out = cx.reset(out, x.dims())?;
                for (row, out) in values.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    for ((out, x), by) in out.iter_mut().zip(row).zip(by) {
                        // Both are loaded, so that one is selected without a branch.
                        let (x, by) = (*x, *by);
                        *out = if is_replaced(x) { by } else { x };
                    }
                }
                Ok(())
            }
            ref by => Err(RunError::Width { operator: OPERATOR, expected: by.len(), found: width }),
        }
    }

    /// The types that the other attributes are for, where those for this type are absent.
    const fn expected() -> &'static str {
        if matches!(T::TYPE, ElementType::F32 | ElementType::F64) { "i32 or i64" } else { "f32 or f64" }
    }
}

impl Kernel for Imputer {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        #[expect(clippy::float_cmp, reason = "the operator replaces exactly this value")]
        match (x.data(), &self.small_ints) {
            (DataView::F32(v), _) if self.floats.replaced.is_nan() => {
                self.floats.run(v, x, out, cx, f32::is_nan)
            }
            (DataView::F32(v), _) => self.floats.run(v, x, out, cx, |x| x == self.floats.replaced),
            (DataView::F64(v), _) if self.doubles.replaced.is_nan() => {
                self.doubles.run(v, x, out, cx, f64::is_nan)
            }
            (DataView::F64(v), _) => self.doubles.run(v, x, out, cx, |x| x == self.doubles.replaced),
            (DataView::I64(v), _) => self.ints.run(v, x, out, cx, |x| x == self.ints.replaced),
            (DataView::I32(v), Some(ints)) => ints.run(v, x, out, cx, |x| x == ints.replaced),
            (DataView::I32(_), None) => {
                Err(RunError::Operator { operator: OPERATOR, expected: "replacements that fit an i32" })
            }
            (other, _) => Err(RunError::InputType {
                operator: OPERATOR,
                expected: NUMBERS,
                found: other.element_type(),
            }),
        }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let element = first_fact(inputs)?.element;
        let missing = match element {
            ElementType::F32 | ElementType::F64 if self.floats.by.is_empty() => "imputed_value_floats",
            ElementType::I32 | ElementType::I64 if self.ints.by.is_empty() => "imputed_value_int64s",
            _ => return Ok(smallvec![same_shape(inputs, element)]),
        };
        Err(BuildError::invalid(format!("an input of type {element} needs `{missing}`, which is absent")))
    }

    fn memory(&self) -> usize {
        size_of_val(self.floats.by.as_slice()) * 3 + size_of_val(self.ints.by.as_slice()) * 3 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, close, floats, ints, one};
    use super::*;
    use crate::kernel::Attribute;

    fn nan_by(by: &[f32]) -> Vec<(&'static str, Attribute)> {
        vec![("replaced_value_float", Attribute::Float(f32::NAN)), ("imputed_value_floats", floats(by))]
    }

    #[test]
    fn nan_is_replaced_by_the_value_of_its_feature() {
        let x = Tensor::new(&[2, 2], vec![f32::NAN, 1.0, 2.0, f32::NAN]).unwrap();
        close(&one("Imputer", nan_by(&[7.0, 8.0]), x).unwrap(), &[2, 2], &[7.0, 1.0, 2.0, 8.0]);
    }

    #[test]
    fn one_value_serves_all_features_and_doubles_stay_doubles() {
        let x = Tensor::new(&[1, 2], vec![f64::NAN, 1e300]).unwrap();
        let y = one("Imputer", nan_by(&[7.0]), x).unwrap();
        assert_eq!(y.values::<f64>(), Some(&[7.0, 1e300][..]));
    }

    #[test]
    fn nan_stays_where_another_value_is_replaced() {
        let attributes =
            vec![("replaced_value_float", Attribute::Float(-1.0)), ("imputed_value_floats", floats(&[5.0]))];
        let x = Tensor::new(&[1, 3], vec![f32::NAN, -1.0, 0.0]).unwrap();
        close(&one("Imputer", attributes, x).unwrap(), &[1, 3], &[f32::NAN, 5.0, 0.0]);
    }

    #[test]
    fn integers_are_replaced_in_their_own_type() {
        let attributes =
            || vec![("replaced_value_int64", Attribute::Int(-1)), ("imputed_value_int64s", ints(&[5, 6]))];
        let y = one("Imputer", attributes(), Tensor::new(&[1, 2], vec![-1_i64, -1]).unwrap()).unwrap();
        assert_eq!(y.values::<i64>(), Some(&[5, 6][..]));
        let y = one("Imputer", attributes(), Tensor::new(&[1, 2], vec![0_i32, -1]).unwrap()).unwrap();
        assert_eq!(y.values::<i32>(), Some(&[0, 6][..]));
    }

    #[test]
    fn an_input_of_the_other_kind_or_width_is_refused() {
        let error = one("Imputer", nan_by(&[7.0]), Tensor::column(vec![1_i64])).unwrap_err().to_string();
        assert_eq!(error, "Imputer expected f32 or f64, found i64");
        let error =
            one("Imputer", nan_by(&[7.0, 8.0]), Tensor::column(vec![1.0_f32])).unwrap_err().to_string();
        assert_eq!(error, "Imputer expected 2 values a row, found 1");
    }

    #[test]
    fn an_imputer_of_nothing_is_refused() {
        let error = build("Imputer", vec![]).unwrap_err().to_string();
        assert_eq!(error, "expected `imputed_value_floats` or `imputed_value_int64s`, found neither");
    }

    #[test]
    fn no_rows_give_no_rows() {
        let x = Tensor::new(&[0, 2], Vec::<f32>::new()).unwrap();
        close(&one("Imputer", nan_by(&[7.0, 8.0]), x).unwrap(), &[0, 2], &[]);
    }
}
