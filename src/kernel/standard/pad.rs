//! Borders and triangles: `Pad`, `Trilu`.

use smallvec::SmallVec;

use super::number::Number;
use super::strided::dense;
use super::support::{Args, Built, Dims, Facts, Run, any_type, first, number_type, of_rank, op, rank, same};
use crate::kernel::{BuildError, Fact, Node, RunContext, longest_text};
use crate::tensor::{Element, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "Trilu" => {
            let upper = node.attributes.int("upper")?.unwrap_or(1) != 0;
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                number_type!(args, input, v => trilu(args, v, upper, outputs))
            })
        }
        "Pad" if node.version >= 11 => pad(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

fn trilu<T: Number>(args: Args<'_, '_>, values: &[T], upper: bool, outputs: &mut [Tensor]) -> Run {
    let shape = args.get(0)?.shape();
    let k = args.maybe_ints(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let [.., rows, columns] = shape.dims() else { return Err(args.fail("at least two dimensions")) };
    let to = first(args, outputs)?.reset::<T>(shape);
    if rows * columns == 0 {
        return Ok(());
    }
    for (to, from) in to.chunks_exact_mut(rows * columns).zip(values.chunks_exact(rows * columns)) {
        for ((row, to), from) in (0_i64..).zip(to.chunks_exact_mut(*columns)).zip(from.chunks_exact(*columns))
        {
            for ((column, to), from) in (0_i64..).zip(to).zip(from) {
                let above = column.saturating_sub(row);
                let kept = if upper { above >= k } else { above <= k };
                *to = if kept { *from } else { T::ZERO };
            }
        }
    }
    Ok(())
}

/// Borders of a constant value, or of the nearest or mirrored elements.
fn pad(name: &'static str, node: &Node<'_>) -> Built {
    #[derive(Clone, Copy, PartialEq)]
    enum Mode {
        Constant,
        Edge,
        Reflect,
        Wrap,
    }
    fn typed<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        mode: Mode,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let shape = args.get(0)?.shape();
        let pads = args.ints(1)?;
        let rank = shape.dims().len();
        let mut before: SmallVec<[i64; 8]> = SmallVec::from_elem(0, rank);
        let mut after = before.clone();
        let axes = args.maybe_ints(3)?.unwrap_or_else(|| (0..i64::try_from(rank).unwrap_or(0)).collect());
        if pads.len() != 2 * axes.len() {
            return Err(args.fail("two widths for each axis"));
        }
        for (i, axis) in axes.iter().enumerate() {
            let axis = args.axis(*axis, rank)?;
            before.get_mut(axis).into_iter().for_each(|b| *b = pads.get(i).copied().unwrap_or(0));
            after.get_mut(axis).into_iter().for_each(|a| *a = pads.get(i + axes.len()).copied().unwrap_or(0));
        }
        let wide = |((dim, b), a): ((&usize, &i64), &i64)| {
            let sum = i64::try_from(*dim).ok()?.checked_add(*b)?.checked_add(*a)?;
            usize::try_from(sum).ok()
        };
        let dims: Dims = shape
            .dims()
            .iter()
            .zip(&before)
            .zip(&after)
            .map(wide)
            .collect::<Option<_>>()
            .ok_or_else(|| args.fail("sizes that are not negative"))?;
        let fill = match args.maybe(2) {
            Some(_) => args.values::<T>(2)?.first().cloned().unwrap_or_default(),
            None => T::default(),
        };
        let strides = dense(shape.dims());
        let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
        let longest = longest_text(values).max(longest_text(std::slice::from_ref(&fill)));
        cx.room_for_text(longest.saturating_mul(to.len() as u64))?;
        let mut index: SmallVec<[i64; 8]> = SmallVec::from_elem(0, rank);
        for to in to {
            let mut at = Some(0_isize);
            for (((i, b), dim), stride) in index.iter().zip(&before).zip(shape.dims()).zip(&strides) {
                let dim = i64::try_from(*dim).unwrap_or(0);
                let inside = i - b;
                let source = match mode {
                    Mode::Constant => (0..dim).contains(&inside).then_some(inside),
                    _ if dim == 0 => None,
                    Mode::Edge => Some(inside.clamp(0, dim - 1)),
                    Mode::Wrap => Some(inside.rem_euclid(dim)),
                    Mode::Reflect if dim == 1 => Some(0),
                    Mode::Reflect => {
                        let period = 2 * (dim - 1);
                        let place = inside.rem_euclid(period);
                        Some(place.min(period - place))
                    }
                };
                at = at.zip(source).map(|(at, s)| at + isize::try_from(s).unwrap_or(0) * stride);
            }
            let value = at.and_then(|at| values.get(at.cast_unsigned()));
            to.clone_from(value.unwrap_or(&fill));
            for (i, dim) in index.iter_mut().zip(&dims).rev() {
                *i += 1;
                if usize::try_from(*i).is_ok_and(|i| i < *dim) {
                    break;
                }
                *i = 0;
            }
        }
        Ok(())
    }
    let mode = match node.attributes.string("mode")?.unwrap_or("constant") {
        "constant" => Mode::Constant,
        "edge" => Mode::Edge,
        "reflect" => Mode::Reflect,
        "wrap" => Mode::Wrap,
        other => return Err(BuildError::invalid(format!("attribute `mode`: found `{other}`"))),
    };
    let facts = |inputs: &[Option<Fact>]| -> Facts { of_rank(inputs, rank(inputs, 0)) };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        any_type!(input, v => typed(args, v, mode, outputs, cx))
    })
}
