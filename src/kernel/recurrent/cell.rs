//! One time step of the three kinds of cells.

use super::activation::Activation;
use super::parameters::{Parameters, State};
use crate::kernel::aligned::Aligned;
use crate::kernel::standard::dense::Dense;
use crate::kernel::{Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{Tensor, TensorView};

/// A kind of recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Lstm,
    /// `reset_after`: the reset gate works on the product of the state, not on the state.
    Gru {
        reset_after: bool,
    },
    Rnn,
}

impl Cell {
    /// How many blocks of `hidden` rows the weights have.
    pub(super) const fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
            Self::Rnn => 1,
        }
    }

    /// The activations where the node names none.
    pub(super) const fn activations(self) -> &'static [Activation] {
        match self {
            Self::Lstm => &[Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
            Self::Gru { .. } => &[Activation::Sigmoid, Activation::Tanh],
            Self::Rnn => &[Activation::Tanh],
        }
    }
}

/// What applies to every step of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) activations: [Activation; 3],
    pub(super) clip: Option<f32>,
    /// The forget gate of an LSTM is what its input gate leaves.
    pub(super) couple: bool,
}

/// The states of all sequences of one direction, and room to compute the next.
#[derive(Debug, Default)]
pub(super) struct States {
    /// `[batch, state_width]`.
    pub(super) h: Aligned,
    pub(super) c: Aligned,
    next: Aligned,
    open: Aligned,
    products: Tensor,
    gated: Aligned,
    gated_products: Tensor,
    sums: Vec<f32>,
    gates: Vec<f32>,
}

impl States {
    /// All states zero.
    pub(super) fn clear(&mut self, batch: usize, parameters: &Parameters) {
        let (width, gates) = (parameters.state_width(), parameters.cell.gates());
        for state in [&mut self.h, &mut self.c, &mut self.gated, &mut self.next] {
            state.reset(batch * width);
        }
        self.sums.resize(gates * width, 0.0);
        self.gates.resize((gates + 1) * width, 0.0);
    }

    /// The next states. `row` is, for each sequence, its part of the projected input at this step,
    /// or nothing where the sequence has ended.
    pub(super) fn step<'a>(
        &mut self,
        parameters: &Parameters,
        rules: Rules,
        row: impl Fn(usize) -> Option<&'a [f32]> + Copy,
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let hidden = parameters.hidden;
        let table = match &parameters.state {
            State::Table(table) => table,
            State::Interleaved(weights) => {
                weights.step(row, &self.h, &mut self.next, &mut self.c, &mut self.open);
                std::mem::swap(&mut self.h, &mut self.next);
                return Ok(());
            }
        };
        let rows = (0..self.h.len() / hidden).map(row);
        multiply(table, &self.h, hidden, &mut self.products, cx)?;
        if let Some(reset) = &parameters.reset {
            // The gates first: what they leave of the state is multiplied once more.
            self.open_gates((hidden, table.columns()), rules, rows.clone());
            multiply(reset, &self.gated, hidden, &mut self.gated_products, cx)?;
        }
        let width = table.columns();
        let products = self.products.values::<f32>().unwrap_or(&[]).chunks_exact(width);
        let states = self.h.chunks_exact_mut(hidden).zip(self.c.chunks_exact_mut(hidden));
        let late = self.gated_products.values::<f32>().unwrap_or(&[]);
        for (sequence, ((row, products), (h, c))) in rows.zip(products).zip(states).enumerate() {
            let Some(row) = row else { continue };
            let (sums, gates) = (&mut self.sums, &mut self.gates);
            match parameters.cell {
                Cell::Rnn => {
                    add(row, products, rules.clip, sums);
                    rules.activations[0].apply(sums, h);
                }
                Cell::Lstm => {
                    add(row, products, None, sums);
                    lstm(&parameters.peepholes, rules, sums, gates, h, c);
                }
                Cell::Gru { reset_after } => {
                    let late = late.get(sequence * hidden..(sequence + 1) * hidden).unwrap_or(&[]);
                    gru(reset_after, rules, row, products, late, sums, gates, h);
                }
            }
        }
        Ok(())
    }

    /// `gated = r * h`, of a GRU that resets the state before it is multiplied.
    fn open_gates<'a>(
        &mut self,
        (hidden, width): (usize, usize),
        rules: Rules,
        rows: impl Iterator<Item = Option<&'a [f32]>>,
    ) {
        let products = self.products.values::<f32>().unwrap_or(&[]).chunks_exact(width);
        let states = self.h.chunks_exact(hidden).zip(self.gated.chunks_exact_mut(hidden));
        for ((row, products), (h, gated)) in rows.zip(products).zip(states) {
            let Some(row) = row else { continue };
            add(
                row.get(hidden..).unwrap_or(&[]),
                products.get(hidden..).unwrap_or(&[]),
                rules.clip,
                &mut self.sums,
            );
            let (Some(sums), Some(gate)) = (self.sums.get(..hidden), self.gates.get_mut(..hidden)) else {
                continue;
            };
            rules.activations[0].apply(sums, gate);
            for ((to, r), h) in gated.iter_mut().zip(gate).zip(h) {
                *to = *r * h;
            }
        }
    }
}

