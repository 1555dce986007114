//! Images read at places between their elements: `GridSample`, `AffineGrid`, `RoiAlign`.

use smallvec::{SmallVec, smallvec};

use super::number::Float;
use super::support::{Args, Built, Dims, Facts, Run, fact, first, float_type, ints, like, one, op};
use super::window::each_index;
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::tensor::Tensor;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "GridSample" => grid_sample(name, node),
        "AffineGrid" => affine_grid(name, node),
        "RoiAlign" => roi_align(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Filter {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Border {
    Zeros,
    Nearest,
    Reflected,
}

#[derive(Clone, Copy, Debug)]
struct Sampler {
    filter: Filter,
    border: Border,
    align_corners: bool,
}

impl Sampler {
    /// From -1 to 1 over the image to elements.
    #[allow(clippy::cast_precision_loss, reason = "a size")]
    fn place(self, n: f64, size: usize) -> f64 {
        let size = size as f64;
        if self.align_corners { f64::midpoint(n, 1.0) * (size - 1.0) } else { ((n + 1.0) * size - 1.0) / 2.0 }
    }

    #[allow(clippy::cast_precision_loss, reason = "a size")]
    fn limits(self, size: usize) -> (f64, f64) {
        if self.align_corners { (0.0, size as f64 - 1.0) } else { (-0.5, size as f64 - 0.5) }
    }

    /// Brings a place that is outside into the image, where the border says so.
    #[allow(clippy::cast_precision_loss, reason = "a size")]
    fn inside(self, x: f64, size: usize) -> f64 {
        match self.border {
            Border::Zeros => x,
            Border::Nearest => x.clamp(0.0, size as f64 - 1.0),
            Border::Reflected => {
                let (low, high) = self.limits(size);
                let range = high - low;
                if range <= 0.0 {
                    return 0.0;
                }
                let turn = (x - low).rem_euclid(2.0 * range);
                low + turn.min(2.0 * range - turn)
            }
        }
    }

    /// The elements along one axis that a place reads, with their weights; none for those that
    /// count as zero.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
    fn taps(self, n: f64, size: usize) -> SmallVec<[(Option<usize>, f64); 4]> {
        let mut x = self.place(n, size);
        if self.filter != Filter::Cubic {
            x = self.inside(x, size);
        }
        if self.border == Border::Reflected && self.filter != Filter::Cubic {
            x = x.clamp(0.0, (size as f64 - 1.0).max(0.0));
        }
        if x.is_nan() {
            return smallvec![(None, f64::NAN)];
        }
        let element = |i: f64| -> Option<usize> {
            let i = if self.filter == Filter::Cubic { self.inside(i, size) } else { i };
            let i =
                if self.border == Border::Reflected { i.clamp(0.0, (size as f64 - 1.0).max(0.0)) } else { i };
            (i >= 0.0 && i < size as f64).then_some(i.round().max(0.0) as usize)
        };
        match self.filter {
            Filter::Nearest => smallvec![(element(x.round_ties_even()), 1.0)],
            Filter::Linear => {
                let low = x.floor();
                let part = x - low;
                smallvec![(element(low), 1.0 - part), (element(low + 1.0), part)]
            }
            Filter::Cubic => {
                let low = x.floor();
                let t = x - low;
                let near = |d: f64| ((1.25 * d) - 2.25) * d * d + 1.0;
                let far = |d: f64| ((-0.75 * d + 3.75) * d - 6.0) * d + 3.0;
                smallvec![
                    (element(low - 1.0), far(t + 1.0)),
                    (element(low), near(t)),
                    (element(low + 1.0), near(1.0 - t)),
                    (element(low + 2.0), far(2.0 - t)),
                ]
            }
        }
    }
}

fn grid_sample(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(
        args: Args<'_, '_>,
        values: &[T],
        sampler: Sampler,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let (shape, grid_shape) = (args.get(0)?.shape(), args.get(1)?.shape());
        let grid = args.values::<T>(1)?;
        let ([batch, channels, sizes @ ..], [rows, outs @ .., axes]) = (shape.dims(), grid_shape.dims())
        else {
            return Err(args.fail("an image and a grid"));
        };
        if rows != batch
            || *axes != sizes.len()
            || outs.len() != sizes.len()
            || *axes == 0
            || sizes.contains(&0)
        {
            return Err(args.fail("a grid that fits the image"));
        }
        let mut dims = Dims::from_slice(&[*batch, *channels]);
        dims.extend(outs.iter().copied());
        let (plane, positions): (usize, usize) = (sizes.iter().product(), outs.iter().product());
        let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
        let taps_dims: Dims = SmallVec::from_elem(if sampler.filter == Filter::Cubic { 4 } else { 2 }, *axes);
        for (at, place) in grid.chunks_exact(*axes).enumerate() {
            let (image, position) = (at / positions.max(1), at % positions.max(1));
            // A grid names the last axis first.
            let taps: SmallVec<[_; 3]> =
                place.iter().rev().zip(sizes).map(|(n, size)| sampler.taps(n.to_f64(), *size)).collect();
            for channel in 0..*channels {
                let start = (image * channels + channel) * plane;
                let mut sum = 0.0;
                each_index(&taps_dims, |index| {
                    let mut weight = 1.0;
                    let mut element = Some(0);
                    for ((taps, i), size) in taps.iter().zip(index).zip(sizes) {
                        let Some((source, part)) = taps.get(*i) else {
                            weight = 0.0;
                            element = None;
                            break;
                        };
                        weight *= part;
                        element = element.zip(*source).map(|(at, source)| at * size + source);
                    }
                    match element.and_then(|e| values.get(start + e)) {
                        Some(x) if weight != 0.0 => sum += weight * x.to_f64(),
                        None if weight.is_nan() => sum = f64::NAN,
                        _ => {}
                    }
                });
                let slot = to.get_mut((image * channels + channel) * positions + position);
                slot.into_iter().for_each(|to| *to = T::from_f64(sum));
            }
        }
        Ok(())
    }
    let filter = match node.attributes.string("mode")?.unwrap_or("linear") {
        "linear" | "bilinear" => Filter::Linear,
        "nearest" => Filter::Nearest,
        "cubic" | "bicubic" => Filter::Cubic,
        other => return Err(BuildError::invalid(format!("attribute `mode`: found `{other}`"))),
    };
    let border = match node.attributes.string("padding_mode")?.unwrap_or("zeros") {
        "zeros" => Border::Zeros,
        "border" => Border::Nearest,
        "reflection" => Border::Reflected,
        other => return Err(BuildError::invalid(format!("attribute `padding_mode`: found `{other}`"))),
    };
    let align_corners = node.attributes.int("align_corners")?.unwrap_or(0) != 0;
    let sampler = Sampler { filter, border, align_corners };
    let facts = |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let dims = like(inputs, 0).zip(like(inputs, 1)).map(|(image, grid)| {
            image
                .iter()
                .take(2)
                .chain(grid.iter().skip(1).take(grid.len().saturating_sub(2)))
                .copied()
                .collect()
        });
        one(element, dims)
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, sampler, outputs, cx))
    })
}

