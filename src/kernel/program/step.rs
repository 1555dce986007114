//! One step of a program: where a kernel's arguments lie, and where its results go.

use smallvec::SmallVec;

use crate::kernel::{Kernel, RunContext};
use crate::load::RunError;
use crate::memory;
use crate::tensor::{Tensor, TensorView};

/// One kernel, where its inputs come from and its outputs go to.
#[derive(Debug)]
pub(super) struct Step {
    kernel: Box<dyn Kernel>,
    inputs: SmallVec<[Source; 4]>,
    /// Slots.
    outputs: SmallVec<[usize; 2]>,
    /// True where the outputs are slots side by side, and none is an input too: then the kernel
    /// writes to where they stand.
    in_place: bool,
}

/// Where a tensor lies while the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Absent,
    Input(usize),
    Constant(usize),
    Slot(usize),
}

/// The tensors of one run, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(super) slots: Vec<Tensor>,
    /// The outputs of a step that has them here and there; they are swapped in and out of `slots`.
    active: Vec<Tensor>,
    /// The bytes that this run has put into each slot.
    pub(super) bytes: Vec<u64>,
    /// The memory for the arguments of a step that has many.
    arguments: Arguments<'static>,
}

type Arguments<'a> = Vec<Option<TensorView<'a>>>;

impl Step {
    pub(super) fn new(
        kernel: Box<dyn Kernel>,
        inputs: SmallVec<[Source; 4]>,
        outputs: SmallVec<[usize; 2]>,
    ) -> Self {
        let side_by_side = outputs.iter().zip(outputs.iter().skip(1)).all(|(a, b)| a + 1 == *b);
        let apart = !inputs.iter().any(|i| matches!(i, Source::Slot(slot) if outputs.contains(slot)));
        Self { kernel, inputs, outputs, in_place: side_by_side && apart }
    }

    pub(super) fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    pub(super) fn memory(&self) -> usize {
        self.kernel.memory()
    }

    /// Calls the kernel. All slots of the program have to be there.
    #[inline]
    pub(super) fn run(
        &self,
        scratch: &mut Scratch,
        inputs: &[TensorView<'_>],
        constants: &[Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let Scratch { slots, active, arguments, .. } = scratch;
        let count = self.outputs.len();
        let first = self.outputs.first().copied().unwrap_or(0);
        let split = slots.split_at_mut_checked(first);
        let parts = split.and_then(|(before, rest)| Some((before, rest.split_at_mut_checked(count)?)));
        if let (true, Some((before, (outputs, behind)))) = (self.in_place, parts) {
            let slot = |slot: usize| match slot.checked_sub(first + count) {
                Some(slot) => behind.get(slot),
                None => before.get(slot),
            };
            return self.call(given(inputs, constants, slot), outputs, arguments, cx);
        }
        if active.len() < count {
            memory::resize_apart(active, count, Tensor::default());
        }
        let outputs = active.get_mut(..count).unwrap_or_default();
        swap_outputs(slots, outputs, &self.outputs);
        let done = self.call(given(inputs, constants, |slot| slots.get(slot)), outputs, arguments, cx);
        swap_outputs(slots, outputs, &self.outputs);
        done
    }

    #[inline]
    fn call<'a>(
        &self,
        given: impl Fn(Source) -> Option<TensorView<'a>>,
        outputs: &mut [Tensor],
        arguments: &mut Arguments<'static>,
        cx: &RunContext,
    ) -> Result<(), RunError> {
        match *self.inputs.as_slice() {
            [one] => self.kernel.run(&[given(one)], outputs, cx),
            [one, two] => self.kernel.run(&[given(one), given(two)], outputs, cx),
            [one, two, three] => self.kernel.run(&[given(one), given(two), given(three)], outputs, cx),
            ref many => {
                let mut all = with_memory_of(std::mem::take(arguments));
                all.extend(many.iter().map(|source| given(*source)));
                let done = self.kernel.run(&all, outputs, cx);
                *arguments = with_memory_of(all);
                done
            }
        }
    }
}

/// The tensor of a source, if there is one.
#[inline]
fn given<'a>(
    inputs: &[TensorView<'a>],
    constants: &'a [Tensor],
    slot: impl Fn(usize) -> Option<&'a Tensor>,
) -> impl Fn(Source) -> Option<TensorView<'a>> {
    move |source| match source {
        Source::Absent => None,
        Source::Input(i) => inputs.get(i).copied(),
        Source::Constant(i) => constants.get(i).map(Tensor::view),
        Source::Slot(i) => slot(i).map(Tensor::view),
    }
}

/// An empty list in the memory of another one, whose elements may have borrowed from elsewhere.
fn with_memory_of<'a>(mut list: Arguments<'_>) -> Arguments<'a> {
    list.clear();
    // Collecting what has the same layout keeps the memory; `tests/hot_path` holds it to that.
    list.into_iter().map(|_| None).collect()
}

fn swap_outputs(slots: &mut [Tensor], active: &mut [Tensor], outputs: &[usize]) {
    for (tensor, slot) in active.iter_mut().zip(outputs) {
        if let Some(slot) = slots.get_mut(*slot) {
            std::mem::swap(slot, tensor);
        }
    }
}
