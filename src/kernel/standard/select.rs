//! Order and position along an axis: `ArgMax`, `TopK`, `NonZero`, `CumSum`, `Hardmax`.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::number::Number;
use super::strided::dense;
use super::support::{
    Args, Built, Dims, Run, axis_of, fact, first, ints, like, number_type, one, op, rank, same,
};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Shape, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "ArgMax" => arg(name, node, true),
        "ArgMin" => arg(name, node, false),
        "TopK" => top_k(name, node),
        "NonZero" => op(
            name,
            |inputs| {
                let rank = rank(inputs, 0).map_or(FactDim::Unknown, FactDim::Fixed);
                one(ElementType::I64, Some(SmallVec::from_slice(&[rank, FactDim::Unknown])))
            },
            |args, outputs, cx| {
                let input = args.get(0)?;
                match input.data() {
                    DataView::Bool(v) => non_zero(args, v, outputs, cx, |x| *x),
                    _ => number_type!(args, input, v => non_zero(args, v, outputs, cx, not_zero)),
                }
            },
        ),
        "CumSum" => {
            let exclusive = node.attributes.int("exclusive")?.unwrap_or(0) != 0;
            let reverse = node.attributes.int("reverse")?.unwrap_or(0) != 0;
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                number_type!(args, input, v => cumulate(args, v, Number::ZERO, Number::plus, [exclusive, reverse], outputs))
            })
        }
        _ => Err(BuildError::Unsupported),
    }
}

/// A shape seen from one axis: how many positions are before it, along it and behind it.
pub(super) fn lanes(args: Args<'_, '_>, axis: i64) -> Result<(Shape, usize, [usize; 3]), RunError> {
    let shape = args.get(0)?.shape();
    let axis = args.axis(axis, shape.dims().len())?;
    let outer = shape.dims().get(..axis).unwrap_or(&[]).iter().product();
    let inner = shape.dims().get(axis + 1..).unwrap_or(&[]).iter().product();
    let size = shape.dims().get(axis).copied().unwrap_or(0);
    Ok((shape, axis, [outer, size, inner]))
}

/// The elements of one lane: from `start`, each `step` behind the last.
fn lane<T>(values: &[T], start: usize, step: usize, size: usize) -> impl Iterator<Item = &T> {
    values.get(start..).unwrap_or(&[]).iter().step_by(step.max(1)).take(size)
}

fn arg(name: &'static str, node: &Node<'_>, largest: bool) -> Built {
    fn typed<T: Number>(
        args: Args<'_, '_>,
        values: &[T],
        largest: bool,
        (axis, keep, last): (i64, bool, bool),
        outputs: &mut [Tensor],
    ) -> Run {
        let (shape, axis, [outer, size, inner]) = lanes(args, axis)?;
        if size == 0 && outer * inner > 0 {
            return Err(args.fail("an axis that is not empty"));
        }
        let mut dims = Dims::from_slice(shape.dims());
        if keep {
            dims.get_mut(axis).into_iter().for_each(|d| *d = 1);
        } else {
            dims.remove(axis);
        }
        let to = Shape::new(&dims).ok_or_else(|| args.fail("fewer dimensions"))?;
        let to = first(args, outputs)?.reset::<i64>(to);
        for (outer, to) in to.chunks_exact_mut(inner.max(1)).enumerate() {
            for (inside, to) in to.iter_mut().enumerate() {
                let mut lane = lane(values, outer * size * inner + inside, inner, size);
                let (mut best, mut at) = (*lane.next().unwrap_or(&T::ZERO), 0_i64);
                for (i, x) in (1_i64..).zip(lane) {
                    let better = if largest { *x > best } else { *x < best };
                    if better || (last && *x == best) {
                        (best, at) = (*x, i);
                    }
                }
                *to = at;
            }
        }
        Ok(())
    }
    let axis = node.attributes.int("axis")?.unwrap_or(0);
    let keep = node.attributes.int("keepdims")?.unwrap_or(1) != 0;
    let last = node.attributes.int("select_last_index")?.unwrap_or(0) != 0;
    let facts = move |inputs: &[Option<Fact>]| {
        fact(inputs, 0)?;
        let Some(mut dims) = like(inputs, 0) else { return one(ElementType::I64, None) };
        let axis =
            axis_of(axis, dims.len()).ok_or_else(|| BuildError::invalid("an axis that the tensor lacks"))?;
        if keep {
            dims.get_mut(axis).into_iter().for_each(|d| *d = FactDim::Fixed(1));
        } else {
            dims.remove(axis);
        }
        one(ElementType::I64, Some(dims))
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        number_type!(args, input, v => typed(args, v, largest, (axis, keep, last), outputs))
    })
}

