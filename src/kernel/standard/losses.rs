//! Losses as outputs: `NegativeLogLikelihoodLoss`, `SoftmaxCrossEntropyLoss`.

use smallvec::smallvec;

use super::number::Float;
use super::support::{Args, Built, Facts, Run, fact, float_type, ints, like, op};
use crate::kernel::{BuildError, Fact, Node};
use crate::load::RunError;
use crate::tensor::{Shape, Tensor};

#[derive(Clone, Copy, PartialEq)]
enum Reduction {
    None,
    Mean,
    Sum,
}

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    let with_softmax = match name {
        "NegativeLogLikelihoodLoss" => false,
        "SoftmaxCrossEntropyLoss" => true,
        _ => return Err(BuildError::Unsupported),
    };
    let reduction = match node.attributes.string("reduction")?.unwrap_or("mean") {
        "none" => Reduction::None,
        "mean" => Reduction::Mean,
        "sum" => Reduction::Sum,
        other => return Err(BuildError::invalid(format!("attribute `reduction`: found `{other}`"))),
    };
    let ignored = node.attributes.int("ignore_index")?;
    let count = node.outputs;
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let dims = if reduction == Reduction::None { like(inputs, 1) } else { Some(smallvec![]) };
        let mut facts = smallvec![Fact { element, dims }];
        if count > 1 {
            facts.push(Fact { element, dims: like(inputs, 0) });
        }
        Ok(facts)
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        float_type!(args, input, v => loss(args, v, (with_softmax, reduction, ignored), outputs))
    })
}

fn loss<T: Float>(
    args: Args<'_, '_>,
    scores: &[T],
    (with_softmax, reduction, ignored): (bool, Reduction, Option<i64>),
    outputs: &mut [Tensor],
) -> Run {
    let (shape, target) = (args.get(0)?.shape(), args.get(1)?);
    let [batch, classes, inner @ ..] = shape.dims() else { return Err(args.fail("scores of classes")) };
    let fits = target.dims().split_first().is_some_and(|(rows, rest)| rows == batch && rest == inner);
    let labels = ints(target).filter(|_| fits).ok_or_else(|| args.fail("a class for each row of scores"))?;
    let weights = if args.maybe(2).is_some() { Some(args.values::<T>(2)?) } else { None };
    if weights.is_some_and(|w| w.len() != *classes) {
        return Err(args.fail("a weight for each class"));
    }
    let inner: usize = inner.iter().product();
    let logs = if with_softmax { log_softmax(scores, *classes, inner) } else { scores.to_vec() };
    let mut losses = Vec::with_capacity(labels.len());
    let (mut sum, mut total) = (0.0_f64, 0.0_f64);
    for (at, label) in labels.iter().enumerate() {
        if ignored == Some(*label) {
            losses.push(T::ZERO);
            continue;
        }
        let class = usize::try_from(*label).ok().filter(|c| c < classes);
        let class = class.ok_or_else(|| args.fail("labels that are classes"))?;
        let (row, inside) = (at / inner.max(1), at % inner.max(1));
        let score = logs.get((row * classes + class) * inner + inside).copied().unwrap_or(T::ZERO);
        let weight = weights.and_then(|w| w.get(class)).map_or(1.0, |w| w.to_f64());
        let loss = -score.to_f64() * weight;
        losses.push(T::from_f64(loss));
        sum += loss;
        total += weight;
    }
    let [first, rest @ ..] = outputs else { return Err(args.fail("an output")) };
    match reduction {
        Reduction::None => first.reset::<T>(target.shape()).copy_from_slice(&losses),
        Reduction::Sum => first.reset::<T>(Shape::SCALAR).fill(T::from_f64(sum)),
        Reduction::Mean => first.reset::<T>(Shape::SCALAR).fill(T::from_f64(sum / total)),
    }
    if let Some(second) = rest.first_mut() {
        second.reset::<T>(shape).copy_from_slice(&logs);
    }
    Ok::<(), RunError>(())
}

fn log_softmax<T: Float>(scores: &[T], classes: usize, inner: usize) -> Vec<T> {
    let mut logs = scores.to_vec();
    let block = classes * inner;
    for (to, from) in logs.chunks_exact_mut(block.max(1)).zip(scores.chunks_exact(block.max(1))) {
        for inside in 0..inner {
            let lane = || from.iter().skip(inside).step_by(inner);
            let most = lane()
                .fold(f64::NEG_INFINITY, |most, x| if x.is_nan() { f64::NAN } else { most.max(x.to_f64()) });
            let log = lane().map(|x| (x.to_f64() - most).exp()).sum::<f64>().ln();
            for (to, x) in to.iter_mut().skip(inside).step_by(inner).zip(lane()) {
                *to = T::from_f64(x.to_f64() - most - log);
            }
        }
    }
    logs
}
