//! The same elements several times: `Expand`, `Tile`.

use super::layout::unsigned;
use super::strided::{self, Strides, broadcast, dense, stretched};
use super::support::{Args, Built, Dims, Run, any_type, first, of_rank, op, rank};
use crate::kernel::{BuildError, Node, RunContext, copied_text};
use crate::load::RunError;
use crate::tensor::{Element, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, _node: &Node<'_>) -> Built {
    match name {
        "Expand" => op(
            name,
            |inputs| of_rank(inputs, None),
            |args, outputs, cx| {
                let wanted = args.ints(1)?;
                let wanted = unsigned(args, &wanted)?;
                expand(args, outputs, &wanted, cx)
            },
        ),
        "Tile" => op(name, |inputs| of_rank(inputs, rank(inputs, 0)), tile),
        _ => Err(BuildError::Unsupported),
    }
}

/// The first input, broadcast to its own shape joined with this one.
fn expand(args: Args<'_, '_>, outputs: &mut [Tensor], wanted: &[usize], cx: &RunContext) -> Run {
    fn typed<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        dims: &[usize],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let strides = stretched(args.get(0)?.dims(), dims);
        let to = cx.reset::<T>(first(args, outputs)?, dims)?;
        cx.room_for_text(copied_text(values, to.len()))?;
        strided::copy(values, 0, dims, &strides, to);
        Ok(())
    }
    let input = args.get(0)?;
    let dims = broadcast(input.dims(), wanted).ok_or_else(|| args.fail("shapes that broadcast"))?;
    any_type!(input, v => typed(args, v, &dims, outputs, cx))
}

fn tile(args: Args<'_, '_>, outputs: &mut [Tensor], cx: &RunContext) -> Run {
    fn typed<T: Element>(
        args: Args<'_, '_>,
        values: &[T],
        repeats: &[usize],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let shape = args.get(0)?.shape();
        let (dims, strides) = (shape.dims(), dense(shape.dims()));
        let mut to = Dims::new();
        // Each axis is walked as two: the repetitions, which do not move, and the axis itself.
        let (mut walked, mut steps) = (Vec::new(), Strides::new());
        for ((dim, repeat), stride) in dims.iter().zip(repeats).zip(&strides) {
            to.push(dim.checked_mul(*repeat).ok_or(RunError::OverBudget { needed: u64::MAX })?);
            walked.extend([*repeat, *dim]);
            steps.extend([0, *stride]);
        }
        let to = cx.reset::<T>(first(args, outputs)?, &to)?;
        cx.room_for_text(copied_text(values, to.len()))?;
        strided::copy(values, 0, &walked, &steps, to);
        Ok(())
    }
    let input = args.get(0)?;
    let repeats = args.ints(1)?;
    let repeats = unsigned(args, &repeats)?;
    if repeats.len() != input.dims().len() {
        return Err(args.fail("a number of repetitions for each axis"));
    }
    any_type!(input, v => typed(args, v, &repeats, outputs, cx))
}
