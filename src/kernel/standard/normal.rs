//! Normalisations: `Softmax`, `LogSoftmax`, `Hardmax`, `LayerNormalization`, `BatchNormalization`.

use smallvec::SmallVec;

use super::number::{Float, Number};
use super::support::{Args, Built, Run, fact, first, float_type, like, op, same};
use super::vector;
use crate::kernel::{BuildError, Fact, FactDim, Node};
use crate::load::RunError;
use crate::tensor::{Shape, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "Softmax" => soft(name, node, Soft::Plain),
        "LogSoftmax" => soft(name, node, Soft::Log),
        "Hardmax" => soft(name, node, Soft::Hard),
        "LayerNormalization" => layer(name, node),
        "BatchNormalization" => batch(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

#[derive(Clone, Copy)]
enum Soft {
    Plain,
    Log,
    Hard,
}

/// Before version 13 everything from the axis on is one axis.
fn soft(name: &'static str, node: &Node<'_>, kind: Soft) -> Built {
    fn typed<T: SoftFloat>(
        args: Args<'_, '_>,
        values: &[T],
        axis: i64,
        merged: bool,
        kind: Soft,
        outputs: &mut [Tensor],
    ) -> Run {
        let (shape, _, [_, mut size, mut inner]) = super::select::lanes(args, axis)?;
        if merged {
            (size, inner) = (size * inner, 1);
        }
        let to = first(args, outputs)?.reset::<T>(shape);
        let block = size * inner;
        if block == 0 {
            return Ok(());
        }
        if inner == 1 {
            for (to, from) in to.chunks_exact_mut(size).zip(values.chunks_exact(size)) {
                T::lane(from, to, kind);
            }
            return Ok(());
        }
        let (mut lane, mut done) = (vec![T::ZERO; size], vec![T::ZERO; size]);
        for (to, from) in to.chunks_exact_mut(block).zip(values.chunks_exact(block)) {
            for inside in 0..inner {
                for (x, from) in lane.iter_mut().zip(from.iter().skip(inside).step_by(inner)) {
                    *x = *from;
                }
                T::lane(&lane, &mut done, kind);
                for (to, x) in to.iter_mut().skip(inside).step_by(inner).zip(&done) {
                    *to = *x;
                }
            }
        }
        Ok(())
    }
    let merged = node.version < 13;
    let axis = node.attributes.int("axis")?.unwrap_or(if merged { 1 } else { -1 });
    op(name, same, move |args, outputs, _| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, axis, merged, kind, outputs))
    })
}

/// One lane of Softmax and its kind.
trait SoftFloat: Float {
    fn lane(from: &[Self], to: &mut [Self], kind: Soft) {
        let most = from.iter().fold(Self::LOWEST, |most, x| most.larger(*x));
        match kind {
            Soft::Plain => {
                for (to, x) in to.iter_mut().zip(from) {
                    *to = x.minus(most);
                }
                Self::exps_in_place(to);
                let sum = to.iter().fold(Self::ZERO, |sum, x| sum.plus(*x));
                for to in to {
                    *to = to.over(sum);
                }
            }
            Soft::Log => {
                let sum = from.iter().fold(Self::ZERO, |sum, x| sum.plus(x.minus(most).exp()));
                let log = sum.ln();
                to.iter_mut().zip(from).for_each(|(to, x)| *to = x.minus(most).minus(log));
            }
            Soft::Hard => {
                let at = from.iter().position(|x| *x == most);
                let mark =
                    |(i, to): (usize, &mut Self)| *to = if Some(i) == at { Self::ONE } else { Self::ZERO };
                to.iter_mut().enumerate().for_each(mark);
            }
        }
    }

    /// `e^x` of each element.
    fn exps_in_place(values: &mut [Self]);
}

impl SoftFloat for f32 {
    fn exps_in_place(values: &mut [Self]) {
        vector::exp_in_place(values);
    }
}

impl SoftFloat for f64 {
    fn exps_in_place(values: &mut [Self]) {
        for x in values {
            *x = x.exp();
        }
    }
}

