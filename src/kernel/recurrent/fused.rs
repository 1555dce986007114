//! The step of an LSTM, or of a GRU that resets after the product, with the activations that
//! everybody uses: the gates of a few units are computed beside each other, and become the next
//! state before they leave the cache.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::kernel::standard::tile::{PANEL, Sums, accumulate, load, store};
use crate::kernel::standard::vector::{gated_tanh_one, sigmoid_one, tanh_one};

/// The weights of the state, units beside each other and for these all gates.
#[derive(Debug)]
pub(super) struct Interleaved {
    arch: Arch,
    kind: Kind,
    hidden: usize,
    /// For each block of units, for each gate: row by row.
    panels: Vec<[f32; PANEL]>,
    /// The bias of the candidate of a GRU, block by block: the one that the reset gate works on.
    late: Vec<f32>,
}

/// A cell that there is such a step for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Lstm,
    Gru,
}

impl Kind {
    pub(super) const fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

impl Interleaved {
    /// `weight` is that of a gate's unit for one of the state's, `late` the bias of a unit's candidate.
    pub(super) fn new(
        kind: Kind,
        hidden: usize,
        weight: impl Fn(usize, usize, usize) -> f32,
        late: impl Fn(usize) -> f32,
    ) -> Self {
        let blocks = hidden.div_ceil(PANEL);
        let mut panels = Vec::with_capacity(blocks * kind.gates() * hidden);
        for block in 0..blocks {
            for gate in 0..kind.gates() {
                for row in 0..hidden {
                    panels.push(std::array::from_fn(|lane| {
                        let unit = block * PANEL + lane;
                        if unit < hidden { weight(gate, unit, row) } else { 0.0 }
                    }));
                }
            }
        }
        let late = (0..blocks * PANEL).map(|unit| if unit < hidden { late(unit) } else { 0.0 }).collect();
        Self { arch: Arch::new(), kind, hidden, panels, late }
    }

    /// The values of a state, with those that fill the last block up.
    pub(super) const fn width(&self) -> usize {
        self.hidden.div_ceil(PANEL) * PANEL
    }

    /// Which gate's unit a column of the projected input belongs to; `None` where it fills up.
    pub(super) const fn column(kind: Kind, hidden: usize, column: usize) -> Option<(usize, usize)> {
        let each = kind.gates() * PANEL;
        let (block, gate, lane) = (column / each, column % each / PANEL, column % PANEL);
        let unit = block * PANEL + lane;
        if unit < hidden { Some((gate, unit)) } else { None }
    }

    /// One step of all sequences, of which `h` and `c` are the states and `next` becomes the next.
    /// `row` is the projected input of a sequence at this step, nothing where it has ended.
    pub(super) fn step<'r>(
        &self,
        row: impl Fn(usize) -> Option<&'r [f32]>,
        h: &[f32],
        next: &mut [f32],
        c: &mut [f32],
    ) {
        self.arch.dispatch(Step { weights: self, row, h, next, c });
    }

    pub(super) fn memory(&self) -> usize {
        (self.panels.len() * PANEL + self.late.len()) * size_of::<f32>()
    }
}

/// [`Interleaved::step`], to be compiled for each instruction set.
struct Step<'a, F> {
    weights: &'a Interleaved,
    row: F,
    h: &'a [f32],
    next: &'a mut [f32],
    c: &'a mut [f32],
}

impl<'r, F: Fn(usize) -> Option<&'r [f32]>> WithSimd for Step<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (PANEL / S::F32_LANES, self.weights.kind) {
            (1, Kind::Lstm) => self.all::<S, 4, 4, 1>(simd),
            (2, Kind::Lstm) => self.all::<S, 1, 4, 2>(simd),
            (4, Kind::Lstm) => self.all::<S, 1, 4, 4>(simd),
            (_, Kind::Lstm) => self.all::<S, 1, 4, PANEL>(simd),
            (1, Kind::Gru) => self.all::<S, 4, 3, 1>(simd),
            (2, Kind::Gru) => self.all::<S, 2, 3, 2>(simd),
            (4, Kind::Gru) => self.all::<S, 1, 3, 4>(simd),
            (_, Kind::Gru) => self.all::<S, 1, 3, PANEL>(simd),
        }
    }
}

