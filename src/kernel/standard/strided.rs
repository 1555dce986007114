//! Walks over tensors with strides: broadcasting, transposition and slices are all the same loop.

use smallvec::SmallVec;

use super::support::Dims;
use crate::tensor::MAX_RANK;

/// How far it is from one element to the next along each axis.
pub(super) type Strides = SmallVec<[isize; MAX_RANK]>;

/// A walk over `N` tensors at once, in the row-major order of the common shape. Axes that lie
/// behind each other in all of the tensors are one.
#[derive(Debug)]
pub(super) struct Walk<const N: usize> {
    axes: SmallVec<[(usize, [isize; N]); MAX_RANK]>,
}

impl<const N: usize> Walk<N> {
    /// A walk over this shape.
    pub(super) fn new(dims: &[usize], strides: [&Strides; N]) -> Self {
        let mut axes: SmallVec<[(usize, [isize; N]); MAX_RANK]> = SmallVec::new();
        for (axis, &dim) in dims.iter().enumerate() {
            if dim == 1 {
                continue;
            }
            let step = strides.map(|s| s.get(axis).copied().unwrap_or(0));
            match axes.last_mut() {
                Some((outer, above))
                    if step.iter().zip(above.iter()).all(|(s, a)| *a == s.wrapping_mul_unsigned_dim(dim)) =>
                {
                    *outer *= dim;
                    *above = step;
                }
                _ => axes.push((dim, step)),
            }
        }
        Self { axes }
    }

    /// Calls `visit` for each run along the innermost axis: where it begins in each tensor, how
    /// many elements it has, and how far these are from each other in each tensor.
    #[inline(always)]
    pub(super) fn runs(&self, start: [isize; N], mut visit: impl FnMut([isize; N], usize, [isize; N])) {
        let Some(((length, step), outer)) = self.axes.split_last() else {
            visit(start, 1, [0; N]);
            return;
        };
        if *length == 0 || outer.iter().any(|(dim, _)| *dim == 0) {
            return;
        }
        let mut index: SmallVec<[usize; MAX_RANK]> = SmallVec::from_elem(0, outer.len());
        let mut at = start;
        loop {
            visit(at, *length, *step);
            let mut moved = false;
            for (i, (dim, strides)) in index.iter_mut().zip(outer).rev() {
                *i += 1;
                for (at, stride) in at.iter_mut().zip(strides) {
                    *at += stride;
                }
                if *i < *dim {
                    moved = true;
                    break;
                }
                for (at, stride) in at.iter_mut().zip(strides) {
                    *at -= stride * dim.cast_signed();
                }
                *i = 0;
            }
            if !moved {
                return;
            }
        }
    }
}

trait WrappingDim {
    fn wrapping_mul_unsigned_dim(self, dim: usize) -> Self;
}

impl WrappingDim for isize {
    fn wrapping_mul_unsigned_dim(self, dim: usize) -> Self {
        self.wrapping_mul(dim.cast_signed())
    }
}

/// The strides of a dense tensor of this shape.
pub(super) fn dense(dims: &[usize]) -> Strides {
    let mut strides = Strides::from_elem(0, dims.len());
    let mut step = 1_usize;
    for (stride, dim) in strides.iter_mut().zip(dims).rev() {
        *stride = step.cast_signed();
        step = step.wrapping_mul(*dim);
    }
    strides
}

/// The strides that make a dense tensor of one shape look like one of another shape that it
/// broadcasts to.
pub(super) fn stretched(dims: &[usize], to: &[usize]) -> Strides {
    let missing = to.len().saturating_sub(dims.len());
    let mut strides = Strides::from_elem(0, missing);
    strides.extend(dense(dims).iter().zip(dims).map(|(s, d)| if *d == 1 { 0 } else { *s }));
    strides
}

