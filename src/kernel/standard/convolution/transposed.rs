//! `ConvTranspose` to a stated shape. Where that is larger than what the products reach, the rest is
//! the bias alone, which the engine that is there for the others gets wrong.

use smallvec::SmallVec;

use super::window::AXES;
use crate::kernel::standard::number::Float;
use crate::kernel::standard::support::{
    Args, Built, FactDims, Facts, Run, fact, first, float_type, like, one, op,
};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::tensor::Tensor;

pub(super) const OPERATOR: &str = "ConvTranspose";

/// What a node states, of an axis.
#[derive(Clone, Copy, Debug)]
struct Axis {
    stride: usize,
    dilation: usize,
    /// Elements beyond the last product.
    added: usize,
    output: usize,
}

#[derive(Clone, Debug)]
struct Settings {
    axes: SmallVec<[Axis; AXES]>,
    groups: usize,
    /// An odd border is one more at the end.
    upper: bool,
}

/// An axis of a run: of sizes that are there, and with the border before the first element.
#[derive(Clone, Copy)]
struct Extent {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
}

impl Extent {
    /// Where a product of this element and tap goes.
    fn place(&self, at: usize, tap: usize) -> Option<usize> {
        (at * self.stride + tap * self.dilation).checked_sub(self.before).filter(|place| *place < self.output)
    }
}

/// The kernel of a node that states its output's shape; [`BuildError::Unsupported`] for others.
pub(super) fn build(node: &Node<'_>) -> Built {
    if node.attributes.ints("output_shape")?.is_empty() {
        return Err(BuildError::Unsupported);
    }
    let list = |name: &'static str, default: usize| -> Result<Vec<usize>, BuildError> {
        let given = node.attributes.ints(name)?.iter();
        let sizes: Option<Vec<usize>> =
            given.map(|v| usize::try_from(*v).ok().filter(|v| *v <= 1 << 31)).collect();
        let sizes = sizes.ok_or_else(|| BuildError::invalid(format!("{name}: expected sizes")))?;
        Ok(if sizes.is_empty() { vec![default; AXES] } else { sizes })
    };
    let (strides, dilations) = (list("strides", 1)?, list("dilations", 1)?);
    let (added, stated) = (list("output_padding", 0)?, list("output_shape", 0)?);
    let rank = match node.attributes.ints("kernel_shape")?.len() {
        0 => stated.len(),
        rank => rank,
    };
    // Some state the batch and the channels, too.
    let stated = stated.get(stated.len().saturating_sub(rank)..).unwrap_or(&[]);
    let upper = node.attributes.string("auto_pad")? == Some("SAME_UPPER");
    let groups = node.attributes.int("group")?.unwrap_or(1);
    let groups = usize::try_from(groups).ok().filter(|g| *g > 0);
    let groups = groups.ok_or_else(|| BuildError::invalid("attribute `group` is not positive"))?;
    if !(1..=AXES).contains(&rank) || stated.len() != rank {
        return Err(BuildError::Unsupported);
    }
    let axis = |at: usize| {
        let of = |list: &[usize]| list.get(at).copied();
        let (stride, dilation) = (of(&strides)?, of(&dilations)?);
        (stride > 0 && dilation > 0).then_some(())?;
        Some(Axis { stride, dilation, added: of(&added)?, output: of(stated)? })
    };
    let axes: Option<SmallVec<[Axis; AXES]>> = (0..rank).map(axis).collect();
    let axes = axes.ok_or_else(|| BuildError::invalid("strides, dilations: expected one for each axis"))?;
    let settings = Settings { axes, groups, upper };
    let known = settings.clone();
    op(
        OPERATOR,
        move |inputs| known.facts(inputs),
        move |args, outputs, cx| {
            let input = args.get(0)?;
            float_type!(args, input, v => settings.run(args, v, outputs, cx))
        },
    )
}

