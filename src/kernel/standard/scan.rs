//! `Scan`: a graph that runs once for each position of an axis.

use smallvec::SmallVec;

use super::body::{Body, Stack, captured, position, weight};
use super::control::empty;
use super::support::{Args, Built, Facts, Run, axis_of, like};
use crate::kernel::program::copy;
use crate::kernel::{BuildError, Fact, FactDim, Kernel, Node, RunContext};
use crate::tensor::{ElementType, Tensor, TensorView};

/// The kernel of the node, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    if name != "Scan" {
        return Err(BuildError::Unsupported);
    }
    let body = Body::new(node, "body")?;
    let scanned = node.attributes.int("num_scan_inputs")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let own = body.inputs - body.captures;
    let states = own.checked_sub(scanned).filter(|_| scanned > 0);
    let states =
        states.ok_or_else(|| BuildError::invalid("attribute `num_scan_inputs` is not what the body has"))?;
    let batched = node.version < 9;
    if node.inputs.len() != body.inputs + usize::from(batched)
        || body.outputs() != node.outputs
        || node.outputs < states
    {
        return Err(BuildError::invalid("the body has another number of inputs or outputs than the node"));
    }
    let list = |attribute: &str, count: usize| -> Result<SmallVec<[i64; 4]>, BuildError> {
        let given = node.attributes.ints(attribute)?;
        if !given.is_empty() && given.len() != count {
            return Err(BuildError::invalid(format!("attribute `{attribute}`: expected {count} values")));
        }
        Ok((0..count).map(|i| given.get(i).copied().unwrap_or(0)).collect())
    };
    let results = node.outputs - states;
    Ok(Box::new(Scan {
        states,
        batched,
        input_axes: list("scan_input_axes", scanned)?,
        input_directions: list(if batched { "directions" } else { "scan_input_directions" }, scanned)?,
        output_axes: list("scan_output_axes", results)?,
        output_directions: list("scan_output_directions", results)?,
        body,
    }))
}

#[derive(Debug)]
struct Scan {
    body: Body,
    states: usize,
    /// Version 8: everything has a batch dimension in front.
    batched: bool,
    input_axes: SmallVec<[i64; 4]>,
    /// 1 for backwards.
    input_directions: SmallVec<[i64; 4]>,
    output_axes: SmallVec<[i64; 4]>,
    output_directions: SmallVec<[i64; 4]>,
}

