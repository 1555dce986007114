//! The products of a convolution: each place of the window is a row of values that lie in a few
//! stretches of the image, and is multiplied with the panels of the weights as the rows of a layer are.

use std::ops::Range;

use pulp::Simd;

use super::depthwise::depthwise;
use super::image::Source;
use super::taps::{Places, Taps};
use super::weights::{Packed, Shape};
use super::window::{Grid, count};
use crate::kernel::standard::activation::Activation;
use crate::kernel::standard::tile::{PANEL, Sums, accumulate, accumulate_at, accumulate_line, load, store};

/// Where the results go, all channels of a place beside each other.
pub(super) struct Target<'a> {
    pub(super) values: &'a mut [f32],
    /// What is added before the activation.
    pub(super) addend: Option<&'a [f32]>,
    pub(super) activation: Activation,
}

/// One image.
#[inline(always)]
pub(super) fn convolve<S: Simd>(
    simd: S,
    shape: &Shape,
    packed: &Packed,
    grid: &Grid,
    source: Source<'_>,
    taps: &Taps,
    target: &mut Target<'_>,
) {
    if shape.is_depthwise() {
        depthwise::<S, 8>(simd, packed, grid, source, taps, target);
    } else {
        let job = Job { simd, shape, packed, grid, source, taps };
        for group in 0..shape.groups {
            match PANEL / S::F32_LANES {
                1 => job.group::<8, 2, 1>(group, target),
                2 => job.group::<4, 1, 2>(group, target),
                4 => job.group::<4, 1, 4>(group, target),
                _ => job.group::<1, 1, PANEL>(group, target),
            }
        }
    }
}

/// What all parts of one image have in common.
struct Job<'a, S> {
    simd: S,
    shape: &'a Shape,
    packed: &'a Packed,
    grid: &'a Grid,
    source: Source<'a>,
    taps: &'a Taps,
}

impl<S: Simd> Job<'_, S> {
    /// The channels of one group: `R` places times `P` panels at a time.
    #[inline(always)]
    fn group<const R: usize, const P: usize, const V: usize>(&self, group: usize, target: &mut Target<'_>) {
        let panels = self.shape.group_panels();
        let mut panel = 0;
        // Short stretches are a loop that has registers for one panel.
        while self.taps.offsets.is_empty() && panel + P <= panels {
            self.strip::<R, P, V>(group, panel, target);
            panel += P;
        }
        while panel < panels {
            self.strip::<R, 1, V>(group, panel, target);
            panel += 1;
        }
    }

    /// All places, a few panels.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds")]
    fn strip<const R: usize, const P: usize, const V: usize>(
        &self,
        group: usize,
        panel: usize,
        target: &mut Target<'_>,
    ) {
        let (shape, places) = (self.shape, count(self.grid, |e| e.output));
        let first = group * shape.group_panels() + panel;
        let mut panels = [[].as_slice(); P];
        let mut bias = [[self.simd.splat_f32s(0.0); V]; P];
        for p in 0..P {
            panels[p] = self.packed.panel(shape, first + p);
            for (v, to) in bias[p].iter_mut().enumerate() {
                let from = (first + p) * PANEL + v * S::F32_LANES;
                let bias = self.packed.bias.get(from..from + S::F32_LANES);
                *to = load(self.simd, bias.unwrap_or(&[]));
            }
        }
        let line = group * shape.group_columns();
        let columns = line + panel * PANEL..line + shape.group_columns().min((panel + P) * PANEL);
        let strip = Strip { panels, bias, channel: group * shape.depth, columns };
        let mut at = Places::new(self.grid, self.source);
        let mut place = 0;
        while place + R <= places {
            self.block::<R, P, V>(&strip, place, &mut at, target);
            place += R;
        }
        if R > 4 && place + 4 <= places {
            self.block::<4, P, V>(&strip, place, &mut at, target);
            place += 4;
        }
        if R > 2 && place + 2 <= places {
            self.block::<2, P, V>(&strip, place, &mut at, target);
            place += 2;
        }
        while place < places {
            self.block::<1, P, V>(&strip, place, &mut at, target);
            place += 1;
        }
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds")]
    fn block<const R: usize, const P: usize, const V: usize>(
        &self,
        strip: &Strip<'_, S, P, V>,
        place: usize,
        at: &mut Places,
        target: &mut Target<'_>,
    ) {
        let (simd, taps, panels) = (self.simd, self.taps, strip.panels);
        let (bases, in_line) = at.several::<R>(strip.channel);
        let mut sums: Sums<S, R, P, V> = [strip.bias; R];
        if P > 1 || taps.offsets.is_empty() {
            let length = taps.length;
            for (index, start) in taps.starts.iter().enumerate() {
                let mut x = [[].as_slice(); R];
                for r in 0..R {
                    let from = bases[r] + start;
                    x[r] = self.source.values.get(from..from + length).unwrap_or(&[]);
                }
                let mut weights = [[].as_slice(); P];
                for p in 0..P {
                    weights[p] = panels[p].get(index * length..(index + 1) * length).unwrap_or(&[]);
                }
                sums = accumulate::<S, R, P, V>(simd, x, weights, sums);
            }
        } else {
            let span = taps.offsets.last().map_or(0, |last| last + 1);
            // What the places see of one tap is then in one piece, but for the very last ones.
            let piece = self.source.values.get(bases[0]..bases[0] + span - 1 + R * at.steps[2]);
            let offsets = &*taps.offsets;
            sums = match (piece.filter(|_| in_line), at.steps[2]) {
                (Some(x), 1) => accumulate_line::<S, R, P, V, 1>(simd, x, offsets, panels, sums),
                (Some(x), 2) => accumulate_line::<S, R, P, V, 2>(simd, x, offsets, panels, sums),
                (Some(x), 3) => accumulate_line::<S, R, P, V, 3>(simd, x, offsets, panels, sums),
                (Some(x), 6) => accumulate_line::<S, R, P, V, 6>(simd, x, offsets, panels, sums),
                _ => {
                    let mut x = [[].as_slice(); R];
                    for r in 0..R {
                        x[r] = self.source.values.get(bases[r]..bases[r] + span).unwrap_or(&[]);
                    }
                    accumulate_at::<S, R, P, V>(simd, x, offsets, panels, sums)
                }
            };
        }
        let line = place * self.shape.columns;
        let (from, end) = (line + strip.columns.start, line + strip.columns.end);
        target.write(simd, (from, end, self.shape.columns), sums);
    }
}

