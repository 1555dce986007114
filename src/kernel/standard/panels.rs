//! The products of a [`Dense`] layer, in vector registers.

use pulp::{Simd, WithSimd};

use super::dense::{Dense, Weights};
use super::tile::{PANEL, Sums, accumulate, load, store};
use crate::background;

/// The rows that are worked on at a time, so that what is read of them stays in a cache.
const ROW_BLOCK: usize = 256;

/// The rows of a run that are worked on together.
pub(super) struct Multiply<'a> {
    pub(super) layer: &'a Dense,
    pub(super) x: &'a [f32],
    pub(super) to: &'a mut [f32],
}

impl Multiply<'_> {
    /// All rows, block by block, with their activation.
    pub(super) fn run(self) {
        let Self { layer, x, to } = self;
        let Dense { depth, columns, arch, activation, .. } = *layer;
        if columns == 0 {
            return;
        }
        if depth == 0 {
            for to in to.chunks_exact_mut(columns) {
                to.iter_mut().zip(&layer.bias).for_each(|(to, b)| *to = *b);
            }
            activation.apply(arch, to);
            return;
        }
        for (x, to) in x.chunks(ROW_BLOCK * depth).zip(to.chunks_mut(ROW_BLOCK * columns)) {
            match &layer.weights {
                Weights::Planned => {}
                Weights::Columns(weights) => {
                    arch.dispatch(Dots { weights, bias: &layer.bias, depth, x, to });
                    activation.apply(arch, to);
                }
                Weights::Panels(_) => {
                    arch.dispatch(Multiply { layer, x, to });
                    activation.finish(arch, to);
                }
            }
        }
    }
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, x, to } = self;
        let Weights::Panels(panels) = &layer.weights else { return };
        let panels = panels.registers();
        match PANEL / S::F32_LANES {
            1 => by_panels::<S, 8, 2, 1>(simd, panels, layer, x, to),
            2 => by_panels::<S, 4, 1, 2>(simd, panels, layer, x, to),
            4 => by_panels::<S, 4, 1, 4>(simd, panels, layer, x, to),
            _ => plain(panels, layer, x, to),
        }
    }
}

/// Each result is a sum of products along a row and a column.
struct Dots<'a> {
    weights: &'a [f32],
    bias: &'a [f32],
    depth: usize,
    x: &'a [f32],
    to: &'a mut [f32],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weights, bias, depth, x, to } = self;
        /// So many rows at a time: none waits for the sum of the one before.
        const ROWS: usize = 4;
        let columns = bias.len();
        let (blocks, rest) = to.split_at_mut(to.len() - to.len() % (ROWS * columns));
        let (x, x_rest) = x.split_at_checked(blocks.len() / columns * depth).unwrap_or((&[], &[]));
        for (to, x) in blocks.chunks_exact_mut(ROWS * columns).zip(x.chunks_exact(ROWS * depth)) {
            dots_of::<S, ROWS>(simd, weights, bias, depth, x, to);
        }
        for (to, x) in rest.chunks_exact_mut(columns).zip(x_rest.chunks_exact(depth)) {
            dots_of::<S, 1>(simd, weights, bias, depth, x, to);
        }
    }
}

/// [`Dots`] of `R` rows.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds, or slices cut to the length of the loop")]
fn dots_of<S: Simd, const R: usize>(
    simd: S,
    weights: &[f32],
    bias: &[f32],
    depth: usize,
    x: &[f32],
    to: &mut [f32],
) {
    let deep = depth / S::F32_LANES;
    let mut rows = [([].as_slice(), [].as_slice()); R];
    for r in 0..R {
        let (registers, rest) = S::as_simd_f32s(&x[r * depth..(r + 1) * depth]);
        rows[r] = (&registers[..deep], rest);
    }
    for (index, (column, bias)) in weights.chunks_exact(depth).zip(bias).enumerate() {
        let (column, column_rest) = S::as_simd_f32s(column);
        let column = &column[..deep];
        // Two sums a row, in registers: an array that is picked from would lie in memory.
        let zero = simd.splat_f32s(0.0);
        let (mut even, mut odd) = ([zero; R], [zero; R]);
        for k in 0..deep / 2 {
            for r in 0..R {
                even[r] = simd.mul_add_e_f32s(rows[r].0[2 * k], column[2 * k], even[r]);
                odd[r] = simd.mul_add_e_f32s(rows[r].0[2 * k + 1], column[2 * k + 1], odd[r]);
            }
        }
        if deep % 2 == 1 {
            for r in 0..R {
                even[r] = simd.mul_add_e_f32s(rows[r].0[deep - 1], column[deep - 1], even[r]);
            }
        }
        if !column_rest.is_empty() {
            let column = simd.partial_load_f32s(column_rest);
            for r in 0..R {
                odd[r] = simd.mul_add_e_f32s(simd.partial_load_f32s(rows[r].1), column, odd[r]);
            }
        }
        for r in 0..R {
            if let Some(to) = to.get_mut(r * (to.len() / R) + index) {
                *to = bias + simd.reduce_sum_f32s(simd.add_f32s(even[r], odd[r]));
            }
        }
    }
}

