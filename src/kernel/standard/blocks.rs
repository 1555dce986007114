//! Pieces of images moved about: `DepthToSpace`, `SpaceToDepth`, `Col2Im`, `CenterCropPad`,
//! `ReverseSequence`.

use smallvec::SmallVec;

use super::number::Number;
use super::strided::{Strides, copy, dense};
use super::support::{
    Args, Built, Dims, Facts, Run, any_type, fact, first, like, number_type, of_rank, one, op, rank, same,
};
use super::window::{Window, each_index};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::tensor::{Element, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "DepthToSpace" | "SpaceToDepth" => depth(name, node),
        "Col2Im" => columns(name, node),
        "CenterCropPad" => center(name, node),
        "ReverseSequence" => reverse(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

fn depth(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        (block, to_space, columns_first): (usize, bool, bool),
        outputs: &mut [Tensor],
    ) -> Run {
        let shape = args.get(0)?.shape();
        let [batch, channels, height, width] = shape.dims() else { return Err(args.fail("four dimensions")) };
        let (batch, channels, height, width) = (*batch, *channels, *height, *width);
        let area = block * block;
        let divides = if to_space { channels % area == 0 } else { height % block == 0 && width % block == 0 };
        if !divides {
            return Err(args.fail("sizes that the block divides"));
        }
        // The input seen with the block's axes apart, and the order of the output's axes in it.
        let (apart, order, to): ([usize; 6], [usize; 6], [usize; 4]) = if to_space {
            let to = [batch, channels / area, height * block, width * block];
            if columns_first {
                ([batch, channels / area, block, block, height, width], [0, 1, 4, 2, 5, 3], to)
            } else {
                ([batch, block, block, channels / area, height, width], [0, 3, 4, 1, 5, 2], to)
            }
        } else {
            let apart = [batch, channels, height / block, block, width / block, block];
            let to = [batch, channels * area, height / block, width / block];
            (apart, if columns_first { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] }, to)
        };
        let strides = dense(&apart);
        let of =
            |axis: &usize| (apart.get(*axis).copied().unwrap_or(1), strides.get(*axis).copied().unwrap_or(0));
        let (dims, strides): (Dims, Strides) = order.iter().map(of).unzip();
        let to = crate::tensor::Shape::new(&to).ok_or_else(|| args.fail("four dimensions"))?;
        copy(values, 0, &dims, &strides, first(args, outputs)?.reset::<T>(to));
        Ok(())
    }
    let block = node.attributes.int("blocksize")?.and_then(|n| usize::try_from(n).ok());
    let block = block.filter(|n| (1..65_536).contains(n));
    let block = block.ok_or_else(|| BuildError::invalid("attribute `blocksize` is missing"))?;
    let columns_first = match node.attributes.string("mode")?.unwrap_or("DCR") {
        "DCR" => false,
        "CRD" => true,
        other => return Err(BuildError::invalid(format!("attribute `mode`: found `{other}`"))),
    };
    let to_space = name == "DepthToSpace";
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let Some(dims) = like(inputs, 0) else { return one(element, None) };
        let dims = dims.iter().enumerate().map(|(axis, dim)| match (axis, dim) {
            (0, dim) => *dim,
            (1, FactDim::Fixed(n)) if to_space => FactDim::Fixed(n / (block * block)),
            (1, FactDim::Fixed(n)) => FactDim::Fixed(n.saturating_mul(block * block)),
            (_, FactDim::Fixed(n)) if to_space => FactDim::Fixed(n.saturating_mul(block)),
            (_, FactDim::Fixed(n)) => FactDim::Fixed(n / block),
            _ => FactDim::Unknown,
        });
        one(element, Some(dims.collect()))
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        any_type!(input, v => typed(args, v, (block, to_space, columns_first), outputs))
    })
}

/// The sum of overlapping blocks, the inverse of an unfolding.
fn columns(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Number>(
        args: Args<'_, '_>,
        values: &[T],
        window: &Window,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let list = |index: usize| -> Result<Dims, crate::load::RunError> {
            let sizes: Option<Dims> =
                args.ints(index)?.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n > 0)).collect();
            sizes.ok_or_else(|| args.fail("sizes that are positive"))
        };
        let (sizes, kernel) = (list(1)?, list(2)?);
        let shape = args.get(0)?.shape();
        let [batch, rows, positions] = shape.dims() else { return Err(args.fail("three dimensions")) };
        let places = window.places(args, &kernel, &sizes)?;
        let area = kernel.iter().try_fold(1_usize, |n, k| n.checked_mul(*k)).unwrap_or(0);
        let outs: Dims = places.iter().map(|p| p.out).collect();
        let found = outs.iter().try_fold(1_usize, |n, o| n.checked_mul(*o));
        if kernel.len() != sizes.len() || area == 0 || rows % area != 0 || found != Some(*positions) {
            return Err(args.fail("columns that fit the image"));
        }
        let mut dims = Dims::from_slice(&[*batch, rows / area]);
        dims.extend(sizes.iter().copied());
        let plane: usize = sizes.iter().product();
        let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
        to.fill(T::ZERO);
        let blocks = to.chunks_exact_mut(plane.max(1)).zip(values.chunks_exact((area * positions).max(1)));
        for (to, from) in blocks {
            let mut lanes = from.chunks_exact((*positions).max(1));
            each_index(&kernel, |k| {
                let mut lane = lanes.next().unwrap_or(&[]).iter();
                each_index(&outs, |out| {
                    let at =
                        places.iter().zip(out).zip(k).try_fold(0, |at, ((place, out), k)| {
                            Some(at * place.size + place.source(*out, *k)?)
                        });
                    if let (Some(x), Some(to)) = (lane.next(), at.and_then(|at| to.get_mut(at))) {
                        *to = to.plus(*x);
                    }
                });
            });
        }
        Ok(())
    }
    let window = Window::new(node)?;
    let known: Option<SmallVec<[i64; 8]>> =
        node.inputs.get(1).copied().flatten().flatten().and_then(|t| super::support::ints(t.view()));
    let rank = node.inputs.get(1).copied().flatten().flatten().map(|t| t.shape().elements() + 2);
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let mut facts = of_rank(inputs, rank)?;
        let dims = facts.first_mut().and_then(|f| f.dims.as_mut());
        for (dim, size) in dims.into_iter().flatten().skip(2).zip(known.iter().flatten()) {
            *dim = usize::try_from(*size).map_or(FactDim::Unknown, FactDim::Fixed);
        }
        if let (Some(batch), Some(to)) = (
            like(inputs, 0).and_then(|d| d.first().copied()),
            facts.first_mut().and_then(|f| f.dims.as_mut()).and_then(|d| d.first_mut()),
        ) {
            *to = batch;
        }
        Ok(facts)
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        number_type!(args, input, v => typed(args, v, &window, outputs, cx))
    })
}

