//! Windows that slide over the spatial axes of a tensor of shape `[batch, channels, sizes..]`:
//! kernel, strides, dilations, pads, as convolutions and pools state them.

use smallvec::SmallVec;

use super::support::{Args, Dims, FactDims, like};
use crate::kernel::{BuildError, Fact, FactDim, Node};
use crate::load::RunError;

#[derive(Clone, Copy, Debug, PartialEq)]
enum AutoPad {
    Stated,
    SameUpper,
    SameLower,
    Valid,
}

/// A window as a node states it.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Empty where the shape of the weights tells.
    pub(super) kernel: Dims,
    strides: Dims,
    dilations: Dims,
    pads: SmallVec<[i64; 8]>,
    auto_pad: AutoPad,
    ceil: bool,
}

/// A window along one axis of known size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    before: i64,
    /// The size of the input along the axis.
    pub(super) size: usize,
    /// The positions of the window.
    pub(super) out: usize,
}

impl Place {
    /// Where the element `k` of the window lies at position `out`, before zero in the pads.
    #[allow(clippy::cast_precision_loss, reason = "sizes")]
    pub(super) fn start(&self, out: usize, k: usize) -> f64 {
        (out * self.stride + k * self.dilation) as f64 - self.before as f64
    }

    /// Where in the input the element `k` of the window lies at position `out`; `None` in the pads.
    pub(super) fn source(&self, out: usize, k: usize) -> Option<usize> {
        let at = (out * self.stride + k * self.dilation)
            .checked_add_signed(isize::try_from(self.before.checked_neg()?).ok()?)?;
        (at < self.size).then_some(at)
    }
}

impl Window {
    pub(super) fn new(node: &Node<'_>) -> Result<Self, BuildError> {
        let positive = |name: &str| -> Result<Dims, BuildError> {
            let sizes =
                node.attributes.ints(name)?.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n > 0));
            let sizes: Option<Dims> = sizes.collect();
            sizes.ok_or_else(|| {
                BuildError::invalid(format!("attribute `{name}` has a size that is not positive"))
            })
        };
        let auto_pad = match node.attributes.string("auto_pad")?.unwrap_or("NOTSET") {
            "NOTSET" | "" => AutoPad::Stated,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            other => return Err(BuildError::invalid(format!("attribute `auto_pad`: found `{other}`"))),
        };
        Ok(Self {
            kernel: positive("kernel_shape")?,
            strides: positive("strides")?,
            dilations: positive("dilations")?,
            pads: node.attributes.ints("pads")?.iter().copied().collect(),
            auto_pad,
            ceil: node.attributes.int("ceil_mode")?.unwrap_or(0) != 0,
        })
    }

    /// The window on an input of these spatial sizes.
    pub(super) fn places(
        &self,
        args: Args<'_, '_>,
        kernel: &[usize],
        sizes: &[usize],
    ) -> Result<SmallVec<[Place; 3]>, RunError> {
        let places =
            sizes.iter().enumerate().map(|(axis, size)| self.place(axis, kernel, sizes.len(), *size));
        places.collect::<Option<_>>().ok_or_else(|| args.fail("an input that the window fits in"))
    }

    fn place(&self, axis: usize, kernel: &[usize], rank: usize, size: usize) -> Option<Place> {
        let kernel = *kernel.get(axis)?;
        let stride = self.strides.get(axis).copied().unwrap_or(1);
        let dilation = self.dilations.get(axis).copied().unwrap_or(1);
        let span = i64::try_from(kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?).ok()?;
        let (size_, stride_) = (i64::try_from(size).ok()?, i64::try_from(stride).ok()?);
        let (before, out) = match self.auto_pad {
            AutoPad::SameUpper | AutoPad::SameLower => {
                let out = size_.checked_add(stride_ - 1)? / stride_;
                let pads = ((out - 1).checked_mul(stride_)?.checked_add(span)? - size_).max(0);
                (if self.auto_pad == AutoPad::SameUpper { pads / 2 } else { pads - pads / 2 }, out)
            }
            AutoPad::Valid => (0, (size_ - span).div_euclid(stride_) + 1),
            AutoPad::Stated => {
                let before = self.pads.get(axis).copied().unwrap_or(0);
                let after = self.pads.get(axis + rank).copied().unwrap_or(0);
                let free = size_.checked_add(before)?.checked_add(after)? - span;
                let mut out = free.div_euclid(stride_) + 1;
                if self.ceil && free.rem_euclid(stride_) != 0 && out * stride_ < size_ + before {
                    out += 1;
                }
                (before, out)
            }
        };
        let out = usize::try_from(out).ok()?;
        Some(Place { kernel, stride, dilation, before, size, out })
    }

    /// The shape of a convolution of an input with weights, as far as it is known beforehand.
    pub(super) fn output_fact(
        &self,
        inputs: &[Option<Fact>],
        input: usize,
        weights: usize,
    ) -> Option<FactDims> {
        let weights = inputs.get(weights)?.as_ref()?.dims.as_ref()?;
        let fixed = |d: &FactDim| if let FactDim::Fixed(n) = d { Some(*n) } else { None };
        let kernel: Dims = weights.iter().skip(2).map(fixed).collect::<Option<_>>()?;
        let filters = weights.first().and_then(fixed).map_or(FactDim::Unknown, FactDim::Fixed);
        self.sized(&like(inputs, input)?, &kernel, Some(filters))
    }

    /// The shape of a pool over an input, as far as it is known beforehand.
    pub(super) fn pooled_fact(&self, inputs: &[Option<Fact>]) -> Option<FactDims> {
        let dims = like(inputs, 0)?;
        self.sized(&dims, &self.kernel, dims.get(1).copied())
    }

    fn sized(&self, dims: &[FactDim], kernel: &[usize], channels: Option<FactDim>) -> Option<FactDims> {
        let mut result = FactDims::from_slice(&[*dims.first()?, channels?]);
        let rank = dims.len().checked_sub(2).filter(|rank| *rank == kernel.len())?;
        for (axis, dim) in dims.iter().skip(2).enumerate() {
            result.push(match dim {
                FactDim::Fixed(n) => FactDim::Fixed(self.place(axis, kernel, rank, *n)?.out),
                _ => FactDim::Unknown,
            });
        }
        Some(result)
    }
}

/// Calls `visit` with each index of a tensor of this shape, in row-major order.
pub(super) fn each_index(dims: &[usize], mut visit: impl FnMut(&[usize])) {
    if dims.contains(&0) {
        return;
    }
    let mut index = Dims::from_elem(0, dims.len());
    loop {
        visit(&index);
        let mut moved = false;
        for (i, dim) in index.iter_mut().zip(dims).rev() {
            *i += 1;
            if *i < *dim {
                moved = true;
                break;
            }
            *i = 0;
        }
        if !moved {
            return;
        }
    }
}