fn multiply(
    weights: &Dense,
    states: &[f32],
    hidden: usize,
    to: &mut Tensor,
    cx: &RunContext,
) -> Result<(), RunError> {
    let view = TensorView::new(&[states.len() / hidden.max(1), hidden], states)
        .map_err(|_| RunError::Operator { operator: "a recurrent layer", expected: "a state" })?;
    weights.run(&[Some(view)], std::slice::from_mut(to), cx)
}

fn add(a: &[f32], b: &[f32], clip: Option<f32>, to: &mut [f32]) {
    for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
        *to = a + b;
    }
    clip_all(to, clip);
}

fn clip_all(values: &mut [f32], clip: Option<f32>) {
    if let Some(clip) = clip {
        for value in values {
            *value = if *value > clip {
                clip
            } else if *value < -clip {
                -clip
            } else {
                *value
            };
        }
    }
}

/// `sums` are those of the input, output and forget gates and of the candidate.
fn lstm(peepholes: &[f32], rules: Rules, sums: &mut [f32], gates: &mut [f32], h: &mut [f32], c: &mut [f32]) {
    let hidden = h.len();
    let part = |p: usize| p * hidden..(p + 1) * hidden;
    let [f, g, k] = rules.activations;
    let peek = |gate: usize, peephole: usize, c: &[f32], sums: &mut [f32]| {
        if let (Some(p), Some(sum)) = (peepholes.get(part(peephole)), sums.get_mut(part(gate))) {
            for ((sum, p), c) in sum.iter_mut().zip(p).zip(c) {
                *sum += p * c;
            }
        }
    };
    peek(0, 0, c, sums);
    peek(2, 2, c, sums);
    for gate in (0..4).filter(|gate| peepholes.is_empty() || *gate != 1) {
        clip_all(sums.get_mut(part(gate)).unwrap_or(&mut []), rules.clip);
    }
    // With peepholes the output gate waits for the new cell state.
    let early = if peepholes.is_empty() { 0..3 * hidden } else { 0..hidden };
    let rest = if peepholes.is_empty() { 0..0 } else { part(2) };
    for range in [early, rest] {
        if let (Some(from), Some(to)) = (sums.get(range.clone()), gates.get_mut(range)) {
            f.apply(from, to);
        }
    }
    if let (Some(from), Some(to)) = (sums.get(part(3)), gates.get_mut(part(3))) {
        g.apply(from, to);
    }
    {
        let (input, rest) = gates.split_at_mut(hidden.min(gates.len()));
        let forget = rest.get(hidden..2 * hidden).unwrap_or(&[]);
        let candidate = rest.get(2 * hidden..3 * hidden).unwrap_or(&[]);
        for (((c, i), forget), candidate) in c.iter_mut().zip(input.iter()).zip(forget).zip(candidate) {
            let keep = if rules.couple { 1.0 - i } else { *forget };
            *c = keep * *c + i * candidate;
        }
    }
    if !peepholes.is_empty() {
        peek(1, 1, c, sums);
        clip_all(sums.get_mut(part(1)).unwrap_or(&mut []), rules.clip);
        if let (Some(from), Some(to)) = (sums.get(part(1)), gates.get_mut(part(1))) {
            f.apply(from, to);
        }
    }
    if let Some(squashed) = gates.get_mut(part(4)) {
        k.apply(c, squashed);
    }
    let output = gates.get(part(1)).unwrap_or(&[]);
    let squashed = gates.get(part(4)).unwrap_or(&[]);
    for ((h, o), s) in h.iter_mut().zip(output).zip(squashed) {
        *h = o * s;
    }
}