fn top_k(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Number>(
        args: Args<'_, '_>,
        values: &[T],
        k: i64,
        axis: i64,
        largest: bool,
        outputs: &mut [Tensor],
    ) -> Run {
        let (shape, axis, [outer, size, inner]) = lanes(args, axis)?;
        let k =
            usize::try_from(k).ok().filter(|k| *k <= size).ok_or_else(|| args.fail("k within the axis"))?;
        let mut dims = Dims::from_slice(shape.dims());
        dims.get_mut(axis).into_iter().for_each(|d| *d = k);
        let to = Shape::new(&dims).ok_or_else(|| args.fail("fewer dimensions"))?;
        let [best, places] = outputs else { return Err(args.fail("two outputs")) };
        let (best, places) = (best.reset::<T>(to), places.reset::<i64>(to));
        // The first of equal ones comes first; NaN is larger than all.
        let order = |a: &(T, i64), b: &(T, i64)| {
            let ascending = a.0.partial_cmp(&b.0).unwrap_or_else(|| a.0.is_nan().cmp(&b.0.is_nan()));
            let by_value: Ordering = if largest { ascending.reverse() } else { ascending };
            by_value.then(a.1.cmp(&b.1))
        };
        let mut sorted: Vec<(T, i64)> = Vec::with_capacity(size);
        for outer in 0..outer {
            for inside in 0..inner {
                sorted.clear();
                sorted.extend(lane(values, outer * size * inner + inside, inner, size).copied().zip(0_i64..));
                if k > 0 && k < sorted.len() {
                    sorted.select_nth_unstable_by(k - 1, order);
                    sorted.truncate(k);
                }
                sorted.sort_unstable_by(order);
                for (i, (value, at)) in sorted.iter().take(k).enumerate() {
                    let place = (outer * k + i) * inner + inside;
                    best.get_mut(place).into_iter().for_each(|b| *b = *value);
                    places.get_mut(place).into_iter().for_each(|p| *p = *at);
                }
            }
        }
        Ok(())
    }
    let axis = node.attributes.int("axis")?.unwrap_or(-1);
    let largest = node.attributes.int("largest")?.unwrap_or(1) != 0;
    let fixed = match node.attributes.int("k")? {
        Some(k) => Some(k),
        None => node
            .inputs
            .get(1)
            .copied()
            .flatten()
            .flatten()
            .and_then(|t| ints(t.view()))
            .and_then(|k| k.first().copied()),
    };
    let facts = move |inputs: &[Option<Fact>]| {
        let element = fact(inputs, 0)?.element;
        let dims = like(inputs, 0).map(|mut dims| {
            let k = fixed.and_then(|k| usize::try_from(k).ok()).map_or(FactDim::Unknown, FactDim::Fixed);
            axis_of(axis, dims.len()).and_then(|a| dims.get_mut(a)).into_iter().for_each(|d| *d = k);
            dims
        });
        Ok(SmallVec::from_iter([
            Fact { element, dims: dims.clone() },
            Fact { element: ElementType::I64, dims },
        ]))
    };
    let count = node.outputs;
    op(
        name,
        move |inputs| {
            facts(inputs).map(|mut f: SmallVec<[Fact; 2]>| {
                f.truncate(count);
                f
            })
        },
        move |args, outputs, _| {
            let input = args.get(0)?;
            let k = match fixed {
                Some(k) => k,
                None => *args.ints(1)?.first().ok_or_else(|| args.fail("k"))?,
            };
            // An output that nobody reads may be left out.
            let mut spare = Tensor::default();
            if let [best] = outputs {
                let mut both = [std::mem::take(best), std::mem::take(&mut spare)];
                let done = number_type!(args, input, v => typed(args, v, k, axis, largest, &mut both));
                let [taken, _] = both;
                *best = taken;
                return done;
            }
            number_type!(args, input, v => typed(args, v, k, axis, largest, outputs))
        },
    )
}

fn non_zero<T>(
    args: Args<'_, '_>,
    values: &[T],
    outputs: &mut [Tensor],
    cx: &RunContext,
    test: impl Fn(&T) -> bool,
) -> Run {
    let shape = args.get(0)?.shape();
    let count = values.iter().filter(|x| test(x)).count();
    let to = cx.reset::<i64>(first(args, outputs)?, &[shape.dims().len(), count])?;
    if count == 0 {
        return Ok(());
    }
    let strides = dense(shape.dims());
    for ((row, stride), dim) in to.chunks_exact_mut(count).zip(&strides).zip(shape.dims()) {
        let found = values.iter().enumerate().filter(|(_, x)| test(x));
        for (to, (at, _)) in row.iter_mut().zip(found) {
            *to = i64::try_from(at / stride.cast_unsigned().max(1) % dim.max(&1)).unwrap_or(i64::MAX);
        }
    }
    Ok(())
}

/// Joins the elements along an axis one after the other, from `empty` on: the sums or products so far.
pub(super) fn cumulate<T: Number>(
    args: Args<'_, '_>,
    values: &[T],
    empty: T,
    join: fn(T, T) -> T,
    [exclusive, reverse]: [bool; 2],
    outputs: &mut [Tensor],
) -> Run {
    let axis = *args.ints(1)?.first().ok_or_else(|| args.fail("an axis"))?;
    let (shape, _, [outer, size, inner]) = lanes(args, axis)?;
    let to = first(args, outputs)?.reset::<T>(shape);
    for outer in 0..outer {
        for inside in 0..inner {
            let mut so_far = empty;
            for i in 0..size {
                let i = if reverse { size - 1 - i } else { i };
                let at = (outer * size + i) * inner + inside;
                let (Some(x), Some(to)) = (values.get(at), to.get_mut(at)) else { continue };
                let next = join(so_far, *x);
                *to = if exclusive { so_far } else { next };
                so_far = next;
            }
        }
    }
    Ok(())
}

fn not_zero<T: Number>(x: &T) -> bool {
    *x != T::ZERO
}
