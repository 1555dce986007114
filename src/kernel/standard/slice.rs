//! Parts of a tensor and their joining: `Slice`, `Split`, `Concat`, `Pad`, `Trilu`.

use smallvec::SmallVec;

use super::strided::{self, Strides, dense};
use super::support::{
    Args, Built, Dims, FactDims, Run, any_type, axis_of, fact, first, ints, like, of_rank, one, op, rank,
};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext, text_bytes};
use crate::load::RunError;
use crate::tensor::{Element, Tensor, TensorView};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "Slice" => slice(name, node),
        "Split" => split(name, node),
        "Concat" => concat(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

/// From where to where a slice goes along an axis, and in which steps.
#[derive(Clone, Copy)]
struct Range {
    start: i64,
    count: usize,
    step: i64,
}

impl Range {
    /// The elements that a slice of an axis of this size has: positions from the end are negative,
    /// those outside are the nearest inside.
    fn new(start: i64, end: i64, step: i64, size: usize) -> Option<Self> {
        let size = i64::try_from(size).ok()?;
        let from_front = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
        let (start, end, length) = match step {
            1.. => {
                let (start, end) = (from_front(start).clamp(0, size), from_front(end).clamp(0, size));
                (start, end, end - start)
            }
            0 => return None,
            _ => {
                let (start, end) =
                    (from_front(start).clamp(-1, size - 1), from_front(end).clamp(-1, size - 1));
                (start, end, start - end)
            }
        };
        let _ = end;
        let count = if length <= 0 { 0 } else { (length.unsigned_abs() - 1) / step.unsigned_abs() + 1 };
        Some(Self { start, count: usize::try_from(count).ok()?, step })
    }
}

fn slice(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        ranges: &[Range],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let dims: Dims = ranges.iter().map(|r| r.count).collect();
        let from = dense(args.get(0)?.dims());
        let too_far = || args.fail("positions that fit the memory");
        let mut start = 0_isize;
        let mut strides = Strides::new();
        for (range, stride) in ranges.iter().zip(&from) {
            // An axis of no elements has no first one.
            let first = isize::try_from(range.start).map_err(|_| too_far())?.max(0);
            start += first * stride;
            let step = if range.count > 1 { isize::try_from(range.step).map_err(|_| too_far())? } else { 1 };
            strides.push(step.checked_mul(*stride).ok_or_else(too_far)?);
        }
        strided::copy(values, start, &dims, &strides, cx.reset::<T>(first(args, outputs)?, &dims)?);
        Ok(())
    }
    let attributes: Option<[SmallVec<[i64; 8]>; 3]> = if node.attributes.contains("starts") {
        Some([
            node.attributes.ints("starts")?.iter().copied().collect(),
            node.attributes.ints("ends")?.iter().copied().collect(),
            node.attributes.ints("axes")?.iter().copied().collect(),
        ])
    } else {
        None
    };
    let constant =
        |index: usize| node.inputs.get(index).copied().flatten().flatten().and_then(|t| ints(t.view()));
    let absent = |index: usize| node.inputs.get(index).copied().flatten().is_none();
    let known = match &attributes {
        Some([starts, ends, axes]) => Some((starts.clone(), ends.clone(), axes.clone(), SmallVec::new())),
        None => (|| {
            let axes = if absent(3) { SmallVec::new() } else { constant(3)? };
            let steps = if absent(4) { SmallVec::new() } else { constant(4)? };
            Some((constant(1)?, constant(2)?, axes, steps))
        })(),
    };
    let facts = move |inputs: &[Option<Fact>]| {
        let element = fact(inputs, 0)?.element;
        let (Some(mut dims), Some((starts, ends, axes, steps))) = (like(inputs, 0), &known) else {
            return of_rank(inputs, rank(inputs, 0));
        };
        for (i, (start, end)) in starts.iter().zip(ends).enumerate() {
            let axis =
                axes.get(i).copied().or_else(|| i64::try_from(i).ok()).and_then(|a| axis_of(a, dims.len()));
            let step = steps.get(i).copied().unwrap_or(1);
            let Some(dim) = axis.and_then(|a| dims.get_mut(a)) else {
                return Err(BuildError::invalid("an axis that the tensor does not have"));
            };
            *dim = match *dim {
                FactDim::Fixed(n) => {
                    Range::new(*start, *end, step, n).map_or(FactDim::Unknown, |r| FactDim::Fixed(r.count))
                }
                same if *start == 0 && *end >= i64::from(i32::MAX) && step == 1 => same,
                _ => FactDim::Unknown,
            };
        }
        one(element, Some(dims))
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        let given;
        let [starts, ends, axes] = match &attributes {
            Some(attributes) => attributes,
            None => {
                given = [args.ints(1)?, args.ints(2)?, args.maybe_ints(3)?.unwrap_or_default()];
                &given
            }
        };
        let steps = if attributes.is_some() { None } else { args.maybe_ints(4)? };
        let mut ranges: SmallVec<[Range; 8]> =
            input.dims().iter().map(|d| Range { start: 0, count: *d, step: 1 }).collect();
        if starts.len() != ends.len() {
            return Err(args.fail("as many ends as starts"));
        }
        for (i, (start, end)) in starts.iter().zip(ends).enumerate() {
            let axis = axes.get(i).copied().unwrap_or(i64::try_from(i).unwrap_or(i64::MAX));
            let axis = args.axis(axis, input.dims().len())?;
            let step = steps.as_ref().and_then(|s| s.get(i)).copied().unwrap_or(1);
            let size = input.dims().get(axis).copied().unwrap_or(0);
            let range =
                Range::new(*start, *end, step, size).ok_or_else(|| args.fail("a step that is not zero"))?;
            ranges.get_mut(axis).into_iter().for_each(|r| *r = range);
        }
        any_type!(input, v => typed(args, v, &ranges, outputs, cx))
    })
}

