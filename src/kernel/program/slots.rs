//! Where every tensor of a program lies: among the inputs, the constants or the slots of a run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::compile::{Draft, Planned};
use super::step::{Source, Step};
use super::{Output, Program};
use crate::kernel::FactDim;
use crate::tensor::ElementType;

/// Where every value lies.
pub(super) struct Layout {
    sources: Vec<Source>,
    slots: usize,
    /// Values, in the order of their numbers among the constants of the program.
    constants: Vec<usize>,
}

impl Layout {
    /// Gives each computed value a slot. One that is not read any more leaves its slot to the next
    /// of the same type and row: of another type it would have to allocate, and what a larger row
    /// has more than the one before would be written twice.
    pub(super) fn new(draft: &Draft) -> Self {
        let mut layout =
            Self { sources: vec![Source::Absent; draft.values.len()], slots: 0, constants: Vec::new() };
        let mut last_read = vec![0; draft.values.len()];
        for (at, step) in draft.steps.iter().enumerate() {
            for value in step.inputs.iter().flatten().chain(&step.outputs) {
                last_read.get_mut(*value).into_iter().for_each(|l| *l = at);
            }
        }
        for value in &draft.wanted {
            last_read.get_mut(*value).into_iter().for_each(|l| *l = usize::MAX);
        }
        let mut free: HashMap<(ElementType, usize), Vec<usize>> = HashMap::new();
        for (at, step) in draft.steps.iter().enumerate() {
            for (index, value) in step.inputs.iter().enumerate() {
                if let Some(value) = value
                    && !step.kernel.absorbs(index)
                {
                    layout.take_given(draft, *value);
                }
            }
            for value in &step.outputs {
                let reused =
                    draft.element(*value).and_then(|e| free.get_mut(&(e, row(draft, *value)))?.pop());
                let slot = reused.unwrap_or_else(|| {
                    layout.slots += 1;
                    layout.slots - 1
                });
                layout.set(*value, Source::Slot(slot));
            }
            let mut seen = HashSet::new();
            for value in step.inputs.iter().flatten().chain(&step.outputs) {
                if last_read.get(*value) == Some(&at)
                    && seen.insert(*value)
                    && let (Source::Slot(slot), Some(element)) =
                        (layout.source(Some(*value)), draft.element(*value))
                {
                    free.entry((element, row(draft, *value))).or_default().push(slot);
                }
            }
        }
        draft.wanted.iter().for_each(|value| layout.take_given(draft, *value));
        layout
    }

    /// The program of a draft whose values lie so.
    pub(super) fn program(self, draft: Draft, inputs: usize) -> Program {
        let step = |planned: &Planned| -> (SmallVec<[Source; 4]>, SmallVec<[usize; 2]>) {
            let source = |(index, value): (usize, &Option<usize>)| {
                if planned.kernel.absorbs(index) { Source::Absent } else { self.source(*value) }
            };
            let slot = |value: &usize| match self.source(Some(*value)) {
                Source::Slot(slot) => Some(slot),
                _ => None,
            };
            (
                planned.inputs.iter().enumerate().map(source).collect(),
                planned.outputs.iter().filter_map(slot).collect(),
            )
        };
        let sources: Vec<_> = draft.steps.iter().map(step).collect();
        let loops = draft.steps.iter().any(|p| p.node.attributes.graphs().next().is_some());
        let mut values: Vec<_> = draft.values.into_iter().map(Some).collect();
        let outputs = draft.wanted.iter().map(|value| {
            let known = values.get(*value).and_then(Option::as_ref);
            Output {
                source: self.source(Some(*value)),
                fact: known.and_then(|v| v.fact.clone()),
                labels: known.and_then(|v| v.labels.clone()),
            }
        });
        let outputs = outputs.collect();
        let constants = self.constants.iter().filter_map(|value| {
            let tensor = values.get_mut(*value)?.take()?.constant?;
            let mut tensor = Arc::try_unwrap(tensor).unwrap_or_else(|shared| (*shared).clone());
            tensor.decode();
            Some(tensor)
        });
        let constants = constants.collect();
        let steps = draft.steps.into_iter().zip(sources);
        let steps = steps.map(|(p, (inputs, outputs))| Step::new(p.kernel, inputs, outputs)).collect();
        Program { steps, constants, slots: self.slots, inputs, outputs, loops }
    }

    /// Gives a value that is not computed its place.
    fn take_given(&mut self, draft: &Draft, value: usize) {
        let Some(known) = draft.values.get(value) else { return };
        if let Some(input) = known.input {
            self.set(value, Source::Input(input));
        } else if known.constant.is_some() && self.source(Some(value)) == Source::Absent {
            self.set(value, Source::Constant(self.constants.len()));
            self.constants.push(value);
        }
    }

    fn source(&self, value: Option<usize>) -> Source {
        value.and_then(|v| self.sources.get(v)).copied().unwrap_or(Source::Absent)
    }

    fn set(&mut self, value: usize, source: Source) {
        self.sources.get_mut(value).into_iter().for_each(|s| *s = source);
    }
}

/// The elements of a row of a value, as far as its dimensions are known.
fn row(draft: &Draft, value: usize) -> usize {
    let dims = draft.values.get(value).and_then(|v| v.fact.as_ref()?.dims.as_ref());
    let fixed =
        dims.into_iter().flatten().filter_map(|d| if let FactDim::Fixed(n) = d { Some(*n) } else { None });
    fixed.fold(1, usize::saturating_mul)
}
