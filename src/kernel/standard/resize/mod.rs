//! `Resize` and `Upsample`: each axis is resampled by itself, with the weights of [`weights`].

mod weights;

use smallvec::SmallVec;

use self::weights::{Filter, Lane, Rule};
use super::number::Number;
use super::support::{
    Args, Built, Dims, FactDims, Facts, Run, any_type, fact, first, ints, like, number_type, one, op, rank,
};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, Element, Tensor, TensorView};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "Resize" | "Upsample" => {}
        _ => return Err(BuildError::Unsupported),
    }
    let resize = Resize::new(name, node)?;
    let constant = |index: Option<usize>| {
        index.and_then(|i| node.inputs.get(i).copied().flatten().flatten()).map(|t| t.view())
    };
    let stated: Option<Stated> = match (constant(resize.sizes), constant(resize.scales)) {
        (Some(sizes), _) if sizes.shape().elements() > 0 => ints(sizes).map(Stated::Sizes),
        (_, Some(scales)) if scales.shape().elements() > 0 => {
            scales.values::<f32>().map(|s| Stated::Scales(s.iter().copied().collect()))
        }
        _ if !resize.fixed.is_empty() => Some(Stated::Scales(resize.fixed.clone())),
        _ => None,
    };
    let known = resize.clone();
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let dims = stated.as_ref().and_then(|stated| known.fact(inputs, stated));
        one(element, dims.or_else(|| rank(inputs, 0).map(|r| SmallVec::from_elem(FactDim::Unknown, r))))
    };
    op(name, facts, move |args, outputs, cx| resize.run(args, outputs, cx))
}

/// What a node says of the size of its result.
enum Stated {
    Sizes(SmallVec<[i64; 8]>),
    Scales(SmallVec<[f32; 4]>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

#[derive(Clone, Debug)]
struct Resize {
    rule: Rule,
    axes: SmallVec<[i64; 8]>,
    aspect: Aspect,
    extrapolation: f32,
    /// Where among the inputs these are.
    roi: Option<usize>,
    scales: Option<usize>,
    sizes: Option<usize>,
    /// The scales of the oldest version, an attribute.
    fixed: SmallVec<[f32; 4]>,
}

/// One axis of the input and what becomes of it.
struct Axis {
    size: usize,
    out: usize,
    scale: f64,
    roi: (f64, f64),
}

impl Resize {
    fn new(name: &'static str, node: &Node<'_>) -> Result<Self, BuildError> {
        let (roi, scales, sizes) = match (name, node.version) {
            ("Upsample", version) if version < 9 => (None, None, None),
            ("Upsample", _) | ("Resize", ..11) => (None, Some(1), None),
            _ => (Some(1), Some(2), Some(3)),
        };
        let old = name == "Upsample" || node.version < 11;
        let aspect = match node.attributes.string("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
            "stretch" => Aspect::Stretch,
            "not_larger" => Aspect::NotLarger,
            "not_smaller" => Aspect::NotSmaller,
            other => {
                return Err(BuildError::invalid(format!(
                    "attribute `keep_aspect_ratio_policy`: found `{other}`"
                )));
            }
        };
        Ok(Self {
            rule: if old { Rule::asymmetric(node)? } else { Rule::new(node)? },
            axes: node.attributes.ints("axes")?.iter().copied().collect(),
            aspect,
            extrapolation: node.attributes.float("extrapolation_value")?.unwrap_or(0.0),
            roi,
            scales,
            sizes,
            fixed: node.attributes.floats("scales")?.iter().copied().collect(),
        })
    }

    /// The axes of a tensor of this rank that the scales and sizes are for.
    fn axes(&self, rank: usize) -> Option<SmallVec<[usize; 8]>> {
        if self.axes.is_empty() {
            return Some((0..rank).collect());
        }
        self.axes.iter().map(|axis| super::support::axis_of(*axis, rank)).collect()
    }

    /// The sizes of the result along the resized axes, with their scales.
    fn results(&self, sizes: &[usize], stated: &Stated) -> Option<SmallVec<[(usize, f64); 8]>> {
        match stated {
            Stated::Scales(scales) => {
                if scales.len() != sizes.len() {
                    return None;
                }
                let result = |(size, scale): (&usize, &f32)| {
                    let scale = *scale;
                    #[allow(
                        clippy::cast_precision_loss,
                        reason = "sizes are small; a float is what is stated"
                    )]
                    let out = (*size as f32 * scale).floor();
                    (scale > 0.0 && out < 1e9)
                        .then_some((usize::from_float(f64::from(out)), f64::from(scale)))
                };
                sizes.iter().zip(scales).map(result).collect()
            }
            Stated::Sizes(stated) => {
                if stated.len() != sizes.len() {
                    return None;
                }
                #[allow(clippy::cast_precision_loss, reason = "sizes are small")]
                let ratio = |(size, out): (&usize, &i64)| *out as f64 / (*size).max(1) as f64;
                let ratios = sizes.iter().zip(stated).map(ratio);
                let common = match self.aspect {
                    Aspect::Stretch => None,
                    Aspect::NotLarger => ratios.clone().reduce(f64::min),
                    Aspect::NotSmaller => ratios.clone().reduce(f64::max),
                };
                #[allow(clippy::cast_precision_loss, reason = "sizes are small")]
                let result = |((size, out), ratio): ((&usize, &i64), f64)| match common {
                    Some(common) => Some((usize::from_float((*size as f64 * common + 0.5).floor()), common)),
                    None => Some((usize::try_from(*out).ok()?, ratio)),
                };
                sizes.iter().zip(stated).zip(ratios).map(result).collect()
            }
        }
    }

