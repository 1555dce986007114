//! Reductions along axes: `ReduceSum`, `ReduceMax`, ..

use smallvec::SmallVec;

use super::layout::attribute_or;
use super::number::{Float, Number};
use super::strided::{Strides, Walk, dense};
use super::support::{
    Args, Built, Dims, FactDims, Run, axis_of, fact, first, float_type, ints, like, number_type, one, op,
    rank,
};
use crate::kernel::{BuildError, Fact, FactDim, Node};
use crate::tensor::{DataView, Element, Shape, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    macro_rules! reduce {
        ($start:expr, $map:expr, $fold:expr, $finish:expr) => {
            reduction(name, node, |args, axes, outputs| {
                let input = args.get(0)?;
                number_type!(args, input, v => reduce(args, v, axes, outputs, $start, ($map, $fold, $finish)))
            })
        };
    }
    match name {
        "ReduceSum" => reduce!(Number::ZERO, itself, Number::plus, same),
        "ReduceMean" => reduce!(Number::ZERO, itself, Number::plus, share),
        "ReduceProd" => reduce!(Number::ONE, itself, Number::times, same),
        "ReduceMax" => reduction(name, node, |args, axes, outputs| {
            let input = args.get(0)?;
            match input.data() {
                DataView::Bool(v) => reduce(args, v, axes, outputs, false, (itself, |a, b| a | b, same)),
                _ => {
                    number_type!(args, input, v => reduce(args, v, axes, outputs, Number::LOWEST, (itself, Number::larger, same)))
                }
            }
        }),
        "ReduceMin" => reduction(name, node, |args, axes, outputs| {
            let input = args.get(0)?;
            match input.data() {
                DataView::Bool(v) => reduce(args, v, axes, outputs, true, (itself, |a, b| a & b, same)),
                _ => {
                    number_type!(args, input, v => reduce(args, v, axes, outputs, Number::HIGHEST, (itself, Number::smaller, same)))
                }
            }
        }),
        "ReduceL1" => reduce!(Number::ZERO, Number::magnitude, Number::plus, same),
        "ReduceL2" => reduce!(Number::ZERO, square, Number::plus, root),
        "ReduceSumSquare" => reduce!(Number::ZERO, square, Number::plus, same),
        "ReduceLogSum" => reduce!(Number::ZERO, itself, Number::plus, log),
        "ReduceLogSumExp" => reduction(name, node, |args, axes, outputs| {
            let input = args.get(0)?;
            float_type!(args, input, v => log_sum_exp(args, v, axes, outputs))
        }),
        _ => Err(BuildError::Unsupported),
    }
}

/// Which axes go, and what is left of them.
pub(super) struct Axes {
    /// For each axis of the input: whether it goes.
    gone: SmallVec<[bool; 8]>,
    keep: bool,
}

impl Axes {
    pub(super) fn new(
        args: Args<'_, '_>,
        rank: usize,
        axes: Option<&[i64]>,
        keep: bool,
        noop: bool,
    ) -> Result<Self, crate::load::RunError> {
        let axes = axes.unwrap_or(&[]);
        let mut gone = SmallVec::from_elem(axes.is_empty() && !noop, rank);
        for axis in axes {
            let axis = args.axis(*axis, rank)?;
            gone.get_mut(axis).into_iter().for_each(|g| *g = true);
        }
        Ok(Self { gone, keep })
    }

    fn dims(&self, dims: &[usize]) -> Dims {
        let left = dims.iter().zip(&self.gone).filter(|(_, gone)| !**gone || self.keep);
        left.map(|(d, gone)| if *gone { 1 } else { *d }).collect()
    }

    /// The strides of the result along the axes of the input.
    fn strides(&self, dims: &[usize]) -> Strides {
        let kept: Dims = dims.iter().zip(&self.gone).map(|(d, gone)| if *gone { 1 } else { *d }).collect();
        dense(&kept).into_iter().zip(&self.gone).map(|(s, gone)| if *gone { 0 } else { s }).collect()
    }

    /// How many elements become one.
    fn count(&self, dims: &[usize]) -> usize {
        dims.iter().zip(&self.gone).filter(|(_, gone)| **gone).map(|(d, _)| *d).product()
    }
}

fn reduction<R>(name: &'static str, node: &Node<'_>, run: R) -> Built
where
    R: Fn(Args<'_, '_>, &Axes, &mut [Tensor]) -> Run + Send + Sync + 'static,
{
    let keep = node.attributes.int("keepdims")?.unwrap_or(1) != 0;
    let noop = node.attributes.int("noop_with_empty_axes")?.unwrap_or(0) != 0;
    let constant = node.inputs.get(1).copied().flatten().flatten().and_then(|t| ints(t.view()));
    let fixed = attribute_or(node, constant)?;
    let comes_later = fixed.is_none() && node.inputs.get(1).copied().flatten().is_some();
    let known = fixed.clone();
    let facts = move |inputs: &[Option<Fact>]| {
        let element = fact(inputs, 0)?.element;
        let Some(rank) = rank(inputs, 0) else { return one(element, None) };
        if comes_later {
            return one(element, keep.then(|| SmallVec::from_elem(FactDim::Unknown, rank)));
        }
        let axes = known.as_deref().unwrap_or(&[]);
        let gone: Option<Vec<_>> = axes.iter().map(|a| axis_of(*a, rank)).collect();
        let gone = gone.ok_or_else(|| BuildError::invalid("an axis that the tensor does not have"))?;
        let all = axes.is_empty() && !noop;
        let dims = like(inputs, 0).unwrap_or_default();
        let left = dims.iter().enumerate().filter_map(|(i, d)| {
            if all || gone.contains(&i) { keep.then_some(FactDim::Fixed(1)) } else { Some(*d) }
        });
        one(element, Some(left.collect::<FactDims>()))
    };
    op(name, facts, move |args, outputs, _| {
        let given = if comes_later { Some(args.ints(1)?) } else { None };
        let axes = fixed.as_deref().or(given.as_deref());
        let axes = Axes::new(args, args.get(0)?.dims().len(), axes, keep, noop)?;
        run(args, &axes, outputs)
    })
}