fn affine_grid(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(
        args: Args<'_, '_>,
        theta: &[T],
        align_corners: bool,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let sizes: Option<Dims> = args.ints(1)?.iter().map(|n| usize::try_from(*n).ok()).collect();
        let sizes = sizes.ok_or_else(|| args.fail("sizes that are not negative"))?;
        let [batch, _, sizes @ ..] = sizes.as_slice() else { return Err(args.fail("the size of an image")) };
        let axes = sizes.len();
        if args.get(0)?.dims() != [*batch, axes, axes + 1] {
            return Err(args.fail("a transformation for each image"));
        }
        let mut dims = Dims::from_slice(&[*batch]);
        dims.extend(sizes.iter().copied());
        dims.push(axes);
        let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
        let mut slots = to.chunks_exact_mut(axes.max(1));
        for theta in theta.chunks_exact((axes * (axes + 1)).max(1)) {
            each_index(sizes, |index| {
                let place = |(i, size): (&usize, &usize)| {
                    #[allow(clippy::cast_precision_loss, reason = "a size")]
                    let (i, size) = (*i as f64, *size as f64);
                    if align_corners {
                        if size > 1.0 { 2.0 * i / (size - 1.0) - 1.0 } else { 0.0 }
                    } else {
                        (2.0 * i + 1.0) / size - 1.0
                    }
                };
                let from: SmallVec<[f64; 4]> =
                    index.iter().zip(sizes).map(place).rev().chain([1.0]).collect();
                let Some(slot) = slots.next() else { return };
                for (to, row) in slot.iter_mut().zip(theta.chunks_exact(axes + 1)) {
                    *to = T::from_f64(row.iter().zip(&from).map(|(t, x)| t.to_f64() * x).sum());
                }
            });
        }
        Ok(())
    }
    let align_corners = node.attributes.int("align_corners")?.unwrap_or(0) != 0;
    let sizes = node.inputs.get(1).copied().flatten().flatten().and_then(|t| ints(t.view()));
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let axes = like(inputs, 0).and_then(|dims| match dims.get(1) {
            Some(FactDim::Fixed(n)) => Some(*n),
            _ => None,
        });
        let dims = axes.map(|axes| {
            let size = |i: usize| {
                let size =
                    sizes.as_ref().and_then(|s| s.get(i).copied()).and_then(|n| usize::try_from(n).ok());
                size.map_or(FactDim::Unknown, FactDim::Fixed)
            };
            [0].into_iter().chain(2..axes + 2).map(size).chain([FactDim::Fixed(axes)]).collect()
        });
        one(element, dims)
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, align_corners, outputs, cx))
    })
}

