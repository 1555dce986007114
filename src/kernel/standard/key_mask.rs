//! What a mask of keys adds to the logits of attention; an operator of our own, for onnxruntime's
//! fused attention.

use smallvec::SmallVec;

use super::support::{Args, Built, Run, first, ints, one, op};
use crate::kernel::{FactDim, Node, RunContext};
use crate::tensor::{ElementType, Tensor};

/// The kernel of a `KeyMask` of a mask and the keys.
///
/// The mask is, by its rank: the number of keys of each sequence, or these and where each begins; a
/// flag for each key of a sequence; a flag for each query and key. The result is 0 for a key that is
/// to be seen and `filter` for others, of `[batch, 1, queries or 1, keys]`.
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    let filter = node.attributes.float("filter")?.unwrap_or(f32::MIN);
    op(
        name,
        |_| one(ElementType::F32, Some(SmallVec::from_elem(FactDim::Unknown, 4))),
        move |args, outputs, cx| run(args, filter, outputs, cx),
    )
}

fn run(args: Args<'_, '_>, filter: f32, outputs: &mut [Tensor], cx: &RunContext) -> Run {
    let (mask, keys) = (args.get(0)?, args.get(1)?);
    let (batch, length) = match keys.dims() {
        [batch, length, _] | [batch, _, length, _] => (*batch, *length),
        _ => return Err(args.fail("keys of three or four dimensions")),
    };
    let flags = ints(mask).ok_or_else(|| args.fail("a mask of whole numbers"))?;
    let value = |seen: bool| if seen { 0.0 } else { filter };
    match mask.dims() {
        [count] if *count == batch || *count == 2 * batch => {
            let to = cx.reset::<f32>(first(args, outputs)?, &[batch, 1, 1, length])?;
            for (sequence, to) in to.chunks_exact_mut(length.max(1)).enumerate() {
                let end = flags.get(sequence).copied().unwrap_or(0);
                let start = flags.get(batch + sequence).copied().unwrap_or(0);
                for (at, to) in (0_i64..).zip(to) {
                    *to = value((start..end).contains(&at));
                }
            }
        }
        [sequences, width] if *sequences == batch && *width == length => {
            let to = cx.reset::<f32>(first(args, outputs)?, &[batch, 1, 1, length])?;
            to.iter_mut().zip(flags).for_each(|(to, flag)| *to = value(flag > 0));
        }
        [sequences, queries, width] if *sequences == batch && *width == length => {
            let to = cx.reset::<f32>(first(args, outputs)?, &[batch, 1, *queries, length])?;
            to.iter_mut().zip(flags).for_each(|(to, flag)| *to = value(flag > 0));
        }
        _ => return Err(args.fail("a mask that fits the keys")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::standard::build as kernel;
    use crate::kernel::{Attribute, Attributes, OWN_DOMAIN};

    fn added(mask: &Tensor, keys: [usize; 3]) -> (Vec<usize>, Vec<f32>) {
        let mut attributes = Attributes::default();
        attributes.insert("filter", Attribute::Float(-9.0));
        let node = Node {
            operator: "KeyMask",
            domain: OWN_DOMAIN,
            version: 1,
            attributes: &attributes,
            inputs: &[Some(None), Some(None)],
            outputs: 1,
        };
        let keys = Tensor::new(&keys, vec![0.0_f32; keys.iter().product()]).unwrap();
        let mut outputs = [Tensor::default()];
        let inputs = [Some(mask.view()), Some(keys.view())];
        kernel(&node).unwrap().run(&inputs, &mut outputs, &RunContext::default()).unwrap();
        (outputs[0].dims().to_vec(), outputs[0].values::<f32>().unwrap().to_vec())
    }

    #[test]
    fn a_mask_is_read_by_its_rank() {
        let lengths = added(&Tensor::vector(vec![2_i32, 3]), [2, 3, 4]);
        assert_eq!(lengths, (vec![2, 1, 1, 3], vec![0.0, 0.0, -9.0, 0.0, 0.0, 0.0]));
        let ranges = added(&Tensor::vector(vec![2_i32, 3, 0, 1]), [2, 3, 4]);
        assert_eq!(ranges.1, [0.0, 0.0, -9.0, -9.0, 0.0, 0.0]);
        let flags = added(&Tensor::new(&[2, 3], vec![1_i64, 0, 1, 0, 0, 1]).unwrap(), [2, 3, 4]);
        assert_eq!(flags, (vec![2, 1, 1, 3], vec![0.0, -9.0, 0.0, -9.0, -9.0, 0.0]));
        let each = added(&Tensor::new(&[1, 2, 2], vec![1_i32, 0, 1, 1]).unwrap(), [1, 2, 4]);
        assert_eq!(each, (vec![1, 1, 2, 2], vec![0.0, -9.0, 0.0, 0.0]));
    }
}
