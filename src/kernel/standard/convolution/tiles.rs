//! Windows of 3 by 3 that move by one element, tile by tile: four places of the window are made of
//! sixteen products where one by one they take thirty-six.
//!
//! Winograd's F(2x2, 3x3), as Lavin and Gray have it in "Fast Algorithms for Convolutional Neural
//! Networks" (<https://arxiv.org/abs/1509.09308>): tiles of 4 by 4 elements and the weights are
//! transformed by sums and differences, multiplied element by element, and the sums over the
//! channels are transformed to 2 by 2 results.
//!
//! Differences of what a tile sees make all four of its results NaN where one element is NaN or infinite.

use pulp::Simd;

use super::image::Source;
use super::product::Target;
use super::reduce::larger;
use super::weights::{Packed, Shape};
use super::window::{Extent, Grid, Window};
use crate::kernel::aligned::Aligned;
use crate::kernel::standard::tile::{PANEL, Sums, accumulate, load, store};

/// The elements of a tile, and so the tables of weights.
const PRODUCTS: usize = 16;
/// The elements along one axis of a tile.
const SIDE: usize = 4;

/// With fewer channels, or results that fill one panel only, the transforms cost more than they save:
/// 16 to 16 channels take a tenth longer than place by place, 16 to 32 an eighth less, 32 to 32 a quarter less.
const FEWEST: usize = 16;
/// Transformed weights are 16 ninths as large: with more of them, they would have to come from far away.
const MOST: usize = 256 * 256;

/// True where a convolution is worked on in tiles.
pub(super) fn are_for(window: &Window, shape: &Shape) -> bool {
    let Shape { groups, depth, columns, .. } = *shape;
    groups == 1 && depth >= FEWEST && columns > PANEL && depth * columns <= MOST && window.is_plain_3_by_3()
}

/// The weights `G g G'` of each of [`PRODUCTS`], panel by panel and in that by channel. `weight` is
/// given a column, a channel and a tap.
pub(super) fn transform(shape: &Shape, weight: impl Fn(usize, usize, usize) -> f32) -> Aligned {
    let (depth, columns, panels) = (shape.depth, shape.columns, shape.group_panels());
    let mut to = Aligned::zeroed(PRODUCTS * panels * depth * PANEL);
    for column in 0..columns {
        for channel in 0..depth {
            let taps: [f32; 9] = std::array::from_fn(|tap| weight(column, channel, tap));
            let (lines, _) = taps.as_chunks::<3>();
            // Down the columns, then along the lines.
            let mut half = [[0.0; 3]; SIDE];
            if let [a, b, c] = lines {
                for x in 0..3 {
                    let column = weights_of([a, b, c].map(|line| line.get(x).copied().unwrap_or(0.0)));
                    half.iter_mut()
                        .zip(column)
                        .for_each(|(to, v)| to.get_mut(x).into_iter().for_each(|to| *to = v));
                }
            }
            for (product, value) in half.iter().flat_map(|line| weights_of(*line)).enumerate() {
                let row = (product * panels + column / PANEL) * depth + channel;
                let lane = to.registers_mut().get_mut(row).and_then(|row| row.get_mut(column % PANEL));
                lane.into_iter().for_each(|to| *to = value);
            }
        }
    }
    to
}

/// `G g`.
fn weights_of([a, b, c]: [f32; 3]) -> [f32; SIDE] {
    [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c]
}

/// How many tiles are worked on together: few stay in the first-level cache, more save reading
/// large weights again.
fn tiles_at_once(shape: &Shape) -> usize {
    let weights = PRODUCTS * shape.depth * shape.columns * size_of::<f32>();
    if weights > 512 << 10 { 32 } else { 8 }
}

/// The numbers that one image needs to be worked on.
pub(super) fn workspace(shape: &Shape) -> usize {
    PRODUCTS * tiles_at_once(shape) * (shape.depth + 2 * PANEL)
}

/// True where each window of a pooling sees the four results of one tile.
pub(super) fn are_pooled(pooled: &Grid) -> bool {
    let [plane, axes @ ..] = pooled;
    let is_pair = |e: &Extent| {
        (e.kernel, e.stride, e.dilation, e.before) == (2, 2, 1, 0) && e.output.checked_mul(2) == Some(e.input)
    };
    (plane.input, plane.kernel, plane.output) == (1, 1, 1) && axes.iter().all(is_pair)
}

