//! A layer: a table of `f32` times constant weights, plus a bias, through an activation.

use std::ops::Range;

use pulp::Arch;
use smallvec::SmallVec;

use super::activation::Activation;
use super::given_weights::{GIVE_BACK, GivenWeights};
use super::panels::Multiply;
use super::support::{Args, Dims, Facts, Run, like};
use super::tile::PANEL;
use crate::kernel::aligned::Aligned;
use crate::kernel::{BuildError, Fact, FactDim, Kernel, RunContext};
use crate::memory;
use crate::tensor::{ElementType, Tensor, TensorView};

/// With so few columns each is a sum along the row, not a part of a panel.
const MAX_DOT_COLUMNS: usize = 4;

/// The most rows of weights that are worked on at a time, so that what is read of the input stays in
/// a cache, while a panel of weights is long enough to be read in one go.
const BLOCK_ROWS: usize = 2048;
/// From so many weights on they lie in large pages, which are there in full as soon as one number is
/// written. So they are laid out in this many blocks or more, one after the other, and what a block
/// takes is all that the layer is larger meanwhile.
const LARGE: usize = memory::HUGE / size_of::<f32>();
const BLOCKS: usize = 8;
/// Fewer rows would make little of what is read of a panel.
const SHORTEST: usize = 128;
/// How many rows of weights are laid out at a time, so that what is written stays in the cache.
const ROWS_AT_ONCE: usize = 64;

/// `activation(x W + b)` with `W` and `b` laid out for the vector registers when it is made.
#[derive(Debug)]
pub(crate) struct Dense {
    operator: &'static str,
    pub(super) arch: Arch,
    pub(super) depth: usize,
    pub(super) columns: usize,
    /// How many rows of weights are a block; the last one may have fewer.
    pub(super) block: usize,
    pub(super) weights: Weights,
    /// As long as the weights have columns, with those that fill up.
    pub(super) bias: Vec<f32>,
    pub(super) activation: Activation,
    /// The inputs that are in the weights and the bias.
    absorbed: SmallVec<[usize; 2]>,
}

