//! `Scaler`: `(x - offset) * scale`, with one offset and scale for all features or one for each.

use smallvec::{SmallVec, smallvec};

use super::common::{Number, first_fact, input, last_dim, same_shape, with_numbers};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

const OPERATOR: &str = "Scaler";

/// Parameters of narrow rows are repeated until they are at least this long: one inner loop over
/// several rows runs in whole vectors where one over four features would not.
const TILE: usize = 64;

/// The result is f32; f64 and integer inputs are computed in f64. NaN stays NaN.
#[derive(Debug)]
pub(super) struct Scaler {
    /// The number of features; `None` where one offset and scale serve all.
    width: Option<usize>,
    /// As long as `scale`: a whole number of rows.
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Scaler {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let offset = attributes.floats("offset")?;
        let scale = attributes.floats("scale")?;
        let width = offset.len().max(scale.len());
        for (name, found) in [("offset", offset.len()), ("scale", scale.len())] {
            if found > 1 && found != width {
                return Err(BuildError::invalid(format!(
                    "attribute `{name}`: expected 1 or {width} values, found {found}"
                )));
            }
        }
        let length = width.max(1) * TILE.div_ceil(width.max(1));
        Ok(Self {
            width: (width > 1).then_some(width),
            offset: tiled(offset, 0.0, length),
            scale: tiled(scale, 1.0, length),
        })
    }

    fn scale<T: Number>(&self, values: &[T], out: &mut [f32]) {
        let length = self.scale.len();
        for (values, out) in values.chunks(length).zip(out.chunks_mut(length)) {
            for (((out, x), offset), scale) in out.iter_mut().zip(values).zip(&self.offset).zip(&self.scale) {
                *out = ((x.to_f64() - f64::from(*offset)) * f64::from(*scale)).to_f32();
            }
        }
    }

    fn scale_f32(&self, values: &[f32], out: &mut [f32]) {
        let length = self.scale.len();
        for (values, out) in values.chunks(length).zip(out.chunks_mut(length)) {
            for (((out, x), offset), scale) in out.iter_mut().zip(values).zip(&self.offset).zip(&self.scale) {
                *out = (x - offset) * scale;
            }
        }
    }
}

impl Kernel for Scaler {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let found = last_dim(x.shape());
        if let Some(expected) = self.width
            && expected != found
        {
            return Err(RunError::Width { operator: OPERATOR, expected, found });
        }
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let out = cx.reset(out, x.dims())?;
        if let Some(values) = x.values::<f32>() {
            self.scale_f32(values, out);
            return Ok(());
        }
        with_numbers!(x, OPERATOR, values => {
            self.scale(values, out);
            Ok(())
        })
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        Ok(smallvec![same_shape(inputs, ElementType::F32)])
    }

    fn memory(&self) -> usize {
        size_of_val(self.offset.as_slice()) + size_of_val(self.scale.as_slice())
    }
}

/// `values` over and over, or `absent` where there are none.
fn tiled(values: &[f32], absent: f32, length: usize) -> Vec<f32> {
    let values = if values.is_empty() { &[absent][..] } else { values };
    values.iter().copied().cycle().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, close, floats, one, words};
    use super::*;

    fn scaler(offset: &[f32], scale: &[f32]) -> Vec<(&'static str, crate::kernel::Attribute)> {
        vec![("offset", floats(offset)), ("scale", floats(scale))]
    }

    #[test]
    fn every_feature_has_its_own_offset_and_scale() {
        let x = Tensor::new(&[2, 2], vec![1.0_f32, 2.0, 3.0, f32::NAN]).unwrap();
        let y = one("Scaler", scaler(&[1.0, 0.0], &[2.0, 0.5]), x).unwrap();
        close(&y, &[2, 2], &[0.0, 1.0, 4.0, f32::NAN]);
    }

    #[test]
    fn one_offset_or_scale_serves_all_features() {
        let x = || Tensor::new(&[1, 3], vec![1_i64, 2, 3]).unwrap();
        close(&one("Scaler", scaler(&[1.0], &[2.0]), x()).unwrap(), &[1, 3], &[0.0, 2.0, 4.0]);
        close(&one("Scaler", scaler(&[1.0], &[1.0, 2.0, 3.0]), x()).unwrap(), &[1, 3], &[0.0, 2.0, 6.0]);
        close(&one("Scaler", scaler(&[], &[2.0]), x()).unwrap(), &[1, 3], &[2.0, 4.0, 6.0]);
    }

    #[test]
    fn long_batches_are_right_behind_the_tile_too() {
        let x: Vec<f32> = (0_u8..=251).map(f32::from).collect();
        let expected: Vec<f32> =
            x.iter().enumerate().map(|(i, x)| if i % 3 == 0 { *x } else { -x }).collect();
        let y = one("Scaler", scaler(&[0.0], &[1.0, -1.0, -1.0]), Tensor::new(&[84, 3], x).unwrap()).unwrap();
        close(&y, &[84, 3], &expected);
    }

    #[test]
    fn doubles_are_computed_in_double() {
        let x = Tensor::new(&[1, 1], vec![16_777_217.0_f64]).unwrap();
        close(&one("Scaler", scaler(&[16_777_216.0], &[1.0]), x).unwrap(), &[1, 1], &[1.0]);
    }

    #[test]
    fn no_rows_give_no_rows() {
        let x = Tensor::new(&[0, 2], Vec::<f32>::new()).unwrap();
        close(&one("Scaler", scaler(&[1.0, 2.0], &[1.0, 2.0]), x).unwrap(), &[0, 2], &[]);
    }

    #[test]
    fn lengths_that_contradict_are_refused() {
        let error = build("Scaler", scaler(&[1.0, 2.0, 3.0], &[1.0, 2.0])).unwrap_err().to_string();
        assert_eq!(error, "attribute `scale`: expected 1 or 3 values, found 2");
    }

    #[test]
    fn rows_of_another_width_or_type_are_refused() {
        let x = Tensor::new(&[1, 3], vec![1.0_f32; 3]).unwrap();
        let error = one("Scaler", scaler(&[1.0, 2.0], &[1.0, 2.0]), x).unwrap_err().to_string();
        assert_eq!(error, "Scaler expected 2 values a row, found 3");
        let error = one("Scaler", scaler(&[1.0], &[1.0]), words(&[1, 1], &["a"])).unwrap_err().to_string();
        assert_eq!(error, "Scaler expected f32, f64, i32 or i64, found string");
    }
}