/// One image. Its sides are read up to a whole number of tiles. With `is_pooled` the result is the
/// largest of each tile.
#[inline(always)]
pub(super) fn convolve<S: Simd>(
    simd: S,
    shape: &Shape,
    packed: &Packed,
    grid: &Grid,
    source: Source<'_>,
    (workspace, is_pooled): (&mut [f32], bool),
    target: &mut Target<'_>,
) {
    let (wide, high) = (grid[2].output.div_ceil(2), grid[1].output.div_ceil(2));
    let at_once = tiles_at_once(shape);
    let (seen, sums) = workspace.split_at_mut(PRODUCTS * at_once * shape.depth);
    let mut job = Job { simd, shape, packed, grid, source, wide, at_once, is_pooled, seen, sums };
    for first in (0..wide * high).step_by(at_once) {
        job.tiles(first, at_once.min(wide * high - first), target);
    }
}

/// What all tiles of one image have in common.
struct Job<'a, S> {
    simd: S,
    shape: &'a Shape,
    packed: &'a Packed,
    grid: &'a Grid,
    source: Source<'a>,
    /// The tiles of a line.
    wide: usize,
    at_once: usize,
    is_pooled: bool,
    /// For each product, for each tile: all channels.
    seen: &'a mut [f32],
    /// For each product, for each tile: one or two panels.
    sums: &'a mut [f32],
}

