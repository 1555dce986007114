//! Between floats and small whole numbers: `QuantizeLinear`, `DequantizeLinear`,
//! `DynamicQuantizeLinear`.

use smallvec::smallvec;

use super::number::{Float, Number};
use super::select::lanes;
use super::support::{Args, Built, Run, element_of, fact, first, float_type, like, one, op};
use crate::kernel::{BuildError, Direction, Fact, Narrow, Node};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Shape, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "QuantizeLinear" => quantize(name, node),
        "DequantizeLinear" => dequantize(name, node),
        "DynamicQuantizeLinear" => op(
            name,
            |inputs| {
                let scalar = |element| Fact { element, dims: Some(smallvec![]) };
                let values = Fact { element: ElementType::U8, dims: like(inputs, 0) };
                Ok(smallvec![values, scalar(ElementType::F32), scalar(ElementType::U8)])
            },
            |args, outputs, _| dynamic(args, outputs),
        ),
        _ => Err(BuildError::Unsupported),
    }
}

/// Which scale and zero point an element has.
#[derive(Clone, Copy)]
enum Grain {
    Tensor,
    /// One for each position of an axis.
    Axis {
        size: usize,
        inner: usize,
    },
    /// One for each block of positions of an axis.
    Block {
        size: usize,
        inner: usize,
        block: usize,
    },
}

impl Grain {
    fn new(args: Args<'_, '_>, axis: i64, block: usize) -> Result<Self, RunError> {
        let scales = args.get(1)?.shape();
        if scales.elements() == 1 && block == 0 {
            return Ok(Self::Tensor);
        }
        let (shape, axis, [outer, size, inner]) = lanes(args, axis)?;
        if block == 0 {
            let fits = scales.elements() == size;
            return if fits {
                Ok(Self::Axis { size, inner })
            } else {
                Err(args.fail("a scale for each channel"))
            };
        }
        let same_rank = scales.dims().len() == shape.dims().len();
        let blocks = size.div_ceil(block);
        if !same_rank
            || scales.dims().get(axis) != Some(&blocks)
            || scales.elements() != outer * blocks * inner
        {
            return Err(args.fail("a scale for each block"));
        }
        Ok(Self::Block { size, inner, block })
    }

    fn of(self, element: usize) -> usize {
        match self {
            Self::Tensor => 0,
            Self::Axis { size, inner } => element / inner.max(1) % size.max(1),
            Self::Block { size, inner, block } => {
                let (inner, size) = (inner.max(1), size.max(1));
                let (outer, at, inside) = (element / (inner * size), element / inner % size, element % inner);
                (outer * size.div_ceil(block) + at / block) * inner + inside
            }
        }
    }
}

fn block_size(node: &Node<'_>) -> Result<usize, BuildError> {
    let block = node.attributes.int("block_size")?.unwrap_or(0);
    usize::try_from(block).map_err(|_| BuildError::invalid("attribute `block_size` is negative"))
}

/// What values are quantized to.
#[derive(Clone, Copy, Debug)]
struct Level {
    element: ElementType,
    /// The type where it is one that is held as a wider one, and whether its floats saturate.
    narrow: Option<(Narrow, bool)>,
}

impl Level {
    /// As the node states it; [`BuildError::Unsupported`] where nothing is quantized to such a type.
    fn stated(node: &Node<'_>) -> Result<Option<Self>, BuildError> {
        let code = node.attributes.int("output_dtype")?.unwrap_or(0);
        if code == 0 {
            return Ok(None);
        }
        let saturate = node.attributes.int("saturate")?.unwrap_or(1) != 0;
        if let Some(narrow) = i32::try_from(code).ok().and_then(Narrow::of) {
            return Ok(Some(Self { element: narrow.element_type(), narrow: Some((narrow, saturate)) }));
        }
        match element_of(code)? {
            element @ (ElementType::U8 | ElementType::I8 | ElementType::U16 | ElementType::I16) => {
                Ok(Some(Self { element, narrow: None }))
            }
            _ => Err(BuildError::Unsupported),
        }
    }
}

