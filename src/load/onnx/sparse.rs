//! Sparse tensors of a file, made dense: nothing here computes with few of many.

use super::check::malformed;
use super::proto::SparseTensorProto;
use crate::load::LoadError;
use crate::load::tensor_proto::TensorProto;
use crate::tensor::{DataView, Element, Shape, Tensor};

/// The name of a sparse tensor, which is that of its values.
pub(super) fn name(sparse: &SparseTensorProto) -> &str {
    sparse.values.as_ref().map_or("", |values| values.name.as_str())
}

/// The dense tensor. What it takes comes off the `room` that is left, because the file's bytes say
/// nothing about that.
pub(super) fn dense(sparse: SparseTensorProto, room: &mut u64) -> Result<Tensor, LoadError> {
    let title = format!("sparse tensor `{}`", name(&sparse));
    let refuse = |reason: &str| malformed(format!("{title}: {reason}"));
    let dims: Option<Vec<usize>> = sparse.dims.iter().map(|d| usize::try_from(*d).ok()).collect();
    let shape = dims.and_then(|dims| Shape::new(&dims)).ok_or_else(|| refuse("impossible dimensions"))?;
    let needed = (shape.elements() as u64).saturating_mul(8);
    *room = room.checked_sub(needed).ok_or_else(|| LoadError::OverBudget {
        what: title.clone(),
        needed,
        budget: *room,
    })?;
    let read = |tensor: Option<TensorProto>, what: &str| {
        tensor.map_or_else(|| Err(refuse(what)), |tensor| tensor.into_tensor().map_err(malformed))
    };
    let values = read(sparse.values, "there are no values")?;
    let indices = read(sparse.indices, "there are no indices")?;
    let places = places(&indices, shape, values.shape().elements())
        .ok_or_else(|| refuse("the indices do not lie in it, one for each value"))?;
    Ok(match values.view().data() {
        DataView::F32(v) => scatter(v, &places, shape),
        DataView::F64(v) => scatter(v, &places, shape),
        DataView::I8(v) => scatter(v, &places, shape),
        DataView::I16(v) => scatter(v, &places, shape),
        DataView::I32(v) => scatter(v, &places, shape),
        DataView::I64(v) => scatter(v, &places, shape),
        DataView::U8(v) => scatter(v, &places, shape),
        DataView::U16(v) => scatter(v, &places, shape),
        DataView::U32(v) => scatter(v, &places, shape),
        DataView::U64(v) => scatter(v, &places, shape),
        DataView::Bool(v) => scatter(v, &places, shape),
        DataView::String(_) => return Err(refuse("values that are text")),
    })
}

/// Where the values lie: by their position in the whole tensor, or by their position on each axis.
fn places(indices: &Tensor, shape: Shape, count: usize) -> Option<Vec<usize>> {
    let numbers = indices.values::<i64>()?;
    let place = |at: &i64, size: usize| usize::try_from(*at).ok().filter(|at| *at < size);
    let rank = shape.dims().len();
    let places: Option<Vec<usize>> = match indices.dims() {
        [n] if *n == count => numbers.iter().map(|at| place(at, shape.elements())).collect(),
        [n, axes] if *n == count && *axes == rank && rank > 0 => numbers
            .chunks_exact(rank)
            .map(|at| {
                at.iter()
                    .zip(shape.dims())
                    .try_fold(0, |all, (at, size)| Some(all * size + place(at, *size)?))
            })
            .collect(),
        _ => None,
    };
    places
}

fn scatter<T: Element>(values: &[T], places: &[usize], shape: Shape) -> Tensor {
    let mut tensor = Tensor::default();
    let to = tensor.reset::<T>(shape);
    to.fill(T::default());
    for (value, place) in values.iter().zip(places) {
        to.get_mut(*place).into_iter().for_each(|to| to.clone_from(value));
    }
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse(dims: Vec<i64>, values: &[f32], at: &Tensor) -> SparseTensorProto {
        SparseTensorProto {
            values: Some(TensorProto::from(("w", &Tensor::vector(values.to_vec())))),
            indices: Some(TensorProto::from(("", at))),
            dims,
        }
    }

    #[test]
    fn values_lie_where_their_indices_say() {
        let expected = Tensor::new(&[2, 3], vec![0.0_f32, 1.0, 0.0, 0.0, 0.0, 2.0]).unwrap();
        let flat = sparse(vec![2, 3], &[1.0, 2.0], &Tensor::vector(vec![1_i64, 5]));
        assert_eq!(dense(flat, &mut 100).unwrap(), expected);
        let by_axis = sparse(vec![2, 3], &[1.0, 2.0], &Tensor::new(&[2, 2], vec![0_i64, 1, 1, 2]).unwrap());
        assert_eq!(dense(by_axis, &mut 48).unwrap(), expected);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let at = |at: Vec<i64>| Tensor::vector(at);
        for (dims, index) in
            [(vec![2, 3], at(vec![6])), (vec![2, 3], at(vec![-1])), (vec![2, 3], at(vec![0, 1]))]
        {
            let refused = dense(sparse(dims, &[1.0], &index), &mut 1000).unwrap_err().to_string();
            assert!(refused.contains("sparse tensor `w`: the indices"), "{refused}");
        }
        let claims = sparse(vec![1 << 20, 1 << 20], &[1.0], &at(vec![0]));
        assert!(matches!(dense(claims, &mut 1000), Err(LoadError::OverBudget { .. })));
        assert!(dense(sparse(vec![-1], &[1.0], &at(vec![0])), &mut 1000).is_err());
    }
}
