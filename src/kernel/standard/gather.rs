//! Elements picked and placed by index: `Gather`, `ScatterElements`, `Compress`, `OneHot`, ..

use smallvec::SmallVec;

use super::number::Number;
use super::strided::dense;
use super::support::{
    Args, Built, Dims, Facts, Run, any_type, axis_of, fact, first, like, number_type, of_rank, one, op, rank,
    same,
};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext, longest_text, text_bytes};
use crate::load::RunError;
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    let axis = node.attributes.int("axis")?;
    match name {
        "Gather" => {
            let axis = axis.unwrap_or(0);
            op(
                name,
                move |inputs| gather_facts(inputs, axis),
                move |args, outputs, cx| {
                    let input = args.get(0)?;
                    any_type!(input, v => gather(args, v, axis, outputs, cx))
                },
            )
        }
        "GatherElements" => {
            let axis = axis.unwrap_or(0);
            let facts = |inputs: &[Option<Fact>]| one(fact(inputs, 0)?.element, like(inputs, 1));
            op(name, facts, move |args, outputs, cx| {
                let input = args.get(0)?;
                any_type!(input, v => gather_elements(args, v, axis, outputs, cx))
            })
        }
        "GatherND" => {
            let batch = node.attributes.int("batch_dims")?.unwrap_or(0);
            op(
                name,
                |inputs| of_rank(inputs, None),
                move |args, outputs, cx| {
                    let input = args.get(0)?;
                    any_type!(input, v => gather_nd(args, v, batch, outputs, cx))
                },
            )
        }
        "ScatterElements" | "Scatter" => {
            let (axis, reduction) = (axis.unwrap_or(0), Reduction::of(node)?);
            op(name, same, move |args, outputs, _| {
                scatter(args, outputs, reduction, |args| elements_places(args, axis))
            })
        }
        "ScatterND" => {
            let reduction = Reduction::of(node)?;
            op(name, same, move |args, outputs, _| scatter(args, outputs, reduction, nd_places))
        }
        "Compress" => op(
            name,
            move |inputs| of_rank(inputs, if axis.is_none() { Some(1) } else { rank(inputs, 0) }),
            move |args, outputs, cx| {
                let input = args.get(0)?;
                any_type!(input, v => compress(args, v, axis, outputs, cx))
            },
        ),
        "OneHot" => {
            let axis = axis.unwrap_or(-1);
            let facts = |inputs: &[Option<Fact>]| {
                let rank = rank(inputs, 0).map(|r| SmallVec::from_elem(FactDim::Unknown, r + 1));
                one(fact(inputs, 2)?.element, rank)
            };
            op(name, facts, move |args, outputs, cx| {
                let values = args.get(2)?;
                any_type!(values, v => one_hot(args, v, axis, outputs, cx))
            })
        }
        _ => Err(BuildError::Unsupported),
    }
}

/// A position counted from the front, where the axis has it.
#[inline(always)]
fn position(index: i64, size: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(size).ok()?)? } else { index };
    usize::try_from(index).ok().filter(|i| *i < size)
}

/// The indices, of either width, by a function.
fn indices(args: Args<'_, '_>, index: usize, mut f: impl FnMut(i64) -> Run) -> Run {
    match args.get(index)?.data() {
        DataView::I64(v) => v.iter().try_for_each(|i| f(*i)),
        DataView::I32(v) => v.iter().try_for_each(|i| f(i64::from(*i))),
        _ => Err(args.fail("indices of i64 or i32")),
    }
}

fn gather_facts(inputs: &[Option<Fact>], axis: i64) -> Facts {
    let element = fact(inputs, 0)?.element;
    let (Some(dims), Some(picked)) = (like(inputs, 0), like(inputs, 1)) else { return one(element, None) };
    let axis =
        axis_of(axis, dims.len()).ok_or_else(|| BuildError::invalid("an axis that the tensor lacks"))?;
    let (before, after) = (dims.get(..axis).unwrap_or(&[]), dims.get(axis + 1..).unwrap_or(&[]));
    one(element, Some(before.iter().chain(&picked).chain(after).copied().collect()))
}