fn quantize(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<F: Float>(
        args: Args<'_, '_>,
        values: &[F],
        (grain, to): (Grain, Level),
        outputs: &mut [Tensor],
    ) -> Run {
        let range = to.narrow.and_then(|(narrow, _)| narrow.range());
        match (to.element, to.narrow) {
            (ElementType::U8, _) => levels::<F, u8>(args, values, (grain, range), outputs),
            (ElementType::I8, _) => levels::<F, i8>(args, values, (grain, range), outputs),
            (ElementType::U16, _) => levels::<F, u16>(args, values, (grain, range), outputs),
            (ElementType::I16, _) => levels::<F, i16>(args, values, (grain, range), outputs),
            (ElementType::F32, Some(narrow)) => nearest(args, values, (grain, narrow), outputs),
            _ => Err(args.fail("a zero point of 8 or 16 bits")),
        }
    }
    let axis = node.attributes.int("axis")?.unwrap_or(1);
    let block = block_size(node)?;
    let stated = Level::stated(node)?;
    let to = move |zero: Option<ElementType>| {
        let element = zero.or(stated.map(|s| s.element)).unwrap_or(ElementType::U8);
        Level { element, narrow: stated.filter(|s| s.element == element).and_then(|s| s.narrow) }
    };
    op(
        name,
        move |inputs| {
            let zero = inputs.get(2).and_then(Option::as_ref).map(|f| f.element);
            one(to(zero).element, like(inputs, 0))
        },
        move |args, outputs, _| {
            let grain = Grain::new(args, axis, block)?;
            let to = to(args.maybe(2).map(|z| z.element_type()));
            let input = args.get(0)?;
            if let DataView::I32(v) = input.data() {
                #[allow(clippy::cast_precision_loss, reason = "as the other implementations do")]
                let wide: Vec<f32> = v.iter().map(|x| *x as f32).collect();
                return typed(args, &wide, (grain, to), outputs);
            }
            float_type!(args, input, v => typed(args, v, (grain, to), outputs))
        },
    )
}

fn levels<F: Float, Q: Number>(
    args: Args<'_, '_>,
    values: &[F],
    (grain, range): (Grain, Option<(f64, f64)>),
    outputs: &mut [Tensor],
) -> Run {
    let scales = args.values::<F>(1)?;
    let zeros = if args.maybe(2).is_some() { Some(args.values::<Q>(2)?) } else { None };
    let to = first(args, outputs)?.reset::<Q>(args.get(0)?.shape());
    let (low, high) = range.unwrap_or((f64::MIN, f64::MAX));
    for (at, (to, x)) in to.iter_mut().zip(values).enumerate() {
        let at = grain.of(at);
        let scale = scales.get(at).copied().unwrap_or(F::ONE);
        let zero = zeros.and_then(|z| z.get(at)).map_or(0.0, |z| z.to_f64());
        // A conversion to whole numbers saturates.
        *to = Q::from_f64((x.over(scale).round_ties_even().to_f64() + zero).clamp(low, high));
    }
    Ok(())
}

/// To floats of eight bits or less, which are held as `f32`; their zero point is zero.
fn nearest<F: Float>(
    args: Args<'_, '_>,
    values: &[F],
    (grain, (narrow, saturate)): (Grain, (Narrow, bool)),
    outputs: &mut [Tensor],
) -> Run {
    let scales = args.values::<F>(1)?;
    let to = first(args, outputs)?.reset::<f32>(args.get(0)?.shape());
    for (at, (to, x)) in to.iter_mut().zip(values).enumerate() {
        let scale = scales.get(grain.of(at)).copied().unwrap_or(F::ONE);
        *to = narrow.nearest(f32::from_f64(x.over(scale).to_f64()), saturate, Direction::Up);
    }
    Ok(())
}

