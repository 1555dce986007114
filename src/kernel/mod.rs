//! Operators that this crate computes itself: the `ai.onnx.ml` domain, strings, trees, and the
//! standard operators that stand around them in exported tabular models.
//!
//! A [`Kernel`] works on plain tensors and knows nothing of any file format or engine. A graph that
//! has nothing but kernels runs as a [`Program`](program::Program), without tract; in any other
//! graph tract calls the same kernels through an adapter in `load/onnx/`.

use std::fmt::Debug;
use std::time::Duration;

use smallvec::SmallVec;

use crate::load::RunError;
use crate::signature::Labels;
use crate::tensor::{DataView, Element, ElementType, Shape, Tensor, TensorView};

pub(crate) mod aligned;
pub(crate) mod attributes;
pub(crate) use attributes::{Attribute, Attributes, ROUNDED_TO};
pub(crate) mod deadline;
use deadline::Deadline;
pub(crate) mod fuse;
pub(crate) mod ml;
mod narrow;
pub(crate) use narrow::{Direction, Narrow};
mod per_thread;
pub(crate) use per_thread::{Apart, PerThread};
pub(crate) mod program;
pub(crate) mod recurrent;
pub(crate) mod standard;
pub(crate) mod transform;
pub(crate) mod tree;

/// The domain of operators that no format has: what others are taken apart into.
pub(crate) const OWN_DOMAIN: &str = "modelswap";

/// The kernel of a node, or [`BuildError::Unsupported`] where it is no operator that is computed
/// here.
pub(crate) fn build(node: &Node<'_>) -> Result<Box<dyn Kernel>, BuildError> {
    for family in [tree::build, ml::build, standard::build, recurrent::build] {
        match family(node) {
            Err(BuildError::Unsupported) => {}
            built => return built,
        }
    }
    Err(BuildError::Unsupported)
}

/// One operator, ready to run. Immutable: any number of threads share it.
pub(crate) trait Kernel: Debug + Send + Sync {
    /// Computes the outputs. An optional input that the graph leaves out is `None`. `outputs` has as
    /// many tensors as the node has outputs; each is to be `reset` and filled, so that a steady
    /// stream of equal shapes allocates nothing.
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError>;

    /// Types and shapes of the outputs, as far as they follow from those of the inputs; what a
    /// graph engine needs to know before it runs.
    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError>;

    /// The class labels of the last dimension of output `index`, where the operator knows them.
    fn labels(&self, _index: usize) -> Option<Labels> {
        None
    }

    /// True where the kernel holds a form of its own of this input, a constant, and does not need it
    /// to be given: a [`Program`](program::Program) then drops the constant and passes `None`.
    fn absorbs(&self, _input: usize) -> bool {
        false
    }

    /// The bytes that the operator's own parameters take.
    fn memory(&self) -> usize {
        0
    }
}

/// What is known of a tensor before it is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fact {
    pub(crate) element: ElementType,
    /// `None` where not even the rank is known.
    pub(crate) dims: Option<SmallVec<[FactDim; 4]>>,
}

/// One dimension of a [`Fact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FactDim {
    Fixed(usize),
    /// The same size as this dimension of this input of the operator.
    Like {
        input: usize,
        axis: usize,
    },
    /// Known only once the operator has run.
    Unknown,
}

/// Limits and scratch that one run of a graph shares.
#[derive(Debug)]
pub(crate) struct RunContext {
    /// The most bytes that one tensor may take.
    pub(crate) max_tensor_bytes: u64,
    /// When the run has to be over, where that is not left to the size of the graph.
    deadline: Option<Deadline>,
}

/// The longest that a loop may compute, and the first run of a model.
const TIME_LIMIT: Duration = Duration::from_secs(6);
/// The longest that a run with loops may compute, however many there are one after the other.
pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(10);

impl Default for RunContext {
    fn default() -> Self {
        Self::new(4 << 30)
    }
}

impl RunContext {
    pub(crate) const fn new(max_tensor_bytes: u64) -> Self {
        Self { max_tensor_bytes, deadline: None }
    }

    /// As [`RunContext::new`], for a run that shows whether a model is of any use.
    pub(crate) fn of_trial(max_tensor_bytes: u64) -> Self {
        Self { max_tensor_bytes, deadline: Some(Deadline::after(TIME_LIMIT)) }
    }

