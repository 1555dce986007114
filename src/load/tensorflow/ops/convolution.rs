//! Convolutions and pooling, in either order of dimensions.

use super::super::api::{Datum, DatumType, EngineTensor, OutletId, TDim, TVec, ToDim, tract_core, tvec};
use super::super::graph::Node;
use super::wiring::{One, Wired, Wiring, first, input, invalid, two};
use super::{Handler, WiringError};
use crate::load::tract::nan::KeepNan;
use tract_core::ops::cnn::{Conv, Deconv, KernelFormat, MaxPool, PaddingSpec, PoolSpec, SumPool};
use tract_core::ops::nn::DataFormat;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Conv2D" | "Conv3D" => |w, n, i| {
            let (x, kernel) = two(i)?;
            Ok(tvec!(convolve(w, n, x, kernel, false)?))
        },
        "DepthwiseConv2dNative" => |w, n, i| {
            let (x, kernel) = two(i)?;
            Ok(tvec!(convolve(w, n, x, kernel, true)?))
        },
        "_FusedConv2D" => |w, n, i| {
            let (x, kernel) = two(i)?;
            let mut out = tvec!(convolve(w, n, x, kernel, false)?);
            super::attention::fused_rest(w, n, i, &mut out)?;
            Ok(out)
        },
        "Conv2DBackpropInput" | "Conv3DBackpropInputV2" => backprop_input,
        "MaxPool" | "MaxPool3D" => |w, n, i| {
            let x = first(i)?;
            let spec = pool_spec(w, n, x)?;
            let pool = MaxPool { pool_spec: spec, with_index_outputs: None };
            let y = w.one(pool.clone(), &[x])?;
            Ok(tvec!(w.one(KeepNan { spread: Some(Box::new(pool)) }, &[x, y])?))
        },
        "AvgPool" | "AvgPool3D" => |w, n, i| {
            let x = first(i)?;
            let pool_spec = pool_spec(w, n, x)?;
            Ok(tvec!(w.one(SumPool { pool_spec, count_include_pad: false, normalize: true }, &[x])?))
        },
        _ => return None,
    })
}

/// Where the channels are, and which axes are space.
struct Layout {
    format: DataFormat,
    rank: usize,
}

impl Layout {
    fn of(w: &Wiring<'_>, node: &Node, x: OutletId) -> Result<Self, WiringError> {
        let rank = w.rank(x)?;
        if !(3..=5).contains(&rank) {
            return Err(invalid(format!("an input of {rank} dimensions is no image")));
        }
        let first = node.attributes.text("data_format").is_some_and(|f| f.starts_with("NC"));
        Ok(Self { format: if first { DataFormat::NCHW } else { DataFormat::NHWC }, rank })
    }

    fn space(&self) -> std::ops::Range<usize> {
        if self.format == DataFormat::NCHW { 2..self.rank } else { 1..self.rank - 1 }
    }

    fn channels(&self) -> usize {
        if self.format == DataFormat::NCHW { 1 } else { self.rank - 1 }
    }

    /// What an attribute with one number for each dimension says of those of space.
    fn spatial(&self, node: &Node, attribute: &str) -> Result<TVec<usize>, WiringError> {
        let all = node.attributes.ints(attribute).filter(|l| !l.is_empty());
        let Some(all) = all else { return Ok(self.space().map(|_| 1).collect()) };
        let wrong = || invalid(format!("`{attribute}` is malformed"));
        let spatial = self.space().map(|axis| {
            let value = all.get(axis).and_then(|v| usize::try_from(*v).ok());
            value.filter(|v| (1..1 << 24).contains(v)).ok_or_else(wrong)
        });
        spatial.collect()
    }

    fn padding(&self, node: &Node) -> Result<PaddingSpec, WiringError> {
        Ok(match node.attributes.text("padding") {
            Some("SAME") => PaddingSpec::SameUpper,
            Some("VALID") => PaddingSpec::Valid,
            Some("EXPLICIT") => {
                let all = node.attributes.ints("explicit_paddings").unwrap_or_default();
                let at = |i: usize| all.get(i).and_then(|v| usize::try_from(*v).ok());
                let sides = |side: usize| self.space().map(|a| at(2 * a + side)).collect::<Option<TVec<_>>>();
                match (sides(0), sides(1)) {
                    (Some(before), Some(after)) => PaddingSpec::Explicit(before, after),
                    _ => return Err(invalid("the explicit paddings are malformed")),
                }
            }
            other => return Err(invalid(format!("unknown padding {other:?}"))),
        })
    }
}