impl<S: Simd> Job<'_, S> {
    #[inline(always)]
    fn tiles(&mut self, first: usize, count: usize, target: &mut Target<'_>) {
        for tile in 0..count {
            self.look(tile, first + tile);
        }
        let panels = self.shape.group_panels();
        let mut panel = 0;
        while panel < panels {
            // With narrow registers the sums of one panel fill them.
            match PANEL / S::F32_LANES {
                1 if panel + 2 <= panels => self.panels::<8, 2, 1>(panel, first, count, target),
                1 => self.panels::<8, 1, 1>(panel, first, count, target),
                2 => self.panels::<4, 1, 2>(panel, first, count, target),
                4 => self.panels::<4, 1, 4>(panel, first, count, target),
                _ => self.panels::<1, 1, PANEL>(panel, first, count, target),
            }
            panel += if PANEL == S::F32_LANES { 2 } else { 1 };
        }
    }

    /// Transforms one tile of the image: `B' d B`.
    #[inline(always)]
    fn look(&mut self, slot: usize, tile: usize) {
        let (simd, depth) = (self.simd, self.shape.depth);
        let pitch = self.source.pitch[2];
        let corner = (tile / self.wide * pitch + tile % self.wide) * 2;
        for channel in (0..depth).step_by(S::F32_LANES) {
            let end = depth.min(channel + S::F32_LANES);
            let mut d = [[simd.splat_f32s(0.0); SIDE]; SIDE];
            for (y, line) in d.iter_mut().enumerate() {
                for (x, to) in line.iter_mut().enumerate() {
                    let place = (corner + y * pitch + x) * depth;
                    *to = load(simd, self.source.values.get(place + channel..place + end).unwrap_or(&[]));
                }
            }
            let fold = |[a, b, c, e]: [S::f32s; SIDE]| {
                [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, e)]
            };
            let [mut first, mut second, mut third, mut last] = d;
            let columns = first.iter_mut().zip(&mut second).zip(third.iter_mut().zip(&mut last));
            for ((a, b), (c, e)) in columns {
                [*a, *b, *c, *e] = fold([*a, *b, *c, *e]);
            }
            for (y, line) in [first, second, third, last].into_iter().enumerate() {
                for (x, value) in fold(line).into_iter().enumerate() {
                    let to = ((y * SIDE + x) * self.at_once + slot) * depth;
                    store(simd, self.seen.get_mut(to + channel..to + end).unwrap_or(&mut []), value);
                }
            }
        }
    }

    /// The results of `P` panels, of `R` tiles at a time.
    #[inline(always)]
    fn panels<const R: usize, const P: usize, const V: usize>(
        &mut self,
        panel: usize,
        first: usize,
        count: usize,
        target: &mut Target<'_>,
    ) {
        for product in 0..PRODUCTS {
            let mut slot = 0;
            while slot + R <= count {
                self.multiply::<R, P, V>(product, panel, slot);
                slot += R;
            }
            while slot < count {
                self.multiply::<1, P, V>(product, panel, slot);
                slot += 1;
            }
        }
        for slot in 0..count {
            for p in 0..P {
                for v in 0..V {
                    self.finish(slot, first + slot, (p * V + v, P * V), panel * PANEL, target);
                }
            }
        }
    }

    /// The sums over the channels, of one product of `R` tiles and `P` panels.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds")]
    #[expect(clippy::needless_range_loop, reason = "one index for several arrays; constant, so they unroll")]
    fn multiply<const R: usize, const P: usize, const V: usize>(
        &mut self,
        product: usize,
        panel: usize,
        slot: usize,
    ) {
        let (simd, depth) = (self.simd, self.shape.depth);
        let mut x = [[].as_slice(); R];
        for r in 0..R {
            let from = (product * self.at_once + slot + r) * depth;
            x[r] = self.seen.get(from..from + depth).unwrap_or(&[]);
        }
        let mut weights = [[].as_slice(); P];
        for p in 0..P {
            weights[p] = self.packed.rows(product * self.shape.group_panels() + panel + p, depth);
        }
        let zeros: Sums<S, R, P, V> = [[[simd.splat_f32s(0.0); V]; P]; R];
        let sums = accumulate::<S, R, P, V>(simd, x, weights, zeros);
        let each = P * PANEL;
        for r in 0..R {
            let from = (product * self.at_once + slot + r) * each;
            let to = self.sums.get_mut(from..from + each).unwrap_or(&mut []);
            let (to, _) = S::as_mut_simd_f32s(to);
            let sums = sums[r].as_flattened();
            for (to, sum) in to.iter_mut().zip(sums) {
                *to = *sum;
            }
        }
    }

    /// Transforms the sums of one tile to its results, `A' m A`: one register of `registers`.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds")]
    fn finish(
        &mut self,
        slot: usize,
        tile: usize,
        (register, registers): (usize, usize),
        first_column: usize,
        target: &mut Target<'_>,
    ) {
        let simd = self.simd;
        let column = first_column + register * S::F32_LANES;
        let columns = self.shape.columns;
        let end = columns.min(column + S::F32_LANES);
        if column >= end {
            return;
        }
        let (sums, _) = S::as_simd_f32s(self.sums);
        let mut m = [[simd.splat_f32s(0.0); SIDE]; SIDE];
        for (y, line) in m.iter_mut().enumerate() {
            for (x, to) in line.iter_mut().enumerate() {
                let at = ((y * SIDE + x) * self.at_once + slot) * registers + register;
                if let Some(sum) = sums.get(at) {
                    *to = *sum;
                }
            }
        }
        let bias = load(simd, self.packed.bias.get(column..column + S::F32_LANES).unwrap_or(&[]));
        let fold = |a, b, c, e| {
            let (sum, difference) = (simd.add_f32s(b, c), simd.sub_f32s(b, c));
            [simd.add_f32s(a, sum), simd.sub_f32s(difference, e)]
        };
        let mut half = [[simd.splat_f32s(0.0); SIDE]; 2];
        for x in 0..SIDE {
            [half[0][x], half[1][x]] = fold(m[0][x], m[1][x], m[2][x], m[3][x]);
        }
        let mut results = [[bias; 2]; 2];
        for (to, [a, b, c, e]) in results.iter_mut().zip(half) {
            let [first, second] = fold(a, b, c, e);
            *to = [simd.add_f32s(first, bias), simd.add_f32s(second, bias)];
        }
        if self.is_pooled {
            let [[a, b], [c, e]] = results;
            let largest = larger(simd, larger(simd, a, b), larger(simd, c, e));
            let place = tile * columns;
            target.write::<S, 1, 1, 1>(simd, (place + column, place + end, columns), [[[largest]]]);
            return;
        }
        let (at_y, at_x) = (tile / self.wide * 2, tile % self.wide * 2);
        for (y, line) in results.into_iter().enumerate() {
            for (x, value) in line.into_iter().enumerate() {
                if at_y + y < self.grid[1].output && at_x + x < self.grid[2].output {
                    let place = ((at_y + y) * self.grid[2].output + at_x + x) * columns;
                    target.write::<S, 1, 1, 1>(simd, (place + column, place + end, columns), [[[value]]]);
                }
            }
        }
    }
}
