//! Small functions that have no family of their own: `CumProd`, `Det`, `Swish`, `SwiGLU`,
//! `TensorScatter`.

use super::number::{Float, Number};
use super::select::{cumulate, lanes};
use super::support::{
    Args, Built, Facts, Run, any_type, fact, first, float_type, like, number_type, one, op, same,
};
use crate::kernel::{BuildError, Fact, Node};
use crate::tensor::{Element, Shape, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    let alpha =
        || -> Result<f64, BuildError> { Ok(f64::from(node.attributes.float("alpha")?.unwrap_or(1.0))) };
    match name {
        "CumProd" => {
            let exclusive = node.attributes.int("exclusive")?.unwrap_or(0) != 0;
            let reverse = node.attributes.int("reverse")?.unwrap_or(0) != 0;
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                number_type!(args, input, v => cumulate(args, v, Number::ONE, Number::times, [exclusive, reverse], outputs))
            })
        }
        "Det" => {
            let facts = |inputs: &[Option<Fact>]| -> Facts {
                let dims = like(inputs, 0).map(|mut dims| {
                    dims.truncate(dims.len().saturating_sub(2));
                    dims
                });
                one(fact(inputs, 0)?.element, dims)
            };
            op(name, facts, |args, outputs, _| {
                let input = args.get(0)?;
                float_type!(args, input, v => determinants(args, v, outputs))
            })
        }
        "Swish" => {
            let alpha = alpha()?;
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                float_type!(args, input, v => super::unary::map(args, input, v, outputs, |x| swish(x, alpha)))
            })
        }
        "SwiGLU" => {
            let alpha = alpha()?;
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                float_type!(args, input, v => gated(args, v, alpha, outputs))
            })
        }
        "TensorScatter" => {
            let axis = node.attributes.int("axis")?.unwrap_or(-2);
            let circular = node.attributes.string("mode")?.unwrap_or("linear") == "circular";
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                any_type!(input, v => put(args, v, axis, circular, outputs))
            })
        }
        _ => Err(BuildError::Unsupported),
    }
}

fn swish<T: Float>(x: T, alpha: f64) -> T {
    let x = x.to_f64();
    T::from_f64(x / (1.0 + (-alpha * x).exp()))
}

fn gated<T: Float>(args: Args<'_, '_>, a: &[T], alpha: f64, outputs: &mut [Tensor]) -> Run {
    let b = args.values::<T>(1)?;
    let shape = args.get(0)?.shape();
    if args.get(1)?.shape() != shape {
        return Err(args.fail("inputs of one shape"));
    }
    let to = first(args, outputs)?.reset::<T>(shape);
    to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = swish(*a, alpha).times(*b));
    Ok(())
}

fn determinants<T: Float>(args: Args<'_, '_>, values: &[T], outputs: &mut [Tensor]) -> Run {
    let shape = args.get(0)?.shape();
    let [outer @ .., rows, columns] = shape.dims() else { return Err(args.fail("a matrix")) };
    if rows != columns {
        return Err(args.fail("a square matrix"));
    }
    let size = *rows;
    let to = Shape::new(outer).ok_or_else(|| args.fail("fewer dimensions"))?;
    let to = first(args, outputs)?.reset::<T>(to);
    if size == 0 {
        to.fill(T::ONE);
        return Ok(());
    }
    for (to, matrix) in to.iter_mut().zip(values.chunks_exact(size * size)) {
        let rows: Vec<Vec<f64>> =
            matrix.chunks_exact(size).map(|row| row.iter().map(|x| x.to_f64()).collect()).collect();
        *to = T::from_f64(determinant(rows));
    }
    Ok(())
}

/// By elimination with the largest pivot.
fn determinant(mut rows: Vec<Vec<f64>>) -> f64 {
    let mut result = 1.0;
    while !rows.is_empty() {
        let size = |row: &Vec<f64>| row.first().map_or(0.0, |x| x.abs());
        let best = (0..rows.len()).fold(0, |best, i| {
            let larger = rows.get(i).map(size) > rows.get(best).map(size);
            if larger { i } else { best }
        });
        if best != 0 {
            rows.swap(0, best);
            result = -result;
        }
        let pivot = rows.remove(0);
        let (Some(head), tail) = (pivot.first().copied(), pivot.get(1..).unwrap_or(&[])) else { return 0.0 };
        result *= head;
        if head == 0.0 {
            return 0.0;
        }
        for row in &mut rows {
            let factor = row.first().map_or(0.0, |x| x / head);
            row.remove(0);
            row.iter_mut().zip(tail).for_each(|(x, p)| *x -= factor * p);
        }
    }
    result
}

/// New positions written into a cache.
fn put<T: Element>(
    args: Args<'_, '_>,
    cache: &[T],
    axis: i64,
    circular: bool,
    outputs: &mut [Tensor],
) -> Run {
    let update = args.values::<T>(1)?;
    let (shape, axis, [outer, size, inner]) = lanes(args, axis)?;
    let new = args.get(1)?;
    let new = new.dims();
    let count = new.get(axis).copied().unwrap_or(0);
    let fits = new.len() == shape.dims().len()
        && new.iter().zip(shape.dims()).enumerate().all(|(i, (n, d))| n == d || (i == axis && n <= d));
    if !fits || axis == 0 {
        return Err(args.fail("an update that fits the cache"));
    }
    let starts = args.maybe_ints(2)?;
    let batch = shape.rows();
    if starts.as_ref().is_some_and(|s| s.len() != batch) {
        return Err(args.fail("a position for each row"));
    }
    let to = first(args, outputs)?.reset::<T>(shape);
    to.clone_from_slice(cache);
    let lanes = outer / batch.max(1);
    for lane in 0..outer {
        let start = starts.as_ref().and_then(|s| s.get(lane / lanes.max(1)).copied()).unwrap_or(0);
        let start = usize::try_from(start).map_err(|_| args.fail("positions that are not negative"))?;
        for i in 0..count {
            let at = start.saturating_add(i);
            let at = if circular { at % size } else { at };
            if at >= size {
                return Err(args.fail("positions that the cache has"));
            }
            let from = update.get((lane * count + i) * inner..(lane * count + i + 1) * inner);
            let to = to.get_mut((lane * size + at) * inner..(lane * size + at + 1) * inner);
            if let (Some(to), Some(from)) = (to, from) {
                to.clone_from_slice(from);
            }
        }
    }
    Ok(())
}
