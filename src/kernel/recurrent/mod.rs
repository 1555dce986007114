//! `LSTM`, `GRU` and `RNN`.
//!
//! The inputs of all time steps are multiplied with their weights at once; what remains for each
//! step is the product of the state with its own, and the cell.

mod activation;
mod cell;
mod fused;
mod parameters;

use std::cell::RefCell;

use smallvec::{SmallVec, smallvec};
use thread_local::ThreadLocal;

use self::activation::Activation;
use self::cell::{Cell, Rules, States};
use self::parameters::Parameters;
use super::{Apart, BuildError, Fact, FactDim, Kernel, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

/// The attribute of a layer that rounds its state to 256 levels, over all sequences, before each
/// step: what onnxruntime's quantised layer does.
pub(crate) const ROUNDS_STATE: &str = "rounds_state";

/// The kernel of a recurrent layer, or [`BuildError::Unsupported`].
pub(crate) fn build(node: &Node<'_>) -> Result<Box<dyn Kernel>, BuildError> {
    let cell = match node.operator {
        "LSTM" => Cell::Lstm,
        "GRU" => Cell::Gru { reset_after: node.attributes.int("linear_before_reset")?.unwrap_or(0) != 0 },
        "RNN" => Cell::Rnn,
        _ => return Err(BuildError::Unsupported),
    };
    if !node.domain.is_empty() {
        return Err(BuildError::Unsupported);
    }
    let directions: &[bool] = match node.attributes.string("direction")?.unwrap_or("forward") {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(BuildError::invalid(format!("unknown direction `{other}`"))),
    };
    let constant = |index: usize| node.inputs.get(index).copied().flatten().flatten();
    let hidden = match node.attributes.int("hidden_size")? {
        Some(hidden) => usize::try_from(hidden).ok(),
        None => constant(2).and_then(|r| r.dims().last().copied()),
    };
    let hidden = hidden.filter(|h| (1..=1 << 20).contains(h));
    let mut layer = Recurrent {
        cell,
        reversed: directions.into(),
        hidden: hidden.ok_or_else(|| BuildError::invalid("hidden_size is missing or impossible"))?,
        batch_first: node.attributes.int("layout")?.unwrap_or(0) != 0,
        activations: Activation::read(node.attributes, cell.activations(), directions.len())?,
        clip: node.attributes.float("clip")?.filter(|clip| *clip > 0.0),
        couple: node.attributes.int("input_forget")?.unwrap_or(0) != 0,
        rounds_state: node.attributes.int(ROUNDS_STATE)?.unwrap_or(0) != 0,
        packed: None,
        scratch: ThreadLocal::new(),
    };
    // The weights are constants in all but tests, and then laid out once.
    let given: SmallVec<[Option<TensorView<'_>>; 8]> =
        node.inputs.iter().map(|i| i.flatten().map(Tensor::view)).collect();
    let fixed = [1, 2, 3, 7].iter().all(|i| {
        let present = node.inputs.get(*i).copied().flatten().is_some();
        let known = given.get(*i).copied().flatten().is_some();
        present == known
    });
    if fixed {
        let parameters = layer.parameters(&given).map_err(|e| BuildError::invalid(e.to_string()))?;
        layer.packed = Some(parameters);
    }
    Ok(Box::new(layer))
}

/// A recurrent layer.
#[derive(Debug)]
struct Recurrent {
    cell: Cell,
    /// For each direction, whether it goes from the end to the beginning.
    reversed: SmallVec<[bool; 2]>,
    hidden: usize,
    /// The batch is the first dimension, time the second; else the other way round.
    batch_first: bool,
    /// Of each direction.
    activations: Vec<[Activation; 3]>,
    clip: Option<f32>,
    /// The forget gate is what the input gate leaves.
    couple: bool,
    rounds_state: bool,
    /// Of each direction; `None` where the weights come with each run.
    packed: Option<Vec<Parameters>>,
    scratch: ThreadLocal<Apart<RefCell<Scratch>>>,
}

const OPERATOR: &str = "a recurrent layer";

const fn refuse(expected: &'static str) -> RunError {
    RunError::Operator { operator: OPERATOR, expected }
}

/// How one run is laid out.
#[derive(Clone, Copy)]
struct Extent {
    steps: usize,
    batch: usize,
    hidden: usize,
    directions: usize,
    batch_first: bool,
}

impl Extent {
    /// The row of the input at this step of this sequence.
    const fn row(&self, step: usize, sequence: usize) -> usize {
        if self.batch_first { sequence * self.steps + step } else { step * self.batch + sequence }
    }

    /// Where the state after this step of this sequence lies in `Y`.
    const fn at(&self, step: usize, direction: usize, sequence: usize) -> usize {
        let cell = if self.batch_first {
            (sequence * self.steps + step) * self.directions + direction
        } else {
            (step * self.directions + direction) * self.batch + sequence
        };
        cell * self.hidden
    }

    /// Where the state of this sequence lies in `Y_h` and its like.
    const fn last(&self, direction: usize, sequence: usize) -> usize {
        let cell = if self.batch_first {
            sequence * self.directions + direction
        } else {
            direction * self.batch + sequence
        };
        cell * self.hidden
    }

    const fn all_dims(&self) -> [usize; 4] {
        if self.batch_first {
            [self.batch, self.steps, self.directions, self.hidden]
        } else {
            [self.steps, self.directions, self.batch, self.hidden]
        }
    }

    const fn last_dims(&self) -> [usize; 3] {
        if self.batch_first {
            [self.batch, self.directions, self.hidden]
        } else {
            [self.directions, self.batch, self.hidden]
        }
    }
}

impl Recurrent {
    /// The parameters of all directions, out of the inputs `W`, `R`, `B` and `P`.
    fn parameters(&self, inputs: &[Option<TensorView<'_>>]) -> Result<Vec<Parameters>, RunError> {
        let input = |index: usize| inputs.get(index).copied().flatten();
        let floats = |index| match input(index) {
            Some(tensor) => tensor.values::<f32>().map(Some).ok_or(refuse("weights of type f32")),
            None => Ok(None),
        };
        let count = self.reversed.len();
        let width = input(1).and_then(|w| w.dims().get(2).copied()).ok_or(refuse("weights of rank 3"))?;
        let all = [floats(1)?, floats(2)?, floats(3)?, floats(7)?];
        if all.iter().flatten().any(|values| values.len() % count != 0) {
            return Err(refuse("weights for each direction"));
        }
        (0..count)
            .map(|direction| {
                let parts = all.map(|values| {
                    let each = values?.len() / count;
                    values?.get(direction * each..(direction + 1) * each)
                });
                Parameters::new(self.cell, self.is_usual(direction), (self.hidden, width), parts)
                    .ok_or(refuse("weights that fit hidden_size"))
            })
            .collect()
    }

    /// True where a step of this direction has the activations that everybody uses, and nothing else.
    fn is_usual(&self, direction: usize) -> bool {
        let usual = self.cell.activations();
        let activations = self.activations.get(direction).and_then(|a| a.get(..usual.len()));
        activations == Some(usual) && self.clip.is_none() && !self.couple
    }

    fn extent(&self, inputs: &[Option<TensorView<'_>>]) -> Result<Extent, RunError> {
        let x = inputs.first().copied().flatten().ok_or(refuse("an input"))?;
        let [first, second, _] = x.dims() else { return Err(refuse("an input of rank 3")) };
        let (steps, batch) = if self.batch_first { (*second, *first) } else { (*first, *second) };
        let directions = self.reversed.len();
        Ok(Extent { steps, batch, hidden: self.hidden, directions, batch_first: self.batch_first })
    }

    /// One direction: fills its part of the outputs.
    fn direction(
        &self,
        index: usize,
        parameters: &Parameters,
        run: &Run<'_, '_>,
        outputs: &mut Outputs<'_>,
    ) -> Result<(), RunError> {
        let Scratch { projected, states, before } =
            &mut *self.scratch.get_or_default().0.try_borrow_mut().map_err(|_| {
                // A kernel does not call itself.
                refuse("one run at a time in a thread")
            })?;
        let (extent, hidden) = (run.extent, self.hidden);
        parameters.project(
            run.inputs.first().copied().flatten().ok_or(refuse("an input"))?,
            projected,
            run.cx,
        )?;
        let projected = projected.values::<f32>().unwrap_or(&[]);
        let (width, state_width) = (parameters.projected_width(), parameters.state_width());
        states.clear(extent.batch, parameters);
        run.initial_state(5, index, state_width, &mut states.h)?;
        run.initial_state(6, index, state_width, &mut states.c)?;
        let rules = Rules {
            activations: self.activations.get(index).copied().ok_or(refuse("activations"))?,
            clip: self.clip,
            couple: self.couple,
        };
        let reversed = self.reversed.get(index).copied().unwrap_or(false);
        for step in 0..extent.steps {
            // The time step of each sequence, or nothing where it has ended.
            let time = |sequence: usize| {
                let length = run.lengths.map_or(extent.steps, |l| {
                    l.get(sequence).and_then(|l| usize::try_from(*l).ok()).unwrap_or(0).min(extent.steps)
                });
                (step < length).then(|| if reversed { length - 1 - step } else { step })
            };
            let row = |sequence: usize| {
                let from = extent.row(time(sequence)?, sequence) * width;
                projected.get(from..from + width)
            };
            if self.rounds_state {
                before.clear();
                before.extend_from_slice(&states.h);
                crate::kernel::standard::quantize::round_dynamically(&mut states.h);
            }
            states.step(parameters, rules, row, run.cx)?;
            if self.rounds_state {
                // A sequence that has ended keeps its state as it was.
                let kept = states.h.chunks_exact_mut(state_width).zip(before.chunks_exact(state_width));
                for (sequence, (h, before)) in kept.enumerate() {
                    if time(sequence).is_none() {
                        h.copy_from_slice(before);
                    }
                }
            }
            let Some(y) = outputs.all.as_deref_mut() else { continue };
            for (sequence, state) in states.h.chunks_exact(state_width).enumerate() {
                let state = state.get(..hidden).unwrap_or(state);
                let at = extent.at(time(sequence).unwrap_or(step), index, sequence);
                let to = y.get_mut(at..at + hidden).ok_or(refuse("an output row"))?;
                if time(sequence).is_some() { to.copy_from_slice(state) } else { to.fill(0.0) }
            }
        }
        for (target, states) in [(&mut outputs.last, &states.h), (&mut outputs.last_cell, &states.c)] {
            let Some(target) = target.as_deref_mut() else { continue };
            for (sequence, state) in states.chunks_exact(state_width).enumerate() {
                let state = state.get(..hidden).unwrap_or(state);
                let at = extent.last(index, sequence);
                target.get_mut(at..at + hidden).ok_or(refuse("an output row"))?.copy_from_slice(state);
            }
        }
        Ok(())
    }
}

/// What one run is given.
struct Run<'a, 'v> {
    inputs: &'a [Option<TensorView<'v>>],
    extent: Extent,
    /// Of each sequence, where they differ.
    lengths: Option<&'v [i32]>,
    cx: &'a RunContext,
}

impl Run<'_, '_> {
    /// Copies one direction of an initial state, where there is one.
    fn initial_state(
        &self,
        input: usize,
        direction: usize,
        width: usize,
        to: &mut [f32],
    ) -> Result<(), RunError> {
        let Some(given) = self.inputs.get(input).copied().flatten() else { return Ok(()) };
        let wrong = refuse("an initial state of the shape of the last one");
        let hidden = self.extent.hidden;
        let all = self.extent.directions * self.extent.batch * hidden;
        let values = given.values::<f32>().filter(|v| v.len() == all);
        let values = values.ok_or(wrong.clone())?;
        for (sequence, state) in to.chunks_exact_mut(width).enumerate() {
            let from = self.extent.last(direction, sequence);
            let values = values.get(from..from + hidden).ok_or(wrong.clone())?;
            state.iter_mut().zip(values).for_each(|(to, v)| *to = *v);
        }
        Ok(())
    }
}

/// The outputs that are wanted: `Y`, `Y_h` and `Y_c`.
struct Outputs<'t> {
    all: Option<&'t mut [f32]>,
    last: Option<&'t mut [f32]>,
    last_cell: Option<&'t mut [f32]>,
}

/// What a thread keeps between runs.
#[derive(Debug, Default)]
struct Scratch {
    projected: Tensor,
    states: States,
    /// The states before they were rounded.
    before: Vec<f32>,
}

impl Kernel for Recurrent {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let extent = self.extent(inputs)?;
        let lengths = match inputs.get(4).copied().flatten() {
            Some(given) => {
                let lengths = given.values::<i32>().filter(|l| l.len() == extent.batch);
                Some(lengths.ok_or(refuse("the length of each sequence"))?)
            }
            None => None,
        };
        let given;
        let parameters = match &self.packed {
            Some(packed) => packed,
            None => {
                given = self.parameters(inputs)?;
                &given
            }
        };
        let run = Run { inputs, extent, lengths, cx };
        let mut outputs = outputs.iter_mut();
        let mut reset = |dims: &[usize]| match outputs.next() {
            Some(tensor) => cx.reset::<f32>(tensor, dims).map(Some),
            None => Ok(None),
        };
        let mut outputs = Outputs {
            all: reset(&extent.all_dims())?,
            last: reset(&extent.last_dims())?,
            last_cell: reset(&extent.last_dims())?,
        };
        for (index, parameters) in parameters.iter().enumerate() {
            self.direction(index, parameters, &run, &mut outputs)?;
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let x = inputs.first().cloned().flatten().ok_or_else(|| BuildError::invalid("there is no input"))?;
        if x.element != ElementType::F32 {
            return Err(BuildError::Unsupported);
        }
        if x.dims.as_ref().is_some_and(|dims| dims.len() != 3) {
            return Err(BuildError::invalid("the input has to have three dimensions"));
        }
        let dim = |axis: usize| match x.dims.as_ref().and_then(|dims| dims.get(axis)) {
            Some(FactDim::Fixed(n)) => FactDim::Fixed(*n),
            _ => FactDim::Like { input: 0, axis },
        };
        let (hidden, directions) = (FactDim::Fixed(self.hidden), FactDim::Fixed(self.reversed.len()));
        let (all, last) = if self.batch_first {
            ([dim(0), dim(1), directions, hidden], [dim(0), directions, hidden])
        } else {
            ([dim(0), directions, dim(1), hidden], [directions, dim(1), hidden])
        };
        let fact = |dims: &[FactDim]| Fact { element: ElementType::F32, dims: Some(dims.into()) };
        Ok(smallvec![fact(&all), fact(&last), fact(&last)])
    }

    fn absorbs(&self, input: usize) -> bool {
        self.packed.is_some() && matches!(input, 1 | 2 | 3 | 7)
    }

    fn memory(&self) -> usize {
        self.packed.iter().flatten().map(Parameters::memory).sum()
    }
}
