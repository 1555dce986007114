//! The largest or the mean of what each place of a window sees, in vector registers.

use pulp::{Simd, WithSimd};

use super::image::Source;
use super::window::{AXES, Extent, Grid};

/// What becomes of the elements that a window sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// NaN where there is one.
    Max,
    /// Over the elements, or over the borders as well.
    Mean { with_borders: bool },
}

/// One image with its channels last, into one.
pub(super) struct Reduce<'a> {
    pub(super) kind: Kind,
    pub(super) grid: &'a Grid,
    pub(super) source: Source<'a>,
    pub(super) to: &'a mut [f32],
}

impl WithSimd for Reduce<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { kind, grid, source: Source { values, pitch, channels }, to } = self;
        let job = Job { kind, grid, pitch };
        if channels == 0 {
            return;
        }
        if !channels.is_multiple_of(S::F32_LANES) {
            match kind {
                Kind::Max => {
                    let larger = |a: f32, b: f32| if a < b || b.is_nan() { b } else { a };
                    job.rows(values, channels, to, f32::NEG_INFINITY, larger);
                }
                Kind::Mean { .. } => {
                    job.rows(values, channels, to, 0.0, |a, b| a + b);
                    job.scale(channels, to, |a, scale| a * scale);
                }
            }
            return;
        }
        let ((values, _), (to, _)) = (S::as_simd_f32s(values), S::as_mut_simd_f32s(to));
        let each = channels / S::F32_LANES;
        match kind {
            Kind::Max => {
                let nothing = simd.splat_f32s(f32::NEG_INFINITY);
                job.rows(values, each, to, nothing, |a, b| larger(simd, a, b));
            }
            Kind::Mean { .. } => {
                job.rows(values, each, to, simd.splat_f32s(0.0), |a, b| simd.add_f32s(a, b));
                job.scale(each, to, |a, scale| simd.mul_f32s(a, simd.splat_f32s(scale)));
            }
        }
    }
}

/// The larger ones; NaN where there is one.
#[inline(always)]
pub(super) fn larger<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
    let larger = simd.select_f32s(simd.less_than_f32s(a, b), b, a);
    simd.select_f32s(simd.equal_f32s(b, b), larger, b)
}

/// What the lines of one image have in common.
struct Job<'a> {
    kind: Kind,
    grid: &'a Grid,
    pitch: [usize; AXES],
}

impl Job<'_> {
    /// Puts together what each place sees. A place has `each` values, registers or numbers: a line
    /// of places is worked on tap by tap, so that nothing is decided for each of them.
    #[inline(always)]
    fn rows<T: Copy>(
        &self,
        values: &[T],
        each: usize,
        to: &mut [T],
        nothing: T,
        combine: impl Fn(T, T) -> T,
    ) {
        let [z, y, x] = self.grid;
        let mut lines = to.chunks_exact_mut((x.output * each).max(1));
        for (at_z, at_y) in places(z, y) {
            let Some(to) = lines.next() else { return };
            to.fill(nothing);
            let ((first_z, end_z), (first_y, end_y)) = (z.seen(at_z), y.seen(at_y));
            for tap_z in first_z..end_z {
                for tap_y in first_y..end_y {
                    let line = z.at(at_z, tap_z) * self.pitch[1] + y.at(at_y, tap_y);
                    let line = values.get(line * self.pitch[2] * each..).unwrap_or(&[]);
                    // Between the borders all taps see an element.
                    let (mut first, mut end) = (x.seeing(0).0, x.seeing(x.kernel - 1).1);
                    if first >= end {
                        (first, end) = (x.output, x.output);
                    } else {
                        stretch(&combine, line, to, each, (first, end), (0, x.kernel), x);
                    }
                    for tap in 0..x.kernel {
                        let (from, until) = x.seeing(tap);
                        for (from, until) in [(from, until.min(first)), (from.max(end), until)] {
                            if from < until {
                                stretch(&combine, line, to, each, (from, until), (tap, tap + 1), x);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Makes means of sums.
    #[inline(always)]
    fn scale<T: Copy>(&self, each: usize, to: &mut [T], scale: impl Fn(T, f32) -> T) {
        let Kind::Mean { with_borders } = self.kind else { return };
        let [z, y, x] = self.grid;
        let mut to = to.chunks_exact_mut(each.max(1));
        for (at_z, at_y) in places(z, y) {
            let (seen_z, seen_y) = (z.seen(at_z), y.seen(at_y));
            for at_x in 0..x.output {
                let Some(to) = to.next() else { return };
                let seen = [seen_z, seen_y, x.seen(at_x)];
                let factor = 1.0 / divisor(self.grid, [at_z, at_y, at_x], seen, with_borders) as f32;
                to.iter_mut().for_each(|to| *to = scale(*to, factor));
            }
        }
    }
}

/// Some taps of a stretch of places in a line.
#[inline(always)]
fn stretch<T: Copy>(
    combine: &impl Fn(T, T) -> T,
    line: &[T],
    to: &mut [T],
    each: usize,
    (first, end): (usize, usize),
    (tap, end_tap): (usize, usize),
    x: &Extent,
) {
    let from = line.get(x.at(first, tap) * each..).unwrap_or(&[]);
    let to = to.get_mut(first * each..end * each).unwrap_or(&mut []);
    let (step, taps) = (x.stride * each, (end_tap - tap, x.dilation * each));
    match each {
        1 => fixed::<T, 1>(combine, from, to, step, taps),
        2 => fixed::<T, 2>(combine, from, to, step, taps),
        4 => fixed::<T, 4>(combine, from, to, step, taps),
        _ => {
            for (place, to) in to.chunks_exact_mut(each).enumerate() {
                for tap in 0..taps.0 {
                    let from = from.get(place * step + tap * taps.1..).unwrap_or(&[]);
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = combine(*to, *from));
                }
            }
        }
    }
}

/// [`stretch`] of places that have `E` values: they stay in registers for all taps.
#[inline(always)]
fn fixed<T: Copy, const E: usize>(
    combine: &impl Fn(T, T) -> T,
    from: &[T],
    to: &mut [T],
    step: usize,
    (taps, apart): (usize, usize),
) {
    let reach = (taps - 1) * apart + E;
    for (place, to) in to.as_chunks_mut::<E>().0.iter_mut().enumerate() {
        let Some(seen) = from.get(place * step..place * step + reach) else { return };
        let mut values = *to;
        let mut take = |from: Option<&[T; E]>| {
            let from = from.into_iter().flatten();
            values.iter_mut().zip(from).for_each(|(to, from)| *to = combine(*to, *from));
        };
        // Most windows are of two.
        if taps == 2 {
            take(seen.first_chunk());
            take(seen.last_chunk());
        } else {
            seen.chunks(apart).for_each(|from| take(from.first_chunk()));
        }
        *to = values;
    }
}

fn places(z: &Extent, y: &Extent) -> impl Iterator<Item = (usize, usize)> {
    let high = y.output;
    (0..z.output).flat_map(move |at_z| (0..high).map(move |at_y| (at_z, at_y)))
}

/// How many taps a mean is of.
#[inline(always)]
pub(super) fn divisor(grid: &Grid, at: [usize; 3], seen: [(usize, usize); 3], with_borders: bool) -> usize {
    let mut taps = 1;
    for ((extent, at), (first, end)) in grid.iter().zip(at).zip(seen) {
        taps *= if with_borders {
            // Taps behind the border are not counted.
            let room = (extent.input + extent.before + extent.after).saturating_sub(at * extent.stride);
            extent.kernel.min(room.div_ceil(extent.dilation))
        } else {
            end.saturating_sub(first)
        };
    }
    taps
}