/// Folds the elements along the axes that go.
#[inline(always)]
fn reduce<T: Element + Copy>(
    args: Args<'_, '_>,
    values: &[T],
    axes: &Axes,
    outputs: &mut [Tensor],
    start: T,
    (map, fold, finish): (impl Fn(T) -> T + Copy, impl Fn(T, T) -> T + Copy, impl Fn(T, usize) -> T),
) -> Run {
    let shape = args.get(0)?.shape();
    let to = Shape::new(&axes.dims(shape.dims())).ok_or_else(|| args.fail("fewer dimensions"))?;
    let to = first(args, outputs)?.reset::<T>(to);
    to.fill(start);
    visit(shape.dims(), axes, values, |run, at, step| {
        let to = to.get_mut(at..).unwrap_or(&mut []);
        match to.first_mut() {
            Some(to) if step == 0 => *to = fold_run(run, start, *to, map, fold),
            _ => to.iter_mut().zip(run).for_each(|(to, x)| *to = fold(*to, map(*x))),
        }
    });
    let count = axes.count(shape.dims());
    for to in to {
        *to = finish(*to, count);
    }
    Ok(())
}

/// Calls a function with each run of elements that lie behind each other, where in the result the
/// first belongs, and whether the next ones belong there too (0) or behind it (1).
#[inline(always)]
fn visit<T>(dims: &[usize], axes: &Axes, values: &[T], mut f: impl FnMut(&[T], usize, isize)) {
    Walk::new(dims, [&dense(dims), &axes.strides(dims)]).runs([0, 0], |[from, at], length, [_, step]| {
        let from = from.cast_unsigned();
        f(values.get(from..from + length).unwrap_or(&[]), at.cast_unsigned(), step);
    });
}

/// A long run is folded in several parts: they are computed side by side, and rounding errors do
/// not add up.
#[inline(always)]
fn fold_run<T: Copy>(run: &[T], start: T, so_far: T, map: impl Fn(T) -> T, fold: impl Fn(T, T) -> T) -> T {
    const PARTS: usize = 16;
    let mut total = so_far;
    let chunks = run.chunks_exact(PARTS);
    for x in chunks.remainder() {
        total = fold(total, map(*x));
    }
    if run.len() >= PARTS {
        let mut parts = [start; PARTS];
        for chunk in chunks {
            for (part, x) in parts.iter_mut().zip(chunk) {
                *part = fold(*part, map(*x));
            }
        }
        total = parts.iter().fold(total, |a, b| fold(a, *b));
    }
    total
}

fn same<T>(value: T, _: usize) -> T {
    value
}

fn share<T: Number>(sum: T, count: usize) -> T {
    sum.over(T::from_i64(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn itself<T>(value: T) -> T {
    value
}

fn square<T: Number>(value: T) -> T {
    value.times(value)
}

fn root<T: Number>(sum: T, _: usize) -> T {
    T::from_f64(sum.to_f64().sqrt())
}

fn log<T: Number>(sum: T, _: usize) -> T {
    T::from_f64(sum.to_f64().ln())
}

/// With the largest element taken out, which would overflow.
fn log_sum_exp<T: Float>(args: Args<'_, '_>, values: &[T], axes: &Axes, outputs: &mut [Tensor]) -> Run {
    let shape = args.get(0)?.shape();
    let to = Shape::new(&axes.dims(shape.dims())).ok_or_else(|| args.fail("fewer dimensions"))?;
    let largest = first(args, outputs)?.reset::<T>(to);
    largest.fill(T::LOWEST);
    visit(shape.dims(), axes, values, |run, at, step| {
        for (i, x) in run.iter().enumerate() {
            if let Some(to) = largest.get_mut(at + i * step.cast_unsigned()) {
                *to = to.larger(*x);
            }
        }
    });
    let mut sums = vec![T::ZERO; largest.len()];
    visit(shape.dims(), axes, values, |run, at, step| {
        for (i, x) in run.iter().enumerate() {
            let place = at + i * step.cast_unsigned();
            if let (Some(sum), Some(most)) = (sums.get_mut(place), largest.get(place)) {
                *sum = sum.plus(shifted(*x, *most).exp());
            }
        }
    });
    for (to, sum) in largest.iter_mut().zip(sums) {
        *to = to.plus(sum.ln());
    }
    Ok(())
}

/// An infinity less itself is no NaN here: it is the largest element.
fn shifted<T: Float>(x: T, most: T) -> T {
    if x == most && most.is_infinite() { T::ZERO } else { x.minus(most) }
}
