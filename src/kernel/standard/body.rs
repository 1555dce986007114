//! A graph inside a node: the program of it, and the tensors of its runs.

use std::sync::Mutex;

use smallvec::SmallVec;

use super::support::{Args, any_type};
use crate::kernel::program::{GraphParts, Program, Scratch, bytes};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{Element, Shape, Tensor, TensorView};

/// The program of a graph that an attribute holds.
#[derive(Debug)]
pub(super) struct Body {
    program: Program,
    pub(super) inputs: usize,
    /// How many of the inputs, the last, come from the graph around.
    pub(super) captures: usize,
    /// What runs before this one left for the next. Each run takes one, so that the lock is held
    /// for a moment only.
    spare: Mutex<Vec<Turn>>,
}

/// The tensors of one run.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) scratch: Scratch,
    pub(super) current: Vec<Tensor>,
    pub(super) next: Vec<Tensor>,
    pub(super) slices: Vec<Tensor>,
}

impl Body {
    pub(super) fn new(node: &Node<'_>, attribute: &str) -> Result<Self, BuildError> {
        let missing = || BuildError::invalid(format!("attribute `{attribute}` is missing"));
        let graph: &GraphParts = node.attributes.graph(attribute)?.ok_or_else(missing)?;
        let (inputs, captures) = (graph.inputs.len(), graph.captures);
        Ok(Self { program: Program::build(graph.clone())?, inputs, captures, spare: Mutex::default() })
    }

    pub(super) fn outputs(&self) -> usize {
        self.program.outputs()
    }

    /// What is known of an output, all dimensions that are not fixed being unknown.
    pub(super) fn fact(&self, index: usize) -> Option<Fact> {
        let fact = self.program.fact(index)?;
        let fixed =
            |d: &FactDim| if let FactDim::Fixed(n) = d { FactDim::Fixed(*n) } else { FactDim::Unknown };
        let dims = fact.dims.as_ref().map(|dims| dims.iter().map(fixed).collect());
        Some(Fact { element: fact.element, dims })
    }

    pub(super) fn memory(&self) -> usize {
        self.program.memory()
    }

    /// The tensors for a run, to be given back with [`Body::give_back`].
    pub(super) fn turn(&self) -> Turn {
        let spare = self.spare.lock().ok().and_then(|mut spare| spare.pop());
        let mut turn = spare.unwrap_or_default();
        turn.current.resize_with(self.outputs(), Tensor::default);
        turn.next.resize_with(self.outputs(), Tensor::default);
        turn
    }

    pub(super) fn give_back(&self, turn: Turn) {
        if let Ok(mut spare) = self.spare.lock() {
            spare.push(turn);
        }
    }

    /// Runs the program once; the answers are in `outputs`.
    pub(super) fn run(
        &self,
        scratch: &mut Scratch,
        inputs: &[TensorView<'_>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        self.program.run_to(scratch, inputs, outputs, cx)
    }
}

/// The last inputs of a node: those that its graph captures.
pub(super) fn captured<'v>(
    args: Args<'_, 'v>,
    count: usize,
) -> Result<SmallVec<[TensorView<'v>; 8]>, RunError> {
    let from = args.inputs.len().saturating_sub(count);
    (from..args.inputs.len()).map(|i| args.get(i)).collect()
}

/// Slices that become one tensor, joined along a new axis.
#[derive(Debug)]
pub(super) struct Stack<'a> {
    pub(super) to: &'a mut Tensor,
    pub(super) axis: usize,
    /// How many slices there will be.
    pub(super) count: usize,
}

impl Stack<'_> {
    /// Puts a slice in its place; the first one makes the room.
    pub(super) fn put(
        &mut self,
        args: Args<'_, '_>,
        at: usize,
        is_first: bool,
        slice: TensorView<'_>,
        cx: &RunContext,
    ) -> Result<(), RunError> {
        fn typed<T: Element>(
            stack: &mut Stack<'_>,
            args: Args<'_, '_>,
            (at, is_first): (usize, bool),
            (values, dims): (&[T], &[usize]),
            cx: &RunContext,
        ) -> Result<(), RunError> {
            let mut all: SmallVec<[usize; 8]> = dims.into();
            if stack.axis > all.len() {
                return Err(args.fail("an axis that the result has"));
            }
            all.insert(stack.axis, stack.count);
            if is_first {
                cx.reset::<T>(stack.to, &all)?;
            }
            if stack.to.dims() != all.as_slice() {
                return Err(args.fail("results of the same shape from every turn"));
            }
            let inner: usize = dims.get(stack.axis..).unwrap_or(&[]).iter().product();
            let (count, to) = (stack.count, stack.to.values_mut::<T>().unwrap_or(&mut []));
            if inner > 0 {
                for (to, from) in to.chunks_exact_mut(count * inner).zip(values.chunks_exact(inner)) {
                    to.get_mut(at * inner..(at + 1) * inner)
                        .into_iter()
                        .for_each(|to| to.clone_from_slice(from));
                }
            }
            Ok(())
        }
        any_type!(slice, v => typed(self, args, (at, is_first), (v, slice.dims()), cx))
    }
}

/// One position of an axis, without the axis. The first axis needs no copy.
pub(super) fn position<'v>(
    args: Args<'_, '_>,
    view: TensorView<'v>,
    axis: usize,
    at: usize,
    spare: &'v mut Tensor,
) -> Result<TensorView<'v>, RunError> {
    fn typed<T: Element>(
        values: &[T],
        dims: &[usize],
        axis: usize,
        at: usize,
        shape: Shape,
        to: &mut Tensor,
    ) {
        let inner: usize = dims.get(axis + 1..).unwrap_or(&[]).iter().product();
        let size = dims.get(axis).copied().unwrap_or(0);
        let to = to.reset::<T>(shape);
        if inner > 0 {
            for (to, from) in to.chunks_exact_mut(inner).zip(values.chunks_exact((size * inner).max(1))) {
                to.clone_from_slice(from.get(at * inner..(at + 1) * inner).unwrap_or(&[]));
            }
        }
    }
    let mut dims: SmallVec<[usize; 8]> = view.dims().into();
    dims.remove(axis);
    let shape = Shape::new(&dims).ok_or_else(|| args.fail("fewer dimensions"))?;
    if axis == 0 {
        let row = view.rows(at..at + 1).and_then(|row| row.reshaped(shape));
        return row.ok_or_else(|| args.fail("a position that the axis has"));
    }
    any_type!(view, v => typed(v, view.dims(), axis, at, shape, spare));
    Ok(spare.view())
}

/// The bytes of a tensor, of those that a loop collects.
pub(super) fn weight(tensor: &Tensor) -> u64 {
    bytes(tensor) as u64
}
