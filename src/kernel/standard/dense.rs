//! A layer: a table of `f32` times constant weights, plus a bias, through an activation.

use pulp::{Arch, Simd, WithSimd};
use smallvec::SmallVec;

use super::support::{Args, Dims, Facts, Run, like};
use super::vector;
use crate::kernel::{BuildError, Fact, FactDim, Kernel, RunContext};
use crate::tensor::{ElementType, Tensor, TensorView};

/// The columns that are computed together; zeros fill the last ones up.
const PANEL: usize = 16;
/// The rows and the depth that are worked on at a time, so that they stay in the second-level cache.
const ROW_BLOCK: usize = 128;
const DEPTH_BLOCK: usize = 512;
/// With so few columns each is a sum along the row, not a part of a panel.
const MAX_DOT_COLUMNS: usize = 4;

/// `activation(x W + b)` with `W` and `b` laid out for the vector registers when it is made.
#[derive(Debug)]
pub(crate) struct Dense {
    operator: &'static str,
    arch: Arch,
    depth: usize,
    columns: usize,
    weights: Weights,
    /// As long as the weights have columns, with those that fill up.
    bias: Vec<f32>,
    activation: Activation,
    /// The inputs that are in the weights and the bias.
    absorbed: SmallVec<[usize; 2]>,
}

#[derive(Debug)]
enum Weights {
    /// Panel by panel, each row by row of the weights.
    Panels(Vec<[f32; PANEL]>),
    /// Column by column.
    Columns(Vec<f32>),
}

/// What becomes of each element at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Activation {
    None,
    Relu,
    LeakyRelu(f32),
    Sigmoid,
    Tanh,
}

impl Dense {
    /// A layer of weights that a function gives by row and column. `absorbed` are the inputs of the
    /// node that are held here, so that they need not be given.
    pub(crate) fn new(
        operator: &'static str,
        (depth, columns): (usize, usize),
        weight: impl Fn(usize, usize) -> f32,
        absorbed: &[usize],
    ) -> Self {
        let (weights, width) = if columns <= MAX_DOT_COLUMNS {
            let by_column = (0..columns).flat_map(|c| (0..depth).map(move |r| (r, c)));
            (Weights::Columns(by_column.map(|(r, c)| weight(r, c)).collect()), columns)
        } else {
            let panels = columns.div_ceil(PANEL);
            let row = |panel: usize, r: usize| {
                std::array::from_fn(|i| {
                    let column = panel * PANEL + i;
                    if column < columns { weight(r, column) } else { 0.0 }
                })
            };
            let rows = (0..panels).flat_map(|p| (0..depth).map(move |r| (p, r)));
            (Weights::Panels(rows.map(|(p, r)| row(p, r)).collect()), panels * PANEL)
        };
        let (bias, activation) = (vec![0.0; width], Activation::None);
        let absorbed = absorbed.into();
        Self { operator, arch: Arch::new(), depth, columns, weights, bias, activation, absorbed }
    }

    /// The columns that it gives.
    pub(crate) const fn columns(&self) -> usize {
        self.columns
    }

    /// Adds to the bias: one value for all columns, or one each.
    pub(crate) fn add_bias(&mut self, bias: &[f32], factor: f32) {
        let all = if let [one] = bias { *one } else { 0.0 };
        for (i, to) in self.bias.iter_mut().take(self.columns).enumerate() {
            *to += factor * if bias.len() == 1 { all } else { bias.get(i).copied().unwrap_or(0.0) };
        }
    }

    /// The same with an activation behind it.
    pub(crate) fn activate(&mut self, activation: Activation) {
        self.activation = activation;
    }

    pub(crate) const fn activation(&self) -> Activation {
        self.activation
    }
}