/// Calls a function with the blocks of a tensor along an axis: how many outer positions there are
/// and how many elements each has behind one position of the axis.
fn around(dims: &[usize], axis: usize) -> (usize, usize) {
    let outer = dims.get(..axis).unwrap_or(&[]).iter().product();
    let inner = dims.get(axis + 1..).unwrap_or(&[]).iter().product();
    (outer, inner)
}

fn split(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        axis: usize,
        sizes: &[usize],
        outputs: &mut [Tensor],
    ) -> Run {
        let shape = args.get(0)?.shape();
        let (outer, inner) = around(shape.dims(), axis);
        let row = shape.dims().get(axis).copied().unwrap_or(0) * inner;
        let mut before = 0;
        for (output, size) in outputs.iter_mut().zip(sizes) {
            let mut dims = Dims::from_slice(shape.dims());
            dims.get_mut(axis).into_iter().for_each(|d| *d = *size);
            let block = size * inner;
            let shape = crate::tensor::Shape::new(&dims).ok_or_else(|| args.fail("fewer dimensions"))?;
            let to = output.reset::<T>(shape);
            if block > 0 {
                for (to, outer) in to.chunks_exact_mut(block).zip(0..outer) {
                    let start = outer * row + before;
                    to.clone_from_slice(values.get(start..start + block).unwrap_or(&[]));
                }
            }
            before += block;
        }
        Ok(())
    }
    let axis = node.attributes.int("axis")?.unwrap_or(0);
    let count = node.outputs;
    let fixed: Option<SmallVec<[i64; 8]>> = if node.attributes.contains("split") {
        Some(node.attributes.ints("split")?.iter().copied().collect())
    } else {
        node.inputs.get(1).copied().flatten().flatten().and_then(|t| ints(t.view()))
    };
    let given_later = node.inputs.get(1).copied().flatten().is_some() && fixed.is_none();
    let parts = node.attributes.int("num_outputs")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(count);
    // Equal parts, the last one smaller where it does not come out even.
    let equal = move |size: usize| -> SmallVec<[usize; 8]> {
        let each = size.div_ceil(parts.max(1));
        (0..parts.min(count)).map(|i| each.min(size.saturating_sub(i * each))).collect()
    };
    let known = fixed.clone();
    let facts = move |inputs: &[Option<Fact>]| {
        let element = fact(inputs, 0)?.element;
        let Some(dims) = like(inputs, 0) else {
            return Ok(SmallVec::from_elem(Fact { element, dims: None }, count));
        };
        let at =
            axis_of(axis, dims.len()).ok_or_else(|| BuildError::invalid("an axis that the tensor lacks"))?;
        let sizes = |index: usize| match (&known, dims.get(at)) {
            (Some(known), _) => known.get(index).and_then(|n| usize::try_from(*n).ok()),
            (None, Some(FactDim::Fixed(n))) if !given_later => equal(*n).get(index).copied(),
            _ => None,
        };
        let part = |index| {
            let mut dims = dims.clone();
            let size = sizes(index).map_or(FactDim::Unknown, FactDim::Fixed);
            dims.get_mut(at).into_iter().for_each(|d| *d = size);
            Fact { element, dims: Some(dims) }
        };
        Ok((0..count).map(part).collect())
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        let axis = args.axis(axis, input.dims().len())?;
        let size = input.dims().get(axis).copied().unwrap_or(0);
        let given = if given_later { Some(args.ints(1)?) } else { None };
        let sizes: SmallVec<[usize; 8]> = match fixed.as_ref().or(given.as_ref()) {
            Some(sizes) => super::layout::unsigned(args, sizes)?.into_iter().collect(),
            None => equal(size),
        };
        let total = sizes.iter().try_fold(0_usize, |n, s| n.checked_add(*s));
        if sizes.len() < outputs.len() || total != Some(size) {
            return Err(args.fail("parts that make up the axis"));
        }
        any_type!(input, v => typed(args, v, axis, &sizes, outputs))
    })
}

