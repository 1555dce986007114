//! The engine for graphs that have nothing but kernels: no tract, no allocation in a steady stream
//! of calls.

use crate::kernel::program::{Program, Scratch};
use crate::kernel::{PerThread, RunContext};
use crate::load::{Model, RunError, copy_scores};
use crate::signature::Signature;
use crate::tensor::{Tensor, TensorView};

/// A program with its signature, and a scratch for each thread that has run it.
#[derive(Debug)]
pub(super) struct DirectModel {
    program: Program,
    signature: Signature,
    /// The position of the score output.
    score: Option<usize>,
    context: RunContext,
    scratch: PerThread<Scratch>,
}

impl DirectModel {
    pub(super) fn new(program: Program, signature: Signature, memory_budget: u64) -> Self {
        // A program holds all that it makes in one run to four times this.
        let context = RunContext::new(memory_budget / 4);
        let score = signature.score_output();
        Self { program, signature, score, context, scratch: PerThread::default() }
    }

    /// Calls `work` with this thread's scratch. Where `work` panics the scratch is left with tensors
    /// that are as good as any others: each is made anew before it is read.
    #[inline]
    fn with_scratch(&self, work: impl FnOnce(&mut Scratch) -> Result<(), RunError>) -> Result<(), RunError> {
        self.scratch.with(Scratch::default, work)
    }
}

impl Model for DirectModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        self.with_scratch(|scratch| self.program.run_to(scratch, inputs, outputs, &self.context))
    }

    fn run_into(&self, inputs: &[TensorView<'_>], out: &mut [f32]) -> Result<(), RunError> {
        let score = self.score.ok_or(RunError::NoScores)?;
        self.with_scratch(|scratch| {
            self.program.run(scratch, inputs, &self.context)?;
            copy_scores(self.program.output(scratch, inputs, score), out)
        })
    }

    fn memory(&self) -> usize {
        self.program.memory()
    }

    fn engine(&self) -> &'static str {
        "direct"
    }
}
