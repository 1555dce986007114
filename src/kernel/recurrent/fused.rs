//! The step of an LSTM, or of a GRU that resets after the product, with the activations that
//! everybody uses: the gates of a few units are computed beside each other, and become the next
//! state before they leave the cache.

use pulp::{Arch, Simd, WithSimd};

use crate::kernel::aligned::Aligned;
use crate::kernel::standard::tile::{PANEL, Sums, accumulate};
use crate::kernel::standard::vector::{gated_tanh_one, sigmoid_one, tanh_one};

/// So many sequences at a time: what their gates are made of stays in the first-level cache.
const AT_ONCE: usize = 16;

/// The weights of the state, units beside each other and for these all gates.
#[derive(Debug)]
pub(super) struct Interleaved {
    arch: Arch,
    kind: Kind,
    hidden: usize,
    /// For each block of units, for each gate: row by row.
    panels: Aligned,
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
        let mut panels = Aligned::zeroed(blocks * kind.gates() * hidden * PANEL);
        let gates = (0..blocks).flat_map(|block| (0..kind.gates()).map(move |gate| (block, gate)));
        for ((block, gate), rows) in gates.zip(panels.registers_mut().chunks_exact_mut(hidden.max(1))) {
            for (row, to) in rows.iter_mut().enumerate() {
                *to = std::array::from_fn(|lane| {
                    let unit = block * PANEL + lane;
                    if unit < hidden { weight(gate, unit, row) } else { 0.0 }
                });
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
    /// `row` is the projected input of a sequence at this step, nothing where it has ended. `gates`
    /// is room to work in.
    pub(super) fn step<'r>(
        &self,
        row: impl Fn(usize) -> Option<&'r [f32]>,
        h: &[f32],
        next: &mut [f32],
        c: &mut [f32],
        gates: &mut Aligned,
    ) {
        let (width, each) = (self.width(), self.kind.gates() * self.width());
        if gates.len() != AT_ONCE * each {
            gates.reset(AT_ONCE * each);
        }
        let block = AT_ONCE * width;
        let states = h.chunks(block).zip(next.chunks_mut(block)).zip(c.chunks_mut(block));
        for (index, ((h, next), c)) in states.enumerate() {
            let row = |sequence: usize| row(index * AT_ONCE + sequence);
            self.arch.dispatch(Products { weights: self, row, h, to: &mut *gates });
            self.arch.dispatch(Cells { weights: self, row, gates: &*gates, h, next, c });
        }
    }

    pub(super) fn memory(&self) -> usize {
        (self.panels.len() + self.late.len()) * size_of::<f32>()
    }
}

/// What the gates are the functions of: sums over the input and the state. A loop of its own, as the
/// functions' constants would take its registers.
struct Products<'a, F> {
    weights: &'a Interleaved,
    row: F,
    h: &'a [f32],
    /// Sequence by sequence, block by block of units, gate by gate.
    to: &'a mut [f32],
}

impl<'r, F: Fn(usize) -> Option<&'r [f32]>> WithSimd for Products<'_, F> {
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

