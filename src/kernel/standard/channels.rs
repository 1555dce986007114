//! Normalisations over parts of a tensor: `InstanceNormalization`, `GroupNormalization`,
//! `RMSNormalization`, `LpNormalization`, `MeanVarianceNormalization`, `LRN`.

use super::number::Float;
use super::select::lanes;
use super::support::{Args, Built, Run, axis_of, first, float_type, op, same};
use crate::kernel::{BuildError, Node};
use crate::load::RunError;
use crate::tensor::{Shape, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    let epsilon = f64::from(node.attributes.float("epsilon")?.unwrap_or(1e-5));
    match name {
        "InstanceNormalization" => op(name, same, move |args, outputs, _| {
            let input = args.get(0)?;
            float_type!(args, input, v => groups(args, v, (None, false), epsilon, outputs))
        }),
        "GroupNormalization" => {
            let groups_ =
                node.attributes.int("num_groups")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
            let count = groups_.ok_or_else(|| BuildError::invalid("attribute `num_groups` is missing"))?;
            // The first version has a scale for each group, the second for each channel.
            let by_group = node.version < 21;
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                float_type!(args, input, v => groups(args, v, (Some(count), by_group), epsilon, outputs))
            })
        }
        "RMSNormalization" => {
            let axis = node.attributes.int("axis")?.unwrap_or(-1);
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                float_type!(args, input, v => root_mean_square(args, v, axis, epsilon, outputs))
            })
        }
        "LpNormalization" => {
            let axis = node.attributes.int("axis")?.unwrap_or(-1);
            let p = node.attributes.int("p")?.unwrap_or(2);
            if !matches!(p, 1 | 2) {
                return Err(BuildError::invalid(format!("attribute `p`: expected 1 or 2, found {p}")));
            }
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                float_type!(args, input, v => by_norm(args, v, axis, p == 1, outputs))
            })
        }
        "MeanVarianceNormalization" => {
            let axes = node.attributes.ints("axes")?;
            let axes = if axes.is_empty() { vec![0, 2, 3] } else { axes.to_vec() };
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                float_type!(args, input, v => standardise(args, v, &axes, outputs))
            })
        }
        "LRN" => local_response(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

/// Mean and variance (of the whole, not of a sample), in double precision.
fn moments<T: Float>(values: &[T]) -> (f64, f64) {
    #[allow(clippy::cast_precision_loss, reason = "a count")]
    let count = values.len().max(1) as f64;
    let mean = values.iter().fold(0.0, |sum, x| sum + x.to_f64()) / count;
    let square = |sum: f64, x: &T| sum + (x.to_f64() - mean) * (x.to_f64() - mean);
    (mean, values.iter().fold(0.0, square) / count)
}

/// By the mean and variance of each group of channels of each row; every channel is a group where
/// the number of groups is not stated.
fn groups<T: Float>(
    args: Args<'_, '_>,
    values: &[T],
    (groups, by_group): (Option<usize>, bool),
    epsilon: f64,
    outputs: &mut [Tensor],
) -> Run {
    let shape = args.get(0)?.shape();
    let [_, channels, inner @ ..] = shape.dims() else { return Err(args.fail("channels")) };
    let (channels, inner) = (*channels, inner.iter().product::<usize>());
    let groups = groups.unwrap_or(channels);
    let (scale, bias) = (args.values::<T>(1)?, args.values::<T>(2)?);
    let parameters = if by_group && scale.len() == groups { groups } else { channels };
    if groups == 0 || channels % groups != 0 || scale.len() != parameters || bias.len() != parameters {
        return Err(args.fail("one scale and bias a channel"));
    }
    let block = channels / groups * inner;
    let to = first(args, outputs)?.reset::<T>(shape);
    if block == 0 {
        return Ok(());
    }
    for (at, (to, from)) in to.chunks_exact_mut(block).zip(values.chunks_exact(block)).enumerate() {
        let (mean, variance) = moments(from);
        let inverse = 1.0 / (variance + epsilon).sqrt();
        let group = at % groups;
        for (inside, (to, from)) in to.chunks_exact_mut(inner).zip(from.chunks_exact(inner)).enumerate() {
            let channel = group * (channels / groups) + inside;
            let parameter = channel * parameters / channels;
            let scale = scale.get(parameter).copied().unwrap_or(T::ONE);
            let bias = bias.get(parameter).copied().unwrap_or(T::ZERO);
            for (to, x) in to.iter_mut().zip(from) {
                *to = T::from_f64((x.to_f64() - mean) * inverse).times(scale).plus(bias);
            }
        }
    }
    Ok(())
}

fn root_mean_square<T: Float>(
    args: Args<'_, '_>,
    values: &[T],
    axis: i64,
    epsilon: f64,
    outputs: &mut [Tensor],
) -> Run {
    let shape = args.get(0)?.shape();
    let axis = args.axis(axis, shape.dims().len())?;
    let row: usize = shape.dims().get(axis..).unwrap_or(&[]).iter().product();
    let scale = args.values::<T>(1)?;
    // A scale of a trailing part of the shape broadcasts.
    if scale.is_empty() || !row.is_multiple_of(scale.len()) {
        return Err(args.fail("a scale for each element of a row"));
    }
    let to = first(args, outputs)?.reset::<T>(shape);
    if row == 0 {
        return Ok(());
    }
    for (to, from) in to.chunks_exact_mut(row).zip(values.chunks_exact(row)) {
        #[allow(clippy::cast_precision_loss, reason = "a count")]
        let mean = from.iter().fold(0.0, |sum, x| sum + x.to_f64() * x.to_f64()) / row as f64;
        let inverse = 1.0 / (mean + epsilon).sqrt();
        for ((to, x), scale) in to.iter_mut().zip(from).zip(scale.iter().cycle()) {
            *to = T::from_f64(x.to_f64() * inverse).times(*scale);
        }
    }
    Ok(())
}

/// Zero where all elements are.
fn by_norm<T: Float>(
    args: Args<'_, '_>,
    values: &[T],
    axis: i64,
    manhattan: bool,
    outputs: &mut [Tensor],
) -> Run {
    let (shape, _, [_, size, inner]) = lanes(args, axis)?;
    let to = first(args, outputs)?.reset::<T>(shape);
    let block = size * inner;
    if block == 0 {
        return Ok(());
    }
    for (to, from) in to.chunks_exact_mut(block).zip(values.chunks_exact(block)) {
        for inside in 0..inner {
            let lane = || from.iter().skip(inside).step_by(inner).map(|x| x.to_f64());
            let norm = if manhattan {
                lane().map(f64::abs).sum()
            } else {
                lane().map(|x| x * x).sum::<f64>().sqrt()
            };
            for (to, x) in to.iter_mut().skip(inside).step_by(inner).zip(lane()) {
                *to = T::from_f64(if norm == 0.0 { 0.0 } else { x / norm });
            }
        }
    }
    Ok(())
}

fn standardise<T: Float>(args: Args<'_, '_>, values: &[T], axes: &[i64], outputs: &mut [Tensor]) -> Run {
    let shape = args.get(0)?.shape();
    let rank = shape.dims().len();
    let axes: Option<Vec<usize>> = axes.iter().map(|a| axis_of(*a, rank)).collect();
    let axes = axes.ok_or_else(|| args.fail("an axis that the tensor has"))?;
    // Which group an element is in: its index with the axes left out.
    let strides: Vec<(usize, usize, usize)> = {
        let dense = super::strided::dense(shape.dims());
        let mut step = 1;
        let mut strides = Vec::new();
        for (axis, (dim, stride)) in shape.dims().iter().zip(dense).enumerate().rev() {
            if !axes.contains(&axis) {
                strides.push((stride.cast_unsigned().max(1), *dim, step));
                step *= dim;
            }
        }
        strides
    };
    let group = |at: usize| {
        strides.iter().map(|(stride, dim, step)| at / stride % (*dim).max(1) * step).sum::<usize>()
    };
    let count: usize = strides.iter().map(|(_, dim, _)| *dim).product();
    let mut members: Vec<Vec<T>> = vec![Vec::new(); count];
    for (at, x) in values.iter().enumerate() {
        members.get_mut(group(at)).into_iter().for_each(|m| m.push(*x));
    }
    let moments: Vec<(f64, f64)> = members.iter().map(|m| moments(m)).collect();
    let to = first(args, outputs)?.reset::<T>(shape);
    for (at, (to, x)) in to.iter_mut().zip(values).enumerate() {
        let (mean, variance) = moments.get(group(at)).copied().unwrap_or((0.0, 1.0));
        *to = T::from_f64((x.to_f64() - mean) / (variance.sqrt() + 1e-9));
    }
    Ok(())
}

fn local_response(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(
        args: Args<'_, '_>,
        values: &[T],
        size: usize,
        [alpha, beta, bias]: [f64; 3],
        outputs: &mut [Tensor],
    ) -> Run {
        let shape: Shape = args.get(0)?.shape();
        let [_, channels, inner @ ..] = shape.dims() else { return Err(args.fail("channels")) };
        let (channels, inner) = (*channels, inner.iter().product::<usize>());
        let (below, above) = ((size - 1) / 2, size / 2);
        let block = channels * inner;
        let to = first(args, outputs)?.reset::<T>(shape);
        if block == 0 {
            return Ok(());
        }
        #[allow(clippy::cast_precision_loss, reason = "a count")]
        let share = alpha / size as f64;
        for (to, from) in to.chunks_exact_mut(block).zip(values.chunks_exact(block)) {
            for (at, (to, x)) in to.iter_mut().zip(from).enumerate() {
                let (channel, inside) = (at / inner, at % inner);
                let near = channel.saturating_sub(below)..=(channel + above).min(channels - 1);
                let square = |c: usize| from.get(c * inner + inside).map_or(0.0, |x| x.to_f64() * x.to_f64());
                let sum: f64 = near.map(square).sum();
                *to = T::from_f64(x.to_f64() / (bias + share * sum).powf(beta));
            }
        }
        Ok::<(), RunError>(())
    }
    let size = node.attributes.int("size")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let size = size.ok_or_else(|| BuildError::invalid("attribute `size` is missing"))?;
    let number = |name: &str, default: f32| -> Result<f64, BuildError> {
        Ok(f64::from(node.attributes.float(name)?.unwrap_or(default)))
    };
    let parameters = [number("alpha", 1e-4)?, number("beta", 0.75)?, number("bias", 1.0)?];
    op(name, same, move |args, outputs, _| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, size, parameters, outputs))
    })
}
