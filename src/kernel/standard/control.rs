//! `If` and `Loop`.

use smallvec::SmallVec;

use super::body::{Body, Stack, captured, weight};
use super::support::{Args, Built, Facts, Run};
use crate::kernel::program::{GraphParts, copy};
use crate::kernel::{BuildError, Fact, FactDim, Kernel, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{Shape, Tensor, TensorView};

/// A loop that has not ended after so many turns never will; loops in a loop share them.
const MAX_TURNS: i64 = 1 << 20;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "If" => {
            let (then, other) = (Body::new(node, "then_branch")?, Body::new(node, "else_branch")?);
            if then.outputs() != node.outputs || other.outputs() != node.outputs {
                return Err(BuildError::invalid("the branches have another number of outputs than the node"));
            }
            Ok(Box::new(If { then, other }))
        }
        "Loop" => {
            let body = Body::new(node, "body")?;
            let own = body.inputs - body.captures;
            let states = own
                .checked_sub(2)
                .ok_or_else(|| BuildError::invalid("the body has fewer than two inputs"))?;
            let fits = node.inputs.len() == body.inputs && body.outputs() == node.outputs + 1;
            if !fits || node.outputs < states {
                return Err(BuildError::invalid("the body has another number of states than the node"));
            }
            let depth = 1 + node.attributes.graphs().map(GraphParts::loops).max().unwrap_or(0);
            Ok(Box::new(Loop { body, states, max_turns: MAX_TURNS >> (20 - 20 / depth.clamp(1, 20)) }))
        }
        _ => Err(BuildError::Unsupported),
    }
}

/// One of two graphs.
#[derive(Debug)]
struct If {
    then: Body,
    other: Body,
}

impl Kernel for If {
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let args = Args { operator: "If", inputs };
        let body = match args.values::<bool>(0)? {
            [true] => &self.then,
            [false] => &self.other,
            _ => return Err(args.fail("one condition")),
        };
        let mut turn = body.turn();
        let done = body.run(&mut turn.scratch, &captured(args, body.captures)?, outputs, &cx.inner());
        body.give_back(turn);
        done
    }

    fn facts(&self, _inputs: &[Option<Fact>]) -> Facts {
        let output = |index| {
            let unknown = || BuildError::invalid("the type of a branch's output is not known");
            let (a, b) = (self.then.fact(index), self.other.fact(index));
            let (a, b) = (a.ok_or_else(unknown)?, b.ok_or_else(unknown)?);
            if a.element != b.element {
                return Err(BuildError::invalid(format!(
                    "branches that give {} and {}",
                    a.element, b.element
                )));
            }
            let dims = a.dims.zip(b.dims).filter(|(a, b)| a.len() == b.len()).map(|(a, b)| {
                a.iter().zip(&b).map(|(a, b)| if a == b { *a } else { FactDim::Unknown }).collect()
            });
            Ok(Fact { element: a.element, dims })
        };
        (0..self.then.outputs()).map(output).collect()
    }

    fn memory(&self) -> usize {
        self.then.memory() + self.other.memory()
    }
}

/// A graph that runs again and again on what it answered.
#[derive(Debug)]
struct Loop {
    body: Body,
    states: usize,
    max_turns: i64,
}