/// `row` and `products` are those of the update gate, the reset gate and the candidate; `late` is
/// the candidate's product where the reset comes first.
#[expect(clippy::too_many_arguments, reason = "the parts of one formula")]
fn gru(
    reset_after: bool,
    rules: Rules,
    row: &[f32],
    products: &[f32],
    late: &[f32],
    sums: &mut [f32],
    gates: &mut [f32],
    h: &mut [f32],
) {
    let hidden = h.len();
    let [f, g, _] = rules.activations;
    add(row, products.get(..2 * hidden).unwrap_or(&[]), None, sums);
    clip_all(sums.get_mut(..2 * hidden).unwrap_or(&mut []), rules.clip);
    if let (Some(from), Some(to)) = (sums.get(..2 * hidden), gates.get_mut(..2 * hidden)) {
        f.apply(from, to);
    }
    let candidate = row.get(2 * hidden..).unwrap_or(&[]);
    let of_state = if reset_after { products.get(2 * hidden..).unwrap_or(&[]) } else { late };
    if let (Some(sum), Some(reset)) = (sums.get_mut(..hidden), gates.get(hidden..2 * hidden)) {
        for (((sum, x), s), r) in sum.iter_mut().zip(candidate).zip(of_state).zip(reset) {
            *sum = x + if reset_after { r * s } else { *s };
        }
        clip_all(sum, rules.clip);
    }
    if let (Some(from), Some(to)) = (sums.get(..hidden), gates.get_mut(2 * hidden..3 * hidden)) {
        g.apply(from, to);
    }
    let (update, rest) = gates.split_at(hidden.min(gates.len()));
    let candidate = rest.get(hidden..2 * hidden).unwrap_or(&[]);
    for ((h, z), candidate) in h.iter_mut().zip(update).zip(candidate) {
        *h = (1.0 - z) * candidate + z * *h;
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::{Attribute, Attributes, Node, RunContext, recurrent};
    use crate::tensor::Tensor;

    /// The numbers are onnxruntime 1.32's.
    #[test]
    fn a_gate_is_clipped_once_with_its_peephole() {
        let tensor = |dims: &[usize], values: &[f32]| Tensor::new(dims, values.to_vec()).unwrap();
        let w = tensor(&[1, 4, 1], &[0.5, 1.5, -0.5, 1.0]);
        let r = tensor(&[1, 4, 1], &[0.2, 0.4, 0.1, -0.3]);
        let p = tensor(&[1, 3], &[0.9, -0.8, 0.3]);
        let x = tensor(&[3, 1, 1], &[1.0, -2.0, 0.5]);
        let mut attributes = Attributes::default();
        attributes.insert("hidden_size", Attribute::Int(1));
        attributes.insert("clip", Attribute::Float(0.6));
        let inputs = [Some(None), Some(Some(&w)), Some(Some(&r)), None, None, None, None, Some(Some(&p))];
        let node = Node {
            operator: "LSTM",
            domain: "",
            version: 14,
            attributes: &attributes,
            inputs: &inputs,
            outputs: 1,
        };
        let mut outputs = [Tensor::default()];
        let given = [Some(x.view()), Some(w.view()), Some(r.view()), None, None, None, None, Some(p.view())];
        recurrent::build(&node).unwrap().run(&given, &mut outputs, &RunContext::default()).unwrap();
        let expected = [0.208_141_27, 0.009_047_003, 0.167_827_22];
        let found = outputs[0].values::<f32>().unwrap();
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }
}