impl Kernel for Dense {
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let args = Args { operator: self.operator, inputs };
        let (input, x) = (args.get(0)?, args.values::<f32>(0)?);
        let (Some((depth, lead)), [to, ..]) = (input.dims().split_last(), outputs) else {
            return Err(args.fail("a table"));
        };
        if *depth != self.depth {
            let (expected, found) = (self.depth, *depth);
            return Err(crate::load::RunError::Width { operator: self.operator, expected, found });
        }
        let mut dims = Dims::from_slice(lead);
        dims.push(self.columns);
        let to = cx.reset::<f32>(to, &dims)?;
        self.arch.dispatch(Multiply { layer: self, x, to });
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        let mut dims = like(inputs, 0);
        if let Some(last) = dims.as_mut().and_then(|d| d.last_mut()) {
            if matches!(*last, FactDim::Fixed(n) if n != self.depth) {
                return Err(BuildError::invalid(format!(
                    "weights of {} rows for {last:?} values",
                    self.depth
                )));
            }
            *last = FactDim::Fixed(self.columns);
        }
        super::support::one(ElementType::F32, dims)
    }

    fn absorbs(&self, input: usize) -> bool {
        self.absorbed.contains(&input)
    }

    fn memory(&self) -> usize {
        let weights = match &self.weights {
            Weights::Panels(panels) => panels.len() * PANEL,
            Weights::Columns(columns) => columns.len(),
        };
        (weights + self.bias.len()) * size_of::<f32>()
    }
}

/// The work of one run, to be compiled for each instruction set.
struct Multiply<'a> {
    layer: &'a Dense,
    x: &'a [f32],
    to: &'a mut [f32],
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
            activate(to, layer.activation);
            return;
        }
        for block in 0..rows.div_ceil(ROW_BLOCK) {
            let (from, end) = (block * ROW_BLOCK, rows.min((block + 1) * ROW_BLOCK));
            let x = x.get(from * depth..end * depth).unwrap_or(&[]);
            let to = to.get_mut(from * columns..end * columns).unwrap_or(&mut []);
            match &layer.weights {
                Weights::Columns(weights) => dots(simd, weights, &layer.bias, depth, x, to),
                Weights::Panels(panels) => match PANEL / S::F32_LANES {
                    1 => by_panels::<S, 8, 2, 1>(simd, panels, &layer.bias, (depth, columns), x, to),
                    2 => by_panels::<S, 4, 1, 2>(simd, panels, &layer.bias, (depth, columns), x, to),
                    4 => by_panels::<S, 4, 1, 4>(simd, panels, &layer.bias, (depth, columns), x, to),
                    _ => plain(panels, &layer.bias, (depth, columns), x, to),
                },
            }
            activate(to, layer.activation);
        }
    }
}

#[inline(always)]
fn activate(values: &mut [f32], activation: Activation) {
    match activation {
        Activation::None => {}
        Activation::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::LeakyRelu(slope) => each(values, |x| if x < 0.0 { x * slope } else { x }),
        Activation::Sigmoid => each(values, vector::sigmoid_one),
        Activation::Tanh => each(values, vector::tanh_one),
    }
}