/// The shape that two shapes broadcast to.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Option<Dims> {
    let rank = a.len().max(b.len());
    let dim = |dims: &[usize], axis: usize| {
        (axis + dims.len()).checked_sub(rank).and_then(|i| dims.get(i).copied()).unwrap_or(1)
    };
    (0..rank)
        .map(|axis| match (dim(a, axis), dim(b, axis)) {
            (1, n) | (n, 1) => Some(n),
            (m, n) => (m == n).then_some(n),
        })
        .collect()
}

/// Writes the elements that a walk over `dims` meets to `to`, in order. Elements outside of `from`
/// are not written; with strides of checked shapes there are none.
pub(super) fn copy<T: Clone>(from: &[T], start: isize, dims: &[usize], strides: &Strides, to: &mut [T]) {
    let mut rest = to;
    Walk::new(dims, [strides]).runs([start], |[at], length, [step]| {
        let Some((run, after)) = std::mem::take(&mut rest).split_at_mut_checked(length) else { return };
        rest = after;
        let Ok(first) = usize::try_from(at) else { return };
        if step == 1 {
            if let Some(from) = from.get(first..first + length) {
                run.clone_from_slice(from);
            }
        } else if step == 0 {
            if let Some(value) = from.get(first) {
                run.fill(value.clone());
            }
        } else {
            let mut at = first;
            for to in run {
                if let Some(value) = from.get(at) {
                    to.clone_from(value);
                }
                at = at.wrapping_add_signed(step);
            }
        }
    });
}

/// Calls a function with each pair of elements of two tensors that broadcast to `dims`.
#[inline(always)]
pub(super) fn zip<A: Copy, B: Copy, C>(
    (a, a_dims): (&[A], &[usize]),
    (b, b_dims): (&[B], &[usize]),
    dims: &[usize],
    to: &mut [C],
    f: impl Fn(A, B) -> C,
) {
    let mut rest = to;
    let walk = Walk::new(dims, [&stretched(a_dims, dims), &stretched(b_dims, dims)]);
    walk.runs([0, 0], |[a_at, b_at], length, [a_step, b_step]| {
        let Some((run, after)) = std::mem::take(&mut rest).split_at_mut_checked(length) else { return };
        rest = after;
        let a = a.get(a_at.cast_unsigned()..).unwrap_or(&[]);
        let b = b.get(b_at.cast_unsigned()..).unwrap_or(&[]);
        match (a_step, b_step, a.first(), b.first()) {
            (1, 1, ..) => run.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = f(*a, *b)),
            (1, 0, _, Some(b)) => run.iter_mut().zip(a).for_each(|(to, a)| *to = f(*a, *b)),
            (0, 1, Some(a), _) => run.iter_mut().zip(b).for_each(|(to, b)| *to = f(*a, *b)),
            (_, _, Some(a), Some(b)) => run.iter_mut().for_each(|to| *to = f(*a, *b)),
            _ => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposition_is_a_copy_with_other_strides() {
        let from = [1, 2, 3, 4, 5, 6];
        let mut to = [0; 6];
        copy(&from, 0, &[3, 2], &Strides::from_slice(&[1, 3]), &mut to);
        assert_eq!(to, [1, 4, 2, 5, 3, 6]);
    }

    #[test]
    fn a_row_and_a_column_broadcast_to_a_table() {
        let mut to = [0; 6];
        zip((&[10, 20], &[2, 1]), (&[1, 2, 3], &[3]), &[2, 3], &mut to, |a, b| a + b);
        assert_eq!(to, [11, 12, 13, 21, 22, 23]);
        assert_eq!(broadcast(&[2, 1], &[3]).unwrap().as_slice(), [2, 3]);
        assert!(broadcast(&[2], &[3]).is_none());
    }

    #[test]
    fn nothing_is_visited_where_a_dimension_is_zero() {
        Walk::new(&[2, 0, 3], [&dense(&[2, 0, 3])]).runs([0], |_, _, _| unreachable!());
        Walk::new(&[0, 3], [&dense(&[0, 3])]).runs([0], |_, _, _| unreachable!());
    }
}
