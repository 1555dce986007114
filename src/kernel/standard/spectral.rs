//! Frequencies: `DFT`, `STFT`, `MelWeightMatrix` and the windows `HannWindow`, `HammingWindow`,
//! `BlackmanWindow`.

use std::f64::consts::PI;

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use smallvec::{SmallVec, smallvec};

use super::number::{Float, Number};
use super::support::{
    Args, Built, Dims, Facts, Run, axis_of, element_of, fact, first, float_type, ints, like, one, op,
};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "DFT" => dft(name, node),
        "STFT" => stft(name, node),
        "MelWeightMatrix" => mel(name, node),
        "HannWindow" => window(name, node, [0.5, 0.5, 0.0]),
        "HammingWindow" => window(name, node, [25.0 / 46.0, 21.0 / 46.0, 0.0]),
        "BlackmanWindow" => window(name, node, [0.42, 0.5, 0.08]),
        _ => Err(BuildError::Unsupported),
    }
}

/// A signal of this length transformed; it is cut or padded with zeros.
struct Transform {
    plan: std::sync::Arc<dyn rustfft::Fft<f64>>,
    buffer: Vec<Complex<f64>>,
}

impl Transform {
    fn new(length: usize, inverse: bool) -> Self {
        let mut planner = FftPlanner::new();
        let plan = if inverse { planner.plan_fft_inverse(length) } else { planner.plan_fft_forward(length) };
        Self { plan, buffer: vec![Complex::default(); length] }
    }

    fn run(&mut self, signal: impl Iterator<Item = Complex<f64>>) -> &[Complex<f64>] {
        self.buffer.fill(Complex::default());
        self.buffer.iter_mut().zip(signal).for_each(|(to, x)| *to = x);
        self.plan.process(&mut self.buffer);
        &self.buffer
    }
}

/// A number that is constant in all exports, where the file states it so.
fn constant(node: &Node<'_>, input: usize) -> Option<i64> {
    node.inputs.get(input).copied().flatten().flatten().and_then(|t| ints(t.view())?.first().copied())
}

fn dft(name: &'static str, node: &Node<'_>) -> Built {
    let by_input = node.version >= 20;
    let stated = node.attributes.int("axis")?;
    let axis = if by_input { constant(node, 2) } else { Some(stated.unwrap_or(1)) };
    let default = if by_input { -2 } else { 1 };
    let absent = node.inputs.get(2).copied().flatten().is_none();
    let axis = axis.or_else(|| absent.then_some(default));
    let inverse = node.attributes.int("inverse")?.unwrap_or(0) != 0;
    let onesided = node.attributes.int("onesided")?.unwrap_or(0) != 0;
    let length = constant(node, 1);
    let no_length = node.inputs.get(1).copied().flatten().is_none();
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let Some(mut dims) = like(inputs, 0) else { return one(element, None) };
        let rank = dims.len();
        let size = |dim: &FactDim| match (dim, length, no_length) {
            (_, Some(n), _) => usize::try_from(n).ok(),
            (FactDim::Fixed(n), None, true) => {
                Some(if inverse && onesided { 2 * n.saturating_sub(1) } else { *n })
            }
            _ => None,
        };
        match axis.and_then(|a| axis_of(a, rank)) {
            Some(axis) => {
                for dim in dims.iter_mut().skip(axis).take(1) {
                    *dim = size(dim).map_or(FactDim::Unknown, |n| {
                        FactDim::Fixed(if onesided && !inverse { n / 2 + 1 } else { n })
                    });
                }
            }
            None => dims.iter_mut().for_each(|d| *d = FactDim::Unknown),
        }
        dims.pop();
        dims.push(FactDim::Fixed(if inverse && onesided { 1 } else { 2 }));
        one(element, Some(dims))
    };
    op(name, facts, move |args, outputs, cx| {
        let given = args.maybe(2).and_then(ints).and_then(|a| a.first().copied()).filter(|_| by_input);
        let axis = given.or(axis).unwrap_or(default);
        let input = args.get(0)?;
        float_type!(args, input, v => transform(args, v, (axis, inverse, onesided), outputs, cx))
    })
}

