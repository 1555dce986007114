//! The engine for graphs that have nothing but kernels: no tract, no allocation in a steady stream
//! of calls.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thread_local::ThreadLocal;

use crate::kernel::RunContext;
use crate::kernel::program::{Program, Scratch};
use crate::load::tract::plan::panic_text;
use crate::load::{Model, RunError, copy_scores};
use crate::signature::Signature;
use crate::tensor::{Tensor, TensorView};

/// A program with its signature, and a scratch for each thread that has run it.
#[derive(Debug)]
pub(super) struct DirectModel {
    program: Program,
    signature: Signature,
    context: RunContext,
    scratch: ThreadLocal<RefCell<Scratch>>,
}

impl DirectModel {
    pub(super) fn new(program: Program, signature: Signature, memory_budget: u64) -> Self {
        // A program holds all that it makes in one run to four times this.
        let context = RunContext { max_tensor_bytes: memory_budget / 4 };
        Self { program, signature, context, scratch: ThreadLocal::new() }
    }

    /// Calls `work` with this thread's scratch, which is thrown away where `work` panics.
    fn with_scratch<T>(&self, work: impl FnOnce(&mut Scratch) -> Result<T, RunError>) -> Result<T, RunError> {
        let cell = self.scratch.get_or_default();
        // One that is in use further up this thread's stack stays there.
        let Ok(mut scratch) = cell.try_borrow_mut() else { return work(&mut Scratch::default()) };
        catch_unwind(AssertUnwindSafe(|| work(&mut scratch))).unwrap_or_else(|panic| {
            *scratch = Scratch::default();
            Err(RunError::Engine(format!("the model panicked: {}", panic_text(&*panic)).into()))
        })
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
        let score = self.signature.score_output().ok_or(RunError::NoScores)?;
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