impl Settings {
    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        let batch = like(inputs, 0).and_then(|dims| dims.first().copied()).unwrap_or(FactDim::Unknown);
        let depth = inputs.get(1).and_then(Option::as_ref).and_then(|w| w.dims.as_ref()?.get(1).copied());
        let channels = match depth {
            Some(FactDim::Fixed(depth)) => FactDim::Fixed(depth.saturating_mul(self.groups)),
            _ => FactDim::Unknown,
        };
        let spatial = self.axes.iter().map(|axis| FactDim::Fixed(axis.output));
        let dims: FactDims = [batch, channels].into_iter().chain(spatial).collect();
        one(fact(inputs, 0)?.element, Some(dims))
    }

    fn run<T: Float>(&self, args: Args<'_, '_>, x: &[T], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let w = args.values::<T>(1)?;
        let bias = if args.maybe(2).is_some() { Some(args.values::<T>(2)?) } else { None };
        let (x_shape, w_shape) = (args.get(0)?.shape(), args.get(1)?.shape());
        let ([batch, channels, sizes @ ..], [rows, depth, kernel @ ..]) = (x_shape.dims(), w_shape.dims())
        else {
            return Err(args.fail("an image and filters"));
        };
        let (batch, channels, depth) = (*batch, *channels, *depth);
        let filters = depth * self.groups;
        let rank = self.axes.len();
        let fits =
            *rows == channels && channels % self.groups == 0 && bias.is_none_or(|b| b.len() == filters);
        if !fits || sizes.len() != rank || kernel.len() != rank || kernel.contains(&0) {
            return Err(args.fail("filters that fit the image"));
        }
        let mut grid = [Extent { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0 }; AXES];
        let stated = self.axes.iter().zip(sizes).zip(kernel);
        for (extent, ((axis, input), kernel)) in grid.iter_mut().skip(AXES - rank).zip(stated) {
            *extent = self.extent(*axis, *input, *kernel).ok_or_else(|| args.fail("smaller sizes"))?;
        }
        let mut dims: SmallVec<[usize; AXES + 2]> = SmallVec::from_slice(&[batch, filters]);
        dims.extend(grid.iter().skip(AXES - rank).map(|extent| extent.output));
        let y = cx.reset::<T>(first(args, outputs)?, &dims)?;
        let [elements, places, taps] = [
            grid.iter().map(|e| e.input).product::<usize>(),
            grid.iter().map(|e| e.output).product(),
            grid.iter().map(|e| e.kernel).product(),
        ];
        for (filter, plane) in y.chunks_exact_mut(places.max(1)).enumerate() {
            plane.fill(bias.and_then(|b| b.get(filter % filters.max(1)).copied()).unwrap_or(T::ZERO));
        }
        let each = channels / self.groups;
        for (plane, x) in x.chunks_exact(elements.max(1)).enumerate() {
            cx.on_time()?;
            let (image, channel) = (plane / channels, plane % channels);
            let first_filter = image * filters + channel / each * depth;
            for filter in 0..depth {
                let at = (channel * depth + filter) * taps;
                let (Some(w), Some(y)) = (
                    w.get(at..at + taps),
                    y.get_mut((first_filter + filter) * places..(first_filter + filter + 1) * places),
                ) else {
                    continue;
                };
                spread(&grid, x, w, y);
            }
        }
        Ok(())
    }

    /// By the formulas of the operator's page, with a border that is never negative.
    fn extent(&self, axis: Axis, input: usize, kernel: usize) -> Option<Extent> {
        let reach = (kernel - 1).checked_mul(axis.dilation)?.checked_add(1)?;
        let whole = input.saturating_sub(1).checked_mul(axis.stride)?.checked_add(axis.added)?;
        let border = whole.checked_add(reach)?.saturating_sub(axis.output);
        let before = if self.upper { border / 2 } else { border - border / 2 };
        let Axis { stride, dilation, output, .. } = axis;
        Some(Extent { input, output, kernel, stride, dilation, before })
    }
}

/// Adds the products of one channel to one filter's plane.
fn spread<T: Float>([a, b, c]: &[Extent; AXES], x: &[T], w: &[T], y: &mut [T]) {
    let mut taps = w.iter();
    for (ta, tb, tc) in (0..a.kernel)
        .flat_map(|ta| (0..b.kernel).flat_map(move |tb| (0..c.kernel).map(move |tc| (ta, tb, tc))))
    {
        let Some(weight) = taps.next() else { return };
        let rows = (0..a.input).flat_map(|ia| (0..b.input).map(move |ib| (ia, ib)));
        for ((ia, ib), row) in rows.zip(x.chunks_exact(c.input.max(1))) {
            let (Some(ya), Some(yb)) = (a.place(ia, ta), b.place(ib, tb)) else { continue };
            let start = (ya * b.output + yb) * c.output;
            let Some(y) = y.get_mut(start..start + c.output) else { continue };
            for (ic, x) in row.iter().enumerate() {
                if let Some(to) = c.place(ic, tc).and_then(|place| y.get_mut(place)) {
                    *to = to.plus(x.times(*weight));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Attribute, Attributes};

    fn convolved(lists: &[(&'static str, &[i64])], x: &Tensor, w: &Tensor) -> (Vec<usize>, Vec<f32>) {
        let mut attributes = Attributes::default();
        for (name, values) in lists {
            attributes.insert(*name, Attribute::Ints(values.to_vec()));
        }
        let node = Node {
            operator: OPERATOR,
            domain: "",
            version: 11,
            attributes: &attributes,
            inputs: &[Some(None), Some(None)],
            outputs: 1,
        };
        let mut outputs = [Tensor::default()];
        let inputs = [Some(x.view()), Some(w.view())];
        build(&node).unwrap().run(&inputs, &mut outputs, &RunContext::default()).unwrap();
        (outputs[0].dims().to_vec(), outputs[0].values::<f32>().unwrap().to_vec())
    }

    /// The numbers are onnxruntime 1.32's.
    #[test]
    fn a_stated_shape_may_be_smaller_and_larger_than_what_the_products_reach() {
        let x = Tensor::new(&[1, 1, 3], vec![1.0_f32, 2.0, 3.0]).unwrap();
        let w = Tensor::new(&[1, 1, 2], vec![1.0_f32, 10.0]).unwrap();
        let smaller = convolved(&[("strides", &[1]), ("output_shape", &[3])], &x, &w);
        assert_eq!(smaller, (vec![1, 1, 3], vec![12.0, 23.0, 30.0]));
        let larger = convolved(&[("strides", &[3]), ("output_shape", &[10])], &x, &w);
        assert_eq!(larger, (vec![1, 1, 10], vec![1.0, 10.0, 0.0, 2.0, 20.0, 0.0, 3.0, 30.0, 0.0, 0.0]));
    }
}