fn convolve(w: &mut Wiring<'_>, node: &Node, x: OutletId, kernel: OutletId, depthwise: bool) -> One {
    let layout = Layout::of(w, node, x)?;
    let shape = w.concrete_dims(kernel)?;
    let channels = known_channels(w, x, &layout)?;
    let (Some((output, front)), true) = (shape.split_last(), shape.len() == layout.rank) else {
        return Err(invalid("the kernel has another number of dimensions than the input"));
    };
    let (input_of_kernel, kernel_shape) = front.split_last().ok_or(WiringError::Unsupported)?;
    let (group, output_channels) = if depthwise {
        (channels, channels.checked_mul(*output).ok_or(WiringError::Unsupported)?)
    } else if *input_of_kernel == 0 || channels % input_of_kernel != 0 {
        return Err(invalid(format!("the kernel takes {input_of_kernel} channels of {channels}")));
    } else {
        (channels / input_of_kernel, *output)
    };
    if depthwise && *input_of_kernel != channels {
        return Err(invalid(format!(
            "the kernel takes {input_of_kernel} channels, the input has {channels}"
        )));
    }
    // tract wants all inputs and the outputs of one group, as a depthwise kernel already is.
    let kernel = if depthwise || group == 1 {
        kernel
    } else {
        let space = kernel_shape.len();
        let dims =
            |tail: &[usize]| kernel_shape.iter().chain(tail).map(ToDim::to_dim).collect::<TVec<TDim>>();
        let split = w.reshape(kernel, &dims(&[*input_of_kernel, group, output / group]))?;
        let permutation: Vec<usize> = (0..space).chain([space + 1, space, space + 2]).collect();
        let grouped = w.transpose(split, &permutation)?;
        w.reshape(grouped, &dims(&[channels, output / group]))?
    };
    let pool_spec = PoolSpec {
        data_format: layout.format,
        kernel_shape: kernel_shape.iter().copied().collect(),
        padding: layout.padding(node)?,
        dilations: Some(layout.spatial(node, "dilations")?),
        strides: Some(layout.spatial(node, "strides")?),
        input_channels: channels,
        output_channels,
    };
    let bias = w.tensor(EngineTensor::zero_scalar_dt(w.datum(x)?)?)?;
    w.one(Conv { pool_spec, kernel_fmt: KernelFormat::HWIO, group, q_params: None }, &[x, kernel, bias])
}

/// A transposed convolution: its size is an input, and decides what of the full result is kept.
fn backprop_input(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (sizes, kernel, x) = (first(inputs)?, input(inputs, 1)?, input(inputs, 2)?);
    let layout = Layout::of(w, node, x)?;
    let sizes = w.konst_dims(sizes)?;
    let shape = w.concrete_dims(kernel)?;
    let channels = known_channels(w, x, &layout)?;
    let [front @ .., output_channels, input_of_kernel] = shape.as_slice() else {
        return Err(invalid("the kernel is malformed"));
    };
    if *input_of_kernel != channels || front.len() != layout.space().len() {
        return Err(invalid("the kernel does not fit the input"));
    }
    let strides = layout.spatial(node, "strides")?;
    let dilations = layout.spatial(node, "dilations")?;
    let pool_spec = PoolSpec {
        data_format: layout.format,
        kernel_shape: front.iter().copied().collect(),
        padding: PaddingSpec::Valid,
        dilations: Some(dilations.clone()),
        strides: Some(strides.clone()),
        input_channels: channels,
        output_channels: *output_channels,
    };
    // The kernel comes with outputs before inputs.
    let rank = w.rank(kernel)?;
    let mut permutation: Vec<usize> = (0..rank).collect();
    permutation.swap(rank - 1, rank - 2);
    let kernel = w.transpose(kernel, &permutation)?;
    let bias = w.tensor(EngineTensor::zero_scalar_dt(w.datum(x)?)?)?;
    let adjustments = layout.space().map(|_| 0).collect();
    let deconv = Deconv { pool_spec, kernel_format: KernelFormat::HWIO, adjustments, group: 1 };
    let mut out = w.one(deconv, &[x, kernel, bias])?;
    let same = node.attributes.text("padding") == Some("SAME");
    for (place, axis) in layout.space().enumerate() {
        let at = |values: &[usize]| values.get(place).copied().unwrap_or(1);
        let full = w.dim(out, axis)?;
        let wanted = sizes.get(axis).cloned().ok_or_else(|| invalid("the size is malformed"))?;
        let given = w.dim(x, axis)?;
        // What the forward convolution of this size would have padded in front.
        let extent = (at(front) - 1) * at(&dilations) + 1;
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let before = match (given.as_i64(), wanted.as_i64()) {
            _ if !same => 0,
            (Some(given), Some(wanted)) => {
                let reach = (given - 1).saturating_mul(signed(at(&strides)));
                reach.saturating_add(signed(extent)).saturating_sub(wanted).max(0) / 2
            }
            _ => signed(extent.saturating_sub(at(&strides))) / 2,
        };
        out = match (full.as_i64(), wanted.as_i64()) {
            (Some(full), Some(wanted)) if before + wanted > full => {
                let zero = EngineTensor::zero_scalar_dt(w.datum(out)?)?;
                let mut pads = vec![(0, 0); layout.rank];
                let missing = usize::try_from(before + wanted - full).unwrap_or(0);
                if let Some(pad) = pads.get_mut(axis) {
                    *pad = (0, missing);
                }
                let mode = tract_core::ops::array::PadMode::Constant(std::sync::Arc::new(zero));
                w.one(tract_core::ops::array::Pad { pads, mode }, &[out])?
            }
            _ => out,
        };
        out = w.cut(out, axis, before, wanted + before)?;
    }
    Ok(tvec!(out))
}

fn pool_spec(w: &Wiring<'_>, node: &Node, x: OutletId) -> Result<PoolSpec, WiringError> {
    let layout = Layout::of(w, node, x)?;
    let channels = known_channels(w, x, &layout)?;
    if !w.datum(x)?.is_float() && w.datum(x)? != DatumType::I32 && w.datum(x)? != i8::datum_type() {
        return Err(WiringError::Unsupported);
    }
    Ok(PoolSpec {
        data_format: layout.format,
        kernel_shape: layout.spatial(node, "ksize")?,
        padding: layout.padding(node)?,
        dilations: None,
        strides: Some(layout.spatial(node, "strides")?),
        input_channels: channels,
        output_channels: channels,
    })
}

fn known_channels(w: &Wiring<'_>, x: OutletId, layout: &Layout) -> Result<usize, WiringError> {
    let channels = w.dim(x, layout.channels())?.as_i64().and_then(|c| usize::try_from(c).ok());
    channels.filter(|c| *c > 0).ok_or_else(|| invalid("the number of channels is open"))
}