    fn fact(&self, inputs: &[Option<Fact>], stated: &Stated) -> Option<FactDims> {
        let mut dims = like(inputs, 0)?;
        let axes = self.axes(dims.len())?;
        let size = |axis: &usize| if let Some(FactDim::Fixed(n)) = dims.get(*axis) { *n } else { 0 };
        let sizes: Dims = axes.iter().map(size).collect();
        let all_known = axes.iter().all(|a| matches!(dims.get(*a), Some(FactDim::Fixed(_))));
        if self.aspect != Aspect::Stretch && !all_known {
            return None;
        }
        let results = self.results(&sizes, stated)?;
        for ((axis, (out, scale)), i) in axes.iter().zip(results).zip(0..) {
            let dim = dims.get_mut(*axis)?;
            *dim = match (*dim, stated) {
                (FactDim::Fixed(_), _) => FactDim::Fixed(out),
                (_, Stated::Sizes(sizes)) => FactDim::Fixed(usize::try_from(*sizes.get(i)?).ok()?),
                (dim, Stated::Scales(_)) if (scale - 1.0).abs() < f64::EPSILON => dim,
                _ => FactDim::Unknown,
            };
        }
        Some(dims)
    }

    fn stated(&self, args: Args<'_, '_>) -> Result<Stated, RunError> {
        let given =
            |index: Option<usize>| index.and_then(|i| args.maybe(i)).filter(|t| t.shape().elements() > 0);
        if let Some(sizes) = given(self.sizes) {
            return ints(sizes).map(Stated::Sizes).ok_or_else(|| args.fail("sizes"));
        }
        match given(self.scales) {
            Some(scales) => {
                let scales = scales.values::<f32>().ok_or_else(|| args.fail("scales of f32"))?;
                Ok(Stated::Scales(scales.iter().copied().collect()))
            }
            None if !self.fixed.is_empty() => Ok(Stated::Scales(self.fixed.clone())),
            None => Err(args.fail("scales or sizes")),
        }
    }

    fn run(&self, args: Args<'_, '_>, outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let input = args.get(0)?;
        let dims = input.dims();
        let axes = self.axes(dims.len()).ok_or_else(|| args.fail("an axis that the tensor has"))?;
        let sizes: Dims = axes.iter().filter_map(|a| dims.get(*a).copied()).collect();
        let stated = self.stated(args)?;
        let results = self.results(&sizes, &stated).ok_or_else(|| args.fail("a size for each axis"))?;
        let roi: SmallVec<[f64; 8]> = match self.roi.and_then(|i| args.maybe(i)).map(|r| r.data()) {
            Some(DataView::F32(v)) => v.iter().map(|x| f64::from(*x)).collect(),
            Some(DataView::F64(v)) => v.iter().copied().collect(),
            _ => SmallVec::new(),
        };
        let mut plan: SmallVec<[Option<Axis>; 8]> = dims.iter().map(|_| None).collect();
        for (i, ((axis, size), (out, scale))) in axes.iter().zip(&sizes).zip(&results).enumerate() {
            let roi = (roi.get(i).copied().unwrap_or(0.0), roi.get(i + axes.len()).copied().unwrap_or(1.0));
            if *size == 0 && *out > 0 {
                return Err(args.fail("an axis that is not empty"));
            }
            plan.get_mut(*axis).into_iter().for_each(|p| {
                *p = Some(Axis { size: *size, out: *out, scale: *scale, roi });
            });
        }
        let to: Dims = dims.iter().zip(&plan).map(|(d, p)| p.as_ref().map_or(*d, |p| p.out)).collect();
        // Before anything is made that is as long as an axis.
        let longest = to.iter().max().copied().unwrap_or(0) as u64;
        let product = to.iter().try_fold(4_u64, |n, d| n.checked_mul(*d as u64)).unwrap_or(u64::MAX);
        let needed = product.max(longest.saturating_mul(size_of::<Lane>() as u64));
        if needed > cx.max_tensor_bytes {
            return Err(RunError::OverBudget { needed });
        }
        let lanes: SmallVec<[Option<Vec<Lane>>; 8]> = plan
            .iter()
            .map(|axis| {
                let axis = axis.as_ref()?;
                let lanes = self.rule.lanes(axis.size, axis.out, axis.scale, axis.roi);
                (!weights::is_identity(&lanes, axis.size)).then_some(lanes)
            })
            .collect();
        if self.rule.filter == Filter::Nearest {
            any_type!(input, v => pick(args, v, dims, &to, &lanes, self.extrapolation, outputs, cx))
        } else {
            number_type!(args, input, v => blend(args, v, input, &to, &lanes, self.extrapolation, outputs, cx))
        }
    }
}