    /// The limits for a graph inside the graph: half the memory, so that graphs nested in each other
    /// take no more than twice that of the outermost, and an end in time, because how often it runs
    /// is told by values.
    pub(crate) fn inner(&self) -> Self {
        let deadline = self.deadline.unwrap_or_else(|| Deadline::after(TIME_LIMIT));
        Self { max_tensor_bytes: self.max_tensor_bytes / 2, deadline: Some(deadline) }
    }

    /// The same limits and an end in time, for a whole run whose length values tell.
    pub(crate) fn limited(&self) -> Self {
        let deadline = self.deadline.unwrap_or_else(|| Deadline::after(RUN_LIMIT));
        Self { max_tensor_bytes: self.max_tensor_bytes, deadline: Some(deadline) }
    }

    /// An error once the time is over.
    pub(crate) fn on_time(&self) -> Result<(), RunError> {
        match self.deadline {
            Some(deadline) if deadline.has_passed() => Err(RunError::TooSlow { limit: deadline.limit() }),
            _ => Ok(()),
        }
    }

    /// An error where a run that has an end in time would spend more multiplications than `most` on one
    /// operator: nothing looks at the time inside of it.
    pub(crate) fn time_for(&self, multiplications: u64, most: u64) -> Result<(), RunError> {
        match self.deadline {
            Some(deadline) if multiplications > most => Err(RunError::TooSlow { limit: deadline.limit() }),
            _ => Ok(()),
        }
    }

    /// [`Tensor::reset`], refused where the tensor would be over the memory budget. Every kernel
    /// whose output can be larger than its inputs allocates through this.
    pub(crate) fn reset<'t, T: Element>(
        &self,
        tensor: &'t mut Tensor,
        dims: &[usize],
    ) -> Result<&'t mut [T], RunError> {
        let bytes = dims.iter().try_fold(size_of::<T>() as u64, |n, d| n.checked_mul(*d as u64));
        match (Shape::new(dims), bytes) {
            (Some(shape), Some(bytes)) if bytes <= self.max_tensor_bytes => Ok(tensor.reset(shape)),
            _ => Err(RunError::OverBudget { needed: bytes.unwrap_or(u64::MAX) }),
        }
    }

    /// An error where texts of so many bytes in all are over the memory budget. [`RunContext::reset`]
    /// sees their number and not their length, so every kernel that can write more text than it was
    /// given asks this.
    pub(crate) fn room_for_text(&self, bytes: u64) -> Result<(), RunError> {
        if bytes > self.max_tensor_bytes { Err(RunError::OverBudget { needed: bytes }) } else { Ok(()) }
    }
}

/// The bytes of all texts; 0 for elements of any other type.
pub(crate) fn text_bytes<T: Element>(values: &[T]) -> u64 {
    match T::view(values) {
        DataView::String(texts) => texts.iter().map(|text| text.len() as u64).sum(),
        _ => 0,
    }
}

/// The bytes of the longest text; 0 for elements of any other type.
pub(crate) fn longest_text<T: Element>(values: &[T]) -> u64 {
    match T::view(values) {
        DataView::String(texts) => texts.iter().map(|text| text.len() as u64).max().unwrap_or(0),
        _ => 0,
    }
}

/// The bytes of this many copies of all texts.
pub(crate) fn copied_text<T: Element>(values: &[T], elements: usize) -> u64 {
    let copies = elements.div_ceil(values.len().max(1)) as u64;
    text_bytes(values).saturating_mul(copies)
}

/// An operator as a file states it, in no format's own terms.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// `Scaler`
    pub(crate) operator: &'a str,
    /// `ai.onnx.ml`; the default domain is empty.
    pub(crate) domain: &'a str,
    /// The version of the domain's operator set that the file imports.
    pub(crate) version: i64,
    pub(crate) attributes: &'a Attributes,
    /// For each input: absent (`None`), or its value where that is a constant of the file
    /// (`Some(Some(..))`), or something that comes at run time (`Some(None)`).
    pub(crate) inputs: &'a [Option<Option<&'a Tensor>>],
    pub(crate) outputs: usize,
}

/// Why a node did not become a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BuildError {
    /// Not an operator, or not a form of it, that is computed here.
    #[error("unsupported operator")]
    Unsupported,
    /// The attributes contradict each other or the specification.
    #[error("{0}")]
    Invalid(String),
}

impl BuildError {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid(reason.into())
    }
}
