//! `ArrayFeatureExtractor`: some columns of the last dimension.

use smallvec::{SmallVec, smallvec};

use super::common::{first_fact, input, last_dim, same_dims, values};
use crate::kernel::{BuildError, Fact, FactDim, Kernel, RunContext, text_bytes};
use crate::load::RunError;
use crate::tensor::{DataView, Element, Tensor, TensorView};

const OPERATOR: &str = "ArrayFeatureExtractor";

/// Takes elements of any type; of a single dimension the result is one row. NaN stays NaN.
#[derive(Debug)]
pub(super) struct ArrayFeatureExtractor;

impl Kernel for ArrayFeatureExtractor {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let indices = values::<i64>(input(inputs, 1, OPERATOR)?, OPERATOR)?;
        let width = last_dim(x.shape());
        if x.dims().is_empty() || indices.is_empty() {
            return Err(RunError::Operator {
                operator: OPERATOR,
                expected: "a dimension and an index into it",
            });
        }
        if indices.iter().any(|i| usize::try_from(*i).map_or(true, |i| i >= width)) {
            return Err(RunError::Operator {
                operator: OPERATOR,
                expected: "indices into the last dimension, found one outside of it",
            });
        }
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let mut dims: SmallVec<[usize; 8]> = SmallVec::from_slice(x.dims());
        if dims.len() == 1 {
            dims.insert(0, 1);
        }
        if let Some(last) = dims.last_mut() {
            *last = indices.len();
        }
        match x.data() {
            DataView::F32(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::F64(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::I8(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::I16(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::I32(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::I64(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::U8(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::U16(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::U32(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::U64(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::Bool(v) => extract(v, width, indices, cx.reset(out, &dims)?),
            DataView::String(v) => {
                cx.room_for_text(text_bytes(v).saturating_mul(indices.len() as u64))?;
                extract(v, width, indices, cx.reset(out, &dims)?);
            }
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let element = first_fact(inputs)?.element;
        let count = match same_dims(inputs, 1).as_deref() {
            Some([count] | [FactDim::Fixed(1), count]) => *count,
            _ => FactDim::Unknown,
        };
        let dims = same_dims(inputs, 0).map(|mut dims| {
            if dims.len() == 1 {
                dims.insert(0, FactDim::Fixed(1));
            }
            if let Some(last) = dims.last_mut() {
                *last = count;
            }
            dims
        });
        Ok(smallvec![Fact { element, dims }])
    }
}

fn extract<T: Element>(values: &[T], width: usize, indices: &[i64], out: &mut [T]) {
    for (row, out) in values.chunks_exact(width).zip(out.chunks_exact_mut(indices.len())) {
        for (out, index) in out.iter_mut().zip(indices) {
            if let Some(value) = usize::try_from(*index).ok().and_then(|i| row.get(i)) {
                out.clone_from(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, run, words};
    use super::*;

    fn extracted(x: Tensor, indices: &[i64]) -> Result<Tensor, RunError> {
        let kernel = build("ArrayFeatureExtractor", vec![]).unwrap();
        Ok(run(&*kernel, &[x, Tensor::vector(indices.to_vec())], 1)?.remove(0))
    }

    #[test]
    fn columns_are_taken_in_the_order_of_the_indices() {
        let x = Tensor::new(&[2, 3], vec![1, 2, 3, 4, 5, 6_i64]).unwrap();
        let y = extracted(x, &[2, 0]).unwrap();
        assert_eq!((y.dims(), y.values::<i64>()), (&[2, 2][..], Some(&[3, 1, 6, 4][..])));
    }

    #[test]
    fn a_single_dimension_gives_one_row() {
        let y = extracted(words(&[3], &["a", "b", "c"]), &[1]).unwrap();
        assert_eq!(y, words(&[1, 1], &["b"]));
    }

    #[test]
    fn an_index_outside_of_the_row_is_refused() {
        for index in [-1, 3] {
            let x = Tensor::new(&[1, 3], vec![0.0_f32; 3]).unwrap();
            let error = extracted(x, &[index]).unwrap_err().to_string();
            assert!(error.ends_with("found one outside of it"), "{error}");
        }
    }

    #[test]
    fn no_rows_give_no_rows() {
        let y = extracted(Tensor::new(&[0, 3], Vec::<f32>::new()).unwrap(), &[0]).unwrap();
        assert_eq!(y.dims(), [0, 1]);
    }
}
