//! `Binarizer`: 1 above a threshold, else 0.

use smallvec::{SmallVec, smallvec};

use super::common::{Number, first_fact, input, same_shape, with_numbers};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{Tensor, TensorView};

const OPERATOR: &str = "Binarizer";

/// The result has the type of the input. NaN is neither above the threshold nor not, and stays NaN.
#[derive(Debug)]
pub(super) struct Binarizer {
    threshold: f64,
}

impl Binarizer {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        Ok(Self { threshold: attributes.float("threshold")?.unwrap_or(0.0).into() })
    }

    fn binarize<T: Number + Bit>(&self, values: &[T], out: &mut [T]) {
        for (out, x) in out.iter_mut().zip(values) {
            let wide = x.to_f64();
            *out = if wide.is_nan() { *x } else { T::bit(wide > self.threshold) };
        }
    }
}

impl Kernel for Binarizer {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        with_numbers!(x, OPERATOR, values => {
            self.binarize(values, cx.reset(out, x.dims())?);
            Ok(())
        })
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let element = first_fact(inputs)?.element;
        Ok(smallvec![same_shape(inputs, element)])
    }
}

/// 0 and 1 of a number type.
trait Bit {
    fn bit(set: bool) -> Self;
}

macro_rules! bits {
    ($($type:ty),*) => {$(
        impl Bit for $type {
            fn bit(set: bool) -> Self { u8::from(set).into() }
        }
    )*};
}
bits!(f32, f64, i32, i64);

#[cfg(test)]
mod tests {
    use super::super::common::testing::{close, one, words};
    use super::*;
    use crate::kernel::Attribute;

    #[test]
    fn only_what_is_above_the_threshold_is_one() {
        let x = Tensor::vector(vec![0.5_f32, 1.0, 1.5, f32::INFINITY]);
        let y = one("Binarizer", vec![("threshold", Attribute::Float(1.0))], x).unwrap();
        close(&y, &[4], &[0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn the_threshold_is_zero_where_absent_and_the_type_stays() {
        let y = one("Binarizer", vec![], Tensor::vector(vec![-1_i64, 0, 7])).unwrap();
        assert_eq!(y.values::<i64>(), Some(&[0, 0, 1][..]));
    }

    #[test]
    fn nan_stays_nan() {
        close(&one("Binarizer", vec![], Tensor::vector(vec![f32::NAN])).unwrap(), &[1], &[f32::NAN]);
    }

    #[test]
    fn text_is_refused() {
        let error = one("Binarizer", vec![], words(&[1], &["a"])).unwrap_err().to_string();
        assert_eq!(error, "Binarizer expected f32, f64, i32 or i64, found string");
    }
}
