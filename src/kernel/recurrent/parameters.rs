//! The weights of a recurrent layer.

use super::cell::Cell;
use super::fused::{Interleaved, Kind};
use crate::kernel::standard::dense::Dense;
use crate::kernel::{Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{Tensor, TensorView};

/// The weights of one direction, laid out for multiplication.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) cell: Cell,
    pub(super) hidden: usize,
    /// Of the input, with all of the biases that can be added ahead.
    input: Dense,
    /// Of the state.
    pub(super) state: State,
    /// Of the state that has passed the reset gate; of a GRU without `reset_after`.
    pub(super) reset: Option<Dense>,
    /// `Pi`, `Po`, `Pf`; empty where there are none.
    pub(super) peepholes: Vec<f32>,
}

/// The weights of the state.
#[derive(Debug)]
pub(super) enum State {
    /// For any activations: gate behind gate.
    Table(Dense),
    /// For the usual ones.
    Interleaved(Interleaved),
}

impl Parameters {
    /// Lays out `W` (`gates * hidden` rows of `width`), `R` (of `hidden`), `B` and `P` of one
    /// direction; `None` where they do not fit. `usual` says that nothing but the usual activations
    /// comes into a step.
    pub(super) fn new(
        cell: Cell,
        usual: bool,
        (hidden, width): (usize, usize),
        [w, r, b, p]: [Option<&[f32]>; 4],
    ) -> Option<Self> {
        let rows = cell.gates() * hidden;
        let (w, r) = (w?, r?);
        let fits = w.len() == rows * width
            && r.len() == rows * hidden
            && b.is_none_or(|b| b.len() == 2 * rows)
            && p.is_none_or(|p| p.len() == 3 * hidden);
        if !fits {
            return None;
        }
        let fused = match cell {
            Cell::Lstm if usual && p.is_none() => Some(Kind::Lstm),
            Cell::Gru { reset_after: true } if usual => Some(Kind::Gru),
            _ => None,
        };
        if let Some(kind) = fused {
            return Some(Self::interleaved(cell, kind, (hidden, width), w, r, b));
        }
        let weight = |table: &[f32], stride: usize, depth: usize, row: usize| {
            table.get(row * stride + depth).copied().unwrap_or(0.0)
        };
        let mut input = Dense::new("W", (width, rows), |depth, row| weight(w, width, depth, row), &[]);
        // The candidate of a GRU gets its state's product in a way of its own.
        let (apart, after) = match cell {
            Cell::Gru { reset_after } => (!reset_after, reset_after),
            Cell::Lstm | Cell::Rnn => (false, false),
        };
        let state_rows = if apart { 2 * hidden } else { rows };
        let mut state =
            Dense::new("R", (hidden, state_rows), |depth, row| weight(r, hidden, depth, row), &[]);
        let reset = apart.then(|| {
            Dense::new("R", (hidden, hidden), |depth, row| weight(r, hidden, depth, 2 * hidden + row), &[])
        });
        if let Some((of_input, of_state)) = b.and_then(|b| b.split_at_checked(rows)) {
            input.add_bias(of_input, 1.0);
            let is_late = |row: usize| after && row >= 2 * hidden;
            let pick = |late: bool| -> Vec<f32> {
                of_state
                    .iter()
                    .enumerate()
                    .map(|(row, v)| if is_late(row) == late { *v } else { 0.0 })
                    .collect()
            };
            input.add_bias(&pick(false), 1.0);
            if after {
                state.add_bias(&pick(true), 1.0);
            }
        }
        let state = State::Table(state);
        Some(Self { cell, hidden, input, state, reset, peepholes: p.unwrap_or(&[]).to_vec() })
    }

    /// [`Parameters::new`] for steps of [`Interleaved`] weights; the projected input lies as they do.
    fn interleaved(
        cell: Cell,
        kind: Kind,
        (hidden, width): (usize, usize),
        w: &[f32],
        r: &[f32],
        b: Option<&[f32]>,
    ) -> Self {
        let at = |table: &[f32], index: usize| table.get(index).copied().unwrap_or(0.0);
        let bias = |index: usize| b.map_or(0.0, |b| at(b, index));
        let rows = cell.gates() * hidden;
        let state = Interleaved::new(
            kind,
            hidden,
            |gate, unit, row| at(r, (gate * hidden + unit) * hidden + row),
            |unit| bias(rows + 2 * hidden + unit),
        );
        let columns = state.width() * cell.gates();
        let place = |column: usize| Interleaved::column(kind, hidden, column);
        let weight = |depth: usize, column: usize| {
            place(column).map_or(0.0, |(gate, unit)| at(w, (gate * hidden + unit) * width + depth))
        };
        let mut input = Dense::new("W", (width, columns), weight, &[]);
        let biases: Vec<f32> = (0..columns)
            .map(|column| {
                let Some((gate, unit)) = place(column) else { return 0.0 };
                let own = gate * hidden + unit;
                // The reset gate of a GRU works on the candidate's second bias as well.
                let is_late = kind == Kind::Gru && gate == 2;
                bias(own) + if is_late { 0.0 } else { bias(rows + own) }
            })
            .collect();
        input.add_bias(&biases, 1.0);
        Self { cell, hidden, input, state: State::Interleaved(state), reset: None, peepholes: Vec::new() }
    }

    /// The values of a projected input.
    pub(super) const fn projected_width(&self) -> usize {
        self.input.columns()
    }

    /// The values of a state, of which the first `hidden` count.
    pub(super) const fn state_width(&self) -> usize {
        match &self.state {
            State::Table(_) => self.hidden,
            State::Interleaved(weights) => weights.width(),
        }
    }

    /// The products of all inputs, a row each, with their biases.
    pub(super) fn project(
        &self,
        x: TensorView<'_>,
        to: &mut Tensor,
        cx: &RunContext,
    ) -> Result<(), RunError> {
        self.input.run(&[Some(x)], std::slice::from_mut(to), cx)
    }

    pub(super) fn memory(&self) -> usize {
        let reset = self.reset.as_ref().map_or(0, Kernel::memory);
        let state = match &self.state {
            State::Table(table) => table.memory(),
            State::Interleaved(weights) => weights.memory(),
        };
        self.input.memory() + state + reset + self.peepholes.len() * size_of::<f32>()
    }
}