fn gather<T: Element>(
    args: Args<'_, '_>,
    values: &[T],
    axis: i64,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let (shape, picked) = (args.get(0)?.shape(), args.get(1)?.shape());
    let axis = args.axis(axis, shape.dims().len())?;
    let (before, rest) = shape.dims().split_at_checked(axis).unwrap_or((&[], &[]));
    let (size, after) = rest.split_first().map_or((0, &[][..]), |(s, a)| (*s, a));
    let dims: Dims = before.iter().chain(picked.dims()).chain(after).copied().collect();
    let inner: usize = after.iter().product();
    let mut rest = cx.reset::<T>(first(args, outputs)?, &dims)?;
    let outer: usize = before.iter().product();
    let mut text = 0_u64;
    for outer in 0..outer {
        indices(args, 1, |index| {
            let at = position(index, size).ok_or_else(|| args.fail("indices within the axis"))?;
            let from = (outer * size + at) * inner;
            let Some((to, after)) = std::mem::take(&mut rest).split_at_mut_checked(inner) else {
                return Ok(());
            };
            rest = after;
            let from = values.get(from..from + inner).unwrap_or(&[]);
            if T::TYPE == ElementType::String {
                text = text.saturating_add(text_bytes(from));
                cx.room_for_text(text)?;
            }
            match (to, from) {
                ([to], [value]) => to.clone_from(value),
                (to, from) => to.clone_from_slice(from),
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn gather_elements<T: Element>(
    args: Args<'_, '_>,
    values: &[T],
    axis: i64,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let dims = args.get(1)?.shape();
    let places = elements_places(args, axis)?;
    let to = cx.reset::<T>(first(args, outputs)?, dims.dims())?;
    let mut text = 0_u64;
    for (to, place) in to.iter_mut().zip(places) {
        let from = values.get(place).ok_or_else(|| args.fail("indices within the axis"))?;
        text = text.saturating_add(text_bytes(std::slice::from_ref(from)));
        cx.room_for_text(text)?;
        to.clone_from(from);
    }
    Ok(())
}

/// Where in the first input each element of the indices points, all axes but one being its own.
fn elements_places(args: Args<'_, '_>, axis: i64) -> Result<Vec<usize>, RunError> {
    let (shape, picked) = (args.get(0)?.shape(), args.get(1)?.shape());
    let axis = args.axis(axis, shape.dims().len())?;
    let fits = |(i, (a, b)): (usize, (&usize, &usize))| i == axis || b <= a;
    if shape.dims().len() != picked.dims().len()
        || !shape.dims().iter().zip(picked.dims()).enumerate().all(fits)
    {
        return Err(args.fail("indices of the shape of the data"));
    }
    let strides = dense(shape.dims());
    let size = shape.dims().get(axis).copied().unwrap_or(0);
    let mut at: SmallVec<[usize; 8]> = SmallVec::from_elem(0, picked.dims().len());
    let mut places = Vec::with_capacity(picked.elements());
    indices(args, 1, |index| {
        let index = position(index, size).ok_or_else(|| args.fail("indices within the axis"))?;
        let place = at.iter().zip(&strides).enumerate();
        places
            .push(place.map(|(i, (at, s))| (if i == axis { index } else { *at }) * s.cast_unsigned()).sum());
        for (at, dim) in at.iter_mut().zip(picked.dims()).rev() {
            *at += 1;
            if *at < *dim {
                break;
            }
            *at = 0;
        }
        Ok(())
    })?;
    Ok(places)
}

/// Where in the data each row of indices points, and how many elements lie there. `batch` leading
/// axes are common to both.
fn nd_rows(args: Args<'_, '_>, batch: usize) -> Result<(Vec<usize>, usize), RunError> {
    let (shape, picked) = (args.get(0)?.shape(), args.get(1)?.shape());
    let (Some(depth), lead) = (picked.dims().last().copied(), picked.dims().len().saturating_sub(1)) else {
        return Err(args.fail("indices of one dimension or more"));
    };
    let common = shape.dims().get(..batch).zip(picked.dims().get(..batch.min(lead)));
    if common.is_none_or(|(a, b)| a != b) || batch + depth > shape.dims().len() || depth == 0 {
        return Err(args.fail("indices of axes that the data has"));
    }
    let strides = dense(shape.dims());
    let inner: usize = shape.dims().get(batch + depth..).unwrap_or(&[]).iter().product();
    let batches: usize = shape.dims().get(..batch).unwrap_or(&[]).iter().product();
    let per_batch: usize = shape.dims().get(batch..).unwrap_or(&[]).iter().product();
    let rows = picked.elements() / depth;
    let rows_per_batch = (rows / batches.max(1)).max(1);
    let mut places = Vec::with_capacity(rows);
    let (mut column, mut place) = (0, 0);
    indices(args, 1, |index| {
        let axis = batch + column;
        let size = shape.dims().get(axis).copied().unwrap_or(0);
        let at = position(index, size).ok_or_else(|| args.fail("indices within the axis"))?;
        place += at * strides.get(axis).map_or(0, |s| s.cast_unsigned());
        column += 1;
        if column == depth {
            let row = places.len() / rows_per_batch;
            places.push(place + if batch > 0 { row * per_batch } else { 0 });
            (column, place) = (0, 0);
        }
        Ok(())
    })?;
    Ok((places, inner))
}

fn gather_nd<T: Element>(
    args: Args<'_, '_>,
    values: &[T],
    batch: i64,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let batch = usize::try_from(batch).map_err(|_| args.fail("a number of axes"))?;
    let (shape, picked) = (args.get(0)?.shape(), args.get(1)?.shape());
    let (places, inner) = nd_rows(args, batch)?;
    let depth = picked.dims().last().copied().unwrap_or(0);
    let lead = picked.dims().get(..picked.dims().len().saturating_sub(1)).unwrap_or(&[]);
    let dims: Dims = lead.iter().chain(shape.dims().get(batch + depth..).unwrap_or(&[])).copied().collect();
    let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
    if inner > 0 {
        let mut text = 0_u64;
        for (to, place) in to.chunks_exact_mut(inner).zip(places) {
            let from = values.get(place..place + inner).unwrap_or(&[]);
            text = text.saturating_add(text_bytes(from));
            cx.room_for_text(text)?;
            to.clone_from_slice(from);
        }
    }
    Ok(())
}

fn nd_places(args: Args<'_, '_>) -> Result<Vec<usize>, RunError> {
    let (places, inner) = nd_rows(args, 0)?;
    Ok(places.iter().flat_map(|p| *p..*p + inner).collect())
}

/// What becomes of an element that is there when another is put in its place.
#[derive(Clone, Copy)]
enum Reduction {
    Replace,
    Add,
    Mul,
    Min,
    Max,
}

impl Reduction {
    fn of(node: &Node<'_>) -> Result<Self, BuildError> {
        Ok(match node.attributes.string("reduction")?.unwrap_or("none") {
            "none" => Self::Replace,
            "add" => Self::Add,
            "mul" => Self::Mul,
            "min" => Self::Min,
            "max" => Self::Max,
            other => return Err(BuildError::invalid(format!("attribute `reduction`: found `{other}`"))),
        })
    }
}

fn scatter(
    args: Args<'_, '_>,
    outputs: &mut [Tensor],
    reduction: Reduction,
    places: impl Fn(Args<'_, '_>) -> Result<Vec<usize>, RunError>,
) -> Run {
    fn place<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        places: &[usize],
        outputs: &mut [Tensor],
        f: impl Fn(&mut T, &T),
    ) -> Run {
        let updates = args.values::<T>(2)?;
        if updates.len() != places.len() {
            return Err(args.fail("an update for each index"));
        }
        let to = first(args, outputs)?.reset::<T>(args.get(0)?.shape());
        to.clone_from_slice(values);
        for (update, place) in updates.iter().zip(places) {
            f(to.get_mut(*place).ok_or_else(|| args.fail("indices within the data"))?, update);
        }
        Ok(())
    }
    let input: TensorView<'_> = args.get(0)?;
    let places = places(args)?;
    let places = places.as_slice();
    match reduction {
        Reduction::Replace => any_type!(input, v => place(args, v, places, outputs, Clone::clone_from)),
        Reduction::Add => {
            number_type!(args, input, v => place(args, v, places, outputs, |to, x| *to = to.plus(*x)))
        }
        Reduction::Mul => {
            number_type!(args, input, v => place(args, v, places, outputs, |to, x| *to = to.times(*x)))
        }
        Reduction::Min => {
            number_type!(args, input, v => place(args, v, places, outputs, |to, x| *to = to.smaller(*x)))
        }
        Reduction::Max => {
            number_type!(args, input, v => place(args, v, places, outputs, |to, x| *to = to.larger(*x)))
        }
    }
}

fn compress<T: Element>(
    args: Args<'_, '_>,
    values: &[T],
    axis: Option<i64>,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let shape = args.get(0)?.shape();
    let keep = args.values::<bool>(1)?;
    let (mut dims, axis) = match axis {
        Some(axis) => (Dims::from_slice(shape.dims()), args.axis(axis, shape.dims().len())?),
        None => (Dims::from_slice(&[shape.elements()]), 0),
    };
    let size = dims.get(axis).copied().unwrap_or(0);
    let keep = keep.get(..size.min(keep.len())).unwrap_or(&[]);
    let outer: usize = dims.get(..axis).unwrap_or(&[]).iter().product();
    let inner: usize = dims.get(axis + 1..).unwrap_or(&[]).iter().product();
    dims.get_mut(axis).into_iter().for_each(|d| *d = keep.iter().filter(|k| **k).count());
    let mut rest = cx.reset::<T>(first(args, outputs)?, &dims)?;
    for outer in 0..outer {
        for (at, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
            let Some((to, after)) = std::mem::take(&mut rest).split_at_mut_checked(inner) else {
                return Ok(());
            };
            rest = after;
            let from = (outer * size + at) * inner;
            to.clone_from_slice(values.get(from..from + inner).unwrap_or(&[]));
        }
    }
    Ok(())
}

fn one_hot<T: Element>(
    args: Args<'_, '_>,
    values: &[T],
    axis: i64,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let [off, on] = values else { return Err(args.fail("two values")) };
    // Indices and depth may be of any type of numbers.
    let number = |index: usize| -> Result<Vec<f64>, RunError> {
        let view = args.get(index)?;
        number_type!(args, view, v => Ok(v.iter().map(|x| Number::to_f64(*x)).collect()))
    };
    let depth = *number(1)?.first().ok_or_else(|| args.fail("a depth"))?;
    let depth_whole =
        usize::try_from(i64::from_f64(depth)).map_err(|_| args.fail("a depth that is not negative"))?;
    let shape = args.get(0)?.shape();
    let axis = args.axis(axis, shape.dims().len() + 1)?;
    let mut dims = Dims::from_slice(shape.dims());
    dims.insert(axis, depth_whole);
    let inner: usize = shape.dims().get(axis..).unwrap_or(&[]).iter().product();
    let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
    cx.room_for_text(longest_text(values).saturating_mul(to.len() as u64))?;
    to.fill(off.clone());
    for (place, index) in number(0)?.into_iter().enumerate() {
        let index = i64::from_f64(if index < 0.0 { index + depth } else { index });
        if let Ok(index) = usize::try_from(index)
            && index < depth_whole
        {
            let (outer, inside) = (place / inner.max(1), place % inner.max(1));
            let at = (outer * depth_whole + index) * inner + inside;
            to.get_mut(at).into_iter().for_each(|to| to.clone_from(on));
        }
    }
    Ok(())
}