fn concat(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Element>(
        args: Args<'_, '_>,
        _: &[T],
        axis: usize,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let mut dims = Dims::from_slice(args.get(0)?.dims());
        let (mut total, mut text) = (0_usize, 0_u64);
        for index in 0..args.inputs.len() {
            let other = args.get(index)?.shape();
            text = text.saturating_add(text_bytes(args.values::<T>(index)?));
            let size = other.dims().get(axis).copied().unwrap_or(0);
            total = total.checked_add(size).ok_or(RunError::OverBudget { needed: u64::MAX })?;
            dims.get_mut(axis).into_iter().for_each(|d| *d = size);
            if other.dims() != dims.as_slice() {
                return Err(args.fail("shapes that differ along the axis only"));
            }
        }
        dims.get_mut(axis).into_iter().for_each(|d| *d = total);
        let (outer, inner) = around(&dims, axis);
        cx.room_for_text(text)?;
        let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
        if total * inner == 0 {
            return Ok(());
        }
        for (row, at) in to.chunks_exact_mut(total * inner).zip(0..outer) {
            let mut rest = row;
            for index in 0..args.inputs.len() {
                let (values, view) = (args.values::<T>(index)?, args.get(index)?);
                let block = view.dims().get(axis).copied().unwrap_or(0) * inner;
                let Some((part, after)) = std::mem::take(&mut rest).split_at_mut_checked(block) else {
                    break;
                };
                rest = after;
                let from = values.get(at * block..(at + 1) * block).unwrap_or(&[]);
                match (part, from) {
                    // A column of a table: a copy by a call costs more than the value.
                    ([to], [value]) => to.clone_from(value),
                    (part, from) => part.clone_from_slice(from),
                }
            }
        }
        Ok(())
    }
    let axis = node.attributes.int("axis")?.unwrap_or(1);
    let facts = move |inputs: &[Option<Fact>]| {
        let element = fact(inputs, 0)?.element;
        let Some(mut dims) = like(inputs, 0) else { return one(element, None) };
        let at =
            axis_of(axis, dims.len()).ok_or_else(|| BuildError::invalid("an axis that the tensor lacks"))?;
        let mut total = Some(0_usize);
        for index in 0..inputs.len() {
            let Some(other) = like(inputs, index) else { return one(element, Some(unknown(dims.len()))) };
            if other.len() != dims.len() {
                return Err(BuildError::invalid("inputs of different ranks"));
            }
            for (i, (dim, other)) in dims.iter_mut().zip(&other).enumerate() {
                match (*dim, other) {
                    (_, FactDim::Fixed(n)) if i == at => total = total.and_then(|t| t.checked_add(*n)),
                    _ if i == at => total = None,
                    (FactDim::Fixed(a), FactDim::Fixed(b)) if a != *b => {
                        return Err(BuildError::invalid(format!(
                            "sizes {a} and {b} along an axis that is not joined"
                        )));
                    }
                    (FactDim::Fixed(_), _) => {}
                    (_, FactDim::Fixed(n)) => *dim = FactDim::Fixed(*n),
                    _ => {}
                }
            }
        }
        let size = total.map_or(FactDim::Unknown, FactDim::Fixed);
        dims.get_mut(at).into_iter().for_each(|d| *d = size);
        one(element, Some(dims))
    };
    op(name, facts, move |args, outputs, cx| {
        let input: TensorView<'_> = args.get(0)?;
        let axis = args.axis(axis, input.dims().len())?;
        any_type!(input, v => typed(args, v, axis, outputs, cx))
    })
}

fn unknown(rank: usize) -> FactDims {
    SmallVec::from_elem(FactDim::Unknown, rank)
}
