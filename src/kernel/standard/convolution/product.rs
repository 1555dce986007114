//! The products of a convolution: each place of the window is a row of values that lie in a few
//! stretches of the image, and is multiplied with the panels of the weights as the rows of a layer are.

use pulp::Simd;
use smallvec::SmallVec;

use super::image::Source;
use super::weights::{Packed, Shape};
use super::window::{Grid, count};
use crate::kernel::standard::activation::Activation;
use crate::kernel::standard::tile::{PANEL, Sums, accumulate, load, store};

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
    target: &mut Target<'_>,
) {
    let taps = Taps::new(grid, source, shape);
    if shape.is_depthwise() {
        depthwise::<S, 8>(simd, packed, grid, source, &taps, target);
    } else {
        let job = Job { simd, shape, packed, grid, source, taps: &taps };
        for group in 0..shape.groups {
            match PANEL / S::F32_LANES {
                1 => job.group::<8, 2, 1>(group, target),
                2 => job.group::<4, 1, 2>(group, target),
                4 => job.group::<4, 1, 4>(group, target),
                _ => job.group::<1, 1, PANEL>(group, target),
            }
        }
    }
    if !target.activation.is_short() {
        target.activation.apply(target.values);
    }
}

/// Where the stretches of values that one place of the window sees begin, beside its first value.
struct Taps {
    starts: SmallVec<[usize; 64]>,
    length: usize,
}

impl Taps {
    fn new(grid: &Grid, source: Source<'_>, shape: &Shape) -> Self {
        let [z, y, x] = *grid;
        let [_, high, wide] = source.pitch;
        // Values of neighbouring taps lie beside each other where nothing is between them.
        let is_joined = shape.groups == 1 && x.dilation == 1;
        let (steps, length) = if is_joined { (1, x.kernel * shape.depth) } else { (x.kernel, shape.depth) };
        let mut starts = SmallVec::with_capacity(z.kernel * y.kernel * steps);
        for at_z in 0..z.kernel {
            for at_y in 0..y.kernel {
                for at_x in 0..steps {
                    let line = at_z * z.dilation * high + at_y * y.dilation;
                    starts.push((line * wide + at_x * x.dilation) * source.channels);
                }
            }
        }
        Self { starts, length }
    }
}

/// Where the first value lies that the window sees at each of its places, one after the other.
struct Places {
    at: usize,
    line: usize,
    plane: usize,
    x: usize,
    y: usize,
    counts: [usize; 2],
    steps: [usize; 3],
}

impl Places {
    fn new(grid: &Grid, source: Source<'_>) -> Self {
        let [z, y, x] = *grid;
        let [_, high, wide] = source.pitch;
        let steps = [z.stride * high * wide, y.stride * wide, x.stride].map(|s| s * source.channels);
        Self { at: 0, line: 0, plane: 0, x: 0, y: 0, counts: [y.output, x.output], steps }
    }

