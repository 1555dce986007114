//! The products of a [`Dense`] layer, in vector registers.

use pulp::{Simd, WithSimd};

use super::dense::{Dense, Weights};
use super::tile::{PANEL, Sums, accumulate, load, store};

/// The rows and the depth that are worked on at a time, so that they stay in the second-level cache.
const ROW_BLOCK: usize = 128;
const DEPTH_BLOCK: usize = 512;

/// The work of one run, to be compiled for each instruction set.
pub(super) struct Multiply<'a> {
    pub(super) layer: &'a Dense,
    pub(super) x: &'a [f32],
    pub(super) to: &'a mut [f32],
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, x, to } = self;
        let (depth, columns) = (layer.depth, layer.columns);
        if columns == 0 {
            return;
        }
        let rows = to.len() / columns;
        if depth == 0 {
            for to in to.chunks_exact_mut(columns) {
                to.iter_mut().zip(&layer.bias).for_each(|(to, b)| *to = *b);
            }
            layer.activation.apply(to);
            return;
        }
        for block in 0..rows.div_ceil(ROW_BLOCK) {
            let (from, end) = (block * ROW_BLOCK, rows.min((block + 1) * ROW_BLOCK));
            let x = x.get(from * depth..end * depth).unwrap_or(&[]);
            let to = to.get_mut(from * columns..end * columns).unwrap_or(&mut []);
            match &layer.weights {
                Weights::Planned => {}
                Weights::Columns(weights) => dots(simd, weights, &layer.bias, depth, x, to),
                Weights::Panels(panels) => match PANEL / S::F32_LANES {
                    1 => by_panels::<S, 8, 2, 1>(simd, panels, layer, x, to),
                    2 => by_panels::<S, 4, 1, 2>(simd, panels, layer, x, to),
                    4 => by_panels::<S, 4, 1, 4>(simd, panels, layer, x, to),
                    _ => plain(panels, layer, x, to),
                },
            }
            let is_done = matches!(layer.weights, Weights::Panels(_)) && layer.activation.is_short();
            if !is_done {
                layer.activation.apply(to);
            }
        }
    }
}

/// Each result is a sum of products along a row and a column.
#[inline(always)]
fn dots<S: Simd>(simd: S, weights: &[f32], bias: &[f32], depth: usize, x: &[f32], to: &mut [f32]) {
    for (to, row) in to.chunks_exact_mut(bias.len()).zip(x.chunks_exact(depth)) {
        for ((to, column), bias) in to.iter_mut().zip(weights.chunks_exact(depth)).zip(bias) {
            let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(row), S::as_simd_f32s(column));
            let mut sums = [simd.splat_f32s(0.0); 2];
            for (a, b) in a.chunks(2).zip(b.chunks(2)) {
                for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                    *sum = simd.mul_add_e_f32s(*a, *b, *sum);
                }
            }
            let [mut first, second] = sums;
            if !a_rest.is_empty() {
                let (a, b) = (simd.partial_load_f32s(a_rest), simd.partial_load_f32s(b_rest));
                first = simd.mul_add_e_f32s(a, b, first);
            }
            *to = bias + simd.reduce_sum_f32s(simd.add_f32s(first, second));
        }
    }
}

/// `R` rows times `P` panels, each `V` registers wide, at a time; a row that is left alone goes
/// through four panels at once, so that there are enough sums under way.
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
    let block = |panel: usize, from: usize, end: usize| {
        panels.get(panel * depth + from..panel * depth + end).unwrap_or(&[])
    };
    let count = columns.div_ceil(PANEL);
    for start in (0..depth).step_by(DEPTH_BLOCK) {
        let end = depth.min(start + DEPTH_BLOCK);
        let mut cell = Cell { simd, layer, x, range: (start, end), to: &mut *to };
        let full = rows - rows % R;
        for panel in (0..count - count % P).step_by(P) {
            let several = std::array::from_fn::<_, P, _>(|i| block(panel + i, start, end));
            for row in (0..full).step_by(R) {
                cell.compute::<R, P, V>(row, panel, several);
            }
        }
        for panel in count - count % P..count {
            for row in (0..full).step_by(R) {
                cell.compute::<R, 1, V>(row, panel, [block(panel, start, end)]);
            }
        }
        for row in full..rows {
            let mut panel = 0;
            while panel + 4 <= count {
                let four = std::array::from_fn::<_, 4, _>(|i| block(panel + i, start, end));
                cell.compute::<1, 4, V>(row, panel, four);
                panel += 4;
            }
            while panel + 2 <= count {
                cell.compute::<1, 2, V>(row, panel, [block(panel, start, end), block(panel + 1, start, end)]);
                panel += 2;
            }
            if panel < count {
                cell.compute::<1, 1, V>(row, panel, [block(panel, start, end)]);
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
        let x: [&[f32]; R] = std::array::from_fn(|r| {
            let start = (row + r) * depth + self.range.0;
            &self.x[start..start + deep]
        });
        let mut sums: Sums<S, R, P, V> = [[[simd.splat_f32s(0.0); V]; P]; R];
        for r in 0..R {
            for p in 0..P {
                let column = (panel + p) * PANEL;
                for v in 0..V {
                    let at = column + v * S::F32_LANES;
                    // Sums begin with the bias, then with what is there.
                    sums[r][p][v] = if self.range.0 == 0 {
                        load(simd, &layer.bias[at..at + S::F32_LANES])
                    } else {
                        let end = columns.min(at + S::F32_LANES).max(at);
                        let line = (row + r) * columns;
                        load(simd, self.to.get(line + at..line + end).unwrap_or(&[]))
                    };
                }
            }
        }
        let sums = accumulate::<S, R, P, V>(simd, x, panels, sums);
        let is_last = self.range.1 == depth;
        for r in 0..R {
            let line = &mut self.to[(row + r) * columns..(row + r + 1) * columns];
            for p in 0..P {
                for v in 0..V {
                    let at = (panel + p) * PANEL + v * S::F32_LANES;
                    let end = line.len().min(at + S::F32_LANES);
                    if at < end {
                        let sums = sums[r][p][v];
                        let sums = if is_last { layer.activation.of_register(simd, sums) } else { sums };
                        store(simd, &mut line[at..end], sums);
                    }
                }
            }
        }
    }
}

/// For processors without vector registers.
fn plain(panels: &[[f32; PANEL]], layer: &Dense, x: &[f32], to: &mut [f32]) {
    for (line, x) in to.chunks_exact_mut(layer.columns).zip(x.chunks_exact(layer.depth)) {
        let sums = line.chunks_mut(PANEL).zip(panels.chunks_exact(layer.depth)).zip(layer.bias.chunks(PANEL));
        for ((to, panel), bias) in sums {
            to.iter_mut().zip(bias).for_each(|(to, b)| *to = *b);
            for (x, weights) in x.iter().zip(panel) {
                to.iter_mut().zip(weights).for_each(|(to, w)| *to += x * w);
            }
        }
    }
    if layer.activation.is_short() {
        layer.activation.apply(to);
    }
}
