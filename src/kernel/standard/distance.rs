//! `com.microsoft.CDist`: the distances between all rows of two tables.

use smallvec::SmallVec;

use super::number::{Float, Number};
use super::support::{Args, Built, Run, fact, first, float_type, like, one, op};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::tensor::Tensor;

/// The kernel of the node, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    let squared = match node.attributes.string("metric")?.unwrap_or("sqeuclidean") {
        "sqeuclidean" => true,
        "euclidean" => false,
        other => return Err(BuildError::invalid(format!("attribute `metric`: found `{other}`"))),
    };
    let facts = |inputs: &[Option<Fact>]| {
        let rows = |i| like(inputs, i).and_then(|d| d.first().copied()).unwrap_or(FactDim::Unknown);
        one(fact(inputs, 0)?.element, Some(SmallVec::from_slice(&[rows(0), rows(1)])))
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => distances(args, v, squared, outputs, cx))
    })
}

/// By differences, not by the difference of squares: rows that are close keep their distance.
fn distances<T: Float>(
    args: Args<'_, '_>,
    a: &[T],
    squared: bool,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let b = args.values::<T>(1)?;
    let (a_shape, b_shape) = (args.get(0)?.shape(), args.get(1)?.shape());
    let ([m, depth], [n, depth2]) = (a_shape.dims(), b_shape.dims()) else {
        return Err(args.fail("two tables"));
    };
    if depth != depth2 {
        return Err(crate::load::RunError::Width {
            operator: args.operator,
            expected: *depth2,
            found: *depth,
        });
    }
    let to = cx.reset::<T>(first(args, outputs)?, &[*m, *n])?;
    if *depth == 0 {
        to.fill(T::ZERO);
        return Ok(());
    }
    for (to, a) in to.chunks_exact_mut((*n).max(1)).zip(a.chunks_exact(*depth)) {
        for (to, b) in to.iter_mut().zip(b.chunks_exact(*depth)) {
            let sum = distance(a, b);
            *to = if squared { sum } else { sum.sqrt() };
        }
    }
    Ok(())
}

/// In eight sums side by side.
fn distance<T: Number>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::ZERO; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest = rest.fold(T::ZERO, |sum, (a, b)| sum.plus(a.minus(*b).times(a.minus(*b))));
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = sum.plus(a.minus(*b).times(a.minus(*b)));
        }
    }
    sums.iter().fold(rest, |sum, part| sum.plus(*part))
}