fn transform<T: Float>(
    args: Args<'_, '_>,
    values: &[T],
    (axis, inverse, onesided): (i64, bool, bool),
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let shape = args.get(0)?.shape();
    let (parts, axes) = shape.dims().split_last().ok_or_else(|| args.fail("a signal"))?;
    // The last axis holds the parts of a number, it can not be transformed.
    let axis = args.axis(axis, shape.dims().len())?;
    let size = axes.get(axis).copied().ok_or_else(|| args.fail("an axis of the signal"))?;
    if !matches!(parts, 1 | 2) {
        return Err(args.fail("real or complex numbers"));
    }
    let halved = inverse && onesided;
    let length = match args.maybe_ints(1)?.and_then(|l| l.first().copied()) {
        Some(length) => usize::try_from(length).map_err(|_| args.fail("a length"))?,
        None if halved => 2 * size.saturating_sub(1),
        None => size,
    };
    let needed = (length as u64).saturating_mul(16);
    if needed > cx.max_tensor_bytes {
        return Err(RunError::OverBudget { needed });
    }
    if length == 0 {
        return Err(args.fail("a signal that is not empty"));
    }
    let out = if onesided && !inverse { length / 2 + 1 } else { length };
    let out_parts = if halved { 1 } else { 2 };
    let mut dims = Dims::from_slice(axes);
    dims.get_mut(axis).into_iter().for_each(|d| *d = out);
    dims.push(out_parts);
    let inner: usize = axes.get(axis + 1..).unwrap_or(&[]).iter().product();
    let outer: usize = axes.get(..axis).unwrap_or(&[]).iter().product();
    let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
    let mut transform = Transform::new(length, inverse);
    #[allow(clippy::cast_precision_loss, reason = "a size")]
    let factor = if inverse { 1.0 / length as f64 } else { 1.0 };
    for lane in 0..outer * inner {
        let (before, inside) = (lane / inner.max(1), lane % inner.max(1));
        let number = |i: usize| {
            let at = ((before * size + i) * inner + inside) * parts;
            let part = |p: usize| values.get(at + p).filter(|_| p < *parts).map_or(0.0, |x| x.to_f64());
            Complex::new(part(0), part(1))
        };
        // Half of a spectrum has the other half mirrored.
        let signal = (0..length).map(|i| {
            if halved && i > length / 2 {
                number(length - i).conj()
            } else if i < size {
                number(i)
            } else {
                Complex::default()
            }
        });
        let result = transform.run(signal.take(if halved { length } else { size.min(length) }));
        for (i, x) in result.iter().take(out).enumerate() {
            let at = ((before * out + i) * inner + inside) * out_parts;
            for (part, value) in [x.re, x.im].into_iter().take(out_parts).enumerate() {
                to.get_mut(at + part).into_iter().for_each(|to| *to = T::from_f64(value * factor));
            }
        }
    }
    Ok(())
}

