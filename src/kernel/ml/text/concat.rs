//! `StringConcat`: two string tensors, element by element, with broadcast.

use smallvec::{SmallVec, smallvec};

use crate::kernel::ml::common::{input, same_dims, values};
use crate::kernel::{BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, MAX_RANK, Tensor, TensorView};

const OPERATOR: &str = "StringConcat";

#[derive(Debug)]
pub(super) struct StringConcat;

impl Kernel for StringConcat {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let (x, y) = (input(inputs, 0, OPERATOR)?, input(inputs, 1, OPERATOR)?);
        let (left, right) = (values::<String>(x, OPERATOR)?, values::<String>(y, OPERATOR)?);
        let dims = broadcast(x.dims(), y.dims())
            .ok_or(RunError::Operator { operator: OPERATOR, expected: "shapes that broadcast" })?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let out = cx.reset::<String>(out, &dims)?;
        let mut left_at = Walk::new(x.dims(), &dims);
        let mut right_at = Walk::new(y.dims(), &dims);
        let mut text = 0_u64;
        for out in out {
            let left = left.get(left_at.step(&dims)).map_or("", String::as_str);
            let right = right.get(right_at.step(&dims)).map_or("", String::as_str);
            text = text.saturating_add((left.len() + right.len()) as u64);
            cx.room_for_text(text)?;
            out.clear();
            out.push_str(left);
            out.push_str(right);
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let dims = match (same_dims(inputs, 0), same_dims(inputs, 1)) {
            (Some(left), Some(right)) => Some(broadcast_facts(&left, &right)),
            _ => None,
        };
        Ok(smallvec![Fact { element: ElementType::String, dims }])
    }
}

/// The shape that both broadcast to, or `None` where they do not.
fn broadcast(left: &[usize], right: &[usize]) -> Option<SmallVec<[usize; MAX_RANK]>> {
    let rank = left.len().max(right.len());
    let dim = |dims: &[usize], axis: usize| match (axis + dims.len()).checked_sub(rank) {
        Some(own) => dims.get(own).copied().unwrap_or(1),
        None => 1,
    };
    (0..rank)
        .map(|axis| match (dim(left, axis), dim(right, axis)) {
            (1, n) | (n, 1) => Some(n),
            (n, m) => (n == m).then_some(n),
        })
        .collect()
}

fn broadcast_facts(left: &[FactDim], right: &[FactDim]) -> SmallVec<[FactDim; 4]> {
    let rank = left.len().max(right.len());
    let dim = |dims: &[FactDim], axis: usize| match (axis + dims.len()).checked_sub(rank) {
        Some(own) => dims.get(own).copied().unwrap_or(FactDim::Unknown),
        None => FactDim::Fixed(1),
    };
    (0..rank)
        .map(|axis| match (dim(left, axis), dim(right, axis)) {
            (FactDim::Fixed(1), other) | (other, FactDim::Fixed(1)) => other,
            // Of an open one and a fixed one above 1 the fixed one is what comes out.
            (FactDim::Fixed(n), _) | (_, FactDim::Fixed(n)) => FactDim::Fixed(n),
            _ => FactDim::Unknown,
        })
        .collect()
}

/// Goes over the elements of a tensor in the order of the shape that it broadcasts to.
struct Walk {
    strides: SmallVec<[usize; MAX_RANK]>,
    position: SmallVec<[usize; MAX_RANK]>,
    offset: usize,
}

impl Walk {
    fn new(own: &[usize], shape: &[usize]) -> Self {
        let mut strides: SmallVec<[usize; MAX_RANK]> = smallvec![0; shape.len()];
        let mut stride = 1_usize;
        for (out, dim) in strides.iter_mut().rev().zip(own.iter().rev()) {
            // An axis that is repeated stays where it is.
            *out = if *dim == 1 { 0 } else { stride };
            stride = stride.saturating_mul(*dim);
        }
        Self { strides, position: smallvec![0; shape.len()], offset: 0 }
    }

    /// The offset of the current element; goes on to the next one.
    fn step(&mut self, shape: &[usize]) -> usize {
        let offset = self.offset;
        let axes = self.position.iter_mut().zip(&self.strides).zip(shape).rev();
        for ((position, stride), dim) in axes {
            *position += 1;
            self.offset += stride;
            if *position < *dim {
                break;
            }
            self.offset -= stride * *position;
            *position = 0;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::RunContext;
    use crate::kernel::ml::common::testing::{build, run, words};
    use crate::load::RunError;
    use crate::tensor::Tensor;

    fn joined(x: Tensor, y: Tensor) -> Result<Tensor, RunError> {
        Ok(run(&*build(":StringConcat", vec![]).unwrap(), &[x, y], 1)?.remove(0))
    }

    #[test]
    fn elements_are_joined_one_by_one() {
        let y = joined(words(&[2], &["abc", "def"]), words(&[2], &[".com", ".net"])).unwrap();
        assert_eq!(y, words(&[2], &["abc.com", "def.net"]));
    }

    #[test]
    fn shapes_broadcast_both_ways() {
        let y = joined(words(&[2, 1], &["a", "b"]), words(&[3], &["x", "y", "z"])).unwrap();
        assert_eq!(y, words(&[2, 3], &["ax", "ay", "az", "bx", "by", "bz"]));
        let y = joined(words(&[], &["a"]), words(&[1, 2], &["x", "y"])).unwrap();
        assert_eq!(y, words(&[1, 2], &["ax", "ay"]));
        assert_eq!(joined(words(&[0], &[]), words(&[1], &["x"])).unwrap(), words(&[0], &[]));
    }

    #[test]
    fn shapes_that_do_not_broadcast_are_refused() {
        let error = joined(words(&[2], &["a", "b"]), words(&[3], &["x", "y", "z"])).unwrap_err();
        assert_eq!(error.to_string(), "StringConcat expected shapes that broadcast");
    }

    #[test]
    fn texts_over_the_memory_budget_are_refused() {
        let twice = build(":StringConcat", vec![]).unwrap();
        let context = RunContext::new(1 << 10);
        let mut text = words(&[2], &["abc", "d"]);
        let refused = (0..12).find_map(|_| {
            let mut out = [Tensor::default()];
            let done = twice.run(&[Some(text.view()), Some(text.view())], &mut out, &context);
            std::mem::swap(&mut text, &mut out[0]);
            done.err()
        });
        assert_eq!(refused, Some(RunError::OverBudget { needed: 1536 }));
    }
}
