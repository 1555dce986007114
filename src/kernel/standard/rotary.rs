//! `RotaryEmbedding`: positions told by turning pairs of numbers.

use smallvec::SmallVec;

use super::attention::Heads;
use super::number::Float;
use super::support::{Args, Built, Run, float_type, ints, op, same};
use crate::kernel::{BuildError, Node};
use crate::tensor::Tensor;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    if name == "RotaryEmbedding" { rotary(name, node) } else { Err(BuildError::Unsupported) }
}

fn rotary(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(
        args: Args<'_, '_>,
        values: &[T],
        (interleaved, rotated, heads): (bool, usize, Option<usize>),
        outputs: &mut [Tensor],
    ) -> Run {
        let x = Heads::<T>::new(args, 0, heads)?;
        let rotated = if rotated == 0 { x.size } else { rotated };
        let half = rotated / 2;
        let (cos, sin) = (args.values::<T>(1)?, args.values::<T>(2)?);
        let width = args.get(1)?.dims().last().copied().unwrap_or(0);
        let positions = match args.maybe(3) {
            Some(view) => Some(ints(view).ok_or_else(|| args.fail("positions"))?),
            None => None,
        };
        let count = positions.as_ref().map_or_else(|| cos.len() / width.max(1), SmallVec::len);
        if width != half || rotated > x.size || cos.len() != sin.len() || count != x.batch * x.length {
            return Err(args.fail("a cosine and a sine for each position"));
        }
        let to = outputs.first_mut().ok_or_else(|| args.fail("an output"))?.reset::<T>(args.get(0)?.shape());
        to.copy_from_slice(values);
        for b in 0..x.batch {
            for at in 0..x.length {
                let row = b * x.length + at;
                let row = match &positions {
                    Some(p) => p
                        .get(row)
                        .and_then(|p| usize::try_from(*p).ok())
                        .ok_or_else(|| args.fail("positions"))?,
                    None => row,
                };
                let angles = row.saturating_mul(half);
                let end = angles.saturating_add(half);
                let (Some(cos), Some(sin)) = (cos.get(angles..end), sin.get(angles..end)) else {
                    return Err(args.fail("positions that the cache has"));
                };
                for h in 0..x.heads {
                    let start = x.place(b, h, at);
                    let from = x.row(b, h, at);
                    let Some(to) = to.get_mut(start..start + x.size) else { continue };
                    for (i, (cos, sin)) in cos.iter().zip(sin).enumerate() {
                        let (real, imaginary) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
                        let (Some(a), Some(b)) = (from.get(real), from.get(imaginary)) else { continue };
                        let turned = [
                            (real, cos.times(*a).minus(sin.times(*b))),
                            (imaginary, sin.times(*a).plus(cos.times(*b))),
                        ];
                        for (place, value) in turned {
                            to.get_mut(place).into_iter().for_each(|to| *to = value);
                        }
                    }
                }
            }
        }
        Ok(())
    }
    let count = |name: &str| -> Result<usize, BuildError> {
        Ok(node.attributes.int(name)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
    };
    let interleaved = node.attributes.int("interleaved")?.unwrap_or(0) != 0;
    let settings =
        (interleaved, count("rotary_embedding_dim")?, Some(count("num_heads")?).filter(|n| *n > 0));
    op(name, same, move |args, outputs, _| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, settings, outputs))
    })
}