fn stft(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(
        args: Args<'_, '_>,
        values: &[T],
        onesided: bool,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let shape = args.get(0)?.shape();
        let (batch, length, parts) = match shape.dims() {
            [batch, length] => (*batch, *length, 1),
            [batch, length, parts @ (1 | 2)] => (*batch, *length, *parts),
            _ => return Err(args.fail("a signal of real or complex numbers")),
        };
        let scalar = |index: usize| -> Result<Option<usize>, RunError> {
            let Some(value) = args.maybe_ints(index)? else { return Ok(None) };
            let value = value.first().and_then(|n| usize::try_from(*n).ok()).filter(|n| *n > 0);
            value.map(Some).ok_or_else(|| args.fail("a positive number"))
        };
        let step = scalar(1)?.ok_or_else(|| args.fail("a step"))?;
        let window = if args.maybe(2).is_some() { Some(args.values::<T>(2)?) } else { None };
        let frame = scalar(3)?.or(window.map(<[T]>::len)).unwrap_or(length);
        if frame == 0 || frame > length || window.is_some_and(|w| w.len() > frame) {
            return Err(args.fail("a frame that fits the signal"));
        }
        let frames = 1 + (length - frame) / step;
        let out = if onesided { frame / 2 + 1 } else { frame };
        let to = cx.reset::<T>(first(args, outputs)?, &[batch, frames, out, 2])?;
        let mut transform = Transform::new(frame, false);
        for (at, to) in to.chunks_exact_mut(out * 2).enumerate() {
            let start = (at / frames * length + at % frames * step) * parts;
            let signal = values.get(start..start + frame * parts).unwrap_or(&[]).chunks_exact(parts);
            let weighted = signal.enumerate().map(|(i, x)| {
                let weight = window.map_or(1.0, |w| w.get(i).map_or(0.0, |w| w.to_f64()));
                let part = |p: usize| x.get(p).map_or(0.0, |x| x.to_f64());
                Complex::new(part(0), part(1)) * weight
            });
            for (to, x) in to.chunks_exact_mut(2).zip(transform.run(weighted)) {
                to.iter_mut().zip([x.re, x.im]).for_each(|(to, x)| *to = T::from_f64(x));
            }
        }
        Ok(())
    }
    let onesided = node.attributes.int("onesided")?.unwrap_or(1) != 0;
    let step = constant(node, 1);
    let frame = constant(node, 3).or_else(|| {
        let window = node.inputs.get(2).copied().flatten().flatten()?;
        i64::try_from(window.shape().elements()).ok()
    });
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let dims = like(inputs, 0);
        let batch = dims.as_ref().and_then(|d| d.first().copied()).unwrap_or(FactDim::Unknown);
        let frame = frame.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let length = match dims.as_ref().and_then(|d| d.get(1).copied()) {
            Some(FactDim::Fixed(n)) => Some(n),
            _ => None,
        };
        let step = step.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let frames = length.zip(frame).zip(step).and_then(|((n, f), s)| Some(1 + n.checked_sub(f)? / s));
        let out = frame.map(|f| if onesided { f / 2 + 1 } else { f });
        let size = |n: Option<usize>| n.map_or(FactDim::Unknown, FactDim::Fixed);
        one(fact(inputs, 0)?.element, Some(smallvec![batch, size(frames), size(out), FactDim::Fixed(2)]))
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, onesided, outputs, cx))
    })
}

/// The result as the type that an attribute names.
fn write(
    args: Args<'_, '_>,
    values: &[f64],
    dims: &[usize],
    to: ElementType,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    fn typed<T: Number>(values: &[f64], to: &mut [T]) {
        to.iter_mut().zip(values).for_each(|(to, x)| *to = T::from_f64(*x));
    }
    let output = first(args, outputs)?;
    match to {
        ElementType::F32 => typed(values, cx.reset::<f32>(output, dims)?),
        ElementType::F64 => typed(values, cx.reset::<f64>(output, dims)?),
        ElementType::I32 => typed(values, cx.reset::<i32>(output, dims)?),
        ElementType::I64 => typed(values, cx.reset::<i64>(output, dims)?),
        _ => return Err(args.fail("a type of numbers that windows have")),
    }
    Ok(())
}

fn output_type(node: &Node<'_>) -> Result<ElementType, BuildError> {
    let to = element_of(node.attributes.int("output_datatype")?.unwrap_or(1))?;
    let known = matches!(to, ElementType::F32 | ElementType::F64 | ElementType::I32 | ElementType::I64);
    if known { Ok(to) } else { Err(BuildError::Unsupported) }
}

/// The largest window, and the most frequencies, that are computed.
const MAX_POINTS: i64 = 1 << 24;