impl<'r, F: Fn(usize) -> Option<&'r [f32]>> Products<'_, F> {
    /// `R` sequences at a time; the `G` gates of a block of units are the panels.
    #[inline(always)]
    fn all<S: Simd, const R: usize, const G: usize, const V: usize>(mut self, simd: S) {
        let count = self.h.len() / self.weights.width();
        let mut sequence = 0;
        while sequence < count {
            let (mut rows, mut are_all) = ([[].as_slice(); R], true);
            for (r, to) in rows.iter_mut().enumerate() {
                let row = if sequence + r < count { (self.row)(sequence + r) } else { None };
                are_all &= row.is_some();
                *to = row.unwrap_or(&[]);
            }
            if are_all {
                self.rows::<S, R, G, V>(simd, sequence, rows);
                sequence += R;
                continue;
            }
            if !rows[0].is_empty() {
                self.rows::<S, 1, G, V>(simd, sequence, [rows[0]]);
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
        let mut x = [[].as_slice(); R];
        for r in 0..R {
            let from = (sequence + r) * width;
            x[r] = self.h.get(from..from + hidden).unwrap_or(&[]);
        }
        let (late, _) = late.as_chunks::<PANEL>();
        let mut given = [[].as_slice(); R];
        for r in 0..R {
            (given[r], _) = rows[r].as_chunks::<PANEL>().0.as_chunks::<G>();
        }
        for (block, late) in late.iter().enumerate() {
            let mut gates = [[].as_slice(); G];
            for g in 0..G {
                let from = (block * G + g) * hidden;
                gates[g] = panels.registers().get(from..from + hidden).unwrap_or(&[]);
            }
            let mut sums: Sums<S, R, G, V> = [[[simd.splat_f32s(0.0); V]; G]; R];
            for r in 0..R {
                let Some(given) = given[r].get(block) else { return };
                for g in 0..G {
                    // The candidate of a GRU gets its input behind the reset gate.
                    let from = if G == 3 && g == 2 { late } else { &given[g] };
                    let (from, _) = S::as_simd_f32s(from);
                    let Some(from) = from.first_chunk() else { return };
                    sums[r][g] = *from;
                }
            }
            let sums = accumulate::<S, R, G, V>(simd, x, gates, sums);
            for r in 0..R {
                let from = ((sequence + r) * width + block * PANEL) * G;
                let Some(to) = self.to.get_mut(from..from + G * PANEL) else { return };
                let (to, _) = S::as_mut_simd_f32s(to);
                for g in 0..G {
                    for v in 0..V {
                        to[g * V + v] = sums[r][g][v];
                    }
                }
            }
        }
    }
}

/// The next states, out of the sums.
struct Cells<'a, F> {
    weights: &'a Interleaved,
    row: F,
    gates: &'a [f32],
    h: &'a [f32],
    next: &'a mut [f32],
    c: &'a mut [f32],
}

impl<'r, F: Fn(usize) -> Option<&'r [f32]>> WithSimd for Cells<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        match self.weights.kind {
            Kind::Lstm => self.all::<4>(),
            Kind::Gru => self.all::<3>(),
        }
    }
}

impl<'r, F: Fn(usize) -> Option<&'r [f32]>> Cells<'_, F> {
    #[inline(always)]
    fn all<const G: usize>(self) {
        let width = self.weights.width();
        let (gates, _) = self.gates.as_chunks::<PANEL>();
        let (gates, _) = gates.as_chunks::<G>();
        let sequences = gates.chunks_exact(width / PANEL).zip(self.h.chunks_exact(width));
        let states = self.next.chunks_exact_mut(width).zip(self.c.chunks_exact_mut(width));
        for (sequence, ((gates, h), (next, c))) in sequences.zip(states).enumerate() {
            let Some(row) = (self.row)(sequence) else {
                // An ended sequence keeps its state.
                next.copy_from_slice(h);
                continue;
            };
            let blocks = next.as_chunks_mut().0.iter_mut().zip(c.as_chunks_mut().0).zip(h.as_chunks().0);
            let rows = row.as_chunks::<PANEL>().0.chunks_exact(G);
            for ((gates, row), ((next, c), h)) in gates.iter().zip(rows).zip(blocks) {
                let cell = Cell { row, h, next, c };
                if G == 4 { lstm(gates, cell) } else { gru(gates, cell) }
            }
        }
    }
}

/// A block of units of one sequence.
struct Cell<'a> {
    /// What the input gives to each gate.
    row: &'a [[f32; PANEL]],
    h: &'a [f32; PANEL],
    next: &'a mut [f32; PANEL],
    c: &'a mut [f32; PANEL],
}

/// `gates` are those of the input, output and forget gates and of the candidate.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds")]
fn lstm<const G: usize>(gates: &[[f32; PANEL]; G], Cell { next, c, .. }: Cell<'_>) {
    for i in 0..PANEL {
        c[i] = c[i].mul_add(sigmoid_one(gates[2][i]), gated_tanh_one(gates[3][i], gates[0][i]));
    }
    for i in 0..PANEL {
        next[i] = gated_tanh_one(c[i], gates[1][i]);
    }
}

/// `gates` are those of the update and reset gates, and what the state adds to the candidate.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds")]
fn gru<const G: usize>(gates: &[[f32; PANEL]; G], Cell { row, h, next, .. }: Cell<'_>) {
    let [.., candidate] = row else { return };
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