impl<'r, F: Fn(usize) -> Option<&'r [f32]>> Step<'_, F> {
    /// `R` sequences at a time; the `G` gates of a block of units are the panels.
    #[inline(always)]
    fn all<S: Simd, const R: usize, const G: usize, const V: usize>(mut self, simd: S) {
        let width = self.weights.width();
        let count = self.h.len() / width;
        let mut sequence = 0;
        while sequence < count {
            let rows: [Option<&[f32]>; R] =
                std::array::from_fn(|r| if sequence + r < count { (self.row)(sequence + r) } else { None });
            if rows.iter().all(Option::is_some) {
                let rows = rows.map(|r| r.unwrap_or(&[]));
                self.rows::<S, R, G, V>(simd, sequence, rows);
                sequence += R;
                continue;
            }
            match (self.row)(sequence) {
                Some(row) => self.rows::<S, 1, G, V>(simd, sequence, [row]),
                // An ended sequence keeps its state.
                None => {
                    let range = sequence * width..(sequence + 1) * width;
                    if let (Some(to), Some(from)) = (self.next.get_mut(range.clone()), self.h.get(range)) {
                        to.copy_from_slice(from);
                    }
                }
            }
            sequence += 1;
        }
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "constant bounds")]
    #[expect(clippy::needless_range_loop, reason = "one index for several arrays; constant, so they unroll")]
    fn rows<S: Simd, const R: usize, const G: usize, const V: usize>(
        &mut self,
        simd: S,
        sequence: usize,
        rows: [&[f32]; R],
    ) {
        let Interleaved { hidden, panels, late, .. } = self.weights;
        let (hidden, width) = (*hidden, self.weights.width());
        let x: [&[f32]; R] = std::array::from_fn(|r| {
            let from = (sequence + r) * width;
            self.h.get(from..from + hidden).unwrap_or(&[])
        });
        for block in 0..width / PANEL {
            let gates: [&[[f32; PANEL]]; G] = std::array::from_fn(|g| {
                let from = (block * G + g) * hidden;
                panels.get(from..from + hidden).unwrap_or(&[])
            });
            let mut sums: Sums<S, R, G, V> = [[[simd.splat_f32s(0.0); V]; G]; R];
            for r in 0..R {
                for g in 0..G {
                    for v in 0..V {
                        let lane = v * S::F32_LANES;
                        // The candidate of a GRU gets its input behind the reset gate.
                        let from = if G == 3 && g == 2 {
                            late.get(block * PANEL + lane..)
                        } else {
                            rows[r].get((block * G + g) * PANEL + lane..)
                        };
                        let from = from.unwrap_or(&[]);
                        sums[r][g][v] = load(simd, from.get(..S::F32_LANES).unwrap_or(from));
                    }
                }
            }
            let sums = accumulate::<S, R, G, V>(simd, x, gates, sums);
            for r in 0..R {
                let mut values = [[0.0; PANEL]; G];
                for g in 0..G {
                    for v in 0..V {
                        let lane = v * S::F32_LANES;
                        store(simd, &mut values[g][lane..lane + S::F32_LANES], sums[r][g][v]);
                    }
                }
                let at = (sequence + r) * width + block * PANEL;
                let range = at..at + PANEL;
                let Some(next) = block_of_mut(self.next, range.clone()) else { continue };
                if G == 4 {
                    let Some(c) = block_of_mut(self.c, range) else { continue };
                    lstm(&values, c, next);
                } else {
                    let candidate = (block * G + 2) * PANEL;
                    let candidate = block_of(rows[r], candidate..candidate + PANEL);
                    let (Some(candidate), Some(h)) = (candidate, block_of(self.h, range)) else { continue };
                    gru(&values, candidate, h, next);
                }
            }
        }
    }
}

fn block_of(values: &[f32], range: Range<usize>) -> Option<&[f32; PANEL]> {
    values.get(range)?.try_into().ok()
}