    #[inline(always)]
    fn next(&mut self) -> usize {
        let found = self.at;
        self.at += self.steps[2];
        self.x += 1;
        if self.x == self.counts[1] {
            self.x = 0;
            self.y += 1;
            self.line += self.steps[1];
            if self.y == self.counts[0] {
                self.y = 0;
                self.plane += self.steps[0];
                self.line = self.plane;
            }
            self.at = self.line;
        }
        found
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
        while panel + P <= panels {
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
    fn strip<const R: usize, const P: usize, const V: usize>(
        &self,
        group: usize,
        panel: usize,
        target: &mut Target<'_>,
    ) {
        let places = count(self.grid, |e| e.output);
        let mut at = Places::new(self.grid, self.source);
        let mut place = 0;
        while place + R <= places {
            self.block::<R, P, V>(group, panel, place, &mut at, target);
            place += R;
        }
        if R > 4 && place + 4 <= places {
            self.block::<4, P, V>(group, panel, place, &mut at, target);
            place += 4;
        }
        if R > 2 && place + 2 <= places {
            self.block::<2, P, V>(group, panel, place, &mut at, target);
            place += 2;
        }
        while place < places {
            self.block::<1, P, V>(group, panel, place, &mut at, target);
            place += 1;
        }
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds")]
    #[expect(clippy::needless_range_loop, reason = "one index for several arrays; constant, so they unroll")]
    fn block<const R: usize, const P: usize, const V: usize>(
        &self,
        group: usize,
        panel: usize,
        place: usize,
        at: &mut Places,
        target: &mut Target<'_>,
    ) {
        let (simd, shape, taps) = (self.simd, self.shape, self.taps);
        let bases: [usize; R] = std::array::from_fn(|_| at.next() + group * shape.depth);
        let first = group * shape.group_panels() + panel;
        let panels: [&[[f32; PANEL]]; P] = std::array::from_fn(|p| self.packed.panel(shape, first + p));
        let mut sums: Sums<S, R, P, V> = [[[simd.splat_f32s(0.0); V]; P]; R];
        for p in 0..P {
            for v in 0..V {
                let from = (first + p) * PANEL + v * S::F32_LANES;
                let bias = load(simd, self.packed.bias.get(from..from + S::F32_LANES).unwrap_or(&[]));
                for r in 0..R {
                    sums[r][p][v] = bias;
                }
            }
        }
        let length = taps.length;
        for (index, start) in taps.starts.iter().enumerate() {
            let x = bases.map(|base| {
                let from = base + start;
                self.source.values.get(from..from + length).unwrap_or(&[])
            });
            let weights = panels.map(|p| p.get(index * length..(index + 1) * length).unwrap_or(&[]));
            sums = accumulate::<S, R, P, V>(simd, x, weights, sums);
        }
        for r in 0..R {
            let line = (place + r) * shape.columns + group * shape.group_columns();
            for p in 0..P {
                for v in 0..V {
                    let column = (panel + p) * PANEL + v * S::F32_LANES;
                    let end = shape.group_columns().min(column + S::F32_LANES);
                    if column < end {
                        target.write(simd, line + column..line + end, sums[r][p][v]);
                    }
                }
            }
        }
    }
}

impl Target<'_> {
    /// Writes the results of a few channels of one place.
    #[inline(always)]
    fn write<S: Simd>(&mut self, simd: S, range: std::ops::Range<usize>, mut sums: S::f32s) {
        if let Some(addend) = self.addend {
            sums = simd.add_f32s(sums, load(simd, addend.get(range.clone()).unwrap_or(&[])));
        }
        let sums = self.activation.of_register(simd, sums);
        store(simd, self.values.get_mut(range).unwrap_or(&mut []), sums);
    }
}

/// Each channel by itself: `R` places at a time.
#[inline(always)]
fn depthwise<S: Simd, const R: usize>(
    simd: S,
    packed: &Packed,
    grid: &Grid,
    source: Source<'_>,
    taps: &Taps,
    target: &mut Target<'_>,
) {
    let places = count(grid, |e| e.output);
    let mut at = Places::new(grid, source);
    let mut place = 0;
    while place + R <= places {
        channels::<S, R>(simd, packed, source, taps, &mut at, place, target);
        place += R;
    }
    while place < places {
        channels::<S, 1>(simd, packed, source, taps, &mut at, place, target);
        place += 1;
    }
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds")]
#[expect(clippy::needless_range_loop, reason = "one index for several arrays; constant, so they unroll")]
fn channels<S: Simd, const R: usize>(
    simd: S,
    packed: &Packed,
    source: Source<'_>,
    taps: &Taps,
    at: &mut Places,
    place: usize,
    target: &mut Target<'_>,
) {
    let bases: [usize; R] = std::array::from_fn(|_| at.next());
    let channels = source.channels;
    for channel in (0..channels).step_by(S::F32_LANES) {
        let end = channels.min(channel + S::F32_LANES);
        let mut sums = [load(simd, packed.bias.get(channel..end).unwrap_or(&[])); R];
        for (start, weights) in taps.starts.iter().zip(packed.by_channel.chunks_exact(channels)) {
            let weights = load(simd, weights.get(channel..end).unwrap_or(&[]));
            for r in 0..R {
                let from = bases[r] + start;
                let x = load(simd, source.values.get(from + channel..from + end).unwrap_or(&[]));
                sums[r] = simd.mul_add_e_f32s(x, weights, sums[r]);
            }
        }
        for r in 0..R {
            let line = (place + r) * channels;
            target.write(simd, line + channel..line + end, sums[r]);
        }
    }
}