/// Cut to a size or padded with zeros, on both sides.
fn center(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        axes: &[i64],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let shape = args.get(0)?.shape();
        let sizes = args.ints(1)?;
        let rank = shape.dims().len();
        let all: SmallVec<[i64; 8]> = (0..i64::try_from(rank).unwrap_or(0)).collect();
        let axes = if axes.is_empty() { &all[..] } else { axes };
        if axes.len() != sizes.len() {
            return Err(args.fail("a size for each axis"));
        }
        let mut dims = Dims::from_slice(shape.dims());
        let mut shifts: SmallVec<[isize; 8]> = SmallVec::from_elem(0, rank);
        for (axis, size) in axes.iter().zip(&sizes) {
            let axis = args.axis(*axis, rank)?;
            let (Some(dim), Some(shift), Ok(size)) =
                (dims.get_mut(axis), shifts.get_mut(axis), usize::try_from(*size))
            else {
                return Err(args.fail("sizes that are not negative"));
            };
            // An odd element more is cut from the end, and added at the end.
            *shift = if size > *dim {
                -((size - *dim) / 2).cast_signed()
            } else {
                ((*dim - size) / 2).cast_signed()
            };
            *dim = size;
        }
        let strides = dense(shape.dims());
        let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
        let mut slots = to.iter_mut();
        each_index(&dims, |index| {
            let Some(slot) = slots.next() else { return };
            let places = index.iter().zip(&shifts).zip(shape.dims()).zip(&strides);
            let at = places.into_iter().try_fold(0_usize, |at, (((i, shift), dim), stride)| {
                let source = i.checked_add_signed(*shift).filter(|s| s < dim)?;
                Some(at + source * stride.cast_unsigned())
            });
            if let Some(value) = at.and_then(|at| values.get(at)) {
                slot.clone_from(value);
            } else {
                *slot = T::default();
            }
        });
        Ok(())
    }
    let axes = node.attributes.ints("axes")?.to_vec();
    let facts = |inputs: &[Option<Fact>]| -> Facts { of_rank(inputs, rank(inputs, 0)) };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        any_type!(input, v => typed(args, v, &axes, outputs, cx))
    })
}

/// The first so many positions of each row of the batch, backwards.
fn reverse(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        (batch_axis, time_axis): (usize, usize),
        outputs: &mut [Tensor],
    ) -> Run {
        let shape = args.get(0)?.shape();
        let [a, b, inner @ ..] = shape.dims() else { return Err(args.fail("two dimensions")) };
        let inner: usize = inner.iter().product();
        let (batch, time) = if batch_axis == 0 { (*a, *b) } else { (*b, *a) };
        let lengths = args.ints(1)?;
        if lengths.len() != batch || batch_axis == time_axis {
            return Err(args.fail("a length for each row"));
        }
        let (batch_step, time_step) = if batch_axis == 0 { (time, 1) } else { (1, batch) };
        let to = first(args, outputs)?.reset::<T>(shape);
        for (row, length) in lengths.iter().enumerate() {
            let length = usize::try_from(*length).ok().filter(|n| *n <= time);
            let length = length.ok_or_else(|| args.fail("lengths within the time axis"))?;
            for at in 0..time {
                let source = if at < length { length - 1 - at } else { at };
                let place = |at: usize| (row * batch_step + at * time_step) * inner;
                let from = values.get(place(source)..place(source) + inner);
                if let (Some(to), Some(from)) = (to.get_mut(place(at)..place(at) + inner), from) {
                    to.clone_from_slice(from);
                }
            }
        }
        Ok(())
    }
    let axis = |attribute: &str, default: i64| -> Result<usize, BuildError> {
        let axis = node.attributes.int(attribute)?.unwrap_or(default);
        usize::try_from(axis).ok().filter(|a| *a < 2).ok_or_else(|| {
            BuildError::invalid(format!("attribute `{attribute}`: expected 0 or 1, found {axis}"))
        })
    };
    let axes = (axis("batch_axis", 1)?, axis("time_axis", 0)?);
    op(name, same, move |args, outputs, _| {
        let input = args.get(0)?;
        any_type!(input, v => typed(args, v, axes, outputs))
    })
}