fn window(name: &'static str, node: &Node<'_>, [constant_, first_, second]: [f64; 3]) -> Built {
    let periodic = node.attributes.int("periodic")?.unwrap_or(1) != 0;
    let to = output_type(node)?;
    let size = constant(node, 0).and_then(|n| usize::try_from(n).ok());
    let facts =
        move |_: &[Option<Fact>]| one(to, Some(smallvec![size.map_or(FactDim::Unknown, FactDim::Fixed)]));
    op(name, facts, move |args, outputs, cx| {
        let size = args.ints(0)?.first().copied().filter(|n| (0..=MAX_POINTS).contains(n));
        let size = size.ok_or_else(|| args.fail("a size"))?;
        #[allow(clippy::cast_precision_loss, reason = "a size")]
        let values: Vec<f64> = (0..size)
            .map(|i| {
                let points = if periodic { size } else { size - 1 };
                let angle = if points == 0 { 0.0 } else { 2.0 * PI * i as f64 / points as f64 };
                constant_ - first_ * angle.cos() + second * (2.0 * angle).cos()
            })
            .collect();
        write(args, &values, &[values.len()], to, outputs, cx)
    })
}

fn mel(name: &'static str, node: &Node<'_>) -> Built {
    let to = output_type(node)?;
    let (bins, length) = (constant(node, 0), constant(node, 1));
    let facts = move |_: &[Option<Fact>]| -> Facts {
        let size =
            |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok()).map_or(FactDim::Unknown, FactDim::Fixed);
        one(to, Some(SmallVec::from_slice(&[size(length.map(|n| n / 2 + 1)), size(bins)])))
    };
    op(name, facts, move |args, outputs, cx| {
        let whole = |index: usize| -> Result<i64, RunError> {
            let value = args.ints(index)?.first().copied().filter(|n| (1..=MAX_POINTS).contains(n));
            value.ok_or_else(|| args.fail("a positive number"))
        };
        let edge = |index: usize| -> Result<f64, RunError> {
            let value = match args.get(index)?.data() {
                DataView::F32(v) => v.first().map(|x| f64::from(*x)),
                DataView::F64(v) => v.first().copied(),
                _ => None,
            };
            value.ok_or_else(|| args.fail("a frequency"))
        };
        let (bins, length, rate) = (whole(0)?, whole(1)?, whole(2)?);
        let weights = mel_weights(bins, length, rate, [edge(3)?, edge(4)?], cx)?;
        let dims = [usize::try_from(length / 2 + 1).unwrap_or(0), usize::try_from(bins).unwrap_or(0)];
        write(args, &weights, &dims, to, outputs, cx)
    })
}

/// Triangles over the frequencies, evenly spaced on the mel scale.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes"
)]
fn mel_weights(
    bins: i64,
    length: i64,
    rate: i64,
    edges: [f64; 2],
    cx: &RunContext,
) -> Result<Vec<f64>, RunError> {
    let (rows, columns) = ((length / 2 + 1) as usize, bins as usize);
    let needed = (rows as u64).saturating_mul(columns as u64).saturating_mul(8);
    if needed > cx.max_tensor_bytes {
        return Err(RunError::OverBudget { needed });
    }
    let [low, high] = edges.map(|hertz| 2595.0 * (hertz / 700.0).ln_1p() / std::f64::consts::LN_10);
    let step = (high - low) / (bins + 2) as f64;
    let point = |i: usize| {
        let mel = low + i as f64 * step;
        let hertz = 700.0 * (mel / 2595.0 * std::f64::consts::LN_10).exp_m1();
        ((length + 1) as f64 * hertz / rate as f64).floor().max(0.0) as usize
    };
    let mut weights = vec![0.0; rows * columns];
    for bin in 0..columns {
        let (left, center, right) = (point(bin), point(bin + 1), point(bin + 2));
        let mut put = |row: usize, value: f64| {
            if row < rows {
                weights.get_mut(row * columns + bin).into_iter().for_each(|w| *w = value);
            }
        };
        if left == center {
            put(center, 1.0);
        }
        for row in left..=center.min(rows) {
            if center > left {
                put(row, (row - left) as f64 / (center - left) as f64);
            }
        }
        for row in center..right.min(rows) {
            put(row, (right - row) as f64 / (right - center) as f64);
        }
    }
    Ok(weights)
}