/// The nearest elements, of any type.
#[expect(clippy::too_many_arguments, reason = "one call, of any type")]
fn pick<T: Element>(
    args: Args<'_, '_>,
    values: &[T],
    dims: &[usize],
    to_dims: &[usize],
    lanes: &[Option<Vec<Lane>>],
    extrapolation: f32,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let output = first(args, outputs)?;
    let to = cx.reset::<T>(output, to_dims)?;
    let strides = super::strided::dense(dims);
    let mut slots = to.iter_mut();
    let mut outside = Vec::new();
    super::window::each_index(to_dims, |index| {
        let Some(slot) = slots.next() else { return };
        let mut at = 0_usize;
        let mut out = false;
        for ((i, lane), stride) in index.iter().zip(lanes).zip(&strides) {
            let (source, beyond) = match lane.as_ref().and_then(|l| l.get(*i)) {
                Some(lane) => (lane.taps.first().map_or(0, |(source, _)| *source), lane.outside),
                None => (*i, false),
            };
            at += source * stride.cast_unsigned();
            out |= beyond;
        }
        if let Some(value) = values.get(at) {
            slot.clone_from(value);
        }
        if out {
            outside.push(
                index.iter().zip(super::strided::dense(to_dims)).map(|(i, s)| i * s.cast_unsigned()).sum(),
            );
        }
    });
    fill_outside(output, &outside, extrapolation);
    Ok(())
}

/// Sums of neighbours, one axis after the other.
#[expect(clippy::too_many_arguments, reason = "one call, of any type of numbers")]
fn blend<T: Number>(
    args: Args<'_, '_>,
    values: &[T],
    input: TensorView<'_>,
    to_dims: &[usize],
    lanes: &[Option<Vec<Lane>>],
    extrapolation: f32,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let mut dims = Dims::from_slice(input.dims());
    let mut now: Vec<f64> = values.iter().map(|x| x.to_f64()).collect();
    for (axis, lane) in lanes.iter().enumerate() {
        let (Some(lane), Some(target)) = (lane, to_dims.get(axis)) else { continue };
        let inner: usize = dims.get(axis + 1..).unwrap_or(&[]).iter().product();
        let size = dims.get(axis).copied().unwrap_or(0);
        dims.get_mut(axis).into_iter().for_each(|d| *d = *target);
        let needed = dims.iter().try_fold(8_u64, |n, d| n.checked_mul(*d as u64)).unwrap_or(u64::MAX);
        if needed > cx.max_tensor_bytes.saturating_mul(2) {
            return Err(RunError::OverBudget { needed });
        }
        let mut next = vec![0.0_f64; dims.iter().product()];
        let blocks =
            next.chunks_exact_mut((target * inner).max(1)).zip(now.chunks_exact((size * inner).max(1)));
        for (to, from) in blocks {
            for (to, lane) in to.chunks_exact_mut(inner.max(1)).zip(lane) {
                for (source, weight) in &lane.taps {
                    let row = from.get(source * inner..).unwrap_or(&[]);
                    to.iter_mut().zip(row).for_each(|(to, x)| *to += weight * x);
                }
            }
        }
        now = next;
    }
    let output = first(args, outputs)?;
    let to = cx.reset::<T>(output, to_dims)?;
    to.iter_mut().zip(&now).for_each(|(to, x)| *to = T::from_f64(*x));
    if lanes.iter().flatten().flatten().any(|lane| lane.outside) {
        let mut outside = Vec::new();
        let mut at = 0_usize;
        super::window::each_index(to_dims, |index| {
            let beyond = |(i, lane): (&usize, &Option<Vec<Lane>>)| {
                lane.as_ref().and_then(|l| l.get(*i)).is_some_and(|l| l.outside)
            };
            if index.iter().zip(lanes).any(beyond) {
                outside.push(at);
            }
            at += 1;
        });
        fill_outside(output, &outside, extrapolation);
    }
    Ok(())
}

fn fill_outside(output: &mut Tensor, outside: &[usize], value: f32) {
    if let Some(values) = output.values_mut::<f32>() {
        for at in outside {
            values.get_mut(*at).into_iter().for_each(|v| *v = value);
        }
    }
}

/// A size from a float that is known to be small and not negative.
trait FromFloat {
    fn from_float(value: f64) -> Self;
}

impl FromFloat for usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the conversion saturates")]
    fn from_float(value: f64) -> Self {
        value as Self
    }
}