#[derive(Debug)]
pub(super) enum Weights {
    /// Not laid out yet: a layer that only tells its facts.
    Planned,
    /// Block by block of the rows; in a block panel by panel of the columns, each row by row.
    Panels(Aligned),
    /// Column by column.
    Columns(Vec<f32>),
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
            let blocks = blocks(depth, columns);
            let rows =
                blocks.flat_map(|rows| (0..panels).flat_map(move |p| rows.clone().map(move |r| (p, r))));
            let rows = Aligned::filled(panels * depth, rows.map(|(p, r)| row(p, r)));
            (Weights::Panels(rows), panels * PANEL)
        };
        Self {
            weights,
            bias: vec![0.0; width],
            absorbed: absorbed.into(),
            ..Self::planned(operator, (depth, columns))
        }
    }

    /// A layer of weights that lie row by row, or column by column where they are `transposed`.
    ///
    /// Their memory is given back while they are laid out.
    pub(crate) fn consuming(
        operator: &'static str,
        (depth, columns): (usize, usize),
        mut given: GivenWeights,
        (transposed, factor): (bool, f32),
        absorbed: &[usize],
    ) -> Self {
        if columns <= MAX_DOT_COLUMNS {
            let values = given.rest(0);
            let at = |r: usize, c: usize| if transposed { c * depth + r } else { r * columns + c };
            let weight = |r: usize, c: usize| factor * values.get(at(r, c)).copied().unwrap_or(0.0);
            return Self::new(operator, (depth, columns), weight, absorbed);
        }
        let panels = columns.div_ceil(PANEL);
        let mut laid_out = Aligned::zeroed(panels * depth * PANEL);
        let registers = laid_out.registers_mut();
        if transposed {
            for panel in (0..panels).rev() {
                let from = panel * PANEL * depth;
                let lanes = given.rest(from).chunks_exact(depth.max(1));
                for rows in blocks(depth, columns) {
                    let at = rows.start * panels + panel * rows.len();
                    let to = registers.get_mut(at..at + rows.len()).unwrap_or(&mut []);
                    for (few, to) in to.chunks_mut(ROWS_AT_ONCE).enumerate() {
                        for (lane, column) in lanes.clone().enumerate() {
                            let column = column.get(rows.start + few * ROWS_AT_ONCE..).unwrap_or(&[]);
                            for (to, weight) in to.iter_mut().zip(column) {
                                to.get_mut(lane).into_iter().for_each(|to| *to = factor * weight);
                            }
                        }
                    }
                }
            }
        } else {
            let few = (GIVE_BACK / (columns * size_of::<f32>()).max(1)).clamp(1, ROWS_AT_ONCE);
            for rows in blocks(depth, columns).rev() {
                let to = registers.get_mut(rows.start * panels..rows.end * panels).unwrap_or(&mut []);
                for start in (0..rows.len()).step_by(few).rev() {
                    let from = (rows.start + start) * columns;
                    let lines = given.rest(from);
                    for (panel, to) in to.chunks_exact_mut(rows.len()).enumerate() {
                        let to = to.get_mut(start..).unwrap_or(&mut []);
                        for (to, line) in to.iter_mut().zip(lines.chunks_exact(columns)) {
                            let line =
                                line.get(panel * PANEL..columns.min((panel + 1) * PANEL)).unwrap_or(&[]);
                            to.iter_mut().zip(line).for_each(|(to, weight)| *to = factor * weight);
                        }
                    }
                }
            }
        }
        let (weights, bias) = (Weights::Panels(laid_out), vec![0.0; panels * PANEL]);
        Self { weights, bias, absorbed: absorbed.into(), ..Self::planned(operator, (depth, columns)) }
    }

    /// A layer of this shape that cannot run yet: large weights are laid out once, when it is known
    /// what else goes into the layer.
    pub(crate) fn planned(operator: &'static str, (depth, columns): (usize, usize)) -> Self {
        let (bias, activation, absorbed) = (Vec::new(), Activation::None, SmallVec::new());
        let (weights, block) = (Weights::Planned, block_rows(depth, columns));
        Self { operator, arch: Arch::new(), depth, columns, block, weights, bias, activation, absorbed }
    }

    /// True where the weights do not fit in a cache.
    pub(super) const fn is_large(&self) -> bool {
        is_large(self.depth, self.columns)
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

const fn is_large(depth: usize, columns: usize) -> bool {
    depth.saturating_mul(columns) >= LARGE
}

fn block_rows(depth: usize, columns: usize) -> usize {
    if is_large(depth, columns) { (depth / BLOCKS).clamp(SHORTEST, BLOCK_ROWS) } else { BLOCK_ROWS }
}

/// The rows of weights, block by block.
fn blocks(depth: usize, columns: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    let rows = block_rows(depth, columns);
    (0..depth.div_ceil(rows)).map(move |block| block * rows..depth.min((block + 1) * rows))
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
        if matches!(self.weights, Weights::Planned) {
            return Err(args.fail("weights"));
        }
        let to = cx.reset::<f32>(to, &dims)?;
        Multiply { layer: self, x, to }.run();
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
            Weights::Panels(panels) => panels.len(),
            Weights::Columns(columns) => columns.len(),
            Weights::Planned => 0,
        };
        (weights + self.bias.len()) * size_of::<f32>()
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
            (9, 2100, 150),
            (1, 1030, 1025),
            (27, 1030, 1025),
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
    fn weights_that_are_consumed_make_the_same_layer_whichever_way_they_lie() {
        for (depth, columns) in [(5, 9), (70, 16), (1100, 33), (2500, 40), (1, 80), (300, 70_000)] {
            let laid_out = |layer: &Dense| match &layer.weights {
                Weights::Panels(panels) => panels.to_vec(),
                other => panic!("{other:?}"),
            };
            let want = laid_out(&Dense::new("Gemm", (depth, columns), |r, c| 2.0 * weight(r, c), &[]));
            let by_row: Vec<f32> = (0..depth * columns).map(|i| weight(i / columns, i % columns)).collect();
            let by_column: Vec<f32> = (0..depth * columns).map(|i| weight(i % depth, i / depth)).collect();
            for (values, transposed) in [(by_row, false), (by_column, true)] {
                let layer = Dense::consuming("Gemm", (depth, columns), values.into(), (transposed, 2.0), &[]);
                assert!(laid_out(&layer) == want, "{depth}x{columns}, transposed: {transposed}");
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
            Activation::Clip(0.0, 6.0),
            Activation::HardSwish,
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