/// What all blocks of a few panels have in common.
struct Strip<'a, S: Simd, const P: usize, const V: usize> {
    panels: [&'a [[f32; PANEL]]; P],
    bias: [[S::f32s; V]; P],
    /// The first input channel.
    channel: usize,
    /// The output channels.
    columns: Range<usize>,
}

impl Target<'_> {
    /// Writes the results of some channels of `R` places: from the first to before the last, so far
    /// from one place to the next. The last registers may be more.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds, or slices as long as the registers")]
    #[expect(clippy::needless_range_loop, reason = "one index for several arrays; constant, so they unroll")]
    pub(super) fn write<S: Simd, const R: usize, const P: usize, const V: usize>(
        &mut self,
        simd: S,
        (from, end, step): (usize, usize, usize),
        mut sums: Sums<S, R, P, V>,
    ) {
        if let Some(addend) = self.addend {
            for r in 0..R {
                for p in 0..P {
                    for v in 0..V {
                        let at = from + r * step + (p * V + v) * S::F32_LANES;
                        let last = (end + r * step).min(at + S::F32_LANES);
                        let addend = load(simd, addend.get(at..last).unwrap_or(&[]));
                        sums[r][p][v] = simd.add_f32s(sums[r][p][v], addend);
                    }
                }
            }
        }
        let sums = self.activation.of_sums::<S, R, P, V>(simd, sums);
        let is_whole = end - from == P * V * S::F32_LANES;
        for r in 0..R {
            let to = self.values.get_mut(from + r * step..end + r * step).unwrap_or(&mut []);
            if is_whole {
                let (to, _) = S::as_mut_simd_f32s(to);
                if to.len() == P * V {
                    for p in 0..P {
                        for v in 0..V {
                            to[p * V + v] = sums[r][p][v];
                        }
                    }
                }
            } else {
                for (to, sum) in to.chunks_mut(S::F32_LANES).zip(sums[r].as_flattened()) {
                    store(simd, to, *sum);
                }
            }
        }
    }
}