/// `R` rows times `P` panels, each `V` registers wide, at a time. A row that is left alone goes through
/// eight panels at once, so that enough sums are under way; but where the weights come from memory
/// through one after the other, which is the order that they lie in: the processor then fetches them
/// ahead, and reads a fifth faster.
#[inline(always)]
fn by_panels<S: Simd, const R: usize, const P: usize, const V: usize>(
    simd: S,
    panels: &[[f32; PANEL]],
    layer: &Dense,
    x: &[f32],
    to: &mut [f32],
) {
    let (depth, columns) = (layer.depth, layer.columns);
    let rows = to.len() / columns;
    let count = columns.div_ceil(PANEL);
    for start in (0..depth).step_by(layer.block) {
        let end = depth.min(start + layer.block);
        if layer.is_large() {
            background::moved((end - start) * columns * size_of::<f32>());
        }
        let block = |panel: usize| {
            let at = start * count + panel * (end - start);
            panels.get(at..at + end - start).unwrap_or(&[])
        };
        let mut cell = Cell { simd, layer, x, range: (start, end), to: &mut *to };
        let full = rows - rows % R;
        for panel in (0..count - count % P).step_by(P) {
            let mut several = [[].as_slice(); P];
            for (i, to) in several.iter_mut().enumerate() {
                *to = block(panel + i);
            }
            for row in (0..full).step_by(R) {
                cell.compute::<R, P, V>(row, panel, several);
            }
        }
        for panel in count - count % P..count {
            for row in (0..full).step_by(R) {
                cell.compute::<R, 1, V>(row, panel, [block(panel)]);
            }
        }
        for row in full..rows {
            let mut panel = 0;
            let is_cached = !layer.is_large();
            while is_cached && panel + 8 <= count {
                let eight = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| block(panel + i));
                cell.compute::<1, 8, V>(row, panel, eight);
                panel += 8;
            }
            while is_cached && panel + 4 <= count {
                let [a, b, c, d] = [panel, panel + 1, panel + 2, panel + 3];
                let four = [block(a), block(b), block(c), block(d)];
                cell.compute::<1, 4, V>(row, panel, four);
                panel += 4;
            }
            while is_cached && panel + 2 <= count {
                cell.compute::<1, 2, V>(row, panel, [block(panel), block(panel + 1)]);
                panel += 2;
            }
            while panel < count {
                cell.compute::<1, 1, V>(row, panel, [block(panel)]);
                panel += 1;
            }
        }
    }
}

/// What the parts of a product have in common.
struct Cell<'a, S> {
    simd: S,
    layer: &'a Dense,
    x: &'a [f32],
    range: (usize, usize),
    to: &'a mut [f32],
}

impl<S: Simd> Cell<'_, S> {
    /// `R` rows times `P` panels.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds, or slices cut to the length of the loop")]
    #[expect(clippy::needless_range_loop, reason = "one index for several arrays; constant, so they unroll")]
    fn compute<const R: usize, const P: usize, const V: usize>(
        &mut self,
        row: usize,
        panel: usize,
        panels: [&[[f32; PANEL]]; P],
    ) {
        let (simd, layer) = (self.simd, self.layer);
        let (depth, columns) = (layer.depth, layer.columns);
        let deep = panels.iter().map(|p| p.len()).min().unwrap_or(0);
        let mut x = [[].as_slice(); R];
        for r in 0..R {
            let start = (row + r) * depth + self.range.0;
            x[r] = &self.x[start..start + deep];
        }
        let mut sums: Sums<S, R, P, V> = [[[simd.splat_f32s(0.0); V]; P]; R];
        // Sums begin with the bias, then with what is there.
        if self.range.0 == 0 {
            for p in 0..P {
                for v in 0..V {
                    let at = (panel + p) * PANEL + v * S::F32_LANES;
                    let bias = load(simd, &layer.bias[at..at + S::F32_LANES]);
                    for r in 0..R {
                        sums[r][p][v] = bias;
                    }
                }
            }
        } else {
            for r in 0..R {
                let line = &self.to[(row + r) * columns..(row + r + 1) * columns];
                for p in 0..P {
                    for v in 0..V {
                        let at = (panel + p) * PANEL + v * S::F32_LANES;
                        let end = columns.min(at + S::F32_LANES).max(at);
                        sums[r][p][v] = load(simd, line.get(at..end).unwrap_or(&[]));
                    }
                }
            }
        }
        let mut sums = accumulate::<S, R, P, V>(simd, x, panels, sums);
        if self.range.1 == depth {
            sums = layer.activation.of_sums::<S, R, P, V>(simd, sums);
        }
        let first = panel * PANEL;
        for r in 0..R {
            let line = &mut self.to[(row + r) * columns..(row + r + 1) * columns];
            if let Some(whole) = line.get_mut(first..first + P * PANEL) {
                let (to, _) = S::as_mut_simd_f32s(whole);
                for p in 0..P {
                    for v in 0..V {
                        to[p * V + v] = sums[r][p][v];
                    }
                }
                continue;
            }
            for p in 0..P {
                for v in 0..V {
                    let at = first + p * PANEL + v * S::F32_LANES;
                    let end = line.len().min(at + S::F32_LANES);
                    if at < end {
                        store(simd, &mut line[at..end], sums[r][p][v]);
                    }
                }
            }
        }
    }
}

/// For processors without vector registers.
fn plain(panels: &[[f32; PANEL]], layer: &Dense, x: &[f32], to: &mut [f32]) {
    let count = layer.columns.div_ceil(PANEL);
    for (line, x) in to.chunks_exact_mut(layer.columns).zip(x.chunks_exact(layer.depth)) {
        line.iter_mut().zip(&layer.bias).for_each(|(to, b)| *to = *b);
        for (block, x) in panels.chunks(count * layer.block).zip(x.chunks(layer.block)) {
            for (to, panel) in line.chunks_mut(PANEL).zip(block.chunks_exact(x.len())) {
                for (x, weights) in x.iter().zip(panel) {
                    to.iter_mut().zip(weights).for_each(|(to, w)| *to += x * w);
                }
            }
        }
    }
    if layer.activation.is_short() {
        layer.activation.apply(layer.arch, to);
    }
}