fn dequantize(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<Q: Number>(args: Args<'_, '_>, values: &[Q], grain: Grain, outputs: &mut [Tensor]) -> Run {
        let scales = args.get(1)?;
        float_type!(args, scales, scales => floats(args, values, scales, grain, outputs))
    }
    let axis = node.attributes.int("axis")?.unwrap_or(1);
    let block = block_size(node)?;
    op(
        name,
        |inputs| one(fact(inputs, 1)?.element, like(inputs, 0)),
        move |args, outputs, _| {
            let grain = Grain::new(args, axis, block)?;
            match args.get(0)?.data() {
                DataView::U8(v) => typed(args, v, grain, outputs),
                DataView::I8(v) => typed(args, v, grain, outputs),
                DataView::U16(v) => typed(args, v, grain, outputs),
                DataView::I16(v) => typed(args, v, grain, outputs),
                DataView::I32(v) => typed(args, v, grain, outputs),
                // Eight-bit floats are held as f32.
                DataView::F32(v) => narrow_floats(args, v, grain, outputs),
                _ => Err(args.fail("quantized values")),
            }
        },
    )
}

fn narrow_floats(args: Args<'_, '_>, values: &[f32], grain: Grain, outputs: &mut [Tensor]) -> Run {
    let scales = args.values::<f32>(1)?;
    let zeros = if args.maybe(2).is_some() { Some(args.values::<f32>(2)?) } else { None };
    let to = first(args, outputs)?.reset::<f32>(args.get(0)?.shape());
    for (at, (to, x)) in to.iter_mut().zip(values).enumerate() {
        let at = grain.of(at);
        let zero = zeros.and_then(|z| z.get(at)).copied().unwrap_or(0.0);
        *to = (x - zero) * scales.get(at).copied().unwrap_or(1.0);
    }
    Ok(())
}

fn floats<Q: Number, F: Float>(
    args: Args<'_, '_>,
    values: &[Q],
    scales: &[F],
    grain: Grain,
    outputs: &mut [Tensor],
) -> Run {
    let zeros = if args.maybe(2).is_some() { Some(args.values::<Q>(2)?) } else { None };
    let to = first(args, outputs)?.reset::<F>(args.get(0)?.shape());
    for (at, (to, x)) in to.iter_mut().zip(values).enumerate() {
        let at = grain.of(at);
        let scale = scales.get(at).copied().unwrap_or(F::ONE);
        let zero = zeros.and_then(|z| z.get(at)).map_or(0, |z| z.to_i64());
        *to = F::from_i64(x.to_i64() - zero).times(scale);
    }
    Ok(())
}

/// The scale and the zero point of 256 levels for these values. Their range always has zero in it,
/// so that zero is a level.
fn range(values: &[f32]) -> (f32, f32) {
    let (low, high) = values.iter().fold((0.0_f32, 0.0_f32), |(low, high), x| (low.min(*x), high.max(*x)));
    let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
    (scale, (-low / scale).clamp(0.0, 255.0).round_ties_even())
}

fn level(x: f32, (scale, zero): (f32, f32)) -> u8 {
    u8::from_f64(f64::from((x / scale).round_ties_even() + zero))
}

fn dynamic(args: Args<'_, '_>, outputs: &mut [Tensor]) -> Run {
    let values = args.values::<f32>(0)?;
    let shape = args.get(0)?.shape();
    let range = range(values);
    let [levels, scales, zeros] = outputs else { return Err(args.fail("three outputs")) };
    for (to, x) in levels.reset::<u8>(shape).iter_mut().zip(values) {
        *to = level(*x, range);
    }
    scales.reset::<f32>(Shape::SCALAR).fill(range.0);
    zeros.reset::<u8>(Shape::SCALAR).fill(u8::from_f64(f64::from(range.1)));
    Ok(())
}

/// Each value becomes the one of its level.
pub(crate) fn round_dynamically(values: &mut [f32]) {
    let range = range(values);
    for x in values {
        *x = (f32::from(level(*x, range)) - range.1) * range.0;
    }
}
