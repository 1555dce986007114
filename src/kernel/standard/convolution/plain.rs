//! Convolution and pooling by their definitions, for what is rare: other types than `f32`, and the
//! places of the largest elements. Channels are first, as ONNX has them.

use super::reduce::divisor;
use super::weights::Shape;
use super::window::{Grid, count};
use crate::kernel::standard::number::{Float, Number};

/// Calls `visit` for each place of the window with the place, the elements that it sees, and the
/// taps that see them.
fn places(grid: &Grid, mut visit: impl FnMut([usize; 3], &[(usize, usize)])) {
    let [z, y, x] = grid;
    let mut seen = Vec::new();
    for at_z in 0..z.output {
        for at_y in 0..y.output {
            for at_x in 0..x.output {
                seen.clear();
                let ranges = [z.seen(at_z), y.seen(at_y), x.seen(at_x)];
                for tap_z in ranges[0].0..ranges[0].1 {
                    for tap_y in ranges[1].0..ranges[1].1 {
                        for tap_x in ranges[2].0..ranges[2].1 {
                            let line = z.at(at_z, tap_z) * y.input + y.at(at_y, tap_y);
                            let tap = (tap_z * y.kernel + tap_y) * x.kernel + tap_x;
                            seen.push((line * x.input + x.at(at_x, tap_x), tap));
                        }
                    }
                }
                visit([at_z, at_y, at_x], &seen);
            }
        }
    }
}

/// Sums of products, of which `weights` are stated by output channel, then input channel, then tap.
pub(super) fn convolution<T: Float>(
    x: &[T],
    shape: &Shape,
    grid: &Grid,
    weights: &[T],
    bias: Option<&[T]>,
    to: &mut [T],
) {
    let (elements, results) = (count(grid, |e| e.input), count(grid, |e| e.output));
    let (image, result) = (elements * shape.channels(), results * shape.columns);
    if image == 0 || result == 0 {
        return;
    }
    for (x, to) in x.chunks_exact(image).zip(to.chunks_exact_mut(result)) {
        let mut index = 0;
        places(grid, |_, seen| {
            for column in 0..shape.columns {
                let group = column / shape.group_columns().max(1);
                let mut sum = bias.and_then(|b| b.get(column)).copied().unwrap_or(T::ZERO);
                for depth in 0..shape.depth {
                    let plane = (group * shape.depth + depth) * elements;
                    let kernel = (column * shape.depth + depth) * shape.taps;
                    for (element, tap) in seen {
                        if let (Some(x), Some(w)) = (x.get(plane + element), weights.get(kernel + tap)) {
                            sum = sum.plus(x.times(*w));
                        }
                    }
                }
                to.get_mut(column * results + index).into_iter().for_each(|to| *to = sum);
            }
            index += 1;
        });
    }
}

/// The largest element of each window, NaN where there is one, and where it is among all elements of
/// the input: counted row by row, or column by column within its plane.
pub(super) fn largest<T: Number>(
    x: &[T],
    grid: &Grid,
    to: &mut [T],
    mut found_at: Option<&mut [i64]>,
    column_major: bool,
) {
    let (elements, results) = (count(grid, |e| e.input), count(grid, |e| e.output));
    if elements == 0 || results == 0 {
        return;
    }
    let [z, y, x_axis] = grid;
    let by_columns = |element: usize| {
        let (line, at_x) = (element / x_axis.input, element % x_axis.input);
        let (at_z, at_y) = (line / y.input, line % y.input);
        (at_x * y.input + at_y) * z.input + at_z
    };
    for (plane, (x, to)) in x.chunks_exact(elements).zip(to.chunks_exact_mut(results)).enumerate() {
        let mut index = 0;
        places(grid, |_, seen| {
            let (mut best, mut place) = (T::LOWEST, 0);
            for (nth, (element, _)) in seen.iter().enumerate() {
                let value = x.get(*element).copied().unwrap_or(T::LOWEST);
                if nth == 0 || value > best || (value.is_nan() && !best.is_nan()) {
                    (best, place) = (value, *element);
                }
            }
            to.get_mut(index).into_iter().for_each(|to| *to = best);
            let place = plane * elements + if column_major { by_columns(place) } else { place };
            let slot = found_at.as_deref_mut().and_then(|f| f.get_mut(plane * results + index));
            slot.into_iter().for_each(|slot| *slot = place as i64);
            index += 1;
        });
    }
}

/// The mean of what each window sees.
pub(super) fn mean<T: Float>(x: &[T], grid: &Grid, with_borders: bool, to: &mut [T]) {
    let (elements, results) = (count(grid, |e| e.input), count(grid, |e| e.output));
    if elements == 0 || results == 0 {
        return;
    }
    for (x, to) in x.chunks_exact(elements).zip(to.chunks_exact_mut(results)) {
        let mut to = to.iter_mut();
        places(grid, |at, seen| {
            let sum = seen.iter().filter_map(|(element, _)| x.get(*element));
            let sum = sum.fold(T::ZERO, |sum, x| sum.plus(*x));
            let [z, y, x] = grid;
            let ranges = [z.seen(at[0]), y.seen(at[1]), x.seen(at[2])];
            let taps = divisor(grid, at, ranges, with_borders);
            to.next().into_iter().for_each(|to| *to = sum.over(T::from_i64(taps as i64)));
        });
    }
}