fn layer(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(
        args: Args<'_, '_>,
        values: &[T],
        axis: i64,
        epsilon: f32,
        outputs: &mut [Tensor],
    ) -> Run {
        let shape = args.get(0)?.shape();
        let axis = args.axis(axis, shape.dims().len())?;
        let normal: usize = shape.dims().get(axis..).unwrap_or(&[]).iter().product();
        let rows: usize = shape.dims().get(..axis).unwrap_or(&[]).iter().product();
        let parameter = |index: usize| -> Result<Option<&[T]>, RunError> {
            if args.maybe(index).is_none() {
                return Ok(None);
            }
            let values = args.values::<T>(index)?;
            if values.len() == normal {
                Ok(Some(values))
            } else {
                Err(args.fail("a scale for each element of a row"))
            }
        };
        let (scale, bias) = (parameter(1)?, parameter(2)?);
        let mut small: SmallVec<[usize; 8]> = shape.dims().into();
        small.iter_mut().skip(axis).for_each(|d| *d = 1);
        let small = Shape::new(&small).ok_or_else(|| args.fail("fewer dimensions"))?;
        let (to, rest) = outputs.split_first_mut().ok_or_else(|| args.fail("an output"))?;
        let to = to.reset::<T>(shape);
        let mut rest = rest.iter_mut();
        let mut means = rest.next().map(|t| t.reset::<T>(small));
        let mut inverses = rest.next().map(|t| t.reset::<T>(small));
        if normal == 0 {
            return Ok(());
        }
        let count = i64::try_from(normal).unwrap_or(i64::MAX).to_f64();
        let lanes = values.chunks_exact(normal).zip(to.chunks_exact_mut(normal)).take(rows);
        for (row, (from, to)) in lanes.enumerate() {
            // In double precision: what is left of values that lie close together is small.
            let mean = from.iter().fold(0.0, |sum, x| sum + x.to_f64()) / count;
            let square = |sum: f64, x: &T| sum + (x.to_f64() - mean) * (x.to_f64() - mean);
            let variance = from.iter().fold(0.0, square) / count;
            let inverse = 1.0 / (variance + f64::from(epsilon)).sqrt();
            for (to, x) in to.iter_mut().zip(from) {
                *to = T::from_f64((x.to_f64() - mean) * inverse);
            }
            let (mean, inverse) = (T::from_f64(mean), T::from_f64(inverse));
            if let Some(scale) = scale {
                to.iter_mut().zip(scale).for_each(|(to, s)| *to = to.times(*s));
            }
            if let Some(bias) = bias {
                to.iter_mut().zip(bias).for_each(|(to, b)| *to = to.plus(*b));
            }
            means.as_mut().and_then(|m| m.get_mut(row)).into_iter().for_each(|m| *m = mean);
            inverses.as_mut().and_then(|m| m.get_mut(row)).into_iter().for_each(|i| *i = inverse);
        }
        Ok(())
    }
    let axis = node.attributes.int("axis")?.unwrap_or(-1);
    let epsilon = node.attributes.float("epsilon")?.unwrap_or(1e-5);
    let outputs = node.outputs;
    let facts = move |inputs: &[Option<Fact>]| {
        let mut facts = same(inputs)?;
        let dims = like(inputs, 0).map(|mut dims| {
            let from = super::support::axis_of(axis, dims.len()).unwrap_or(dims.len());
            dims.iter_mut().skip(from).for_each(|d| *d = FactDim::Fixed(1));
            dims
        });
        while facts.len() < outputs {
            facts.push(Fact { element: fact(inputs, 0)?.element, dims: dims.clone() });
        }
        Ok(facts)
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, axis, epsilon, outputs))
    })
}

/// For inference: by the means and variances of the training.
fn batch(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(args: Args<'_, '_>, values: &[T], epsilon: f32, outputs: &mut [Tensor]) -> Run {
        let shape = args.get(0)?.shape();
        let channels = shape.dims().get(1).copied().unwrap_or(1);
        let inner: usize = shape.dims().get(2..).unwrap_or(&[]).iter().product();
        let parameters = [1, 2, 3, 4].map(|i| args.values::<T>(i));
        let [scale, bias, mean, variance] = parameters;
        let (scale, bias, mean, variance) = (scale?, bias?, mean?, variance?);
        if [scale, bias, mean, variance].iter().any(|p| p.len() != channels) {
            return Err(args.fail("one parameter a channel"));
        }
        let to = first(args, outputs)?.reset::<T>(shape);
        let block = channels * inner;
        if block == 0 {
            return Ok(());
        }
        for (to, from) in to.chunks_exact_mut(block).zip(values.chunks_exact(block)) {
            let parameters = scale.iter().zip(bias).zip(mean).zip(variance);
            let lanes = to.chunks_exact_mut(inner).zip(from.chunks_exact(inner));
            for ((to, from), (((scale, bias), mean), variance)) in lanes.zip(parameters) {
                let factor = scale.over(variance.plus(T::of(epsilon)).sqrt());
                let offset = bias.minus(mean.times(factor));
                to.iter_mut().zip(from).for_each(|(to, x)| *to = x.times(factor).plus(offset));
            }
        }
        Ok(())
    }
    if node.attributes.int("training_mode")?.unwrap_or(0) != 0 || node.outputs > 1 {
        return Err(BuildError::Unsupported);
    }
    // In versions before 7 the attribute says whether this is a test; exporters of inference set it.
    if node.version < 7 && node.attributes.int("is_test")?.unwrap_or(0) == 0 {
        return Err(BuildError::Unsupported);
    }
    let epsilon = node.attributes.float("epsilon")?.unwrap_or(1e-5);
    op(name, same, move |args, outputs, _| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, epsilon, outputs))
    })
}
