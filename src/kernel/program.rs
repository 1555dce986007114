//! A graph that has nothing but kernels, run in one pass.

use super::{Fact, RunContext};
use crate::load::RunError;
use crate::memory;
use crate::signature::Labels;
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

mod ahead;
mod compile;
pub(crate) use compile::{Draft, Planned, Value};
mod order;
mod parts;
mod slots;
mod step;
pub(crate) use parts::{Constants, GraphParts, InputParts, NodeParts, ProgramError};
pub(crate) use step::Scratch;
use step::{Source, Step};
#[cfg(test)]
mod tests;

/// A sequence of kernels over numbered tensors. Immutable: any number of threads share it, each
/// with a [`Scratch`] of its own.
#[derive(Debug)]
pub(crate) struct Program {
    steps: Vec<Step>,
    constants: Vec<Tensor>,
    /// How many tensors a run needs to hold at once.
    slots: usize,
    /// How many inputs it wants.
    inputs: usize,
    outputs: Vec<Output>,
    /// True where a step runs a graph of its own, as a loop does.
    loops: bool,
}

/// An output of the program.
#[derive(Debug)]
struct Output {
    source: Source,
    fact: Option<Fact>,
    labels: Option<Labels>,
}

impl Program {
    /// Makes a program of what the outputs need of a graph.
    pub(crate) fn build(parts: GraphParts) -> Result<Self, ProgramError> {
        compile::compile(parts).map_err(|(error, _)| error)
    }

    /// [`Program::build`] for large constants, of which there is to be no second copy: where an
    /// operator has no kernel, they come back for another engine.
    pub(crate) fn build_or_return(parts: GraphParts) -> Result<Self, (ProgramError, Constants)> {
        compile::compile(parts)
    }

    /// Runs all steps. `inputs` has one tensor for each input of the graph, in its order.
    pub(crate) fn run(
        &self,
        scratch: &mut Scratch,
        inputs: &[TensorView<'_>],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        if inputs.len() != self.inputs {
            return Err(RunError::Operator { operator: "the graph", expected: "one tensor an input" });
        }
        if scratch.slots.len() < self.slots {
            memory::resize_apart(&mut scratch.slots, self.slots, Tensor::default());
        }
        let limited;
        let cx = if self.loops {
            limited = cx.limited();
            &limited
        } else {
            cx
        };
        scratch.bytes.clear();
        memory::resize_apart(&mut scratch.bytes, self.slots, 0);
        // One tensor is bounded by the kernel that makes it, all that a run holds at a time are here:
        // many that are just small enough are as bad as one that is not.
        let mut held = 0_u64;
        for step in &self.steps {
            step.run(scratch, inputs, &self.constants, cx)?;
            for slot in step.outputs() {
                let slots = scratch.slots.get(*slot).zip(scratch.bytes.get_mut(*slot));
                let Some((tensor, bytes)) = slots else { continue };
                let before = std::mem::replace(bytes, self::bytes(tensor) as u64);
                held = held.saturating_sub(before).saturating_add(*bytes);
            }
            if held > cx.max_tensor_bytes.saturating_mul(4) {
                return Err(RunError::OverBudget { needed: held });
            }
            cx.on_time()?;
        }
        Ok(())
    }

    /// How many outputs there are.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Output `index` of the last run with this scratch and these inputs.
    pub(crate) fn output<'a>(
        &'a self,
        scratch: &'a Scratch,
        inputs: &[TensorView<'a>],
        index: usize,
    ) -> Option<TensorView<'a>> {
        match self.outputs.get(index)?.source {
            Source::Absent => None,
            Source::Input(i) => inputs.get(i).copied(),
            Source::Constant(i) => self.constants.get(i).map(Tensor::view),
            Source::Slot(i) => scratch.slots.get(i).map(Tensor::view),
        }
    }

    /// [`Program::run`], and all outputs into `outputs`, as many as there are. The memory that they
    /// bring goes to the scratch in exchange.
    pub(crate) fn run_to(
        &self,
        scratch: &mut Scratch,
        inputs: &[TensorView<'_>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        self.run(scratch, inputs, cx)?;
        for (i, (output, to)) in self.outputs.iter().zip(outputs.iter_mut()).enumerate() {
            match output.source {
                // The last output that lies in a slot takes it; those before it have copied.
                Source::Slot(slot)
                    if !self.outputs.iter().skip(i + 1).any(|o| o.source == Source::Slot(slot)) =>
                {
                    if let Some(from) = scratch.slots.get_mut(slot) {
                        std::mem::swap(from, to);
                    }
                }
                _ => {
                    if let Some(from) = self.output(scratch, inputs, i) {
                        copy(from, to);
                    }
                }
            }
        }
        Ok(())
    }

    /// What is known of output `index` before a run. [`FactDim::Like`](super::FactDim::Like) names
    /// an input of the graph.
    pub(crate) fn fact(&self, index: usize) -> Option<&Fact> {
        self.outputs.get(index)?.fact.as_ref()
    }

    /// The class labels of the last dimension of output `index`, where an operator told them.
    pub(crate) fn labels(&self, index: usize) -> Option<&Labels> {
        self.outputs.get(index)?.labels.as_ref()
    }

    /// The bytes that constants and kernels take.
    pub(crate) fn memory(&self) -> usize {
        let constants: usize = self.constants.iter().map(bytes).sum();
        let kernels: usize = self.steps.iter().map(Step::memory).sum();
        constants + kernels
    }

    /// The number of kernels that a run calls.
    #[cfg(test)]
    pub(crate) fn steps(&self) -> usize {
        self.steps.len()
    }
}

/// Replaces what `to` holds by a copy; the memory of `to` is used again.
pub(crate) fn copy(from: TensorView<'_>, to: &mut Tensor) {
    fn fill<T: Element>(values: &[T], from: TensorView<'_>, to: &mut Tensor) {
        to.reset::<T>(from.shape()).clone_from_slice(values);
    }
    match from.data() {
        DataView::F32(v) => fill(v, from, to),
        DataView::F64(v) => fill(v, from, to),
        DataView::I8(v) => fill(v, from, to),
        DataView::I16(v) => fill(v, from, to),
        DataView::I32(v) => fill(v, from, to),
        DataView::I64(v) => fill(v, from, to),
        DataView::U8(v) => fill(v, from, to),
        DataView::U16(v) => fill(v, from, to),
        DataView::U32(v) => fill(v, from, to),
        DataView::U64(v) => fill(v, from, to),
        DataView::Bool(v) => fill(v, from, to),
        DataView::String(v) => fill(v, from, to),
    }
}

/// The bytes that the elements take.
pub(crate) fn bytes(tensor: &Tensor) -> usize {
    let each = element_bytes(tensor.element_type());
    let text = tensor.values::<String>().unwrap_or(&[]).iter().map(String::capacity).sum::<usize>();
    tensor.shape().elements() * each + text
}

const fn element_bytes(element: ElementType) -> usize {
    match element {
        ElementType::I8 | ElementType::U8 | ElementType::Bool => 1,
        ElementType::I16 | ElementType::U16 => 2,
        ElementType::F32 | ElementType::I32 | ElementType::U32 => 4,
        ElementType::F64 | ElementType::I64 | ElementType::U64 => 8,
        ElementType::String => size_of::<String>(),
    }
}