impl Kernel for Scan {
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let args = Args { operator: "Scan", inputs };
        let captured = captured(args, self.body.captures)?;
        if !self.batched {
            let given: SmallVec<[TensorView<'_>; 8]> =
                (0..self.states + self.input_axes.len()).map(|i| args.get(i)).collect::<Result<_, _>>()?;
            return self.scan(args, &given, &captured, outputs, cx);
        }
        if args.maybe(0).is_some() {
            return Err(args.fail("sequences of one length"));
        }
        let batch = args.get(1)?.shape().rows();
        let mut parts = vec![Tensor::default(); outputs.len()];
        for at in 0..batch {
            let mut given: SmallVec<[TensorView<'_>; 8]> = SmallVec::new();
            for index in 1..=self.states + self.input_axes.len() {
                let view = args.get(index)?;
                let (Some((size, rest)), Some(row)) = (view.dims().split_first(), view.rows(at..at + 1))
                else {
                    return Err(args.fail("inputs of one batch size"));
                };
                let row = crate::tensor::Shape::new(rest).and_then(|shape| row.reshaped(shape));
                given.push(
                    row.filter(|_| *size == batch).ok_or_else(|| args.fail("inputs of one batch size"))?,
                );
            }
            self.scan(args, &given, &captured, &mut parts, cx)?;
            for (to, part) in outputs.iter_mut().zip(&parts) {
                Stack { to, axis: 0, count: batch }.put(args, at, at == 0, part.view(), cx)?;
            }
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        let shift = usize::from(self.batched);
        let output = |index: usize| {
            let fact = self.body.fact(index)?;
            let Some(mut dims) = fact.dims else { return Some(fact) };
            if let Some(result) = index.checked_sub(self.states) {
                let axis =
                    self.output_axes.get(result).and_then(|a| axis_of(*a, dims.len() + 1)).unwrap_or(0);
                let scanned = self.input_axes.first().copied().unwrap_or(0);
                let length = like(inputs, self.states + shift)
                    .and_then(|d| d.get(axis_of(scanned, d.len().checked_sub(shift)?)? + shift).copied());
                dims.insert(axis, length.unwrap_or(FactDim::Unknown));
            }
            if self.batched {
                let batch = like(inputs, 1).and_then(|d| d.first().copied());
                dims.insert(0, batch.unwrap_or(FactDim::Unknown));
            }
            Some(Fact { element: fact.element, dims: Some(dims) })
        };
        // Of a body that does not state its types nothing is known.
        let all: Option<_> = (0..self.body.outputs()).map(output).collect();
        Ok(all.unwrap_or_default())
    }

    fn memory(&self) -> usize {
        self.body.memory()
    }
}

impl Scan {
    fn scan(
        &self,
        args: Args<'_, '_>,
        given: &[TensorView<'_>],
        captured: &[TensorView<'_>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let (initial, scanned) = given.split_at_checked(self.states).unwrap_or((&[], &[]));
        let mut axes: SmallVec<[usize; 4]> = SmallVec::new();
        let mut length = None;
        for (view, axis) in scanned.iter().zip(&self.input_axes) {
            let axis = args.axis(*axis, view.dims().len())?;
            let size = view.dims().get(axis).copied();
            if length.is_some() && length != size {
                return Err(args.fail("inputs of one length"));
            }
            length = size;
            axes.push(axis);
        }
        let length = length.unwrap_or(0);
        let inner = cx.inner();
        let mut turn = self.body.turn();
        for (state, view) in turn.current.iter_mut().zip(initial) {
            copy(*view, state);
        }
        turn.slices.resize_with(scanned.len().max(turn.slices.len()), Tensor::default);
        let mut text = 0_u64;
        for at in 0..length {
            let mut views: SmallVec<[TensorView<'_>; 8]> =
                turn.current.iter().take(self.states).map(Tensor::view).collect();
            let slices = scanned.iter().zip(&axes).zip(&self.input_directions).zip(turn.slices.iter_mut());
            for (((view, axis), direction), spare) in slices {
                let at = if *direction == 1 { length - 1 - at } else { at };
                views.push(position(args, *view, *axis, at, spare)?);
            }
            views.extend(captured.iter().copied());
            inner.on_time()?;
            self.body.run(&mut turn.scratch, &views, &mut turn.next, &inner)?;
            drop(views);
            let results = turn.next.iter().skip(self.states).zip(outputs.iter_mut().skip(self.states));
            let places = self.output_axes.iter().zip(&self.output_directions);
            for ((slice, to), (axis, direction)) in results.zip(places) {
                if slice.element_type() == ElementType::String {
                    text = text.saturating_add(weight(slice));
                    cx.room_for_text(text)?;
                }
                let axis = args.axis(*axis, slice.dims().len() + 1)?;
                let place = if *direction == 1 { length - 1 - at } else { at };
                Stack { to, axis, count: length }.put(args, place, at == 0, slice.view(), cx)?;
            }
            std::mem::swap(&mut turn.current, &mut turn.next);
        }
        for (to, state) in outputs.iter_mut().zip(turn.current.iter_mut()).take(self.states) {
            std::mem::swap(to, state);
        }
        if length == 0 {
            for ((index, to), axis) in outputs.iter_mut().enumerate().skip(self.states).zip(&self.output_axes)
            {
                empty(to, self.body.fact(index), usize::try_from(*axis).unwrap_or(0), cx)?;
            }
        }
        self.body.give_back(turn);
        Ok(())
    }
}