impl Kernel for Loop {
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let args = Args { operator: "Loop", inputs };
        let most = args.maybe_ints(0)?.and_then(|m| m.first().copied());
        let mut goes_on = match args.maybe(1) {
            Some(_) => *args.values::<bool>(1)?.first().ok_or_else(|| args.fail("one condition"))?,
            None => true,
        };
        let captured = captured(args, self.body.captures)?;
        let mut turn = self.body.turn();
        for (index, state) in turn.current.iter_mut().skip(1).take(self.states).enumerate() {
            copy(args.get(2 + index)?, state);
        }
        let mut collected: Vec<Vec<Tensor>> = vec![Vec::new(); outputs.len().saturating_sub(self.states)];
        let inner = cx.inner();
        let mut count = Tensor::scalar(0_i64);
        let mut held = 0_u64;
        let mut i = 0_i64;
        while goes_on && most.is_none_or(|m| i < m) {
            if i >= self.max_turns {
                return Err(args.fail("a loop that ends within a million turns, or its share of them"));
            }
            count.reset::<i64>(Shape::SCALAR).fill(i);
            turn.current.first_mut().into_iter().for_each(|c| c.reset::<bool>(Shape::SCALAR).fill(goes_on));
            let mut views: SmallVec<[TensorView<'_>; 8]> = SmallVec::new();
            views.push(count.view());
            views.extend(turn.current.iter().take(self.states + 1).map(Tensor::view));
            views.extend(captured.iter().copied());
            inner.on_time()?;
            self.body.run(&mut turn.scratch, &views, &mut turn.next, &inner)?;
            drop(views);
            let answer = turn.next.first().and_then(Tensor::values::<bool>);
            goes_on = answer.and_then(|a| a.first().copied()).ok_or_else(|| args.fail("a condition"))?;
            for (all, slice) in collected.iter_mut().zip(turn.next.iter_mut().skip(self.states + 1)) {
                held = held.saturating_add(weight(slice));
                if held > cx.max_tensor_bytes {
                    return Err(RunError::OverBudget { needed: held });
                }
                all.push(std::mem::take(slice));
            }
            std::mem::swap(&mut turn.current, &mut turn.next);
            i += 1;
        }
        let (states, stacks) = outputs.split_at_mut_checked(self.states).unwrap_or((&mut [], &mut []));
        for (to, state) in states.iter_mut().zip(turn.current.iter_mut().skip(1)) {
            std::mem::swap(to, state);
        }
        self.body.give_back(turn);
        for ((to, slices), index) in stacks.iter_mut().zip(collected).zip(self.states + 1..) {
            stack(args, to, &slices, self.body.fact(index), cx)?;
        }
        Ok(())
    }

    fn facts(&self, _inputs: &[Option<Fact>]) -> Facts {
        let output = |index: usize| {
            let fact = self.body.fact(index + 1)?;
            let dims = match fact.dims {
                Some(dims) if index >= self.states => {
                    Some(std::iter::once(FactDim::Unknown).chain(dims).collect())
                }
                // A state may have another shape after each turn.
                _ => None,
            };
            Some(Fact { element: fact.element, dims })
        };
        // Of a body that does not state its types nothing is known.
        let all: Option<_> = (0..self.body.outputs().saturating_sub(1)).map(output).collect();
        Ok(all.unwrap_or_default())
    }

    fn memory(&self) -> usize {
        self.body.memory()
    }
}

/// All slices along a new first axis; an empty tensor where there is none.
fn stack(args: Args<'_, '_>, to: &mut Tensor, slices: &[Tensor], fact: Option<Fact>, cx: &RunContext) -> Run {
    if slices.is_empty() {
        return empty(to, fact, 0, cx);
    }
    let mut stack = Stack { to, axis: 0, count: slices.len() };
    slices.iter().enumerate().try_for_each(|(i, slice)| stack.put(args, i, i == 0, slice.view(), cx))
}

/// The result of no turns at all: of the type and rank that the graph would have given.
pub(super) fn empty(to: &mut Tensor, fact: Option<Fact>, axis: usize, cx: &RunContext) -> Run {
    use crate::tensor::ElementType as E;
    let element = fact.as_ref().map_or(E::F32, |f| f.element);
    let known = fact.and_then(|f| f.dims).unwrap_or_default();
    let fixed = |d: &FactDim| if let FactDim::Fixed(n) = d { *n } else { 0 };
    let mut dims: SmallVec<[usize; 8]> = known.iter().map(fixed).collect();
    dims.insert(axis.min(dims.len()), 0);
    match element {
        E::F32 => cx.reset::<f32>(to, &dims).map(drop),
        E::F64 => cx.reset::<f64>(to, &dims).map(drop),
        E::I8 => cx.reset::<i8>(to, &dims).map(drop),
        E::I16 => cx.reset::<i16>(to, &dims).map(drop),
        E::I32 => cx.reset::<i32>(to, &dims).map(drop),
        E::I64 => cx.reset::<i64>(to, &dims).map(drop),
        E::U8 => cx.reset::<u8>(to, &dims).map(drop),
        E::U16 => cx.reset::<u16>(to, &dims).map(drop),
        E::U32 => cx.reset::<u32>(to, &dims).map(drop),
        E::U64 => cx.reset::<u64>(to, &dims).map(drop),
        E::Bool => cx.reset::<bool>(to, &dims).map(drop),
        E::String => cx.reset::<String>(to, &dims).map(drop),
    }
}