#[inline(always)]
fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in values {
        *x = f(*x);
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
    bias: &[f32],
    (depth, columns): (usize, usize),
    x: &[f32],
    to: &mut [f32],
) {
    let rows = to.len() / columns;
    let block = |panel: usize, from: usize, end: usize| {
        panels.get(panel * depth + from..panel * depth + end).unwrap_or(&[])
    };
    let count = columns.div_ceil(PANEL);
    for start in (0..depth).step_by(DEPTH_BLOCK) {
        let end = depth.min(start + DEPTH_BLOCK);
        let mut cell =
            Cell { simd, bias, columns, first: start == 0, x, depth, range: (start, end), to: &mut *to };
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
    bias: &'a [f32],
    columns: usize,
    /// Sums begin with the bias, then with what is there.
    first: bool,
    x: &'a [f32],
    depth: usize,
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
        let simd = self.simd;
        let deep = panels.iter().map(|p| p.len()).min().unwrap_or(0);
        let panels = panels.map(|p| &p[..deep]);
        let x: [&[f32]; R] = std::array::from_fn(|r| {
            let start = (row + r) * self.depth + self.range.0;
            &self.x[start..start + deep]
        });
        let mut sums = [[[simd.splat_f32s(0.0); V]; P]; R];
        for r in 0..R {
            for p in 0..P {
                let column = (panel + p) * PANEL;
                for v in 0..V {
                    let at = column + v * S::F32_LANES;
                    sums[r][p][v] = if self.first {
                        load(simd, &self.bias[at..at + S::F32_LANES])
                    } else {
                        let end = self.columns.min(at + S::F32_LANES).max(at);
                        let line = (row + r) * self.columns;
                        load(simd, self.to.get(line + at..line + end).unwrap_or(&[]))
                    };
                }
            }
        }
        for k in 0..deep {
            for p in 0..P {
                let (b, _) = S::as_simd_f32s(&panels[p][k]);
                for r in 0..R {
                    let a = simd.splat_f32s(x[r][k]);
                    for v in 0..V {
                        sums[r][p][v] = simd.mul_add_e_f32s(a, b[v], sums[r][p][v]);
                    }
                }
            }
        }
        for r in 0..R {
            let line = &mut self.to[(row + r) * self.columns..(row + r + 1) * self.columns];
            for p in 0..P {
                for v in 0..V {
                    let at = (panel + p) * PANEL + v * S::F32_LANES;
                    let end = line.len().min(at + S::F32_LANES);
                    if at < end {
                        store(simd, &mut line[at..end], sums[r][p][v]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn load<S: Simd>(simd: S, values: &[f32]) -> S::f32s {
    match S::as_simd_f32s(values) {
        ([all], _) => *all,
        _ => simd.partial_load_f32s(values),
    }
}

#[inline(always)]
fn store<S: Simd>(simd: S, to: &mut [f32], values: S::f32s) {
    if to.len() == S::F32_LANES {
        if let ([all], _) = S::as_mut_simd_f32s(to) {
            *all = values;
        }
    } else {
        simd.partial_store_f32s(to, values);
    }
}

/// For processors without vector registers.
fn plain(panels: &[[f32; PANEL]], bias: &[f32], (depth, columns): (usize, usize), x: &[f32], to: &mut [f32]) {
    for (to, x) in to.chunks_exact_mut(columns).zip(x.chunks_exact(depth)) {
        let sums = to.chunks_mut(PANEL).zip(panels.chunks_exact(depth)).zip(bias.chunks(PANEL));
        for ((to, panel), bias) in sums {
            to.iter_mut().zip(bias).for_each(|(to, b)| *to = *b);
            for (x, weights) in x.iter().zip(panel) {
                to.iter_mut().zip(weights).for_each(|(to, w)| *to += x * w);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(r: usize, c: usize) -> f32 {
        ((r * 7 + c * 13) % 11) as f32 * 0.25 - 1.0
    }

    fn input(i: usize) -> f32 {
        (i % 17) as f32 * 0.5 - 4.0
    }

    #[test]
    fn a_layer_of_any_size_is_the_plain_sum_of_products() {
        for (rows, depth, columns) in [
            (1, 30, 64),
            (7, 5, 3),
            (9, 33, 17),
            (8, 1, 16),
            (130, 7, 40),
            (3, 1030, 20),
            (2, 64, 1),
            (0, 4, 8),
            (1, 3, 81),
        ] {
            let mut layer = Dense::new("Gemm", (depth, columns), weight, &[]);
            let bias: Vec<f32> = (0..columns).map(|c| c as f32).collect();
            layer.add_bias(&bias, 1.0);
            let x = Tensor::new(&[rows, depth], (0..rows * depth).map(input).collect::<Vec<_>>()).unwrap();
            let mut out = [Tensor::default()];
            layer.run(&[Some(x.view())], &mut out, &RunContext::default()).unwrap();
            assert_eq!(out[0].dims(), [rows, columns]);
            for (i, got) in out[0].values::<f32>().unwrap().iter().enumerate() {
                let (r, c) = (i / columns, i % columns);
                let sum: f64 = (0..depth).map(|k| f64::from(input(r * depth + k) * weight(k, c))).sum();
                let want = sum + f64::from(bias[c]);
                assert!(
                    (f64::from(*got) - want).abs() < 1e-3,
                    "{rows}x{depth}x{columns} {r},{c}: {got} {want}"
                );
            }
        }
    }

    #[test]
    fn nan_goes_through_every_activation() {
        for activation in [
            Activation::Relu,
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::LeakyRelu(0.1),
            Activation::None,
        ] {
            let mut layer = Dense::new("Gemm", (2, 20), weight, &[]);
            layer.activate(activation);
            let mut out = [Tensor::default()];
            let x = [f32::NAN, 1.0];
            layer.run(&[Some(TensorView::row(&x))], &mut out, &RunContext::default()).unwrap();
            assert!(out[0].values::<f32>().unwrap().iter().all(|v| v.is_nan()), "{activation:?}");
        }
    }
}