#[derive(Clone, Copy, Debug)]
struct Roi {
    largest: bool,
    half_pixel: bool,
    height: usize,
    width: usize,
    samples: usize,
    scale: f64,
}

/// The most samples along one axis of a bin.
const MAX_SAMPLES: usize = 256;

fn roi_align(name: &'static str, node: &Node<'_>) -> Built {
    let size = |name: &str, default: i64| -> Result<usize, BuildError> {
        let size = node.attributes.int(name)?.unwrap_or(default);
        usize::try_from(size).map_err(|_| BuildError::invalid(format!("attribute `{name}`: found {size}")))
    };
    let samples = size("sampling_ratio", 0)?;
    if samples > MAX_SAMPLES {
        return Err(BuildError::invalid(format!("attribute `sampling_ratio`: found {samples}")));
    }
    let default = if node.version < 16 { "output_half_pixel" } else { "half_pixel" };
    let roi = Roi {
        largest: node.attributes.string("mode")?.unwrap_or("avg").eq_ignore_ascii_case("max"),
        half_pixel: node.attributes.string("coordinate_transformation_mode")?.unwrap_or(default)
            == "half_pixel",
        height: size("output_height", 1)?,
        width: size("output_width", 1)?,
        samples,
        scale: f64::from(node.attributes.float("spatial_scale")?.unwrap_or(1.0)),
    };
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let count = like(inputs, 1).and_then(|d| d.first().copied()).unwrap_or(FactDim::Unknown);
        let channels = like(inputs, 0).and_then(|d| d.get(1).copied()).unwrap_or(FactDim::Unknown);
        one(element, Some(smallvec![count, channels, FactDim::Fixed(roi.height), FactDim::Fixed(roi.width)]))
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => align(args, v, &roi, outputs, cx))
    })
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes"
)]
fn align<T: Float>(
    args: Args<'_, '_>,
    values: &[T],
    roi: &Roi,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let shape = args.get(0)?.shape();
    let [images, channels, height, width] = shape.dims() else { return Err(args.fail("images")) };
    let (boxes, rows) = (args.values::<T>(1)?, args.ints(2)?);
    if boxes.len() != rows.len() * 4 || height * width == 0 {
        return Err(args.fail("four corners a region"));
    }
    let dims = [rows.len(), *channels, roi.height, roi.width];
    let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
    let area = roi.height * roi.width;
    let blocks = to.chunks_exact_mut((channels * area).max(1));
    for ((corners, row), to) in boxes.chunks_exact(4).zip(&rows).zip(blocks) {
        let image = usize::try_from(*row).ok().filter(|i| i < images);
        let image = image.ok_or_else(|| args.fail("regions of images that there are"))?;
        let offset = if roi.half_pixel { 0.5 } else { 0.0 };
        let corner = |i: usize| corners.get(i).map_or(0.0, |x| x.to_f64()) * roi.scale - offset;
        let least = if roi.half_pixel { f64::NEG_INFINITY } else { 1.0 };
        let (span_x, span_y) = ((corner(2) - corner(0)).max(least), (corner(3) - corner(1)).max(least));
        let (bin_y, bin_x) = (span_y / roi.height as f64, span_x / roi.width as f64);
        let count = |bin: f64| {
            if roi.samples > 0 { roi.samples } else { bin.ceil().clamp(0.0, MAX_SAMPLES as f64) as usize }
        };
        let (count_y, count_x) = (count(bin_y), count(bin_x));
        for (channel, to) in to.chunks_exact_mut(area.max(1)).enumerate() {
            let start = (image * channels + channel) * height * width;
            let plane = values.get(start..start + height * width).unwrap_or(&[]);
            for (at, to) in to.iter_mut().enumerate() {
                let (y, x) = ((at / roi.width) as f64, (at % roi.width) as f64);
                let (mut sum, mut most) = (0.0, None::<f64>);
                for sample in 0..count_y * count_x {
                    let (sy, sx) = ((sample / count_x) as f64, (sample % count_x) as f64);
                    let y = corner(1) + y * bin_y + (sy + 0.5) * bin_y / count_y as f64;
                    let x = corner(0) + x * bin_x + (sx + 0.5) * bin_x / count_x as f64;
                    let parts = corners_of(plane, *height, *width, y, x);
                    sum += parts.iter().sum::<f64>();
                    let largest = parts.into_iter().fold(f64::NEG_INFINITY, f64::max);
                    most = Some(most.map_or(largest, |m| m.max(largest)));
                }
                let mean = sum / (count_y * count_x).max(1) as f64;
                *to = T::from_f64(if roi.largest { most.unwrap_or(0.0) } else { mean });
            }
        }
    }
    Ok(())
}

/// The four neighbours of a place, each by its weight; zero beyond the image.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes"
)]
fn corners_of<T: Float>(plane: &[T], height: usize, width: usize, y: f64, x: f64) -> [f64; 4] {
    if !(-1.0..=height as f64).contains(&y) || !(-1.0..=width as f64).contains(&x) {
        return [0.0; 4];
    }
    let axis = |v: f64, size: usize| {
        let v = v.max(0.0);
        let low = (v as usize).min(size - 1);
        if low >= size - 1 { (low, low, 0.0) } else { (low, low + 1, v - low as f64) }
    };
    let ((y0, y1, ly), (x0, x1, lx)) = (axis(y, height), axis(x, width));
    let value = |y: usize, x: usize| plane.get(y * width + x).map_or(0.0, |v| v.to_f64());
    [
        (1.0 - ly) * (1.0 - lx) * value(y0, x0),
        (1.0 - ly) * lx * value(y0, x1),
        ly * (1.0 - lx) * value(y1, x0),
        ly * lx * value(y1, x1),
    ]
}
