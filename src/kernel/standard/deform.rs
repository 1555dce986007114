//! `DeformConv`: a convolution that reads its input at places that are inputs themselves.

use smallvec::SmallVec;

use super::number::Float;
use super::support::{Args, Built, Facts, Run, fact, first, float_type, one, op, rank};
use super::window::Window;
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::tensor::Tensor;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    if name != "DeformConv" {
        return Err(BuildError::Unsupported);
    }
    let window = Window::new(node)?;
    let count = |name: &str| -> Result<usize, BuildError> {
        let count = node.attributes.int(name)?.unwrap_or(1);
        let count = usize::try_from(count).ok().filter(|n| *n > 0);
        count.ok_or_else(|| BuildError::invalid(format!("attribute `{name}` is not positive")))
    };
    let groups = (count("group")?, count("offset_group")?);
    let known = window.clone();
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let dims = known.output_fact(inputs, 0, 1);
        let unknown = || rank(inputs, 0).map(|r| SmallVec::from_elem(FactDim::Unknown, r));
        one(fact(inputs, 0)?.element, dims.or_else(unknown))
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => convolve(args, v, &window, groups, outputs, cx))
    })
}

#[allow(clippy::cast_precision_loss, reason = "sizes")]
fn convolve<T: Float>(
    args: Args<'_, '_>,
    x: &[T],
    window: &Window,
    (group, offset_group): (usize, usize),
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let (x_shape, w_shape) = (args.get(0)?.shape(), args.get(1)?.shape());
    let (w, offsets) = (args.values::<T>(1)?, args.values::<T>(2)?);
    let bias = if args.maybe(3).is_some() { args.values::<T>(3)? } else { &[] };
    let mask = if args.maybe(4).is_some() { Some(args.values::<T>(4)?) } else { None };
    let ([batch, channels, height, width], [filters, depth, kh, kw]) = (x_shape.dims(), w_shape.dims())
    else {
        return Err(args.fail("an image and filters of two dimensions"));
    };
    let (batch, channels, height, width) = (*batch, *channels, *height, *width);
    let (filters, depth, taps) = (*filters, *depth, kh * kw);
    let places = window.places(args, &[*kh, *kw], &[height, width])?;
    let [rows, columns] = places.as_slice() else { return Err(args.fail("two axes")) };
    let positions = rows.out * columns.out;
    let fits = depth * group == channels
        && filters % group == 0
        && channels % offset_group == 0
        && offsets.len() == batch * offset_group * taps * 2 * positions
        && mask.is_none_or(|m| m.len() == batch * offset_group * taps * positions);
    if !fits {
        return Err(args.fail("filters and offsets that fit the image"));
    }
    let to = cx.reset::<T>(first(args, outputs)?, &[batch, filters, rows.out, columns.out])?;
    for (at, to) in to.iter_mut().enumerate() {
        let (image, filter, position) =
            (at / (positions * filters), at / positions % filters, at % positions);
        let (row, column) = (position / columns.out, position % columns.out);
        let mut sum = bias.get(filter).map_or(0.0, |b| b.to_f64());
        for inside in 0..depth {
            let channel = filter / (filters / group) * depth + inside;
            let shift = image * offset_group + channel / (channels / offset_group);
            let plane = x.get((image * channels + channel) * height * width..).unwrap_or(&[]);
            for tap in 0..taps {
                let offset = |axis: usize| {
                    offsets
                        .get(((shift * taps + tap) * 2 + axis) * positions + position)
                        .map_or(0.0, |o| o.to_f64())
                };
                let y = rows.start(row, tap / kw) + offset(0);
                let x = columns.start(column, tap % kw) + offset(1);
                let weight = w.get((filter * depth + inside) * taps + tap).map_or(0.0, |w| w.to_f64());
                let seen = mask.and_then(|m| m.get((shift * taps + tap) * positions + position));
                sum += weight * seen.map_or(1.0, |m| m.to_f64()) * between(plane, height, width, y, x);
            }
        }
        *to = T::from_f64(sum);
    }
    Ok(())
}

/// The image between its elements, zero beyond them.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes"
)]
fn between<T: Float>(plane: &[T], height: usize, width: usize, y: f64, x: f64) -> f64 {
    if y.is_nan() || x.is_nan() {
        return f64::NAN;
    }
    let (top, left) = (y.floor(), x.floor());
    let mut sum = 0.0;
    for (row, by) in [(top, 1.0 - (y - top)), (top + 1.0, y - top)] {
        for (column, bx) in [(left, 1.0 - (x - left)), (left + 1.0, x - left)] {
            let inside = row >= 0.0 && row < height as f64 && column >= 0.0 && column < width as f64;
            if inside && by * bx != 0.0 {
                sum +=
                    by * bx * plane.get(row as usize * width + column as usize).map_or(0.0, |v| v.to_f64());
            }
        }
    }
    sum
}