fn block_of_mut(values: &mut [f32], range: Range<usize>) -> Option<&mut [f32; PANEL]> {
    values.get_mut(range)?.try_into().ok()
}

/// `gates` are those of the input, output and forget gates and of the candidate.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds")]
fn lstm<const G: usize>(gates: &[[f32; PANEL]; G], c: &mut [f32; PANEL], h: &mut [f32; PANEL]) {
    for i in 0..PANEL {
        c[i] = c[i].mul_add(sigmoid_one(gates[2][i]), gated_tanh_one(gates[3][i], gates[0][i]));
    }
    for i in 0..PANEL {
        h[i] = gated_tanh_one(c[i], gates[1][i]);
    }
}

/// `gates` are those of the update and reset gates, and what the state adds to the candidate.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds")]
fn gru<const G: usize>(
    gates: &[[f32; PANEL]; G],
    candidate: &[f32; PANEL],
    h: &[f32; PANEL],
    next: &mut [f32; PANEL],
) {
    for i in 0..PANEL {
        let update = sigmoid_one(gates[0][i]);
        let new = tanh_one(sigmoid_one(gates[1][i]).mul_add(gates[2][i], candidate[i]));
        next[i] = (1.0 - update) * new + update * h[i];
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::recurrent::build;
    use crate::kernel::{Attribute, Attributes, Node, RunContext};
    use crate::tensor::Tensor;

    const WIDTH: usize = 4;
    const STEPS: usize = 3;

    fn tensor(dims: &[usize], seed: usize) -> Tensor {
        let value = |i: usize| ((i * 31 + seed * 17) % 29) as f32 * 0.07 - 1.0;
        Tensor::new(dims, (0..dims.iter().product()).map(value).collect::<Vec<_>>()).unwrap()
    }

    /// All outputs; with a clip that never clips nothing is fused.
    fn outputs(operator: &str, gates: usize, hidden: usize, batch: usize, fused: bool) -> Vec<Tensor> {
        let mut attributes = Attributes::default();
        attributes.insert("hidden_size", Attribute::Int(hidden as i64));
        attributes.insert("direction", Attribute::String("bidirectional".into()));
        attributes.insert("linear_before_reset", Attribute::Int(1));
        if !fused {
            attributes.insert("clip", Attribute::Float(1e9));
        }
        let x = tensor(&[STEPS, batch, WIDTH], 1);
        let w = tensor(&[2, gates * hidden, WIDTH], 2);
        let r = tensor(&[2, gates * hidden, hidden], 3);
        let b = tensor(&[2, 2 * gates * hidden], 4);
        let lengths = Tensor::vector((0..4_i32).cycle().take(batch).collect::<Vec<_>>());
        let h = tensor(&[2, batch, hidden], 5);
        let inputs = [Some(None), Some(Some(&w)), Some(Some(&r)), Some(Some(&b)), Some(None), Some(None)];
        let outputs = if gates == 4 { 3 } else { 2 };
        let node =
            Node { operator, domain: "", version: 14, attributes: &attributes, inputs: &inputs, outputs };
        let kernel = build(&node).unwrap();
        let mut out = vec![Tensor::default(); outputs];
        let given = [Some(x.view()), None, None, None, Some(lengths.view()), Some(h.view())];
        kernel.run(&given, &mut out, &RunContext::default()).unwrap();
        out
    }

    #[test]
    fn steps_with_their_gates_in_registers_are_those_of_any_activations() {
        for (operator, gates) in [("LSTM", 4), ("GRU", 3)] {
            for (hidden, batch) in [(5, 1), (16, 5), (33, 9)] {
                let all = outputs(operator, gates, hidden, batch, true);
                let others = outputs(operator, gates, hidden, batch, false);
                for (got, want) in all.iter().zip(&others) {
                    assert_eq!(got.dims(), want.dims());
                    let pairs = got.values::<f32>().unwrap().iter().zip(want.values::<f32>().unwrap());
                    for (got, want) in pairs {
                        assert!((got - want).abs() < 2e-6, "{operator} {hidden} {batch}: {got} {want}");
                    }
                }
            }
        }
    }
}
